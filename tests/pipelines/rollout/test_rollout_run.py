"""The run of a rollout: what it does to a fleet, in which order, and what is left whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from images.documents import from_json, to_json
from images.ledger import Holder
from pipelines.durable.port import BugError
from pipelines.fleet.members import Key
from pipelines.fleet.port import InProgressError
from pipelines.rollout.baking import HealthLook, HealthStreak
from pipelines.rollout.flow import ROLLOUT, UNFINISHED, children
from pipelines.rollout.state import DesiredState, Event, MemberState, Order, Phase, RolloutOutcome, RolloutStage
from pipelines.rollout.steps import HELD, Rolling
from tests.simulation.execution import Fate, Point, distinct
from tests.simulation.execution import Row as FlowRow
from tests.simulation.faults import arrange
from tests.simulation.fleet import SimulatedFleet
from tests.simulation.invariants import kept, watch
from tests.simulation.ledger import SimulatedJournal
from tests.simulation.memory import EPOCH
from tests.simulation.scenario import Fault, FaultKind, Scenario
from tests.simulation.stage import LEASE, NAME, TARGET, Simulation, name_of
from tests.simulation.world import ID

IN_PLACE = {"method": "in_place", "max_unavailable": 1}
LEAST_POINTS = 40
WIDE = {"max_parallel": 5, "max_surge": 5, "budgets": [{"nodes": "100%"}]}


class Run(Simulation):
    """A rollout of three members, or more, that has been played, and what was seen of it after every event."""

    def __init__(
        self,
        limits: dict[str, Any] | None = None,
        *faults: Fault,
        members: int = 3,
        groups: int = 0,
        shared: bool = True,
    ) -> None:
        super().__init__(Scenario(1, members, limits or {}, faults=faults, shared=shared, groups=groups))
        self.least = members
        self.seen: list[tuple[float, int, RolloutStage | None]] = []
        self.points: list[Point] = []
        self.each_event = self._look

    def _look(self) -> None:
        watch(self)
        self.least = min(self.least, self.estate.capacity())
        stage = self.ledger.state.stage if self.ledger.state else None
        self.seen.append((self.memory.time, len(self.ledger.audited), stage))

    def _fate(self, flow: str, name: str) -> Fate:
        stage = self.ledger.state.stage if self.ledger.state else None
        done = len(self.ledger.audited), len(self.ledger.events), self.estate.effects, self.estate.capacity()
        self.points.append((flow, name, stage, *done))
        return super()._fate(flow, name)

    def play(self) -> RolloutOutcome:
        """To the end, with every promise held."""
        arrange(self)
        return kept(self, self.run())

    def images(self) -> dict[str, str]:
        """What runs, by name."""
        return {box.name: box.exact for box in self.estate.boxes.values()}

    def effects_between(self, first: float, last: float) -> int:
        """How many effects there were between two moments."""
        counts = [effects for time, effects, _ in self.seen if first <= time <= last]
        return counts[-1] - counts[0] if counts else 0

    def first(self, stage: RolloutStage) -> float:
        """When the rollout was first in a stage."""
        return next(time for time, _, found in self.seen if found is stage)


def phases(outcome: RolloutOutcome) -> list[Phase]:
    return [member.phase for member in outcome.members]


def dying(number: int) -> Iterable[Fault]:
    yield Fault(FaultKind.DIES_BEFORE, number)
    yield Fault(FaultKind.DIES_AFTER, number)


@pytest.mark.parametrize("limits", [{}, IN_PLACE, WIDE], ids=["surge", "in place", "side by side"])
def test_a_rollout_leaves_each_member_under_its_name_on_the_replacement(limits: dict[str, Any]) -> None:
    """Nothing else is left: no old one, no half-made one."""
    run = Run(limits)
    assert phases(run.play()) == [Phase.NEW] * 3
    assert run.images() == {name_of(number): TARGET.reference for number in range(3)}
    assert run.ledger.events == [Event.STARTED, Event.ENDED]


def test_members_and_groups_are_one_rollout() -> None:
    """Members first; the waves that people see count the groups, too."""
    run = Run(WIDE, groups=2)
    outcome = run.play()
    assert phases(outcome) == [Phase.NEW] * 5
    assert (outcome.state.waves, outcome.state.wave) == (len(run.plan.waves) + 2, len(run.plan.waves) + 2)
    assert run.service.asked == [f"begin {ID} group-0", f"begin {ID} group-1"]
    assert run.ledger.events == [Event.STARTED, Event.ENDED]


def test_a_rollback_while_a_group_is_rolled_reaches_the_members_that_were_promoted() -> None:
    """One rollout goes back whole: the group under way, the one before it, and then the members."""
    run = Run(WIDE, groups=2)
    run.service.effect = lambda: (
        run.memory.at(30, lambda: run.command(DesiredState.ROLLBACK)) if len(run.service.asked) == 2 else None
    )
    outcome = run.play()
    assert phases(outcome) == [Phase.OLD] * 5
    assert run.images() == run.pinned
    assert run.service.runs("group-0") == ["old-group-0"] * 2


def test_a_group_that_fails_leaves_the_members_that_were_promoted() -> None:
    """As a later wave does."""
    run = Run(WIDE, groups=2)
    run.service.states["group/0"].fails_at = 1
    outcome = run.play()
    assert phases(outcome) == [*[Phase.NEW] * 3, Phase.OLD, Phase.PLANNED]
    assert "instances are unhealthy" in outcome.state.failure


def test_without_the_groups_that_it_names_a_rollout_fails_by_its_outcome() -> None:
    """The fleet's file was changed since, and what was promoted stays."""
    run = Run(WIDE, groups=1)
    run.service = None  # type: ignore[assignment]
    run.ledger.release_lease(Holder(NAME, run.process.name, ID))
    run.process = run._process()
    outcome = from_json(RolloutOutcome, run.run().result)
    assert phases(outcome) == [*[Phase.NEW] * 3, Phase.OLD]
    assert "no longer has Auto Scaling groups" in outcome.state.failure


def test_a_surge_never_has_fewer_members_serving_than_before() -> None:
    """The new one is healthy and found by the names before the old one stops."""
    run = Run(WIDE, members=10)
    run.play()
    assert run.least == 10


def test_in_place_takes_away_one_member_at_a_time() -> None:
    """max_unavailable 1 means one, however many may be replaced side by side."""
    run = Run(WIDE | IN_PLACE, members=10)
    run.play()
    assert run.least == 9


def test_members_of_a_wave_are_replaced_side_by_side() -> None:
    """Ten in two waves of five take little longer than two."""
    alone, wide = Run({"canary": 0}, members=2), Run(WIDE | {"canary": 0}, members=10)
    alone.play()
    wide.play()
    assert wide.ended_at < 1.5 * alone.ended_at


def test_the_order_of_effects_is_the_whole_point() -> None:
    """Found only after it was healthy; the old one stops after that, and is removed last."""
    run = Run(members=1)
    run.play()
    assert [line.rpartition(" ")[0] for line in run.ledger.audited] == [
        "prepare",
        "create",
        "start",
        "expose",
        "retire",
        "swap",
        "remove the old",
    ]


@pytest.mark.parametrize(("limits", "start"), [({}, 2), (IN_PLACE, 3)], ids=["surge", "in place"])
def test_a_new_one_that_takes_its_time_to_start_is_waited_for_and_an_abort_is_not_kept_waiting(
    limits: dict[str, Any], start: int
) -> None:
    """The wait is the flow's and not the step's: a person who stops it is heard before the machine runs."""
    slow = Fault(FaultKind.TAKES_TIME, start, amount=20)
    run = Run(limits, slow)
    assert phases(run.play()) == [Phase.NEW] * 3
    assert run.ended_at > 20 * HELD.total_seconds()
    stopped = Run(limits, slow, Fault(FaultKind.ABORT, 10))
    assert phases(stopped.play()) == [Phase.OLD, Phase.PLANNED, Phase.PLANNED]
    assert f"start {name_of(0)}" not in stopped.ledger.audited
    assert stopped.images() == stopped.pinned


def test_an_old_one_that_drains_is_given_what_is_left_of_its_time_and_a_new_one_that_falls_ill_spares_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever has the drain's whole time again and again would never stop; nobody stops for an ill one."""
    given: list[float] = []

    def drains(fleet: SimulatedFleet, key: Key, drain: timedelta) -> None:
        given.append(drain.total_seconds())
        if drain > timedelta():
            raise InProgressError(f"{key.name} to be drained")
        real(fleet, key, drain)

    real = SimulatedFleet.retire
    monkeypatch.setattr(SimulatedFleet, "retire", drains)
    assert phases(Run({"drain": "20s"}, members=1).play()) == [Phase.NEW]
    assert (given[0], len(given)) == (20, 11)
    assert given == sorted(given, reverse=True)
    ill = Run({"drain": "5m"}, Fault(FaultKind.FALLS_ILL, 100, amount=1e6), members=1)
    assert phases(ill.play()) == [Phase.OLD]
    assert f"retire {name_of(0)}" not in ill.ledger.audited


def test_in_place_what_has_begun_to_stop_goes_on_to_its_next_safe_point_though_somebody_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It serves nobody meanwhile; a pause that held it there would cost a member for as long as it lasts."""
    asked: list[str] = []

    def stops(fleet: SimulatedFleet, key: Key, drain: timedelta) -> None:
        real(fleet, key, drain)
        asked.append(key.name)
        if asked.count(key.name) < 10:
            raise InProgressError(f"{key.name} to be stopped")

    real = SimulatedFleet.retire
    monkeypatch.setattr(SimulatedFleet, "retire", stops)
    run, serving = Run(IN_PLACE, Fault(FaultKind.PAUSE, 10, amount=5_000)), []
    run.memory.at(9, lambda: serving.append(run.estate.capacity()))
    run.memory.at(1_000, lambda: serving.append(run.estate.capacity()))
    assert phases(run.play()) == [Phase.NEW] * 3
    assert serving == [2, 3]


def test_what_makes_no_way_has_failed_and_what_goes_on_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten waits of eight minutes, each for something else, are no failure; one for the same thing is, in the end."""

    def starts(fleet: SimulatedFleet, key: Key) -> None:
        if (now := fleet.estate.memory.time) < 10 * 480:
            raise InProgressError(f"part {now // 480}")
        real(fleet, key)

    def never(fleet: SimulatedFleet, key: Key) -> None:
        raise InProgressError("ever" if fleet.estate.memory.time > 60 else "a moment")

    real = SimulatedFleet.start
    monkeypatch.setattr(SimulatedFleet, "start", starts)
    assert phases(Run(members=1).play()) == [Phase.NEW]
    monkeypatch.setattr(SimulatedFleet, "start", never)
    run = Run(members=1)
    outcome = run.play()
    assert phases(outcome) == [Phase.OLD]
    assert "waiting for ever" in outcome.state.failure


def test_the_old_one_is_kept_until_the_bake_has_passed() -> None:
    """A canary that falls ill while it bakes is put back to exactly what was there; nobody else is touched."""
    run = Run({}, Fault(FaultKind.FALLS_ILL, 200, amount=1e6))
    outcome = run.play()
    assert phases(outcome) == [Phase.OLD, Phase.PLANNED, Phase.PLANNED]
    assert "became unhealthy during the bake" in outcome.state.failure
    assert "does not answer" in outcome.state.failure
    assert run.images() == run.pinned
    assert set(run.estate.boxes) == {"old-0", "old-1", "old-2"}
    assert run.estate.capacity() == 3


def test_a_replacement_that_is_revoked_while_it_bakes_goes_no_further() -> None:
    """The canary is restored at once, not only at the end of the bake."""
    run = Run({}, Fault(FaultKind.REVOKED, 200))
    outcome = run.play()
    assert phases(outcome) == [Phase.OLD, Phase.PLANNED, Phase.PLANNED]
    assert "revoked" in outcome.state.failure
    assert run.ended_at < 230


def test_what_was_promoted_before_a_failure_stays() -> None:
    """Only the broken wave goes back; the next check finds the others, and a good release replaces them."""
    run = Run({}, Fault(FaultKind.REVOKED, 380))
    assert phases(run.play()) == [Phase.NEW, Phase.OLD, Phase.PLANNED]


def test_an_alarm_that_fires_rolls_back() -> None:
    """Any of those that the fleet names."""
    run = Run({"alarms": ["http://alarm.example"]}, Fault(FaultKind.ALARM, 200, amount=10))
    outcome = run.play()
    assert phases(outcome) == [Phase.OLD, Phase.PLANNED, Phase.PLANNED]
    assert "http://alarm.example" in outcome.state.failure


@pytest.mark.parametrize("limits", [{}, IN_PLACE], ids=["surge", "in place"])
def test_a_broken_replacement_stops_the_rollout_and_the_old_one_serves(limits: dict[str, Any]) -> None:
    """The failure carries what was seen and the last words of the new one."""
    run = Run(limits, Fault(FaultKind.NEVER_HEALTHY))
    outcome = run.play()
    assert phases(outcome) == [Phase.OLD, Phase.PLANNED, Phase.PLANNED]
    assert "health: does not answer" in outcome.state.failure
    assert "log: last words" in outcome.state.failure
    assert run.estate.capacity() == 3
    assert Event.FAILED in run.ledger.events


def test_one_bad_member_takes_its_whole_wave_back() -> None:
    """The other canary served already: it goes only after its old one serves again, without a gap."""
    run = Run(WIDE | {"canary": 2}, Fault(FaultKind.NEVER_HEALTHY, member=1))
    outcome = run.play()
    assert phases(outcome) == [Phase.OLD, Phase.OLD, Phase.PLANNED]
    assert run.least == 3
    assert "rolled back: " in outcome.members[0].note


def test_without_auto_rollback_only_the_bad_member_goes_back() -> None:
    """The good ones of its wave are kept, and the rollout has failed all the same."""
    run = Run(WIDE | {"canary": 2, "auto_rollback": False}, Fault(FaultKind.NEVER_HEALTHY, member=1))
    outcome = run.play()
    assert phases(outcome) == [Phase.NEW, Phase.OLD, Phase.PLANNED]
    assert outcome.state.failure


class Breaking:
    """An engine, and a child of it, that one member's flow breaks by a fault of ours; the others answer."""

    def __init__(self, key: str = "") -> None:
        self.key = key

    async def child(self, key: str, flow: str, argument: Any) -> Breaking:
        return Breaking(key)

    async def result(self) -> Any:
        if self.key == "m1":
            raise BugError("KeyError: 'colour'")
        return to_json(MemberState(self.key, self.key, Phase.NEW))


def test_a_fault_of_ours_in_one_members_flow_is_that_members_failure() -> None:
    """The others are heard, so that they can be put back."""
    run = Run()
    world: Any = SimpleNamespace(journal=run.ledger)
    engine: Any = Breaking()
    rolling = Rolling(world, engine, Order(ID, run.plan, run.fleet.limits), EPOCH)
    rolling.members = {name: MemberState(name, name) for name in ("m1", "m2")}
    asyncio.run(children(rolling, "member", [(name, name, None) for name in ("m1", "m2")]))
    states = [(one.phase, one.failure) for one in rolling.members.values()]
    assert states == [(Phase.FAILED, "KeyError: 'colour'"), (Phase.NEW, "")]


@pytest.mark.parametrize("trouble", [FaultKind.PROTECTED, FaultKind.VANISHES, FaultKind.FIXED])
def test_each_member_is_judged_again_right_before_it_is_touched(trouble: FaultKind) -> None:
    """Protected, gone or fixed by now: it is left alone with a reason, and the rest goes on."""
    run = Run({}, Fault(trouble, 60, member=1))
    outcome = run.play()
    assert phases(outcome) == [Phase.NEW, Phase.SKIPPED, Phase.NEW]
    assert outcome.members[1].note
    assert not outcome.state.failure


def test_a_member_that_was_made_anew_meanwhile_is_pinned_as_it_is_now() -> None:
    """Rollback goes to what stood there right before the first change, not to what the plan saw."""
    run = Run({}, Fault(FaultKind.NEVER_HEALTHY))
    box = run.estate.boxes.pop("old-0")
    run.estate.boxes["other"] = replace(box, handle="other", exact="r.example/other@sha256:1")
    run.pinned[box.member] = "r.example/other@sha256:1"
    assert run.play().members[0].pinned == "r.example/other@sha256:1"
    assert run.images()[box.name] == "r.example/other@sha256:1"


def test_in_place_waits_while_another_illness_takes_the_room_and_then_gives_up() -> None:
    """The floor counts who serves at that moment; nothing is taken away from a fleet that is ill already."""
    limits = IN_PLACE | {"progress_deadline": "10m"}
    brief = Run(limits, Fault(FaultKind.OLD_ILL, 1, member=2, amount=300))
    assert phases(brief.play()) == [Phase.NEW] * 3
    lasting = Run(limits, Fault(FaultKind.OLD_ILL, 1, member=2, amount=1e6))
    outcome = lasting.play()
    assert Phase.NEW not in phases(outcome)
    assert "the floor is 2" in outcome.state.failure
    assert lasting.least == 2


def test_a_member_that_must_not_stop_yet_says_why_and_who_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its note says so once, and no more as soon as it goes on."""
    notes, mark = list[str](), SimulatedJournal.mark

    def noted(journal: SimulatedJournal, rollout: str, member: MemberState) -> None:
        if member.name == name_of(0) and member.phase is Phase.REPLACING:
            notes.append(member.note)
        mark(journal, rollout, member)

    monkeypatch.setattr(SimulatedJournal, "mark", noted)
    assert phases(Run(IN_PLACE, Fault(FaultKind.OLD_ILL, 2, member=2, amount=300)).play()) == [Phase.NEW] * 3
    why = f"replacing {name_of(0)} in place now would leave 1 member serving; the floor is 2"
    assert notes[-2:] == [f"{why}; not serving: {name_of(2)}", ""]
    assert len(notes) == len(set(notes)) + 1, notes


def test_a_fleet_that_does_not_answer_is_no_empty_fleet() -> None:
    """Nothing is touched, and the failure says why."""
    run = Run({}, Fault(FaultKind.DARK, 0, amount=1e6))
    outcome = run.play()
    assert phases(outcome) == [Phase.PLANNED] * 3
    assert "does not answer" in outcome.state.failure


def test_a_fleet_that_is_away_for_a_while_is_waited_for() -> None:
    """Ten minutes in which nobody could read or act: what was under way goes on, or is put back."""
    for at in (5, 20, 36, 100, 345, 380):
        outcome = Run({}, Fault(FaultKind.DARK, at, amount=600)).play()
        assert Phase.FAILED not in phases(outcome), at


def test_a_pause_lets_nothing_begin_and_a_resume_goes_on() -> None:
    """In a health wait, in a bake, between members."""
    for at in (10, 60, 380):
        run = Run({}, Fault(FaultKind.PAUSE, at, amount=1000))
        assert phases(run.play()) == [Phase.NEW] * 3
        assert run.effects_between(at + 2, at + 999) == 0, at
        assert (Event.PAUSED in run.ledger.events) == (at == 60), "what waits in a member is shown as its step"


@pytest.mark.parametrize("at", [10, 200, 380])
def test_an_abort_takes_effect_at_once_also_in_a_bake(at: float) -> None:
    """What is half done goes back; what was promoted stays."""
    run = Run({}, Fault(FaultKind.ABORT, at))
    outcome = run.play()
    assert run.ended_at < at + 15
    assert phases(outcome)[0] is (Phase.NEW if at > 350 else Phase.OLD)
    assert "stopped by abort" in outcome.state.failure


def test_a_rollback_takes_promoted_members_to_what_was_pinned_before_their_first_change() -> None:
    """Each to its own version, though they were not the same."""
    run = Run(WIDE, Fault(FaultKind.ROLLBACK, 390), members=10)
    outcome = run.play()
    assert phases(outcome).count(Phase.NEW) == 0
    assert any("it went back to" in member.note for member in outcome.members)
    assert run.images() == run.pinned
    assert run.least == 10


@pytest.mark.parametrize(("back", "after"), [(None, ""), (timedelta(seconds=7), "; down for 7.0 s")])
def test_a_way_back_says_for_how_long_it_took_the_member_away_and_not_the_way_there(
    monkeypatch: pytest.MonkeyPatch, back: timedelta | None, after: str
) -> None:
    """After a crash that is unknown, and nothing is said."""

    def downtime(_fleet: SimulatedFleet, key: Key) -> timedelta | None:
        return back if key.rollout.endswith("-back") else timedelta(seconds=1)

    monkeypatch.setattr(SimulatedFleet, "downtime", downtime, raising=False)
    outcome = Run(IN_PLACE, Fault(FaultKind.ROLLBACK, 390)).play()
    notes = [member.note for member in outcome.members if "it went back to" in member.note]
    assert notes
    assert {re.sub("^it went back to [^;]*", "", note) for note in notes} == {after}


@pytest.mark.parametrize("at", ["look for a rollback", "count who serves", "ended 3"])
def test_a_rollback_in_the_last_moment_is_heard(at: str) -> None:
    """Until it is written down that the rollout is over a person is told that it goes back, so it does."""

    class Late(Run):
        def _fate(self, flow: str, name: str) -> Fate:
            if name == at and {one.phase for one in self.ledger.members.values()} == {Phase.NEW}:
                self.command(DesiredState.ROLLBACK)
            return super()._fate(flow, name)

    run = Late()
    assert phases(run.play()) == [Phase.OLD] * 3
    assert run.images() == run.pinned


def test_a_rollback_that_cannot_go_on_leaves_nobody_half_way() -> None:
    """A member vanishes meanwhile, so that nobody more may be taken away: each of the others is old or new."""
    limits = WIDE | IN_PLACE | {"bake_time": "0s", "min_healthy_time": "10s"}
    run = Run(limits, Fault(FaultKind.ROLLBACK, 100), Fault(FaultKind.VANISHES, 120, member=0), members=6)
    outcome = run.play()
    assert outcome.state.failure.startswith(UNFINISHED)
    assert {Phase.NEW, Phase.OLD} < set(phases(outcome))
    assert len(run.estate.boxes) == 5


def test_a_canary_waits_for_approval_where_the_fleet_wants_it() -> None:
    """It says so, and goes on when somebody approves."""
    run = Run({"auto_promote": False})
    assert phases(run.play()) == [Phase.NEW] * 3
    assert Event.APPROVAL in run.ledger.events
    assert run.first(RolloutStage.CANARY_APPROVAL) - run.first(RolloutStage.BAKING) >= 300


def test_an_approval_cuts_a_bake_short() -> None:
    """A person has seen enough; one that was given before the bake counts for nothing."""
    long, short = Run(), Run({}, Fault(FaultKind.APPROVE, 60))
    early = Run({}, Fault(FaultKind.APPROVE, 1))
    for run in (long, short, early):
        run.play()
    assert short.ended_at < long.ended_at - 200
    assert early.ended_at == pytest.approx(long.ended_at, abs=30)


def test_a_rollout_that_is_over_is_taken_back_by_a_rollout_of_its_own() -> None:
    """From what was written down of its members: each goes to its own version, without loss."""
    run = Run(WIDE, members=10)
    replaced = run.play().members
    order = Order("r2", run.plan, run.fleet.limits, back=replaced)
    row = run.process.start(ROLLOUT, "r2", to_json(order))
    run.memory.run(1e6, lambda: row.ended)
    assert phases(from_json(RolloutOutcome, row.result)) == [Phase.OLD] * 10
    assert (run.images(), run.least) == (run.pinned, 10)


def test_a_freeze_is_waited_out_and_shown() -> None:
    """No member is touched on that day."""
    freeze = {"first_day": "2026-03-01", "last_day": "2026-03-01", "zone": "UTC", "reason": "inventory"}
    run = Run({"freezes": [freeze]})
    assert phases(run.play()) == [Phase.NEW] * 3
    midnight = (EPOCH.replace(hour=0) + timedelta(days=1) - EPOCH).total_seconds()
    assert run.effects_between(5, midnight) == 0
    assert RolloutStage.WAITING in {stage for _, _, stage in run.seen}


@pytest.mark.parametrize("limits", [{}, IN_PLACE], ids=["surge", "in place"])
def test_killed_at_every_step_before_and_after_its_effect_it_comes_to_the_same_end(limits: dict[str, Any]) -> None:
    """Every step of a rollout of two members, one after the other."""
    small = limits | {"bake_time": "10s", "min_healthy_time": "3s"}
    calm = Run(small, members=2)
    calm.play()
    numbers = distinct(calm.points)
    assert len(numbers) >= LEAST_POINTS
    for number in numbers:
        for fault in dying(number):
            run = Run(small, fault, members=2)
            assert phases(run.play()) == [Phase.NEW] * 2, fault
            assert run.images() == calm.images()


@pytest.mark.parametrize("shared", [True, False], ids=["on a server", "in a file"])
@pytest.mark.parametrize("limits", [{}, IN_PLACE], ids=["surge", "in place"])
def test_asleep_at_every_step_before_and_after_its_effect_it_comes_to_the_same_end(
    limits: dict[str, Any], shared: bool
) -> None:
    """For less than a lease and for longer; on a server another one goes on meanwhile, and the sleeper ends."""
    small = limits | {"bake_time": "10s", "min_healthy_time": "3s"}
    calm = Run(small, members=2)
    calm.play()
    numbers = distinct(calm.points)
    assert len(numbers) >= LEAST_POINTS
    for number in numbers:
        for trouble in (FaultKind.SLEEPS_BEFORE, FaultKind.SLEEPS_AFTER):
            for span in (20, 70):
                run = Run(small, Fault(trouble, number, amount=span), members=2, shared=shared)
                assert phases(run.play()) == [Phase.NEW] * 2, (trouble, number, span)
                assert run.images() == calm.images()
                lives = [process.alive for process in run.processes]
                assert lives == ([False, True] if shared and span > LEASE else [True]), (trouble, number, span)


def test_whoever_lost_the_lease_does_nothing_more() -> None:
    """It wakes up in the middle of a rollout that another process has gone on with."""
    for at in range(0, 400, 25):
        run = Run({}, Fault(FaultKind.STALLED, at, amount=120))
        assert phases(run.play()) == [Phase.NEW] * 3, at


def test_a_second_start_is_refused_while_the_first_one_runs() -> None:
    """One rollout per fleet."""
    run = Run({}, Fault(FaultKind.RIVAL, 0), Fault(FaultKind.RIVAL, 100))
    run.play()
    assert (run.refused, set(run.memory.rows)) == (2, {row for row in run.memory.rows if row.startswith(ID)})


def test_one_good_read_is_luck() -> None:
    """Three in a row over the whole time; a bad read begins it again, and at full length."""
    row = HealthStreak(timedelta(seconds=2), 3, timedelta(seconds=30))
    for good in (True, True, False):
        row.add(HealthLook(good, "seen"))
        row.slept(timedelta(seconds=1))
    assert (row.proved, row.span) == (False, timedelta(seconds=30))
    for _ in range(31):
        row.add(HealthLook(True, "seen"))
        row.slept(timedelta(seconds=1))
    assert row.proved


def test_a_read_that_could_not_be_made_is_no_illness_and_no_health() -> None:
    """It proves nothing, and lets the row start over."""
    row = HealthStreak(timedelta(seconds=2), 1, timedelta(seconds=30))
    row.add(HealthLook(None, "no answer"))
    assert (row.proved, row.bad, row.span) == (False, 0, timedelta(seconds=2))


def test_a_flow_answers_with_what_others_can_read() -> None:
    """The outcome is JSON, and a member's state says what it ran."""
    run = Run()
    arrange(run)
    row: FlowRow = run.run()
    outcome = from_json(RolloutOutcome, row.result)
    assert [member.pinned for member in outcome.members] == list(run.pinned.values())
    assert outcome.state.note == "3 new"
    assert run.ledger.desired_state is DesiredState.GO
