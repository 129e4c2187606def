"""The fixed test sets: named clips that are the same for everyone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from framepred.data.download import check_digest
from framepred.data.glyphs import GLYPH_SIZE, load_digits
from framepred.data.moving import Clips, MovingDigits
from framepred.data.rendering import to_float

TEST_SEED = 20_150_216  # the month in which Srivastava et al. published the data; not a seed anyone trains with


@dataclass(frozen=True, eq=False)
class TestSet:
    """Clips that are the same for everyone: `n` of them, made or read batch by batch.

    Frames 1 to 10 of a clip are the context and 11 to 20 are to be predicted.
    """

    __test__ = False  # not a class of tests, whatever pytest makes of its name

    name: str
    n: int
    clips: MovingDigits | OriginalTestFile = field(repr=False)

    def __len__(self) -> int:
        return self.n

    def sample(self, n: int | None = None, start: int = 0, **kwargs) -> Clips:
        """Clips start, …, start + n - 1 (all, unless told); keywords as in `MovingDigits.sample`."""
        n = self.n - start if n is None else n
        if not 0 <= start < start + n <= self.n:
            raise ValueError(
                f"clips {start} to {start + n - 1} of {self.name}: this test set was opened with {self.n} clips"
            )
        return self.clips.sample(n, TEST_SEED, start, **kwargs)

    def batches(self, batch_size: int = 100, **kwargs) -> Iterator[Clips]:
        """All clips in order, `batch_size` at a time."""
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected at least 1")
        for start in range(0, self.n, batch_size):
            yield self.sample(min(batch_size, self.n - start), start, **kwargs)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the frames as bytes, clip after clip."""
        sha256 = hashlib.sha256()
        for batch in self.batches(dtype=torch.uint8):
            sha256.update(batch.frames.numpy().data)
        return sha256.hexdigest()


class OriginalTestFile:
    """The file `mnist_test_seq.npy` of Srivastava et al.: 10,000 clips whose glyphs and positions are not recorded."""

    MD5 = "be083ec986bfe91a449d63653c411eb2"

    def __init__(self, path: str | os.PathLike):
        array = np.load(path, mmap_mode="r")
        if array.ndim != 4 or array.shape[2] != array.shape[3] or array.dtype != np.uint8:
            raise ValueError(
                f"{path} holds {array.dtype} of shape {array.shape}; expected uint8 of shape (frames, clips, size, size)"
            )
        self._frames = array

    def sample(self, n: int, seed: int = 0, start: int = 0, device="cpu", dtype=torch.float32) -> Clips:
        """Clips start, …, start + n - 1 of the file; there is only one order, so `seed` is not used."""
        part = np.array(self._frames[:, start : start + n].transpose(1, 0, 2, 3)[:, :, None], order="C")
        frames = torch.from_numpy(part).to(device)
        no_glyphs = torch.empty(len(part), 0, GLYPH_SIZE, GLYPH_SIZE, dtype=torch.uint8)
        no_positions = torch.empty(len(part), part.shape[1], 0, 2, dtype=torch.int64)
        no_labels = torch.empty(len(part), 0, dtype=torch.int64)
        return Clips(frames if dtype == torch.uint8 else to_float(frames), no_positions, no_glyphs, no_labels)


TEST_SETS: dict[str, tuple[str, str, int]] = {
    **{f"mnist-{n}": ("mnist", "test", n) for n in (1, 2, 3, 4)},
    "mnist-train-2": ("mnist", "train", 2),
    "emnist-1": ("emnist-letters", "test", 1),
    "omniglot-1": ("omniglot-latin", "test", 1),
    **{f"uci-{n}": ("uci", "test", n) for n in (1, 2, 3, 4)},
    "uci-train-2": ("uci", "train", 2),
}


def test_set(name: str = "mnist-2", n: int = 10_000, root: str | os.PathLike | None = None) -> TestSet:
    """Open a named test set.

    Args:
        name: "mnist-1" to "mnist-4" (one to four MNIST test digits); "mnist-train-2" (digits that networks are trained
            on, in clips they are not); "emnist-1", "omniglot-1" (one letter); "uci-1" to "uci-4" and "uci-train-2";
            "original" (the file `mnist_test_seq.npy`, if it lies in `root` or `$FRAMEPRED_DATA`).
        n: the first n clips of it, at most 10,000.
        root: as in `load_digits`.
    """
    if name not in (*TEST_SETS, "original"):
        raise ValueError(f"unknown test set {name!r}; known: {', '.join([*TEST_SETS, 'original'])}")
    if not 1 <= n <= 10_000:
        raise ValueError(f"n is {n}; a test set has 1 to 10,000 clips")
    if name == "original":
        roots = [Path(r) for r in (root, os.environ.get("FRAMEPRED_DATA")) if r]
        path = next((r / "mnist_test_seq.npy" for r in roots if (r / "mnist_test_seq.npy").is_file()), None)
        if path is None:
            raise FileNotFoundError(
                "mnist_test_seq.npy was not found; put it into a folder and give that folder as root or in FRAMEPRED_DATA "
                "(its home: http://www.cs.toronto.edu/~nitish/unsupervised_video/)"
            )
        check_digest(path, f"md5:{OriginalTestFile.MD5}")
        return TestSet(name, n, OriginalTestFile(path))
    source, split, n_digits = TEST_SETS[name]
    return TestSet(name, n, MovingDigits(load_digits(source, split, root), n_digits))


test_set.__test__ = False  # type: ignore[attr-defined]  # nor is this a test
