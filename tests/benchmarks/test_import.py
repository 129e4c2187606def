"""Importing the package against importing torch alone."""

import subprocess
import sys
import time

import framepred

ROUNDS = 7
LIMIT = 1.3


def seconds(name):
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
    return time.perf_counter() - began


def test_importing_framepred_takes_little_longer_than_importing_torch():
    for name in ("torch", framepred.__name__):  # so that all files have been read and compiled once
        seconds(name)
    times = [(seconds("torch"), seconds("framepred")) for _ in range(ROUNDS)]  # in turn: a busy machine slows both
    torch, ours = map(min, zip(*times))
    print(f"\nimport: torch {torch:.2f} s, framepred {ours:.2f} s, {ours / torch:.2f}×")
    assert ours <= LIMIT * torch
