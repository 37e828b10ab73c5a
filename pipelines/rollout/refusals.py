"""What forbids a rollout as a whole, and why one member of it is left alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase

from hardening.foundation.durations import shown
from hardening.foundation.errors import RefusedError
from pipelines.fleet.members import ReplacementImage, repository
from pipelines.fleet.model import Fleet, Method
from pipelines.fleet.violations import Judged, named


def refuse_target(fleet: Fleet, target: ReplacementImage, now: datetime) -> None:
    """Refuse a replacement that would be a violation itself, today or soon."""
    golden, limits = target.golden, fleet.limits
    if golden is None:
        raise RefusedError(
            f"the origin of the replacement {target.reference} is unknown",
            hint="publish it, or build it on a golden image: unknown must not replace unknown",
        )
    if golden.revoked_at:
        raise RefusedError(
            f"the replacement {named(golden)} is revoked: {golden.revoked_reason}",
            hint=f"publish and promote a good one: {_published(golden.name)}",
        )
    if target.refused_because:
        raise RefusedError(
            f"the replacement {named(golden)} is refused by the present policy",
            evidence=target.refused_because,
            hint=f"publish and promote a good one: {_published(golden.name)}",
        )
    if golden.expires_at - now < limits.min_remaining:
        raise RefusedError(
            f"the replacement {named(golden)} expires on {golden.expires_at:%Y-%m-%d %H:%M} UTC, within min_remaining "
            f"{shown(limits.min_remaining)}",
            hint=f"give it new dates, and promote it: {_published(golden.name)}",
        )
    if now - golden.published_at < limits.min_soak:
        raise RefusedError(
            f"the replacement {named(golden)} is younger than min_soak {shown(limits.min_soak)}",
            hint=f"it may roll from {golden.published_at + limits.min_soak:%Y-%m-%d %H:%M} UTC",
        )


def _published(name: str) -> str:
    return f"./goldsmith image.publish {name}, then ./goldsmith image.promote {name}"


def refuse_implausible(fleet: Fleet, judged: Sequence[Judged], adopt: Sequence[str]) -> None:
    """Refuse an inventory of which so much violates that the inventory itself is in doubt."""
    for rule, most in (
        ("expired", fleet.limits.max_violating_fraction.expired),
        ("unknown", fleet.limits.max_violating_fraction.unknown),
    ):
        adopted = adopt if rule == "unknown" else ()
        broken = [one for one in judged if rule in one.rules and not _adopted(one, adopted)]
        if len(broken) > most * len(judged):
            raise RefusedError(
                f"{len(broken)} of {len(judged)} members are {rule}, more than max_violating_fraction.{rule} {most:g}",
                hint="take members over on purpose: --adopt MEMBER, a glob, or all"
                if rule == "unknown"
                else "is the inventory right?",
                evidence="\n".join(one.member.name for one in broken[:20]),
            )


def refuse_nobody(adopt: Sequence[str], names: Sequence[str]) -> None:
    """Refuse to take over members that are not there: a slip would leave those that were meant as they are."""
    for glob in adopt:
        if glob != "all" and not any(fnmatchcase(name, glob) for name in names):
            raise RefusedError(
                f"--adopt {glob}: no member matches", hint="./goldsmith fleet.scan FLEET lists who is there"
            )


def _adopted(one: Judged, adopt: Sequence[str]) -> bool:
    return any(glob == "all" or fnmatchcase(one.member.name, glob) for glob in adopt)


def why_not(fleet: Fleet, one: Judged, target: ReplacementImage, now: datetime, adopt: Sequence[str]) -> str:
    """Why a violating member is left alone; empty when it is to be replaced."""
    member, deadline = one.member, one.deadline
    if member.cannot_roll:
        return member.cannot_roll
    if fleet.replacement.tag:
        if target.digest in member.digests:
            return f"{target.reference} has no newer digest yet: its owner rebuilds it on the newer base"
        if not _adopted(one, adopt) and repository(member.image) != repository(target.reference):
            return f"it runs another image than {repository(target.reference)}; --adopt takes it over on purpose"
    elif reason := _another_golden(one, target, adopt):
        return reason
    if member.protected_until and now < member.protected_until:
        overdue = deadline is not None and now >= deadline + fleet.limits.termination_grace
        if not overdue:
            return f"it asks not to be disrupted until {member.protected_until:%Y-%m-%d %H:%M} UTC"
    return _not_beside(fleet, one)


def _not_beside(fleet: Fleet, one: Judged) -> str:
    """Why a member cannot stand beside its replacement, in a fleet that surges."""
    if fleet.limits.method is not Method.SURGE or not one.member.forced_in_place:
        return ""
    return f"method surge needs old and new side by side, and {', '.join(one.member.forced_in_place)}"


def _another_golden(one: Judged, target: ReplacementImage, adopt: Sequence[str]) -> str:
    """Why a golden image must not take the member's place."""
    golden, origin = target.golden, one.origin
    if one.on_base and origin.base:
        return (
            f"an application image on {named(origin.base)}: its owner rebuilds it; give the fleet replacement.tag "
            "to roll it when its own tag has a newer digest"
        )
    if origin.release and golden and origin.release.content == golden.content:
        return "the replacement has the same content: rolling would change nothing"
    if origin.release and golden and origin.release.name != golden.name and not _adopted(one, adopt):
        return f"it runs {origin.release.name}, not {golden.name}; --adopt takes it over on purpose"
    return ""


def refuse_surge(fleet: Fleet, violating: Sequence[Judged], fates: Mapping[str, str]) -> None:
    """Refuse a surge where all that is left to roll are members that hold what cannot exist twice, naming it.

    `fates`: why each one is left alone, by id; empty for one that is rolled.
    """
    forced = [one for one in violating if (why := _not_beside(fleet, one)) and fates[one.member.id] == why]
    if forced and all(fates.values()):
        raise RefusedError(
            "method surge needs old and new side by side, and this cannot exist twice",
            evidence="\n".join(f"{one.member.name}: {what}" for one in forced for what in one.member.forced_in_place),
            hint='set limits.method = "in_place" and limits.max_unavailable to at least 1 (a short outage of each)',
        )
