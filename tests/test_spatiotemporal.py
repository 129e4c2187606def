"""The spatio-temporal network: what it is, and that its fast forward pass computes what the plain one would."""

import pytest
import torch
import torch.nn.functional as F

from framepred.data.glyphs import load_digits
from framepred.data.moving import MovingDigits
from framepred.metrics import cross_entropy, entropy_floor, squared_error
from framepred.models import PRESETS, SpatioTemporal, build
from framepred.models.layers.warp import flow_smoothness, warp
from framepred.precision import autocast


@pytest.fixture(scope="module")
def batch():
    clips = MovingDigits(load_digits("uci"), n_frames=7, frame_size=32)
    return clips.sample(3, seed=0).split(4)


def moving(preset="tiny", **changes):
    """A network whose flow head is not zero, so that something moves."""
    model = build("spatiotemporal", preset, **changes)
    torch.nn.init.normal_(model.flow_head.weight, std=3, generator=torch.Generator().manual_seed(0))
    return model


# --- what it is ------------------------------------------------------------------------------------------------------


def test_parameters_of_the_thesis():
    def conv(n_in, n_out, size, bias=True):
        return n_in * n_out * size**2 + bias * n_out

    gates = 4 * 64
    cell = conv(16, gates, 7) + conv(64, gates, 7, bias=False)
    flow = conv(64, 2, 15) + conv(2, 2, 15) + conv(2, 2, 1)
    plain = conv(1, 16, 7) + cell + flow + conv(16, 1, 7)
    peepholes = 3 * 64
    assert plain == 1_035_071 and plain + peepholes == 1_035_263
    for with_peepholes in (True, False):
        model = build("spatiotemporal", peepholes=with_peepholes)
        assert sum(p.numel() for p in model.parameters()) == plain + with_peepholes * peepholes


@pytest.mark.parametrize("preset", PRESETS["spatiotemporal"])
def test_untrained_network_moves_nothing(preset, batch):
    context, _ = batch
    model = build("spatiotemporal", preset)
    with torch.no_grad():
        forecast = model(context, horizon=2)
        copy = model.decode(model.encode(context[:, -1]))
    assert not forecast.flow.any()
    torch.testing.assert_close(forecast.logits[:, 0], copy, atol=1e-5, rtol=0)


def test_flow_is_a_look_up_in_pixels_of_the_frame(batch):
    context, _ = batch
    still, shifting = build("spatiotemporal", "tiny"), build("spatiotemporal", "tiny")
    with torch.no_grad():
        shifting.flow_head.bias.copy_(torch.tensor([3.0, -1.0]))  # in pixels of the half-size features
        a, b = still(context, 1), shifting(context, 1)
    assert (b.flow[:, :, 0] == 6).all() and (b.flow[:, :, 1] == -2).all()
    # out(p) = in(p + flow), away from the borders
    torch.testing.assert_close(b.logits[..., 4:-4, 2:-8], a.logits[..., 2:-6, 8:-2], atol=1e-5, rtol=0)


def test_the_flow_returned_is_the_flow_applied(batch):
    context, _ = batch
    model = moving()
    with torch.no_grad():
        forecast = model(context, 1)
        moved = warp(model.encode(context[:, -1]), forecast.flow[:, 0, :, ::2, ::2] / 2)
    assert forecast.flow.std() > 0.1
    torch.testing.assert_close(model.decode(moved), forecast.logits[:, 0], atol=1e-5, rtol=0)


# --- the fast pass is the plain one ----------------------------------------------------------------------------------


def step_by_step(model, context, horizon, given=()):
    """The equations, one frame at a time; `given[t]` is fed back as frame t where there is one."""

    def conv(layer, x):
        return F.conv2d(x, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)

    p = model.patch

    def patches(x):  # (B, C, h, w) to (B, C·p², h/p, w/p), as a patch's pixels become channels
        B, C, H, W = x.shape
        return x.reshape(B, C, H // p, p, W // p, p).permute(0, 1, 3, 5, 2, 4).reshape(B, C * p * p, H // p, W // p)

    def unpatched(x):
        B, C, H, W = x.shape
        return x.reshape(B, C // p**2, p, p, H, W).permute(0, 1, 4, 2, 5, 3).reshape(B, C // p**2, H * p, W * p)

    def sample(U, flow):  # T Eq. 3.5, with its sums over all rows n and columns m
        H, W = U.shape[-2:]
        m, n = torch.arange(W), torch.arange(H)
        x, y = m + flow[:, 0], n[:, None] + flow[:, 1]
        along_x = (1 - (x[..., None] - m).abs()).clamp(min=0)
        along_y = (1 - (y[..., None] - n).abs()).clamp(min=0)
        return torch.einsum("bcnm,bijm,bijn->bcij", U, along_x, along_y)

    def gate(h, c):  # T Eq. 3.1, with input and state concatenated
        weight = torch.cat([model.cell.input_to_gates.weight, model.cell.state_to_gates.weight], 1)
        both = torch.cat([patches(features), h], 1)
        i, f, g, o = F.conv2d(both, weight, model.cell.input_to_gates.bias, padding=weight.shape[-1] // 2).chunk(4, 1)
        W_ci, W_cf, W_co = model.cell.peephole
        new = torch.sigmoid(f + W_cf * c) * c + torch.sigmoid(i + W_ci * c) * g.tanh()
        return torch.sigmoid(o + W_co * new) * new.tanh(), new

    logits, flows = [], []
    h = c = torch.zeros(len(context), model.cell.hidden_channels, *(side // (2 * p) for side in context.shape[-2:]))
    for t in range(context.shape[1] + horizon - 1):
        predicted = t - context.shape[1]
        if predicted < 0:
            frame = context[:, t]
        elif predicted < len(given):
            frame = given[predicted]
        else:
            frame = logits[-1].sigmoid()
        features = F.max_pool2d(conv(model.encoder, frame).tanh(), 2)
        h, c = gate(h, c)
        flow = conv(model.flow_head, conv(model.flow[1], conv(model.flow[0], unpatched(h))))
        repeated = sample(features, flow).repeat_interleave(2, -1).repeat_interleave(2, -2)
        logits.append(conv(model.decoder, repeated))
        flows.append(2 * flow.repeat_interleave(2, -1).repeat_interleave(2, -2))
    return torch.stack(logits[-horizon:], 1), torch.stack(flows[-horizon:], 1)


def with_random_peepholes(model):
    torch.nn.init.normal_(model.cell.peephole, generator=torch.Generator().manual_seed(1))
    return model


PATCHED = [{}, {"patch": 2}, {"patch": 4, "hidden": 16, "kernel_size": 5, "cell_kernel": 3}]


@pytest.mark.parametrize("changes", PATCHED)
def test_rollout_equals_the_equations_step_by_step(changes, batch):
    context, _ = batch
    model = with_random_peepholes(moving(**changes))
    with torch.no_grad():
        forecast = model(context, 3)
        logits, flow = step_by_step(model, context, 3)
    assert flow.std() > 0.1
    torch.testing.assert_close(forecast.logits, logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(forecast.flow, flow, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changes", PATCHED)
def test_one_step_equals_the_equations_step_by_step(changes, batch):
    context, target = batch
    model = with_random_peepholes(moving(**changes))
    with torch.no_grad():
        forecast = model(context, 3, truth=target)
        logits, flow = step_by_step(model, context, 3, given=target.unbind(1))
    torch.testing.assert_close(forecast.logits, logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(forecast.flow, flow, atol=1e-4, rtol=1e-4)


def test_one_step_sees_only_the_past(batch):
    context, target = batch
    model = moving()
    with torch.no_grad():
        before = model(context, 3, truth=target).logits
        for t in range(3):
            changed = target.clone()
            changed[:, t:] = 1 - changed[:, t:]
            after = model(context, 3, truth=changed).logits
            assert torch.equal(after[:, : t + 1], before[:, : t + 1])
            assert t == 2 or not torch.allclose(after[:, t + 1], before[:, t + 1])


def test_truth_mask_chooses_what_is_fed_back(batch):
    context, target = batch
    model = moving()
    with torch.no_grad():
        one_step, rollout = model(context, 3, truth=target).logits, model(context, 3).logits
        mask = torch.tensor([[True] * 3, [False] * 3, [True, False, False]])
        mixed = model.forecast(context, 3, target, mask).logits
    torch.testing.assert_close(mixed[0], one_step[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mixed[1], rollout[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mixed[2, :2], one_step[2, :2], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(mixed[2, 2], one_step[2, 2]) and not torch.allclose(mixed[2, 2], rollout[2, 2])


def test_batched_equals_single(batch):
    context, _ = batch
    model = moving()
    with torch.no_grad():
        together = model(context, 3)
        for b in range(len(context)):
            alone = model(context[b : b + 1], 3)
            torch.testing.assert_close(together.logits[b : b + 1], alone.logits, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(together.flow[b : b + 1], alone.flow, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("horizon", "truth"), [(1, False), (3, False), (3, True)])
def test_shapes_of_a_forecast(horizon, truth, batch):
    context, target = batch
    forecast = build("spatiotemporal", "tiny")(context, horizon, truth=target[:, :horizon] if truth else None)
    assert forecast.logits.shape == (3, horizon, 1, 32, 32) and forecast.logits.dtype == torch.float32
    assert forecast.flow.shape == (3, horizon, 2, 32, 32) and forecast.flow.dtype == torch.float32


@pytest.mark.parametrize("preset", ["tiny", "book"])
def test_bf16_is_near_fp32(preset, batch):
    context, target = batch
    model = moving(preset)
    with torch.no_grad():
        exact = model(context, 3)
        with autocast("cpu", "bf16"):
            rounded = model(context, 3)
    assert rounded.logits.dtype == rounded.flow.dtype == torch.float32
    # bfloat16 keeps 8 bits: errors of 2^-8 of a value, which ten convolutions in a row enlarge a few times
    assert (rounded.frames - exact.frames).abs().max() < 0.05
    torch.testing.assert_close(
        cross_entropy(rounded.logits, target), cross_entropy(exact.logits, target), rtol=0.01, atol=0
    )


def test_network_in_bfloat16_returns_float32_logits(batch):
    context, _ = batch
    forecast = build("spatiotemporal", "tiny").bfloat16()(context.bfloat16(), 2)
    assert forecast.logits.dtype == forecast.flow.dtype == torch.float32


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS["spatiotemporal"])
def test_every_parameter_learns_after_one_step(preset, batch):
    context, target = (frames[:1] for frames in batch)
    model = build("spatiotemporal", preset)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model.loss(context, target)[0].backward()
    blocked = {name for name, p in model.named_parameters() if not p.grad.any()}
    assert blocked == {name for name, _ in model.named_parameters() if name.startswith(("cell.", "flow."))}
    optimizer.step()
    optimizer.zero_grad()
    model.loss(context, target)[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.any() and parameter.grad.isfinite().all(), name
    assert all(row.any() for row in model.cell.peephole.grad)


@pytest.mark.parametrize(("loss", "error"), [("squared", squared_error), ("cross-entropy", cross_entropy)])
def test_loss_is_the_error_and_the_smoothness_of_the_half_size_flow(loss, error, batch):
    context, target = batch
    model = moving(loss=loss, smoothness=10.0)
    with torch.no_grad():
        value, forecast = model.loss(context, target)
        model.smoothness = 0.0
        without, _ = model.loss(context, target)
    expected = error(forecast.frames if loss == "squared" else forecast.logits, target).mean()
    torch.testing.assert_close(without, expected)
    penalty = flow_smoothness(forecast.flow[..., ::2, ::2] / 2).mean()
    assert penalty > 0.01
    torch.testing.assert_close(value - without, 10 * penalty, rtol=1e-3, atol=1e-4)


def test_defaults_are_the_loss_of_the_thesis():
    model = build("spatiotemporal")
    assert model.error is squared_error and model.smoothness == 1e-2


def test_a_few_steps_lower_the_loss(batch):
    context, target = batch
    model = build("spatiotemporal", "tiny")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss, _ = model.loss(context, target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_nats_are_at_least_the_floor_and_twice_the_squared_error(batch):
    context, target = batch
    with torch.no_grad():
        forecast = moving()(context, 3)
    bound = entropy_floor(target) + 2 * squared_error(forecast.frames, target)
    assert (cross_entropy(forecast.logits, target) >= bound).all()


# --- use -------------------------------------------------------------------------------------------------------------


def test_saved_network_predicts_the_same(batch, tmp_path):
    context, _ = batch
    model = moving(smoothness=0.5)
    model.save_pretrained(tmp_path)
    loaded = SpatioTemporal.from_pretrained(tmp_path)
    assert loaded.smoothness == 0.5 and loaded.error is model.error
    with torch.no_grad():
        assert torch.equal(loaded(context, 3).logits, model(context, 3).logits)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="unknown loss 'l2'; known: squared, cross-entropy"):
        build("spatiotemporal", "tiny", loss="l2")
    with pytest.raises(ValueError, match="smoothness is -1"):
        build("spatiotemporal", "tiny", smoothness=-1.0)
    for name, size in {"kernel_size": 4, "cell_kernel": 2, "flow_kernel": -1}.items():
        with pytest.raises(ValueError, match=f"{name} is {size}; an odd one keeps the frame's size"):
            build("spatiotemporal", "tiny", **{name: size})


def test_bad_frames_are_refused():
    model = build("spatiotemporal", "tiny")
    with pytest.raises(ValueError, match="multiples of 2"):
        model(torch.rand(1, 3, 1, 31, 32))
    with pytest.raises(ValueError, match="horizon is 0"):
        model(torch.rand(1, 3, 1, 32, 32), horizon=0)
    with pytest.raises(ValueError, match="frames that are to be predicted"):
        model(torch.rand(1, 3, 1, 32, 32), horizon=2, truth=torch.rand(1, 3, 1, 32, 32))
