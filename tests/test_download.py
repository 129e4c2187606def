"""From a name to a file: where it is looked for, its digest, and what happens where mirrors fail or none is in reach."""

import hashlib
import http.server
import io
import tempfile
import threading
import time
import zipfile

import pooch
import pytest

from framepred.data import download
from framepred.data.download import Files, check_digest, file_digest

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # SHA-256 of "abc", in FIPS 180


def published(contents, mirrors=("https://one.example/", "https://two.example/"), **fields):
    digests = {name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in contents.items()}
    return Files(digests, folders=("Letters/raw", "Letters"), mirrors=mirrors, **fields)


# --- on this machine -------------------------------------------------------------------------------------------------


def test_digest_is_that_of_the_standard(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert file_digest(path) == ABC
    assert file_digest(path, "md5") == "900150983cd24fb0d6963f7d28e17f72"  # of RFC 1321
    check_digest(path, f"sha256:{ABC}")


@pytest.mark.parametrize("content", [b"ab", b"xbc", b""], ids=["truncated", "altered", "empty"])
def test_damaged_file_is_named_with_its_digests_and_left_alone(content, tmp_path, empty_machine):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged or altered") as error:
        published({"a.txt": b"abc"}).find("a.txt", tmp_path)
    assert all(text in str(error.value) for text in (str(path), ABC, hashlib.sha256(content).hexdigest(), "move it"))
    assert path.read_bytes() == content


def test_root_comes_before_the_variable_and_the_variable_before_the_cache(tmp_path, empty_machine, monkeypatch):
    folders = [tmp_path / "root", tmp_path / "variable", empty_machine]
    for folder in folders:
        folder.mkdir()
        (folder / "a.txt").write_bytes(b"abc")
    monkeypatch.setenv("FRAMEPRED_DATA", str(folders[1]))
    files = published({"a.txt": b"abc"})
    for folder in folders:
        assert files.here("a.txt", folders[0]) == files.find("a.txt", folders[0]) == folder / "a.txt"
        (folder / "a.txt").unlink()
    assert files.here("a.txt", folders[0]) is None


@pytest.mark.parametrize("folder", ["", "Letters/raw", "Letters"])
def test_a_file_may_lie_in_a_folder_that_others_have_made(folder, tmp_path, empty_machine):
    path = tmp_path / folder / "a.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"abc")
    assert published({"a.txt": b"abc"}).find("a.txt", tmp_path) == path


# --- out of reach ----------------------------------------------------------------------------------------------------


def test_no_network_is_told_within_five_seconds_with_what_to_set(hanging_network):
    began = time.monotonic()
    with pytest.raises(ConnectionError, match=r"one.example/a.txt, .*Set FRAMEPRED_DATA to a folder that holds a.txt"):
        published({"a.txt": b"abc"}).find("a.txt")
    assert time.monotonic() - began < 5


def test_unwritable_cache_is_told_before_anything_is_asked(unwritable_cache):
    with pytest.raises(PermissionError, match=r"cannot write to .*a.txt.*set FRAMEPRED_DATA"):
        published({"a.txt": b"abc"}).find("a.txt")


def test_cache_that_exists_but_takes_no_file_is_unwritable_too(empty_machine, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # the tests may run as root, to whom every folder is open
    with pytest.raises(PermissionError, match=r"cannot write to .*set FRAMEPRED_DATA"):
        published({"a.txt": b"abc"}).find("a.txt")


# --- mirrors ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(monkeypatch):
    """A web server on this machine: `.files` by path, `.asked` paths in order, `.url`; it counts as reachable."""

    class Mirror(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            mirror.asked.append(self.path)
            content = mirror.files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args):
            pass

    mirror = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    mirror.files, mirror.asked, mirror.url = {}, [], f"http://127.0.0.1:{mirror.server_port}"
    thread = threading.Thread(target=mirror.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(download, "first_reachable", lambda urls: urls[0])
    yield mirror
    mirror.shutdown()
    thread.join()
    mirror.server_close()


@pytest.fixture
def two_mirrors(mirror):
    """Files that are looked for under /first, then under /second."""
    contents = {"a.txt": b"abc", "b.txt": b"not abc"}
    return published(contents, mirrors=(f"{mirror.url}/first/", f"{mirror.url}/second/")), contents


def test_second_mirror_serves_where_the_first_fails_and_the_cache_keeps_it(empty_machine, two_mirrors, mirror):
    files, contents = two_mirrors
    mirror.files |= {f"/second/{name}": content for name, content in contents.items()}
    for name in contents:
        assert files.find(name).read_bytes() == contents[name]
    assert mirror.asked == ["/first/a.txt", "/second/a.txt", "/first/b.txt", "/second/b.txt"]
    assert {path.name for path in empty_machine.iterdir()} == set(contents)
    files.find("a.txt")
    assert len(mirror.asked) == 4  # nothing was downloaded again


def test_altered_download_is_not_kept(empty_machine, two_mirrors, mirror):
    mirror.files["/first/a.txt"] = b"something else"
    with pytest.raises(ConnectionError, match=r"could not download a.txt: .*/first/.*/second/.*Set FRAMEPRED_DATA"):
        two_mirrors[0].find("a.txt")
    assert not list(empty_machine.iterdir())


def test_mirrors_are_tried_from_the_one_that_answers(empty_machine, monkeypatch):
    asked = []

    def connect(address, timeout):
        if "two" not in address[0]:
            raise OSError("refused")
        return type("Connection", (), {"close": lambda self: None})()

    def retrieve(url, *args, **kwargs):
        asked.append(url)
        raise OSError("broke off")

    monkeypatch.setattr(download.socket, "create_connection", connect)
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(ConnectionError, match=r"broke off.*broke off"):
        published({"a.txt": b"abc"}).find("a.txt")
    assert asked == ["https://two.example/a.txt", "https://one.example/a.txt"]


def test_mirror_that_hangs_delays_no_one_where_another_answers(empty_machine, monkeypatch):
    end = threading.Event()

    def connect(address, timeout):
        if address[0] == "slow.example":
            end.wait(60)
            raise OSError("timed out")
        return type("Connection", (), {"close": lambda self: None})()

    monkeypatch.setattr(download.socket, "create_connection", connect)
    began = time.monotonic()
    urls = ("https://slow.example/a", "https://quick.example/a")
    assert download.first_reachable(urls) == "https://quick.example/a"
    assert time.monotonic() - began < 2
    end.set()


def test_behind_a_proxy_the_download_decides(empty_machine, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert download.first_reachable(("https://a.example/x", "https://b.example/x")) == "https://a.example/x"


def test_files_come_out_of_their_archive_and_the_archive_is_fetched_once(empty_machine, mirror):
    contents = {"a.txt": b"abc", "b.txt": b"not abc"}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {**contents, "c.txt": b"not wanted"}.items():
            archive.writestr(f"gzip/{name}", content)
    mirror.files["/gzip.zip"] = file.getvalue()
    digest = f"md5:{hashlib.md5(file.getvalue()).hexdigest()}"
    files = published(contents, mirrors=(f"{mirror.url}/gzip.zip",), archive=("letters.zip", digest))
    for name in contents:
        assert files.find(name).read_bytes() == contents[name]
    assert mirror.asked == ["/gzip.zip"]
    assert [files.here(name) for name in contents] == [empty_machine / name for name in contents]
    held = {path.name for path in empty_machine.rglob("*")}
    assert held >= {*contents, "letters.zip"} and "c.txt" not in held
