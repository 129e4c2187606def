"""Pictures of clips. Grey levels are data: nothing here rescales, smooths or gamma-corrects them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def grey(frames: Tensor | np.ndarray) -> np.ndarray:
    """Frames (T, 1, H, W) or (T, H, W), floats in [0, 1] or uint8, as uint8 (T, H, W)."""
    array = np.asarray(frames.detach().cpu() if isinstance(frames, Tensor) else frames)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 3:
        raise ValueError(
            f"a row of frames has shape {array.shape}; expected (frames, 1, height, width) or (frames, height, width)"
        )
    return array if array.dtype == np.uint8 else np.round(array.clip(0, 1) * 255).astype(np.uint8)


def overlay(truth: Tensor | np.ndarray, prediction: Tensor | np.ndarray) -> np.ndarray:
    """The truth in white and, in red, what a prediction paints where the truth has nothing (T Figures 4.4–4.8).

    Returns:
        uint8 (T, H, W, 3): red max(t, p), green and blue t, for truth t and prediction p. FramePlayer's overlay.
    """
    true, predicted = grey(truth), grey(prediction)
    return np.stack([np.maximum(true, predicted), true, true], -1)


def film_strip(
    rows: Mapping[str, Tensor | np.ndarray],
    titles: Sequence[str] | None = None,
    gap_after: int | None = None,
    width: float = 9.0,
) -> Figure:
    """Rows of frames under one another, time from left to right.

    Args:
        rows: for each name the frames (T, 1, H, W) in [0, 1], or colour frames uint8 (T, H, W, 3) such as an overlay.
            A shorter row ends with the longest: predictions stand under the frames they predict.
        titles: one for each column; the frame numbers from 1, unless told.
        gap_after: the number of context frames, set off by a gap.
        width: of the figure in inches.
    """
    import matplotlib.pyplot as plt

    pictures = {name: r if np.ndim(r) == 4 and np.shape(r)[-1] == 3 else grey(r) for name, r in rows.items()}
    columns = max(len(r) for r in pictures.values())
    titles = [str(t + 1) for t in range(columns)] if titles is None else list(titles)
    ratios = [1.0] * columns
    if gap_after:
        ratios.insert(gap_after, 0.3)
    label = 1.05  # inches for the names of the rows
    cell = (width - label) / sum(ratios)
    figure, axes = plt.subplots(
        len(pictures),
        len(ratios),
        figsize=(width, cell * len(pictures) * 1.06 + 0.3),
        squeeze=False,
        width_ratios=ratios,
    )
    figure.subplots_adjust(label / width, 0.01, 0.995, 1 - 0.28 / figure.get_figheight(), wspace=0.06, hspace=0.06)
    for ax in axes.flat:
        ax.set_axis_off()
    for row, (name, frames) in zip(axes, pictures.items()):
        cells = [ax for k, ax in enumerate(row) if not (gap_after and k == gap_after)]
        row[0].text(-0.15, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=9)
        for ax, frame in zip(cells[columns - len(frames) :], frames):
            ax.imshow(frame, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    for ax, title in zip((ax for k, ax in enumerate(axes[0]) if not (gap_after and k == gap_after)), titles):
        ax.set_title(title, fontsize=8, pad=2)
    return figure
