"""The page of runs, book/appendix/runs.md: a section for each published run that has weights or scores.

    python book/runs_page.py            after a run in book/runs came or went; the page's notebook follows
    python book/runs_page.py --check    fail if a section is missing, or left over

A new section says what the run's folder says. What somebody wrote in one that is there stays. A run that has but its history
stands in the table at the page's top, which the page makes itself.
"""

import json
import re
import sys
from pathlib import Path

import pairs

from framepred.analysis.results import departures
from framepred.runs import load_scores, run_folder, run_record
from framepred.runs.published import published_runs

BOOK = Path(__file__).parent
PAGE = BOOK / "appendix" / "runs.md"


def filled(page: str) -> str:
    """The page with the sections of today's published runs: new ones at its end, in the registry's order."""
    head, *sections = re.split(r"^(?=\(run-.+\)=$)", page, flags=re.MULTILINE)
    there = {section[len("(run-") : section.index(")=")]: section for section in sections}
    names = [name for name in published_runs() if has_section(name)]
    parts = [head, *(with_scores(name, section) for name, section in there.items() if name in names)]
    parts += [new_section(name) for name in names if name not in there]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def has_section(name: str) -> bool:
    folder = run_folder(name)
    return (folder / "model.safetensors").is_file() or bool(load_scores(folder))


def with_scores(name: str, section: str) -> str:
    """A section that shows the scores of its run, if the run has any today."""
    call = f'scores("{name}")'
    if not load_scores(run_folder(name)):
        return section.replace(cell(call), "")
    return section if call in section else f"{section.rstrip()}\n\n{cell(call)}"


def new_section(name: str) -> str:
    start = f"(run-{name})=\n## {name}\n\n{sentence(name)}\n\n"
    return with_scores(name, start + cell(f'provenance("{name}")'))


def cell(code: str) -> str:
    return f"```{{code-cell}} ipython3\n:tags: [hide-input]\n\n{code}\n```"


def sentence(name: str) -> str:
    """What a run is: network, preset, how it departs from the recipe, where it started, whether its weights are here."""
    record = run_record(name)
    assert record is not None  # published runs have one
    label = f"sec-{record['network']}"
    network = f"The network of {{ref}}`{label}`" if explained(label) else f"The network `{record['network']}`"
    preset = f"preset `{record['preset']}`" if record["preset"] else "a variant of a preset"
    differs = [f"`{key}={json.dumps(value)}`" for key, value in departures(name).items()]
    parent = record["parent"]
    start = f"the weights of `{parent}`" if parent else "fresh weights"
    if parent in published_runs() and has_section(parent):
        start = f"the weights of {{ref}}`{parent} <run-{parent}>`"
    return (
        f"{network}, {preset}, trained by the recipe of {{ref}}`sec-training`{' but with ' * bool(differs)}{', '.join(differs)}, "
        f"from {start} and with seed {record['seed']}. It is published with{'' if record['weights'] else 'out'} its weights."
    )


def explained(label: str) -> bool:
    """Whether a page of the book has this label."""
    return any(f"\n({label})=\n" in page.read_text(encoding="utf-8") for page in BOOK.rglob("*.md"))


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    new = filled(page)
    if "--check" in sys.argv:
        if new != page:
            print(f"{PAGE.name}: its sections are not those of the runs in book/runs; run `make runs-page`")
        return int(new != page)
    PAGE.write_text(new, encoding="utf-8")
    changed = pairs.update(PAGE) or new != page
    print(f"{PAGE.name}: {'brought up to date' if changed else 'up to date already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
