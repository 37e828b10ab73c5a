"""A rollout that a service does: what it is asked, when it is asked to stop, and what is said of each group."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from images.documents import from_json, to_json
from pipelines.fleet.ec2.pacing import pacing
from pipelines.fleet.members import Member, ReplacementImage
from pipelines.fleet.port import Group, MemberFleet
from pipelines.rollout.flow import ROLLOUT, flows
from pipelines.rollout.plan import plan
from pipelines.rollout.plan_model import GroupStep
from pipelines.rollout.state import (
    DesiredState,
    Event,
    GroupOrder,
    Judge,
    MemberOrder,
    MemberState,
    Order,
    Phase,
    RolloutOutcome,
    RolloutStage,
    World,
)
from pipelines.rollout.steps import StoppedError
from tests.simulation.execution import Fate, Point, distinct
from tests.simulation.groups import SimulatedGroups, State
from tests.simulation.ledger import Ledger, SimulatedJournal
from tests.simulation.memory import Memory, Process
from tests.support.fleets import NOW, fleet, target

MINUTES = 600.0  # of ten members, one after the other
NEW, OLD = target().digest, "old-one"
ASKS = {"auto_promote": False, "canary": 2, "bake_time": "10m"}


@dataclass
class Alarms(Judge):
    """Nothing has changed since the plan, but for what a test says."""

    firing: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)

    def left_alone(self, order: MemberOrder, member: Member) -> str:
        return ""

    def group_left_alone(self, order: GroupOrder) -> str:
        return self.left.get(order.step.group.name, "")

    def refuse(self, target: ReplacementImage) -> None:
        return None

    def alarms(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(self.firing)


class Nobody(MemberFleet):
    """A fleet of groups alone: nothing of it is asked about members."""


class Steered:
    """A rollout in memory to which people speak at given moments."""

    memory: Memory
    ledger: Ledger

    def says(self, at: float, desired_state: DesiredState) -> None:
        """A person says something at a moment."""

        def say() -> None:
            self.ledger.desired_state = desired_state
            self._wake()

        self.memory.at(at, say)

    def approves(self, at: float) -> None:
        """A person approves at a moment."""

        def approve() -> None:
            self.ledger.approvals += 1
            self._wake()

        self.memory.at(at, approve)

    def _wake(self) -> None:
        for row in list(self.memory.rows.values()):
            self.memory.wake(row.id)


class Play(Steered):
    """A rollout of two groups of ten by the service; a process may die at any step, and effects may lose answers."""

    def __init__(self, *, dies_at: int = 0, lost: Sequence[int] = (), cannot: str = "", **limits: Any) -> None:
        self.steps = 0
        self.points: list[Point] = []
        self.dies_at = dies_at
        self.memory = Memory(self._fate)
        groups = [Group(f"123456789012/eu-central-1/asg/{name}", name, 10, 10, cannot) for name in ("one", "two")]
        self.service = SimulatedGroups(lambda: self.memory.time, groups)
        self.service.effect = lambda: self._answer(lost)
        self.ledger = Ledger()
        self.judge = Alarms()
        self.limits = fleet(**limits).limits
        self.members: MemberFleet = Nobody()
        pace = pacing(self.limits, 10, 10)
        steps = tuple(GroupStep(group, pace) for group in groups)
        self.order = Order(
            "r1", replace(plan(fleet(**limits), (), target(), NOW, grouped=True), groups=steps), self.limits
        )
        self.process = self._process("first")

    def state(self, name: str) -> State:
        return next(one for one in self.service.states.values() if one.group.name == name)

    def _answer(self, lost: Sequence[int]) -> None:
        if len(self.service.asked) in lost:
            raise OutsideError("no answer came")

    def _process(self, name: str) -> Process:
        self.ledger.holder = name
        journal = SimulatedJournal(self.ledger, name)
        world = World(self.members, journal, self.judge, self.memory.now, delegated=self.service)
        return self.memory.process(name, flows(world))

    def _fate(self, flow: str, name: str) -> Fate:
        self.steps += 1
        runs = tuple(tuple(one.members) for one in self.service.states.values())
        stage = self.ledger.state.stage if self.ledger.state else None
        self.points.append((flow, name, stage, len(self.ledger.events), len(self.service.asked), runs))
        return Fate(0.1, "after" if self.steps == self.dies_at else "")

    def at(self, seconds: float, happen: Callable[[], None]) -> None:
        self.memory.at(seconds, happen)

    def sees(self, *moments: float) -> list[tuple[RolloutStage, str]]:
        """What `roll.status` shows at these moments, as soon as the rollout was played."""
        seen: list[tuple[RolloutStage, str]] = []
        for at in moments:
            self.at(at, lambda: seen.append((self.ledger.state.stage, self.ledger.state.note)))  # type: ignore[union-attr]
        return seen

    def play(self, order: Order | None = None) -> RolloutOutcome:
        order = order or self.order
        row = self.process.start(ROLLOUT, order.rollout, to_json(order))
        self.memory.run(self.memory.time + 1e6, lambda: row.ended or not self.process.alive)
        if not self.process.alive:
            self.process = self._process("second")
            self.process.recover()
            self.memory.run(self.memory.time + 2e6, lambda: row.ended)
        assert row.ended, self.ledger.state
        return from_json(RolloutOutcome, row.result)


def going_back(order: Order, members: Sequence[MemberState]) -> Order:
    """The order under which these groups go back."""
    return replace(order, rollout="r1-back", back=tuple(members))


def phases(outcome: RolloutOutcome) -> list[Phase]:
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


@pytest.mark.parametrize("asks", [{}, ASKS])
def test_a_group_is_judged_again_at_its_turn(asks: dict[str, Any]) -> None:
    """What may not be replaced by then is left alone, with the reason; the next one is rolled."""
    play = Play(**asks)
    play.judge.left["one"] = "privileged is enforced"
    play.approves(2000)
    outcome = play.play()
    assert phases(outcome) == [Phase.SKIPPED, Phase.NEW]
    assert outcome.members[0].note == "privileged is enforced"
    assert not [one for one in play.service.asked if "one" in one]


def test_a_group_that_goes_back_is_not_judged() -> None:
    """What ran before must always be a way out."""
    play = Play()
    done = play.play()
    play.judge.left["one"] = "privileged is enforced"
    assert phases(play.play(going_back(play.order, done.members))) == [Phase.OLD, Phase.OLD]


def test_a_group_that_fails_goes_back_to_its_pin_and_the_next_one_is_not_begun() -> None:
    """By the exact version."""
    play = Play()
    play.state("one").fails_at = 5
    outcome = play.play()
    assert phases(outcome) == [Phase.OLD, Phase.PLANNED]
    assert "instances are unhealthy" in outcome.state.failure
    assert play.service.asked == ["begin r1 one"]
    assert play.service.runs("one") == [OLD] * 10


@pytest.mark.parametrize("limits", [{}, ASKS, {"auto_rollback": False}])
def test_a_group_that_the_service_begins_nothing_with_is_where_it_was(limits: dict[str, Any]) -> None:
    """Somebody else's refresh goes on there, or the service denies ours; whichever process dies meanwhile."""

    def played(dies_at: int) -> Play:
        play = Play(dies_at=dies_at, **limits)
        play.state("one").refuses = "another refresh goes on"
        outcome = play.play()
        left = Phase.OLD if play.limits.auto_rollback else Phase.FAILED
        assert phases(outcome) == [left, Phase.PLANNED], dies_at
        assert outcome.state.failure == "another refresh goes on"
        assert (play.service.asked, play.service.runs("one")) == ([], [OLD] * 10)
        return play

    calm = played(0)
    assert calm.memory.time < 120
    for number in distinct(calm.points):
        played(number)


def test_a_group_that_was_left_for_nothing_goes_back_later() -> None:
    """A rollout of earlier days has called it failed."""
    play = Play()
    play.state("one").refuses = "another refresh goes on"
    done = play.play()
    failed = replace(done.members[0], phase=Phase.FAILED, pinned=json.dumps({"template": "", "version": OLD}))
    assert phases(play.play(going_back(play.order, [failed]))) == [Phase.OLD]


def test_a_refresh_that_is_not_shown_yet_is_waited_for() -> None:
    """The service has accepted it."""
    play = Play()
    play.state("one").unseen = 3
    assert phases(play.play()) == [Phase.NEW, Phase.NEW]


def test_without_auto_rollback_a_group_that_fails_is_reported_as_it_is() -> None:
    """Nothing else is done to it."""
    play = Play(auto_rollback=False)
    play.state("one").fails_at = 5
    assert phases(play.play()) == [Phase.FAILED, Phase.PLANNED]
    assert play.service.asked == ["begin r1 one"]


def test_without_auto_rollback_the_service_stops_where_an_alarm_finds_it() -> None:
    """It would go on by itself, to a version that must not run."""
    play = Play(auto_rollback=False, alarms=["http://alarm.example"])
    play.memory.at(100, lambda: play.judge.firing.append("http://alarm.example"))
    assert phases(play.play()) == [Phase.FAILED, Phase.PLANNED]
    assert play.service.asked == ["begin r1 one", "cancel r1 one"]
    assert 0 < play.service.runs("one").count(NEW) < 10


def test_a_pause_cancels_and_a_resume_begins_anew() -> None:
    """The service has no pause: what it has done by then is kept, and a new rolling skips it."""
    play = Play()
    play.says(100, DesiredState.PAUSE)
    play.says(5000, DesiredState.GO)
    assert phases(play.play()) == [Phase.NEW, Phase.NEW]
    assert play.service.asked == ["begin r1 one", "cancel r1 one", "begin r1-2 one", "begin r1 two"]


@pytest.mark.parametrize("at", [50.0, 700.0])
def test_an_abort_is_accepted_by_the_service_within_two_seconds(at: float) -> None:
    """The group stays mixed, and that is said."""
    play = Play()
    moments: list[float] = []
    cancel = play.service.cancel
    play.service.cancel = lambda *args: (moments.append(play.memory.time), cancel(*args))[1]  # type: ignore[method-assign,func-returns-value]
    play.says(at, DesiredState.ABORT)
    outcome = play.play()
    assert moments[0] - at < 2
    assert phases(outcome) == ([Phase.FAILED, Phase.PLANNED] if at < MINUTES else [Phase.NEW, Phase.FAILED])
    assert "part of the group runs the new version" in outcome.state.failure


def test_a_rollback_brings_all_groups_back_those_that_were_done_too() -> None:
    """Each to its own pin."""
    play = Play()
    play.says(700, DesiredState.ROLLBACK)
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
    play.state("one").stands_at = 1
    outcome = play.play()
    assert phases(outcome)[0] is Phase.OLD
    assert "stood at 10 %" in outcome.state.failure


def test_a_lost_answer_begins_once() -> None:
    """The repeated call finds the first."""
    play = Play(lost=[1])
    assert phases(play.play()) == [Phase.NEW, Phase.NEW]
    assert [len(one.refreshes) for one in play.service.states.values()] == [1, 1]


def test_killed_after_any_step_it_comes_to_the_same_end() -> None:
    """The effect done, its record lost."""
    calm = Play()
    calm.play()
    numbers = distinct(calm.points)
    assert len(numbers) >= 2 * 10 * 2, "after each member at least, the first and the last look"
    for number in numbers:
        play = Play(dies_at=number)
        assert phases(play.play()) == [Phase.NEW, Phase.NEW], number
        assert [len(one.refreshes) for one in play.service.states.values()] == [1, 1]


def test_a_freeze_is_waited_out_between_groups() -> None:
    """And shown meanwhile."""
    freeze = {"first_day": "2026-03-01", "last_day": "2026-03-01", "zone": "UTC", "reason": "inventory"}
    play = Play(freezes=[freeze])
    seen: list[RolloutStage] = []
    play.at(100, lambda: seen.append(play.ledger.state.stage) if play.ledger.state else None)
    assert phases(play.play()) == [Phase.NEW, Phase.NEW]
    assert seen == [RolloutStage.WAITING]


# -- the canary that a person approves ---------------------------------------------------------------------------------


def test_a_canary_is_rolled_alone_and_the_rest_when_a_person_has_approved_it() -> None:
    """Two of ten; then it bakes and waits, told to whoever looks; what scales out meanwhile is of the old version."""
    play = Play(**ASKS)
    seen = play.sees(100, 400, 1000, 5000)
    held: list[tuple[str, list[str]]] = []
    play.at(5000, lambda: held.append((play.state("one").starts_from, list(play.service.runs("one")))))
    play.approves(6000)
    play.approves(12000)
    assert phases(play.play()) == [Phase.NEW, Phase.NEW]
    assert [stage for stage, _ in seen] == [
        RolloutStage.ROLLING,
        RolloutStage.BAKING,
        RolloutStage.CANARY_APPROVAL,
        RolloutStage.CANARY_APPROVAL,
    ]
    assert "the canary of one has baked; ./goldsmith roll.approve " in seen[2][1]
    assert held == [(OLD, [NEW] * 2 + [OLD] * 8)]
    assert play.service.asked[:3] == ["begin r1 one", "hold r1 one", "begin r1-rest one"]
    assert play.service.runs("one") == play.service.runs("two") == [NEW] * 10
    assert play.ledger.events.count(Event.APPROVAL) == 2


def test_an_approval_ends_the_bake() -> None:
    """One given before the canary was there counts for nothing, as nobody could have seen it."""
    play = Play(**ASKS)
    play.approves(10)
    play.approves(300)
    play.approves(1300)
    play.play()
    begun = {one.attempt: one.began for one in play.state("one").refreshes}
    assert 300 <= begun["r1-rest"] < 310


def test_a_canary_as_large_as_the_group_is_approved_too() -> None:
    """And there is no rest."""
    play = Play(**{**ASKS, "canary": 10})
    seen = play.sees(5000)
    play.approves(6000)
    play.approves(12000)
    assert phases(play.play()) == [Phase.NEW, Phase.NEW]
    assert play.service.asked == ["begin r1 one", "begin r1 two"]
    assert seen[0][0] is RolloutStage.CANARY_APPROVAL


@pytest.mark.parametrize("at", [200.0, 4000.0])
def test_a_rollback_during_the_bake_or_the_wait_brings_the_canary_back(at: float) -> None:
    """The canary's own refresh was successful by then, so that it takes another one, to the pin."""
    play = Play(**ASKS)
    play.says(at, DesiredState.ROLLBACK)
    outcome = play.play()
    assert phases(outcome) == [Phase.OLD, Phase.PLANNED]
    assert play.service.asked[-1] == "roll back r1 one to old-one"
    assert (play.service.runs("one"), play.state("one").starts_from) == ([OLD] * 10, OLD)


def test_an_abort_during_the_wait_leaves_the_canary_and_says_so() -> None:
    """Within two seconds; a rollback of what is over then brings it back."""
    play = Play(**ASKS)
    play.says(4000, DesiredState.ABORT)
    outcome = play.play()
    assert play.memory.time < 4002
    assert phases(outcome) == [Phase.FAILED, Phase.PLANNED]
    assert "its canary, 20 % of it, runs the new version" in outcome.members[0].note
    assert play.ledger.members[outcome.members[0].id].phase is Phase.FAILED
    play.ledger.desired_state = DesiredState.GO
    order = going_back(play.order, outcome.members[:1])
    assert phases(play.play(order)) == [Phase.OLD]
    assert play.service.runs("one") == [OLD] * 10


def test_an_abort_that_comes_too_late_for_the_canary_does_not_call_the_group_new() -> None:
    """The service was done before it was asked to cancel."""
    play = Play(**ASKS)
    play.service.cancel = lambda *_: None  # type: ignore[method-assign]
    play.says(60, DesiredState.ABORT)
    outcome = play.play()
    assert phases(outcome) == [Phase.FAILED, Phase.PLANNED]
    assert "part of the group runs the new version" in outcome.members[0].failure


def test_a_pause_during_the_bake_lets_no_time_pass() -> None:
    """Ten minutes are ten minutes without it; an approval meanwhile counts when it goes on."""
    play = Play(**ASKS)
    play.says(200, DesiredState.PAUSE)
    play.says(5000, DesiredState.GO)
    seen = play.sees(4900, 5400, 5600, 8000)
    play.says(6000, DesiredState.PAUSE)
    play.approves(7000)
    play.says(9000, DesiredState.GO)
    play.approves(20000)
    assert phases(play.play()) == [Phase.NEW, Phase.NEW]
    assert [stage for stage, _ in seen] == [
        RolloutStage.PAUSED,
        RolloutStage.BAKING,
        RolloutStage.CANARY_APPROVAL,
        RolloutStage.PAUSED,
    ]
    assert play.state("one").refreshes[1].began > 9000


@pytest.mark.parametrize("auto_rollback", [True, False])
def test_an_alarm_during_the_wait_brings_the_canary_back(auto_rollback: bool) -> None:
    """Unless the fleet wants none of that: then it says that the canary is new."""
    play = Play(**ASKS, alarms=["http://alarm.example"], auto_rollback=auto_rollback)
    play.at(4000, lambda: play.judge.firing.append("http://alarm.example"))
    outcome = play.play()
    assert phases(outcome) == [Phase.OLD if auto_rollback else Phase.FAILED, Phase.PLANNED]
    assert "http://alarm.example" in outcome.state.failure
    assert play.service.runs("one").count(NEW) == (0 if auto_rollback else 2)


def test_a_rest_that_fails_takes_the_canary_back_too() -> None:
    """The service takes back what its last refresh had replaced, and nothing else: the canary needs one of ours."""
    play = Play(**ASKS)
    play.at(5000, lambda: setattr(play.state("one"), "fails_at", 3))
    play.approves(6000)
    outcome = play.play()
    assert phases(outcome) == [Phase.OLD, Phase.PLANNED]
    assert play.service.runs("one") == [OLD] * 10
    assert "instances are unhealthy" in outcome.state.failure


def test_what_was_paused_and_then_fails_is_taken_back_whole() -> None:
    """The refresh before the pause has left members too."""
    play = Play()
    play.says(250, DesiredState.PAUSE)
    play.says(1000, DesiredState.GO)
    play.at(900, lambda: setattr(play.state("one"), "fails_at", 3))
    assert phases(play.play()) == [Phase.OLD, Phase.PLANNED]
    assert play.service.runs("one") == [OLD] * 10


@pytest.mark.parametrize("lost", [(), pytest.param((1, 2, 3, 4, 6), marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", ["approved", "rolled back"])
def test_killed_after_any_step_of_a_canary_it_comes_to_the_same_end(way: str, lost: tuple[int, ...]) -> None:
    """The wait is durable, and nothing is begun twice; answers may be lost as well."""

    def played(dies_at: int) -> Play:
        play = Play(dies_at=dies_at, lost=lost, **ASKS)
        play.approves(3000)
        if way == "approved":
            play.approves(6000)
        else:
            play.says(6000, DesiredState.ROLLBACK)
        ended = phases(play.play())
        assert ended == ([Phase.NEW] * 2 if way == "approved" else [Phase.OLD] * 2), dies_at
        runs = {*play.service.runs("one"), *play.service.runs("two")}
        assert runs == ({NEW} if way == "approved" else {OLD, "old-two"}), dies_at
        return play

    numbers = distinct(played(0).points)
    assert len(numbers) >= 50
    for number in numbers:
        played(number)


# -- back, when it is over ---------------------------------------------------------------------------------------------


def test_a_rollout_that_is_over_goes_back_the_last_group_first() -> None:
    """By one refresh for each, to what was pinned, as a rollout of its own."""
    play = Play()
    done = play.play()
    order = going_back(play.order, done.members)
    outcome = play.play(order)
    assert (outcome.state.id, outcome.state.failure, phases(outcome)) == ("r1-back", "", [Phase.OLD, Phase.OLD])
    assert play.service.asked[2:] == ["roll back r1-back two to old-two", "roll back r1-back one to old-one"]
    assert (play.service.runs("one"), play.service.runs("two")) == ([OLD] * 10, ["old-two"] * 10)


def test_a_group_whose_version_is_gone_is_left_and_the_others_go_back() -> None:
    """With the reason."""
    play = Play()
    done = play.play()
    play.state("two").gone = "version 1 is gone"
    outcome = play.play(going_back(play.order, done.members))
    assert phases(outcome) == [Phase.OLD, Phase.FAILED]
    assert "it was left as it is: version 1 is gone" in outcome.members[1].note
    assert outcome.state.failure == "not all went back: two: it was left as it is: version 1 is gone"
    assert play.service.runs("two") == [NEW] * 10


def test_going_back_killed_after_any_step_comes_to_the_same_end() -> None:
    """Nothing is begun twice."""
    calm = Play()
    done = calm.play()
    before = calm.steps
    order = going_back(calm.order, done.members)
    calm.play(order)
    numbers = distinct(calm.points, before)
    assert len(numbers) >= 2 * 10 * 2
    for number in numbers:
        play = Play(dies_at=number)
        play.play()
        assert phases(play.play(order)) == [Phase.OLD, Phase.OLD], number
        assert [len(one.refreshes) for one in play.service.states.values()] == [2, 2], number


def test_how_a_person_stopped_it_is_known_whatever_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback brings the canary, and a group under way, back also where the message is another one."""
    init = StoppedError.__init__

    def named(self: StoppedError, desired_state: DesiredState) -> None:
        init(self, desired_state)
        self.message = "angehalten"

    monkeypatch.setattr(StoppedError, "__init__", named)
    for at, begun in ((4000.0, ASKS), (200.0, {})):
        play = Play(**begun)
        play.says(at, DesiredState.ROLLBACK)
        assert phases(play.play()) == [Phase.OLD, Phase.PLANNED], at
        assert play.service.runs("one") == [OLD] * 10
