"""Code exercises of Chapter 4: the correlation of ranks, and how far a digit has drifted."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

from framepred.exercises.checking import Case, Exercise, Mistake

# --- 4.3 -------------------------------------------------------------------------------------------------------------


def _spearman(a: Tensor, b: Tensor) -> float:
    return float(stats.spearmanr(a, b).statistic)


def _pearson(a: ArrayLike, b: ArrayLike) -> float:
    return float(np.corrcoef(np.asarray(a), np.asarray(b))[0, 1])


def _of_ranks(method: str):
    return lambda a, b: _pearson(stats.rankdata(a, method), stats.rankdata(b, method))


def _short_formula(a: Tensor, b: Tensor) -> float:
    d, n = stats.rankdata(a) - stats.rankdata(b), len(a)
    return 1 - 6 * float(d @ d) / (n * (n**2 - 1))


def _spearman_cases(seed: int) -> list[Case]:
    g = torch.Generator().manual_seed(seed)
    skill, noise = torch.randn(2, 60, generator=g, dtype=torch.float64)
    whole = torch.randint(0, 6, (60,), generator=g).double()
    ties = "right without ties, wrong where errors are equal. Equal values share the mean of their ranks."
    return [
        Case("five errors", (torch.tensor([10.0, 20, 30, 40, 50]), torch.tensor([1.0, 8, 9, 30, 20]))),
        Case("random errors with a long tail", (skill.exp(), (skill + noise).exp() * 100)),
        Case("errors with ties", (whole, (whole + 2 * noise).round()), ties),
    ]


SPEARMAN = Exercise(
    "4.3-spearman",
    "Spearman's correlation",
    "sec-distributions",
    "spearman(a, b), two tensors (clips,); returns one number in [-1, 1]",
    _spearman,
    _spearman_cases,
    (
        Mistake(
            "this is Pearson's correlation of the values. Replace each value by its rank first: then one huge error weighs no more than any other.",
            _pearson,
        ),
        Mistake(
            "`argsort` alone does not give ranks: it says which clip comes at place k, not at which place a clip comes. The second is what a rank is.",
            lambda a, b: _pearson(*(np.argsort(np.asarray(v), kind="stable") for v in (a, b))),
        ),
        Mistake(
            "right without ties; where errors are equal, ranks go by the order in the list. Equal values share the mean of their ranks.",
            _of_ranks("ordinal"),
        ),
        Mistake(
            "right without ties; equal errors all get the lowest of their ranks. They share the mean of their ranks.",
            _of_ranks("min"),
        ),
        Mistake(
            "right without ties; 1 - 6 Σd²/(n(n² - 1)) holds only without ties. Take Pearson's correlation of the ranks.",
            _short_formula,
        ),
        Mistake(
            "this is Kendall's τ, which counts pairs in the same order. Spearman correlates ranks.",
            lambda a, b: float(stats.kendalltau(a, b).statistic),
        ),
    ),
)

# --- 4.7 -------------------------------------------------------------------------------------------------------------


def best_shift(logits: Tensor, truth: Tensor, radius: int) -> tuple[int, int]:
    return _search(logits, truth, range(-radius, radius + 1))


def _search(logits: Tensor, truth: Tensor, steps: range, sign: int = 1) -> tuple[int, int]:
    def nats(shift: tuple[int, int]) -> float:
        moved = torch.roll(truth, (shift[1], shift[0]), (0, 1))  # nothing wraps: the cases have room
        return sign * F.binary_cross_entropy_with_logits(logits, moved, reduction="sum").item()

    return min(((x, y) for y in steps for x in steps), key=nats)


def _shift_cases(seed: int) -> list[Case]:
    g = torch.Generator().manual_seed(seed)
    cases = []
    for dx, dy, radius in ((0, 0, 3), (2, -1, 3), (-3, 1, 4), (4, 2, 4), (1, 3, 3)):
        truth = torch.zeros(28, 28)
        # Ink that leans to one corner, so that no other shift fits nearly as well.
        truth[10:18, 10:18] = (
            torch.rand(8, 8, generator=g) * torch.linspace(0.2, 1, 8) * torch.linspace(1, 0.3, 8)[:, None]
        )
        moved = torch.roll(truth, (dy, dx), (0, 1))
        logits = (0.02 + 0.9 * moved).logit() + 0.1 * torch.randn(28, 28, generator=g)
        edge = max(abs(dx), abs(dy)) == radius
        hint = (
            "right inside the search, wrong at its edge: `radius` itself belongs to it, on both sides. A `range` leaves its end out."
            if edge
            else ""
        )
        cases.append(
            Case(f"a digit that drifted by ({dx}, {dy}) with radius = {radius}", (logits, truth, radius), hint)
        )
    return cases


SHIFT = Exercise(
    "4.7-drift",
    "The search for the drift",
    "sec-drift-or-blur",
    "best_shift(logits, truth, radius), two tensors (H, W) and a number; returns whole numbers (dx, dy)",
    best_shift,
    _shift_cases,
    (
        Mistake(
            "x and y are exchanged: the result is (dx, dy), but torch.roll and indices take rows, y, first.",
            lambda *arguments: best_shift(*arguments)[::-1],
        ),
        Mistake(
            "the sign is turned: this takes the prediction back to the truth. The drift takes the true digit to where the prediction shows it.",
            lambda *arguments: tuple(-step for step in best_shift(*arguments)),
        ),
        Mistake(
            "this is the place in the table of the search, counted from 0. Subtract `radius` to get a shift.",
            lambda logits, truth, radius: tuple(step + radius for step in best_shift(logits, truth, radius)),
        ),
        Mistake(
            "this is the *worst* shift. The best one has the fewest nats.",
            lambda logits, truth, radius: _search(logits, truth, range(-radius, radius + 1), -1),
        ),
        Mistake(
            "wrong at the edge of the search: `range(-radius, radius)` leaves `radius` itself out.",
            lambda logits, truth, radius: _search(logits, truth, range(-radius, radius)),
        ),
    ),
)

EXERCISES = (SPEARMAN, SHIFT)
