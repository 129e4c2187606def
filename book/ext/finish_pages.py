"""Finish the pages that Sphinx has written: what the theme leaves heavy, or without a name for a screen reader.

The theme offers no option for any of these. Each rule says what it mends; axe-core, run on every page by the tests, is
the judge. A page that was finished before stays as it is.
"""

import re
from pathlib import Path

RULES = [
    # FontAwesome twice: as a web font, which draws the icons, and as 1.5 MB of JavaScript that draws them again.
    (r'<script src="[^"]*/fontawesome/[^"]*/all\.min\.js[^"]*"></script>\n?', ""),
    # The accessible name of a control must hold the words that one sees on it. These have words; the label hides them.
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r'(<button class="btn search-button-field [^>]*?) aria-label="Search"', r"\1"),
    # The arrows of the table of contents are pictures without words.
    (r'>([^<>]+)</a><details( open="open")?><summary>', r'>\1</a><details\2><summary aria-label="Sections of \1">'),
    # All that one sees lies in a landmark; the column at the left is none.
    (r'<div class="bd-sidebar-primary bd-sidebar">', '<div class="bd-sidebar-primary bd-sidebar" role="complementary" aria-label="The book">'),
    # The corner of a table, above its row names, is no heading.
    (r"<th([^>]*)>(?:\s|&nbsp;|\xa0|<p></p>)*</th>", r"<td\1></td>"),
    # What scrolls sideways on a phone can be reached and scrolled with keys.
    (r'<div class="pst-scrollable-table-container">', '<div class="pst-scrollable-table-container" tabindex="0">'),
    (r'<div style="overflow-x: auto">', '<div style="overflow-x: auto" tabindex="0">'),
    (r'<table([^>]*class="dataframe"(?![^>]*tabindex)[^>]*)>', r'<table\1 tabindex="0">'),
    # Roles of digital publishing that have been withdrawn, on elements that may not have them.
    (r' role="(?:doc-biblioentry|doc-backlink|doc-noteref)"', ""),
    (r'<div role="list" class="citation-list">', '<div class="citation-list">'),
]  # fmt: skip


def setup(app):
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def finish(app, exception) -> None:
    if exception is None and app.builder.format == "html":
        for path in Path(app.outdir).rglob("*.html"):
            before = path.read_text(encoding="utf-8")
            if (after := finished(before, path.parent)) != before:
                path.write_text(after, encoding="utf-8")


def finished(page: str, folder: Path) -> str:
    for pattern, replacement in RULES:
        page = re.sub(pattern, replacement, page)
    return re.sub(r'<img(?! loading)([^>]*? src="([^":]+)\.png"[^>]*)>', lambda match: lazy(match, folder), page)


def lazy(match: re.Match, folder: Path) -> str:
    """A picture that is fetched when the reader comes near it, and whose place is kept until then."""
    header = (folder / f"{match[2]}.png").read_bytes()[:24]
    width, height = int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
    size = "" if " width=" in match[1] else f' width="{width}" height="{height}"'
    return f'<img loading="lazy"{size}{match[1]}>'
