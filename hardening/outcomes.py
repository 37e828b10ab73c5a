"""What a check that has run came to, by its exit status and its words; the same on a tree and in a machine. Pure."""

from __future__ import annotations

from hardening.findings import CheckResult, Outcome
from hardening.render import Check

TIME_LIMIT_SECONDS = 60
EVIDENCE_LINES = 40
_OUTCOMES = {0: Outcome.PASS, 1: Outcome.FAIL, 2: Outcome.NOT_APPLICABLE}


def outcome_of(status: int, stdout: str, stderr: str) -> tuple[Outcome, str]:
    """What a check that ended with `status` and printed this means, with its evidence.

    Fails closed: a check that passes without saying what it saw saw nothing, and one that complains (of missing
    rights, say) or ends with a status other than 0, 1 and 2 is an ERROR.
    """
    evidence = "\n".join(part.strip() for part in (stdout, stderr) if part.strip())
    outcome = _OUTCOMES.get(status, Outcome.ERROR)
    if outcome is Outcome.ERROR:
        return outcome, f"the check ended with status {status}\n{evidence}".strip()
    if stderr.strip() and outcome is not Outcome.FAIL:
        return Outcome.ERROR, f"the check complained, so it may not have seen all\n{evidence}"
    if not evidence:
        return Outcome.ERROR, f"the check ended with status {status} and said nothing"
    return outcome, evidence


def result_of(check: Check, outcome: Outcome, evidence: str) -> CheckResult:
    """The result of `check`, its evidence cut to what a person reads."""
    shown = "\n".join(_shortened(evidence.splitlines(), outcome))
    return CheckResult(check.control, check.title, check.severity, check.enforcement, outcome, shown)


def _shortened(lines: list[str], outcome: Outcome) -> list[str]:
    more = len(lines) - EVIDENCE_LINES
    if more <= 0:
        return lines
    if outcome is Outcome.ERROR:  # what broke it stands at the end
        return [lines[0], f"… {more} lines", *lines[1 - EVIDENCE_LINES :]]
    return [*lines[:EVIDENCE_LINES], f"… and {more} lines more"]
