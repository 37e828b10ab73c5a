"""Findings and results of checks: how several become one, and what an exit status means."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hardening.findings import (
    EVIDENCE_LINES,
    CheckResult,
    Finding,
    FindingKind,
    Outcome,
    merge,
    nothing_to_look_at,
    outcome_of,
    result_of,
    worst,
)
from hardening.model import Enforcement, Severity
from hardening.render import Check

DAY = datetime(2026, 11, 25, tzinfo=UTC)
FOUND = Finding(
    FindingKind.VULNERABILITY, "CVE-2026-0001", "zlib1g", "1", "", Severity.LOW, (("trivy", Severity.LOW),), "a title"
)  # fmt: skip


def check() -> Check:
    return Check("no-setuid", "Nothing is setuid", Severity.HIGH, Enforcement.WARN, "exit 0", {})


def test_what_several_scanners_say_of_one_thing_is_one_finding():
    """Each opinion is kept; the worst severity, any exploitation and the first day of a fix count."""
    other = replace(
        FOUND, installed="2 | 1", fixed="3", severity=Severity.HIGH, scanners=(("debsecan", Severity.HIGH),),
        title="b title", exploited=True, fix_known_since=DAY,
    )  # fmt: skip
    later = replace(FOUND, fix_known_since=DAY + timedelta(days=1))
    [merged] = merge([FOUND, other, later])
    assert merged == replace(other, installed="1 | 2", scanners=(("debsecan", Severity.HIGH), ("trivy", Severity.LOW)))
    assert (merged.title, merged.exploited, merged.fix_known_since) == ("b title", True, DAY)
    assert merge([FOUND])[0].fix_known_since is None


def test_findings_of_another_kind_name_or_package_stay_apart_in_a_fixed_order():
    """Sorted by kind, name and package."""
    apart = [
        replace(FOUND, kind=FindingKind.SECRET), FOUND, replace(FOUND, package="zlib2"),
        replace(FOUND, id="CVE-2026-2"),
    ]  # fmt: skip
    assert (
        merge(apart) == merge(reversed(apart)) == tuple(sorted(apart, key=lambda one: (one.kind, one.id, one.package)))
    )


def test_the_worst_severity_is_the_first_of_the_list_and_unknown_where_nobody_says_one():
    """Critical before low; no opinion is UNKNOWN."""
    assert worst([Severity.LOW, Severity.CRITICAL, Severity.UNKNOWN]) is Severity.CRITICAL
    assert worst([]) is Severity.UNKNOWN


@pytest.mark.parametrize(
    ("ended", "meant"),
    [
        ((0, "3 files\n", ""), (Outcome.PASS, "3 files")),
        ((1, " /bin/su \n", ""), (Outcome.FAIL, "/bin/su")),
        ((2, "no shell", " "), (Outcome.NOT_APPLICABLE, "no shell")),
        ((1, "a", "b"), (Outcome.FAIL, "a\nb")),
        ((0, "a", "b"), (Outcome.ERROR, "the check complained, so it may not have seen all\na\nb")),
        ((2, "", "b"), (Outcome.ERROR, "the check complained, so it may not have seen all\nb")),
        ((0, "", ""), (Outcome.ERROR, "the check ended with status 0 and said nothing")),
        ((1, "", ""), (Outcome.ERROR, "the check ended with status 1 and said nothing")),
        ((3, "", ""), (Outcome.ERROR, "the check ended with status 3")),
        ((-9, "a", "b"), (Outcome.ERROR, "the check ended with status -9\na\nb")),
    ],
)
def test_what_the_end_of_a_check_means(ended, meant):
    """Fails closed: only a check that says what it saw, and complains of nothing, passes."""
    assert outcome_of(*ended) == meant


def test_a_result_carries_its_checks_words():
    """Control, title, severity and the enforcement of that day."""
    expected = CheckResult(
        "no-setuid", "Nothing is setuid", Severity.HIGH, Enforcement.WARN, Outcome.FAIL, "/bin/su\n/bin/mount"
    )
    assert result_of(check(), Outcome.FAIL, "/bin/su\n/bin/mount") == expected


def test_nothing_to_look_at_is_an_error_that_is_nobodys_fault():
    """No pass, and the check did not break."""
    result = nothing_to_look_at(check(), "a scratch image")
    assert result == replace(
        result_of(check(), Outcome.ERROR, ""), evidence="nothing to look at: a scratch image", absent=True
    )
    assert not result.broke
    assert result_of(check(), Outcome.ERROR, "").broke


def test_long_evidence_keeps_its_beginning_or_of_an_error_its_end():
    """What broke a check stands at the end; what it found, at the beginning."""

    def shown(lines: int, outcome: Outcome) -> list[str]:
        evidence = "\n".join(str(number) for number in range(lines))
        return result_of(check(), outcome, evidence).evidence.splitlines()

    whole = [str(number) for number in range(EVIDENCE_LINES)]
    for outcome in (Outcome.FAIL, Outcome.ERROR):
        assert shown(EVIDENCE_LINES, outcome) == whole
    assert shown(EVIDENCE_LINES + 2, Outcome.FAIL) == [*whole, "… and 2 lines more"]
    assert shown(EVIDENCE_LINES + 1, Outcome.FAIL) == [*whole, "… and 1 lines more"]
    end = [str(number) for number in range(EVIDENCE_LINES + 2)][1 - EVIDENCE_LINES :]
    assert shown(EVIDENCE_LINES + 2, Outcome.ERROR) == ["0", "… 2 lines", *end]
