"""What has been published about two moving digits, each number with the question that it answers.

Papers report nats per frame or squared error per frame, under protocols that differ and often go unsaid. One inequality
connects the two measures whatever the network: with t a pixel's true value, p its prediction and H(t) the entropy,

    nats(t, p) = H(t) + KL(t‖p) ≥ H(t) + 2·(t - p)²,

by Pinsker's inequality for two coins; summed over a frame, nats ≥ floor + 2·squared error. So each number bounds the
one that its paper does not give.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from framepred.analysis.figures import styled
from framepred.evaluation import PROTOCOLS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOOR = 86.3  # nats per frame of the original test file, as Kalchbrenner et al. 2016 quote it
MARKERS = {"rollout": "o", "one-step": "s", "teacher-forced": "^"}
TOLERANCE = 1e-4  # share by which float32 sums may break the inequality


def reported(protocol: str | None = None) -> pd.DataFrame:
    """Published results on two digits, a row a number.

    Args:
        protocol: one of `PROTOCOLS`; all rows unless told.

    Returns:
        Columns paper, network, test_set ("original" is the file of Srivastava et al., "own" clips that the authors made,
        "training" a training error), protocol, nats (per frame), first_frame and tenth_frame (nats of those), squared_error
        (summed over a frame), cite (key in the book's bibliography), remark. What a paper does not give is NaN.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
    table = pd.read_csv(Path(__file__).with_name("prior_work.csv")).fillna({"remark": ""})
    return table if protocol is None else table[table["protocol"] == protocol].reset_index(drop=True)


def least_nats(squared_error: float, floor: float = FLOOR) -> float:
    """The least nats per frame that a prediction with this squared error per frame can have."""
    return floor + 2 * squared_error


def most_squared_error(nats: float, floor: float = FLOOR) -> float:
    """The largest squared error per frame that a prediction with these nats per frame can have.

    Raises:
        ValueError: if nats are below the floor, where no prediction is.
    """
    if nats < floor:
        raise ValueError(f"{nats} nats are below the floor of {floor}; no prediction can reach that")
    return (nats - floor) / 2


@styled
def two_measures(
    ours: Mapping[str, tuple[str, float, float]] | None = None,
    colors: Mapping[str, str] | None = None,
) -> Figure:
    """The plane of squared error and nats above the floor: the published numbers, the region where none can be, and ours.

    A paper that gives nats only could be anywhere on a horizontal line, up to its marker; one that gives the squared error
    only, anywhere on a vertical line above its marker.

    Args:
        ours: for each label the protocol, the squared error per frame, and the nats per frame minus the floor of the
            same clips.
        colors: of our labels; grey unless told.

    Raises:
        ValueError: if one of ours breaks the inequality: then one of the two measures is computed wrongly.
    """
    import matplotlib.pyplot as plt

    for label, (protocol, squared, above) in (ours or {}).items():
        if protocol not in MARKERS:
            raise ValueError(f"{label!r} has the protocol {protocol!r}; known: {', '.join(MARKERS)}")
        if not above >= 2 * squared * (1 - TOLERANCE):
            raise ValueError(
                f"{label!r} has {above:.4g} nats above the floor and a squared error of {squared:.4g}, but nats - floor is at "
                "least twice the squared error; check that both are sums over the pixels of the same frames"
            )
    left, right, bottom, top = 0.3, 10_000.0, 0.8, 1000.0
    figure, ax = plt.subplots(figsize=(8, 5.8))
    x = np.array([left, top / 2, right])
    impossible = "impossible: nats < floor + 2·squared error"
    ax.fill_between(x, bottom, np.minimum(2 * x, top), color="0.9", label=impossible)
    ax.plot(x, 2 * x, color="0.4")
    # All published numbers end on the edge of the impossible region, where there is room for their names.
    labels: list[tuple[float, str]] = []
    for row in reported().itertuples():
        if row.test_set == "training":
            continue
        name = f"{row.paper}, {row.network}"
        if np.isnan(row.nats):
            edge = 2 * row.squared_error
            ax.plot([edge / 2] * 2, [edge, top], "--", color="0.6")
            labels.append((edge, f"{name}: squared error {row.squared_error:.1f}"))
        else:
            edge = row.nats - FLOOR
            ax.plot([left, edge / 2], [edge] * 2, ":", color="0.6")
            labels.append((edge, f"{name}: {row.nats:.1f} nats"))
        ax.plot(edge / 2, edge, MARKERS[row.protocol], color="black", mfc="white")
    labels.sort()
    gap = np.log(top / bottom) * 0.0245
    heights = _spread(np.log([edge for edge, _ in labels]), gap)
    for (edge, name), height in zip(labels, np.exp(heights)):
        ax.annotate(
            name,
            (edge / 2, edge),
            (0.8 * max(edge, height), height),
            fontsize="x-small",
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.7"},
        )
    for protocol, marker in MARKERS.items():
        ax.plot([], [], marker, color="black", mfc="white", label=f"published, {protocol}")
    for label, (protocol, squared, above) in (ours or {}).items():
        color = (colors or {}).get(label, "0.5")
        ax.plot(squared, above, MARKERS[protocol], color=color, label=label)
    ax.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top))
    ax.set(xlabel="squared error per frame", ylabel="nats per frame above the floor")
    ax.legend(fontsize="x-small", loc="lower right")
    return figure


def _spread(places: np.ndarray, gap: float) -> np.ndarray:
    """Places in rising order, moved apart to at least `gap`, each near where it was."""
    moved = np.array(places, float)
    for _ in range(200):
        for low in range(len(moved) - 1):
            lack = gap - (moved[low + 1] - moved[low])
            if lack > 0:
                moved[low] -= lack / 2
                moved[low + 1] += lack / 2
    return moved
