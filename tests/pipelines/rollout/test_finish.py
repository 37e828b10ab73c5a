"""How a member's step ends: which instance serves, which goes, what is written down, and what people are told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
from pipelines.fleet.members import Member, Read
from pipelines.fleet.model import Method
from pipelines.fleet.port import GoneError
from pipelines.rollout.member import finish_member
from pipelines.rollout.state import Cause, DesiredState, Finish, MemberOrder, MemberState, Phase, Verb, World
from tests.pipelines.rollout.test_steps import Clock, Ledger
from tests.support.fleets import fleet, member, target

ID = "host/local/docker/web-1"


@dataclass
class Pair:
    """An old and a new instance of one member: how each look at them goes, the last for ever, and what was done."""

    new: list[bool] = field(default_factory=lambda: [True])
    old: list[bool] = field(default_factory=lambda: [True])
    others: int = 3
    fails: dict[str, Exception] = field(default_factory=dict)
    away: dict[str, int] = field(default_factory=dict)  # how often the engine does not answer, by what it is asked
    done: list[str] = field(default_factory=list)

    def read(self, key: Any) -> Read:
        return self._look("new", self.new, key)

    def read_old(self, key: Any) -> Read:
        return self._look("old", self.old, key)

    def describe(self) -> list[Member]:
        return [member("web-1"), *(member(f"other-{number}") for number in range(self.others))]

    def log(self, _key: object) -> str:
        return "first line\nlast line"

    def remove_old(self, key: Any) -> None:
        self._do("remove the old", key)

    def discard(self, key: Any) -> None:
        self._do("discard the new", key)

    def revive(self, key: Any) -> None:
        self._do("revive", key)

    def swap(self, key: Any) -> None:
        self._do("swap", key)

    def retire(self, key: Any, drain: timedelta) -> None:
        self._do(f"retire in {drain.total_seconds():g}", key)

    def _look(self, which: str, looks: list[bool], key: Any) -> Read:
        assert (key.member, key.old) == (ID, "id-web-1")
        self._answer(which)
        good = looks.pop(0) if looks[1:] else looks[0]
        return Read(good, f"{which} is {'well' if good else 'ill'}")

    def _do(self, what: str, key: Any) -> None:
        assert (key.member, key.old) == (ID, "id-web-1")
        if what in self.fails:
            raise self.fails[what]
        self._answer(what)
        self.done.append(what)

    def _answer(self, what: str) -> None:
        if self.away.get(what, 0):
            self.away[what] -= 1
            raise AWAY


@dataclass
class Book(Ledger):
    """A journal that also keeps how far the member is."""

    marked: list[MemberState] = field(default_factory=list)

    def mark(self, _rollout: str, state: MemberState) -> None:
        self.marked.append(state)


def ended(pair: Pair, verb: Verb, note: str = "", **limits: Any) -> tuple[MemberState, Book, Clock]:
    """How the member ends, what the journal holds of that, and what was waited."""
    floor, method, back = limits.pop("floor", 0), limits.pop("method", Method.SURGE), limits.pop("back", False)
    wanted = limits.pop("wanted", DesiredState.GO)
    of = fleet(min_healthy_time="30s", healthy_deadline="2m", progress_deadline="1h", drain="9s", **limits).limits
    order = MemberOrder("r1", "r1", ID, "web-1", target(), method, floor, of, back=back)
    book, clock = Book([wanted]), Clock()
    world: Any = World(pair, book, None, lambda: datetime.now(UTC))  # type: ignore[arg-type]
    engine: Any = clock
    state = MemberState(ID, "web-1", Phase.NEW, "id-web-1", "r@sha256:1")
    found = asyncio.run(finish_member(world, engine, Finish(verb, order, state, note)))
    assert book.marked == [found], "what it answers is what it wrote down"
    assert world.retiring == set(), "who is through counts as what the fleet shows"
    return found, book, clock


def audited(book: Book) -> list[str]:
    return [line.removeprefix("audit r1: ") for line in book.lines if line.startswith("audit")]


STATE = MemberState(ID, "web-1", Phase.NEW, "id-web-1", "r@sha256:1")
AWAY = OutsideError("no engine")


def test_the_old_one_goes_for_good_at_a_moment_when_the_new_one_is_good() -> None:
    """One look is enough where it is; and nothing is said."""
    pair = Pair()
    found, book, clock = ended(pair, Verb.PROMOTE)
    assert (found, pair.done) == (STATE, ["remove the old"])
    assert (audited(book), clock.waited) == (["remove the old web-1"], [])


def test_a_new_one_that_is_ill_for_a_moment_proves_itself_anew() -> None:
    """Over the whole of min_healthy_time, before the old one goes."""
    pair = Pair(new=[False, True])
    found, _, clock = ended(pair, Verb.PROMOTE)
    assert (found, pair.done) == (STATE, ["remove the old"])
    assert sum(clock.waited) >= 30


def test_a_new_one_that_is_ill_each_time_the_old_one_is_to_go_gives_it_back() -> None:
    """Three times, though it proved itself in between."""
    pair = Pair(new=[False, *[True] * 7, False, *[True] * 7, False, True])
    found, _, _ = ended(pair, Verb.PROMOTE)
    assert pair.done == ["revive", "discard the new"]
    assert (found.phase, found.note) == (Phase.OLD, "")
    assert "the new one was healthy, but no longer when the old one was about to be removed, 3 times" in found.failure
    assert "health: new is ill" in found.failure
    assert "\n  | health: new is ill\n  | log: first line\n  | log: last line\n" in found.failure
    assert "fix the image, or its health check; the old one serves" in found.failure


def test_an_old_one_that_cannot_be_removed_stays_and_is_told() -> None:
    """The new one serves: that is no failure."""
    pair = Pair(fails={"remove the old": AWAY})
    found, _, clock = ended(pair, Verb.PROMOTE)
    assert (found.phase, found.note, found.failure) == (Phase.NEW, "the old one is still there: no engine", "")
    assert len(clock.waited) == 39


def test_a_member_goes_back_once_its_old_one_serves() -> None:
    """Revived, looked at, and only then the new one goes; the note says why."""
    pair = Pair(old=[False, True])
    found, book, clock = ended(pair, Verb.RESTORE, "it fell ill")
    assert pair.done == ["revive", "discard the new"]
    assert (found.phase, found.note, found.failure) == (Phase.OLD, "it fell ill", "")
    assert audited(book) == ["revive web-1", "discard the new web-1"]
    assert len(clock.waited) == 1


def test_an_old_one_that_does_not_get_well_leaves_the_new_one_that_serves() -> None:
    """The old one is kept, stopped, for a person to see; the new one has its name."""
    pair = Pair(old=[False])
    found, book, clock = ended(pair, Verb.RESTORE)
    assert pair.done == ["revive", "retire in 9", "swap"]
    said = "the new one serves, the old one is kept: the old one is not healthy any more"
    assert (found.phase, found.note, found.failure) == (Phase.FAILED, said, said)
    assert audited(book) == ["revive web-1", "keep the new web-1"]
    assert 120 <= sum(clock.waited) < 200


def test_where_neither_serves_the_old_one_is_put_back_all_the_same() -> None:
    """It is what was there before."""
    pair = Pair(new=[False], old=[False])
    found, _, _ = ended(pair, Verb.RESTORE)
    assert (pair.done, found.phase) == (["revive", "discard the new"], Phase.OLD)


def test_an_old_one_that_falls_ill_right_before_the_new_one_goes_is_looked_at_again() -> None:
    """Three times at most; then what serves stays."""
    once = Pair(old=[True, False, True])
    assert (ended(once, Verb.RESTORE)[0].phase, once.done) == (Phase.OLD, ["revive", "discard the new"])
    always = Pair(old=[True, False, True, False, True, False, True])
    found, _, _ = ended(always, Verb.RESTORE)
    assert (found.phase, always.done) == (Phase.FAILED, ["revive", "retire in 9", "swap"])


def test_in_place_the_new_one_stays_where_stopping_it_would_leave_too_few() -> None:
    """For as long as the deadline for health; then it serves on, and people are told."""
    pair = Pair(others=1)
    found, book, clock = ended(pair, Verb.RESTORE, method=Method.IN_PLACE, floor=2)
    held = "stopping the new web-1 now would leave 1 member serving; the floor is 2"
    said = f"the new one serves, the old one is kept: {held}"
    assert (found.phase, found.note, found.failure) == (Phase.FAILED, said, said)
    assert pair.done == ["retire in 9", "swap"]
    assert audited(book) == ["keep the new web-1"], "what was held back was not done"
    assert 120 <= sum(clock.waited) < 130
    enough = Pair(others=2)
    assert ended(enough, Verb.RESTORE, method=Method.IN_PLACE, floor=2)[0].phase is Phase.OLD


def test_in_place_a_new_one_that_is_ill_for_certain_stops() -> None:
    """After three bad looks in a row, whatever the floor: it serves nobody."""
    pair = Pair(new=[False], others=1)
    found, _, clock = ended(pair, Verb.RESTORE, method=Method.IN_PLACE, floor=2)
    assert (found.phase, pair.done) == (Phase.OLD, ["revive", "discard the new"])
    assert clock.waited == [2, 2, 2]


def test_a_member_that_cannot_be_put_back_is_a_persons() -> None:
    """With the reason; where the rollout fails anyway, by that failure."""
    pair = Pair(fails={"revive": RefusedError("no room")})
    found, _, _ = ended(pair, Verb.RESTORE)
    said = "it could not be rolled back: no room"
    assert (found.phase, found.note, found.failure) == (Phase.FAILED, said, said)
    ill = Pair(new=[False], fails={"revive": RefusedError("no room")})
    found, _, _ = ended(ill, Verb.PROMOTE)
    assert (found.phase, found.note) == (Phase.FAILED, said)
    assert found.failure.startswith("web-1: the new one was not healthy")


def test_where_the_old_one_has_vanished_a_good_new_one_takes_its_name() -> None:
    """There is nothing to go back to."""
    pair = Pair(fails={"revive": GoneError("gone")})
    found, book, _ = ended(pair, Verb.RESTORE)
    assert pair.done == ["swap"]
    assert (found.phase, found.note, found.failure) == (Phase.NEW, "the old one vanished meanwhile", "")
    assert audited(book) == ["swap web-1"]


def test_where_the_old_one_has_vanished_an_ill_new_one_goes_too() -> None:
    """The member is gone, and that is a failure: with the new one its last instance was removed."""
    pair = Pair(new=[False], fails={"revive": GoneError("gone")})
    found, book, _ = ended(pair, Verb.RESTORE)
    assert pair.done == ["discard the new"]
    said = "web-1: the old one vanished, and the new one was not healthy: it is removed"
    assert (found.phase, found.cause, found.note, found.failure) == (Phase.FAILED, Cause.GONE, "it is gone", said)
    assert audited(book) == ["discard the new web-1"]
    failed, _, _ = ended(Pair(new=[False], fails={"revive": GoneError("gone")}), Verb.PROMOTE)
    assert (failed.phase, failed.cause) == (Phase.FAILED, Cause.GONE)
    assert failed.failure.startswith("web-1: the new one was not healthy")


@pytest.mark.parametrize(
    ("reads", "unanswered"), [([True], 1), ([True], 20), ([False, False, True], 0), ([False, True], 5)]
)
def test_where_the_old_one_has_vanished_one_bad_look_removes_nothing(reads: list[bool], unanswered: int) -> None:
    """Bad health is believed after three bad looks; a look that could not be made says nothing of it."""
    pair = Pair(new=reads, fails={"revive": GoneError("gone")}, away={"new": unanswered})
    found, _, _ = ended(pair, Verb.RESTORE)
    assert (pair.done, found.phase, found.failure) == (["swap"], Phase.NEW, "")


def test_where_the_old_one_has_vanished_and_the_fleet_says_nothing_of_the_new_one_it_is_kept() -> None:
    """It may be all that serves; a person is told."""
    pair = Pair(fails={"revive": GoneError("gone")}, away={"new": 10_000})
    found, _, clock = ended(pair, Verb.RESTORE)
    said = "the old one vanished, and whether the new one serves is unknown: it is kept"
    assert (pair.done, found.phase, found.note, found.failure) == ([], Phase.FAILED, said, said)
    assert 120 <= sum(clock.waited) < 130


def test_where_the_old_one_is_ill_two_bad_looks_at_the_new_one_remove_nothing() -> None:
    """Only what is ill for certain makes way for what is ill, too."""
    pair = Pair(new=[False, False, True], old=[False])
    found, _, _ = ended(pair, Verb.RESTORE)
    assert (pair.done, found.phase) == (["revive", "retire in 9", "swap"], Phase.FAILED)


NO_ROOM = {"revive": OutsideError("no capacity for an instance of this type")}


def test_an_old_one_that_cannot_start_again_leaves_the_member_to_the_new_one_that_serves() -> None:
    """Else what serves would be no member, and have an expiry; the old one is kept, and people are told why."""
    pair = Pair(old=[False], fails=dict(NO_ROOM))
    found, book, _ = ended(pair, Verb.RESTORE, "an alarm is firing")
    assert pair.done == ["retire in 9", "swap"]
    why = "it could not be rolled back: no capacity for an instance of this type"
    said = f"the new one serves, the old one is kept: {why}"
    assert (found.phase, found.note, found.failure) == (Phase.FAILED, said, said)
    assert audited(book) == ["keep the new web-1"]
    unnamed = Pair(old=[False], fails=NO_ROOM | {"swap": AWAY})
    found, _, _ = ended(unnamed, Verb.RESTORE)
    assert found.note == f"{why}; the new one could not take its place: no engine"
    assert unnamed.done.count("retire in 9") == 40


@pytest.mark.parametrize(
    "given", [{"old": [True]}, {"old": [False], "new": [False]}, {"away": {"old": 10_000}}, {"away": {"new": 10_000}}]
)
def test_what_could_not_be_put_back_is_left_as_it_is_where_the_new_one_is_not_all_that_serves(
    given: dict[str, Any],
) -> None:
    """The old one serves, or neither does, or the fleet does not say: nothing is stopped for that."""
    pair = Pair(**{"old": [False], **given}, fails=dict(NO_ROOM))
    found, _, _ = ended(pair, Verb.RESTORE)
    assert (pair.done, found.phase) == ([], Phase.FAILED)
    assert found.note == "it could not be rolled back: no capacity for an instance of this type"


def test_where_the_old_one_has_vanished_and_the_new_one_cannot_be_named_people_are_told() -> None:
    """With what went wrong last."""
    pair = Pair(fails={"revive": GoneError("gone"), "swap": RefusedError("the name is taken")})
    found, _, _ = ended(pair, Verb.RESTORE)
    said = "the old one vanished, and then: the name is taken"
    assert (found.phase, found.note, found.failure) == (Phase.FAILED, said, said)


@pytest.mark.parametrize(
    ("given", "effects"),
    [
        ({}, ["revive", "discard the new"]),
        ({"old": [False]}, ["revive", "retire in 9", "swap"]),
        ({"fails": {"revive": GoneError("gone")}}, ["swap"]),
        ({"new": [False], "fails": {"revive": GoneError("gone")}}, ["discard the new"]),
    ],
)
def test_on_the_way_back_an_engine_that_restarts_is_waited_for(given: dict[str, Any], effects: list[str]) -> None:
    """A quarter of an hour for each effect: nobody is left half way."""
    pair = Pair(**given, away=dict.fromkeys(effects, 19 if effects[2:] else 39))
    ended(pair, Verb.RESTORE)
    assert pair.done[-1] == effects[-1]
    assert set(pair.done) == set(effects)


def test_a_failure_of_the_rollout_stays_its_failure_whatever_becomes_of_the_member() -> None:
    """Its note says what became of it."""
    ill = "web-1: the new one was healthy, but no longer when the old one was about to be removed, 3 times"
    reads = [False, *[True] * 7, False, *[True] * 7, False, True]
    kept, _, clock = ended(Pair(new=list(reads), old=[False]), Verb.PROMOTE)
    assert kept.note == "the new one serves, the old one is kept: the old one is not healthy any more"
    assert kept.failure.startswith(ill)
    assert "read the new web-1" in clock.steps
    held, _, _ = ended(Pair(new=list(reads), others=1), Verb.PROMOTE, method=Method.IN_PLACE, floor=2)
    assert held.note.endswith("the floor is 2")
    assert held.failure.startswith(ill)
    named, _, _ = ended(Pair(new=list(reads), fails={"revive": GoneError("gone")}), Verb.PROMOTE)
    assert (named.phase, named.note) == (Phase.NEW, "the old one vanished meanwhile")
    assert named.failure.startswith(ill)


def test_an_old_one_that_is_to_serve_again_is_waited_for_whoever_stops_the_rollout() -> None:
    """Half way nobody may be left."""
    pair = Pair(old=[False, False, True])
    found, _, clock = ended(pair, Verb.RESTORE, wanted=DesiredState.ABORT)
    assert (found.phase, pair.done, len(clock.waited)) == (Phase.OLD, ["revive", "discard the new"], 2)
    assert clock.steps.count("read the old web-1") == 3


def test_a_rollback_stops_who_goes_forward_and_not_who_goes_back() -> None:
    """While the new one proves itself anew: the one is put back, the other is on its way there."""
    forward, _, _ = ended(Pair(new=[False, True]), Verb.PROMOTE, wanted=DesiredState.ROLLBACK)
    assert (forward.phase, forward.failure) == (Phase.OLD, "stopped by rollback")
    back, _, _ = ended(Pair(new=[False, True]), Verb.PROMOTE, wanted=DesiredState.ROLLBACK, back=True)
    assert (back.phase, back.failure) == (Phase.NEW, "")
