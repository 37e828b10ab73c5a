"""How a wave bakes: its new members are watched while the old ones are still there. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from hardening.foundation.durations import shown
from pipelines.durable.port import Json
from pipelines.fleet.members import Key
from pipelines.rollouts.acting import LONGEST, Turns, UnhealthyError
from pipelines.rollouts.journal import Event, Stance
from pipelines.rollouts.rolling import Rolling
from pipelines.rollouts.state import Stage
from pipelines.rollouts.work import LEAST_READS, look

MOST_TURNS = 60


class IllError(UnhealthyError):
    """New members fell ill while they baked: `members` by id."""

    def __init__(self, message: str, members: Sequence[str], *, evidence: str) -> None:
        super().__init__(message, evidence=evidence, hint="mend the image; the old one serves")
        self.members = tuple(members)


async def bake(rolling: Rolling, span: timedelta, *, asks: bool) -> None:
    """Watch the members that serve for `span`, and until a person approves where it `asks`; one look at least.

    An approval ends it early, a pause lets no time pass. Raises IllError, StoppedError, AlarmError and RefusedError.
    """
    keys = {member.id: order.key(member.old) for order, member in rolling.pairs()}
    if not keys:
        return
    turns = Turns(rolling.hand.engine, min(span / MOST_TURNS, LONGEST))
    ill = dict.fromkeys(keys, 0)
    before: int | None = None
    while True:
        stance, approvals, reads = await rolling.hand.look("watch the new members", lambda: _watch(rolling, keys))
        before = approvals if before is None else before
        good = _count(ill, reads)
        over = turns.slept >= span
        if good and stance == Stance.GO and (approvals > before or (over and not asks)):
            return
        _refuse_ill(rolling, ill, reads)
        _refuse_unread(rolling, turns.slept - span, good=good)
        await _show(rolling, Stance(stance), span, asks=over and asks)
        if not await rolling.hand.obey(Stance(stance), turns):
            await turns.next(counts=not (over and asks and good))


def _watch(rolling: Rolling, keys: dict[str, Key]) -> Json:
    """What people say, and one look at each of the new members; for use inside a step."""
    rolling.refuse()
    orders = rolling.world.journal.orders(rolling.order.rollout)
    fleet = rolling.world.fleet
    return [orders.stance, orders.approvals, {member: look(partial(fleet.read, key)) for member, key in keys.items()}]


def _count(ill: dict[str, int], reads: dict[str, tuple[bool | None, str]]) -> bool:
    """Whether all were good. Counts each member's bad reads in a row; one that could not be made counts neither way."""
    for member, (good, _) in reads.items():
        if good is not None:
            ill[member] = 0 if good else ill[member] + 1
    return all(good for good, _ in reads.values())


def _refuse_ill(rolling: Rolling, ill: dict[str, int], reads: dict[str, tuple[bool | None, str]]) -> None:
    fallen = [member for member, count in ill.items() if count >= LEAST_READS]
    if fallen:
        names = ", ".join(rolling.members[member].name for member in fallen)
        seen = "\n".join(f"health: {reads[member][1]}" for member in fallen)
        raise IllError(f"{names}: the new one fell ill while it baked", fallen, evidence=seen)


def _refuse_unread(rolling: Rolling, late: timedelta, *, good: bool) -> None:
    deadline = rolling.order.limits.healthy_deadline
    if not good and late >= deadline:
        raise UnhealthyError(f"the new members were not all good for {shown(deadline)} after their bake")


async def _show(rolling: Rolling, stance: Stance, span: timedelta, *, asks: bool) -> None:
    """Let people see what the rollout waits for."""
    if stance is Stance.PAUSE:
        stage, note, event = Stage.PAUSED, "paused", Event.PAUSED
    elif asks:
        stage, note, event = Stage.APPROVAL, "the canary has baked; approve it with roll.approve", Event.APPROVAL
    else:
        stage, note, event = Stage.BAKING, f"baking for {shown(span)}", None
    if rolling.state.stage is not stage:
        await rolling.save(stage, note, event)
