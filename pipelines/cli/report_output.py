"""The report's data, and what follows from it: who owns the findings, and what changed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from hardening.findings import Finding, FindingKind, Outcome, Reason, ScanReport
from hardening.foundation.grouping import by_key
from hardening.foundation.text import listed
from hardening.gate import brought_by, shared
from hardening.model import WORST_FIRST, Enforcement, Waiver
from pipelines.cli.blast_radius_output import CutLine, MemberSizeLine
from pipelines.cli.open_points import OpenPoint
from pipelines.cli.report_history import HistoryReport
from pipelines.contract import AuditReport, Line, NightlyOutput
from pipelines.fleet.violations import MemberVerdict, PolicyState, ailment, in_words

NOT_JUDGED = "not judged"
LOOKED = (Outcome.PASS, Outcome.FAIL)
SOME = 6  # named in a line about more


class ImageReport(Line):
    """`report`: the present state of one image. `release` is what `stable` points to, or the newest if no channel is
    known. `status` is the release's: current, warn, expired or revoked; `candidate` if nothing was promoted yet, else
    unpublished. `ill` are the members that run the candidate and are not healthy. `base` is the image it is built on.
    `trial`: last judged by a policy that is neither its definition's nor that of nights. `problem`: why its definition
    does not load.
    """

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
    owner: str = ""
    base: str = ""
    candidate: str = ""
    stable: str = ""
    ill: tuple[str, ...] = ()
    trial: bool = False
    problem: str = ""

    @property
    def by_sample(self) -> bool:
        """Whether vulnerabilities were looked for in the sample that ships alone."""
        return bool(self._judges) and self.unknown

    @property
    def unknown(self) -> bool:
        """Whether it exists, and was not scanned for vulnerabilities, or by the sample alone."""
        return bool(self.content or self.release) and all(one.sample for one in self._judges)

    @property
    def _judges(self) -> list[ScanReport]:
        return [one for one in self.scanners if one.kind is FindingKind.VULNERABILITY and one.outcome in LOOKED]


class MemberReport(Line):
    """`report`: one member of a fleet as last seen. `status` is its release's, `unknown` if none is ours; `newest` if
    nothing newer is out for it. `state`, `rules`, `deadline`, `superseded`, `healthy` and `starting` are the result
    of `fleet.check` at `judged_at`; `not judged` without one.
    """

    member: str
    digest: str
    image: str
    status: str
    newest: bool
    state: str = NOT_JUDGED
    rules: tuple[str, ...] = ()
    deadline: datetime | None = None
    superseded: bool = False
    healthy: bool = True
    starting: bool = False
    judged_at: datetime | None = None

    @property
    def fleet(self) -> str:
        """Its fleet's name."""
        return self.member.partition("/")[0]

    @property
    def ailment(self) -> str:
        """Why it is ill; empty where it is not."""
        return ailment(self.state, healthy=self.healthy, starting=self.starting)

    @property
    def verdict(self) -> MemberVerdict | None:
        """What `fleet.check` last said of it."""
        if self.judged_at is None:
            return None
        state, healthy, starting = PolicyState(self.state), self.healthy, self.starting
        return MemberVerdict(state, self.rules, self.deadline, self.superseded, healthy, starting)


class FleetReport(Line):
    """`report`: one fleet; `said` is its last check in a sentence, and `reasons` its members' violations."""

    name: str
    owner: str
    checked_at: datetime | None
    said: str
    reasons: tuple[SharedReport, ...]


class SharedReport(Line):
    """`report`: one reason of a policy, with all its subjects; `brought_by` is the image that brings it in."""

    rule: str
    enforcement: Enforcement
    what: str
    why: str
    todo: str
    waived_by: str
    deadline: datetime | None
    brought_by: str
    subjects: tuple[str, ...]

    @property
    def stands(self) -> bool:
        """Whether it counts: it is not waived, and more than recorded."""
        return not self.waived_by and self.enforcement is not Enforcement.AUDIT


class FindingReport(Line):
    """`report`: one finding with all images that have it from `brought_by`, which is the first of them."""

    finding: Finding
    brought_by: str
    images: tuple[str, ...]
    opinions: tuple[tuple[str, str], ...]


class StepReport(Line):
    """`report`: what happened to one member in a rollout; `note` says what people should know of it."""

    member: str
    outcome: str
    note: str


class WaveReport(Line):
    """`report`: one wave of a rollout, or one group: `done` of its `members` are over, whatever their outcome.

    `begins_at`: as predicted when it was planned; null where it is not.
    """

    wave: int
    canary: bool
    members: int
    done: int
    begins_at: datetime | None


class RolloutReport(Line):
    """`report`: one rollout as last saved. `failure` is empty if it succeeded; `back` if members were rolled back to
    what they ran before. `doing`: what an open one does, in words; empty when it is over.
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
    doing: str = ""
    waves: tuple[WaveReport, ...] = ()


class EndingReport(Line):
    """`report`: what ends within 14 days, and its owner."""

    at: datetime
    what: str
    owner: str


class NightFailure(Line):
    """`report`: the last refusal or failure of a night, as its line says it, that no later night, release or check has
    fixed. `at`: when that night began. `exit_code` says who must act.
    """

    at: datetime
    kind: str
    name: str
    status: str
    detail: str
    stopped_by: str = ""
    exit_code: int


class ActionReport(Line):
    """`report`: what somebody must do, and why."""

    owner: str
    what: str
    todo: str


class ReleaseReport(Line):
    """`report`: one release. `members` run it. `changes`: packages since the release before, old → new.

    `closed`: vulnerabilities that its content was the first to be without. `evidence`: what controls, scanners and the
    gate said of it, a line for each.
    """

    image: str
    digest: str
    content: str
    status: str
    published_at: datetime
    expires_at: datetime
    channels: tuple[str, ...]
    members: int
    packages: int
    changes: tuple[str, ...]
    closed: tuple[str, ...]
    evidence: tuple[str, ...]


class BlastRadiusReport(Line):
    """`report`: the last result of `fleet.blast-radius` for all members. `sizes`: the largest of the `members`.

    `drawing`: the graph of the first of them, as SVG; empty where it reaches nothing or Graphviz is not there.
    """

    at: datetime
    members: int
    size: int
    sizes: tuple[MemberSizeLine, ...]
    cuts: tuple[CutLine, ...]
    unread: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    drawing: str = ""


class ReportOutput(Line):
    """`report`: everything on one page. `changes` are those since the report that was made at `since`.

    `open_points` answers what lacks a fix or is out of policy, since when, due when, and who acts; `waived_points` are
    the fixes that a waiver accepts until its end, which no number counts. `night` is the last
    one that this machine reported, and `night_failures` what it and those before it left undone. `without_file`: fleets
    that the ledger knows and no file here names, so that nothing counts them. `judged_before`: images and fleets whose
    last verdict is older than the content, which was last changed at `content_changed_at`.
    """

    made_at: datetime
    images: tuple[ImageReport, ...]
    members: tuple[MemberReport, ...]
    rollouts: tuple[RolloutReport, ...]
    waivers_active: tuple[Waiver, ...]
    waivers_expired: tuple[Waiver, ...]
    policies_to_review: tuple[str, ...]
    audit: tuple[AuditReport, ...]
    night: NightlyOutput | None = None
    fleets: tuple[FleetReport, ...] = ()
    findings: tuple[FindingReport, ...] = ()
    reasons: tuple[SharedReport, ...] = ()
    actions: tuple[ActionReport, ...] = ()
    ending: tuple[EndingReport, ...] = ()
    since: datetime | None = None
    changes: tuple[str, ...] = ()
    open_points: tuple[OpenPoint, ...] = ()
    history: HistoryReport = HistoryReport()
    releases: tuple[ReleaseReport, ...] = ()
    night_failures: tuple[NightFailure, ...] = ()
    blast_radius: BlastRadiusReport | None = None
    without_file: tuple[str, ...] = ()
    waived_points: tuple[OpenPoint, ...] = ()
    content_changed_at: datetime | None = None
    judged_before: tuple[str, ...] = ()


# -- whose findings they are -------------------------------------------------------------------------------------------


def findings_of(images: Sequence[ImageReport]) -> tuple[FindingReport, ...]:
    """Each finding once for each image that brings it in, the worst first."""
    parents, by_name = _parents(images), {image.name: image for image in images}
    having: dict[tuple[str, str, str], dict[str, Finding]] = {}
    for image in images:
        for one in image.findings:
            having.setdefault((one.kind, one.id, one.package), {})[image.name] = one
    found = by_key(((key, brought_by(name, names, parents)), name) for key, names in having.items() for name in names)
    rows = [
        FindingReport(
            finding=having[key][root], brought_by=root, images=(root, *(name for name in names if name != root)),
            opinions=tuple(opinions(having[key][root], by_name[root])),
        )
        for (key, root), names in found.items()
    ]  # fmt: skip
    return tuple(
        sorted(rows, key=lambda row: (WORST_FIRST.index(row.finding.severity), row.finding.id, row.brought_by))
    )


def reasons_of(images: Sequence[ImageReport]) -> tuple[SharedReport, ...]:
    """What the policies have against the images, each once for each image that brings it in."""
    return shared_reports((reason for image in images for reason in image.reasons), _parents(images))


def shared_reports(
    reasons: Iterable[Reason], parents: Mapping[str, str | None] | None = None
) -> tuple[SharedReport, ...]:
    """Reasons that say the same of many subjects, each once."""
    return tuple(
        SharedReport.of(one.reason, brought_by=one.brought_by, subjects=one.subjects)
        for one in shared(reasons, parents)
    )


def opinions(finding: Finding, image: ImageReport) -> list[tuple[str, str]]:
    """Who says what of a finding; a judge that looked for the same vulnerabilities and says nothing is `silent`.

    Scanners of other kinds have rules of their own: that one knows no rule of the other is no opinion.
    """
    said = dict(finding.scanners)
    looked = {
        scanner.scanner
        for scanner in image.scanners
        if scanner.kind == finding.kind == FindingKind.VULNERABILITY and scanner.outcome in LOOKED
    }
    return [(who, said.get(who, "silent")) for who in sorted(looked | set(said))]


def disputed(said: Iterable[tuple[str, str]]) -> bool:
    """Whether the scanners disagree about a finding."""
    return len({opinion for _, opinion in said}) > 1


def _parents(images: Iterable[ImageReport]) -> dict[str, str | None]:
    return {image.name: image.base or None for image in images}


# -- what changed ------------------------------------------------------------------------------------------------------


def changes_of(before: ReportOutput, now: ReportOutput) -> tuple[str, ...]:
    """What is not as it was in an earlier report, a line for each thing."""
    of_each = (_told_images, _told_members, _told_waivers)
    images, members, waivers = ([told(report) for report in (before, now)] for told in of_each)
    return (
        *_changed(*images),
        *_changed(*waivers),
        *_findings_changed(before, now),
        *_changed(members[0], _uncounted(before, now) | members[1]),
        *(
            f"rollout {one.id}: {one.failure or ('under way' if one.open else 'done')}"
            for one in now.rollouts
            if one not in before.rollouts
        ),
    )  # fmt: skip


def _told_images(report: ReportOutput) -> dict[str, str]:
    return {image.name: _told_image(image) for image in report.images}


def _told_members(report: ReportOutput) -> dict[str, str]:
    told = {member.member: member.verdict for member in report.members}
    return {name: verdict.text if verdict else NOT_JUDGED for name, verdict in told.items()}


def _told_waivers(report: ReportOutput) -> dict[str, str]:
    ended = {f"waiver {one.id}": f"ended on {one.expires}" for one in report.waivers_expired}
    return ended | {f"waiver {one.id}": f"holds until {one.expires}" for one in report.waivers_active}


def _uncounted(before: ReportOutput, now: ReportOutput) -> dict[str, str]:
    """Members of fleets whose file is gone: they may run still."""
    fleets = {one.name for one in before.fleets} - {one.name for one in now.fleets}
    return {one.member: "not counted, no file names its fleet" for one in before.members if one.fleet in fleets}


def _told_image(image: ImageReport) -> str:
    gate = {None: "not judged", True: "allowed", False: "refused"}[image.allowed]
    gate += " in a trial" if image.trial else ""
    release = f" {image.release[7:19]}" if image.release else ""
    return f"{image.status}{release}, {gate}"


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            yield f"{name}: {before.get(name, 'not there')} → {now.get(name, 'gone')}"


def _findings_changed(before: ReportOutput, now: ReportOutput) -> Iterator[str]:
    """By the images that bring them in: another origin changes nothing, and what is not scanned has lost nothing."""
    unscanned = {image.name for image in now.images if image.content and not image.scanners}
    gone = (one for one in _findings_only_in(before, now) if one.brought_by not in unscanned)
    for word, rows in (("new", _findings_only_in(now, before)), ("gone", gone)):
        if names := sorted({f"{one.finding.id} in {one.finding.package} ({one.brought_by})" for one in rows}):
            yield f"{len(names)} finding(s) {word}: {listed(names, SOME)}"


def _findings_only_in(report: ReportOutput, other: ReportOutput) -> Iterator[FindingReport]:
    """The findings of a report that the same image does not have in the other one."""
    there = {(row.finding.id, row.finding.package, name) for row in other.findings for name in row.images}
    return (row for row in report.findings if (row.finding.id, row.finding.package, row.brought_by) not in there)


def fleet_report(
    name: str, owner: str, checked_at: datetime | None, members: Sequence[MemberReport], reasons: Iterable[Reason]
) -> FleetReport:
    """A fleet with what was last said of its members."""
    verdicts = [member.verdict for member in members if member.verdict]
    said = in_words(verdicts) if checked_at else "not checked yet"
    return FleetReport(name=name, owner=owner, checked_at=checked_at, said=said, reasons=shared_reports(reasons))
