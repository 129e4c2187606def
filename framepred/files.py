"""Files that are whole or not there: each is written under another name first and then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

PART = ".part"  # ends the names of files that are being written


def write_whole(path: Path, write: Callable[[str], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: a reader sees the old file or the new, never a part.

    This holds when the power fails, too: the file is on the disk before its name is.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        write(str(temporary))
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_whole(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name to a compressed .npz file, whole or not at all."""

    def write(temporary: str) -> None:
        with open(temporary, "wb") as file:  # given a name, NumPy would add .npz to it
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    write_whole(path, write)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """What `save_arrays` wrote, by name; empty if there is no such file."""
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
