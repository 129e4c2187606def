"""The rendered book, as a reader's browser shows it: every page, on a first visit."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
LIMIT = 1_500_000  # bytes that a first visit to a page may cost


def toc_pages() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    files = [page["file"] for chapter in chapters for page in [chapter, *chapter.get("sections", [])]]
    return [file.removesuffix(".md") for file in [toc["root"], *files]]


PAGES = toc_pages()
IMAGES = """[...document.querySelectorAll('article img')].map(img => ({
    alt: img.alt, file: img.src.startsWith('data:') ? '' : img.src.split('/').pop(), filter: getComputedStyle(img).filter,
    caption: img.closest('figure')?.querySelector('figcaption')?.textContent ?? ''}))"""


@pytest.fixture(scope="module")
def visit(watched_page, site):
    """visit(page) → what a first visit finds; each page is loaded once, whatever is asked about it."""
    found: dict[str, dict] = {}

    def visit(name):
        if name not in found:
            problems: list[str] = []
            sizes: dict[str, int] = {}
            page = watched_page(problems)
            network = page.context.new_cdp_session(page)
            network.send("Network.enable")
            network.on("Network.loadingFinished", lambda e: sizes.update({e["requestId"]: e["encodedDataLength"]}))
            page.goto(f"{site}/{name}.html", wait_until="load")
            page.wait_for_load_state("networkidle")
            page.evaluate("window.MathJax?.startup?.promise")
            page.evaluate("document.documentElement.dataset.theme = 'dark'")
            visited = {
                "problems": problems,
                "bytes": sum(sizes.values()),
                "headings": page.locator("article h1").count(),
                "formulas": page.locator("div.math, span.math").count(),
                "typeset": page.locator("mjx-container").count(),
                "images": page.evaluate(IMAGES),
            }
            page.set_viewport_size({"width": 360, "height": 740})
            visited["width"] = page.evaluate("document.documentElement.scrollWidth")
            page.context.close()
            found[name] = visited
        return found[name]

    return visit


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_without_an_error_or_a_request_to_another_host(name, visit):
    visited = visit(name)
    assert visited["problems"] == []
    assert visited["headings"] == 1
    assert visited["typeset"] >= visited["formulas"], "a formula was not typeset"


@pytest.mark.parametrize("name", PAGES)
def test_a_first_visit_costs_at_most_a_megabyte_and_a_half(name, visit):
    assert visit(name)["bytes"] <= LIMIT


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone(name, visit):
    assert visit(name)["width"] <= 360


@pytest.mark.parametrize("name", PAGES)
def test_figures_have_text_for_those_who_cannot_see_them_a_caption_and_true_grey_levels_in_the_dark(name, visit):
    for image in visit(name)["images"]:
        assert len(image["alt"].split()) >= 5, f"alt text {image['alt']!r} of {image['file']} says too little"
        assert image["alt"] not in image["file"]
        assert len(image["caption"].split()) >= 5, f"{image['alt']!r} has no caption, or an empty one"
        assert image["filter"] == "none", f"{image['alt']!r} is shown with {image['filter']}"


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_violation_in_light_or_dark(name, site, open_page):
    axe = os.environ.get("AXE_PATH")
    if not axe:
        pytest.skip("AXE_PATH is not set: npm pack axe-core, and give the path of its axe.min.js")
    page = open_page(f"{site}/{name}.html", reduced_motion="reduce")
    page.wait_for_load_state("networkidle")
    page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    page.add_script_tag(path=axe)
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        found = page.evaluate(
            "axe.run({resultTypes: ['violations']}).then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.html)]))"
        )
        assert found == [], theme


def test_front_page_redirects_from_the_root_of_the_site(site, open_page):
    page = open_page(f"{site}/index.html")
    page.wait_for_url("**/book/index.html")


# --- without a browser -----------------------------------------------------------------------------------------------


class Links(HTMLParser):
    """The addresses that a page links or loads, and its places."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.places |= {given[name] for name in ("id", "name") if given.get(name)}
        address = given.get("href") or given.get("src")
        if address and tag in ("a", "img", "link", "script", "source"):
            self.links.append(address)


@pytest.fixture(scope="module")
def pages():
    """Every page of the built book by its path from the root of the site."""
    if not (HTML / "index.html").is_file():
        pytest.skip("the book is not built: make book")
    built = [*PAGES, "genindex", "search", "index"]
    return {path: Links((HTML / f"{path}.html").read_text(encoding="utf-8")) for path in built}


def test_every_link_inside_the_book_leads_to_a_page_and_a_place_on_it(pages):
    dead = []
    for path, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc or link.startswith("#!"):
                continue
            target = (HTML / path).parent / unquote(address.path) if address.path else HTML / f"{path}.html"
            target = target.resolve()
            if not target.is_file():
                dead.append(f"{path}: {link}")
            elif address.fragment and target.suffix == ".html":
                to = target.relative_to(HTML.resolve()).with_suffix("").as_posix()
                if to in pages and unquote(address.fragment) not in pages[to].places:
                    dead.append(f"{path}: {link} (no such place)")
    assert dead == []


@pytest.mark.parametrize("name", [n for n in PAGES if (ROOT / f"{n}.ipynb").exists()])
def test_launch_buttons_open_the_notebook_of_the_page(name, pages):
    address = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    repository = urlsplit(address).path.strip("/")
    links = pages[name].links
    colab = [link for link in links if link.startswith("https://colab.research.google.com/")]
    assert f"https://colab.research.google.com/github/{repository}/blob/main/{name}.ipynb" in colab
    binder = [link for link in links if link.startswith("https://mybinder.org/")]
    assert f"https://mybinder.org/v2/gh/{repository}/main?urlpath=lab/tree/{name}.ipynb" in map(unquote, binder)


def test_every_notebook_that_any_page_links_in_colab_is_in_the_repository(pages):
    found = {
        match[1]
        for page in pages.values()
        for link in page.links
        if (match := re.match(r"https://colab\.research\.google\.com/github/[^/]+/[^/]+/blob/main/(.+\.ipynb)", link))
    }
    assert len(found) > 20
    assert [notebook for notebook in sorted(found) if not (ROOT / notebook).is_file()] == []


def test_index_explains_the_terms_of_the_glossary_and_leads_into_the_chapters(pages):
    text = (HTML / "book" / "appendix" / "terms.html").read_text(encoding="utf-8")
    article = text[text.index("<article") : text.index("</article")]
    glossary = (ROOT / "book" / "appendix" / "notation.md").read_text(encoding="utf-8").partition("```{glossary}")[2]
    terms = re.findall(r"^(\w[^\n]*)\n  ", glossary, re.MULTILINE)
    assert len(terms) >= 15
    assert [term for term in terms if f"<p>{term}" not in article] == []
    chapters = {urlsplit(link).path for link in Links(article).links if link.startswith("../") and "#" in link}
    assert len(chapters) >= 15
