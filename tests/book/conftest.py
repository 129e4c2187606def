"""A headless Chromium for the tests of pages and players. It reaches this machine only."""

from __future__ import annotations

import gzip
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

HTML = Path(__file__).parents[2] / "_build" / "html"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOCAL = ("127.0.0.1", "localhost", "")  # files, data and blobs have no host


def without_browser(what):
    """Skip, or fail where FRAMEPRED_REQUIRE_BROWSER=1 says that nothing may be skipped."""
    (pytest.fail if os.environ.get("FRAMEPRED_REQUIRE_BROWSER") == "1" else pytest.skip)(what)


@pytest.fixture(scope="session")
def browser():
    """A Chromium, for the whole session. Without one the test is skipped, or fails if FRAMEPRED_REQUIRE_BROWSER=1."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        without_browser("playwright is not installed: pip install playwright")
    from pdf import NO_BROWSER, find_browser

    chromium = find_browser()
    if chromium is None:
        without_browser(NO_BROWSER)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def watched_page(browser):
    """watched_page(problems, width=1280, …) → a page in a context of its own; what goes wrong is added to `problems`."""
    return partial(_watched_page, browser)


def _watched_page(browser, problems, width=1280, height=800, **options):
    def refuse_other_hosts(route):
        if urlsplit(route.request.url).hostname in (*LOCAL, None):
            return route.continue_()
        problems.append(f"request to another host: {route.request.url}")
        return route.abort()

    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    context.route("**/*", refuse_other_hosts)
    page = context.new_page()
    page.on("console", lambda message: message.type == "error" and problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
    page.on("response", lambda reply: reply.status >= 400 and problems.append(f"{reply.status}: {reply.url}"))
    return page


@pytest.fixture
def open_page(watched_page):
    """open_page(url, width=1280, height=800, **context) → a page.

    When the test ends, all its pages must be free of console errors, failed requests, and requests to other hosts.
    """
    pages, problems = [], []

    def open_page(url, *args, **options):
        page = watched_page(problems, *args, **options)
        pages.append(page)
        page.goto(url)
        return page

    yield open_page
    for page in pages:
        page.context.close()
    assert not problems


@pytest.fixture(scope="session")
def site():
    """The address at which the built book is served as GitHub Pages serves it: text compressed, pictures as they are."""
    if not (HTML / "index.html").is_file():
        without_browser("the book is not built: make book")

    class Compressing(SimpleHTTPRequestHandler):
        def do_GET(self):
            path = Path(self.translate_path(self.path))
            if path.suffix not in (".html", ".css", ".js", ".svg", ".json") or not path.is_file():
                return super().do_GET()
            body = gzip.compress(path.read_bytes(), 6)
            self.send_response(200)
            self.send_header("Content-Type", self.guess_type(path))
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Compressing, directory=HTML))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
