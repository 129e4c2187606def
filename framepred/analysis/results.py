"""Which published runs the book shows, and their errors.

A network may have several runs: the small one of a laptop, a large one of a GPU. The book shows the best and names it. Which
is best is decided by validation: the test clips judge the choice, and have no part in it.
Runs that were made to answer another question, on other clips or with other kernels, are not among those to choose from.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from framepred.data.streams import shuffled
from framepred.models import FramePredictor
from framepred.models.flops import flops_per_clip
from framepred.runs import load, load_history, load_scores, run_folder, run_record
from framepred.runs.published import published_runs
from framepred.runs.record import IDENTITY, RunRecord
from framepred.training.config import MAY_CHANGE, TrainConfig

CLIPS = {"n_digits": 2, "n_frames": 20, "frame_size": 64, "speed": 0.1, "acceleration": 0.0}  # of the thesis
# A network whose training takes so many FLOPs a clip predicts a clip within about a second on two CPU cores.
MOST_FLOPS = 0.5e12
LABELS = {"convlstm": "ConvLSTM", "spatiotemporal": "spatio-temporal", "vpn": "VPN"}  # the thesis' networks


def comparable_runs(network: str | None = None) -> list[str]:
    """The published runs, of one network or of all of the thesis, that were trained for the book's main question.

    That is: one of the network's presets, trained in rollout, on clips as the thesis has them, and scored on two digits.
    A run on accelerated clips, one fed with the truth, and a variant with another kernel answer other questions, however
    small their error.
    """
    return [
        name
        for name in published_runs()
        if (record := run_record(name))["network"] in (LABELS if network is None else (network,))
        and record["preset"] is not None
        and record["training"]["feedback"] != "teacher-forcing"
        and record["clips"] == CLIPS
        and "mnist-2/rollout" in record["test_sets"]
    ]


def best_run(network: str) -> str:
    """The comparable run of a network with the least validation error.

    Raises:
        LookupError: if there is none; see `comparable_runs`.
    """
    if not (ranked := _from_best_to_worst(network)):
        raise LookupError(f"no published run of {network!r} has scores for mnist-2/rollout")
    return ranked[0]


def shown_runs() -> dict[str, str]:
    """The run that the book shows for each network, by the network's label: {"ConvLSTM": "convlstm-book", …}."""
    runs = {}
    for network, label in LABELS.items():
        try:
            runs[label] = best_run(network)
        except LookupError:
            continue
    return runs


def live_runs(most_flops: float = MOST_FLOPS, given: Mapping[str, str] = {}) -> dict[str, str]:
    """The runs whose networks a page can run, by label: the shown run, or else the best of its network that can be run.

    A run cannot be if it comes without its weights, or is so large that readers would wait for minutes. A line says which
    run stands in for it, or that none does, and its network is left out.

    Args:
        most_flops: for training on one clip, as `flops_per_clip` counts them.
        given: runs to take in place of the shown ones, by label.
    """
    runs = {}
    for label, shown in {**shown_runs(), **given}.items():
        others = [run for run in _from_best_to_worst(_network(shown)) if run != shown]
        run = next((run for run in (shown, *others) if _hindrance(run, most_flops) is None), None)
        if run != shown:
            instead = f"{run} predicts in its place" if run else "and no other run of the network can predict here"
            print(f"{label}: {shown} {_hindrance(shown, most_flops)}; {instead}")
        if run is not None:
            runs[label] = run
    return runs


def networks(runs: Mapping[str, str] | None = None, most_flops: float = MOST_FLOPS) -> dict[str, FramePredictor]:
    """The trained networks by label, ready to predict in a page; those of `live_runs` unless told.

    Of the runs that were named, one that cannot be run is left out, and a line says why: its scores can still be shown.

    Args:
        runs: names of published runs, or run folders, by label.
        most_flops: see `live_runs`.
    """
    if runs is None:
        runs = live_runs(most_flops)
    loaded = {}
    for label, run in runs.items():
        if (reason := _hindrance(run, most_flops)) is None:
            loaded[label] = load(run)
        else:
            print(f"{label}: {run} {reason}")
    return loaded


def errors(test_set: str, protocol: str, runs: Mapping[str, str] | None = None) -> dict[str, np.ndarray]:
    """Nats per clip and frame, float32 (clips, frames), by label, of the runs that were scored so.

    Args:
        runs: names of published runs, or run folders, by label; the shown ones unless told.
    """
    runs = shown_runs() if runs is None else runs
    scores = {label: load_scores(run_folder(run)) for label, run in runs.items()}
    key = f"{test_set}/{protocol}"
    return {label: arrays[key] for label, arrays in scores.items() if key in arrays}


def history(run: str, kept: bool = False) -> pd.DataFrame:
    """The history of a published run, after that of the weights that it started from, and so on to the first.

    Steps, clips and seconds are counted from the first run's start. A run keeps the weights of its best validation, so a
    run that started from another's goes on from there, and not from the other's last step.

    Args:
        kept: end at the step whose weights this run has kept, too. The last row then has the clips that they have seen.
    """
    record, own = run_record(run), load_history(run_folder(run))
    if kept:
        own = _until_kept(own, record)
    if record["parent"] not in published_runs():
        return own
    before = history(record["parent"], kept=True)
    for counted in ("step", "clips", "seconds"):
        own[counted] += before[counted].iloc[-1]
    return pd.concat([before, own], ignore_index=True)


def times_shown(run: str, n_glyphs: int) -> np.ndarray:
    """How often the weights of a published run were shown each training digit, (n_glyphs,), those of its parents included.

    Within a run every digit is shown once before any is shown again. A run that started from another's weights has a seed
    and so an order of its own, and meets some digits that its parent has met.

    Args:
        n_glyphs: in the training split, such as 55,000 of MNIST.
    """
    record = run_record(run)
    clips = int(_until_kept(load_history(run_folder(run)), record)["clips"].iloc[-1])
    passes, begun = divmod(clips * record["clips"]["n_digits"], n_glyphs)
    times = np.full(n_glyphs, passes)
    times[shuffled(n_glyphs, record["training"]["seed"], passes)[:begun]] += 1
    return times + times_shown(record["parent"], n_glyphs) if record["parent"] in published_runs() else times


def repeats(run: str) -> list[str]:
    """The published runs that differ from this one in their seed alone, this one among them, in order of their names.

    Their spread is the smallest difference between two networks that means something.
    """

    def apart_from_the_seed(name: str) -> dict:
        record: dict[str, Any] = {**run_record(name)}
        training = {key: value for key, value in record["training"].items() if key not in ("seed", *MAY_CHANGE)}
        return {**{key: record[key] for key in IDENTITY}, "training": training, "clips_seen": record["clips_seen"]}

    wanted = apart_from_the_seed(run)
    return sorted(name for name in published_runs() if name == run or apart_from_the_seed(name) == wanted)


def departures(run: str) -> dict[str, Any]:
    """How the training of a run departs from `TrainConfig.recipe`: the fields that differ, with their values.

    Not among them: the seed, how long it took, and how it was computed and watched.
    """
    record = run_record(run)
    recipe = dataclasses.asdict(TrainConfig.recipe())
    untold = {*MAY_CHANGE, "validate_every", "validation_clips", "seed"}
    return {k: v for k, v in record["training"].items() if k not in untold and v != recipe.get(k)}


def shown_table(to_appendix: str = "../appendix", runs: Mapping[str, str] | None = None):
    """For a page: its runs, each linked to its record, with the clips that its weights have seen and where.

    Args:
        to_appendix: the way from the page's folder to that of the page "Runs".
        runs: names of published runs by label; the shown ones unless told.
    """
    from IPython.display import HTML

    rows = {}
    for label, run in (shown_runs() if runs is None else runs).items():
        record = run_record(run)
        rows[label] = {
            "run": f'<a href="{to_appendix}/runs.html#run-{run}">{run}</a>',
            "parameters": f"{record['parameters']:,}",
            "clips seen": f"{history(run, kept=True)['clips'].iloc[-1]:,}",
            "hardware": record["hardware"],
        }
    html = pd.DataFrame(rows).T.to_html(escape=False, border=0)
    return HTML(f'<div style="overflow-x: auto">{html}</div>')


# --- inside ----------------------------------------------------------------------------------------------------------


def _from_best_to_worst(network: str) -> list[str]:
    """The comparable runs of a network, that with the least validation error first; one never validated comes last."""
    errors = {}
    for name in comparable_runs(network):
        record = run_record(name)
        nats = record["kept"]["validation_nats"]
        errors[name] = math.inf if nats is None else nats
    return sorted(errors, key=errors.__getitem__)


def _until_kept(own: pd.DataFrame, record: RunRecord) -> pd.DataFrame:
    """A run's own history up to the step whose weights it has kept."""
    return own[own["step"] <= record["kept"]["step"]].copy()


def _network(run: str) -> str:
    record = run_record(run)
    return record["network"]


def _hindrance(run: str, most_flops: float) -> str | None:
    """Why a page cannot run the network of a run, as the rest of a sentence; None if it can."""
    try:
        folder = run_folder(run)
    except ConnectionError:
        return "cannot be downloaded here"
    if not (folder / "model.safetensors").is_file():
        return "comes without its weights"
    return "is too large to run in a page" if _flops(folder) > most_flops else None


@lru_cache
def _flops(folder: Path) -> int:
    """Counted once in a page, since counting takes longer than loading."""
    return flops_per_clip(load(folder))
