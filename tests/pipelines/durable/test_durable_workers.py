"""Who lives and who is dead: a worker is declared dead only on evidence that lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hardening.foundation.errors import OutsideError
from pipelines.durable.workers import AFTER_LOSS, AloneLocks, Locks, Reaper, session
from tests.conftest import POSTGRES
from tests.support.loop import until
from tests.support.postgres import Server


class Looked:
    """Locks as a test wants them, and what a reaper made of them."""

    looks = 3

    def __init__(self) -> None:
        self.gone = {"dead"}
        self.answers = True
        self.taken: list[str] = []
        self.left = {"dead", "living", "me"}
        self.reaper = Reaper("me", self, lambda: self.left, self.taken.append)

    def keep(self) -> None:
        """Know, or not."""
        if not self.answers:
            raise OutsideError("the database is away")

    @contextmanager
    def dead(self, worker: str) -> Iterator[bool]:
        """Whether it is."""
        yield worker in self.gone

    def look(self, times: int) -> list[str]:
        """Let the reaper look so often; from whom it has taken so far."""
        for _ in range(times):
            self.reaper.look()
        return self.taken


def is_dead(locks: Locks, worker: str) -> bool:
    """Whether a worker's lock is free."""
    with locks.dead(worker) as dead:
        return dead


def test_a_dead_worker_is_found_in_several_looks() -> None:
    """Neither earlier nor another one, nor ourselves."""
    looked = Looked()
    assert looked.look(2) == []
    assert looked.look(1) == ["dead"]


def test_a_lock_that_is_taken_again_was_never_lost() -> None:
    """A database that restarts drops all locks for a moment."""
    looked = Looked()
    looked.look(2)
    looked.gone = set()
    looked.look(1)
    looked.gone = {"dead"}
    assert looked.look(2) == []


def test_nobody_is_dead_while_nobody_can_know() -> None:
    """A database that is away proves nothing, and what was seen before it went counts no more. Once it is back the
    living get the time to take their locks again, however busy their machine is.
    """
    looked = Looked()
    looked.look(2)
    looked.answers = False
    looked.look(5)
    looked.answers = True
    assert looked.look(AFTER_LOSS - 1) == []
    assert looked.look(1) == ["dead"]
    looked.gone = {"living"}
    assert looked.look(3) == ["dead", "living"], "then all is as before"


def test_what_a_worker_left_is_taken_until_nothing_is_left() -> None:
    """What failed is tried again."""
    looked = Looked()
    assert looked.look(4) == ["dead", "dead"]
    looked.left = {"me"}
    assert looked.look(4) == ["dead", "dead"]


def test_who_has_a_state_alone_need_not_look_twice() -> None:
    """The file's lock says that all others are dead."""
    taken: list[str] = []
    Reaper("me", AloneLocks(), lambda: {"other", "me"}, taken.append).look()
    assert taken == ["other"]


@pytest.mark.needs(POSTGRES)
def test_a_lock_is_free_when_its_session_has_ended(running_postgres: Server) -> None:
    """And only then. While one process takes what a dead one left, no other finds it dead."""
    url = running_postgres.new_database()
    with session(url, "first") as first:
        with session(url, "second") as second:
            assert not is_dead(first, "second")
            assert not is_dead(second, "first")
        until(lambda: is_dead(first, "second"), "the server to see that the session has ended")
        with first.dead("second"), session(url, "third") as third:
            assert not is_dead(third, "second")
        until(lambda: is_dead(first, "second"), "the server to see that the session has ended")


@pytest.mark.needs(POSTGRES)
def test_a_worker_takes_its_lock_again_after_a_restart(running_postgres: Server) -> None:
    """While the server is away nobody knows; once it is back the living have their locks."""
    url = running_postgres.new_database()
    with session(url, "first") as first, session(url, "second") as second:
        running_postgres.stop()
        for locks in (first, second):
            with pytest.raises(OutsideError):
                locks.keep()
        running_postgres.start()
        for locks in (first, second):
            locks.keep()
        assert not is_dead(first, "second")
        assert not is_dead(second, "first")
