"""From glyphs and places to frames: a pixel shows the brightest of the glyphs that cover it.

Written plainly (`benchmark.reference.render_plainly`), for each clip b, frame t and glyph g at (x, y):

    window = frames[b, t, 0, y : y + 28, x : x + 28]
    np.maximum(window, glyphs[b, g], out=window)

`render` gives the same frames, which a test compares, without a loop over clips and frames: on a CPU row by row, on a GPU
window by window.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from framepred.data.glyphs import GLYPH_SIZE

CHUNK = 32  # clips rendered at a time on the CPU: 2.6 MB of frames, which stay in the cache while glyphs are pasted


def render(
    glyphs: UInt8[Tensor, "B G 28 28"], positions: Int64[Tensor, "B T G 2"], size: int
) -> UInt8[Tensor, "B T 1 H W"]:
    """Frames of `size` × `size` pixels with each glyph g of clip b at (x, y) = positions[b, t, g], its top left corner."""
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


def to_float(frames: UInt8[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Grey values 0 to 255 as float32 in [0, 1], the same on every device."""
    # Divided by a tensor: by a Python number, a GPU multiplies with the reciprocal, which differs in the last bit.
    # `full` makes it on the device; a copy of a tensor made here would wait for the device.
    return frames.to(torch.float32).div_(torch.full((), 255.0, device=frames.device))
