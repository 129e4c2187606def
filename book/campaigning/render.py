"""The page book/training/full-scale.md, written from the plan."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from campaigning.plan import PLAN, Run

PAGE = PLAN.with_name("full-scale.md")
KINDS = {"cpu": "On two CPU cores", "cuda": "On a GPU"}
TEXT = """\
# The full-scale runs

<!-- made from plan.toml by `python book/campaign.py --render` -->

One command turns minutes of a machine into published runs, those first that are worth most:

```sh
make campaign MINUTES=15            # or, without make: python book/campaign.py --minutes 15
make campaign MINUTES=60 ARGS="--dry-run"
```

It looks at the machine, measures each run's speed while it trains, and chooses the steps so that the run ends in its share of the time with its learning rate at zero. Then it scores the run, and publishes it if its validation error is below that of the published one. The same command goes on after whatever ended it. Exit codes: 0 all done, 75 more to do, 1 something failed. `--only RUN…`, `--device cpu`, `--nice 19`, `--more` (longer runs) and `--state FOLDER` say more of what is wanted. How much a machine computes in a second, network by network, is another question: `make throughput`.

## What a machine without a network needs

- A checkout. If it comes without its history, name the commit: `export FRAMEPRED_COMMIT=$(git rev-parse HEAD)` where the history is.
- PyTorch, and the packages of `pyproject.toml`. The first lines of a campaign name those that are missing, with the command that fetches them as wheels for that machine. Give it to a Python of the same version, because pip asks that one what they need. It looks like this:

  ```sh
  python3.12 -m pip download --only-binary=:all: --python-version 3.12 --implementation cp \\
      --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \\
      -d wheels papermill ipykernel pooch anywidget jaxtyping
  ```

  ```sh
  python -m pip install --no-index --no-deps --target site wheels/*.whl
  export PYTHONPATH="$PWD:$PWD/site"     # the checkout first: the package needn't be installed
  ```
- The digits: `export FRAMEPRED_DATA=…`, a folder with the files of MNIST and, for the letters, of Omniglot and EMNIST. Without MNIST a campaign trains on scikit-learn's digits, and publishes nothing.
- `export HF_HUB_OFFLINE=1`, and no more is asked of a network.

## How a run comes home

```sh
python book/campaign.py --minutes 9 --pack parts     # on the machine: preflight, training, scores; then pack
python book/campaign.py --adopt parts --state runs/gpu     # at home
```

`--pack` writes parts of at most `--part-mib` MiB, at most `--parts` of them: scores, histories and weights first, then what a run needs to go on (its optimiser's state in half precision). What did not fit is said. `--adopt` checks every part before it changes anything; then it brings the published runs, their registry, the page of runs and the README up to date. A later machine goes on from there: pack `runs/gpu` at home, adopt the parts on the machine, and give `--more`.
"""


def page(runs: Iterable[Run]) -> str:
    """The whole page."""
    runs = list(runs)
    lines = [TEXT]
    for device, title in KINDS.items():
        rows = [_row(run) for run in runs if device in run.devices]
        if rows:
            head = "| priority | run | network | minutes, at least | share | target in nats | scored on |"
            lines += [f"## {title}", "", head, "| --: | --- | --- | --: | --: | --- | --- |", *rows, ""]
    return "\n".join(lines)


def _row(run: Run) -> str:
    from campaigning.results import thesis

    before = thesis(run)
    known = "" if before is None else f" (the thesis: {before:.1f})"
    target = "–" if run.target is None else f"{run.protocol} ≤ {run.target:g}{known}"
    scored = "–"
    if run.test_sets:
        scored = f"`{run.test_sets[0]}`: {run.clips:,} clips"
        if len(run.test_sets) > 1:
            scored += f"; {len(run.test_sets) - 1} others: {run.clips_others:,}"
    kind = f"{run.network} `{run.preset}`" + ("" if run.weights else ", without weights")
    return f"| {run.priority} | `{run.name}` | {kind} | {run.minutes:g} | {run.weight:g} | {target} | {scored} |"


def render(runs: Iterable[Run], check: bool, path: Path = PAGE) -> int:
    """Write the page; with `check`, only say whether it is the plan's. An exit code."""
    text = page(runs)
    if not check:
        path.write_text(text, encoding="utf-8")
        return 0
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        print(f"{path.name} is not what the plan says; run `python book/campaign.py --render`", file=sys.stderr)
        return 1
    return 0
