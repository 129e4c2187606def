"""The generator against a plain NumPy loop, on one core."""

import numpy as np
import pytest
import torch

from framepred.benchmark.reference import render_plainly
from framepred.data.glyphs import load_digits
from framepred.data.moving import MovingDigits

BATCH = 64
SPEEDUP = 2.0
seconds: dict[str, float] = {}


@pytest.fixture(scope="module")
def digits():
    return load_digits("uci", "train")


@pytest.fixture(autouse=True)
def one_core():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trajectories(random, n, n_digits=2, n_frames=20):
    """Positions of bouncing glyphs, all clips of a batch at once."""
    position = random.random((n, n_digits, 2))
    heading = 2 * np.pi * random.random((n, n_digits))
    velocity = 0.1 * np.stack([np.cos(heading), np.sin(heading)], -1)
    path = np.empty((n, n_frames, n_digits, 2), np.int64)
    for t in range(n_frames):
        position += velocity
        velocity[(position <= 0) | (position >= 1)] *= -1
        position.clip(0, 1, out=position)
        path[:, t] = 36 * position
    return path


@pytest.mark.benchmark(group="generator: 64 two-digit clips of 20 uint8 frames, one core")
@pytest.mark.parametrize("name", ["plain", "framepred"])
def test_clips(name, digits, benchmark):
    clips, images = MovingDigits(digits), digits.images.numpy()
    random = np.random.default_rng(0)
    start = 0

    def loop():
        chosen = torch.from_numpy(images[random.integers(0, len(images), (BATCH, 2))])
        return render_plainly(chosen, torch.from_numpy(trajectories(random, BATCH)), 64)

    def ours():
        nonlocal start
        start += BATCH  # new clips in every round, as in training
        return clips.sample(BATCH, start=start, dtype=torch.uint8).frames

    benchmark.pedantic(
        ours if name == "framepred" else loop, rounds=100 if name == "framepred" else 30, warmup_rounds=5
    )
    if benchmark.stats is not None:  # None under --benchmark-disable
        seconds[name] = benchmark.stats.stats.min


def test_generator_is_faster_than_a_plain_loop():
    if len(seconds) < 2:
        pytest.skip("both must be timed in this run")
    speed = {name: BATCH / s for name, s in seconds.items()}
    ratio = speed["framepred"] / speed["plain"]
    print(f"\nclips/s: plain loop {speed['plain']:,.0f}, framepred {speed['framepred']:,.0f}, {ratio:.1f}× faster")
    assert ratio > SPEEDUP
