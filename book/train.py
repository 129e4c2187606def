"""Train a network in its notebook, or run the one that evaluates, reports or measures, from a terminal.

    python book/train.py convlstm -p preset patched -p minutes 10
    python book/train.py evaluate -p run runs/convlstm-patched
    python book/train.py report -p run runs/convlstm-patched
    python book/train.py throughput

Parameters are those of the notebook's first cell; a network's name runs train.ipynb with that `network`. The notebook with
its outputs is kept in the run's folder. Ctrl-C and SIGTERM end the training with a checkpoint, and the notebook goes on to
its last figures.

The exit code is 0 when all is done: a training its steps, or as many as its patience allows. It is 75 (EX_TEMPFAIL) when a
training ran out of time or was interrupted: the same call goes on. It is 1 after an error, and 2 if the call is wrong.
"""

import argparse
import ast
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import papermill
import psutil

from framepred import runs
from framepred.models import NETWORKS

FOLDER = Path(__file__).parent / "training"
OTHERS = ("evaluate", "report", "throughput")  # notebooks that train nothing
UNFINISHED = getattr(os, "EX_TEMPFAIL", 75)  # Windows has no name for it
# Errors of our own checks, whose message says all.
OURS = ("ValueError", "FileExistsError", "FileNotFoundError", "ConnectionError", "PermissionError")


def value(text: str):
    """What was typed, as Python reads it: a number, True, None; else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parameters(notebook: Path, given: dict) -> dict:
    """All parameters of a notebook: those given, and its defaults."""
    about = papermill.inspect_notebook(str(notebook))
    return {**{key: value(parameter["default"]) for key, parameter in about.items()}, **given}


def run_folder(notebook: Path, values: dict) -> Path:
    """Where the notebook will put its run; its own rule, needed here to keep the notebook there."""
    if notebook.stem == "evaluate":
        return runs.run_folder(values["run"])
    if notebook.stem == "report":
        return Path(values["out"] or f"runs/reports/{runs.run_folder(values['run']).name}")
    if notebook.stem == "throughput":
        return Path(values["out"])
    return Path(values["out"] or f"runs/{values['network']}-{values['preset']}")


def sessions(folder: Path) -> list[dict]:
    """The sessions of the run there; none if there is no run yet."""
    try:
        return (runs.read_record(folder) or {}).get("sessions", [])
    except FileExistsError:  # the notebook will say what is wrong
        return []


def interrupt_kernel(*_) -> None:
    """Pass a signal on to the notebook's kernel, which is alone in its session and would not get it."""
    for child in psutil.Process().children():
        child.send_signal(signal.SIGINT)


def keep(executed: Path, as_name: str, notebook: Path, values: dict) -> None:
    """Copy an executed notebook to the folder of its run, if it came so far that there is one."""
    try:
        folder = run_folder(notebook, values)
    except (FileNotFoundError, ConnectionError):
        return
    if folder.is_dir():
        to = folder / as_name
        shutil.copyfile(executed, to.with_suffix(".part"))
        to.with_suffix(".part").replace(to)
        print(f"kept: {to}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*NETWORKS, *OTHERS], help="a network to train, or another notebook")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
    arguments = parser.parse_args()
    what, given = arguments.what, {key: value(text) for key, text in arguments.p}
    trains = what in NETWORKS
    if trains:
        if given.get("network", what) != what:
            parser.error(f"{what} is to be trained, but the parameter network is {given['network']!r}")
        given["network"] = what
    notebook = FOLDER / f"{'train' if trains else what}.ipynb"
    values = parameters(notebook, given)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt_kernel)
    before = sessions(run_folder(notebook, values)) if trains else []
    with tempfile.TemporaryDirectory() as folder:
        executed = Path(folder) / notebook.name
        try:
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                given,
                kernel_name="python3",
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
            )
        except papermill.PapermillExecutionError as error:
            if trains and error.ename == "KeyboardInterrupt":  # before the first step, or after the last one
                print(f"{what}: interrupted; the same call goes on", file=sys.stderr)
                return UNFINISHED
            if error.ename not in OURS:  # no check of ours, so where it happened matters
                print(*error.traceback, sep="\n", file=sys.stderr)
                keep(executed, f"{notebook.stem}-failed.ipynb", notebook, values)
            print(f"{what}: {error.ename}: {error.evalue}", file=sys.stderr)
            return 1
        keep(executed, executed.name, notebook, values)
    after = sessions(run_folder(notebook, values)) if trains else []
    if after == before:  # there was nothing left to do, by the steps or the patience of this call
        return 0
    return 0 if after[-1]["ended"] in ("finished", "patience") else UNFINISHED


if __name__ == "__main__":
    sys.exit(main())
