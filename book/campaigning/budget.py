"""Minutes into steps and clips: how the time is shared, how fast a run is, and what it can do in the time that it has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from campaigning.plan import Run

if TYPE_CHECKING:
    import pandas

SCORING = 0.15  # the share of a run's time that is kept for scoring it
MARGIN = 0.95  # of the training time is planned; a machine may become slower
LAST_PART = 0.8  # of its steps after which a run's plan stays as it is: its learning rate should fall once
WORTH = 1.25  # times the plan: what is worth to change it in the last part, too
OVERHEAD = 15.0  # seconds that a call of a notebook takes beside its work, until they are measured
LEAST = 10.0  # seconds that are worth beginning something in
SLICE = 600.0  # seconds between two looks at the speed
FIRST_SLICE = 30.0
FIRST_ROWS = 30  # of the history that the first slice should have, to be measured by
FEWEST_CLIPS = 10  # that a score is worth something for


@dataclass(frozen=True)
class Speed:
    """How fast a run is on this machine: measured inside the run, by `measure`."""

    step: float  # seconds
    validation: float  # seconds
    start: float  # seconds until the first step, compilation included

    def steps_in(self, seconds: float, validate_every: int) -> int:
        """The steps that fit into a time at whose end the run is validated."""
        return max(0, int((seconds - self.start - self.validation) / (self.step + self.validation / validate_every)))

    def seconds_for(self, steps: int, validate_every: int) -> float:
        """The time of so many steps, with the validations among them and the one at their end."""
        return self.start + self.validation + steps * (self.step + self.validation / validate_every)


def fitting(runs: Sequence[Run], needs: Mapping[str, float], seconds: float) -> list[Run]:
    """The runs whose smallest budgets, `needs` in seconds by name, fit into a time together: the first ones first."""
    chosen, left = [], seconds
    for run in runs:
        if needs[run.name] <= left:
            chosen.append(run)
            left -= needs[run.name]
    return chosen


def shares(runs: Sequence[Run], needs: Mapping[str, float], seconds: float) -> dict[str, float]:
    """The seconds of each run: by its weight, and not below its need. They add up to `seconds`."""
    weighted, given, left = list(runs), {}, seconds
    while weighted:
        total = sum(run.weight for run in weighted)
        poor = [run for run in weighted if left * run.weight / total < needs[run.name]]
        if not poor:
            return given | {run.name: left * run.weight / total for run in weighted}
        for run in poor:
            given[run.name] = needs[run.name]
            left -= needs[run.name]
            weighted.remove(run)
    return given


def measure(history: pandas.DataFrame, record: Mapping[str, Any]) -> Speed:
    """The speed of a run's last session, from the times in its history.

    The first row's time holds the start, too, and that of a row with a validation the validation.
    """
    session = record["sessions"][-1]
    before = record["seconds"] - session["seconds"]
    steps = session["to_step"] - session["from_step"]
    rows = history[(history["step"] > session["from_step"]) & (history["seconds"] > before)]
    if rows.empty:
        return Speed(session["seconds"] / max(1, steps), 0.0, 0.0)
    spent, done = rows["seconds"].diff(), rows["step"].diff()
    judged = rows["validation_nats"].notna()
    plain = ~judged & done.gt(0)
    first, last = rows.iloc[0], rows.iloc[-1]
    if plain.any():
        step = float(spent[plain].sum() / done[plain].sum())
    else:  # too few to tell the first steps from the start
        step = float((first["seconds"] - before) / (first["step"] - session["from_step"]))
    extra = (spent - step * done)[judged & done.gt(0)]
    stop = session["seconds"] - (last["seconds"] - before)  # a row that ended with the stop came before its validation
    validation = float(extra.median()) if len(extra) else stop
    start = first["seconds"] - before - step * (first["step"] - session["from_step"]) - validation * judged.iloc[0]
    return Speed(step, max(0.0, float(validation)), max(0.0, float(start)))


def plan_steps(
    done: int, planned: int, seconds: float, speed: Speed, validate_every: int, first: bool, schedule: str = "one-cycle"
) -> int:
    """The steps in all with which a run ends in so many seconds.

    In the last part of a run they are those planned before, so that its learning rate falls once; unless the machine turns
    out so fast that `WORTH` times as many fit: then to let it rise again is the lesser evil.

    first: the plan before was a guess, from which nothing follows.
    """
    from framepred.training.schedule import steps_before_decay

    more = speed.steps_in(MARGIN * seconds, validate_every)
    falls = steps_before_decay(planned)
    if schedule == "warmup-stable-decay" and done > falls:  # grown, it goes back to where its rate fell
        grown = falls + more
        return grown if grown >= (1 if first else WORTH) * planned else planned
    if done >= LAST_PART * planned and done + more < WORTH * planned and not first:
        return planned
    return planned if done >= planned and not more else done + max(1, more)


def clips_in(seconds: float, per_clip: float, most: int) -> int:
    """How many clips can be scored in a time: a round number, `most` at most, and a few at least."""
    n = seconds / per_clip if per_clip > 0 else most
    for unit in (100, 10):
        if n >= unit:
            n = unit * math.floor(n / unit)
            break
    return int(max(min(FEWEST_CLIPS, most), min(n, most)))
