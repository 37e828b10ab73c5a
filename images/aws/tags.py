"""The tags of snapshots and images, written and read back by the same codec as annotations. Pure.

On top of what every release says of itself (`images.release.lifecycle`): which release and content it is, the
disk's linear digest, when a killed run's leavings may be removed, and since when an image is disabled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from hardening.foundation.errors import ContentError
from images.artifact import Release
from images.release import lifecycle

RELEASE, CONTENT, LINEAR, NAME = "release", "content", "linear-digest", "name"
REAP_AFTER, DISABLED_AT = "reap-after", "disabled-at"
REVOKED_AT, REVOKED_REASON = "revoked-at", "revoked-reason"
LONGEST_VALUE = 256


def of_snapshot(name: str, content: str, linear: str, prefix: str, reap_after: datetime) -> dict[str, str]:
    """The tags of a snapshot: it belongs to a content, which several releases may be over."""
    said = {NAME: name, CONTENT: content, LINEAR: linear, REAP_AFTER: lifecycle.timestamp(reap_after)}
    return {f"{prefix}{key}": value for key, value in said.items()}


def of_image(release: Release, linear: str, prefix: str, reap_after: datetime) -> dict[str, str]:
    """The tags of an image: all that its release says of itself."""
    disk = of_snapshot(release.name, release.content, linear, prefix, reap_after)
    return {**lifecycle.annotations(release, prefix), **disk, f"{prefix}{RELEASE}": release.digest}


def of_revocation(reason: str, prefix: str, at: datetime) -> dict[str, str]:
    """The tags that take an image out of policy; the reason as far as a tag holds it."""
    return {f"{prefix}{REVOKED_AT}": lifecycle.timestamp(at), f"{prefix}{REVOKED_REASON}": reason[:LONGEST_VALUE]}


def release_of(tags: Mapping[str, str], prefix: str, repository: str) -> Release | None:
    """The release that an image's tags tell of, its revocation included; None where they are not ours."""
    digest, content = tags.get(f"{prefix}{RELEASE}", ""), tags.get(f"{prefix}{CONTENT}", "")
    try:
        found = lifecycle.parse_annotations(tags, prefix, repository=repository, digest=digest, content=content)
        if revoked := tags.get(f"{prefix}{REVOKED_AT}"):
            reason = tags.get(f"{prefix}{REVOKED_REASON}", "")
            found = replace(found, revoked_at=lifecycle.moment(revoked), revoked_reason=reason)
    except (ContentError, ValueError):
        return None
    return found if digest and content else None


def moment_in(tags: Mapping[str, str], key: str) -> datetime | None:
    """The moment that a tag holds; None where there is none, or nothing that is one."""
    try:
        return lifecycle.moment(tags[key])
    except (KeyError, ValueError):
        return None


def as_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as AWS takes them."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def as_dict(found: Iterable[Mapping[str, Any]] | None) -> dict[str, str]:
    """Tags as AWS gives them."""
    return {str(tag["Key"]): str(tag["Value"]) for tag in found or ()}
