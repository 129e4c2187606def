import numpy as np
import pytest
import torch

from framepred.players.stills import film_strip, grey, overlay


def test_grey_levels_are_kept():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert np.array_equal(grey(torch.from_numpy(levels).float()[:, None] / 255), levels)
    assert np.array_equal(grey(levels), levels)


def test_a_row_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 16, 16, 2\)"):
        grey(np.zeros((3, 16, 16, 2)))


def test_overlay_is_white_where_the_truth_is_and_red_where_only_the_prediction_is():
    truth = torch.tensor([[[[1.0, 0.0, 0.0, 0.4]]]])
    prediction = torch.tensor([[[[0.0, 1.0, 0.0, 1.0]]]])
    assert overlay(truth, prediction)[0, 0].tolist() == [[255, 255, 255], [255, 0, 0], [0, 0, 0], [255, 102, 102]]


def test_film_strip_puts_a_shorter_row_under_the_last_columns():
    long, short = torch.rand(6, 1, 8, 8), torch.rand(2, 1, 8, 8)
    figure = film_strip({"truth": long, "network": short}, gap_after=4)
    axes = np.array(figure.axes).reshape(2, 7)
    pictures = [[bool(ax.images) for ax in row] for row in axes]
    assert pictures == [[True] * 4 + [False] + [True] * 2, [False] * 5 + [True] * 2]
    assert np.array_equal(axes[1, 6].images[0].get_array(), grey(short)[1])
    assert [row[0].texts[0].get_text() for row in axes] == ["truth", "network"]
