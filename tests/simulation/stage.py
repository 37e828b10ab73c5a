"""One simulated rollout: the real plan and the real flows on the engine in memory, and everybody around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random

from hardening.findings import Reason
from hardening.foundation.errors import RefusedError
from hardening.model import Enforcement
from images.artifact import Release
from images.documents import to_json
from images.ledger import Holder
from pipelines.durable.port import Flow
from pipelines.fleet.ec2.pacing import pacing
from pipelines.fleet.members import Member, Provenance, ReplacementImage
from pipelines.fleet.model import Fleet, FleetKind
from pipelines.fleet.port import Group
from pipelines.fleet.violations import Judged
from pipelines.rollout.flow import ROLLOUT, flows
from pipelines.rollout.lease import renew, take
from pipelines.rollout.plan import plan
from pipelines.rollout.plan_model import GroupStep, Plan
from pipelines.rollout.state import DesiredState, GroupOrder, Judge, MemberOrder, Order, RolloutStage, World
from tests.simulation.execution import Fate, Row
from tests.simulation.fleet import SimulatedFleet
from tests.simulation.groups import SimulatedGroups
from tests.simulation.ledger import Ledger, SimulatedJournal, ViolationError
from tests.simulation.memory import EPOCH, Memory, Process
from tests.simulation.observer import Observer
from tests.simulation.scenario import Scenario
from tests.simulation.world import ID, Box, SimulatedWorld

LEASE, RENEW = 30.0, 10.0
LONGEST = timedelta(days=30).total_seconds()
AFTERWARDS = 1000.0
APPROVES_EVERY = 400.0
SECOND = 1.0
DUE_TOGETHER = 4  # members
LEAVE = "ask for admission"  # the step of a rollout
FOREVER = datetime.max.replace(tzinfo=UTC)
NAME = "simulated"


def release(number: int) -> Release:
    """A golden release; the last ones are the newest."""
    at = EPOCH - timedelta(days=40 - number)
    digest = f"sha256:{number:064x}"
    ends = EPOCH + timedelta(days=300)
    return Release(NAME, f"r.example/{NAME}", digest, f"c{number}", "", "", "", at, ends, ends)


TARGET = ReplacementImage(f"r.example/{NAME}@{release(30).digest}", release(30).digest, release(30))


class SimulatedJudge(Judge):
    """What has changed since the plan was made."""

    def __init__(self) -> None:
        self.revoked = False
        self.firing = False

    def left_alone(self, order: MemberOrder, member: Member) -> str:
        """Fixed or protected meanwhile."""
        if order.target.digest in member.digests:
            return "it no longer violates"
        return "it asks not to be disrupted" if member.protected_until else ""

    def group_left_alone(self, order: GroupOrder) -> str:
        """No group is."""
        return ""

    def refuse(self, target: ReplacementImage) -> None:
        """Revoked meanwhile."""
        if self.revoked:
            raise RefusedError("the replacement is revoked")

    def alarms(self, names: Sequence[str]) -> tuple[str, ...]:
        """All of them, or none."""
        return tuple(names) if self.firing else ()


class Simulation:
    """A scenario on stage. What a process is, who holds the lease, and what people do, is decided here."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.dice = Random(scenario.seed + 1)
        self.fleet = _fleet(scenario)
        self.memory = Memory(self._fate, self.watched)
        self.ledger = Ledger(clock=lambda: self.memory.time)
        self.judge = SimulatedJudge()
        groups = [Group(f"group/{number}", f"group-{number}", 2, 2) for number in range(scenario.groups)]
        self.service = SimulatedGroups(lambda: self.memory.time, groups)
        steps = tuple(GroupStep(group, pacing(self.fleet.limits, 2, 1)) for group in groups)
        self.plan = replace(_plan(self.fleet, scenario.members), groups=steps)
        min_healthy = self.fleet.limits.min_healthy_time.total_seconds()
        self.estate = SimulatedWorld(self.memory, self.ledger, self.plan.floor, min_healthy)
        self.estate.boxes = {box.handle: box for box in map(_old, range(scenario.members))}
        self.estate.newborn = self._newborn
        self.witness = Observer(self.estate, self.fleet.limits, self.plan)
        self.pinned = {box.member: box.exact for box in self.estate.boxes.values()}
        self.deaths: dict[int, str] = {}
        self.sleeps: dict[int, tuple[str, float]] = {}
        self.births: list[Callable[[Box], None]] = []
        self.meddled: set[str] = set()
        self.refused = 0
        self.step = ""
        self.steps = 0
        self.events = 0
        self.ended_at = 0.0
        self.each_event: Callable[[], None] = lambda: None
        self.lapsed: dict[str, float] = {}
        self.lost: dict[str, float] = {}
        self.processes: list[Process] = []
        self.process = self._process()
        self.row: Row | None = None

    def run(self) -> Row:
        """Let it happen until the rollout has ended, and a while longer: who slept may still wake up."""
        order = to_json(Order(ID, self.plan, self.fleet.limits))
        row = self.row = self.process.start(ROLLOUT, ID, order)
        self.memory.at(APPROVES_EVERY, self._approve_where_asked)
        try:
            self.memory.run(LONGEST, lambda: row.ended)
            self.ended_at = self.memory.time
            if row.ended:
                self.memory.run(self.memory.time + AFTERWARDS)
        finally:
            self.memory.close()
        return row

    def watched(self) -> None:
        """After every event."""
        self.events += 1
        self.each_event()

    # -- processes ----------------------------------------------------------------------------------------------------

    def _process(self) -> Process:
        """A new process, which holds the fleet. Raises RefusedError where another one does."""
        name = f"process {self.steps}.{len(self.processes)}"
        before = self.ledger.holder
        try:
            self.enter(Holder(NAME, name, ID))
        except RefusedError:
            if self.ledger.holder != before:
                how = f"{name} cannot go on, and has taken the lease of {before}"
                raise ViolationError("a lease is with whoever can go on", how) from None
            raise
        self.processes.append(self.memory.process(name, self._flows(name)))
        return self.processes[-1]

    def enter(self, wanted: Holder) -> None:
        """Hold the fleet in the order of a real process: the lock, then the lease. Raises RefusedError."""
        self.lock()
        take(self.ledger, wanted, alone=not self.scenario.shared)

    def lock(self) -> None:
        """Take the lock of the engine's file. Raises RefusedError while a process lives that has it."""
        if not self.scenario.shared and any(process.alive for process in self.processes):
            raise RefusedError("another process has the file")

    def _flows(self, process: str) -> Mapping[str, Flow]:
        fleet = SimulatedFleet(self.estate, self.witness, process)
        journal = SimulatedJournal(self.ledger, process)
        world = World(fleet, journal, self.judge, partial(self._now, process), delegated=self.service)
        return flows(world)

    def _now(self, process: str) -> datetime:
        """The wall clock; a process that asks for leave looks at it once all else is known."""
        if self.step == LEAVE and process == self.ledger.holder:
            self.witness.asks(forbidden=self.judge.revoked or self.judge.firing)
        return self.memory.now()

    def _fate(self, _flow: str, name: str) -> Fate:
        self.step = name
        self.steps += 1
        seconds = self.dice.random() * self.scenario.slowness
        when, span = self.sleeps.pop(self.steps, ("", 0.0))
        dies, process = self.deaths.pop(self.steps, ""), self.memory.asking or self.process
        if dies:
            self.lapses(process)
        elif when:
            self.falls_asleep(process, span)
        return Fate(seconds + SECOND if dies else seconds, dies, when == "before")

    def falls_asleep(self, process: Process, span: float) -> None:
        """The process is suspended, and finds out when it wakes up whether its lease has outlived that."""
        if process.alive:
            process.stalled_until = max(process.stalled_until, self.memory.time + span)
            self.lapses(process)
            self.memory.at(span + self.dice.random() * RENEW, partial(self._renews, process), process)

    def _renews(self, process: Process) -> None:
        renew(self.ledger, Holder(NAME, process.name, ID), partial(self.memory.fenced, process))

    def lapses(self, process: Process) -> None:
        """The process renews its lease no more: when that has ended, another one takes over."""
        if process.name == self.ledger.holder:
            self.ledger.until = min(self.ledger.until, self.memory.time + LEASE)
        self.lapsed[process.name] = self.memory.time
        self.memory.at(LEASE + self.dice.random(), partial(self._take_over, process))

    def _take_over(self, from_process: Process) -> None:
        gone = not from_process.alive or from_process.stalled_until > self.memory.time
        if gone and self.process is from_process and not self._goes_on():
            self.memory.at(LEASE, partial(self._take_over, from_process))

    def _goes_on(self) -> bool:
        """Another process goes on with the rollout, if it may."""
        try:
            heir = self._process()
        except RefusedError:
            return False
        before, self.process = self.process.name, heir
        self.lost[before] = self.memory.time
        self.estate.forget_looks(before, self.lapsed.get(before, self.memory.time))
        heir.recover()
        return True

    def rival(self) -> None:
        """Somebody else starts a rollout of this fleet: refused while a process holds it."""
        self.refused += not self._goes_on()

    # -- people -------------------------------------------------------------------------------------------------------

    def command(self, desired_state: DesiredState) -> None:
        """What a person says; abort and rollback are final. A rollout that is over is told nothing."""
        over = self.ledger.state is not None and self.ledger.state.stage is RolloutStage.ENDED
        if not over and self.ledger.desired_state in (DesiredState.GO, DesiredState.PAUSE):
            self.ledger.desired_state = desired_state
            self.witness.hears(desired_state)
        self.wake()

    def approve(self) -> None:
        """A person approves."""
        self.ledger.approvals += 1
        self.witness.approved_at = self.memory.time
        self.wake()

    def wake(self) -> None:
        """The command line wakes every flow of the rollout."""
        for row in list(self.memory.rows.values()):
            if not row.ended:
                self.memory.wake(row.id)

    def _approve_where_asked(self) -> None:
        if self.row and not self.row.ended:
            if self.ledger.state and self.ledger.state.stage is RolloutStage.CANARY_APPROVAL:
                self.approve()
            self.memory.at(APPROVES_EVERY, self._approve_where_asked)

    # -- instances ----------------------------------------------------------------------------------------------------

    def _newborn(self, box: Box) -> None:
        box.warm_after = self.dice.random() * 15
        for birth in self.births:
            birth(box)


def name_of(number: int) -> str:
    """A member's name; its id is the same."""
    return f"m-{number:02}"


def _old(number: int) -> Box:
    """A member as it is before: they do not all run the same image."""
    name, before = name_of(number), release(number % 3)
    return Box(f"old-{number}", name, name, before.digest, f"r.example/{NAME}@{before.digest}")


def _fleet(scenario: Scenario) -> Fleet:
    return Fleet.model_validate(
        {
            "name": NAME,
            "title": "A fleet that does not exist",
            "owner": "nobody",
            "kind": FleetKind.DOCKER,
            "selector": {"app": NAME},
            "replacement": {"definition": NAME},
            "limits": scenario.limits,
        }
    )


def _plan(fleet: Fleet, members: int) -> Plan:
    """The real plan for members that have all expired, each hour the deadline of some."""
    judged = []
    for number in range(members):
        due = EPOCH + number // DUE_TOGETHER * timedelta(hours=1)
        why = Reason("expired", NAME, Enforcement.ENFORCE, "it is expired", "", "", since=EPOCH, deadline=due)
        box = _old(number)
        member = Member(box.member, box.name, box.handle, box.exact, (box.digest,), exact=box.exact)
        judged.append(Judged(member, Provenance(release=release(number % 3)), (why,)))
    return plan(fleet, judged, TARGET, EPOCH)
