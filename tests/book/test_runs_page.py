"""The page of runs: a section for each published run, as the run's folder and whoever wrote about it say."""

from __future__ import annotations

import json
import re
import shutil
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import runs_page

from framepred.runs import published, read_record, save_scores
from framepred.runs.record import write_record

PAGE = runs_page.PAGE.read_text(encoding="utf-8")
OLD = "convlstm-book-short-one-step"  # it has weights and no scores


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The published runs, and their page and registry, as copies of the test: the folder of the runs."""
    monkeypatch.setattr(runs_page, "PAGE", tmp_path / "runs.md")
    (tmp_path / "runs.md").write_text(PAGE, encoding="utf-8")
    shutil.copyfile(published.CHECKOUT.parent / "appendix" / "runs.ipynb", tmp_path / "runs.ipynb")
    shutil.copytree(published.CHECKOUT, tmp_path / "runs")
    monkeypatch.setattr(published, "CHECKOUT", tmp_path / "runs")
    monkeypatch.setattr(published, "REGISTRY", tmp_path / "published.txt")
    monkeypatch.setattr(runs_page, "sys", SimpleNamespace(argv=["runs_page.py"]))
    published.write_registry()
    return tmp_path / "runs"


def add(runs, name, weights="fp16", parent=None, seed=0, scores=(), network="convlstm", **training) -> None:
    """Publish a copy of a run under another name."""
    shutil.copytree(runs / OLD, runs / name)
    if weights is None:
        (runs / name / "model.safetensors").unlink()
    record = read_record(runs / name)
    about = {"network": network, "weights": weights, "parent": parent, "seed": seed}
    write_record(runs / name, {**record, **about, "training": {**record["training"], **training}})
    if scores:
        save_scores(runs / name, {key: np.ones((2, 10)) for key in scores})
    published.write_registry()


def run_page(runs, *words) -> tuple[int, str]:
    """The exit code of the script, and the page that it leaves."""
    runs_page.sys.argv = ["runs_page.py", *words]
    return runs_page.main(), runs_page.PAGE.read_text(encoding="utf-8")


def test_the_committed_page_has_the_sections_of_the_published_runs():
    assert runs_page.filled(PAGE) == PAGE, "run `make runs-page`"


def test_new_runs_get_a_section_at_the_end_and_the_notebook_follows(runs, capsys):
    add(runs, "zebra", scores=["mnist-2/rollout"], seed=3, batch_size=64, feedback="free-running", steps=9)
    add(runs, "aardvark", parent=OLD, feedback="free-running")
    add(runs, "bare", weights=None)
    assert run_page(runs, "--check") == (1, PAGE) and "make runs-page" in capsys.readouterr().out
    code, page = run_page(runs)
    assert code == 0 and page == PAGE + (
        "\n(run-aardvark)=\n## aardvark\n\n"
        "The network of {ref}`sec-convlstm`, preset `book`, trained by the recipe of {ref}`sec-training`, from the weights "
        f"of {{ref}}`{OLD} <run-{OLD}>` and with seed 0. It is published with its weights.\n\n"
        '```{code-cell} ipython3\n:tags: [hide-input]\n\nprovenance("aardvark")\n```\n'
        "\n(run-zebra)=\n## zebra\n\n"
        "The network of {ref}`sec-convlstm`, preset `book`, trained by the recipe of {ref}`sec-training` but with "
        "`batch_size=64`, from fresh weights and with seed 3. It is published with its weights.\n\n"
        '```{code-cell} ipython3\n:tags: [hide-input]\n\nprovenance("zebra")\n```\n'
        '\n```{code-cell} ipython3\n:tags: [hide-input]\n\nscores("zebra")\n```\n'
    )
    cells = nbformat.read(runs_page.PAGE.with_suffix(".ipynb"), 4).cells
    assert [cell.source for cell in cells[-2:]] == ['provenance("zebra")', 'scores("zebra")']
    assert run_page(runs, "--check") == (0, page) and run_page(runs) == (0, page)


def test_a_section_goes_with_its_run_and_the_others_stay_as_they_were_written(runs):
    written = PAGE.replace("It comes with its weights.", "What somebody wrote.\n\nMore of it.")
    assert written != PAGE
    runs_page.PAGE.write_text(written, encoding="utf-8")
    shutil.rmtree(runs / "convlstm-book-240")
    published.write_registry()
    _, page = run_page(runs)
    section = re.search(r"\(run-convlstm-book-240\)=\n.*?(?=\(run-)", written, re.DOTALL)
    assert section and page == written.replace(section[0], "")


def test_scores_are_shown_where_a_run_has_some_today(runs):
    save_scores(runs / OLD, {"mnist-2/rollout": np.ones((2, 10))})
    (runs / "vpn-book" / "scores.npz").unlink()
    (runs / "convlstm-book-speedrun" / "scores.npz").unlink()
    _, page = run_page(runs)
    shown = re.findall(r'^(provenance|scores)\("(.+)"\)$', page, re.MULTILINE)
    assert shown[shown.index(("provenance", OLD)) + 1] == ("scores", OLD)
    assert ("provenance", "vpn-book") in shown and ("scores", "vpn-book") not in shown
    assert ("provenance", "convlstm-book-speedrun") not in shown, "it has no weights either"


def test_a_network_that_the_book_does_not_explain_is_named(runs):
    add(runs, "other", network="mine", parent="unpublished")
    said = runs_page.sentence("other")
    assert "The network `mine`" in said and "weights of `unpublished`" in said
    add(runs, "bare", weights=None)
    add(runs, "child", parent="bare")
    assert "weights of `bare`" in runs_page.sentence("child"), "it has no section to link to"


def test_a_variant_of_a_preset_is_called_one():
    record = json.loads((published.CHECKOUT / "convlstm-book-short-kernel5" / "run.json").read_text())
    assert record["preset"] is None and "a variant of a preset" in runs_page.sentence("convlstm-book-short-kernel5")


def test_a_run_from_a_machine_without_the_history_is_shown(runs):
    add(runs, "far")
    write_record(runs / "far", {**read_record(runs / "far"), "commit": None, "modified": False})
    code = re.search(r"^from importlib.*?(?=^```)", PAGE, re.DOTALL | re.MULTILINE)
    assert code
    names: dict = {}
    exec(code[0], names)
    assert "unknown commit" in names["provenance"]("far").data and "tree/" in names["provenance"](OLD).data
