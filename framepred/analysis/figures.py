"""Figures of errors: distributions, errors by frame and by number of digits, ranks, and what makes a clip hard.

Each function takes errors by the name of what made them, such as `{"ConvLSTM": scores.nats, "mine": nats}`, and returns
a Matplotlib figure. Errors are nats per frame, (clips, frames). Lines and dots are means over clips, with the intervals
of `framepred.analysis.inference`: 95 of 100 such intervals hold the mean of the clips' population.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from framepred.analysis.difficulty import Regression
from framepred.analysis.inference import interval, per_clip, per_frame, rank_correlation

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from framepred.analysis.drift import DriftAndBlur

# Of Seaborn's palette "colorblind". One colour a network, everywhere in the book.
COLORS = {"ConvLSTM": "#0173b2", "spatio-temporal": "#de8f05", "VPN": "#029e73"}
OTHERS = ("#d55e00", "#cc78bc", "#ca9161", "#56b4e9", "#fbafe4")
# Of the baselines.
GREYS = [{"color": c, "linestyle": line} for c, line in (("0.25", "-."), ("0.5", "-"), ("0.5", ":"), ("0.7", "-"))]
FLOOR: dict[str, Any] = {"color": "black", "linestyle": "--", "label": "floor"}
WIDTH = 6.5  # inches: narrow, so that letters are legible on a phone
ROW = 0.8  # share of a row that belongs to those who stand in it
STYLE = Path(__file__).with_name("figures.mplstyle")


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """A function whose figure looks as the style sheet beside this file has it."""

    @functools.wraps(draw)
    def drawn(*args, **kwargs):
        from matplotlib import rc_params_from_file, rcParams

        # Not by plt.style.context: that would also undo what a notebook's backend sets when the first figure loads it.
        style = rc_params_from_file(STYLE, use_default_template=False)
        before = {name: rcParams[name] for name in style}
        rcParams.update(style)
        try:
            return draw(*args, **kwargs)
        finally:
            rcParams.update(before)

    return drawn


def colors(labels: Iterable[str]) -> dict[str, str]:
    """A colour for each label: that of the network before its first comma ("VPN, one-step"), else the next free one."""
    labels = list(labels)
    others = [label for label in labels if label.split(",")[0] not in COLORS]
    return {
        label: OTHERS[others.index(label) % len(OTHERS)] if label in others else COLORS[label.split(",")[0]]
        for label in labels
    }


@styled
def box_plots(
    errors: Mapping[str, ArrayLike] | Mapping[str, Mapping[str, ArrayLike]],
    frames: Sequence[Literal["mean"] | int] = ("mean", 1, 10),
) -> Figure:
    """Box plots of the per-clip errors, as in the thesis' Figures 4.1 to 4.3 and 4.11.

    A box spans the quartiles, its line is the median and the diamond the mean; whiskers end at the last clip within 1.5
    times the height of the box (Tukey 1977), and dots are the clips beyond.

    Args:
        errors: (clips, frames) by network; or these by test set, which then stand in pairs, the first set filled.
        frames: one panel for each: "mean" over the frames, or the number of a frame, from 1. They share their scale.

    Raises:
        ValueError: for a frame that some errors do not have, or without errors or frames.
    """
    from matplotlib.patches import Patch

    _some(errors, "errors")
    sets: Mapping = errors if isinstance(next(iter(errors.values())), Mapping) else {"": errors}
    labels = list(dict.fromkeys(label for networks in sets.values() for label in networks))
    _some(labels, "errors")
    _some(frames, "frames")
    paint = colors(labels)
    row = 0.17 + 0.21 * len(sets)
    figure, axes = _panels(len(frames), height=len(frames) * (len(labels) * row + 0.3) + 0.8, sharex=True)
    for ax, frame in zip(axes[:, 0], frames):
        for s, networks in enumerate(sets.values()):
            for label, nats in networks.items():
                drawn = ax.boxplot(
                    per_clip(nats, label) if frame == "mean" else _frame(nats, frame, label),
                    positions=[labels.index(label) + _place(s, len(sets))],
                    orientation="horizontal",
                    widths=0.8 * ROW / len(sets),  # the rest of a box's share is the gap to the next
                    boxprops={"facecolor": "white" if s else paint[label], "edgecolor": paint[label]},
                    flierprops={"markeredgecolor": paint[label]},
                )
                for line in (*drawn["whiskers"], *drawn["caps"]):
                    line.set_color(paint[label])
        ax.set(title="mean over the frames" if frame == "mean" else f"frame {frame}")
        ax.set_yticks(range(len(labels)), labels)
        ax.set_ylim(len(labels) - 0.5, -0.5)
        ax.grid(axis="x")
    axes[-1, 0].set_xlabel("nats per frame")
    if len(sets) > 1:
        patches = [Patch(facecolor="white" if s else "0.5", edgecolor="0.5", label=n) for s, n in enumerate(sets)]
        figure.legend(handles=patches, loc="outside upper center", ncols=len(sets))
    return figure


@styled
def errors_by_frame(
    errors: Mapping[str, ArrayLike],
    floor: ArrayLike | None = None,
    baselines: Mapping[str, ArrayLike] | None = None,
) -> Figure:
    """Mean error of each predicted frame, with a band that is the 95% interval of the mean.

    Args:
        errors: (clips, frames) by network.
        floor: the least possible error, (clips, frames), such as `entropy_floor(target)`.
        baselines: (clips, frames) by baseline, drawn in grey.
    """
    _some(errors, "errors")
    figure, ((ax,),) = _panels()
    for label, color in colors(errors).items():
        _mean_and_band(ax, errors[label], color=color, marker=".", label=label)
    for (label, nats), look in zip((baselines or {}).items(), cycle(GREYS)):
        _mean(ax, nats, label=label, **look)
    if floor is not None:
        _mean(ax, floor, **FLOOR)
    ax.set(ylabel="nats per frame")
    _by_frame(ax)
    return _finished(figure, ax)


@styled
def errors_by_digits(
    errors: Mapping[str, Mapping[int, ArrayLike]],
    floor: Mapping[int, ArrayLike] | None = None,
    baselines: Mapping[str, Mapping[int, ArrayLike]] | None = None,
    above_floor: bool = False,
) -> Figure:
    """Mean error against the number of digits in a clip, with 95% intervals, as in the thesis' Figure 4.9.

    Args:
        errors: (clips, frames) by network and number of digits.
        floor: the least possible errors on the same clips, (clips, frames) by number of digits.
        baselines: as errors, of the same clips, drawn in grey without intervals.
        above_floor: draw what is above the floor, clip by clip, instead of errors and floor.

    Raises:
        ValueError: if `above_floor` is asked for without a floor of the same clips.
    """
    _some(errors, "errors")
    if above_floor and floor is None:
        raise ValueError("above_floor needs a floor: pass the entropy_floor of the targets, by number of digits")
    floor = {} if floor is None else floor

    def drawn(networks: Mapping[int, ArrayLike], label: str) -> dict[int, np.ndarray]:
        values = {n: per_clip(networks[n], label) for n in sorted(networks)}
        return {n: v - _floor(floor, n, len(v), label) for n, v in values.items()} if above_floor else values

    figure, ((ax,),) = _panels()
    for label, color in colors(errors).items():
        estimates = {n: interval(values) for n, values in drawn(errors[label], label).items()}
        means = np.array([e.value for e in estimates.values()])
        reach = [means - [e.low for e in estimates.values()], [e.high for e in estimates.values()] - means]
        ax.errorbar(list(estimates), means, np.maximum(reach, 0), color=color, marker="o", label=label)
    for (label, networks), look in zip((baselines or {}).items(), cycle(GREYS)):
        values = drawn(networks, label)
        ax.plot(list(values), [v.mean() for v in values.values()], label=label, **look)
    if floor and not above_floor:
        ax.plot(sorted(floor), [per_clip(floor[n], "floor").mean() for n in sorted(floor)], **FLOOR)
    ax.set_xticks(sorted({n for networks in errors.values() for n in networks}))
    ax.set(xlabel="digits in a clip", ylabel="nats per frame above the floor" if above_floor else "nats per frame")
    return _finished(figure, ax)


@styled
def rank_plot(errors: Mapping[str, ArrayLike], marked: Sequence[int] = ()) -> Figure:
    """The clips' ranks under one network against those under another, for each pair, with Spearman's correlation.

    Args:
        errors: (clips, frames) or (clips,) by network, of the same clips; two networks or more.
        marked: numbers of clips, from 0, to point out.
    """
    pairs = list(combinations(errors, 2))
    if not pairs:
        raise ValueError(f"errors of {', '.join(errors) or 'no network'}: expected two networks or more to compare")
    ranks = {label: stats.rankdata(per_clip(nats, label)) for label, nats in errors.items()}
    columns = min(len(pairs), 2)
    rows = math.ceil(len(pairs) / columns)
    figure, axes = _panels(rows, columns, height=rows * WIDTH / columns + 0.4)
    for ax, (first, second) in zip(axes.flat, pairs):
        estimate = rank_correlation(errors[first], errors[second])
        ax.plot(ranks[first], ranks[second], ".", color="0.35", markeredgewidth=0, alpha=0.6)
        ax.axline((1, 1), slope=1, color="0.8")  # over the dots, or it is lost among them
        for clip in marked:
            at = ranks[first][clip], ranks[second][clip]
            ax.plot(*at, "o", color=OTHERS[0])
            ax.annotate(f" {clip}", at, va="bottom", fontsize="small")
        ax.set(xlabel=f"rank, {first}", ylabel=f"rank, {second}", aspect="equal")
        ax.set_title(f"Spearman {estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]")
    for ax in axes.flat[len(pairs) :]:
        ax.set_axis_off()
    return figure


@styled
def coefficients(regressions: Mapping[str, Regression]) -> Figure:
    """What makes a clip hard: the coefficients of `regress` by network, with their intervals.

    A dot at 10 says: of two clips one standard deviation of the feature apart, and alike in the others, the error of
    the one with more is 10 nats higher.
    """
    _some(regressions, "regressions")
    features = list(dict.fromkeys(name for r in regressions.values() for name in r.table.index))
    figure, ((ax,),) = _panels(height=len(features) * (0.25 + 0.2 * len(regressions)) + 1.1)
    ax.axvline(color="0.6")
    for k, (label, color) in enumerate(colors(regressions).items()):
        table = regressions[label].table
        y = [features.index(name) + _place(k, len(regressions)) for name in table.index]
        reach = [table["nats"] - table["low"], table["high"] - table["nats"]]
        ax.errorbar(table["nats"], y, xerr=reach, color=color, linestyle="", marker="o", label=label)
    ax.set_yticks(range(len(features)), [name.replace("_", " ") for name in features])
    ax.set(ylim=(len(features) - 0.5, -0.5), xlabel="nats per frame for one standard deviation more")
    figure.legend(loc="outside upper center", ncols=len(regressions))
    return figure


@styled
def drift_by_frame(
    found: Mapping[str, DriftAndBlur], baselines: Mapping[str, DriftAndBlur] | None = None, radius: int = 8
) -> Figure:
    """How far the digits are from their true places in each predicted frame, with 95% intervals over clips.

    Args:
        found: what `drift_and_blur` found, by network.
        baselines: the same by baseline, drawn in grey.
        radius: that of the search; the axis ends at the largest drift that it can find.
    """
    _some(found, "found")
    figure, ((ax,),) = _panels()
    for label, color in colors(found).items():
        _mean_and_band(ax, found[label].drift.mean(2).numpy(), color=color, marker=".", label=label)
    for (label, drift), look in zip((baselines or {}).items(), cycle(GREYS)):
        _mean_and_band(ax, drift.drift.mean(2).numpy(), label=label, **look)
    ax.set(ylabel="drift in pixels")
    _by_frame(ax)
    _finished(figure, ax)
    ax.set_ylim(0, math.sqrt(2) * radius)
    return figure


@styled
def drift_or_blur(found: Mapping[str, DriftAndBlur], columns: int = 2) -> Figure:
    """The error above the floor of each predicted frame in its two parts, structure below and displacement on top.

    Args:
        found: what `drift_and_blur` found, by network or baseline; a panel each.
        columns: panels side by side.
    """
    from matplotlib.patches import Patch

    _some(found, "found")
    rows = math.ceil(len(found) / columns)
    figure, axes = _panels(rows, columns, height=1.7 * rows + 0.8, sharex=True, sharey=True)
    for ax, (label, parts) in zip(axes.flat, found.items()):
        structure, displacement = (part.double().mean(0).numpy() for part in (parts.structure, parts.displacement))
        frames = np.arange(1, len(structure) + 1)
        color = COLORS.get(label.split(",")[0], "0.45")
        ax.bar(frames, structure, color=color, label="structure")
        ax.bar(frames, displacement, bottom=structure, color="white", edgecolor=color, hatch="////")
        ax.set_title(label)
        ax.grid(axis="y")
        _by_frame(ax, most=5, name="")
    for ax in axes.flat[len(found) :]:
        ax.set_axis_off()
    for ax in axes.flat[: len(found)][-columns:]:
        ax.tick_params(labelbottom=True)  # the lowest panel of its column, whatever is missing in the last row
    figure.supxlabel("predicted frame")
    figure.supylabel("nats per frame above the floor")
    patches = [
        Patch(facecolor="0.45", edgecolor="0.45", label="structure"),
        Patch(facecolor="white", edgecolor="0.45", hatch="////", label="displacement"),
    ]
    figure.legend(handles=patches, loc="outside upper center", ncols=2)
    return figure


# --- inside ----------------------------------------------------------------------------------------------------------


def _panels(
    rows: int = 1, columns: int = 1, height: float = 4.4, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, np.ndarray]:
    """A figure, `height` inches high, and its panels, (rows, columns)."""
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=(WIDTH, height), sharex=sharex, sharey=sharey, squeeze=False)


def _place(k: int, n: int) -> float:
    """Where the k-th of n that stand in a row has its middle, from the middle of the row."""
    return ROW * ((k + 0.5) / n - 0.5)


def _mean(ax: Axes, nats: ArrayLike, **look: Any) -> pd.DataFrame:
    """Draw the mean of each frame; the means with their intervals."""
    table = per_frame(nats)
    ax.plot(table.index, table["mean"], **look)
    return table


def _mean_and_band(ax: Axes, nats: ArrayLike, **look: Any) -> None:
    table = _mean(ax, nats, **look)
    ax.fill_between(table.index, table["low"], table["high"], color=look["color"], alpha=0.2, linewidth=0)


def _by_frame(ax: Axes, most: int = 10, name: str = "predicted frame") -> None:
    """Let the x axis count frames, with about so many ticks."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel(name)
    ax.xaxis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))


def _finished(figure: Figure, ax: Axes) -> Figure:
    from matplotlib.lines import Line2D

    ax.set_ylim(bottom=0)
    ax.grid(axis="y")
    handles, names = ax.get_legend_handles_labels()
    # Matplotlib lists error bars after all lines; here networks come first and the floor last.
    order = sorted(range(len(names)), key=lambda k: (names[k] == FLOOR["label"], isinstance(handles[k], Line2D)))
    figure.legend([handles[k] for k in order], [names[k] for k in order], loc="outside upper center", ncols=3)
    return figure


def _frame(nats: ArrayLike, frame: int, label: str) -> np.ndarray:
    array = np.asarray(nats, np.float64)
    n_frames = array.shape[1] if array.ndim == 2 else 0
    if not 1 <= frame <= n_frames:
        raise ValueError(f"frame is {frame}; the errors of {label} have shape {array.shape}, frames 1 to {n_frames}")
    return per_clip(array[:, frame - 1], label)


def _floor(floor: Mapping[int, ArrayLike], digits: int, n: int, label: str) -> np.ndarray:
    if digits not in floor:
        raise ValueError(f"no floor for {digits} digits; expected one for each number of digits in errors")
    values = per_clip(floor[digits], "floor")
    if len(values) != n:
        raise ValueError(
            f"the floor for {digits} digits is of {len(values)} clips, the errors of {label} of {n}; expected the same"
        )
    return values


def _some(things: Mapping | Sequence, name: str) -> None:
    if not things:
        raise ValueError(f"{name} is empty; expected at least one to draw")
