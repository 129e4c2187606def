"""What changes from step to step: the learning rate, and how likely a true frame is fed back."""

from __future__ import annotations

import math

from framepred.training.config import TrainConfig

# The probability that a true frame is fed back, at share t of the part of the run that `teacher_forcing` gives.
FEEDBACKS = {
    "teacher-forcing": lambda t: 1.0,  # all of the run
    "free-running": lambda t: 1.0,  # and 0 after that part
    "scheduled-sampling": lambda t: 1 - t,
    "scheduled-sampling-sigmoid": lambda t: 1 / (1 + math.exp(12 * (t - 0.5))),
}
DECAY = 0.6  # the share of "warmup-stable-decay" after which the rate falls
SCHEDULES = {
    "one-cycle": lambda t: t / 0.1 if t < 0.1 else 0.5 + 0.5 * math.cos(math.pi * (t - 0.1) / 0.9),
    "cosine": lambda t: 0.5 + 0.5 * math.cos(math.pi * t),
    "decay": lambda t: 0.01**t,
    "warmup-stable-decay": lambda t: min(1.0, t / 0.05, (1 - t) / (1 - DECAY)),
    "constant": lambda t: 1.0,
}


def steps_before_decay(steps: int) -> int:
    """Steps of a plan of "warmup-stable-decay" before its learning rate falls."""
    return int(DECAY * steps)


def rate_share(config: TrainConfig, step: int) -> float:
    """The share of the largest learning rate at a step, counted from 0: at the middle of it, so that none is zero."""
    return SCHEDULES[config.schedule]((step + 0.5) / config.steps)


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of Adam or RMSProp at a step, counted from 0."""
    return config.learning_rate * rate_share(config, step)


def truth_probability(config: TrainConfig, step: int) -> float:
    """The probability that a true frame is fed back at a step, counted from 0, and not the network's own."""
    if config.feedback == "teacher-forcing":
        return 1.0
    taught = config.teacher_forcing * config.steps
    return FEEDBACKS[config.feedback](step / taught) if step < taught else 0.0
