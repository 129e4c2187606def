"""`make coursework`: nbgrader releases the exercises and marks what students hand in."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
MARKER = ROOT / ".venv-coursework" / "bin"
ASSIGNMENT = "2-background"


def call(*command, cwd=ROOT) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{MARKER}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if "No matching distribution found" in done.stderr:
        pytest.skip(f"nbgrader cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def hand_in(course: Path, student: str, change=lambda source: source) -> None:
    """What a student makes of the released notebook: its stubs filled in with the solutions, after a change."""
    release, source = (nbformat.read(course / k / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", 4) for k in ("release", "source"))
    for cell, solved in zip(release.cells, source.cells, strict=True):
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = change(solved.source)
    folder = course / "submitted" / student / ASSIGNMENT
    folder.mkdir(parents=True)
    nbformat.write(release, folder / f"{ASSIGNMENT}.ipynb")


@pytest.mark.slow
def test_a_right_submission_gets_all_points_and_a_wrong_one_loses_those_of_its_mistake(tmp_path):
    if not (ROOT / ".venv" / ".ready").exists() or shutil.which("make") is None:
        pytest.skip("`make coursework` builds on `make env`, which has not been run in this checkout")
    course = tmp_path / "course"
    call("make", "coursework", f"COURSE={course}")
    released = (course / "release" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb").read_text()
    assert "raise NotImplementedError" in released
    assert "SOLUTION" not in released and "HIDDEN" not in released and "seed=" not in released

    hand_in(course, "right")
    hand_in(course, "wrong", lambda source: source.replace("return x + y", "return y"))  # no shortcut
    call("nbgrader", "autograde", ASSIGNMENT, cwd=course)
    call("nbgrader", "export", cwd=course)
    with (course / "grades.csv").open() as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file) if row["assignment"] == ASSIGNMENT}
    assert {student: float(row["score"]) for student, row in rows.items()} == {"right": 7, "wrong": 5}
    assert float(rows["right"]["max_score"]) == 7

    call("nbgrader", "generate_feedback", ASSIGNMENT, cwd=course)
    feedback = (course / "feedback" / "wrong" / ASSIGNMENT / f"{ASSIGNMENT}.html").read_text()
    assert "the shortcut is missing" in feedback
