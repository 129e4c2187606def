"""The players without a browser: what they refuse, what they pack, what they save, what a page has to carry."""

import base64
import io
import json
import re
import subprocess
import sys
import zlib

import nbclient
import nbformat
import numpy as np
import pytest
import torch
import traitlets
from ipywidgets import IntSlider
from PIL import Image

from framepred.players import FlowPlayer, FramePlayer, _data
from framepred.players._player import BUDGET, is_live


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def moving_square(n_frames=20, size=64, offset=0):
    """A soft square that drifts: a clip with the weight of a digit's."""
    frames = np.zeros((n_frames, size, size), np.float32)
    for t in range(n_frames):
        x, y = (5 + 2 * t + offset) % (size - 28), (30 - t) % (size - 28)
        frames[t, y : y + 28, x : x + 28] = np.outer(np.hanning(28), np.hanning(28))
    return frames


def unpacked(player, sample=0):
    return np.frombuffer(zlib.decompress(base64.b64decode(player._clips[sample])), np.uint8)


def state_in(page):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)[1])


# --- what is refused -------------------------------------------------------------------------------------------------

GOOD = noise(4, 6, 8)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "no rows"),
        ({"truth": GOOD, "VPN": GOOD[:3]}, "'VPN' has 3 frames; 'truth' has 4"),
        ({"truth": GOOD, "VPN": GOOD[:, :5]}, "'VPN' has 5 pixels in height; 'truth' has 6"),
        ({"truth": GOOD, "VPN": GOOD[:, :, :5]}, "'VPN' has 5 pixels in width; 'truth' has 8"),
        ({"truth": GOOD, "VPN": GOOD[None, :, None].repeat(2, 0)}, "'VPN' has 2 clips; 'truth' has 1"),
        ({"truth": GOOD, "VPN": GOOD / 200}, r"'VPN' holds values from .* expected \[0, 1\]"),
        ({"truth": GOOD, "VPN": GOOD / -255.0}, r"'VPN' holds values from -"),
        ({"truth": GOOD, "VPN": np.full((4, 6, 8), np.nan)}, "'VPN' holds values from nan"),
        ({"truth": GOOD, "VPN": GOOD[0]}, r"'VPN' has shape \(6, 8\)"),
        ({"truth": GOOD, "VPN": GOOD[:, None].repeat(3, 1)}, r"'VPN' has shape \(4, 3, 6, 8\)"),
        ({"VPN": GOOD[:0]}, "'VPN' .* nothing to show"),
    ],
)
def test_bad_rows_are_refused_by_name(rows, message):
    with pytest.raises(ValueError, match=message):
        FramePlayer(rows)


def test_integers_other_than_grey_values_are_refused():
    with pytest.raises(TypeError, match="'VPN' holds int64"):
        FramePlayer({"VPN": GOOD.astype(np.int64)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nats": {"VPM": np.ones(4)}}, "'VPM'"),
        ({"nats": {"VPN": np.ones(3)}}, r"'VPN' have shape \(3,\)"),
        ({"nats": {"VPN": np.ones(4)}, "context": 1}, r"'VPN' have shape \(4,\); expected \(1, 3\)"),
        ({"context": 4}, "context is 4"),
        ({"context": noise(2, 6, 9)}, "'context' has 9 pixels in width"),
        ({"truth": "copy"}, "truth is 'copy'"),
        ({"view": "overlap"}, "view is 'overlap'"),
        ({"frame": 4}, "frame is 4; expected 0 to 3"),
        ({"sample": 1}, "sample is 1; expected 0 to 0"),
        ({"speed": 0}, "speed is 0"),
        ({"zoom": 0}, "zoom 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FramePlayer({"truth": GOOD, "VPN": GOOD}, **options)


def test_flow_of_another_size_than_the_frames_is_refused():
    with pytest.raises(ValueError, match=r"'flow' has shape \(4, 2, 6, 7\); 'frames' need \(4, 2, 6, 8\)"):
        FlowPlayer(GOOD, np.zeros((4, 2, 6, 7)))
    with pytest.raises(ValueError, match="'flow' is not finite"):
        FlowPlayer(GOOD, np.full((4, 2, 6, 8), np.nan))
    with pytest.raises(ValueError, match="'target' has 3 frames; 'frames' has 4"):
        FlowPlayer(GOOD, np.zeros((4, 2, 6, 8)), GOOD[:3])


def test_too_many_pixels_are_refused_with_size_and_limit():
    clips = np.zeros((9, 100, 1, 64, 64), np.uint8)
    rows = {str(i): clips for i in range(10)}
    with pytest.raises(ValueError, match=r"9 clips × 10 rows × 100 frames of 64×64 are 35\.2 MiB .* at most 32 MiB"):
        FramePlayer(rows)


# --- what is packed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "as_given", [np.asarray, torch.from_numpy, lambda x: x / 255.0, lambda x: torch.from_numpy(x) / 255]
)
def test_rows_come_back_from_the_packed_clips(as_given):
    rows = {"truth": noise(2, 5, 1, 6, 8), "VPN": noise(2, 5, 1, 6, 8, seed=1)}
    player = FramePlayer({name: as_given(row) for name, row in rows.items()})
    for sample in (0, 1):
        frames = unpacked(player, sample).reshape(5, 2, 6, 8)
        for i, row in enumerate(rows.values()):
            assert (frames[:, i] == row[sample, :, 0]).all()


def test_predictions_with_gradients_and_in_half_precision_are_taken():
    frames = torch.full((3, 1, 6, 8), 0.5, dtype=torch.bfloat16, requires_grad=True)
    assert (unpacked(FramePlayer({"VPN": frames})) == 128).all()


def test_context_frames_are_put_before_every_row():
    context = noise(3, 6, 8, seed=9)
    player = FramePlayer({"truth": GOOD, "VPN": GOOD[::-1]}, context=context, nats={"VPN": np.arange(4.0)})
    frames = unpacked(player).reshape(7, 2, 6, 8)
    assert (frames[:3] == context[:, None]).all() and (frames[3:, 1] == GOOD[::-1]).all()
    assert player._spec["context"] == 3 and player._spec["nats"] == {"VPN": [[0, 1, 2, 3]]}


def test_packed_motion_is_the_negative_flow():
    flow = np.random.default_rng(0).normal(0, 5, (3, 2, 6, 8))
    data = unpacked(FlowPlayer(GOOD[:3], flow))[2 * GOOD[:3].size :].reshape(2, -1).astype(np.int64)
    differences = (data[0] | data[1] << 8).reshape(flow.shape)
    motion = np.cumsum(differences, -1).astype(np.int16) / 32
    np.testing.assert_allclose(motion, -flow, atol=1 / 64)


def test_warped_frames_are_looked_up_along_the_flow():
    flow = np.zeros((4, 2, 6, 8))
    flow[:, 0] = 2  # out(p) = in(p + 2): everything moves two pixels to the left
    player = FlowPlayer(GOOD, flow)
    assert (player.rows["warped"][0, :, :, :-2] == GOOD[:, :, 2:]).all()
    assert not player.rows["warped"][0, :, :, -2:].any()


# --- the output ------------------------------------------------------------------------------------------------------


def test_a_bundle_carries_page_picture_and_text_and_opens_no_widget(monkeypatch):
    from ipywidgets.widgets.widget import _instances

    before = len(_instances)
    for player in (FramePlayer({"truth": GOOD}), FlowPlayer(GOOD, np.zeros((4, 2, 6, 8)))):
        bundle, _ = player._repr_mimebundle_()
        assert set(bundle) == {"text/plain", "text/html", "image/png"}
        assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).format == "PNG"
    assert len(_instances) == before
    monkeypatch.setenv("FRAMEPRED_PLAYERS", "live")
    assert set(player._repr_mimebundle_()[0]) == {*bundle, "application/vnd.jupyter.widget-view+json"}
    player.close()


def test_a_live_notebook_gets_no_page_that_its_server_would_drop(monkeypatch):
    monkeypatch.setenv("FRAMEPRED_PLAYERS", "live")
    player = FramePlayer({"noise": noise(3, 100, 1, 64, 64)})
    bundle, _ = player._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "image/png", "application/vnd.jupyter.widget-view+json"}
    player.close()


@pytest.mark.parametrize(("told", "live"), [(None, "True"), ("static", "False")])
def test_players_are_live_in_a_kernel_unless_told_otherwise(told, live, monkeypatch):
    monkeypatch.delenv("FRAMEPRED_PLAYERS", raising=False)
    assert not is_live()  # here is no kernel
    if told:
        monkeypatch.setenv("FRAMEPRED_PLAYERS", told)
    code = "from framepred.players._player import is_live; print(is_live())"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.execute(notebook, kernel_name="python3")
    assert notebook.cells[0].outputs[0]["text"].strip() == live


def test_a_page_asks_no_other_host_for_anything():
    page = FramePlayer({"truth": GOOD}).html()
    assert not re.search(r"https?://|\bimport\b|url\(", page)


def test_names_are_text_and_not_markup():
    name = "</script><script>alert(1)</script><b>&"
    page = FramePlayer({name: GOOD}).html()
    assert "<script>alert" not in page and "<b>" not in page
    assert state_in(page)["_spec"]["rows"] == [name]


@pytest.mark.parametrize("spread", [0, 0.03])
def test_twenty_frames_of_four_rows_stay_within_the_budget(spread):
    rng = np.random.default_rng(0)
    rows = {name: moving_square(offset=i) for i, name in enumerate(("truth", "ConvLSTM", "Spatio-Temporal", "VPN"))}
    rows = {name: (row + rng.normal(0, spread, row.shape)).clip(0, 1) for name, row in rows.items()}
    assert len(FramePlayer(rows).html().encode()) <= 400 * 1024


def test_a_player_too_heavy_for_a_picture_says_what_it_shows():
    light, heavy = (FramePlayer({"noise": noise(n, 64, 64)}).html() for n in (10, 80))
    assert "<img" in light and len(light) <= BUDGET
    assert "<img" not in heavy and "Film strip: noise; 80 frames of 64×64 pixels" in heavy


def test_importing_the_package_needs_no_notebook():
    code = "import sys, framepred; print([m for m in ('anywidget', 'ipywidgets', 'matplotlib', 'IPython') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- traits ----------------------------------------------------------------------------------------------------------


def test_frame_and_sample_can_be_linked():
    player = FramePlayer({"truth": noise(3, 5, 1, 6, 8)})
    slider = IntSlider(max=4)
    link = traitlets.link((player, "frame"), (slider, "value"))
    slider.value = 3
    assert player.frame == 3
    player.frame = 1
    assert slider.value == 1
    link.unlink()
    slider.close()
    player.sample = 2
    with pytest.raises(traitlets.TraitError, match="sample is 3; expected 0 to 2"):
        player.sample = 3
    with pytest.raises(traitlets.TraitError, match="frame is 5; expected 0 to 4"):
        player.frame = 5
    with pytest.raises(traitlets.TraitError, match="view is 'x'; expected frames, overlay, difference"):
        player.view = "x"


def test_a_page_starts_at_the_frame_that_was_set():
    player = FramePlayer({"truth": noise(3, 5, 1, 6, 8)}, frame=2, sample=1)
    player.frame = 4
    state = state_in(player.html())
    assert (state["frame"], state["sample"]) == (4, 1)


# --- files -----------------------------------------------------------------------------------------------------------


def test_saved_animation_holds_the_arrays(tmp_path):
    rows = {"truth": noise(2, 6, 1, 10, 12), "VPN": noise(2, 6, 1, 10, 12, seed=1)}
    FramePlayer(rows, sample=1).save(tmp_path / "clip.gif", fps=4, zoom=2)
    with Image.open(tmp_path / "clip.gif") as gif:
        assert gif.n_frames == 6 and gif.info["duration"] == 250
        for t in range(6):
            gif.seek(t)
            picture = np.asarray(gif.convert("L"))[_data.HEADING :]
            for i, row in enumerate(rows.values()):
                x = i * (24 + _data.GAP)
                assert (picture[:, x : x + 24] == row[1, t, 0].repeat(2, 0).repeat(2, 1)).all()


def test_saved_film_strip_holds_the_arrays_and_the_overlay(tmp_path):
    t, p = noise(3, 10, 12), noise(3, 10, 12, seed=1)
    FramePlayer({"truth": t, "VPN": p}, view="overlay", context=1).save(tmp_path / "clip.png")
    picture = np.asarray(Image.open(tmp_path / "clip.png"))
    first = picture.shape[1] - 3 * 12 - 2 * _data.GAP - 8  # a gap of 8 more follows the context
    left = [first, first + 12 + _data.GAP + 8, first + 2 * (12 + _data.GAP) + 8]
    for k, x in enumerate(left):
        above, below = (picture[y : y + 10, x : x + 12] for y in (_data.HEADING, _data.HEADING + 10 + _data.GAP))
        assert (above == t[k][..., None]).all()
        assert (below[..., 0] == np.maximum(t[k], p[k])).all() and (below[..., 1:] == t[k][..., None]).all()


def test_saved_flow_shows_its_view(tmp_path):
    flow = np.random.default_rng(0).normal(0, 2, (4, 2, 6, 8))
    player = FlowPlayer(GOOD, flow, GOOD)
    assert list(player.pictures(0)) == ["frames", "motion"]
    player.view = "warped"
    player.save(tmp_path / "flow.gif")
    with Image.open(tmp_path / "flow.gif") as gif:
        gif.seek(2)
        picture = np.asarray(gif.convert("L"))[_data.HEADING :]
    assert (picture[:, :8] == GOOD[2]).all() and (picture[:, 20:] == GOOD[2]).all()


def test_other_file_types_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'clip\.mp4'.*\.gif.*\.png"):
        FramePlayer({"truth": GOOD}).save(tmp_path / "clip.mp4")
