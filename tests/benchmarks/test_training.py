"""The training loop against the bare steps that it consists of: what all its care costs."""

import time

import pytest
import torch
from torch import nn

from framepred.digits import load_digits
from framepred.models import build
from framepred.moving import MovingDigits
from framepred.training import TrainConfig, autocast, train

BATCH, STEPS, ROUNDS = 4, 2, 4
OVERHEAD = 1.03


def bare_steps(model, optimizer, context, target):
    """Forward, backward and step, on clips made beforehand."""
    model.train()
    for _ in range(STEPS):
        with autocast("cpu"):
            loss, _ = model.loss(context, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@pytest.mark.benchmark(group=f"training, {STEPS} steps (convlstm patched, batch {BATCH})")
def test_loop_costs_little_over_its_steps(benchmark):
    """Round by round in turn, in processor time of one thread: what else the machine does changes neither."""
    clips, config = MovingDigits(load_digits("uci")), TrainConfig(steps=STEPS, batch_size=BATCH)
    model, seconds = build("convlstm", "patched"), {"bare": [], "framepred": []}
    optimizer = torch.optim.Adam(model.parameters())
    context, target = clips.sample(BATCH).split(10)
    runs = {
        "bare": lambda: bare_steps(model, optimizer, context, target),
        "framepred": lambda: train(model, clips, config),
    }

    def in_turn():
        for name, run in runs.items():
            began = time.process_time()
            run()
            seconds[name].append(time.process_time() - began)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        benchmark.pedantic(in_turn, rounds=ROUNDS, warmup_rounds=1)
    finally:
        torch.set_num_threads(threads)
    bare, ours = (min(seconds[name][-ROUNDS:]) for name in runs)
    print(f"\n{STEPS} steps: bare {bare:.2f} s, framepred {ours:.2f} s, ×{ours / bare:.3f}")
    if benchmark.stats is not None:  # None under --benchmark-disable
        assert ours <= OVERHEAD * bare
