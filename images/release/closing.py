"""Records in the ledger which vulnerabilities of the previous release a new one closes with newer packages.

The scanners' last word on the release before is not enough: where data and package came in the same night, nobody ever
looked at it by that data. So the packages that it held are matched once more, by what the tracker says today.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from hardening.findings import Finding, Outcome, ScanReport, merge
from hardening.foundation.errors import OutsideError
from images.artifact import Artifact, Release
from images.ledger import ClosedFix, Ledger
from images.packages.index import PackageIndex
from images.release.store import ReleaseStore
from images.trust.vex import PreviousRelease, closed_since, versions, vulnerabilities

if TYPE_CHECKING:
    from images.scan.flow import ScanResult

KEPT = timedelta(days=36500)  # a copy of the data that is here is not asked about again
LONGEST_RUN = timedelta(days=1)
Closed = dict[tuple[str, str], Finding]


def before_it(ledger: Ledger, release: Release) -> PreviousRelease | None:
    """The content that a release takes the place of, as far as the ledger knows it."""
    for known in ledger.releases(release.name):
        if known.content != release.content and known.published_at <= release.published_at:
            of = known.content, known.name
            artifact, scan = ledger.artifact_over(*of), ledger.scan(*of)
            return PreviousRelease(known, artifact, scan.findings if scan else ()) if artifact else None
    return None


def record_closed(
    to: ReleaseStore, release: Release, artifact: Artifact, result: ScanResult, before: PreviousRelease | None
) -> None:
    """Write down what a new release closes, since when that was possible, and when it was built and published."""
    if before is None:
        return
    closed = _ended_by_packages(before, artifact, result.findings, result.reports)
    for finding in _matched(to, before, artifact, result):
        closed.setdefault((finding.id, finding.package), finding)
    known = to.ledger.first_seen_all(closed, to.now)
    seen = {which: min(known[which], closed[which].fix_known_since or known[which]) for which in closed}
    to.ledger.record_fixes([_line(to, release, artifact, one, seen[which]) for which, one in closed.items()])


def read_in_closed(to: ReleaseStore, releases: Iterable[Release]) -> None:
    """Into a lost ledger: what each release closed, by what was signed of it and of the one before.

    The day of first sight is the one that was signed, else that of the release.
    """
    for release in sorted(releases, key=lambda one: one.published_at):
        before, artifact = before_it(to.ledger, release), to.ledger.artifact_over(release.content, release.name)
        scan = to.ledger.scan(release.content, release.name)
        if before and artifact and scan:
            closed = _ended_by_packages(before, artifact, scan.findings, scan.reports).values()
            lines = [_line(to, release, artifact, one, one.fix_known_since or release.published_at) for one in closed]
            to.ledger.record_fixes(lines)


def _ended_by_packages(
    before: PreviousRelease, artifact: Artifact, findings: Sequence[Finding], reports: Sequence[ScanReport]
) -> Closed:
    """What is no longer found since another version of the package is there; merely other data closes nothing."""
    gone = closed_since(before, findings, reports)
    return {(one.id, one.package): one for one in gone if _newer(artifact, one)}


def _newer(artifact: Artifact, finding: Finding) -> bool:
    now = versions(artifact, finding.package)
    return bool(now and not now & set(finding.versions)) or (not now and bool(finding.fixed))


def _matched(to: ReleaseStore, before: PreviousRelease, artifact: Artifact, result: ScanResult) -> tuple[Finding, ...]:
    """What the tracker's data, as it judged the new content, says of the packages before, and not of those now."""
    from images import feeds
    from images.advisories import match
    from images.feeds import indexed
    from images.scan import matcher

    looked = {report.scanner for report in result.reports if report.outcome in (Outcome.PASS, Outcome.FAIL)}
    replaced = tuple(set(before.artifact.packages) - set(artifact.packages))
    if matcher.NAME not in looked or not replaced:
        return ()
    settings = to.settings.model_copy(update={"retry_for": timedelta(0)})
    try:
        feed = indexed.tracker(settings, result.suite, to.now, KEPT)
        advisories = indexed.advisories(feed, result.suite, replaced)
    except OutsideError:  # what the scanners said has to do
        return ()
    found = match(replaced, advisories)
    said = [matcher.as_finding(package, one) for package, ones in found.items() for one in ones if one.fixed]
    still = {(one.id, one.package) for one in vulnerabilities(result.findings)}
    fresh = [one for one in merge(said) if (one.id, one.package) not in still and _newer(artifact, one)]
    exploited = frozenset[str]()
    with suppress(OutsideError):
        exploited = feeds.exploited(settings, to.now, KEPT).ids if fresh else exploited
    scores = indexed.likelihoods(settings, to.now, KEPT).scores if fresh else {}
    return tuple(replace(one, exploited=one.id in exploited, epss=scores.get(one.id)) for one in fresh)


def _line(to: ReleaseStore, release: Release, artifact: Artifact, finding: Finding, seen: datetime) -> ClosedFix:
    """What is kept of one. A release is dated by the beginning of the run that made it, so where the same run built it,
    it was published when that was done. A day of first sight after that, as moved clocks leave it, is that day. What
    was only dated again was published when its content first was.
    """
    index, same = PackageIndex(to.settings), to.ledger.releases_of_content(release.content)
    at = min(one.published_at for one in (release, *same) if one.name == release.name)
    if at < artifact.built_at < at + LONGEST_RUN:
        at = artifact.built_at
    held = [package for package in artifact.packages if package.name == finding.package]
    dates = [date for package in held if (date := index.dated(package)) and date <= min(seen, at)]
    return ClosedFix(
        vulnerability=finding.id, package=finding.package, image=release.name, content=release.content,
        fixed=", ".join(sorted(versions(artifact, finding.package))) or finding.fixed, severity=finding.severity,
        exploited=finding.exploited, epss=finding.epss, policy=release.policy,
        upstream_at=max(dates, default=None), seen_at=min(seen, at), built_at=min(artifact.built_at, at),
        published_at=at,
    )  # fmt: skip
