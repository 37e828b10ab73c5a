"""How a group's canary bakes and is approved: under the eyes of alarms and people, with nothing being rolled. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hardening.foundation.durations import shown
from pipelines.durable.port import Json
from pipelines.rollouts.acting import LONGEST, PATIENT_TRIES, Hand, Turns
from pipelines.rollouts.delegated import refuse_turn
from pipelines.rollouts.journal import Event, Stance
from pipelines.rollouts.orders import GroupOrder, Judge
from pipelines.rollouts.state import Stage

MOST_TURNS = 60
Save = Callable[[Stage, str, Event | None], Awaitable[None]]


async def proved(hand: Hand, judge: Judge, order: GroupOrder, save: Save) -> None:
    """Wait for `bake_time`, and until a person approves, which ends the bake early; a pause lets no time pass.

    Raises StoppedError, and RefusedError where an alarm fires or the replacement must not run any more.
    """
    span, name = order.limits.bake_time, order.group.name
    turns = Turns(hand.engine, min(span / MOST_TURNS, LONGEST))
    stage: Stage | None = None
    before: int | None = None

    def watch() -> Json:
        refuse_turn(judge, order)
        orders = hand.journal.orders(hand.rollout)
        return [orders.stance, orders.approvals]

    while True:
        said, approvals = await hand.look(f"watch the canary of {name}", watch, PATIENT_TRIES)
        stance, before = Stance(said), approvals if before is None else before
        if stance is Stance.GO and approvals > before:
            return
        over = turns.slept >= span
        shows = _shown(order, stance, over=over)
        if shows[0] is not stage:
            stage = shows[0]
            await save(*shows)
        if not await hand.obey(stance, turns):
            await turns.next(counts=not over)


def _shown(order: GroupOrder, stance: Stance, *, over: bool) -> tuple[Stage, str, Event | None]:
    """What people see that the rollout waits for."""
    name, span = order.group.name, order.limits.bake_time
    if stance is Stance.PAUSE:
        return Stage.PAUSED, "paused", Event.PAUSED
    if over:
        approve = f"./goldsmith roll.approve {order.fleet}"
        return Stage.APPROVAL, f"the canary of {name} has baked; {approve} lets it go on", Event.APPROVAL
    return Stage.BAKING, f"the canary of {name} bakes for {shown(span)}", None
