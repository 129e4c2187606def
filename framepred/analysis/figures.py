"""Figures of errors: distributions, errors by frame and by number of digits, ranks, and what makes a clip hard.

Each function takes errors by the name of what made them, such as `{"ConvLSTM": scores.nats, "mine": nats}`, and returns
a Matplotlib figure. Errors are nats per frame, (clips, frames). Lines and dots are means over clips, with the intervals
of `framepred.analysis.inference`: 95 of 100 such intervals hold the mean of the clips' population.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from framepred.analysis.difficulty import Regression
from framepred.analysis.inference import interval, per_clip, per_frame, rank_correlation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from framepred.analysis.drift import DriftAndBlur

# Of Seaborn's palette "colorblind". One colour a network, everywhere in the book.
COLORS = {"ConvLSTM": "#0173b2", "spatio-temporal": "#de8f05", "VPN": "#029e73"}
OTHERS = ("#d55e00", "#cc78bc", "#ca9161", "#56b4e9", "#fbafe4")
GREYS = (("0.25", "-."), ("0.5", "-"), ("0.5", ":"), ("0.7", "-"))  # colours and lines of the baselines
FLOOR: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1.2, "label": "floor"}
WIDTH = 6.5  # inches: narrow, so that letters are legible on a phone


def colors(labels: Iterable[str]) -> dict[str, str]:
    """A colour for each label: that of the network before its first comma ("VPN, one-step"), else the next free one."""
    labels = list(labels)
    others = [label for label in labels if label.split(",")[0] not in COLORS]
    return {
        label: OTHERS[others.index(label) % len(OTHERS)] if label in others else COLORS[label.split(",")[0]]
        for label in labels
    }


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
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    _some(errors, "errors")
    sets: Mapping = errors if isinstance(next(iter(errors.values())), Mapping) else {"": errors}
    labels = list(dict.fromkeys(label for networks in sets.values() for label in networks))
    _some(labels, "errors")
    _some(frames, "frames")
    paint = colors(labels)
    height = len(labels) * (0.17 + 0.21 * len(sets))
    figure, axes = plt.subplots(
        len(frames),
        figsize=(WIDTH, len(frames) * (height + 0.3) + 0.8),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    thickness = 0.8 / len(sets)
    for ax, frame in zip(axes[:, 0], frames):
        for s, networks in enumerate(sets.values()):
            for label, nats in networks.items():
                drawn = ax.boxplot(
                    per_clip(nats, label) if frame == "mean" else _frame(nats, frame, label),
                    positions=[labels.index(label) + (s + 0.5) * thickness - 0.4],
                    orientation="horizontal",
                    widths=thickness * 0.8,
                    manage_ticks=False,
                    patch_artist=True,
                    showmeans=True,
                    boxprops={"facecolor": paint[label] if s == 0 else "white", "edgecolor": paint[label]},
                    medianprops={"color": "black"},
                    meanprops={"marker": "D", "markersize": 4, "markerfacecolor": "white", "markeredgecolor": "black"},
                    flierprops={"marker": ".", "markersize": 3, "markeredgecolor": paint[label]},
                )
                for line in (*drawn["whiskers"], *drawn["caps"]):
                    line.set_color(paint[label])
        ax.set(title="mean over the frames" if frame == "mean" else f"frame {frame}", yticks=range(len(labels)))
        ax.set_yticklabels(labels)
        ax.set_ylim(len(labels) - 0.5, -0.5)
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
    axes[-1, 0].set_xlabel("nats per frame")
    if len(sets) > 1:
        patches = [Patch(facecolor="0.5" if s == 0 else "white", edgecolor="0.5", label=n) for s, n in enumerate(sets)]
        figure.legend(handles=patches, loc="outside upper center", ncols=len(sets))
    return figure


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
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    _some(errors, "errors")
    figure, ax = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    for label, color in colors(errors).items():
        table = per_frame(errors[label])
        ax.plot(table.index, table["mean"], color=color, marker=".", label=label)
        ax.fill_between(table.index, table["low"], table["high"], color=color, alpha=0.25, linewidth=0)
    for k, (label, nats) in enumerate((baselines or {}).items()):
        color, line = GREYS[k % len(GREYS)]
        table = per_frame(nats)
        ax.plot(table.index, table["mean"], color=color, linestyle=line, label=label)
    if floor is not None:
        table = per_frame(floor)
        ax.plot(table.index, table["mean"], **FLOOR)
    ax.set(xlabel="predicted frame", ylabel="nats per frame")
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    return _finished(figure, ax)


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
    import matplotlib.pyplot as plt

    _some(errors, "errors")
    if above_floor and floor is None:
        raise ValueError("above_floor needs a floor: pass the entropy_floor of the targets, by number of digits")
    floor = {} if floor is None else floor

    def drawn(networks: Mapping[int, ArrayLike], label: str) -> dict[int, np.ndarray]:
        values = {n: per_clip(networks[n], label) for n in sorted(networks)}
        return {n: v - _floor(floor, n, len(v), label) for n, v in values.items()} if above_floor else values

    figure, ax = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    for label, color in colors(errors).items():
        estimates = {n: interval(values) for n, values in drawn(errors[label], label).items()}
        means = np.array([e.value for e in estimates.values()])
        reach = [means - [e.low for e in estimates.values()], [e.high for e in estimates.values()] - means]
        ax.errorbar(
            list(estimates), means, np.maximum(reach, 0), color=color, marker="o", markersize=4, capsize=3, label=label
        )
    for k, (label, networks) in enumerate((baselines or {}).items()):
        color, line = GREYS[k % len(GREYS)]
        values = drawn(networks, label)
        ax.plot(list(values), [v.mean() for v in values.values()], color=color, linestyle=line, label=label)
    if floor and not above_floor:
        ax.plot(sorted(floor), [per_clip(floor[n], "floor").mean() for n in sorted(floor)], **FLOOR)
    ax.set_xticks(sorted({n for networks in errors.values() for n in networks}))
    ax.set(xlabel="digits in a clip", ylabel="nats per frame above the floor" if above_floor else "nats per frame")
    return _finished(figure, ax)


def rank_plot(errors: Mapping[str, ArrayLike], marked: Sequence[int] = ()) -> Figure:
    """The clips' ranks under one network against those under another, for each pair, with Spearman's correlation.

    Args:
        errors: (clips, frames) or (clips,) by network, of the same clips; two networks or more.
        marked: numbers of clips, from 0, to point out.
    """
    import matplotlib.pyplot as plt

    pairs = list(combinations(errors, 2))
    if not pairs:
        raise ValueError(f"errors of {', '.join(errors) or 'no network'}: expected two networks or more to compare")
    ranks = {label: stats.rankdata(per_clip(nats, label)) for label, nats in errors.items()}
    columns = min(len(pairs), 2)
    rows = -(-len(pairs) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, rows * WIDTH / columns + 0.4), squeeze=False, layout="constrained"
    )
    for ax, (first, second) in zip(axes.flat, pairs):
        estimate = rank_correlation(errors[first], errors[second])
        ax.plot([1, len(ranks[first])], [1, len(ranks[first])], color="0.8", linewidth=1)
        ax.scatter(ranks[first], ranks[second], s=9, color="0.35", alpha=0.6, linewidth=0)
        for clip in marked:
            at = ranks[first][clip], ranks[second][clip]
            ax.scatter(*at, s=28, color=OTHERS[0], zorder=3)
            ax.annotate(str(clip), at, xytext=(4, 3), textcoords="offset points", fontsize=8)
        ax.set(xlabel=f"rank, {first}", ylabel=f"rank, {second}", aspect="equal")
        title = f"Spearman {estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
        ax.set_title(title, fontsize=10)
    for ax in axes.flat[len(pairs) :]:
        ax.set_axis_off()
    return figure


def coefficients(regressions: Mapping[str, Regression]) -> Figure:
    """What makes a clip hard: the coefficients of `regress` by network, with their intervals.

    A dot at 10 says: of two clips one standard deviation of the feature apart, and alike in the others, the error of
    the one with more is 10 nats higher.
    """
    import matplotlib.pyplot as plt

    _some(regressions, "regressions")
    features = list(dict.fromkeys(name for r in regressions.values() for name in r.table.index))
    figure, ax = plt.subplots(
        figsize=(WIDTH, len(features) * (0.25 + 0.2 * len(regressions)) + 1.1), layout="constrained"
    )
    ax.axvline(0, color="0.6", linewidth=1)
    gap = 0.7 / len(regressions)
    for k, (label, color) in enumerate(colors(regressions).items()):
        table = regressions[label].table
        y = [features.index(name) + (k + 0.5) * gap - 0.35 for name in table.index]
        reach = [table["nats"] - table["low"], table["high"] - table["nats"]]
        ax.errorbar(table["nats"], y, xerr=reach, color=color, linestyle="", marker="o", markersize=5, label=label)
    ax.set_yticks(range(len(features)), [name.replace("_", " ") for name in features])
    ax.set(ylim=(len(features) - 0.5, -0.5), xlabel="nats per frame for one standard deviation more")
    figure.legend(loc="outside upper center", ncols=len(regressions))
    return figure


def drift_by_frame(
    found: Mapping[str, DriftAndBlur], baselines: Mapping[str, DriftAndBlur] | None = None, radius: int = 8
) -> Figure:
    """How far the digits are from their true places in each predicted frame, with 95% intervals over clips.

    Args:
        found: what `drift_and_blur` found, by network.
        baselines: the same by baseline, drawn in grey.
        radius: that of the search; the axis ends at the largest drift that it can find.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    _some(found, "found")
    figure, ax = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    for label, color in colors(found).items():
        table = per_frame(found[label].drift.mean(2).numpy())
        ax.plot(table.index, table["mean"], color=color, marker=".", label=label)
        ax.fill_between(table.index, table["low"], table["high"], color=color, alpha=0.25, linewidth=0)
    for k, (label, drift) in enumerate((baselines or {}).items()):
        color, line = GREYS[k % len(GREYS)]
        table = per_frame(drift.drift.mean(2).numpy())
        ax.plot(table.index, table["mean"], color=color, linestyle=line, label=label)
        ax.fill_between(table.index, table["low"], table["high"], color=color, alpha=0.12, linewidth=0)
    ax.set(xlabel="predicted frame", ylabel="drift in pixels")
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    _finished(figure, ax)
    ax.set_ylim(0, 2**0.5 * radius)
    return figure


def drift_or_blur(found: Mapping[str, DriftAndBlur], columns: int = 2) -> Figure:
    """The error above the floor of each predicted frame in its two parts, structure below and displacement on top.

    Args:
        found: what `drift_and_blur` found, by network or baseline; a panel each.
        columns: panels side by side.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    _some(found, "found")
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, 1.7 * rows + 0.8), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (label, parts) in zip(axes.flat, found.items()):
        structure, displacement = (part.double().mean(0).numpy() for part in (parts.structure, parts.displacement))
        frames = np.arange(1, len(structure) + 1)
        color = COLORS.get(label.split(",")[0], "0.45")
        ax.bar(frames, structure, color=color, label="structure")
        ax.bar(frames, displacement, bottom=structure, color="white", edgecolor=color, hatch="////", linewidth=0.8)
        ax.set_title(label, fontsize=10)
        ax.grid(axis="y", color="0.9")
        ax.set_axisbelow(True)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    for ax in axes.flat[len(found) :]:
        ax.set_axis_off()
    for ax in axes.flat[max(len(found) - columns, 0) : len(found)]:
        ax.tick_params(labelbottom=True)  # the lowest panel of its column, whatever is missing in the last row
    figure.supxlabel("predicted frame", fontsize=10)
    figure.supylabel("nats per frame above the floor", fontsize=10)
    patches = [
        plt.Rectangle((0, 0), 1, 1, facecolor="0.45", edgecolor="0.45", label="structure"),
        plt.Rectangle((0, 0), 1, 1, facecolor="white", edgecolor="0.45", hatch="////", label="displacement"),
    ]
    figure.legend(handles=patches, loc="outside upper center", ncols=2)
    return figure


# --- inside ----------------------------------------------------------------------------------------------------------


def _finished(figure: Figure, ax: Axes) -> Figure:
    from matplotlib.lines import Line2D

    ax.set_ylim(bottom=0)
    ax.grid(axis="y", color="0.9")
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
