"""A headless Chromium for the tests of pages and players. It reaches this machine only."""

from __future__ import annotations

import os
import shutil
from urllib.parse import urlsplit

import pytest

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


@pytest.fixture(scope="session")
def browser():
    """A Chromium, for the whole session. Without one the test is skipped, or fails if FRAMEPRED_REQUIRE_BROWSER=1."""
    missing = pytest.fail if os.environ.get("FRAMEPRED_REQUIRE_BROWSER") == "1" else pytest.skip
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed: pip install playwright")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        missing("there is no Chromium on the path: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """open_page(url, width=1280, height=800, **context) → a page.

    When the test ends, all its pages must be free of console errors, failed requests, and requests to other hosts.
    """
    contexts, problems = [], []

    def refuse_other_hosts(route):
        if urlsplit(route.request.url).hostname in (*LOCAL, None):
            return route.continue_()
        problems.append(f"request to another host: {route.request.url}")
        return route.abort()

    def open_page(url, width=1280, height=800, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.route("**/*", refuse_other_hosts)
        page = context.new_page()
        page.on("console", lambda message: message.type == "error" and problems.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
        page.on("response", lambda reply: reply.status >= 400 and problems.append(f"{reply.status}: {reply.url}"))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems
