"""A training step of the spatio-temporal network against the same network written plainly."""

import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from framepred.metrics import squared_error
from framepred.models import build
from framepred.models.warp import flow_smoothness, warp
from framepred.training import autocast

BATCH, CONTEXT, HORIZON = 4, 10, 10
SPEEDUP = 1.5


class Plain(nn.Module):
    """The thesis' network as one writes it first: every step encodes, convolves input and state in one, and decodes."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(1, 16, 7, padding=3)
        self.gates = nn.Conv2d(16 + 64, 4 * 64, 7, padding=3)
        self.peephole = nn.Parameter(torch.zeros(3, 64, 1, 1))
        self.flow = nn.Sequential(nn.Conv2d(64, 2, 15, padding=7), nn.Conv2d(2, 2, 15, padding=7), nn.Conv2d(2, 2, 1))
        self.decoder = nn.Conv2d(16, 1, 7, padding=3)

    def forward(self, context, horizon):
        logits, flows = [], []
        h = c = context.new_zeros(len(context), 64, context.shape[-2] // 2, context.shape[-1] // 2)
        for t in range(context.shape[1] + horizon - 1):
            frame = context[:, t] if t < context.shape[1] else logits[-1].sigmoid()
            features = F.max_pool2d(self.encoder(frame).tanh(), 2)
            i, f, g, o = self.gates(torch.cat([features, h], 1)).chunk(4, 1)
            i, f = torch.sigmoid(i + self.peephole[0] * c), torch.sigmoid(f + self.peephole[1] * c)
            c = f * c + i * g.tanh()
            h = torch.sigmoid(o + self.peephole[2] * c) * c.tanh()
            flows.append(self.flow(h))
            logits.append(self.decoder(F.interpolate(warp(features, flows[-1]), scale_factor=2)))
        return torch.stack(logits[-horizon:], 1), torch.stack(flows[-horizon:], 1)

    def loss(self, context, target):
        logits, flow = self(context, target.shape[1])
        return (squared_error(logits.sigmoid(), target) + 1e-2 * flow_smoothness(flow)).mean(), logits

    def copy_weights(self, model):
        self.load_state_dict(
            {
                "gates.weight": torch.cat([model.cell.input_to_gates.weight, model.cell.state_to_gates.weight], 1),
                "gates.bias": model.cell.input_to_gates.bias,
                "peephole": model.cell.peephole,
                "flow.2.weight": model.flow_head.weight,
                "flow.2.bias": model.flow_head.bias,
                **{k: v for k, v in model.state_dict().items() if k.startswith(("encoder", "decoder", "flow."))},
            }
        )


@pytest.fixture(scope="module")
def networks():
    model, plain = build("spatiotemporal", "thesis"), Plain()
    nn.init.normal_(model.flow_head.weight, std=0.5, generator=torch.Generator().manual_seed(0))
    plain.copy_weights(model)
    return {"framepred": model, "plain": plain}


@pytest.fixture(scope="module")
def batch():
    frames = torch.rand(BATCH, CONTEXT + HORIZON, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    return frames.split([CONTEXT, HORIZON], 1)


def test_both_are_the_same_network(networks, batch):
    context, target = (frames[:1, -3:] for frames in batch)
    with torch.no_grad():
        (a, forecast), (b, logits) = (networks[name].loss(context, target) for name in ("framepred", "plain"))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=0)
    torch.testing.assert_close(forecast.logits, logits, rtol=1e-3, atol=1e-3)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# The processor time of one thread, taken in turns: what else the machine does hardly matters to it.
@pytest.mark.benchmark(group="spatio-temporal, training step (thesis, batch 4)", timer=time.process_time)
def test_training_step_is_faster_than_plain(networks, batch, benchmark, one_thread):
    context, target = batch
    plain_seconds = []

    def step(name, precision):
        networks[name].zero_grad()
        with autocast("cpu", precision):
            loss, _ = networks[name].loss(context, target)
        loss.backward()

    def plain_step():
        start = time.process_time()
        step("plain", "fp32")
        plain_seconds.append(time.process_time() - start)

    benchmark.pedantic(step, args=("framepred", "auto"), setup=plain_step, rounds=3, warmup_rounds=1)
    if benchmark.stats is None:
        pytest.skip("nothing is timed under --benchmark-disable")
    plain, ours = min(plain_seconds), benchmark.stats.stats.min
    benchmark.extra_info["plain (seconds)"] = plain
    print(f"\ntraining step: plain {plain:.2f} s, framepred {ours:.2f} s: {plain / ours:.2f}× faster")
    assert plain / ours >= SPEEDUP
