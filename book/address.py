"""Where the repository is stands in pyproject.toml. Write it wherever else it has to stand.

    python book/address.py            after the address in pyproject.toml was changed
    python book/address.py --check    fail if some place has another

A notebook's first cell, a link to Colab and the README cannot look an address up, so they hold a copy.
"""

import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
PREFIX = "https://github.com/"
SUFFIXES = {".md", ".ipynb", ".yml", ".cff"}


def places() -> list[Path]:
    """The files that hold copies."""
    book = (path for path in (ROOT / "book").rglob("*") if "runs" not in path.relative_to(ROOT).parts)
    return sorted(path for path in (*ROOT.glob("*"), *book) if path.is_file() and path.suffix in SUFFIXES)


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    new = project["project"]["urls"]["Repository"].removeprefix(PREFIX)
    old = config["repository"]["url"].removeprefix(PREFIX)  # what the copies hold
    if new == old:
        return 0
    for path in places():
        text = path.read_text(encoding="utf-8")
        moved = text.replace(f"github.com/{old}", f"github.com/{new}").replace(f"com/github/{old}", f"com/github/{new}")
        if moved != text:
            print(f"{path.relative_to(ROOT)}: {old}, where pyproject.toml has {new}")
            if "--check" not in sys.argv:
                path.write_text(moved, encoding="utf-8")
    return 1 if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
