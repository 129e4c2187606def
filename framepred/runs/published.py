"""The runs that come with the book: in the checkout, or fetched from where this version of the package came from.

`published.txt`, beside this file, names every file of every run with its SHA-256, in pooch's format. So a run that is
fetched is the one that the book shows, or an error.
"""

from __future__ import annotations

import json
from importlib.metadata import distribution
from pathlib import Path

from framepred.data import download
from framepred.files import write_text

REGISTRY = Path(__file__).with_name("published.txt")
CHECKOUT = Path(__file__).parents[2] / "book" / "runs"


def registry() -> dict[str, str]:
    """SHA-256 of the files of the published runs, by "run/file"."""
    lines = REGISTRY.read_text(encoding="utf-8").split("\n")
    return dict(line.split(" ") for line in lines if line)


def published_runs() -> list[str]:
    """The names of the runs that come with the book; `framepred.load` and `framepred.runs.run_folder` take them."""
    return list(dict.fromkeys(key.split("/")[0] for key in registry()))


def published_folder(name: str) -> Path:
    """The folder of a published run: that of the checkout; without a checkout, a verified download to the user's cache.

    Raises:
        ConnectionError: if it has to be downloaded and cannot.
        ValueError: if what was downloaded is not what was published.
    """
    if (CHECKOUT / name / "config.json").is_file():
        return CHECKOUT / name
    import pooch

    store = pooch.create(download.cache_folder() / "runs", f"{_source()}/book/runs/", registry=registry())
    try:
        paths = [Path(store.fetch(key)) for key in store.registry_files if key.startswith(f"{name}/")]
    except OSError as error:  # requests' errors are OSErrors
        raise ConnectionError(
            f"could not download the run {name!r} from {store.base_url}: {error}. Use a checkout of the book, which has it"
        ) from error
    return paths[0].parent


def write_registry() -> None:
    """Bring `published.txt` up to date with the runs of the checkout."""
    paths = sorted(path for path in CHECKOUT.glob("*/*") if path.suffix in (".json", ".safetensors", ".csv", ".npz"))
    digests = {path.relative_to(CHECKOUT).as_posix(): download.file_digest(path) for path in paths}
    write_text(REGISTRY, "".join(f"{key} {digest}\n" for key, digest in digests.items()))


def _source() -> str:
    """Where the files of exactly this version lie: at the commit that pip installed, else at the tag of the release."""
    package = distribution("framepred")
    links = dict(link.split(", ", 1) for link in package.metadata.get_all("Project-URL") or [])
    origin = json.loads(package.read_text("direct_url.json") or "{}")
    version = origin.get("vcs_info", {}).get("commit_id") or f"v{package.version}"
    return f"{links['Repository'].replace('github.com', 'raw.githubusercontent.com')}/{version}"
