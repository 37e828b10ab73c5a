"""Whether a night may move `stable`: the candidate has soaked, or cannot wait, and is healthy where a fleet runs it.

Where it may not, to which earlier candidate: each one soaks by itself, whatever is published meanwhile. A fleet without
members holds nothing back, unless it could not be rolled to the release; that no canary ran is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from hardening.evaluation import CLOCK_SKEW
from hardening.foundation.durations import shown
from hardening.foundation.errors import OutsideError, RefusedError
from hardening.running import UNREAD
from images.artifact import Release
from images.context import Context
from images.release.soak import candidate_since, ripe_earlier, soaked, urgent_fixes
from images.release.store import ReleaseStore
from images.release.stores import store_of
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.model import Fleet
from pipelines.fleet.violations import Judged
from pipelines.rollout.rollout_store import history
from pipelines.rollout.session import check, fleet_session
from pipelines.rollout.state import Phase


@dataclass(frozen=True)
class PromotionDecision:
    """Whether the candidate waits; `why` it does, or what is to be said where it does not: why it has not to soak, and
    that no canary ran.
    """

    waits: bool
    why: str = ""


def promotion(context: Context, name: str) -> PromotionDecision:
    """Decide over `stable` of one image.

    Raises RefusedError where a member of a fleet runs the candidate and is unhealthy, or a clock dated what is to be
    compared to a day to come, and OutsideError where a fleet that should run it cannot be read.
    """
    to = store_of(context, name)
    candidate = to.meant(f"{name}:candidate")
    fixes = soak(context, to, name, candidate, to.pointed(candidate.repository, "stable"))
    if isinstance(fixes, PromotionDecision):
        return fixes
    empty = list[str]()
    for fleet, judged in _canaries(context, name):
        if fixes or not judged:
            _refuse_failed(context, name, fleet, candidate)
        if not judged:
            empty.append(fleet)
        elif not _healthy(name, fleet, judged, candidate) and not fixes:
            return PromotionDecision(waits=True, why=f"it has soaked, but no member of the fleet {fleet} runs it yet")
    told = [f"at once, for it fixes {', '.join(fixes)}"] if fixes else []
    return PromotionDecision(waits=False, why="; ".join([*told, *_no_canary(empty)]))


def earlier(context: Context, name: str) -> tuple[Release, ...]:
    """The earlier candidates that `stable` of one image may move to, the newest first."""
    to = store_of(context, name)
    candidate = to.meant(f"{name}:candidate")
    return earlier_candidates(context, to, candidate, to.pointed(candidate.repository, "stable"))


def earlier_text(context: Context, release: Release) -> str:
    """Say that `stable` moves to an earlier candidate, and where no canary told how that runs."""
    moves = f"to the release of {_moment(release.published_at)}, which has soaked although a newer one is candidate"
    empty = [one.name for one in _candidate_fleets(context, release.name) if _is_empty(context, one.name)]
    return "; ".join([moves, *_no_canary(empty)])


def _no_canary(fleets: Sequence[str]) -> list[str]:
    return [f"no canary ran, for no member of the fleet {', '.join(fleets)} is there"] if fleets else []


def soak(
    context: Context, to: ReleaseStore, name: str, candidate: Release, stable: Sequence[str]
) -> PromotionDecision | tuple[str, ...]:
    """Decide by the candidate's age and by what `stable` names, as far as these tell; else the fixes for which it need
    not have soaked, if any.
    """
    if candidate.content in stable:
        return PromotionDecision(waits=False)  # new dates over the same content, or nothing new at all
    time, since = context.definitions[name].definition.lifecycle.soak, candidate_since(to, candidate)
    if soaked(since, time, context.now):
        return ()
    present = to.find(candidate.repository, stable[0]) if stable else None
    if present and (fixes := urgent_fixes(context, present, candidate)):
        return fixes
    _refuse_to_come(context, name, "candidate", since)
    if present:
        _refuse_to_come(context, name, "stable", present.published_at)
    why = f"candidate since {_moment(since)}; stable moves after {shown(time)}, on {_moment(since + time)}"
    return PromotionDecision(waits=True, why=f"{why}, or now: ./goldsmith image.promote {name}")


def _refuse_to_come(context: Context, name: str, channel: str, at: datetime) -> None:
    """Raise RefusedError where the date of a channel lies ahead: it would soak, or count as newer, until that day."""
    if at > context.now + CLOCK_SKEW:  # an interrupted night has the moment at which it began
        raise RefusedError(
            f"stable of {name} stays: {channel} is dated {_moment(at)}, which is in the future",
            hint="a clock was wrong then, or is now; where the image is good, ./goldsmith image.promote "
            f"{name} moves stable to candidate now",
        )


def earlier_candidates(
    context: Context, to: ReleaseStore, candidate: Release, stable: Sequence[str]
) -> tuple[Release, ...]:
    """What `stable` may move to while it may not move to the candidate, the newest first.

    By age alone, and where a fleet runs the candidate, by how it ran there. The ledger tells both.
    """
    soak = context.definitions[candidate.name].definition.lifecycle.soak
    found = ripe_earlier(to, candidate, stable, soak)
    fleets = _candidate_fleets(context, candidate.name) if found else []
    return tuple(one for one in found if all(_ran_well(context, fleet.name, one) for fleet in fleets))


def _ran_well(context: Context, fleet: str, release: Release) -> bool:
    """Whether the newest rollout of a fleet to this content, whatever its dates, replaced members and ended well.

    A fleet of which the last check found no member tells no more than that a rollout failed, as with the present
    candidate.
    """
    same = {one.digest for one in context.ledger.releases_of_content(release.content)}
    view = next((one for one in history(context, fleet) if one.replacement.rpartition("@")[2] in same), None)
    if _is_empty(context, fleet):
        return not (view and view.state and view.state.failure)
    if view is None or view.back or view.state is None or not view.state.ended_at or view.state.failure:
        return False
    return any(member.phase is Phase.NEW for member in view.members)


def _is_empty(context: Context, fleet: str) -> bool:
    """Whether the last check of a fleet found no member; one that was never checked is not known to be empty."""
    check = context.ledger.fleet_checks().get(fleet)
    return bool(check and not check.members)


def _candidate_fleets(context: Context, name: str) -> list[Fleet]:
    """The fleets whose members become the candidate."""
    fleets = load_fleets(context.settings.roots).values()
    return [one for one in fleets if (one.replacement.definition, one.replacement.channel) == (name, "candidate")]


def _canaries(context: Context, name: str) -> Iterator[tuple[str, tuple[Judged, ...]]]:
    """The same, with their judged members."""
    for fleet in _candidate_fleets(context, name):
        with fleet_session(fleet.name, context, now=lambda: context.now) as at:
            judged = check(at)
            if unread := [one.member.name for one in judged if UNREAD in one.rules]:
                raise OutsideError(f"{', '.join(unread[:3])} of the fleet {fleet.name} could not be read")
            yield fleet.name, judged


def _refuse_failed(context: Context, name: str, fleet: str, candidate: Release) -> None:
    """Raise RefusedError where the newest rollout of a fleet to the candidate failed: then no member runs it."""
    view = next(iter(history(context, fleet)), None)
    if view and view.state and view.state.failure and view.replacement.endswith(f"@{candidate.digest}"):
        raise RefusedError(
            f"stable of {name} stays: the fleet {fleet} could not be rolled to the candidate",
            evidence=view.state.failure, hint=f"./goldsmith roll.status {fleet} says more",
        )  # fmt: skip


def _healthy(name: str, fleet: str, judged: Sequence[Judged], candidate: Release) -> bool:
    """Whether members run the candidate, all of them well. Raises RefusedError where one is not."""
    running = [one for one in judged if one.origin.release and one.origin.release.content == candidate.content]
    if ill := [one.member.name for one in running if not one.member.healthy]:
        raise RefusedError(
            f"stable of {name} stays: {len(ill)} of {len(running)} member(s) of the fleet {fleet} that run the "
            f"candidate are unhealthy: {', '.join(ill[:3])}",
            hint=f"./goldsmith fleet.check {fleet} says more; ./goldsmith image.promote {name} moves it anyway",
        )
    return bool(running)


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
