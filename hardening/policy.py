"""What people write in `hardening/policies/`: what a published image and a running instance must satisfy, as models."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field

from hardening.foundation.content import Content
from hardening.foundation.durations import Duration
from hardening.foundation.wording import matching
from hardening.model import Enforcement, Name, NonEmpty, Severity


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


class ImageRules(Content):
    """What an image must satisfy to be published."""

    judges: Judges = Judges()
    vulnerabilities: tuple[FixWindow, ...] = ()
    unfixed: Rule = Field(Rule(enforcement=Enforcement.AUDIT), description="vulnerabilities without a fixed version")
    secrets: Rule = Rule()
    misconfigurations: Rule = Rule(enforcement=Enforcement.WARN)
    benchmark: Benchmark | None = Field(None, description="for machines; what it demands was evaluated, or refused")

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
