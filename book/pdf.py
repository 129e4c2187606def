"""The book as one PDF, _build/pdf/framepred.pdf: the pages of the HTML book in order, printed by Chromium.

    python book/pdf.py        builds the book first, from its cache

No LaTeX is needed. In print nothing moves or unfolds: each player is the film strip that its output carries beside the
live form, solutions are open, and the code of figures stays on the web. Links within the book stay links.
"""

import os
import shutil
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Thread

import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).parent.parent
HTML = ROOT / "_build" / "html"
PDF = ROOT / "_build" / "pdf" / "framepred.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
NO_BROWSER = """\
There is no Chromium on this machine to print the book with. Install one:
    Debian, Ubuntu    sudo apt-get install chromium
    macOS             brew install --cask chromium
    anywhere          .venv/bin/python -m playwright install chromium
or say where yours is: FRAMEPRED_CHROMIUM=/path/to/chrome make pdf"""
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
LEFT_OUT = "script, style, .headerlink, details.hide, button, .framepred-static, .tag_hide-cell"


def chapters() -> list[tuple[int, str]]:
    """(level, page) of the table of contents in reading order; level 2 is a section of a chapter."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [(1, toc["root"])]
    for part in toc["parts"]:
        for chapter in part["chapters"]:
            pages += [(1, chapter["file"]), *((2, section["file"]) for section in chapter.get("sections", []))]
    return [(level, file.removesuffix(".md")) for level, file in pages]


def film_strips(page: str) -> list[tuple[str, str]]:
    """(alternative text, PNG as base64) of the players of a page, in order, from the cache of executed pages."""
    from build import CACHE
    from jupyter_cache import get_cache

    cache = get_cache(str(CACHE))
    if str(ROOT / f"{page}.md") not in {record.uri for record in cache.list_project_records()}:
        return []  # a page without code
    executed = cache.get_cached_project_nb(str(ROOT / f"{page}.md"))
    if executed is None:
        raise ValueError(f"{page} changed after the book was built; build it again: make book")
    bundles = (
        output["data"]
        for cell in cache.get_cache_bundle(executed.pk).nb.cells
        if cell.cell_type == "code" and "remove-output" not in cell.metadata.get("tags", [])
        for output in cell.outputs
        if "framepred-static" in output.get("data", {}).get("text/html", "")
    )
    return [(data["text/plain"], data["image/png"]) for data in bundles]


def place(page: str, anchor: str = "") -> str:
    """The id, in the one document, of a place of a page."""
    return f"{page}--{anchor}".replace("/", "-") if anchor else page.replace("/", "-")


def article(page: str, level: int, known: set[str]) -> Tag:
    """What is printed of a page: ids made unique, links within the book turned into links within the document."""
    soup = BeautifulSoup((HTML / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
    found = soup.select_one("article.bd-article")
    if found is None:
        raise ValueError(f"{page}.html has no article; the theme has changed, and book/pdf.py must follow")
    players, strips = found.select(".framepred-static"), film_strips(page)
    if len(players) != len(strips):
        raise ValueError(
            f"{page} shows {len(players)} players, but its notebook holds {len(strips)}; build the book again"
        )
    for player, (text, png) in zip(players, strips):
        source = "data:image/png;base64," + "".join(png.split())
        player.insert_before(soup.new_tag("img", attrs={"class": "strip", "alt": f"Film strip: {text}", "src": source}))
    for tag in found.select(LEFT_OUT):
        tag.decompose()
    for details in found.select("details"):
        details["open"] = ""
    for tag in found.select("[id]"):
        tag["id"] = place(page, tag["id"])
    for link in found.select("a[href]"):
        link["href"] = target(page, link["href"], known)
    for picture in found.select("img[src]"):
        del picture["loading"], picture["width"], picture["height"]
        if not picture["src"].startswith("data:"):
            picture["src"] = "/html/" + resolved(page, picture["src"])
    for heading in found.select("h1, h2, h3, h4"):
        heading.name = f"h{int(heading.name[1]) + level - 1}"
    found.name, found.attrs = "article", {"id": place(page), "class": f"level-{level}"}
    return found


def resolved(page: str, address: str) -> str:
    """A relative address on a page, from the root of the site."""
    parts: list[str] = []
    for part in (PurePosixPath(page).parent / address).parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def target(page: str, address: str, known: set[str]) -> str:
    if ":" in address.split("#")[0].split("/")[0]:
        return address  # another site
    path, _, anchor = address.partition("#")
    to = resolved(page, path).removesuffix(".html") if path else page
    return f"#{place(to, anchor)}" if to in known else "#"


def document() -> str:
    """The whole book as one HTML page, for print."""
    pages = chapters()
    known = {page for _, page in pages}
    articles = [article(page, level, known) for level, page in pages]
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    lines = []
    for (level, page), found in zip(pages, articles):
        title = found.select_one("h1, h2")
        text = title.get_text() if title else page
        lines.append(f'<li class="level-{level}"><a href="#{place(page)}">{text}</a></li>')
    body = "\n".join(map(str, articles))
    repository = config["repository"]["url"]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{config["title"]}</title>
<link rel="stylesheet" href="/html/_static/pygments.css">
<link rel="stylesheet" href="/html/_static/print.css">
<script>window.MathJax = {{options: {{enableMenu: false, processHtmlClass: "math"}}}}</script>
<script defer src="/html/_static/mathjax/tex-chtml.js"></script></head>
<body><header class="cover"><p class="title">{config["title"]}</p><p>{config["author"]}</p>
<p>{config["copyright"]}<br><a href="{repository}">{repository}</a></p></header>
<nav><p class="contents">Contents</p><ol>{"".join(lines)}</ol></nav>
<main>{body}</main></body></html>"""


def find_browser() -> str | None:
    """A Chromium to print with: the one named, one on the path, or playwright's own; None if there is none."""
    if named := os.environ.get("FRAMEPRED_CHROMIUM"):
        return named if shutil.which(named) else None
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, (*BROWSERS, MACOS))), None)
    if found is None:
        with sync_playwright() as playwright:
            found = shutil.which(playwright.chromium.executable_path)
    return found


def write(pdf: Path, page: str, browser: str) -> None:
    """Print an HTML page; its addresses that begin with /html/ are files of the built book."""
    from playwright.sync_api import sync_playwright

    pdf.parent.mkdir(parents=True, exist_ok=True)
    pdf.with_suffix(".html").write_text(page, encoding="utf-8")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=ROOT / "_build"))
    Thread(target=server.serve_forever, daemon=True).start()
    number = '<span class="pageNumber"></span>'
    style = "font: 8px sans-serif; width: 100%; text-align: center; color: #555"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=ARGUMENTS)
        tab = chromium.new_page()
        tab.set_default_timeout(300_000)
        tab.goto(f"http://127.0.0.1:{server.server_port}/pdf/{pdf.stem}.html", wait_until="load")
        tab.evaluate("MathJax.startup.promise")
        tab.pdf(
            path=pdf, format="A4", print_background=True, outline=True, tagged=True, display_header_footer=True,
            header_template="<span></span>", footer_template=f'<div style="{style}">{number}</div>',
            margin={"top": "18mm", "bottom": "18mm", "left": "20mm", "right": "20mm"},
        )  # fmt: skip
        chromium.close()
    server.shutdown()
    server.server_close()


def main() -> int:
    browser = find_browser()
    if browser is None:
        print(NO_BROWSER, file=sys.stderr)
        return 1
    from build import main as build

    if code := build():
        return code
    write(PDF, document(), browser)
    print(f"wrote {PDF.relative_to(ROOT)}, {PDF.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "book"))
    sys.exit(main())
