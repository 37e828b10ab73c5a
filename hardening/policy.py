"""Policies: the format of `hardening/policies/`, and whether one is at least as strict as another. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time
from fnmatch import translate
from functools import cached_property, lru_cache
from itertools import product
from types import MappingProxyType
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, model_validator

from hardening.findings import Reason
from hardening.foundation.content import Content
from hardening.foundation.durations import Duration, shown
from hardening.foundation.wording import matching
from hardening.model import LENIENT_FIRST, WORST_FIRST, Enforcement, Name, NonEmpty, Profile, ProfileEntry, Severity
from hardening.trust import Trust, less_trust


class Rule(Content):
    """How a broken rule is treated, and from when a running instance is: `grace` after the violation began.

    A rule that is enforced `from` a day only warns before it; days begin at 00:00 UTC.
    """

    enforcement: Enforcement = Enforcement.ENFORCE
    grace: Duration = Field("0s", validate_default=True)
    from_date: date | None = Field(
        None, alias="from", description="the day from which it is enforced; before, it warns"
    )

    @model_validator(mode="after")
    def _enforced_then(self) -> Self:
        if self.from_date and self.enforcement is not Enforcement.ENFORCE:
            raise ValueError(f'from is for what is enforced from that day on, and this is "{self.enforcement}"')
        return self

    @property
    def begins(self) -> datetime | None:
        """The moment from which it is enforced; None: always."""
        return datetime.combine(self.from_date, time(), UTC) if self.from_date else None

    def on(self, day: date) -> Self:
        """The rule as it is treated on `day`."""
        waits = self.from_date is not None and day < self.from_date
        return self.model_copy(update={"enforcement": Enforcement.WARN}) if waits else self

    def treated(self, reason: Reason) -> Reason:
        """A reason against what breaks this rule, which is given as it is treated on that day (`on`)."""
        waits = f"; enforced from {self.from_date} on" if self.waits else ""
        return replace(reason, enforcement=self.enforcement, what=reason.what + waits, deadline=self.begins)

    @property
    def waits(self) -> bool:
        """Whether the rule, given as it is treated on some day, is not enforced yet."""
        return self.from_date is not None and self.enforcement is Enforcement.WARN


class AgeRule(Rule):
    """An age limit."""

    limit: Duration


class SourceRule(Rule):
    """Where images may come from: prefixes of registry addresses; empty: only the configured registry."""

    prefixes: tuple[str, ...] = ()


class AllowingRule(Rule):
    """A rule with exceptions: globs for what is allowed."""

    allowed: tuple[str, ...] = ()

    def without_allowed(self, found: Iterable[str]) -> tuple[str, ...]:
        """Of what was found, that which no glob allows."""
        if not self.allowed:
            return tuple(found)
        allows = _any_of(self.allowed).match
        return tuple(one for one in found if not allows(one))


@lru_cache(maxsize=1024)
def _any_of(globs: tuple[str, ...]) -> re.Pattern[str]:
    """What matches any of some globs: one for many names, of which a container may have hundreds."""
    return re.compile("|".join(map(translate, globs)))


def _recorded(what: str, *allowed: str) -> Any:
    """A rule that only records until a policy asks for more."""
    rule = AllowingRule(enforcement=Enforcement.AUDIT, allowed=allowed)
    return Field(rule, description=f"allowed: globs over {what}")


def _only_recorded() -> Any:
    return Rule(enforcement=Enforcement.AUDIT)


class FixWindow(Rule):
    """A known vulnerability with a fix must be gone within `within` of our first knowing the fix.

    Covers vulnerabilities of `severity` or worse. Where scanners name no severity, the window `unknown` holds, and
    without one the finding is treated as critical; a window for `exploited` ones or by `epss` covers unknown severities
    too. Of several windows that cover a finding the strictest counts. `grace` is added to `within`. One whose score is
    unknown is covered by every other window.
    """

    severity: Severity
    within: Duration = Field("0s", validate_default=True)
    exploited: bool = Field(False, description="true: only vulnerabilities known to be exploited")
    epss: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="only vulnerabilities that are exploited within 30 days with at least this probability (EPSS)"
    )

    @property
    def selects(self) -> bool:
        """Whether it covers some vulnerabilities of a severity alone."""
        return self.exploited or self.epss is not None


class Judges(Rule):
    """How many vulnerability scanners must have evaluated the image, and the maximum age of their data."""

    minimum: Annotated[int, Field(ge=1)] = 1
    data_max_age: Duration = Field("7d", validate_default=True)
    accept_sample: bool = Field(
        False, description="true: the sample of advisories that ships counts, whatever its age; for trying out only"
    )
    uncovered: Enforcement = Field(
        Enforcement.ENFORCE,
        description="packages of an ecosystem (npm, pypi, …) that no scanner which counts evaluated",
    )


class Explanation(Content):
    """Why images permanently do not follow a benchmark's rule; for temporary exceptions write a waiver, which ends."""

    reason: NonEmpty
    owner: NonEmpty
    subjects: tuple[str, ...] = Field(("*",), description="globs over names of definitions")


class Benchmark(Rule):
    """A list of rules that a machine image is measured by (OpenSCAP's content for its own release).

    Of the rules that could be evaluated, at least `minimum_rules`, `minimum_score` percent must hold; and each one that
    does not must be explained here or waived.
    """

    profile: Annotated[str, matching(r"^[a-z0-9_]+$", "a profile of the content, such as cis_level1_server")]
    minimum_score: Annotated[float, Field(gt=0, le=100)] = 95
    minimum_rules: Annotated[int, Field(ge=1)] = 1
    explained: dict[Annotated[str, matching(r"^[A-Za-z0-9_.-]+$", "a rule's short name")], Explanation] = {}


class Reproduced(Rule):
    """The percentage of an image's packages that somebody else must have reproduced bit for bit.

    Only recorded unless `enforcement` says otherwise. The data is `feeds.reproduced`, and may be as old as
    `image.judges.data_max_age` lets any data be.
    """

    enforcement: Enforcement = Enforcement.AUDIT
    minimum_percent: Annotated[float, Field(ge=0, le=100)]


ProfileName = Annotated[str, matching(r"^([a-z0-9][a-z0-9-]*)?$", "the name of a profile; empty: none")]


class RequiredProfiles(Content):
    """The profile that an image of each kind must hold, whatever profile its definition has; empty: none.

    Only this checkout and the content roots of `judging.roots` say what is in it: controls, scripts and params.
    """

    container: ProfileName = "container-base"
    static: ProfileName = Field("container-static", description="for containers of the bootstrap variant `static`")
    machine: ProfileName = "machine-base"


class ImageRules(Content):
    """What an image must satisfy to be published."""

    controls: RequiredProfiles = RequiredProfiles()
    judges: Judges = Judges()
    vulnerabilities: tuple[FixWindow, ...] = ()
    unfixed: Rule = Field(Rule(enforcement=Enforcement.AUDIT), description="vulnerabilities without a fixed version")
    secrets: Rule = Rule()
    misconfigurations: Rule = Rule(enforcement=Enforcement.WARN)
    benchmark: Benchmark | None = Field(None, description="for machines; what it demands was evaluated, or refused")

    reproduced: Reproduced | None = Field(None, description="how many packages others must have reproduced; none: any")

    @property
    def has_window(self) -> bool:
        """Whether it enforces, of any vulnerability at all, that it is gone within some time.

        A window by EPSS does not count: without scores it covers nothing.
        """
        return any(w.enforcement is Enforcement.ENFORCE and w.epss is None for w in self.vulnerabilities)


WRITTEN_BY_DESIGN = ("/tmp/*", "/var/tmp/*", "/run/*", "/var/run/*", "/var/log/*", "/var/cache/*")  # noqa: S108 - in containers


class RunningRules(Content):
    """What a running instance must satisfy; docs/runtime-rules.md has reason and cost of rules about how it runs."""

    expired: Rule = Rule()
    revoked: Rule = Rule()
    unknown: Rule = Rule(enforcement=Enforcement.WARN)
    superseded: Rule = Rule(enforcement=Enforcement.WARN)
    refused: Rule = Field(Rule(), description="the release's own verdict would be `refused` by the present policy")
    vulnerable: Rule = Field(
        Rule(enforcement=Enforcement.AUDIT),
        description="a fix is known, and the policy still gives time for it, or only warns of it",
    )
    max_age: AgeRule | None = None
    approved_source: SourceRule | None = None

    root_user: Rule = _only_recorded()
    privileged: Rule = _only_recorded()
    docker_socket: Rule = _only_recorded()
    host_mount: AllowingRule = _recorded("paths of the host, such as /srv/data*")
    added_capabilities: AllowingRule = _recorded("capabilities", "NET_BIND_SERVICE")
    writable_root: Rule = _only_recorded()
    no_limits: AllowingRule = _recorded("memory, cpus and pids: what may be without limit", "cpus")
    new_privileges: Rule = _only_recorded()
    host_namespaces: AllowingRule = _recorded("network, pid, ipc, uts, user and cgroup")
    daemon_defaults: Rule = _only_recorded()

    imdsv1: Rule = _only_recorded()
    unencrypted_volume: Rule = _only_recorded()
    public_address: Rule = _only_recorded()
    open_group: AllowingRule = _recorded("protocol and port, such as tcp 443", "tcp 80", "tcp 443")

    changed_files: AllowingRule = _recorded("paths in the container", *WRITTEN_BY_DESIGN)
    foreign_processes: AllowingRule = _recorded(
        "programs with their user: `bash as root`, `sleep … as *` with arguments"
    )
    changed_settings: AllowingRule = _recorded("what changed, such as type *")
    template_drift: AllowingRule = _recorded("what differs, such as type *")

    @model_validator(mode="before")
    @classmethod
    def _allowed_as_before(cls, given: Any) -> Any:
        """A rule that is enforced otherwise allows what it did: only `allowed` itself changes that."""
        if not isinstance(given, dict):
            return given
        kept = {
            name: {"allowed": field.default.allowed, **given[name]}
            for name, field in cls.model_fields.items()
            if isinstance(field.default, AllowingRule) and isinstance(given.get(name), dict)
        }
        return given | kept


class Policy(Content):
    """What a published image and a running instance must satisfy. Past `review_by` the policy itself is a finding."""

    name: Name
    title: NonEmpty
    owner: NonEmpty
    rationale: NonEmpty
    review_by: date
    exception_contact: NonEmpty = Field(description="where an application developer asks for a waiver")
    image: ImageRules = ImageRules()
    running: RunningRules = RunningRules()
    trust: Trust = Trust()

    @cached_property
    def days(self) -> tuple[date, ...]:
        """The days on which rules of it begin to be enforced, in order."""
        of_rules = {rule.from_date for part in (self.image, self.running) for rule in _rules(part)}
        return tuple(sorted(day for day in of_rules if day))

    def on(self, day: date) -> Policy:
        """The policy as it is on `day`: what is enforced from a later day only warns."""
        if not any(day < begins for begins in self.days):
            return self
        return self.model_copy(update={"image": _on(self.image, day), "running": _on(self.running, day)})


Rules = TypeVar("Rules", ImageRules, RunningRules)


def _rules(part: ImageRules | RunningRules) -> Iterator[Rule]:
    for name in type(part).model_fields:
        value = getattr(part, name)
        yield from value if isinstance(value, tuple) else (value,) if isinstance(value, Rule) else ()


def _on(part: Rules, day: date) -> Rules:
    named = {name: getattr(part, name) for name in type(part).model_fields}
    then = {
        name: tuple(rule.on(day) for rule in value) if isinstance(value, tuple) else value.on(day)
        for name, value in named.items()
        if isinstance(value, tuple | Rule)
    }
    return part.model_copy(update=then)


def weaknesses(
    policy: Policy, floor: Policy | None, today: date = date.min, profiles: Mapping[str, Profile] = MappingProxyType({})
) -> tuple[str, ...]:
    """In what `policy` is weaker than `floor`, a line for each field; and that it has no window, where it has none.
    `profiles` has those that the two require, by name.

    Compared as both are on `today`, and on each later day on which a rule of either begins: a day that has passed
    weakens nothing any more. Equal or stricter everywhere, from today on: none.
    """
    days = {today, *policy.days, *(floor.days if floor else ())}
    days |= {stage.from_date for one in profiles.values() for entry in one.controls for stage in entry.stages}
    found = (
        line
        for day in sorted(days)
        if day >= today
        for line in (
            *_weaker(policy.on(day), floor.on(day) if floor else None),
            *(_controls(policy.image.controls, floor.image.controls, profiles, day) if floor else ()),
        )
    )
    return tuple(dict.fromkeys(found))


def _weaker(policy: Policy, floor: Policy | None) -> Iterator[str]:
    if not policy.image.has_window:
        yield "image.vulnerabilities: no window is enforced"
    if floor is not None:
        yield from (*_image(policy.image, floor.image), *_running(policy.running, floor.running))
        yield from less_trust(policy.trust, floor.trust)


def _image(ours: ImageRules, floor: ImageRules) -> Iterator[str]:
    yield from _judges(ours.judges, floor.judges)
    yield from _windows(ours, floor)
    for name in ("unfixed", "secrets", "misconfigurations"):
        yield from _rule(f"image.{name}", getattr(ours, name), getattr(floor, name))
    yield from _benchmark(ours.benchmark, floor.benchmark)
    yield from _reproduced(ours.reproduced, floor.reproduced)


def _controls(
    ours: RequiredProfiles, floor: RequiredProfiles, profiles: Mapping[str, Profile], day: date
) -> Iterator[str]:
    """Of each kind, the controls of the floor's profile that ours lacks, asks with other params, or enforces less."""
    for kind in RequiredProfiles.model_fields:
        mine, wanted = getattr(ours, kind), getattr(floor, kind)
        if wanted and mine != wanted:
            own = {entry.control: entry for entry in profiles[mine].controls} if mine in profiles else {}
            asked = profiles[wanted].controls if own else ()
            if not own:
                yield f"image.controls.{kind}: {mine or 'none'}, but the floor requires {wanted}"
            for entry in asked:
                if differs := _laxer(own.get(entry.control), entry, day):
                    yield f"image.controls.{kind}: {mine} {differs} {entry.control} than the floor's {wanted}"


def _laxer(ours: ProfileEntry | None, floor: ProfileEntry, day: date) -> str:
    if ours is None or _milder(ours.enforced(day), floor.enforced(day)):
        return "demands less of"
    return "gives other params to" if ours.params != floor.params else ""


def _judges(ours: Judges, floor: Judges) -> Iterator[str]:
    yield from _rule("image.judges", ours, floor)
    if ours.minimum < floor.minimum:
        yield f"image.judges.minimum: {ours.minimum}, but the floor requires {floor.minimum}"
    if (age := ours.data_max_age) > floor.data_max_age:
        yield f"image.judges.data_max_age: {shown(age)}, and the floor accepts {shown(floor.data_max_age)}"
    if ours.accept_sample and not floor.accept_sample:
        yield "image.judges.accept_sample: true, and the floor does not accept the sample"
    if _milder(ours.uncovered, floor.uncovered):
        yield f"image.judges.uncovered: {ours.uncovered}, and the floor says {floor.uncovered}"


def _windows(ours: ImageRules, floor: ImageRules) -> Iterator[str]:
    """Each window of the floor needs, for all that it covers, one here that ends no later.

    Between two scores that windows begin at, a score changes nothing: these and an unknown one are all cases.
    """
    scores = sorted(
        {window.epss for window in (*ours.vulnerabilities, *floor.vulnerabilities) if window.epss is not None}
    )
    for severity, exploited, epss in product(WORST_FIRST, (False, True), (None, *scores)):
        for wanted in covering(floor.vulnerabilities, severity, exploited=exploited, epss=epss):
            there = covering(ours.vulnerabilities, severity, exploited=exploited, epss=epss)
            if not any(_as_strict(window, wanted) for window in there):
                which = f"{'exploited ones' if exploited else 'those'} of severity {severity}"
                likely = "" if wanted.epss is None else f" with an EPSS score from {wanted.epss:g}"
                until = shown(wanted.within + wanted.grace)
                yield f"image.vulnerabilities: {which}{likely}, and the floor says {wanted.enforcement} after {until}"


def covering(
    windows: Sequence[FixWindow], severity: Severity, *, exploited: bool, epss: float | None = None
) -> list[FixWindow]:
    """The windows over vulnerabilities of that severity, exploited or not, as the gate applies them.

    `epss`: how likely they are to be exploited, from 0 to 1; None: unknown.
    """
    named = any(w.severity is Severity.UNKNOWN and not w.selects for w in windows)
    meant = (w for w in windows if w.epss is None or (epss is not None and epss >= w.epss))
    return [window for window in meant if _covers(window, severity, exploited=exploited, unknown_is_named=named)]


def _covers(window: FixWindow, severity: Severity, *, exploited: bool, unknown_is_named: bool) -> bool:
    """Whether a window covers vulnerabilities of that severity (see FixWindow)."""
    if window.exploited and not exploited:
        return False
    if Severity.UNKNOWN in (window.severity, severity):
        same = window.severity is severity
        return same or (severity is Severity.UNKNOWN and (window.selects or not unknown_is_named))
    return WORST_FIRST.index(severity) <= WORST_FIRST.index(window.severity)


def _as_strict(ours: FixWindow, floor: FixWindow) -> bool:
    return not _milder(ours.enforcement, floor.enforcement) and ours.within + ours.grace <= floor.within + floor.grace


def _benchmark(ours: Benchmark | None, floor: Benchmark | None) -> Iterator[str]:
    if floor is None:
        return
    if ours is None or ours.profile != floor.profile:
        yield f"image.benchmark.profile: {ours.profile if ours else 'none'}, but the floor requires {floor.profile}"
        return
    yield from _rule("image.benchmark", ours, floor)
    for name in ("minimum_score", "minimum_rules"):
        if getattr(ours, name) < getattr(floor, name):
            yield f"image.benchmark.{name}: {getattr(ours, name)}, but the floor requires {getattr(floor, name)}"
    for rule, told in ours.explained.items():
        known = floor.explained.get(rule)
        if known is None or not ("*" in known.subjects or set(told.subjects) <= set(known.subjects)):
            yield f"image.benchmark.explained.{rule}: the floor does not explain it for {', '.join(told.subjects)}"


def _reproduced(ours: Reproduced | None, floor: Reproduced | None) -> Iterator[str]:
    if floor is None:
        return
    if ours is None:
        yield "image.reproduced: not asked, but the floor requires it"
        return
    yield from _rule("image.reproduced", ours, floor)
    if ours.minimum_percent < floor.minimum_percent:
        least = f"{ours.minimum_percent:g}, but the floor requires {floor.minimum_percent:g}"
        yield f"image.reproduced.minimum_percent: {least}"


def _running(ours: RunningRules, floor: RunningRules) -> Iterator[str]:
    for name in RunningRules.model_fields:
        mine, wanted = getattr(ours, name), getattr(floor, name)
        if wanted and not mine:
            yield f"running.{name}: not asked, but the floor requires it"
        elif wanted and not _only_recorded_by(wanted, mine):
            yield from _rule(f"running.{name}", mine, wanted)
            if isinstance(mine, AgeRule) and mine.limit > wanted.limit:
                yield f"running.{name}.limit: {shown(mine.limit)}, and the floor says {shown(wanted.limit)}"
            if isinstance(mine, AllowingRule) and (more := sorted(set(mine.allowed) - set(wanted.allowed))):
                yield f"running.{name}.allowed: {', '.join(more)}, and the floor does not allow that"
            if isinstance(mine, SourceRule) and not set(mine.prefixes) <= set(wanted.prefixes):
                yield f"running.{name}.prefixes: {', '.join(mine.prefixes)} are not all among the floor's"


def _only_recorded_by(floor: Rule, ours: Rule) -> bool:
    """Whether the floor demands nothing, for it only records: what we warn about or enforce is stricter anyhow."""
    return floor.enforcement is Enforcement.AUDIT and ours.enforcement is not Enforcement.AUDIT


def _rule(name: str, ours: Rule, floor: Rule) -> Iterator[str]:
    if _milder(ours.enforcement, floor.enforcement):
        until = f" until {ours.from_date}" if ours.waits else ""
        yield f"{name}.enforcement: {ours.enforcement}{until}, and the floor says {floor.enforcement}"
    if ours.grace > floor.grace:
        yield f"{name}.grace: {shown(ours.grace)}, and the floor says {shown(floor.grace)}"


def _milder(ours: Enforcement, floor: Enforcement) -> bool:
    return LENIENT_FIRST.index(ours) < LENIENT_FIRST.index(floor)
