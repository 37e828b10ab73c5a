"""Our long-running processes that outlive a command: started once, found again, stopped for good."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import LAST_LINES, spawn

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Daemon:
    """One daemon, known by a file with its process id and start time (ids are used again after a reboot).

    `passes`: the variables of our environment that it sees beside the plain ones.
    """

    name: str
    folder: Path
    log_folder: Path | None = None
    passes: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        """What it printed."""
        return (self.log_folder or self.folder) / f"{self.name}.log"

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def pid(self) -> int | None:
        """Its process id while it runs, else None."""
        try:
            pid, started = self._file.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if _started(int(pid)) == started else None

    def start(self, argv: Sequence[str], *, ready: Callable[[], bool], within: float = 30) -> None:
        """Start it and wait until `ready()`. Raises OutsideError with its last lines when it ends or is late."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pid = spawn(argv, log=self.log, passes=self.passes)
        self._file.write_text(f"{pid} {_started(pid)}\n")
        deadline = time.monotonic() + within
        while not ready():
            if self.pid() is None or time.monotonic() > deadline:
                self.stop()
                printed = "\n".join(self.log.read_text(errors="replace").splitlines()[-LAST_LINES:])
                raise OutsideError(f"{self.name} did not start", evidence=printed, hint=f"see {self.log}")
            time.sleep(POLL_SECONDS)

    def stop(self, *, within: float = 20) -> None:
        """Ask it to end, wait, and kill it when it does not. Nothing happens where it does not run."""
        for sign, patience in ((signal.SIGTERM, within), (signal.SIGKILL, 5.0)):
            deadline = time.monotonic() + patience
            if pid := self.pid():
                with suppress(ProcessLookupError):
                    os.kill(pid, sign)
            while self.pid() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        self._file.unlink(missing_ok=True)


def _started(pid: int) -> str | None:
    """When process `pid` started, in clock ticks (proc(5), stat field 22); None when it is gone or a zombie."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else fields[18]
