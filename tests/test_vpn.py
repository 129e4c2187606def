"""The Video Pixel Network: what it is, what each pixel may depend on, and that the fast ways equal the naive ones."""

import pytest
import torch
import torch.nn.functional as F

from framepred.data.glyphs import load_digits
from framepred.data.moving import MovingDigits
from framepred.metrics import cross_entropy, entropy_floor, squared_error
from framepred.models import PRESETS, VideoPixelNetwork, build
from framepred.models.layers.masked import causal_mask
from framepred.models.sampling import waves
from framepred.precision import autocast


@pytest.fixture(scope="module")
def batch():
    clips = MovingDigits(load_digits("uci"), n_frames=7, frame_size=32)
    return clips.sample(3, seed=0).split(4)


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def loud(preset="tiny", **changes):
    """A network whose masked layers speak up: pixels change their neighbours' logits by more than rounding errors."""
    model = build("vpn", preset, **changes)
    with torch.no_grad():
        model.decoder.frame.weight.mul_(3)
        for block in model.decoder.blocks:
            block.expand.weight.mul_(3)
        model.decoder.head[-1].weight.mul_(10)
        model.decoder.head[-1].bias.zero_()
    return model.eval()


# --- what it is ------------------------------------------------------------------------------------------------------


def test_parameters_of_the_thesis():
    def conv(n_in, n_out, size, bias=True):
        return n_in * n_out * size**2 + bias * n_out

    block = conv(256, 128, 1) + conv(128, 128, 3) + conv(128, 256, 1)
    encoder = conv(1, 256, 7) + 16 * block
    cell = conv(256, 4 * 256, 7) + conv(256, 4 * 256, 7, bias=False)
    decoder = conv(256 + 1, 256, 7) + 24 * block + conv(256, 768, 1) + conv(768, 768, 1) + conv(768, 1, 1)
    plain, peepholes = encoder + cell + decoder, 3 * 256
    assert plain == 38_256_897 and plain + peepholes == 38_257_665
    with torch.device("meta"):
        for with_peepholes in (True, False):
            model = build("vpn", peepholes=with_peepholes)
            assert sum(p.numel() for p in model.parameters()) == plain + with_peepholes * peepholes


def test_compact_has_the_layers_of_the_thesis():
    with torch.device("meta"):
        layers = {preset: [type(m) for m in build("vpn", preset).modules()] for preset in ("thesis", "compact")}
    assert layers["thesis"] == layers["compact"]


def test_first_layer_is_one_convolution_of_context_and_frame_with_the_frame_masked():
    decoder = build("vpn", "tiny", hidden_channels=48).decoder
    context, frame = noise(2, 3, 8, 8), noise(2, 1, 8, 8)
    mask = torch.ones(4, 7, 7)
    mask[3] = causal_mask(7, "A")
    weight = torch.cat([decoder.context.weight, decoder.frame.weight], 1) * mask
    expected = F.conv2d(torch.cat([context, frame], 1), weight, decoder.context.bias, padding=3)
    found = decoder.context(context) + decoder.frame(frame)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_dilations_repeat_over_the_encoder():
    model = build("vpn", "tiny", encoder_blocks=8, dilations=(1, 2, 4, 8))
    assert [block.spatial.dilation[0] for block in model.encoder[1:]] == 2 * [1, 2, 4, 8]
    assert model(noise(1, 2, 1, 32, 32), 1).logits.shape == (1, 1, 1, 32, 32)


# --- what a pixel may depend on --------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS["vpn"])
def test_a_pixel_depends_on_the_pixels_before_it_and_no_others(preset):
    size, frame = 8, 1
    model = build("vpn", preset)
    context = noise(1, 1, 1, size, size)
    target = noise(1, 3, 1, size, size).requires_grad_()
    logits = model.teacher_forced(context, target).logits[0, frame].flatten()
    for i in (0, 29, 63):
        (gradient,) = torch.autograd.grad(logits[i], target, retain_graph=True)
        before, current, after = gradient[0].flatten(1)
        assert not current[i:].any()
        assert current[:i].any() or i == 0
        assert before[i:].any()  # all of the frame before
        assert not after.any()
    (gradient,) = torch.autograd.grad(logits.sum(), target)
    assert gradient[0, frame].any() and not gradient[0, frame].flatten()[-1]


@pytest.mark.parametrize("preset", ["tiny", "book"])
def test_no_path_leads_from_the_current_frame_through_the_context(preset):
    model = build("vpn", preset)
    context, target = noise(1, 2, 1, 16, 16), noise(1, 3, 1, 16, 16).requires_grad_()
    logits = model(context, 3, truth=target).logits
    for t in range(3):
        (gradient,) = torch.autograd.grad(logits[:, t].sum(), target, retain_graph=True)
        assert not gradient[:, t:].any()
        assert all(gradient[:, k].any() for k in range(t))


def test_zero_frame_pass_is_the_decoder_with_a_frame_of_zeros(batch):
    context, target = batch
    model = loud()
    with torch.no_grad():
        _, shares = model._zero_frame(context, 3, target, None, False)
        expected = torch.stack([model.decoder(share, torch.zeros(3, 1, 32, 32)) for share in shares], 1)
        assert torch.equal(model(context, 3, truth=target).logits, expected)
        for t in range(3):  # the true frame t changes what comes after it, not its own forecast
            other = target.clone()
            other[:, t] = 1 - other[:, t]
            logits = model(context, 3, truth=other).logits
            assert torch.equal(logits[:, : t + 1], expected[:, : t + 1])
            assert t == 2 or not torch.allclose(logits[:, t + 1], expected[:, t + 1])


# --- the fast ways are the naive ones --------------------------------------------------------------------------------


def test_teacher_forced_nats_are_the_sum_of_the_conditional_terms():
    model = loud()
    context, target = noise(2, 2, 1, 8, 12), noise(2, 2, 1, 8, 12)
    with torch.no_grad():
        nats = cross_entropy(model.teacher_forced(context, target).logits, target)
        expected = torch.zeros(2, 2)
        for t in range(2):
            for i in range(96):  # the pixels from i on are hidden from the network
                known = target[:, : t + 1].clone()
                known[:, t].flatten(1)[:, i:] = 0
                logit = model.teacher_forced(context, known).logits[:, t].flatten(1)[:, i]
                true = target[:, t].flatten(1)[:, i]
                p = logit.double().sigmoid()
                expected[:, t] -= (true * p.log() + (1 - true) * (1 - p).log()).float()
    torch.testing.assert_close(nats, expected, atol=1e-3, rtol=1e-5)


def draw_naively(model, context, horizon, draws=None):
    """Pixel by pixel, one pass of the whole network for each."""
    B, _, _, H, W = context.shape
    known, logits = context, []
    for t in range(horizon):
        frame, logit = torch.zeros(B, 1, 1, H, W), torch.zeros(B, H, W)
        for y in range(H):
            for x in range(W):
                logit[:, y, x] = model.teacher_forced(known, frame).logits[:, 0, 0, y, x]
                p = logit[:, y, x].sigmoid()
                frame[:, 0, 0, y, x] = p if draws is None else (draws[:, t, y, x] < p).float()
        known = torch.cat([known, frame], 1)
        logits.append(logit)
    return torch.stack(logits, 1)[:, :, None], known[:, -horizon:]


@pytest.mark.parametrize(
    ("preset", "size", "horizon"),
    [("tiny", (12, 8), 2), ("tiny", (12, 4), 1), ("book", (8, 16), 1), ("compact", (5, 6), 1)],
)
def test_cached_equals_naive(preset, size, horizon):
    model = loud(preset)
    context = noise(2, 2, 1, *size)
    draws = torch.rand(2, horizon, *size, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        mean_field = model.mean_field(context, horizon)
        logits, frames = draw_naively(model, context, horizon)
        torch.testing.assert_close(mean_field.logits, logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(mean_field.frames, frames, atol=1e-5, rtol=0)
        assert not torch.allclose(frames, model(context, horizon).frames, atol=1e-3)  # the pixels drawn do matter
        sampled = model.sample(context, horizon, seed=5)
        assert torch.equal(sampled, draw_naively(model, context, horizon, draws)[1])
    assert 0 < sampled.mean() < 1


@pytest.mark.parametrize("size", [(8, 8), (9, 2), (1, 20), (64, 64)])
def test_waves_visit_each_pixel_once_and_after_all_it_needs(size):
    H, W = size
    when = torch.full(size, -1)
    for wave, (y, x) in enumerate(waves(H, W, reach=3)):
        assert (when[y, x] == -1).all()
        for up in range(4):  # the 7×7 kernel, shifted to every pixel of the wave
            for right in range(-3, 4 if up else 0):
                inside = (y >= up) & (x + right >= 0) & (x + right < W)
                assert (when[y[inside] - up, x[inside] + right] >= 0).all()
        when[y, x] = wave
    assert (when >= 0).all()
    assert size != (64, 64) or wave + 1 == 316


def test_sample_is_a_function_of_its_seed():
    model, context = loud(), noise(2, 2, 1, 16, 16)
    state = torch.get_rng_state()
    one, same, other = (model.sample(context, 2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert set(one.unique().tolist()) == {0.0, 1.0} and one.shape == (2, 2, 1, 16, 16)
    assert torch.equal(torch.get_rng_state(), state)


def test_sampled_pixels_are_white_as_often_as_the_network_says():
    model, context = build("vpn", "tiny", output_bias=1.0), noise(1, 1, 1, 16, 16).expand(200, -1, -1, -1, -1)
    with torch.no_grad():
        first = model(context[:1], 1).frames[0, 0, 0, 0, 0]  # the first pixel sees a frame of zeros
        share = model.sample(context, 1)[:, 0, 0, 0, 0].mean()
    assert abs(share - first) < 4 * (first * (1 - first) / 200) ** 0.5


@pytest.mark.parametrize("predict", ["forward", "teacher_forced", "mean_field"])
def test_batched_equals_single(predict, batch):
    context, target = batch
    model = loud()

    def run(b):
        given = target[b] if predict == "teacher_forced" else 3
        return getattr(model, predict)(context[b], given).logits

    with torch.no_grad():
        together = run(slice(None))
        for b in range(3):
            torch.testing.assert_close(together[b : b + 1], run(slice(b, b + 1)), atol=1e-4, rtol=1e-5)


def test_truth_mask_chooses_what_is_fed_back(batch):
    context, target = batch
    model = loud()
    with torch.no_grad():
        one_step, rollout = model(context, 3, truth=target).logits, model(context, 3).logits
        mask = torch.tensor([[True] * 3, [False] * 3, [True, False, False]])
        mixed = model.forecast(context, 3, target, mask).logits
    torch.testing.assert_close(mixed[0], one_step[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[1], rollout[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[2, :2], one_step[2, :2], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(mixed[2, 2], one_step[2, 2]) and not torch.allclose(mixed[2, 2], rollout[2, 2])


@pytest.mark.parametrize("preset", ["tiny", "book"])
def test_bf16_is_near_fp32(preset, batch):
    context, target = batch
    model = build("vpn", preset)
    with torch.no_grad():
        for predict in (
            lambda: model(context, 3),
            lambda: model.teacher_forced(context, target),
            lambda: model.mean_field(context, 1),
        ):
            exact = predict()
            with autocast("cpu", "bf16"):
                rounded = predict()
            assert rounded.logits.dtype == torch.float32
            # bfloat16 keeps 8 bits: errors of 2^-8 of a value, which the layers in a row enlarge a few times
            assert (rounded.frames - exact.frames).abs().max() < 0.05


def test_network_in_bfloat16_returns_float32_logits(batch):
    context, target = (frames.bfloat16() for frames in batch)
    model = build("vpn", "tiny").bfloat16()
    for forecast in (model(context, 2), model.teacher_forced(context, target), model.mean_field(context, 2)):
        assert forecast.logits.dtype == torch.float32
    assert model.sample(context, 2).dtype == torch.float32


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS["vpn"])
def test_every_parameter_learns_after_one_step(preset):
    context, target = noise(1, 1, 1, 8, 8), noise(1, 2, 1, 8, 8)
    model = build("vpn", preset)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    model.loss(context, target)[0].backward()
    optimizer.step()
    optimizer.zero_grad()
    model.loss(context, target)[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.any() and parameter.grad.isfinite().all(), name
    assert all(row.any() for row in model.cell.peephole.grad)


def test_masked_taps_of_a_trained_network_have_no_effect(batch):
    context, target = batch
    model = build("vpn", "tiny")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model.loss(context, target)[0].backward()
        optimizer.step()
    with torch.no_grad():
        before = model.teacher_forced(context, target).logits
        model.decoder.frame.weight[:, :, causal_mask(7, "A") == 0] = 1e6
        for block in model.decoder.blocks:
            block.spatial.weight[:, :, causal_mask(3, "B") == 0] = 1e6
        assert torch.equal(model.teacher_forced(context, target).logits, before)


def test_loss_adds_the_two_passes_with_their_weights(batch):
    context, target = batch
    model = loud()
    assert (model.zero_weight, model.current_weight) == (1.0, 0.2)  # T §3.4.1
    with torch.no_grad():
        value, forecast = model.loss(context, target, truth=target)
        zero = cross_entropy(model(context, 3, truth=target).logits, target).mean()
        current = cross_entropy(model.teacher_forced(context, target).logits, target).mean()
        torch.testing.assert_close(value, zero + 0.2 * current)
        torch.testing.assert_close(cross_entropy(forecast.logits, target).mean(), zero)
        for weights, expected in {(2.0, 0.0): 2 * zero, (0.0, 3.0): 3 * current}.items():
            model.zero_weight, model.current_weight = weights
            torch.testing.assert_close(model.loss(context, target, truth=target)[0], expected)


def test_rollout_trains_on_the_predictions_of_the_zero_frame_pass(batch):
    context, target = batch
    model = loud()
    with torch.no_grad():
        _, forecast = model.loss(context, target)
        assert torch.equal(forecast.logits, model(context, 3).logits)


@pytest.mark.parametrize("truth", [False, True])
def test_checkpointing_changes_neither_loss_nor_gradients(truth, batch):
    context, target = batch
    results = []
    for checkpointing in (False, True):
        model = build("vpn", "tiny", checkpointing=checkpointing)
        loss, _ = model.loss(context, target, target if truth else None)
        loss.backward()
        results.append([loss, *(p.grad for p in model.parameters())])
    for plain, checkpointed in zip(*results):
        torch.testing.assert_close(plain, checkpointed, atol=1e-4, rtol=1e-4)


def test_a_few_steps_lower_the_loss(batch):
    context, target = batch
    model = build("vpn", "tiny")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss, _ = model.loss(context, target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_nats_are_at_least_the_floor_and_twice_the_squared_error(batch):
    context, target = batch
    with torch.no_grad():
        for forecast in (loud()(context, 3), loud().teacher_forced(context, target)):
            bound = entropy_floor(target) + 2 * squared_error(forecast.frames, target)
            assert (cross_entropy(forecast.logits, target) >= bound).all()


# --- use -------------------------------------------------------------------------------------------------------------


def test_saved_network_predicts_the_same(batch, tmp_path):
    context, target = batch
    model = loud(dilations=(1, 2), current_weight=0.5)
    model.save_pretrained(tmp_path)
    loaded = VideoPixelNetwork.from_pretrained(tmp_path)
    assert loaded.current_weight == 0.5
    with torch.no_grad():
        assert torch.equal(loaded(context, 3).logits, model(context, 3).logits)
        assert torch.equal(loaded.teacher_forced(context, target).logits, model.teacher_forced(context, target).logits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_channels": 24}, "hidden_channels is 24; with patch 4 it must be a multiple of 16"),
        ({"current_weight": -1.0}, "current_weight -1"),
        ({"zero_weight": 0.0, "current_weight": 0.0}, "not both 0"),
        ({"kernel_size": 4}, "kernel_size is 4"),
        ({"decoder_channels": 9}, "channels is 9"),
        ({"dilations": ()}, "dilations"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build("vpn", "tiny", **changes)


def test_bad_frames_are_refused():
    model = build("vpn", "tiny")
    good = noise(1, 3, 1, 32, 32)
    with pytest.raises(ValueError, match="multiples of 4"):
        model.mean_field(noise(1, 3, 1, 30, 32))
    with pytest.raises(ValueError, match="horizon is 0"):
        model.sample(good, horizon=0)
    with pytest.raises(ValueError, match="frames that are to be predicted"):
        model(good, horizon=2, truth=good)
    with pytest.raises(ValueError, match="truth has values from 0 to 2"):
        model.teacher_forced(good, 2 * torch.eye(32).expand(1, 1, 1, 32, 32))
