"""The dates of a release, the one codec that writes and reads them as annotations, and what they forbid. Pure.

They stand in the annotations of the release's index, never in a label: labels are inherited by children, and a child
would inherit its parent's expiry.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Any

from hardening.findings import Verdict
from hardening.foundation.errors import ContentError, RefusedError
from images.artifact import Release
from images.model import Lifecycle

OCI = "org.opencontainers.image."
END_OF_LIFE = "vnd.microsoft.artifact.lifecycle.end-of-life.date"


class Status(StrEnum):
    """The status of a release at a moment."""

    CURRENT = "current"
    WARN = "warn"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Dates:
    """When a release was published, when its warning begins, and when it ends. Aware UTC, whole seconds."""

    published_at: datetime
    warn_at: datetime
    expires_at: datetime


def dates(lifecycle: Lifecycle, published_at: datetime) -> Dates:
    """The dates that `lifecycle` gives a release published at `published_at`.

    `support_until` caps the expiry at the end of that day; the warning never begins before the publication.
    """
    start = published_at.astimezone(UTC).replace(microsecond=0)
    end = start + lifecycle.expires_after
    if lifecycle.support_until:
        end = min(end, datetime.combine(lifecycle.support_until + timedelta(days=1), time(), UTC))
    return Dates(start, max(start, end - lifecycle.warn_before), end)


def status(release: Release, now: datetime) -> Status:
    """Where `release` stands at `now`."""
    if release.revoked_at:
        return Status.REVOKED
    if now >= release.expires_at:
        return Status.EXPIRED
    return Status.WARN if now >= release.warn_at else Status.CURRENT


def near_expiry(release: Release, now: datetime) -> bool:
    """Whether it is time to judge `release` again and re-date it (or its end has already come)."""
    return now >= release.warn_at


def newest_first(releases: Iterable[Release]) -> tuple[Release, ...]:
    """Releases by their day, the newest first."""
    return tuple(sorted(releases, key=lambda release: (release.published_at, release.digest), reverse=True))


def based(draft: Release, content: Mapping[str, Any]) -> Release:
    """The draft with the digest of its base, which the manifest of its content tells."""
    return replace(draft, base_digest=(content.get("annotations") or {}).get(f"{OCI}base.digest", ""))


MOMENTS = ("published_at", "warn_at", "expires_at")


def _keys(prefix: str) -> dict[str, str]:
    """The annotation that each field of a release is written as."""
    own = ("warn_at", "expires_at", "input_digest", "profile", "policy")
    return {
        "name": f"{OCI}title",
        "published_at": f"{OCI}created",
        **{field: prefix + field.replace("_", "-") for field in own},
        "base_name": f"{OCI}base.name",
        "base_digest": f"{OCI}base.digest",
    }


def annotations(release: Release, prefix: str) -> dict[str, str]:
    """The annotations of the release's index; `parse_annotations` reads them back."""
    pairs = {key: getattr(release, field) for field, key in _keys(prefix).items()}
    return {key: timestamp(said) if isinstance(said, datetime) else said for key, said in pairs.items() if said}


def parse_annotations(found: Mapping[str, str], prefix: str, *, repository: str, digest: str, content: str) -> Release:
    """The release that an index's annotations describe. Raises ContentError when it carries no dates of ours."""
    keys = _keys(prefix)
    said: dict[str, Any] = {field: found.get(key, "") for field, key in keys.items()}
    try:
        said |= {"name": found[keys["name"]], **{field: moment(found[keys[field]]) for field in MOMENTS}}
        return Release(repository=repository, digest=digest, content=content, **said)
    except (KeyError, ValueError) as error:
        hint = f"releases have {prefix}expires-at on their index; another annotation_prefix in goldsmith.toml?"
        raise ContentError(f"{repository}@{digest} is not a release of ours: {error}", hint=hint) from None


def timestamp(at: datetime) -> str:
    """A moment as RFC 3339 in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime:
    """The moment that `timestamp` wrote, or any RFC 3339 one. Raises ValueError without a time zone."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return at.astimezone(UTC)


def dated_tag(release: Release) -> str:
    """The immutable tag of a release: the day it was published and the head of its digest."""
    return f"{release.published_at:%Y%m%d}-{release.digest.removeprefix('sha256:')[:6]}"


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
        hint = "build and publish a good one, then ./goldsmith image.promote"
        raise RefusedError(f"{name} has no earlier release that {channel} could return to", hint=hint)
    if (why := worse(chosen, now)) and not reason.strip():
        raise RefusedError(
            f"{channel} of {name} would return to {chosen.digest[:19]}, which {why}",
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
        hint = "change what is wrong inside it, and publish that; a new date would only hide it"
        raise RefusedError(f"{shown(release)} was revoked: {release.revoked_reason}; {outcome}", hint=hint)
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
