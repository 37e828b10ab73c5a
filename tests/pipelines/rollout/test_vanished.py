"""Somebody removes a member's old instance while it is replaced: the new one is all that is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from pipelines.fleet.members import Key, Member, Read
from pipelines.fleet.model import Method
from pipelines.fleet.port import GoneError
from pipelines.rollout.member import replace_member
from pipelines.rollout.state import Cause, DesiredState, MemberOrder, MemberState, Phase, World
from tests.pipelines.rollout.test_finish import ID, Book
from tests.pipelines.rollout.test_rollout_run import Run, phases
from tests.pipelines.rollout.test_steps import Clock
from tests.simulation.scenario import Fault, FaultKind
from tests.support.fleets import NOW, fleet, member, target

GO, ABORT = DesiredState.GO, DesiredState.ABORT
ASKED = 4  # what people want is asked by so many steps before the new one is looked at for the last time


@dataclass
class Beside:
    """A member whose old instance is gone as soon as `gone_at` is asked for, and how looks at its new one go.

    A look is good or bad, or None where the fleet does not answer; the last one is for ever.
    """

    gone_at: str
    looks: list[bool | None]
    done: list[str] = field(default_factory=list)

    def find(self, _member: str) -> Member:
        return member("web-1")

    def read(self, _key: Key) -> Read:
        good = self.looks.pop(0) if self.looks[1:] else self.looks[0]
        if good is None:
            raise OutsideError("too many requests")
        return Read(good, "well" if good else "ill")

    def log(self, _key: Key) -> str:
        return "last words"

    def differences(self, _key: Key) -> tuple[str, ...]:
        return ()

    def revive(self, _key: Key) -> None:
        raise GoneError("the old one is gone")

    def __getattr__(self, effect: str) -> Callable[..., None]:
        def act(*_: object) -> None:
            if effect == self.gone_at:
                raise GoneError("the old one is gone")
            self.done.append(effect)

        return act


def replaced(of: Beside, *wanted: DesiredState) -> MemberState:
    """The member after its replacement beside the old one."""
    engine: Any = Clock()
    judge: Any = SimpleNamespace(left_alone=lambda *_: "", refuse=lambda _: None)
    order = MemberOrder("r1", "r1", ID, "web-1", target(), Method.SURGE, 0, fleet(min_healthy_time="1s").limits)
    world: Any = World(of, Book(list(wanted) or [GO]), judge, lambda: NOW)  # type: ignore[arg-type]
    return asyncio.run(replace_member(world, engine, order))


@pytest.mark.parametrize(
    ("gone_at", "looks"),
    [
        ("expose", [True]),
        ("expose", [True, True, True, None, True]),
        ("expose", [True, True, True, False, None, False, True]),
        ("start", [*[False] * 9, True]),
        ("start", [*[None] * 9, True]),
    ],
)
def test_the_new_one_takes_the_name_once_it_is_well(gone_at: str, looks: list[bool | None]) -> None:
    """One look that fails, or is bad, is no reason to remove it; one that starts is waited for."""
    of = Beside(gone_at, looks)
    found = replaced(of)
    assert (found.phase, found.note, found.failure) == (Phase.NEW, "the old one vanished meanwhile", "")
    assert of.done == ["create", *(["start"] if gone_at == "expose" else []), "swap"]


def test_a_new_one_that_does_not_get_well_is_removed_and_that_is_no_success() -> None:
    """The member has no instance any more: the failure says why, with the last words of the new one."""
    of = Beside("expose", [True, True, True, False])
    found = replaced(of)
    assert of.done == ["create", "start", "discard"]
    assert (found.phase, found.cause) == (Phase.FAILED, Cause.GONE)
    assert "web-1: the new one was not healthy" in found.failure
    assert "log: last words" in found.failure


def test_a_new_one_of_which_nothing_is_known_is_kept_for_a_person() -> None:
    """It may be the last instance that serves."""
    of = Beside("expose", [True, True, True, None])
    found = replaced(of)
    assert (of.done, found.phase) == (["create", "start"], Phase.FAILED)
    assert "whether the new one serves is unknown: it is kept" in found.note


def test_a_person_who_stops_the_rollout_does_not_lose_the_member_by_that() -> None:
    """The new one is no longer waited for, and goes only if it is ill for certain."""
    for looks, phase, last in (([True], Phase.NEW, "swap"), ([False], Phase.FAILED, "discard")):
        of = Beside("start", list(looks))
        found = replaced(of, *[GO] * ASKED, ABORT)
        assert (found.phase, of.done) == (phase, ["create", last])


def test_a_member_that_was_gone_before_anything_was_launched_is_left_alone() -> None:
    """That is told, and no failure."""
    of = Beside("create", [False])
    found = replaced(of)
    assert (found.phase, found.cause, found.failure) == (Phase.SKIPPED, Cause.GONE, "")


@pytest.mark.parametrize("at", [8, 20, 38])
def test_an_abort_is_obeyed_though_the_old_one_is_gone_and_the_new_one_ill(at: float) -> None:
    """With every promise held: the new one is looked at no longer than it takes to be certain."""
    gone = Fault(FaultKind.VANISHES, at, member=0)
    run = Run({}, Fault(FaultKind.NEVER_HEALTHY), gone, Fault(FaultKind.ABORT, at + 3))
    outcome = run.play()
    assert phases(outcome) == [Phase.FAILED, Phase.PLANNED, Phase.PLANNED]
    assert run.ended_at < at + 30
    assert "old-0" not in run.estate.boxes
