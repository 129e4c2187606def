"""What a training is asked to do."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Schedule = Literal["one-cycle", "cosine", "decay", "warmup-stable-decay", "constant"]
Feedback = Literal["free-running", "teacher-forcing", "scheduled-sampling", "scheduled-sampling-sigmoid"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune", "parts"]

# What may change when a run is resumed: how long it takes, how it is watched, and how its numbers are computed.
MAY_CHANGE = (
    "steps", "minutes", "checkpoint_minutes", "log_every", "patience", "accumulate", "precision", "compile", "channels_last",
)  # fmt: skip

# A network without a one-step form cannot be taught so: RECIPE is for those that have one.
RECIPE = {"optimizer": "muon", "teacher_forcing": 0.4, "loss_on": "all", "batch_size": 8, "ema": 0.99}


def _plainly(cls: type) -> type:
    """A class of pydantic whose errors are a line of ours: "steps is 0: input should be greater than or equal to 1"."""
    init = cls.__init__  # type: ignore[misc]

    @functools.wraps(init)
    def checked(self, *args, **kwargs):
        try:
            init(self, *args, **kwargs)
        except ValidationError as error:
            expected: dict[str, list[str]] = {}
            for e in error.errors():  # of a field that may be one thing or another there is an error for each
                said = e["msg"].removeprefix("Value error, ")
                where = f"{e['loc'][0]} is {e['input']!r}: " if e["loc"] else ""
                expected.setdefault(where, []).append(said[0].lower() + said[1:] if where else said)
            raise ValueError("; ".join(where + ", or ".join(said) for where, said in expected.items())) from None

    cls.__init__ = checked  # type: ignore[misc]
    return cls


# Strict: "10" is no number of steps, and True is not 1.
@_plainly
@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class TrainConfig:
    """How a network is trained. Every field is checked when a config is made, by pydantic;
    what is wrong is a ValueError that names all of it.

    steps: optimiser steps in all, those of earlier sessions included. Schedules other than "constant", and
        `teacher_forcing`, stretch over them: a run resumed with more steps goes on as the longer run would from there.
        With "warmup-stable-decay" that is where its rate began to fall, if it fell already.
    batch_size: clips a step, over all processes. Step k uses clips k·batch_size, … of `seed`.
    accumulate: parts that the batch is computed in, one after the other, to save memory.
    optimizer: "adam", "rmsprop" as in the thesis, or "muon": `framepred.training.optimisers.Muon` for the weights between
        layers (see `FramePredictor.adam_layers`) and Adam for the rest.
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
    precision: "auto", "bf16" or "fp32"; see `framepred.precision.autocast`.
    compile: use torch.compile: False, True, or how; see `framepred.training.compilation`. It takes a while to start and pays on a
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

    steps: Count = 1000
    batch_size: Count = 16
    accumulate: Count = 1
    optimizer: Literal["adam", "rmsprop", "muon"] = "adam"
    learning_rate: Positive = 1e-3
    muon_learning_rate: Positive = 0.02
    schedule: Schedule = "one-cycle"
    clip_norm: Positive = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    context: Count = 10
    horizon: Count = 10
    feedback: Feedback = "free-running"
    teacher_forcing: Annotated[float, Field(ge=0, le=1)] = 0.0
    loss_on: Literal["horizon", "all"] = "horizon"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool | CompileMode = False
    channels_last: bool = False
    validate_every: Count = 500
    validation_clips: Count = 500
    keep: Literal["best", "last"] = "best"
    patience: Annotated[int, Field(ge=0)] = 0
    log_every: Count = 10
    minutes: Positive | None = None
    checkpoint_minutes: NotNegative = 5.0

    @classmethod
    def recipe(cls, **changes: Any) -> TrainConfig:
        """What a network learns fastest with that we know (chapter 3.5); the published runs are trained so.

        Where a run departs from it, its `run.json` says how: the long ones average their weights with 0.995.

        Muon, true frames fed back in the first 40% of the steps and the network's own after them, an error over all frames
        that can be predicted, averaged weights, and a rate that falls to zero in the end.
        """
        return cls(**{**RECIPE, **changes})

    def __post_init__(self):
        if self.feedback.startswith("scheduled") and not self.teacher_forcing:
            raise ValueError(
                f"feedback is {self.feedback!r} but teacher_forcing 0; expected the share of the steps it takes"
            )
        if self.accumulate > 1 and self.compile in ("reduce-overhead", "max-autotune"):
            raise ValueError(
                f"compile={self.compile!r} works with CUDA graphs, which overwrite the gradients of the part before; "
                "with accumulate, use 'parts' or 'default'"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into {self.accumulate} equal parts (accumulate)"
            )
