"""How a flow acts: fenced, held by a pause, retried after outside failures, never by a clock. Pure.

A context is what a flow works on: one member, one group, or the whole rollout (`Rolling`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from hardening.foundation.errors import OutsideError, RefusedError
from hardening.foundation.text import bounded
from images.documents import from_json, to_json
from pipelines.durable.port import Json, WorkflowEngine
from pipelines.fleet.members import Key
from pipelines.fleet.port import GoneError, InProgressError, MemberFleet
from pipelines.rollout.state import (
    SAID,
    Cause,
    DesiredState,
    Event,
    Journal,
    MemberOrder,
    MemberState,
    Order,
    Phase,
    RolloutStage,
    RolloutState,
    World,
)
from pipelines.rollout.waves import Step

Value = TypeVar("Value")
TRIES = 6  # half a minute
PATIENT_TRIES = 40  # a quarter of an hour: what puts a member back must not give up because an engine restarts
IN_PROGRESS = timedelta(minutes=10)  # for what has begun to come to its end: a machine to start, a volume to move
SHORTEST = timedelta(milliseconds=200)
LONGEST = timedelta(seconds=30)
HELD = timedelta(seconds=2)


class StoppedError(RefusedError):
    """A person stopped the rollout, by `desired_state`. Only flows raise it: the record of a step keeps words alone."""

    def __init__(self, desired_state: DesiredState) -> None:
        super().__init__(f"stopped by {desired_state}")
        self.desired_state = desired_state


class UnhealthyError(RefusedError):
    """A new instance did not become healthy, or did not stay so."""


class Backoff:
    """Waits that grow, and the sum of what was slept: a wait that a message cut short counts for nothing."""

    def __init__(self, engine: WorkflowEngine, least: timedelta = HELD) -> None:
        self._engine = engine
        self._least = max(SHORTEST, least)
        self.slept = timedelta()
        self._total = timedelta()

    async def next(self, *, counts: bool = True) -> timedelta:
        """Wait once; what passed for certain."""
        span = min(LONGEST, max(self._least, self._total / 20))
        passed = timedelta() if await self._engine.wait(span) else span
        self._total += passed
        self.slept += passed if counts else timedelta()
        return passed


@dataclass(frozen=True)
class _Tried:
    """What came of an attempt: what people want that has held it back, or its answer."""

    held: DesiredState | None = None
    answer: Any = None


@dataclass(frozen=True)
class StepRunner:
    """What one flow acts with. `back`: it goes back to what was, so that only an abort stops it.

    What a step answers is one of our values; the flow gets it as its record, JSON.
    """

    engine: WorkflowEngine
    journal: Journal
    rollout: str
    back: bool = False

    async def look(self, name: str, read: Callable[[], object], tries: int = TRIES) -> Json:
        """Ask the world, which changes nothing."""
        return await self._tried(name, read, tries)

    async def _tried(self, name: str, attempt: Callable[[], object], tries: int) -> Json:
        """The answer of a step that is repeated until it is done, after at most `tries` failures.

        What is in progress is asked for again, without end; if it waits for the same thing for IN_PROGRESS, it failed.
        """
        failed, waits_for, backoff = 0, "", Backoff(self.engine)
        while True:
            try:
                tried = from_json(_Attempt, await self.engine.step(name, lambda: to_json(_attempted(attempt))))
                if not tried.waits_for:
                    return tried.answer
                if tried.waits_for != waits_for:
                    waits_for, backoff = tried.waits_for, Backoff(self.engine)
                elif backoff.slept >= IN_PROGRESS:
                    raise InProgressError(waits_for)
                await backoff.next()
            except GoneError:
                raise
            except OutsideError:
                waits_for, failed = "", failed + 1
                if failed >= tries:
                    raise
                await self.engine.wait(min(LONGEST, timedelta(seconds=2 ** (failed - 1))))

    async def see(self, kind: type[Value], name: str, read: Callable[[], Value], tries: int = TRIES) -> Value:
        """`look` for a frozen value of ours."""
        return from_json(kind, await self.look(name, read, tries))

    async def note(self, name: str, write: Callable[[], object]) -> Json:
        """Write to the ledger."""
        return await self._tried(name, lambda: self._fenced(write), PATIENT_TRIES)

    async def act(self, name: str, effect: Callable[[], object], tries: int = TRIES) -> Json:
        """Do `effect` and write down that it was done; an effect answers with what held it back, if anything did.

        Raises the last OutsideError, and GoneError at once.
        """
        return await self._tried(name, lambda: self._audited(name, effect), tries)

    async def act_when_free(self, name: str, effect: Callable[[], object]) -> Json:
        """`act`, but not while the rollout is paused. Raises StoppedError when it was stopped."""
        return await self._when_free(name, lambda: self._audited(name, effect))

    async def act_until_stopped(self, name: str, effect: Callable[[], object]) -> Json:
        """`act`, that a pause does not hold. Raises StoppedError when the rollout was stopped."""
        return await self._when_free(name, lambda: self._audited(name, effect), pauses=False)

    async def look_when_free(self, name: str, read: Callable[[], object]) -> Json:
        """`look`, but not while the rollout is paused: what is seen is what is acted upon."""
        return await self._when_free(name, lambda: self._fenced(read))

    async def _when_free(self, name: str, attempt: Callable[[], object], *, pauses: bool = True) -> Json:
        backoff = Backoff(self.engine)

        def unless_held() -> _Tried:
            desired_state = self.desired_state()
            held = self.stops(desired_state) or (pauses and desired_state is DesiredState.PAUSE)
            return _Tried(desired_state) if held else _Tried(answer=attempt())

        while True:
            tried = from_json(_Tried, await self._tried(name, unless_held, TRIES))
            if tried.held is None:
                return tried.answer
            await self.obey(tried.held, backoff)

    async def obey(self, desired_state: DesiredState, backoff: Backoff) -> bool:
        """Sleep once and return True while people want a pause. Raises StoppedError where they end the rollout."""
        if desired_state is DesiredState.PAUSE:
            await backoff.next(counts=False)
            return True
        self.refuse_stopped(desired_state)
        return False

    def refuse_stopped(self, desired_state: DesiredState) -> None:
        """Raise StoppedError where nothing more may begin."""
        if self.stops(desired_state):
            raise StoppedError(desired_state)

    def stops(self, desired_state: DesiredState) -> bool:
        """Whether nothing more may begin."""
        return desired_state is DesiredState.ABORT or (desired_state is DesiredState.ROLLBACK and not self.back)

    def desired_state(self) -> DesiredState:
        """What people want; for use inside a step."""
        return self.journal.orders(self.rollout).desired_state

    def _fenced(self, effect: Callable[[], Value]) -> Value:
        self.journal.fence(self.rollout)
        return effect()

    def _audited(self, name: str, effect: Callable[[], Value]) -> Value:
        held = self._fenced(effect)
        if not held:
            self.journal.audit(self.rollout, name)
        return held


@dataclass(frozen=True)
class _Attempt:
    """The answer of an attempt, or what it waits for."""

    answer: Any = None
    waits_for: str = ""


def _attempted(attempt: Callable[[], object]) -> _Attempt:
    try:
        return _Attempt(to_json(attempt()))
    except InProgressError as error:
        return _Attempt(waits_for=error.waits_for)


# -- what a flow works on: a member, a group, a rollout ----------------------------------------------------------------


@dataclass
class StepContext:
    """A member or a group in a rollout, and how far it is."""

    runner: StepRunner
    world: World
    state: MemberState

    def save(self, phase: Phase) -> None:
        """Write down a phase; for use inside the step that reaches it."""
        self.world.journal.mark(self.runner.rollout, replace(self.state, phase=phase))

    async def end(self, phase: Phase, note: str = "", failure: str = "", cause: Cause | None = None) -> MemberState:
        """Write down how it ended, or that the new version serves; a `cause` is told in its own words."""
        kept = "; ".join(part for part in (self.state.note, note or (SAID[cause] if cause else "")) if part)
        self.state = replace(self.state, phase=phase, note=bounded(kept), failure=bounded(failure), cause=cause)
        await self.runner.note(f"{phase} {self.state.name}", lambda: self.save(phase))
        return self.state


@dataclass
class MemberContext(StepContext):
    """A member, its order, and how far it is. `rehearses`: its new instance is the one of the rehearsal. `waits`: what
    people were told that it waits for. `started`: this process has started the new one in the place of the old.
    """

    order: MemberOrder
    rehearses: bool = False
    waits: str = ""
    started: bool = False

    @classmethod
    def of(cls, world: World, engine: WorkflowEngine, order: MemberOrder, state: MemberState) -> MemberContext:
        """What a flow of the member works on."""
        return cls(StepRunner(engine, world.journal, order.rollout, order.back), world, state, order)

    @property
    def fleet(self) -> MemberFleet:
        """The fleet; for use inside a step."""
        return self.world.fleet

    @property
    def key(self) -> Key:
        """The domain key of every effect."""
        key = self.order.key(self.state.old)
        return key.rehearsal if self.rehearses else key

    def wait(self, why: str) -> None:
        """Write down what the member waits for, where that has changed; for use inside a step. Empty: nothing."""
        if why != self.waits:
            self.waits = why
            note = "; ".join(filter(None, [self.state.note, why]))
            self.world.journal.mark(self.runner.rollout, replace(self.state, note=note))

    async def free(self, action: str, effect: Callable[[], object]) -> Json:
        """An effect that a pause holds back."""
        return await self.runner.act_when_free(f"{action} {self.order.name}", effect)

    async def until_stopped(self, action: str, effect: Callable[[], object]) -> Json:
        """An effect that only the end of the rollout holds back: its member does not serve meanwhile."""
        return await self.runner.act_until_stopped(f"{action} {self.order.name}", effect)

    async def act(self, action: str, effect: Callable[[], object], tries: int = TRIES) -> Json:
        """An effect that must not wait: its member is between two safe points."""
        return await self.runner.act(f"{action} {self.order.name}", effect, tries)


Pairs = Sequence[tuple[MemberOrder, MemberState]]


class Rolling:
    """One rollout: its order, its state, and the state of each member and group."""

    def __init__(self, world: World, engine: WorkflowEngine, order: Order, started_at: datetime) -> None:
        plan = order.plan
        self.runner = StepRunner(engine, world.journal, order.rollout)
        self.state = RolloutState(order.rollout, plan.fleet, plan.targets[0].reference, started_at, plan.parts)
        planned = (MemberState(member, name) for member, name in plan.names.items())
        self.members = {member.id: member for member in order.back or planned}
        self.world = world
        self.order = order
        self.wave: Sequence[Step] = ()

    async def begin(self) -> None:
        """Write down the rollout and who belongs to it, and tell people what is to be done."""
        journal, groups = self.runner.journal, sum(step.group.id in self.members for step in self.order.plan.groups)
        counts = ((len(self.members) - groups, "members"), (groups, "groups"))
        many = " and ".join(f"{number} {what}" for number, what in counts if number)
        images = " and ".join(target.reference for target in self.order.plan.targets)
        told = f"{many} {'back from' if self.order.back else 'to'} {images}"

        def write() -> None:
            journal.begin(self.state, tuple(self.members.values()))
            journal.notify(self.state.id, Event.STARTED, told)

        await self.runner.note("begin", write)

    async def save(
        self, stage: RolloutStage, note: str = "", event: Event | None = None, *, unless: DesiredState | None = None,
        **changes: Any,
    ) -> bool:  # fmt: skip
        """Write down what the rollout does now; with `event` people are told. False, and nothing is written down,
        where people want what `unless` says by now.
        """
        before, self.state = self.state, replace(self.state, stage=stage, note=note, **changes)
        journal = self.runner.journal

        def write() -> bool:
            if unless and self.runner.desired_state() is unless:
                return True
            journal.save(self.state)
            if event:
                journal.notify(self.state.id, event, note or self.state.failure or stage)
            return False

        if await self.runner.note(f"{stage} {self.state.wave}", write):
            self.state = before
            return False
        return True

    async def mark(self, member: MemberState) -> MemberState:
        """Remember and write down how far a member is."""
        self.keep(member)
        journal = self.runner.journal
        await self.runner.note(f"{member.phase} {member.name}", lambda: journal.mark(self.state.id, member))
        return member

    def keep(self, member: MemberState) -> MemberState:
        """Remember how far a member is."""
        self.members[member.id] = member
        return member

    def new(self) -> Pairs:
        """The members of the present wave that run the new version, also those whose old one has vanished."""
        return self._reached(self.wave, Phase.SERVING, Phase.NEW)

    def pairs(self) -> Pairs:
        """The members whose new instance serves beside an old one that is kept."""
        return self._reached(self.order.plan.steps, Phase.SERVING)

    def _reached(self, steps: Sequence[Step], *phases: Phase) -> Pairs:
        found = [(step, self.members[step.member.id]) for step in steps]
        return [(self.member_order(step), member) for step, member in found if member.phase in phases]

    def member_order(self, step: Step) -> MemberOrder:
        """What the flow of one member is given."""
        order, plan = self.order, self.order.plan
        return MemberOrder(
            rollout=order.rollout,
            label=order.rollout,
            member=step.member.id,
            name=step.member.name,
            target=step.target or plan.target,
            method=plan.method,
            floor=plan.floor,
            limits=order.limits,
            adopt=order.adopt,
            rule=step.rule,
        )
