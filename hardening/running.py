"""What a running instance must satisfy: each broken rule is a reason with since and deadline. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from hardening import runtime
from hardening.findings import Actor, Reason, Remedy, Repair, Side, since_text
from hardening.foundation.durations import shown
from hardening.model import LENIENT_FIRST, Enforcement, Waiver
from hardening.policy import Policy, Rule
from hardening.runtime import Facts, Observed, RuntimeRule
from hardening.waivers import ActiveWaivers

UNREAD = "unread"  # the rule that what could not be read breaks
SHOWN = 6  # things that a sentence names; the evidence names all


@dataclass(frozen=True)
class RunningFacts:
    """What is known of the image that a member runs. Dates are those of the newest release over the same content.

    `known`: a release of it was found; without one only its source and a revocation can be judged. `source` is the
    address it was pulled from, `own_registry` the configured one. `seen_since` is when the member was first seen.
    `superseded_since` is when its channel moved on; `refused_since` and `refused_because`: the present policy would
    not let the release be published. `application`: the golden image is only what the member's image stands on.
    `lacks`: fixes of it that the policy gives time for or only warns of, the first known since `lacks_since`, until
    `lacks_until`.
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
    application: bool = False
    lacks: str = ""
    lacks_since: datetime | None = None
    lacks_until: datetime | None = None


MOST_KEPT = 10_000  # ways of running of which is kept what they break


@dataclass(frozen=True)
class _BrokenRuntime:
    """A rule that members break by how they run. `since` and `always`: see first_broken."""

    rule: RuntimeRule
    asked: Rule
    since: datetime | None
    always: bool
    what: str
    remedy: Remedy


@dataclass(frozen=True)
class _Broken:
    """A rule that an image breaks, whoever runs it. `since` None: since the member was first seen."""

    rule: str
    since: datetime | None
    what: str
    why: str
    remedy: Remedy
    todo: str = ""
    until: datetime | None = None


def judge_member(
    policy: Policy, subject: str, member: RunningFacts, waivers: Sequence[Waiver], now: datetime,
    observed: Observed | None = None,
) -> tuple[Reason, ...]:  # fmt: skip
    """The reasons why `subject` (fleet/member) is out of policy at `now`; none: it is within. See MemberJudge."""
    return MemberJudge(policy, waivers, now).reasons(subject, member, observed, member.seen_since)


class MemberJudge:
    """Judges members by one policy and its waivers at one moment; what is the same for many is found out once.

    `since` is when a violation began, `deadline` is since + the rule's grace; `enforcement` is the rule's own also
    before the deadline, so that a replacement can be planned in time. What is enforced from a later day warns.
    An unknown image is unknown, never expired.
    """

    def __init__(self, policy: Policy, waivers: Iterable[Waiver], now: datetime) -> None:
        self._policy = policy.on(now.date())
        self._now = now
        self._waivers = ActiveWaivers(waivers, policy.exception_contact, now.date())
        self._images: dict[int, tuple[RunningFacts, tuple[_Broken, ...]]] = {}
        self._ways: dict[Hashable, tuple[_BrokenRuntime, ...]] = {}
        asked = self._policy.running
        self._runtime = {
            kind: tuple((rule, rule.find, getattr(asked, rule.name)) for rule in rules)
            for kind, rules in runtime.RULES.items()
        }

    def reasons(
        self, subject: str, image: RunningFacts, observed: Observed | None = None, seen_since: datetime | None = None
    ) -> tuple[Reason, ...]:
        """Every reason why `subject` is out of policy, waived ones included.

        `observed`: how it runs, where that is looked at; `seen_since` is when the member was first seen.
        """
        broken = self._of_image(image)
        found = [self._image_reason(subject, one, seen_since or self._now) for one in broken] if broken else []
        if observed is not None:
            self._of_runtime(found, subject, image, observed, seen_since)
        return tuple(found)

    def _of_image(self, image: RunningFacts) -> tuple[_Broken, ...]:
        """The rules that an image breaks: the same for all who run it, so each is judged once."""
        known = self._images.get(id(image))
        if known is None:
            source = _approved_source(self._policy, image)
            revoked, *dated = _dated(image, self._now)
            others = (
                [*dated, _vulnerable(image), _max_age(self._policy, image, self._now)]
                if image.known
                else [_unknown(image)]
            )
            known = image, tuple(one for one in (revoked, source, *others) if one)
            self._images[id(image)] = known  # which keeps the image, and so its id
        return known[1]

    def _image_reason(self, subject: str, broken: _Broken, seen_since: datetime) -> Reason:
        since, (fleet, _, name) = broken.since or seen_since, subject.partition("/")
        todo = broken.todo.format(fleet=fleet, name=name, policy=self._policy.name)
        todo = todo or f"replace it: `./goldsmith roll.plan {fleet}` shows how, and what to type next"
        asked: Rule = getattr(self._policy.running, broken.rule)
        return self._reason(
            subject, broken.rule, asked, since, broken.what, broken.why, todo, broken.remedy, broken.until
        )

    def _reason(
        self, subject: str, name: str, asked: Rule, since: datetime, what: str, why: str, todo: str, remedy: Remedy,
        until: datetime | None = None,
    ) -> Reason:  # fmt: skip
        waits = f"; enforced from {asked.from_date} on" if asked.waits else ""
        due = (until or since) + asked.grace
        due = max(due, asked.begins or due)
        ask = asked.enforcement is not Enforcement.AUDIT
        waiver, waived_by = self._waivers.answer(name, subject, ask=ask)
        return Reason(
            name, subject, asked.enforcement, f"{what}{waits}{since_text(since)}", why, todo, waiver, waived_by,
            "", since, due, remedy,
        )  # fmt: skip

    def _of_runtime(
        self, found: list[Reason], subject: str, image: RunningFacts, observed: Observed, seen_since: datetime | None
    ) -> None:
        """Add what its configuration breaks, and what of that could not be read."""
        now = observed.now
        if now is None:
            rules = [(rule.name, observed.unread) for rule, _, _ in self._runtime[observed.kind]]
            found += self._unread(subject, rules)
            return
        for one in self._of_way(image, observed, now):
            began = (seen_since or one.since if one.always else one.since) or self._now
            found.append(
                self._reason(
                    subject, one.rule.name, one.asked, began, one.what, one.rule.why, one.rule.todo, one.remedy
                )
            )
        if now.unread:
            found += self._unread(subject, now.unread)

    def _of_way(self, image: RunningFacts, observed: Observed, now: Facts) -> tuple[_BrokenRuntime, ...]:
        """The rules that it breaks by how it runs: the same for all that run alike, so each way is judged once."""
        way = image.known, image.application, runtime.way_of(observed)
        if (known := self._ways.get(way)) is None:
            if len(self._ways) >= MOST_KEPT:
                self._ways.clear()
            known = tuple(self._broken(image, observed, now))
            self._ways[way] = known
        return known

    def _broken(self, image: RunningFacts, observed: Observed, now: Facts) -> Iterator[_BrokenRuntime]:
        first = observed.first
        for rule, find, asked in self._runtime[observed.kind]:
            if evidence := find(now, first, asked):
                since, always = runtime.first_broken(rule, asked, observed.history, first)
                what, remedy = _told(rule, evidence, _brought_by(rule, image, now))
                yield _BrokenRuntime(rule, asked, since, always, what, remedy)

    def _unread(self, subject: str, rules: Iterable[tuple[str, str]]) -> Iterator[Reason]:
        """What could not be judged, treated as the strictest of these rules treats what breaks it. Nothing waives it:
        a rule that may be broken is waived by its own name.
        """
        unread = {name: why for name, why in rules if not self._waivers.by(name, subject)}
        if not unread:
            return
        running = self._policy.running
        strictest = max((getattr(running, name).enforcement for name in unread), key=LENIENT_FIRST.index)
        evidence = tuple(f"{name}: {why}" for name, why in unread.items())
        what = f"how it runs could not be read: {'; '.join(dict.fromkeys(unread.values()))}"
        remedy = Remedy((Repair.CONFIGURE,), Side.YOURS, Actor.HOST, evidence)
        why, todo = "what cannot be read is not known to be good", "mend the way to it, and check again"
        now = self._now
        yield Reason(UNREAD, subject, strictest, what, why, todo, since=now, deadline=now, remedy=remedy)


def _brought_by(rule: RuntimeRule, image: RunningFacts, facts: Facts) -> Side | None:
    """Whose image brings it in, as a user that the image sets: the golden one, or the application's; None: neither."""
    if rule.name == "root_user" and isinstance(facts, runtime.ContainerFacts) and runtime.by_image(facts):
        return Side.BASE if image.known and not image.application else Side.YOURS
    return None


@lru_cache(maxsize=128)
def _told(rule: RuntimeRule, evidence: tuple[str, ...], image: Side | None) -> tuple[str, Remedy]:
    """A broken rule in a sentence, and what ends it and who acts: the same for many members. See _brought_by."""
    more = f", and {len(evidence) - SHOWN} more" if evidence[SHOWN:] else ""
    what = f"{rule.title}: {'; '.join(evidence[:SHOWN])}{more}"
    if image is None:
        return what, Remedy(rule.repairs, rule.side, rule.actor, evidence)
    actor = Actor.IMAGE if image is Side.BASE else Actor.FLEET
    return what, Remedy((Repair.REBUILD, Repair.CONFIGURE, Repair.WAIVE), image, actor, evidence)


# -- images ------------------------------------------------------------------------------------------------------------


def _called(image: RunningFacts) -> str:
    return image.image or "its image"


def _of_base(image: RunningFacts, rule: str, evidence: str) -> Remedy:
    """What ends a violation of the golden image: a newer one, which an application is built on first.

    Where none is out, its owner acts; else whose it is that runs.
    """
    newer = image.superseded_since is not None
    first = (Repair.REBUILD, Repair.ROLL) if image.application or not newer else (Repair.ROLL,)
    waive = () if rule == "revoked" else (Repair.WAIVE,)
    return Remedy((*first, *waive), Side.BASE, Actor.FLEET if newer else Actor.IMAGE, (evidence,))


def _dated(image: RunningFacts, now: datetime) -> list[_Broken | None]:
    """Revoked, expired, superseded, refused: what begins on a day; None where that has not come."""
    by = f" by {image.superseded_by}" if image.superseded_by else ""
    reason = image.revoked_reason or "no reason given"
    because = image.refused_because or "see ./goldsmith image.show"
    told = [
        ("revoked", image.revoked_at, f"was revoked: {reason}", reason,
         "a revoked image must not run anywhere, whatever its dates say"),
        ("expired", image.expires_at, "expired", f"it expired at {image.expires_at}",
         "expired images are not rebuilt or scanned, so recent fixes are missing"),
        ("superseded", image.superseded_since, f"was superseded{by}", f"a newer release: {image.superseded_by}",
         "a newer release of the same image is out, and it holds the fixes"),
        ("refused", image.refused_since, f"would not be published today: {because}", because,
         "what is known about it has grown worse since it was published"),
    ]  # fmt: skip
    return [
        _Broken(rule, since, f"{_called(image)} {what}", why, _of_base(image, rule, evidence))
        if since and since <= now
        else None
        for rule, since, what, evidence, why in told
    ]


def _vulnerable(image: RunningFacts) -> _Broken | None:
    """Fixes that are known and not in it, within the time that the policy gives; after that it is refused."""
    if image.lacks_since is None:
        return None
    what = f"{_called(image)} lacks fixes: {image.lacks}"
    why = "attackers read the same advisories; once the time that the policy gives is over, it is refused"
    remedy = _of_base(image, "vulnerable", image.lacks)
    return _Broken("vulnerable", image.lacks_since, what, why, remedy, until=image.lacks_until)


ADOPTED = Remedy((Repair.ROLL, Repair.WAIVE), Side.YOURS, Actor.FLEET)


def _unknown(image: RunningFacts) -> _Broken:
    what = f"the origin of {_called(image)} is unknown: no release of ours is found for it"
    why = "an image without a known origin cannot be judged: it may be good or bad"
    todo = "find its origin, or take it over on purpose: `./goldsmith roll.plan {fleet} --adopt {name}`"
    return _Broken("unknown", None, what, why, ADOPTED, todo)


def _max_age(policy: Policy, image: RunningFacts, now: datetime) -> _Broken | None:
    rule = policy.running.max_age
    if rule is None:
        return None
    if image.published_at is None:
        what = f"the age of {_called(image)} is not known, and the policy allows {shown(rule.limit)}"
        remedy = _of_base(image, "max_age", "no day of publication is known")
        return _Broken("max_age", image.seen_since, what, "an unknown age is not a young one", remedy)
    since = image.published_at + rule.limit
    if now < since:
        return None
    what = f"{_called(image)} was published {(now - image.published_at).days} days ago"
    why = f"the policy allows {shown(rule.limit)}: an old image is one whose replacement nobody has practised"
    remedy = _of_base(image, "max_age", f"it was published at {image.published_at}")
    return _Broken("max_age", since, f"{what}, the policy allows {shown(rule.limit)}", why, remedy)


def _approved_source(policy: Policy, image: RunningFacts) -> _Broken | None:
    rule = policy.running.approved_source
    if rule is None:
        return None
    prefixes = rule.prefixes or ((image.own_registry,) if image.own_registry else ())
    if any(under(image.source, prefix) for prefix in prefixes):
        return None
    source = image.source or "an unknown place"
    what = f"it was pulled from {source}; approved: {', '.join(prefixes) or 'none is set'}"
    why = "whoever controls another registry controls what runs here"
    todo = "pull it from an approved registry, or add the prefix to hardening/policies/{policy}.toml"
    remedy = Remedy(ADOPTED.repairs, Side.YOURS, Actor.FLEET, (source,))
    return _Broken("approved_source", image.seen_since, what, why, remedy, todo)


def under(address: str, prefix: str) -> bool:
    """Whether `address` lies under `prefix`, by whole parts: `r.example/golden` holds neither `r.example/golden-evil`
    nor `r.example:8443/golden`, another registry.
    """
    stem = prefix.rstrip("/")
    ends = ("/", ":", "@") if "/" in stem else ("/",)
    return bool(stem) and (address == stem or address.startswith(tuple(stem + end for end in ends)))
