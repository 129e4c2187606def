"""The rendered book, as a reader's browser shows it, and its sources."""

from __future__ import annotations

import os
import re
import threading
import tomllib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"


def toc_pages() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    files = [page["file"] for chapter in chapters for page in [chapter, *chapter.get("sections", [])]]
    return [file.removesuffix(".md") for file in [toc["root"], *files]]


NOTEBOOKS = [name for name in toc_pages() if (ROOT / f"{name}.md").read_text().startswith("---\njupytext:")]


@pytest.fixture(scope="module")
def site():
    if not (HTML / "index.html").is_file():
        missing = pytest.fail if os.environ.get("FRAMEPRED_REQUIRE_BROWSER") == "1" else pytest.skip
        missing("the book is not built: make book")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=HTML))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", toc_pages())
def test_a_page_loads_without_an_error_or_a_request_to_another_host(name, site, open_page):
    page = open_page(f"{site}/{name}.html")  # open_page itself fails the test for errors and foreign requests
    page.wait_for_load_state("networkidle")
    assert page.locator("article h1").count() == 1
    formulas = page.locator("div.math, span.math").count()
    assert page.locator("mjx-container").count() >= formulas, "a formula was not typeset"


@pytest.mark.parametrize("name", toc_pages())
def test_a_page_fits_a_phone(name, site, open_page):
    page = open_page(f"{site}/{name}.html", width=360, height=740)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_figures_have_text_for_those_who_cannot_see_them_and_true_grey_levels_in_the_dark(name, site, open_page):
    page = open_page(f"{site}/{name}.html")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    figures = page.evaluate(
        """[...document.querySelectorAll('.cell_output img, figure img')].map(
            img => ({alt: img.alt, filter: getComputedStyle(img).filter}))"""
    )
    for figure in figures:
        assert len(figure["alt"].split()) >= 5, f"alt text {figure['alt']!r} says too little"
        assert figure["filter"] == "none", f"{figure['alt']!r} is shown with {figure['filter']}"


def test_front_page_redirects_from_the_root_of_the_site(site, open_page):
    page = open_page(f"{site}/index.html")
    page.wait_for_url("**/book/index.html")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_first_cell_installs_the_package_from_the_repository(name):
    address = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    source = (ROOT / f"{name}.md").read_text()
    first = re.search(r"```\{code-cell\}.*?```", source, re.DOTALL)
    assert first is not None
    assert f'"framepred @ git+{address}"' in first[0]


def test_the_book_links_the_repository_of_the_package():
    address = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    assert yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"] == address
    assert address in (ROOT / "README.md").read_text()
    assert address in (ROOT / "CITATION.cff").read_text()
