"""`make pdf`: the whole book on paper, with the static form of what moves on the web."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"


@pytest.fixture(scope="module")
def script():
    import pdf

    return pdf


@pytest.fixture(scope="module")
def printed(script):
    """The document that is printed."""
    if not (HTML / "index.html").is_file():
        pytest.skip("the book is not built: make book")
    return script.document()


def test_without_a_browser_it_says_how_to_get_one(script, monkeypatch, capsys):
    monkeypatch.setenv("FRAMEPRED_CHROMIUM", "/no/such/browser")
    assert script.main() == 1
    said = capsys.readouterr().err
    assert "apt-get install chromium" in said and "FRAMEPRED_CHROMIUM" in said


@pytest.mark.parametrize(
    ("page", "address", "expected"),
    [
        ("book/a/b", "https://example.org/x.html#y", "https://example.org/x.html#y"),
        ("book/a/b", "#here", "#book-a-b--here"),
        ("book/a/b", "../c.html#there", "#book-c--there"),
        ("book/a/b", "c.html", "#book-a-c"),
        ("book/a/b", "../../search.html", "#"),
    ],
)
def test_a_link_within_the_book_becomes_one_within_the_document(script, page, address, expected):
    assert script.target(page, address, {"book/a/b", "book/c", "book/a/c"}) == expected


@pytest.mark.slow
def test_every_link_of_the_document_has_its_place_once_and_players_are_pictures(printed):
    soup = BeautifulSoup(printed, "html.parser")
    places = [tag["id"] for tag in soup.select("[id]")]
    links = {a["href"][1:] for a in soup.select("a[href^='#']")} - {""}
    assert len(links) > 200
    assert [link for link in links if places.count(link) != 1] == []
    strips = soup.select("img.strip")
    players = sum(
        page.read_text(encoding="utf-8").count('class="framepred-static') for page in HTML.glob("book/**/*.html")
    )
    assert len(strips) == players > 0 and all(strip["alt"].startswith("Film strip: ") for strip in strips)
    assert all(strip["src"].startswith("data:image/png;base64,iVBOR") for strip in strips)
    assert not soup.select("main script, main .framepred-static, main button")


@pytest.mark.slow
def test_pdf_holds_every_chapter_its_formulas_typeset_and_its_links(script, printed, browser, tmp_path):
    pypdf = pytest.importorskip("pypdf")
    target = script.PDF.with_name("test.pdf")  # beside the book: its pictures are served from there
    code = f"""if True:
        import pathlib, sys
        sys.path.insert(0, {str(ROOT / "book")!r})
        import pdf
        page = pathlib.Path({str(tmp_path / "page.html")!r}).read_text(encoding="utf-8")
        pdf.write(pathlib.Path({str(target)!r}), page, pdf.find_browser())
    """
    (tmp_path / "page.html").write_text(printed, encoding="utf-8")
    try:
        subprocess.run([sys.executable, "-c", code], check=True)  # playwright runs once in a process
        reader = pypdf.PdfReader(target)
        texts = [page.extract_text() for page in reader.pages]
        size, outline = target.stat().st_size, reader.outline
    finally:
        target.unlink(missing_ok=True)
        target.with_suffix(".html").unlink(missing_ok=True)
    assert 100 <= len(texts) <= 500 and size <= 40 * 2**20
    squeezed = unicodedata.normalize("NFKC", "".join("".join(texts).split()))  # ﬁ and ﬂ are one letter in print
    titles = [
        heading.get_text()
        for heading in BeautifulSoup(printed, "html.parser").select("article h1, .level-2 > section > h2")
    ]
    assert len(titles) >= len(script.chapters())
    assert [title for title in titles if "".join(title.split()) not in squeezed] == []
    assert "\\begin{" not in squeezed and "\\frac" not in squeezed
    assert len(outline) >= 10
    assert any("/XObject" in page["/Resources"] for page in reader.pages[3:6])  # the first players, as pictures
