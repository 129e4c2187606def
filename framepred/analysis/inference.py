"""What errors say: intervals, comparisons, ranks, distributions. Thin over SciPy.

Errors are arrays (clips, frames), such as `Scores.nats`, or one number a clip. Where a number a clip is needed, frames
are averaged first, as the thesis does; for one frame pass its column, `scores.nats[:, 9]`. The clip is the unit of
chance: its frames are not independent, so intervals resample whole clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int
from numpy.typing import ArrayLike
from scipy import stats

RESAMPLES = 2_000


@dataclass(frozen=True)
class Estimate:
    """A number and the interval that holds the true one with the given confidence. Prints as `361.5 [359, 364]`."""

    value: float
    low: float
    high: float
    confidence: float = 0.95

    def __str__(self) -> str:
        third = (self.high - self.low) / 3  # two digits for a width of 0.1 to 0.3, one more than for 0.4 to 1
        places = max(0, -math.floor(math.log10(third))) if 0 < third < math.inf else 3  # what the interval can resolve
        low, high = (round(end, places) + 0.0 for end in (self.low, self.high))  # + 0.0: no -0.0
        return f"{self.value:.{max(places, 1)}f} [{low:.{places}f}, {high:.{places}f}]"


@dataclass(frozen=True)
class Comparison:
    """The mean of the second errors minus that of the first, and how likely one as large is where there is none."""

    difference: Estimate
    p: float
    test: str

    def __str__(self) -> str:
        p = f"p = {self.p:.2g}" if self.p >= 1e-4 else "p < 0.0001"
        return f"{self.difference} ({p}, {self.test})"


@dataclass(frozen=True)
class Box:
    """What a box plot shows of one sample.

    Whiskers end at the last value within 1.5 times the interquartile range of the box (Tukey), or at the box where no
    such value lies beyond it; values further out are outliers. Skewness is the third standardised moment: 0 for a
    symmetric sample, positive for a long upper tail.
    """

    mean: float
    minimum: float
    q1: float
    median: float
    q3: float
    maximum: float
    whisker_low: float
    whisker_high: float
    outliers: int
    skewness: float


# --- intervals -------------------------------------------------------------------------------------------------------


def interval(values: ArrayLike, statistic: Callable = np.mean, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """A statistic of the per-clip errors with its percentile bootstrap interval (Efron 1979).

    Args:
        values: (clips,), or (clips, frames), whose mean over the frames is taken first.
        statistic: of a sample; the faster if it takes `axis`, as those of NumPy and SciPy do.
        confidence: the share of such intervals that hold the true value, between 0 and 1.
        seed: of the resampling: the same seed gives the same interval.
    """
    errors = per_clip(values)
    low, high = _bootstrap((errors,), statistic, confidence, seed)
    return Estimate(float(statistic(errors)), float(low), float(high), confidence)


def per_frame(values: ArrayLike, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Mean error of each frame with its interval: columns mean, low, high; the index counts frames from 1.

    All frames share their resamples, since clips are drawn whole.
    """
    errors = checked(values, "values", dimensions=(2,))
    low, high = _bootstrap((errors,), np.mean, confidence, seed)
    frames = pd.RangeIndex(1, errors.shape[1] + 1, name="frame")
    return pd.DataFrame({"mean": errors.mean(0), "low": low, "high": high}, index=frames)


# --- comparisons -----------------------------------------------------------------------------------------------------


def compare_unpaired(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Comparison:
    """Compare the mean errors on two sets of different clips: Welch's t-test, and its interval.

    Clip k of the first is taken to be no more like clip k of the second than any other, at least in what makes it hard.
    For train against test digits, `compare_unpaired(train, test)` is positive where test digits are harder. Where clip k
    of both sets moves along the same paths, as in `mnist-train-2` and `mnist-2`, `compare_paired` finds smaller gaps.
    """
    a, b = per_clip(first, "first"), per_clip(second, "second")
    if np.ptp(a) == np.ptp(b) == 0:
        raise ValueError("the errors do not vary in either sample, so a t-test has nothing to measure the gap against")
    result = stats.ttest_ind(b, a, equal_var=False)
    low, high = result.confidence_interval(checked_confidence(confidence))
    difference = Estimate(float(b.mean() - a.mean()), float(low), float(high), confidence)
    return Comparison(difference, float(result.pvalue), "Welch's t-test")


def compare_paired(first: ArrayLike, second: ArrayLike, confidence: float = 0.95, seed: int = 0) -> Comparison:
    """Compare errors clip by clip: the mean difference, its bootstrap interval, and Wilcoxon's signed-rank test.

    For two networks on the same clips, or one network on two sets whose clips k share something that makes them hard.
    The interval is about the mean; the test is about ranks, so that few outliers decide nothing.
    """
    a, b = _two(first, second)
    p = 1.0 if np.array_equal(a, b) else float(stats.wilcoxon(b, a).pvalue)
    return Comparison(interval(b - a, confidence=confidence, seed=seed), p, "Wilcoxon signed-rank test")


# --- ranks -----------------------------------------------------------------------------------------------------------


def rank_correlation(first: ArrayLike, second: ArrayLike, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Spearman's correlation of two networks' errors on the same clips (T Table 4.4), with its bootstrap interval.

    1 where both find the same clips hard, in the same order; -1 in the opposite order; 0 for unrelated orders.

    Raises:
        ValueError: for fewer than ten clips: so few are drawn all alike in some of the resamples, which have no order.
    """
    a, b = _two(first, second)
    if len(a) < 10:
        raise ValueError(f"{len(a)} clips are too few for a rank correlation and its interval; expected at least 10")
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise ValueError("all errors of a network are equal, so its clips have no order to correlate")
    # The errors' places in their order: the same ranks, and whole numbers of 16 bits, which NumPy sorts by their digits.
    places = tuple(np.unique(e, return_inverse=True)[1].astype(np.min_scalar_type(len(e) - 1)) for e in (a, b))
    low, high = _bootstrap(places, _spearman, confidence, seed)
    return Estimate(_spearman(*places), float(low), float(high), confidence)


def disagreement(first: ArrayLike, second: ArrayLike, k: int = 5) -> Int[np.ndarray, " k"]:
    """The k clips whose ranks differ most between two networks, the largest difference first."""
    a, b = _two(first, second)
    if not 1 <= k <= len(a):
        raise ValueError(f"k is {k}; expected 1 to {len(a)}, the number of clips")
    return np.argsort(-np.abs(stats.rankdata(b) - stats.rankdata(a)), kind="stable")[:k]


# --- distributions ---------------------------------------------------------------------------------------------------


def box(values: ArrayLike) -> Box:
    """What a box plot (T Figures 4.1–4.3) shows of the per-clip errors, in numbers; quartiles as in NumPy."""
    from matplotlib.cbook import boxplot_stats

    errors = per_clip(values)
    (drawn,) = boxplot_stats(errors)
    return Box(
        float(drawn["mean"]), float(errors.min()), float(drawn["q1"]), float(drawn["med"]), float(drawn["q3"]),
        float(errors.max()), float(drawn["whislo"]), float(drawn["whishi"]), len(drawn["fliers"]),
        float(stats.skew(errors)) if np.ptp(errors) else 0.0,
    )  # fmt: skip


# --- inside ----------------------------------------------------------------------------------------------------------


def per_clip(values: ArrayLike, name: str = "values") -> np.ndarray:
    """One error a clip, float64 (clips,): the mean over frames if there are frames."""
    errors = checked(values, name, dimensions=(1, 2))
    return errors.mean(1) if errors.ndim == 2 else errors


def checked(values: ArrayLike, name: str, dimensions: tuple[int, ...]) -> np.ndarray:
    """The values as float64. Raises a ValueError unless they are finite, of two clips or more, with so many dimensions."""
    array = np.asarray(values, np.float64)
    if array.ndim not in dimensions or 0 in array.shape or len(array) < 2:
        expected = " or ".join({1: "(clips,)", 2: "(clips, columns)"}[d] for d in dimensions)
        raise ValueError(f"{name} has shape {array.shape}; expected {expected} with at least 2 clips")
    if not np.isfinite(array).all():
        clip = int(np.argwhere(~np.isfinite(array))[0, 0])
        raise ValueError(
            f"{name} holds {array[clip].ravel()[~np.isfinite(array[clip].ravel())][0]} at clip {clip}; drop or mend such clips first"
        )
    return array


def _two(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = per_clip(first, "first"), per_clip(second, "second")
    if len(a) != len(b):
        raise ValueError(f"first has {len(a)} clips and second {len(b)}; expected the same clips in the same order")
    return a, b


def checked_confidence(confidence: float) -> float:
    """The confidence. Raises a ValueError unless it is a share between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a share between 0 and 1, such as 0.95")
    return confidence


def _bootstrap(samples: tuple[np.ndarray, ...], statistic: Callable, confidence: float, seed: int):
    """The interval of a statistic of one sample, or of several that hold the same clips."""
    # The percentile interval, because it is defined for every statistic and costs time linear in the number of clips:
    # BCa's jackknife ranks 10,000 clips 10,000 times, for samples so large that both intervals agree.
    result = stats.bootstrap(
        samples, statistic, axis=0, paired=True, method="percentile", n_resamples=RESAMPLES,
        confidence_level=checked_confidence(confidence), random_state=np.random.default_rng(seed),
        batch=max(1, 2_000_000 // samples[0].size),
    )  # fmt: skip
    return result.confidence_interval


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    (aa, ab), (_, bb) = np.cov(stats.rankdata(a), stats.rankdata(b))  # exact, so that equal orders give 1 and no less
    return float(ab / np.sqrt(aa * bb))
