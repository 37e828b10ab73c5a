"""One member's step under way: what every part of its flow shares, and how it proves its health. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from hardening.foundation.durations import shown
from hardening.foundation.errors import OutsideError
from pipelines.durable.port import Json
from pipelines.fleet.members import Key, Read
from pipelines.fleet.port import MemberFleet
from pipelines.rollout.journal import DesiredState
from pipelines.rollout.orders import MemberOrder, World
from pipelines.rollout.state import SAID, Cause, MemberState, Phase
from pipelines.rollout.steps import Backoff, StepRunner, StoppedError, UnhealthyError

LEAST_READS = 3
SHOWN_READS = 5
MOST_BETWEEN_READS = timedelta(seconds=5)


class StepContext:
    """A member or a group under way, and how far it is."""

    def __init__(self, runner: StepRunner, world: World, state: MemberState) -> None:
        self.runner = runner
        self.world = world
        self.state = state

    def save(self, phase: Phase) -> None:
        """Write down a phase; for use inside the step that reaches it."""
        self.world.journal.mark(self.runner.rollout, replace(self.state, phase=phase))

    async def end(self, phase: Phase, note: str = "", failure: str = "", cause: Cause | None = None) -> MemberState:
        """Write down how it ended, or that the new version serves; a `cause` is told in its own words."""
        kept = "; ".join(part for part in (self.state.note, note or (SAID[cause] if cause else "")) if part)
        self.state = replace(self.state, phase=phase, note=kept, failure=failure, cause=cause)
        await self.runner.note(f"{phase} {self.state.name}", lambda: self.save(phase))
        return self.state


class MemberContext(StepContext):
    """A member, its order, and how far it is."""

    def __init__(self, runner: StepRunner, world: World, order: MemberOrder, state: MemberState) -> None:
        super().__init__(runner, world, state)
        self.order = order

    @property
    def fleet(self) -> MemberFleet:
        """The fleet; for use inside a step."""
        return self.world.fleet

    @property
    def key(self) -> Key:
        """The domain key of every effect."""
        return self.order.key(self.state.old)

    async def free(self, action: str, effect: Callable[[], object]) -> Json:
        """An effect that a pause holds back."""
        return await self.runner.act_when_free(f"{action} {self.order.name}", effect)

    async def until_stopped(self, action: str, effect: Callable[[], object]) -> Json:
        """An effect that only the rollout's end holds back: its member serves nobody meanwhile."""
        return await self.runner.act_until_stopped(f"{action} {self.order.name}", effect)

    async def act(self, action: str, effect: Callable[[], object], tries: int = 0) -> Json:
        """An effect that must not wait: its member is between two safe points."""
        name = f"{action} {self.order.name}"
        return await (self.runner.act(name, effect, tries) if tries else self.runner.act(name, effect))


@dataclass
class HealthStreak:
    """Reads in a row: good since `count` reads, over `good_for`; wanted are `least` over `span`.

    Whoever had a bad read has to show itself good over `relapsed`, however short `span` was: its health begins anew.
    """

    span: timedelta
    least: int
    relapsed: timedelta
    count: int = 0
    bad: int = 0
    good_for: timedelta = timedelta()
    texts: list[str] = field(default_factory=list)

    def add(self, look: HealthLook) -> None:
        """One more read; one that could not be made (None) is not good."""
        good, text = look.good, look.text
        self.texts = [*self.texts[1 - SHOWN_READS :], text]
        self.count = self.count + 1 if good else 0
        self.good_for = self.good_for if good else timedelta()
        if good is not None:
            self.bad = 0 if good else self.bad + 1
        if good is False and self.relapsed > self.span:
            self.span, self.least = self.relapsed, LEAST_READS

    def slept(self, span: timedelta) -> None:
        """Time has passed since the last read."""
        if self.count:
            self.good_for += span

    @property
    def proved(self) -> bool:
        """Whether all reads over the span, and enough of them, were good."""
        return self.count >= self.least and self.good_for >= self.span


async def prove(work: MemberContext, span: timedelta) -> None:
    """Wait until the new instance was good in every read over `span`, three times at least; one good read is luck.

    Raises UnhealthyError with what was seen when it is not within healthy_deadline, StoppedError when a person says so.
    """
    row = await _watched(work, "new", HealthStreak(span, LEAST_READS, work.order.limits.min_healthy_time), obeys=True)
    if not row.proved:
        limit = shown(work.order.limits.healthy_deadline)
        raise UnhealthyError(
            f"{work.order.name}: the new one was not healthy over {shown(span)} within {limit}",
            evidence=await evidence(work, row.texts),
            hint="mend the image; the old one serves",
        )


async def old_serves(work: MemberContext) -> bool:
    """Wait until the old instance is good; False when it is not within healthy_deadline."""
    return (await _watched(work, "old", HealthStreak(timedelta(), 1, timedelta()), obeys=False)).proved


async def _watched(work: MemberContext, which: str, row: HealthStreak, *, obeys: bool) -> HealthStreak:
    backoff = Backoff(work.runner.engine, min(row.span / LEAST_READS, MOST_BETWEEN_READS))
    while True:
        seen = await work.runner.see(_MemberLook, f"read the {which} {work.order.name}", lambda: _look(work, which))
        row.add(seen.look)
        if row.proved or backoff.slept >= work.order.limits.healthy_deadline:
            return row
        if obeys and work.runner.stops(seen.desired_state):
            raise StoppedError(seen.desired_state)
        row.slept(await backoff.next())


@dataclass(frozen=True)
class HealthLook:
    """One look at an instance: good, not good, or None where the fleet does not answer; and what was seen."""

    good: bool | None
    text: str


@dataclass(frozen=True)
class _MemberLook:
    """One look at an instance, and what people want."""

    look: HealthLook
    desired_state: DesiredState


def _look(work: MemberContext, which: str) -> _MemberLook:
    seen = look(lambda: work.fleet.read(work.key) if which == "new" else work.fleet.read_old(work.key))
    return _MemberLook(seen, work.runner.desired_state())


def look(read: Callable[[], Read]) -> HealthLook:
    """One look at an instance, for use inside a step."""
    try:
        seen = read()
    except OutsideError as error:
        return HealthLook(None, error.message)
    return HealthLook(seen.good, seen.text)


async def evidence(work: MemberContext, texts: Sequence[str]) -> str:
    """The last reads, and the last lines that the new instance printed."""
    log = await work.runner.look(f"read the log of {work.order.name}", lambda: _log(work))
    return "\n".join([*(f"health: {text}" for text in texts), *(f"log: {line}" for line in log.splitlines())])


def _log(work: MemberContext) -> str:
    try:
        return work.fleet.log(work.key)
    except OutsideError as error:
        return error.message
