"""The gate: turns checks, scanners and dates into reasons and a verdict, by a policy and its waivers. Pure.

A verdict is allowed only when at least one vulnerability scanner and one control really evaluated the image and no
enforced reason stands unwaived. What was not evaluated is never a pass.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from hardening import evaluation
from hardening.evaluation import counts, judges, outdated, uncovered, unread
from hardening.findings import (
    BaseImage,
    CheckResult,
    Finding,
    FindingKind,
    Outcome,
    Reason,
    ScanReport,
    Verdict,
    merge,
    since_text,
)
from hardening.foundation.errors import RefusedError
from hardening.foundation.text import one_line
from hardening.model import LENIENT_FIRST, Enforcement, Waiver
from hardening.policy import FixWindow, ImageRules, Policy, covering
from hardening.waivers import TITLES, About, about_check, about_finding, about_rule, answered, ended, ending, listed


def judge_image(
    policy: Policy,
    subject: str,
    checks: Sequence[CheckResult] | None,
    reports: Sequence[ScanReport],
    findings: Sequence[Finding],
    waivers: Sequence[Waiver],
    now: datetime,
    bases: Sequence[BaseImage] = (),
    offered: Collection[tuple[str, str]] | None = None,
) -> Verdict:
    """The verdict over publishing the image `subject` by `policy` at `now`.

    `checks` is None for an image that is not ours, which no profile applies to; of ours at least one must have looked.
    A finding that does not say since when its fix is known is new. Reasons come in a fixed order, refusals first.
    `bases` are the images that it stands on, the nearest first, and say where what is found comes from. `offered`: the
    fixes (package, version) that a build would get now; None where that is unknown.
    """
    policy, below = policy.on(now.date()), [base.name for base in bases]
    rules, unchecked = policy.image, list(_unchecked(subject, checks))
    own = [
        *judges(rules.judges, subject, reports, now),
        *uncovered(rules.judges, subject, reports, now),
        *unchecked,
        *_windowless(policy),
        *_silent(policy, subject, reports),
        *evaluation.measured(rules.benchmark, subject, reports),
        *evaluation.reproduced(rules.reproduced, rules.judges, subject, reports, now),
        *unread(rules.judges, subject, reports, now),
        *outdated(rules.judges, subject, reports, now, by_likelihood=_by_likelihood(rules)),
        *_review(policy, now),
        *ended(waivers, subject, now.date(), below),
        *ending(waivers, subject, now.date(), below),
    ]
    about = [
        *((reason, about_rule(reason.rule)) for reason in own),
        *_of_checks(subject, checks or (), bases),
        *_of_findings(policy, subject, reports, findings, now, bases, offered),
    ]
    settled = [
        answered(_placed(reason, named), named, policy.exception_contact, waivers, now) for reason, named in about
    ]
    evaluated = any(counts(rules.judges, report, now) for report in reports) and not unchecked
    refused = any(reason.enforcement is Enforcement.ENFORCE and not reason.waived_by for reason in settled)
    return Verdict(subject, policy.name, now, evaluated and not refused, tuple(sorted(settled, key=_order)))


def _placed(reason: Reason, about: About) -> Reason:
    """The reason with the image that brings it in, the lowest one that has it, where that is not the subject itself."""
    if not about.below:
        return reason
    lowest = about.below[-1]
    return replace(reason, comes_from=lowest, what=f"{reason.what}{_comes_from(lowest)}")


def _comes_from(image: str) -> str:
    return f"; it comes from {image}" if image else ""


def _of_checks(
    subject: str, checks: Iterable[CheckResult], bases: Sequence[BaseImage]
) -> Iterator[tuple[Reason, About]]:
    """The reasons against checks that broke, each with what it is about."""
    for result in checks:
        if broke := CHECK_BROKE.get(result.outcome):
            what = f"control {result.control} ({result.severity}) {broke}: {result.title}: {result.evidence.strip()}"
            why = f"`./goldsmith control.show {result.control}` gives the reason and what it costs to comply"
            todo = "remove what the evidence names from the image's definition, or let the control apply it"
            reason = Reason(result.control, subject, result.enforcement, what, why, todo)
            yield reason, about_check(result.control, bases, result.evidence)


def _of_findings(
    policy: Policy, subject: str, reports: Sequence[ScanReport], findings: Sequence[Finding], now: datetime,
    bases: Sequence[BaseImage], offered: Collection[tuple[str, str]] | None,
) -> Iterator[tuple[Reason, About]]:  # fmt: skip
    """The reasons against findings, merged, each with what it is about."""
    for finding in merge(findings):
        reason = _finding(policy, subject, finding, now, offered)
        yield _dissent(reason, finding, reports), about_finding(finding, bases)


def enforced_as(results: Iterable[CheckResult], asked: Mapping[str, Enforcement]) -> tuple[CheckResult, ...]:
    """The results as controls are `asked` for today: their enforcement may have begun since they were found, and one
    that no longer is asked for does not count. What a boot or a start showed, no profile asks for.
    """
    return tuple(
        replace(result, enforcement=asked.get(result.control, result.enforcement))
        for result in results
        if result.control in asked or result.control in TITLES
    )


CHECK_BROKE = {
    Outcome.FAIL: "does not hold",
    Outcome.ERROR: "could not be checked",
    Outcome.NOT_EVALUATED: "was not evaluated",
}


def _order(reason: Reason) -> tuple[bool, int, bool, str, str, str]:
    """What is waived last, what refuses first, and of that first that nothing was judged at all."""
    lenient = -LENIENT_FIRST.index(reason.enforcement)
    return (bool(reason.waived_by), lenient, reason.rule != "judges", reason.rule, reason.what, reason.subject)


def _unchecked(subject: str, checks: Sequence[CheckResult] | None) -> Iterator[Reason]:
    """The reason against an image of ours that no control's check looked at."""
    if checks is not None and not any(result.outcome in (Outcome.PASS, Outcome.FAIL) for result in checks):
        what = f"nothing was verified: of {len(checks)} controls none passed or failed"
        why = "an image that no control was checked on looks exactly like a hardened one"
        todo = f"`./goldsmith image.build {subject} --no-cache` verifies it by a profile whose controls apply"
        yield Reason("checks", subject, Enforcement.ENFORCE, what, why, todo)


def _by_likelihood(rules: ImageRules) -> bool:
    """Whether a window asks how likely a vulnerability is exploited."""
    return any(window.epss is not None for window in rules.vulnerabilities)


def _windowless(policy: Policy) -> Iterator[Reason]:
    """The reason against every image where the policy lets known vulnerabilities stay for ever."""
    if not policy.image.has_window:
        what = f"the policy {policy.name} enforces no window in which vulnerabilities must be fixed"
        why = "by such a policy an image with every known hole would pass"
        todo = f"{policy.owner}: add [[image.vulnerabilities]] to hardening/policies/{policy.name}.toml"
        yield Reason("policy-window", policy.name, Enforcement.ENFORCE, what, why, todo)


def _finding(
    policy: Policy, subject: str, finding: Finding, now: datetime, offered: Collection[tuple[str, str]] | None
) -> Reason:
    if finding.kind is FindingKind.VULNERABILITY:
        return _vulnerability(policy, subject, finding, now, offered)
    if policy.image.benchmark and evaluation.is_rule(finding):
        return evaluation.broken(policy.image.benchmark, subject, finding)
    secret = finding.kind is FindingKind.SECRET
    rule = policy.image.secrets if secret else policy.image.misconfigurations
    what = f"{finding.kind} {finding.id} in {finding.package}: {_said(finding)}{_title(finding)}"
    why = (
        "whoever can pull the image can read it, and layers keep what a later layer deletes"
        if secret
        else "it weakens the image for everyone who builds on it"
    )
    todo = (
        "take it out of the image, revoke it where it was valid, and mount secrets when the container runs"
        if secret
        else f"change the image's definition{': ' + finding.fixed if finding.fixed else ''}"
    )
    return rule.treated(Reason(finding.id, subject, rule.enforcement, what, why, todo))


def windows(policy: Policy, finding: Finding) -> list[FixWindow]:
    """The windows of `policy` that cover `finding`, by severity, exploitation and its likelihood (see FixWindow)."""
    return covering(policy.image.vulnerabilities, finding.severity, exploited=finding.exploited, epss=finding.epss)


def fix_due(policy: Policy, finding: Finding, since: datetime) -> datetime | None:
    """Until when the policy lets a fix wait that is known since `since`, by the strictest window; None: for ever."""
    treated = [_in_window(window, since, datetime.max.replace(tzinfo=UTC)) for window in windows(policy, finding)]
    return _strictest(treated)[1] if treated else None


def _strictest(treated: Iterable[tuple[Enforcement, datetime]]) -> tuple[Enforcement, datetime]:
    return max(treated, key=lambda item: (LENIENT_FIRST.index(item[0]), -item[1].timestamp()))


def about_fix(vulnerability: str, package: str) -> str:
    """How a reason about a vulnerability begins: open fixes are told from other reasons by it."""
    return f"{vulnerability} in {package} "


WAIT = "leave the package out, or wait"


def until_offered(verdict: Verdict | None, vulnerability: str, package: str) -> str:
    """What is to be done about a fix that no build would get, as the verdict says; empty where one would."""
    about, reasons = about_fix(vulnerability, package), verdict.reasons if verdict else ()
    return next((one.todo for one in reasons if one.what.startswith(about) and one.todo.startswith(WAIT)), "")


def _vulnerability(
    policy: Policy, subject: str, finding: Finding, now: datetime, offered: Collection[tuple[str, str]] | None
) -> Reason:
    exploited = f"{', known to be exploited' if finding.exploited else ''}{_likely(policy, finding)}"
    which = about_fix(finding.id, finding.package)
    what = f"{which}{finding.installed}: {_said(finding)}{exploited}{_title(finding)}"
    why = "attackers read the same advisories: once a fix is published, the hole is too"
    todo = f"rebuild on {finding.package} {finding.fixed} (`./goldsmith image.build {subject}` takes it)"
    if offered is None:
        todo = todo.replace("takes it", "takes it once the mirror has it")
    elif (finding.package, finding.fixed) not in offered:
        todo = f"{WAIT}: the mirror's index lacks {finding.package} {finding.fixed} so far"
    base = Reason(finding.id, subject, Enforcement.AUDIT, what, why, todo)
    if not finding.fixed:
        wait = "no fixed version is published: leave the package out if the image can do without, or wait for the fix"
        return policy.image.unfixed.treated(replace(base, todo=wait))
    since = finding.fix_known_since or now
    treated = [_in_window(window, since, now) for window in windows(policy, finding)]
    if not treated:
        return replace(base, since=since)
    enforcement, deadline = _strictest(treated)
    told = f"{what}; {_window_text(since, deadline, now)}"
    return replace(base, enforcement=enforcement, since=since, deadline=deadline, what=told)


def _likely(policy: Policy, finding: Finding) -> str:
    """How likely it is exploited, where a window of the policy covers it for that."""
    by_score = any(window.epss is not None for window in windows(policy, finding))
    return f", EPSS score {finding.epss:.2g}" if by_score else ""


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
    """How a window treats a fix known since `since`: inside it at most a warning, after it the window's enforcement.

    It does not end before it is enforced.
    """
    ends = since + window.within + window.grace
    deadline = max(ends, window.begins or ends)
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


def _silent(policy: Policy, subject: str, reports: Sequence[ScanReport]) -> Iterator[Reason]:
    """Reasons for the scanners for secrets and misconfigurations that did not evaluate the image."""
    rules = {FindingKind.SECRET: policy.image.secrets, FindingKind.MISCONFIGURATION: policy.image.misconfigurations}
    for report in reports:
        own_rule = policy.image.benchmark and report.scanner == evaluation.JUDGE
        if report.kind in rules and report.outcome in (Outcome.ERROR, Outcome.NOT_EVALUATED) and not own_rule:
            what = f"{report.scanner} did not evaluate this image for a {report.kind}: {report.reason}"
            why = "what was not looked at is not known to be good"
            todo = "./goldsmith doctor shows what the scanner lacks"
            reason = Reason(f"{report.scanner}-evaluated", subject, rules[report.kind].enforcement, what, why, todo)
            yield rules[report.kind].treated(reason)


def _review(policy: Policy, now: datetime) -> Iterator[Reason]:
    """A policy that nobody has looked at in time is itself a finding, of the policy's owner."""
    late = (now.date() - policy.review_by).days
    if late > 0:
        what = f"policy {policy.name} had to be reviewed by {policy.review_by}, {late} days ago"
        why = "limits that nobody has looked at again drift from what threatens us"
        todo = f"{policy.owner}: review hardening/policies/{policy.name}.toml and move review_by"
        yield Reason("policy-review", policy.name, Enforcement.WARN, what, why, todo)


NAMED = 6


class GateError(RefusedError):
    """The gate refuses: its evidence lists all `reasons`."""

    def __init__(self, message: str, reasons: Sequence[Reason], *, hint: str) -> None:
        super().__init__(message, evidence=explain(reasons), hint=hint)
        self.reasons = tuple(reasons)


def by_remedy(reasons: Sequence[Reason]) -> list[list[Reason]]:
    """Reasons with one remedy together: holes that one newer package closes are one task."""
    groups: dict[tuple[str, str, str, str], list[Reason]] = {}
    for reason in reasons:
        groups.setdefault((reason.enforcement, reason.why, reason.todo, reason.waived_by), []).append(reason)
    return list(groups.values())


def explain(reasons: Sequence[Reason]) -> str:
    """`reasons` as text, those with one remedy together."""
    blocks = [_block(group) for group in by_remedy(reasons)]
    ask = next((reason for reason in reasons if reason.waiver and not reason.waived_by), None)
    if ask:
        blocks.append(f"if it cannot be done in time, for {ask.rule} {ask.waiver}")
    return "\n".join(blocks)


def _block(group: list[Reason]) -> str:
    first = group[0]
    lines = [f"{first.enforcement}: {one_line(first.what)}"]
    if group[1:]:
        rules = [reason.rule for reason in group[1:]]
        more = f" and {len(rules) - NAMED} more" if rules[NAMED:] else ""
        lines.append(f"  the same for: {one_line(', '.join(rules[:NAMED]))}{more}")
    lines += [f"  why: {one_line(first.why)}", f"  do:  {one_line(first.todo)}"]
    if first.waived_by:
        lines.append(f"  waived by {first.waived_by}")
    return "\n".join(lines)


# -- what many subjects share ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SharedReason:
    """One reason for all `subjects`, by their names; `brought_by` is the image that brings it in."""

    reason: Reason
    subjects: tuple[str, ...]
    brought_by: str = ""


def shared(reasons: Iterable[Reason], parents: Mapping[str, str | None] | None = None) -> list[SharedReason]:
    """Reasons that say the same of many subjects, each once: since the first of them, until the first deadline.

    What to type names NAME in the place of many. With the images' `parents`, what images have from one base is the
    base's own reason, and what two bases bring in is two.
    """
    alike: dict[Reason, list[Reason]] = {}
    for reason in reasons:
        alike.setdefault(_of_nobody(reason), []).append(reason)
    found = list[SharedReason]()
    for general, group in alike.items():
        having = {_name(reason) for reason in group}
        if parents is None:
            found.append(_together(general, group))
            continue
        by_root: dict[str, list[Reason]] = {}
        for reason in sorted(group, key=_name):
            root = reason.comes_from or brought_by(_name(reason), having, parents)
            by_root.setdefault(root, []).append(reason)
        for root, mine in by_root.items():
            mine.sort(key=lambda reason, root=root: _name(reason) != root)  # type: ignore[misc]
            found.append(replace(_together(general, mine), reason=mine[0], brought_by=root))
    return found


def brought_by(name: str, having: Collection[str], parents: Mapping[str, str | None]) -> str:
    """The lowest of the images `having` something that `name` stands on; itself where none of them has it."""
    found, below = name, parents.get(name)
    while below:
        found, below = (below if below in having else found), parents.get(below)
    return found


def explain_shared(found: Sequence[SharedReason]) -> str:
    """Shared reasons as text, under the names of those whom they are about."""
    about: dict[str, list[Reason]] = {}
    for one in found:
        first, *others = one.subjects
        brought = f"{first}, and by it {', '.join(others)}" if one.brought_by and others else ", ".join(one.subjects)
        about.setdefault(brought, []).append(one.reason)
    return "\n".join(
        f"{one_line(names)}:\n  " + explain(reasons).replace("\n", "\n  ") for names, reasons in about.items()
    )


def _name(reason: Reason) -> str:
    return reason.subject.partition("/")[2] or reason.subject


def _of_nobody(reason: Reason) -> Reason:
    """The reason without its subject, its days, and the subject's name in what to type."""
    name, todo = _name(reason), reason.todo
    what = reason.what.removesuffix(since_text(reason.since)).removesuffix(_comes_from(reason.comes_from))
    if name in todo:  # a pattern for each of ten thousand names is slow, and few stand in what to type
        whole = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])")
        todo = re.sub("`[^`]*`", lambda typed: whole.sub("NAME", typed[0]), todo)
    remedy = replace(reason.remedy, evidence=()) if reason.remedy else None
    return replace(
        reason, subject="", what=what, todo=todo, waiver="", comes_from="", remedy=remedy, since=None, deadline=None
    )


def _together(general: Reason, group: Sequence[Reason]) -> SharedReason:
    names = tuple(dict.fromkeys(map(_name, group)))
    dated = [(reason.since, number) for number, reason in enumerate(group) if reason.since]
    first = group[min(dated)[1] if dated else 0]
    if len(names) == 1:
        return SharedReason(first, names)
    since = since_text(first.since) if first.what != general.what else ""
    if len({reason.since for reason in group}) > 1:
        since = since.replace("since", "the first since")
    deadline = min((reason.deadline for reason in group if reason.deadline), default=None)
    mine, all_of_them = (f"subjects = {listed(names)}" for names in ((first.subject,), [r.subject for r in group]))
    what, waiver = f"{general.what}{since}", first.waiver.replace(mine, all_of_them)
    return SharedReason(replace(general, what=what, waiver=waiver, since=first.since, deadline=deadline), names)
