"""In place, two members that are to stop at once do not count each other as serving."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from threading import Barrier, BrokenBarrierError, Thread
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from images.ledger import Lease
from pipelines.fleet.members import Key, Member, Read
from pipelines.fleet.model import Method
from pipelines.fleet.port import InProgressError
from pipelines.rollout import member as flow
from pipelines.rollout import service
from pipelines.rollout.member import replace_member
from pipelines.rollout.state import MemberOrder, MemberState, Phase, World
from pipelines.rollout.steps import MemberContext
from tests.pipelines.rollout.test_finish import Book
from tests.pipelines.rollout.test_rehearsal import Swap
from tests.pipelines.rollout.test_steps import Clock
from tests.support.fleets import NOW, fleet, member, target

FIVE = [member(f"web-{number}") for number in range(1, 6)]
FLOOR = 3
DRAIN = timedelta(seconds=9)


@dataclass
class Place:
    """Five members, one of them ill: they are seen to serve until they have stopped. `retire` raises what `fails`."""

    fails: Exception | None = None
    retired: list[str] = field(default_factory=list)

    def describe(self) -> list[Member]:
        return [*FIVE[:4], replace(FIVE[4], healthy=False)]

    def retire(self, key: Key, _drain: timedelta) -> None:
        self.retired.append(key.name)
        if self.fails:
            raise self.fails

    def start(self, _key: Key) -> None:
        """Its new one serves in its place."""

    def read(self, _key: Key) -> Read:
        return Read(True, "serves")

    def revive(self, key: Key) -> None:
        """Its new one stops for that."""
        self.retired.append(key.name)


def order(name: str) -> MemberOrder:
    of = fleet(method="in_place", max_unavailable=2)
    return MemberOrder("r1", "r1", f"host/local/docker/{name}", name, target(), Method.IN_PLACE, FLOOR, of.limits)


def work(world: World, name: str) -> MemberContext:
    """A member that is to stop."""
    engine: Any = Clock()
    made = order(name)
    return MemberContext.of(world, engine, made, MemberState(made.member, name, old=f"id-{name}"))


def asked(world: World, name: str) -> str:
    """Why the member does not stop now; empty where it does."""
    held = flow._retire_safely(work(world, name), DRAIN, begun=False)
    return held.why if held else ""


@pytest.mark.parametrize("fails", [None, OutsideError("no answer came")], ids=["stops", "perhaps stops"])
def test_a_member_whose_retirement_has_begun_counts_as_away(fails: OutsideError | None) -> None:
    """The fleet shows it as serving for a while; it may ask again for itself."""
    place: Any = Place(fails)
    world = World(place, Book(), None, lambda: NOW)  # type: ignore[arg-type]
    with suppress(OutsideError):
        assert asked(world, "web-1") == ""
    held = "replacing web-2 in place now would leave 2 members serving; the floor is 3; not serving: web-5"
    assert asked(world, "web-2") == held
    place.fails = None
    assert (asked(world, "web-1"), asked(world, "web-2")) == ("", held)
    assert place.retired == ["web-1", "web-1"]


def test_a_member_that_takes_its_time_to_stop_counts_as_away() -> None:
    """It has begun: nobody else may count on it."""
    place: Any = Place(InProgressError("it to be drained"))
    world = World(place, Book(), None, lambda: NOW)  # type: ignore[arg-type]
    assert asked(world, "web-1") == "waiting for it to be drained"
    assert "the floor is 3" in asked(world, "web-2")


def put_back(world: World, name: str) -> str:
    """Why the member's new instance does not stop for the old one now; empty where it does."""
    held = flow._revive_safely(work(world, name), ill=False)
    return held.why if held else ""


def test_a_process_that_goes_on_counts_who_was_stopping_already() -> None:
    """Its own memory of that died with the process that began it."""
    place: Any = Place(InProgressError("it to be drained"))
    world = World(place, Book(), None, lambda: NOW)  # type: ignore[arg-type]
    flow._retire_safely(work(world, "web-1"), DRAIN, begun=True)
    assert "the floor is 3" in asked(world, "web-2")


def test_of_members_that_go_back_at_once_no_more_stop_than_the_floor_lets() -> None:
    """An abort wakes all of a batch: each new one serves until its old one takes over, and another member is ill."""
    place: Any = Place()
    world = World(place, Book(), None, lambda: NOW)  # type: ignore[arg-type]
    world.retiring.update(order(name).member for name in ("web-1", "web-2"))  # since their old ones stopped
    held = "stopping the new web-1 now would leave 2 members serving; the floor is 3"
    assert (put_back(world, "web-1"), put_back(world, "web-2")) == (held, ""), "who is held back serves"
    assert put_back(world, "web-1") == held
    world.retiring.discard(order("web-2").member)  # it is through
    assert put_back(world, "web-1") == ""
    assert place.retired == ["web-2", "web-1"]


@pytest.mark.parametrize("ask", [asked, put_back])
def test_of_two_members_that_ask_at_the_same_moment_one_stops(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[World, str], str]
) -> None:
    """Steps run in threads of one process, which answers one after the other: neither sees the other as serving."""
    worlds = list[World]()

    def flows(world: World) -> Mapping[str, Any]:
        worlds.append(world)
        return {}

    monkeypatch.setattr(service, "flows", flows)
    both = Barrier(2)

    class Counted(list[Member]):
        """Once all are counted, the other one counts them too, before anybody acts on that."""

        def __iter__(self) -> Iterator[Member]:
            yield from super().__iter__()
            with suppress(BrokenBarrierError):  # the other one is kept out, and does not come
                both.wait(timeout=1)

    class Watched(Place):
        def describe(self) -> list[Member]:
            return Counted(super().describe())

    place = Watched()
    monkeypatch.setattr(service, "notifier", lambda _: None)
    monkeypatch.setattr(service, "recording", lambda *_: None)
    ledger = SimpleNamespace(save_member=lambda *_: None)
    at: Any = SimpleNamespace(
        members=place, together=None, groups=None, context=SimpleNamespace(settings=None, ledger=ledger, actor="ann")
    )
    plan: Any = SimpleNamespace(limits=None, plan=SimpleNamespace(target=None))
    service._flows(at, plan, Lease("web", "ann", "r1", NOW), lambda: NOW, None)
    (world,) = worlds
    threads = [Thread(target=ask, args=(world, name)) for name in ("web-1", "web-2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(place.retired) == 1


@pytest.mark.parametrize("fails", [(), ("swap",), ("retire",)], ids=str)
def test_a_member_that_is_through_counts_as_what_the_fleet_shows(fails: tuple[str, ...]) -> None:
    """New, or put back: nobody waits for it any more."""
    engine: Any = Clock()
    judge: Any = SimpleNamespace(left_alone=lambda *_: "", refuse=lambda _: None)
    pair: Any = Swap(fails=fails)
    world = World(pair, Book(), judge, lambda: NOW)  # type: ignore[arg-type]
    found = asyncio.run(replace_member(world, engine, replace(order("web-1"), floor=1)))
    assert found.phase is (Phase.OLD if fails else Phase.SERVING)
    assert world.retiring == set()
