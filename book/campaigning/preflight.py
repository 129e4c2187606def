"""Whether a machine has what a campaign needs: asked before it costs anything, and said in one line each.

`packages_missing` needs nothing but Python, because it runs before the package is imported.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from campaigning.plan import ROOT, Run

EXTRA = ("papermill", "ipykernel")  # of the book's packages, those that run a notebook
SECONDS = {"plain": 60, "compiled": 180}  # after which a step is given up
TRIALS = 60  # seconds after which no further network is tried
KILLED = -9  # the exit code of a process that Linux ends to have its memory: Windows knows no SIGKILL
# The parameters of a run that decide what one step of it computes.
OF_A_STEP = (
    "accumulate",
    "channels_last",
    "context",
    "feedback",
    "horizon",
    "loss_on",
    "optimizer",
    "precision",
    "teacher_forcing",
)
BYTES = 60  # of disk for each parameter: weights, average, best and optimiser, in three checkpoints


# --- packages --------------------------------------------------------------------------------------------------------


def packages_missing(pyproject: Path = ROOT / "pyproject.toml") -> list[str]:
    """The requirements of a campaign that are not met here, as pip takes them."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    book = [line for line in project["optional-dependencies"]["book"] if _name(line) in EXTRA]
    return [line for line in [*project["dependencies"], *book] if not _met(line)]


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return found[0]


def _met(requirement: str) -> bool:
    try:
        version = metadata.version(_name(requirement))
    except metadata.PackageNotFoundError:
        return False
    try:
        from packaging.requirements import Requirement
    except ImportError:  # then any version must do
        return True
    return Requirement(requirement).specifier.contains(version, prereleases=True)


def download_line(missing: Iterable[str]) -> str:
    """The command that fetches packages for this machine, to be given where there is a network.

    By a Python of this version: pip asks what packages need "if python_version < …" of the Python that runs it.
    """
    machine = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if machine.startswith("linux"):
        kind = machine.removeprefix("linux_")
        names = [f"manylinux_2_28_{kind}", f"manylinux_2_17_{kind}", f"manylinux2014_{kind}"]
    else:
        names = [machine]
    platforms = " ".join(f"--platform {name}" for name in names)
    version = ".".join(platform.python_version_tuple()[:2])
    quoted = " ".join(f'"{line}"' for line in missing)
    return (
        f"python{version} -m pip download --only-binary=:all: --python-version {version} --implementation cp {platforms} "
        f"-d wheels {quoted}"
    )


INSTALL = "python -m pip install --no-index --no-deps --target site wheels/*.whl && export PYTHONPATH=$PWD:$PWD/site"


# --- the machine -----------------------------------------------------------------------------------------------------


@dataclass
class Findings:
    """The runs that can be made here, as they can be made, and what is known of them."""

    runs: list[Run] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    compile_off: set[str] = field(default_factory=set)
    step_seconds: dict[str, float] = field(default_factory=dict)


def digits_here(runs: Iterable[Run], say: Callable[[str], None]) -> list[Run]:
    """The runs on digits that are here, whose files are verified; those on others, on the bundled digits."""
    import framepred as fp

    here: dict[str, bool] = {}
    for source in dict.fromkeys(run.digits for run in runs):
        try:
            found = fp.load_digits(
                "auto" if source == "mnist" else source
            ).source  # "auto" asks the network but shortly
            here[source] = found == source
            reason = "they are not here"
        except (ConnectionError, FileNotFoundError, ValueError) as error:
            here[source], reason = False, str(error)
        if not here[source]:
            say(f"digits: no {source}: {reason}. Its runs use scikit-learn's digits, and publish nothing")
    return [run if here[run.digits] else run.on_bundled_digits() for run in runs]


def check_machine(folder: Path, device: str, say: Callable[[str], None]) -> None:
    """Say what the machine has, and what a published number would lack."""
    import psutil
    import torch

    from framepred.runs.record import provenance

    what = provenance(torch.device(device))
    disk, memory = shutil.disk_usage(folder).free / 2**30, psutil.virtual_memory().available / 2**30
    say(f"machine: {what['hardware']}; {memory:.1f} GiB of memory, {disk:.1f} GiB of disk; torch {torch.__version__}")
    if what["commit"] is None:
        say("commit: unknown here; `export FRAMEPRED_COMMIT=$(git rev-parse HEAD)` where the history is, to name it")


def check_runs(
    runs: Iterable[Run],
    folder: Path,
    device: str,
    say: Callable[[str], None],
    try_step: Callable[..., Any] | None = None,
    known: Collection[str] = (),
) -> Findings:
    """Take one step of every network: what fails is switched off (compile) or skipped (the run), and said.

    known: runs that were trained here before. They, and those that are left when `TRIALS` is over, are taken untried: the
    queue finds out.
    """
    found, tried, untried = Findings(), {}, []
    free, began = shutil.disk_usage(folder).free, time.monotonic()
    for run in runs:
        how = {
            "network": run.network, "preset": run.preset, "device": device,
            "checkpointing": run.parameters.get("checkpointing", False),
            "training": {"batch_size": run.batch_size}
            | {name: value for name, value in run.parameters.items() if name in OF_A_STEP},
        }  # fmt: skip
        compile_ = run.parameters.get("compile", False)
        ways = (False, compile_) if compile_ and device == "cuda" else (False,)
        new = any(json.dumps([how, way]) not in tried for way in ways)
        if run.name in known or (new and time.monotonic() - began > TRIALS):
            untried += [run.name] * (run.name not in known)
            found.runs.append(run)
            continue
        for way in ways:
            key = json.dumps([how, way])
            if key not in tried:
                tried[key] = (try_step or step_of)({**how, "compile": way})
        plain = tried[json.dumps([how, False])]
        if "error" in plain and "memory" not in plain["error"].lower():
            say(f"{run.name}: skipped, no step of it works here: {plain['error']}")
            found.skipped.append(run.name)
            continue
        if plain.get("parameters", 0) * BYTES > free:
            need = plain["parameters"] * BYTES / 2**30
            say(f"{run.name}: skipped, its checkpoints need {need:.1f} GiB of disk and {free / 2**30:.1f} are free")
            found.skipped.append(run.name)
            continue
        quick = tried.get(json.dumps([how, compile_]), plain)
        if compile_ and (device != "cuda" or "error" in quick):
            found.compile_off.add(run.name)
            say(f"{run.name}: compile is off: {quick.get('error', 'it pays on a GPU only')}")
            quick = plain
        if "seconds" in quick:
            found.step_seconds[run.name] = quick["seconds"]
        found.runs.append(run)
    if untried:
        say(f"not tried beforehand, to save time: {', '.join(untried)}")
    return found


def step_of(how: Mapping[str, Any]) -> dict[str, Any]:
    """Take steps of a network in a process of its own, which may die: {"seconds", "parameters"} or {"error"}."""
    from campaigning.commands import environment

    path = os.pathsep.join([str(ROOT / "book"), environment(how["device"])["PYTHONPATH"]])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "campaigning.preflight", json.dumps(how)],
            env={**environment(how["device"]), "PYTHONPATH": path},
            timeout=SECONDS["compiled" if how["compile"] else "plain"],
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired as error:
        if not how["compile"]:  # a busy machine is slow, and not broken
            return {}
        return {"error": f"nothing after {error.timeout:.0f} s"}
    if done.returncode == KILLED:
        return {"error": "it was killed, as where memory is out"}
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"error": lines[-1] if lines else f"exit code {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(how: Mapping[str, Any]) -> dict[str, Any]:
    """The step itself: three of them, of which the last one is timed."""
    import framepred as fp

    changes = {"checkpointing": True} if how["checkpointing"] else {}
    model = fp.build(how["network"], how["preset"], **changes).to(how["device"])
    config = fp.TrainConfig.recipe(**how["training"], steps=3, log_every=1, compile=how["compile"])
    history = fp.train(model, fp.MovingDigits(fp.load_digits("uci")), config)
    parameters = sum(p.numel() for p in model.parameters())
    return {"seconds": float(history["seconds"].diff().iloc[-1]), "parameters": parameters}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
