"""Which runs the book shows, and their errors."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from framepred import published, results, runs
from framepred.moving import MovingDigits

RUN = "convlstm-book"


@pytest.fixture
def three_runs(tmp_path, monkeypatch):
    """Runs a, b and c of the ConvLSTM with rollout errors of 300, 250 and 400 nats; b has no letters."""
    errors = {"a": 300.0, "b": 250.0, "c": 400.0}
    for name, nats in errors.items():
        shutil.copytree(published.CHECKOUT / RUN, tmp_path / name)
        (tmp_path / name / "scores.npz").unlink()
        runs.save_scores(tmp_path / name, {"mnist-2/rollout": np.full((2, 10), nats)})
        if name != "b":
            runs.save_scores(tmp_path / name, {"omniglot-1/rollout": np.full((3, 10), nats)})
    monkeypatch.setattr(published, "CHECKOUT", tmp_path)
    monkeypatch.setattr(published, "registry", lambda: {f"{name}/config.json": "" for name in errors})


def test_best_run_is_that_with_the_least_rollout_error(three_runs):
    assert results.best_run("convlstm") == "b"
    with pytest.raises(LookupError, match="vpn"):
        results.best_run("vpn")


@pytest.mark.parametrize(
    "change",
    [
        {"clips": {"acceleration": 0.01}},
        {"clips": {"n_digits": 1}},
        {"training": {"feedback": "truth"}},
        {"preset": None},
    ],
    ids=["accelerated", "one digit", "fed the truth", "another architecture"],
)
def test_a_run_made_for_another_question_is_never_the_best(three_runs, tmp_path, change):
    path = tmp_path / "b" / "run.json"
    record = json.loads(path.read_text())
    for key, value in change.items():
        record[key] = {**record[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(record))
    assert results.comparable_runs() == results.comparable_runs("convlstm") == ["a", "c"]
    assert results.best_run("convlstm") == "a"
    assert results.comparable_runs("vpn") == []


def test_the_clips_of_the_thesis_are_the_generators_defaults(uci):
    made = MovingDigits(uci)
    assert {key: getattr(made, key) for key in results.CLIPS} == results.CLIPS


def test_shown_runs_are_the_best_of_each_network_that_has_one(three_runs):
    assert results.shown_runs() == {"ConvLSTM": "b"}


def test_networks_are_those_whose_weights_are_here(three_runs, tmp_path):
    assert {label: model.network for label, model in results.networks().items()} == {"ConvLSTM": "convlstm"}
    (tmp_path / "a" / "model.safetensors").unlink()
    assert list(results.networks({"without weights": "a", "third": "c"})) == ["third"]


def test_errors_are_those_of_the_shown_runs_or_of_those_named(three_runs):
    (label, nats), *others = results.errors("mnist-2", "rollout").items()
    assert label == "ConvLSTM" and others == [] and (nats == 250).all()
    assert results.errors("omniglot-1", "rollout") == {}
    named = results.errors("omniglot-1", "rollout", {"first": "a", "third": "c"})
    assert {label: nats.shape for label, nats in named.items()} == {"first": (3, 10), "third": (3, 10)}


def test_repeats_of_a_run_differ_in_the_seed_alone(three_runs, tmp_path):
    def change(name, **training):
        record = json.loads((tmp_path / name / "run.json").read_text())
        record["training"].update(training)
        (tmp_path / name / "run.json").write_text(json.dumps(record))

    change("b", seed=1)
    change("c", learning_rate=0.5)
    assert results.repeats("a") == results.repeats("b") == ["a", "b"]
    assert results.repeats("c") == ["c"]


def test_history_goes_back_to_the_first_weights_by_way_of_those_that_were_kept(three_runs, tmp_path):
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    (tmp_path / "b" / "run.json").write_text(json.dumps(record | {"parent": "a"}))
    alone, kept, both = results.history("a"), results.history("a", kept=True), results.history("b")
    best = record["best"]["step"]
    assert alone.equals(runs.load_history(tmp_path / "a"))
    assert kept.equals(alone[alone["step"] <= best]) and len(kept) < len(alone)
    assert kept["step"].iloc[-1] == best and kept["clips"].iloc[-1] == best * record["training"]["batch_size"]
    assert both[: len(kept)].equals(kept)
    for column in ("step", "clips", "seconds"):
        assert both[column].iloc[-1] == kept[column].iloc[-1] + alone[column].iloc[-1]
    assert both["nats"].iloc[-1] == alone["nats"].iloc[-1]
    assert results.history("b", kept=True)["step"].iloc[-1] == 2 * best


def test_table_links_each_run_to_its_record(three_runs):
    html = results.shown_table().data
    assert 'href="../appendix/runs.html#run-b"' in html and "ConvLSTM" in html
