"""The pages as they are written: what each opens and ends with, its first cell, the repository's address."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
NUMBERED = [chapter for part in TOC["parts"] if part.get("numbered") for chapter in part["chapters"]]
FILES = [page["file"] for chapter in NUMBERED for page in [chapter, *chapter.get("sections", [])]]
OVERVIEWS = [chapter["file"] for chapter in NUMBERED if chapter.get("sections")]  # a table of the chapter's pages
LESSONS = [file for file in FILES if file not in OVERVIEWS]
NOTEBOOKS = [page for page in sorted((ROOT / "book").rglob("*.md")) if page.with_suffix(".ipynb").exists()]
TEXT = {".md", ".ipynb", ".py", ".toml", ".yml", ".cff", ".json"}


def source(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("file", LESSONS)
def test_a_page_says_first_what_one_will_learn_what_one_needs_and_how_long_it_runs(file):
    opening = source(file).partition("\n# ")[2].partition("\n## ")[0]
    parts = [opening.find(f"**{part}**") for part in ("You will", "You need", "Runtime")]
    assert -1 not in parts and parts == sorted(parts)
    assert opening[parts[0] : parts[1]].count("\n- ") >= 2


@pytest.mark.parametrize("file", LESSONS)
def test_a_page_ends_with_a_summary_and_exercises_with_solutions(file):
    text = source(file)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    if file == LESSONS[0]:  # the introduction
        pytest.skip("front matter")
    assert headings[-2:] == ["Summary", "Exercises"]
    exercises = re.findall(r"^[`:]{3,}\{exercise(?:-start)?\}[^\n]*\n:label: (\S+)", text, re.MULTILINE)
    solved = re.findall(r"^[`:]{3,}\{solution(?:-start)?\} (\S+)", text, re.MULTILINE)
    assert exercises and sorted(exercises) == sorted(solved)


def test_there_are_exercises_enough_in_the_chapters_after_the_introduction():
    counts = {
        chapter: sum(
            len(re.findall(r"^[`:]{3,}\{exercise(?:-start)?\}", source(file), re.MULTILINE))
            for file in LESSONS
            if Path(file).parts[1].startswith(chapter)
        )
        for chapter in "2345"
    }
    assert sum(counts.values()) >= 24 and all(counts[chapter] >= 3 for chapter in "234"), counts


def test_at_least_twelve_exercises_are_code_that_checks_itself():
    from framepred import exercises

    assert len(exercises.names()) >= 12


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.relative_to(ROOT / "book").as_posix())
def test_first_cell_installs_the_package_from_the_repository(page):
    first = re.search(r"```\{code-cell\}.*?```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert first is not None
    assert f'"framepred @ git+{ADDRESS}"' in first[0]


def files_with_text() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    paths = [ROOT / line for line in listed.stdout.splitlines()]
    return [
        path
        for path in paths
        if path.suffix in TEXT and path.is_file() and not {"runs", "tests"} & set(path.relative_to(ROOT).parts)
    ]


def test_the_repository_is_called_the_same_everywhere():
    """pyproject.toml says where it is; `python book/address.py` writes that everywhere else."""
    if not (paths := files_with_text()):
        pytest.skip("this is no git checkout")
    script = subprocess.run([sys.executable, "book/address.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert script.returncode == 0, script.stdout
    owner = ADDRESS.removeprefix("https://github.com/")
    others = {
        f"{path.relative_to(ROOT)}: {match}"
        for path in paths
        for match in re.findall(r"github(?:\.com)?/([\w.-]+/framepred)\b", path.read_text(encoding="utf-8"))
        if match != owner
    }
    assert not others
    assert source("README.md").count(ADDRESS) >= 2 and ADDRESS in source("CITATION.cff")


def test_moving_the_repository_changes_one_line_and_runs_one_command(tmp_path):
    copy = tmp_path / "copy"
    for path in files_with_text():
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    project = copy / "pyproject.toml"
    project.write_text(project.read_text().replace(ADDRESS, "https://github.com/a-school/video-course"))
    run = [sys.executable, str(copy / "book" / "address.py")]
    assert subprocess.run([*run, "--check"], capture_output=True).returncode == 1
    subprocess.run(run, check=True, capture_output=True)
    assert subprocess.run([*run, "--check"], capture_output=True).returncode == 0
    left = [path for path in copy.rglob("*") if path.is_file() and "framepred/framepred" in path.read_text()]
    assert left == []
    assert "github/a-school/video-course/blob/main" in (copy / "book" / "exercises" / "index.md").read_text()


@pytest.mark.slow
def test_first_cell_works_in_a_clean_environment(tmp_path):
    """As Colab runs it, but for the packages of the lock, which are not installed again: they lie on the path."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    environment = tmp_path / "clean"
    venv.create(environment, with_pip=True)
    python = next(environment.glob("*/python*"))
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    ).stdout.strip()
    import torch

    (Path(purelib) / "packages.pth").write_text(str(Path(torch.__file__).parents[1]) + "\n")
    first = re.search(r"```\{code-cell\}[^\n]*\n(?::tags:[^\n]*\n)?(.*?)```", source(LESSONS[0]), re.DOTALL)
    cell = first[1].replace(f"git+{ADDRESS}", f"git+file://{ROOT}@{commit.stdout.strip()}")
    assert "git+file" in cell
    # The checkout may itself be installed for the tests, in a way that the path hands on; the clean machine lacks it.
    hide = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in getattr(f, '__name__', repr(f)).lower()]\n"
    hide += f"sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}]\n"
    use = "\nimport importlib; importlib.invalidate_caches()\nimport framepred as fp; print(fp.__file__); fp.build('convlstm', 'tiny')\n"
    script = tmp_path / "cell.py"
    script.write_text(hide + cell + use)
    done = subprocess.run([python, script], cwd=tmp_path, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    if "hatchling" in done.stderr and "No matching distribution" in done.stderr:
        pytest.skip("the build back-end cannot be installed here (no package index)")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip().splitlines()[-1]).is_relative_to(environment)


def test_environment_for_binder_is_one_that_repo2docker_reads():
    """repo2docker takes environment.yml from the root, makes a conda environment of it, and starts Jupyter."""
    environment = yaml.safe_load(source("environment.yml"))
    assert environment["channels"] == ["conda-forge"]
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert "pip" in plain and any(entry.startswith("python=3.") for entry in plain)
    assert any(pin.startswith("jupyterlab==") for pin in pip) and "-e ." in pip
    assert not any(pin.startswith(("http:", "https:", "--", "/")) for pin in pip)
