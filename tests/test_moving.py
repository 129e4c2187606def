"""The generator: its floor, its motion, its randomness, its pixels, and the fixed test sets."""

import dataclasses
import hashlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from framepred.benchmark.reference import render_plainly
from framepred.data import glyphs as digits_module, moving as module, rendering, test_sets
from framepred.data.glyphs import GlyphSet
from framepred.data.moving import MovingDigits
from framepred.data.test_sets import OriginalTestFile

# --- what the tests are made of --------------------------------------------------------------------------------------


def numbered(n):
    """n glyphs that are plain squares: glyph k has the grey value k + 1 everywhere."""
    images = torch.arange(1, n + 1, dtype=torch.uint8)[:, None, None].repeat(1, 28, 28)
    return GlyphSet(images, torch.arange(n), "numbered", "test", tuple(map(str, range(n))), "none", "none")


def shown(clips):
    """Which of the numbered glyphs a batch of clips shows: (clips, glyphs)."""
    return clips.glyphs[:, :, 0, 0].long() - 1


@pytest.fixture
def draw(monkeypatch):
    """`draw((x, y, heading, pull), …)` lets the clips' glyphs start there; headings are fractions of a whole turn."""

    def draw(*glyphs):
        flat = np.array(glyphs, dtype=np.float64).ravel()
        monkeypatch.setattr(module, "uniform", lambda seed, stream, start, n: flat[start : start + n].copy())

    return draw


def path(n_frames, **arguments):
    """The positions of the only glyph of clip 0, frame by frame: xs, ys."""
    clips = MovingDigits(numbered(2), n_digits=1, n_frames=n_frames, **arguments)
    return clips.sample(1).positions[0, :, 0].T.tolist()


# --- the floor -------------------------------------------------------------------------------------------------------

# Nats of a pixel of grey value v: the entropy of a coin that shows white with probability v/255.
ENTROPY = torch.tensor([-sum(p * math.log(p) for p in (v / 255, 1 - v / 255) if p > 0) for v in range(256)])


def floor(clips, n):
    """Mean nats of frames 11 to 20 of the first n clips."""
    counts = sum(
        torch.bincount(batch.split(10)[1].flatten(), minlength=256)
        for batch in clips.batches(n, 100, dtype=torch.uint8)
    )
    return (counts * ENTROPY).sum().item() / (10 * n)


# One pass over the 10,000 test digits, so each takes part once; published values are from 20,000 clips.
@pytest.mark.parametrize(("n_digits", "nats"), [(1, 45.5), (2, 86.4), (3, 123.3), (4, 155.6)])
def test_floor_of_mnist_test_digits(n_digits, nats, mnist):
    assert floor(MovingDigits(mnist("test"), n_digits), 10_000 // n_digits) == pytest.approx(nats, abs=0.5)


def test_floor_of_mnist_training_digits(mnist):
    assert floor(MovingDigits(mnist("train"), 2), 2_500) == pytest.approx(86.8, abs=0.5)


def test_bundled_digits_have_a_floor_near_that_of_mnist(uci):
    assert floor(MovingDigits(uci, 1), 397) == pytest.approx(45.5, rel=0.1)
    assert floor(MovingDigits(uci, 2), 794) == pytest.approx(86.4, rel=0.1)


# --- motion ----------------------------------------------------------------------------------------------------------


def test_a_step_is_3_6_pixels(draw):
    # Heading (0.6, 0.8): 2.16 px and 2.88 px a frame, 3.6 px in all. The start is 36·(0.3, 0.2) = (10.8, 7.2) px.
    draw((0.3, 0.2, math.atan2(0.8, 0.6) / (2 * math.pi), 0))
    xs, ys = path(5)
    assert xs == [12, 15, 17, 19, 21]  # 12.96, 15.12, 17.28, 19.44, 21.60
    assert ys == [10, 12, 15, 18, 21]  # 10.08, 12.96, 15.84, 18.72, 21.60


def test_a_step_is_a_tenth_of_the_free_range_in_any_frame_size(draw):
    draw((0.2533, 0.5, 0, 0))
    assert path(3, frame_size=428)[0] == [141, 181, 221]  # 400·(0.3533, 0.4533, 0.5533)
    assert path(3, frame_size=428, speed=0.2)[0] == [181, 261, 341]
    assert path(3, frame_size=28) == [[0, 0, 0], [0, 0, 0]]  # nowhere to go


def test_the_first_frame_is_one_step_after_the_start(draw):
    draw((0.5, 0.5, 0, 0))
    assert path(1, speed=0.25) == [[27], [18]]  # 36·0.75, 36·0.5


def test_step_onto_the_border_turns_back_at_once(draw):
    # In binary fractions, so that 1 is reached exactly: .625 .75 .875 1 .875 .75 .625
    draw((0.5, 0.5, 0, 0))
    assert path(7, speed=0.125)[0] == [22, 27, 31, 36, 31, 27, 22]
    draw((0.5, 0.5, 0.5, 0))  # the other way: .375 .25 .125 0 .125 .25 .375
    assert path(7, speed=0.125)[0] == [13, 9, 4, 0, 4, 9, 13]


def test_step_over_the_border_is_cut_off_there(draw):
    # .53 + .1 + … = .63 .73 .83 .93 | 1.03 → 1, then .9 .8 .7: what went over is lost, not mirrored
    draw((0.53, 0.5, 0, 0))
    assert path(8)[0] == [22, 26, 29, 33, 36, 32, 28, 25]
    # downwards in y: .27 .17 .07 | -.03 → 0, then .1 .2 .3 (36·0.3 = 10.8)
    draw((0.5, 0.37, 0.75, 0))
    xs, ys = path(7)
    assert ys == [9, 6, 2, 0, 3, 7, 10] and set(xs) <= {17, 18}


def test_axes_bounce_on_their_own_and_together_in_a_corner(draw):
    diagonal = math.atan2(0.8, 0.6) / (2 * math.pi)
    draw((0.9, 0.9, diagonal, 0))
    xs, ys = path(4)  # x: .96, 1.02 → 1, .94, .88; y: .98, 1.06 → 1, .92, .84
    assert (xs, ys) == ([34, 36, 33, 31], [35, 36, 33, 30])
    draw((0.7, 0.9, diagonal, 0))
    xs, ys = path(4)  # x: .76 .82 .88 .94; y as before
    assert (xs, ys) == ([27, 29, 31, 33], [35, 36, 33, 30])


def srivastava(x, y, heading, length, step=0.1, canvas=36):
    """GetRandomTrajectory of emansim/unsupervised-videos, in plain Python."""
    v_x, v_y = math.cos(2 * math.pi * heading), math.sin(2 * math.pi * heading)
    places = []
    for _ in range(length):
        y += v_y * step
        x += v_x * step
        if x <= 0:
            x, v_x = 0, -v_x
        if x >= 1.0:
            x, v_x = 1.0, -v_x
        if y <= 0:
            y, v_y = 0, -v_y
        if y >= 1.0:
            y, v_y = 1.0, -v_y
        places.append([int(canvas * x), int(canvas * y)])
    return places


def test_trajectories_are_those_of_srivastava_et_al(draw):
    draws = np.random.default_rng(0).random((300, 4))
    draw(*draws)
    positions = MovingDigits(numbered(2), n_digits=2, n_frames=60).sample(150).positions
    expected = [srivastava(x, y, heading, 60) for x, y, heading, _ in draws.tolist()]
    assert positions.transpose(1, 2).flatten(0, 1).tolist() == expected


def test_starts_and_headings_are_uniform(monkeypatch):
    seen = []
    original = module.uniform
    monkeypatch.setattr(module, "uniform", lambda *a, **k: seen.append(original(*a, **k)) or seen[-1])
    MovingDigits(numbered(2), n_frames=1).sample(5_000, seed=3)
    values = np.concatenate(seen).reshape(-1, 4)
    assert values.min() >= 0 and values.max() < 1
    counts = np.stack([np.bincount((10 * column).astype(int), minlength=10) for column in values.T])
    assert (abs(counts - 1_000) < 5 * math.sqrt(1_000 * 0.9)).all()  # five standard deviations of a binomial
    assert (abs(np.corrcoef(values.T) - np.eye(4)) < 0.05).all()


def test_gravity_is_added_to_the_velocity_before_each_step(draw):
    # From rest, 1/64 more a frame to the right: x = 1/4 + (1 + … + t)/64, so 36x = 9.5625 10.6875 12.375 14.625 17.4375
    draw((0.25, 0.5, 0, 0))
    assert path(5, speed=0.0, acceleration=1 / 64)[0] == [9, 10, 12, 14, 17]


def test_gravity_goes_on_after_a_bounce(draw):
    # v = .25 .5 | -.25 0 .25 |: x = .75, 1.25 → 1, .75, .75, 1
    draw((0.5, 0.5, 0, 0))
    assert path(5, speed=0.0, acceleration=0.25)[0] == [27, 36, 27, 27, 36]


def test_gravity_pulls_each_glyph_its_own_way(draw):
    draw((0.5, 0.5, 0, 0), (0.5, 0.5, 0, 0.25))
    clips = MovingDigits(numbered(2), n_digits=2, n_frames=2, speed=0.0, acceleration=0.125)
    # v = 1/8, 2/8: .625, .875 along the pull
    assert clips.sample(1).positions[0].tolist() == [[[22, 18], [18, 22]], [[31, 18], [18, 31]]]


def test_no_acceleration_is_as_if_the_option_did_not_exist(draw):
    draws = np.random.default_rng(1).random((100, 4))
    draw(*draws)
    positions = MovingDigits(numbered(2), n_digits=1, n_frames=30, acceleration=0.0).sample(100).positions[:, :, 0]
    assert positions.tolist() == [srivastava(x, y, heading, 30) for x, y, heading, _ in draws.tolist()]


# --- randomness ------------------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bytes(uci):
    a, b = (MovingDigits(uci).sample(5, seed=7, start=11) for _ in range(2))
    for name in ("frames", "positions", "glyphs", "labels"):
        assert getattr(a, name).numpy().tobytes() == getattr(b, name).numpy().tobytes()


def test_other_seeds_give_other_clips():
    clips = MovingDigits(numbered(200), n_frames=1)
    batches = [clips.sample(50, seed=seed) for seed in (0, 1, 2, 2**32, 2**63 - 1)]
    for kind in (shown, lambda batch: batch.positions):
        assert len({kind(batch).numpy().tobytes() for batch in batches}) == len(batches)
    # nor is a seed's clip k + 1 the next seed's clip k
    assert not torch.equal(batches[0].positions[1:], batches[1].positions[:-1])


# 5 glyphs, 2 or 3 a clip: the passes end in the middle of clips
@given(st.integers(1, 3), st.integers(0, 40), st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 3))
@settings(max_examples=25)
def test_a_clip_depends_on_its_seed_and_index_alone(n_digits, start, sizes, seed):
    clips = MovingDigits(numbered(5), n_digits, n_frames=3)
    whole = clips.sample(sum(sizes), seed, start, dtype=torch.uint8)
    begins = [start + sum(sizes[:k]) for k in range(len(sizes))]
    parts = [clips.sample(n, seed, k, dtype=torch.uint8) for n, k in zip(sizes, begins)]
    for name in ("frames", "positions", "glyphs", "labels"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))


def test_neither_uses_nor_changes_the_global_random_state(uci):
    clips = MovingDigits(uci, n_frames=2)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  it is about this state
    first = clips.sample(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    torch.rand(5), np.random.rand(5)  # noqa: NPY002
    assert torch.equal(clips.sample(3).frames, first.frames)


@pytest.mark.parametrize(("n", "n_digits"), [(10, 2), (10, 1), (7, 2), (7, 3), (8, 4)])
def test_every_glyph_is_drawn_once_in_a_pass(n, n_digits):
    passes = 6
    number = shown(MovingDigits(numbered(n), n_digits, n_frames=1).sample(passes * n, seed=1)).flatten()
    number = number[: passes * n].reshape(passes, n)
    assert (number.sort(1).values == torch.arange(n)).all()
    assert len({tuple(order) for order in number.tolist()}) == passes  # each pass has an order of its own


def test_labels_belong_to_their_glyphs(uci):
    clips = MovingDigits(uci, 3, n_frames=1).sample(20)
    for glyph, label in zip(clips.glyphs.flatten(0, 1), clips.labels.flatten()):
        same = (uci.images == glyph).all((1, 2))
        assert same.any() and label in uci.labels[same]


# --- pixels ----------------------------------------------------------------------------------------------------------


def test_frame_shows_each_glyph_at_its_position_and_nothing_else(uci):
    clips = MovingDigits(uci, 1, n_frames=4, frame_size=40).sample(6, dtype=torch.uint8)
    for b in range(6):
        for t in range(4):
            x, y = clips.positions[b, t, 0].tolist()
            expected = torch.zeros(40, 40, dtype=torch.uint8)
            expected[y : y + 28, x : x + 28] = clips.glyphs[b, 0]
            assert torch.equal(clips.frames[b, t, 0], expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("n_digits", [1, 2, 4])
def test_clip_is_the_maximum_of_its_glyphs_rendered_alone(n_digits, dtype, uci):
    clips = MovingDigits(uci, n_digits).sample(40, dtype=dtype)
    alone = [clips.alone(g) for g in range(n_digits)]
    assert all(one.dtype == dtype for one in alone)
    assert torch.equal(torch.stack(alone).amax(0), clips.frames)
    if n_digits == 2:  # and a maximum it is: they do meet
        assert ((alone[0] > 0) & (alone[1] > 0)).any()


def test_float_frames_are_the_grey_values_over_255(uci):
    clips = MovingDigits(uci, n_frames=5)
    grey, frames = clips.sample(8, dtype=torch.uint8).frames, clips.sample(8).frames
    assert grey.shape == frames.shape == (8, 5, 1, 64, 64)
    assert grey.dtype == torch.uint8 and frames.dtype == torch.float32
    assert (frames.numpy() == grey.numpy().astype(np.float32) / np.float32(255)).all()
    assert grey.max() == 255 and ((grey > 0) & (grey < 255)).any()


@pytest.mark.parametrize(("size", "n_digits"), [(64, 2), (64, 4), (28, 2), (29, 3), (41, 1)])
def test_both_renderers_make_the_frames_of_the_plain_one(size, n_digits, uci):
    clips = MovingDigits(uci, n_digits, n_frames=6, frame_size=size).sample(9, dtype=torch.uint8)
    rows, windows = (torch.zeros(9, 6, 1, size, size, dtype=torch.uint8) for _ in range(2))
    rendering._paste_rows(rows.numpy(), clips.glyphs.numpy(), clips.positions.numpy())
    rendering._paste_windows(windows, clips.glyphs, clips.positions)
    plain = render_plainly(clips.glyphs, clips.positions, size)
    assert torch.equal(rows, plain) and torch.equal(windows, plain) and torch.equal(clips.frames, plain)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_gpu_makes_the_same_clips(dtype, uci):
    clips = MovingDigits(uci, 3)
    here, there = (clips.sample(500, seed=5, device=device, dtype=dtype) for device in ("cpu", "cuda"))
    assert there.frames.device.type == there.positions.device.type == "cuda"
    assert torch.equal(here.frames, there.frames.cpu()) and torch.equal(here.positions, there.positions.cpu())
    assert torch.equal(here.alone(1), there.alone(1).cpu())


@pytest.mark.parametrize("rows", [slice(3, 6), [3, 4, 5], np.arange(3, 6), torch.arange(6) > 2], ids=repr)
def test_some_of_the_clips_keep_all_that_belongs_to_them(rows, uci):
    clips = MovingDigits(uci, 2, n_frames=4)
    chosen, expected = clips.sample(6)[rows], clips.sample(3, start=3)
    for field in dataclasses.fields(expected):
        assert torch.equal(getattr(chosen, field.name), getattr(expected, field.name))


@pytest.mark.parametrize("number", [np.array(3), torch.tensor(3)], ids=repr)
def test_a_number_alone_chooses_no_clips(number, uci):
    with pytest.raises(TypeError, match=r"take a slice, such as \[3:4\]"):
        MovingDigits(uci, 2, n_frames=4).sample(6)[number]


def test_split_cuts_after_the_context(uci):
    clips = MovingDigits(uci, n_frames=7, frame_size=32).sample(2)
    context, target = clips.split(4)
    assert torch.equal(torch.cat([context, target], 1), clips.frames) and context.shape[1] == 4


# --- the fixed test sets ---------------------------------------------------------------------------------------------

# SHA-256 of the uint8 frames: of all 10,000 clips, and of the first 500. They were written down when the generator
# had passed the tests above; whatever changes them changes the data that every published number stands on. ("emnist-1" waits for a machine that has EMNIST.)
DIGESTS = {
    "mnist-1": (
        "33da65f3f1075fcc8be4ba8a28beb8c2d57b11af4a280441734f01d23cf1476c",
        "85c842e75d590e29a477f5ccd6e68a5b87c301135e4fb83cc72348c9123f459f",
    ),
    "mnist-2": (
        "fb839bd27e0e577b78e4f99cb97ee90feadb456f415a0c375b8a4a4714dc0a03",
        "bdfbc5bb355499f992252f6e0be81e4c9398860925123a92c01beb2605b76a14",
    ),
    "mnist-3": (
        "a00e6ebc0be45d5dc38f33474c367e374af5cb4e8f93099d1a930494cb9c6591",
        "08b627b9616c0ee2c67a1f647608fe79fef986cab31a8644e6c756e750188673",
    ),
    "mnist-4": (
        "5f835ba2cb74f6cb594f898bb69215557f76b1b2fcb4b5b36995c7c82f4e3832",
        "9cc8200c6c505c8d2d00fc6474f88e478d6adcb70049ba9c5cf7248e17e138b7",
    ),
    "mnist-train-2": (
        "37b698e35cc7c4d998bb67ca4927231c90628c8f7e279d98b96fd4208cc195ed",
        "76e3bd410d5fd1b85c8b877355183016d0ed07338dd9a7c8a816ba76acd616f7",
    ),
    "omniglot-1": (
        "feed33bd342468c447050b6217cfcf45e1516ffaba0ded576b98505034d888b6",
        "53c2df8c1d87ee31f9cf2b04d9cf03269831d5b980e1b9ede1b9da9a536fc55a",
    ),
    "uci-1": (
        "3fcb50ecdba99376daf2da541bb2ba25662c68c6c2c959dfd9d2b6dae16c0131",
        "15725df05f10c6a8af9a470e05a19134ab4e10bb906f611193d68f788e9b8509",
    ),
    "uci-2": (
        "56414dd43dc9c439dd86d733d725f5a30bea71c92502eb8e0dd5b567c748e083",
        "029675a00a51156cc6c3841af2211d3a1d6c94a795a8fef1af2ac7d6add8b411",
    ),
    "uci-3": (
        "9424e357121a886a87e6d8d1fbb1b4c68245747244a6ef3ab832977089347981",
        "f40e8413dc91d6151ee1d1d9ff8a2ba14da7084adb9c5a429da26881b70c7643",
    ),
    "uci-4": (
        "21fa9177a1b1e0172f797384e680ab018a34a4fadb99d788378a0ee3b7663ad4",
        "a86207b433d13fb6a3d5b9e8fa67549fb8fc089857a307493cebd303a8b5660c",
    ),
    "uci-train-2": (
        "590832e767602da9b0a3f074e1ed1c9a5c338bd6ea23fe13e46240768a374acb",
        "2ab528a46a56ca3844003ed6f6afe41d277d8760dc4e41d9da6bd1d7e7a139ef",
    ),
}


@pytest.fixture
def open_set(request):
    """`open_set(name, n)`, which skips the test where the set's digits are not on this machine."""

    def open_set(name, n=10_000):
        if name.startswith("mnist"):
            request.getfixturevalue("mnist")
        if name.startswith("omniglot"):
            file = "images_background_small1.zip"
            if digits_module._OMNIGLOT_FILES.here(file) is None:
                pytest.skip(f"{file} is not on this machine; FRAMEPRED_DATA can name its folder")
        return test_sets.test_set(name, n)

    return open_set


@pytest.mark.parametrize("name", DIGESTS)
def test_first_clips_of_a_test_set_never_change(name, open_set):
    frames = open_set(name, 500).sample(dtype=torch.uint8).frames
    assert frames.shape == (500, 20, 1, 64, 64)
    assert hashlib.sha256(frames.numpy()).hexdigest() == DIGESTS[name][1]


QUICK = ("mnist-2", "uci-2")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in DIGESTS]
)
def test_all_clips_of_a_test_set_never_change(name, open_set):
    assert open_set(name).digest == DIGESTS[name][0]


@pytest.mark.parametrize("name", DIGESTS)
def test_test_set_shows_what_its_name_says(name, open_set):
    clips = open_set(name, 3).clips
    assert clips.digits.source.split("-")[0] == name.split("-")[0] and clips.n_digits == int(name.split("-")[-1])
    assert clips.digits.split == ("train" if "train" in name else "test")
    assert (clips.speed, clips.frame_size, clips.n_frames, clips.acceleration) == (0.1, 64, 20, 0)


def test_parts_of_a_test_set_are_the_same_clips(open_set):
    whole = open_set("uci-2", 23).sample(dtype=torch.uint8).frames
    batches = [batch.frames for batch in open_set("uci-2", 23).batches(10, dtype=torch.uint8)]
    assert [len(b) for b in batches] == [10, 10, 3] and torch.equal(torch.cat(batches), whole)
    assert torch.equal(open_set("uci-2", 100).sample(4, start=7, dtype=torch.uint8).frames, whole[7:11])
    assert len(open_set("uci-2", 23)) == 23


def test_digest_of_part_of_a_test_set_is_that_of_its_frames(open_set):
    test_set = open_set("uci-1", 3)
    assert (
        test_set.digest
        == hashlib.sha256(bytes(test_set.sample(dtype=torch.uint8).frames.flatten().tolist())).hexdigest()
    )


MEMORY = """
import resource, sys, torch
from framepred.data.moving import MovingDigits
from framepred.data.test_sets import test_set

def peak():  # bytes; macOS counts in bytes, Linux in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

clips = test_set("uci-2", 1_000)
clips.sample(50, dtype=torch.uint8)
before = peak()
for batch in clips.batches(50, dtype=torch.uint8):
    pass
iterated = peak()
clips.sample(dtype=torch.uint8)
print(iterated - before, peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read with the resource module")
def test_memory_is_that_of_a_batch_or_of_the_clips_asked_for():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    iterated, whole = map(int, done.stdout.split())
    size = 1_000 * 20 * 64 * 64  # 82 MB, 20 batches
    assert iterated < 0.2 * size
    assert whole < 1.2 * size


# --- the original test file ------------------------------------------------------------------------------------------


@pytest.fixture
def original(tmp_path, monkeypatch):
    """A file like `mnist_test_seq.npy` with 6 clips: (frames, clips, height, width)."""
    array = np.random.default_rng(0).integers(0, 256, (20, 6, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "mnist_test_seq.npy", array)
    md5 = hashlib.md5((tmp_path / "mnist_test_seq.npy").read_bytes()).hexdigest()
    monkeypatch.setattr(OriginalTestFile, "MD5", md5)
    monkeypatch.delenv("FRAMEPRED_DATA", raising=False)
    return array


def test_original_file_is_read_clip_by_clip(original, tmp_path, monkeypatch):
    grey = original.transpose(1, 0, 2, 3)[:, :, None]
    test_set = test_sets.test_set("original", 6, root=tmp_path)
    assert (test_set.sample(dtype=torch.uint8).frames.numpy() == grey).all()
    part = test_set.sample(2, start=3).frames
    assert part.dtype == torch.float32 and (part.numpy() == grey[3:5].astype(np.float32) / np.float32(255)).all()
    assert test_set.digest == hashlib.sha256(np.ascontiguousarray(grey)).hexdigest()
    monkeypatch.setenv("FRAMEPRED_DATA", str(tmp_path))
    assert test_sets.test_set("original", 6).digest == test_set.digest


def test_original_file_says_that_it_does_not_know_its_glyphs(original, tmp_path):
    clips = test_sets.test_set("original", 6, root=tmp_path).sample()
    assert clips.positions.shape == (6, 20, 0, 2) and clips.labels.shape == (6, 0)


def test_missing_original_file_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.delenv("FRAMEPRED_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"mnist_test_seq.npy was not found; .* root or in FRAMEPRED_DATA"):
        test_sets.test_set("original", root=tmp_path)


def test_altered_original_file_is_named_and_left_alone(original, tmp_path):
    path = tmp_path / "mnist_test_seq.npy"
    altered = path.read_bytes()[:-1]
    path.write_bytes(altered)
    with pytest.raises(ValueError, match="damaged or altered") as error:
        test_sets.test_set("original", root=tmp_path)
    assert str(path) in str(error.value) and path.read_bytes() == altered


@pytest.mark.parametrize(
    "array", [np.zeros((20, 2, 64, 64)), np.zeros((20, 64, 64), np.uint8), np.zeros((20, 2, 64, 32), np.uint8)]
)
def test_file_of_another_kind_is_not_taken_for_clips(array, tmp_path):
    np.save(tmp_path / "clips.npy", array)
    with pytest.raises(ValueError, match=r"expected uint8 of shape \(frames, clips, size, size\)"):
        OriginalTestFile(tmp_path / "clips.npy")


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_digits": 0}, "n_digits is 0"),
        ({"n_digits": 398}, r"uci \(test\) holds 397 glyphs, so 1 to 397 fit"),
        ({"n_frames": 0}, "n_frames is 0"),
        ({"frame_size": 27}, "frame_size is 27.*28 px"),
        ({"speed": -0.1}, "speed is -0.1"),
        ({"speed": math.nan}, "speed is nan"),
        ({"acceleration": math.inf}, "acceleration is inf"),
        ({"acceleration": -1.0}, "acceleration is -1.0"),
    ],
)
def test_generator_says_what_is_wrong(arguments, message, uci):
    with pytest.raises(ValueError, match=message):
        MovingDigits(uci, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n is 0"),
        ({"n": 1, "start": -1}, "start is -1"),
        ({"n": 1, "seed": -1}, "seed is -1"),
        ({"n": 1, "seed": 2**63}, "seed is 9223372036854775808"),
        ({"n": 1, "dtype": torch.float64}, "dtype is torch.float64"),
    ],
)
def test_sample_says_what_is_wrong(arguments, message, uci):
    with pytest.raises(ValueError, match=message):
        MovingDigits(uci).sample(**arguments)


def test_batches_say_what_is_wrong(uci):
    for n, batch_size in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match=f"n is {n} and batch_size is {batch_size}"):
            next(MovingDigits(uci).batches(n, batch_size))
    with pytest.raises(ValueError, match="batch_size is -1"):
        next(test_sets.test_set("uci-2").batches(-1))


def test_clips_say_what_is_wrong(uci):
    clips = MovingDigits(uci, n_frames=5, frame_size=32).sample(1)
    for context in (0, 5):
        with pytest.raises(ValueError, match=f"context is {context}; a clip of 5 frames splits after 1 to 4"):
            clips.split(context)
    for glyph in (-1, 2):
        with pytest.raises(ValueError, match=f"glyph is {glyph}; these clips hold glyphs 0 to 1"):
            clips.alone(glyph)


def test_test_sets_say_what_is_wrong():
    known = "mnist-1, mnist-2, mnist-3, mnist-4, mnist-train-2, emnist-1, omniglot-1, uci-1, uci-2, uci-3, uci-4, uci-train-2, original"
    with pytest.raises(ValueError, match=f"unknown test set 'mnist-5'; known: {known}"):
        test_sets.test_set("mnist-5")
    for n in (0, 10_001):
        with pytest.raises(ValueError, match=f"n is {n}; a test set has 1 to 10,000 clips"):
            test_sets.test_set("uci-2", n)
    with pytest.raises(ValueError, match="clips 3 to 5 of uci-2: this test set was opened with 5 clips"):
        test_sets.test_set("uci-2", 5).sample(3, start=3)
