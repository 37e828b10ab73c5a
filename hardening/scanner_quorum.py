"""Did enough scanners really evaluate the image, on data that is fresh enough? Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from hardening.findings import FindingKind, Outcome, Reason, ScanReport
from hardening.foundation.durations import shown
from hardening.model import Enforcement
from hardening.policy import Judges

RULE = "judges"
CLOCK_SKEW = timedelta(days=1)


def counts(rule: Judges, report: ScanReport, now: datetime) -> bool:
    """Whether `report` is a vulnerability scanner's that evaluated the image on data the policy accepts."""
    return report.kind is FindingKind.VULNERABILITY and not why_not(rule, report, now)


def why_not(rule: Judges, report: ScanReport, now: datetime) -> str:
    """Why a vulnerability scanner's report does not count as an evaluation; empty when it does."""
    if report.outcome not in (Outcome.PASS, Outcome.FAIL) or report.evaluated < 1:
        return report.reason or "it evaluated nothing"
    if report.sample:
        return "" if rule.accept_sample else f"judged by the {report.data_source}, which this policy does not accept"
    if report.data_date is None:
        return f"the date of its data is unknown ({report.data_source})"
    age, limit = now - report.data_date, shown(rule.data_max_age)
    if age > rule.data_max_age:
        return f"its data is of {report.data_date:%Y-%m-%d}, {age.days} days old; the policy accepts {limit}"
    if age < -CLOCK_SKEW:
        return f"its data is dated {report.data_date:%Y-%m-%d}, in the future"
    return ""


def engine(report: ScanReport) -> str:
    """Whose opinion a report is: `trivy` and `trivy-disk` are the same engine on the same data, and so one judge."""
    return report.scanner.partition("-")[0]


def judges(rule: Judges, subject: str, reports: Sequence[ScanReport], now: datetime) -> list[Reason]:
    """One reason where fewer scanners than the policy asks for evaluated the image; none where enough did."""
    asked = [report for report in reports if report.kind is FindingKind.VULNERABILITY]
    counted = {engine(report) for report in asked if counts(rule, report, now)}
    if len(counted) >= rule.minimum:
        return []
    silent = "; ".join(f"{r.scanner}: {why}" for r in asked if (why := why_not(rule, r, now)))
    what = f"{len(counted)} of at least {rule.minimum}" if counted else "nothing was evaluated: 0 of at least"
    what = what if counted else f"{what} {rule.minimum}"
    return [
        Reason(
            rule=RULE,
            subject=subject,
            # A policy may be lenient about how many judges there are, never about whether there is one.
            enforcement=rule.enforcement if counted else Enforcement.ENFORCE,
            what=f"{what} vulnerability scanners judged this image ({silent or 'none ran'})",
            why="an image that nobody judged looks exactly like an image without vulnerabilities",
            todo=_judges_todo(any(report.sample for report in asked)),
        )
    ]


def _judges_todo(sample: bool) -> str:
    feeds = (
        "set feeds.debsecan (or feeds.trivy) in goldsmith.toml to an address or a directory with current data, "
        "or GOLDSMITH_FEEDS__DEBSECAN in the environment, and run again"
    )
    trial = "; to try Goldsmith without a feed, add --policy demo, which accepts the sample that ships"
    return f"{feeds}{trial if sample else ''}; ./goldsmith doctor shows which scanners are missing"


def unread(rule: Judges, subject: str, reports: Sequence[ScanReport], now: datetime) -> list[Reason]:
    """Reasons where an engine judged the image but could not read another form of it, such as the disk that ships."""
    judged = {engine(report) for report in reports if counts(rule, report, now)}
    return [
        Reason(
            rule=f"{report.scanner}-evaluated",
            subject=subject,
            enforcement=rule.enforcement,
            what=f"{report.scanner} did not evaluate this image, though {engine(report)} did: {report.reason}",
            why="what ships is not known to be what was judged",
            todo=f"run `./goldsmith image.scan {subject}`, and see what {report.scanner} says of it",
        )
        for report in reports
        if report.kind is FindingKind.VULNERABILITY
        and report.outcome in (Outcome.ERROR, Outcome.NOT_EVALUATED)
        and engine(report) in judged
    ]


def outdated(rule: Judges, subject: str, reports: Sequence[ScanReport], now: datetime) -> list[Reason]:
    """A warning where the list of exploited vulnerabilities is older than the policy lets any data be."""
    return [
        Reason(
            rule=f"{report.scanner}-evaluated",
            subject=subject,
            enforcement=Enforcement.WARN,
            what=f"the list of exploited vulnerabilities ({report.data_source}): {why}",
            why="what began to be exploited since then is treated as if nobody did",
            todo=report.reason or "bring feeds.kev up to date",
        )
        for report in reports
        if report.kind is FindingKind.EXPLOITATION and (why := why_not(rule, report, now))
    ]
