"""Which published runs the book shows, and their errors.

A network may have several runs: the small one of a laptop, a large one of a GPU. The book shows the best and names it.
Runs that were made to answer another question, on other clips or with other kernels, are not among those to choose from.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from framepred.config import MAY_CHANGE
from framepred.models import NETWORKS, FramePredictor
from framepred.published import published_runs
from framepred.runs import IDENTITY, load, load_history, load_scores, read_record, run_folder

CLIPS = {"n_digits": 2, "n_frames": 20, "frame_size": 64, "speed": 0.1, "acceleration": 0.0}  # of the thesis
LABELS = {"convlstm": "ConvLSTM", "spatiotemporal": "spatio-temporal", "vpn": "VPN"}


def comparable_runs(network: str | None = None) -> list[str]:
    """The published runs, of one network or of all, that were trained for the book's main question.

    That is: one of the network's presets, trained in rollout, on clips as the thesis has them. A run on accelerated
    clips, one fed with the truth, and a variant with another kernel answer other questions, however small their error.
    """
    return [
        name
        for name in published_runs()
        if (record := read_record(run_folder(name))) is not None
        and network in (None, record["network"])
        and record["preset"] is not None
        and record["training"]["feedback"] != "truth"
        and record["clips"] == CLIPS
    ]


def best_run(network: str) -> str:
    """The comparable run of a network with the least error on two digits under rollout; see `comparable_runs`.

    Raises:
        LookupError: if no such run of the network has been scored on "mnist-2".
    """
    errors = {}
    for name in comparable_runs(network):
        scores = load_scores(run_folder(name))
        if "mnist-2/rollout" in scores:
            errors[name] = scores["mnist-2/rollout"].mean()
    if not errors:
        raise LookupError(f"no published run of {network!r} has scores for mnist-2/rollout")
    return min(errors, key=errors.__getitem__)


def shown_runs() -> dict[str, str]:
    """The run that the book shows for each network, by the network's label: {"ConvLSTM": "convlstm-book", …}."""
    runs = {}
    for network in NETWORKS:
        try:
            runs[LABELS[network]] = best_run(network)
        except LookupError:
            continue
    return runs


def networks(runs: Mapping[str, str] | None = None) -> dict[str, FramePredictor]:
    """The trained networks by label, ready to predict; those of the shown runs unless told.

    A run whose weights were not published, or cannot be downloaded here, is left out: its scores can still be shown.
    """
    loaded = {}
    for label, run in (shown_runs() if runs is None else runs).items():
        try:
            loaded[label] = load(run)
        except (FileNotFoundError, ConnectionError):
            continue
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
    record, own = read_record(run_folder(run)), load_history(run_folder(run))
    assert record is not None  # published runs have one
    if kept and record["best"]:
        own = own[own["step"] <= record["best"]["step"]].copy()
    if record["parent"] not in published_runs():
        return own
    before = history(record["parent"], kept=True)
    for counted in ("step", "clips", "seconds"):
        own[counted] += before[counted].iloc[-1]
    return pd.concat([before, own], ignore_index=True)


def repeats(run: str) -> list[str]:
    """The published runs that differ from this one in their seed alone, this one among them, in order of their names.

    Their spread is the smallest difference between two networks that means something.
    """

    def apart_from_the_seed(name: str) -> dict:
        record = read_record(run_folder(name))
        assert record is not None  # published runs have one
        training = {key: value for key, value in record["training"].items() if key not in ("seed", *MAY_CHANGE)}
        return {**{key: record[key] for key in IDENTITY}, "training": training, "clips_seen": record["clips_seen"]}

    wanted = apart_from_the_seed(run)
    return sorted(name for name in published_runs() if name == run or apart_from_the_seed(name) == wanted)


def shown_table(to_appendix: str = "../appendix"):
    """For a page: the shown runs, each linked to its record, with the clips that its weights have seen and where.

    Args:
        to_appendix: the way from the page's folder to that of the page "Runs".
    """
    from IPython.display import HTML

    rows = {}
    for label, run in shown_runs().items():
        record = read_record(run_folder(run))
        assert record is not None  # published runs have one
        rows[label] = {
            "run": f'<a href="{to_appendix}/runs.html#run-{run}">{run}</a>',
            "parameters": f"{record['parameters']:,}",
            "clips seen": f"{history(run, kept=True)['clips'].iloc[-1]:,}",
            "hardware": record["hardware"],
        }
    html = pd.DataFrame(rows).T.to_html(escape=False, border=0)
    return HTML(f'<div style="overflow-x: auto">{html}</div>')
