"""The flow of one group that a service rolls: begun, watched, paused by cancelling, brought back to its pin. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import timedelta

from hardening.foundation.durations import shown
from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError
from images.documents import from_json, to_json
from pipelines.durable.port import Engine, Json
from pipelines.fleet.delegated import DelegatedFleet, Progress, Watched
from pipelines.rollouts.acting import HELD, PATIENT_TRIES, Hand, StoppedError, Turns
from pipelines.rollouts.journal import Journal, Stance
from pipelines.rollouts.orders import GroupOrder, Judge
from pipelines.rollouts.state import MemberState, Phase

OVER = (Progress.DONE, Progress.FAILED, Progress.CANCELLED, Progress.ROLLED_BACK)
BETWEEN_LOOKS = timedelta(seconds=5)


@dataclass(frozen=True)
class GroupWorld:
    """What a process acts through upon groups. Nothing of it is touched outside of a step."""

    fleet: DelegatedFleet
    journal: Journal
    judge: Judge


class TurnError(RefusedError):
    """The group must not go on to the new version: it is to be brought back."""


class GroupWork:
    """A group under way. `attempt` names what the service was asked: a new name for each resumption."""

    def __init__(self, hand: Hand, world: GroupWorld, order: GroupOrder) -> None:
        self.hand = hand
        self.world = world
        self.order = order
        self.state = MemberState(order.group.id, order.group.name)
        self.attempts = 0

    @property
    def attempt(self) -> str:
        """The domain key of the service's present rolling."""
        return self.order.rollout if self.attempts <= 1 else f"{self.order.rollout}-{self.attempts}"

    @property
    def pinned(self) -> Json:
        """What the group ran before."""
        return json.loads(self.state.pinned)

    def save(self, phase: Phase) -> None:
        """Write down a phase; for use inside a step."""
        self.world.journal.mark(self.order.rollout, replace(self.state, phase=phase))

    async def end(self, phase: Phase, note: str = "", failure: str = "") -> MemberState:
        """Write down how the group ended."""
        self.state = replace(self.state, phase=phase, note=note, failure=failure)
        await self.hand.note(f"{phase} {self.order.group.name}", lambda: self.save(phase))
        return self.state


async def roll_group(world: GroupWorld, engine: Engine, argument: Json) -> Json:
    """Let the service roll one group as its GroupOrder says; the MemberState that it reached."""
    order = from_json(GroupOrder, argument)
    work = GroupWork(Hand(engine, world.journal, order.rollout, bool(order.back)), world, order)
    if order.back:
        work.state = replace(work.state, pinned=order.back)
        return to_json(await _brought_back(work, ""))
    return to_json(await _rolled(work))


async def _rolled(work: GroupWork) -> MemberState:
    """Pin, begin, watch; whatever stops that, the group is brought back or the end is said."""
    group = work.order.group
    if group.cannot_roll:
        return await work.end(Phase.SKIPPED, group.cannot_roll)
    try:
        pinned = await work.hand.look_when_free(f"pin {group.name}", lambda: _pin(work))
    except StoppedError as stopped:
        return await work.end(Phase.SKIPPED, stopped.message)
    except GoldsmithError as error:
        return await work.end(Phase.OLD, failure=str(error))
    work.state = replace(work.state, pinned=json.dumps(pinned))
    try:
        while not await _attempted(work):
            pass
    except StoppedError as stopped:
        return await _stopped(work, stopped.message)
    except GoldsmithError as error:
        return await _brought_back(work, str(error))
    return await work.end(Phase.NEW)


def _pin(work: GroupWork) -> Json:
    work.world.judge.refuse(work.order.target)
    return work.world.fleet.pin(work.order.rollout, work.order.group)


async def _attempted(work: GroupWork) -> bool:
    """One rolling of the service, to its end: True; False where a pause cancelled it and it has to begin anew."""
    work.attempts += 1
    await work.hand.act_when_free(f"begin {work.order.group.name}", lambda: _begin(work))
    turns, percent = Turns(work.hand.engine, BETWEEN_LOOKS), -1
    while True:
        seen, stance = await _look(work)
        if seen.progress is Progress.DONE:
            return True
        if seen.progress is not Progress.RUNNING:
            raise TurnError(f"the service reports {seen.progress}: {seen.text}")
        if work.hand.stops(stance):
            raise StoppedError(f"stopped by {stance}")
        if stance is Stance.PAUSE:
            await _cancelled(work)
            return False
        if seen.percent > percent:
            percent, turns = seen.percent, Turns(work.hand.engine, BETWEEN_LOOKS)
        if turns.slept >= work.order.limits.progress_deadline:
            raise TurnError(f"it stood at {percent} % for {shown(work.order.limits.progress_deadline)}")
        await turns.next()


def _begin(work: GroupWork) -> None:
    order = work.order
    work.save(Phase.REPLACING)
    work.world.fleet.begin(work.attempt, order.group, order.target, work.pinned, order.pacing)


async def _look(work: GroupWork, *, judged: bool = True) -> tuple[Watched, Stance]:
    """One look at the service and at what people say. Raises RefusedError where the group must not go on."""

    def look() -> Json:
        if judged:
            work.world.judge.refuse(work.order.target)
            if firing := work.world.judge.alarms(work.order.limits.alarms):
                raise TurnError(f"an alarm is firing: {', '.join(firing)}")
        return [to_json(work.world.fleet.watch(work.attempt, work.order.group)), work.hand.stance()]

    seen, stance = await work.hand.look(f"watch {work.order.group.name}", look, PATIENT_TRIES)
    return from_json(Watched, seen), Stance(stance)


async def _cancelled(work: GroupWork) -> Watched:
    """Ask the service to stop where it is, and wait until it has."""
    group = work.order.group
    await work.hand.act(f"cancel {group.name}", lambda: work.world.fleet.cancel(work.attempt, group), PATIENT_TRIES)
    return await _over(work)


async def _over(work: GroupWork) -> Watched:
    """Wait until the service does nothing more. Raises OutsideError after progress_deadline."""
    turns = Turns(work.hand.engine, HELD)
    while True:
        seen, _ = await _look(work, judged=False)
        if seen.progress in OVER:
            return seen
        if turns.slept >= work.order.limits.progress_deadline:
            raise OutsideError(f"the service still reports {seen.progress} for {work.order.group.name}: {seen.text}")
        await turns.next()


async def _stopped(work: GroupWork, why: str) -> MemberState:
    """An abort leaves a group where it is; a rollback brings it back."""
    if why.endswith(Stance.ROLLBACK):
        return await _brought_back(work, "")
    try:
        seen = await _cancelled(work)
    except GoldsmithError as error:
        return await work.end(Phase.FAILED, why, str(error))
    if seen.progress is Progress.DONE:
        return await work.end(Phase.NEW, f"{why}, when it was done")
    said = f"{why} at {seen.percent} %: part of the group runs the new version"
    return await work.end(Phase.FAILED, said, said)


async def _brought_back(work: GroupWork, failure: str) -> MemberState:
    """The group goes back to what was pinned, by itself where the service has begun with that already."""
    if failure and not work.order.limits.auto_rollback:
        return await work.end(Phase.FAILED, "auto_rollback is off: it was left as it is", failure)
    group = work.order.group
    try:
        if (await _look(work, judged=False))[0].progress not in (Progress.ROLLING_BACK, Progress.ROLLED_BACK):
            await work.hand.act(f"roll back {group.name}", lambda: _roll_back(work), PATIENT_TRIES)
        seen = await _over(work)
    except GoldsmithError as error:
        return await work.end(Phase.FAILED, f"it could not be brought back: {error.message}", failure or str(error))
    if seen.progress is Progress.ROLLED_BACK:
        return await work.end(Phase.OLD, f"it went back to {work.state.pinned}", failure)
    said = f"it did not come back: the service reports {seen.progress}: {seen.text}"
    return await work.end(Phase.FAILED, said, failure or said)


def _roll_back(work: GroupWork) -> None:
    work.world.fleet.roll_back(work.attempt, work.order.group, work.pinned)
