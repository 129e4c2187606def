"""Importing data and measures against importing torch alone; the networks and the rest come when they are asked for."""

import os
import subprocess
import sys
import time

import pytest

ROUNDS = 7
LIMIT = 1.3
OURS = "from framepred import MovingDigits, cross_entropy, load_digits, test_set"


def seconds(code):
    """What importing takes a fresh interpreter: processor time, and time on the clock."""
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    after, clock = os.times(), time.perf_counter() - began
    return sum(after[2:4]) - sum(before[2:4]), clock  # user and system time of children


@pytest.mark.skipif(sys.platform == "win32", reason="the processor time of children is not told")
def test_importing_framepred_takes_little_longer_than_importing_torch():
    for code in ("import torch", OURS):  # so that all files have been read and compiled once
        seconds(code)
    times = [(seconds("import torch"), seconds(OURS)) for _ in range(ROUNDS)]  # in turn: a busy machine slows both
    torch, ours = (tuple(map(min, zip(*column))) for column in zip(*times))
    for kind, a, b in zip(("processor", "clock"), torch, ours):
        print(f"\nimport, {kind} time: torch {a:.2f} s, framepred {b:.2f} s, {b / a:.2f}×", end="")
    assert ours[0] <= LIMIT * torch[0]
    assert ours[1] <= LIMIT * torch[1]
