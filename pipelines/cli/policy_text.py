"""A policy in words: every field of it, those that nobody wrote down too. Pure."""

from __future__ import annotations

from hardening.foundation.durations import shown
from hardening.model import Severity
from hardening.policy import AgeRule, Benchmark, FixWindow, Judges, Policy, Rule, SourceRule

TOLD_APART = ("judges", "vulnerabilities", "benchmark")


def policy_text(policy: Policy) -> str:
    """Whom it belongs to, why it is so, and rule by rule what it asks; lines that belong to a heading are indented."""
    image, running = policy.image, policy.running
    rules = {name: getattr(image, name) for name in type(image).model_fields if name not in TOLD_APART}
    lines = [
        f"{policy.name}: {policy.title}",
        " ".join(policy.rationale.split()),
        f"Owner: {policy.owner}",
        f"Review by: {policy.review_by}",
        f"Exceptions: {policy.exception_contact}",
        "To be published:",
        f"  judges: {_judges(image.judges)}",
        *(f"  {_which(w)}: gone {shown(w.within)} after a fix is known: {_rule(w)}" for w in image.vulnerabilities),
        *(f"  {name}: {_rule(rule)}" for name, rule in rules.items()),
        *_benchmark(image.benchmark),
        "To keep running:",
        *(f"  {name}: {_running(getattr(running, name))}" for name in type(running).model_fields),
    ]
    return "\n".join(lines)


def _judges(judges: Judges) -> str:
    sample = "counts, whatever its age" if judges.accept_sample else "does not count"
    return (
        f"{judges.minimum} vulnerability scanner(s) evaluated, data at most {shown(judges.data_max_age)} old; "
        f"the sample of advisories that ships {sample} (accept_sample): {_rule(judges)}"
    )


def _benchmark(rule: Benchmark | None) -> list[str]:
    """What a machine is measured by, and each rule that is explained, with its owner."""
    if rule is None:
        return ["  benchmark: not asked"]
    head = (
        f"  benchmark: {rule.minimum_score:g} % of {rule.profile} holds, of at least {rule.minimum_rules} rules "
        f"evaluated, and each rule that does not is explained or waived: {_rule(rule)}"
    )
    told = (
        f"    {name} ({', '.join(why.subjects)}) is explained by {why.owner}: {' '.join(why.reason.split())}"
        for name, why in sorted(rule.explained.items())
    )
    return [head, *told]


def _rule(rule: Rule) -> str:
    return f"{rule.enforcement}, grace {shown(rule.grace)}" if rule.grace else str(rule.enforcement)


def _running(rule: Rule | None) -> str:
    """A rule for what runs; its own limits before its enforcement."""
    if rule is None:
        return "not asked"
    extra = f"at most {shown(rule.limit)}: " if isinstance(rule, AgeRule) else ""
    if isinstance(rule, SourceRule):
        extra = f"{', '.join(rule.prefixes) or 'the registry of the settings'}: "
    return f"{extra}{rule.enforcement} after a grace of {shown(rule.grace)}"


def _which(window: FixWindow) -> str:
    """The vulnerabilities that a window covers, in words."""
    unnamed = window.severity is Severity.UNKNOWN
    severity = "of a severity that nobody named" if unnamed else f"of severity {window.severity} or worse"
    return f"{'exploited ones' if window.exploited else 'vulnerabilities'} {severity}"
