"""What each command prints with `--json`: the contract with other programs. A schema of each stands in docs/schemas/.

Fields are added, never renamed or removed, within a major version.
"""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict

from hardening.findings import CheckResult, Finding, Reason, ScanReport
from hardening.model import Waiver
from images.plan.build_plan import Action, Change


class Line(BaseModel):
    """The base of everything that is printed: frozen, and complete."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @classmethod
    def of(cls, found: object) -> Self:
        """The line of a value whose fields have the same names."""
        return cls.model_validate(found, from_attributes=True)


def _brief(action: str, reasons: tuple[str, ...], stopped_by: str) -> tuple[str, ...]:
    """Reasons as a narrow cell can hold them: an error is told whole beside the table, and only once."""
    own = action in (Action.REFUSED, Action.FAILED) and not stopped_by
    return ("see its error, told beside this table",) if own else reasons


class DefinitionLine(Line):
    """`image.list`: one definition, and what is known of its newest artifact and release."""

    name: str
    title: str
    kind: str
    base: str
    profile: str
    policy: str
    digest: str
    candidate: str
    stable: str
    expires_at: datetime | None


class PlanLine(Line):
    """`image.plan`: what would happen to one image, and why."""

    name: str
    platform: str
    action: Action
    why: tuple[str, ...]
    changes: tuple[Change, ...]
    input_digest: str


class BuildLine(Line):
    """`image.build`: what became of one image; `seconds` of wall time; `waived`: what a waiver let pass; `stopped_by`:
    the image that it stands on and that was refused or failed.
    """

    name: str
    action: Action
    digest: str
    input_digest: str
    reasons: tuple[str, ...]
    seconds: float
    waived: tuple[str, ...]
    stopped_by: str = ""

    @property
    def because(self) -> tuple[str, ...]:
        """The reasons in a table; those of a refusal or failure of its own stand in full in its error."""
        return (*_brief(self.action, self.reasons, self.stopped_by), *self.waived)


class VerifyLine(Line):
    """`image.verify`, `image.boot` and `control.check`: the result of each control on one image."""

    name: str
    digest: str
    passed: bool
    checks: tuple[CheckResult, ...]


class ScanOutput(Line):
    """`image.scan`: what each scanner did, and the findings with everyone's opinion."""

    ref: str
    digest: str
    reports: tuple[ScanReport, ...]
    findings: tuple[Finding, ...]
    allowed: bool
    policy: str
    reasons: tuple[Reason, ...]


class PublishLine(Line):
    """`image.publish`: `action` is published, re-dated, unchanged, refused or failed; `stopped_by` as of a build."""

    name: str
    action: str
    content: str
    release: str
    expires_at: datetime | None
    reasons: tuple[str, ...]
    seconds: float
    stopped_by: str = ""

    @property
    def expires(self) -> str:
        """The day on which it expires."""
        return f"{self.expires_at:%Y-%m-%d}" if self.expires_at else ""

    @property
    def because(self) -> str:
        """The first reason; those of a refusal or failure of its own stand in full in its error."""
        return next(iter(_brief(self.action, self.reasons, self.stopped_by)), "")


class LockLine(Line):
    """`image.lock`: the digest that an upstream base is pinned to now."""

    name: str
    base: str
    digest: str


class ReleaseLine(Line):
    """`image.rebuild`: one release that the registry holds."""

    name: str
    release: str
    content: str
    expires_at: datetime


class PruneLine(Line):
    """`image.prune`: what becomes of one release: keep, warn, remove (planned) or removed. Of a machine's, `release` is
    one image, region/id, and `action` also deprecate(d) or disable(d).
    """

    name: str
    release: str
    action: str
    why: str


class WaiverLine(Waiver):
    """`policy.waivers`: one waiver, and how many days it still works; negative where it has ended."""

    days_left: int


class WhyOutput(Line):
    """`image.why`: which input changed since the last artifact."""

    name: str
    last_built_at: datetime | None
    last_digest: str
    would: Action
    changes: tuple[Change, ...]
    why: tuple[str, ...]


class FleetLine(Line):
    """`fleet.list`: one fleet."""

    name: str
    title: str
    kind: str
    selector: dict[str, str]
    policy: str
    replacement: str
    approval: str


class NightlyLine(Line):
    """`nightly`: one part of the night; `detail` says it in words for people.

    `kind` and its `status`: `index` and `feeds` are refreshed, unchanged or failed; an `image` is published, re-dated,
    unchanged, refused or failed; a `channel` that could not be moved is refused or failed; a `fleet` is compliant,
    empty, rolled, waits (for a person's approval), skipped, refused or failed.
    """

    kind: str
    name: str
    status: str
    detail: str
    seconds: float


class NightlyOutput(Line):
    """`nightly`: the whole night; the images it built, published (or re-dated) and promoted to `stable`; the exit code
    that says who must act, and where the report lies.
    """

    started_at: datetime
    ended_at: datetime
    built: tuple[str, ...]
    published: tuple[str, ...]
    promoted: tuple[str, ...]
    lines: tuple[NightlyLine, ...]
    summary: str
    exit_code: int
    report: str


class DemoOutput(Line):
    """`demo`: how long it took and what the requests saw. `kept_at` is where the service still answers, if kept."""

    seconds: float
    requests: int
    failed: int
    slowest_seconds: float
    report: str
    kept_at: str


class DoctorLine(Line):
    """`doctor`: one thing that Goldsmith needs of this machine, and what it costs to be without it."""

    what: str
    present: bool
    essential: bool
    detail: str
    costs: str


class ImageReport(Line):
    """`report`: one image as it stands. `status` is current, warn, expired, revoked or unpublished."""

    name: str
    content: str
    built_at: datetime | None
    packages: int
    release: str
    status: str
    published_at: datetime | None
    warn_at: datetime | None
    expires_at: datetime | None
    policy: str
    judged_at: datetime | None
    allowed: bool | None
    reasons: tuple[Reason, ...]
    scanners: tuple[ScanReport, ...]
    findings: tuple[Finding, ...]
    running: tuple[str, ...]


class MemberReport(Line):
    """`report`: one member of a fleet as it was last seen. `status` is its release's, `unknown` where none is ours;
    `newest` where nothing newer has been published.
    """

    member: str
    digest: str
    image: str
    status: str
    newest: bool


class StepReport(Line):
    """`report`: what became of one member in a rollout; `note` what a person should know of it."""

    member: str
    outcome: str
    note: str


class RolloutReport(Line):
    """`report`: one rollout as it was last saved. `failure` is empty where it went well; `back` where members went back
    from the replacement to what they ran before.
    """

    id: str
    fleet: str
    replacement: str
    back: bool
    started_at: datetime
    ended_at: datetime | None
    open: bool
    owner: str
    approved_by: str = ""
    failure: str
    steps: tuple[StepReport, ...]


class AuditReport(Line):
    """`report`: one thing that was done, by whom, to what."""

    at: datetime
    actor: str
    action: str
    subject: str
    detail: str


class ReportOutput(Line):
    """`report`: everything on one page."""

    made_at: datetime
    images: tuple[ImageReport, ...]
    members: tuple[MemberReport, ...]
    rollouts: tuple[RolloutReport, ...]
    waivers_active: tuple[Waiver, ...]
    waivers_expired: tuple[Waiver, ...]
    policies_to_review: tuple[str, ...]
    audit: tuple[AuditReport, ...]
    night: NightlyOutput | None = None
