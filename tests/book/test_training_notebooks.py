"""The training notebooks, run as a reader runs them: by papermill, without a network, on a machine without MNIST."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas
import papermill
import pytest

from framepred import TrainConfig
from framepred.models import NETWORKS
from framepred.runs import load_scores, read_record
from framepred.runs.published import CHECKOUT
from framepred.training.config import RECIPE

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "book" / "train.py"
TRAIN = ROOT / "book" / "training" / "train.ipynb"
UNFINISHED = 75  # EX_TEMPFAIL
SLOW_OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("evaluate", "report", "throughput")]
SMALL = {"preset": "tiny", "digits": "uci", "batch_size": 2, "validation_clips": 4, "validate_every": 10}


def start(folder: Path, notebook: str, **parameters) -> subprocess.Popen:
    """`make train`, without make."""
    given = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("FRAMEPRED_DATA", None)
    command = [sys.executable, str(SCRIPT), notebook, *given]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(folder: Path, notebook: str, **parameters) -> tuple[int, str]:
    process = start(folder, notebook, **parameters)
    output, _ = process.communicate(timeout=500)
    return process.returncode, output


def test_parameters_are_those_of_the_config_and_a_few_more():
    known = set(papermill.inspect_notebook(str(TRAIN)))
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert fields <= known
    more = {
        "network",
        "preset",
        "digits",
        "n_digits",
        "acceleration",
        "out",
        "warm_start",
        "processes",
        "checkpointing",
    }
    assert known - fields == {*more, "KNOWN"}


def test_what_is_not_given_is_the_recipe_that_the_published_runs_have():
    about = papermill.inspect_notebook(str(TRAIN))
    assert next(iter(about)) == "network"
    given = {name: ast.literal_eval(about[name]["default"]) for name in vars(TrainConfig())}
    assert {name: given[name] for name in RECIPE} == RECIPE
    plan = {name: given[name] for name in ("steps", "validate_every")}
    assert TrainConfig(**given) == TrainConfig.recipe(**plan)


@pytest.mark.parametrize("notebook", ["convlstm", *SLOW_OTHERS])
def test_a_parameter_that_the_notebook_does_not_know_is_an_error(notebook, tmp_path):
    code, output = run(tmp_path, notebook, learningrate=0.1)
    assert code == 1 and "unknown parameters: learningrate" in output
    assert list(tmp_path.iterdir()) == []


def test_a_network_is_named_once(tmp_path):
    code, output = run(tmp_path, "convlstm", network="vpn")
    assert code == 2 and output.endswith("convlstm is to be trained, but the parameter network is 'vpn'\n")
    code, output = run(tmp_path, "vpm")
    assert code == 2 and "invalid choice: 'vpm'" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"network": "vpm"}, "ValueError: unknown network 'vpm'; known: convlstm, spatiotemporal, vpn, predrnn, simvp"),
        ({"checkpointing": True}, "ValueError: checkpointing is for vpn only, and network is 'convlstm'"),
        ({"batch_size": 0}, "ValueError: batch_size is 0: input should be greater than or equal to 1"),
    ],
)
def test_notebook_refuses_what_no_network_can(given, message, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError) as error:
        papermill.execute_notebook(str(TRAIN), None, given, kernel_name="python3", cwd=tmp_path, progress_bar=False)
    assert f"{error.value.ename}: {error.value.evalue}" == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_notebook_trains_then_resumes_and_is_kept_and_the_run_is_evaluated(network, tmp_path):
    folder = tmp_path / "runs" / f"{network}-tiny"
    own = {"loss_on": "horizon", "teacher_forcing": 0} if network == "simvp" else {}
    for steps in (10, 20):
        code, output = run(tmp_path, network, steps=steps, **SMALL, **own)
        assert code == 0, output
        record = read_record(folder)
        assert record["steps"] == steps
    assert [session["from_step"] for session in record["sessions"]] == [0, 10]
    notebook = nbformat.read(folder / "train.ipynb", 4)
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in data and "text/plain" in data for data in shown) >= 2, "a learning curve and a film strip"
    assert ["framepred-static" in data.get("text/html", "") for data in shown].count(True) == (
        network == "spatiotemporal"
    )

    code, output = run(tmp_path, "evaluate", run=folder, test_sets="uci-2 uci-1", n=3, n_others=2)
    assert code == 0, output
    protocols = ["rollout", "one-step", *(["teacher-forced"] if network == "vpn" else [])]
    shapes = {key: scores.shape for key, scores in load_scores(folder).items()}
    assert shapes == {f"{name}/{p}": (n, 10) for name, n in (("uci-2", 3), ("uci-1", 2)) for p in protocols}
    assert (folder / "samples.npz").is_file() and (folder / "evaluate.ipynb").is_file()
    again = run(tmp_path, "evaluate", run=folder, test_sets="uci-2 uci-1", n=3, n_others=2)[1]
    assert again.count("there already") == len(shapes)


@pytest.mark.slow
def test_a_report_of_a_run_is_made_in_its_notebook(tmp_path):
    before = {path: path.read_bytes() for path in (CHECKOUT / "convlstm-book").iterdir()}
    code, output = run(tmp_path, "report", run="convlstm-book", n=20, source="uci")
    assert code == 0, output
    folder = tmp_path / "runs" / "reports" / "convlstm-book"
    page = (folder / "index.html").read_text()
    assert "<h1>convlstm-book on moving digits</h1>" in page
    notebook = nbformat.read(folder / "report.ipynb", 4)
    shown = [o.data.get("text/html", "") for c in notebook.cells for o in c.get("outputs", []) if "data" in o]
    titles = [title for html in shown for title in re.findall("<h3>(.*)</h3>", html)]
    assert sorted(titles) == sorted(path.stem for path in folder.glob("*.csv"))  # no table is forgotten
    errors = pandas.read_csv(folder / "errors.csv")
    (html,) = [html for html in shown if "nats per frame" in html and "calibrated copy" in html]
    assert all(number in html for number in errors["nats per frame"])
    assert {path: path.read_bytes() for path in (CHECKOUT / "convlstm-book").iterdir()} == before


def record_steps(folder):
    record = read_record(folder)
    return record["steps"] if record else 0


@pytest.mark.slow
def test_interrupt_ends_the_training_with_a_checkpoint_and_the_notebook_goes_on(tmp_path):
    process = start(tmp_path, "convlstm", steps=100_000, checkpoint_minutes=0, **SMALL)
    folder = tmp_path / "runs" / "convlstm-tiny"
    deadline = time.monotonic() + 120
    while record_steps(folder) == 0 and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == UNFINISHED, output
    record = read_record(folder)
    assert 0 < record["steps"] < 100_000
    assert record["sessions"][-1]["ended"] == "SIGINT"
    assert (folder / "train.ipynb").is_file()


@pytest.mark.slow
def test_exit_code_tells_a_run_that_is_to_go_on_from_one_that_is_done(tmp_path):
    code, output = run(tmp_path, "convlstm", steps=100_000, minutes=0.02, **SMALL)
    assert code == UNFINISHED and "the same call resumes" in output, output
    steps = read_record(tmp_path / "runs" / "convlstm-tiny")["steps"]
    assert 0 < steps < 100_000
    assert run(tmp_path, "convlstm", steps=steps, **SMALL)[0] == 0  # no more is asked for
    few = {**SMALL, "validate_every": 1, "log_every": 1}
    code, output = run(tmp_path, "convlstm", steps=100_000, patience=1, out="patient", **few)
    record = read_record(tmp_path / "patient")
    assert code == 0 and record["sessions"][-1]["ended"] == "patience", output
    record["sessions"][-1]["ended"] = "minutes"  # as if stopped there, and the patience were new
    (tmp_path / "patient" / "run.json").write_text(json.dumps(record))
    code, output = run(tmp_path, "convlstm", steps=100_000, patience=1, out="patient", **few)
    assert code == 0 and read_record(tmp_path / "patient") == record, output


@pytest.mark.slow
def test_notebook_trains_in_two_processes(tmp_path):
    code, output = run(tmp_path, "convlstm", steps=6, processes=2, **SMALL)
    assert code == 0, output
    sessions = json.loads((tmp_path / "runs" / "convlstm-tiny" / "run.json").read_text())["sessions"]
    assert [session["processes"] for session in sessions] == [2]


@pytest.mark.slow
def test_notebook_that_failed_is_kept_in_the_folder_of_its_run(tmp_path):
    code, output = run(tmp_path, "convlstm", steps=20, learning_rate=3e38, **SMALL)
    assert code == 1 and "Traceback" in output  # the optimiser's: no number of float32 is so large
    assert (tmp_path / "runs" / "convlstm-tiny" / "train-failed.ipynb").is_file()


@pytest.mark.slow
def test_another_run_in_the_folder_is_left_alone(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text("{}")
    code, output = run(tmp_path, "vpn", out=other, steps=2, **SMALL)
    assert code == 1 and "was not written by framepred" in output
    assert [path.name for path in other.iterdir()] == ["run.json"]
