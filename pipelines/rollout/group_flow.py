"""How a rollout rolls its groups: one after the other, the canary of each first where a person approves it. Pure."""

from __future__ import annotations

from dataclasses import replace

from hardening.foundation.errors import GoldsmithError, RefusedError
from pipelines.rollout.baking import bake_group
from pipelines.rollout.journal import DesiredState
from pipelines.rollout.orders import Scope
from pipelines.rollout.plan import GroupStep
from pipelines.rollout.rolling import Rolling
from pipelines.rollout.state import MemberState, Phase, Stage
from pipelines.rollout.steps import StoppedError


async def roll_groups(rolling: Rolling) -> None:
    """Let the service roll each group of the plan. Raises RefusedError with the first that fails, StoppedError."""
    plan = rolling.order.plan
    for number, step in enumerate(plan.groups, start=len(plan.waves) + 1):
        await rolling.leave_for_group()
        await rolling.save(Stage.ROLLING, wave=number)
        if failure := (await _roll(rolling, step)).failure:
            raise RefusedError(failure)


async def _roll(rolling: Rolling, step: GroupStep) -> MemberState:
    """Roll a group; where a person has to approve its canary, that first, and the rest afterwards.

    Raises StoppedError where the canary is to go back with everything else.
    """
    group, limits = step.group, rolling.order.limits
    if group.cannot_roll or limits.auto_promote or not limits.canary or not group.desired:
        return await rolling.roll_group(step, Scope.ALL)
    canary = await rolling.roll_group(step, Scope.CANARY)
    if canary.phase is not Phase.SERVING:
        return canary
    try:
        await bake_group(rolling, group.name)
        if step.whole:
            return await rolling.mark(replace(canary, phase=Phase.NEW, note=""))
        await rolling.leave_for_group()
    except StoppedError as stopped:
        return await _stopped(rolling, canary, stopped)
    except GoldsmithError as error:
        return await _refused(rolling, step, canary, error)
    await rolling.save(Stage.ROLLING)
    return await rolling.roll_group(step, Scope.REST, canary.pinned)


async def _stopped(rolling: Rolling, canary: MemberState, stopped: StoppedError) -> MemberState:
    """A rollback finds the canary where it is, and brings it back; an abort leaves it there, and says so."""
    if stopped.stance is DesiredState.ROLLBACK:
        raise stopped
    said = f"{stopped.message} after its canary: {canary.note}"
    return await rolling.mark(replace(canary, phase=Phase.FAILED, note=said, failure=said))


async def _refused(rolling: Rolling, step: GroupStep, canary: MemberState, error: GoldsmithError) -> MemberState:
    """The canary must not stay: it goes back, unless auto_rollback is off."""
    failure = str(error)
    if not rolling.order.limits.auto_rollback:
        said = f"auto_rollback is off: {canary.note}"
        return await rolling.mark(replace(canary, phase=Phase.FAILED, note=said, failure=failure))
    await rolling.save(Stage.RESTORING, error.message)
    done = await rolling.roll_group(step, Scope.BACK, canary.pinned)
    return await rolling.mark(replace(done, failure=done.failure or failure))
