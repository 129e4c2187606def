"""Code exercises of Section 3.1: one step between the walls, and nats per frame."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from framepred.exercises.checking import Case, Exercise, Mistake
from framepred.metrics import cross_entropy

# --- 3.1 one step between the walls ----------------------------------------------------------------------------------


def bounce(x: float, v: float) -> tuple[float, float]:
    """One coordinate of one frame in `MovingDigits._positions`; a test compares the two."""
    x += v
    return min(max(x, 0.0), 1.0), -v if x <= 0 or x >= 1 else v


def _turn_first(x: float, v: float) -> tuple[float, float]:
    v = -v if x + v <= 0 or x + v >= 1 else v
    return x + v, v


def _look_before(x: float, v: float) -> tuple[float, float]:
    v = -v if x <= 0 or x >= 1 else v
    return min(max(x + v, 0.0), 1.0), v


def _mirror(x: float, v: float) -> tuple[float, float]:
    _, after = bounce(x, v)
    x += v
    return (-x if x < 0 else 2 - x if x > 1 else x), after


def _bounce_cases(seed: int) -> list[Case]:
    g = torch.Generator().manual_seed(seed)
    inside = 0.2 + 0.6 * torch.rand(3, generator=g, dtype=torch.float64)
    wall = "right but for a glyph that lands exactly on a wall: it turns there, too. Compare with <= 0 and >= 1."
    return [
        *(Case(f"x = {x:.3f} and v = 0.1", (x, 0.1)) for x in inside.tolist()),
        Case("x = 0.95 and v = 0.1", (0.95, 0.1)),
        Case("x = 0.03 and v = -0.1", (0.03, -0.1)),
        Case("x = 0.75 and v = 0.25", (0.75, 0.25), wall),
        Case("x = 0.25 and v = -0.25", (0.25, -0.25), wall),
        Case("x = 1 and v = -0.1", (1.0, -0.1), "a glyph on the wall that moves away from it must not turn again. Step first, then look where it is."),
    ]  # fmt: skip


BOUNCE = Exercise(
    "3.1-bounce",
    "The step between the walls",
    "sec-moving-digits",
    "bounce(x, v), two numbers; returns the new (x, v)",
    bounce,
    _bounce_cases,
    (
        Mistake(
            "it flies through the wall: the position is right, but the velocity never changes its sign.",
            lambda x, v: (bounce(x, v)[0], v),
        ),
        Mistake(
            "the velocity turns, but the position stays outside [0, 1]. Set it to the wall.",
            lambda x, v: (x + v, bounce(x, v)[1]),
        ),
        Mistake(
            "the way beyond the wall is mirrored back, as light would be. The generator is simpler: it sets the position to the wall.",
            _mirror,
        ),
        Mistake(
            "the velocity turns before the step is made, so the glyph never reaches the wall. Step first, then look where it is.",
            _turn_first,
        ),
        Mistake(
            "it looks for the wall before the step, so the glyph turns one frame too late. Step first, then look where it is.",
            _look_before,
        ),
        Mistake(
            "the wall at 0 is missing: a coordinate can leave on both sides.",
            lambda x, v: bounce(x, v) if x + v > 0 else (x + v, v),
        ),
        Mistake(
            "the wall at 1 is missing: a coordinate can leave on both sides.",
            lambda x, v: bounce(x, v) if x + v < 1 else (x + v, v),
        ),
        Mistake("the order of the results: the position first, then the velocity.", lambda x, v: bounce(x, v)[::-1]),
    ),
)

# --- 3.1 nats per frame ----------------------------------------------------------------------------------------------


def _naive(logits: Tensor, target: Tensor) -> Tensor:
    p = logits.sigmoid()
    return -(target * p.log() + (1 - target) * (1 - p).log()).sum((2, 3, 4))


def _white_only(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * F.logsigmoid(logits)).sum((2, 3, 4))


def _nats_cases(seed: int) -> list[Case]:
    g = torch.Generator().manual_seed(seed)

    def frames() -> Tensor:
        return torch.rand(2, 3, 1, 4, 5, generator=g)

    sure = 200 * torch.randn(2, 3, 1, 4, 5, generator=g).sign()
    return [
        Case("logits of 0", (torch.zeros(2, 3, 1, 4, 5), frames())),
        Case("random logits", (2 * torch.randn(2, 3, 1, 4, 5, generator=g), frames())),
        Case("logits of ±200", (sure, frames()),
             "right for moderate logits, wrong for ±200, where p rounds to 0 or 1 and its logarithm is lost. Don't go through p, and don't clamp it: ln p is `F.logsigmoid(logits)`, and ln(1 - p) is `F.logsigmoid(-logits)`."),
    ]  # fmt: skip


CROSS_ENTROPY = Exercise(
    "3.1-cross-entropy",
    "Nats per frame",
    "sec-moving-digits",
    "nats(logits, target), two tensors (B, T, 1, H, W); returns (B, T)",
    cross_entropy,
    _nats_cases,
    (
        Mistake(
            "the pixels of a frame are averaged. Nats per *frame* add them up: the error of a frame grows with its size.",
            lambda logits, target: cross_entropy(logits, target) / target[0, 0].numel(),
        ),
        Mistake(
            "everything is one number: all frames of all clips were added. Sum over the pixels only, the last three axes, and (B, T) is left.",
            lambda logits, target: cross_entropy(logits, target).sum(),
        ),
        Mistake(
            "everything is one number: all frames of all clips were averaged. Sum over the pixels only, the last three axes, and (B, T) is left.",
            lambda logits, target: F.binary_cross_entropy_with_logits(logits, target),
        ),
        Mistake(
            "these are bits: the logarithm is that of base 2. Nats take the natural one.",
            lambda logits, target: cross_entropy(logits, target) / math.log(2),
        ),
        Mistake("the sign is missing: an error is positive.", lambda logits, target: -cross_entropy(logits, target)),
        Mistake(
            "only t·ln p is there. A grey pixel is also black to a part: (1 - t)·ln(1 - p) is missing.", _white_only
        ),
        Mistake(
            "t and p have changed places: the prediction stands inside the logarithm, the target before it.",
            lambda logits, target: _naive(target.logit(), logits.sigmoid()),
        ),
    ),
)

EXERCISES = (BOUNCE, CROSS_ENTROPY)
