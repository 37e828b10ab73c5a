"""`image.affected`: who has a vulnerability, by the ledger's package lists and the tracker's data; runs no scanner."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal

from hardening.catalog import load_policies, load_waivers
from hardening.findings import BaseImage, Finding, Outcome, Reason, merge, worst
from hardening.foundation.console import Cell, print_json, print_table, print_text
from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.grouping import by_key
from hardening.gate import judge_image
from hardening.model import Enforcement, Severity, Waiver
from hardening.policy import Policy
from images import feeds
from images.advisories import Advisories, Advisory, match
from images.artifact import Package, Release
from images.context import Context
from images.documents import to_json
from images.feeds import indexed
from images.ledger.artifacts import PackageList, ScanRecord
from images.plan.holes import unfit
from images.scan import matcher
from images.scan.base import Feed, severity
from pipelines.cli.image_holders import ImageHolder, holders_of
from pipelines.cli.image_output import channels_of
from pipelines.contract import Line
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.judged_state import fleets_without_file
from pipelines.fleet.model import Fleet
from pipelines.wiring import image_context

AFFECTED, UNANSWERED = 1, 4
NAMED = 6


class UnknownVulnerabilityError(ContentError):
    """The data was read, and does not know the vulnerability."""


class AffectedPackage(Line):
    """A package that has the vulnerability; `fixed` is empty while no version of its source is fixed."""

    name: str
    installed: str
    fixed: str


class AffectedLine(Line):
    """`image.affected`: a release, or a running member, that has the vulnerability, by one of its source packages.

    `name` is the image's, or fleet/member; `channels` are those that point to the release, `built` where it is not
    released. `part` is `base` where the package comes from an image that it stands on, `comes_from`. `since` is when
    this content was first published, `fix_known_since` when the fix was first known here. `due` is when the policy
    wants it gone; `acts` who has to do what stands in `todo`.
    """

    kind: Literal["release", "member"]
    name: str
    image: str
    digest: str
    channels: tuple[str, ...]
    source: str
    packages: tuple[AffectedPackage, ...]
    fixed: str
    part: Literal["base", "yours"]
    comes_from: str
    since: datetime | None
    fix_known_since: datetime | None
    due: datetime | None
    enforcement: Enforcement
    waived_by: str
    acts: str
    todo: str


class AffectedOutput(Line):
    """`image.affected`: what is known of the vulnerability, and who has it.

    `data` is what answered, of `data_date`; `sample`: it is the sample that ships. `outdated` says why the default
    policy would not judge by it, and `notes` what was wrong with the feeds. `exploited` is null where CISA's list is
    not at hand; `likelihood` (0 to 1) is FIRST's estimate that it is exploited within 30 days. `older` counts releases
    that have it, and that nothing points to or runs; `unknown` are those whose packages this ledger does not know,
    members whose image only stands on a golden one (what is `yours` of them), and fleets that were never looked at.
    `fleets`: when each was last looked at. `without_file`: fleets that no file here names, so that nothing counts them.
    """

    id: str
    title: str
    severity: Severity
    exploited: bool | None
    likelihood: float | None
    data: str
    data_date: datetime | None
    looked_at: int
    lines: tuple[AffectedLine, ...]
    older: int
    unknown: tuple[str, ...]
    fleets: dict[str, datetime]
    sample: bool
    outdated: str
    notes: tuple[str, ...]
    without_file: tuple[str, ...] = ()


@dataclass(frozen=True)
class AffectedQuestion:
    """One vulnerability, looked up in everything that the ledger knows; what many members need is read once.

    `scans`: by content, what scanners last said of it. `by_scans`: the contents that only these answer for, where the
    data does not know the vulnerability.
    """

    context: Context
    id: str
    advisories: Mapping[str, Advisories]
    lists: Mapping[str, PackageList]
    exploited: bool | None = None
    likelihood: float | None = None
    known_since: Mapping[str, datetime] = field(default_factory=dict)
    scans: dict[str, tuple[Finding, ...]] = field(default_factory=dict)
    by_scans: frozenset[str] = frozenset()
    pointed: dict[str, tuple[Release | None, Release | None]] = field(default_factory=dict)

    @cached_property
    def policies(self) -> dict[str, Policy]:
        """Every policy by name."""
        return load_policies(self.context.settings.roots)

    @cached_property
    def fleets(self) -> dict[str, Fleet]:
        """Every fleet by name."""
        return load_fleets(self.context.settings.roots)

    @cached_property
    def waivers(self) -> tuple[Waiver, ...]:
        """Every waiver."""
        return load_waivers(self.context.settings.roots)

    def policy(self, name: str) -> Policy:
        """The policy of that name; the default one where it is gone."""
        return self.policies.get(name) or self.policies["default"]

    def policy_of(self, image: str) -> str:
        """The name of the policy that judges an image."""
        return self.context.policy_of(image) if image in self.context.definitions else "default"

    def member_policy(self, holder: ImageHolder, fleet: Fleet) -> Policy:
        """The policy that a member's image is judged by, as `GoldenStatus` has it; the fleet's says when it must go."""
        wanted = self.context.policy or holder.published_by
        return self.policies[wanted] if wanted in self.policies else self.policy(fleet.policy)

    def image_owner(self, image: str) -> str:
        """Who owns a definition; `-` where it is gone."""
        loaded = self.context.definitions.get(image)
        return loaded.definition.owner if loaded else "-"

    def fleet_owner(self, fleet: str) -> str:
        """Who owns a fleet; `-` where its file is gone."""
        return self.fleets[fleet].owner if fleet in self.fleets else "-"

    def answers(self, content: str) -> bool:
        """Whether the packages of a content are known, and the data of their suite, or a scan that has to do."""
        return content in self.lists and (content in self.by_scans or self.lists[content].suite in self.advisories)

    def answers_fully(self, content: str) -> bool:
        """The same of each of its packages."""
        return self.answers(content) and not self.lists[content].unversioned

    def has(self, content: str) -> bool:
        """Whether a content has it."""
        return bool(self.matches(content))

    def lacks(self, content: str) -> bool:
        """Whether a content is known not to have it."""
        return self.answers_fully(content) and not self.has(content)

    def matches(self, content: str) -> dict[Package, tuple[Advisory, ...]]:
        """The packages of a content that have it, each with the advisory that says so; by a scan, where only that does:
        the gate refuses by all scanners.
        """
        held = self.lists[content]
        found = match(held.comparable, self.advisories.get(held.suite, Advisories()))
        names = {package.name for package in found}
        for one in self.scans.get(content, ()):
            if one.package not in names:
                other = Package(one.package, one.installed, "", "", one.package)
                package = next((package for package in held.packages if package.name == one.package), other)
                found[package] = (Advisory(self.id, package.built_from[0], one.fixed, title=one.title),)
        return found

    def scanned(self, content: str) -> tuple[Finding, ...]:
        """What scanners last said of it in a content, of any package."""
        if content not in self.scans:
            scan = self.context.ledger.scan(content)
            self.scans[content] = tuple(one for one in scan.findings if one.id == self.id) if scan else ()
        return self.scans[content]

    def channels(self, image: str) -> tuple[Release | None, Release | None]:
        """What `candidate` and `stable` of an image point to."""
        if image not in self.pointed:
            self.pointed[image] = channels_of(self.context, image)
        return self.pointed[image]

    def bases(self, content: str) -> tuple[BaseImage, ...]:
        """What a content stands on, the nearest first."""
        found: list[BaseImage] = []
        while (content := self.lists[content].parent) in self.lists and len(found) < len(self.lists):
            below = self.lists[content]
            found.append(BaseImage(below.name, frozenset((one.name, one.version) for one in below.packages)))
        return tuple(found)


def who_is_affected(vulnerability: str, context: Context | None = None) -> AffectedOutput:
    """Who has `vulnerability`, of the releases that channels point to, what was built last, and what runs.

    Raises ContentError for a vulnerability that the data does not know, and where the ledger knows no image;
    OutsideError where there is no data.
    """
    context = context or image_context(looks=True)
    # Where an address does not answer, the copy that is kept answers at once: feed.update is there to be patient.
    settings = context.settings.model_copy(update={"retry_for": timedelta(0)})
    context = replace(context, settings=settings, lenient=True)
    ledger, now = context.ledger, context.now
    wanted, by_scans = vulnerability.strip().upper(), frozenset[str]()
    holders = list(holders_of(context))
    found = {one: scan for one in {holder.content for holder in holders} if (scan := ledger.scan(one))}
    scans = {content: tuple(one for one in scan.findings if one.id == wanted) for content, scan in found.items()}
    try:
        data, said = known_of(context, wanted)
    except UnknownVulnerabilityError:
        if not any(scans.values()):
            raise
        scanners = {name for findings in scans.values() for one in findings for name, _ in one.scanners}
        data, said = _data_of(found.values(), scanners), {}
        by_scans = frozenset(content for content, scan in found.items() if scans[content] or _ran(scan, scanners))
    exploitation = feeds.exploitation(settings, now)
    question = AffectedQuestion(
        context, wanted, {suite: Advisories(found) for suite, found in said.items()},
        ledger.package_lists({one.source for found in said.values() for one in found} if said else None),
        wanted in exploitation.ids if exploitation.feed else None, exploitation.likely.scores.get(wanted),
        ledger.fixes_known_since(wanted), scans, by_scans,
    )  # fmt: skip
    answered = [holder for holder in holders if question.answers(holder.content)]
    lines = tuple(line for holder in answered for line in _lines(question, holder))
    looked = {name: at for name, at in ledger.checked_at().items() if name in question.fleets}
    running = {holder.name.partition("/")[0] for holder in holders if holder.kind == "member"}
    unseen = question.fleets.keys() - looked.keys() - running
    untold = [holder for holder in holders if holder.on_base or not question.answers_fully(holder.content)]
    advisories = [one for found in said.values() for one in found]
    return AffectedOutput(
        id=wanted, title=next((one.title for one in advisories if one.title), ""),
        severity=worst([*(severity(one.word) for one in advisories), *_severities(scans)]),
        exploited=question.exploited, likelihood=question.likelihood, data=data.source, data_date=data.date,
        looked_at=len(answered), lines=lines, older=_older(question, {holder.content for holder in holders}),
        unknown=tuple(sorted({label for holder in untold for label in holder.labels} | unseen)),
        fleets=looked, sample=data.sample, without_file=tuple(fleets_without_file(context, question.fleets)),
        outdated=unfit(data, question.policy("default").image.judges.data_max_age, now),
        notes=tuple(_notes(data, exploitation)),
    )  # fmt: skip


def _ran(scan: ScanRecord, scanners: Collection[str]) -> bool:
    """Whether one of the scanners evaluated the content."""
    ran = (one.scanner for one in scan.reports if one.outcome in (Outcome.PASS, Outcome.FAIL))
    return not set(scanners).isdisjoint(ran)


def _data_of(scans: Iterable[ScanRecord], scanners: Collection[str]) -> Feed:
    """The data of the scanners that report it, by the oldest date."""
    reports = [one for scan in scans for one in scan.reports if one.scanner in scanners]
    return Feed(
        Path(), min((one.data_date for one in reports if one.data_date), default=None),
        f"the last scans, by {', '.join(sorted(scanners))}", sample=all(one.sample for one in reports),
    )  # fmt: skip


def _severities(scans: Mapping[str, Sequence[Finding]]) -> Iterator[Severity]:
    return (one.severity for found in scans.values() for one in found)


def _notes(data: Feed, exploitation: feeds.Exploited) -> Iterator[str]:
    """What is to be known of the feeds: that an older copy answered, or that there is none, and why."""
    asked = (
        ("known exploited vulnerabilities (KEV)", exploitation.feed, exploitation.missing),
        ("likelihood of exploitation (EPSS)", exploitation.likely.feed, exploitation.likely.missing),
    )
    if data.note:
        yield f"vulnerabilities: {data.note}"
    for name, feed, missing in asked:
        if why := feed.note if feed else f"no data: {missing or 'by the settings'}":
            yield f"{name}: {why}"


def known_of(context: Context, vulnerability: str) -> tuple[Feed, dict[str, tuple[Advisory, ...]]]:
    """The data, and by suite of the ledger's images what it says of a vulnerability. Raises as `who_is_affected`."""
    suites = sorted({one.suite for one in context.ledger.package_lists(()).values() if one.suite})
    if not suites:
        hint = "./goldsmith image.build all; a ledger that was filled from a registry knows no packages"
        raise ContentError("the ledger knows no image's packages, so nothing is known", hint=hint)
    found: dict[str, tuple[Feed, tuple[Advisory, ...] | None]] = {}
    failed: OutsideError | None = None
    for suite in suites:
        try:
            feed = indexed.tracker(context.settings, suite, context.now)
            found[suite] = feed, indexed.advisories_over(feed, vulnerability, suite)
        except OutsideError as error:
            failed = error
    if not found and failed:
        raise failed
    data = max((feed for feed, _ in found.values()), key=lambda feed: feed.sample)  # what is worse is said
    said = {suite: advisories for suite, (_, advisories) in found.items() if advisories is not None}
    if not said:
        if data.sample:
            what = f"{vulnerability} is not in the sample that ships, which knows few"
            raise OutsideError(what, evidence=data.source, hint="feeds.tracker of goldsmith.toml names real data")
        what = f"{vulnerability} is not in {data.source}{f' of {data.date:%Y-%m-%d}' if data.date else ''}"
        raise UnknownVulnerabilityError(
            f"unknown vulnerability: {what}", hint="misspelt? ./goldsmith feed.update fetches newer data"
        )
    # What one suite's data knows, the others of the same data know not to be affected.
    return data, {suite: said.get(suite, ()) for suite in found}


def _older(question: AffectedQuestion, current: set[str]) -> int:
    """How many releases have it that nothing points to or runs."""
    held = {content for content in question.lists if content not in current and question.has(content)}
    return sum(1 for one in question.context.ledger.releases() if one.content in held and not one.pruned_at)


def _lines(question: AffectedQuestion, holder: ImageHolder) -> Iterator[AffectedLine]:
    """A line for each source package by which the holder has it, and for each image that brings it in."""
    matches, bases = question.matches(holder.content), question.bases(holder.content)
    if not matches:
        return
    held, fleets = question.lists[holder.content], question.fleets
    fleet = fleets.get(holder.name.partition("/")[0]) if holder.kind == "member" else None
    policy = question.member_policy(holder, fleet) if fleet else question.policy(question.policy_of(held.name))
    reasons = {
        package: _reason(question, policy, holder.content, package, found, bases) for package, found in matches.items()
    }
    groups: dict[tuple[str, str], list[Package]] = {}
    for package in matches:
        below = [base.name for base in bases if (package.name, package.version) in base.packages]
        comes_from = below[-1] if below else held.name if holder.on_base else ""
        groups.setdefault((package.built_from[0], comes_from), []).append(package)
    for (source, comes_from), packages in sorted(groups.items()):
        told = [reasons[package] for package in packages]
        reason = min(told, key=lambda one: (one.deadline is None, one.deadline or question.context.now))
        known = [question.known_since[one.name] for one in packages if one.name in question.known_since]
        grace = question.policy(fleet.policy).running.refused.grace if fleet else timedelta(0)
        fixes = sorted({one.fixed for package in packages for one in matches[package] if one.fixed})
        acts, todo = _who_acts(question, holder, comes_from or held.name, fixed=bool(fixes))
        yield AffectedLine(
            kind=holder.kind, name=holder.name, image=held.name, digest=holder.digest, channels=holder.channels,
            source=source,
            packages=tuple(
                AffectedPackage(name=one.name, installed=one.version, fixed=matches[one][0].fixed) for one in packages
            ),
            fixed=", ".join(fixes), part="base" if comes_from else "yours", comes_from=comes_from, since=holder.since,
            fix_known_since=min(known, default=None), due=reason.deadline and reason.deadline + grace,
            enforcement=reason.enforcement, waived_by=reason.waived_by, acts=acts, todo=todo,
        )  # fmt: skip


def _reason(
    question: AffectedQuestion, policy: Policy, content: str, package: Package, found: Sequence[Advisory],
    bases: Sequence[BaseImage],
) -> Reason:  # fmt: skip
    """What the gate says of it in that package, by the policy and its waivers."""
    said = [matcher.as_finding(package, one) for one in found]
    alike = [one for one in question.scanned(content) if one.package == package.name]
    [merged] = merge([*said, *alike])
    known = question.known_since.get(package.name)
    finding = replace(
        merged,
        exploited=bool(question.exploited),
        epss=question.likelihood,
        fix_known_since=known if merged.fixed else None,
    )
    context = question.context
    verdict = judge_image(
        policy, question.lists[content].name, None, (), (finding,), question.waivers, context.now, bases
    )
    return next(reason for reason in verdict.reasons if reason.rule == question.id)


def _who_acts(question: AffectedQuestion, holder: ImageHolder, brought_by: str, *, fixed: bool) -> tuple[str, str]:
    """Who has to do what next, so that the holder no longer has it."""
    context, image = question.context, question.lists[holder.content].name
    candidate, stable = question.channels(image)
    if holder.kind == "member" and stable and question.lacks(stable.content):
        fleet = holder.name.partition("/")[0]
        first = f"build its image on the newest {image}, then " if holder.on_base else ""
        return question.fleet_owner(fleet), f"{first}./goldsmith roll.start {fleet}"
    if candidate and question.lacks(candidate.content):
        return question.image_owner(image), f"./goldsmith image.promote {image}"
    below = context.ledger.latest_artifact(brought_by, context.settings.platform)
    if below and brought_by != image and question.lacks(below.digest):
        return question.image_owner(image), f"./goldsmith image.publish {image}"
    owner = question.image_owner(brought_by)
    if fixed:
        more = "" if brought_by == image else f", then ./goldsmith image.publish {image}"
        return owner, f"./goldsmith image.publish {brought_by}{more}"
    return owner, f"no fix yet: take the package out of {brought_by}, or wait for one"


# -- for people --------------------------------------------------------------------------------------------------------


def show_affected(found: AffectedOutput, *, as_json: bool) -> int:
    """Print who has it. Exit code 1 where an image is affected; 4 where none is known to be, and packages are not known
    or the data is not fit to tell.
    """
    if as_json:
        print_json(to_json(found))
    else:
        print_text(_about(found))
        if found.lines:
            todo = list(dict.fromkeys(f"{line.acts}: {line.todo}" for line in found.lines))
            rows = [_row(lines, todo) for lines in _alike(found.lines)]
            print_table(["who", "package", "part", "fixed in", "since, due", "do"], rows, whole=["since, due", "who"])
            print_text(["", *(f"{number}. {line}" for number, line in enumerate(todo, 1))])
        print_text(_rest(found))
    return AFFECTED if found.lines else UNANSWERED if found.unknown or found.outdated else 0


def _about(found: AffectedOutput) -> Iterator[str]:
    yield f"{found.id}: {found.title}" if found.title else found.id
    likely = "" if found.likelihood is None else f"; {found.likelihood:.1%} likely to be within 30 days"
    known = "known to be exploited" if found.exploited else "not known to be exploited"
    if found.exploited is None:
        known = "whether it is exploited is not known"
    yield f"severity {found.severity}; {known}{likely}"
    dated = f"{found.data_date:%Y-%m-%d}" if found.data_date else "an unknown date"
    yield f"by the data of {dated}: {found.data}"
    if found.outdated:
        yield f"this data does not count: {found.outdated}"
    yield from found.notes


def _alike(lines: Iterable[AffectedLine]) -> Iterable[list[AffectedLine]]:
    """The lines that differ only in who has it, such as the members of a fleet, together."""
    return by_key((line.model_copy(update={"name": ""}).model_dump_json(), line) for line in lines).values()


def _row(lines: Sequence[AffectedLine], todo: Sequence[str]) -> list[Cell]:
    line = lines[0]
    more = [f"and {len(lines) - NAMED} more"] if lines[NAMED:] else []
    who: list[str] = [*(one.name for one in lines[:NAMED]), *more, *line.channels]
    packages = [*(one.name for one in line.packages), *dict.fromkeys(one.installed for one in line.packages)]
    due = "waived" if line.waived_by else f"due {line.due:%Y-%m-%d}" if line.due else "not due"
    dates = [*([f"since {line.since:%Y-%m-%d}"] if line.since else []), due]
    part: list[str] = ["base", line.comes_from] if line.comes_from else ["yours"]
    return [who, packages, part, line.fixed or "no fix", dates, str(todo.index(f"{line.acts}: {line.todo}") + 1)]


def _rest(found: AffectedOutput) -> Iterator[str]:
    if not found.lines:
        known = "known to be affected" if found.outdated else "affected"
        yield f"no image here is {known}: {found.looked_at} release(s) and member(s) were looked at"
    if found.older:
        yield f"{found.older} older release(s) have it too, which nothing points to or runs"
    for name, at in found.fleets.items():
        yield f"the fleet {name} was last looked at on {at:%Y-%m-%d %H:%M} UTC (fleet.check)"
    if found.without_file:
        yield f"not counted, because no file here names it: {', '.join(found.without_file)}"
    if found.unknown:
        yield f"not all is known of {', '.join(found.unknown)}:"
        yield "their own packages are not known, or they were never looked at"
