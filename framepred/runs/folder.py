"""Run folders: what one training leaves behind.

A folder holds `config.json` and `model.safetensors` (the network), `history.csv` (the learning curve) and `run.json`
(where it all came from); once it is evaluated, `scores.npz` and `samples.npz`; and `checkpoints/`, unless it is a
published copy.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save as serialize
from torch import Tensor

from framepred.files import PART, write_text, write_whole
from framepred.models.base import FramePredictor
from framepred.runs.record import IDENTITY, RunRecord, as_json, read_record, write_record

if TYPE_CHECKING:
    import pandas

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILES = ("config.json", "model.safetensors", "history.csv", "scores.npz", "samples.npz", "run.json")


def claim(folder: Path, run: RunRecord, may_differ: Collection[str] = ()) -> RunRecord | None:
    """Make `folder` the folder of `run`, before any work is done.

    Args:
        run: from `describe`.
        may_differ: fields of the training that a run may change when it is resumed.

    Returns:
        The `run.json` that is there already, or None for a new run.

    Raises:
        ValueError: if the folder holds a run that differs; the message names the fields, what they were and are.
        FileExistsError: if it holds files that are named like a run's, and no run.
        PermissionError: if it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise PermissionError(f"cannot write to {folder}: {error.strerror}; choose another folder for out") from error
    record = read_record(folder)
    if record is None:
        taken = [name for name in (*FILES, "checkpoints") if (folder / name).exists()]
        if taken:
            raise FileExistsError(
                f"{folder} holds {', '.join(taken)} but is no run of framepred; choose another folder"
            )
        write_record(folder, {**run, "steps": 0})
        return None
    before, now = (_flat({key: tree.get(key) for key in IDENTITY}) for tree in (record, run))
    ignored = {f"training.{name}" for name in may_differ}
    differ = [key for key in {**before, **now} if before.get(key) != now.get(key) and key not in ignored]
    if differ:
        changes = "; ".join(f"{key} was {before.get(key)!r} and is now {now.get(key)!r}" for key in differ)
        raise ValueError(f"{folder} holds another run: {changes}. Choose another folder, or train as it was begun")
    return record


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


@contextlib.contextmanager
def held(folder: Path | None) -> Iterator[None]:
    """Keep other processes from training in a folder as long as the context lasts, or this process lives.

    Where folders cannot be locked, as on Windows and some network file systems, nobody is kept away.

    Raises:
        FileExistsError: if another process holds the folder.
    """
    if folder is None or fcntl is None:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # `claim` will say what is wrong
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise FileExistsError(
            f"another process is training in {folder}; wait until it has ended, or choose another folder"
        ) from error
    except OSError:
        pass
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # or a child that was forked meanwhile would keep it locked
        os.close(handle)


def save_run(
    folder: Path,
    model: FramePredictor,
    weights: Mapping[str, Tensor],
    history: pandas.DataFrame,
    record: RunRecord,
) -> None:
    """Write what a run has come to: configuration, weights, history, and `record` as `run.json`.

    Scores and samples in the folder are removed: they are those of other weights.
    """
    for name in ("scores.npz", "samples.npz"):
        (folder / name).unlink(missing_ok=True)
    config = json.dumps(as_json({"network": model.network, **model.arguments}), indent=2)
    write_text(folder / "config.json", config + "\n")
    _save_weights(folder, weights)
    write_whole(folder / "history.csv", lambda path: history.to_csv(path, index=False))
    write_record(folder, {**record, "test_sets": {}})


def publish(run: str | os.PathLike, to: str | os.PathLike, precision: str = "fp16", weights: bool = True) -> Path:
    """Copy a run, finished or not, for others to load: weights in half precision, no checkpoints.

    Args:
        run: a run folder.
        to: the folder of the copy, such as book/runs/convlstm-book. A copy of the same network there is replaced.
        precision: "fp16" or "bf16".
        weights: False leaves the weights out, where they are too large to share.

    Raises:
        FileNotFoundError: if `run` is no run folder, or has no weights yet.
        FileExistsError: if `to` holds something else.
        ValueError: if a weight is too large for float16, or `to` is the run's own folder.
    """
    run, to = Path(run), Path(to)
    if to.resolve() == run.resolve():
        raise ValueError(f"to is the run's own folder, {run}; choose another for the copy")
    dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16}
    if precision not in dtypes:
        raise ValueError(f"unknown precision {precision!r}; known: {', '.join(dtypes)}")
    record = read_record(run)
    if record is None or not (run / "model.safetensors").is_file():
        raise FileNotFoundError(f"{run} is no run folder with weights: run.json or model.safetensors is missing")
    there = read_record(to)
    if to.exists() and ((there is None and any(to.iterdir())) or (there and there["network"] != record["network"])):
        raise FileExistsError(f"{to} holds something else than a {record['network']} run; choose another folder")
    half = {key: value.to(dtypes[precision]) for key, value in load_file(run / "model.safetensors").items()}
    if not all(value.isfinite().all() for value in half.values()):
        raise ValueError(f"a weight of {run} is not finite in float16; use precision='bf16'")
    to.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (to / name).unlink(missing_ok=True)
    for name in ("config.json", "history.csv", "scores.npz", "samples.npz"):
        if (run / name).exists():
            shutil.copyfile(run / name, to / name)
    if weights:
        _save_weights(to, half)
    write_record(to, {**record, "weights": precision if weights else None})
    return to


def _save_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    content = serialize(tensors, metadata={"format": "pt"})
    write_whole(folder / "model.safetensors", lambda path: Path(path).write_bytes(content))


def sweep(folder: Path) -> None:
    """Remove what a process that was killed while it wrote a file of a run has left behind."""
    for place in (folder, folder / "checkpoints"):
        for path in place.glob(f".*{PART}"):
            path.unlink(missing_ok=True)
