"""What `report --json` prints, and what the page is made of: part of the contract, see `pipelines.contract`."""

from __future__ import annotations

from datetime import datetime

from hardening.findings import Finding, Reason, ScanReport
from hardening.model import Waiver
from pipelines.contract import Line, NightlyOutput


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
