"""Published runs: the list of their files, and fetching one where there is no checkout."""

from __future__ import annotations

import hashlib
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest

import framepred as fp
from framepred import runs
from framepred.runs import published

RUN = "convlstm-book"
FILES = {"config.json", "model.safetensors", "history.csv", "run.json", "scores.npz"}


def test_registry_lists_the_files_of_the_checkout_with_their_digests():
    files = [path for path in published.CHECKOUT.glob("*/*") if path.suffix != ".ipynb"]
    digests = {f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert published.registry() == digests, "run `make registry`"


def test_every_published_run_with_weights_or_scores_has_its_place_on_the_page_of_runs():
    page = (published.CHECKOUT.parent / "appendix" / "runs.md").read_text()
    for name in published.published_runs():
        folder = runs.run_folder(name)
        scored = bool(runs.load_scores(folder))
        section = f"(run-{name})=\n## {name}\n" in page and f'provenance("{name}")' in page
        assert section == (scored or (folder / "model.safetensors").exists()), "run `make runs-page`"
        assert (f'scores("{name}")' in page) == scored


def test_published_runs_fit_the_repository():
    sizes = [path.stat().st_size for path in published.CHECKOUT.rglob("*") if path.is_file()]
    assert max(sizes) <= 16 * 2**20 and sum(sizes) <= 30 * 2**20


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A machine without the checkout, and a server that has the runs: (folder it serves, user's cache)."""
    served = tmp_path / "server"
    shutil.copytree(published.CHECKOUT / RUN, served / "book" / "runs" / RUN)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(published, "CHECKOUT", tmp_path / "nothing")
    monkeypatch.setattr("framepred.data.download.cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(published, "_source", lambda: f"http://127.0.0.1:{server.server_port}")
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    yield served / "book" / "runs" / RUN, tmp_path / "cache"
    server.shutdown()
    server.server_close()


def test_without_a_checkout_a_run_is_downloaded_verified_and_kept(elsewhere):
    served, cache = elsewhere
    assert fp.load(RUN).network == "convlstm"
    folder = runs.run_folder(RUN)
    assert cache in folder.parents
    assert {path.name for path in folder.iterdir()} >= FILES
    shutil.rmtree(served)
    fp.load(RUN)  # from the cache


def test_a_download_that_is_not_what_was_published_is_refused(elsewhere):
    served, _ = elsewhere
    with open(served / "model.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="hash"):
        fp.load(RUN)


def test_a_download_that_fails_says_what_to_do(elsewhere):
    shutil.rmtree(elsewhere[0])
    with pytest.raises(ConnectionError, match=r"could not download the run 'convlstm-book'.*checkout"):
        fp.load(RUN)


@pytest.mark.parametrize("commit", [None, "0123abc"])
def test_files_come_from_the_commit_that_was_installed_or_the_tag_of_the_release(commit, monkeypatch):
    class Package:
        version = "1.2.3"
        metadata = property(lambda self: self)

        def get_all(self, _):
            return ["Repository, https://github.com/someone/framepred"]

        def read_text(self, _):
            return f'{{"vcs_info": {{"commit_id": "{commit}"}}}}' if commit else None

    monkeypatch.setattr(published, "distribution", lambda _: Package())
    expected = f"https://raw.githubusercontent.com/someone/framepred/{commit or 'v1.2.3'}"
    assert published._source() == expected


def test_a_run_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(FileNotFoundError, match=RUN):
        runs.run_folder("convlstm-bok")


def test_a_name_with_a_slash_that_is_no_repository_is_answered_too(monkeypatch):
    def offline(*args, **named):
        raise OSError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(FileNotFoundError, match=rf"no run folder 'results/typo' here, and .*no connection.*{RUN}"):
        fp.load("results/typo")
