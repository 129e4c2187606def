"""The ConvLSTM network: what it is, what it is given under each protocol, and what it refuses."""

import json
from inspect import unwrap

import pytest
import torch
import torch.nn.functional as F

import framepred
from framepred.data.moving import MovingDigits
from framepred.models import NETWORKS, PRESETS, ConvLSTM, FramePredictor, build
from framepred.precision import autocast

CONTEXT, HORIZON = 4, 3


@pytest.fixture(scope="module")
def batch(uci):
    return MovingDigits(uci, n_frames=CONTEXT + HORIZON, frame_size=32).sample(3).split(CONTEXT)


@pytest.fixture(scope="module", params=[1, 4], ids=["pixels", "patches"])
def model(request):
    """A small network with random peepholes, at full resolution and patched."""
    model = build("convlstm", "tiny", patch=request.param, hidden=(6, 4), output_bias=0.0)
    generator = torch.Generator().manual_seed(1)
    for cell in model.cells:
        torch.nn.init.normal_(cell.peephole, generator=generator)
    torch.nn.init.normal_(model.head.weight, generator=generator)  # predictions that depend on what is fed back
    return model


# --- what it is ------------------------------------------------------------------------------------------------------


def count(model):
    return sum(p.numel() for p in model.parameters())


def layers(patch, hidden, peepholes, kernel=5):
    """Parameters by the layer list: four gates with a bias, per-channel peepholes, a 1×1 convolution of all states."""
    total = 0
    for n_in, n_out in zip((patch**2, *hidden), hidden):
        total += 4 * n_out * (kernel**2 * (n_in + n_out) + 1) + peepholes * 3 * n_out
    return total + sum(hidden) * patch**2 + patch**2


@pytest.mark.parametrize(
    ("preset", "peepholes", "expected"),
    [("thesis", True, 3_701_249), ("thesis", False, 3_700_481), ("patched", True, 3_897_104)],
)
def test_parameter_counts(preset, peepholes, expected):
    assert layers(4 if preset == "patched" else 1, (128, 64, 64), peepholes) == expected
    assert count(build("convlstm", preset, peepholes=peepholes)) == expected


def test_default_is_the_network_of_the_thesis():
    assert count(build("convlstm")) == count(ConvLSTM()) == 3_701_249


def test_output_starts_at_the_odds_of_a_dark_page():
    assert build("convlstm", "tiny").head.bias.tolist() == [-3] * 16
    assert build("convlstm", "tiny", output_bias=0.5).head.bias.tolist() == [0.5] * 16


# --- what it computes ------------------------------------------------------------------------------------------------


def step_by_step(model, context, horizon, fed_back=()):
    """The equations, frame by frame; `fed_back[t]` is what follows the prediction of frame t, where it is given."""

    def patches(image, p):  # (B, 1, H, W) to (B, p², H/p, W/p)
        B, _, H, W = image.shape
        return image.reshape(B, H // p, p, W // p, p).permute(0, 2, 4, 1, 3).reshape(B, p * p, H // p, W // p)

    def unpatched(maps, p):
        B, _, h, w = maps.shape
        return maps.reshape(B, p, p, h, w).permute(0, 3, 1, 4, 2).reshape(B, 1, h * p, w * p)

    def step(cell, x, h, c):  # T Eq. 3.1, input and state in one convolution
        weight = torch.cat([cell.input_to_gates.weight, cell.state_to_gates.weight], 1)
        padding = weight.shape[-1] // 2
        i, f, g, o = F.conv2d(torch.cat([x, h], 1), weight, cell.input_to_gates.bias, padding=padding).chunk(4, 1)
        W_ci, W_cf, W_co = cell.peephole
        c_new = torch.sigmoid(f + W_cf * c) * c + torch.sigmoid(i + W_ci * c) * g.tanh()
        return torch.sigmoid(o + W_co * c_new) * c_new.tanh(), c_new

    B, _, _, H, W = context.shape
    p = model.patch
    states = [tuple(torch.zeros(2, B, cell.hidden_channels, H // p, W // p)) for cell in model.cells]
    logits = []
    for t in range(context.shape[1] + horizon - 1):
        predicted = t - context.shape[1]
        if predicted < 0:
            frame = context[:, t]
        else:
            frame = fed_back[predicted] if predicted < len(fed_back) else logits[-1].sigmoid()
        x = patches(frame, p)
        for k, cell in enumerate(model.cells):
            states[k] = step(cell, x, *states[k])
            x = states[k][0]
        logits.append(unpatched(F.conv2d(torch.cat([h for h, _ in states], 1), model.head.weight, model.head.bias), p))
    return torch.stack(logits[-horizon:], 1)


@torch.no_grad()
def test_rollout_is_the_equations_step_by_step(model, batch):
    context, target = batch
    logits = model(context, HORIZON).logits
    assert logits.shape == target.shape and logits.dtype == torch.float32
    torch.testing.assert_close(logits, step_by_step(model, context, HORIZON), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        model(context[:, :1], 1).logits, step_by_step(model, context[:, :1], 1), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_one_step_is_the_equations_step_by_step(model, batch):
    context, target = batch
    one_step = model(context, HORIZON, truth=target).logits
    torch.testing.assert_close(one_step, step_by_step(model, context, HORIZON, target.unbind(1)), atol=1e-4, rtol=1e-4)
    assert (one_step - model(context, HORIZON).logits)[:, 1:].abs().max() > 0.1  # the two protocols do differ


@torch.no_grad()
def test_one_step_sees_only_the_frames_before(model, batch):
    context, target = batch
    before = model(context, HORIZON, truth=target).logits
    for t in range(HORIZON):
        other = target.clone()
        other[:, t] = 1 - other[:, t]
        after = model(context, HORIZON, truth=other).logits
        assert torch.equal(after[:, : t + 1], before[:, : t + 1])
        assert t == HORIZON - 1 or not torch.equal(after[:, t + 1], before[:, t + 1])


@torch.no_grad()
def test_truth_mask_says_which_frames_are_fed_back_as_the_truth(model, batch):
    context, target = batch
    everything, nothing = torch.ones(3, HORIZON, dtype=torch.bool), torch.zeros(3, HORIZON, dtype=torch.bool)
    close = {"atol": 1e-5, "rtol": 1e-5}
    one_step, rollout = model.forecast(context, HORIZON, target).logits, model.forecast(context, HORIZON).logits
    torch.testing.assert_close(model.forecast(context, HORIZON, target, everything).logits, one_step, **close)
    torch.testing.assert_close(model.forecast(context, HORIZON, target, nothing).logits, rollout, **close)
    # mixed: clip 0 sees its first true frame, clip 1 its second, clip 2 none
    mask = nothing.clone()
    mask[0, 0] = mask[1, 1] = True
    mixed = model.forecast(context, HORIZON, target, mask).logits
    first = step_by_step(model, context[:1], HORIZON, [target[:1, 0]])
    second = step_by_step(model, context[1:2], HORIZON, [rollout[1:2, 0].sigmoid(), target[1:2, 1]])
    torch.testing.assert_close(mixed, torch.cat([first, second, rollout[2:]]), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_clips_of_a_batch_do_not_mix(model, batch):
    context, target = batch
    for truth in (None, target):
        together = model(context, HORIZON, truth=truth).logits
        for b in range(3):
            alone = model(context[b : b + 1], HORIZON, truth=None if truth is None else truth[b : b + 1]).logits
            torch.testing.assert_close(together[b : b + 1], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_frames_are_the_sigmoid_of_logits_and_there_is_no_flow(model, batch):
    forecast = model(batch[0], HORIZON)
    torch.testing.assert_close(forecast.frames, 1 / (1 + torch.exp(-forecast.logits)))
    assert forecast.flow is None


def test_loss_is_the_mean_nats_per_frame_of_the_rollout(model, batch):
    context, target = batch
    with torch.no_grad():
        loss, forecast = model.loss(context, target)
        p = model(context, HORIZON).frames.double()
    t = target.double()
    by_hand = -(t * p.log() + (1 - t) * (1 - p).log()).sum((2, 3, 4)).mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    torch.testing.assert_close(forecast.frames, p.float())


@torch.no_grad()
def test_bfloat16_changes_little(batch):
    context, target = batch
    model = build("convlstm", "book")
    exact = model(context, HORIZON)
    with autocast("cpu", "bf16"):
        rounded = model(context, HORIZON)
    assert rounded.logits.dtype == torch.float32
    difference = (rounded.logits - exact.logits).abs().max()
    assert 0 < difference < 0.05  # bfloat16 has 8 bits: 0.4% of logits near -3
    nats = [framepred.cross_entropy(forecast.logits, target).mean().item() for forecast in (exact, rounded)]
    assert nats[1] == pytest.approx(nats[0], rel=0.005)


def test_tiny_network_overfits_one_clip(uci):
    clip = MovingDigits(uci, 1, n_frames=10, frame_size=48).sample(1)
    context, target = clip.split(5)
    model = build("convlstm", "tiny")
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        loss, _ = model.loss(context, target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    # The best picture that stands still is the mean of the frames. What it misses is the motion.
    still = F.binary_cross_entropy(target.mean(1, keepdim=True).expand_as(target), target, reduction="sum").item() / 5
    floor = F.binary_cross_entropy(target, target, reduction="sum").item() / 5
    assert still > 2 * floor
    assert loss.item() - floor < 0.1 * (still - floor)


# --- saved, loaded, built --------------------------------------------------------------------------------------------


@torch.no_grad()
def test_saved_and_loaded_it_predicts_the_same(model, batch, tmp_path):
    model.save_pretrained(tmp_path)
    assert {"config.json", "model.safetensors"} <= {path.name for path in tmp_path.iterdir()}
    assert json.loads((tmp_path / "config.json").read_text())["network"] == "convlstm"
    for loaded in (ConvLSTM.from_pretrained(tmp_path), framepred.load(tmp_path)):
        assert isinstance(loaded, ConvLSTM) and loaded.patch == model.patch
        assert torch.equal(loaded(batch[0], HORIZON).logits, model(batch[0], HORIZON).logits)
    assert not framepred.load(tmp_path).training


def test_built_from_a_seed_and_from_nothing_else():
    state = torch.get_rng_state()
    a, b, other = (
        build("convlstm", "tiny", seed=3),
        build("convlstm", "tiny", seed=3),
        build("convlstm", "tiny", seed=4),
    )
    assert torch.equal(torch.get_rng_state(), state)
    for name, weight in a.state_dict().items():
        assert torch.equal(weight, b.state_dict()[name])
    assert not torch.equal(a.head.weight, other.head.weight)


def test_building_on_the_cpu_opens_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *device: pytest.fail("it asked a GPU"))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("it seeded the GPUs"))
    build("convlstm", "tiny")


@pytest.mark.parametrize(
    ("network", "preset"), [(network, preset) for network in PRESETS for preset in PRESETS[network]]
)
def test_every_preset_builds_its_network(network, preset):
    with torch.device("meta"):
        model = build(network, preset)
    assert type(model) is NETWORKS[network] and model.network == network and isinstance(model, FramePredictor)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_unknown_names_list_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown network 'lstm'; known: convlstm, spatiotemporal, vpn, predrnn, simvp"
    ):
        build("lstm")
    with pytest.raises(ValueError, match="unknown preset 'large' of convlstm; known: thesis, patched, book, tiny"):
        build("convlstm", "large")


@pytest.mark.parametrize("network", ["convlstm", "vpn"])
def test_sizes_of_nothing_are_refused(network):
    with pytest.raises(ValueError, match="patch is 0; expected at least 1"):
        build(network, "tiny", patch=0)
    with pytest.raises(ValueError, match="hidden is empty"):
        build("convlstm", "tiny", hidden=())


good = torch.zeros(2, 4, 1, 32, 32)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (good[0], r"context has shape \(4, 1, 32, 32\); expected 5 axes"),
        (good.expand(2, 4, 3, 32, 32), "context has 3 channels .* expected 1"),
        (good[:, :0], "context has 2 clips of 0 frames"),
        (good[:0], "context has 0 clips of 4 frames"),
        (good[..., :31], "context has frames of 32×31 pixels; this network needs multiples of 4"),
        ((255 * good).byte(), r"context is torch.uint8; expected floating point values in \[0, 1\] \(divide"),
        (good + 1.01, r"context has values from 1.01 to 1.01; expected \[0, 1\]"),
        (good - 0.01, r"context has values from -0.01 to -0.01; expected \[0, 1\]"),
        (good.index_fill(1, torch.tensor(2), torch.nan), "nan.* expected .* no NaN"),
    ],
)
def test_frames_that_do_not_fit_are_refused(context, message):
    forward = unwrap(ConvLSTM.forward)  # the annotations, enforced while the tests run, would object first to some
    model = build("convlstm", "tiny")
    with pytest.raises(ValueError, match=message):
        forward(model, context, 3)
    if context.shape[1:] != good.shape[1:] or len(context) == len(good):
        with pytest.raises(ValueError, match=message.replace("context", "truth")):
            forward(model, good, 4, truth=context)


def test_horizons_and_truths_that_do_not_fit_are_refused():
    model = build("convlstm", "tiny")
    for horizon in (0, -3):
        with pytest.raises(ValueError, match=f"horizon is {horizon}; expected at least 1"):
            model(good, horizon)
    for truth in (good[:, :2], good[:1, :3], good[:, :3, :, :28]):
        with pytest.raises(ValueError, match=r"truth has shape .*; expected \(2, 3, 1, 32, 32\)"):
            unwrap(ConvLSTM.forward)(model, good, 3, truth=truth)


@torch.no_grad()
def test_values_of_exactly_0_and_1_are_fine():
    assert build("convlstm", "tiny")(torch.cat([good, good + 1], 1), 1).logits.isfinite().all()
