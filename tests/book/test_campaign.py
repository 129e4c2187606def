"""The campaign: minutes into published runs. Most tests let it work on a machine that is played, with a clock of its own."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import campaign
import numpy as np
import pandas as pd
import papermill
import pytest
from campaigning import budget, commands, parts, preflight, publishing, queue, render, scoring, travel
from campaigning.plan import OURS, PLAN, PlanError, Run, read_plan, select
from campaigning.state import State

import framepred as fp
from framepred.runs import load_scores, read_record, save_scores
from framepred.runs.folder import held

ROOT = Path(__file__).parents[2]
SMALL = {"batch_size": 2, "validation_clips": 40, "validate_every": 20}
RUN = Run(
    "a", "convlstm", "tiny", 1, minutes=10, digits="uci", test_sets=("uci-2", "uci-1"), clips=400, parameters=SMALL
)


class Killed(BaseException):
    """What no code expects."""


class Machine:
    """Plays the notebooks: a step takes `step` seconds of a clock that only moves here."""

    def __init__(self, step=0.5, validation=2.0, start=5.0, call=10.0, clip=0.05):
        self.now, self.step, self.validation, self.start, self.call, self.clip = (
            0.0,
            step,
            validation,
            start,
            call,
            clip,
        )
        self.calls: list[tuple[str, dict]] = []
        self.before = lambda number, notebook, given: None  # may return an Outcome, or raise

    def monotonic(self) -> float:
        return self.now

    def __call__(self, notebook, given, log):
        given = {**given, "validate_every": given.get("validate_every", 250)}
        self.calls.append((notebook, given))
        began = self.now
        outcome = self.before(len(self.calls), notebook, given)
        if outcome is not None:
            return outcome
        self.now += self.call
        code = self.evaluate(**given) if notebook == "evaluate" else self.train(notebook, **given)
        return commands.Outcome(code, self.now - began, "")

    def train(
        self, network, out, steps, minutes, digits, preset, validate_every, log_every=10, schedule="", **others
    ) -> int:
        out.mkdir(parents=True, exist_ok=True)
        record = read_record(out) or {"steps": 0, "seconds": 0.0, "sessions": []}
        done, before, spent, rows, judging = record["steps"], record["seconds"], self.start, [], 0.0
        if done:  # the row of a stop is forgotten
            rows = pd.read_csv(out / "history.csv").query("step % @log_every == 0 or step % @validate_every == 0")
            rows = rows.to_dict("records")
            if schedule == "warmup-stable-decay" and record["training"]["steps"] < steps:
                done = min(done, int(0.6 * record["training"]["steps"]))
                rows = [row for row in rows if row["step"] <= done]
        begun, nats = done, record.get("kept", {}).get("validation_nats", 500.0)
        while done < steps and spent + self.step + judging < 60 * minutes:  # the first validation isn't foreseen
            done, spent = done + 1, spent + self.step
            judged = done % validate_every == 0
            if judged:
                nats, spent, judging = nats - 1, spent + self.validation, self.validation
            if done % log_every == 0 or judged:
                rows.append({"step": done, "seconds": before + spent, "validation_nats": nats if judged else np.nan})
        spent += self.validation
        if done % log_every and done % validate_every:
            rows.append({"step": done, "seconds": before + spent, "validation_nats": nats})
        self.now += spent
        pd.DataFrame(rows, columns=["step", "seconds", "validation_nats"]).to_csv(out / "history.csv", index=False)
        session = {"from_step": begun, "to_step": done, "seconds": spent}
        write(
            out, network=network, training={"steps": steps}, digits={"source": digits}, steps=done, seconds=before + spent,
            sessions=[*record["sessions"], session], ended="finished" if done >= steps else "minutes",
            kept={"which": "best", "validation_nats": nats}, weights=None, test_sets={},
        )  # fmt: skip
        (out / "model.safetensors").write_bytes(b"weights")
        return 0 if done >= steps else 75

    def evaluate(self, run, publish, test_sets, n, n_others=100, protocols="rollout one-step", **others) -> int:
        record, there = read_record(run), read_record(publish)
        publish.mkdir(exist_ok=True)
        if there is None or there["sessions"] != record["sessions"]:
            write(publish, **{**record, "weights": "fp16", "test_sets": {}})
            (publish / "model.safetensors").write_bytes(b"half")
        for k, name in enumerate(test_sets.split()):
            for protocol in protocols.split():
                count = n_others if k else n
                self.now += count * self.clip
                save_scores(publish, {f"{name}/{protocol}": np.full((count, 10), 300.0)})
        return 0


def write(folder: Path, **record) -> None:
    (folder / "run.json").write_text(json.dumps(record))


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    for module in (queue, scoring):
        monkeypatch.setattr(module, "time", machine)
    return machine


def campaign_of(machine, folder: Path, runs, minutes: float, **more) -> queue.Queue:
    (folder / "state").mkdir(exist_ok=True)
    more = {"say": lambda line: None, **more}
    deadline = machine.now + 60 * minutes
    return queue.Queue(list(runs), State(folder / "state"), machine, deadline, folder / "published", **more)


# --- the plan --------------------------------------------------------------------------------------------------------


def test_the_committed_plan_names_what_the_notebooks_know():
    runs = read_plan(PLAN)
    books = {f"{network}-book" for network in ("convlstm", "spatiotemporal", "vpn")}
    wanted = books | {f"{name}-seed{k}" for name in books for k in (1, 2)}
    assert wanted < {run.name for run in runs if "cpu" in run.devices}
    assert {run.name for run in runs if run.preset == "thesis"} == {
        "spatiotemporal-thesis", "spatiotemporal-thesis-one-step", "convlstm-thesis", "vpn-thesis",
    }  # fmt: skip
    known = set(papermill.inspect_notebook(str(ROOT / "book" / "training" / "train.ipynb")))
    for run in runs:
        assert set(run.parameters) <= known and set(OURS) <= known
        assert run.test_sets or not run.weights
    assert min(run.minutes for run in select(runs, "cpu")) <= 15  # of the first call that the book suggests


def test_the_page_is_the_plan(tmp_path):
    runs = read_plan(PLAN)
    text = (PLAN.parent / "full-scale.md").read_text(encoding="utf-8")
    assert text == render.page(runs)
    assert all(f"| `{run.name}` |" in text for run in runs)
    changed = [dataclasses.replace(runs[0], minutes=11), *runs[1:]]
    assert render.render(changed, check=True) == 1
    assert render.render(changed, check=False, path=tmp_path / "page.md") == 0
    assert render.render(changed, check=True, path=tmp_path / "page.md") == 0


TABLE = 'name = "a"\nnetwork = "convlstm"\npreset = "tiny"\npriority = 1\nminutes = 1\n'
BAD = {
    f"[[run]]\n{TABLE}[[run]]\n{TABLE}": "two runs with the name 'a'",
    f"[[run]]\n{TABLE}".replace("tiny", "huge"): "no preset 'huge' of convlstm; known: thesis",
    f"[[run]]\n{TABLE}".replace('"convlstm"', '"lstm"'): "unknown network 'lstm'",
    f'[[run]]\n{TABLE}devices = ["tpu"]': "device is 'tpu'; known: cpu, cuda",
    f'[[run]]\n{TABLE}test_sets = ["mnist-9"]': "unknown test set 'mnist-9'",
    f"[[run]]\n{TABLE}parameters = {{ steps = 3 }}": "chooses 'steps' itself",
    f"[[run]]\n{TABLE}parameters = {{ batch_size = 0 }}": "batch_size is 0",
    f"[[run]]\n{TABLE}minuets = 3": "has 'minuets'",
    f"[[run]]\n{TABLE}".replace("minutes = 1", "minutes = -1"): "minutes is -1",
    f"[[run]]\n{TABLE}".replace('"a"', '"../a"'): "cannot be the name of a folder",
    '[[run]]\nname = "a"': "lacks network, preset, priority, minutes",
    "[[run]": "is no TOML file",
    "": "holds no [[run]]",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_plan_is_one_line_that_says_what_is_wrong(text, tmp_path, capsys):
    path = tmp_path / "plan.toml"
    path.write_text(text)
    assert campaign.main(["--minutes", "5", "--plan", str(path), "--state", str(tmp_path / "state")]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert BAD[text] in line
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "15", "--only", "convlstm"], "unknown run 'convlstm'; the plan has convlstm-"),
        (["--minutes", "15", "--device", "tpu"], "unknown device 'tpu'; known: cpu, cuda"),
        (
            ["--minutes", "15", "--device", "cpu", "--only", "vpn-compact"],
            "vpn-compact is planned for cuda, and this is",
        ),
        (["--minutes", "5"], "smallest useful budget, 10 of convlstm-book; give at least --minutes 10"),
        (["--minutes", "5", "--dry-run"], "smallest useful budget"),
        (["--minutes", "15", "--plan", "no.toml"], "no plan at no.toml"),
        ([], "Give --minutes"),
        (["--minutes", "0"], "Give --minutes"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(preflight, "digits_here", lambda runs, say: runs)
    assert campaign.main(["--device", "cpu", *words, "--state", str(tmp_path / "state")]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert message in line
    assert not (tmp_path / "state" / "convlstm-book").exists()


def test_a_dry_run_shows_the_minutes_and_changes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(preflight, "digits_here", lambda runs, say: runs)
    assert campaign.main(["--minutes", "60", "--device", "cpu", "--dry-run", "--state", str(tmp_path / "state")]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split()[1]: line.split()[2] for line in lines[1:]}
    assert sum(float(m) for m in shown.values() if m != "no") == pytest.approx(60, abs=0.2)
    assert next(iter(shown)) == "convlstm-book" and shown["vpn-book-seed2"] == "no"
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_without_mnist_shows_the_runs_that_there_would_be(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fp, "load_digits", lambda source, split="train": SimpleNamespace(source="uci"))
    names = ("a", "b", "c")
    (tmp_path / "plan.toml").write_text("".join(f"[[run]]\n{TABLE}".replace('"a"', f'"{name}"') for name in names))
    state = State(tmp_path / "state")
    state.folder.mkdir()
    state.runs = {"a-uci": {"status": "done"}, "b-uci": {"status": "training"}, "c": {"status": "done"}}
    state.save()
    words = ["--minutes", "5", "--device", "cpu", "--dry-run", "--plan", str(tmp_path / "plan.toml")]
    assert campaign.main([*words, "--state", str(state.folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "no mnist" in lines[0]
    assert [line.split()[1:3] for line in lines[2:4]] == [["a-uci", "done"], ["b-uci", "begun"]]
    assert lines[4].split()[1] == "c-uci" and lines[4].endswith("minutes")


# --- minutes ---------------------------------------------------------------------------------------------------------


def test_time_is_shared_by_weight_and_no_run_gets_less_than_it_needs():
    runs = [dataclasses.replace(RUN, name=name, weight=weight) for name, weight in {"a": 6, "b": 3, "c": 1}.items()]
    needs = {"a": 100.0, "b": 100.0, "c": 100.0}
    assert budget.shares(runs, needs, 1000) == {"a": 600, "b": 300, "c": 100}
    assert budget.shares(runs, needs, 700) == {"c": 100, "a": 400, "b": 200}
    assert [run.name for run in budget.fitting(runs, {"a": 100.0, "b": 300.0, "c": 100.0}, 250)] == ["a", "c"]


@pytest.mark.parametrize("validate_every", [20, 1000])
def test_speed_is_measured_inside_a_run(validate_every, tmp_path):
    machine = Machine(step=0.25, validation=3.0, start=40.0)
    machine.train("convlstm", tmp_path, 10**6, 3, "uci", "tiny", validate_every)
    speed = budget.measure(pd.read_csv(tmp_path / "history.csv"), read_record(tmp_path))
    assert speed.step == pytest.approx(0.25) and speed.start == pytest.approx(40)
    assert speed.validation == pytest.approx(3)
    slow = budget.Speed(1.0, 10.0, 5.0)
    assert slow.steps_in(1 * 60 + 10 * 7 + 5, 10) == 60  # 60 steps, six validations, that of the end, the start


@pytest.mark.parametrize(("steps", "log_every", "unknown"), [(1, 1, 2), (7, 7, 2 / 7), (7, 5, 2 / 5), (3, 1, 0)])
def test_the_validation_of_a_stop_is_no_time_of_steps_even_where_few_were_made(steps, log_every, unknown, tmp_path):
    machine = Machine(step=4.0, validation=60.0, start=2.0)
    machine.train("convlstm", tmp_path, 10**6, (4 * steps + 3) / 60, "uci", "tiny", 500, log_every)
    record = read_record(tmp_path)
    assert record["steps"] == steps and record["seconds"] == 62 + 4 * steps
    speed = budget.measure(pd.read_csv(tmp_path / "history.csv"), record)
    assert speed.step == pytest.approx(4 + unknown)  # where there is but one row, the start is a part of its steps
    assert speed.validation == pytest.approx(60 - unknown * (steps % log_every))


def test_plans_follow_the_speed_until_the_last_part_of_a_run():
    speed = budget.Speed(1.0, 0.0, 0.0)
    assert budget.plan_steps(100, 1000, 200, speed, 10, first=False) == 100 + 190
    assert budget.plan_steps(800, 1000, 400, speed, 10, first=False) == 1000
    assert budget.plan_steps(800, 1000, 600, speed, 10, first=False) == 800 + 570  # worth a second rise of the rate
    assert budget.plan_steps(1000, 1000, 400, speed, 10, first=False) == 1000 + 380
    assert budget.plan_steps(1000, 1000, 200, speed, 10, first=False) == 1000
    assert budget.plan_steps(1000, 1000, 200, speed, 10, first=True) == 1190  # the guess was too small
    assert budget.plan_steps(1000, 1000, 0, speed, 10, first=True) == 1000


def test_plans_of_a_run_whose_rate_falls_last_follow_the_speed_until_it_falls():
    def steps(done, seconds, first=False):
        speed = budget.Speed(1.0, 0.0, 0.0)
        return budget.plan_steps(done, 1000, seconds, speed, 10, first, "warmup-stable-decay")

    assert steps(600, 500) == 600 + 475 and steps(600, 300) == 600 + 285
    assert steps(601, 500) == steps(700, 200) == steps(1000, 600) == 1000  # to go back costs more than it brings
    assert steps(700, 800) == steps(1000, 800) == 600 + 760
    assert steps(700, 500, first=True) == 600 + 475 and steps(700, 300, first=True) == 1000


@pytest.mark.parametrize(("seconds", "clips"), [(1e9, 10_000), (123.4, 1200), (5.0, 50), (-9, 10)])
def test_clips_are_a_round_number_that_fits(seconds, clips):
    assert budget.clips_in(seconds, 0.1, 10_000) == clips


# --- the queue -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [12, 45, 200])
def test_a_run_ends_decayed_in_its_time_is_scored_and_published(minutes, tmp_path, machine):
    campaign_of(machine, tmp_path, [RUN], minutes).work()
    folder = tmp_path / "published" / "a"
    record = read_record(folder)
    assert record["ended"] == "finished" and State(tmp_path / "state").done("a")
    assert 0.75 * 60 * minutes < machine.now <= 60 * minutes
    trained = [given for notebook, given in machine.calls if notebook == "convlstm"]
    assert record["steps"] == trained[-1]["steps"]
    assert max(given["minutes"] for given in trained) <= 2 * budget.SLICE / 60
    first, second = (given for notebook, given in machine.calls if notebook == "evaluate")
    assert first["test_sets"] == "uci-2" and first["protocols"] == "rollout" and second["test_sets"] == "uci-2 uci-1"
    assert len(load_scores(folder)["uci-2/rollout"]) == 400 and len(load_scores(folder)) == 4
    assert (folder / "model.safetensors").read_bytes() == b"half"


@pytest.mark.parametrize("step", [0.5, 3.0, 12.0])
@pytest.mark.parametrize("guessed", [True, False])
def test_a_slow_machine_uses_its_time_too(step, guessed, tmp_path, machine):
    machine.step, machine.validation, machine.start = step, 20 * step, 15.0
    run = dataclasses.replace(RUN, parameters={**SMALL, "validate_every": 250})
    campaign_of(machine, tmp_path, [run], 60, step_seconds={"a": step} if guessed else {}).work()
    trained = [given for notebook, given in machine.calls if notebook == "convlstm"]
    record = read_record(tmp_path / "published" / "a")
    assert record["ended"] == "finished" and record["seconds"] > 0.85 * 0.85 * 3600 and machine.now <= 3600
    assert trained[0]["log_every"] == (2 if guessed and step == 0.5 else 1) and trained[-1]["log_every"] == 10


def test_a_machine_that_turns_out_faster_than_measured_makes_more_steps(tmp_path, machine):
    def speed_up(number, notebook, given):
        machine.step = 2.0 if number == 1 else 0.5

    machine.before = speed_up
    campaign_of(machine, tmp_path, [RUN], 20).work()
    planned = [given["steps"] for notebook, given in machine.calls if notebook == "convlstm"]
    record = read_record(tmp_path / "published" / "a")
    assert record["steps"] == planned[-1] > 3 * planned[1] and record["seconds"] > 0.75 * 0.85 * 1200


STABLE = dataclasses.replace(RUN, parameters={**SMALL, "schedule": "warmup-stable-decay"})


@pytest.mark.parametrize("minutes", [12, 45, 200])
def test_once_the_rate_falls_the_plan_stays_and_no_step_is_made_twice(minutes, tmp_path, machine):
    moments = random.Random(0)

    def vary(number, notebook, given):
        machine.step = moments.uniform(0.4, 0.6)

    machine.before = vary
    campaign_of(machine, tmp_path, [STABLE], minutes).work()
    record = read_record(tmp_path / "published" / "a")
    made = [(session["from_step"], session["to_step"]) for session in record["sessions"]]
    assert record["ended"] == "finished" and all(a[1] == b[0] for a, b in itertools.pairwise(made))
    planned = [given["steps"] for notebook, given in machine.calls if notebook == RUN.network]
    assert len(planned) < 4 or len(set(planned[:-1])) > 1  # before, it follows the speed
    assert 0.75 * 60 * minutes < machine.now <= 62 * minutes


def test_a_run_that_grows_from_where_its_rate_fell_is_no_run_that_stands(tmp_path, machine):
    steps = []
    for _ in range(2):
        campaign_of(machine, tmp_path, [STABLE], 30).work()
        record = read_record(tmp_path / "published" / "a")
        steps.append(record["steps"])
        state = State(tmp_path / "state")
        assert "failed" not in state.runs.pop("a")  # as --more does it
        state.save()
    assert record["ended"] == "finished" and steps[1] > 1.4 * steps[0]
    assert int(0.6 * steps[0]) in [session["from_step"] for session in record["sessions"]]


def test_where_scoring_is_slow_fewer_clips_are_scored_and_that_is_said(tmp_path, machine):
    machine.clip, machine.validation, said = 0.5, 20.0, []
    campaign_of(machine, tmp_path, [RUN], 12, say=said.append).work()
    assert machine.now < 13 * 60
    clips = len(load_scores(tmp_path / "published" / "a")["uci-2/rollout"])
    assert 10 <= clips < 400 and any(f"on {clips} clips of uci-2" in line for line in said)


def test_a_slower_machine_gets_fewer_steps_between_slices_but_not_in_the_last_part(tmp_path, machine):
    def slow_down(number, notebook, given):
        machine.step = 1.0 if number >= 4 else 0.5

    machine.before = slow_down
    campaign_of(machine, tmp_path, [RUN], 60).work()
    planned = [given["steps"] for notebook, given in machine.calls if notebook == "convlstm"]
    assert planned[1] > 1.3 * planned[-1] and machine.now < 62 * 60
    assert read_record(tmp_path / "published" / "a")["steps"] == planned[-1] == planned[-2]


def test_a_last_part_that_takes_longer_than_planned_is_not_cut_into_little_calls(tmp_path, machine):
    def slow_down(number, notebook, given):
        machine.step = 0.75 if machine.now > 0.75 * 600 * 60 else 0.5

    machine.before = slow_down
    campaign_of(machine, tmp_path, [RUN], 600).work()
    assert read_record(tmp_path / "published" / "a")["ended"] == "finished"
    trained = [given["minutes"] for notebook, given in machine.calls if notebook == RUN.network]
    assert min(trained[1:]) > 5 and machine.now <= 600 * 60


def test_test_sets_without_a_score_are_named(tmp_path, machine):
    said, real = [], machine.evaluate
    machine.evaluate = lambda **given: real(**{**given, "test_sets": given["test_sets"].split()[0]})
    campaign_of(machine, tmp_path, [RUN], 15, say=said.append).work()
    assert any("a: without a score: uci-1" in line for line in said)


def test_killed_at_any_call_the_same_command_goes_on_and_ends_alike(tmp_path, machine):
    machine.step = 5.0
    runs = [RUN, dataclasses.replace(RUN, name="b")]
    campaign_of(machine, tmp_path, runs, 40).work()
    calls = len(machine.calls)
    assert calls >= 8
    for k in range(1, calls + 1):
        folder = tmp_path / f"killed{k}"
        folder.mkdir()
        machine.calls.clear()

        def kill(number, notebook, given, k=k):
            if number == k:
                raise Killed

        machine.before = kill
        with pytest.raises(Killed):
            campaign_of(machine, folder, runs, 40).work()
        campaign_of(machine, folder, runs, 40).work()
        for name in "ab":
            record = read_record(folder / "published" / name)
            assert record["ended"] == "finished" and len(record["test_sets"]) == 4


def test_a_call_too_short_for_the_rest_leaves_it_to_the_next(tmp_path, machine):
    machine.before = lambda number, notebook, given: (_ for _ in ()).throw(Killed) if number == 3 else None
    with pytest.raises(Killed):
        campaign_of(machine, tmp_path, [RUN], 60).work()
    until = State(tmp_path / "state").runs["a"]["until"]
    for _ in range(20):
        campaign_of(machine, tmp_path, [RUN], 5).work()
    assert State(tmp_path / "state").done("a")
    assert read_record(tmp_path / "published" / "a")["seconds"] == pytest.approx(until, rel=0.1)


def test_what_fails_does_not_keep_the_rest_from_being_done(tmp_path, machine, monkeypatch, capsys):
    failed = commands.Outcome(1, 3.0, "Traceback\nconvlstm: RuntimeError: no luck\n")
    machine.before = lambda number, notebook, given: (
        failed if Path(given["out" if "out" in given else "run"]).name == "a" else None
    )
    code = call_main(tmp_path, machine, monkeypatch)
    out = capsys.readouterr().out
    assert code == 1 and "a: failed: convlstm: RuntimeError: no luck" in out and "failed: a; the same" in out
    assert [path.name for path in (tmp_path / "published").iterdir()] == ["b"]
    machine.before = lambda number, notebook, given: None
    assert call_main(tmp_path, machine, monkeypatch) == 0  # it is tried again
    assert "all done" in capsys.readouterr().out
    calls = len(machine.calls)
    assert call_main(tmp_path, machine, monkeypatch) == 0 and len(machine.calls) == calls


def test_without_time_for_all_there_is_more_to_do(tmp_path, machine, monkeypatch, capsys):
    assert call_main(tmp_path, machine, monkeypatch, minutes=15) == 75
    out = capsys.readouterr().out
    assert "more to do: b; the same command goes on" in out and "published in a" in out


def test_a_slow_preflight_does_not_cost_the_run_that_just_fitted(tmp_path, machine, monkeypatch, capsys):
    def step(how):
        machine.now += 45
        return {"seconds": 0.5, "parameters": 1}

    assert call_main(tmp_path, machine, monkeypatch, 10, "--pack", str(tmp_path / "parts"), step=step) == 75
    assert "published in a" in capsys.readouterr().out and machine.now <= 600


PACE = "parameters = { validation_clips = 40 }\n"  # so that a clip takes as long in validation as in scoring


def call_main(folder: Path, machine, monkeypatch, minutes=40, *words, step=None) -> int:
    """The command, on the played machine; its runs are a and b."""
    plan = folder / "plan.toml"
    table = TABLE.replace("minutes = 1\n", 'minutes = 10\ndigits = "uci"\ntest_sets = ["uci-2"]\n' + PACE)
    plan.write_text(f"[[run]]\n{table}[[run]]\n{table.replace(chr(34) + 'a' + chr(34), chr(34) + 'b' + chr(34))}")
    machine.stopped = False
    monkeypatch.setattr(campaign, "time", machine)
    monkeypatch.setattr(queue, "caller", lambda device: machine)
    monkeypatch.setattr(preflight, "step_of", step or (lambda how: {"seconds": machine.step, "parameters": 1}))
    given = {"--plan": plan, "--state": folder / "state", "--runs": folder / "published", "--minutes": minutes}
    return campaign.main([str(word) for item in given.items() for word in item] + ["--device", "cpu", *words])


def test_out_of_memory_doubles_the_parts_of_a_batch(tmp_path, machine):
    full = commands.Outcome(1, 3.0, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB")
    machine.before = lambda number, notebook, given: full if given.get("accumulate", 4) < 4 else None
    run = dataclasses.replace(RUN, parameters={**SMALL, "batch_size": 8})
    campaign_of(machine, tmp_path, [run], 15).work()
    assert [given["accumulate"] for _, given in machine.calls[:3]] == [1, 2, 4]
    assert State(tmp_path / "state").runs["a"]["accumulate"] == 4 and (tmp_path / "published" / "a").exists()
    machine.before = lambda number, notebook, given: full
    campaign_of(machine, tmp_path, [dataclasses.replace(run, name="b")], 15).work()
    assert "out of memory" in State(tmp_path / "state").runs["b"]["failed"]
    assert machine.calls[-1][1]["accumulate"] == 8


def test_compile_is_switched_off_where_it_fails(tmp_path, machine):
    broken = commands.Outcome(1, 3.0, "InductorError: no compiler")
    machine.before = lambda number, notebook, given: broken if given.get("compile") else None
    campaign_of(machine, tmp_path, [dataclasses.replace(RUN, parameters={**SMALL, "compile": "parts"})], 15).work()
    assert [given["compile"] for _, given in machine.calls[:2]] == ["parts", False]
    assert (tmp_path / "published" / "a").exists()


def test_a_kernel_that_dies_is_called_without_compile_first_and_then_with_more_parts(tmp_path, machine):
    dead = commands.Outcome(1, 3.0, "Traceback\nnbclient.exceptions.DeadKernelError: Kernel died\n")

    def before(number, notebook, given):
        needs = given["batch_size"] / given.get("accumulate", 1)
        return dead if given.get("compile") or needs > 2 else None

    machine.before = before
    run = dataclasses.replace(RUN, parameters={**SMALL, "batch_size": 8, "compile": "parts"}, score_batch=8)
    campaign_of(machine, tmp_path, [run], 15).work()
    tried = [(given["compile"], given["accumulate"]) for notebook, given in machine.calls[:4]]
    assert tried == [("parts", 1), (False, 1), (False, 2), (False, 4)] and (tmp_path / "published" / "a").exists()
    assert [given["batch_size"] for notebook, given in machine.calls if notebook == "evaluate"] == [8, 4, 2, 8, 4, 2]


@pytest.mark.parametrize(("ends", "skipped"), [(-9, []), (-11, ["a"])])
def test_a_trial_that_the_system_kills_does_not_skip_its_run(ends, skipped, tmp_path, monkeypatch):
    done = SimpleNamespace(returncode=ends, stderr="", stdout="")
    monkeypatch.setattr(preflight.subprocess, "run", lambda *a, **k: done)
    found = preflight.check_runs([RUN], tmp_path, "cpu", quiet)
    assert found.skipped == skipped and len(found.runs) == 1 - len(skipped)


def test_a_notebook_that_does_nothing_is_not_called_for_ever(tmp_path, machine):
    machine.before = lambda number, notebook, given: commands.Outcome(0, 3.0, "")
    campaign_of(machine, tmp_path, [RUN], 15).work()
    assert "made no step" in State(tmp_path / "state").runs["a"]["failed"] and len(machine.calls) == 1


def test_a_notebook_that_was_interrupted_before_its_first_step_made_none(tmp_path, machine):
    def interrupt(number, notebook, given):
        given["out"].mkdir(parents=True)
        write(given["out"], network="convlstm", training={}, steps=0)  # as it is claimed
        return commands.Outcome(75, 3.0, "")

    machine.before = interrupt
    campaign_of(machine, tmp_path, [RUN], 15).work()
    assert "made no step" in State(tmp_path / "state").runs["a"]["failed"]


def record_of(nats, source="mnist", network="convlstm"):
    return {"network": network, "digits": {"source": source}, "kept": {"validation_nats": nats}}


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        (record_of(300.0), None, None),
        (record_of(300.0), record_of(301.0), None),
        (record_of(300.0), record_of(300.0), "not below the published run's 300.0"),
        (record_of(None), record_of(300.0), "not validated"),
        (record_of(1.0, "uci"), record_of(300.0), "was trained on mnist, this one on uci"),
        (record_of(1.0, network="vpn"), record_of(300.0), "is a convlstm"),
    ],
)
def test_a_published_run_is_replaced_by_one_with_a_smaller_validation_error(ours, theirs, reason):
    said = publishing.refusal(ours, theirs)
    assert said is None if reason is None else reason in said


def test_a_better_test_error_alone_replaces_nothing(tmp_path, machine):
    campaign_of(machine, tmp_path, [RUN], 15).work()
    folder = tmp_path / "published" / "a"
    before = folder / "run.json"
    record = json.loads(before.read_text())
    write(folder, **{**record, "sessions": [], "kept": {"validation_nats": 1.0}})
    save_scores(folder, {"uci-2/rollout": np.full((400, 10), 9999.0)})
    text = before.read_text()
    scored = State(tmp_path / "state").scored_folder("a")
    assert "is not below" in publishing.publish_if_better("a", scored, tmp_path / "published", True)
    assert before.read_text() == text


def test_what_a_kill_left_beside_a_published_run_goes(tmp_path, machine):
    campaign_of(machine, tmp_path, [RUN], 15).work()
    (tmp_path / "published" / ".a.old").mkdir()
    scored = State(tmp_path / "state").scored_folder("a")
    assert publishing.publish_if_better("a", scored, tmp_path / "published", True) == "published already"
    assert [path.name for path in (tmp_path / "published").iterdir()] == ["a"]


def test_what_shows_the_published_runs_is_made_anew_and_one_failure_keeps_none_of_it(tmp_path, monkeypatch):
    made, written = [], []

    def run(command, **options):
        made.append(Path(command[1]).name)
        assert Path(command[1]).is_file() and written
        return SimpleNamespace(returncode=len(made) == 1, stderr="Traceback\nno luck\n")

    monkeypatch.setattr(publishing, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(fp.runs.published, "write_registry", lambda: written.append(True))
    trouble = publishing.bring_up_to_date(publishing.PUBLISHED)
    assert made == ["runs_page.py", "readme.py"] and "page of runs stays as it was (no luck)" in trouble
    assert publishing.bring_up_to_date(publishing.PUBLISHED) is None
    made.clear()
    assert publishing.bring_up_to_date(tmp_path) is None and made == []


def test_weights_that_are_too_large_are_left_out(tmp_path, machine):
    campaign_of(machine, tmp_path, [dataclasses.replace(RUN, weights=False)], 15).work()
    folder = tmp_path / "published" / "a"
    assert read_record(folder)["weights"] is None and not (folder / "model.safetensors").exists()


def test_the_last_lines_say_by_how_much_the_thesis_was_beaten_or_missed():
    from campaigning.results import sentence

    run = dataclasses.replace(RUN, target=250)
    found = {"key": "mnist-2/rollout", "nats": 350.0, "clips": 2000}
    assert "350.0 nats per frame (rollout) on 2,000 clips of mnist-2; the thesis has 361.5: beaten by 11.5" in sentence(
        run, found
    )
    assert "missed by 8.5; target 250: not yet" in sentence(run, {**found, "nats": 370.0})
    assert "beaten" not in sentence(run, {**found, "key": "uci-2/rollout"})
    later = sentence(dataclasses.replace(run, network="predrnn", preset="book"), found)
    assert "350.0 nats" in later and "thesis" not in later, "it has no such network"


# --- the machine -----------------------------------------------------------------------------------------------------


def test_a_machine_without_a_package_is_told_how_to_fetch_it(monkeypatch, capsys, tmp_path):
    real = metadata.version

    def version(name):
        if name == "papermill":
            raise metadata.PackageNotFoundError(name)
        return "0.0.1" if name == "pooch" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(preflight, "digits_here", lambda runs, say: runs)
    assert preflight.packages_missing() == ["pooch>=1.8", "papermill>=2.6"]
    campaign.main(["--minutes", "15", "--device", "cpu", "--dry-run", "--state", str(tmp_path)])
    out = capsys.readouterr().out
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert (
        f"python{python} -m pip download --only-binary=:all: --python-version {python}" in out
        and '"pooch>=1.8" "papermill>=2.6"' in out
    )
    assert "convlstm-book" in out  # the rest is done


def test_a_step_that_fails_skips_its_runs_only(tmp_path):
    said = []
    runs = [
        dataclasses.replace(RUN, parameters={**SMALL, "compile": "parts"}),
        dataclasses.replace(RUN, name="b", network="vpn", parameters={**SMALL, "compile": "parts"}),
        dataclasses.replace(RUN, name="c", network="spatiotemporal"),
    ]

    def step(how):
        if how["network"] == "spatiotemporal":
            return {"error": "no such kernel"}
        if how["network"] == "vpn" and how["compile"]:
            return {"error": "InductorError"}
        return {"seconds": 0.1 if how["compile"] else 0.2, "parameters": 10}

    found = preflight.check_runs(runs, tmp_path, "cuda", said.append, step)
    assert [run.name for run in found.runs] == ["a", "b"] and found.skipped == ["c"]
    assert found.compile_off == {"b"} and found.step_seconds == {"a": 0.1, "b": 0.2}
    assert any("c: skipped" in line and "no such kernel" in line for line in said)
    big = preflight.check_runs(runs[:1], tmp_path, "cpu", said.append, lambda how: {"seconds": 1, "parameters": 10**15})
    assert big.skipped == ["a"] and "GiB of disk" in said[-1]


def test_a_trial_takes_the_step_that_its_run_takes(tmp_path):
    """SimVP cannot learn from the context's frames, so the recipe's step is none of it: its run says what is."""
    tried = []
    runs = [run for run in read_plan(PLAN) if run.name in ("simvp-book", "convlstm-book-one-step")]
    preflight.check_runs(runs, tmp_path, "cpu", quiet, lambda how: tried.append(how) or {"seconds": 1, "parameters": 1})
    assert [how["training"].get("feedback") for how in tried] == ["teacher-forcing", None]
    for how in tried:
        assert preflight.main({**how, "preset": "tiny"})["seconds"] > 0


def test_trials_take_a_minute_and_what_has_run_here_is_not_tried(tmp_path, machine, monkeypatch):
    monkeypatch.setattr(preflight, "time", machine)
    tried, said = [], []

    def step(how):
        machine.now += 40
        tried.append((how["network"], how["compile"]))
        return {"seconds": 0.1, "parameters": 10}

    parameters = {**SMALL, "compile": "parts"}
    runs = [
        dataclasses.replace(RUN, name=f"{network}{k}", network=network, parameters=parameters)
        for network in ("convlstm", "vpn", "spatiotemporal")
        for k in (1, 2)
    ]
    found = preflight.check_runs(runs, tmp_path, "cuda", said.append, step, known=["vpn1"])
    assert found.runs == runs and tried == [("convlstm", False), ("convlstm", "parts")]
    assert said == ["not tried beforehand, to save time: vpn2, spatiotemporal1, spatiotemporal2"]
    assert set(found.step_seconds) == {"convlstm1", "convlstm2"}


def test_without_mnist_runs_are_an_exercise_that_is_not_published(monkeypatch, tmp_path, machine):
    said = []
    monkeypatch.setattr(fp, "load_digits", lambda source, split="train": SimpleNamespace(source="uci"))
    (run,) = preflight.digits_here(
        [dataclasses.replace(RUN, digits="mnist", test_sets=("mnist-2", "mnist-3"))], said.append
    )
    assert (run.name, run.digits, run.test_sets) == ("a-uci", "uci", ("uci-2",)) and "publish nothing" in said[0]
    campaign_of(machine, tmp_path, [run], 15, say=said.append).work()
    assert not (tmp_path / "published").exists() and any("not published" in line for line in said)
    assert list(load_scores(State(tmp_path / "state").scored_folder("a-uci"))) == ["uci-2/rollout", "uci-2/one-step"]


# --- travel ----------------------------------------------------------------------------------------------------------


CLIPS = {split: fp.MovingDigits(fp.load_digits("uci", split)) for split in ("train", "validation")}
CONFIG = fp.TrainConfig.recipe(steps=6, batch_size=2, validate_every=3, validation_clips=2)


def train(folder: Path, **changes) -> None:
    config = dataclasses.replace(CONFIG, **changes)
    fp.train(fp.build("convlstm", "tiny"), CLIPS["train"], config, folder, validation=CLIPS["validation"])


@pytest.fixture(scope="module")
def far(tmp_path_factory) -> State:
    """The state of a campaign on another machine: one run, trained and scored."""
    state = State(tmp_path_factory.mktemp("far"))
    train(state.run_folder("a"))
    fp.runs.publish(state.run_folder("a"), state.scored_folder("a"))
    save_scores(state.scored_folder("a"), {"uci-2/rollout": np.full((3, 10), 300.0)})
    state.runs["a"] = {"status": "done", "priority": 1, "weights": True, "publish": True}
    state.save()
    return state


def quiet(line: str) -> None:
    """Say nothing."""


def test_what_is_packed_is_adopted_and_goes_on_elsewhere(far, tmp_path, monkeypatch):
    paths = travel.pack(far, tmp_path / "parts", 64 * 2**10, 99, quiet)
    assert len(paths) > 3 and all(path.stat().st_size <= 64 * 2**10 for path in paths)
    home = State(tmp_path / "home")
    monkeypatch.setattr(fp.runs.published, "CHECKOUT", tmp_path / "published")
    monkeypatch.setattr(fp.runs.published, "REGISTRY", tmp_path / "published.txt")
    monkeypatch.setattr(publishing, "PUBLISHED", tmp_path / "published")
    readme = SimpleNamespace(run=lambda *a, **k: SimpleNamespace(returncode=0))
    monkeypatch.setattr(publishing, "subprocess", readme)
    travel.adopt(home, tmp_path / "parts", tmp_path / "published", quiet)
    assert State(tmp_path / "home").campaign == far.campaign and home.runs["a"]["published"] == "published in a"
    assert fp.runs.published.published_runs() == ["a"]
    for name in ("run.json", "config.json", "history.csv", "model.safetensors", "scores.npz"):
        there = far.scored_folder("a") / name
        assert (tmp_path / "published" / "a" / name).read_bytes() == there.read_bytes(), name
    for folder in (home.run_folder("a"), tmp_path / "exact"):  # a longer run, there and here
        if folder != home.run_folder("a"):
            shutil.copytree(far.run_folder("a"), folder)
        train(folder, steps=8)
    ours = read_record(home.run_folder("a"))
    assert ours["steps"] == 8 and ours["sessions"][-1]["from_step"] == 6
    weights = [fp.load(folder).state_dict() for folder in (home.run_folder("a"), tmp_path / "exact")]
    errors = [float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0]]
    assert 0 < max(errors) < 1e-3  # of bfloat16 in the optimiser
    travel.adopt(home, tmp_path / "parts", tmp_path / "published", quiet)  # what is further here stays
    assert read_record(home.run_folder("a"))["steps"] == 8


def test_a_checkpoint_travels_with_its_weights_exact_and_its_optimiser_close(far, tmp_path):
    from framepred.training.checkpoints import load_checkpoint

    travel.pack(far, tmp_path / "parts", 2**20, 8, quiet)
    travel.adopt(State(tmp_path / "home"), tmp_path / "parts", tmp_path / "published", quiet)
    here, there = (load_checkpoint(f / "a" / "checkpoints") for f in (tmp_path / "home", far.folder))
    for key in ("model", "average"):
        assert all(here[key][name].equal(there[key][name]) for name in there[key])
    assert all(here["done"]["best"]["weights"][k].equal(v) for k, v in there["done"]["best"]["weights"].items())
    adam_here, adam_there = (checkpoint["optimizers"][1]["state"][0] for checkpoint in (here, there))
    assert adam_here["step"] == adam_there["step"]
    for name in ("exp_avg", "exp_avg_sq"):
        assert adam_here[name].dtype == adam_there[name].dtype
        np.testing.assert_allclose(adam_here[name], adam_there[name], rtol=2**-8)


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked there")
def test_runs_of_a_campaign_at_work_are_not_packed(far, tmp_path, capsys, monkeypatch):
    words = ["--pack", str(tmp_path / "parts"), "--state", str(far.folder)]
    monkeypatch.setattr(campaign, "train", lambda *a: 75)
    with held(far.folder):
        assert campaign.main(words) == 1
        assert campaign.main([*words, "--minutes", "5"]) == 75  # its own work is done, and another has begun
    first, second = capsys.readouterr().out.splitlines()
    assert (
        f"campaign: another process is training in {far.folder}; wait" in first and "nothing packed: another" in second
    )
    assert not (tmp_path / "parts").exists()
    assert campaign.main(words) == 0 and list((tmp_path / "parts").iterdir())


def test_a_campaign_packs_its_own_work(tmp_path, machine, monkeypatch, capsys):
    assert call_main(tmp_path, machine, monkeypatch, 40, "--pack", str(tmp_path / "parts")) == 0
    assert "packed 2 runs" in capsys.readouterr().out


def test_what_does_not_fit_is_said_and_the_most_valuable_comes_first(far, tmp_path):
    said = []
    size = (far.run_folder("a") / "model.safetensors").stat().st_size
    travel.pack(far, tmp_path / "parts", size + 40_000, 1, said.append)
    assert any("a: left behind: what it needs to go on" in line for line in said)
    home = State(tmp_path / "home")
    travel.adopt(home, tmp_path / "parts", tmp_path / "published", quiet)
    assert fp.load(tmp_path / "published" / "a") and not (home.run_folder("a") / "checkpoints").exists()
    travel.pack(far, tmp_path / "parts", 30_000, 1, said.append)
    assert "a: left behind: weights" in said[-3]
    travel.adopt(State(tmp_path / "home2"), tmp_path / "parts", tmp_path / "published2", said.append)
    assert "its weights stayed behind" in said[-1] and not (tmp_path / "published2").exists()


def damage(folder: Path, other: Path) -> None:
    path = folder / "part-02.framepred"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))


def lose(folder: Path, other: Path) -> None:
    (folder / "part-02.framepred").unlink()


def mix(folder: Path, other: Path) -> None:
    (folder / "part-02.framepred").write_bytes((other / "part-02.framepred").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "message"), [(damage, "part-02.framepred is damaged"), (lose, "part 2 of"), (mix, "of another campaign")]
)
def test_parts_that_are_not_whole_change_nothing(spoil, message, far, tmp_path, capsys):
    for name in ("parts", "other"):
        travel.pack(far, tmp_path / name, 2**18, 99, quiet)
        far.campaign = "another"
    far.campaign = json.loads(far.path.read_text())["campaign"]
    spoil(tmp_path / "parts", tmp_path / "other")
    words = ["--adopt", tmp_path / "parts", "--state", tmp_path / "home", "--runs", tmp_path / "published"]
    assert campaign.main([str(word) for word in words]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "parts"]


def test_parts_of_another_campaign_are_not_mixed_with_ours(far, tmp_path):
    travel.pack(far, tmp_path / "parts", 2**20, 8, quiet)
    home = State(tmp_path / "home")
    home.runs["b"] = {"status": "done"}
    with pytest.raises(PlanError, match="another campaign"):
        travel.adopt(home, tmp_path / "parts", tmp_path / "published", quiet)
    assert not (tmp_path / "home").exists()


def test_scores_of_other_weights_stay_behind(far, tmp_path):
    on = State(tmp_path / "on")
    shutil.copytree(far.folder, on.folder)
    on = State(on.folder)
    train(on.run_folder("a"), steps=8)
    travel.pack(on, tmp_path / "parts", 2**20, 8, quiet)
    home = State(tmp_path / "home")
    travel.adopt(home, tmp_path / "parts", tmp_path / "published", quiet)
    assert read_record(home.run_folder("a"))["steps"] == 8 and not (tmp_path / "published").exists()
    assert "was not scored" in home.runs["a"]["published"]


FALLING = {"steps": 5, "schedule": "warmup-stable-decay", "log_every": 1}  # the rate begins to fall after step 3
LONGER = {**FALLING, "steps": 9}


def falling(folder: Path, steps: int) -> State:
    """The state of a campaign with a run of that schedule, which has made so many steps of 5."""
    state = State(folder)
    while not (record := read_record(state.run_folder("a"))) or record["steps"] < steps:
        train(state.run_folder("a"), **FALLING, **({"minutes": 1e-9} if steps < 5 else {}))  # one step a call
    state.runs["a"] = {"status": "training", "priority": 1}
    state.save()
    return state


def moved(state: State, folder: Path, size=2**20) -> tuple[State, set[str], list[str]]:
    """A run packed and adopted elsewhere: the campaign there, the checkpoints that travelled, and what was said."""
    said = []
    travel.pack(state, folder / "parts", size, 1, said.append)
    home = State(folder / "home")
    travel.adopt(home, folder / "parts", folder / "published", quiet)
    files = parts.read_parts(folder / "parts")[2]
    return home, {name for name in (travel.RESUME, travel.STABLE) if f"a/{name}" in files}, said


@pytest.mark.parametrize(
    ("steps", "travels"), [(5, {"stable.pt"}), (4, {"resume.pt", "stable.pt"}), (2, {"resume.pt"})]
)
def test_a_run_that_travelled_grows_as_it_would_have_at_home(steps, travels, tmp_path):
    far = falling(tmp_path / "far", steps)
    home, files, _ = moved(far, tmp_path)
    assert files == travels
    folders = [state.run_folder("a") for state in (far, home)]
    for folder in folders:
        train(folder, **LONGER)
    ours, theirs = ([(s["from_step"], s["to_step"]) for s in read_record(f)["sessions"]] for f in folders)
    assert ours == theirs and ours[-1] == (min(steps, 3), 9)
    here, there = (fp.runs.load_history(folder).set_index("step")["loss"] for folder in folders)
    first = min(steps, 3) + 1  # the error of this step is that of the weights, which travel exactly
    pd.testing.assert_series_equal(here.loc[:first], there.loc[:first], check_exact=True)
    np.testing.assert_allclose(here, there, rtol=1e-3)
    assert not here.equals(there)  # of the optimiser in bfloat16


def test_a_run_that_travelled_while_its_rate_fell_comes_to_its_end(tmp_path):
    far = falling(tmp_path / "far", 4)
    home, _, _ = moved(far, tmp_path)
    train(home.run_folder("a"), **FALLING)
    sessions = read_record(home.run_folder("a"))["sessions"]
    assert (sessions[-1]["from_step"], sessions[-1]["to_step"]) == (4, 5)


def test_where_one_checkpoint_fits_it_is_the_one_to_come_to_the_end_with(tmp_path):
    far = falling(tmp_path / "far", 4)
    both = sum(path.stat().st_size for path in far.run_folder("a").glob("checkpoints/*.pt"))
    _, files, said = moved(far, tmp_path, size=both // 2)
    assert files == {"resume.pt"} and any("left behind: what it needs to become longer" in line for line in said)


def test_a_run_that_grew_from_fewer_steps_than_it_had_is_the_further_one(tmp_path):
    home = falling(tmp_path / "home", 5)
    there = State(tmp_path / "there")
    travel.pack(home, tmp_path / "old", 2**20, 1, quiet)
    travel.adopt(there, tmp_path / "old", tmp_path / "published", quiet)
    train(there.run_folder("a"), **LONGER, minutes=1e-9)
    travel.pack(there, tmp_path / "new", 2**20, 1, quiet)
    for folder in ("new", "old"):  # the old parts change nothing any more
        travel.adopt(home, tmp_path / folder, tmp_path / "published", quiet)
        record = read_record(home.run_folder("a"))
        assert record["steps"] == 4 and record["sessions"][-1]["from_step"] == 3


def test_a_run_that_was_only_begun_here_gives_way(far, tmp_path):
    travel.pack(far, tmp_path / "parts", 2**20, 8, quiet)
    home = State(tmp_path / "home")
    home.run_folder("a").mkdir(parents=True)
    write(home.run_folder("a"), network="convlstm", training={}, steps=0)
    travel.adopt(home, tmp_path / "parts", tmp_path / "published", quiet)
    assert read_record(home.run_folder("a"))["steps"] == 6


def test_parts_may_be_adopted_twice_and_exact_checkpoints_stay(far, tmp_path):
    travel.pack(far, tmp_path / "parts", 2**20, 8, quiet)
    before = {path.name: path.read_bytes() for path in far.run_folder("a").glob("checkpoints/*.pt")}
    copy = State(shutil.copytree(far.folder, tmp_path / "copy"))
    travel.adopt(copy, tmp_path / "parts", tmp_path / "published", quiet)
    assert {path.name: path.read_bytes() for path in copy.run_folder("a").glob("checkpoints/*.pt")} == before
    travel.pack(far, tmp_path / "parts", 40_000 + (far.run_folder("a") / "model.safetensors").stat().st_size, 1, quiet)
    for _ in range(2):  # without a checkpoint
        travel.adopt(State(tmp_path / "home"), tmp_path / "parts", tmp_path / "published", quiet)


def test_a_path_that_leads_out_of_the_folder_is_refused(far, tmp_path):
    for path in ("../a/run.json", "a/../../run.json", "/a/run.json", "a/x.py"):
        parts.write_parts(tmp_path / "parts", "c", {path: b"x"}, {}, 2**20)
        with pytest.raises(PlanError, match="no campaign writes"):
            travel.adopt(State(tmp_path / "home"), tmp_path / "parts", tmp_path / "published", quiet)


# --- the real notebooks ----------------------------------------------------------------------------------------------

REAL = """
[defaults]
digits = "uci"
test_sets = ["uci-2"]
clips = 20
minutes = 0.5
parameters = { batch_size = 2, validation_clips = 4, validate_every = 20, checkpoint_minutes = 0.05 }
[[run]]
name = "a"
network = "convlstm"
preset = "tiny"
priority = 1
"""


def real_campaign(folder, minutes):
    """The command line of a campaign of the plan above, on this machine's CPU, with all that it writes in a folder."""
    (folder / "plan.toml").write_text(REAL)
    given = {
        "--minutes": minutes,
        "--plan": folder / "plan.toml",
        "--state": folder / "state",
        "--runs": folder / "out",
    }
    words = [str(word) for item in given.items() for word in item]
    return [sys.executable, str(ROOT / "book" / "campaign.py"), *words, "--device", "cpu"]


@pytest.mark.slow
def test_killed_at_random_moments_a_real_campaign_comes_to_its_end(tmp_path):
    command = real_campaign(tmp_path, minutes=1.5)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    moments = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        time.sleep(moments.uniform(15, 40))
        process.send_signal(signal.SIGKILL)
        process.wait()
    for _ in range(6):  # a kill may have cost all of a short run's time
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
        if done.returncode != 75:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_record(tmp_path / "out" / "a")
    steps = [(session["from_step"], session["to_step"]) for session in record["sessions"]]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(steps)) and steps[-1][1] == record["steps"]
    assert set(load_scores(tmp_path / "out" / "a")) >= {"uci-2/rollout"}
    assert "all done" in done.stdout


@pytest.mark.slow
def test_an_interrupted_campaign_ends_with_a_checkpoint_and_says_that_there_is_more(tmp_path):
    process = subprocess.Popen(
        real_campaign(tmp_path, minutes=9),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    folder = tmp_path / "state" / "a" / "checkpoints"
    deadline = time.monotonic() + 200
    # The first one comes before the first step.
    while len(list(folder.glob("*.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 75, out
    assert "more to do: a" in out
    assert read_record(tmp_path / "state" / "a")["sessions"][-1]["ended"] in ("SIGINT", "SIGTERM")
