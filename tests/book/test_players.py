"""The players in a real browser: what is on the canvas is what was in the array, however one gets there."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from framepred.players import FlowPlayer, FramePlayer

ROOT = Path(__file__).parents[2]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


T, H, W = 12, 10, 14
ROWS = {"truth": noise(T, H, W), "ConvLSTM": noise(T, H, W, seed=1), "VPN": noise(T, H, W, seed=2)}

# What the book's theme does to images and to outputs.
THEME = """
html { font-family: sans-serif; } body { margin: 16px; }
html[data-theme=light] { color-scheme: light; background: #fff; color: #222; }
html[data-theme=dark] { color-scheme: dark; background: #14181e; color: #ced6dd; }
html[data-theme=dark] { --pst-color-text-base: #ced6dd; }
html[data-theme=dark] img:not(.dark-light) { filter: brightness(.8) contrast(1.2); }
html[data-theme=dark] div.cell_output .text_html:not(:has(table.dataframe)) { background: #ced6dd; color: #14181e; }
"""


@pytest.fixture
def show(tmp_path, open_page):
    """show(player, …, theme="light", **page options) → a page with these players, opened from a file."""

    def show(*players, theme="light", **options):
        body = "\n".join(f'<div class="cell_output"><div class="text_html">{p.html()}</div></div>' for p in players)
        file = tmp_path / "page.html"
        file.write_text(
            f'<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>Players</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{THEME}</style></head>'
            f"<body><main><h1>Players</h1>{body}</main></body></html>",
            encoding="utf-8",
        )
        page = open_page(file.as_uri(), **options)
        if options.get("java_script_enabled", True):
            page.wait_for_function(f"document.querySelectorAll('.framepred[data-ready]').length === {len(players)}")
        return page

    return show


PIXELS = """(root) => {
  const frames = [...root.querySelectorAll(".framepred-frame canvas:first-child")].map((canvas) => {
    const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let text = "";
    for (let i = 0; i < data.length; i += 4096) text += String.fromCharCode(...data.subarray(i, i + 4096));
    return [width, height, btoa(text)];
  });
  return [Number(root.querySelector("[type=range]").value), frames];
}"""


def seen(player):
    """The number of the frame on the slider, and the canvases of a player as uint8 (H, W, 4)."""
    frame, canvases = player.evaluate(PIXELS)
    return frame, [np.frombuffer(base64.b64decode(d), np.uint8).reshape(h, w, 4) for w, h, d in canvases]


def assert_shows(player, frame, rows=ROWS):
    at, canvases = seen(player)
    assert at == frame
    assert len(canvases) == len(rows)
    for canvas, row in zip(canvases, rows.values()):
        assert (canvas[..., :3] == row[frame][..., None]).all() and (canvas[..., 3] == 255).all()


def first(page, n=0):
    return page.locator(".framepred").nth(n)


# --- frames ----------------------------------------------------------------------------------------------------------


def test_every_frame_of_every_row_is_exact_when_stepped_through(show):
    player = first(show(FramePlayer(ROWS)))
    forward, back = player.get_by_label("Step forward"), player.get_by_label("Step back")
    for frame in range(T):
        assert_shows(player, frame)
        forward.click()
    assert_shows(player, T - 1)
    back.click()
    assert_shows(player, T - 2)


def test_keys_alone_reach_every_frame(show):
    page = show(FramePlayer(ROWS))
    player = first(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Step back"
    for key, frame in [("End", T - 1), ("ArrowLeft", T - 2), ("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 1)]:
        page.keyboard.press(key)
        assert_shows(player, frame)
    player.get_by_role("slider").focus()
    for frame in range(2, T):
        page.keyboard.press("ArrowRight")
        assert_shows(player, frame)
    page.keyboard.press("Home")
    page.keyboard.press(" ")
    player.get_by_label("Pause").wait_for()
    page.keyboard.press(" ")
    player.get_by_label("Play").wait_for()
    assert_shows(player, seen(player)[0])


def test_space_on_a_button_presses_the_button(show):
    page = show(FramePlayer(ROWS))
    first(page).get_by_label("Step forward").focus()
    page.keyboard.press(" ")
    assert_shows(first(page), 1)


def test_arrows_in_a_list_choose_from_the_list(show):
    page = show(FramePlayer(ROWS))
    first(page).get_by_label("Speed").focus()
    page.keyboard.press("ArrowDown")
    assert_shows(first(page), 0)


def test_dragging_the_slider(show):
    page = show(FramePlayer(ROWS))
    box = first(page).get_by_role("slider").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 8, y)
    page.mouse.down()
    reached = set()
    for part in np.linspace(0, 1, 30):
        page.mouse.move(box["x"] + 8 + part * (box["width"] - 16), y)
        frame, _ = seen(first(page))
        assert_shows(first(page), frame)
        reached.add(frame)
    page.mouse.up()
    assert reached == set(range(T))


def test_playing_shows_frame_after_frame_and_stops_at_the_end_without_loop(show):
    player = first(show(FramePlayer(ROWS, loop=False, speed=20)))
    player.get_by_label("Play").click()
    frames = []
    while player.get_by_label("Pause").count():
        frame, canvases = seen(player)
        assert all((c[..., 0] == row[frame]).all() for c, row in zip(canvases, ROWS.values()))
        frames.append(frame)
    assert frames == sorted(frames) and len(set(frames)) > 2
    assert_shows(player, T - 1)
    player.get_by_label("Play").click()  # from the end: once more
    player.get_by_label("Pause").click()
    assert seen(player)[0] < T - 1


def test_playing_goes_round_with_loop(show):
    player = first(show(FramePlayer(ROWS, speed=60, frame=T - 2)))
    player.get_by_label("Play").click()
    player.page.wait_for_function("document.querySelector('[type=range]').value === '3'")
    player.get_by_label("Pause").click()


def test_overlay_and_difference_are_exact_for_any_truth(show):
    player = first(show(FramePlayer(ROWS, frame=5)))
    for truth, name in enumerate(ROWS):
        if truth:
            player.get_by_label("Truth", exact=True).select_option(label=name)
        t = ROWS[name][5]
        for view in ("overlay", "difference"):
            player.get_by_label("Show").select_option(view)
            for i, (canvas, row) in enumerate(zip(seen(player)[1], ROWS.values())):
                p = row[5]
                if i == truth:
                    expected = np.stack([t, t, t], -1)
                elif view == "overlay":  # white: the truth; red: what leaves it
                    expected = np.stack([np.where(p > t, p, t), t, t], -1)
                else:
                    expected = np.abs(t.astype(int) - p)[..., None].repeat(3, -1)
                assert (canvas[..., :3] == expected).all()


def test_clips_are_picked_and_keep_the_frame(show):
    clips = {name: np.stack([row, row[::-1]])[:, :, None] for name, row in ROWS.items()}
    player = first(show(FramePlayer(clips, frame=3)))
    assert_shows(player, 3)
    player.get_by_label("Clip").select_option("1")
    player.page.wait_for_selector(".framepred[data-ready='1']")
    assert_shows(player, 3, {name: row[::-1] for name, row in ROWS.items()})


def test_context_is_marked_off_and_nats_stand_under_their_row(show):
    player = first(show(FramePlayer(ROWS, context=4, nats={"VPN": 10 + np.arange(8.0)}, frame=3)))
    assert player.locator(".framepred-caption").inner_text() == "Context."
    assert player.locator(".framepred-note").all_inner_texts() == ["", "", ""]
    assert "framepred-in-context" in player.get_attribute("class")
    player.get_by_label("Step forward").click()
    assert player.locator(".framepred-caption").inner_text() == "Predicted."
    assert player.locator(".framepred-note").all_inner_texts() == ["", "", "10.0 nats"]
    assert "framepred-in-context" not in player.get_attribute("class")
    assert player.get_by_role("slider").get_attribute("aria-valuetext") == "frame 5 of 12, predicted"


def test_zoom_has_hard_pixels(show):
    player = first(show(FramePlayer(ROWS)))
    canvas = player.locator("canvas").first
    for zoom in (1, 4):
        player.get_by_label("Zoom").select_option(str(zoom))
        assert canvas.bounding_box()["width"] == W * zoom and canvas.bounding_box()["height"] == H * zoom
    assert canvas.evaluate("c => [c.width, c.height, getComputedStyle(c).imageRendering]") == [W, H, "pixelated"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_is_on_the_screen_is_the_array_in_either_theme(show, theme):
    from io import BytesIO

    from PIL import Image

    player = first(show(FramePlayer(ROWS, zoom=4, frame=2), theme=theme))
    screen = np.asarray(Image.open(BytesIO(player.locator("canvas").nth(1).screenshot())).convert("RGB"))
    assert (screen[2::4, 2::4] == ROWS["ConvLSTM"][2][..., None]).all()


def test_two_players_are_independent(show):
    other = {name: row[::-1] for name, row in ROWS.items()}
    page = show(
        FramePlayer(ROWS), FramePlayer(other), FlowPlayer(ROWS["truth"], np.zeros((T, 2, H, W))), FramePlayer(ROWS)
    )
    for _ in range(3):
        first(page, 1).get_by_label("Step forward").click()
    first(page, 1).get_by_label("Show").select_option("overlay")
    first(page, 1).get_by_label("Show").select_option("frames")
    first(page, 2).get_by_label("Step forward").click()
    first(page, 3).get_by_label("Play").click()
    assert_shows(first(page, 0), 0)
    assert_shows(first(page, 1), 3, other)
    assert seen(first(page, 2))[0] == 1
    assert not page.locator("[id]").count()  # so no two elements can share one
    assert (
        page.evaluate("Object.keys(window).filter((name) => /player|framepred|pageModel|^h$|^tile$/i.test(name))") == []
    )


def test_a_page_from_a_file_asks_for_nothing(tmp_path, open_page):
    file = tmp_path / "page.html"
    file.write_text("<!doctype html><meta charset=utf-8><link rel=icon href=data:>" + FramePlayer(ROWS).html(), "utf-8")
    page = open_page("about:blank")
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector(".framepred[data-ready]")
    first(page).get_by_label("Step forward").click()
    assert [url for url in requests if url != "data:"] == [file.as_uri()]


def test_where_no_script_runs_the_film_strip_shows(show):
    page = show(FramePlayer(ROWS), java_script_enabled=False)
    picture = page.get_by_role("img", name="Film strip: truth, ConvLSTM, VPN; 12 frames")
    assert picture.bounding_box()["width"] > 10 * W
    assert not page.locator(".framepred").count()


def test_heaviest_player_runs_at_thirty_frames_a_second(show):
    clips = {f"row {i}": noise(8, 100, 1, 64, 64, seed=i) for i in range(8)}
    page = show(FramePlayer(clips, speed=60))
    first(page).get_by_label("Play").click()
    seconds = page.evaluate("""() => new Promise((done) => {
      const slider = document.querySelector("[type=range]");
      let shown = slider.value, changes = 0, start = 0;
      const look = (now) => {
        if (slider.value !== shown) { shown = slider.value; changes++; if (!start) { start = now; changes = 0; } }
        if (changes === 60) return done((now - start) / 1000);
        requestAnimationFrame(look);
      };
      requestAnimationFrame(look);
    })""")
    print(f"{60 / seconds:.1f} frames/s")
    assert 60 / seconds >= 30


# --- flow ------------------------------------------------------------------------------------------------------------


def flow_player(**options):
    flow = np.zeros((T, 2, H, W))
    flow[:, 0, 2:6, 3:9], flow[:, 1, 2:6, 3:9] = -3, 1.5  # what arrives there moved three right, one and a half up
    flow[4, :, 2:6, 3:9] *= -1
    return FlowPlayer(ROWS["truth"], flow, ROWS["VPN"], zoom=8, **options), flow


def test_flow_views_show_frame_field_warp_and_target(show):
    viewer, flow = flow_player()
    player = first(show(viewer))
    for frame in (0, 4, T - 1):
        player.get_by_role("slider").evaluate(
            "(slider, frame) => { slider.value = frame; slider.dispatchEvent(new Event('input')); }", frame
        )
        frames, field, warped, target = (canvas[..., :3] for canvas in seen(player)[1])
        assert (frames == ROWS["truth"][frame][..., None]).all() and (target == ROWS["VPN"][frame][..., None]).all()
        assert (warped == viewer.rows["warped"][0, frame][..., None]).all()
        assert (field[0, 0] == 255).all()  # at rest: white
        from colorsys import hsv_to_rgb

        x, y = -flow[frame, :, 3, 5]
        expected = hsv_to_rgb(np.arctan2(y, x) / (2 * np.pi) % 1, 1, 1)
        np.testing.assert_allclose(field[3, 5], 255 * np.array(expected), atol=1)
    shown = {"arrows": ["frames"], "colour": ["frames", "motion", "legend"], "warped": ["frames", "warped", "target"]}
    for view, names in shown.items():
        player.get_by_label("Show").select_option(view)
        assert player.locator("figcaption:visible").all_inner_texts() == names


def test_arrows_lie_where_something_moves_and_end_where_it_goes(show):
    player = first(show(flow_player(every=3)[0]))
    marks = (
        np.array(
            player.evaluate("""(root) => {
      const canvas = root.querySelector(".framepred-arrows");
      const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return [...data.keys()].filter((i) => i % 4 === 3 && data[i] > 128 && data[i - 3] > 200).map((i) => [(i >> 2) % width, Math.floor((i >> 2) / width)]);
    }""")
        )
        / 8
    )
    # Arrow tips at pixels 4 and 7 of lines 4 (every third from 1): centres at 4.5 and 7.5; tails three to the left,
    # one and a half below.
    assert marks[:, 0].min() == pytest.approx(1.5, abs=0.3) and marks[:, 0].max() == pytest.approx(7.5, abs=0.3)
    assert marks[:, 1].max() == pytest.approx(6, abs=0.3)
    assert (np.hypot(*(marks - [7.5, 4.5]).T) < 0.3).any()


def test_hovering_and_keys_tell_the_vector(show):
    player = first(show(flow_player()[0]))
    told = player.locator(".framepred-probe")
    box = player.locator("canvas").first.bounding_box()
    player.page.mouse.move(box["x"] + 8 * 5.5, box["y"] + 8 * 3.5)
    assert told.inner_text() == "Motion into pixel (5, 3): (+3.0, −1.5) px"
    player.get_by_role("slider").focus()
    for key in ["Shift+ArrowUp"] * 2 + ["Shift+ArrowRight"]:
        player.page.keyboard.press(key)
    assert told.inner_text() == "Motion into pixel (6, 1): (0.0, 0.0) px"
    assert seen(player)[0] == 0  # these arrows are not for the time


# --- for every reader ------------------------------------------------------------------------------------------------


def players():
    clips = {name: np.stack([row, row])[:, :, None] for name, row in ROWS.items()}
    return FramePlayer(clips, context=4, nats={"VPN": np.ones((2, 8))}, view="overlay"), flow_player(view="colour")[0]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_violation(show, theme):
    axe = os.environ.get("AXE_PATH")
    if not axe:
        pytest.skip("AXE_PATH is not set: npm pack axe-core, and give the path of its axe.min.js")
    page = show(*players(), theme=theme)
    page.add_script_tag(path=axe)
    for frame in (0, 7):
        for i in range(2):
            first(page, i).get_by_role("slider").press("Home")
            for _ in range(frame):
                page.keyboard.press("ArrowRight")
        found = page.evaluate("axe.run().then((r) => r.violations.map((v) => [v.id, v.nodes.map((n) => n.html)]))")
        assert found == []


CONTRASTS = """() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (colour) => {
    paint.fillStyle = colour;
    paint.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    const colour = getComputedStyle(node).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? ground(node.parentElement) : colour;
  };
  return [...document.querySelectorAll(".framepred figcaption, .framepred div, .framepred label, .framepred select, .framepred button")].map((node) => {
    const [low, high] = [luminance(getComputedStyle(node).color), luminance(ground(node))].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  });
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(show, theme):
    # axe takes text in the colour of its ground for hidden, and says nothing.
    page = show(*players(), theme=theme)
    page.add_style_tag(content=".framepred-frame { background: none !important; }")  # it holds no text
    assert min(page.evaluate(CONTRASTS)) >= 4.5


@pytest.mark.parametrize("width", [360, 390])
def test_nothing_is_wider_than_a_phone(show, width):
    long = {
        f"{name}, trained for a very long time on two digits": np.tile(row, (1, 6, 5)) for name, row in ROWS.items()
    }
    page = show(FramePlayer(long, zoom=8), *players(), width=width, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    first(page, 1).get_by_label("Play").tap()
    first(page, 1).get_by_label("Pause").wait_for()


def test_focus_can_be_seen(show):
    page = show(*players())
    for _ in range(20):
        page.keyboard.press("Tab")
        style = page.evaluate(
            "(({ outlineStyle, outlineWidth }) => [outlineStyle, outlineWidth])(getComputedStyle(document.activeElement))"
        )
        assert style == ["solid", "2px"]
        if page.evaluate("document.activeElement === [...document.querySelectorAll('[type=checkbox]')].at(-1)"):
            return
    raise AssertionError("Tab did not reach the last control")


def test_no_player_starts_by_itself_where_less_motion_is_asked_for(show):
    moving = show(FramePlayer(ROWS, autoplay=True), reduced_motion="no-preference")
    first(moving).get_by_label("Pause").wait_for()
    still = show(FramePlayer(ROWS, autoplay=True), reduced_motion="reduce")
    still.wait_for_timeout(500)
    assert_shows(first(still), 0)
    first(still).get_by_label("Play").click()  # the reader may
    first(still).get_by_label("Pause").wait_for()


def test_screen_readers_hear_steps_and_have_peace_while_it_plays(show):
    player = first(show(FramePlayer(ROWS, context=4, nats={"VPN": np.full(8, 52.25)}, frame=3, speed=30)))
    live = player.locator("[aria-live]")
    player.get_by_label("Step forward").click()
    assert live.inner_text() == "frame 5 of 12, predicted; VPN: 52.3 nats"
    player.get_by_label("Play").click()
    player.page.wait_for_function("document.querySelector('[type=range]').value === '9'")
    assert live.inner_text() == "frame 5 of 12, predicted; VPN: 52.3 nats"
    player.get_by_label("Pause").click()
    assert re.match(r"frame \d+ of 12", live.inner_text())


# --- a real Jupyter Lab ----------------------------------------------------------------------------------------------

CELLS = [
    "import numpy as np\nfrom framepred.players import FramePlayer\n"
    "rows = {name: np.random.default_rng(i).integers(0, 256, (2, 12, 1, 10, 14), dtype=np.uint8) for i, name in enumerate('ab')}\n"
    "player = FramePlayer(rows)\nplayer",
    "print('kernel sees', player.frame, player.sample)",
    "player.frame, player.sample, player.view = 5, 1, 'overlay'",
    "print('kernel sees', player.frame, player.sample)",
]


@pytest.fixture
def lab(tmp_path):
    """Address of a Jupyter Lab with a notebook `player.ipynb` of `CELLS`."""
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": c, "outputs": [], "execution_count": None}
        for i, c in enumerate(CELLS)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "player.ipynb").write_text(json.dumps(notebook))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    home = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower()) for name in ("CONFIG", "RUNTIME", "DATA")}
    environment = {**os.environ, **home, "PYTHONPATH": str(ROOT), "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={tmp_path}"]
    log = tmp_path / "lab.log"
    with log.open("w") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=out, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/lab/tree/player.ipynb?token={token}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.slow
def test_in_jupyter_lab_the_slider_moves_the_kernel_and_the_kernel_the_slider(browser, lab):
    from playwright.sync_api import TimeoutError

    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(lab)
    page.locator(".jp-Notebook .jp-CodeCell").nth(3).wait_for()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()

    def run(cell):
        # On a busy machine Lab shows the notebook before it listens to keys; a cell that was not taken is sent again.
        prompt = page.locator(".jp-CodeCell .jp-InputPrompt").nth(cell)
        for _ in range(12):
            page.locator(".jp-CodeCell .cm-content").nth(cell).click()
            page.keyboard.press("Control+Enter")
            with contextlib.suppress(TimeoutError):
                prompt.filter(has_text=re.compile(r"\[[*\d]+\]")).wait_for(timeout=5000)
                break
        prompt.filter(has_text=re.compile(r"\[\d+\]")).wait_for()

    def printed(cell):
        return page.locator(".jp-CodeCell").nth(cell).locator(".jp-OutputArea-output pre")

    run(0)
    page.wait_for_selector(".framepred[data-ready='0']")
    player = first(page)
    clips = {name: noise(2, 12, 1, 10, 14, seed=i) for i, name in enumerate("ab")}
    player.get_by_role("slider").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert_shows(player, 3, {name: clip[0, :, 0] for name, clip in clips.items()})
    run(1)
    printed(1).filter(has_text="kernel sees 3 0").wait_for()
    run(2)
    page.wait_for_selector(".framepred[data-ready='1']")
    page.wait_for_function("document.querySelector('.framepred [type=range]').value === '5'")
    b = clips["b"][1, 5, 0], clips["a"][1, 5, 0]
    assert (seen(player)[1][1][..., 0] == np.maximum(*b)).all()
    player.get_by_label("Clip").select_option("0")
    player.get_by_label("Step back").click()
    run(3)
    printed(3).filter(has_text="kernel sees 4 0").wait_for()
    context.close()
