"""How far a run is, and how fast it goes."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from framepred.training.checkpoints import list_checkpoints
from framepred.training.config import TrainConfig
from framepred.training.schedule import learning_rate

if TYPE_CHECKING:
    import pandas


@dataclass
class Progress:
    """How far a run is. A checkpoint holds it, beside the weights and the optimiser's state."""

    step: int = 0
    rows: list[dict] = field(default_factory=list)  # the history
    recent: list[Tensor] = field(default_factory=list)  # (loss, nats, gradient norm) of each step since the last row
    best: dict[str, Any] | None = None  # {"step", "nats", "weights"} of the best validation
    sessions: list[dict] = field(default_factory=list)  # one for each call of `train`

    @property
    def seconds(self) -> float:
        return sum(session["seconds"] for session in self.sessions)

    @property
    def stale(self) -> int:
        """Validations since the best one."""
        best = self.best["step"] if self.best else math.inf
        since = itertools.takewhile(lambda row: row["step"] > best, reversed(self.rows))  # asked after every step
        return sum(not math.isnan(row["validation_nats"]) for row in since)

    def row(self, config: TrainConfig, validation_nats: float = math.nan) -> dict[str, Any]:
        """What the recent steps add to the history."""
        loss, nats, _ = torch.stack(self.recent).mean(0).tolist()
        return {
            "step": self.step,
            "clips": self.step * config.batch_size,
            "seconds": self.seconds,
            "loss": loss,
            "nats": nats,
            "validation_nats": validation_nats,
            "learning_rate": learning_rate(config, self.step - 1),
        }

    def history(self, config: TrainConfig, validation_nats: float = math.nan) -> pandas.DataFrame:
        """The rows, and one for the recent steps. They stay as they are: what is averaged does not depend on stops."""
        import pandas

        return pandas.DataFrame([*self.rows, *([self.row(config, validation_nats)] if self.recent else [])])

    def ended(self, config: TrainConfig) -> str | None:
        """Why there is nothing left to do, if so."""
        if self.step >= config.steps:
            return "finished"
        return "patience" if 0 < config.patience <= self.stale else None

    def summary(self, config: TrainConfig) -> dict[str, Any]:
        """The part of `run.json` that grows."""
        last = {key: value for key, value in self.sessions[-1].items() if key not in ("from_step", "to_step")}
        return {
            **last,
            "steps": self.step,
            "clips_seen": self.step * config.batch_size,
            "seconds": round(self.seconds, 1),
            "sessions": self.sessions,
        }

    def remember_best(self, nats: float, weights: dict[str, Tensor]) -> None:
        """Keep a copy of the weights after the last step if no validation before was as good."""
        if self.best is None or nats < self.best["nats"]:
            copies = {key: value.detach().cpu().clone() for key, value in weights.items()}
            self.best = {"step": self.step, "nats": nats, "weights": copies}

    def kept(self, config: TrainConfig, nats: float, weights: dict[str, Tensor]) -> dict[str, Any]:
        """What the run keeps if it ends here: the best or the last weights, with their step and validation nats.

        Args:
            nats, weights: those of the last step; NaN if they were not validated.
        """
        last = {"which": "last", "step": self.step, "nats": nats, "weights": weights}
        if config.keep == "last" or (self.best is None and math.isnan(nats)):
            return last
        return {**(last if self.best is None or nats < self.best["nats"] else self.best), "which": "best"}

    def check_finite(self, config: TrainConfig, checkpoints: Path | None) -> None:
        """Raise a FloatingPointError if a recent step had a loss or gradient that is not finite.

        Args:
            checkpoints: the folder of the run's checkpoints, if there is one; the message names the last of them.
        """
        if not self.recent:
            return
        values = torch.stack(self.recent).cpu()
        if values.isfinite().all():
            return
        k = int((~values.isfinite().all(1)).nonzero()[0])
        step = self.step - len(values) + k
        first = step * config.batch_size
        good = list_checkpoints(checkpoints) if checkpoints is not None else []
        raise FloatingPointError(
            f"the loss of step {step} is {values[k, 0]:.4g} (norm of its gradient: {values[k, 2]:.4g}); its clips are {first} to "
            f"{first + config.batch_size - 1} of seed {config.seed}. A smaller learning_rate or clip_norm usually helps. "
            + (f"The last good checkpoint is {good[-1]}." if good else "There is no checkpoint.")
        )


class Pace:
    """How fast a session goes. All times are in seconds since it began.

    saved: when the last checkpoint was written.
    saving, judging: how long the last checkpoint and the last validation took.
    """

    def __init__(self):
        self.began = time.perf_counter()
        self.saved = self.steady = self.saving = self.judging = 0.0

    @property
    def seconds(self) -> float:
        """How long the session has lasted."""
        return time.perf_counter() - self.began

    def start(self) -> None:
        """The first step begins."""
        self.saved = self.steady = self.seconds

    def late(self, config: TrainConfig, made: int) -> bool:
        """Whether another step, with a checkpoint and a validation, would take longer than `config.minutes`.

        Args:
            made: steps of this session; asked after each of them.
        """
        now = self.seconds
        if made == 1 and config.compile:
            self.steady = now  # the time of the first step, which compiled, says nothing about the next
        next_step = (now - self.steady) / max(1, made - bool(config.compile))
        needed = now + next_step + self.saving + self.judging
        return config.minutes is not None and needed > 60 * config.minutes
