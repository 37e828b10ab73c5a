"""The flow of one group that a service rolls: pinned, begun, watched, rolled back. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import timedelta

from hardening.foundation.durations import shown
from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError
from pipelines.durable.port import WorkflowEngine
from pipelines.fleet.port import Group, GroupPin, Progress, UnseenError, Watched
from pipelines.rollout.state import DesiredState, GroupOrder, MemberState, Phase, Scope, World
from pipelines.rollout.steps import PATIENT_TRIES, Backoff, StepContext, StepRunner, StoppedError

OVER = (Progress.DONE, Progress.FAILED, Progress.CANCELLED, Progress.ROLLED_BACK)
BETWEEN_LOOKS = timedelta(seconds=5)
MOST_FALLS = 10  # that something is lost of what was done, until only more than ever counts as progress
WAYS_BACK = 2  # the service's own, and one of ours for what that leaves


class TurnError(RefusedError):
    """The group must not go on to the new version: it is to be brought back."""


class GroupContext(StepContext):
    """A group in a rollout. `attempt` names what the service was asked: a new name for each resumption.

    `begun`: the service has accepted it, in this flow.
    """

    def __init__(self, runner: StepRunner, world: World, order: GroupOrder) -> None:
        self.group: Group = order.step.group
        super().__init__(runner, world, MemberState(self.group.id, self.group.name, pinned=order.pinned))
        self.order = order
        self.attempts = 0
        self.begun = False

    @property
    def attempt(self) -> str:
        """The domain key of the service's present rolling."""
        stem = f"{self.order.rollout}-rest" if self.order.part is Scope.REST else self.order.rollout
        return stem if self.attempts <= 1 else f"{stem}-{self.attempts}"


async def roll_group(world: World, engine: WorkflowEngine, order: GroupOrder) -> MemberState:
    """Let the service roll one group; the state that it reached, SERVING for a canary."""
    back = order.part is Scope.BACK
    work = GroupContext(StepRunner(engine, world.journal, order.rollout, back), world, order)
    return await (_gone_back(work) if back else _rolled(work))


async def _rolled(work: GroupContext) -> MemberState:
    """Pin, begin, watch; whatever stops that, the group is brought back or the end is said."""
    group = work.group
    if group.cannot_roll:
        return await work.end(Phase.SKIPPED, group.cannot_roll)
    if work.order.part is not Scope.REST and (ended := await _unpinned(work)):
        return ended  # the canary was judged, and its pin is the rest's as well: what that finds is new in part
    try:
        while not await _attempted(work):
            pass
        if work.order.part is Scope.CANARY:
            return await _serving(work)
    except StoppedError as stopped:
        return await _stopped(work, stopped)
    except GoldsmithError as error:
        return await _brought_back(work, str(error))
    return await work.end(Phase.NEW)


async def _unpinned(work: GroupContext) -> MemberState | None:
    """Judge the group, and pin what it runs; its end, where that does not come about."""
    try:
        pinned = await work.runner.look_when_free(f"pin {work.group.name}", lambda: _pin(work))
    except StoppedError as stopped:
        return await work.end(Phase.SKIPPED, stopped.message)
    except GoldsmithError as error:
        return await work.end(Phase.OLD, failure=str(error))
    if isinstance(pinned, str):
        return await work.end(Phase.SKIPPED, pinned)
    work.state = replace(work.state, pinned=json.dumps(pinned))
    return None


async def _serving(work: GroupContext) -> MemberState:
    """The canary is new; until a person has approved it, nothing else of the group becomes so."""
    if work.order.step.whole:
        return await work.end(Phase.SERVING, "all of it runs the new version")
    group = work.group
    hold = work.world.groups.hold
    await work.runner.act(f"hold {group.name}", lambda: hold(work.attempt, group, work.state.pin), PATIENT_TRIES)
    percent = work.order.step.pacing.checkpoint_percents[0]
    return await work.end(Phase.SERVING, f"its canary, {percent} % of it, runs the new version")


def _pin(work: GroupContext) -> GroupPin | str:
    """What the group runs, pinned; or why it is left alone after all."""
    if why := work.world.judge.group_left_alone(work.order):
        return why
    work.world.judge.refuse(work.order.target)
    return work.world.groups.pin(work.group)


async def _attempted(work: GroupContext) -> bool:
    """One rolling of the service, to its end: True; False where a pause cancelled it and it must begin again."""
    work.attempts += 1
    await work.runner.act_when_free(f"begin {work.group.name}", lambda: _begin(work))
    work.begun = True
    backoff, percent, falls = Backoff(work.runner.engine, BETWEEN_LOOKS), -1, 0
    while True:
        seen, desired_state = await _look(work)
        if seen.progress is Progress.DONE:
            return True
        if seen.progress is not Progress.RUNNING:
            raise TurnError(f"the service reports {seen.progress}: {seen.text}")
        work.runner.refuse_stopped(desired_state)
        if desired_state is DesiredState.PAUSE:
            await _cancelled(work)
            return False
        fell = seen.percent < percent  # a bake starts over in a process that goes on with it
        if seen.percent > percent or (fell and falls < MOST_FALLS):
            percent, falls, backoff = seen.percent, falls + fell, Backoff(work.runner.engine, BETWEEN_LOOKS)
        if backoff.slept >= work.order.limits.progress_deadline:
            raise TurnError(f"it stood at {percent} % for {shown(work.order.limits.progress_deadline)}")
        await backoff.next()


def _begin(work: GroupContext) -> None:
    order, pacing = work.order, work.order.step.pacing
    work.save(Phase.REPLACING)
    asked = {Scope.CANARY: pacing.canary, Scope.REST: pacing.rest}.get(order.part, pacing)
    work.world.groups.begin(work.attempt, work.group, order.target, work.state.pin, asked)


@dataclass(frozen=True)
class _GroupLook:
    """What the service says, and what people want."""

    service: Watched
    desired_state: DesiredState


async def _look(work: GroupContext, *, judged: bool = True) -> tuple[Watched, DesiredState]:
    """One look at the service and at what people say. Raises RefusedError where the group must not go on."""

    def look() -> _GroupLook:
        if judged:
            work.world.refuse(work.order.target, work.order.limits)
        return _GroupLook(_watched(work), work.runner.desired_state())

    seen = await work.runner.see(_GroupLook, f"watch {work.group.name}", look, PATIENT_TRIES)
    return seen.service, seen.desired_state


def _watched(work: GroupContext) -> Watched:
    """What the service shows; where it has accepted nothing and shows nothing, there is nothing to take back."""
    try:
        return work.world.groups.watch(work.attempt, work.group)
    except UnseenError:
        if work.begun:
            raise
        return Watched(Progress.ROLLED_BACK, 0, "nothing was begun")


async def _cancelled(work: GroupContext) -> Watched:
    """Ask the service to stop where it is, and wait until it has."""
    group = work.group
    cancel = work.world.groups.cancel
    await work.runner.act(f"cancel {group.name}", lambda: cancel(work.attempt, group, work.state.pin), PATIENT_TRIES)
    return await _over(work)


async def _over(work: GroupContext) -> Watched:
    """Wait until the service does nothing more, and help it where it is stuck on its way back.

    Raises OutsideError after progress_deadline without progress.
    """
    backoff, percent = Backoff(work.runner.engine), -1
    while True:
        seen, _ = await _look(work, judged=False)
        if seen.progress in OVER:
            return seen
        if seen.stuck:
            await _ask_back(work)
        if seen.percent > percent:
            percent, backoff = seen.percent, Backoff(work.runner.engine)
        if backoff.slept >= work.order.limits.progress_deadline:
            raise OutsideError(f"the service still reports {seen.progress} for {work.group.name}: {seen.text}")
        await backoff.next()


async def _stopped(work: GroupContext, stopped: StoppedError) -> MemberState:
    """An abort leaves a group where it is, or takes it back where its service knows no other way to stop; a rollback
    brings it back.
    """
    if stopped.desired_state is DesiredState.ROLLBACK:
        return await _brought_back(work, "")
    why = stopped.message
    try:
        seen = await _cancelled(work)
    except GoldsmithError as error:
        return await work.end(Phase.FAILED, why, str(error))
    if seen.progress is Progress.DONE and (work.order.part is not Scope.CANARY or work.order.step.whole):
        return await work.end(Phase.NEW, f"{why}, when it was done")
    if seen.progress is Progress.ROLLED_BACK:
        return await work.end(Phase.OLD, f"{why}; it went back to {work.state.before}")
    said = f"{why} at {seen.percent} %: part of the group runs the new version"
    return await work.end(Phase.FAILED, said, said)


async def _brought_back(work: GroupContext, failure: str) -> MemberState:
    """The group goes back to what was pinned, by itself where the service has begun with that already."""
    if failure and not work.order.limits.auto_rollback:
        return await _left(work, failure)
    try:
        seen = (await _look(work, judged=False))[0]
        for _ in range(WAYS_BACK):
            if seen.progress is Progress.ROLLED_BACK:
                break
            if seen.progress is not Progress.ROLLING_BACK:
                await _ask_back(work)
            seen = await _over(work)
    except GoldsmithError as error:
        return await work.end(Phase.FAILED, f"it could not be rolled back: {error.message}", failure or str(error))
    if seen.progress is Progress.ROLLED_BACK:
        return await work.end(Phase.OLD, f"it went back to {work.state.before}", failure)
    said = f"it did not come back: the service reports {seen.progress}: {seen.text}"
    return await work.end(Phase.FAILED, said, failure or said)


async def _left(work: GroupContext, failure: str) -> MemberState:
    """Leave the group as it is, and let the service stop there: it must not go on to a version that is refused."""
    try:
        seen, _ = await _look(work, judged=False)
        if seen.progress is Progress.RUNNING:
            await _cancelled(work)
    except GoldsmithError as error:
        said = f"auto_rollback is off, and the service could not be stopped: {error.message}"
        return await work.end(Phase.FAILED, said, failure)
    return await work.end(Phase.FAILED, "auto_rollback is off: it was left as it is", failure)


async def _gone_back(work: GroupContext) -> MemberState:
    """Take back a group that was done or left in part, unless what it ran is gone or somebody has changed it since."""
    group = work.group
    try:
        way_back = work.world.groups.way_back
        why = await work.runner.look_when_free(
            f"find the way back of {group.name}", lambda: way_back(work.attempt, group, work.state.pin)
        )
    except GoldsmithError as error:
        return await work.end(Phase.FAILED, f"it was left as it is: {error.message}", str(error))
    if why:
        return await work.end(Phase.FAILED, f"it was left as it is: {why}", why)
    return await _brought_back(work, "")


async def _ask_back(work: GroupContext) -> None:
    """Ask the service to bring the group back; asked again, that goes on."""
    await work.runner.act(f"roll back {work.group.name}", lambda: _roll_back(work), PATIENT_TRIES)


def _roll_back(work: GroupContext) -> None:
    work.world.groups.roll_back(work.attempt, work.group, work.state.pin)
