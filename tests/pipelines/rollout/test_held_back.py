"""An automated run waits for a day at most until it may touch a fleet: the night waits with it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.settings import Settings
from images.context import Context
from images.documents import from_json, to_json
from pipelines.fleet.model import Approval
from pipelines.nightly.duties import duties
from pipelines.nightly.stages import with_failure
from pipelines.rollout import admission, service
from pipelines.rollout.flow import ROLLOUT, flows
from pipelines.rollout.plan import plan
from pipelines.rollout.service import WAITS, HeldBackError, automated, execute, steady_clock
from pipelines.rollout.state import DesiredState, Order, RolloutOutcome, RolloutStage, RolloutState, World
from tests.simulation.execution import Row
from tests.simulation.ledger import Ledger, SimulatedJournal
from tests.simulation.memory import EPOCH, Memory, Process
from tests.support.fleets import NOW, fleet, judged, target
from tests.support.rolling import Unchanged
from tests.support.sleeping import NAMES, FileFleet, desk_on

OPENS = datetime(2026, 3, 7, 22, tzinfo=UTC)  # a Saturday; NOW is the Sunday before
WEEKLY = [{"days": ["sat"], "start": "22:00", "end": "23:00"}]
QUICK = {"bake_time": "0s", "min_healthy_time": "1s", "settle": "0s", "drain": "0s"}
ROLLS = "the group rolls it"
FREEZE = [{"first_day": "2026-02-20", "last_day": "2026-03-10", "reason": "holidays"}]


@pytest.mark.parametrize(
    ("limits", "now", "outcome", "told"),
    [
        ({"freezes": FREEZE}, NOW, "waits", "holidays, until 2026-03-11 00:00 UTC"),
        ({"windows": WEEKLY}, NOW, "waits", "no window of limits.windows is open, until 2026-03-07 22:00 UTC"),
        ({"windows": WEEKLY}, OPENS - WAITS, "rolled", "2 new"),
        ({"freezes": FREEZE}, datetime(2026, 3, 10, 2, tzinfo=UTC), "rolled", "2 new"),
    ],
)
def test_an_automated_run_begins_what_may_begin_within_a_day(
    monkeypatch: pytest.MonkeyPatch, limits: Any, now: datetime, outcome: str, told: str
) -> None:
    """Else it says until when, and the night goes on to its report."""
    of = fleet(**limits).model_copy(update={"approval": Approval.NONE})
    known = [judged(name, "expired") for name in NAMES]
    made = plan(of, known, target(29), now)
    ended = RolloutOutcome(RolloutState("r1", "web", "r", now, 1, RolloutStage.ENDED, note="2 new"), ())
    ledger = SimpleNamespace(open_rollouts=lambda _: (), rollout=lambda _: None)
    at: Any = SimpleNamespace(context=SimpleNamespace(ledger=ledger, actor="root"), fleet=of, now=lambda: now)
    monkeypatch.setattr(service, "check", lambda _at: known)
    monkeypatch.setattr(service, "plan_all", lambda *_, **__: SimpleNamespace(plan=made, adopt=()))
    monkeypatch.setattr(service, "consented", lambda *_, **__: pytest.MonkeyPatch.context())
    monkeypatch.setattr(service, "execute", lambda *_: ended)
    line = automated(at, apply=True)
    assert (line.outcome, told in line.detail) == (outcome, True), line.detail
    late = automated(at, apply=True, until=now + timedelta(hours=20))
    assert late.outcome == "waits", "what the run has waited for other fleets is over"


@pytest.mark.parametrize(("rules", "outcome"), [((), "compliant"), (("expired",), "skipped")])
def test_an_automated_run_over_members_that_are_down_is_refused(
    monkeypatch: pytest.MonkeyPatch, rules: tuple[str, ...], outcome: str
) -> None:
    """A night was green, with exit code 0 and nobody to act, while four of five members had ended."""
    of, ended = fleet().model_copy(update={"approval": Approval.NONE}), "it does not run (exited)"
    down = [judged(f"web-{n}", *rules, healthy=False, stopped=True, cannot_roll=ended) for n in range(4)]
    known = [*down, judged("web-4", *rules)]
    ledger = SimpleNamespace(open_rollouts=lambda _: ())
    at: Any = SimpleNamespace(context=SimpleNamespace(ledger=ledger), fleet=of, now=lambda: NOW)
    monkeypatch.setattr(service, "check", lambda _at: known)
    monkeypatch.setattr(
        service, "plan_all", lambda *_, **__: SimpleNamespace(plan=plan(of, known, target(29), NOW), adopt=())
    )
    line = automated(at, apply=True)
    assert (line.outcome, line.refused and line.refused.exit_code) == (outcome, 3)
    part = with_failure("fleet", "web", lambda: (line.outcome, line.detail, line.refused))
    [duty] = duties(part.lines)
    assert (duty.exit_code, duty.who, duty.parts) == (3, "the owner", ("fleet web",))
    assert part.failure
    assert "web-0: it does not run (exited)" in part.failure.error.evidence


@pytest.mark.parametrize("way", ["resumed", "held back"])
def test_overdue_members_that_no_rollout_replaces_are_their_owners_where_nothing_new_begins(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """After a rollout that an earlier process left, and while the fleet may not be touched; not what may still roll."""
    of, group = fleet().model_copy(update={"approval": Approval.NONE}), "host/region/autoscaling/web"
    known = [
        judged("web-1", "expired"),
        judged("web-2", "expired", cannot_roll="it was started with --rm"),
        judged("web-3", "expired", healthy=False, stopped=True),
        judged("web-4", "expired", group=group, cannot_roll=ROLLS),
        judged("web-5", "expired", group=group, cannot_roll=ROLLS, claimed_by="shop"),
    ]
    at: Any = SimpleNamespace(fleet=of, now=lambda: NOW)
    monkeypatch.setattr(service, "check", lambda _at: known)
    monkeypatch.setattr(service, "take_up", lambda *_, **__: ())
    ended = RolloutOutcome(RolloutState("r1", "web", "r", NOW, 1, RolloutStage.ENDED, note="stopped"), ())
    monkeypatch.setattr(service, "go_on", lambda *_: ())
    monkeypatch.setattr(service, "stops_here", lambda _: SimpleNamespace(outcome=ended) if way == "resumed" else None)

    def started(*_: object, **__: object) -> None:
        raise HeldBackError("a freeze began")

    monkeypatch.setattr(service, "start", started)
    line = automated(at, apply=True)
    assert line.outcome == ("rolled" if way == "resumed" else "waits")
    assert {name.rpartition("/")[2] for name in line.neglected} == {"web-2", "web-5"}
    assert line.refused
    assert "skipped: it was started with --rm" in line.refused.evidence


def test_an_automated_run_may_finish_a_rollout_and_begin_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A night of some images does so with a fleet that becomes another one."""
    of, known = fleet().model_copy(update={"approval": Approval.NONE}), [judged("web-1", "expired")]
    at: Any = SimpleNamespace(fleet=of, now=lambda: NOW)
    finished, begun, told = list[object](), list[bool](), list[bool]()
    monkeypatch.setattr(service, "check", lambda _at: known)
    monkeypatch.setattr(service, "take_up", lambda *_, apply: told.append(apply) or ())
    monkeypatch.setattr(service, "go_on", lambda *_: finished.append(at) or ())

    def started(*_: object, apply: bool, **__: object) -> tuple[Any, None]:
        begun.append(apply)
        return plan(of, known, target(), NOW), None

    monkeypatch.setattr(service, "start", started)
    assert automated(at, apply=True, begins=False).outcome == "planned"
    assert (len(finished), begun, told) == (1, [False], [False])


def test_the_clock_of_a_rollout_goes_on_while_its_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its window would be open for it as many hours too long, and a freeze begin too late."""
    shown = {time.CLOCK_MONOTONIC: 5.0, time.CLOCK_BOOTTIME: 7.0}
    monkeypatch.setattr(time, "clock_gettime", shown.__getitem__)
    now = steady_clock(NOW)
    shown[time.CLOCK_BOOTTIME] += HOUR
    assert now() == NOW + timedelta(hours=1)


@pytest.mark.slow
def test_a_rollout_whose_window_is_shut_for_days_is_left_to_the_run_that_finds_it_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On the real engine: nothing is touched, the lease is free, and a later process goes on where it stopped."""
    monkeypatch.setattr(admission, "LONGEST_SLEEP", timedelta(seconds=1))
    limits = fleet(**QUICK, windows=WEEKLY).limits
    made = plan(fleet(**QUICK, windows=WEEKLY), [judged(name, "expired") for name in NAMES], target(29), NOW)
    members = FileFleet(tmp_path)
    members.lay_out()
    (tmp_path / "well").touch()
    context = Context(Settings(state=tmp_path, database=f"sqlite:///{tmp_path}/ledger.sqlite"), NOW, str, str)
    desk = desk_on(context, tmp_path)
    with pytest.raises(HeldBackError, match=r"r1 is left open: .*until 2026-03-07 22:00 UTC"):
        execute(desk, Order("r1", made, limits), NOW + WAITS)
    assert [one.id for one in context.ledger.open_rollouts("web")] == ["r1"]
    assert (members.effects, context.ledger.lease("web")) == ([], None)
    later = replace(desk, now=lambda: OPENS + timedelta(minutes=1))
    outcome = execute(later, Order("r1", made, limits), OPENS + WAITS)
    assert (outcome.state.failure, [one.phase for one in outcome.members]) == ("", ["new", "new"])


# -- the engine in memory: processes that go on with one rollout, one after the other ----------------------------------

NOON = [{"days": ["sun"], "start": "11:00", "end": "13:00"}, *WEEKLY]
SPENT = {"nodes": 0, "reasons": ["expired"]}
BRIEFLY = [{**SPENT, "windows": [{"start": "12:00", "end": "12:50"}]}]
FOR_A_MONTH = [{"nodes": "50%"}, {**SPENT, "schedule": "0 12 1 3 *", "duration": "31d"}]
HOUR = 3600.0


@dataclass
class Successors:
    """The processes that carry one rollout; the lease is the last one's."""

    members: FileFleet
    memory: Memory = field(default_factory=Memory)
    ledger: Ledger = field(default_factory=Ledger)

    def process(self, until: datetime | None) -> Process:
        """The next one; with `until` a night's."""
        self.ledger.holder = name = f"process {self.memory.number()}"
        journal = SimulatedJournal(self.ledger, name)
        return self.memory.process(name, flows(World(self.members, journal, Unchanged(), self.memory.now, until=until)))

    def begun(self, limits: dict[str, Any], until: datetime | None) -> tuple[Process, Row]:
        """A process that begins the rollout at noon on a Sunday, and has run for half an hour."""
        made = plan(fleet(**QUICK), [judged(name, "expired") for name in NAMES], target(29), NOW)
        process = self.process(until)
        row = process.start(ROLLOUT, "r1", to_json(Order("r1", made, fleet(**QUICK, **limits).limits)))
        self.memory.run(HOUR / 2)
        return process, row

    def night(self) -> Process:
        """A night's process, which goes on with what is open until it ends or leaves it."""
        process = self.process(self.memory.now() + WAITS)
        process.recover()
        self.memory.run(math.inf, lambda: not process.alive or all(row.ended for row in self.memory.rows.values()))
        return process


@pytest.fixture
def successors(tmp_path: Path) -> Successors:
    members = FileFleet(tmp_path)
    members.lay_out()
    (tmp_path / "well").touch()
    return Successors(members)


def test_a_night_leaves_what_another_process_began_to_wait_for(successors: Successors) -> None:
    """That process has recorded its wait, so nothing of it is written down again."""
    ours, row = successors.begun({"windows": WEEKLY}, None)
    memory, ledger = successors.memory, successors.ledger
    assert ledger.state
    assert (ours.alive, row.ended, ledger.state.stage) == (True, False, RolloutStage.WAITING)
    memory.kill(ours)
    assert not successors.night().alive
    assert memory.time < HOUR
    memory.time = (OPENS - EPOCH).total_seconds() + 1
    successors.night()
    outcome = from_json(RolloutOutcome, row.result)
    assert (outcome.state.failure, [one.phase for one in outcome.members]) == ("", ["new", "new"])


def test_a_night_that_waits_for_a_budget_leaves_when_the_window_shuts(successors: Successors) -> None:
    """Such as while its machine slept. It waits already, so its stage does not change."""
    night, row = successors.begun({"windows": NOON, "budgets": BRIEFLY}, NOW + WAITS)
    state = successors.ledger.state
    assert state
    assert (night.alive, state.stage, state.note) == (True, "waiting", "budget exhausted for reason expired")
    successors.memory.jumped = timedelta(hours=1)
    successors.memory.run(math.inf, lambda: row.ended or not night.alive)
    assert successors.memory.time < HOUR
    assert successors.ledger.state
    assert "until 2026-03-07 22:00 UTC" in successors.ledger.state.note
    assert successors.members.effects == []


def test_a_night_leaves_what_a_budget_for_its_reason_keeps_for_days(successors: Successors) -> None:
    """Else it would last as long, and no other would begin; a person who rolls may wait."""
    night, row = successors.begun({"budgets": FOR_A_MONTH}, NOW + WAITS)
    state = successors.ledger.state
    assert state
    assert (night.alive, row.ended, state.stage) == (False, False, RolloutStage.WAITING)
    assert state.note == "budget exhausted for reason expired, until 2026-04-01 12:00 UTC"
    person = successors.process(None)
    person.recover()
    successors.memory.run(5 * WAITS.total_seconds())
    assert (person.alive, row.ended, successors.members.effects) == (True, False, [])
    successors.memory.time = timedelta(days=31).total_seconds()
    successors.memory.kill(person)
    successors.night()
    assert from_json(RolloutOutcome, row.result).state.failure == ""


def test_a_night_hears_who_ends_a_rollout_that_was_left_open(successors: Successors) -> None:
    """What people want is asked before how long to wait."""
    night, row = successors.begun({"windows": WEEKLY}, NOW + WAITS)
    assert (night.alive, row.ended) == (False, False)
    successors.ledger.desired_state = DesiredState.ABORT
    successors.night()
    assert row.ended
    assert "stopped by abort" in from_json(RolloutOutcome, row.result).state.failure
    assert successors.members.effects == []
