"""`run.json`: what makes a run the one it is, and where its numbers come from."""

from __future__ import annotations

import datetime
import inspect
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

import torch

from framepred.data.moving import MovingDigits
from framepred.files import write_text
from framepred.models import PRESETS
from framepred.models.base import FramePredictor

PACKAGE = Path(__file__).parents[1]
IDENTITY = ("network", "architecture", "parent", "training", "digits", "clips", "validation")  # of run.json


class Provenance(TypedDict, total=False):
    """What a number needs beside it to be traced."""

    commit: str | None  # None if the code came without its history, and nobody said
    modified: bool  # whether the code differed from the commit
    versions: dict[str, str]
    hardware: str
    written: str  # when, in ISO 8601


class Session(Provenance):
    """One call of `framepred.train`."""

    from_step: int
    to_step: int
    seconds: float
    # "finished", "patience", "minutes", "SIGINT", "SIGTERM"; None while it goes on, or if it was killed
    ended: str | None
    processes: int


class Kept(TypedDict):
    """The weights that a run has kept: the "best" ones of its validations or the "last" ones."""

    which: str
    step: int
    validation_nats: float | None


class RunRecord(Provenance, total=False):
    """`run.json`. A run that has claimed its folder and made no step yet has the part of `describe`, and 0 steps."""

    # Who it is: IDENTITY, and what follows from it.
    network: str
    preset: str | None  # None for a variant
    parent: str | None  # the run whose weights it started from
    seed: int
    parameters: int
    architecture: dict[str, Any]
    training: dict[str, Any]  # the fields of TrainConfig
    digits: dict[str, str]  # source, split, sha256
    clips: dict[str, float]  # the arguments of MovingDigits
    validation: dict[str, dict] | None  # its digits and clips
    # How far it is; the provenance is that of the last session.
    steps: int
    clips_seen: int
    seconds: float
    ended: str | None
    processes: int
    sessions: list[Session]
    kept: Kept
    # What came after.
    test_sets: dict[str, dict[str, Any]]  # by "test set/protocol": clips, and the sha256 of their frames
    weights: str | None  # their precision in a published copy; None if it comes without them


def describe(
    model: FramePredictor,
    clips: MovingDigits,
    training: Mapping[str, Any],
    validation: MovingDigits | None = None,
    parent: str | None = None,
) -> RunRecord:
    """What makes a run the one it is: the network, what it is trained on and how. The first part of `run.json`."""
    return as_json(
        {
            "network": model.network,
            "preset": _preset(model),
            "parent": parent,
            "seed": training["seed"],
            "parameters": sum(p.numel() for p in model.parameters()),
            "architecture": model.arguments,
            "training": training,
            **_describe_clips(clips),
            "validation": _describe_clips(validation) if validation else None,
        }
    )


def _describe_clips(clips: MovingDigits) -> dict[str, Any]:
    digits = clips.digits
    return {
        "digits": {"source": digits.source, "split": digits.split, "sha256": digits.digest},
        "clips": {key: getattr(clips, key) for key in ("n_digits", "n_frames", "frame_size", "speed", "acceleration")},
    }


def _preset(model: FramePredictor) -> str | None:
    """The name of the preset that the network was built from; None if it is none of them."""
    arguments = inspect.signature(type(model)).parameters
    defaults = {name: argument.default for name, argument in arguments.items()}
    for name, preset in PRESETS.get(model.network, {}).items():  # none for a network of one's own
        if as_json({**defaults, **preset}) == as_json(model.arguments):
            return name
    return None


def as_json(value: Any) -> Any:
    """The value as JSON gives it back: tuples become lists."""
    return json.loads(json.dumps(value))


def read_record(folder: Path) -> RunRecord | None:
    """The `run.json` of a folder; None if there is none."""
    path = Path(folder) / "run.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["network"], record["training"]
    except (ValueError, TypeError, KeyError) as error:
        raise FileExistsError(f"{path} was not written by framepred; choose another folder") from error
    return record


def write_record(folder: Path, record: RunRecord) -> None:
    """Write `run.json`."""
    text = json.dumps(as_json(record), indent=2)
    write_text(Path(folder) / "run.json", text + "\n")


def provenance(device: torch.device) -> Provenance:
    """Of what is computed here and now.

    Where the code came without its history, the environment variable FRAMEPRED_COMMIT may name the commit.
    """
    from framepred import __version__

    hardware = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{_cpu_name()}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    )
    names = ("torch", "numpy", "accelerate")
    ours = _git("ls-files", "--error-unmatch", "__init__.py") is not None  # and not of whatever lies around us
    return {
        "commit": (_git("rev-parse", "HEAD") if ours else None) or os.environ.get("FRAMEPRED_COMMIT"),
        "modified": ours and bool(_git("status", "--porcelain", "--", ".")),
        "versions": {
            "framepred": __version__,  # also where it is not installed, but on the path
            **{name: version(name) for name in names},
            "python": platform.python_version(),
        },
        "hardware": hardware,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=PACKAGE, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
