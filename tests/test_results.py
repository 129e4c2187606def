"""Which runs the book shows, and their errors."""

from __future__ import annotations

import dataclasses
import json
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
from safetensors import safe_open

from framepred import runs
from framepred.analysis import results
from framepred.data.moving import MovingDigits
from framepred.models import build
from framepred.models.flops import flops_per_clip
from framepred.runs import published
from framepred.training.config import TrainConfig

RUN = "convlstm-book"


def change(folder, **fields):
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | fields))


@pytest.fixture
def three_runs(tmp_path, monkeypatch):
    """Runs a, b and c of the ConvLSTM with rollout errors of 300, 250 and 400 nats, in validation too; b has no letters."""
    errors = {"a": 300.0, "b": 250.0, "c": 400.0}
    for name, nats in errors.items():
        shutil.copytree(published.CHECKOUT / RUN, tmp_path / name)
        (tmp_path / name / "scores.npz").unlink()
        change(tmp_path / name, kept={"which": "best", "step": 1000, "validation_nats": nats})
        runs.save_scores(tmp_path / name, {"mnist-2/rollout": np.full((2, 10), nats)})
        if name != "b":
            runs.save_scores(tmp_path / name, {"omniglot-1/rollout": np.full((3, 10), nats)})
    monkeypatch.setattr(published, "CHECKOUT", tmp_path)
    monkeypatch.setattr(published, "registry", lambda: {f"{name}/config.json": "" for name in errors})


def test_best_run_is_that_with_the_least_validation_error_whatever_the_test_says(three_runs, tmp_path):
    assert results.best_run("convlstm") == "b"
    change(tmp_path / "c", kept={"which": "best", "step": 1000, "validation_nats": 240.0})
    assert results.best_run("convlstm") == "c"  # which has the largest test error
    change(tmp_path / "c", kept={"which": "last", "step": 1000, "validation_nats": None})
    assert results.best_run("convlstm") == "b"
    with pytest.raises(LookupError, match="vpn"):
        results.best_run("vpn")


@pytest.mark.parametrize(
    "other",
    [
        {"clips": {"acceleration": 0.01}},
        {"clips": {"n_digits": 1}},
        {"training": {"feedback": "teacher-forcing"}},
        {"preset": None},
    ],
    ids=["accelerated", "one digit", "fed the truth", "another architecture"],
)
def test_a_run_made_for_another_question_is_never_the_best(three_runs, tmp_path, other):
    path = tmp_path / "b" / "run.json"
    record = json.loads(path.read_text())
    for key, value in other.items():
        record[key] = {**record[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(record))
    assert results.comparable_runs() == results.comparable_runs("convlstm") == ["a", "c"]
    assert results.best_run("convlstm") == "a"
    assert results.comparable_runs("vpn") == []


def test_a_network_that_came_after_the_thesis_is_compared_only_when_asked_for(three_runs, tmp_path):
    change(tmp_path / "b", network="predrnn")
    assert results.comparable_runs() == ["a", "c"] and results.shown_runs() == {"ConvLSTM": "a"}
    assert results.best_run("predrnn") == "b"


def test_a_run_without_scores_is_not_compared(three_runs, tmp_path):
    change(tmp_path / "b", test_sets={})
    assert results.comparable_runs() == ["a", "c"]


def test_the_clips_of_the_thesis_are_the_generators_defaults(uci):
    made = MovingDigits(uci)
    assert {key: getattr(made, key) for key in results.CLIPS} == results.CLIPS


def test_shown_runs_are_the_best_of_each_network_that_has_one(three_runs):
    assert results.shown_runs() == {"ConvLSTM": "b"}


def test_networks_are_those_whose_weights_are_here(three_runs, tmp_path, capsys):
    assert {label: model.network for label, model in results.networks().items()} == {"ConvLSTM": "convlstm"}
    assert capsys.readouterr().out == ""
    (tmp_path / "a" / "model.safetensors").unlink()
    assert list(results.networks({"without weights": "a", "third": "c"})) == ["third"]
    assert capsys.readouterr().out == "without weights: a comes without its weights\n"


def test_the_best_run_that_can_be_run_stands_in_for_one_without_weights(three_runs, tmp_path, capsys):
    assert results.live_runs() == {"ConvLSTM": "b"}
    (tmp_path / "b" / "model.safetensors").unlink()
    assert results.live_runs() == {"ConvLSTM": "a"}
    assert capsys.readouterr().out == "ConvLSTM: b comes without its weights; a predicts in its place\n"
    assert results.shown_runs() == {"ConvLSTM": "b"}  # whose scores are there to show
    assert "run-a" in results.shown_table(runs=results.live_runs()).data


def test_a_network_too_large_for_a_page_gives_way_to_a_smaller_run_or_is_left_out(three_runs, tmp_path, capsys):
    flops = {}
    for name, hidden in {"a": 32, "b": 64, "c": 8}.items():
        model = build("convlstm", "tiny", hidden=[hidden])
        flops[name] = flops_per_clip(model)
        record, history = runs.read_record(tmp_path / name), runs.load_history(tmp_path / name)
        runs.folder.save_run(tmp_path / name, model, model.state_dict(), history, record)
        runs.save_scores(tmp_path / name, {"mnist-2/rollout": np.full((2, 10), 300.0)})
    between = (flops["c"] + flops["a"]) / 2
    assert results.live_runs(most_flops=between) == {"ConvLSTM": "c"}
    assert capsys.readouterr().out == "ConvLSTM: b is too large to run in a page; c predicts in its place\n"
    assert list(results.networks({"first": "a", "third": "c"}, most_flops=between)) == ["third"]
    assert capsys.readouterr().out == "first: a is too large to run in a page\n"
    assert list(results.networks({"third": "c"}, most_flops=float(flops["c"]))) == ["third"]
    assert results.networks(most_flops=flops["c"] / 2) == {}
    assert "no other run of the network can predict here" in capsys.readouterr().out


def test_what_a_page_can_run_lies_between_the_patched_and_the_full_convlstm():
    small, large = (flops_per_clip(build("convlstm", preset)) for preset in ("patched", "thesis"))
    assert small < results.MOST_FLOPS / 2 and large > 2 * results.MOST_FLOPS


def test_a_network_without_a_run_does_not_hide_the_next_one(three_runs, tmp_path):
    change(tmp_path / "c", network="vpn")
    assert results.shown_runs() == {"ConvLSTM": "b", "VPN": "c"}  # and no spatio-temporal network between them


def test_a_run_that_cannot_be_downloaded_is_left_out(three_runs, tmp_path, monkeypatch, capsys):
    def offline(run):
        raise ConnectionError("no network")

    monkeypatch.setattr(results, "run_folder", offline)
    assert results.networks({"first": "a"}) == {}
    assert capsys.readouterr().out == "first: a cannot be downloaded here\n"


def test_errors_are_those_of_the_shown_runs_or_of_those_named(three_runs):
    (label, nats), *others = results.errors("mnist-2", "rollout").items()
    assert label == "ConvLSTM" and others == [] and (nats == 250).all()
    assert results.errors("omniglot-1", "rollout") == {}
    named = results.errors("omniglot-1", "rollout", {"first": "a", "third": "c"})
    assert {label: nats.shape for label, nats in named.items()} == {"first": (3, 10), "third": (3, 10)}


def test_errors_are_those_of_the_protocol_asked_for(three_runs, tmp_path):
    runs.save_scores(tmp_path / "b", {"mnist-2/one-step": np.full((2, 10), 120.0)})
    for protocol, nats in (("rollout", 250), ("one-step", 120)):
        assert (results.errors("mnist-2", protocol)["ConvLSTM"] == nats).all()
    assert results.errors("mnist-2", "teacher-forced") == {}


def test_departures_are_the_choices_that_differ_from_the_recipe_and_not_how_a_run_was_watched(three_runs, tmp_path):
    recipe = dataclasses.asdict(TrainConfig.recipe())
    watched = {"seed": 3, "steps": 70, "minutes": 7, "precision": "bf16", "validate_every": 9, "validation_clips": 11}
    change(tmp_path / "a", training=recipe | watched)
    assert results.departures("a") == {}
    change(tmp_path / "a", training=recipe | watched | {"ema": 0.5, "schedule": "cosine"})
    assert results.departures("a") == {"ema": 0.5, "schedule": "cosine"}


def test_repeats_of_a_run_differ_in_the_seed_alone(three_runs, tmp_path):
    training = runs.read_record(tmp_path / "a")["training"]
    change(tmp_path / "b", training={**training, "seed": 1})
    change(tmp_path / "c", training={**training, "learning_rate": 0.5})
    assert results.repeats("a") == results.repeats("b") == ["a", "b"]
    assert results.repeats("c") == ["c"]


def test_history_goes_back_to_the_first_weights_by_way_of_those_that_were_kept(three_runs, tmp_path):
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    (tmp_path / "b" / "run.json").write_text(json.dumps(record | {"parent": "a"}))
    alone, kept, both = results.history("a"), results.history("a", kept=True), results.history("b")
    best = record["kept"]["step"]
    assert alone.equals(runs.load_history(tmp_path / "a"))
    assert kept.equals(alone[alone["step"] <= best]) and len(kept) < len(alone)
    assert kept["step"].iloc[-1] == best and kept["clips"].iloc[-1] == best * record["training"]["batch_size"]
    assert both[: len(kept)].equals(kept) and both.index.tolist() == list(range(len(both)))
    for column in ("step", "clips", "seconds"):
        assert both[column].iloc[-1] == kept[column].iloc[-1] + alone[column].iloc[-1]
    assert both["nats"].iloc[-1] == alone["nats"].iloc[-1]
    assert results.history("b", kept=True)["step"].iloc[-1] == 2 * best


def test_times_shown_counts_the_glyphs_of_the_clips_that_a_run_and_its_parent_were_trained_on(
    three_runs, tmp_path, uci
):
    clips = MovingDigits(uci)
    expected = np.zeros(len(uci), int)
    for name, changes, best in (("a", {"parent": None}, 100), ("b", {"parent": "a"}, 150)):
        record = json.loads((tmp_path / name / "run.json").read_text())
        record["training"]["seed"] = best
        record["kept"]["step"] = best
        (tmp_path / name / "run.json").write_text(json.dumps({**record, **changes}))
        trained_on = clips.sample(best * record["training"]["batch_size"], seed=best).glyphs
        same = (trained_on.flatten(0, 1)[:, None] == uci.images).flatten(2).all(2)
        expected += same.sum(0).numpy()
        assert results.times_shown(name, len(uci)).tolist() == expected.tolist()
    assert expected.max() > 1


def test_table_links_each_run_to_its_record(three_runs):
    html = results.shown_table().data
    assert 'href="../appendix/runs.html#run-b"' in html and "ConvLSTM" in html


def test_table_shows_a_runs_parameters_the_clips_that_its_weights_have_seen_and_where(three_runs, tmp_path):
    change(tmp_path / "b", hardware="a slide rule")
    page = ElementTree.fromstring(results.shown_table().data)
    columns = [cell.text for cell in page.find(".//thead").iter("th")]
    (row,) = [["".join(cell.itertext()) for cell in row] for row in page.find(".//tbody").iter("tr")]
    with safe_open(tmp_path / "b" / "model.safetensors", "np") as weights:
        parameters = sum(weights.get_tensor(name).size for name in weights.keys())  # noqa: SIM118 - it is no mapping
    clips = 1000 * runs.read_record(tmp_path / "b")["training"]["batch_size"]  # kept at step 1000
    assert clips != parameters
    assert dict(zip(columns[1:], row[1:])) == {
        "run": "b",
        "parameters": f"{parameters:,}",
        "clips seen": f"{clips:,}",
        "hardware": "a slide rule",
    }
    assert row[0] == "ConvLSTM"
