"""The benchmark of a policy: was the image measured by it, how far does it hold, who answers for the rest. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from hardening.findings import Finding, Outcome, Reason, ScanReport
from hardening.model import Enforcement
from hardening.policy import Benchmark, Explanation

JUDGE = "openscap"  # the scanner whose reports and findings these are
SCORE = "benchmark-score"


def is_rule(finding: Finding) -> bool:
    """Whether `finding` is a rule of a benchmark that does not hold."""
    return any(scanner == JUDGE for scanner, _ in finding.scanners)


def measured(rule: Benchmark | None, subject: str, reports: Sequence[ScanReport]) -> list[Reason]:
    """Reasons where the image was not measured, where too little of it holds, and for explanations without a cause."""
    if rule is None:
        return []
    report = next((report for report in reports if report.scanner == JUDGE), None)
    if report is None or (why := _why_not(rule, report)):
        return [_unmeasured(rule, subject, why if report else "it did not run")]
    return [*_low(rule, subject, report), *_stale(rule, subject, report)]


def broken(rule: Benchmark, subject: str, finding: Finding) -> Reason:
    """The reason for a rule that does not hold: recorded where it is explained, else treated as the benchmark is."""
    told = explanation(rule, subject, finding.id)
    what = f"rule {finding.id} ({finding.severity}) of {rule.profile} does not hold: {finding.title}"
    return Reason(
        rule=finding.id,
        subject=subject,
        enforcement=Enforcement.AUDIT if told else rule.enforcement,
        what=f"{what}; explained by {told.owner}: {' '.join(told.reason.split())}" if told else what,
        why="whoever audits the machine asks about every rule that it breaks, and who decided so",
        todo="nothing, as long as the explanation in the policy is true"
        if told
        else "let a control hold it, explain it in the policy (image.benchmark.explained), or ask for a waiver",
    )


def explanation(rule: Benchmark, subject: str, broken_rule: str) -> Explanation | None:
    """Why `subject` does not follow `broken_rule`, where the policy says so."""
    told = rule.explained.get(broken_rule)
    return told if told and _about(told, subject) else None


def _about(told: Explanation, subject: str) -> bool:
    return any(fnmatchcase(subject, glob) for glob in told.subjects)


def _why_not(rule: Benchmark, report: ScanReport) -> str:
    """Why a report is no measurement by `rule`; empty when it is."""
    if report.outcome not in (Outcome.PASS, Outcome.FAIL) or report.score is None:
        return report.reason or "it evaluated no rule"
    if report.profile != rule.profile:
        return f"it measured by {report.profile}"
    if report.evaluated < rule.minimum_rules:
        return f"it evaluated {report.evaluated} rules; the policy asks for {rule.minimum_rules}"
    return ""


def _unmeasured(rule: Benchmark, subject: str, why: str) -> Reason:
    return Reason(
        rule=f"{JUDGE}-evaluated",
        subject=subject,
        enforcement=rule.enforcement,
        what=f"{JUDGE} did not measure this image by {rule.profile}: {why}",
        why="what was not looked at is not known to be good",
        todo="./goldsmith doctor shows what the scanner lacks; feeds.openscap may name a directory with its content",
    )


def _low(rule: Benchmark, subject: str, report: ScanReport) -> list[Reason]:
    score = report.score or 0
    if score >= rule.minimum_score:
        return []
    held = report.evaluated - len(report.findings)
    return [
        Reason(
            rule=SCORE,
            subject=subject,
            enforcement=rule.enforcement,
            what=f"{score:.1f} % of {rule.profile} holds ({held} of {report.evaluated} rules evaluated); "
            f"the policy asks for {rule.minimum_score:g} %",
            why="a benchmark that is mostly explained away hardens nothing",
            todo="let controls hold the rules that are named here; explaining them does not raise the score",
        )
    ]


def _stale(rule: Benchmark, subject: str, report: ScanReport) -> list[Reason]:
    """A warning for each explanation of a rule that this image does not break (any more)."""
    fails = {finding.id for finding in report.findings}
    return [
        Reason(
            rule="explanation-stale",
            subject=subject,
            enforcement=Enforcement.WARN,
            what=f"the policy explains why {name} does not hold, and it does, or does not apply",
            why="an explanation that nobody needs hides the day on which the rule breaks again",
            todo=f"{told.owner}: delete image.benchmark.explained.{name} from the policy, or narrow its subjects",
        )
        for name, told in sorted(rule.explained.items())
        if _about(told, subject) and name not in fails
    ]
