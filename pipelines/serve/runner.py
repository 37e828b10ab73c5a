"""Edge: runs `nightly` for due work, one at a time, each in its own process.

What waits stands in the ledger before anything is done, and is done only when the process has ended: who is killed
in between finds it again. `nightly` itself goes on where a killed one stopped.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, RefusedError
from hardening.foundation.process import run_until
from hardening.foundation.settings import ROOT
from images.ledger import Ledger, Trigger
from images.plan.cooldown import SKEW
from pipelines.serve.moments import Schedule, command

PROGRAM = (sys.executable, str(ROOT / "tasks.py"))
LOOK_SECONDS = 5.0
STOP_SECONDS = 60
MOST_DEATHS = 3  # in a row, such as by too little memory: then the next moment is soon enough
KILLED = 128  # and the number of the signal: the exit code of what one killed
KEPT = timedelta(days=30)


@dataclass(frozen=True)
class Running:
    """The work that is being done: the task, and since when."""

    task: str
    since: datetime


class Runner:
    """Looks for what is due or waits, and has it done; not while `busy`: somebody else's night runs on this machine, or
    another `serve` runs those of this database.
    """

    def __init__(
        self, ledger: Ledger, schedule: Schedule, now: Callable[[], datetime], program: Sequence[str] = PROGRAM,
        look_seconds: float = LOOK_SECONDS, busy: Callable[[], bool] = lambda: False, policy: str = "",
    ) -> None:  # fmt: skip
        self._program = program
        self._look_seconds = look_seconds
        self._ledger = ledger
        self._schedule = schedule
        self._now = now
        self._busy = busy
        self._policy = policy
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="runner")
        self.running: Running | None = None
        self.failure = ""
        self._deaths = 0
        self._forgot_at: datetime | None = None

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

    def last_runs(self) -> dict[str, Trigger]:
        """The last run of each kind, but for those of a day to come by our clock."""
        return self._ledger.last_triggers(self._now() + SKEW)

    def wake(self) -> None:
        """Look at once."""
        self._wake.set()

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                served = self._serve()
                self.failure = ""
            except Exception as error:  # the database, or memory for a child: all that waits is there when it is back
                served = False
                said = error.message if isinstance(error, GoldsmithError) else f"{type(error).__name__}: {error}"
                if self.failure != said:
                    say(f"serve: {said}")
                self.failure = said
            if not served:
                self._wake.wait(self._look_seconds)
            self._wake.clear()

    def _serve(self) -> bool:
        """Do what waits. Whether anything did, and is done."""
        now = self._now()
        self._forget(now)
        for trigger in self._schedule.due(now):
            self._ledger.add_trigger(trigger.id, trigger.kind, trigger.at)
        waiting = self._ledger.waiting_triggers()
        if not (task := command(waiting, self._policy)) or self._busy():
            return False
        code = self._run(task)
        self._deaths = self._deaths + 1 if code is not None and code > KILLED else 0
        other = code == RefusedError.exit_code and self._busy()  # somebody else's night that began right before it
        if code is None or other or 0 < self._deaths < MOST_DEATHS:
            return False
        self._ledger.finish_triggers([trigger.id for trigger in waiting], self._now(), f"exit code {code}")
        self._forgot_at = None
        return True

    def _forget(self, now: datetime) -> None:
        """Remove old runs and those of a day to come, at the start, after each run, and where the clock went back.

        Only while we run the nights: by another clock a run of this night is of a time to come, and would be repeated.
        """
        if (self._forgot_at is None or now < self._forgot_at) and not self._busy():
            self._ledger.forget_triggers(now - KEPT, now + SKEW)
            self._forgot_at = now

    def _run(self, task: list[str]) -> int | None:
        """The exit code of a task, as shells tell it; None where we were told to stop first."""
        self.running = Running(" ".join(task), self._now())
        say(f"serve: {self.running.task} begins")
        try:
            code = run_until([*self._program, *task], self._stopping.wait, STOP_SECONDS)
            if code is None:
                return None
            code = code if code >= 0 else KILLED - code  # alerts ask for what is above 0
            say(f"serve: {self.running.task} ended with exit code {code}")
            return code
        finally:
            self.running = None
