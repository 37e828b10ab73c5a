"""Edge: runs `nightly` for what waits, one at a time, each in a process of its own.

What waits stands in the ledger before anything is done, and is done only when the process has ended: who is killed
in between finds it again. `nightly` itself goes on where a killed one stopped.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError
from hardening.foundation.process import dies_with_us
from hardening.foundation.settings import ROOT
from images.ledger import Ledger
from pipelines.serve.schedule import Schedule, command

PROGRAM = (sys.executable, str(ROOT / "tasks.py"))
LOOK_SECONDS = 5.0
STOP_SECONDS = 60
KEPT = timedelta(days=30)


@dataclass(frozen=True)
class Running:
    """The work that is being done: the task, and since when."""

    task: str
    since: datetime


class Runner:
    """Looks for what is due or waits, and has it done."""

    def __init__(
        self, ledger: Ledger, schedule: Schedule, now: Callable[[], datetime], program: Sequence[str] = PROGRAM
    ) -> None:
        self._program = program
        self._ledger = ledger
        self._schedule = schedule
        self._now = now
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="runner")
        self.running: Running | None = None
        self.failure = ""

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Work while the block runs; in the end what runs is asked to stop, and left waiting for the next start."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            self._wake.set()
            self._thread.join()

    @property
    def lives(self) -> bool:
        """Whether work is looked for."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Look at once."""
        self._wake.set()

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                served = self._serve()
                self.failure = ""
            except GoldsmithError as error:  # the database is away: all that waits is there when it is back
                served = False
                if self.failure != error.message:
                    say(f"serve: {error.message}")
                self.failure = error.message
            if not served:
                self._wake.wait(LOOK_SECONDS)
            self._wake.clear()

    def _serve(self) -> bool:
        """Do what waits. Whether anything did, and is done."""
        now = self._now()
        for trigger in self._schedule.due(now):
            self._ledger.add_trigger(trigger.id, trigger.kind, trigger.at)
        waiting = self._ledger.waiting_triggers()
        if not (task := command(waiting)):
            return False
        code = self._run(task)
        if code is None:
            return False
        self._ledger.finish_triggers([trigger.id for trigger in waiting], self._now(), f"exit code {code}")
        self._ledger.forget_triggers(now - KEPT)
        return True

    def _run(self, task: list[str]) -> int | None:
        """The exit code of a task; None where we were told to stop before it ended."""
        self.running = Running(" ".join(task), self._now())
        say(f"serve: {self.running.task} begins")
        try:
            with subprocess.Popen(dies_with_us([*self._program, *task]), stdin=subprocess.DEVNULL) as child:
                return self._watched(child)
        finally:
            self.running = None

    def _watched(self, child: subprocess.Popen[bytes]) -> int | None:
        while child.poll() is None:
            if self._stopping.wait(0.2):
                child.send_signal(signal.SIGINT)
                try:
                    child.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    child.kill()
                return None
        say(f"serve: {self.running.task if self.running else ''} ended with exit code {child.returncode}")
        return child.returncode if child.returncode >= 0 else None  # killed by a signal: it goes on at the next look
