"""What pyproject.toml declares, against what the files import: the lazy imports and those for types as well."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# The package, and the scripts of the book, which import one another.
OWN = {"framepred", "campaigning", *(path.stem for path in (CHECKOUT / "book").glob("*.py"))}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements):
    """The distributions that requirements name, as the package index writes them."""
    return {normal(re.match(r"[\w.-]+", line)[0]) for line in requirements}


def imported(*folders):
    """The distributions from which the Python files of these folders import."""
    modules = set()
    for path in (path for folder in folders for path in (CHECKOUT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(node.module.split(".")[0])
    distributions = packages_distributions()
    # A module that is not installed here is looked for by its own name.
    return {normal(distributions.get(name, [name])[0]) for name in modules - OWN - set(sys.stdlib_module_names)}


def test_what_the_package_imports_is_declared_and_what_is_declared_is_imported():
    found, promised = imported("framepred"), declared(PROJECT["dependencies"])
    assert {"torch", "scikit-learn", "statsmodels"} <= found
    assert found - promised == set(), "imported, not declared"
    assert promised - found == set(), "declared, not imported"


def test_what_the_books_scripts_and_the_tests_import_is_declared_too():
    extras = PROJECT["optional-dependencies"]
    promised = declared([*PROJECT["dependencies"], *extras["book"], *extras["test"]])
    reference = {"scikit-image"}  # a test takes it as a reference where it is installed
    assert imported("book", "tests") - promised - reference == set()
