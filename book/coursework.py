"""The students' notebooks of the code exercises, made from the solution notebooks beside this file.

    python book/coursework.py                     write book/exercises/student/*.ipynb
    python book/coursework.py --check             fail if one is not up to date
    python book/coursework.py --release FOLDER    an nbgrader course: source, release and gradebook

What stands between `### BEGIN SOLUTION` and `### END SOLUTION` becomes `raise NotImplementedError`, and what stands
between `### BEGIN HIDDEN TESTS` and `### END HIDDEN TESTS` is left out: the markers are nbgrader's, which does the same
for a release. The points stand in the metadata of the cells.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).parent.parent
SOLUTIONS = ROOT / "book" / "exercises"
STUDENT = SOLUTIONS / "student"
CONFIG = jupytext.config.load_jupytext_configuration_file(str(ROOT / "pyproject.toml"))
STUB = "raise NotImplementedError  # your code here"
REGION = r"^([ \t]*)### BEGIN {0}\n(?:.*\n)*?[ \t]*### END {0}(?:\n|\Z)"
COURSE_CONFIG = f"""\
import os, pathlib, nbconvert
# The templates for feedback lie with the book's packages, not with nbgrader's.
os.environ.setdefault("JUPYTER_PATH", str(pathlib.Path(nbconvert.__file__).parents[4] / "share" / "jupyter"))
c = get_config()
c.CourseDirectory.course_id = "framepred"
c.IncludeHeaderFooter.header = ""
c.ClearSolutions.code_stub = {{"python": "{STUB}"}}
c.ExecutePreprocessor.timeout = 240
"""


def solutions() -> list[Path]:
    """The solution notebooks, one a chapter."""
    found = sorted(SOLUTIONS.glob("*.md"))
    return [path for path in found if path.read_text(encoding="utf-8").startswith("---\njupytext:")]


def read(solution: Path):
    """A solution notebook, with the same cell ids each time, so that only changes show in a diff."""
    notebook = jupytext.read(solution, config=CONFIG)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{solution.stem}-{number}"
    return notebook


def student_notebook(solution: Path):
    """A solution notebook without its solutions, its hidden tests, and what only nbgrader reads."""
    notebook = read(solution)
    for cell in notebook.cells:
        cell.metadata.pop("nbgrader", None)
        if cell.cell_type == "code":
            source = re.sub(REGION.format("SOLUTION"), rf"\1{STUB}\n", cell.source, flags=re.MULTILINE)
            source = re.sub(REGION.format("HIDDEN TESTS"), "", source, flags=re.MULTILINE)
            cell.source = source.rstrip("\n")
            if "### BEGIN" in cell.source or "### END" in cell.source:
                raise ValueError(f"{solution.name}: a marker without its partner in\n{cell.source}")
    notebook.metadata.pop("jupytext", None)  # it has no page to be paired with
    return notebook


def generate(check: bool) -> int:
    """Write the students' notebooks, or say which are not up to date."""
    stale = []
    for solution in solutions():
        path, text = STUDENT / f"{solution.stem}.ipynb", nbformat.writes(student_notebook(solution)) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
            if not check:
                STUDENT.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    orphans = [path for path in STUDENT.glob("*.ipynb") if not (SOLUTIONS / f"{path.stem}.md").exists()]
    for path in stale:
        print(
            f"{path.relative_to(ROOT)} {'differs from its solution; run `make exercises`' if check else 'was updated'}"
        )
    for path in orphans:
        print(f"{path.relative_to(ROOT)} has no solution notebook; delete it")
    return 1 if (check and stale) or orphans else 0


def release(course: Path) -> int:
    """An nbgrader course: what it needs to mark (source, gradebook), and what the students get (release)."""
    course.mkdir(parents=True, exist_ok=True)
    for folder in ("source", "release"):  # submissions and marks stay
        shutil.rmtree(course / folder, ignore_errors=True)
    (course / "nbgrader_config.py").write_text(COURSE_CONFIG)
    # nbgrader calls alembic by name.
    environment = {**os.environ, "PATH": str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]}
    for solution in solutions():
        folder = course / "source" / solution.stem
        folder.mkdir(parents=True)
        nbformat.write(read(solution), folder / f"{solution.stem}.ipynb")
        command = [sys.executable, "-m", "nbgrader", "generate_assignment", "--create", "--assignment", solution.stem]
        done = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout + done.stderr, file=sys.stderr)
            return done.returncode
    print(f"{course}: source (solutions, points, hidden tests), release (for students), gradebook.db")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--release", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    return release(arguments.release) if arguments.release else generate(arguments.check)


if __name__ == "__main__":
    sys.exit(main())
