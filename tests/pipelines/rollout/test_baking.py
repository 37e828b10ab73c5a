"""How a wave bakes: for how long, what ends it early, who is ill, and what people are shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
from pipelines.fleet.members import Member, Read
from pipelines.fleet.port import Group, Progress, Watched
from pipelines.rollout.baking import Census, IllError, bake, bake_group, refuse_fewer, settle
from pipelines.rollout.plan import plan
from pipelines.rollout.state import (
    DesiredState,
    Event,
    OperatorCommands,
    Order,
    Phase,
    RolloutStage,
    RolloutState,
    World,
)
from pipelines.rollout.steps import Rolling, StoppedError, UnhealthyError
from tests.pipelines.rollout.test_steps import Clock
from tests.support.fleets import NOW, fleet, judged, member, target

MINUTE = timedelta(minutes=1)
GO, PAUSE, ABORT, ROLLBACK = DesiredState
NAMES = ("web-1", "web-2")


@dataclass
class Fleet:
    """Members of which some are ill for some time: `ill` tells it from a name and the seconds that have passed."""

    clock: Clock
    ill: Callable[[str, float], bool | None] = lambda _name, _at: False
    looks: list[str] = field(default_factory=list)

    def read(self, key: Any) -> Read:
        assert key.old == f"id-{key.name}"
        self.looks.append(key.name)
        ill = self.ill(key.name, sum(self.clock.waited))
        if ill is None:
            raise OutsideError("no engine")
        return Read(not ill, f"{key.name} is {'ill' if ill else 'well'}")


@dataclass
class Book:
    """A journal: what people want at each second, what the rollout was shown to do, and what people were told."""

    clock: Clock
    wanted: Callable[[float], OperatorCommands] = lambda _at: OperatorCommands()
    shown: list[RolloutState] = field(default_factory=list)
    told: list[tuple[Event, str]] = field(default_factory=list)

    def orders(self, rollout: str) -> OperatorCommands:
        assert rollout == "r1"
        return self.wanted(sum(self.clock.waited))

    def save(self, state: RolloutState) -> None:
        self.shown.append(state)

    def notify(self, rollout: str, event: Event, text: str) -> None:
        self.told.append((event, text))

    def fence(self, rollout: str) -> None:
        """This process holds the lease."""


@dataclass
class Approver:
    """Who refuses a replacement once somebody has revoked it, and looks at alarms."""

    revoked: bool = False
    firing: bool = False

    def refuse(self, replacement: object) -> None:
        assert replacement == target()
        if self.revoked:
            raise RefusedError("revoked")

    def alarms(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names) if self.firing else ()


@dataclass
class Bake:
    """A rollout of two members, whose new instances stand beside their old ones."""

    rolling: Rolling
    fleet: Fleet
    book: Book
    judge: Approver

    @property
    def waited(self) -> float:
        return sum(self.fleet.clock.waited)

    def stages(self) -> list[tuple[RolloutStage, str]]:
        return [(state.stage, state.note) for state in self.book.shown]


def baking(*, phase: Phase = Phase.SERVING, **limits: Any) -> Bake:
    of = fleet(**{"min_healthy_time": "30s", "healthy_deadline": "2m", "progress_deadline": "1h", **limits})
    made = plan(of, [judged(name, "expired") for name in NAMES], target(), NOW)
    clock = Clock()
    members, book, judge = Fleet(clock), Book(clock), Approver()
    world: Any = World(members, book, judge, lambda: NOW)  # type: ignore[arg-type]
    engine: Any = clock
    rolling = Rolling(world, engine, Order("r1", made, of.limits), NOW)
    rolling.wave = made.steps
    for one in list(rolling.members.values()):
        rolling.keep(replace(one, phase=phase, old=f"id-{one.name}"))
    return Bake(rolling, members, book, judge)


def run(made: Bake, span: timedelta = 5 * MINUTE, *, asks: bool = False) -> Bake:
    asyncio.run(bake(made.rolling, span, asks=asks))
    return made


def approved(at: float) -> Callable[[float], OperatorCommands]:
    """A person approves at that second."""
    return lambda now: OperatorCommands(GO, int(now >= at))


def test_a_healthy_wave_bakes_for_its_span_and_goes_on() -> None:
    """Every new member is looked at each time; people are shown once that it bakes."""
    made = run(baking())
    assert 300 <= made.waited <= 310
    assert made.fleet.looks == list(NAMES) * (len(made.fleet.clock.waited) + 1)
    assert made.stages() == [(RolloutStage.BAKING, "baking for 5m")]
    assert made.book.told == []
    assert made.fleet.clock.waited[0] == 5
    assert set(made.fleet.clock.steps) == {"watch the new members", "baking 0"}


def test_a_bake_of_no_time_looks_once() -> None:
    """And nobody is shown anything."""
    made = run(baking(), timedelta())
    assert (made.fleet.looks, made.waited, made.stages()) == (list(NAMES), 0, [])


def test_a_wave_of_which_nobody_is_new_does_not_bake() -> None:
    """There is nothing to look at."""
    made = run(baking(phase=Phase.SKIPPED), asks=True)
    assert (made.fleet.looks, made.waited) == ([], 0)


def test_a_canary_waits_for_a_person_after_its_bake() -> None:
    """Who is told of it with the command; the approval continues the rollout at once."""
    made = baking()
    made.book.wanted = approved(1000)
    run(made, asks=True)
    assert 1000 <= made.waited <= 1050
    assert made.stages()[0] == (RolloutStage.BAKING, "baking for 5m")
    [(event, text)] = made.book.told
    assert event is Event.APPROVAL
    assert text == "the canary has baked; ./goldsmith roll.approve web continues the rollout"
    assert made.stages()[1:] == [(RolloutStage.CANARY_APPROVAL, text)]


def test_an_approval_ends_a_bake_early_and_one_of_before_does_not() -> None:
    """It counts from the first look on."""
    made = baking()
    made.book.wanted = approved(60)
    assert 60 <= run(made).waited <= 65
    before = baking()
    before.book.wanted = lambda _now: OperatorCommands(GO, 3)
    assert run(before).waited >= 300


def test_a_pause_lets_no_time_pass() -> None:
    """Not of the bake; people are told of it."""
    made = baking()
    made.book.wanted = lambda now: OperatorCommands(PAUSE if 100 <= now < 200 else GO)
    run(made)
    assert 400 <= made.waited <= 420
    assert [stage for stage, _ in made.stages()] == [RolloutStage.BAKING, RolloutStage.PAUSED, RolloutStage.BAKING]
    assert made.book.told == [(Event.PAUSED, RolloutStage.PAUSED)]


@pytest.mark.parametrize("wanted", [ABORT, ROLLBACK])
def test_a_stop_ends_a_bake_at_once(wanted: DesiredState) -> None:
    """Nothing more begins."""
    made = baking()
    made.book.wanted = lambda now: OperatorCommands(wanted if now >= 100 else GO)
    with pytest.raises(StoppedError):
        run(made)
    assert 100 <= made.waited <= 105


def test_three_bad_looks_in_a_row_are_an_illness() -> None:
    """It names who is ill and not who is well, with what was seen."""
    made = baking()
    made.fleet.ill = lambda name, now: name == "web-2" and now >= 100
    with pytest.raises(IllError) as ill:
        run(made)
    assert ill.value.members == ("host/local/docker/web-2",)
    assert ill.value.message == "web-2: the new one became unhealthy during the bake"
    assert ill.value.evidence.splitlines()[-3:] == ["health: web-2 is ill"] * 3
    assert ill.value.hint == "fix the image; the old one serves"
    assert 110 <= made.waited <= 115


def test_one_bad_look_makes_a_member_prove_itself_anew() -> None:
    """Before the wave goes on, over min_healthy_time; another member is not asked for that."""
    made = baking()
    made.fleet.ill = lambda name, now: name == "web-1" and 285 <= now < 300
    assert 325 <= run(made).waited <= 350
    early = baking()
    early.fleet.ill = lambda name, now: name == "web-1" and 10 <= now < 12
    assert run(early).waited <= 310


def test_who_is_not_well_again_within_the_deadline_after_the_bake_is_ill() -> None:
    """Though it never has three bad looks in a row; a fleet that does not answer is no health either."""
    made = baking()
    made.fleet.ill = lambda name, now: None if name == "web-1" and now >= 250 else False
    with pytest.raises(IllError) as late:
        run(made)
    assert late.value.message == "web-1: the new one was not healthy within 2m after its bake"
    assert late.value.members == ("host/local/docker/web-1",)
    assert "health: no engine" in late.value.evidence
    assert 420 <= made.waited <= 440


def test_who_waits_for_a_person_is_never_late() -> None:
    """That time counts for nothing."""
    made = baking()
    made.book.wanted = approved(5000)
    made.fleet.ill = lambda name, now: name == "web-1" and 4000 <= now < 4030
    assert run(made, asks=True).waited >= 5000


def test_the_replacement_is_judged_with_each_look() -> None:
    """A revocation or an alarm ends the bake."""
    revoked, alarmed = baking(), baking(alarms=["http://127.0.0.1/alarm"])
    revoked.judge.revoked = alarmed.judge.firing = True
    with pytest.raises(RefusedError, match="revoked"):
        run(revoked)
    with pytest.raises(RefusedError, match=r"an alarm is firing: http://127\.0\.0\.1/alarm"):
        run(alarmed)


def test_a_rollout_that_has_failed_lets_every_member_prove_itself_anew() -> None:
    """Over min_healthy_time, whoever revokes what; a member that is new for good is not asked."""
    made = baking()
    made.judge.revoked = True
    asyncio.run(settle(made.rolling))
    assert 30 <= made.waited <= 32
    assert made.stages() == [(RolloutStage.BAKING, "baking for 0s")]
    assert set(made.fleet.looks) == set(NAMES)
    new = baking(phase=Phase.NEW)
    asyncio.run(settle(new.rolling))
    assert new.fleet.looks == []


def test_the_canary_of_a_group_bakes_and_is_approved_by_its_name() -> None:
    """The service watches its health; nobody is looked at here."""
    made = baking(bake_time="7m")
    made.book.wanted = approved(1000)
    asyncio.run(bake_group(made.rolling, "shop"))
    assert 1000 <= made.waited <= 1050
    assert made.fleet.looks == []
    text = "the canary of shop has baked; ./goldsmith roll.approve web continues the rollout"
    assert made.stages() == [
        (RolloutStage.BAKING, "baking the canary of shop for 7m"), (RolloutStage.CANARY_APPROVAL, text),
    ]  # fmt: skip
    assert made.book.told == [(Event.APPROVAL, text)]
    revoked = baking()
    revoked.judge.revoked = True
    with pytest.raises(RefusedError, match="revoked"):
        asyncio.run(bake_group(revoked.rolling, "shop"))


def test_a_canary_that_is_the_whole_group_only_has_to_stay_well_until_a_person_approves() -> None:
    """It has baked while it was rolled; the service says how all of it is, and what it says is told."""
    group = Group("place/deployment/shop", "shop", 2, 2)

    def waited(*seen: Watched) -> tuple[Bake, list[object]]:
        made, left, asked = baking(bake_time="7m"), list(seen), list[object]()

        def watch(*of: object) -> Watched:
            asked.append(of)
            return left.pop(0) if left[1:] else left[0]

        port: Any = SimpleNamespace(watch=watch)
        made.rolling.world = replace(made.rolling.world, delegated=port)
        made.book.wanted = approved(100)
        asyncio.run(bake_group(made.rolling, "shop", group))
        return made, asked

    made, asked = waited(Watched(Progress.DONE))
    assert 100 <= made.waited < 200
    assert set(asked) == {("r1", group)}
    late, _ = waited(*[Watched(Progress.RUNNING, 90)] * 120, Watched(Progress.DONE))
    assert late.waited > 200, "what is approved while it is not well waits until it is"
    with pytest.raises(
        UnhealthyError, match="the canary of shop became unhealthy: the service reports failed: a pod crashed"
    ):
        waited(Watched(Progress.DONE), Watched(Progress.FAILED, 0, "a pod crashed"))


def test_a_whole_canary_that_comes_no_nearer_to_being_well_is_not_waited_for() -> None:
    """Longer than progress_deadline, counted anew from each progress."""
    group = Group("place/deployment/shop", "shop", 2, 2)

    def waited(percents: Callable[[float], int]) -> Bake:
        made = baking(bake_time="7m")

        def watch(*_: object) -> Watched:
            percent = percents(made.waited)
            return Watched(Progress.RUNNING if percent < 100 else Progress.DONE, percent)

        port: Any = SimpleNamespace(watch=watch)
        made.rolling.world, made.book.wanted = replace(made.rolling.world, delegated=port), approved(100)
        with suppress(UnhealthyError):
            asyncio.run(bake_group(made.rolling, "shop", group))
            return made
        assert 3600 <= made.waited < 3700
        return made

    assert waited(lambda now: 50 if now < 3000 else 60 if now < 6000 else 100).waited >= 6000
    assert waited(lambda _now: 50).waited < 3700


def test_a_fleet_that_ends_with_fewer_is_shown_so_after_three_looks() -> None:
    """One that serves again by the third was late, and nobody is told of anything."""
    before = Census({"id-1": "web-1"}, ("id-1",))
    for back in (3, 4):
        made, looks = baking(), list[int]()

        def describe(looks: list[int] = looks, back: int = back) -> list[Member]:
            looks.append(1)
            return [replace(member("web-1"), id="id-1", healthy=len(looks) >= back)]

        place: Any = SimpleNamespace(describe=describe)
        made.rolling.world = replace(made.rolling.world, fleet=place)
        asyncio.run(refuse_fewer(made.rolling, before))
        why = "it began with 1 serving members and ends with 0; these serve no longer: web-1" if back == 4 else ""
        assert (len(looks), made.rolling.state.failure) == (3, why)
        assert made.stages() == ([(RolloutStage.RESTORING, why)] if why else [])


def test_a_ledger_that_is_away_is_waited_for_longer_where_no_member_can_fall_ill_meanwhile() -> None:
    """Half a minute with members, a quarter of an hour for a group."""

    def away(tries: int) -> Callable[[float], OperatorCommands]:
        left = [OutsideError("no ledger")] * tries

        def wanted(_now: float) -> OperatorCommands:
            if left:
                raise left.pop()
            return OperatorCommands(GO, int(_now > 2000))

        return wanted

    made = baking()
    made.book.wanted = away(6)
    with pytest.raises(OutsideError, match="no ledger"):
        run(made)
    group = baking()
    group.book.wanted = away(39)
    asyncio.run(bake_group(group.rolling, "shop"))


def test_where_one_falls_ill_those_that_have_not_proved_themselves_yet_are_not() -> None:
    """Without auto_rollback whoever is named goes back: one that is well must not."""
    made = baking()
    made.fleet.ill = lambda name, now: name == "web-1"
    with pytest.raises(IllError) as ill:
        asyncio.run(settle(made.rolling))
    assert ill.value.members == ("host/local/docker/web-1",)
    assert ill.value.message == "web-1: the new one became unhealthy during the bake"
    assert ill.value.evidence.splitlines() == ["health: web-1 is ill"] * 3
