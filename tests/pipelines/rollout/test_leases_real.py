"""Two real processes, one fleet: one of them sleeps through its lease, or has a clock that is wrong."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine

from images.ledger import Lease, Ledger
from tests.conftest import POSTGRES
from tests.support.forked import ended, start_forked
from tests.support.loop import until
from tests.support.postgres import Server
from tests.support.sleeping import FLEET, NAMES, ROLLOUT, FileFleet, carry

REPLACED = {name: f"new-{name}" for name in NAMES}
EFFECTS = [f"{effect} {name}" for name in NAMES for effect in ("create", "swap", "remove")]


@dataclass
class Place:
    """A database and a fleet, and the processes that roll it."""

    database: str
    fleet: FileFleet
    ledger: Ledger
    running: list[BaseProcess] = field(default_factory=list)

    def start(self, hours: int = 0) -> BaseProcess:
        """A process that carries the rollout."""
        self.said(len(self.running)).touch()
        self.running.append(
            start_forked(carry, self.database, self.fleet.folder, hours, stderr=self.said(len(self.running)))
        )
        return self.running[-1]

    def said(self, number: int) -> Path:
        """The file with what a process said."""
        return self.fleet.folder / f"said-{number}"

    def at_work(self) -> BaseProcess:
        """A process in the middle of its first member."""
        process = self.start()
        until(lambda: f"create {NAMES[0]}" in self.fleet.effects or not process.is_alive(), "the first effect")
        assert process.is_alive(), self.said(0).read_text()
        return process

    def suspend(self, process: BaseProcess) -> None:
        """Suspend a process between two transactions and two effects: one that sleeps in one keeps its file."""
        while True:
            send(process, signal.SIGSTOP)
            until(lambda: "State:\tT" in Path(f"/proc/{process.pid}/status").read_text(), "its sleep")
            if self.fleet.is_unlocked() and self._writable():
                return
            send(process, signal.SIGCONT)

    def _writable(self) -> bool:
        engine = create_engine(self.database, connect_args={"timeout": 0.1} if "sqlite" in self.database else {})
        lock = "begin exclusive" if "sqlite" in self.database else "lock table leases in access exclusive mode nowait"
        try:
            with closing(engine.raw_connection()) as connection:
                connection.cursor().execute(lock)
                connection.rollback()
        except (sqlite3.OperationalError, psycopg.Error):
            return False
        else:
            return True
        finally:
            engine.dispose()

    def lease(self) -> Lease:
        """The fleet's lease."""
        lease = self.ledger.lease(FLEET.name)
        assert lease
        return lease

    def let_lease_end(self) -> Lease:
        """Let the lease end as if its minute had passed, while its owner is suspended."""
        lease = self.lease()
        assert self.ledger.renew_lease(lease, timedelta(seconds=-1))
        return self.lease()

    def let_go_on(self) -> None:
        """From now on new instances are healthy."""
        (self.fleet.folder / "well").touch()


def place_on(database: str, folder: Path) -> Iterator[Place]:
    folder.mkdir()
    fleet = FileFleet(folder)
    fleet.lay_out()
    with closing(Ledger.open(database)) as ledger:
        place = Place(database, fleet, ledger)
        yield place
        for process in place.running:
            process.kill()
            process.join()


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Place]:
    """One machine with a ledger in a file."""
    yield from place_on(f"sqlite:///{tmp_path}/ledger.sqlite", tmp_path / "fleet")


@pytest.fixture
def on_postgres(tmp_path: Path, running_postgres: Server) -> Iterator[Place]:
    """Machines that share a database."""
    yield from place_on(running_postgres.new_database(), tmp_path / "fleet")


def send(process: BaseProcess, number: signal.Signals) -> None:
    """Send it a signal."""
    assert process.pid
    os.kill(process.pid, number)


def owner(process: BaseProcess) -> str:
    """What stands in the middle of an owner's name."""
    return f":{process.pid}-"


def test_a_process_that_slept_through_its_lease_goes_on_where_nobody_else_could(on_sqlite: Place) -> None:
    """A file's lock sleeps with its owner: the second is refused by name, and leaves the lease alone."""
    place = on_sqlite
    first = place.at_work()
    place.suspend(first)
    lost = place.let_lease_end()
    second = place.start()
    assert ended(second) == 3, place.said(1).read_text()
    assert f"is being rolled by {lost.owner} ({ROLLOUT}), whose process lives" in place.said(1).read_text()
    assert place.lease() == lost, "who cannot go on takes no lease"
    send(first, signal.SIGCONT)
    place.let_go_on()
    assert ended(first) == 0, place.said(0).read_text()
    assert (place.fleet.images, place.fleet.effects) == (REPLACED, EFFECTS)
    assert place.ledger.lease(FLEET.name) is None


def test_a_clock_two_hours_ahead_takes_nobodys_lease_on_a_file(on_sqlite: Place) -> None:
    """The second operator is refused, and the first one's rollout goes on as if nothing had been."""
    place = on_sqlite
    first = place.at_work()
    assert ended(place.start(hours=2)) == 3, place.said(1).read_text()
    assert owner(first) in place.lease().owner
    place.let_go_on()
    assert ended(first) == 0, place.said(0).read_text()
    assert (place.fleet.images, place.fleet.effects) == (REPLACED, EFFECTS)


@pytest.mark.needs(POSTGRES)
def test_a_clock_two_hours_ahead_takes_nobodys_lease_on_a_server(on_postgres: Place) -> None:
    """The server's clock says when a lease ends, for everybody."""
    place = on_postgres
    first = place.at_work()
    second = place.start(hours=2)
    assert ended(second) == 3, place.said(1).read_text()
    assert "whose lease lasts until" in place.said(1).read_text()
    assert owner(first) in place.lease().owner
    place.let_go_on()
    assert ended(first) == 0, place.said(0).read_text()
    assert (place.fleet.images, place.fleet.effects) == (REPLACED, EFFECTS)


@pytest.mark.needs(POSTGRES)
def test_a_process_that_lost_its_lease_ends_and_says_why_while_the_heir_goes_on(on_postgres: Place) -> None:
    """It sleeps, another one takes over, it wakes: exit code 4 within seconds, and no effect is made twice."""
    place = on_postgres
    first = place.at_work()
    place.suspend(first)
    place.let_lease_end()
    second = place.start()
    until(lambda: owner(second) in place.lease().owner, "the heir")
    send(first, signal.SIGCONT)
    assert ended(first) == 4, "long before the heir is done, which waits for the test"
    assert second.is_alive()
    said = place.said(0).read_text()
    assert f"has lost the lease of {FLEET.name} and stopped {ROLLOUT} here: {place.lease().owner} has it now" in said
    assert f"roll.status {FLEET.name}" in said
    place.let_go_on()
    assert ended(second) == 0, place.said(1).read_text()
    assert (place.fleet.images, place.fleet.effects) == (REPLACED, EFFECTS)


@pytest.mark.needs(POSTGRES)
def test_a_process_that_wakes_after_the_heir_is_done_ends_too(on_postgres: Place) -> None:
    """What became of the rollout is told by the heir; the one that slept says that it is not its own any more."""
    place = on_postgres
    first = place.at_work()
    place.suspend(first)
    place.let_lease_end()
    place.let_go_on()
    assert ended(place.start()) == 0, place.said(1).read_text()
    send(first, signal.SIGCONT)
    assert ended(first) == 4, place.said(0).read_text()
    assert "no process has it now" in place.said(0).read_text()
    assert (place.fleet.images, place.fleet.effects) == (REPLACED, EFFECTS)


def test_a_process_whose_lease_is_gone_frees_the_lock_of_its_file(on_sqlite: Place) -> None:
    """Whatever took its lease, such as an older Goldsmith: it ends, and the next start goes on."""
    place = on_sqlite
    first = place.at_work()
    place.ledger.release_lease(place.lease())
    assert ended(first) == 4, place.said(0).read_text()
    assert "no process has it now" in place.said(0).read_text()
    place.let_go_on()
    assert ended(place.start()) == 0, place.said(1).read_text()
    assert (place.fleet.images, place.fleet.effects) == (REPLACED, EFFECTS)
