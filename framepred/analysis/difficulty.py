"""What makes a clip hard: features of its clips, and a regression of the errors on them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from framepred.analysis.inference import checked, checked_confidence, per_clip
from framepred.data.moving import Clips
from framepred.data.rendering import CHUNK, render


@dataclass(frozen=True, eq=False)
class Regression:
    """A linear model of the errors. `table` has a row a feature: the change of the error, in nats, that comes with one
    standard deviation more of the feature while the others stay; and its interval."""

    table: pd.DataFrame = field(repr=False)  # columns nats, low, high
    mean: float
    r2: float  # the share of the errors' variance that the features explain


def clip_features(clips: Clips, context: int = 10) -> pd.DataFrame:
    """What could make a clip hard to predict, a row a clip:

    - `overlap`: pixels on which two glyphs or more have ink, mean over the frames to predict;
    - `bounces_seen`, `bounces_ahead`: how often a glyph turns at a wall in the context and in the frames to predict;
    - `ink`: grey of the clip's glyphs, summed, in white pixels.

    A turn counts in the last frame at the wall, once for each axis; one that the clip's first or last frame hides, when
    the glyph is not seen on its way to the wall or back, does not count.
    """
    if clips.positions.shape[2] == 0:
        raise ValueError(
            "these clips do not say where their glyphs are (the original test file does not); use generated ones"
        )
    clips.split(context)  # raises ValueError if the clips cannot be split there
    overlap = torch.cat(
        [
            pixels_shared(clips.glyphs[i : i + CHUNK], clips.positions[i : i + CHUNK, context:], clips.frames.shape[-1])
            for i in range(0, len(clips), CHUNK)
        ]
    )
    turns = _turns(clips.positions.cpu().numpy(), clips.frames.shape[-1] - clips.glyphs.shape[-1]).sum((2, 3))
    return pd.DataFrame(
        {
            "overlap": overlap.cpu().numpy(),
            "bounces_seen": turns[:, :context].sum(1),
            "bounces_ahead": turns[:, context:].sum(1),
            "ink": clips.glyphs.double().sum((1, 2, 3)).cpu().numpy() / 255,
        }
    )


def regress(features: pd.DataFrame, errors: ArrayLike, confidence: float = 0.95) -> Regression:
    """Ordinary least squares of the per-clip errors on standardised features.

    The intervals hold where the errors scatter more for some clips than for others, as they do: standard errors are
    HC3 (MacKinnon and White 1985).

    Raises:
        ValueError: if a feature is constant or follows from the others, so that no coefficient can be its own; or if one
            clip alone decides a coefficient, of which HC3 then knows no error.
    """
    from statsmodels.regression.linear_model import OLS  # a fifth of the time that statsmodels.api takes to import

    x, y = checked(features, "features", dimensions=(2,)), per_clip(errors, "errors")
    n, k = x.shape
    if len(y) != n:
        raise ValueError(f"features describe {n} clips and errors {len(y)}; expected the same clips in the same order")
    if n < k + 3:
        raise ValueError(f"{n} clips are too few for {k} features; expected at least {k + 3}")
    constant = [str(name) for name, column in zip(features.columns, x.T) if np.ptp(column) == 0]
    if constant:
        raise ValueError(f"the same in every clip: {', '.join(constant)}; drop them from the features")
    z = np.column_stack([np.ones(n), (x - x.mean(0)) / x.std(0)])
    if np.linalg.matrix_rank(z) <= k:
        raise ValueError(f"one of {', '.join(map(str, features.columns))} follows from the others; drop it")
    fit = OLS(y, z).fit()
    leverage = np.einsum("ij,jk,ik->i", z, fit.normalized_cov_params, z)
    if leverage.max() > 1 - 1e-9:
        raise ValueError(
            f"clip {leverage.argmax()} alone decides a coefficient, which then has no interval; "
            "drop the feature that sets it apart, or take more clips"
        )
    fit = fit.get_robustcov_results("HC3", use_t=True)
    table = np.column_stack([fit.params, fit.conf_int(1 - checked_confidence(confidence))])[1:]
    return Regression(
        pd.DataFrame(table, features.columns, ["nats", "low", "high"]),
        float(fit.params[0]),
        float(fit.rsquared) if np.ptp(y) else 0.0,
    )


def pixels_shared(glyphs: Tensor, positions: Tensor, size: int) -> Tensor:
    """Pixels a frame on which two glyphs or more have ink, the mean over the frames: (B,)."""
    inked = (glyphs > 0).to(torch.uint8)
    alone = [render(inked[:, g : g + 1], positions[:, :, g : g + 1], size) for g in range(glyphs.shape[1])]
    covered = torch.stack(alone).sum(0)
    return (covered > 1).sum((2, 3, 4)).double().mean(1)


def _turns(positions: np.ndarray, free_range: int) -> np.ndarray:
    """Whether each coordinate turns at a wall: bool, of the shape (B, T, G, 2) of the positions.

    Positions are truncated to whole pixels, so a glyph can show 0 for a frame or more around its contact with the left
    or upper wall; the runs at one place are what is compared with the frames before and after them.
    """
    turns = np.zeros(positions.shape, bool)
    arriving = np.zeros_like(positions[:, 0])  # direction of the last step that was seen, 0 before the first
    for t in range(1, positions.shape[1]):
        step = np.sign(positions[:, t] - positions[:, t - 1])
        at_wall = (positions[:, t - 1] == 0) | (positions[:, t - 1] == free_range)
        turns[:, t - 1] = (step * arriving == -1) & at_wall
        arriving = np.where(step == 0, arriving, step)
    return turns
