"""The notebooks, called as a reader calls them: each in a process of its own, which a campaign survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaigning.plan import ROOT

TRAIN = ROOT / "book" / "train.py"
FINE = (0, 75)  # finished, or out of time: run.json says which
MEMORY = ("out of memory", "outofmemory", "can't allocate memory", "cannot allocate memory")


class RunFailed(Exception):
    """A run cannot go on; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """How a call ended: its exit code, the seconds it took and the end of what it wrote."""

    code: int
    seconds: float
    tail: str

    @property
    def fine(self) -> bool:
        return self.code in FINE

    @property
    def kernel_died(self) -> bool:
        """Whether the notebook's process ended without a word: a system that lacks memory kills it, a compiler may, too."""
        return not self.fine and "kernel died" in self.tail.lower()

    @property
    def out_of_memory(self) -> bool:
        return self.kernel_died or (not self.fine and any(words in self.tail.lower() for words in MEMORY))

    @property
    def reason(self) -> str:
        """The last line that was written; without one, how the process ended."""
        lines = [line.strip() for line in self.tail.replace("\r", "\n").splitlines() if line.strip()]
        if self.code < 0:
            return f"ended by signal {-self.code}"
        return lines[-1] if lines else f"exit code {self.code}"


class Caller:
    """Calls notebooks, one at a time. SIGINT and SIGTERM are passed on, and noted in `stopped`."""

    def __init__(self, device: str):
        self.device = device
        self.stopped = False
        self._child: subprocess.Popen | None = None

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def _stop(self, *_) -> None:
        self.stopped = True
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)

    def __call__(self, notebook: str, parameters: Mapping[str, Any], log: Path) -> Outcome:
        """Run a notebook with parameters; what it prints is added to a file."""
        words = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
        began = time.monotonic()
        with open(log, "ab") as file:
            file.write(f"\n--- {notebook} {' '.join(words)}\n".encode())
            file.flush()
            before = file.tell()
            # A session of its own: Ctrl-C in a terminal would reach it twice, and a second signal ends it unsaved.
            self._child = subprocess.Popen(
                [sys.executable, str(TRAIN), notebook, *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment(self.device),
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
            code = self._child.wait()
            self._child = None
        with open(log, "rb") as file:
            file.seek(max(before, log.stat().st_size - 20_000))
            tail = file.read().decode(errors="replace")
        return Outcome(code, time.monotonic() - began, tail)


def environment(device: str) -> dict[str, str]:
    """The environment of a process that imports this checkout's package, and sees a GPU only if it should."""
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **hidden}


def _end_with_parent() -> None:
    """Ask Linux for a SIGTERM when the campaign dies: killed, it could not pass one on, and the training would go on."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
