"""What a channel's history decides: where a rollback goes, and what may not become `stable`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from hardening.findings import Verdict
from hardening.foundation.errors import RefusedError
from images.artifact import Release
from images.release.lifecycle import Status, status


def trail(digests: Sequence[str]) -> tuple[str, ...]:
    """Where a channel came from, the present end last: going back to a release forgets what came after it."""
    stack: list[str] = []
    for digest in digests:
        if digest in stack:
            del stack[stack.index(digest) :]
        stack.append(digest)
    return tuple(stack)


def before(digests: Sequence[str], present: str) -> tuple[str, ...]:
    """The releases that a channel pointed to before the present one, the nearest first; all where that is unknown."""
    history = trail(digests)
    return (history[: history.index(present)] if present in history else history)[::-1]


def below(digests: Sequence[str], digest: str) -> str:
    """Where a rollback goes from a release that was gone back to: further back and not forth."""
    history = trail(digests)
    under = history[: history.index(digest)] if digest in history else ()
    return under[-1] if under else digest


def chosen_back(earlier: Sequence[Release], name: str, channel: str, now: datetime, reason: str) -> Release:
    """Which of the earlier releases, the nearest first, a rollback goes to. Raises RefusedError."""
    standing = [release for release in earlier if not release.revoked_at]
    chosen = next(iter([*standing, *earlier]), None)
    if chosen is None:
        raise RefusedError(
            f"{name} has no earlier release that {channel} could go back to",
            hint="build and publish a good one, then ./goldsmith image.promote",
        )
    if (why := worse(chosen, now)) and not reason.strip():
        raise RefusedError(
            f"{channel} of {name} would go back to {chosen.digest[:19]}, which {why}",
            hint=f'if it is better than what {channel} names now: ./goldsmith image.rollback {name} --reason "why"; '
            "else build and publish a good one",
        )
    return chosen


def worse(release: Release, now: datetime) -> str:
    """Why a release is nothing to go back to without a reason; empty where it is."""
    if release.revoked_at:
        return f"was revoked: {release.revoked_reason}"
    return f"expired on {release.expires_at:%Y-%m-%d}" if release.expires_at <= now else ""


def refuse_ended(release: Release, now: datetime, outcome: str) -> None:
    """Raise RefusedError where a release, or what would become one, is revoked or has expired; `outcome`: what then."""
    state = status(release, now)
    if state is Status.REVOKED:
        raise RefusedError(
            f"{shown(release)} was revoked: {release.revoked_reason}; {outcome}",
            hint="change what is wrong inside it, and publish that; a new date would only hide it",
        )
    if state is Status.EXPIRED:
        hint = f"./goldsmith image.publish {release.name} re-dates it"
        raise RefusedError(f"{shown(release)} expired on {release.expires_at:%Y-%m-%d}; {outcome}", hint=hint)


def refuse_judged(release: Release, verdict: Verdict, policy: str) -> None:
    """Raise RefusedError unless a verdict is about this release, by this policy, and lets it through."""
    if verdict.subject != release.name or verdict.content not in ("", release.content):
        raise RefusedError(
            f"{shown(release)}: its verdict is about {verdict.subject} {verdict.content[:19]}".rstrip(),
            hint=f"./goldsmith image.publish {release.name} judges it; who attached that one?",
        )
    if verdict.policy != policy:
        raise RefusedError(
            f"{shown(release)} was judged by the policy {verdict.policy}, and the policy {policy} decides on stable",
            hint=f"./goldsmith image.publish {release.name} judges it by {policy}; if {verdict.policy} is meant: "
            f"./goldsmith image.promote {release.name} --policy {verdict.policy}",
        )
    if not verdict.allowed:
        reasons = "\n".join(reason.what for reason in verdict.refusals)
        raise RefusedError(f"{shown(release)} is refused by policy {verdict.policy}", evidence=reasons)


def shown(release: Release) -> str:
    """How people tell a release from others."""
    return f"{release.name} {release.digest[:19]}"
