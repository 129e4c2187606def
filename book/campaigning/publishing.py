"""From a scored run to a published one, and to the files that list and show the published ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from campaigning.commands import environment
from campaigning.plan import ROOT

PUBLISHED = ROOT / "book" / "runs"
FILES = ("config.json", "model.safetensors", "history.csv", "scores.npz", "samples.npz")


def validation_nats(record: dict[str, Any] | None) -> float | None:
    """The error on held-out digits of the weights that a run keeps."""
    return ((record or {}).get("kept") or {}).get("validation_nats")


def refusal(record: dict[str, Any], there: dict[str, Any] | None) -> str | None:
    """Why a run does not take the place of a published one, if so. Test errors have no say in it."""
    if there is None:
        return None
    ours, theirs = record["digits"]["source"], there["digits"]["source"]
    if ours != theirs:
        return f"the published run was trained on {theirs}, this one on {ours}"
    if there["network"] != record["network"]:
        return f"the published run is a {there['network']}"
    old, new = validation_nats(there), validation_nats(record)
    if new is None:
        return "it was not validated"
    if old is not None and new >= old:
        return f"its validation error, {new:.1f} nats, is not below the published run's {old:.1f}"
    return None


def _beside(to: Path) -> tuple[Path, Path]:
    """Where a run is made ready, and where the one before it waits to be removed."""
    return to.with_name(f".{to.name}.new"), to.with_name(f".{to.name}.old")


def publish(scored: Path, to: Path, weights: bool) -> None:
    """Put a copy of a scored run in the place of what is there: the whole of it, or nothing."""
    from framepred.runs import read_record
    from framepred.runs.record import write_record

    new, old = _beside(to)
    new.mkdir(parents=True)
    for name in FILES:
        if (scored / name).exists() and (weights or name != "model.safetensors"):
            shutil.copyfile(scored / name, new / name)
    record = read_record(scored)
    assert record is not None  # it was scored
    write_record(new, {**record, "weights": record["weights"] if weights else None})
    if to.exists():
        to.rename(old)
    new.rename(to)
    shutil.rmtree(old, ignore_errors=True)


def publish_if_better(name: str, scored: Path, published: Path, weights: bool) -> str:
    """Publish a scored run unless the one that is there is as good; what was done, as a part of a sentence."""
    from framepred.runs import read_record

    to = published / name
    for left_behind in _beside(to):  # by a campaign that was killed here; the registry would list it
        shutil.rmtree(left_behind, ignore_errors=True)
    record, there = read_record(scored), read_record(to)
    if record is None:
        return "not published: it was not scored"
    if there is not None and there["sessions"] == record["sessions"] and there["test_sets"] == record["test_sets"]:
        return "published already"
    if reason := refusal(record, there if there is None or there["sessions"] != record["sessions"] else None):
        return f"not published: {reason}"
    publish(scored, to, weights)
    return f"published in {name}"


# What is made from the published runs, after their registry: by which script, what it is, and how it is made by hand.
MADE = {
    "runs_page.py": ("the page of runs", "`make runs-page` where the book can be built"),
    "readme.py": ("the README", "`make readme` where MNIST is"),
}


def bring_up_to_date(published: Path) -> str | None:
    """Write the registry, the page of runs and the README anew, if the book's own runs changed; what went wrong, if any."""
    if published.resolve() != PUBLISHED.resolve():
        return None
    from framepred.runs.published import write_registry

    write_registry()
    trouble = []
    for script, (what, by_hand) in MADE.items():
        done = subprocess.run(
            [sys.executable, str(ROOT / "book" / script)], capture_output=True, text=True, env=environment("cpu")
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            trouble.append(f"{what} stays as it was ({last}); run {by_hand}")
    return "; ".join(trouble) or None
