"""The matcher: clips whose glyphs are known, and glyphs that are in no source."""

import dataclasses

import numpy as np
import pytest
import torch

from framepred.analysis.retrieval import UNMATCHED, GlyphIndex, match_glyphs, share_of_sources
from framepred.data.glyphs import GlyphSet, load_digits
from framepred.data.moving import MovingDigits
from framepred.data.rendering import render
from framepred.data.test_sets import TEST_SEED, test_set


@pytest.fixture(scope="module")
def splits():
    return {split: load_digits("uci", split) for split in ("train", "validation", "test")}


@pytest.fixture(scope="module")
def index(splits):
    return GlyphIndex(splits)


def true_glyphs(moving, n, seed=0):
    """What a match must find: for each clip the numbers of its images."""
    return [set(row) for row in moving._choose(n, seed, 0).tolist()]


def found_glyphs(matches):
    return [set(images) for _, images in matches.groupby("clip")["image"]]


def test_two_glyphs_are_found_where_they_are(index, splits):
    moving = MovingDigits(splits["test"], 2)
    clips = moving.sample(25, dtype=torch.uint8)
    matches = match_glyphs(clips.frames, index)
    assert len(matches) == 50 and (matches["source"] == "test").all() and (matches["rendered"] == 1).all()
    assert found_glyphs(matches) == true_glyphs(moving, 25)
    for row in matches.to_dict("records"):
        clip, glyph = row["clip"], moving._choose(25, 0, 0)[row["clip"]].tolist().index(row["image"])
        assert row["label"] == clips.labels[clip, glyph]
        assert (row["x"], row["y"]) == tuple(clips.positions[clip, row["frame"], glyph].tolist())


def test_clips_in_floats_give_the_same_answer(index, splits):
    moving = MovingDigits(splits["train"], 2)
    of_bytes = match_glyphs(moving.sample(4, dtype=torch.uint8).frames, index)
    assert match_glyphs(moving.sample(4).frames, index).equals(of_bytes)
    assert list(share_of_sources(of_bytes).items()) == [("train", 1), ("validation", 0), ("test", 0), (UNMATCHED, 0)]


def test_a_clip_of_one_glyph(index, splits):
    moving = MovingDigits(splits["validation"], 1)
    matches = match_glyphs(moving.sample(10, dtype=torch.uint8).frames, index, n_glyphs=1)
    assert (matches["source"] == "validation").all() and found_glyphs(matches) == true_glyphs(moving, 10)


def test_three_glyphs(index, splits):
    moving = MovingDigits(splits["test"], 3)
    matches = match_glyphs(moving.sample(10, dtype=torch.uint8).frames, index, n_glyphs=3)
    assert (matches["source"] == "test").mean() >= 0.9
    complete = [clip for clip, rows in matches.groupby("clip") if (rows["source"] == "test").all()]
    assert [found_glyphs(matches)[c] for c in complete] == [true_glyphs(moving, 10)[c] for c in complete]


def test_sources_can_be_mixed_in_a_clip(index, splits):
    images = torch.stack([splits["train"].images[7], splits["test"].images[9]])
    mixed = dataclasses.replace(splits["test"], images=images, labels=torch.tensor([0, 1]))
    matches = match_glyphs(MovingDigits(mixed, 2).sample(1, dtype=torch.uint8).frames, index)
    assert set(zip(matches["source"], matches["image"])) == {("train", 7), ("test", 9)}
    assert share_of_sources(matches).to_dict() == {"train": 0.5, "validation": 0, "test": 0.5, UNMATCHED: 0}


def test_glyphs_that_overlap_in_every_frame_are_found(index, splits):
    glyphs = splits["test"].images[None, 3:5]
    path = torch.arange(20)
    positions = torch.stack([torch.stack([path, path], -1), torch.stack([path + 9, path + 7], -1)], 1)[None]
    frames = render(glyphs, positions, 64)
    ink = (glyphs[0] > 0).float()
    apart = ink[0, 7:, 9:] * ink[1, :-7, :-9]
    assert apart.any()  # they do overlap
    matches = match_glyphs(frames, index)
    assert found_glyphs(matches) == [{3, 4}] and (matches["rendered"] == 1).all()


def test_a_glyph_that_another_covers_stays_unmatched(index, splits):
    cover = torch.full((28, 28), 255, dtype=torch.uint8)
    glyphs = torch.stack([splits["test"].images[3], cover])[None]
    matches = match_glyphs(render(glyphs, torch.full((1, 20, 2, 2), 5), 64), index)
    assert (matches["source"] == UNMATCHED).all()
    assert (matches[["image", "label", "frame", "x", "y"]] == -1).all(axis=None) and (matches["rendered"] == 0).all()


def test_glyphs_of_no_source_stay_unmatched(splits):
    moving = MovingDigits(splits["test"], 2)
    matches = match_glyphs(moving.sample(8, dtype=torch.uint8).frames, {"train": splits["train"]})
    assert list(share_of_sources(matches).items()) == [("train", 0), (UNMATCHED, 1)]  # in the order of the sources


def test_one_glyph_of_a_source_beside_a_stranger(splits):
    images = torch.stack([splits["train"].images[7], splits["test"].images[9]])
    mixed = dataclasses.replace(splits["test"], images=images, labels=torch.tensor([0, 1]))
    matches = match_glyphs(MovingDigits(mixed, 2).sample(1, dtype=torch.uint8).frames, {"train": splits["train"]})
    assert list(zip(matches["source"], matches["image"])) == [("train", 7), (UNMATCHED, -1)]
    assert (matches["rendered"] < 1).all()


def frames_of(*pictures):
    """A clip: in each frame the glyphs, at their (x, y), that are listed for it."""
    frames = torch.zeros(1, len(pictures), 1, 64, 64, dtype=torch.uint8)
    for t, glyphs in enumerate(pictures):
        for image, (x, y) in glyphs:
            window = frames[0, t, 0, y : y + 28, x : x + 28]
            window.copy_(torch.maximum(window, image))
    return frames


def test_the_frame_is_the_first_that_shows_most_of_the_glyph(index, splits):
    a, b = splits["test"].images[3:5]
    close, apart = [(a, (10, 10)), (b, (19, 17))], [(a, (2, 3)), (b, (33, 34))]
    matches = match_glyphs(frames_of(close, close, apart, close, apart), index)
    assert set(matches["image"]) == {3, 4} and matches["frame"].tolist() == [2, 2]
    assert {tuple(row) for row in matches[["image", "x", "y"]].to_numpy()} == {(3, 2, 3), (4, 33, 34)}


def test_rendered_is_the_share_of_the_frames_that_the_matched_glyphs_make(splits):
    known, stranger = splits["train"].images[7], splits["test"].images[9]
    alone, both = [(known, (3, 3))], [(known, (3, 3)), (stranger, (33, 34))]
    matches = match_glyphs(frames_of(alone, both, alone, alone), {"train": splits["train"]})
    assert matches["image"].tolist() == [7, -1] and matches["rendered"].tolist() == [0.75, 0.75]


def test_a_glyph_has_to_fit_into_every_frame(splits):
    known, stranger = splits["train"].images[7], splits["test"].images[9]
    here, gone = [(known, (3, 3)), (stranger, (33, 34))], [(stranger, (33, 34))]
    train = {"train": splits["train"]}
    assert match_glyphs(frames_of(here, here), train)["image"].tolist() == [7, -1]
    assert match_glyphs(frames_of(here, gone), train)["image"].tolist() == [-1, -1]


def test_a_glyph_that_no_frame_shows_whole_stays_unmatched_beside_a_stranger(splits):
    known, stranger = splits["train"].images[7], splits["test"].images[9]
    part, whole = [(known, (10, 10)), (stranger, (19, 17))], [(known, (10, 10)), (stranger, (36, 36))]
    assert (frames_of(part)[0, 0, 0, 10:38, 10:38] != known)[known > 0].any()
    train = {"train": splits["train"]}
    assert match_glyphs(frames_of(part, whole), train)["image"].tolist() == [7, -1]
    assert match_glyphs(frames_of(part, part), train)["image"].tolist() == [-1, -1]


def custom(*images):
    """A source of pictures drawn by hand, (28, 28)."""
    return GlyphSet(torch.stack(images), torch.arange(len(images)), "custom", "test", tuple("abcdef"), "none", "none")


def test_a_glyph_that_others_enclose_is_found_as_a_piece_of_its_own(splits):
    frames = frames_of([(splits["train"].images[7], (18, 18))])
    for border in (4, 10):  # two strangers, one inside the other
        for side in (border, 63 - border):
            frames[..., side, border : 64 - border] = frames[..., border : 64 - border, side] = 255
    matches = match_glyphs(frames, {"train": splits["train"]}, n_glyphs=3)
    assert matches["image"].tolist() == [7, -1, -1]
    assert matches.loc[0, ["x", "y"]].tolist() == [18, 18]
    frames = frames_of([(splits["train"].images[7], (18, 18))])
    top = int(frames[0, 0, 0].any(1).nonzero()[0])
    frames[..., top + 1 : 60, 10] = frames[..., top + 1 : 60, 50] = frames[..., 55, 10:50] = 255  # it looks out on top
    assert match_glyphs(frames, {"train": splits["train"]})["image"].tolist() == [7, -1]


def test_a_glyph_inside_another_that_it_touches_is_found_when_that_is_taken_away():
    ring, blob = torch.zeros(2, 28, 28, dtype=torch.uint8)
    ring[:] = 200
    ring[2:-2, 2:-2] = 0
    blob[8:16, 1:9] = torch.randint(50, 200, (8, 8), generator=torch.Generator().manual_seed(0))
    frames = frames_of([(ring, (0, 0)), (blob, (0, 2))])  # the ring covers the blob's first column
    assert (frames[0, 0, 0, 10:18, 1] == 200).all() and (frames[0, 0, 0, 10:18, 2:9] == blob[8:16, 2:9]).all()
    matches = match_glyphs(frames, {"custom": custom(ring, blob)})
    assert matches["image"].tolist() == [0, 1] and (matches["rendered"] == 1).all()
    assert matches[["x", "y"]].values.tolist() == [[0, 0], [0, 2]]


def test_of_more_glyphs_than_a_clip_shall_show_those_are_told_that_show_most():
    blob = torch.zeros(28, 28, dtype=torch.uint8)
    blob[8:16, 8:16] = torch.randint(50, 200, (8, 8), generator=torch.Generator().manual_seed(0))
    small = torch.zeros(28, 28, dtype=torch.uint8)
    small[8:13, 8:13] = 250
    frames = frames_of([(small, (0, 0)), (blob, (30, 30))])
    assert match_glyphs(frames, {"custom": custom(small, blob)}, n_glyphs=1)["image"].tolist() == [1]


def test_a_glyph_is_found_after_another_that_shows_itself_on_three_sides():
    ring, blob = torch.zeros(2, 28, 28, dtype=torch.uint8)
    ring[:] = 200
    ring[2:-2, 2:-2] = 0
    blob[8:16, 8:16] = torch.randint(50, 200, (8, 8), generator=torch.Generator().manual_seed(0))
    matches = match_glyphs(frames_of([(ring, (0, 0)), (blob, (30, 2))]), {"custom": custom(ring, blob)})
    assert matches["image"].tolist() == [0, 1]


def test_of_several_places_where_a_glyph_fits_the_one_that_shows_most_of_it_is_told():
    blob = torch.zeros(28, 28, dtype=torch.uint8)
    blob[8:16, 8:16] = torch.randint(50, 200, (8, 8), generator=torch.Generator().manual_seed(0))
    frames = frames_of([(blob, (20, 20))])
    frames[..., :12, :12] = frames[..., 50:, 50:] = 255  # behind which it could hide
    matches = match_glyphs(frames, {"custom": custom(blob)})
    assert matches[["image", "x", "y"]].values.tolist() == [[0, 20, 20], [-1, -1, -1]]


@pytest.mark.parametrize("open_side", ["top", "bottom", "left", "right"])
def test_one_open_side_is_enough_to_find_a_glyph(open_side, index, splits):
    frame = frames_of([(splits["train"].images[7], (18, 18))])[0, 0, 0].numpy()
    rows, columns = np.flatnonzero(frame.any(1)), np.flatnonzero(frame.any(0))
    first, last = (rows[0], columns[0]), (rows[-1], columns[-1])

    def wall(side):  # along the ink; it ends six pixels before the open side
        along = 0 if side in ("left", "right") else 1
        start = first[along] + 6 * (open_side == ("top", "left")[along])
        stop = last[along] + 1 - 6 * (open_side == ("bottom", "right")[along])
        at = first[1 - along] - 1 if side in ("left", "top") else last[1 - along] + 1
        return (slice(start, stop), at) if along == 0 else (at, slice(start, stop))

    for side in {"top", "bottom", "left", "right"} - {open_side}:
        frame[wall(side)] = 255
    assert [(image.source, image.number) for image in index.find(frame[None])] == [("train", 7)]


def test_a_frame_may_be_no_larger_than_a_glyph():
    ring = torch.full((28, 28), 255, dtype=torch.uint8)
    ring[5:-5, 5:-5] = 0
    bar = torch.zeros(28, 28, dtype=torch.uint8)
    bar[:, :10] = torch.randint(50, 200, (28, 10), generator=torch.Generator().manual_seed(0))
    for glyph in (ring, bar, bar.T):
        for cut in (
            torch.nn.functional.pad(glyph[:20], (0, 36)),
            torch.nn.functional.pad(glyph[:, :20], (0, 0, 0, 36)),
        ):
            fits = cut.count_nonzero() == glyph.count_nonzero()  # a bar lies along the frame
            found = match_glyphs(cut[None, None, None], {"custom": custom(glyph)}, n_glyphs=1)
            assert found["image"].tolist() == [0 if fits else -1]
    matches = match_glyphs(ring[None, None, None], {"custom": custom(ring)}, n_glyphs=1)
    assert matches[["image", "x", "y", "rendered"]].values.tolist() == [[0, 0, 0, 1]]


def test_a_strip_tells_a_glyph_from_nearly_all_others(index, splits):
    found = list(index.find(splits["test"].images[:100].numpy()))
    assert len(found) == pytest.approx(4 * 100, abs=8)  # by each of its four sides it is found once


def test_altered_pixels_do_not_match(index, splits):
    frames = MovingDigits(splits["test"], 1).sample(5, dtype=torch.uint8).frames
    darker = torch.where(frames > 0, frames - 1, frames)
    assert (match_glyphs(darker, index, 1)["source"] == UNMATCHED).all()


def test_empty_frames_show_nothing(index):
    matches = match_glyphs(torch.zeros(2, 3, 1, 64, 64, dtype=torch.uint8), index)
    assert matches["clip"].tolist() == [0, 0, 1, 1] and (matches["source"] == UNMATCHED).all()


def test_images_with_the_same_ink_go_by_the_first(splits):
    image = splits["test"].images[:1]
    moved = torch.roll(image, (2, -1), (1, 2))
    twins = dataclasses.replace(splits["test"], images=torch.cat([image, moved]), labels=torch.tensor([4, 4]))
    index = GlyphIndex({"twins": twins, "copy": twins})
    assert len(index) == 4
    clips = MovingDigits(dataclasses.replace(twins, images=moved, labels=torch.tensor([4])), 1)
    matches = match_glyphs(clips.sample(1, dtype=torch.uint8).frames, index, 1)
    assert matches[["source", "image"]].values.tolist() == [["twins", 0]]


def test_what_makes_no_sense_is_refused(index, splits):
    frames = torch.zeros(1, 2, 1, 64, 64)
    with pytest.raises(ValueError, match="values other than k/255"):
        match_glyphs(frames + 0.5, index)
    for value in (-1 / 255, 256 / 255):
        with pytest.raises(ValueError, match="values other than k/255"):
            match_glyphs(frames + value, index)
    with pytest.raises(ValueError, match="n_glyphs is 0"):
        match_glyphs(frames, index, n_glyphs=0)
    with pytest.raises(ValueError, match="at least one"):
        GlyphIndex({})
    with pytest.raises(ValueError, match="none of them called 'unmatched'"):
        GlyphIndex({UNMATCHED: splits["test"]})
    blank = GlyphSet(
        torch.zeros(2, 28, 28, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "b", "t", ("0",), "", ""
    )
    with pytest.raises(ValueError, match="image 0 of blank is blank"):
        GlyphIndex({"blank": blank})


@pytest.mark.slow
def test_mnist_clips_are_traced_to_their_split_and_image(mnist):
    index = GlyphIndex({split: mnist(split) for split in ("train", "validation", "test")})
    for name, split in (("mnist-2", "test"), ("mnist-train-2", "train")):
        clips = test_set(name, 100)
        matches = match_glyphs(clips.sample(dtype=torch.uint8).frames, index)
        assert share_of_sources(matches)[split] == 1 and (matches["rendered"] == 1).all()
        assert found_glyphs(matches) == true_glyphs(clips.clips, 100, TEST_SEED)


def test_a_file_like_the_original_is_traced(tmp_path, index, splits):
    from framepred.data.test_sets import OriginalTestFile

    frames = MovingDigits(splits["train"], 2).sample(3, dtype=torch.uint8).frames
    np.save(tmp_path / "mnist_test_seq.npy", frames[:, :, 0].permute(1, 0, 2, 3).numpy())
    read = OriginalTestFile(tmp_path / "mnist_test_seq.npy").sample(3, dtype=torch.uint8).frames
    assert share_of_sources(match_glyphs(read, index))["train"] == 1
