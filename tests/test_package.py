"""The package as a whole: its names, what importing it does, what its wheel and environments hold."""

import importlib
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import framepred

CHECKOUT = Path(__file__).parents[1]


def python(code):
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_public_names_exist_and_are_listed_once():
    assert len(set(framepred.__all__)) == len(framepred.__all__)
    assert all(hasattr(framepred, name) for name in framepred.__all__)


def test_completion_offers_what_is_imported_later():
    assert {*framepred.__all__, "analysis", "runs"} <= set(dir(framepred))


def test_star_takes_no_name_that_others_give_to_their_variables():
    names = python("from framepred import *; print([n for n in dir() if not n.startswith('_')])")
    assert "'train'" in names and "'baselines'" in names
    assert not {"'data'", "'models'", "'runs'", "'metrics'", "'training'"} & set(names.strip("[]\n").split(", "))


def test_names_that_the_design_promises_are_public():
    promised = "load_digits MovingDigits test_set build load train TrainConfig evaluate cross_entropy entropy_floor"
    assert set(promised.split()) <= set(framepred.__all__)


@pytest.mark.parametrize("name", [module.name for module in pkgutil.walk_packages(framepred.__path__, "framepred.")])
def test_every_module_can_be_imported_and_says_what_it_is_for(name):
    assert importlib.import_module(name).__doc__


def test_public_functions_and_classes_are_documented():
    undocumented = [name for name in framepred.__all__ if callable(obj := getattr(framepred, name)) and not obj.__doc__]
    assert not undocumented


HEAVY = (
    "matplotlib",
    "seaborn",
    "pandas",
    "sklearn",
    "IPython",
    "ipywidgets",
    "anywidget",
    "torchmetrics",
    "keras",
    "pooch",
    "statsmodels",
)


DATA = "from framepred import MovingDigits, cross_entropy, load_digits, test_set"


def test_data_and_measures_import_nothing_that_only_some_need():
    loaded = python(f"import sys; {DATA}; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded.strip() == "[]"


IMPORT = """
import os, random, socket, warnings
import numpy, torch

def state():
    return (torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate(), torch.get_default_dtype(),
            torch.get_num_threads(), dict(os.environ), list(warnings.filters))

def connect(*args, **kwargs):
    raise SystemExit("importing opened a connection")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = connect
before = state()
from framepred import MovingDigits, cross_entropy, load_digits, test_set
names = "torch numpy random dtype threads environment warnings".split()
print([name for name, a, b in zip(names, before, state()) if a != b])
"""


def test_importing_data_and_measures_changes_no_random_state_no_setting_and_opens_no_connection():
    assert python(IMPORT).strip() == "[]"


def test_importing_data_and_measures_writes_no_file(tmp_path):
    code = f"import os; os.environ.update(HOME={str(tmp_path)!r}, XDG_CACHE_HOME={str(tmp_path / 'cache')!r}); {DATA}"
    python(code)
    assert not list(tmp_path.iterdir())


def test_wheel_holds_every_file_of_the_package(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-cache-dir",
        "--wheel-dir",
        str(tmp_path),
        str(CHECKOUT),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "hatchling" in done.stderr:
        pytest.skip("the build back-end cannot be installed here (no package index)")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    package = CHECKOUT / "framepred"
    files = {
        path.relative_to(CHECKOUT).as_posix()
        for path in package.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.suffix != ".pyc"
        and not path.name.startswith(".")
    }
    assert "framepred/models/layers/convlstm_cell.py" in files
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert files == {name for name in held if name.startswith("framepred/")}
    assert any(name.endswith("licenses/LICENSE") for name in held)


def test_environment_pins_what_the_lock_pins():
    lock = (CHECKOUT / "requirements.lock").read_text().splitlines()
    pins = sorted(line.strip() for line in lock if line.strip() and not line.lstrip().startswith(("#", "--")))
    environment = yaml.safe_load((CHECKOUT / "environment.yml").read_text())
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert len(pins) > 50 and all("==" in pin for pin in pins)
    assert sorted(line for line in pip if "==" in line) == pins
