"""Checkpoints: all that a run needs to go on, in files that are either whole or not there; and signals that ask for one.

The name of a file holds its step and the SHA-256 digest of its bytes, so a damaged one shows, and there is no second
file that could be lost or damaged itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from framepred.files import write_whole
from framepred.training.schedule import steps_before_decay

KEEP = 2


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the checkpoint of a step and delete all but the last two.

    Raises:
        OSError: if it cannot be written, say because the disk is full; those written before are then still there.
    """
    path = _write(folder, "step", step, state)
    for old in list_checkpoints(folder)[:-KEEP]:
        old.unlink()
    return path


def save_stable(folder: Path, step: int, state: Mapping[str, Any]) -> None:
    """Keep the state of a run whose learning rate is about to fall, apart from the others: a longer run goes on from it."""
    path = _write(folder, "stable", step, state)
    for old in list_checkpoints(folder, "stable"):
        if old != path:
            old.unlink()


def _rewind(folder: Path, step: int, state: Mapping[str, Any]) -> None:
    """Make a state of an earlier step the last checkpoint."""
    path = _write(folder, "step", step, state)
    for later in list_checkpoints(folder):
        if later > path:
            later.unlink()


def _write(folder: Path, kind: str, step: int, state: Mapping[str, Any]) -> Path:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    folder.mkdir(exist_ok=True)
    path = folder / f"{kind}-{step:09d}-{hashlib.sha256(content).hexdigest()}.pt"
    try:
        write_whole(path, lambda temporary: Path(temporary).write_bytes(content))
    except OSError as error:
        earlier = list_checkpoints(folder)
        kept = f"the last whole one is {earlier[-1]}" if earlier else "there is no earlier one"
        reason = f"{error.strerror or error}; the checkpoint of step {step} was not written, {kept}"
        raise OSError(error.errno, reason, str(path)) from error
    return path


def load_checkpoint(folder: Path, kind: str = "step") -> dict[str, Any] | None:
    """The last checkpoint of a kind that is whole, on the CPU; None if there is none at all.

    One that is damaged is named in a warning and set aside as `….damaged`.

    Raises:
        ValueError: if there are checkpoints, and all are damaged.
    """
    found = list_checkpoints(folder, kind)
    for path in reversed(found):
        try:
            content = path.read_bytes()
        except OSError:  # a sector that cannot be read is damage too
            content = b""
        if hashlib.sha256(content).hexdigest() == path.stem.rsplit("-", 1)[1]:
            # weights_only: unpickling then builds tensors and plain values, and cannot run code
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        aside = path.with_name(path.name + ".damaged")
        path.replace(aside)
        warnings.warn(f"the checkpoint {path} is damaged (now {aside.name}); trying the one before it", stacklevel=3)
    if found:
        raise ValueError(
            f"every checkpoint in {folder} is damaged; give another out, and {folder.parent} as warm_start"
        )
    return None


def list_checkpoints(folder: Path, kind: str = "step") -> list[Path]:
    """The checkpoints of a folder, the oldest first."""
    return sorted(folder.glob(f"{kind}-*-*.pt"))


def to_go_on_from(folder: Path, steps: int, alone: bool = True) -> dict[str, Any] | None:
    """The checkpoint that a run of so many steps goes on from: the last, or that of `grows_from`. None for a new run.

    Args:
        alone: False in a process that leaves the files to another one. Otherwise no later checkpoint is left.
    """
    last = load_checkpoint(folder)
    if last is None or steps <= last["config"]["steps"]:
        return last
    stable = grows_from(folder, last)
    if stable is None:
        return last
    if alone:
        _rewind(folder, stable["done"]["step"], stable)
    return stable


def grows_from(folder: Path, last: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint that a run goes on from if it grows after its rate began to fall; None if that is the last one.

    What the run has cost, and the best weights that it has found, are those of the last checkpoint all the same.
    """
    config, done = last["config"], last["done"]
    if config["schedule"] != "warmup-stable-decay" or done["step"] <= steps_before_decay(config["steps"]):
        return None
    try:
        stable = load_checkpoint(folder, "stable")
    except ValueError:  # damaged, of which a warning told: the run goes on from where its rate fell to
        return None
    if stable is not None:
        stable["done"] |= {key: done[key] for key in ("sessions", "best")}
    return stable


@contextlib.contextmanager
def signals_noted(catch: bool = True) -> Iterator[list[str]]:
    """Note the first SIGTERM or Ctrl-C in a list instead of dying of it; a second one has its usual effect.

    Only the main thread may set handlers; elsewhere signals stay with whoever handles them.
    """
    caught: list[str] = []
    if not catch or threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, frame) -> None:
        caught.append(signal.Signals(number).name)
        restore()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        restore()
