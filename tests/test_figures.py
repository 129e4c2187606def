"""Figures of errors: that what is drawn is what the errors say."""

from __future__ import annotations

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.layout_engine import ConstrainedLayoutEngine
from scipy import stats

from framepred.analysis import difficulty, figures, inference
from framepred.analysis.drift import DriftAndBlur


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture
def errors():
    """Errors of two networks on 40 clips, rising with the frame."""
    rng = np.random.default_rng(0)
    rise = np.arange(10) * 20
    return {
        label: 200 + rise + rng.gamma(2, 30, (40, 1)) + rng.normal(0, 3, (40, 10)) for label in ("ConvLSTM", "mine")
    }


def lines(ax, label):
    return next(line for line in ax.lines if line.get_label() == label)


def test_drawing_functions_keep_their_names_and_descriptions():
    assert figures.box_plots.__name__ == "box_plots" and figures.box_plots.__doc__.startswith("Box plots of")


def test_a_style_is_gone_after_the_figure_and_what_a_backend_has_set_meanwhile_stays(monkeypatch):
    monkeypatch.setitem(plt.rcParams, "interactive", False)
    monkeypatch.setitem(plt.rcParams, "grid.color", "red")

    @figures.styled
    def draw():
        plt.rcParams["interactive"] = True  # as a notebook's backend does, which the first figure loads
        assert plt.rcParams["grid.color"] == "0.9"
        return plt.figure()

    draw()
    assert plt.rcParams["interactive"] and plt.rcParams["grid.color"] == "red"


def test_a_network_keeps_its_colour_whatever_is_drawn_beside_it():
    chosen = figures.colors(["mine", "VPN, one-step", "yours", "VPN"])
    assert chosen["VPN, one-step"] == chosen["VPN"] == figures.COLORS["VPN"]
    assert len({chosen["mine"], chosen["yours"], *figures.COLORS.values()}) == 5


def test_a_box_shows_the_quartiles_and_tukeys_whiskers_of_the_chosen_frame(errors):
    figure = figures.box_plots({"mine": errors["mine"]}, frames=(10,))
    (ax,) = figure.axes
    assert figure.legends == []  # there is one set of clips
    assert ax.get_title() == "frame 10"
    box = inference.box(errors["mine"][:, 9])
    drawn = ax.patches[0].get_path().vertices[:, 0]
    assert (drawn.min(), drawn.max()) == pytest.approx((box.q1, box.q3))
    ends = np.concatenate([line.get_xdata() for line in ax.lines[:2]])
    assert (ends.min(), ends.max()) == pytest.approx((box.whisker_low, box.whisker_high))
    assert {to_hex(line.get_color()) for line in ax.lines[:4]} == {figures.OTHERS[0]}  # whiskers and their caps


def band(collection):
    """The lower and the upper edge of a band, by its places on the x axis."""
    ends = {}
    for x, y in collection.get_paths()[0].vertices:
        low, high = ends.get(x, (y, y))
        ends[x] = min(low, y), max(high, y)
    return [ends[x] for x in sorted(ends)]


def test_a_box_ends_its_whiskers_before_the_clips_that_lie_far_out():
    first = np.array([1.0, 2.0, 3.0, 4.0, 100.0])  # quartiles 2 and 4, so whiskers reach to -1 and 7 at most
    errors = np.stack([first, 3 * first], 1)  # of two frames; their mean is twice the first
    figure = figures.box_plots({"mine": errors}, frames=("mean", 1, 2))
    for ax, scale in zip(figure.axes, (2, 1, 3)):
        drawn = ax.patches[0].get_path().vertices[:, 0]
        assert (drawn.min(), drawn.max()) == (2 * scale, 4 * scale)
        ends = np.concatenate([line.get_xdata() for line in ax.lines[:2]])
        assert (ends.min(), ends.max()) == (1 * scale, 4 * scale)
        (mean,) = [line for line in ax.lines if line.get_marker() == "D"]
        (outliers,) = [line for line in ax.lines if line.get_marker() == "."]
        assert mean.get_xdata() == [22 * scale] and outliers.get_xdata() == [100 * scale]


def test_a_box_stands_in_the_row_of_its_network(errors):
    for sets in (errors, {"test digits": errors, "training digits": errors}):
        ax = figures.box_plots(sets, frames=("mean",)).axes[0]
        names = [text.get_text() for text in ax.get_yticklabels()]
        rows = {name: ax.get_yticks()[names.index(name)] for name in errors}
        for patch in ax.patches:
            (name,) = [n for n in errors if to_hex(patch.get_edgecolor()) == figures.colors(errors)[n]]
            assert abs(patch.get_path().vertices[:, 1] - rows[name]).max() < 0.5


def test_boxes_of_a_row_stand_side_by_side_and_nearer_to_one_another_than_to_the_next_row(errors):
    figure = figures.box_plots({"test digits": errors, "training digits": errors}, frames=("mean",))
    ends = [(y.min(), y.max()) for y in (patch.get_path().vertices[:, 1] for patch in figure.axes[0].patches)]
    # A row is 1 high. Its boxes share the 0.8 in its middle, and a box fills 0.8 of its half.
    expected = [(row + middle - 0.16, row + middle + 0.16) for middle in (-0.2, 0.2) for row in (0, 1)]
    assert ends == [pytest.approx(e) for e in expected]
    assert figure.axes[0].get_ylim() == (1.5, -0.5)  # from the first row's upper edge to the last one's lower edge
    (alone,) = figures.box_plots({"mine": errors["mine"]}, frames=(1,)).axes[0].patches
    assert np.ptp(alone.get_path().vertices[:, 1]) == pytest.approx(0.64)


def test_boxes_have_a_panel_a_frame_on_one_scale_and_a_box_for_each_test_set(errors):
    figure = figures.box_plots({"test digits": errors, "train digits": {"mine": errors["mine"]}})
    assert [ax.get_title() for ax in figure.axes] == ["mean over the frames", "frame 1", "frame 10"]
    assert len({ax.get_xlim() for ax in figure.axes}) == 1
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "", "nats per frame"]
    faces = [to_hex(patch.get_facecolor()) for patch in figure.axes[0].patches]
    assert faces == [figures.COLORS["ConvLSTM"], figures.OTHERS[0], "#ffffff"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["ConvLSTM", "mine"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["test digits", "train digits"]
    filled = [to_hex(patch.get_facecolor()) != "#ffffff" for patch in figure.legends[0].get_patches()]
    assert filled == [True, False]  # as their boxes


def test_lines_by_frame_are_means_over_clips(errors):
    (ax,) = figures.errors_by_frame(errors, floor=np.full((3, 10), 86.4), baselines={"copy": errors["mine"] + 5}).axes
    assert lines(ax, "mine").get_xdata().tolist() == list(range(1, 11))
    assert lines(ax, "mine").get_ydata() == pytest.approx(errors["mine"].mean(0))
    assert lines(ax, "copy").get_ydata() == pytest.approx(errors["mine"].mean(0) + 5)
    assert lines(ax, "floor").get_ydata() == pytest.approx([86.4] * 10)
    assert ax.get_ylim()[0] == 0 and [t for t in ax.get_xticks() if 0 < t < 11] == list(range(1, 11))


def test_bands_by_frame_are_the_intervals_of_the_mean(errors):
    (ax,) = figures.errors_by_frame(errors, baselines={"copy": errors["mine"] + 5}).axes
    assert len(ax.collections) == 2  # none of a baseline
    for drawn, nats in zip(ax.collections, errors.values()):
        assert to_hex(drawn.get_facecolor()[0]) in figures.colors(errors).values()
        for (low, high), column in zip(band(drawn), nats.T, strict=True):
            reach = 1.96 * stats.sem(column)
            assert (low, high) == pytest.approx((column.mean() - reach, column.mean() + reach), abs=0.15 * reach)


def test_bars_by_digits_are_the_intervals_of_the_mean():
    skewed = np.random.default_rng(2).lognormal(0, 1.5, 30)  # so that its interval is, too
    (ax,) = figures.errors_by_digits({"mine": {1: skewed, 3: 2 * skewed}}).axes
    found = inference.interval(skewed)
    assert found.high - found.value > 1.1 * (found.value - found.low)
    (bars,) = ax.containers[0].lines[2]
    for segment, n, scale in zip(bars.get_segments(), (1, 3), (1, 2), strict=True):
        assert segment[:, 0].tolist() == [n, n]
        assert segment[:, 1] == pytest.approx([scale * found.low, scale * found.high], rel=1e-6)


def test_the_floor_is_taken_away_clip_by_clip():
    floor = {1: np.random.default_rng(3).normal(45, 10, (30, 10)), 2: np.random.default_rng(4).normal(90, 10, (20, 10))}
    (ax,) = figures.errors_by_digits({"mine": {n: f + 10 for n, f in floor.items()}}, floor, above_floor=True).axes
    (bars,) = ax.containers[0].lines[2]
    assert [segment[:, 1] for segment in bars.get_segments()] == 2 * [pytest.approx([10, 10])]  # no spread is left


def test_lines_by_digits_are_above_the_floor_of_the_same_clips(errors):
    by_digits = {"mine": {2: errors["mine"], 1: errors["mine"] / 2}}
    floor = {n: np.full((40, 10), 45.0 * n) for n in (1, 2)}
    figure = figures.errors_by_digits(by_digits, floor, {"copy": by_digits["mine"]})
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["mine", "copy", "floor"]
    (ax,) = figure.axes
    assert ax.get_ylim()[0] == 0 and ax.get_xticks().tolist() == [1, 2]
    assert ax.get_ylabel() == "nats per frame"
    mean = errors["mine"].mean()
    points = ax.containers[0].lines[0]
    assert points.get_xdata().tolist() == [1, 2]
    assert points.get_ydata() == pytest.approx([mean / 2, mean])
    assert lines(ax, "floor").get_ydata() == pytest.approx([45, 90])
    baselines = {"copy": dict.fromkeys((1, 2), errors["ConvLSTM"])}
    figure = figures.errors_by_digits(by_digits, floor, baselines, above_floor=True)
    (ax,) = figure.axes
    assert ax.containers[0].lines[0].get_ydata() == pytest.approx([mean / 2 - 45, mean - 90])
    assert ax.get_ylabel() == "nats per frame above the floor"
    copy = errors["ConvLSTM"].mean()
    assert lines(ax, "copy").get_ydata() == pytest.approx([copy - 45, copy - 90])
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["mine", "copy"]


def test_rank_plot_has_a_panel_a_pair_and_says_spearmans_correlation(errors):
    three = {**errors, "third": -errors["mine"]}
    figure = figures.rank_plot(three, marked=[7])
    shown = [ax for ax in figure.axes if ax.axison]
    assert len(shown) == 3
    expected = stats.spearmanr(errors["ConvLSTM"].mean(1), errors["mine"].mean(1)).statistic
    assert float(shown[0].get_title().split()[1]) == pytest.approx(expected, abs=0.005)
    assert shown[2].get_title().startswith("Spearman -1")
    assert [t.get_text().strip() for t in shown[0].texts] == ["7"]
    for axes in (shown[0].get_shared_x_axes(), shown[0].get_shared_y_axes()):
        assert not axes.joined(shown[0], shown[1])  # every network's ranks have an axis of their own
    ranks = {label: stats.rankdata(nats.mean(1)) for label, nats in three.items()}
    for ax, (first, second) in zip(shown, (("ConvLSTM", "mine"), ("ConvLSTM", "third"), ("mine", "third"))):
        assert (ax.get_xlabel(), ax.get_ylabel()) == (f"rank, {first}", f"rank, {second}")
        points, diagonal, *dots = ax.lines  # later ones lie on top
        assert diagonal.get_slope() == 1 and diagonal.get_xy1()[0] == diagonal.get_xy1()[1]  # equal ranks
        points, marked = (line.get_xydata() for line in (points, *dots))
        assert points == pytest.approx(np.stack([ranks[first], ranks[second]], 1))
        assert marked == pytest.approx(points[7:8])


def test_coefficients_are_drawn_with_their_intervals(errors):
    features = pd.DataFrame(np.random.default_rng(1).normal(size=(40, 2)), columns=["overlap", "bounces_seen"])
    fits = {label: difficulty.regress(features, nats) for label, nats in errors.items()}
    ax = figures.coefficients(fits).axes[0]
    assert ax.get_ylim() == (1.5, -0.5)
    assert [bars.lines[0].get_ydata().tolist() for bars in ax.containers] == [
        pytest.approx([-0.2, 0.8]),  # two networks share the middle 0.8 of a row
        pytest.approx([0.2, 1.2]),
    ]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["overlap", "bounces seen"]
    points, _, (bars,) = ax.containers[1].lines
    table = fits["mine"].table
    assert points.get_xdata() == pytest.approx(table["nats"].to_numpy())
    assert [segment[:, 0].tolist() for segment in bars.get_segments()] == [
        pytest.approx([low, high]) for low, high in zip(table["low"], table["high"])
    ]


def test_coefficients_stand_in_the_row_of_their_feature(errors):
    random = np.random.default_rng(1)
    three = pd.DataFrame(random.normal(size=(40, 3)), columns=["overlap", "ink", "bounces_seen"])
    fits = {"ConvLSTM": difficulty.regress(three, errors["ConvLSTM"])}
    fits["mine"] = difficulty.regress(three[["bounces_seen", "overlap"]], errors["mine"])
    ax = figures.coefficients(fits).axes[0]
    rows = {text.get_text().replace(" ", "_"): y for text, y in zip(ax.get_yticklabels(), ax.get_yticks())}
    for drawn, fit in zip(ax.containers, fits.values(), strict=True):
        x, y = drawn.lines[0].get_data()
        for name, nats in fit.table["nats"].items():
            (at,) = np.flatnonzero(np.isclose(x, nats))
            assert abs(y[at] - rows[name]) < 0.5


@pytest.fixture
def found():
    """Two clips of two glyphs in three frames; the drift of frame t is t pixels, and one more for clip 1; half of it for
    one glyph, and half as much again for the other."""
    steps = torch.arange(1.0, 4)
    drift = steps[:, None].expand(2, 3, 2).clone()
    drift[1] += 1
    drift *= torch.tensor([0.5, 1.5])
    shift = torch.zeros(2, 3, 2, 2, dtype=torch.int64)
    return DriftAndBlur(drift, shift, (100 * steps).expand(2, 3), (10 * steps).expand(2, 3))


def test_drift_is_drawn_as_the_mean_over_clips_and_glyphs(found):
    ax = figures.drift_by_frame({"VPN": found}, baselines={"copy": found}).axes[0]
    for label in ("VPN", "copy"):
        assert lines(ax, label).get_ydata() == pytest.approx([1.5, 2.5, 3.5])
    assert to_hex(lines(ax, "VPN").get_color()) == figures.COLORS["VPN"]
    assert ax.get_ylim() == (0, pytest.approx(2**0.5 * 8))
    assert [t for t in ax.get_xticks() if 0.5 < t < 3.5] == [1, 2, 3]  # and none between two frames
    for drawn in ax.collections:  # of two clips, the interval of the mean holds both
        assert band(drawn) == [(1, 2), (2, 3), (3, 4)]


def test_structure_and_displacement_are_stacked(found):
    figure = figures.drift_or_blur({"VPN": found, "copy": found, "mine": found})
    structure, displacement = figure.axes[0].containers
    assert [bar.get_height() for bar in structure] == pytest.approx([100, 200, 300])
    for bars in (structure, displacement):
        assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx([1, 2, 3])
    told = [bool(ax.xaxis.get_tick_params()["labelbottom"]) for ax in figure.axes[:3]]
    assert [ax.axison for ax in figure.axes] == [True, True, True, False]
    assert told == [False, True, True]  # below the first panel there is another, below the second none
    assert [(bar.get_y(), bar.get_height()) for bar in displacement] == [(100, 10), (200, 20), (300, 30)]
    assert [ax.get_title() for ax in figure.axes] == ["VPN", "copy", "mine", ""]
    (bar, *_), _ = figures.drift_or_blur({"VPN, one-step": found}).axes[0].containers
    assert to_hex(bar.get_facecolor()) == to_hex(structure[0].get_facecolor()) == figures.COLORS["VPN"]
    hatched = {
        t.get_text(): bool(p.get_hatch())
        for t, p in zip(figure.legends[0].get_texts(), figure.legends[0].get_patches())
    }
    assert hatched == {"structure": bool(structure[0].get_hatch()), "displacement": bool(displacement[0].get_hatch())}
    assert hatched["displacement"] != hatched["structure"]


def test_every_figure_is_as_wide_as_a_phone_shows_legibly_and_high_enough_for_what_it_holds(errors, found):
    features = pd.DataFrame(np.random.default_rng(1).normal(size=(40, 2)), columns=["overlap", "ink"])
    fit = difficulty.regress(features, errors["mine"])
    three = {**errors, "third": errors["mine"]}
    heights = {}
    for name, draw in {
        "boxes": lambda n: figures.box_plots(errors, frames=range(1, n + 1)),
        "frames": lambda n: figures.errors_by_frame(errors),
        "digits": lambda n: figures.errors_by_digits({"mine": dict.fromkeys(range(1, n + 1), errors["mine"])}),
        "ranks": lambda n: figures.rank_plot(dict(list(three.items())[: n + 1])),
        "coefficients": lambda n: figures.coefficients(dict.fromkeys("abc"[:n], fit)),
        "drift": lambda n: figures.drift_by_frame({"mine": found}),
        "parts": lambda n: figures.drift_or_blur(dict.fromkeys("abc"[: n + 1], found)),
    }.items():
        one, two = draw(1), draw(2)
        assert one.get_figwidth() == two.get_figwidth() == 6.5, name
        assert isinstance(one.get_layout_engine(), ConstrainedLayoutEngine), name  # as the style sheet has it
        heights[name] = one.get_figheight(), two.get_figheight()
    grow = {name for name, (one, two) in heights.items() if two > one}
    assert grow == {"boxes", "coefficients", "parts"}  # with a panel more, a network more, a row of panels more
    assert all(3 < high < 6 for name in ("frames", "digits", "drift") for high in heights[name])
    # One pair of networks has a square panel, and its title; three pairs have two rows of panels half as wide.
    assert all(6.5 < high < 7 for high in heights["ranks"])
    assert 2 < heights["parts"][0] < 3 and heights["parts"][1] - heights["parts"][0] > 1.5  # inches for a row of bars
    assert 1.5 < heights["coefficients"][0] < 3 and heights["coefficients"][1] > heights["coefficients"][0] + 0.3


def test_a_panel_of_boxes_is_the_higher_the_more_boxes_it_holds(errors):
    def height(networks, sets=1, panels=1):
        some = {f"network {k}": errors["mine"] for k in range(networks)}
        by_set = {f"set {k}": some for k in range(sets)}
        return figures.box_plots(by_set if sets > 1 else some, frames=range(1, panels + 1)).get_figheight()

    panels = {n: height(n, panels=2) - height(n) for n in (1, 2, 4)}
    assert 0.5 < panels[1] < 1
    assert panels[2] - panels[1] == pytest.approx((panels[4] - panels[2]) / 2)
    assert 0.3 < panels[2] - panels[1] < 0.5  # inches for a box and the gap to the next
    assert 0.3 < height(2, sets=2) - height(2) < 0.5 and 0.3 < height(2, sets=3) - height(2, sets=2) < 0.5
    assert 0.5 < height(1) - panels[1] < 1  # for the axis and its name


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda e: figures.drift_by_frame({}), "found is empty"),
        (lambda e: figures.drift_or_blur({}), "found is empty"),
        (lambda e: figures.box_plots({}), "errors is empty"),
        (lambda e: figures.box_plots(e, frames=(11,)), "frame is 11; .* frames 1 to 10"),
        (lambda e: figures.box_plots(e, frames=(0,)), "frame is 0"),
        (lambda e: figures.box_plots({"mine": e["mine"][:, 0]}, frames=(1,)), "frame is 1; .* frames 1 to 0"),
        (lambda e: figures.errors_by_frame({}), "errors is empty"),
        (lambda e: figures.errors_by_digits({"mine": {1: e["mine"]}}, above_floor=True), "needs a floor"),
        (
            lambda e: figures.errors_by_digits({"mine": {1: e["mine"]}}, {2: e["mine"]}, above_floor=True),
            "no floor for 1",
        ),
        (
            lambda e: figures.errors_by_digits({"mine": {1: e["mine"]}}, {1: e["mine"][:9]}, above_floor=True),
            "of 9 clips",
        ),
        (lambda e: figures.rank_plot({"mine": e["mine"]}), "errors of mine: expected two networks"),
        (lambda e: figures.rank_plot({}), "errors of no network: expected two networks"),
        (lambda e: figures.coefficients({}), "regressions is empty"),
    ],
)
def test_what_cannot_be_drawn_is_said(errors, draw, message):
    with pytest.raises(ValueError, match=message):
        draw(errors)
