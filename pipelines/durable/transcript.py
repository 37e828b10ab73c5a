"""The log of one flow that a worker runs: its steps' output in a local file, and the end of it for all to read."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from hardening.foundation.console import heard_by
from hardening.foundation.limits import LOG_FILE, LOG_TAIL
from hardening.foundation.text import hanging
from pipelines.durable.roster import KEEP_SECONDS

LOGIN = re.compile(r"(://)(?:[^/\s:@]*:\S*|[^/\s:@]+)@(?!sha\d+:)")
"""Of an address, up to the last @ that no digest follows: a password may hold any character, a user be a token."""


def log_file(folder: Path, flow: str) -> Path:
    """Where a flow's log lies. Its name holds what of the id a file's name can, and a hash of all of it."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", flow)[-120:]
    return folder / f"{plain}-{hashlib.sha256(flow.encode()).hexdigest()[:8]}.log"


def remove_old(folder: Path) -> None:
    """Remove the logs that nobody wrote to for long."""
    for file in folder.glob("*.log"):
        with suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > KEEP_SECONDS:
                file.unlink()


class Transcript:
    """The output of one flow. A full disk loses lines of the file, but never the work."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._guard = threading.Lock()
        self._tail: deque[str] = deque()
        self._size = 0
        self._told = True
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            for line in file.read_text(errors="replace")[-LOG_TAIL.most :].splitlines(keepends=True):
                self._take(line)  # what another worker of this machine wrote

    def write(self, text: str) -> None:
        """Add what was said, with the time."""
        said = hanging(LOGIN.sub(r"\1***@", text))
        line = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {said}\n"
        with self._guard:
            self._take(line)
            with suppress(OSError), self.file.open("a") as sink:
                if sink.tell() < LOG_FILE.most:
                    sink.write(line[: LOG_TAIL.most])

    def _take(self, line: str) -> None:
        self._told = False
        self._tail.append(line[-LOG_TAIL.most :])
        self._size += len(self._tail[-1])
        while self._size > LOG_TAIL.most:
            self._size -= len(self._tail.popleft())

    def keep(self, keep: Callable[[str], object]) -> None:
        """Give the end of the log to `keep`, where it has changed since that was done; again where that fails."""
        with self._guard:
            if self._told:
                return
            self._told, end = True, "".join(self._tail)
        try:
            keep(end)
        except BaseException:
            self._told = False
            raise

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Hear what is said in a step, and how it ends."""
        self.write(f"{name}: begins")
        try:
            with heard_by(self.write):
                yield
        except BaseException as error:
            self.write(f"{name}: {type(error).__name__}: {error}")
            raise
        self.write(f"{name}: done")
