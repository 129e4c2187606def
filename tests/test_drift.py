"""Drift or blur, on predictions whose answer is known."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import scipy.ndimage
import torch

import framepred
from framepred.analysis.drift import drift_and_blur
from framepred.data.moving import Clips, MovingDigits
from framepred.data.rendering import render, to_float
from framepred.metrics import cross_entropy, entropy_floor

APART = ([8, 8], [28, 26])  # two glyphs that share no pixel even if both are moved a little
ACROSS = ([14, 14], [20, 18])
CONTEXT, HORIZON = 2, 3


def clips_at(uci, n, *places):
    """Clips of `n` pairs (…) of glyphs that stand still, with the top left corner at these (x, y)."""
    glyphs = uci.images[: n * len(places)].reshape(n, len(places), 28, 28)
    positions = torch.tensor(places).expand(n, CONTEXT + HORIZON, -1, -1).contiguous()
    labels = uci.labels[: n * len(places)].reshape(n, len(places))
    return Clips(to_float(render(glyphs, positions, 64)), positions, glyphs, labels)


def moved(clips, *shifts):
    """The predicted part of the clips, with glyph g moved by shifts[g]."""
    positions = clips.positions[:, CONTEXT:] + torch.tensor(shifts)
    return to_float(render(clips.glyphs, positions.contiguous(), 64))


def calibrated(frames, doubt=1e-3):
    return (frames * (1 - 2 * doubt) + doubt).logit()


def excess(logits, target):
    return cross_entropy(logits, target) - entropy_floor(target)


def split(logits, clips, **keywords):
    return drift_and_blur(logits, clips, context=CONTEXT, **keywords)


@pytest.mark.parametrize(
    "places", [APART, ACROSS, APART[:1], (*APART, [30, 2])], ids=["apart", "across", "one", "three"]
)
def test_truth_moved_by_3_and_minus_2_pixels_has_drifted_by_the_root_of_13(places, uci):
    clips = clips_at(uci, 8, *places)
    target = moved(clips, *[[3, -2]] * len(places))
    found = split(calibrated(target), clips)
    assert found.shift.shape == (8, HORIZON, len(places), 2)
    assert (found.shift == torch.tensor([3, -2])).all()
    torch.testing.assert_close(found.drift, torch.full((8, HORIZON, len(places)), math.sqrt(13)))
    torch.testing.assert_close(found.structure, excess(calibrated(target), target), atol=0.01, rtol=0)
    assert (found.displacement > 20 * found.structure).all()


@pytest.mark.parametrize("places", [APART, ACROSS], ids=["apart", "across"])
def test_the_truth_itself_has_neither_drift_nor_displacement(places, uci):
    clips = clips_at(uci, 8, *places)
    target = clips.frames[:, CONTEXT:]
    found = split(calibrated(target, 1e-6), clips)
    assert not found.drift.any() and not found.displacement.any()
    assert found.structure.max() < 0.05 and found.structure.min() >= 0


@pytest.mark.parametrize("places", [APART, ACROSS], ids=["apart", "across"])
def test_glyphs_that_moved_differently_are_told_apart(places, uci):
    clips = clips_at(uci, 8, *places)
    found = split(calibrated(moved(clips, [-4, 0], [2, 5])), clips)
    assert (found.shift == torch.tensor([[-4, 0], [2, 5]])).all()
    torch.testing.assert_close(found.drift, torch.tensor([4, math.sqrt(29)]).expand(8, HORIZON, 2))


def test_blurred_truth_has_structure_but_no_drift(uci):
    clips = clips_at(uci, 20, *APART)
    target = clips.frames[:, CONTEXT:].numpy()
    structure = []
    for sigma in (0.5, 1.0, 2.0, 4.0):
        blurred = torch.from_numpy(scipy.ndimage.gaussian_filter(target, (0, 0, 0, sigma, sigma)))
        found = split(calibrated(blurred), clips)
        assert found.drift.mean() < 0.5 and found.drift.median() == 0
        assert found.displacement.mean() < 0.02 * found.structure.mean()
        structure.append(found.structure.mean().item())
    assert structure == sorted(structure) and structure[0] > 5 and structure[-1] > 100


def test_moved_and_blurred_truth_has_both(uci):
    clips = clips_at(uci, 20, *APART)
    target = moved(clips, [5, 0], [0, -5])
    blurred = torch.from_numpy(scipy.ndimage.gaussian_filter(target.numpy(), (0, 0, 0, 1, 1)))
    found = split(calibrated(blurred), clips)
    assert found.drift.mean().item() == pytest.approx(5, abs=0.3)
    assert found.structure.mean() > 20 and found.displacement.mean() > 100
    torch.testing.assert_close(found.structure, excess(calibrated(blurred), target), atol=2, rtol=0.05)


def test_both_parts_add_up_to_the_excess_over_the_floor_and_none_is_negative(uci):
    clips = MovingDigits(uci, n_digits=3, n_frames=5).sample(6)
    logits = torch.randn(6, 3, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    found = framepred.analysis.drift_and_blur(logits, clips, context=2, radius=3)
    torch.testing.assert_close(found.excess, excess(logits, clips.frames[:, 2:]), rtol=1e-4, atol=0.01)
    assert (found.displacement >= 0).all() and (found.structure >= 0).all()
    assert found.drift.max() <= 3 * math.sqrt(2)


def noise(n, seed, around=-1.0):
    """Predictions that resemble nothing, so that the best shift has close rivals."""
    return around + torch.randn(n, HORIZON, 1, 64, 64, generator=torch.Generator().manual_seed(seed))


def all_shifts(radius):
    return [[x, y] for x in range(-radius, radius + 1) for y in range(-radius, radius + 1)]


def test_the_shift_of_one_glyph_is_the_best_of_all(uci):
    clips = clips_at(uci, 4, [20, 17])
    logits = calibrated(moved(clips, [1, 2]), 0.2) + noise(4, 1, around=0)
    nats = np.stack([excess(logits, moved(clips, s)).numpy() for s in all_shifts(3)])
    found = split(logits, clips, radius=3)
    np.testing.assert_allclose(found.structure, nats.min(0), atol=0.2)  # ties are settled to a tenth of a nat
    assert (found.shift[:, :, 0].numpy() == np.array(all_shifts(3))[nats.argmin(0)]).all()


def test_the_steps_of_grey_that_the_search_tells_apart_cost_it_next_to_nothing(uci):
    clips, logits = clips_at(uci, 20, [20, 17]), noise(20, 1)
    nats = np.stack([excess(logits, moved(clips, s)).numpy() for s in all_shifts(3)])
    regret = split(logits, clips, radius=3).structure.numpy() - nats.min(0)
    assert regret.min() > -0.01 and regret.mean() < 0.1 and regret.max() < 1  # the nats spread over tens


@pytest.mark.parametrize(("around", "most"), [(-1.0, 8), (0.5, 1)], ids=["dark", "bright"])
def test_the_shifts_of_two_glyphs_are_nearly_the_best_of_all_pairs_with_hidden_ink_charged(around, most, uci):
    clips, logits = clips_at(uci, 12, [18, 17], [22, 20]), noise(12, 2, around)
    radius, pairs = 2, list(itertools.product(all_shifts(2), repeat=2))
    ink = clips.glyphs.double().sum((1, 2, 3))[:, None] / 255
    price = (-logits.mean((2, 3, 4))).clamp(min=0)  # where black is likelier than white
    nats = {}
    for pair in pairs:
        frames = moved(clips, *pair)
        hidden = ink - frames.double().sum((2, 3, 4))
        nats[str(pair)] = (excess(logits, frames) + price * hidden).numpy()
    least = np.min(list(nats.values()), 0)
    shift = split(logits, clips, radius=radius).shift
    regret = [
        nats[str(tuple(shift[b, t].tolist()))][b, t] - least[b, t] for b in range(len(clips)) for t in range(HORIZON)
    ]
    # It moves one glyph at a time, so it may end beside the best pair; a pair taken at random is 27 nats worse and more.
    assert np.mean(regret) < most
    assert np.mean([n.mean() for n in nats.values()]) - least.mean() > 25


def test_of_equally_good_shifts_the_shortest_counts(uci):
    clips = clips_at(uci, 2, *APART)
    flat = torch.full((2, HORIZON, 1, 64, 64), -3.0)
    assert not split(flat, clips).drift.any()


def test_shifts_leave_the_ink_in_the_frame(uci):
    clips = clips_at(uci, 8, [0, 36])
    cut = torch.zeros(8, HORIZON, 1, 64, 64)
    cut[..., 7:, :-7] = clips.frames[:, CONTEXT:, :, :-7, 7:]  # moved 7 px to the left and down, out of the frame
    found = split(calibrated(cut), clips)
    ink = clips.glyphs[:, 0] > 0
    left, below = ink.any(1).int().argmax(1), ink.any(2).flip(1).int().argmax(1)
    furthest = torch.stack([-left.clamp(max=7), below.clamp(max=7)], 1)
    short = (furthest - found.shift[:, 0, 0]) * torch.tensor([-1, 1])
    assert short.min() == 0 and short.max() <= 1  # faint ink at the edge may not be worth the last pixel


def squares(*places, corner=(9, 9)):
    """A clip that stands still, of glyphs that are white in the 10×10 pixels from `corner`, (x, y), on."""
    x, y = corner
    glyphs = torch.zeros(1, len(places), 28, 28, dtype=torch.uint8)
    glyphs[..., y : y + 10, x : x + 10] = 255
    positions = torch.tensor(places).expand(1, CONTEXT + HORIZON, -1, -1).contiguous()
    frames = to_float(render(glyphs, positions, 64))
    return Clips(frames, positions, glyphs, torch.zeros(1, len(places), dtype=torch.int64))


@pytest.mark.parametrize(
    ("place", "step"),
    [([0, 20], [-4, 0]), ([20, 0], [0, -2]), ([36, 20], [14, 0]), ([20, 36], [0, 16])],
    ids=["left", "up", "right", "down"],
)
def test_ink_may_move_up_to_the_border_of_the_frame_and_no_further(place, step):
    clips = squares(
        place, corner=(4, 2)
    )  # ink is 4 px from the glyph's left side, 2 from its top, 14 and 16 from the others
    frames = clips.frames[:, CONTEXT:].roll(step, (-1, -2))
    assert (split(calibrated(frames), clips, radius=18).shift == torch.tensor(step)).all()
    dark = torch.full_like(frames, -7.0)  # where ink would cost nothing only outside
    assert not split(dark, clips, radius=18).drift.any()


def test_of_two_places_that_show_a_glyph_equally_well_the_nearer_counts():
    clips = squares([18, 18])
    frames = clips.frames[:, CONTEXT:]
    for near, far in (([6, 0], [-7, 0]), ([0, -6], [0, 7]), ([-6, 0], [7, 0]), ([0, 6], [0, -7])):
        both = torch.maximum(frames.roll(near, (-1, -2)), frames.roll(far, (-1, -2)))
        assert (split(calibrated(both), clips).shift == torch.tensor(near)).all()


def test_a_glyph_that_is_hardly_predicted_does_not_hide_behind_another():
    clips = squares([14, 14], [20, 18])  # the second could hide behind the first, 7.2 px away
    first, second = (squares(place).frames[:, CONTEXT:] for place in ([14, 14], [20, 18]))
    found = split(calibrated(torch.maximum(first, second / 20)), clips)
    assert not found.drift.any() and not found.displacement.any() and (found.structure > 100).all()


def test_any_frames_of_a_clip_may_be_asked_for(uci):
    clips = clips_at(uci, 2, *APART)
    logits = calibrated(moved(clips, [1, 0], [0, 2]))
    whole = split(logits, clips)
    one = drift_and_blur(logits[:, :1], clips, context=CONTEXT)
    assert torch.equal(one.shift, whole.shift[:, :1])
    assert not drift_and_blur(logits.requires_grad_(), clips, context=CONTEXT).structure.requires_grad
    first = drift_and_blur(calibrated(clips.frames), clips, context=0)
    assert first.shift.shape == (2, CONTEXT + HORIZON, 2, 2) and not first.drift.any()


@pytest.mark.parametrize("corner", [(0, 0), (18, 18)])
def test_unless_told_the_search_goes_eight_pixels_far(corner):
    clips = squares([18, 18], corner=corner)  # ink to the glyph's very border
    frames = clips.frames[:, CONTEXT:]
    for far in ([8, -8], [-8, 8], [8, 8], [-8, -8]):
        assert (split(calibrated(frames.roll(far, (-1, -2))), clips).shift == torch.tensor(far)).all()
    assert (split(calibrated(frames.roll([9, -9], (-1, -2))), clips).shift == torch.tensor([8, -8])).all()


def test_unless_told_ten_frames_were_seen(uci):
    clips = MovingDigits(uci, n_frames=12).sample(2)
    found = drift_and_blur(calibrated(clips.frames[:, 10:]), clips)
    assert not found.drift.any() and found.structure.max() < 5


def test_what_was_found_is_not_changed_and_is_equal_to_itself_alone(uci):
    clips = clips_at(uci, 2, *APART)
    found, again = (split(calibrated(clips.frames[:, CONTEXT:]), clips) for _ in range(2))
    assert found == found and found != again
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.drift = again.drift


def test_further_than_the_radius_is_not_found(uci):
    clips = clips_at(uci, 4, [18, 18])
    logits = calibrated(moved(clips, [6, 0]))
    assert (split(logits, clips, radius=6).drift == 6).all()
    assert split(logits, clips, radius=4).drift.max() <= 4 * math.sqrt(2)
    assert not split(logits, clips, radius=0).drift.any()


def test_bad_input_is_refused(uci):
    clips = clips_at(uci, 2, *APART)
    logits = calibrated(clips.frames[:, CONTEXT:])
    with pytest.raises(ValueError, match="radius is -1"):
        split(logits, clips, radius=-1)
    with pytest.raises(ValueError, match=r"shape \(1, 3, 1, 64, 64\); expected \(2, frames, 1, 64, 64\)"):
        split(logits[:1], clips)
    with pytest.raises(ValueError, match="3 frames after a context of 4; clips of 5 frames have 1"):
        drift_and_blur(logits, clips, context=4)
    for context, T, there in ((-1, 3, 6), (9, 3, 0), (2, 0, 3)):
        with pytest.raises(
            ValueError, match=f"{T} frames after a context of {context}; clips of 5 frames have {there} "
        ):
            drift_and_blur(logits[:, :T], clips, context=context)
    with pytest.raises(ValueError, match="not all finite"):
        split(clips.frames[:, CONTEXT:].logit(), clips)
    nameless = Clips(clips.frames, clips.positions[:, :, :0], clips.glyphs[:, :0], clips.labels[:, :0])
    with pytest.raises(ValueError, match="do not record their glyphs"):
        split(logits, nameless)
