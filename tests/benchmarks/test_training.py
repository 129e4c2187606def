"""The training loop against the bare steps that it consists of: what all its care costs.

A step of the network takes a second and swings by a tenth with whatever else the machine does; the loop's care takes
milliseconds. The difference of two such times would be noise. So the care is measured around a network that computes
next to nothing, and set against a step of the one that does.
"""

import pytest
import torch
from torch import nn

from framepred.data.glyphs import load_digits
from framepred.data.moving import MovingDigits
from framepred.models import Forecast, FramePredictor, build
from framepred.precision import autocast
from framepred.training.config import TrainConfig
from framepred.training.loop import train

BATCH, STEPS, ROUNDS = 4, 20, 4
OVERHEAD = 0.03


class Idle(FramePredictor):
    """Has the parameters of a network, which clipping, the optimiser and the average work on, and hardly uses them."""

    network = "idle"

    def __init__(self, network):
        super().__init__()
        self.weights = nn.ParameterList(p.detach().clone() for p in network.parameters())
        self.calls = 0

    def forecast(self, context, horizon, truth=None, truth_mask=None):
        self.calls += 1
        last = context[:, -1:].expand(-1, horizon, -1, -1, -1)
        return Forecast(last * 2 - 1 + sum(weight.mean() for weight in self.weights))


def bare_steps(model, n, context, target):
    """Forward, backward and step, on clips made beforehand."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(n):
        with autocast("cpu"):
            loss, _ = model.loss(context, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@pytest.mark.benchmark(group=f"training, {STEPS} idle steps and one of convlstm patched (batch {BATCH})")
def test_loop_costs_little_over_its_steps(benchmark, in_turn):
    clips, config = MovingDigits(load_digits("uci")), TrainConfig(steps=STEPS, batch_size=BATCH, ema=0.999)
    model = build("convlstm", "patched")
    idle = Idle(model)
    context, target = clips.sample(BATCH).split(10)
    runs = {
        "step": lambda: bare_steps(model, 1, context, target),
        "bare": lambda: bare_steps(idle, STEPS, context, target),
        "loop": lambda: train(idle, clips, config),
    }
    seconds = in_turn(runs, ROUNDS)
    assert idle.calls == 2 * STEPS * len(seconds["loop"])  # the loop asks the network once a step
    step, bare, loop = (min(times) for times in seconds.values())
    care = (loop - bare) / STEPS
    print(f"\na step: {step:.2f} s; the loop adds {care * 1e3:.1f} ms, {care / step:.2%}")
    if benchmark.stats is not None:  # None under --benchmark-disable
        assert care <= OVERHEAD * step
