"""Turn minutes of whatever machine there is into published runs.

    python book/campaign.py --minutes 15              train, score and publish what fits, the most important first
    python book/campaign.py --minutes 60 --dry-run    only say what would be done
    python book/campaign.py --pack FOLDER             write what is worth taking home, in parts
    python book/campaign.py --adopt FOLDER            bring the runs of such parts into this checkout

The plan is book/training/plan.toml. The same command goes on after whatever ended it, with its minutes anew. Exit codes:
0 all done, 75 more to do, 1 something failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package needn't be installed

from campaigning import preflight
from campaigning.plan import DEVICES, PLAN, ROOT, PlanError, Run, read_plan, select

PACKING = 20.0  # seconds of the time that are kept for it


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="the time there is, scoring included")
    parser.add_argument("--plan", type=Path, default=PLAN, metavar="FILE")
    parser.add_argument("--only", nargs="+", default=[], metavar="RUN", help="these runs of the plan")
    parser.add_argument("--device", help="cpu or cuda; what the machine has, unless told")
    parser.add_argument("--nice", type=int, default=0, metavar="N", help="let others have the machine first: up to 19")
    parser.add_argument("--state", type=Path, default=ROOT / "runs" / "campaign", metavar="FOLDER", help="of the work")
    parser.add_argument("--runs", type=Path, default=None, metavar="FOLDER", help="of published runs; book/runs")
    parser.add_argument("--more", action="store_true", help="go on with runs that are done: they become longer")
    parser.add_argument("--dry-run", action="store_true", help="print the plan with its minutes")
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="at the end, or without --minutes at once")
    parser.add_argument("--part-mib", type=float, default=15, metavar="MIB", help="the most that a part may have")
    parser.add_argument("--parts", type=int, default=8, metavar="N", help="the most parts there may be")
    parser.add_argument("--adopt", type=Path, metavar="FOLDER")
    parser.add_argument("--render", action="store_true", help="write book/training/full-scale.md")
    parser.add_argument("--check", action="store_true", help="fail if that page is not the plan's")
    return parser.parse_args(words)


def say(line: str) -> None:
    print(line, flush=True)


def device_of(given: str | None, dry: bool) -> str:
    """The kind of device to work on."""
    import torch

    if given is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if given not in DEVICES:
        raise PlanError(f"unknown device {given!r}; known: {', '.join(DEVICES)}")
    if given == "cuda" and not dry and not torch.cuda.is_available():
        raise PlanError("PyTorch sees no GPU here; use --device cpu")
    return given


def open_runs(runs: list[Run], state, minutes: float) -> list[Run]:
    """The runs with something to do; an error if the time is too short to begin one, and none was begun."""
    todo = [run for run in runs if not state.done(run.name)]
    least = min(todo, key=lambda run: run.minutes, default=None)
    if least and least.minutes > minutes and not any(run.name in state.runs for run in todo):
        raise PlanError(
            f"{minutes:g} minutes are fewer than the smallest useful budget, {least.minutes:g} of {least.name}; "
            f"give at least --minutes {least.minutes:g}"
        )
    return todo


def show(runs: list[Run], state, minutes: float, device: str) -> None:
    """The plan with the minutes of each run."""
    from campaigning import budget

    todo = open_runs(runs, state, minutes)
    needs = {run.name: 60 * run.minutes for run in todo}
    shares = budget.shares(budget.fitting(todo, needs, 60 * minutes), needs, 60 * minutes)
    say(
        f"{minutes:g} minutes on {device}, begun runs first; a part of each run's time, {budget.SCORING:.0%}, scores it"
    )
    for run in runs:
        what = f"{shares[run.name] / 60:6.1f} minutes" if run.name in shares else f"no time, needs {run.minutes:g}"
        if state.done(run.name):
            what = "done"
        elif run.name in state.runs:
            what = "begun"
        target = "" if run.target is None else f", target {run.target:g} nats ({run.protocol})"
        say(f"{run.priority:3d}  {run.name:32s} {what}{target}")


def reopen(runs: list[Run], state) -> None:
    """Let runs that are done become longer, if they have a checkpoint to go on from."""
    from framepred.training.checkpoints import list_checkpoints

    for run in runs:
        if state.done(run.name):
            if list_checkpoints(state.run_folder(run.name) / "checkpoints"):
                del state.runs[run.name]
            else:
                say(f"{run.name}: stays as it is, its checkpoint is not here")
    state.save()


def work(given: argparse.Namespace, runs: list[Run], device: str, state, published: Path) -> int:
    """A campaign, from the preflight to the last line."""
    from campaigning import results
    from campaigning.queue import Queue, caller

    from framepred.runs.folder import held

    began = time.monotonic()
    if given.nice:
        os.nice(given.nice)
    state.folder.mkdir(parents=True, exist_ok=True)
    with held(state.folder):
        state.save()
        runs = preflight.digits_here(runs, say)
        if given.more:
            reopen(runs, state)
        todo = open_runs(runs, state, given.minutes)
        preflight.check_machine(state.folder, device, say)
        able = [run for run in todo if run.name in state.runs or run.minutes <= given.minutes]
        known = [run.name for run in todo if "speed" in state.runs.get(run.name, {})]
        found = preflight.check_runs(able, state.folder, device, say, known=known)
        call = caller(device)
        deadline = began + 60 * given.minutes - (PACKING if given.pack else 0)
        enough = max(0.5, 0.98 * (deadline - time.monotonic()) / (60 * given.minutes))
        queue = Queue(
            found.runs, state, call, deadline, published,
            found.step_seconds, found.compile_off, enough, stopped=lambda: call.stopped,
        )  # fmt: skip
        queue.work()
        lines, code = results.summary(runs, state, found.skipped)
        for line in lines:
            say(line)
    return code


def main(words: list[str] | None = None) -> int:
    given = parse(words)
    if missing := preflight.packages_missing():
        say(f"packages: {', '.join(missing)} missing. Fetch them where there is a network, with a Python of the same")
        say("version, because pip asks that one what they need, and install them here:")
        say(f"  {preflight.download_line(missing)}\n  {preflight.INSTALL}")
    try:
        return campaign(given)
    except ImportError as error:
        say(f"without a package nothing can be done: {error}")
    except KeyboardInterrupt:  # before the first training, which would note it
        say("campaign: interrupted; the same command goes on")
        return 75
    except (PlanError, OSError) as error:  # OSError: no room, no permission, another campaign in the same folder
        say(f"campaign: {error}")
    return 1


def campaign(given: argparse.Namespace) -> int:
    """What the command line asks for.

    Raises:
        PlanError: if that is impossible.
    """
    from campaigning import travel
    from campaigning.publishing import PUBLISHED
    from campaigning.state import State

    if given.render:
        from campaigning.render import render

        return render(read_plan(given.plan), given.check)
    state = State(given.state.resolve())
    published = given.runs or PUBLISHED
    if given.adopt:
        travel.adopt(state, given.adopt, published, say)
        return 0
    code = 0
    if given.minutes is not None or not given.pack:
        code = train(given, state, published)
    if given.pack and not given.dry_run:
        try:
            travel.pack(state, given.pack, int(given.part_mib * 2**20), given.parts, say)
        except (PlanError, FileExistsError) as error:
            if given.minutes is None:
                raise
            say(f"nothing packed: {error}")
    return code


def train(given: argparse.Namespace, state, published: Path) -> int:
    """The minutes' work, or with --dry-run what it would be."""
    if given.minutes is None or not given.minutes > 0:
        raise PlanError("how long may it take? Give --minutes, such as --minutes 15")
    device = device_of(given.device, given.dry_run)
    runs = select(read_plan(given.plan), device, given.only)
    if given.dry_run:
        show(preflight.digits_here(runs, say), state, given.minutes, device)
        return 0
    return work(given, runs, device, state, published)


if __name__ == "__main__":
    sys.exit(main())
