"""The report: one self-contained HTML page on images, their dates, findings, fleets and what was done."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from hardening.catalog import load_policies, load_waivers
from hardening.findings import Finding, FindingKind, Outcome, Reason, ScanReport, Verdict
from hardening.foundation.console import out, print_json
from hardening.foundation.text import visible
from hardening.model import Waiver
from images.artifact import Artifact
from images.context import Context
from images.documents import to_json
from images.release.lifecycle import status
from pipelines.cli.rollout_output import MEANING
from pipelines.contract import AuditReport, Line, NightlyOutput
from pipelines.fleet.catalog import load_fleets
from pipelines.rollout.rollout_store import View, history
from pipelines.rollout.state import STEP
from pipelines.wiring import image_context

TEMPLATE = Path(__file__).with_name("report.html.j2")
AUDIT_LINES = 40
SCALE_DAYS = 60
Running = dict[str, tuple[str, ...]]


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


def gather(context: Context, night: NightlyOutput | None = None) -> ReportOutput:
    """Everything the report shows, from content and ledger; the world is not asked again."""
    waivers, today = load_waivers(context.settings.roots), context.now.date()
    policies = load_policies(context.settings.roots)
    running = context.ledger.running_digests()
    return ReportOutput(
        made_at=context.now,
        images=tuple(_image(context, name, running) for name in sorted({*context.definitions, *context.unsound})),
        members=_members(context, running),
        rollouts=_rollouts(context),
        waivers_active=tuple(w for w in waivers if w.expires >= today),
        waivers_expired=tuple(w for w in waivers if w.expires < today),
        policies_to_review=tuple(n for n, p in sorted(policies.items()) if p.review_by < today),
        audit=_done(context),
        night=night,
    )


def _image(context: Context, name: str, running: Running) -> ImageReport:
    """One image: its newest artifact and release, the last scan, the last verdict, who runs it."""
    artifact = context.ledger.latest_artifact(name, context.settings.platform)
    release = next((r for r in context.ledger.releases(name) if not r.pruned_at), None)
    scan = context.ledger.scan(artifact.digest) if artifact else None
    own = context.ledger.verdict(artifact.digest) if artifact else None
    verdict = own or (_told(context, artifact) if artifact else None)
    return ImageReport(
        name=name,
        content=artifact.digest if artifact else "",
        built_at=artifact.built_at if artifact else None,
        packages=len(artifact.packages) if artifact else 0,
        release=release.digest if release else "",
        status=status(release, context.now) if release else "unpublished",
        published_at=release.published_at if release else None,
        warn_at=release.warn_at if release else None,
        expires_at=release.expires_at if release else None,
        policy=verdict.policy if verdict else "",
        judged_at=verdict.judged_at if verdict else None,
        allowed=own.allowed if own else None,
        reasons=verdict.reasons if verdict else (),
        scanners=scan.reports if scan else (),
        findings=scan.findings if scan else (),
        running=tuple(sorted({member for one in (artifact, release) if one for member in running.get(one.digest, ())})),
    )


def _told(context: Context, artifact: Artifact) -> Verdict | None:
    """The verdict that a registry tells of, marked as such."""
    told = context.ledger.verdict(artifact.digest, told=True)
    return replace(told, policy=f"{told.policy} (as the registry tells, not judged here)") if told else None


def _members(context: Context, running: Running) -> tuple[MemberReport, ...]:
    """Every member of every fleet as it was last seen, with the newest release over what it runs."""
    lines = []
    for digest, members in running.items():
        ours = next(iter(context.ledger.releases_of_content(digest)), None) or context.ledger.release(digest)
        newest = next((r for r in context.ledger.releases(ours.name) if not r.pruned_at), None) if ours else None
        lines += [
            MemberReport(
                member=member, digest=digest, image=ours.name if ours else "",
                status=status(ours, context.now) if ours else "unknown",
                newest=bool(ours and newest and newest.content == ours.content),
            )
            for member in members
        ]  # fmt: skip
    return tuple(sorted(lines, key=lambda line: line.member))


def _rollouts(context: Context) -> tuple[RolloutReport, ...]:
    """The rollouts of every fleet that the ledger knows, the newest first."""
    views = [one for name in load_fleets(context.settings.roots) for one in history(context, name)]
    return tuple(_rollout(one) for one in sorted(views, key=lambda one: one.row.at, reverse=True))


def _rollout(one: View) -> RolloutReport:
    row, state = one.row, one.state
    steps = [StepReport(member=member.name, outcome=MEANING[member.phase], note=member.said) for member in one.members]
    return RolloutReport.of(
        row, replacement=one.replacement, back=one.back, started_at=row.begun_at,
        ended_at=state.ended_at if state else None, approved_by=one.plan.approved_by if one.plan else "",
        failure=state.failure if state else "", steps=tuple(steps),
    )  # fmt: skip


def _done(context: Context) -> tuple[AuditReport, ...]:
    """The last things that were done, the newest first; what a rollout did step by step is in its history."""
    lines = [line for line in context.ledger.audit_lines() if not line.action.startswith(STEP)]
    return tuple(map(AuditReport.of, reversed(lines[-AUDIT_LINES:])))


def write_report(context: Context, night: NightlyOutput | None = None) -> Path:
    """Write the page under the state directory; returns its path."""
    folder = context.settings.state_dir / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"report-{context.now:%Y%m%d-%H%M%S}.html"
    path.write_text(render_html(gather(context, night)), encoding="utf-8")
    return path


def render_html(report: ReportOutput) -> str:
    """The page as text; all in it is escaped and visible, and nothing is fetched. Pure but for reading its template."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_seen
    )
    environment.filters |= {"position": position, "short": short, "opinions": opinions, "disputed": disputed}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(report=report, days=SCALE_DAYS)


def _seen(value: object) -> object:
    """What the page shows of a value: strangers' text with all that is not seen made visible."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def position(moment: datetime, now: datetime, days: int = SCALE_DAYS) -> float:
    """Where `moment` stands on a time line that begins at `now` less a half of `days`, in percent of its length."""
    share = 50 + (moment - now).total_seconds() / 86400 / days * 100
    return round(min(100.0, max(0.0, share)), 2)


def short(text: str) -> str:
    """`text` with every digest cut to the twelve digits by which people know it."""
    return re.sub(r"sha256:([0-9a-f]{12})[0-9a-f]{52}", r"\1", text)


def opinions(finding: Finding, image: ImageReport) -> list[tuple[str, str]]:
    """Who says what of a finding; a judge that looked for the same vulnerabilities and says nothing is `silent`.

    Scanners of other kinds have rules of their own: that one knows no rule of the other is no opinion.
    """
    said = dict(finding.scanners)
    looked = {
        scanner.scanner
        for scanner in image.scanners
        if scanner.kind == finding.kind == FindingKind.VULNERABILITY and scanner.outcome in (Outcome.PASS, Outcome.FAIL)
    }
    return [(who, said.get(who, "silent")) for who in sorted(looked | set(said))]


def disputed(finding: Finding, image: ImageReport) -> bool:
    """Whether the scanners disagree about it."""
    return len({opinion for _, opinion in opinions(finding, image)}) > 1


def make_report(*, as_json: bool) -> None:
    """Write the report, or print what it would show as JSON."""
    context = image_context(looks=True)
    if as_json:
        print_json(to_json(gather(context)))
    else:
        out().print(str(write_report(context)), soft_wrap=True)
