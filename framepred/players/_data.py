"""Frames for the players: checked, quantised to grey values, packed for the browser, and composed into pictures."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LIMIT = 32 * 2**20  # bytes of pixels in one player; what a phone's browser unpacks and keeps without trouble
GAP = 2  # pixels between the frames of a picture
HEADING = 16  # height of a line of names or frame numbers in a picture
COLUMN = 7  # width to leave for a letter of a name


def to_numpy(value: Any) -> np.ndarray:
    """A tensor (of any device and precision) or an array, as an array that NumPy can compute with."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    return np.asarray(value)


def grey_values(name: str, value: object) -> np.ndarray:
    """Frames as grey values: uint8 (clips, frames, height, width).

    Args:
        name: what the frames are called in an error.
        value: frames in [0, 1], rounded to the nearest of the 256 grey values, or grey values as uint8; of shape
            (T, H, W), (T, 1, H, W), or (N, T, 1, H, W) for several clips.

    Raises:
        ValueError: another shape, no pixels, or values that are not finite or outside [0, 1].
        TypeError: neither floating point nor uint8.
    """
    frames = to_numpy(value)
    if frames.ndim not in (3, 4, 5) or (frames.ndim > 3 and frames.shape[-3] != 1):
        raise ValueError(f"{name!r} has shape {frames.shape}; expected (T, H, W), (T, 1, H, W) or (N, T, 1, H, W)")
    if not frames.size:
        raise ValueError(f"{name!r} has shape {frames.shape}: there is nothing to show")
    if frames.dtype != np.uint8:
        if not np.issubdtype(frames.dtype, np.floating):
            raise TypeError(f"{name!r} holds {frames.dtype}; expected numbers in [0, 1], or uint8")
        low, high = frames.min(), frames.max()
        if not (low >= 0 and high <= 1):  # not the other way round, to catch NaN
            raise ValueError(f"{name!r} holds values from {low:g} to {high:g}; expected [0, 1]")
        frames = np.rint(frames * 255).astype(np.uint8)
    *_, H, W = frames.shape
    return frames.reshape(frames.shape[0] if frames.ndim == 5 else 1, -1, H, W)


def same_shape(rows: Mapping[str, np.ndarray]) -> tuple[int, int, int, int]:
    """The (clips, frames, height, width) that all rows share; an error names the row that differs from the first."""
    (first, reference), *others = rows.items()
    for name, row in others:
        for axis, (size, expected) in enumerate(zip(row.shape, reference.shape)):
            if size != expected:
                what = ("clips", "frames", "pixels in height", "pixels in width")[axis]
                raise ValueError(f"{name!r} has {size} {what}; {first!r} has {expected}")
    return reference.shape


def check_size(n_bytes: int, what: str) -> None:
    """Refuse what would make a browser slow."""
    if n_bytes > LIMIT:
        raise ValueError(
            f"{what} are {n_bytes / 2**20:.1f} MiB of pixels; a player holds at most {LIMIT / 2**20:.0f} MiB"
        )


def pack(data: bytes) -> str:
    """Bytes, compressed (zlib) and as text (base64). The browser unpacks them with its own DecompressionStream."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


# --- pictures --------------------------------------------------------------------------------------------------------


def contact_sheet(
    rows: Mapping[str, np.ndarray], context: int = 0, columns: int | None = None, zoom: int = 1
) -> Image.Image:
    """A row of frames for each name, with the frame numbers above and a wider gap after the context.

    Args:
        rows: name → uint8 (frames, height, width), or (frames, height, width, 3) for colours.
        context: how many frames at the start are context.
        columns: how many frames to show, evenly spaced from the first to the last; all, unless told.
        zoom: size of a pixel.
    """
    T, H, W = next(iter(rows.values())).shape[:3]
    H, W = H * zoom, W * zoom
    shown = np.linspace(0, T - 1, min(T, columns or T)).round().astype(int)
    margin = COLUMN * max(map(len, rows)) + 6
    left = [margin + i * (W + GAP) + (8 if t >= context > 0 else 0) for i, t in enumerate(shown)]
    picture = Image.new(_mode(rows), (left[-1] + W, HEADING + len(rows) * (H + GAP)), "white")
    draw = ImageDraw.Draw(picture)
    for x, t in zip(left, shown):
        draw.text((x + W / 2, 2), str(t + 1), "black", ImageFont.load_default(11), anchor="ma")
    for i, (name, row) in enumerate(rows.items()):
        y = HEADING + i * (H + GAP)
        draw.text((2, y + H / 2), name, "black", ImageFont.load_default(12), anchor="lm")
        for x, t in zip(left, shown):
            picture.paste(_enlarged(row[t], zoom), (x, y))
    return picture


def side_by_side(rows: Mapping[str, np.ndarray], t: int, zoom: int = 1) -> Image.Image:
    """Frame t of every row beside one another, with the names above, on black. `rows` as in `contact_sheet`."""
    H, W = (zoom * size for size in next(iter(rows.values())).shape[1:3])
    picture = Image.new(_mode(rows), (len(rows) * (W + GAP) - GAP, HEADING + H), "black")
    draw = ImageDraw.Draw(picture)
    for i, (name, row) in enumerate(rows.items()):
        x = i * (W + GAP)
        draw.text((x + 2, 2), name, "white", ImageFont.load_default(11))
        picture.paste(Image.new(picture.mode, (GAP, HEADING), "black"), (x + W, 0))  # a long name ends with its frame
        picture.paste(_enlarged(row[t], zoom), (x, HEADING))
    return picture


def save(path: Path, rows: Mapping[str, np.ndarray], context: int, fps: int | float, zoom: int) -> None:
    """Write `side_by_side` as an animation (.gif) or `contact_sheet` (.png)."""
    if path.suffix == ".png":
        contact_sheet(rows, context, zoom=zoom).save(path)
    elif path.suffix == ".gif":
        T = len(next(iter(rows.values())))
        first, *others = (side_by_side(rows, t, zoom) for t in range(T))
        first.save(path, save_all=True, append_images=others, duration=round(1000 / fps), loop=0)
    else:
        raise ValueError(f"cannot save {path.name!r}: the name must end in .gif (animation) or .png (film strip)")


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _mode(rows: Mapping[str, np.ndarray]) -> str:
    return "RGB" if any(row.ndim == 4 for row in rows.values()) else "L"


def _enlarged(frame: np.ndarray, zoom: int) -> Image.Image:
    return Image.fromarray(frame.repeat(zoom, 0).repeat(zoom, 1))
