"""The report: one self-contained HTML page on images, their dates, findings, fleets and what was done."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from hardening.catalog import load_policies, load_waivers
from images.artifact import Artifact, Release
from images.context import Context
from images.lifecycle import status
from pipelines.contract import ImageReport, NightlyOutput, ReportOutput, RolloutReport

TEMPLATE = Path(__file__).with_name("report.html.j2")
AUDIT_LINES = 40


def gather(context: Context, night: NightlyOutput | None = None) -> ReportOutput:
    """Everything the report shows, from content and ledger; the world is not asked again."""
    waivers = load_waivers(context.settings.roots)
    policies = load_policies(context.settings.roots)
    running = context.ledger.running_digests()
    return ReportOutput(
        made_at=context.now,
        images=tuple(_image(context, name, running) for name in sorted(context.definitions)),
        running={member: digest for digest, members in running.items() for member in members},
        rollouts=tuple(_rollouts(context)),
        waivers_active=tuple(w for w in waivers if w.expires >= context.now.date()),
        waivers_expired=tuple(w for w in waivers if w.expires < context.now.date()),
        policies_to_review=tuple(n for n, p in sorted(policies.items()) if p.review_by < context.now.date()),
        audit=tuple(
            f"{line.at:%Y-%m-%d %H:%M} {line.actor} {line.action} {line.subject} {line.detail}".strip()
            for line in context.ledger.audit_lines(AUDIT_LINES)
        ),
        night=night,
    )


def _image(context: Context, name: str, running: dict[str, tuple[str, ...]]) -> ImageReport:
    """One image: its newest artifact and release, the last scan, the last verdict, who runs it."""
    artifact = context.ledger.latest_artifact(name, context.settings.platform)
    release = next((r for r in context.ledger.releases(name) if not r.pruned_at), None)
    scan = context.ledger.scan(artifact.digest) if artifact else None
    verdict = context.ledger.verdict(artifact.digest) if artifact else None
    users = _users(artifact, release, running)
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
        allowed=verdict.allowed if verdict else None,
        reasons=verdict.reasons if verdict else (),
        scanners=scan.reports if scan else (),
        findings=scan.findings if scan else (),
        running=users,
    )


def _users(artifact: Artifact | None, release: Release | None, running: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    digests = {artifact.digest if artifact else "", release.digest if release else ""}
    return tuple(sorted({member for digest in digests for member in running.get(digest, ())}))


def _rollouts(context: Context) -> list[RolloutReport]:
    """The rollouts of every fleet that the ledger knows, the newest first."""
    from pipelines.fleet.catalog import load_fleets

    rows = [row for name in load_fleets(context.settings.roots) for row in context.ledger.rollouts(name)]
    return [
        RolloutReport(id=row.id, fleet=row.fleet, at=row.at, open=row.open, owner=row.owner, state=row.state)
        for row in sorted(rows, key=lambda row: row.at, reverse=True)
    ]


def write_report(context: Context, night: NightlyOutput | None = None) -> Path:
    """Write the page under the state directory; returns its path."""
    folder = context.settings.state_dir / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"report-{context.now:%Y%m%d-%H%M%S}.html"
    path.write_text(render_html(gather(context, night)), encoding="utf-8")
    return path


def render_html(report: ReportOutput) -> str:
    """The page as text. Pure but for reading its template."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["position"] = position
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(report=report)


def position(moment: datetime, now: datetime, days: int = 60) -> float:
    """Where `moment` stands on a time line that begins at `now` less a half of `days`, in percent of its length."""
    share = 50 + (moment - now).total_seconds() / 86400 / days * 100
    return round(min(100.0, max(0.0, share)), 2)
