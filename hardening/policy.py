"""Policies: what people write in `hardening/policies/`, and whether one is at least as strict as another. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Annotated

from pydantic import Field

from hardening.foundation.content import Content
from hardening.foundation.durations import Duration, shown
from hardening.foundation.wording import matching
from hardening.model import LENIENT_FIRST, WORST_FIRST, Enforcement, Name, NonEmpty, Severity


class Rule(Content):
    """How a broken rule is treated, and from when a running instance is: `grace` after the violation began."""

    enforcement: Enforcement = Enforcement.ENFORCE
    grace: Duration = Field("0s", validate_default=True)


class AgeRule(Rule):
    """An age limit."""

    limit: Duration


class SourceRule(Rule):
    """Where images may come from: prefixes of registry addresses; empty: only the configured registry."""

    prefixes: tuple[str, ...] = ()


class FixWindow(Rule):
    """A known vulnerability with a fix must be gone within `within` of the fix being known to us.

    Covers vulnerabilities of `severity` or worse. Where scanners name no severity, the window `unknown` holds, and
    without one the finding is treated as critical; a window for `exploited` ones covers unknown severities too.
    Of several windows that cover a finding the strictest counts. `grace` is added to `within`.
    """

    severity: Severity
    within: Duration = Field("0s", validate_default=True)
    exploited: bool = Field(False, description="true: only vulnerabilities known to be exploited")


class Judges(Rule):
    """How many vulnerability scanners must really have evaluated the image, with data how old at most."""

    minimum: Annotated[int, Field(ge=1)] = 1
    data_max_age: Duration = Field("7d", validate_default=True)
    accept_sample: bool = Field(
        False, description="true: the sample of advisories that ships counts, whatever its age; for trying out only"
    )


class Explanation(Content):
    """Why images do not follow a rule of a benchmark, decided for good; what only waits takes a waiver, which ends."""

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
    """How many of an image's packages, in percent, somebody else must have built again to the same bytes.

    Only recorded unless `enforcement` says otherwise. The data is `feeds.reproduced`, and may be as old as
    `image.judges.data_max_age` lets any data be.
    """

    enforcement: Enforcement = Enforcement.AUDIT
    minimum_percent: Annotated[float, Field(ge=0, le=100)]


class ImageRules(Content):
    """What an image must satisfy to be published."""

    judges: Judges = Judges()
    vulnerabilities: tuple[FixWindow, ...] = ()
    unfixed: Rule = Field(Rule(enforcement=Enforcement.AUDIT), description="vulnerabilities without a fixed version")
    secrets: Rule = Rule()
    misconfigurations: Rule = Rule(enforcement=Enforcement.WARN)
    benchmark: Benchmark | None = Field(None, description="for machines; what it demands was evaluated, or refused")

    reproduced: Reproduced | None = Field(None, description="how many packages others must have reproduced; none: any")

    @property
    def has_window(self) -> bool:
        """Whether it enforces, of any vulnerability at all, that it is gone within some time."""
        return any(window.enforcement is Enforcement.ENFORCE for window in self.vulnerabilities)


class RunningRules(Content):
    """What a running instance must satisfy."""

    expired: Rule = Rule()
    revoked: Rule = Rule()
    unknown: Rule = Rule(enforcement=Enforcement.WARN)
    superseded: Rule = Rule(enforcement=Enforcement.WARN)
    refused: Rule = Field(Rule(), description="the release's own verdict would be `refused` by the present policy")
    max_age: AgeRule | None = None
    approved_source: SourceRule | None = None


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


def weaknesses(policy: Policy, floor: Policy | None) -> tuple[str, ...]:
    """In what `policy` is weaker than `floor`, a line for each field; and that it has no window, where it has none.

    Equal or stricter everywhere: none.
    """
    found = [] if policy.image.has_window else ["image.vulnerabilities: no window is enforced"]
    if floor is not None:
        found += [*_image(policy.image, floor.image), *_running(policy.running, floor.running)]
    return tuple(found)


def _image(ours: ImageRules, floor: ImageRules) -> Iterator[str]:
    yield from _judges(ours.judges, floor.judges)
    yield from _windows(ours, floor)
    for name in ("unfixed", "secrets", "misconfigurations"):
        yield from _rule(f"image.{name}", getattr(ours, name), getattr(floor, name))
    yield from _benchmark(ours.benchmark, floor.benchmark)
    yield from _reproduced(ours.reproduced, floor.reproduced)


def _judges(ours: Judges, floor: Judges) -> Iterator[str]:
    yield from _rule("image.judges", ours, floor)
    if ours.minimum < floor.minimum:
        yield f"image.judges.minimum: {ours.minimum}, and the floor asks for {floor.minimum}"
    if (age := ours.data_max_age) > floor.data_max_age:
        yield f"image.judges.data_max_age: {shown(age)}, and the floor accepts {shown(floor.data_max_age)}"
    if ours.accept_sample and not floor.accept_sample:
        yield "image.judges.accept_sample: true, and the floor does not accept the sample"


def _windows(ours: ImageRules, floor: ImageRules) -> Iterator[str]:
    """Each window of the floor needs, for every severity that it covers, one here that ends no later."""
    for severity in WORST_FIRST:
        for exploited in (False, True):
            for wanted in covering(floor.vulnerabilities, severity, exploited=exploited):
                there = covering(ours.vulnerabilities, severity, exploited=exploited)
                if not any(_as_strict(window, wanted) for window in there):
                    which = f"{'exploited ones' if exploited else 'those'} of severity {severity}"
                    until = shown(wanted.within + wanted.grace)
                    yield f"image.vulnerabilities: {which}, and the floor says {wanted.enforcement} after {until}"


def covering(windows: tuple[FixWindow, ...], severity: Severity, *, exploited: bool) -> list[FixWindow]:
    """The windows over vulnerabilities of that severity, exploited or not, as the gate applies them."""
    named = any(w.severity is Severity.UNKNOWN and not w.exploited for w in windows)
    return [window for window in windows if _covers(window, severity, exploited=exploited, unknown_is_named=named)]


def _covers(window: FixWindow, severity: Severity, *, exploited: bool, unknown_is_named: bool) -> bool:
    """Whether a window covers vulnerabilities of that severity (see FixWindow)."""
    if window.exploited and not exploited:
        return False
    if Severity.UNKNOWN in (window.severity, severity):
        same = window.severity is severity
        return same or (severity is Severity.UNKNOWN and (window.exploited or not unknown_is_named))
    return WORST_FIRST.index(severity) <= WORST_FIRST.index(window.severity)


def _as_strict(ours: FixWindow, floor: FixWindow) -> bool:
    return not _milder(ours.enforcement, floor.enforcement) and ours.within + ours.grace <= floor.within + floor.grace


def _benchmark(ours: Benchmark | None, floor: Benchmark | None) -> Iterator[str]:
    if floor is None:
        return
    if ours is None or ours.profile != floor.profile:
        yield f"image.benchmark.profile: {ours.profile if ours else 'none'}, and the floor asks for {floor.profile}"
        return
    yield from _rule("image.benchmark", ours, floor)
    for name in ("minimum_score", "minimum_rules"):
        if getattr(ours, name) < getattr(floor, name):
            yield f"image.benchmark.{name}: {getattr(ours, name)}, and the floor asks for {getattr(floor, name)}"
    for rule, told in ours.explained.items():
        known = floor.explained.get(rule)
        if known is None or not ("*" in known.subjects or set(told.subjects) <= set(known.subjects)):
            yield f"image.benchmark.explained.{rule}: the floor does not explain it for {', '.join(told.subjects)}"


def _reproduced(ours: Reproduced | None, floor: Reproduced | None) -> Iterator[str]:
    if floor is None:
        return
    if ours is None:
        yield "image.reproduced: not asked, and the floor asks for it"
        return
    yield from _rule("image.reproduced", ours, floor)
    if ours.minimum_percent < floor.minimum_percent:
        least = f"{ours.minimum_percent:g}, and the floor asks for {floor.minimum_percent:g}"
        yield f"image.reproduced.minimum_percent: {least}"


def _running(ours: RunningRules, floor: RunningRules) -> Iterator[str]:
    for name in RunningRules.model_fields:
        mine, wanted = getattr(ours, name), getattr(floor, name)
        if wanted and not mine:
            yield f"running.{name}: not asked, and the floor asks for it"
        elif wanted:
            yield from _rule(f"running.{name}", mine, wanted)
            if isinstance(mine, AgeRule) and mine.limit > wanted.limit:
                yield f"running.{name}.limit: {shown(mine.limit)}, and the floor says {shown(wanted.limit)}"
            if isinstance(mine, SourceRule) and not set(mine.prefixes) <= set(wanted.prefixes):
                yield f"running.{name}.prefixes: {', '.join(mine.prefixes)} are not all among the floor's"


def _rule(name: str, ours: Rule, floor: Rule) -> Iterator[str]:
    if _milder(ours.enforcement, floor.enforcement):
        yield f"{name}.enforcement: {ours.enforcement}, and the floor says {floor.enforcement}"
    if ours.grace > floor.grace:
        yield f"{name}.grace: {shown(ours.grace)}, and the floor says {shown(floor.grace)}"


def _milder(ours: Enforcement, floor: Enforcement) -> bool:
    return LENIENT_FIRST.index(ours) < LENIENT_FIRST.index(floor)
