"""The plan of a campaign: which runs, in which order, what each needs and should reach. It is read from a TOML file."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PLAN = ROOT / "book" / "training" / "plan.toml"
DEVICES = ("cpu", "cuda")
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # of a run, and so of folders
PROTOCOLS = ("rollout", "one-step", "teacher-forced")
# What the campaign sets itself, from the time that there is.
OURS = ("preset", "digits", "out", "steps", "minutes", "accumulate", "warm_start", "processes")


class PlanError(ValueError):
    """What cannot be done as it was asked for; the message is one line that says what to do."""


@dataclass(frozen=True)
class Run:
    """One run of the plan.

    name: of its folder, and of the published run.
    minutes: the smallest useful budget, scoring included.
    weight: its share of the time that is left when every run has its smallest budget.
    target: nats per frame on the first test set, under `protocol`; None for a run that has none.
    test_sets: the first on `clips` clips, the others on `clips_others`; none for a run that is not scored.
    parameters: of the training notebook.
    weights: whether they are published; some are too large.
    publish: whether the run is published at all; not one that was trained on other digits than it was planned for.
    """

    name: str
    network: str
    preset: str
    priority: int
    minutes: float
    weight: float = 1.0
    devices: tuple[str, ...] = DEVICES
    protocol: str = "rollout"
    target: float | None = None
    digits: str = "mnist"
    test_sets: tuple[str, ...] = ("mnist-2",)
    clips: int = 10_000
    clips_others: int = 2_000
    score_batch: int = 25
    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: bool = True
    publish: bool = True

    @property
    def batch_size(self) -> int:
        return self.parameters.get("batch_size", 8)

    def on_bundled_digits(self) -> Run:
        """The run as it can be made where its digits are missing: an exercise, which is not published."""
        changes = {"digits": "uci", "publish": False, "test_sets": ("uci-2",) if self.test_sets else ()}
        return dataclasses.replace(self, name=f"{self.name}-uci", **changes)


def read_plan(path: Path) -> list[Run]:
    """The runs of a plan file, the most important first.

    Raises:
        PlanError: if the file is none, or a run of it cannot be.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"no plan at {path} ({error.strerror}); give its file with --plan") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is no TOML file: {error}") from error
    if unknown := sorted(set(tables) - {"defaults", "run"}):
        raise PlanError(f"{path} has a table {unknown[0]!r}; known are [defaults] and [[run]]")
    defaults, runs = tables.get("defaults", {}), []
    for table in tables.get("run", []):
        run = _run({**defaults, **table}, path)
        if run.name in {other.name for other in runs}:
            raise PlanError(f"{path} has two runs with the name {run.name!r}; give one of them another")
        runs.append(run)
    if not runs:
        raise PlanError(f"{path} holds no [[run]]; write one as in book/training/plan.toml")
    return sorted(runs, key=lambda run: run.priority)  # of equal ones, the one that stands first


def _run(table: dict[str, Any], path: Path) -> Run:
    """A run from its table, checked."""
    fields = {f.name: f for f in dataclasses.fields(Run)}
    where = f"{path}: run {table.get('name', '?')!r}"
    if unknown := sorted(set(table) - set(fields)):
        raise PlanError(f"{where} has {unknown[0]!r}; known are {', '.join(fields)}")
    needed = [name for name, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in needed if name not in table]:
        raise PlanError(f"{where} lacks {', '.join(missing)}")
    run = Run(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})
    _check_values(run, where)
    _check_network(run, where)
    return run


def _check_values(run: Run, where: str) -> None:
    if not isinstance(run.name, str) or not re.fullmatch(NAME, run.name) or run.name == "scored":
        raise PlanError(f"{where} cannot be the name of a folder; use letters, digits, '.', '_' and '-'")
    for name in ("minutes", "weight", "clips", "clips_others", "score_batch"):
        value = getattr(run, name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise PlanError(f"{where}: {name} is {value!r}; expected a positive number")
    if not run.devices or (other := [device for device in run.devices if device not in DEVICES]):
        given = repr(other[0]) if run.devices else "missing"
        raise PlanError(f"{where}: its device is {given}; known: {', '.join(DEVICES)}")
    if run.protocol not in PROTOCOLS:
        raise PlanError(f"{where}: unknown protocol {run.protocol!r}; known: {', '.join(PROTOCOLS)}")
    if taken := [name for name in OURS if name in run.parameters]:
        raise PlanError(f"{where}: the campaign chooses {taken[0]!r} itself; take it out of the parameters")


def _check_network(run: Run, where: str) -> None:
    """That the package knows what the run names."""
    import framepred as fp
    from framepred.data.test_sets import TEST_SETS
    from framepred.models import PRESETS

    if run.network not in PRESETS:
        raise PlanError(f"{where}: unknown network {run.network!r}; known: {', '.join(PRESETS)}")
    if run.preset not in PRESETS[run.network]:
        known = ", ".join(PRESETS[run.network])
        raise PlanError(f"{where}: there is no preset {run.preset!r} of {run.network}; known: {known}")
    if strange := [name for name in run.test_sets if name not in TEST_SETS]:
        raise PlanError(f"{where}: unknown test set {strange[0]!r}; known: {', '.join(TEST_SETS)}")
    fields = {f.name for f in dataclasses.fields(fp.TrainConfig)}
    try:
        fp.TrainConfig(**{key: value for key, value in run.parameters.items() if key in fields})
    except ValueError as error:
        raise PlanError(f"{where}: {error}") from error


def select(runs: list[Run], device: str, only: Iterable[str] = ()) -> list[Run]:
    """The runs for a kind of device; with `only`, those of them.

    Raises:
        PlanError: for an unknown run, or one that is not planned for this device.
    """
    by_name = {run.name: run for run in runs}
    for name in only:
        if name not in by_name:
            raise PlanError(f"unknown run {name!r}; the plan has {', '.join(by_name)}")
        if device not in by_name[name].devices:
            kinds = " or ".join(by_name[name].devices)
            raise PlanError(f"{name} is planned for {kinds}, and this is {device}; use --device, or change the plan")
    wanted = [run for run in runs if device in run.devices and (not only or run.name in set(only))]
    if not wanted:
        raise PlanError(
            f"the plan has no run for {device}; its devices: {', '.join(sorted({d for r in runs for d in r.devices}))}"
        )
    return wanted
