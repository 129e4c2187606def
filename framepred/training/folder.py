"""The folder of a run, as the run itself uses it while it is trained; `framepred.runs` says what lies there."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from framepred.runs.folder import claim, held, sweep
from framepred.runs.record import RunRecord
from framepred.training.checkpoints import save_checkpoint, save_stable, to_go_on_from
from framepred.training.config import MAY_CHANGE
from framepred.training.processes import Processes


class TrainingFolder:
    """A run's folder. All processes read it, and number 0 writes it. Without a path, nothing is read or written.

    Args:
        path: the folder; None for none.
    """

    def __init__(self, path: Path | None, processes: Processes):
        self.path, self.processes = path, processes
        self.written = path if processes.rank == 0 else None  # by this process

    @property
    def checkpoints(self) -> Path | None:
        return None if self.path is None else self.path / "checkpoints"

    def held(self) -> AbstractContextManager:
        """A context in which no other run is trained here; see `framepred.runs.folder.held`."""
        return held(self.written)

    def claim(self, run: RunRecord, steps: int) -> tuple[int, dict[str, Any] | None]:
        """Make the folder that of `run`, a description by `framepred.runs.record.describe`; see `framepred.runs.folder.claim`.

        Returns:
            The steps that its `run.json` tells of, 0 for a new run; and the checkpoint to go on from to `steps` steps.

        Raises:
            ValueError: if that checkpoint is missing.
        """
        if self.path is None:
            return 0, None
        with self.processes.in_turn():
            record = claim(self.path, run, MAY_CHANGE)
            checkpoint = to_go_on_from(self.path / "checkpoints", steps, self.written is not None)
        self.processes.wait()
        made = 0 if record is None else record["steps"]
        if checkpoint is None and 0 < made < steps:
            raise ValueError(
                f"{self.path} has no checkpoint to go on from; give another out, and this one as warm_start"
            )
        return made, checkpoint

    def sweep(self) -> None:
        """Remove what a killed process left."""
        if self.written is not None:
            sweep(self.written)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint, in place of the last but one."""
        if self.written is not None:
            save_checkpoint(self.written / "checkpoints", step, state)

    def save_stable(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint that a longer run goes on from."""
        if self.written is not None:
            save_stable(self.written / "checkpoints", step, state)
