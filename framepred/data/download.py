"""From a name to a file with the right digest: looked for on this machine, else downloaded from the mirror that answers."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

PROBE_SECONDS = 3.0


@dataclass(frozen=True)
class Files:
    """Files that are published together."""

    digests: Mapping[str, str]  # "md5:…" or "sha256:…" by name
    folders: tuple[str, ...]  # where they may lie below a root
    mirrors: tuple[str, ...]  # addresses that a name completes; with `archive`, addresses of that
    archive: tuple[str, str] | None = None  # its name in the cache and its digest, where the mirrors have only a zip

    def here(self, name: str, root: str | os.PathLike | None = None) -> Path | None:
        """The file in `root`, in `$FRAMEPRED_DATA` or in the user's cache, in this order; None if it is in none."""
        roots = [Path(r) for r in (root, os.environ.get("FRAMEPRED_DATA")) if r] + [cache_folder()]
        candidates = (r / folder / name for r in roots for folder in ("", *self.folders))
        return next((path for path in candidates if path.is_file()), None)

    def find(self, name: str, root: str | os.PathLike | None = None) -> Path:
        """The file, downloaded to the user's cache if it is not on this machine.

        Raises:
            ValueError: if a file of this name is here and its digest is another; it is left as it is.
            PermissionError: if the cache takes no file.
            ConnectionError: if no mirror answers, or none has the file.
        """
        path = self.here(name, root) or self._download(name)
        check_digest(path, self.digests[name])
        return path

    def _download(self, name: str) -> Path:
        import pooch

        folder = cache_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise PermissionError(
                f"cannot write to {folder}, where {name} would be kept; set FRAMEPRED_DATA to a folder that holds it"
            ) from error
        urls = self.mirrors if self.archive else [mirror + name for mirror in self.mirrors]
        first = first_reachable(urls)
        advice = f"Set FRAMEPRED_DATA to a folder that holds {name}, or use load_digits('uci'), which needs no file."
        if first is None:
            raise ConnectionError(f"{name} is not on this machine and no mirror answered ({', '.join(urls)}). {advice}")
        errors = []
        for url in sorted(urls, key=lambda u: u != first):
            try:
                if self.archive is None:
                    return Path(pooch.retrieve(url, self.digests[name], name, folder, progressbar=True))
                unzip = pooch.Unzip(members=[f"gzip/{name}"])
                kept, digest = self.archive
                (member,) = pooch.retrieve(url, digest, kept, folder, processor=unzip, progressbar=True)
                return Path(member).replace(folder / name)
            except Exception as error:  # noqa: BLE001  a mirror may fail in any way; the next one is tried
                errors.append(f"{url}: {error}")
        raise ConnectionError(f"could not download {name}: {'; '.join(errors)}. {advice}")


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The hexadecimal digest of a file's bytes, read in blocks."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, algorithm).hexdigest()


def check_digest(path: Path, expected: str) -> None:
    """Raise ValueError unless the file has the digest "algorithm:hex"."""
    algorithm, value = expected.split(":")
    found = file_digest(path, algorithm)
    if found != value:
        raise ValueError(
            f"{path} is damaged or altered: its {algorithm} is {found}, expected {value}. The file was left as it is; "
            "move it away and it will be looked for elsewhere or downloaded again."
        )


def cache_folder() -> Path:
    """Where downloads are kept."""
    import pooch

    return Path(pooch.os_cache("framepred"))


def first_reachable(urls: Sequence[str]) -> str | None:
    """The first address whose host accepts a connection within a few seconds, all tried at once; None if none does.

    A name look-up can hang for minutes on a machine without a network, so each try runs in a thread that is left
    behind when time is up. Behind a proxy no direct connection is possible: there the download itself decides.
    """
    if any(os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")):
        return urls[0]
    answered: list[str] = []
    finished = threading.Semaphore(0)

    def connect(url: str) -> None:
        try:
            socket.create_connection((urlsplit(url).hostname, 443), timeout=PROBE_SECONDS).close()
            answered.append(url)
        except OSError:
            pass
        finished.release()

    for url in urls:
        threading.Thread(target=connect, args=(url,), daemon=True).start()
    deadline = time.monotonic() + PROBE_SECONDS
    for _ in urls:
        finished.acquire(timeout=max(0.0, deadline - time.monotonic()))
        if answered:
            break
    return answered[0] if answered else None
