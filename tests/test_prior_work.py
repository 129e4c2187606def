"""Published results: what they bound, and the plane on which they lie."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.text import Annotation, Text

import framepred as fp
from framepred.analysis import prior_work

REFERENCES = Path(__file__).parent.parent / "book" / "references.bib"


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_every_number_has_a_protocol_a_source_in_the_bibliography_and_a_measure():
    table = prior_work.reported()
    keys = set(re.findall(r"@\w+\{(\w+),", REFERENCES.read_text(encoding="utf-8")))
    assert set(table["protocol"]) <= set(fp.PROTOCOLS)
    assert set(table["cite"]) <= keys
    assert (table["nats"].notna() | table["squared_error"].notna()).all()


def test_a_protocol_selects_its_rows():
    (row,) = prior_work.reported("teacher-forced").itertuples()
    assert (row.network, row.nats) == ("VPN", 87.6)
    one_step = prior_work.reported("one-step")
    assert not set(one_step["paper"]) & {"Shi 2015"}
    assert one_step.index.tolist() == list(range(len(one_step))) and list(one_step) == list(prior_work.reported())
    with pytest.raises(ValueError, match="rollout, one-step, teacher-forced"):
        prior_work.reported("sampling")


def test_numbers_of_the_thesis_are_those_of_its_tables():
    thesis = prior_work.reported("rollout").query("paper == 'Feist 2021' and test_set == 'original'")
    rows = thesis.set_index("network")[["nats", "first_frame", "tenth_frame"]].values.tolist()
    assert rows == [[361.6, 219.7, 457.0], [354.7, 302.3, 395.2], [170.3, 119.8, 216.1]]  # T Table 4.1


def test_each_measure_bounds_the_other():
    assert prior_work.most_squared_error(87.6) == pytest.approx(0.65)
    assert prior_work.most_squared_error(86.3) == 0
    assert prior_work.least_nats(14.07) == pytest.approx(114.44)
    assert prior_work.most_squared_error(prior_work.least_nats(20.0, floor=50.0), floor=50.0) == 20.0
    with pytest.raises(ValueError, match="below the floor of 86.3"):
        prior_work.most_squared_error(80.0)


def test_predictions_keep_to_the_bounds_and_meet_them_where_they_are_hardly_wrong():
    # Near p = t = 1/2 the divergence is 2·(p - t)² up to fourth order; elsewhere it is larger.
    target = torch.full((1, 1, 1, 8, 8), 0.5)
    near, far = torch.full_like(target, 0.51), torch.full_like(target, 0.95)
    for frames, share in ((near, 1.001), (far, 1.2)):
        above = fp.cross_entropy(frames.logit(), target) - fp.entropy_floor(target)
        least = 2 * fp.squared_error(frames, target)
        assert (above >= least * 0.999).all()
        assert (above <= least * 1.001).all() == (share == 1.001)


def test_plane_shows_every_published_number_and_ours():
    figure = prior_work.two_measures({"VPN, rollout": ("rollout", 50.0, 150.0)}, {"VPN, rollout": "#029e73"})
    (ax,) = figure.axes
    texts = [text.get_text() for text in ax.texts]
    shown = prior_work.reported().query("test_set != 'training'")
    assert len(texts) == len(shown)
    assert "impossible" in ax.get_legend().get_texts()[0].get_text()
    assert "Kalchbrenner 2016, VPN: 87.6 nats" in texts
    (mine,) = [line for line in ax.lines if line.get_label() == "VPN, rollout"]
    assert (mine.get_xdata()[0], mine.get_ydata()[0], mine.get_color()) == (50.0, 150.0, "#029e73")


def test_published_numbers_lie_where_their_papers_have_them():
    (ax,) = prior_work.two_measures().axes
    points = [(*line.get_xydata()[0], line.get_marker()) for line in ax.lines if len(line.get_xydata()) == 1]
    shown = prior_work.reported().query("test_set != 'training'")
    assert len(points) == len(shown)
    # Nats less 86.3, the floor; half of that is the largest squared error. Or the squared error, and twice of it.
    for where in ((0.65, 1.3, "^"), (99.45, 198.9, "o"), (46.75, 93.5, "s"), (14.07, 28.14, "o"), (103.3, 206.6, "o")):
        assert any(point == (pytest.approx(where[0]), pytest.approx(where[1]), where[2]) for point in points), where


def test_a_paper_with_one_measure_could_lie_on_a_line_of_possible_places_that_ends_at_its_marker():
    (ax,) = prior_work.two_measures().axes
    lines = [line.get_xydata() for line in ax.lines]
    (vpn,) = [xy for xy in lines if len(xy) == 2 and xy[:, 1] == pytest.approx([1.3, 1.3])]
    assert vpn[:, 0].max() == pytest.approx(0.65) and vpn[:, 0].min() <= ax.get_xlim()[0]
    (predrnn,) = [xy for xy in lines if len(xy) == 2 and xy[:, 0] == pytest.approx([14.07, 14.07])]
    assert predrnn[:, 1].min() == pytest.approx(28.14) and predrnn[:, 1].max() >= ax.get_ylim()[1]


def test_the_region_where_no_prediction_can_be_ends_at_twice_the_squared_error():
    (ax,) = prior_work.two_measures().axes
    (region,) = ax.collections
    (path,) = region.get_paths()
    for squared in (1.0, 20.0, 400.0):
        assert path.contains_point((squared, 1.96 * squared)) and not path.contains_point((squared, 2.04 * squared))
    (edge,) = [line.get_xydata() for line in ax.lines if len(line.get_xydata()) > 2]
    assert edge[:, 1] == pytest.approx(2 * edge[:, 0])


def test_names_point_to_their_markers():
    (ax,) = prior_work.two_measures().axes
    notes = {note.get_text(): note.xy for note in ax.texts if isinstance(note, Annotation)}
    assert notes["Kalchbrenner 2016, VPN: 87.6 nats"] == pytest.approx((0.65, 1.3))
    (predrnn,) = [xy for name, xy in notes.items() if "PredRNN++" in name]
    assert predrnn == pytest.approx((14.07, 28.14))


def test_a_marker_tells_the_protocol_of_published_numbers_and_of_ours():
    ours = {protocol: (protocol, 50.0, 150.0) for protocol in fp.PROTOCOLS}
    (ax,) = prior_work.two_measures(ours).axes
    named = {line.get_label(): line.get_marker() for line in ax.lines}
    assert len({named[protocol] for protocol in ours}) == 3
    assert all(named[f"published, {protocol}"] == named[protocol] for protocol in ours)


def test_plane_takes_what_lies_on_the_bound_as_nearly_as_float32_tells():
    prior_work.two_measures({"mine": ("rollout", 50.0, 100.0), "rounded": ("rollout", 50.0, 99.995)})
    with pytest.raises(ValueError, match="'mine' has"):
        prior_work.two_measures({"mine": ("rollout", 50.0, 99.9)})


def test_plane_refuses_what_no_prediction_can_be():
    with pytest.raises(ValueError, match="'mine' has 99 nats above the floor and a squared error of 50"):
        prior_work.two_measures({"mine": ("rollout", 50.0, 99.0)})
    with pytest.raises(ValueError, match="known: rollout"):
        prior_work.two_measures({"mine": ("likelihood", 50.0, 150.0)})


def test_names_keep_apart_in_the_order_of_their_markers():
    figure = prior_work.two_measures()
    figure.canvas.draw()
    notes = [note for note in figure.axes[0].texts if isinstance(note, Annotation)]
    notes.sort(key=lambda note: note.xy[1])
    words = [Text.get_window_extent(note) for note in notes]  # without their lines, in pixels
    assert all(low.y1 <= high.y0 + 0.5 for low, high in itertools.pairwise(words))
    assert figure.get_figwidth() == 8 and 5.5 < figure.get_figheight() < 6.5
    frame = figure.axes[0].get_window_extent()
    assert all(frame.contains(*corner) for word in words for corner in (word.min, word.max))
    markers = [figure.axes[0].transData.transform(note.xy) for note in notes]
    assert all(x < word.x0 for (x, _), word in zip(markers, words))  # all to the right of their markers
    away = [abs((word.y0 + word.y1) / 2 - y) for (_, y), word in zip(markers, words)]
    assert away[0] < 1  # the lowest one is alone and stays where it is
    assert sum(away) / len(away) < 2 * words[0].height and max(away) < 5 * words[0].height  # and not far from them
