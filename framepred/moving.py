"""Moving digits: clips of glyphs that bounce inside a square (Srivastava et al. 2015), and the fixed test sets.

Clip k of a seed is a function of (seed, k) alone. Every random number comes from a counter-based generator (Philox) at
a place that follows from k, so clips can be made in any order, in any batch, by any number of processes, and training
resumes without a state to save.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from framepred.digits import GLYPH_SIZE, Digits, check_digest, load_digits

CHUNK = 32  # clips rendered at a time on the CPU: 2.6 MB of frames, which stay in the cache while glyphs are pasted
TEST_SEED = 20_150_216  # the month in which Srivastava et al. published the data; not a seed anyone trains with


@dataclass(frozen=True, eq=False)
class Clips:
    """A batch of clips: what one sees, and what made it.

    `positions[b, t, g]` is the (x, y) of the top left corner of glyph g in frame t, in pixels; `glyphs[b, g]` its
    picture and `labels[b, g]` what it shows.
    """

    frames: Float[Tensor, "B T 1 H W"] | UInt8[Tensor, "B T 1 H W"]
    positions: Int64[Tensor, "B T G 2"]
    glyphs: UInt8[Tensor, "B G 28 28"]
    labels: Int64[Tensor, "B G"]

    def __len__(self) -> int:
        return len(self.frames)

    def split(self, context: int = 10) -> tuple[Tensor, Tensor]:
        """The first `context` frames, and the frames to predict."""
        n_frames = self.frames.shape[1]
        if not 1 <= context < n_frames:
            raise ValueError(
                f"context is {context}; a clip of {n_frames} frames splits after 1 to {n_frames - 1} of them"
            )
        return self.frames[:, :context], self.frames[:, context:]

    def alone(self, glyph: int) -> Tensor:
        """The same clips with one glyph only. The maximum over all glyphs gives `frames` back."""
        n_glyphs = self.glyphs.shape[1]
        if not 0 <= glyph < n_glyphs:
            raise ValueError(f"glyph is {glyph}; these clips hold glyphs 0 to {n_glyphs - 1}")
        one = slice(glyph, glyph + 1)
        frames = _render(self.glyphs[:, one], self.positions[:, :, one], self.frames.shape[-1])
        return frames if self.frames.dtype == torch.uint8 else _to_float(frames)


class MovingDigits:
    """An endless supply of clips of bouncing glyphs.

    Each glyph starts at a place drawn uniformly from the square it can move in, with a velocity of `speed` in a
    direction drawn uniformly. In every frame it first takes a step; a coordinate that leaves [0, 1] is set to the
    border and its velocity flips. Glyphs pass through one another: a pixel shows the brightest. They are drawn without
    replacement: a pass over all glyphs in random order, then another. After emansim/unsupervised-videos.

    Args:
        digits: where the glyphs come from.
        n_digits: glyphs in a clip.
        n_frames: frames in a clip.
        frame_size: height and width of a frame in pixels, at least that of a glyph (28).
        speed: step per frame, as a fraction of the free range (frame_size - 28 px); 0.1 is 3.6 px in a 64×64 frame.
        acceleration: change of the velocity per frame, same unit, constant in a clip and in a direction drawn for each
            glyph, like gravity (beyond the thesis; 0 gives the same clips as if the option did not exist).
    """

    def __init__(
        self,
        digits: Digits,
        n_digits: int = 2,
        n_frames: int = 20,
        frame_size: int = 64,
        speed: float = 0.1,
        acceleration: float = 0.0,
    ):
        if not 1 <= n_digits <= len(digits):
            raise ValueError(
                f"n_digits is {n_digits}; {digits.source} ({digits.split}) holds {len(digits)} glyphs, so 1 to {len(digits)} fit in a clip"
            )
        if n_frames < 1:
            raise ValueError(f"n_frames is {n_frames}; a clip has at least 1 frame")
        if frame_size < GLYPH_SIZE:
            raise ValueError(
                f"frame_size is {frame_size}; a frame holds a glyph of {GLYPH_SIZE} px, so it needs at least that"
            )
        for name, value in {"speed": speed, "acceleration": acceleration}.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} is {value}; expected a fraction of the free range per frame, 0 or more")
        self.digits, self.n_digits, self.n_frames, self.frame_size = digits, n_digits, n_frames, frame_size
        self.speed, self.acceleration = speed, acceleration
        self._glyphs = {torch.device("cpu"): digits.images}

    def __repr__(self) -> str:
        return f"MovingDigits({self.digits!r}, n_digits={self.n_digits}, n_frames={self.n_frames}, frame_size={self.frame_size}, speed={self.speed}, acceleration={self.acceleration})"

    def sample(
        self,
        n: int,
        seed: int = 0,
        start: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Clips:
        """Clips start, …, start + n - 1 of a seed.

        Args:
            n: how many, at least 1.
            seed: any integer from 0 to 2**63 - 1; other seeds give unrelated clips.
            start: index of the first clip.
            device: where the frames are made; they are the same on every device.
            dtype: torch.float32 for frames in [0, 1], or torch.uint8 for grey values 0 to 255.
        """
        if n < 1 or start < 0:
            raise ValueError(f"n is {n} and start is {start}; expected n >= 1 and start >= 0")
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed is {seed}; expected 0 to 2**63 - 1")
        if dtype not in (torch.float32, torch.uint8):
            raise ValueError(f"dtype is {dtype}; frames are torch.float32 in [0, 1] or torch.uint8 in [0, 255]")
        device = torch.device(device)
        if device not in self._glyphs:
            self._glyphs[device] = self.digits.images.to(device)
        chosen = torch.from_numpy(self._choose(n, seed, start))
        positions = _send(torch.from_numpy(self._positions(n, seed, start)), device)
        glyphs = self._glyphs[device][_send(chosen, device)]
        frames = _render(glyphs, positions, self.frame_size)
        return Clips(
            frames if dtype == torch.uint8 else _to_float(frames), positions, glyphs, self.digits.labels[chosen]
        )

    def batches(self, n: int, batch_size: int, seed: int = 0, start: int = 0, **kwargs) -> Iterator[Clips]:
        """The clips of `sample(n, seed, start)`, at most `batch_size` of them in memory at a time."""
        if n < 1 or batch_size < 1:
            raise ValueError(f"n is {n} and batch_size is {batch_size}; expected at least 1 of each")
        for i in range(0, n, batch_size):
            yield self.sample(min(batch_size, n - i), seed, start + i, **kwargs)

    def _choose(self, n: int, seed: int, start: int) -> np.ndarray:
        """Which glyphs the clips show: (n, n_digits) indices. Glyph g of clip k is number k·n_digits + g in the passes."""
        number = np.arange(start * self.n_digits, (start + n) * self.n_digits)
        pass_, place = np.divmod(number, len(self.digits))
        chosen = np.empty_like(number)
        for p in np.unique(pass_):
            chosen[pass_ == p] = _shuffled(len(self.digits), seed, int(p))[place[pass_ == p]]
        return chosen.reshape(n, self.n_digits)

    def _positions(self, n: int, seed: int, start: int) -> np.ndarray:
        """Where the glyphs are: (n, n_frames, n_digits, 2) whole pixels.

        In float64 on the CPU, whatever device renders: in float32 about one clip in a thousand moves by a pixel.
        """
        draws = _uniform(seed, stream=0, start=4 * self.n_digits * start, n=4 * self.n_digits * n)
        x, y, heading, pull = draws.reshape(n, self.n_digits, 4).transpose(2, 0, 1)
        position = np.stack([x, y], -1)
        velocity = self.speed * _unit(heading)
        acceleration = self.acceleration * _unit(pull)
        free_range = self.frame_size - GLYPH_SIZE
        path = np.empty((self.n_frames, n, self.n_digits, 2), np.int64)
        for t in range(self.n_frames):
            if self.acceleration:
                velocity = velocity + acceleration
            position = position + velocity
            velocity = np.where((position <= 0) | (position >= 1), -velocity, velocity)
            position = position.clip(0, 1)
            path[t] = free_range * position  # assignment to integers truncates, as the original does
        return path.transpose(1, 0, 2, 3).copy()


# --- random numbers --------------------------------------------------------------------------------------------------


def _uniform(seed: int, stream: int, start: int, n: int) -> np.ndarray:
    """Numbers start, …, start + n - 1 of a stream of uniforms in [0, 1); `start` is a multiple of 4.

    From the raw output of Philox-4x64 (Salmon et al. 2011), which NumPy guarantees never to change, unlike the
    distributions that it builds on it.
    """
    raw = np.random.Philox(key=[seed, stream], counter=[start // 4, 0, 0, 0]).random_raw(n)
    return (raw >> np.uint64(11)) * 2.0**-53


@lru_cache(maxsize=4)
def _shuffled(n: int, seed: int, pass_: int) -> np.ndarray:
    """The order in which one pass goes through n glyphs."""
    return np.argsort(np.random.Philox(key=[seed, 1 + pass_]).random_raw(n), kind="stable")


def _unit(u: np.ndarray) -> np.ndarray:
    angle = 2 * np.pi * u
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device. A GPU fetches it when it gets there: nobody waits for the work that it still has to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


# --- rendering -------------------------------------------------------------------------------------------------------


def _render(
    glyphs: UInt8[Tensor, "B G 28 28"], positions: Int64[Tensor, "B T G 2"], size: int
) -> UInt8[Tensor, "B T 1 H W"]:
    B, T = positions.shape[:2]
    frames = torch.zeros(B, T, 1, size, size, dtype=torch.uint8, device=glyphs.device)
    if frames.device.type == "cpu":
        for i in range(0, B, CHUNK):
            part = slice(i, i + CHUNK)
            _paste_rows(frames[part].numpy(), glyphs[part].numpy(), positions[part].numpy())
    else:
        _paste_windows(frames, glyphs, positions)
    return frames


def _paste_rows(frames: np.ndarray, glyphs: np.ndarray, positions: np.ndarray) -> None:
    """Paste glyphs row by row, in place.

    A row of a glyph is one item of 28 bytes, and `canvas[i]` is the item that starts at byte i of the frames, so one
    indexed assignment copies every row of a glyph in all frames. This is what makes the generator fast: a copy of
    28 bytes costs about as much as one of a single byte.
    """
    B, T, _, size, _ = frames.shape
    row = np.dtype((np.void, GLYPH_SIZE))
    canvas = np.ndarray(frames.size - GLYPH_SIZE + 1, row, buffer=frames, strides=(1,))
    first_byte = np.arange(B * T).reshape(B, T) * size**2
    rows_down = np.arange(GLYPH_SIZE) * size
    for g in range(positions.shape[2]):
        x, y = positions[:, :, g, 0], positions[:, :, g, 1]
        index = (first_byte + y * size + x)[:, :, None] + rows_down
        rows = glyphs[:, None, g]
        if g:
            below = canvas[index].view(np.uint8).reshape(B, T, GLYPH_SIZE, GLYPH_SIZE)
            rows = np.maximum(below, rows)
        canvas[index] = np.ascontiguousarray(rows).view(row)[..., 0]


def _paste_windows(frames: Tensor, glyphs: Tensor, positions: Tensor) -> None:
    """Paste glyphs in place, one window of 28×28 pixels at a time for all frames: the form that suits a GPU."""
    B, T, _, size, _ = frames.shape
    places = size - GLYPH_SIZE + 1
    windows = frames.as_strided(
        (B, T, places, places, GLYPH_SIZE, GLYPH_SIZE), (T * size**2, size**2, size, 1, size, 1)
    )
    b = torch.arange(B, device=frames.device)[:, None].expand(B, T)
    t = torch.arange(T, device=frames.device).expand(B, T)
    for g in range(positions.shape[2]):
        index = (b, t, positions[:, :, g, 1], positions[:, :, g, 0])
        glyph = glyphs[:, None, g].expand(B, T, GLYPH_SIZE, GLYPH_SIZE)
        windows[index] = torch.maximum(windows[index], glyph) if g else glyph


def _to_float(frames: Tensor) -> Tensor:
    # Divided by a tensor: by a Python number, a GPU multiplies with the reciprocal, which differs in the last bit.
    # `full` makes it on the device; a copy of a tensor made here would wait for the device.
    return frames.to(torch.float32).div_(torch.full((), 255.0, device=frames.device))


# --- the fixed test sets ---------------------------------------------------------------------------------------------


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
        return Clips(frames if dtype == torch.uint8 else _to_float(frames), no_positions, no_glyphs, no_labels)


_TEST_SETS: dict[str, tuple[str, str, int]] = {
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
    if name not in (*_TEST_SETS, "original"):
        raise ValueError(f"unknown test set {name!r}; known: {', '.join([*_TEST_SETS, 'original'])}")
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
    source, split, n_digits = _TEST_SETS[name]
    return TestSet(name, n, MovingDigits(load_digits(source, split, root), n_digits))


test_set.__test__ = False  # type: ignore[attr-defined]  # nor is this a test
