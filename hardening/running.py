"""What a running instance must satisfy: each broken rule is a reason with since and deadline. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from hardening import runtime
from hardening.findings import Actor, Reason, Remedy, Repair, Side, since_text
from hardening.foundation.durations import shown
from hardening.model import LENIENT_FIRST, Enforcement, Waiver
from hardening.policy import Policy, Rule
from hardening.runtime import Facts, Observed, RuntimeRule
from hardening.waivers import ActiveWaivers, cited

UNREAD = "unread"  # the rule that what could not be read breaks
SHOWN = 6  # things that a sentence names; the evidence names all


@dataclass(frozen=True)
class RunningFacts:
    """What is known of the image that a member runs. Dates are those of the newest release over the same content.

    `known`: a release of it was found; without one only its source and a revocation can be judged. `source` is the
    address it was pulled from as it was typed, `source_in_full` that with its host, `own_registry` the configured one.
    `seen_since` is when the member was first seen. `superseded_since` is when its channel moved on; `refused_since` and
    `refused_because`: the present policy would not let the release be published. `application`: the golden image is
    only what the member's image stands on. `lacks`: fixes of it that the policy gives time for or only warns of, the
    first known since `lacks_since`, until `lacks_until`. `followed`: others made it, and a tag of theirs says what is
    newer; `published_at` is then when it was first seen here. `unread`: its registry did not answer, so that
    of the image only what is known without it is judged. `golden`: its golden image's name. `newer_too`: what it is
    refused for, or lacks, holds for what supersedes it too.
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
    followed: bool = False
    source_in_full: str = ""
    unread: bool = False
    golden: str = ""
    newer_too: bool = False


MOST_KEPT = 10_000  # ways of running of which is kept what they break


@dataclass(frozen=True, slots=True)
class _Broken:
    """A broken rule, in the words for all members that break it alike.

    `since` is when that began; where it is None, or `always` is set, when the member was first seen. `until`: from when
    the deadline counts instead. `todo`, of an image: empty, or with `fleet`, `name` and `policy` to fill in.
    """

    rule: str
    since: datetime | None
    what: str
    why: str
    remedy: Remedy
    todo: str = ""
    until: datetime | None = None
    always: bool = False


@dataclass(frozen=True, slots=True)
class _RuleTerms:
    """What the policy requires by a rule, ready for output. `waits` ends the sentence."""

    enforcement: Enforcement
    grace: timedelta
    begins: datetime | None
    waits: str

    @classmethod
    def by(cls, rule: Rule) -> _RuleTerms:
        """By a rule as it is treated on that day."""
        waits = f"; enforced from {rule.from_date} on" if rule.waits else ""
        return cls(rule.enforcement, rule.grace, rule.begins, waits)


class MemberJudge:
    """Judges members by one policy and its waivers at one moment; what is the same for many is computed once.

    `since` is when a violation began, `deadline` is since + the rule's grace, None for what only warns without any;
    `enforcement` is the rule's own also before the deadline, so that a replacement can be planned in time. What is
    enforced from a later day warns, and has that day as its deadline.
    An unknown image is unknown, never expired.
    """

    def __init__(self, policy: Policy, waivers: Iterable[Waiver], now: datetime) -> None:
        self._policy = policy.on(now.date())
        self._now = now
        self._waivers = ActiveWaivers(waivers, policy.exception_contact, now.date())
        self._images: dict[int, tuple[RunningFacts, tuple[_Broken, ...]]] = {}
        self._ways: dict[Hashable, tuple[_Broken, ...]] = {}
        running = self._policy.running
        self._asked = {name: _RuleTerms.by(rule) for name, rule in running if rule is not None}
        self._runtime = {
            kind: tuple((rule, rule.find, getattr(running, rule.name)) for rule in rules)
            for kind, rules in runtime.RULES.items()
        }

    def reasons(
        self, subject: str, image: RunningFacts, observed: Observed | None = None, seen_since: datetime | None = None
    ) -> tuple[Reason, ...]:
        """Every reason why `subject` is out of policy, waived ones included.

        `observed`: how it runs, where that is looked at; `seen_since` is when the member was first seen.
        """
        broken = self._of_image(image)
        ways, unread = self._of_runtime(image, observed) if observed else ((), ())
        if not (broken or ways or unread):
            return ()
        waivers = self._waivers.of(subject)
        found = [self._reason(subject, one, waivers, seen_since, self._todo(subject, image, one)) for one in broken]
        found += [self._reason(subject, one, waivers, seen_since, one.todo) for one in ways]
        if unread:
            found += self._unread(subject, unread, waivers)
        return tuple(found)

    def _of_image(self, image: RunningFacts) -> tuple[_Broken, ...]:
        """The rules that an image breaks: the same for all who run it, so each is judged once."""
        known = self._images.get(id(image))
        if known is None:
            source = _approved_source(self._policy, image)
            revoked, *dated = _dated(image, self._now)
            others = [*dated, _vulnerable(image)]
            if not (image.known or image.unread):
                others = [_unknown(image)]
            elif image.published_at or not image.unread:
                others.append(_max_age(self._policy, image, self._now))
            known = image, tuple(one for one in (revoked, source, *others) if one)
            self._images[id(image)] = known  # which keeps the image, and so its id
        return known[1]

    def _todo(self, subject: str, image: RunningFacts, broken: _Broken) -> str:
        """What to do about a rule that an image breaks."""
        fleet, _, name = subject.partition("/")
        todo = broken.todo.format(fleet=fleet, name=name, policy=self._policy.name)
        golden = "" if todo else image.golden
        if golden and broken.remedy.actor is Actor.IMAGE:
            return (
                f"no release that replaces it is better: `./goldsmith image.publish {golden}` builds it again, "
                f"and image.promote moves its channel; then `./goldsmith roll.plan {fleet}`"
            )
        if golden and broken.remedy.repairs[0] is Repair.REBUILD:
            return f"build its image on the newest {golden} if it is not yet, then `./goldsmith roll.plan {fleet}`"
        return todo or f"replace it: `./goldsmith roll.plan {fleet}` shows how, and what to type next"

    def _reason(
        self, subject: str, broken: _Broken, waivers: Mapping[str, Waiver], seen_since: datetime | None, todo: str
    ) -> Reason:
        rule, asked = broken.rule, self._asked[broken.rule]
        since = (seen_since or broken.since if broken.always else broken.since or seen_since) or self._now
        due = self._due(asked, since, broken.until)
        how = by = ""
        if rule in waivers:
            by = cited(waivers[rule])
        elif asked.enforcement is not Enforcement.AUDIT:  # what is only recorded needs no waiver
            how = self._waivers.how_to_ask(rule, subject)
        what = f"{broken.what}{asked.waits}{since_text(since)}"
        return Reason(
            rule, subject, asked.enforcement, what, broken.why, todo, how, by, "", since, due, broken.remedy
        )  # fmt: skip

    @staticmethod
    def _due(asked: _RuleTerms, since: datetime, until: datetime | None) -> datetime | None:
        """When a violation must be gone. What only warns has a deadline where the policy names one: by a grace, or by
        the day from which it is enforced.
        """
        due = (until or since) + asked.grace if asked.grace or until else since
        if asked.begins and asked.begins > due:
            return asked.begins
        bound = asked.enforcement is Enforcement.ENFORCE or asked.grace or until
        return due if bound else None

    def _of_runtime(
        self, image: RunningFacts, observed: Observed
    ) -> tuple[tuple[_Broken, ...], tuple[tuple[str, str], ...]]:
        """What it breaks by how it runs, and the rules by which that could not be read, each with why."""
        if observed.now is None:
            return (), tuple((rule.name, observed.unread) for rule, _, _ in self._runtime[observed.kind])
        return self._of_way(image, observed, observed.now), observed.now.unread

    def _of_way(self, image: RunningFacts, observed: Observed, now: Facts) -> tuple[_Broken, ...]:
        """The rules that it breaks by how it runs: the same for all that run alike, so each way is judged once."""
        way = image.known, image.application, image.followed, runtime.way_of(observed)
        if (known := self._ways.get(way)) is None:
            if len(self._ways) >= MOST_KEPT:
                self._ways.clear()
            known = tuple(self._broken(image, observed, now))
            self._ways[way] = known
        return known

    def _broken(self, image: RunningFacts, observed: Observed, now: Facts) -> Iterator[_Broken]:
        first = observed.first
        for rule, find, asked in self._runtime[observed.kind]:
            if evidence := find(now, first, asked):
                since, always = runtime.first_broken(rule, asked, observed.history, first)
                what, remedy = _told(rule, evidence, _brought_by(rule, image, now))
                yield _Broken(rule.name, since or self._now, what, rule.why, remedy, rule.todo, always=always)

    def _unread(
        self, subject: str, rules: Iterable[tuple[str, str]], waivers: Mapping[str, Waiver]
    ) -> Iterator[Reason]:
        """What could not be judged, treated as the strictest of these rules treats what breaks it. Nothing waives it:
        a rule that may be broken is waived by its own name.
        """
        unread = {name: why for name, why in rules if name not in waivers}
        if not unread:
            return
        running = self._policy.running
        strictest = max((getattr(running, name).enforcement for name in unread), key=LENIENT_FIRST.index)
        evidence = tuple(f"{name}: {why}" for name, why in unread.items())
        what = f"how it runs could not be read: {'; '.join(dict.fromkeys(unread.values()))}"
        remedy = Remedy((Repair.CONFIGURE,), Side.YOURS, Actor.HOST, evidence)
        why, todo = "what cannot be read is not known to be good", "fix the access to it, and check again"
        now = self._now
        due = now if strictest is Enforcement.ENFORCE else None
        yield Reason(UNREAD, subject, strictest, what, why, todo, since=now, deadline=due, remedy=remedy)


def _brought_by(rule: RuntimeRule, image: RunningFacts, facts: Facts) -> Side | None:
    """Whose image brings it in, as a user that the image sets: the golden one, or the application's; None: neither."""
    if rule.name == "root_user" and isinstance(facts, runtime.ContainerFacts) and runtime.by_image(facts):
        ours = image.known and not image.application and not image.followed
        return Side.BASE if ours else Side.YOURS
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

    Where none is out that lacks the reason, its owner acts; else whose it is that runs.
    """
    newer = image.superseded_since is not None and not (image.newer_too and rule in ("refused", "vulnerable"))
    first = (Repair.REBUILD, Repair.ROLL) if image.application or not newer else (Repair.ROLL,)
    waive = () if rule == "revoked" else (Repair.WAIVE,)
    return Remedy((*first, *waive), Side.BASE, Actor.FLEET if newer else Actor.IMAGE, tuple(evidence.splitlines()))


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
        ("refused", image.refused_since, f"would not be published today: {'; '.join(because.splitlines())}", because,
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
    began = "first seen here" if image.followed else "published"
    what = f"{_called(image)} was {began} {(now - image.published_at).days} days ago"
    why = f"the policy allows {shown(rule.limit)}: an old image is one whose replacement nobody has practised"
    remedy = _of_base(image, "max_age", f"it was {began} at {image.published_at}")
    return _Broken("max_age", since, f"{what}, the policy allows {shown(rule.limit)}", why, remedy)


def _approved_source(policy: Policy, image: RunningFacts) -> _Broken | None:
    rule = policy.running.approved_source
    if rule is None:
        return None
    prefixes = rule.prefixes or ((image.own_registry,) if image.own_registry else ())
    if any(under(source, prefix) for source in (image.source, image.source_in_full) for prefix in prefixes):
        return None
    source = image.source_in_full or image.source or "an unknown place"
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
