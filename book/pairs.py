"""Keep each page (.md) and the notebook beside it (.ipynb, for Colab and Jupyter, without outputs) in step.

python book/pairs.py           bring the notebooks up to date with the pages
python book/pairs.py --check   fail if one is not
"""

import sys
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).parent.parent
CONFIG = jupytext.config.load_jupytext_configuration_file(str(ROOT / "pyproject.toml"))


def pages() -> list[Path]:
    """The pages that are notebooks: those with a jupytext header."""
    found = sorted((ROOT / "book").rglob("*.md"))
    return [path for path in found if path.read_text(encoding="utf-8").startswith("---\njupytext:")]


def content(notebook) -> list[tuple]:
    cells = (cell for cell in notebook.cells)
    return [(cell.cell_type, cell.source, tuple(cell.metadata.get("tags", []))) for cell in cells]


def update(page: Path, check: bool = False) -> bool:
    """Bring the notebook of a page up to date: whether it was not. With `check`, leave it as it is."""
    fresh = jupytext.read(page, config=CONFIG)
    path = page.with_suffix(".ipynb")
    old = nbformat.read(path, 4) if path.exists() else None
    if old is not None and content(old) == content(fresh) and not any(cell.get("outputs") for cell in old.cells):
        return False
    if not check:
        if old is not None:  # cells that did not change keep their ids, so that a diff shows what did
            ids = {(cell.cell_type, cell.source): cell.id for cell in old.cells}
            for cell in fresh.cells:
                cell.id = ids.pop((cell.cell_type, cell.source), cell.id)
        jupytext.write(fresh, path, fmt="ipynb", config=CONFIG)
    return True


def main() -> int:
    check = "--check" in sys.argv
    stale = [page.relative_to(ROOT) for page in pages() if update(page, check)]
    for page in stale:
        print(f"{page}: its notebook {'differs; run `make pairs`' if check else 'was updated'}")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
