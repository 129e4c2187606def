"""The score of a network while it is trained."""

from __future__ import annotations

import torch

from framepred.data.moving import MovingDigits
from framepred.metrics import cross_entropy
from framepred.models.base import FramePredictor
from framepred.precision import autocast
from framepred.training.config import TrainConfig
from framepred.training.processes import Processes
from framepred.training.step import context_and_target

VALIDATION_SEED = 20_150_613  # the day on which the ConvLSTM was put on arXiv; all runs are validated on the same clips


@torch.no_grad()
def validate(
    model: FramePredictor, clips: MovingDigits, config: TrainConfig, n: int, device: torch.device, processes: Processes
) -> float:
    """Mean nats per frame of `config.validation_clips` clips, computed `n` at a time; the processes take turns.

    The network is rolled out, or predicts one step ahead with feedback "teacher-forcing".
    """
    was_training = model.training
    model.eval()
    total = torch.zeros((), device=device)
    for start in range(processes.rank * n, config.validation_clips, processes.count * n):
        left = min(n, config.validation_clips - start)
        context, target = context_and_target(clips, config, left, VALIDATION_SEED, start, device)
        truth = target if config.feedback == "teacher-forcing" else None
        with autocast(device, config.precision):
            forecast = model.forecast(context, config.horizon, truth)
        total += cross_entropy(forecast.logits, target).mean(1).sum()
    model.train(was_training)
    return float(processes.sum(total)) / config.validation_clips
