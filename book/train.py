"""Run a training notebook, or the one that evaluates or measures, from a terminal.

    python book/train.py convlstm -p preset patched -p minutes 10
    python book/train.py evaluate -p run runs/convlstm-patched
    python book/train.py throughput

Parameters are those of the notebook's first cell. The notebook with its outputs is kept in the run's folder. Ctrl-C and
SIGTERM end the training with a checkpoint, and the notebook goes on to its last figures.
"""

import argparse
import ast
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import papermill
import psutil

from framepred import runs

NOTEBOOKS = Path(__file__).parent / "training"
# Errors of our own checks, whose message says all.
OURS = ("ValueError", "FileExistsError", "FileNotFoundError", "ConnectionError", "PermissionError")


def value(text: str):
    """What was typed, as Python reads it: a number, True, None; else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def run_folder(name: str, given: dict) -> Path:
    """Where the notebook will put its run; its own rule, needed here to keep the notebook there."""
    defaults = {key: value(about["default"]) for key, about in papermill.inspect_notebook(path_of(name)).items()}
    values = {**defaults, **given}
    if name == "evaluate":
        return runs.run_folder(values["run"])
    if name == "throughput":
        return Path(values["out"])
    return Path(values["out"] or f"runs/{name}-{values['preset']}")


def path_of(name: str) -> str:
    return str(NOTEBOOKS / f"{name}.ipynb")


def interrupt_kernel(*_) -> None:
    """Pass a signal on to the notebook's kernel, which is alone in its session and would not get it."""
    for child in psutil.Process().children():
        child.send_signal(signal.SIGINT)


def keep(executed: Path, as_name: str, notebook: str, given: dict) -> None:
    """Copy an executed notebook to the folder of its run, if it came so far that there is one."""
    try:
        folder = run_folder(notebook, given)
    except (FileNotFoundError, ConnectionError):
        return
    if folder.is_dir():
        to = folder / as_name
        shutil.copyfile(executed, to.with_suffix(".part"))
        to.with_suffix(".part").replace(to)
        print(f"kept: {to}", flush=True)


def main() -> int:
    names = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", choices=names)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
    arguments = parser.parse_args()
    given = {key: value(text) for key, text in arguments.p}
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt_kernel)
    with tempfile.TemporaryDirectory() as folder:
        executed = Path(folder) / f"{arguments.notebook}.ipynb"
        try:
            papermill.execute_notebook(
                path_of(arguments.notebook),
                str(executed),
                given,
                kernel_name="python3",
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
            )
        except papermill.PapermillExecutionError as error:
            if error.ename not in OURS:  # no check of ours, so where it happened matters
                print(*error.traceback, sep="\n", file=sys.stderr)
                keep(executed, f"{arguments.notebook}-failed.ipynb", arguments.notebook, given)
            print(f"{arguments.notebook}: {error.ename}: {error.evalue}", file=sys.stderr)
            return 1
        keep(executed, executed.name, arguments.notebook, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
