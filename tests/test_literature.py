"""Published results: what they bound, and the plane on which they lie."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import framepred as fp
from framepred.analysis import prior_work

REFERENCES = Path(__file__).parent.parent / "book" / "references.bib"


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_every_number_has_a_protocol_a_source_in_the_bibliography_and_a_measure():
    table = prior_work.published()
    keys = set(re.findall(r"@\w+\{(\w+),", REFERENCES.read_text(encoding="utf-8")))
    assert set(table["protocol"]) <= set(fp.PROTOCOLS)
    assert set(table["cite"]) <= keys
    assert (table["nats"].notna() | table["squared_error"].notna()).all()


def test_a_protocol_selects_its_rows():
    (row,) = prior_work.published("teacher-forced").itertuples()
    assert (row.network, row.nats) == ("VPN", 87.6)
    assert not set(prior_work.published("one-step")["paper"]) & {"Shi 2015"}
    with pytest.raises(ValueError, match="rollout, one-step, teacher-forced"):
        prior_work.published("sampling")


def test_numbers_of_the_thesis_are_those_of_its_tables():
    thesis = prior_work.published("rollout").query("paper == 'Feist 2021' and test_set == 'original'")
    rows = thesis.set_index("network")[["nats", "first_frame", "tenth_frame"]].values.tolist()
    assert rows == [[361.6, 219.7, 457.0], [354.7, 302.3, 395.2], [170.3, 119.8, 216.1]]  # T Table 4.1


def test_each_measure_bounds_the_other():
    assert prior_work.most_squared_error(87.6) == pytest.approx(0.65)
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
    shown = prior_work.published().query("test_set != 'training'")
    assert len(texts) == len(shown) + 1
    assert "Kalchbrenner 2016, VPN: 87.6 nats" in texts
    (mine,) = [line for line in ax.lines if line.get_label() == "VPN, rollout"]
    assert (mine.get_xdata()[0], mine.get_ydata()[0], mine.get_color()) == (50.0, 150.0, "#029e73")


def test_plane_refuses_what_no_prediction_can_be():
    with pytest.raises(ValueError, match="'mine' has 99 nats above the floor and a squared error of 50"):
        prior_work.two_measures({"mine": ("rollout", 50.0, 99.0)})
    with pytest.raises(ValueError, match="known: rollout"):
        prior_work.two_measures({"mine": ("likelihood", 50.0, 150.0)})


def test_names_that_would_overlap_are_moved_apart_in_order():
    moved = prior_work._spread(np.array([0.0, 0.01, 0.02, 5.0, 9.99]), 0.5, 10.0)
    assert (np.diff(moved) >= 0.5 - 1e-6).all() and moved[3] == 5.0 and moved[-1] <= 10.0
