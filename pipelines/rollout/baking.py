"""How a wave bakes: its new members are watched while the old ones are still there. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from hardening.foundation.durations import shown
from pipelines.fleet.members import Key
from pipelines.rollout.journal import DesiredState, Event, OperatorCommands
from pipelines.rollout.member_context import LEAST_READS, HealthLook, HealthStreak, look
from pipelines.rollout.rolling import Pairs, Rolling
from pipelines.rollout.state import RolloutStage
from pipelines.rollout.steps import LONGEST, PATIENT_TRIES, TRIES, Backoff, UnhealthyError

MOST_ROUNDS = 60


class IllError(UnhealthyError):
    """New members fell ill while they baked: `members`, by id, are all that were not well when that was seen."""

    def __init__(self, message: str, members: Sequence[str], *, evidence: str) -> None:
        super().__init__(message, evidence=evidence, hint="mend the image; the old one serves")
        self.members = tuple(members)


async def settle(rolling: Rolling) -> None:
    """Let every member that serves prove itself anew: the rollout has failed, and nobody knows how it was meanwhile.

    Raises IllError and StoppedError.
    """
    proof = rolling.order.limits.min_healthy_time
    await _watched(
        rolling, rolling.pairs(), timedelta(), HealthStreak(proof, LEAST_READS, proof), asks=False, judged=False
    )


async def bake(rolling: Rolling, span: timedelta, *, asks: bool) -> None:
    """Watch the wave's new members for `span`, and until a person approves where it `asks`; one look at least.

    Also those whose old one has vanished: they are new, and prove the version as well as any.

    An approval ends it early, a pause lets no time pass. Raises IllError, StoppedError, AlarmError and RefusedError.
    """
    proved_before = HealthStreak(timedelta(), 1, rolling.order.limits.min_healthy_time)
    await _watched(rolling, rolling.new(), span, proved_before, asks=asks, judged=True)


async def bake_group(rolling: Rolling, group: str) -> None:
    """Wait for the bake of a group's canary, whose health the service watches, and until a person approves it.

    Raises StoppedError, AlarmError and RefusedError.
    """
    canary = _Bake(rolling.order.limits.bake_time, asks=True, judged=True, of=f"the canary of {group}")
    await _until_over(rolling, canary, {}, HealthStreak(timedelta(), 1, timedelta()))


@dataclass(frozen=True)
class _Bake:
    """What bakes and for how long; whether a person has to approve it, and the replacement is judged meanwhile."""

    span: timedelta
    asks: bool
    judged: bool
    of: str = ""


async def _watched(
    rolling: Rolling, pairs: Pairs, span: timedelta, row_of_each: HealthStreak, *, asks: bool, judged: bool
) -> None:
    if keys := {member.id: order.key(member.old) for order, member in pairs}:
        await _until_over(rolling, _Bake(span, asks, judged), keys, row_of_each)


async def _until_over(rolling: Rolling, what: _Bake, keys: Mapping[str, Key], row_of_each: HealthStreak) -> None:
    span, asks, tries = what.span, what.asks, TRIES if keys else PATIENT_TRIES
    backoff = Backoff(rolling.runner.engine, min(max(span, row_of_each.span) / MOST_ROUNDS, LONGEST))
    rows = {member: replace(row_of_each, texts=[]) for member in keys}
    watch = partial(_watch, rolling, keys, what.judged)
    before: int | None = None
    while True:
        seen = await rolling.runner.see(_BakeLook, "watch the new members", watch, tries)
        desired_state, approvals = seen.orders.desired_state, seen.orders.approvals
        before = approvals if before is None else before
        for member, read in seen.reads.items():
            rows[member].add(read)
        unproved = [member for member, row in rows.items() if not row.proved]
        good = not unproved
        over = backoff.slept >= span
        if good and desired_state is DesiredState.GO and (approvals > before or (over and not asks)):
            return
        late = not good and backoff.slept - span >= rolling.order.limits.healthy_deadline
        if late or any(row.bad >= LEAST_READS for row in rows.values()):
            ill = [member for member in unproved if late or not rows[member].count]
            raise _ill(rolling, {member: rows[member] for member in ill}, late=late)
        await _show(rolling, desired_state, what, asks=over and asks)
        if not await rolling.runner.obey(desired_state, backoff):
            passed = await backoff.next(counts=not (over and asks and good))
            for row in rows.values():
                row.slept(passed)


@dataclass(frozen=True)
class _BakeLook:
    """What people have said, and one look at each new member, by its id."""

    orders: OperatorCommands
    reads: dict[str, HealthLook]


def _watch(rolling: Rolling, keys: Mapping[str, Key], judged: bool) -> _BakeLook:
    """What people say, and one look at each of the new members; for use inside a step."""
    if judged:
        rolling.world.refuse(rolling.order.plan.target, rolling.order.limits)
    orders = rolling.world.journal.orders(rolling.order.rollout)
    fleet, together = rolling.world.fleet, rolling.world.together
    reads = together([partial(look, partial(fleet.read, key)) for key in keys.values()])
    return _BakeLook(orders, dict(zip(keys, reads, strict=True)))


def _ill(rolling: Rolling, rows: dict[str, HealthStreak], *, late: bool) -> IllError:
    names = ", ".join(rolling.members[member].name for member in rows)
    seen = "\n".join(f"health: {text}" for row in rows.values() for text in row.texts)
    deadline = shown(rolling.order.limits.healthy_deadline)
    what = f"was not healthy within {deadline} after its bake" if late else "fell ill while it baked"
    return IllError(f"{names}: the new one {what}", tuple(rows), evidence=seen)


async def _show(rolling: Rolling, desired_state: DesiredState, what: _Bake, *, asks: bool) -> None:
    """Let people see what the rollout waits for."""
    if desired_state is DesiredState.PAUSE:
        stage, note, event = RolloutStage.PAUSED, "", Event.PAUSED
    elif asks:
        approve = f"./goldsmith roll.approve {rolling.order.plan.fleet}"
        stage, note = RolloutStage.APPROVAL, f"{what.of or 'the canary'} has baked; {approve} lets it go on"
        event = Event.APPROVAL
    else:
        stage, note, event = RolloutStage.BAKING, f"baking {what.of}".rstrip() + f" for {shown(what.span)}", None
    if rolling.state.stage is not stage:
        await rolling.save(stage, note, event)
