"""Code exercises of Section 3.3: the warp, and the penalty that keeps a flow smooth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from framepred.exercises.checking import Case, Exercise, Mistake
from framepred.models.layers import warp as warping

# --- 3.3 the warp -----------------------------------------------------------------------------------------------------


def _warp(picture: Tensor, flow: Tensor) -> Tensor:
    return warping.warp(picture[None, None], flow[None])[0, 0]


def _sampled(picture: Tensor, flow: Tensor, **options) -> Tensor:
    H, W = picture.shape
    places = warping.identity_grid(H, W) + torch.tensor([2 / (W - 1), 2 / (H - 1)]) * flow.permute(1, 2, 0)
    options = {"align_corners": True, "padding_mode": "zeros", **options}
    return F.grid_sample(picture[None, None], places[None], **options)[0, 0]


def _warp_cases(seed: int) -> list[Case]:
    g = torch.Generator().manual_seed(seed)
    picture = 0.1 + torch.rand(6, 8, generator=g)
    still = torch.zeros(2, 6, 8)

    def constant(x: float, y: float) -> Tensor:
        return still + torch.tensor([x, y]).reshape(2, 1, 1)

    return [
        Case("a flow of 0", (picture, still)),
        Case("a flow of one pixel in x", (picture, constant(1.0, 0.0))),
        Case("a flow of (1.25, -0.5) everywhere", (picture, constant(1.25, -0.5))),
        Case("a random flow", (picture, 2 * torch.randn(2, 6, 8, generator=g))),
    ]


def _all_or_nothing(picture: Tensor, flow: Tensor) -> Tensor:
    inside = _sampled(torch.ones_like(picture), flow) > 1 - 1e-5
    return _warp(picture, flow) * inside


WARP = Exercise(
    "3.3-warp",
    "The warp",
    "sec-spatiotemporal",
    "warp(picture, flow), with picture (H, W) and flow (2, H, W) in pixels; returns (H, W)",
    _warp,
    _warp_cases,
    (
        Mistake(
            "the picture moves the wrong way: it is looked up at p - flow. Here out(p) = in(p + flow); the ink moves by -flow.",
            lambda picture, flow: _warp(picture, -flow),
        ),
        Mistake(
            "x and y are exchanged: flow[0] is x, along a row (to the right), flow[1] is y, down the columns.",
            lambda picture, flow: _warp(picture, flow.flip(0)),
        ),
        Mistake(
            "wrong where the look-up leaves the picture: outside all is zero. Yours repeats the border. Did a `clamp` stay without a mask?",
            partial(_sampled, padding_mode="border"),
        ),
        Mistake(
            "the place is rounded to the nearest pixel. Between pixels the four neighbours share, each with a weight that falls with its distance: otherwise no gradient reaches the flow.",
            partial(_sampled, mode="nearest"),
        ),
        Mistake(
            "the place is cut down to whole pixels. Between pixels the four neighbours share, each with a weight that falls with its distance: otherwise no gradient reaches the flow.",
            lambda picture, flow: _warp(picture, flow.floor()),
        ),
        Mistake(
            "the grid has its corners at the pixels' outer corners (`align_corners=False`), but the flow was scaled for corners at their centres. Even a flow of 0 changes the picture.",
            partial(_sampled, align_corners=False),
        ),
        Mistake(
            "a place that is only partly outside gives zero. Each of the four neighbours counts by itself: those inside give their share, those outside give zero.",
            _all_or_nothing,
        ),
    ),
)


def _smoothness(flow: Tensor, delta: float) -> Tensor:
    return warping.flow_smoothness(flow, delta)


def _penalty(flow: Tensor, delta: float, step: int = 2, axes=(1, 2), cost: Callable | None = None) -> Tensor:
    """`flow_smoothness` with one thing done differently."""
    cost = cost or (lambda a, d: torch.where(a.abs() <= d, a.square() / 2, d * (a.abs() - d / 2)))
    total = torch.zeros(())
    for axis in axes:
        n = flow.shape[axis]
        total = total + cost(flow.narrow(axis, step, n - step) - flow.narrow(axis, 0, n - step), delta).sum()
    return total


def _huber_cases(seed: int) -> list[Case]:
    g = torch.Generator().manual_seed(seed)
    ramp = torch.zeros(2, 4, 5)
    ramp[0] = torch.arange(5) / 4
    border = "wrong for a constant flow, which costs nothing. Differences that would need a pixel outside the map are left out; padded with zeros they would charge the border."
    return [
        Case("a ramp of 1/4 pixel in x, with delta = 1", (ramp, 1.0)),
        Case("a random flow with delta = 0.001", (torch.randn(2, 6, 7, generator=g), 1e-3)),
        Case("a random flow with delta = 0.5", (torch.randn(2, 6, 7, generator=g), 0.5)),
        Case("a flow that is 3 everywhere", (torch.full((2, 5, 5), 3.0), 0.5), border),
    ]


HUBER = Exercise(
    "3.3-huber",
    "The price of an uneven flow",
    "sec-spatiotemporal",
    "smoothness(flow, delta), with flow (2, H, W) and a number delta; returns one number",
    _smoothness,
    _huber_cases,
    (
        Mistake(
            "neighbouring pixels are compared. [-1, 0, 1] takes the pixel after minus the pixel *before*, two apart.",
            partial(_penalty, step=1),
        ),
        Mistake(
            "the map is padded with zeros, so that the border costs even where the flow is constant. Leave out differences that need a pixel outside.",
            lambda flow, delta: sum(
                _penalty(F.pad(flow, pad), delta, axes=(axis,)) for axis, pad in ((2, (1, 1, 0, 0)), (1, (0, 0, 1, 1)))
            ),
        ),
        Mistake("the differences along y are missing.", partial(_penalty, axes=(2,))),
        Mistake("the differences along x are missing.", partial(_penalty, axes=(1,))),
        Mistake(
            "all differences cost a²/2. Beyond delta the cost grows in a straight line only, so that an edge in the flow is not forbidden.",
            partial(_penalty, cost=lambda a, d: a.square() / 2),
        ),
        Mistake(
            "below delta a difference costs a², twice as much as it should. With a²/2 and delta·(|a| - delta/2), value and slope meet at delta.",
            partial(_penalty, cost=lambda a, d: torch.where(a.abs() <= d, a.square(), d * (a.abs() - d / 2))),
        ),
        Mistake(
            "this is the smooth L1 cost, Huber's divided by delta (torch has both).",
            partial(_penalty, cost=lambda a, d: F.smooth_l1_loss(a, 0 * a, reduction="none", beta=d)),
        ),
        Mistake(
            "beyond delta a difference costs delta·|a|. The line has to meet the parabola at |a| = delta: delta·(|a| - delta/2).",
            partial(_penalty, cost=lambda a, d: torch.where(a.abs() <= d, a.square() / 2, d * a.abs())),
        ),
        Mistake(
            "each sum is divided by the number of differences: a mean. The penalty is a sum over the map.",
            lambda flow, delta: sum(
                _penalty(flow, delta, axes=(axis,)) / (flow.numel() * (1 - 2 / flow.shape[axis])) for axis in (1, 2)
            ),
        ),
        Mistake(
            "the penalty is divided by the number of values: a mean. It is a sum over the map.",
            lambda flow, delta: _smoothness(flow, delta) / flow.numel(),
        ),
    ),
)

EXERCISES = (WARP, HUBER)
