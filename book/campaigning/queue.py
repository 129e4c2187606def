"""The queue: run after run is trained, scored and published, until the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaigning import budget, publishing
from campaigning.budget import LEAST, OVERHEAD, Speed
from campaigning.commands import Caller, Outcome, RunFailed
from campaigning.plan import Run
from campaigning.scoring import score
from campaigning.state import State

PATIENCE = 60  # seconds for a training that outlived its campaign
GUESS = 10_000  # steps, where nothing is known of the speed


@dataclass
class Queue:
    """A campaign at work.

    runs: those of the plan, the first first.
    deadline: when this call ends, in seconds of `time.monotonic`.
    published: the folder of the published runs.
    step_seconds: of one step by a run's name, from the preflight: the first guess.
    compile_off: the runs that cannot be compiled here.
    enough: the share of its smallest budget that a run must get: the preflight, too, takes its part of the minutes.
    """

    runs: list[Run]
    state: State
    call: Callable[[str, Mapping[str, Any], Path], Outcome]
    deadline: float
    published: Path
    step_seconds: Mapping[str, float] = field(default_factory=dict)
    compile_off: Collection[str] = ()
    enough: float = 0.95
    stopped: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda line: print(line, flush=True)

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    def work(self) -> None:
        """Go on until there is nothing to do, or no time. What fails is noted, and tried again by the next call."""
        failed: set[str] = set()
        while not self.stopped():
            runs = [run for run in self.runs if not self.state.done(run.name) and run.name not in failed]
            run = self._next(runs)
            if run is None:
                return
            entry = self.state.entry(run.name)
            entry.pop("failed", None)
            try:
                if not self._go_on(run, entry):
                    return
            except (RunFailed, OSError, ValueError) as error:  # of our own checks, and of the disk
                entry["failed"] = str(error)
                self.state.save()
                self.say(f"{run.name}: failed: {error}")
                failed.add(run.name)

    def _next(self, runs: list[Run]) -> Run | None:
        """The run to go on with: one that was begun, else the first one whose smallest budget fits. Begun, it has a share."""
        for run in runs:
            if run.name in self.state.runs:
                return run if self.left > LEAST else None
        needs = {run.name: self.enough * 60 * run.minutes for run in runs}
        fitting = budget.fitting(runs, needs, self.left)
        if not fitting:
            return None
        run = fitting[0]
        share = budget.shares(fitting, needs, self.left)[run.name]
        reserve = budget.SCORING * share if run.test_sets else OVERHEAD
        calls = min(OVERHEAD * (2 + share // budget.SLICE), share / 4)
        seconds = self._done(run)[1] + share - reserve - calls
        self.state.entry(run.name).update(
            status="training", until=seconds, reserve=reserve, slices=0, priority=run.priority,
            weights=run.weights, publish=run.publish, first=run.test_sets[0] if run.test_sets else None,
            protocol=run.protocol, target=run.target,
        )  # fmt: skip
        self.state.save()
        self.say(f"{run.name}: {share / 60:.1f} minutes, of which {reserve / 60:.1f} to score it")
        return run

    def _go_on(self, run: Run, entry: dict[str, Any]) -> bool:
        """Bring a run to its end, or as far as the time allows: whether it came to its end."""
        stages = {
            "training": (self._train, "trained"),
            "trained": (self._score, "scored"),
            "scored": (self._publish, "done"),
        }
        while entry["status"] in stages:
            work, then = stages[entry["status"]]
            if not work(run, entry):
                return False
            entry["status"] = then
            self.state.save()
        return True

    # --- training ----------------------------------------------------------------------------------------------------

    def _record(self, run: Run) -> dict[str, Any] | None:
        from framepred.runs import read_record

        return read_record(self.state.run_folder(run.name))

    def _train(self, run: Run, entry: dict[str, Any]) -> bool:
        """Train in slices until all steps are done; False if the time of this call ends before."""
        while not self.stopped():
            done, spent = self._done(run)
            remaining = entry["until"] - spent
            if entry["slices"]:
                speed, first = Speed(*entry["speed"]), entry["slices"] == 1
                every, schedule = run.parameters.get("validate_every", 250), run.parameters.get("schedule", "one-cycle")
                entry["steps"] = budget.plan_steps(done, entry["steps"], remaining, speed, every, first, schedule)
                # On a machine that became slower the last part of a run takes longer than was planned.
                remaining = max(remaining, speed.seconds_for(entry["steps"] - done, every))
            else:
                entry["steps"] = done + self._guess(run, entry, remaining)
            if entry["slices"] and done >= entry["steps"]:
                return True
            seconds = self._slice(run, entry, remaining)
            if seconds < LEAST / 5:
                return False
            self.state.save()
            if self._one_slice(run, entry, seconds):
                return True
        return False

    def _done(self, run: Run) -> tuple[int, float]:
        record = self._record(run)
        return (record["steps"], record.get("seconds", 0.0)) if record else (0, 0.0)

    def _guess(self, run: Run, entry: dict[str, Any], seconds: float) -> int:
        """The first plan, which the first slice corrects."""
        step = self._guessed_step(run, entry)
        return max(100, int(seconds / step)) if step else GUESS

    def _guessed_step(self, run: Run, entry: dict[str, Any]) -> float | None:
        """The seconds of a step as far as they are known before the first slice."""
        return entry["speed"][0] if "speed" in entry else self.step_seconds.get(run.name)

    def _log_every(self, run: Run, entry: dict[str, Any], seconds: float) -> int:
        """Steps between two rows of the history: in the first slice so few that a slow machine, too, has rows to measure."""
        usual = run.parameters.get("log_every", 10)
        if entry["slices"]:
            return usual
        step = self._guessed_step(run, entry)
        return min(usual, max(1, int(seconds / budget.FIRST_ROWS / step))) if step else 1

    def _slice(self, run: Run, entry: dict[str, Any], remaining: float) -> float:
        """The seconds of training in the next call of the notebook."""
        overhead = entry.get("overhead", OVERHEAD)
        room = self.left - overhead - (overhead if run.test_sets else 0)
        if not entry["slices"]:
            first = budget.FIRST_SLICE * (3 if entry.get("compile", run.parameters.get("compile")) else 1)
            return min(first, max(remaining / 4, LEAST / 2), room)
        if remaining > 1.5 * budget.SLICE:
            return min(budget.SLICE, room)
        return min(1.25 * max(remaining, LEAST) + LEAST, room)  # the last one; its steps end it before

    def _one_slice(self, run: Run, entry: dict[str, Any], seconds: float) -> bool:
        """Call the notebook once, and note what it says of the speed: whether the run has ended by itself."""
        done, before = self._done(run)[0], (self._record(run) or {}).get("sessions", [])
        entry.setdefault("accumulate", 1)
        entry.setdefault("compile", run.parameters.get("compile", False))
        if run.name in self.compile_off:
            entry["compile"] = False
        given = {
            "preset": run.preset, "digits": run.digits, "checkpoint_minutes": 2, "validate_every": 250, **run.parameters,
            "out": self.state.run_folder(run.name), "steps": entry["steps"], "minutes": round(seconds / 60, 4),
            "accumulate": entry["accumulate"], "compile": entry["compile"],
            "log_every": self._log_every(run, entry, seconds),
        }  # fmt: skip
        _wait_until_free(self.state.run_folder(run.name))
        outcome = self.call(run.network, given, self.state.folder / f"{run.name}.log")
        if self.stopped():
            return False
        if not outcome.fine:
            self._mend(run, entry, outcome)
            return False
        record = self._record(run)
        # Its new sessions tell whether it moved: a run that grows may go back to fewer steps than it had.
        new = (record or {}).get("sessions", [])[len(before) :]
        moved = any(session["to_step"] > session["from_step"] for session in new)
        if record is None or (not moved and done < entry["steps"]):
            raise RunFailed(f"made no step in {outcome.seconds:.0f} s; {self.state.folder / run.name}.log says more")
        self._note_speed(run, entry, record, outcome.seconds, moved)
        return record.get("ended") == "patience"

    def _note_speed(self, run: Run, entry: dict[str, Any], record: dict[str, Any], wall: float, moved: bool) -> None:
        from framepred.runs import load_history

        entry["slices"] += 1
        if moved:
            speed = budget.measure(load_history(self.state.run_folder(run.name)), record)
            entry["speed"] = [speed.step, speed.validation, speed.start]
            entry["overhead"] = max(1.0, wall - record["sessions"][-1]["seconds"])
            nats = publishing.validation_nats(record)
            judged = "" if nats is None else f", {nats:.1f} nats in validation"
            entry["clips_per_second"] = round(run.batch_size / speed.step, 2)
            what = f"step {record['steps']:,} of {entry['steps']:,}, {entry['clips_per_second']:.1f} clips/s"
            self.say(f"{run.name}: {what}{judged}")
        self.state.save()

    def _mend(self, run: Run, entry: dict[str, Any], outcome: Outcome) -> None:
        """Change what may have been the reason of a failure; the loop then tries again."""
        parts = 2 * entry["accumulate"]
        if entry["compile"] and (outcome.kernel_died or not outcome.out_of_memory):
            entry["compile"] = False
            self.say(f"{run.name}: failed with compile, which is now off: {outcome.reason}")
        elif outcome.out_of_memory and run.batch_size % parts == 0:
            entry["accumulate"] = parts
            what = "its kernel died, as without memory" if outcome.kernel_died else "out of memory"
            self.say(f"{run.name}: {what}; the batch of {run.batch_size} is now computed in {parts} parts")
        else:
            raise RunFailed(outcome.reason)
        self.state.save()

    # --- after it ----------------------------------------------------------------------------------------------------

    def _score(self, run: Run, entry: dict[str, Any]) -> bool:
        return score(self, run, entry) if run.test_sets else True

    def _publish(self, run: Run, entry: dict[str, Any]) -> bool:
        scored = self.state.scored_folder(run.name)
        if not run.publish:
            entry["published"] = "not published: it was trained on the bundled digits, because MNIST is not here"
        else:
            if not run.test_sets:
                from framepred.runs import publish

                publish(self.state.run_folder(run.name), scored, weights=run.weights)
            entry["published"] = publishing.publish_if_better(run.name, scored, self.published, run.weights)
        self.say(f"{run.name}: {entry['published']}")
        if trouble := publishing.bring_up_to_date(self.published):
            self.say(trouble)
        return True


def _wait_until_free(folder: Path) -> None:
    """Wait for the training of a campaign that was killed: told to stop, it writes its last checkpoint."""
    from framepred.runs.folder import held

    for _ in range(PATIENCE if folder.exists() else 0):
        try:
            with held(folder):
                return
        except FileExistsError:
            time.sleep(1)


def caller(device: str) -> Caller:
    """What calls the notebooks on this machine."""
    caller = Caller(device)
    caller.listen()
    return caller
