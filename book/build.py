"""Build the book: run the pages that changed, several at a time, then render them all with Jupyter Book.

Jupyter Book's cache knows a page by its cells alone. What else its outputs depend on (the package, the published runs,
the pinned versions, the data) is hashed here; when the hash changes, the cache is dropped.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "_build"
CACHE = BUILD / ".jupyter_cache"
KEY = BUILD / ".outputs-depend-on"


def dependencies() -> str:
    """A digest of everything but the pages themselves that their outputs depend on."""
    digest = hashlib.sha256(os.environ.get("FRAMEPRED_DATA", "").encode())
    folders = (ROOT / "framepred", ROOT / "book" / "runs", ROOT / "book" / "measurements")
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    for path in [*files, ROOT / "requirements.lock", ROOT / "_config.yml"]:
        if "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def own_profile() -> None:
    """Give the kernels a profile of the build's own: nobody's start-up files run in a page, and errors alone are told."""
    profile = BUILD / ".ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 'ERROR'\n")
    os.environ["FRAMEPRED_PLAYERS"] = "static"  # nobody is there whom a kernel could answer
    os.environ["IPYTHONDIR"] = str(BUILD / ".ipython")


def fill_cache() -> None:
    """Execute the pages whose outputs are not cached, one process for each core and one thread for each process."""
    from jupyter_cache import get_cache
    from jupyter_cache.executors import load_executor
    from pairs import pages

    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    cache = get_cache(str(CACHE))
    for page in (page for page in pages() if page.relative_to(ROOT).as_posix() in toc):
        cache.add_nb_to_project(str(page), read_data={"name": "myst_nb_md", "type": "plugin"})
    waiting = cache.list_unexecuted()
    if waiting:
        print(f"running {len(waiting)} pages: {', '.join(Path(page.uri).stem for page in waiting)}", flush=True)
        workers = min(os.cpu_count() or 1, len(waiting))
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
        load_executor("local-parallel", cache=cache).run_and_cache(timeout=600)


def main() -> int:
    key = dependencies()
    if not KEY.exists() or KEY.read_text() != key:
        shutil.rmtree(BUILD, ignore_errors=True)
        BUILD.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own_profile()
        fill_cache()
    KEY.write_text(key)
    # -W: a warning fails the build, and so does a cell that fails; -n: so does a reference to nothing.
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [str(jupyter_book), "build", ".", "-W", "-n", "--keep-going", "--quiet"]
    return subprocess.run([*command, *sys.argv[1:]], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "book"))
    sys.exit(main())
