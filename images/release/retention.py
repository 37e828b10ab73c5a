"""What becomes of a release, or of one image of it, as its end comes and goes. Pure.

One decision for all stores, which differ in what they tell: which action's turn it is, how long after the end it waits,
and who needs the release. Whoever does holds it back, and is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Generic, TypeVar

from images.artifact import Release
from images.release.lifecycle import Status, status

Subject = TypeVar("Subject")


class RetirementAction(StrEnum):
    """What is done to a release, or to one image of it."""

    KEEP = "keep"
    WARN = "warn"
    DEPRECATE = "deprecate"
    DISABLE = "disable"
    REMOVE = "remove"


KEEP, WARN, DEPRECATE, DISABLE, REMOVE = RetirementAction
DONE = {DEPRECATE: "deprecated", DISABLE: "disabled", REMOVE: "removed"}


@dataclass(frozen=True)
class NextAction:
    """The action whose turn it is: `grace` after the release's end, or after it was `disabled_at`.

    Whoever needs the release holds it back, unless it is done `anyway`.
    """

    action: RetirementAction
    grace: timedelta = timedelta()
    disabled_at: datetime | None = None
    anyway: bool = False


@dataclass(frozen=True)
class RetirementDecision(Generic[Subject]):
    """What becomes of a release or an image, and why. `held` where an action is due, and something holds it back."""

    subject: Subject
    action: RetirementAction
    why: str
    held: bool = False


def decide(
    subject: Subject, release: Release | None, following: NextAction, needed: str, now: datetime, *,
    successor: Release | None = None, launched: str = "",
) -> RetirementDecision[Subject]:  # fmt: skip
    """The action that is due for a subject, as a `release` tells when it ends.

    `needed` says who needs it, and `launched` who perhaps does; `successor` is the release that took its place.
    """
    if release is None:
        return RetirementDecision(subject, KEEP, "its tags do not tell when it ends")
    end, because = _end(release, successor, now)
    if following.disabled_at:
        end, because = following.disabled_at, f"disabled on {following.disabled_at:%Y-%m-%d}"
    due, and_needed = end + following.grace, f"; {needed}" if needed else ""
    if now < end:
        action = WARN if now >= release.warn_at else KEEP
        return RetirementDecision(subject, action, f"expires on {end:%Y-%m-%d}{and_needed}")
    done = DONE[following.action]
    if now < due:
        return RetirementDecision(subject, KEEP, f"{because}; to be {done} from {due:%Y-%m-%d}{and_needed}")
    if (holder := needed or launched) and not following.anyway:
        return RetirementDecision(subject, KEEP, f"{because}; not {done}: {holder}", held=True)
    return RetirementDecision(subject, following.action, f"{because}{and_needed}")


def plan(
    releases: Sequence[Release],
    running: Mapping[str, Sequence[str]],
    channels: Mapping[str, Sequence[str]],
    now: datetime,
) -> tuple[RetirementDecision[Release], ...]:
    """Decide over the `releases` of a registry, of all definitions at once: a child elsewhere holds its base here.

    `running` maps a digest (release or content) to the members that run it, `channels` a release's digest to the tags
    that point to it. What is over is removed at once, superseded releases too, unless something stands on it.
    """

    def decided(release: Release, needed: str) -> RetirementDecision[Release]:
        successor = _successor(release, releases, now)
        return decide(release, release, NextAction(REMOVE), needed, now, successor=successor)

    decisions = {release: decided(release, _needed(release, running, channels)) for release in releases}
    while bases := {r: child for r in releases if decisions[r].action is REMOVE and (child := _child(r, decisions))}:
        decisions |= {r: decided(r, f"{child.name} {child.digest[:19]} is built on it") for r, child in bases.items()}
    return tuple(decisions[release] for release in releases)


def _end(release: Release, successor: Release | None, now: datetime) -> tuple[datetime, str]:
    """When a release is over or was, and what is said of it then."""
    if release.revoked_at:
        return release.revoked_at, f"revoked on {release.revoked_at:%Y-%m-%d}: {release.revoked_reason}"
    if successor and now < release.expires_at:
        return successor.published_at, f"superseded by {successor.digest[:19]}"
    return release.expires_at, f"expired on {release.expires_at:%Y-%m-%d}"


def _needed(release: Release, running: Mapping[str, Sequence[str]], channels: Mapping[str, Sequence[str]]) -> str:
    """Who runs a release or points to it; empty where nobody does."""
    if members := [*running.get(release.digest, ()), *running.get(release.content, ())]:
        return f"{members[0]} runs it" + (f" and {len(members) - 1} more" if members[1:] else "")
    if tags := channels.get(release.digest, ()):
        return f"{' and '.join(sorted(tags))} {'point' if tags[1:] else 'points'} to it"
    return ""


def _successor(release: Release, releases: Sequence[Release], now: datetime) -> Release | None:
    """A newer release of the same repository that stands."""
    newer = (r for r in releases if r.repository == release.repository and r.published_at > release.published_at)
    return next((r for r in newer if status(r, now) in {Status.CURRENT, Status.WARN}), None)


def _child(base: Release, decisions: Mapping[Release, RetirementDecision[Release]]) -> Release | None:
    """A release that stays and is built on `base`."""
    inside = {base.content, base.digest}
    kept = (r for r, found in decisions.items() if found.action is not REMOVE)
    children = (r for r in kept if r.base_digest and r.base_digest in inside)
    return min(children, key=lambda r: (r.name, r.digest), default=None)
