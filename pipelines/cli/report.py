"""The report: one self-contained HTML page on images, their dates, findings, fleets and the audit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, time
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from hardening.catalog import load_policies, load_waivers
from hardening.findings import FindingKind, Outcome, Verdict
from hardening.foundation.bulk import no_collection
from hardening.foundation.console import out, print_json
from hardening.foundation.content import find_content, read_toml
from hardening.foundation.errors import ContentError
from hardening.foundation.grouping import by_key
from hardening.foundation.settings import pretended
from images.artifact import Artifact, Release
from images.context import Context
from images.documents import to_json
from images.ledger import ClosedFix, Ledger
from images.packages.index import write_atomically
from images.release.lifecycle import status
from pipelines.cli.blast_radius import recorded_radius
from pipelines.cli.image_output import NOWHERE, Pointed, all_channels, finish, form_named, write_out
from pipelines.cli.latency import PatchLine, open_fixes, patch_latency, runs_of
from pipelines.cli.open_points import open_points
from pipelines.cli.page import render_html
from pipelines.cli.report_actions import actions_of, ending_of, night_failures
from pipelines.cli.report_exports import as_csv, as_metrics, as_sarif
from pipelines.cli.report_history import DAY, DAYS, HistoryReport, by_age, by_day, by_week
from pipelines.cli.report_output import (
    FleetReport,
    ImageReport,
    MemberReport,
    ReleaseReport,
    ReportOutput,
    RolloutReport,
    StepReport,
    WaveReport,
    changes_of,
    findings_of,
    fleet_report,
    reasons_of,
)
from pipelines.cli.rollout_output import FINISHED, MEANING
from pipelines.contract import AuditReport, NightlyOutput
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.judged_state import Checked, JudgedState, fleets_without_file, judged_state, last_checks
from pipelines.fleet.model import Fleet
from pipelines.fleet.violations import only_recorded
from pipelines.rollout.rollout_store import View, view
from pipelines.rollout.state import STEP, doing
from pipelines.wiring import image_context

LAST = "last.json"
AUDIT_LINES = 40
FORMS = ("html", "csv", "sarif", "prometheus")
ENDINGS = {".html": "html", ".csv": "csv", ".sarif": "sarif", ".sarif.json": "sarif", ".prom": "prometheus"}
EXPORTS = {"csv": as_csv, "sarif": as_sarif, "prometheus": as_metrics}
KEPT = 90  # pages; those before are removed as the next is written
JUDGING = ("controls", "functions", "policies", "profiles", "waivers")
NEWEST = 6  # releases of one image, and rollouts of one fleet, that are told of in full


class ContentRecords:
    """What the ledger keeps of contents, `newest` being those of the definitions; each is read once."""

    def __init__(self, ledger: Ledger, newest: Mapping[str, Artifact]) -> None:
        self.scan, self.verdict, self.checks = cache(ledger.scan), cache(ledger.verdict), cache(ledger.checks)
        self.newest, self._over = newest, cache(ledger.artifact_over)

    def artifact(self, content: str, name: str) -> Artifact | None:
        """The newest artifact of a content, that of the definition `name` before any other."""
        newest = self.newest.get(name)
        return newest if newest and newest.digest == content else self._over(content, name)


def gather(context: Context, night: NightlyOutput | None = None) -> ReportOutput:
    """Everything the report shows, from content and ledger; the world is not asked again.

    What is said of members is what `fleet.check`, the night or a rollout last found, with its time.
    """
    return gather_all(context, night)[0]


def gather_all(context: Context, night: NightlyOutput | None = None) -> tuple[ReportOutput, JudgedState]:
    """The same, and what each member violates."""
    with no_collection():
        return _gathered(context, night)


def _gathered(context: Context, night: NightlyOutput | None) -> tuple[ReportOutput, JudgedState]:
    roots, today = context.settings.roots, context.now.date()
    waivers, policies = load_waivers(roots), load_policies(roots)
    fleets = load_fleets(roots)
    known = last_checks(context, fleets)
    state = judged_state(context, known)
    members = _members(context, known, fleets)
    channels, releases, names = all_channels(context), context.ledger.releases(), _names(context)
    said = ContentRecords(context.ledger, context.ledger.latest_artifacts(names, context.settings.platform))
    newest = {one.name: one for one in reversed(releases) if not one.pruned_at}
    images = tuple(
        _image(context, name, members, channels.get(name, NOWHERE), newest.get(name), said) for name in names
    )
    fixes = patch_latency(f"{DAYS}d", context).patches
    points = open_points(open_fixes(fixes), state, context.parents)
    before = _last(context)
    report = ReportOutput(
        made_at=context.now,
        images=images,
        members=members,
        rollouts=_rollouts(context, fleets),
        waivers_active=tuple(w for w in waivers if w.expires >= today),
        waivers_expired=tuple(w for w in waivers if w.expires < today),
        policies_to_review=tuple(n for n, p in sorted(policies.items()) if p.review_by < today),
        audit=_done(context),
        night=night or (before.night if before else None),
        fleets=tuple(_fleet(fleet, known, members) for _, fleet in sorted(fleets.items())),
        findings=findings_of(images),
        reasons=reasons_of(images),
        open_points=tuple(one for one in points if not one.waived_by),
        waived_points=tuple(one for one in points if one.waived_by),
        history=_history(context, fixes, state, fleets),
        releases=tuple(_releases(context, images, state, said)),
        blast_radius=recorded_radius(context),
        without_file=tuple(fleets_without_file(context, fleets)),
    )
    reviews = {name: (datetime.combine(p.review_by, time(), UTC), p.owner) for name, p in policies.items()}
    published = {name: one.published_at for name, one in newest.items()}
    older = _judged_before(roots, report)
    failures = night_failures(before.night_failures if before else (), night, report, published)
    report = report.model_copy(update={
        "night_failures": failures, "judged_before": tuple(sorted(older)),
        "content_changed_at": max(older.values(), default=None),
    })  # fmt: skip
    told = report.model_copy(
        update={
            "actions": actions_of(report, {name: policy.owner for name, policy in policies.items()}),
            "ending": ending_of(report, reviews),
            "since": before.made_at if before else None,
            "changes": changes_of(before, report) if before else (),
        }
    )
    return told, state


def _judged_before(roots: Sequence[Path], report: ReportOutput) -> dict[str, datetime]:
    """The images and fleets whose last verdict is older than what it depends on, and when that was last changed."""
    folders = [root / "hardening" / part for root in roots for part in JUDGING]
    common = _changed_at(path for folder in folders for path in (folder, *folder.rglob("*")))  # a removed file too
    files = find_content(roots, "pipelines/fleets", "*.toml")
    dated = [(one.name, one.judged_at, common) for one in report.images]
    dated += [(one.name, one.checked_at, max(common, _changed_at([files[one.name]]))) for one in report.fleets]
    return {name: changed for name, at, changed in dated if at and at < changed}


def _changed_at(paths: Iterable[Path]) -> datetime:
    """When the newest of the paths was changed."""
    newest = 0.0
    for path in paths:
        with suppress(OSError):  # no such folder, or just removed
            newest = max(newest, path.lstat().st_mtime)
    return datetime.fromtimestamp(newest, UTC)


def _history(
    context: Context, fixes: Iterable[PatchLine], state: JudgedState, fleets: Collection[str]
) -> HistoryReport:  # fmt: skip
    ledger, now = context.ledger, context.now
    releases = ledger.releases()
    published = {one.digest: one.published_at for one in releases}
    closed = ((one.kind, one.closed_at, one.age_seconds) for one in fixes if one.closed_at and not one.waits_for)
    return HistoryReport(
        days=by_day(
            releases,
            runs_of(context, fleets),
            (one for one in ledger.fleet_days(now - DAYS * DAY) if one.fleet in fleets),
            now,
        ),
        weeks=by_week(closed, now),
        ages=by_age((published.get(one.release) for fleet in state.fleets for one in fleet.members), now),
    )


def _releases(
    context: Context, images: Iterable[ImageReport], state: JudgedState, said: ContentRecords
) -> Iterator[ReleaseReport]:
    """The newest releases of each image, the newest first."""
    running = Counter(one.release for fleet in state.fleets for one in fleet.members)
    closed = by_key((fix.content, fix) for fix in context.ledger.closed_fixes())
    releases = by_key((release.name, release) for release in context.ledger.releases())
    for image in images:
        yield from _releases_of(context, image, releases.get(image.name, ()), running, closed, said)


def _releases_of(
    context: Context, image: ImageReport, releases: Sequence[Release], running: Mapping[str, int],
    closed: Mapping[str, Sequence[ClosedFix]], said: ContentRecords,
) -> Iterator[ReleaseReport]:  # fmt: skip
    """`running`: members by a release's digest; `closed`: by content, what it was the first to be without."""
    channels = {"candidate": image.candidate, "stable": image.stable}
    built = {one.content: said.artifact(one.content, one.name) for one in releases[: NEWEST + 1]}
    for number, release in enumerate(releases[:NEWEST]):
        before = next((one for one in releases[number + 1 :] if one.content != release.content), None)
        new, old = built[release.content], built.get(before.content) if before else None
        yield ReleaseReport(
            image=release.name, digest=release.digest, content=release.content, status=status(release, context.now),
            published_at=release.published_at, expires_at=release.expires_at,
            channels=tuple(channel for channel, digest in channels.items() if digest == release.digest),
            members=running.get(release.digest, 0), packages=len(new.packages) if new else 0,
            changes=tuple(_changed_packages(old, new)) if old and new else (),
            closed=tuple(f"{one.vulnerability} in {one.package}" for one in closed.get(release.content, ())),
            evidence=tuple(_evidence(context, said, release)),
        )  # fmt: skip


def _changed_packages(old: Artifact, new: Artifact) -> Iterator[str]:
    """Which packages an artifact has otherwise than one before it, a line for each."""
    before = {(one.name, one.architecture): one.version for one in old.packages}
    after = {(one.name, one.architecture): one.version for one in new.packages}
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if was != now:
            yield f"{key[0]} {was or 'not there'} → {now or 'gone'}"


def _evidence(context: Context, said: ContentRecords, release: Release) -> Iterator[str]:
    """A line for each thing that is known of a release."""
    content = release.content
    if verdict := said.verdict(content, release.name) or said.verdict(content, release.name, told=True):
        answer = "allowed" if verdict.allowed else "refused"
        trial = ""
        if _in_trial(context, release.name, verdict.policy):
            trial = f"; a trial, its definition names {context.definitions[release.name].definition.policy}"
        yield f"{answer} by the policy {verdict.policy} on {verdict.judged_at:%Y-%m-%d %H:%M} UTC{trial}"
    if checks := said.checks(content, release.name):
        hold = sum(check.outcome is Outcome.PASS for check in checks)
        yield f"{hold} of {len(checks)} controls hold"
    if scan := said.scan(content, release.name):
        looked = [one.scanner for one in scan.reports if one.outcome in (Outcome.PASS, Outcome.FAIL)]
        judges = [one for one in scan.reports if one.kind is FindingKind.VULNERABILITY and one.scanner in looked]
        sample = "; vulnerabilities by a sample" if judges and all(one.sample for one in judges) else ""
        yield f"{len(scan.findings)} finding(s) by {', '.join(looked) or 'no scanner'}{sample}"
    if release.base_name:
        yield f"stands on {release.base_name} {release.base_digest}"
    if release.revoked_at:
        yield f"revoked on {release.revoked_at:%Y-%m-%d %H:%M} UTC: {release.revoked_reason}"


def _names(context: Context) -> list[str]:
    """The images that this machine is for (`kinds`), those whose definitions do not load too."""
    kinds = context.settings.kinds
    mine = [name for name, loaded in context.definitions.items() if loaded.definition.kind in kinds]
    return sorted({*mine, *context.unsound})


def _last(context: Context) -> ReportOutput | None:
    """What the last report showed; None where there is none, or an earlier version wrote it."""
    with suppress(FileNotFoundError, ValidationError, ValueError):
        return ReportOutput.model_validate_json((_folder(context) / LAST).read_text(encoding="utf-8"))
    return None


def _folder(context: Context) -> Path:
    return context.settings.state_dir / "reports"


def _image(
    context: Context, name: str, members: tuple[MemberReport, ...], channels: Pointed, newest: Release | None,
    said: ContentRecords,
) -> ImageReport:  # fmt: skip
    """One image: its newest artifact, what its channels point to, the last scan, the last verdict, who runs it."""
    artifact = said.newest.get(name)
    candidate, stable = channels
    release = stable or (None if candidate else newest)
    scan = said.scan(artifact.digest, name) if artifact else None
    own = said.verdict(artifact.digest, name) if artifact else None
    verdict = own or (_told(said, artifact) if artifact else None)
    loaded, unsound = context.definitions.get(name), context.unsound.get(name)
    mine = [member for member in members if member.image == name]
    tried = candidate.content if candidate and candidate != stable else ""
    return ImageReport(
        name=name,
        content=artifact.digest if artifact else "",
        built_at=artifact.built_at if artifact else None,
        packages=len(artifact.packages) if artifact else 0,
        release=release.digest if release else "",
        status=status(release, context.now) if release else "candidate" if candidate else "unpublished",
        published_at=release.published_at if release else None,
        warn_at=release.warn_at if release else None,
        expires_at=release.expires_at if release else None,
        policy=verdict.policy if verdict else "",
        judged_at=verdict.judged_at if verdict else None,
        allowed=own.allowed if own else None,
        reasons=verdict.reasons if verdict else (),
        scanners=scan.reports if scan else (),
        findings=scan.findings if scan else (),
        running=tuple(member.member for member in mine if member.newest),
        owner=loaded.definition.owner if loaded else _owner_of_unsound(context, name),
        base=context.parents.get(name) or "",
        candidate=candidate.digest if candidate else "",
        stable=stable.digest if stable else "",
        ill=tuple(one.member for one in mine if one.digest == tried and not (one.healthy or one.starting)),
        trial=own is not None and _in_trial(context, name, own.policy),
        problem=unsound.message if unsound else "",
    )


def _in_trial(context: Context, name: str, policy: str) -> bool:
    """Whether an image that `policy` judged was only tried: by neither its own one nor, where a floor holds for that,
    the one of nights.
    """
    settings, loaded = context.settings, context.definitions.get(name)
    usual = {settings.nightly.policy} if settings.judging.floor else set()
    return loaded is not None and policy not in {loaded.definition.policy, *usual}


def _owner_of_unsound(context: Context, name: str) -> str:
    """Whom a definition that does not load names as its owner, where that much of it can be read."""
    with suppress(ContentError):
        folder = find_content(context.settings.roots, "images/definitions", "*/")[name]
        owner = read_toml(folder / "image.toml").get("owner")
        return owner if isinstance(owner, str) else ""
    return ""


def _told(said: ContentRecords, artifact: Artifact) -> Verdict | None:
    """The verdict that a registry tells of, marked as such."""
    told = said.verdict(artifact.digest, artifact.name, told=True)
    return replace(told, policy=f"{told.policy} (as the registry tells, not judged here)") if told else None


def _members(context: Context, checked: Checked, fleets: Collection[str]) -> tuple[MemberReport, ...]:
    """Every member of the fleets as it was last checked; of a fleet that never was, what it was last seen running."""
    lines = []
    releases = {one.digest: one for one in context.ledger.releases()}
    for fleet, (at, members) in checked.items():
        for one in members:
            verdict, ours = one.verdict, releases.get(one.release)
            lines.append(
                MemberReport.of(
                    verdict, member=f"{fleet}/{one.name}", digest=one.runs, image=one.golden, judged_at=at,
                    status=status(ours, context.now) if ours else "unknown",
                    newest=bool(one.golden) and not verdict.superseded,
                )
            )  # fmt: skip
    for digest, names in context.ledger.running_digests().items():
        ours = next(iter(context.ledger.releases_of_content(digest)), None) or context.ledger.release(digest)
        lines += [
            MemberReport(
                member=name, digest=digest, image=ours.name if ours else "",
                status=status(ours, context.now) if ours else "unknown", newest=False,
            )
            for name in names
            if (fleet := name.partition("/")[0]) in fleets and fleet not in checked
        ]  # fmt: skip
    return tuple(sorted(lines, key=lambda line: line.member))


def _fleet(fleet: Fleet, checked: Checked, members: tuple[MemberReport, ...]) -> FleetReport:
    at, found = checked.get(fleet.name, (None, ()))
    mine = [member for member in members if member.fleet == fleet.name]
    told = [reason for one in found for reason in one.reasons if not only_recorded(reason)]
    return fleet_report(fleet.name, fleet.owner, at, mine, told)


def _rollouts(context: Context, fleets: Iterable[str]) -> tuple[RolloutReport, ...]:
    """Those of each fleet that are under way, and its newest ones, the newest first."""
    ledger = context.ledger
    rows = [one for name in fleets for one in (*ledger.open_rollouts(name), *ledger.rollouts(name, NEWEST))]
    shown = {one.id: one for one in rows}
    newest = sorted(shown.values(), key=lambda one: one.at, reverse=True)
    return tuple(_rollout(view(context, one)) for one in newest)


def _rollout(one: View) -> RolloutReport:
    row, state = one.row, one.state
    steps = [StepReport(member=member.name, outcome=MEANING[member.phase], note=member.said) for member in one.members]
    return RolloutReport.of(
        row, replacement=one.replacement, back=one.back, started_at=row.begun_at,
        ended_at=state.ended_at if state else None, approved_by=one.plan.approved_by if one.plan else "",
        failure=state.failure if state else "", steps=tuple(steps), waves=tuple(_waves(one)),
        doing=_doing(one) if row.open else "",
    )  # fmt: skip


def _doing(one: View) -> str:
    state = one.state
    return doing(state.stage, state.wave, one.waves, state.note) if state else doing("begun", 0, one.waves, "")


def _waves(one: View) -> Iterator[WaveReport]:
    """The waves of members, then each group as one; of a way back those parts that go it."""
    phases, plan = {member.id: member.phase for member in one.members}, one.order.plan
    waves = [([step.member.id for step in wave.steps], wave.canary, wave.begins_at) for wave in plan.waves]
    waves += [([step.group.id], False, None) for step in plan.groups]
    for number, (ids, canary, begins_at) in enumerate(waves, start=1):
        mine = [phases[member] for member in ids if member in phases]
        over = sum(phase in FINISHED for phase in mine)
        if mine:
            yield WaveReport(wave=number, canary=canary, members=len(mine), done=over, begins_at=begins_at)


def _done(context: Context) -> tuple[AuditReport, ...]:
    """The last things that were done, the newest first; what a rollout did step by step is in its history."""
    return tuple(map(AuditReport.of, reversed(context.ledger.audit_lines(AUDIT_LINES, but=STEP))))


def write_report(context: Context, night: NightlyOutput | None = None) -> Path:
    """Write the page under the state directory, and what the next one is compared to; returns the page's path.

    The last 90 pages stay.
    """
    folder = _folder(context)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"report-{context.now:%Y%m%d-%H%M%S}.html"
    with no_collection():
        report, state = gather_all(context, night)
        path.write_text(render_html(report, state), encoding="utf-8")
        if not pretended(context.settings):
            write_atomically(folder / LAST, json.dumps(to_json(report)))
    for old in sorted(folder.glob("report-*.html"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def make_report(form: str = "", output: str = "", *, as_json: bool = False) -> int:
    """Write the report, or print what it would show as JSON; or write the judged state in another form.

    Without a form and a file the page goes to the state directory, where the next one is compared with it. The exit
    code is 2 where a definition does not load; all others are reported. Raises UsageError for a form or a file that
    cannot be.
    """
    chosen = form_of(form, output)
    context = replace(image_context(looks=True), lenient=True)
    if as_json:
        print_json(to_json(gather(context)))
    elif chosen in EXPORTS:
        # node_exporter, which is another user, reads the textfiles
        write_out(EXPORTS[chosen](judged_state(context)), output, 0o644 if chosen == "prometheus" else None)
    elif output or form:
        write_out(render_html(*gather_all(context)), output)
    else:
        out().print(str(write_report(context)), soft_wrap=True)
    return finish(context.unsound.values())


def form_of(form: str, output: str) -> str:
    """The form that is asked for, by its name or by the ending of the file it is written to. Raises UsageError."""
    return form_named(form, output, FORMS, ENDINGS)
