"""What happens to a release, or to one of its images, when its end approaches and passes. Pure.

One decision for all stores, which differ in what they tell: which action's turn it is, how long after the end it waits,
and who needs the release. Whoever does holds it back, and is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Generic, TypeVar

from images.artifact import Release
from images.catalog import ANY, NO_RULE, KeepRule
from images.release.lifecycle import Status, newest_first, status

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
    """The action that comes next: `grace` after the release's end, or after it was `disabled_at`.

    Whoever needs the release holds it back, unless it is done `anyway`.
    """

    action: RetirementAction
    grace: timedelta = timedelta()
    disabled_at: datetime | None = None
    anyway: bool = False


@dataclass(frozen=True)
class RetirementDecision(Generic[Subject]):
    """What happens to a release or an image, and why. `held`: an action is due, but something prevents it."""

    subject: Subject
    action: RetirementAction
    why: str
    held: bool = False


def decide(
    subject: Subject, release: Release, following: NextAction, needed: str, now: datetime, *,
    newer: Sequence[Release] = (), held: str = "",
) -> RetirementDecision[Subject]:  # fmt: skip
    """The action that is due for a subject, as a `release` tells when it ends.

    `needed` says who needs it, and `held` what else holds it back once an action is due; `newer` are the releases that
    may have taken its place.
    """
    end, because = _end(release, newer, now)
    if following.disabled_at:
        end, because = following.disabled_at, f"disabled on {following.disabled_at:%Y-%m-%d}"
    due, and_needed = end + following.grace, f"; {needed}" if needed else ""
    if now < end:
        action = WARN if now >= release.warn_at else KEEP
        return RetirementDecision(subject, action, f"expires on {end:%Y-%m-%d}{and_needed}")
    done = DONE[following.action]
    if now < due:
        return RetirementDecision(subject, KEEP, f"{because}; to be {done} from {due:%Y-%m-%d}{and_needed}")
    if (holder := needed or held) and not following.anyway:
        return RetirementDecision(subject, KEEP, f"{because}; not {done}: {holder}", held=True)
    return RetirementDecision(subject, following.action, f"{because}{and_needed}")


def plan(
    releases: Sequence[Release],
    running: Mapping[str, Sequence[str]],
    channels: Mapping[str, Sequence[str]],
    now: datetime,
    rules: Mapping[str, KeepRule] | None = None,
) -> tuple[RetirementDecision[Release], ...]:
    """Decide over the `releases` of a registry, of all definitions at once: a child elsewhere holds its base here.

    `running` maps a digest (release or content) to the members that run it, `channels` a release's digest to the tags
    that point to it, `rules` a definition to what is kept of it beyond that. What is over is removed, superseded
    releases too, unless something stands on it.
    """
    rules = rules or {}
    kept, newer = kept_by_rule(releases, rules), _newer(releases)

    def decided(release: Release, needed: str) -> RetirementDecision[Release]:
        following = NextAction(REMOVE, grace_of(release, rule_of(release, rules)))
        return decide(release, release, following, needed, now, newer=newer[release], held=kept.get(release, ""))

    decisions = {release: decided(release, _needed(release, running, channels)) for release in releases}
    while bases := {r: child for r in releases if decisions[r].action is REMOVE and (child := _child(r, decisions))}:
        decisions |= {r: decided(r, f"{child.name} {child.digest[:19]} is built on it") for r, child in bases.items()}
    return tuple(decisions[release] for release in releases)


def rule_of(release: Release, rules: Mapping[str, KeepRule]) -> KeepRule:
    """What is kept of a release's definition; of one that is gone, what is kept of ANY."""
    return rules.get(release.name, rules.get(ANY, NO_RULE))


def grace_of(release: Release, rule: KeepRule) -> timedelta:
    """How long a release is kept once it is over."""
    return timedelta() if release.revoked_at else rule.for_


def kept_by_rule(releases: Iterable[Release], rules: Mapping[str, KeepRule]) -> dict[Release, str]:
    """The releases that stand for the last contents of their repositories, each with how that is told."""
    kept, contents = dict[Release, str](), dict[str, set[str]]()
    for release in newest_first(releases):
        rule, seen = rule_of(release, rules), contents.setdefault(release.repository, set())
        if release.revoked_at or release.content in seen or len(seen) >= rule.last:
            continue
        seen.add(release.content)
        kept[release] = "the last one is kept" if rule.last == 1 else f"the last {rule.last} are kept"
    return kept


def _newer(releases: Iterable[Release]) -> dict[Release, list[Release]]:
    """Each release with the newer ones of its repository, the newest first."""
    found, repositories = dict[Release, list[Release]](), dict[str, list[Release]]()
    for release in newest_first(releases):
        above = repositories.setdefault(release.repository, [])
        found[release] = [one for one in above if one.published_at > release.published_at]
        above.append(release)
    return found


def _end(release: Release, newer: Sequence[Release], now: datetime) -> tuple[datetime, str]:
    """When a release is over or was, and what is said of it then: the first of its revocation, successor and expiry.

    While it has not expired, only what stands itself takes its place.
    """
    if release.revoked_at:
        return release.revoked_at, f"revoked on {release.revoked_at:%Y-%m-%d}: {release.revoked_reason}"
    standing = [one for one in newer if status(one, now) in {Status.CURRENT, Status.WARN}]
    if now < release.expires_at:
        if not standing:
            return release.expires_at, ""
        return standing[-1].published_at, f"superseded by {standing[-1].digest[:19]}"
    taken = [one.published_at for one in newer if not one.revoked_at]
    return min([release.expires_at, *taken]), f"expired on {release.expires_at:%Y-%m-%d}"


def _needed(release: Release, running: Mapping[str, Sequence[str]], channels: Mapping[str, Sequence[str]]) -> str:
    """Who runs a release or points to it; empty where nobody does."""
    if members := [*running.get(release.digest, ()), *running.get(release.content, ())]:
        return f"{members[0]} runs it" + (f" and {len(members) - 1} more" if members[1:] else "")
    if tags := channels.get(release.digest, ()):
        return f"{' and '.join(sorted(tags))} {'point' if tags[1:] else 'points'} to it"
    return ""


def _child(base: Release, decisions: Mapping[Release, RetirementDecision[Release]]) -> Release | None:
    """A release that stays and is built on `base`."""
    inside = {base.content, base.digest}
    kept = (r for r, found in decisions.items() if found.action is not REMOVE)
    children = (r for r in kept if r.base_digest and r.base_digest in inside)
    return min(children, key=lambda r: (r.name, r.digest), default=None)
