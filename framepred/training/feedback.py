"""What is fed back to a network in training for the frames that it is to predict."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from framepred.data.streams import to_device, uniform
from framepred.training.config import TrainConfig
from framepred.training.schedule import truth_probability

FEEDBACK_STREAM = 2**62  # of a seed's random numbers: far from those that make the clips


def fed_back(config: TrainConfig, step: int, start: int, target: Tensor) -> dict[str, Tensor]:
    """The arguments of `FramePredictor.loss` that say what is fed back at a step.

    Args:
        step: counted from 0.
        start: the number of the first clip.
        target: the frames to predict of clips start, …, (B, T, 1, H, W).

    Returns:
        `truth`, the target, if any of it is fed back; and `truth_mask`, (B, T), if not all of it is.
    """
    probability = truth_probability(config, step)
    if probability in (0, 1):
        return {"truth": target} if probability else {}
    B, T = target.shape[:2]
    width = 4 * math.ceil(T / 4)  # uniforms come in fours; number `width`·k + t belongs to frame t of clip k
    drawn = uniform(config.seed, FEEDBACK_STREAM, start * width, B * width).reshape(B, width)[:, :T]
    mask = torch.from_numpy(drawn < probability)
    return {"truth": target, "truth_mask": to_device(mask, target.device)}
