"""The checklist has a place for every section, table and figure of the thesis."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKLIST = (Path(__file__).parents[2] / "book" / "appendix" / "checklist.md").read_text(encoding="utf-8")

# From the thesis' table of contents and lists of tables and figures.
THESIS = {
    "Sections": [
        *(
            "1",
            "1.1",
            "2",
            *(f"2.{k}" for k in range(1, 8)),
            "3",
            "3.1",
            "3.2",
            "3.2.1",
            "3.2.2",
            "3.2.3",
            "3.3",
            "3.4",
        ),
        *("3.4.1", "4", "4.1", "4.2", "4.3", "4.4", "4.4.1", "4.4.2", "4.4.3", "4.5", "5", "5.1", "5.2", "5.3"),
    ],
    "Tables": ["2.1", "4.1", "4.2", "4.3", "4.4"],
    "Figures": [f"{chapter}.{k}" for chapter, n in ((2, 6), (3, 5), (4, 12)) for k in range(1, n + 1)],
    "Equations": [f"3.{k}" for k in range(1, 14)],
}


def numbers(cell: str) -> list[str]:
    """The first cell of a row: "3.1", "4.1, 4.2", "4.4 to 4.8" or "3.2–3.4" as single numbers."""
    found = []
    for part in cell.split(","):
        ends = re.fullmatch(r"\s*(\d)\.(\d+)(?: to |–)(\d)\.(\d+)\s*", part)
        found += [f"{ends[1]}.{k}" for k in range(int(ends[2]), int(ends[4]) + 1)] if ends else [part.strip()]
    return found


@pytest.mark.parametrize("kind", THESIS)
def test_everything_in_the_thesis_has_a_place(kind):
    section = CHECKLIST.partition(f"## {kind}\n")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| ")][2:]
    listed = [number for row in rows for number in numbers(row[1])]
    assert [number for number in THESIS[kind] if number not in listed] == []
    assert all(re.search(r"\{(ref|numref|eq)\}`", row[3]) for row in rows)
