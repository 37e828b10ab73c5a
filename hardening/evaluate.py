"""The gate: what checks, scanners and dates say, against a policy and its waivers, becomes reasons and a verdict. Pure.

A verdict is allowed only when at least one vulnerability scanner and one control really evaluated the image and no
enforced reason stands unwaived. What was not evaluated is never a pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from hardening.findings import CheckResult, Finding, FindingKind, Outcome, Reason, ScanReport, Verdict, merge
from hardening.foundation.durations import shown
from hardening.model import Enforcement, FixWindow, Judges, Policy, Rule, Severity, Waiver
from hardening.running import RunningFacts, judge_member
from hardening.waive import ended, settle

__all__ = ["RunningFacts", "judge_image", "judge_member", "windows"]

WORST_FIRST = tuple(Severity)
LENIENT_FIRST = tuple(Enforcement)
CLOCK_SKEW = timedelta(days=1)
FirstSeen = Mapping[tuple[str, str], datetime]


def judge_image(
    policy: Policy,
    subject: str,
    checks: Sequence[CheckResult] | None,
    reports: Sequence[ScanReport],
    findings: Sequence[Finding],
    waivers: Sequence[Waiver],
    now: datetime,
    first_seen: FirstSeen | None = None,
) -> Verdict:
    """The verdict over publishing the image `subject` by `policy` at `now`.

    `checks` is None for an image that is not ours, which no profile applies to; of ours at least one must have looked.
    `first_seen` maps (id, package) to when a fix was first known to us, for findings that do not carry it; a finding in
    neither is new. Reasons come in a fixed order, refusals first.
    """
    merged, seen = merge(findings), first_seen or {}
    rules = policy.image
    own = [
        *_judges(rules.judges, subject, reports, now),
        *_unchecked(subject, checks),
        *(_check(subject, result) for result in checks or () if result.outcome in CHECK_BROKE),
        *_silent(policy, subject, reports),
        *_outdated(rules.judges, subject, reports, now),
        *_review(policy, now),
        *ended(waivers, subject, now.date()),
    ]
    found = [_dissent(_finding(policy, subject, finding, now, seen), finding, reports) for finding in merged]
    settled = [settle(reason, policy.exception_contact, waivers, now) for reason in own]
    settled += [settle(reason, policy.exception_contact, waivers, now, finding=True) for reason in found]
    evaluated = any(_counts(rules.judges, report, now) for report in reports) and not _unchecked(subject, checks)
    refused = any(reason.enforcement is Enforcement.ENFORCE and not reason.waived_by for reason in settled)
    return Verdict(subject, policy.name, now, evaluated and not refused, tuple(sorted(settled, key=_order)))


CHECK_BROKE = {
    Outcome.FAIL: "does not hold",
    Outcome.ERROR: "could not be checked",
    Outcome.NOT_EVALUATED: "was not evaluated",
}


def _order(reason: Reason) -> tuple[bool, int, bool, str, str, str]:
    """What is waived last, what refuses first, and of that first that nothing was judged at all."""
    lenient = -LENIENT_FIRST.index(reason.enforcement)
    return (bool(reason.waived_by), lenient, reason.rule != "judges", reason.rule, reason.what, reason.subject)


def _counts(rule: Judges, report: ScanReport, now: datetime) -> bool:
    """Whether `report` is a vulnerability scanner's that evaluated the image on data the policy accepts."""
    return report.kind is FindingKind.VULNERABILITY and not _why_not(rule, report, now)


def _why_not(rule: Judges, report: ScanReport, now: datetime) -> str:
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


def _judges(rule: Judges, subject: str, reports: Sequence[ScanReport], now: datetime) -> list[Reason]:
    judges = [report for report in reports if report.kind is FindingKind.VULNERABILITY]
    counted = {report.scanner for report in judges if _counts(rule, report, now)}
    if len(counted) >= rule.minimum:
        return []
    silent = "; ".join(f"{r.scanner}: {why}" for r in judges if (why := _why_not(rule, r, now)))
    what = f"{len(counted)} of at least {rule.minimum}" if counted else "nothing was evaluated: 0 of at least"
    what = what if counted else f"{what} {rule.minimum}"
    return [
        Reason(
            rule="judges",
            subject=subject,
            # A policy may be lenient about how many judges there are, never about whether there is one.
            enforcement=rule.enforcement if counted else Enforcement.ENFORCE,
            what=f"{what} vulnerability scanners judged this image ({silent or 'none ran'})",
            why="an image that nobody judged looks exactly like an image without vulnerabilities",
            todo=_judges_todo(any(report.sample for report in judges)),
        )
    ]


def _judges_todo(sample: bool) -> str:
    feeds = (
        "set feeds.debsecan (or feeds.trivy) in goldsmith.toml to an address or a directory with current data, "
        "or GOLDSMITH_FEEDS__DEBSECAN in the environment, and run again"
    )
    trial = '; to try Goldsmith without a feed, use policy = "demo", which accepts the sample that ships'
    return f"{feeds}{trial if sample else ''}; ./goldsmith doctor shows which scanners are missing"


def _unchecked(subject: str, checks: Sequence[CheckResult] | None) -> list[Reason]:
    """The reason against an image of ours that no control's check looked at."""
    if checks is None or any(result.outcome in (Outcome.PASS, Outcome.FAIL) for result in checks):
        return []
    return [
        Reason(
            rule="checks",
            subject=subject,
            enforcement=Enforcement.ENFORCE,
            what=f"nothing was verified: of {len(checks)} controls none passed or failed",
            why="an image that no control was checked on looks exactly like a hardened one",
            todo=f"`inv image.build {subject} --no-cache` verifies it; its profile must hold controls that apply",
        )
    ]


def _check(subject: str, result: CheckResult) -> Reason:
    broke = CHECK_BROKE[result.outcome]
    return Reason(
        rule=result.control,
        subject=subject,
        enforcement=result.enforcement,
        what=f"control {result.control} ({result.severity}) {broke}: {result.title}: {result.evidence.strip()}",
        why=f"`inv control.show {result.control}` gives the reason and what it costs to comply",
        todo="remove what the evidence names from the image's definition, or let the control apply it",
    )


def _finding(policy: Policy, subject: str, finding: Finding, now: datetime, first_seen: FirstSeen) -> Reason:
    if finding.kind is FindingKind.VULNERABILITY:
        return _vulnerability(policy, subject, finding, now, first_seen)
    secret = finding.kind is FindingKind.SECRET
    return _other(subject, finding, policy.image.secrets if secret else policy.image.misconfigurations)


def windows(policy: Policy, finding: Finding) -> list[FixWindow]:
    """The windows of `policy` that cover `finding`, by severity and exploitation (see FixWindow)."""
    named = any(w.severity is Severity.UNKNOWN and not w.exploited for w in policy.image.vulnerabilities)
    return [window for window in policy.image.vulnerabilities if _covers(window, finding, named)]


def _covers(window: FixWindow, finding: Finding, unknown_is_named: bool) -> bool:
    if window.exploited and not finding.exploited:
        return False
    if window.severity is Severity.UNKNOWN or finding.severity is Severity.UNKNOWN:
        same = window.severity is finding.severity
        return same or (finding.severity is Severity.UNKNOWN and (window.exploited or not unknown_is_named))
    return WORST_FIRST.index(finding.severity) <= WORST_FIRST.index(window.severity)


def _vulnerability(policy: Policy, subject: str, finding: Finding, now: datetime, first_seen: FirstSeen) -> Reason:
    what = f"{finding.id} in {finding.package} {finding.installed}"
    exploited = ", known to be exploited" if finding.exploited else ""
    base = Reason(
        rule=finding.id,
        subject=subject,
        enforcement=Enforcement.AUDIT,
        what=f"{what}: {_said(finding)}{exploited}{_title(finding)}",
        why="attackers read the same advisories: once a fix is published, the hole is too",
        todo=f"rebuild on {finding.package} {finding.fixed} (`inv image.build {subject}` takes it from the index)",
    )
    if not finding.fixed:
        wait = "no fixed version is published: leave the package out if the image can do without, or wait for the fix"
        return replace(base, enforcement=policy.image.unfixed.enforcement, todo=wait)
    since = finding.fix_known_since or first_seen.get((finding.id, finding.package), now)
    treated = [_in_window(window, since, now) for window in windows(policy, finding)]
    if not treated:
        return replace(base, since=since)
    enforcement, deadline = max(treated, key=lambda item: (LENIENT_FIRST.index(item[0]), -item[1].timestamp()))
    what = f"{base.what}; {_window_text(since, deadline, now)}"
    return replace(base, enforcement=enforcement, since=since, deadline=deadline, what=what)


def _window_text(since: datetime, deadline: datetime, now: datetime) -> str:
    known = f"a fix is known since {since:%Y-%m-%d}"
    if deadline == since:
        return f"{known}, and the policy gives no time to wait with it"
    return f"{known}, and {'must' if now < deadline else 'had to'} be in by {deadline:%Y-%m-%d %H:%M} UTC"


def _said(finding: Finding) -> str:
    """The severity and who says so; where scanners disagree, each one's own word."""
    if len({severity for _, severity in finding.scanners}) > 1:
        opinions = ", ".join(f"{scanner}: {severity}" for scanner, severity in finding.scanners)
        return f"severity {finding.severity}, though scanners disagree ({opinions})"
    return f"severity {finding.severity} ({', '.join(scanner for scanner, _ in finding.scanners)})"


def _title(finding: Finding) -> str:
    return f": {finding.title}" if finding.title and finding.title != finding.id else ""


def _in_window(window: FixWindow, since: datetime, now: datetime) -> tuple[Enforcement, datetime]:
    """How a window treats a fix known since `since`: inside it at most a warning, after it the window's enforcement."""
    deadline = since + window.within + window.grace
    inside = min(window.enforcement, Enforcement.WARN, key=LENIENT_FIRST.index)
    return (inside if now < deadline else window.enforcement), deadline


def _dissent(reason: Reason, finding: Finding, reports: Sequence[ScanReport]) -> Reason:
    """`reason` with the vulnerability scanners that evaluated the image too and stay silent: that is an opinion."""
    said = {scanner for scanner, _ in finding.scanners}
    looked = {r.scanner for r in reports if r.kind is finding.kind and r.outcome in (Outcome.PASS, Outcome.FAIL)}
    silent = sorted(looked - said)
    if finding.kind is not FindingKind.VULNERABILITY or not silent:
        return reason
    return replace(reason, what=f"{reason.what}; {', '.join(silent)} looked and did not find it")


def _other(subject: str, finding: Finding, rule: Rule) -> Reason:
    secret = finding.kind is FindingKind.SECRET
    return Reason(
        rule=finding.id,
        subject=subject,
        enforcement=rule.enforcement,
        what=f"{finding.kind} {finding.id} in {finding.package}: {_said(finding)}{_title(finding)}",
        why="whoever can pull the image can read it, and layers keep what a later layer deletes"
        if secret
        else "it weakens the image for everyone who builds on it",
        todo="take it out of the image, revoke it where it was valid, and mount secrets when the container runs"
        if secret
        else f"change the image's definition{': ' + finding.fixed if finding.fixed else ''}",
    )


def _silent(policy: Policy, subject: str, reports: Sequence[ScanReport]) -> list[Reason]:
    """Reasons for the scanners for secrets and misconfigurations that did not evaluate the image."""
    rules = {
        FindingKind.SECRET: policy.image.secrets,
        FindingKind.MISCONFIGURATION: policy.image.misconfigurations,
    }
    return [
        Reason(
            rule=f"{report.scanner}-evaluated",
            subject=subject,
            enforcement=rules[report.kind].enforcement,
            what=f"{report.scanner} did not evaluate this image for a {report.kind}: {report.reason}",
            why="what was not looked at is not known to be good",
            todo="./goldsmith doctor shows what the scanner lacks",
        )
        for report in reports
        if report.kind in rules and report.outcome in (Outcome.ERROR, Outcome.NOT_EVALUATED)
    ]


def _outdated(rule: Judges, subject: str, reports: Sequence[ScanReport], now: datetime) -> list[Reason]:
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
        if report.kind is FindingKind.EXPLOITATION and (why := _why_not(rule, report, now))
    ]


def _review(policy: Policy, now: datetime) -> list[Reason]:
    """A policy that nobody has looked at in time is itself a finding, of the policy's owner."""
    if now.date() <= policy.review_by:
        return []
    late: timedelta = now.date() - policy.review_by
    return [
        Reason(
            rule="policy-review",
            subject=policy.name,
            enforcement=Enforcement.WARN,
            what=f"policy {policy.name} had to be reviewed by {policy.review_by}, {late.days} days ago",
            why="limits that nobody has looked at again drift from what threatens us",
            todo=f"{policy.owner}: review hardening/policies/{policy.name}.toml and move review_by",
        )
    ]
