"""The commands of the full-scale runs, as the page writes them: that they fit, and that the chain of them holds."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import papermill
import pytest

from framepred import TrainConfig, load, published
from framepred.models import NETWORKS, PRESETS
from framepred.runs import load_scores, read_record

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "book" / "training" / "full-scale.md"
SMALL = {
    "preset": "tiny", "digits": "uci", "batch_size": "2", "compile": "False", "validate_every": "20",
    "validation_clips": "4", "steps": "100000", "minutes": "0.1",
}  # fmt: skip
SMALL_EVALUATION = {"test_sets": "uci-2 uci-1", "n": "3", "n_others": "2", "batch_size": "2"}


def commands(notebook: str | None = None) -> list[tuple[str, dict[str, str]]]:
    """The page's commands that run a notebook: its name, and the parameters by name."""
    found = []
    for line in re.findall(r"^python book/train\.py .*", PAGE.read_text(encoding="utf-8"), re.M):
        _, _, name, *words = shlex.split(line)
        assert words[::3] == ["-p"] * (len(words) // 3), line
        found.append((name, dict(zip(words[1::3], words[2::3], strict=True))))
    return [(name, given) for name, given in found if notebook in (None, name)]


def value(text: str):
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


def run(folder: Path, notebook: str, given: dict[str, str], code: int = 0) -> str:
    """A command in a folder, on a machine that reaches no network and has no MNIST: what it prints, if it exits so."""
    words = [word for item in given.items() for word in ("-p", *item)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("FRAMEPRED_DATA", None)
    command = [sys.executable, str(ROOT / "book" / "train.py"), notebook, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_page_has_a_run_of_every_network_and_scores_all_that_it_publishes_with_weights():
    assert {name for name, _ in commands()} == {*NETWORKS, "evaluate", "throughput"}
    trained = {given.get("out", f"runs/{name}-{given['preset']}") for name, given in commands() if name in NETWORKS}
    scored = {given["run"] for _, given in commands("evaluate")}
    assert trained - scored == {"runs/vpn-thesis", "runs/convlstm-patched-2"}


@pytest.mark.parametrize(("notebook", "given"), commands())
def test_every_parameter_is_known_and_its_value_allowed(notebook, given):
    file = "train" if notebook in NETWORKS else notebook
    known = papermill.inspect_notebook(str(ROOT / "book" / "training" / f"{file}.ipynb"))
    assert set(given) <= set(known)
    if notebook in NETWORKS:
        assert given["preset"] in PRESETS[notebook] and given["digits"] == "mnist"
        fields = {field.name for field in dataclasses.fields(TrainConfig)}
        TrainConfig(**{name: value(text) for name, text in given.items() if name in fields})
        assert float(given["minutes"]) <= 8
    if notebook == "evaluate":
        assert given["publish"] == f"book/{given['run']}"


@pytest.mark.slow
def test_a_run_is_trained_in_slices_published_and_started_from_on_another_machine(tmp_path, monkeypatch):
    warm, first = commands("convlstm")[:2]
    (evaluation,) = [g for _, g in commands("evaluate") if g["run"] == "runs/convlstm-patched"]
    assert warm[1]["warm_start"] == "convlstm-patched" and first[1]["preset"] == "patched"
    here = {**first[1], **SMALL, "out": "runs/convlstm-patched"}
    for _ in range(2):  # the same command twice
        assert "the same call resumes" in run(tmp_path, "convlstm", here, code=75)
    record = read_record(tmp_path / "runs" / "convlstm-patched")
    assert [session["ended"] for session in record["sessions"]] == ["minutes", "minutes"]
    assert 0 < record["sessions"][0]["to_step"] == record["sessions"][1]["from_step"] < record["steps"]
    shorter = str(record["steps"] + 2)  # a plan for the time there is, once the speed is known
    run(tmp_path, "convlstm", {**here, "steps": shorter, "minutes": "9"})
    assert read_record(tmp_path / "runs" / "convlstm-patched")["sessions"][-1]["ended"] == "finished"

    run(tmp_path, "evaluate", {**evaluation, **SMALL_EVALUATION})
    folder = tmp_path / "book" / "runs" / "convlstm-patched"
    assert len(load_scores(folder)) == 4 and not (folder / "checkpoints").exists()
    assert run(tmp_path, "evaluate", {**evaluation, **SMALL_EVALUATION}).count("there already") == 4

    monkeypatch.setattr(published, "CHECKOUT", tmp_path / "book" / "runs")
    monkeypatch.setattr(published, "REGISTRY", tmp_path / "published.txt")
    published.write_registry()
    assert published.published_runs() == ["convlstm-patched"]
    assert load("convlstm-patched").arguments["patch"] == 4

    run(tmp_path, "convlstm", {**warm[1], **SMALL, "warm_start": str(folder), "steps": "4", "minutes": "9"})
    record = read_record(tmp_path / "runs" / "convlstm-patched-2")
    assert (record["parent"], record["seed"], record["steps"]) == ("convlstm-patched", 1, 4)
