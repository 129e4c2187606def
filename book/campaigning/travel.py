"""Runs that travel: from a machine on which nothing stays, in parts of a limited size, and on to the next machine."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaigning import publishing
from campaigning.parts import listing, read_parts, room, write_parts
from campaigning.plan import NAME, PlanError
from campaigning.state import State

RUN = ("run.json", "config.json", "history.csv")
SCORED = ("run.json", "scores.npz", "samples.npz")
WEIGHTS, RESUME, STABLE = "model.safetensors", "resume.pt", "stable.pt"
KEPT = "kept"  # stands for weights that are those of model.safetensors
PATH = re.compile(rf"(scored/)?{NAME}/({'|'.join(map(re.escape, (*RUN, *SCORED, WEIGHTS, RESUME, STABLE)))})")


# --- packing ---------------------------------------------------------------------------------------------------------


def pack(state: State, folder: Path, part_bytes: int, parts: int, say: Callable[[str], None]) -> list[Path]:
    """Write the runs of a campaign in parts: what came of them first, then what they need to go on.

    Raises:
        PlanError: if there is no run yet, or the parts are too small for anything.
        FileExistsError: if a campaign is at work there, whose runs change meanwhile.
    """
    from framepred.runs.folder import held

    left = room(parts, part_bytes)
    names = [name for name in state.runs if (state.run_folder(name) / WEIGHTS).is_file()]
    if not names:
        raise PlanError(f"{state.folder} holds no trained run to pack; give the --state of a campaign")
    with held(state.folder):
        return _pack(state, names, folder, part_bytes, left, say)


def _pack(
    state: State, names: list[str], folder: Path, part_bytes: int, left: int, say: Callable[[str], None]
) -> list[Path]:
    """Write what fits of these runs."""
    names.sort(key=lambda name: state.runs[name].get("priority", 0))
    files: dict[str, bytes] = {}
    stages = {
        "scores and history": _small,
        "weights": _weights,
        "what it needs to go on": _resume,
        "what it needs to become longer": _stable,
    }
    for what, read in stages.items():
        for name in names:
            new = {path: content for path, content in read(state, name).items() if path not in files}
            if len(listing(files | new, state.runs)) + sum(map(len, (files | new).values())) > left:
                size = sum(map(len, new.values())) / 2**20
                say(f"{name}: left behind: {what} ({size:.1f} MiB do not fit any more)")
            else:
                files |= new
    about = {name: state.runs[name] for name in names if f"{name}/run.json" in files}
    paths = write_parts(folder, state.campaign, files, about, part_bytes)
    say(f"packed {len(about)} runs in {len(paths)} parts, {sum(map(len, files.values())) / 2**20:.1f} MiB, in {folder}")
    return paths


def _small(state: State, name: str) -> dict[str, bytes]:
    from framepred.runs import read_record

    files = {f"{name}/{file}": state.run_folder(name) / file for file in RUN}
    run, scored = (read_record(folder) for folder in (state.run_folder(name), state.scored_folder(name)))
    if run and scored and run["sessions"] == scored["sessions"]:  # trained on since, it has scores of other weights
        files |= {f"scored/{name}/{file}": state.scored_folder(name) / file for file in SCORED}
    return {path: file.read_bytes() for path, file in files.items() if file.is_file()}


def _weights(state: State, name: str) -> dict[str, bytes]:
    """The kept weights in float32, unless they are of no use but to go on."""
    if not state.runs[name].get("weights", True):
        return {}
    return {f"{name}/{WEIGHTS}": (state.run_folder(name) / WEIGHTS).read_bytes()}


def _resume(state: State, name: str) -> dict[str, bytes]:
    """The checkpoint that a run goes on from: as a rule, the last one."""
    last, stable = _checkpoints(state.run_folder(name))
    return _packed(state, name, STABLE, stable) if last is None else _packed(state, name, RESUME, last)


def _stable(state: State, name: str) -> dict[str, bytes]:
    """Beside the last checkpoint of a run whose rate is falling, the one that it grows from."""
    last, stable = _checkpoints(state.run_folder(name))
    return {} if last is None else _packed(state, name, STABLE, stable)


def _checkpoints(folder: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The checkpoints that a run goes on from: with the steps of its plan, and with more if that is another.

    They are as large as each other, and there is little room. A run that has made all its steps can only grow, so of the two
    it needs the second alone; what its rate fell to travels as its weights.
    """
    from framepred.training.checkpoints import grows_from, load_checkpoint

    last = load_checkpoint(folder / "checkpoints")
    stable = None if last is None else grows_from(folder / "checkpoints", last)
    if last is not None and stable is not None and last["done"]["step"] >= last["config"]["steps"]:
        return None, stable
    return last, stable


def _packed(state: State, name: str, file: str, checkpoint: dict[str, Any] | None) -> dict[str, bytes]:
    """A checkpoint, its optimiser's state in half precision, and without the weights that travel already."""
    import torch
    from safetensors.torch import load_file

    if checkpoint is None:
        return {}
    weights = state.run_folder(name) / WEIGHTS
    kept = load_file(weights)
    checkpoint["optimizers"] = _cast(checkpoint["optimizers"], torch.float32, torch.bfloat16)
    if _same(checkpoint["average"], kept):
        checkpoint["average"] = KEPT
    if checkpoint["done"]["best"] and _same(checkpoint["done"]["best"]["weights"], kept):
        checkpoint["done"]["best"]["weights"] = KEPT
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return {f"{name}/{WEIGHTS}": weights.read_bytes(), f"{name}/{file}": buffer.getvalue()}


def _same(weights: dict[str, Any] | None, kept: dict[str, Any]) -> bool:
    return weights is not None and set(weights) == set(kept) and all(weights[k].equal(kept[k]) for k in kept)


def _cast(tree: Any, old, new) -> Any:
    """A tree with its tensors of one type as another; numbers, such as Adam's count of steps, as they are.

    bfloat16, not float16: the squares that Adam keeps are far below the smallest number of float16.
    """
    import torch

    if isinstance(tree, torch.Tensor):
        return tree.to(new) if tree.dtype == old and tree.ndim else tree
    if isinstance(tree, dict):
        return {key: _cast(value, old, new) for key, value in tree.items()}
    return [_cast(value, old, new) for value in tree] if isinstance(tree, list) else tree


# --- adopting --------------------------------------------------------------------------------------------------------


def adopt(state: State, folder: Path, published: Path, say: Callable[[str], None]) -> None:
    """Bring the runs of parts into a campaign's folder, and publish those that are better than what is there.

    Everything is verified and made ready beside the folder first, so that nothing is adopted in part.

    Raises:
        PlanError: if the parts are not whole, or of another campaign.
    """
    campaign, entries, files = read_parts(folder)
    if strange := [path for path in files if not PATH.fullmatch(path)]:
        raise PlanError(f"the parts in {folder} hold {strange[0]!r}, which no campaign writes; pack again")
    if strange := [name for name in entries if not re.fullmatch(NAME, name)]:
        raise PlanError(f"the parts in {folder} hold a run {strange[0]!r}, which cannot be a folder's name; pack again")
    if state.runs and state.campaign != campaign:
        raise PlanError(
            f"the parts in {folder} are of another campaign ({campaign[:8]}) than {state.folder} "
            f"({state.campaign[:8]}); adopt them into another folder, with --state"
        )
    from framepred.runs.folder import held

    with held(state.folder):  # no campaign is at work there
        _bring_in(state, campaign, entries, files, published, say)


def _bring_in(
    state: State,
    campaign: str,
    entries: dict[str, dict[str, Any]],
    files: dict[str, bytes],
    published: Path,
    say: Callable[[str], None],
) -> None:
    """Adopt what was verified."""
    ready = State(state.folder / f".adopting-{os.getpid()}")
    try:
        for name in entries:
            _make_ready(ready, name, files)
        adopted = [name for name in entries if _take(state, ready, name, say)]
    finally:
        shutil.rmtree(ready.folder, ignore_errors=True)
    state.campaign = campaign
    state.runs |= {name: entries[name] for name in adopted}
    state.save()
    for name in adopted:
        state.runs[name]["published"] = _publish(state, name, published)
        say(f"{name}: adopted; {state.runs[name]['published']}")
    state.save()
    if trouble := publishing.bring_up_to_date(published):
        say(trouble)


def _make_ready(ready: State, name: str, files: dict[str, bytes]) -> None:
    """Write the folders of a run as the machine had them: with a checkpoint, if it has all that it needs."""
    from framepred.runs import publish

    run, scored = ready.run_folder(name), ready.scored_folder(name)
    for path, content in files.items():
        if path.rsplit("/", 1)[0] == name and not path.endswith((RESUME, STABLE)):
            run.mkdir(parents=True, exist_ok=True)
            (ready.folder / path).write_bytes(content)
    _write_checkpoints(run, files.get(f"{name}/{RESUME}"), files.get(f"{name}/{STABLE}"))
    if f"scored/{name}/run.json" in files:
        if (run / WEIGHTS).is_file():
            publish(run, scored)  # the half precision copy that was scored: made from the same weights, it is the same
        scored.mkdir(parents=True, exist_ok=True)
        for file in ("config.json", "history.csv"):
            shutil.copyfile(run / file, scored / file)
        for path, content in files.items():
            if path.startswith(f"scored/{name}/"):
                (ready.folder / path).write_bytes(content)


def _write_checkpoints(run: Path, resume: bytes | None, stable: bytes | None) -> None:
    """Write the last checkpoint and the one that a run grows from. One that comes alone is both: there the run goes on."""
    from framepred.training.checkpoints import save_checkpoint, save_stable

    for save, content in ((save_stable, stable), (save_checkpoint, resume or stable)):
        if content is not None:
            checkpoint = _unpacked(run, content)
            save(run / "checkpoints", checkpoint["done"]["step"], checkpoint)


def _unpacked(run: Path, content: bytes) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    checkpoint["optimizers"] = _cast(checkpoint["optimizers"], torch.bfloat16, torch.float32)
    if checkpoint["average"] == KEPT:
        checkpoint["average"] = load_file(run / WEIGHTS)
    best = checkpoint["done"]["best"]
    if best and best["weights"] == KEPT:
        best["weights"] = load_file(run / WEIGHTS)
    return checkpoint


def _take(state: State, ready: State, name: str, say: Callable[[str], None]) -> bool:
    """Put a run in the place of what is there, unless that is further: whether it did."""
    from framepred.runs import read_record

    new, old = (read_record(folder.run_folder(name)) for folder in (ready, state))
    assert new is not None  # it was packed
    if old is not None and _further(old, new):
        say(f"{name}: left as it is: here it has done {old['steps']:,} steps, there {new['steps']:,}")
        return False
    here, there = state.run_folder(name), ready.run_folder(name)
    if old is not None and old.get("sessions") == new["sessions"] and (here / "checkpoints").is_dir():
        shutil.rmtree(there / "checkpoints", ignore_errors=True)  # ours are whole and exact
        shutil.copytree(here / "checkpoints", there / "checkpoints")
    for source, target in ((there, here), (ready.scored_folder(name), state.scored_folder(name))):
        if source.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                target.rename(ready.folder / f"old-{target.parent.name}-{name}")
            source.rename(target)
    return True


def _further(here: dict[str, Any], there: dict[str, Any]) -> bool:
    """Whether a run is further here than there.

    If one has gone on from the other, it is, even with fewer steps: a run may grow from where its rate began to fall.
    """
    ours, theirs = ([session["written"] for session in record.get("sessions", [])] for record in (here, there))
    n = min(len(ours), len(theirs))
    if ours[:n] == theirs[:n] and len(ours) != len(theirs):
        return len(ours) > len(theirs)
    return here["steps"] > there["steps"]


def _publish(state: State, name: str, published: Path) -> str:
    entry, scored = state.runs[name], state.scored_folder(name)
    weights = entry.get("weights", True)
    if not entry.get("publish", True):
        return "not published: it was trained on other digits than planned"
    if not (scored / "run.json").is_file():
        return "not published: it was not scored"
    if weights and not (scored / WEIGHTS).is_file():
        return "not published: its weights stayed behind"
    return publishing.publish_if_better(name, scored, published, weights)
