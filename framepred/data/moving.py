"""Moving digits: clips of glyphs that bounce inside a square (Srivastava et al. 2015).

Clip k of a seed is a function of (seed, k) alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from framepred.data.glyphs import GLYPH_SIZE, GlyphSet
from framepred.data.rendering import render, to_float
from framepred.data.streams import shuffled, to_device, uniform, unit_vector


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

    def __getitem__(self, rows: slice | Sequence[int] | Tensor | np.ndarray) -> Clips:
        """Some of the clips, chosen by a slice, by an array of numbers or by a mask."""
        if np.ndim(rows) == 0 and not isinstance(rows, slice):  # type: ignore[arg-type]
            raise TypeError(
                f"clips[{rows!r}] has no batch; take a slice, such as [3:4], an array of numbers, or a mask"
            )
        return Clips(self.frames[rows], self.positions[rows], self.glyphs[rows], self.labels[rows])

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
        frames = render(self.glyphs[:, one], self.positions[:, :, one], self.frames.shape[-1])
        return frames if self.frames.dtype == torch.uint8 else to_float(frames)


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
        digits: GlyphSet,
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
        positions = to_device(torch.from_numpy(self._positions(n, seed, start)), device)
        glyphs = self._glyphs[device][to_device(chosen, device)]
        frames = render(glyphs, positions, self.frame_size)
        return Clips(
            frames if dtype == torch.uint8 else to_float(frames), positions, glyphs, self.digits.labels[chosen]
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
            chosen[pass_ == p] = shuffled(len(self.digits), seed, int(p))[place[pass_ == p]]
        return chosen.reshape(n, self.n_digits)

    def _positions(self, n: int, seed: int, start: int) -> np.ndarray:
        """Where the glyphs are: (n, n_frames, n_digits, 2) whole pixels.

        In float64 on the CPU, whatever device renders: in float32 about one clip in a thousand moves by a pixel.
        """
        draws = uniform(seed, stream=0, start=4 * self.n_digits * start, n=4 * self.n_digits * n)
        x, y, heading, pull = draws.reshape(n, self.n_digits, 4).transpose(2, 0, 1)
        position = np.stack([x, y], -1)
        velocity = self.speed * unit_vector(heading)
        acceleration = self.acceleration * unit_vector(pull)
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
