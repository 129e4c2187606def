"""Scoring a run in the time that is left: what the book shows first, and fewer clips where the time is short."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from campaigning import budget, results
from campaigning.budget import LEAST, OVERHEAD
from campaigning.commands import Outcome, RunFailed
from campaigning.plan import Run

if TYPE_CHECKING:
    from campaigning.queue import Queue

FIRST = 0.45  # of the time, for the first score
TRUSTED = 100  # clips after which a measured time says more than that of the validation


def score(queue: Queue, run: Run, entry: dict[str, Any]) -> bool:
    """Score the first test set under the protocol of the target, then all the rest; False if it was interrupted."""
    overhead = entry.get("overhead", OVERHEAD)
    ends = time.monotonic() + min(queue.left, max(entry["reserve"], 2 * overhead + 2 * LEAST))
    step, validation, _ = entry["speed"]
    per_clip = validation / run.parameters.get("validation_clips", 500) or step / run.batch_size
    seconds = (ends - time.monotonic()) * FIRST - overhead
    n = entry.setdefault("clips", budget.clips_in(seconds, per_clip, run.clips))
    queue.state.save()
    outcome = _evaluate(queue, run, ends, test_sets=run.test_sets[0], protocols=run.protocol, n=n)
    if outcome is None:
        return False
    entry["result"] = results.result(queue.state.scored_folder(run.name), f"{run.test_sets[0]}/{run.protocol}")
    queue.state.save()
    queue.say(f"{run.name}: {results.sentence(run, entry['result'])}")
    if queue.left < overhead:
        return True

    if n >= TRUSTED and outcome.seconds > overhead:
        per_clip = (outcome.seconds - overhead) / n
    protocols, others = results.protocols(run), len(run.test_sets) - 1
    seconds = ends - time.monotonic() - overhead
    n = budget.clips_in(seconds / 2 / (protocols - 1), per_clip, n)
    seconds -= n * per_clip * (protocols - 1)
    n_others = budget.clips_in(seconds / max(1, others * protocols), per_clip, run.clips_others)
    queue.say(
        f"{run.name}: other scores on {n:,} clips of {run.test_sets[0]}" + f", {n_others:,} of others" * bool(others)
    )
    if _evaluate(queue, run, ends, test_sets=" ".join(run.test_sets), n=n, n_others=n_others) is None:
        return False
    if without := results.unscored(run, queue.state.scored_folder(run.name)):
        queue.say(f"{run.name}: without a score: {', '.join(without)} (no time, or their glyphs are not here)")
    return True


def _evaluate(queue: Queue, run: Run, ends: float, **given: Any) -> Outcome | None:
    """Call the notebook that scores, with smaller batches when memory runs out; None if it was interrupted."""
    folder = queue.state.scored_folder(run.name)
    folder.parent.mkdir(exist_ok=True)
    batch = run.score_batch
    while True:
        minutes = round(max(60, ends - time.monotonic()) / 60, 4)  # the first score is always worth a minute
        given |= {
            "run": queue.state.run_folder(run.name), "publish": folder, "batch_size": batch, "minutes": minutes,
        }  # fmt: skip
        outcome = queue.call("evaluate", given, queue.state.folder / f"{run.name}.log")
        if queue.stopped():
            return None
        if outcome.fine:
            return outcome
        if not outcome.out_of_memory or batch == 1:
            raise RunFailed(f"its scoring failed: {outcome.reason}")
        batch //= 2
