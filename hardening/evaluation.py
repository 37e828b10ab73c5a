"""What scanners evaluated: enough of them, on data that is fresh enough; and the benchmark of a policy: was the image
measured by it, how far does it hold, who answers for the rest. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from hardening.findings import Finding, FindingKind, Outcome, Reason, ScanReport
from hardening.foundation.durations import shown
from hardening.model import Enforcement
from hardening.policy import Benchmark, Explanation, Judges, Reproduced

JUDGE = "openscap"  # the scanner whose reports and findings these are
SCORE = "benchmark-score"


def is_rule(finding: Finding) -> bool:
    """Whether `finding` is a rule of a benchmark that does not hold."""
    return any(scanner == JUDGE for scanner, _ in finding.scanners)


def measured(rule: Benchmark | None, subject: str, reports: Sequence[ScanReport]) -> Iterator[Reason]:
    """Reasons where the image was not measured, where too little of it holds, and for explanations without a cause."""
    if rule is None:
        return
    report = next((report for report in reports if report.scanner == JUDGE), None)
    if report and not (why := _why_not(rule, report)):
        yield from _low(rule, subject, report)
        yield from _stale(rule, subject, report)
        return
    what = f"{JUDGE} did not measure this image by {rule.profile}: {why if report else 'it did not run'}"
    why = "what was not looked at is not known to be good"
    todo = "./goldsmith doctor shows what the scanner lacks; feeds.openscap may name a directory with its content"
    yield rule.treated(Reason(f"{JUDGE}-evaluated", subject, rule.enforcement, what, why, todo))


def broken(rule: Benchmark, subject: str, finding: Finding) -> Reason:
    """The reason for a rule that does not hold: recorded where it is explained, else treated as the benchmark is."""
    told = explanation(rule, subject, finding.id)
    what = f"rule {finding.id} ({finding.severity}) of {rule.profile} does not hold: {finding.title}"
    what += f"; explained by {told.owner}: {' '.join(told.reason.split())}" if told else ""
    why = "whoever audits the machine asks about every rule that it breaks, and who decided so"
    todo = (
        "nothing, as long as the explanation in the policy is true"
        if told
        else "let a control hold it, explain it in the policy (image.benchmark.explained), or ask for a waiver"
    )
    reason = Reason(finding.id, subject, Enforcement.AUDIT, what, why, todo)
    return reason if told else rule.treated(reason)


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
        return f"it evaluated {report.evaluated} rules; the policy requires {rule.minimum_rules}"
    return ""


def _low(rule: Benchmark, subject: str, report: ScanReport) -> Iterator[Reason]:
    score, held = report.score or 0, report.evaluated - len(report.findings)
    if score < rule.minimum_score:
        holds = f"{score:.1f} % of {rule.profile} holds ({held} of {report.evaluated} rules evaluated)"
        what = f"{holds}; the policy requires {rule.minimum_score:g} %"
        why = "a benchmark that is mostly explained away hardens nothing"
        todo = "let controls hold the rules that are named here; explaining them does not raise the score"
        yield rule.treated(Reason(SCORE, subject, rule.enforcement, what, why, todo))


def _stale(rule: Benchmark, subject: str, report: ScanReport) -> Iterator[Reason]:
    """A warning for each explanation of a rule that this image does not break (any more)."""
    fails = {finding.id for finding in report.findings}
    for name, told in sorted(rule.explained.items()):
        if _about(told, subject) and name not in fails:
            what = f"the policy explains why {name} does not hold, and it does, or does not apply"
            why = "an explanation that nobody needs hides the day on which the rule breaks again"
            todo = f"{told.owner}: delete image.benchmark.explained.{name} from the policy, or narrow its subjects"
            yield Reason("explanation-stale", subject, Enforcement.WARN, what, why, todo)


REPRODUCED, REPRODUCED_EVALUATED = "reproduced", "reproduced-evaluated"


def reproduced(
    rule: Reproduced | None, judges_rule: Judges, subject: str, reports: Sequence[ScanReport], now: datetime
) -> Iterator[Reason]:
    """The reason where too few packages were reproduced, or where no data that the policy accepts tells it."""
    if rule is None:
        return
    report = next((one for one in reports if one.kind is FindingKind.REPRODUCTION), None)
    why = why_not(judges_rule, report, now) if report else "feeds.reproduced is not set"
    if report and not why:
        share, many = 100 * (report.reproduced or 0) / report.evaluated, f"{report.reproduced} of {report.evaluated}"
        if share >= rule.minimum_percent:
            return
        what = f"{share:.1f} % of the packages were reproduced ({many}); the policy requires {rule.minimum_percent:g} %"
        name, todo = REPRODUCED, "leave out packages that are not reproduced, or lower image.reproduced.minimum_percent"
    else:
        what = f"it is not known how many packages were reproduced: {why}"
        name, todo = REPRODUCED_EVALUATED, "set feeds.reproduced in goldsmith.toml (docs/feeds.md)"
    because = "if no one else built a package to the same bytes, only its builder knows what is in it"
    yield rule.treated(Reason(name, subject, rule.enforcement, what, because, todo))


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
    """Which program a report is by: `trivy` and `trivy-disk` are the same engine on the same data."""
    return report.scanner.partition("-")[0]


# Two programs that read the same data have one opinion.
ORIGINS = {"debsecan": "Debian's security tracker", "matcher": "Debian's security tracker"}


def origin(report: ScanReport) -> str:
    """Whose data a report is by, which is what counts as a judge; where two programs share none, the engine."""
    return ORIGINS.get(report.scanner, engine(report))


def judges(rule: Judges, subject: str, reports: Sequence[ScanReport], now: datetime) -> Iterator[Reason]:
    """One reason where scanners by fewer origins of data than the policy requires evaluated the image."""
    asked = [report for report in reports if report.kind is FindingKind.VULNERABILITY]
    counting = [report for report in asked if counts(rule, report, now)]
    counted = {origin(report) for report in counting}
    if len(counted) < rule.minimum:
        head = f"{'' if counted else 'nothing was evaluated: '}{len(counted)} of at least {rule.minimum}"
        what = f"{head} vulnerability scanners judged this image ({silence(rule, reports, now)}{_shared(counting)})"
        why = "an image that nobody judged looks exactly like an image without vulnerabilities"
        todo = _judges_todo(any(report.sample for report in asked))
        # A policy may be lenient about how many judges there are, never about whether there is one.
        reason = Reason("judges", subject, Enforcement.ENFORCE, what, why, todo)
        yield rule.treated(reason) if counted else reason


def _shared(counting: Sequence[ScanReport]) -> str:
    """Which scanners are one judge, since they read the same data."""
    named = sorted({report.scanner for report in counting if report.scanner in ORIGINS})
    return f"; {' and '.join(named)} count as one: both read {ORIGINS[named[0]]}" if len(named) > 1 else ""


NONE_RAN = "none ran"


def silence(rule: Judges, reports: Sequence[ScanReport], now: datetime) -> str:
    """Of each vulnerability scanner that does not count, why; an engine's forms with one reason together. Those for
    other kinds of images only where there is no one else.
    """
    silent: dict[tuple[str, str], list[str]] = {}
    asked = [report for report in reports if report.kind is FindingKind.VULNERABILITY]
    for report in [one for one in asked if one.outcome is not Outcome.NOT_APPLICABLE] or asked:
        if why := why_not(rule, report, now):
            silent.setdefault((engine(report), why), []).append(report.scanner)
    return "; ".join(f"{', '.join(names)}: {why}" for (_, why), names in silent.items()) or NONE_RAN


UNCOVERED = "uncovered-"
ECOSYSTEMS = (
    "cargo", "cocoapods", "composer", "conan", "conda", "cran", "dart", "gem", "generic", "github", "golang", "hackage",
    "hex", "maven", "npm", "nuget", "pub", "pypi", "rpm", "apk", "swift",
)  # fmt: skip
"""Ecosystems of packages, as package URLs name them, that a waiver can be about; all others are `other`."""


def uncovered(rule: Judges, subject: str, reports: Sequence[ScanReport], now: datetime) -> Iterator[Reason]:
    """One reason for each ecosystem with packages that none of the scanners which count evaluated."""
    counting = [report for report in reports if counts(rule, report, now)]
    common = set.intersection(*({name for name, _ in report.beyond} for report in counting)) if counting else set()
    evaluated = ", ".join(f"{report.scanner} evaluated {' and '.join(report.ecosystems)}" for report in counting)
    others = silence(rule, reports, now)
    for name, packages in sorted(dict(counting[0].beyond).items()) if common else ():
        if name in common:
            what = f"no scanner that counts evaluated the image's {name} packages: {packages}; {evaluated}"
            what += f"; {others}" if others != NONE_RAN else ""
            why = "what nobody looked for is not found: such packages look as if they had no vulnerability"
            todo = (
                f"set feeds.trivy in goldsmith.toml to its database (docs/feeds.md), or name a scanner in `scanners` "
                f"that reads {name}; or leave these packages out, or install them from the distribution"
            )
            rule_name = f"{UNCOVERED}{name if name in ECOSYSTEMS else 'other'}"
            yield Reason(rule_name, subject, rule.uncovered, what, why, todo)


def _judges_todo(sample: bool) -> str:
    feeds = (
        "set feeds.debsecan (or feeds.trivy) in goldsmith.toml to an address that this machine reaches (HTTPS_PROXY "
        "counts) or a directory with current data (docs/feeds.md), or GOLDSMITH_FEEDS__DEBSECAN in the environment, "
        "and run again"
    )
    trial = (
        "; to try Goldsmith without a feed, add --policy demo, which accepts the sample that ships and publishes where "
        "[judging] lets it (README.md, Settings)"
    )
    return f"{feeds}{trial if sample else ''}; ./goldsmith doctor shows which scanners are missing"


def unread(rule: Judges, subject: str, reports: Sequence[ScanReport], now: datetime) -> Iterator[Reason]:
    """Reasons where an engine judged the image but could not read another form of it, such as the disk that ships."""
    judged = {engine(report) for report in reports if counts(rule, report, now)}
    for report in reports:
        silent = report.outcome in (Outcome.ERROR, Outcome.NOT_EVALUATED)
        if report.kind is FindingKind.VULNERABILITY and silent and engine(report) in judged:
            what = f"{report.scanner} did not evaluate this image, though {engine(report)} did: {report.reason}"
            why = "what ships is not known to be what was judged"
            todo = f"run `./goldsmith image.scan {subject}`, and see what {report.scanner} says of it"
            yield rule.treated(Reason(f"{report.scanner}-evaluated", subject, rule.enforcement, what, why, todo))


def outdated(
    rule: Judges, subject: str, reports: Sequence[ScanReport], now: datetime, *, by_likelihood: bool = False
) -> Iterator[Reason]:
    """A warning where what is told of exploitation is missing, or older than the policy lets any data be.

    `by_likelihood`: whether the policy has a window that asks how likely it is.
    """
    about = {
        "kev": (
            "the list of exploited vulnerabilities",
            "what began to be exploited since then counts as not exploited",
        )
    }
    if by_likelihood:
        about["epss"] = ("the estimates of what will be exploited", "windows by `epss` cover nothing newer")
        if not any(one.kind is FindingKind.EXPLOITATION and one.scanner == "epss" for one in reports):
            what, todo = "the policy has windows by `epss`, and no estimates are known", "set feeds.epss"
            yield Reason("epss-evaluated", subject, Enforcement.WARN, what, "such a window covers nothing", todo)
    for report in reports:
        told = about.get(report.scanner) if report.kind is FindingKind.EXPLOITATION else None
        if told and (why := why_not(rule, report, now)):
            what = f"{told[0]} ({report.data_source}): {why}"
            why = told[1]
            away = f"let this machine reach it, or set feeds.{report.scanner} to a copy (docs/feeds.md)"
            todo = away if report.reason else f"bring feeds.{report.scanner} up to date"
            yield Reason(f"{report.scanner}-evaluated", subject, Enforcement.WARN, what, why, todo)
