"""Plant every small fault in the code that makes published numbers, one after the other, and see whether a test notices.

    make mutants                             all parts: some 2,000 faults, five hours of one core
    make mutants ARGS="metrics evaluation"   these

cosmic-ray changes an operator, a number or a condition in a clone of the last commit and runs the tests of that module. A
session is kept in _build/mutants; the same command goes on where it stopped, unless the module or its tests have changed
since. What survives is written to _build/mutants/<part>.txt, and the share of it is printed. At most a tenth may survive,
each with its reason in .ci/survivors.toml.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "_build" / "mutants"
LISTED = Path(__file__).with_name("survivors.toml")
TESTS = {  # whose numbers a reader sees: the module, and the tests that are there for it
    "metrics": "metrics",
    "evaluation": "evaluation all_predictions",
    "analysis/inference": "inference",
    "analysis/difficulty": "inference",
    "analysis/drift": "drift",
    "analysis/figures": "figures",
    "analysis/prior_work": "prior_work",
    "analysis/recognition": "recognition",
    "analysis/reporting": "reporting",
    "analysis/results": "results",
    "analysis/retrieval": "retrieval",
    "benchmark/reference": "reference",
    "benchmark/throughput": "throughput",
}
# Of the dozen operators that could stand in the place of another, the nearest one: who notices a + for a - notices a << too.
NEAREST = (
    "Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div", "Mod_Mul", "Pow_Mul", "BitAnd_BitOr",
    "Delete_USub", "Delete_Not", "Delete_Invert", "Eq_NotEq", "NotEq_Eq", "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt",
    "Is_IsNot", "IsNot_Is",
)  # fmt: skip
UNTOUCHED = [f"core/Replace(Binary|Unary|Comparison)Operator_(?!({'|'.join(NEAREST)})$)"]
CONFIG = """\
[cosmic-ray]
module-path = ["{module}"]
timeout = 120.0
excluded-modules = []
test-command = "{python} -m pytest -x -q -p no:cacheprovider -m 'not slow' {tests}"

[cosmic-ray.distributor]
name = "local"

[cosmic-ray.filters.operators-filter]
exclude-operators = {untouched}
"""


def tool(name: str, *arguments: str | Path, cwd: Path = ROOT, check: bool = True) -> str:
    """What a command of cosmic-ray prints; it and the tests import the clone."""
    environment = {**os.environ, "PYTHONPATH": str(cwd)}
    command = [str(Path(sys.executable).with_name(name)), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, check=check, stdout=subprocess.PIPE, text=True).stdout


def examine(part: str) -> tuple[int, list[str]]:
    """How many faults of a part were tested, and those that no test noticed, as the lines that they make."""
    module = Path("framepred") / f"{part}.py"
    tests = [f"tests/test_{name}.py" for name in TESTS[part].split()]
    name = part.replace("/", "-")
    clone = OUT / f"{name}-clone"  # of its own, so that parts can be examined side by side
    shutil.rmtree(clone, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    contents = [(clone / path).read_bytes() for path in [module, *tests]]
    digest = hashlib.sha256(b"".join([str(UNTOUCHED).encode(), *contents])).hexdigest()[:12]
    session = OUT / f"{name}-{digest}.sqlite"
    config = OUT / f"{name}.toml"
    config.write_text(CONFIG.format(module=module, python=sys.executable, tests=" ".join(tests), untouched=UNTOUCHED))
    if not session.exists():
        tool("cosmic-ray", "baseline", config, cwd=clone)  # the tests pass as long as nothing is planted
        tool("cosmic-ray", "init", config, session, cwd=clone)
        tool("cr-filter-operators", session, config, cwd=clone)
    tool("cosmic-ray", "exec", config, session, cwd=clone)
    (OUT / f"{name}.txt").write_text(tool("cr-report", "--show-diff", "--surviving-only", session))
    shutil.rmtree(clone)
    return tested(session)


def tested(session: Path) -> tuple[int, list[str]]:
    """Of a session; faults that were left out do not count, though cr-rate counts them as noticed."""
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import WorkerOutcome

    with use_db(session, WorkDB.Mode.open) as database:
        results = [result for _, result in database.results if result.worker_outcome != WorkerOutcome.SKIPPED]
    return len(results), [planted(result.diff) for result in results if not result.is_killed]


def planted(diff: str) -> str:
    """What a fault makes of the lines that it changes, or those that it removes: without line numbers, on one line."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++", "@@"))]
    added, removed = ([line[1:] for line in lines if line.startswith(sign)] for sign in "+-")
    return " ".join(" ".join(added or ["without", *removed]).split())


def reasons(part: str) -> dict[str, str]:
    """Why a fault of a part may survive, by what is planted."""
    listed = tomllib.loads(LISTED.read_text(encoding="utf-8")).get(part, {})
    return {line: reason for reason, lines in listed.items() for line in lines}


def main(parts: list[str]) -> int:
    if unknown := [part for part in parts if part not in TESTS]:
        print(f"unknown part {unknown[0]!r}; known: {', '.join(TESTS)}", file=sys.stderr)
        return 2
    OUT.mkdir(parents=True, exist_ok=True)
    wrong = False
    for part in parts or TESTS:
        n, survivors = examine(part)
        unlisted = sorted(set(survivors) - reasons(part).keys())
        share = len(survivors) / n
        print(f"{part}: {len(survivors)} of {n} faults survive, {share:.1%}; {len(unlisted)} of them without a reason")
        print("".join(f"    {line}\n" for line in unlisted), end="", flush=True)
        wrong = wrong or share > 0.1 or bool(unlisted)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
