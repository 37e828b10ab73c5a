"""`latency`: how long fixes took to be everywhere, what is still open, and who acts. It reads the ledger once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hardening.catalog import load_waivers
from hardening.findings import Finding, FindingKind
from hardening.foundation.console import Cell, print_json, print_table, print_text, say
from hardening.foundation.durations import duration, in_short
from hardening.foundation.errors import OutsideError, UsageError
from hardening.foundation.grouping import by_key
from hardening.foundation.text import listed
from hardening.gate import fix_due
from hardening.model import Severity, Waiver
from hardening.policy import Policy
from hardening.waivers import About, about_finding, active, cited, waived_by
from images.artifact import Release
from images.context import Context
from images.documents import to_json
from images.ledger import ClosedFix, MemberRun
from images.ledger.artifacts import ScanRecord
from pipelines.cli.next_steps import NextSteps
from pipelines.cli.open_points import NEVER, OpenFix
from pipelines.contract import Line
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.model import Fleet
from pipelines.patch_times import (
    Measured,
    Patch,
    PatchHistory,
    Pointed,
    Spread,
    Waits,
    measured,
    patches,
    recent,
    unknown_members,
    with_ends,
)
from pipelines.wiring import image_context

if TYPE_CHECKING:
    from prometheus_client import Metric

WORST = 5
NONE_YET = "no release has closed a vulnerability with a known fix yet, and none is open, as far as this ledger knows"


class SpreadLine(Line):
    """Seconds from a fix's start: half of the fixes took at most `median`, nine of ten `p90`, all `longest`."""

    median: float
    p90: float
    longest: float


class LatencyLine(Line):
    """`latency`: one image, or one fleet. `published`, `promoted` and `closed` count from each fix's start.

    An image's fix is closed when `stable` has it, a fleet's when its last member has. `in_time` of `judged` were closed
    within the policy's window; `open` ones count as late once their window is over, before that not at all.
    `oldest_seconds` is the age of the oldest open one. `unknown` are members that run an image which nobody knows.
    """

    kind: Literal["image", "fleet"]
    name: str
    fixes: int
    published: SpreadLine | None
    promoted: SpreadLine | None
    closed: SpreadLine | None
    in_time: int
    judged: int
    open: int
    oldest_seconds: float | None
    unknown: tuple[str, ...]


class PatchLine(Line):
    """`latency`: one fix in one image or fleet, with each of its moments; null: it has not happened, or is not known.

    `started_at` is where its clock starts: by `dated_by`, the fixed package's own date or our first sight (`seen_at`).
    `left`: the members that lack it. `waits_for` is empty where it is closed; `acts` has to do what stands in `todo`.
    `waived_by`: the waiver that accepts it until its end; no count has it then.
    """

    kind: Literal["image", "fleet"]
    name: str
    vulnerability: str
    package: str
    image: str
    fixed: str
    severity: Severity
    exploited: bool
    started_at: datetime
    dated_by: Literal["package", "first sight"]
    seen_at: datetime
    built_at: datetime | None
    published_at: datetime | None
    promoted_at: datetime | None
    closed_at: datetime | None
    due: datetime | None
    age_seconds: float
    waits_for: Waits
    members: int
    left: tuple[str, ...]
    acts: str
    todo: str
    waived_by: str = ""


class LatencyOutput(Line):
    """`latency`: its time, the fixes closed `since` then and all that are open: by image and fleet, and each."""

    at: datetime
    since: datetime | None
    lines: tuple[LatencyLine, ...]
    patches: tuple[PatchLine, ...]


def patch_latency(since: str = "", context: Context | None = None) -> LatencyOutput:
    """How long fixes took, by all that the ledger knows. Raises UsageError for a `since` that is no day and no span."""
    context = context or replace(image_context(looks=True), lenient=True)
    now = context.now
    begin = beginning(since, now)
    fleets, policies = load_fleets(context.settings.roots), context.policies
    history = history_of(context, fleets)
    waiving = _Waiving(context, history)
    left = _left_behind(context, fleets, history)
    known = (one for one in patches(history, now) if (one.kind, one.name, one.fix) not in left)
    found = recent((waiving.applied(_by_the_rules(policies, fleets, one)) for one in known), begin)
    unknown = unknown_members(history)
    lines = [_line(one, unknown.get(one.name, ()) if one.kind == "fleet" else ()) for one in measured(found, now)]
    told = {line.name for line in lines if line.kind == "fleet"}
    lines += [_line(_nothing(name), names) for name, names in sorted(unknown.items()) if name not in told]
    steps = NextSteps(context, fleets, found)
    told_of = (_patch_line(steps, one, now) for one in sorted(found, key=_worst_first))
    return LatencyOutput(at=now, since=begin, lines=tuple(lines), patches=tuple(told_of))


def open_fixes(patches: Iterable[PatchLine]) -> list[OpenFix]:
    """Those that are not everywhere yet, waived ones too."""
    return [OpenFix.of(one, since=one.started_at, members=len(one.left)) for one in patches if one.waits_for]


def beginning(text: str, now: datetime) -> datetime | None:
    """The moment that `--since` names: a day, a moment, or a span back from now. Raises UsageError."""
    if not text:
        return None
    try:
        span: timedelta = duration(text)
        return now - span
    except ValueError:
        pass
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        hint = "a span such as 30d, or a day such as 2026-11-01"
        raise UsageError(f"--since: invalid span or date: {text}", hint=hint) from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def runs_of(context: Context, fleets: Collection[str]) -> Sequence[MemberRun]:
    """What members have run; those of a removed fleet are gone from its last check on."""
    ledger = context.ledger
    return with_ends(ledger.member_runs(), fleets, ledger.checked_at())


def history_of(context: Context, fleets: Collection[str]) -> PatchHistory:
    """All that the ledger tells of patches."""
    ledger = context.ledger
    releases = ledger.releases()  # the newest first
    published: dict[str, tuple[str, datetime]] = {}
    for release in releases:
        published[release.content] = (release.name, release.published_at)
    contents = {release.digest: release.content for release in releases}
    stable: dict[str, list[Pointed]] = {}
    for image, repository in {(release.name, release.repository) for release in releases}:
        for move in ledger.moves(repository, "stable"):
            pointed = Pointed(contents.get(move.digest, ""), move.at, exact=move.reason != "rebuild")
            stable.setdefault(image, []).append(pointed)
    runs = runs_of(context, fleets)
    running = {run.content for run in {(run.fleet, run.member): run for run in runs}.values()}
    history = PatchHistory(ledger.closed_fixes(), {}, published, stable, runs)
    return replace(history, found=_unreleased(context, history, _in_use(releases, stable, running)))


def _left_behind(
    context: Context, fleets: Collection[str], history: PatchHistory
) -> set[tuple[str, str, ClosedFix]]:  # fmt: skip
    """What members of fleets without a file still lacked at the last look: it is neither open here nor closed."""
    runs = [run for run in context.ledger.member_runs() if run.fleet not in fleets]
    seen = patches(replace(history, runs=runs), context.now) if runs else ()
    return {(one.kind, one.name, one.fix) for one in seen if one.kind == "fleet" and one.open}


def _in_use(releases: Iterable[Release], stable: Mapping[str, Sequence[Pointed]], running: set[str]) -> set[str]:
    """The contents that something may still run: the newest of each image, what `stable` points to, what runs."""
    newest: dict[str, str] = {}
    for release in releases:
        newest.setdefault(release.name, release.content)
    return {*newest.values(), *(pointed[-1].content for pointed in stable.values()), *running}


def _unreleased(context: Context, history: PatchHistory, contents: Iterable[str]) -> dict[ClosedFix, tuple[str, ...]]:
    """What scanners last found in the contents, with a fix that no release of the image has closed there."""
    closed = by_key(((fix.vulnerability, fix.package, fix.image), fix) for fix in history.fixes)
    found: dict[tuple[str, str, str], tuple[ClosedFix, tuple[str, ...]]] = {}
    for content in sorted(contents & history.published.keys()):
        image, _ = history.published[content]
        scan = context.ledger.scan(content, image)
        for finding in _fixable(scan):
            which = (finding.id, finding.package, image)
            if not any(history.has(content, fix) is False for fix in closed.get(which, ())):
                fix, others = found.get(which, (_open(context, image, finding), ()))
                found[which] = fix, (*others, content)
    return dict(found.values())


def _fixable(scan: ScanRecord | None) -> Iterator[Finding]:
    found = scan.findings if scan else ()
    return (one for one in found if one.kind is FindingKind.VULNERABILITY and one.fixed)


def _open(context: Context, image: str, finding: Finding) -> ClosedFix:
    """A fix that no release of the image has, in the form of one that some release has: by the policy of nights."""
    own = context.policy_of(image) if image in context.definitions else "default"
    policy = context.policy or context.settings.nightly.policy or own
    now = context.now
    return ClosedFix(
        vulnerability=finding.id, package=finding.package, image=image, content="", fixed=finding.fixed,
        severity=finding.severity, exploited=finding.exploited, epss=finding.epss, policy=policy, upstream_at=None,
        seen_at=min(finding.fix_known_since or now, now), built_at=now, published_at=now,
    )  # fmt: skip


def _by_the_rules(policies: Mapping[str, Policy], fleets: Mapping[str, Fleet], one: Patch) -> Patch:
    """The fix with the day by which what runs must have it: the policy's window, and its grace for what runs. A fleet
    that follows `candidate` waits for no promotion.
    """
    fix, fleet = one.fix, fleets.get(one.name) if one.kind == "fleet" else None
    policy = policies.get(fix.policy) or policies["default"]
    finding = Finding(
        FindingKind.VULNERABILITY, fix.vulnerability, fix.package, "", fix.fixed, Severity(fix.severity), (),
        exploited=fix.exploited, epss=fix.epss,
    )  # fmt: skip
    due = fix_due(policy, finding, fix.seen_at)
    grace = (policies.get(fleet.policy, policy) if fleet else policy).running.refused.grace
    early = fleet is not None and fleet.replacement.channel == "candidate" and one.waits is Waits.PROMOTION
    return replace(one, due=due and due + grace, waits=Waits.ROLLOUT if early else one.waits)


class _Waiving:
    """Finds the waivers in force that accept what an image or the members of a fleet lack."""

    def __init__(self, context: Context, history: PatchHistory) -> None:
        self._ledger, self._history, self._today = context.ledger, history, context.now.date()
        self._waivers = active(load_waivers(context.settings.roots), self._today)
        self._named = {name for waiver in self._waivers for name in waiver.vulnerabilities}
        self._runs = {(run.fleet, run.member): run.content for run in history.runs} if self._named else {}

    def applied(self, one: Patch) -> Patch:
        """The fix with the waiver that ends first, where one covers each content that lacks it."""
        if not one.open or one.waits is Waits.UNKNOWN or one.fix.vulnerability not in self._named:
            return one
        waivers = [self._waiver(one.fix, content) for content in self._lacking(one)]
        first = min((waiver for waiver in waivers if waiver), key=lambda waiver: waiver.expires, default=None)
        return replace(one, waived_by=cited(first)) if first and all(waivers) else one

    def _lacking(self, one: Patch) -> Collection[str]:
        """The contents that the members run, or that the image has in `stable` and as its newest."""
        history, image = self._history, one.fix.image
        if one.kind == "fleet":
            return {self._runs[one.name, member] for member in one.left}
        newest = max((at, content) for content, (name, at) in history.published.items() if name == image)[1]
        shown = {newest, *(pointed.content for pointed in history.stable.get(image, ())[-1:])}
        return {content for content in shown if history.has(content, one.fix) is False}

    def _waiver(self, fix: ClosedFix, content: str) -> Waiver | None:
        scan = self._ledger.scan(content, fix.image)
        if scan is None:
            return None
        alike = (one for one in scan.findings if (one.id, one.package) == (fix.vulnerability, fix.package))
        about = About("vulnerabilities", fix.vulnerability, fix.package)
        if finding := next(alike, None):
            about = about_finding(finding, self._ledger.bases_of(content, fix.image))
        return waived_by(self._waivers, about, fix.image, self._today)


def _worst_first(one: Patch) -> tuple[bool, bool, datetime, datetime, str, str, str]:
    """What is open first, and of that what is due first; then the oldest."""
    return not one.open, one.due is None, one.due or NEVER, one.started_at, one.fix.vulnerability, one.kind, one.name


# -- as it is printed --------------------------------------------------------------------------------------------------


def _nothing(fleet: str) -> Measured:
    return Measured("fleet", fleet, 0, None, None, None, 0, 0, 0, None)


def _line(one: Measured, unknown: tuple[str, ...]) -> LatencyLine:
    return LatencyLine(
        kind="fleet" if one.kind == "fleet" else "image", name=one.name, fixes=one.fixes,
        published=_spread(one.published), promoted=_spread(one.promoted), closed=_spread(one.closed),
        in_time=one.in_time, judged=one.judged, open=one.open,
        oldest_seconds=None if one.oldest is None else one.oldest.total_seconds(), unknown=unknown,
    )  # fmt: skip


def _spread(found: Spread | None) -> SpreadLine | None:
    if found is None:
        return None
    seconds = (span.total_seconds() for span in (found.median, found.p90, found.longest))
    return SpreadLine(**dict(zip(SpreadLine.model_fields, seconds, strict=True)))


def _patch_line(steps: NextSteps, one: Patch, now: datetime) -> PatchLine:
    fix, (acts, todo) = one.fix, steps.after(one)
    return PatchLine(
        kind="fleet" if one.kind == "fleet" else "image", name=one.name, vulnerability=fix.vulnerability,
        package=fix.package, image=fix.image, fixed=fix.fixed, severity=Severity(fix.severity),
        exploited=fix.exploited, started_at=one.started_at, dated_by="package" if one.by_package else "first sight",
        seen_at=fix.seen_at, built_at=fix.built_at if one.published_at else None, published_at=one.published_at,
        promoted_at=one.promoted_at, closed_at=one.closed_at, due=one.due, age_seconds=one.age(now).total_seconds(),
        waits_for=one.waits, members=one.members, left=one.left, acts=acts, todo=todo, waived_by=one.waived_by,
    )  # fmt: skip


def show_latency(found: LatencyOutput, *, metrics: str = "", as_json: bool) -> int:
    """Print the distribution, and write it for Prometheus where `metrics` names a file. Raises OutsideError."""
    if metrics:
        write_metrics(found, Path(metrics))
    if as_json:
        print_json(to_json(found))
        return 0
    images, fleets = ([line for line in found.lines if line.kind == kind] for kind in ("image", "fleet"))
    if not found.patches:
        say(f"{NONE_YET}{f', since {found.since:%Y-%m-%d}' if found.since else ''}")
    if images:
        print_table(["image", "fixes", "published", "promoted", "in time", "open, oldest"], [*map(_image_row, images)])
        print_text("")
    if fleets:
        columns = ["fleet", "fixes", "last member", "in time", "open, oldest", "unknown"]
        print_table(columns, [*map(_fleet_row, fleets)])
        print_text("")
    print_text(_rest(found))
    return 0


def _image_row(line: LatencyLine) -> list[Cell]:
    return [line.name, str(line.fixes), _shown(line.published), _shown(line.promoted), _share(line), _opened(line)]


def _fleet_row(line: LatencyLine) -> list[Cell]:
    unknown = listed(line.unknown) if line.unknown else "-"
    return [line.name, str(line.fixes), _shown(line.closed), _share(line), _opened(line), unknown]


def _shown(spread: SpreadLine | None) -> str:
    return " / ".join(map(_briefly, (spread.median, spread.p90, spread.longest))) if spread else "-"


def _briefly(seconds: float) -> str:
    """A span in its largest unit, so that three of them fit into a cell."""
    return in_short(timedelta(seconds=seconds)).partition(" ")[0]


def _share(line: LatencyLine) -> str:
    return f"{line.in_time} of {line.judged}" if line.judged else "-"


def _opened(line: LatencyLine) -> str:
    return f"{line.open}, {_briefly(line.oldest_seconds)}" if line.oldest_seconds is not None else "-"


def _rest(found: LatencyOutput) -> Iterator[str]:
    if found.patches:
        by_package = sum(line.dated_by == "package" for line in found.patches)
        yield "median / 90th percentile / longest time, from the fixed package's own date for"
        yield f"{by_package} of {len(found.patches)} fixes, else from when we first saw the fix"
    if waived := list(_alike(line for line in found.patches if line.waived_by)):
        yield f"waived, so not counted: {len(waived)} (./goldsmith waiver.list)"
    still = list(_alike(line for line in found.patches if line.waits_for and not line.waived_by))
    if still:
        yield ""
        yield f"open: {len(still)}{f', of which the {WORST} that are due first' if still[WORST:] else ''}"
    for lines in still[:WORST]:
        line, due = lines[0], min((one.due for one in lines if one.due), default=None)
        exploited = ", exploited" if line.exploited else ""
        until = f", due {due:%Y-%m-%d %H:%M} UTC" if due else ""
        about = f"{line.vulnerability} in {line.package} ({line.severity}{exploited})"
        yield f"  {about}, {_briefly(line.age_seconds)} old{until}"
        yield f"    {'; '.join(map(_held, lines))}: waits for {_waits(line)}"
        yield f"    {line.acts}: {line.todo}"


def _alike(lines: Iterable[PatchLine]) -> Iterable[list[PatchLine]]:
    """The lines of one fix that one act of one person takes further, together."""
    keyed = (((line.vulnerability, line.package, line.image, line.acts, line.todo), line) for line in lines)
    return by_key(keyed).values()


def _held(line: PatchLine) -> str:
    left = f" ({listed(line.left)})" if line.left else ""
    return f"{line.kind} {line.name}{left}"


def _waits(line: PatchLine) -> str:
    return "someone to say what these run" if line.waits_for is Waits.UNKNOWN else f"its {line.waits_for}"


# -- for Prometheus ----------------------------------------------------------------------------------------------------

OF_STAGES = ("published", "promoted", "closed")


@dataclass(frozen=True, eq=False)
class _Known:
    """A metric whose quantiles are known, which the library's own Summary would work out."""

    metric: Metric

    def collect(self) -> Iterator[Metric]:
        """As a registry asks for it."""
        yield self.metric


def metrics_of(found: LatencyOutput) -> str:
    """The distribution in Prometheus' text format, of what is measured at this moment."""
    from prometheus_client import CollectorRegistry, Gauge, Metric, generate_latest

    registry = CollectorRegistry()

    def gauge(name: str, text: str) -> Gauge:
        return Gauge(f"goldsmith_patch_{name}", text, ["kind", "name"], registry=registry)

    spans = Metric("goldsmith_patch_latency_seconds", "From the fix to a stage, by quantile.", "summary")
    registry.register(_Known(spans))
    fixes, still = gauge("fixes", "Fixes that were measured."), gauge("open", "Fixes that are not everywhere yet.")
    oldest = gauge("oldest_open_seconds", "Age of the oldest open fix; 0 without any.")
    judged = gauge("judged", "Fixes whose window is over, or that are closed.")
    in_time = gauge("in_time", "Those of them that were closed within the policy's window.")
    unknown = gauge("unknown_members", "Members that run an image which is not known.")
    for line in found.lines:
        where = (line.kind, line.name)
        fixes.labels(*where).set(line.fixes)
        still.labels(*where).set(line.open)
        oldest.labels(*where).set(line.oldest_seconds or 0)
        judged.labels(*where).set(line.judged)
        in_time.labels(*where).set(line.in_time)
        unknown.labels(*where).set(len(line.unknown))
        for stage in OF_STAGES:
            if spread := getattr(line, stage):
                for quantile, value in (("0.5", spread.median), ("0.9", spread.p90), ("1", spread.longest)):
                    labels = {"kind": line.kind, "name": line.name, "stage": stage, "quantile": quantile}
                    spans.add_sample(spans.name, labels, value)
    return generate_latest(registry).decode()


def write_metrics(found: LatencyOutput, file: Path) -> None:
    """Write it where node_exporter's textfile collector reads it: never half. Raises OutsideError."""
    temporary = file.with_name(f".{file.name}.new")
    try:
        temporary.write_text(metrics_of(found))
        temporary.chmod(0o644)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutsideError(f"{file} cannot be written: {error.strerror}") from None
