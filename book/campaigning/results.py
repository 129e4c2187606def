"""What a campaign says of its runs: errors beside those of the thesis and the targets, and what is still to do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from campaigning.plan import Run
from campaigning.state import State


def protocols(run: Run) -> int:
    """The number of protocols that a network can be scored under: the VPN predicts pixel by pixel, too."""
    return 3 if run.network == "vpn" else 2


def result(folder: Path, key: str) -> dict[str, Any] | None:
    """The mean error of a scored run under "test set/protocol", and on how many clips; None if it is not there."""
    from framepred.runs import load_scores

    scores = load_scores(folder).get(key)
    return None if scores is None else {"key": key, "nats": float(scores.mean()), "clips": len(scores)}


def unscored(run: Run, folder: Path) -> list[str]:
    """The test sets of a run that its folder has no score of."""
    from framepred.runs import load_scores

    have = {key.split("/")[0] for key in load_scores(folder)}
    return [name for name in run.test_sets if name not in have]


def thesis(run: Run) -> float | None:
    """The thesis' nats of this network under this protocol, on its own test clips of MNIST; None if it gives none."""
    from framepred.analysis.prior_work import reported
    from framepred.analysis.results import LABELS

    rows = reported(run.protocol).query("cite == 'feist2021' and test_set == 'own'").set_index("network")["nats"]
    label = LABELS.get(run.network)  # None: a network that came after the thesis
    return float(rows[label]) if label in rows.index else None


def sentence(run: Run, found: dict[str, Any] | None) -> str:
    """A run's error, by how much it is below that of the thesis or above, and its target."""
    if found is None:
        return "no score yet"
    test_set, protocol = found["key"].split("/")
    said = [f"{found['nats']:.1f} nats per frame ({protocol}) on {found['clips']:,} clips of {test_set}"]
    before = thesis(run)
    if test_set != "mnist-2":
        if before is not None:
            said.append(f"which are not MNIST's digits, so the thesis' {before:.1f} is no measure for it")
    elif before is not None:
        gain = before - found["nats"]
        said.append(f"the thesis has {before:.1f}: {'beaten' if gain > 0 else 'missed'} by {abs(gain):.1f}")
    if run.target is not None and test_set == "mnist-2":
        said.append(f"target {run.target:g}: {'reached' if found['nats'] <= run.target else 'not yet'}")
    return "; ".join(said)


def summary(runs: Iterable[Run], state: State, skipped: Iterable[str]) -> tuple[list[str], int]:
    """The last lines of a campaign, and its exit code: 0 all done, 75 more to do, 1 something failed."""
    lines, failed, open_ = [], list(skipped), []
    for run in runs:
        entry = state.runs.get(run.name, {})
        if "failed" in entry:
            failed.append(run.name)
        if entry.get("status") == "done":
            lines.append(f"{run.name}: {sentence(run, entry.get('result'))}; {entry.get('published', 'adopted')}")
        elif run.name not in failed:
            open_.append(run.name)
    if open_:
        lines.append(f"more to do: {', '.join(open_)}; the same command goes on")
    if failed:
        lines.append(f"failed: {', '.join(dict.fromkeys(failed))}; the same command tries again")
    elif not open_:
        lines.append("all done; --more goes on with longer runs")
    return lines, 1 if failed else 75 if open_ else 0
