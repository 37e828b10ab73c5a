"""Which worker is alive: a lock that dies with its process, and the reaper that takes over dead workers' flows.

Nothing else recovers the flows of a dead process. A worker takes its lock before it executes anything; one whose lock
is free, in several looks in a row, is dead. A database that restarts drops all locks at once: whoever saw it away looks
for longer, so that a busy worker has the time to take its lock again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hardening.foundation.errors import OutsideError
from hardening.foundation.locks import only_one

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

LOOK_SECONDS = 1.0
AFTER_LOSS = 60  # looks that a lock must stay free once the database was away
SPACE = 0x60_1D  # of the two numbers that name an advisory lock, the one that is ours


class LostError(OutsideError):
    """A process may do nothing more with a flow: another one owns the work now."""


class Locks(Protocol):
    """Who holds which worker's lock. `looks`: how many in a row must find a lock free.

    `alone`: no other living process can execute flows from this database.
    """

    looks: int
    alone: bool

    def keep(self) -> None:
        """Hold our own lock, again where it was lost. Raises OutsideError while it is unknown which workers live."""

    def dead(self, worker: str) -> AbstractContextManager[bool]:
        """Whether this worker's lock is free; if it is, hold it for the block."""


class AloneLocks:
    """The locks of a state that only one process may use: any other process that worked on it is dead."""

    looks = 1
    alone = True

    def keep(self) -> None:
        """Nothing to do: the file's lock is held."""

    @contextmanager
    def dead(self, worker: str) -> Iterator[bool]:  # noqa: ARG002
        """Always."""
        yield True


@contextmanager
def alone(file: Path, *, wait_seconds: float = 0) -> Iterator[AloneLocks]:
    """Have the state in `file` to ourselves. Raises RefusedError while another process has it."""
    what = "long work, which one process at a time does,"
    with only_one(file.with_name(f"{file.name}.lock"), what, wait_seconds=wait_seconds):
        yield AloneLocks()


class SessionLocks:
    """PostgreSQL's session advisory locks: the server frees them when the process, its machine or the line is gone."""

    looks = 4
    alone = False

    def __init__(self, engine: Engine, worker: str) -> None:
        self._engine = engine
        self._worker = worker
        self._connection: Connection | None = None

    def keep(self) -> None:
        """Hold our own lock, in a session that lasts. Raises OutsideError."""
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
                if not self._taken(self._worker):
                    raise OutsideError(f"the lock of {self._worker} is not free yet")
            self._ask("select 1")
        except Exception as error:
            self.close()
            raise OutsideError(f"the database does not answer: {error}") from None

    @contextmanager
    def dead(self, worker: str) -> Iterator[bool]:
        """Whether this worker's lock is free; if it is, hold it for the block."""
        if not self._taken(worker):
            yield False
            return
        try:
            yield True
        finally:
            self._ask("select pg_advisory_unlock(:space, hashtext(:worker))", worker)

    def close(self) -> None:
        """End the session, and with it the lock."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def _taken(self, worker: str) -> bool:
        return bool(self._ask("select pg_try_advisory_lock(:space, hashtext(:worker))", worker))

    def _ask(self, statement: str, worker: str = "") -> object:
        from sqlalchemy import text

        if self._connection is None:
            raise OutsideError("the database does not answer")
        values = {"space": SPACE, "worker": worker} if worker else {}
        return self._connection.execute(text(statement), values).scalar()


@contextmanager
def session(url: str, worker: str) -> Iterator[SessionLocks]:
    """Hold `worker`'s lock in the database at `url`. Raises OutsideError where it does not answer."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    # The server looks whether we are still there: a lost machine's lock is free after about ten seconds.
    alive = "-c tcp_keepalives_idle=4 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3"
    engine = create_engine(
        url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args={"options": alive, "connect_timeout": 5}
    )
    locks = SessionLocks(engine, worker)
    try:
        locks.keep()
        yield locks
    finally:
        locks.close()


@dataclass
class Reaper:
    """Looks for dead workers that left flows. `holders` names the workers that have flows, `inherit` takes one's.

    `restore` is called while our own lock is held: it undoes what another worker did that took us for dead.
    """

    own: str
    locks: Locks
    holders: Callable[[], Iterable[str]]
    inherit: Callable[[str], None]
    restore: Callable[[], None] = lambda: None
    _seen: Counter[str] = field(default_factory=Counter)
    _wary: int = 0  # looks left until a death is believed as soon as ever

    def look(self) -> None:
        """One look: of who was found dead often enough, what it left is taken."""
        try:
            self.locks.keep()
            self.restore()
            holders = set(self.holders()) - {self.own}
            self._seen = Counter({worker: self._seen[worker] for worker in holders})
            for worker in sorted(holders):
                self._look_at(worker)
            self._wary = max(0, self._wary - 1)
        except Exception:  # no answer proves no death: start counting again
            self._seen.clear()
            self._wary = AFTER_LOSS

    def _look_at(self, worker: str) -> None:
        with self.locks.dead(worker) as dead:
            self._seen[worker] = self._seen[worker] + 1 if dead else 0
            if self._seen[worker] >= self.locks.looks and self._wary <= 1:
                self.inherit(worker)

    def at_work(self) -> AbstractContextManager[None]:
        """Look now, and every second while the block runs."""
        self.look()
        return repeated("reaper", self.look, LOOK_SECONDS)


@contextmanager
def repeated(name: str, call: Callable[[], object], seconds: float) -> Iterator[None]:
    """Call `call` every so many seconds while the block runs, from a thread of this name."""
    over = threading.Event()

    def keep_calling() -> None:
        while not over.wait(seconds):
            call()

    thread = threading.Thread(target=keep_calling, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
