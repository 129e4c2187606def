"""What an evaluation adds to a run folder: scores, and the clips that the book shows; and the learning curve."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from framepred.files import load_arrays, save_arrays
from framepred.runs.record import read_record, write_record

if TYPE_CHECKING:
    import pandas


def save_scores(
    folder: str | os.PathLike, scores: Mapping[str, np.ndarray], digests: Mapping[str, str] | None = None
) -> None:
    """Add scores to the `scores.npz` of a run folder; those under other keys stay.

    Args:
        scores: nats per clip and frame, (clips, frames), under "test set/protocol", such as "mnist-2/rollout".
        digests: `TestSet.digest` of the clips, by the same keys; recorded in `run.json` under "test_sets".
    """
    folder, digests = Path(folder), digests or {}
    for key, nats in scores.items():
        if key.count("/") != 1 or np.ndim(nats) != 2:
            raise ValueError(
                f"scores {key!r} have shape {np.shape(nats)}; expected (clips, frames) under a key like 'mnist-2/rollout'"
            )
    if unknown := set(digests) - set(scores):
        raise ValueError(f"digests of {', '.join(sorted(unknown))} without scores")
    record = read_record(folder)
    if record is None:
        raise FileNotFoundError(f"{folder} is no run folder: it has no run.json")
    arrays = load_scores(folder) | {key: np.asarray(nats, np.float32) for key, nats in scores.items()}
    save_arrays(folder / "scores.npz", arrays)
    new = {key: {"clips": len(nats), "sha256": digests.get(key)} for key, nats in scores.items()}
    write_record(folder, {**record, "test_sets": {**record.get("test_sets", {}), **new}})


def load_scores(folder: str | os.PathLike) -> dict[str, np.ndarray]:
    """The scores of a run folder: nats, float32 (clips, frames), by "test set/protocol"; empty if there are none."""
    return load_arrays(Path(folder) / "scores.npz")


def load_history(folder: str | os.PathLike) -> pandas.DataFrame:
    """The learning curve of a run folder: the columns that `framepred.train` returns."""
    import pandas

    return pandas.read_csv(Path(folder) / "history.csv")


def save_samples(folder: str | os.PathLike, samples: Mapping[str, Tensor | np.ndarray]) -> None:
    """Write the clips that the book shows to `samples.npz`, in place of those there.

    Args:
        samples: frames (…, 1, H, W), floating point in [0, 1] or uint8, stored as uint8; and under keys that end in
            "flow", flow in pixels (…, 2, H, W), stored as float16.
    """
    arrays = {}
    for key, values in samples.items():
        values = np.asarray(values)
        if key.endswith("flow"):
            arrays[key] = values.astype(np.float16)
        elif values.dtype == np.uint8:
            arrays[key] = values
        elif values.size and not (values.min() >= 0 and values.max() <= 1):  # NaN fails too
            raise ValueError(
                f"samples {key!r} have values from {values.min():.4g} to {values.max():.4g}; expected [0, 1]"
            )
        else:
            arrays[key] = np.round(255 * values).astype(np.uint8)
    save_arrays(Path(folder) / "samples.npz", arrays)


def load_samples(folder: str | os.PathLike) -> dict[str, np.ndarray]:
    """What `save_samples` wrote, by key; empty if there is nothing."""
    return load_arrays(Path(folder) / "samples.npz")
