"""What a training is asked to do: its configuration, its learning rates, its precision."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from framepred.precision import PRECISIONS

# The probability that a true frame is fed back, at share t of the part of the run that `teacher_forcing` gives.
FEEDBACKS = {
    "teacher-forcing": lambda t: 1.0,  # all of the run
    "free-running": lambda t: 1.0,  # and 0 after that part
    "scheduled-sampling": lambda t: 1 - t,
    "scheduled-sampling-sigmoid": lambda t: 1 / (1 + math.exp(12 * (t - 0.5))),
}
LOSSES = ("horizon", "all")
KEEP = ("best", "last")
COMPILE = (False, True, "default", "reduce-overhead", "max-autotune", "parts")
OPTIMIZERS = ("adam", "rmsprop", "muon")
DECAY = 0.6  # the share of "warmup-stable-decay" after which the rate falls
SCHEDULES = {
    "one-cycle": lambda t: t / 0.1 if t < 0.1 else 0.5 + 0.5 * math.cos(math.pi * (t - 0.1) / 0.9),
    "cosine": lambda t: 0.5 + 0.5 * math.cos(math.pi * t),
    "decay": lambda t: 0.01**t,
    "warmup-stable-decay": lambda t: min(1.0, t / 0.05, (1 - t) / (1 - DECAY)),
    "constant": lambda t: 1.0,
}
# What may change when a run is resumed: how long it takes, how it is watched, and how its numbers are computed.
MAY_CHANGE = (
    "steps", "minutes", "checkpoint_minutes", "log_every", "patience", "accumulate", "precision", "compile", "channels_last",
)  # fmt: skip


# A network without a one-step form cannot be taught so: RECIPE is for those that have one.
RECIPE = {"optimizer": "muon", "teacher_forcing": 0.4, "loss_on": "all", "batch_size": 8, "ema": 0.99}


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained. Every field is checked when a config is made.

    steps: optimiser steps in all, those of earlier sessions included. Schedules other than "constant", and
        `teacher_forcing`, stretch over them: a run resumed with more steps goes on as the longer run would from there.
        With "warmup-stable-decay" that is where its rate began to fall, if it fell already.
    batch_size: clips a step, over all processes. Step k uses clips k·batch_size, … of `seed`.
    accumulate: parts that the batch is computed in, one after the other, to save memory.
    optimizer: "adam", "rmsprop" as in the thesis, or "muon": `framepred.optimisers.Muon` for the weights between layers
        (see `FramePredictor.adam_layers`) and Adam for the rest.
    learning_rate: the largest one of Adam or RMSProp. The thesis starts from 1e-3 (ConvLSTM), 1e-4 (spatio-temporal),
        3e-4 (VPN).
    muon_learning_rate: the largest one of Muon.
    schedule: "one-cycle" (linear rise over the first tenth of the steps, then a cosine to zero), "cosine" (to zero),
        "decay" (exponential, to a hundredth; the thesis says that its rate decays, not how), "warmup-stable-decay"
        (a rise over 5%, constant to 60%, then linearly to zero; Hu et al. 2024), for budgets that may grow, or "constant".
    clip_norm: gradients of a larger norm are scaled down to it.
    ema: decay of an exponential moving average of the weights, which is then what is validated and saved; 0 for none.
        In the first steps k it is (1 + k) / (10 + k) at most, or short runs would keep their first weights.
    context, horizon: frames seen and frames predicted in training.
    feedback: what is fed back for the frames to predict. "free-running": the network's own predictions, after a first
        part of the run with true frames. "teacher-forcing": true frames throughout. "scheduled-sampling": in the first
        part each frame is the true one with a probability that falls linearly from 1 to 0, or, with
        "scheduled-sampling-sigmoid", along a sigmoid (Bengio et al. 2015); after it, the network's own.
    teacher_forcing: the share of the steps that this first part takes; 0 for none of it, as in the thesis.
    loss_on: the frames whose error is minimised: those of the "horizon", as in the thesis, or "all" that the network can
        predict, those of the context too, each from the true frames before it.
    precision: "auto", "bf16" or "fp32"; see `autocast`.
    compile: use torch.compile: False, True, or how; see `framepred.compiled`. It takes a while to start and pays on a
        GPU; on a CPU it changed nothing.
    channels_last: keep images as (H, W, C) in memory, which convolutions on recent GPUs prefer.
    validate_every: steps between two validations, on `validation_clips` clips of the digits given to `train`. A session
        that stops validates, too.
    keep: the weights that a run keeps: the "best" ones of all validations, or the "last" ones.
    patience: validations without a better result after which the run ends; 0 for no early stopping.
    log_every: steps between two rows of the history.
    minutes: after which this session ends, with a checkpoint, to be resumed by the same call; None for no limit.
    checkpoint_minutes: between two checkpoints; 0 for one after each step.
    """

    steps: int = 1000
    batch_size: int = 16
    accumulate: int = 1
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    muon_learning_rate: float = 0.02
    schedule: str = "one-cycle"
    clip_norm: float = 1.0
    ema: float = 0.0
    context: int = 10
    horizon: int = 10
    feedback: str = "free-running"
    teacher_forcing: float | int = 0
    loss_on: str = "horizon"
    seed: int = 0
    precision: str = "auto"
    compile: bool | str = False
    channels_last: bool = False
    validate_every: int = 500
    validation_clips: int = 500
    keep: str = "best"
    patience: int = 0
    log_every: int = 10
    minutes: float | int | None = None  # both named, because the tests enforce annotations to the letter
    checkpoint_minutes: float | int = 5

    @classmethod
    def recipe(cls, **changes: Any) -> TrainConfig:
        """What a network learns fastest with that we know (chapter 3.5); the published runs are trained so.

        Where a run departs from it, its `run.json` says how: the long ones average their weights with 0.995.

        Muon, true frames fed back in the first 40% of the steps and the network's own after them, an error over all frames
        that can be predicted, averaged weights, and a rate that falls to zero in the end.
        """
        return cls(**{**RECIPE, **changes})

    def __post_init__(self):
        counts = "steps batch_size accumulate context horizon validate_every validation_clips log_every"
        for name, least in {**dict.fromkeys(counts.split(), 1), "patience": 0, "seed": 0}.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} is {value!r}; expected a whole number of at least {least}")
        numbers = "learning_rate muon_learning_rate clip_norm ema teacher_forcing checkpoint_minutes minutes"
        for name in numbers.split():
            value = getattr(self, name)
            if name == "minutes" and value is None:
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value!r}; expected a number of at least 0")
            if value == 0 and name not in ("ema", "teacher_forcing", "checkpoint_minutes"):
                raise ValueError(f"{name} is 0; expected a positive number")
            if isinstance(value, float):  # NumPy's float64 is one, and a checkpoint cannot hold it
                object.__setattr__(self, name, float(value))
        if not isinstance(self.channels_last, bool):
            raise ValueError(f"channels_last is {self.channels_last!r}; expected True or False")
        if isinstance(self.compile, int) and not isinstance(self.compile, bool):
            raise ValueError(f"compile is {self.compile!r}; expected True, False or a name")
        known_names: dict[str, Collection[str | bool]] = {
            "compile": COMPILE,
            "optimizer": OPTIMIZERS,
            "schedule": SCHEDULES,
            "precision": PRECISIONS,
            "feedback": FEEDBACKS,
            "loss_on": LOSSES,
            "keep": KEEP,
        }
        for name, known in known_names.items():
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; known: {', '.join(map(str, known))}")
        if self.ema >= 1:
            raise ValueError(f"ema is {self.ema}; expected a decay below 1, such as 0.999")
        if self.teacher_forcing > 1:
            raise ValueError(f"teacher_forcing is {self.teacher_forcing}; expected a share of the steps, 0 to 1")
        if self.feedback.startswith("scheduled") and not self.teacher_forcing:
            raise ValueError(
                f"feedback is {self.feedback!r} but teacher_forcing 0; expected the share of the steps it takes"
            )
        if self.seed >= 2**63:
            raise ValueError(f"seed is {self.seed}; expected 0 to 2**63 - 1")
        if self.accumulate > 1 and self.compile in ("reduce-overhead", "max-autotune"):
            raise ValueError(
                f"compile={self.compile!r} works with CUDA graphs, which overwrite the gradients of the part before; "
                "with accumulate, use 'parts' or 'default'"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into {self.accumulate} equal parts (accumulate)"
            )


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
