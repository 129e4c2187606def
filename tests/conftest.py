"""What the tests share: glyphs, and a machine on which nothing outside the test's own folder is written."""

import os
import tempfile
import threading

import hypothesis
import hypothesis.configuration
import pooch
import pytest
import torch

from framepred.data import download, glyphs as digits_module
from framepred.data.glyphs import load_digits

# Reproducible, and without a folder of examples beside the tests.
hypothesis.settings.register_profile("framepred", database=None, deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("framepred")


def pytest_configure(config):
    folder = tempfile.TemporaryDirectory(prefix="hypothesis-")
    hypothesis.configuration.set_hypothesis_home_dir(folder.name)
    config.add_cleanup(folder.cleanup)


@pytest.fixture(scope="session", autouse=True)
def keras_on_torch(tmp_path_factory):
    """Keras is only a reference here. It reads these when it is imported, and writes a file to its home."""
    before = {name: os.environ.get(name) for name in ("KERAS_BACKEND", "KERAS_HOME")}
    os.environ.update(KERAS_BACKEND="torch", KERAS_HOME=str(tmp_path_factory.mktemp("keras")))
    yield
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(autouse=True)
def one_thread(request):
    """The tests' networks are too small to share between threads, which would mostly wait for one another."""
    threads = torch.get_num_threads()
    if "benchmarks" not in request.path.parts:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def uci():
    """The bundled digits' test part: 397 glyphs."""
    return load_digits("uci", "test")


@pytest.fixture(scope="session")
def mnist():
    """`mnist(split)` loads MNIST; where its files are not on this machine the test is skipped, nothing is downloaded."""
    missing = [name for name in digits_module._MNIST_FILES.digests if digits_module._MNIST_FILES.here(name) is None]
    if missing:
        pytest.skip(f"MNIST is not on this machine (no {missing[0]}); FRAMEPRED_DATA can name its folder")
    return lambda split="test": load_digits("mnist", split)


@pytest.fixture
def empty_machine(tmp_path, monkeypatch):
    """A machine without data files, proxies or connections whose cache is an empty folder of the test: that folder."""
    for name in ("FRAMEPRED_DATA", *(n for n in os.environ if n.lower() in ("https_proxy", "http_proxy", "all_proxy"))):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "cache"
    monkeypatch.setattr(download, "cache_folder", lambda: folder)

    def refuse(address, *args, **kwargs):
        raise OSError(101, f"network is unreachable ({address[0]})")

    monkeypatch.setattr(download.socket, "create_connection", refuse)
    return folder


@pytest.fixture
def unwritable_cache(tmp_path, empty_machine, monkeypatch):
    """A machine whose cache cannot be made, and on which nobody may connect or download."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(pooch, "retrieve", lambda *args, **kwargs: pytest.fail("tried to download"))
    monkeypatch.setattr(download, "first_reachable", lambda urls: pytest.fail("tried to connect"))
    monkeypatch.setattr(download, "cache_folder", lambda: tmp_path / "file" / "cache")


@pytest.fixture
def hanging_network(empty_machine, monkeypatch):
    """A machine on which connecting hangs, as a name look-up can for minutes."""
    end = threading.Event()

    def hang(*args, **kwargs):
        end.wait(60)
        raise OSError("timed out")

    monkeypatch.setattr(download.socket, "create_connection", hang)
    yield empty_machine
    end.set()
