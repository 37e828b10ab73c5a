"""A rollout that a service does: what it is asked, when it is asked to stop, and what is said of each group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from fleets import fleet, target

from hardening.foundation.errors import OutsideError
from images.documents import from_json, to_json
from pipelines.durable.execution import Fate
from pipelines.durable.memory import Memory, Process
from pipelines.fleet.delegated import DelegatedFleet, Group, Pacing, Progress, Watched
from pipelines.fleet.members import Member, Target
from pipelines.rollouts.delegated import GroupWorld
from pipelines.rollouts.groups import GROUPS, group_flows
from pipelines.rollouts.journal import Stance
from pipelines.rollouts.orders import GroupOrder, GroupsOrder, Judge, MemberOrder
from pipelines.rollouts.state import Outcome, Phase, Stage
from pipelines.simulation.ledger import Ledger, SimulatedJournal

PACE = Pacing(90, 110, (), timedelta(), timedelta(), timedelta(), (), auto_rollback=True)
MINUTES = 600.0
SECOND_GROUP = "123456789012/eu-central-1/asg/two"


@dataclass
class Rolling:
    """One rolling of the service: done after MINUTES, unless something else comes first."""

    began: float
    ended: Progress | None = None
    back_at: float | None = None


class Service(DelegatedFleet):
    """Groups that a service rolls over virtual time. Each effect may lose its answer; each is idempotent by rollout."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.running: dict[str, str] = {}
        self.rollings: dict[tuple[str, str], Rolling] = {}
        self.asked: list[str] = []
        self.lost: set[int] = set()
        self.fails: set[str] = set()
        self.stands_still = False

    def groups(self) -> tuple[Group, ...]:
        return ()

    def pin(self, rollout: str, group: Group) -> Any:
        return {"version": f"old-{group.name}"}

    def begin(self, rollout: str, group: Group, target: Target, pinned: Any, pacing: Pacing) -> None:
        if (rollout, group.id) not in self.rollings:
            self.rollings[rollout, group.id] = Rolling(self.memory.time)
        self._asked(f"begin {rollout} {group.name}")

    def watch(self, rollout: str, group: Group) -> Watched:
        rolling = self.rollings[rollout, group.id]
        age = self.memory.time - rolling.began
        if rolling.back_at is not None:
            back = self.memory.time - rolling.back_at > MINUTES / 2
            return Watched(Progress.ROLLED_BACK if back else Progress.ROLLING_BACK)
        if rolling.ended:
            return Watched(rolling.ended, int(100 * min(1, age / MINUTES)))
        if group.name in self.fails and age > MINUTES / 2:
            return Watched(Progress.FAILED, 50, "instances are unhealthy")
        if age >= MINUTES and not self.stands_still:
            return Watched(Progress.DONE, 100)
        return Watched(Progress.RUNNING, 10 if self.stands_still else int(100 * age / MINUTES))

    def cancel(self, rollout: str, group: Group) -> None:
        rolling = self.rollings[rollout, group.id]
        rolling.ended = rolling.ended or Progress.CANCELLED
        self._asked(f"cancel {rollout} {group.name}")

    def roll_back(self, rollout: str, group: Group, pinned: Any) -> None:
        rolling = self.rollings[rollout, group.id]
        rolling.back_at = self.memory.time if rolling.back_at is None else rolling.back_at
        self._asked(f"roll back {rollout} {group.name} to {pinned['version']}")

    def _asked(self, what: str) -> None:
        self.asked.append(what)
        if len(self.asked) in self.lost:
            raise OutsideError("no answer came")


@dataclass
class Alarms(Judge):
    """Nothing has changed since the plan, but for what a test says."""

    firing: list[str] = field(default_factory=list)

    def left_alone(self, order: MemberOrder, member: Member) -> str:
        return ""

    def refuse(self, target: Target) -> None:
        return None

    def alarms(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(self.firing)


class Play:
    """A rollout of two groups by the service."""

    def __init__(self, *, dies_at: int = 0, cannot: str = "", **limits: Any) -> None:
        self.steps = 0
        self.dies_at = dies_at
        self.memory = Memory(self._fate)
        self.service = Service(self.memory)
        self.ledger = Ledger()
        self.judge = Alarms()
        kept = fleet(**limits).limits
        groups = [Group(f"123456789012/eu-central-1/asg/{name}", name, 10, 10, cannot) for name in ("one", "two")]
        orders = tuple(GroupOrder("r1", "web", group, target(), PACE, kept) for group in groups)
        self.order = GroupsOrder("r1", "web", target(), kept, orders)
        self.process = self._process("first")

    def _process(self, name: str) -> Process:
        self.ledger.holder = name
        world = GroupWorld(self.service, SimulatedJournal(self.ledger, name), self.judge)
        return self.memory.process(name, group_flows(lambda _fleet: world, self.memory.now))

    def _fate(self, _flow: str, _name: str) -> Fate:
        self.steps += 1
        return Fate(0.1, "after" if self.steps == self.dies_at else "")

    def says(self, at: float, stance: Stance) -> None:
        """A person says something at a moment."""

        def say() -> None:
            self.ledger.stance = stance
            for row in list(self.memory.rows.values()):
                self.memory.wake(row.id)

        self.memory.at(at, say)

    def at(self, seconds: float, happen: Callable[[], None]) -> None:
        self.memory.at(seconds, happen)

    def play(self) -> Outcome:
        row = self.process.start(GROUPS, "r1", to_json(self.order))
        self.memory.run(1e6, lambda: row.ended or not self.process.alive)
        if not self.process.alive:
            self.process = self._process("second")
            self.process.recover()
            self.memory.run(2e6, lambda: row.ended)
        self.memory.close()
        return from_json(Outcome, row.result)


def phases(outcome: Outcome) -> list[Phase]:
    return [member.phase for member in outcome.members]


def test_groups_are_rolled_one_after_the_other() -> None:
    """The service is asked once for each."""
    play = Play()
    assert phases(play.play()) == [Phase.NEW, Phase.NEW]
    assert play.service.asked == ["begin r1 one", "begin r1 two"]


def test_a_group_that_could_not_be_brought_back_is_left_alone() -> None:
    """With the reason."""
    outcome = Play(cannot="its image comes from a parameter").play()
    assert phases(outcome) == [Phase.SKIPPED, Phase.SKIPPED]
    assert outcome.members[0].note == "its image comes from a parameter"


def test_a_group_that_fails_goes_back_to_its_pin_and_the_next_one_is_not_begun() -> None:
    """By the exact version."""
    play = Play()
    play.service.fails = {"one"}
    outcome = play.play()
    assert phases(outcome) == [Phase.OLD, Phase.PLANNED]
    assert "instances are unhealthy" in outcome.state.failure
    assert play.service.asked == ["begin r1 one", "roll back r1 one to old-one"]


def test_without_auto_rollback_a_group_that_fails_is_reported_as_it_is() -> None:
    """Nothing else is done to it."""
    play = Play(auto_rollback=False)
    play.service.fails = {"one"}
    assert phases(play.play()) == [Phase.FAILED, Phase.PLANNED]
    assert play.service.asked == ["begin r1 one"]


def test_a_pause_cancels_and_a_resume_begins_anew() -> None:
    """The service has no pause: what it has done by then is kept, and a new rolling skips it."""
    play = Play()
    play.says(100, Stance.PAUSE)
    play.says(5000, Stance.GO)
    assert phases(play.play()) == [Phase.NEW, Phase.NEW]
    assert play.service.asked == ["begin r1 one", "cancel r1 one", "begin r1-2 one", "begin r1 two"]


@pytest.mark.parametrize("at", [50.0, 700.0])
def test_an_abort_is_accepted_by_the_service_within_two_seconds(at: float) -> None:
    """The group stays mixed, and that is said."""
    play = Play()
    moments: list[float] = []
    cancel = play.service.cancel
    play.service.cancel = lambda *args: (moments.append(play.memory.time), cancel(*args))[1]  # type: ignore[method-assign,func-returns-value]
    play.says(at, Stance.ABORT)
    outcome = play.play()
    assert moments[0] - at < 2
    assert phases(outcome) == ([Phase.FAILED, Phase.PLANNED] if at < MINUTES else [Phase.NEW, Phase.FAILED])
    assert "part of the group runs the new version" in outcome.state.failure


def test_a_rollback_brings_all_groups_back_those_that_were_done_too() -> None:
    """Each to its own pin."""
    play = Play()
    play.says(700, Stance.ROLLBACK)
    assert phases(play.play()) == [Phase.OLD, Phase.OLD]
    assert play.service.asked[2:] == ["roll back r1 two to old-two", "roll back r1 one to old-one"]


def test_an_alarm_of_ours_rolls_back() -> None:
    """The service watches its own; addresses are ours to watch."""
    play = Play(alarms=["http://alarm.example"])
    play.at(100, lambda: play.judge.firing.append("http://alarm.example"))
    outcome = play.play()
    assert phases(outcome) == [Phase.OLD, Phase.PLANNED]
    assert "http://alarm.example" in outcome.state.failure


def test_a_group_that_stands_still_is_brought_back_after_the_progress_deadline() -> None:
    """Half an hour at ten percent is no progress."""
    play = Play()
    play.service.stands_still = True
    outcome = play.play()
    assert phases(outcome)[0] is Phase.OLD
    assert "stood at 10 %" in outcome.state.failure


def test_a_lost_answer_begins_once() -> None:
    """The repeated call finds the first."""
    play = Play()
    play.service.lost = {1}
    assert phases(play.play()) == [Phase.NEW, Phase.NEW]
    assert len(play.service.rollings) == 2


def test_killed_after_any_step_it_comes_to_the_same_end() -> None:
    """The effect done, its record lost."""
    calm = Play()
    calm.play()
    for number in range(1, calm.steps):
        play = Play(dies_at=number)
        assert phases(play.play()) == [Phase.NEW, Phase.NEW], number
        assert len(play.service.rollings) == 2


def test_a_freeze_is_waited_out_between_groups() -> None:
    """And shown meanwhile."""
    freeze = {"first_day": "2026-03-01", "last_day": "2026-03-01", "zone": "UTC", "reason": "inventory"}
    play = Play(freezes=[freeze])
    seen: list[Stage] = []
    play.at(100, lambda: seen.append(play.ledger.state.stage) if play.ledger.state else None)
    assert phases(play.play()) == [Phase.NEW, Phase.NEW]
    assert seen == [Stage.WAITING]
