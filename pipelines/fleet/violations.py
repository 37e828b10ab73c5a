"""Which members are out of policy, and why. Pure: what is known of each member comes in as a value.

An application image is judged by the golden image that it stands on. An unknown image is unknown, never expired.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

from hardening.findings import Reason
from hardening.foundation.bulk import no_collection
from hardening.model import Enforcement, Waiver
from hardening.policy import Policy
from hardening.running import UNREAD, MemberJudge, RunningFacts
from hardening.runtime import NAMES, STARTED_WITH, Facts, Observed
from images.artifact import Release
from images.registry.references import qualified
from pipelines.fleet.members import Followed, Member, Provenance

CLAIMED = "claimed"  # the rule that a member of two fleets breaks
HOLDS = ("revoked_at", "superseded_since", "refused_since")  # since when: what is not so has no such day
BARE_ID = re.compile("(sha256:)?[0-9a-f]*")  # an image by its id, of which no registry is known


@dataclass(frozen=True)
class Judged:
    """A member, where its image comes from, and every reason why it is out of policy, waived ones included."""

    member: Member
    origin: Provenance
    reasons: tuple[Reason, ...]
    facts: Facts | None = None

    @cached_property
    def standing(self) -> tuple[Reason, ...]:
        """The reasons that count: not waived, and more than recorded only."""
        return tuple(reason for reason in self.reasons if reason.stands)

    @cached_property
    def violations(self) -> tuple[Reason, ...]:
        """The reasons to replace the member: those that count, but for what goes over to the new one."""
        return tuple(reason for reason in self.standing if reason.mended_by_replacing)

    @cached_property
    def rules(self) -> frozenset[str]:
        """The names of the rules that are reasons to replace it."""
        return frozenset(reason.rule for reason in self.violations)

    @property
    def drifted(self) -> bool:
        """Whether it is to be replaced for what happened in it, which a new one of the very same image is without."""
        return not NAMES.isdisjoint(self.rules)

    @property
    def deadline(self) -> datetime | None:
        """When the first reason to replace it must be gone."""
        return min((r.deadline for r in self.violations if r.deadline), default=None)

    @property
    def on_base(self) -> bool:
        """Whether it runs an application image on a golden base, not a golden image itself."""
        return self.origin.release is None and self.origin.base is not None


class FleetJudge:
    """Judges the members of a fleet at one moment. Facts about an image are shared by all its members."""

    def __init__(
        self, fleet: str, policy: Policy, waivers: Sequence[Waiver], now: datetime, own_registry: str = ""
    ) -> None:
        self._fleet, self._own_registry = fleet, own_registry
        self._judge, self._now = MemberJudge(policy, waivers, now), now
        self._images: dict[tuple[str, int], tuple[Provenance, RunningFacts]] = {}  # by the very origin: it is quicker
        self._equal: dict[tuple[str, Provenance], RunningFacts] = {}

    def judge(self, member: Member, origin: Provenance, observed: Observed | None = None) -> Judged:
        """A member with every reason why it is out of policy; without `observed`, by its image alone."""
        key = member.image, id(origin)
        if (known := self._images.get(key)) is None:
            same = member.image, origin
            if same not in self._equal:
                self._equal[same] = _begun(facts(member, origin, self._own_registry), self._now)
            known = origin, self._equal[same]
            self._images[key] = known  # which keeps the origin, and so its id
        subject = f"{self._fleet}/{member.name}"
        reasons = self._judge.reasons(subject, known[1], observed, member.since)
        if origin.unread:
            reasons = (unread(subject, origin.unread, self._now, "its image"), *reasons)
            member = replace(member, cannot_roll=member.cannot_roll or origin.unread)
        if member.claimed_by:
            reasons = (claimed(subject, member.claimed_by, self._now), *reasons)
            member = replace(member, cannot_roll=reasons[0].what)
        return Judged(member, origin, reasons, observed.now if observed else None)

    def as_started(self, one: Judged, facts: Facts) -> tuple[Reason, ...]:
        """What stands by enforced rules against a container like the member that is started now, and runs as `facts`
        say: what time was given to the member is not given to it. What could not be read of it stands against it too.
        """
        observed = Observed(facts.kind, facts)
        found = self._judge.reasons(f"{self._fleet}/{one.member.name}", RunningFacts(known=True), observed)
        enforced = (reason for reason in found if reason.stands and reason.enforcement is Enforcement.ENFORCE)
        return tuple(reason for reason in enforced if reason.rule in STARTED_WITH | {UNREAD})

    def judge_all(self, members: Iterable[tuple[Member, Provenance, Observed | None]]) -> list[Judged]:
        """Judge many members, each as `judge` does, without garbage collection: judging makes no cycles."""
        with no_collection():
            return [self.judge(*member) for member in members]


def unread(subject: str, why: str, now: datetime, called: str = "it") -> Reason:
    """The reason against what could not be read, `called` so: it is not compliant."""
    return Reason(
        rule=UNREAD, subject=subject, enforcement=Enforcement.ENFORCE,
        what=f"{called} could not be read: {why}", why="a place that cannot be read counts as non-compliant",
        todo="fix the access to it, and check again", since=now, deadline=now,
    )  # fmt: skip


def claimed(subject: str, fleet: str, now: datetime) -> Reason:
    """The reason against a member of two fleets: neither judges it alone, and both would replace it."""
    return Reason(
        rule=CLAIMED, subject=subject, enforcement=Enforcement.ENFORCE,
        what=f"the fleet {fleet} selects it too", why="two fleets would replace one member against each other",
        todo=f"change the selector of one of the two fleets, or start the member without the labels of {fleet}",
        since=now, deadline=now,
    )  # fmt: skip


def facts(member: Member, origin: Provenance, own_registry: str = "") -> RunningFacts:
    """What the policy needs to know of the image that a member runs."""
    image, source, golden = _called(member, origin), _source(member, origin), origin.golden
    in_full = source if source.startswith("ami-") or BARE_ID.fullmatch(source) else qualified(source)
    unknown = RunningFacts(False, image, source, own_registry, source_in_full=in_full, unread=bool(origin.unread))
    if golden is None:
        return _of_others(origin.followed, unknown)
    since, by = superseded(origin, golden)
    if since is None and origin.followed:
        since, by = origin.followed.newer_since, _newer(origin.followed)
    return replace(
        unknown,
        known=True,
        published_at=golden.published_at,
        expires_at=golden.expires_at,
        revoked_at=golden.revoked_at,
        revoked_reason=golden.revoked_reason,
        superseded_since=since,
        superseded_by=by,
        refused_since=origin.refused_since,
        refused_because=origin.refused_because,
        lacks=origin.lacks,
        lacks_since=origin.lacks_since,
        lacks_until=origin.lacks_until,
        application=origin.release is None,
        golden=golden.name,
        newer_too=origin.latest_too,
    )


def _begun(known: RunningFacts, now: datetime) -> RunningFacts:
    """The same, where what holds has begun by now: a clock that was ahead dates it to a day to come, and does not put
    it off.
    """
    begun: dict[str, Any] = {name: now for name in HOLDS if (at := getattr(known, name)) and at > now}
    return replace(known, **begun) if begun else known


def _of_others(tag: Followed | None, unknown: RunningFacts) -> RunningFacts:
    """What is known of an image not built on a golden one: what the tag that the fleet follows says of it, if any."""
    if tag is None:
        return unknown
    return replace(
        unknown, known=True, followed=True, source=qualified(unknown.source), published_at=tag.seen,
        superseded_since=tag.newer_since, superseded_by=_newer(tag),
    )  # fmt: skip


def _newer(tag: Followed) -> str:
    return f"{tag.tag} ({tag.newer[:19]})" if tag.newer else ""


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


RECORDED = {*NAMES, UNREAD, "vulnerable"}


def only_recorded(reason: Reason) -> bool:
    """Whether it is about how a member runs, or a fix that has time, and the policy only records that: overviews leave
    it to `fleet.check --all` and `fleet.explain`.
    """
    return reason.enforcement is Enforcement.AUDIT and reason.rule in RECORDED


# -- what every screen, file and message says of members ---------------------------------------------------------------


class PolicyState(StrEnum):
    """A member's state under the policy. A member that could not be read is not within it."""

    WITHIN = "within policy"
    OUT = "out of policy"
    UNREAD = "unread"


@dataclass(frozen=True)
class MemberVerdict:
    """The verdict about a member: the rules that it violates, and the first deadline.

    `superseded`: a newer release is out, whether the policy minds or not.
    """

    state: PolicyState
    rules: tuple[str, ...] = ()
    deadline: datetime | None = None
    superseded: bool = False
    healthy: bool = True
    starting: bool = False

    @property
    def good(self) -> bool:
        """Whether it is within policy."""
        return self.state is PolicyState.WITHIN

    @property
    def ill(self) -> bool:
        """Whether it was read and is not healthy."""
        return bool(self.ailment)

    @property
    def ailment(self) -> str:
        """Why it is ill; empty where it is not."""
        return ailment(self.state, healthy=self.healthy, starting=self.starting)

    @property
    def well(self) -> bool:
        """Whether nobody has to look at it: it is within policy and healthy."""
        return self.good and not self.ill

    @property
    def text(self) -> str:
        """It in a few words."""
        newer = ("a newer release is out",) if self.superseded and "superseded" not in self.rules else ()
        return ", ".join(filter(None, (*(self.rules or (self.state,)), *newer, self.ailment)))


def ailment(state: str, *, healthy: bool, starting: bool) -> str:
    """Why a member that was read is ill; empty where it is not."""
    return "" if healthy or state == PolicyState.UNREAD else "starting" if starting else "not healthy"


def verdict_of(one: Judged) -> MemberVerdict:
    """What is to be said of a judged member: the one answer, which every command, file and page asks for."""
    standing = one.standing
    rules = {reason.rule for reason in standing}
    state = PolicyState.WITHIN if not rules else PolicyState.UNREAD if rules == {UNREAD} else PolicyState.OUT
    newer = any(reason.rule == "superseded" for reason in one.reasons)
    deadline = min((reason.deadline for reason in standing if reason.deadline), default=None)
    return MemberVerdict(state, tuple(sorted(rules)), deadline, newer, one.member.healthy, one.member.starting)


def in_words(verdicts: Sequence[MemberVerdict]) -> str:
    """A fleet in a sentence, by the verdicts on all its members."""
    bad, ill = [one for one in verdicts if not one.good], Counter(filter(None, (one.ailment for one in verdicts)))
    deadline = min((one.deadline for one in bad if one.deadline), default=None)
    rules = ", ".join(sorted({rule for one in bad for rule in one.rules}))
    said = f"{len(bad)} of {len(verdicts)} member(s) {rules}" if bad else f"{len(verdicts)} member(s) within policy"
    until = f", to be fixed by {deadline:%Y-%m-%d %H:%M} UTC" if deadline else ""
    return said + until + "".join(f", {many} {what}" for what, many in ill.items()) if verdicts else "no member runs"


MOST_EVIDENCE = 20  # lines that are kept of what was found against a member by one rule


@dataclass(frozen=True)
class CheckedMember:
    """A judged member as the ledger keeps it, for readers that do not query again.

    `image` is what it was started from, `golden` the name of the golden image that it is judged by, `release` that
    one's digest and `runs` its content's, or the image's own. `on_base`: its image only stands on the golden one, and
    has packages of its own; None: an earlier version did not keep it. `handle` is what its engine calls this very
    instance.
    """

    name: str
    image: str
    golden: str
    release: str
    runs: str
    verdict: MemberVerdict
    reasons: tuple[Reason, ...]
    on_base: bool | None = None
    id: str = ""
    since: datetime | None = None
    handle: str = ""


def checked(one: Judged) -> CheckedMember:
    """The judged member, to keep: of each reason, no more evidence than somebody reads."""
    golden = one.origin.golden
    own = next(iter(one.member.digests), "")
    return CheckedMember(
        one.member.name, one.member.image, golden.name if golden else "", golden.digest if golden else "",
        golden.content if golden else own, verdict_of(one),
        tuple(map(_shortened, one.reasons)), one.on_base, one.member.id, one.member.since, one.member.handle,
    )  # fmt: skip


def _shortened(reason: Reason) -> Reason:
    remedy = reason.remedy
    if remedy is None or not remedy.evidence[MOST_EVIDENCE:]:
        return reason
    more = f"and {len(remedy.evidence) - MOST_EVIDENCE} more"
    return replace(reason, remedy=replace(remedy, evidence=(*remedy.evidence[:MOST_EVIDENCE], more)))
