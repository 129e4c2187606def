"""The list of faults that may survive `make mutants`, and how a fault is named there."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def mutants():
    spec = importlib.util.spec_from_file_location("mutants", ROOT / ".ci" / "mutants.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DIFF = """\
--- mutation diff ---
--- aframepred/metrics.py
+++ bframepred/metrics.py
@@ -3,2 +3,3 @@
-    total = (a +
-             b)
+    total = (a -
+             b)
"""


def test_a_fault_is_named_by_what_is_planted_or_by_what_it_removes(mutants):
    assert mutants.planted(DIFF) == "total = (a - b)"
    assert mutants.planted("--- a\n+++ b\n@@ -1,2 +1 @@\n-@lru_cache\n def f():\n") == "without @lru_cache"


def test_every_reason_stands_for_faults_of_a_part_that_is_examined(mutants):
    listed = tomllib.loads((ROOT / ".ci" / "survivors.toml").read_text(encoding="utf-8"))
    assert listed.keys() <= mutants.TESTS.keys()
    for part, groups in listed.items():
        lines = [line for planted in groups.values() for line in planted]
        assert len(lines) == len(set(lines)) and all(reason and planted for reason, planted in groups.items())
        assert mutants.reasons(part).keys() == set(lines)


def test_the_parts_examined_and_their_tests_are_there(mutants):
    for part, tests in mutants.TESTS.items():
        assert (ROOT / "framepred" / f"{part}.py").is_file()
        assert all((ROOT / "tests" / f"test_{name}.py").is_file() for name in tests.split())
