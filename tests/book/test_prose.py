"""What the pages say: no number of ours is typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GIVEN = {"3.6", "0.1", "0.01"}  # a digit's step in pixels, its speed, a pull: settings of the data, not measured
PAGES = sorted(page for name in ("4-evaluation", "5-conclusion") for page in (ROOT / "book" / name).glob("*.md"))


def paragraphs(text: str) -> list[str]:
    """Prose: without the header, code, formulas and inline code."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"^```\{code-cell\}.*?^```\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^```(python|sh|text)?\n.*?^```\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)
    text = re.sub(r"\$[^$\n]+\$", "", text)
    text = re.sub(r"`[^`\n]+`", "", text)
    return [paragraph for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_measured_number_in_the_prose_is_glued_or_cited(page):
    """A number with a decimal point is a measurement, ours or a paper's: ours come from cells, a paper's name it."""
    text = page.read_text(encoding="utf-8").partition("\n## Exercises")[0]  # exercises are arithmetic
    for paragraph in paragraphs(re.sub(r"(Tables?|Figures?|Sections?) \d\.\d+", "", text)):
        typed = set(re.findall(r"(?<![\w.§-])\d+\.\d+(?![\w.]*\d)", paragraph)) - GIVEN
        assert not typed or "{cite" in paragraph, f"{page.name} types {', '.join(typed)}: {paragraph[:200]}"


def test_the_rule_finds_a_typed_number():
    assert any("361.6" in p for p in paragraphs("The error is 361.6 nats.\n\n```{code-cell}\nx = 1.5\n```\n"))
    assert not any("1.5" in p for p in paragraphs("Text.\n\n```{code-cell}\nx = 1.5\n```\n"))
