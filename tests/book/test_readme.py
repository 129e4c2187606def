"""The README: its numbers are those of the runs, its picture shows a test clip and its predictions, its code runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import framepred as fp

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script():
    import readme

    return readme


def test_table_is_that_of_the_published_runs(script):
    assert script.filled(README) == README, "run `make readme`"


def test_table_holds_the_mean_of_the_stored_errors(script):
    run = fp.analysis.results.shown_runs()["ConvLSTM"]
    nats = np.load(ROOT / "book" / "runs" / run / "scores.npz")["mnist-2/rollout"].astype(np.float64)
    row = next(line for line in script.table().splitlines() if "ConvLSTM" in line)
    assert [cell.strip() for cell in row.split("|")[2:6]] == [
        "361.5",
        *(f"{x:.1f}" for x in (nats.mean(), *nats.mean(0)[[0, -1]])),
    ]


def test_a_readme_without_the_markers_is_an_error_that_names_them(script):
    with pytest.raises(ValueError, match="make readme"):
        script.filled("# framepred\n")


def test_picture_is_the_first_test_clip_beside_the_stored_predictions(script, mnist):
    mnist()
    assert script.PICTURE.stat().st_size <= 300 * 2**10
    films = script.films()
    assert list(films) == ["truth", *fp.analysis.results.shown_runs()]
    truth = fp.test_set("mnist-2", n=1).sample().frames[0, :, 0]
    np.testing.assert_array_equal(films["truth"] / np.float32(255), truth)
    with Image.open(script.PICTURE) as picture:
        assert picture.n_frames == 20
        for t in range(20):
            picture.seek(t)
            shown = np.asarray(picture.convert("L"))
            for row, film in enumerate(films.values()):
                x, y = script.place(row)
                side = script.SIZE * script.ZOOM
                centres = shown[y : y + side, x : x + side][1 :: script.ZOOM, 1 :: script.ZOOM]
                np.testing.assert_array_equal(centres, film[t], err_msg="run `make readme`")


def test_code_runs_in_the_order_in_which_it_stands(tmp_path, monkeypatch, empty_machine):
    """With fewer steps and clips, a smaller network, and the digits that need no network."""
    monkeypatch.chdir(tmp_path)
    np.save("mine.npy", np.random.default_rng(0).integers(0, 256, (3, 20, 1, 48, 48), dtype=np.uint8))
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE))
    for long, short in {
        'preset="book"': 'preset="tiny"',
        "steps=1000": "steps=2",
        "n=200": "n=2",
        '"auto"': '"uci"',
    }.items():
        assert long in code
        code = code.replace(long, short)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["forecast"].frames.shape == (3, 10, 1, 48, 48)
    assert fp.runs.read_record(tmp_path / "runs" / "mine")["network"] == "mine"


def test_own_network_and_clips_take_about_ten_lines():
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    statements = [sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(block))) for block in blocks]
    assert len(blocks) == 2 and max(statements) <= 16


def test_every_path_that_the_readme_links_exists():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
