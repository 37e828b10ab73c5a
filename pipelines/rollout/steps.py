"""How a flow acts: fenced, held by a pause, tried again where the world fails, never by a clock. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from hardening.foundation.errors import OutsideError, RefusedError
from images.documents import from_json, to_json
from pipelines.durable.port import Json, WorkflowEngine
from pipelines.fleet.port import GoneError, InProgressError
from pipelines.rollout.journal import DesiredState, Journal

Value = TypeVar("Value")
TRIES = 6  # half a minute
PATIENT_TRIES = 40  # a quarter of an hour: what puts a member back must not give up because an engine restarts
IN_PROGRESS = timedelta(minutes=10)  # for what has begun to come to its end: a machine to start, a volume to move
SHORTEST = timedelta(milliseconds=200)
LONGEST = timedelta(seconds=30)
HELD = timedelta(seconds=2)


class StoppedError(RefusedError):
    """A person stopped the rollout. `stance`: how. Flows raise it, no step does: its record keeps words."""

    def __init__(self, desired_state: DesiredState) -> None:
        super().__init__(f"stopped by {desired_state}")
        self.desired_state = desired_state


class UnhealthyError(RefusedError):
    """A new instance did not become healthy, or did not stay so."""


class Backoff:
    """Waits that grow, and the sum of what was slept: a wait that a message cut short counts for nothing."""

    def __init__(self, engine: WorkflowEngine, least: timedelta) -> None:
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

    async def see(self, kind: type[Value], name: str, read: Callable[[], Value], tries: int = TRIES) -> Value:
        """`look` for a frozen value of ours."""
        return from_json(kind, await self._tried(name, read, tries))

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
        tried = await self.see(_Tried, name, lambda: self._unless_stopped(lambda: self._audited(name, effect)))
        if tried.held:
            raise StoppedError(tried.held)
        return tried.answer

    async def look_when_free(self, name: str, read: Callable[[], object]) -> Json:
        """`look`, but not while the rollout is paused: what is seen is what is acted upon."""
        return await self._when_free(name, lambda: self._fenced(read))

    async def _when_free(self, name: str, attempt: Callable[[], object]) -> Json:
        backoff = Backoff(self.engine, HELD)
        while True:
            tried = await self.see(_Tried, name, lambda: self._unless_held(attempt))
            if tried.held is None:
                return tried.answer
            await self.obey(tried.held, backoff)

    async def obey(self, desired_state: DesiredState, backoff: Backoff) -> bool:
        """Sleep a turn where the stance is a pause: True. Raises StoppedError where it ends the rollout."""
        if desired_state is DesiredState.PAUSE:
            await backoff.next(counts=False)
            return True
        if self.stops(desired_state):
            raise StoppedError(desired_state)
        return False

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

    def _unless_stopped(self, attempt: Callable[[], object]) -> _Tried:
        desired_state = self.desired_state()
        return _Tried(desired_state) if self.stops(desired_state) else _Tried(answer=attempt())

    def _unless_held(self, attempt: Callable[[], object]) -> _Tried:
        desired_state = self.desired_state()
        if desired_state is DesiredState.PAUSE or self.stops(desired_state):
            return _Tried(desired_state)
        return _Tried(answer=attempt())

    async def _tried(self, name: str, attempt: Callable[[], object], tries: int) -> Json:
        """One step after the other, until it is done. What is under way is asked for again; where it makes no way for
        as long as IN_PROGRESS, that is a failure, and of failures there may be so many as there are `tries`.
        """
        failed, waiting, backoff = 0, "", Backoff(self.engine, HELD)
        while True:
            try:
                return await self.engine.step(name, lambda: to_json(attempt()))
            except GoneError:
                raise
            except OutsideError as error:
                if isinstance(error, InProgressError) and not (
                    error.message == waiting and backoff.slept >= IN_PROGRESS
                ):
                    if error.message != waiting:
                        waiting, backoff = error.message, Backoff(self.engine, HELD)
                    await backoff.next()
                    continue
                waiting, failed = "", failed + 1
                if failed >= tries:
                    raise
                await self.engine.wait(min(LONGEST, timedelta(seconds=2 ** (failed - 1))))
