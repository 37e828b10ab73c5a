"""Which members are out of policy, and why. Pure: what is known of each member comes in as a value.

An application image is judged by the golden image that it stands on. An unknown image is unknown, never expired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from hardening.findings import Reason
from hardening.model import Enforcement, Waiver
from hardening.policy import Policy
from hardening.running import RunningFacts, judge_member
from images.artifact import Release
from pipelines.fleet.members import Member, Provenance

UNREAD = "unread"  # the rule that a member or a place violates which could not be read


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
    since, by = superseded(origin, golden)
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


def superseded(origin: Provenance, golden: Release) -> tuple[datetime | None, str]:
    """Since when and by what the golden image is superseded: its channel points to another content.

    A base is superseded by something newer only: what its builder took from another channel is no step back.
    """
    latest = origin.latest
    if latest is None or latest.content == golden.content:
        return None, ""
    if origin.release is None and latest.published_at <= golden.published_at:
        return None, ""
    return origin.latest_since or latest.published_at, named(latest)


# -- what every screen, file and message says of members ---------------------------------------------------------------


class PolicyState(StrEnum):
    """Where a member stands before the policy. What could not be read is not within it."""

    WITHIN = "within policy"
    OUT = "out of policy"
    UNREAD = "unread"


@dataclass(frozen=True)
class MemberVerdict:
    """What is to be said of a member: the rules that it violates, and when the first of that must be gone.

    `superseded`: a newer release is out, whether the policy minds or not.
    """

    state: PolicyState
    rules: tuple[str, ...] = ()
    deadline: datetime | None = None
    superseded: bool = False
    healthy: bool = True

    @property
    def good(self) -> bool:
        """Whether it is within policy."""
        return self.state is PolicyState.WITHIN

    @property
    def ill(self) -> bool:
        """Whether it was read and is not healthy."""
        return self.state is not PolicyState.UNREAD and not self.healthy

    @property
    def well(self) -> bool:
        """Whether nobody has to look at it: it is within policy and healthy."""
        return self.good and not self.ill

    @property
    def text(self) -> str:
        """It in a few words."""
        newer = ("a newer release is out",) if self.superseded and "superseded" not in self.rules else ()
        ill = ("not healthy",) if self.ill else ()
        return ", ".join((*(self.rules or (self.state,)), *newer, *ill))


def verdict_of(one: Judged) -> MemberVerdict:
    """What is to be said of a judged member: the one answer, which every command, file and page asks for."""
    state = PolicyState.WITHIN if not one.rules else PolicyState.UNREAD if UNREAD in one.rules else PolicyState.OUT
    newer = any(reason.rule == "superseded" for reason in one.reasons)
    return MemberVerdict(state, tuple(sorted(one.rules)), one.deadline, newer, one.member.healthy)


def in_words(verdicts: Sequence[MemberVerdict]) -> str:
    """A fleet in a sentence, by the verdicts on all its members."""
    bad, ill = [one for one in verdicts if not one.good], sum(one.ill for one in verdicts)
    deadline = min((one.deadline for one in bad if one.deadline), default=None)
    rules = ", ".join(sorted({rule for one in bad for rule in one.rules}))
    said = f"{len(bad)} of {len(verdicts)} member(s) {rules}" if bad else f"{len(verdicts)} member(s) within policy"
    until = f", to be replaced by {deadline:%Y-%m-%d %H:%M} UTC" if deadline else ""
    return said + until + (f", {ill} not healthy" if ill else "") if verdicts else "no member runs"


@dataclass(frozen=True)
class CheckedMember:
    """A judged member as the ledger keeps it, for who does not ask the world again.

    `image` is what it was started from, `golden` the name of the golden image that it is judged by, `release` that
    one's digest and `runs` its content's, or the image's own. `on_base`: its image only stands on the golden one, and
    has packages of its own; None: an earlier version did not keep it.
    """

    name: str
    image: str
    golden: str
    release: str
    runs: str
    verdict: MemberVerdict
    reasons: tuple[Reason, ...]
    on_base: bool | None = None


def checked(one: Judged) -> CheckedMember:
    """The judged member, to keep."""
    golden = one.origin.golden
    own = next(iter(one.member.digests), "")
    return CheckedMember(
        one.member.name, one.member.image, golden.name if golden else "", golden.digest if golden else "",
        golden.content if golden else own, verdict_of(one), one.reasons,
        one.on_base,
    )  # fmt: skip
