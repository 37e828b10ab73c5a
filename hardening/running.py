"""What a running instance's image must satisfy: each broken rule is a reason with since and deadline. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from hardening.findings import Reason, since_text
from hardening.foundation.durations import shown
from hardening.model import Waiver
from hardening.policy import Policy, Rule
from hardening.waivers import about_rule, answered


@dataclass(frozen=True)
class RunningFacts:
    """What is known of the image that a member runs. Dates are those of the newest release over the same content.

    `known`: a release of it was found; without one only its source and a revocation can be judged. `source` is the
    address it was pulled from, `own_registry` the configured one. `seen_since` is when the member was first seen.
    `superseded_since` is when its channel moved on; `refused_since` and `refused_because`: the present policy would
    not let the release be published.
    """

    known: bool
    image: str = ""
    source: str = ""
    own_registry: str = ""
    seen_since: datetime | None = None
    published_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_reason: str = ""
    superseded_since: datetime | None = None
    superseded_by: str = ""
    refused_since: datetime | None = None
    refused_because: str = ""


@dataclass(frozen=True)
class Case:
    """One member before the policy: what each rule looks at."""

    policy: Policy
    subject: str
    member: RunningFacts
    waivers: Sequence[Waiver]
    now: datetime

    @property
    def image(self) -> str:
        """How its image is called."""
        return self.member.image or "its image"


def judge_member(
    policy: Policy, subject: str, member: RunningFacts, waivers: Sequence[Waiver], now: datetime
) -> tuple[Reason, ...]:
    """The reasons why `subject` (fleet/member) is out of policy at `now`; none: it is within.

    `since` is when the violation began, `deadline` is since + the rule's grace; `enforcement` is the rule's own also
    before the deadline, so that a replacement can be planned in time. What is enforced from a later day warns.
    An unknown image is unknown, never expired.
    """
    case = Case(policy.on(now.date()), subject, member, waivers, now)
    revoked, *dated = _dated(case)
    others = [*dated, _max_age(case)] if member.known else [_unknown(case)]
    return tuple(reason for reason in (revoked, _approved_source(case), *others) if reason)


def _reason(case: Case, rule: Rule, name: str, since: datetime, what: str, why: str, todo: str = "") -> Reason:
    fleet = case.subject.partition("/")[0]
    what += (f"; enforced from {rule.from_date} on" if rule.waits else "") + since_text(since)
    todo = todo or f"replace it: `./goldsmith roll.plan {fleet}` shows how, and what to type next"
    due = since + rule.grace
    due = max(due, rule.begins or due)
    found = Reason(name, case.subject, rule.enforcement, what, why, todo, since=since, deadline=due)
    return answered(found, about_rule(name), case.policy.exception_contact, case.waivers, case.now)


def _dated(case: Case) -> list[Reason | None]:
    """Revoked, expired, superseded, refused: what begins on a day; None where that has not come."""
    member, rules = case.member, case.policy.running
    by = f" by {member.superseded_by}" if member.superseded_by else ""
    because = member.refused_because or "see ./goldsmith image.show"
    told = [
        ("revoked", member.revoked_at, f"was revoked: {member.revoked_reason or 'no reason given'}",
         "a revoked image must not run anywhere, whatever its dates say"),
        ("expired", member.expires_at, "expired",
         "expired images are not rebuilt or scanned, so recent fixes are missing"),
        ("superseded", member.superseded_since, f"was superseded{by}",
         "a newer release of the same image is out, and it holds the fixes"),
        ("refused", member.refused_since, f"would not be published today: {because}",
         "what is known about it has grown worse since it was published"),
    ]  # fmt: skip
    return [
        _reason(case, getattr(rules, rule), rule, since, f"{case.image} {what}", why)
        if since and since <= case.now
        else None
        for rule, since, what, why in told
    ]


def _unknown(case: Case) -> Reason:
    what = f"the origin of {case.image} is unknown: no release of ours is found for it"
    why = "an image without a known origin cannot be judged: it may be good or bad"
    fleet, _, name = case.subject.partition("/")
    todo = f"find its origin, or take it over on purpose: `./goldsmith roll.plan {fleet} --adopt {name}`"
    return _reason(case, case.policy.running.unknown, "unknown", case.member.seen_since or case.now, what, why, todo)


def _max_age(case: Case) -> Reason | None:
    member, now = case.member, case.now
    rule = case.policy.running.max_age
    if rule is None:
        return None
    if member.published_at is None:
        what = f"the age of {case.image} is not known, and the policy allows {shown(rule.limit)}"
        return _reason(case, rule, "max_age", member.seen_since or now, what, "an unknown age is not a young one")
    since = member.published_at + rule.limit
    if now < since:
        return None
    what = f"{case.image} was published {(now - member.published_at).days} days ago"
    why = f"the policy allows {shown(rule.limit)}: an old image is one whose replacement nobody has practised"
    return _reason(case, rule, "max_age", since, f"{what}, the policy allows {shown(rule.limit)}", why)


def _approved_source(case: Case) -> Reason | None:
    member, now = case.member, case.now
    rule = case.policy.running.approved_source
    if rule is None:
        return None
    prefixes = rule.prefixes or ((member.own_registry,) if member.own_registry else ())
    if any(under(member.source, prefix) for prefix in prefixes):
        return None
    what = f"it was pulled from {member.source or 'an unknown place'}; approved: {', '.join(prefixes) or 'none is set'}"
    why = "whoever controls another registry controls what runs here"
    todo = f"pull it from an approved registry, or add the prefix to hardening/policies/{case.policy.name}.toml"
    return _reason(case, rule, "approved_source", member.seen_since or now, what, why, todo)


def under(address: str, prefix: str) -> bool:
    """Whether `address` lies under `prefix`, by whole parts: `r.example/golden` holds neither `r.example/golden-evil`
    nor `r.example:8443/golden`, another registry.
    """
    stem = prefix.rstrip("/")
    ends = ("/", ":", "@") if "/" in stem else ("/",)
    return bool(stem) and (address == stem or address.startswith(tuple(stem + end for end in ends)))
