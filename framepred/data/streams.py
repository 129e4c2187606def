"""Streams of random numbers of which any part can be had without the parts before it.

Every random number comes from a counter-based generator (Philox) at a place that follows from what it is for. So clips
can be made in any order, in any batch, by any number of processes, and training resumes without a state to save.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def uniform(seed: int, stream: int, start: int, n: int) -> np.ndarray:
    """Numbers start, …, start + n - 1 of a stream of uniforms in [0, 1); `start` is a multiple of 4.

    From the raw output of Philox-4x64 (Salmon et al. 2011), which NumPy guarantees never to change, unlike the
    distributions that it builds on it.
    """
    raw = np.random.Philox(key=[seed, stream], counter=[start // 4, 0, 0, 0]).random_raw(n)
    return (raw >> np.uint64(11)) * 2.0**-53


@lru_cache(maxsize=4)
def shuffled(n: int, seed: int, pass_: int) -> np.ndarray:
    """The order in which one pass goes through n glyphs."""
    return np.argsort(np.random.Philox(key=[seed, 1 + pass_]).random_raw(n), kind="stable")


def unit_vector(u: np.ndarray) -> np.ndarray:
    """The (x, y) of length 1 in the direction of u turns, (..., 2)."""
    angle = 2 * np.pi * u
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device. A GPU fetches it when it gets there: nobody waits for the work that it still has to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
