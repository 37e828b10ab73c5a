"""Who serves when a rollout begins, and who is missing when it ends: a smaller fleet is no success. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hardening.foundation.errors import GoldsmithError
from pipelines.rollout.member_context import LEAST_READS
from pipelines.rollout.rolling import Rolling
from pipelines.rollout.state import Cause, MemberState, Phase, Stage
from pipelines.rollout.steps import HELD, Backoff


@dataclass(frozen=True)
class Census:
    """The members of a fleet by id: the names of those that serve, and all that are there."""

    serving: dict[str, str]
    all: tuple[str, ...]


async def count(rolling: Rolling) -> Census:
    """Who is there, and who serves. Raises OutsideError."""

    def look() -> Census:
        members = rolling.world.fleet.describe()
        return Census({one.id: one.name for one in members if one.healthy}, tuple(one.id for one in members))

    return await rolling.hand.see(Census, "count who serves", look)


async def count_at_first(rolling: Rolling) -> Census | None:
    """The same before anything is done; None where the fleet does not answer, which the rollout meets soon enough, and
    where a service rolls all of it, which looks after that itself.
    """
    if not rolling.order.plan.waves:
        return None
    try:
        return await count(rolling)
    except GoldsmithError:
        return None


async def refuse_fewer(rolling: Rolling, before: Census | None) -> None:
    """Fail a rollout, which has not failed yet, where fewer serve than at its begin and it has not said of whom.

    One look is luck here, too: whoever is missing is looked for again.
    """
    if before is None or rolling.state.failure:
        return
    turns, why = Backoff(rolling.hand.engine, HELD), ""
    for _ in range(LEAST_READS):
        try:
            why = fewer(before, await count(rolling), rolling.members)
        except GoldsmithError as error:
            why = f"nobody knows who serves at its end: {error}"
        if not why:
            return
        await turns.next()
    await rolling.save(Stage.RESTORING, why, failure=why)


def fewer(before: Census, after: Census, members: Mapping[str, MemberState]) -> str:
    """What is to be said where fewer serve than before; empty where as many do.

    A member that was left alone because it was gone has been told of; one that is there for the first time counts for
    one that went.
    """
    said = {one.id for one in members.values() if one.phase is Phase.SKIPPED and one.cause is Cause.GONE}
    missing = [name for member, name in before.serving.items() if member not in after.serving and member not in said]
    joined = [member for member in after.serving if member not in before.all]
    if len(missing) <= len(joined):
        return ""
    began, ends = len(before.serving), len(after.serving)
    return f"it began with {began} serving members and ends with {ends}; these serve no longer: {', '.join(missing)}"
