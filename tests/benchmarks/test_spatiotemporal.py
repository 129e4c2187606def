"""A training step of the spatio-temporal network against the same network written plainly."""

import pytest
import torch
from torch import nn

from framepred.benchmark.reference import plain
from framepred.models import build
from framepred.precision import autocast

BATCH, CONTEXT, HORIZON = 4, 10, 10
SPEEDUP = 1.5


@pytest.fixture(scope="module")
def networks():
    model = build("spatiotemporal", "thesis")
    nn.init.normal_(model.flow_head.weight, std=0.5, generator=torch.Generator().manual_seed(0))
    return {"framepred": model, "plain": plain(model)}


@pytest.fixture(scope="module")
def batch():
    frames = torch.rand(BATCH, CONTEXT + HORIZON, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    return frames.split([CONTEXT, HORIZON], 1)


def test_both_are_the_same_network(networks, batch):
    context, target = (frames[:1, -3:] for frames in batch)
    with torch.no_grad():
        (a, forecast), (b, other) = (networks[name].loss(context, target) for name in ("framepred", "plain"))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=0)
    torch.testing.assert_close(forecast.logits, other.logits, rtol=1e-3, atol=1e-3)


@pytest.mark.benchmark(group="spatio-temporal, training step (thesis, batch 4): ours and the plain one in turn")
def test_training_step_is_faster_than_plain(networks, batch, benchmark, in_turn):
    context, target = batch

    def step(name, precision):
        networks[name].zero_grad()
        with autocast("cpu", precision):
            loss, _ = networks[name].loss(context, target)
        loss.backward()

    seconds = in_turn({"plain": lambda: step("plain", "fp32"), "framepred": lambda: step("framepred", "auto")}, 3)
    theirs, ours = (min(times) for times in seconds.values())
    print(f"\ntraining step: plain {theirs:.2f} s, framepred {ours:.2f} s: {theirs / ours:.2f}× faster")
    if benchmark.stats is not None:  # None under --benchmark-disable
        assert theirs / ours >= SPEEDUP
