"""The forecast that begins with frame 2 of the context: every prediction that a network makes, and the loss over all."""

import pytest
import torch

from framepred.data.moving import MovingDigits
from framepred.metrics import cross_entropy
from framepred.models import build

C, T = 4, 3
CHANGES = {"convlstm": {}, "spatiotemporal": {"patch": 2, "loss": "cross-entropy", "smoothness": 0.0}, "vpn": {}}
networks = pytest.mark.parametrize("network", CHANGES)


@pytest.fixture(scope="module")
def batch(uci):
    return MovingDigits(uci, n_frames=C + T, frame_size=32).sample(3).split(C)


def network_of(name):
    """A network whose predictions depend on every frame that it is given."""
    model = build(name, "tiny", **CHANGES[name])
    generator = torch.Generator().manual_seed(0)
    for key, parameter in model.named_parameters():
        if "flow_head" in key or "head.weight" in key or "peephole" in key:
            torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return model


def by_hand(model, context, *rest):
    """Frames 2, … of the context, each from those before it, one call each; then the horizon."""
    within = [model.forecast(context[:, :k], 1).logits for k in range(1, C)]
    return torch.cat([*within, model.forecast(context, T, *rest).logits], 1)


@networks
@pytest.mark.parametrize("fed_back", ["own", "truth", "some of it"])
@torch.no_grad()
def test_every_prediction_is_that_from_the_frames_before_it(network, fed_back, batch):
    context, target = batch
    model = network_of(network)
    mask = torch.tensor([[True, False, True], [False, True, False], [True, True, False]])
    rest = {"own": (), "truth": (target,), "some of it": (target, mask)}[fed_back]
    forecast = model.forecast(context, T, *rest, from_start=True)
    assert forecast.logits.shape == (3, C - 1 + T, 1, 32, 32)
    torch.testing.assert_close(forecast.logits, by_hand(model, context, *rest), atol=1e-4, rtol=1e-4)
    if forecast.flow is not None:
        assert forecast.flow.shape == (3, C - 1 + T, 2, 32, 32)
        torch.testing.assert_close(forecast.flow[:, C - 1 :], model.forecast(context, T, *rest).flow)


@networks
@torch.no_grad()
def test_loss_over_all_predictions_is_the_sum_of_the_one_step_and_the_rollout_errors(network, batch):
    context, target = batch
    model = network_of(network)
    if network == "vpn":
        model.current_weight = 0.0  # the pass with the current frame has a test of its own
    loss, forecast = model.loss(context, target, from_start=True)
    one_step = sum(
        cross_entropy(model.forecast(context[:, :k], 1).logits, context[:, k : k + 1]).sum() for k in range(1, C)
    )
    rollout = cross_entropy(model.forecast(context, T).logits, target).sum()
    assert loss.item() == pytest.approx((one_step + rollout).item() / (3 * (C - 1 + T)), rel=1e-4)
    assert forecast.logits.shape[1] == C - 1 + T


@torch.no_grad()
def test_the_vpn_reads_the_current_frame_in_the_context_too(batch):
    context, target = batch
    model = network_of("vpn")
    frames = torch.cat([context[:, 1:], target], 1)
    within = [model.teacher_forced(context[:, :k], context[:, k : k + 1]).logits for k in range(1, C)]
    ahead = model.teacher_forced(context, target).logits
    current = cross_entropy(torch.cat([*within, ahead], 1), frames).mean()
    # On true frames, so that both passes see the same ones; weights 1 and 0.2 (T §3.4.1).
    loss, zero = model.loss(context, target, target, from_start=True)
    assert loss.item() == pytest.approx((cross_entropy(zero.logits, frames).mean() + 0.2 * current).item(), rel=1e-4)
