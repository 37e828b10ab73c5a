"""Which members are out of policy, and why. Pure: what is known of each member comes in as a value.

An application image is judged by the golden image that it stands on. An unknown image is unknown, never expired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from hardening.findings import Reason
from hardening.model import Enforcement, Waiver
from hardening.policy import Policy
from hardening.running import RunningFacts, judge_member
from images.artifact import Release
from pipelines.fleet.members import Member, Provenance


@dataclass(frozen=True)
class Judged:
    """A member, where its image comes from, and every reason why it is out of policy, waived ones included."""

    member: Member
    origin: Provenance
    reasons: tuple[Reason, ...]

    @cached_property
    def violations(self) -> tuple[Reason, ...]:
        """The reasons to replace the member: not waived, and more than recorded only."""
        return tuple(r for r in self.reasons if not r.waived_by and r.enforcement is not Enforcement.AUDIT)

    @cached_property
    def rules(self) -> frozenset[str]:
        """The names of the rules that it violates."""
        return frozenset(reason.rule for reason in self.violations)

    @property
    def deadline(self) -> datetime | None:
        """When the first of its violations must be gone."""
        return min((r.deadline for r in self.violations if r.deadline), default=None)

    @property
    def on_base(self) -> bool:
        """Whether it runs an application image on a golden base, not a golden image itself."""
        return self.origin.release is None and self.origin.base is not None


def judge(
    fleet: str, policy: Policy, member: Member, origin: Provenance, waivers: Sequence[Waiver], now: datetime,
    own_registry: str = "",
) -> Judged:  # fmt: skip
    """A member of `fleet` judged at `now`; one without an origin is unknown."""
    known = facts(member, origin, own_registry)
    return Judged(member, origin, judge_member(policy, f"{fleet}/{member.name}", known, waivers, now))


def facts(member: Member, origin: Provenance, own_registry: str = "") -> RunningFacts:
    """What the policy needs to know of a member."""
    image, source, golden = _called(member, origin), _source(member, origin), origin.golden
    found = RunningFacts(golden is not None, image, source, own_registry, member.since)
    if golden is None:
        return found
    since, by = _superseded(origin, golden)
    return replace(
        found,
        published_at=golden.published_at,
        expires_at=golden.expires_at,
        revoked_at=golden.revoked_at,
        revoked_reason=golden.revoked_reason,
        superseded_since=since,
        superseded_by=by,
        refused_since=origin.refused_since,
        refused_because=origin.refused_because,
    )


def _source(member: Member, origin: Provenance) -> str:
    """Where the member's image was taken from; an AMI's id tells nothing, what it is known to be does."""
    ami = member.image.startswith("ami-")
    return f"{origin.release.repository}@{origin.release.digest}" if ami and origin.release else member.image


def _called(member: Member, origin: Provenance) -> str:
    """The member's image as people call it; an application image is named with its base."""
    if origin.release:
        return named(origin.release)
    return f"{member.image} (its base {named(origin.base)})" if origin.base else member.image


def named(release: Release) -> str:
    """A release as people call it: its name, the day it was published, and the head of its digest."""
    return f"{release.name} of {release.published_at:%Y-%m-%d} ({release.digest[:19]})"


def _superseded(origin: Provenance, golden: Release) -> tuple[datetime | None, str]:
    """Since when and by what the golden image is superseded: its channel points to another content.

    A base is superseded by something newer only: what its builder took from another channel is no step back.
    """
    latest = origin.latest
    if latest is None or latest.content == golden.content:
        return None, ""
    if origin.release is None and latest.published_at <= golden.published_at:
        return None, ""
    return origin.latest_since or latest.published_at, named(latest)
