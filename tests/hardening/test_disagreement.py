"""Where scanners disagree about an image, and the cause of each disagreement."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.disagreement import (
    LANGUAGES,
    UNFIXED,
    Disagreement,
    DisagreementCause,
    Question,
    disagreements,
    summary,
)
from hardening.findings import Finding, FindingKind, Outcome, ScanReport
from hardening.model import Severity, Waiver
from images.scan import debsecan

DAY = datetime(2026, 11, 20, tzinfo=UTC)
SAME = "debsecan and trivy judge by data of the same day"
LATER = DAY + timedelta(days=1)


def found(scanner: str, severity: Severity = Severity.HIGH, **more: Any) -> Finding:
    """A vulnerability as one scanner reports it."""
    named = {"id": "CVE-2026-0001", "package": "openssl", "installed": "3.5.1-1", "fixed": "3.5.4-1"} | more
    return Finding(FindingKind.VULNERABILITY, severity=severity, scanners=((scanner, severity),), **named)


def report(scanner: str, *findings: Finding, **more: Any) -> ScanReport:
    """What one scanner says of an image that it evaluated."""
    outcome = Outcome.FAIL if findings else Outcome.PASS
    told = ScanReport(scanner, FindingKind.VULNERABILITY, outcome, 9, DAY, "feed", "", findings)
    return replace(told, **more)


def only(*reports: ScanReport, **more: Any) -> Disagreement:
    """The one disagreement of these scanners."""
    [one] = disagreements(reports, **more)
    return one


SILENT = [
    ({}, {}, DisagreementCause.UNEXPLAINED, SAME),
    ({}, {"data_date": LATER}, DisagreementCause.DATA_DATE, "debsecan: 2026-11-21, trivy: 2026-11-20"),
    ({}, {"data_date": DAY + timedelta(hours=9)}, DisagreementCause.UNEXPLAINED, SAME),
    ({}, {"data_date": None}, DisagreementCause.DATA_DATE, "debsecan: unknown, trivy: 2026-11-20"),
    ({}, {"sample": True}, DisagreementCause.DATA_DATE, "debsecan: sample of 2026-11-20, trivy: 2026-11-20"),
    (
        {"ecosystem": "pypi"}, {"ignores": (LANGUAGES,)}, DisagreementCause.NOT_SEEN,
        "debsecan reads the distribution's packages, not those of pypi",
    ),
    ({"ecosystem": "deb"}, {"ignores": (LANGUAGES,)}, DisagreementCause.UNEXPLAINED, SAME),
    ({"fixed": ""}, {"ignores": (UNFIXED,)}, DisagreementCause.IGNORED, "debsecan does not report unfixed"),
    ({"status": "no-dsa"}, {"ignores": ("no-dsa",)}, DisagreementCause.IGNORED, "debsecan does not report no-dsa"),
    (
        {"status": "undetermined", "fixed": ""}, {"ignores": debsecan.SCANNER.ignores}, DisagreementCause.IGNORED,
        "debsecan does not report undetermined",
    ),
    ({"status": "no-dsa"}, {"ignores": ("undetermined",)}, DisagreementCause.UNEXPLAINED, SAME),
]  # fmt: skip


@pytest.mark.parametrize(("finding", "other", "cause", "evidence"), SILENT)
def test_a_vulnerability_that_only_one_scanner_reports_has_a_cause_where_the_reports_show_it(
    finding: dict[str, Any], other: dict[str, Any], cause: DisagreementCause, evidence: str
) -> None:
    """In whatever order the scanners are named."""
    reports = (report("debsecan", **other), report("trivy", found("trivy", **finding)))
    said = (("debsecan", "silent"), ("trivy", "reported"))
    told = Disagreement("CVE-2026-0001", "openssl", Question.PRESENCE, said, cause, evidence)
    assert only(*reports) == told
    assert only(*reversed(reports)) == replace(told, opinions=said[::-1], evidence=only(*reversed(reports)).evidence)
    assert only(*reversed(reports)).cause is cause


def test_who_did_not_evaluate_the_image_has_no_opinion() -> None:
    """Nor has a scanner of another kind."""
    one = report("trivy", found("trivy"))
    for other in (
        report("debsecan", outcome=Outcome.NOT_EVALUATED), report("debsecan", outcome=Outcome.ERROR),
        report("debsecan", outcome=Outcome.NOT_APPLICABLE), report("trivy-secret", kind=FindingKind.SECRET),
    ):  # fmt: skip
        assert disagreements((one, other)) == ()
        assert summary((one, other), ()) == "one scanner evaluated vulnerabilities: there is nothing to compare"
    assert summary((), ()) == "no scanner evaluated vulnerabilities: there is nothing to compare"


SEVERITIES = [
    ("debian", "nvd", {}, DisagreementCause.SEVERITY_SOURCE, "debsecan: debian, trivy: nvd"),
    ("debian", "debian", {}, DisagreementCause.UNEXPLAINED, SAME),
    ("debian", "debian", {"data_date": LATER}, DisagreementCause.DATA_DATE, "debsecan: 2026-11-21, trivy: 2026-11-20"),
    ("", "nvd", {}, DisagreementCause.UNEXPLAINED, SAME),
]


@pytest.mark.parametrize(("one", "other", "more", "cause", "evidence"), SEVERITIES)
def test_different_severities_come_from_different_sources_or_days(
    one: str, other: str, more: dict[str, Any], cause: DisagreementCause, evidence: str
) -> None:
    """A source that a scanner does not name explains nothing."""
    told = only(
        report("debsecan", found("debsecan", Severity.LOW, source=one), **more),
        report("trivy", found("trivy", Severity.HIGH, source=other)),
    )
    assert (told.question, told.cause, told.evidence) == (Question.SEVERITY, cause, evidence)
    assert told.opinions == (("debsecan", "low"), ("trivy", "high"))


def test_a_scanner_that_names_no_severity_has_no_source() -> None:
    """Debian's tracker names none for most of them."""
    told = only(
        report("debsecan", found("debsecan", Severity.UNKNOWN, source="debian")),
        report("trivy", found("trivy", Severity.HIGH, source="debian")),
    )
    assert (told.cause, told.evidence) == (DisagreementCause.SEVERITY_SOURCE, "debsecan: none, trivy: debian")


def test_different_fixed_versions_are_a_question_of_their_own() -> None:
    """So one vulnerability may be disagreed on twice."""
    a = report("debsecan", found("debsecan", Severity.LOW, source="debian", fixed=""))
    b = report("trivy", found("trivy", Severity.HIGH, source="nvd"))
    severity, fixed = disagreements((a, b))
    assert (severity.question, severity.cause) == (Question.SEVERITY, DisagreementCause.SEVERITY_SOURCE)
    assert (fixed.question, fixed.cause) == (Question.FIXED, DisagreementCause.UNEXPLAINED)
    assert fixed.opinions == (("debsecan", "none"), ("trivy", "3.5.4-1"))
    assert summary((a, b), (severity, fixed)) == "scanners disagree on 2: 1 severity source, 1 unexplained"
    assert summary((a, a), ()) == "the 2 scanners of vulnerabilities agree"


def test_one_pair_without_a_cause_leaves_the_disagreement_unexplained() -> None:
    """That a third scanner has older data explains nothing between the other two."""
    told = only(report("a", found("a")), report("b", data_date=LATER), report("c"))
    assert told.cause is DisagreementCause.UNEXPLAINED
    assert told.evidence == "a and c judge by data of the same day"


def test_what_a_waiver_covers_was_answered_by_a_person() -> None:
    """While it is in force, and for its own package alone."""
    waiver = Waiver.model_validate({
        "id": "later", "vulnerabilities": ["CVE-2026-0001"], "packages": ["openssl"], "subjects": ["web"],
        "reason": "r", "owner": "o", "approver": "p", "created": "2026-11-01", "expires": "2026-11-30",
    })  # fmt: skip
    reports = (report("a", found("a")), report("b"))
    told = only(*reports, waivers=(waiver,), subject="web", today=date(2026, 11, 30))
    assert (told.cause, told.evidence) == (DisagreementCause.WAIVER, "waived by later until 2026-11-30")
    for subject, today in (("web", date(2026, 12, 1)), ("db", date(2026, 11, 30))):
        assert only(*reports, waivers=(waiver,), subject=subject, today=today).cause is DisagreementCause.UNEXPLAINED


OPINIONS = st.fixed_dictionaries({
    "id": st.sampled_from(["CVE-2026-0001", "CVE-2026-0002"]), "package": st.sampled_from(["openssl", "zlib1g"]),
    "severity": st.sampled_from(Severity), "fixed": st.sampled_from(["", "1", "2"]),
    "source": st.sampled_from(["", "debian", "nvd"]), "ecosystem": st.sampled_from(["", "deb", "pypi"]),
})  # fmt: skip
REPORTS = st.tuples(
    st.lists(OPINIONS, unique_by=lambda one: (one["id"], one["package"]), max_size=4),
    st.sampled_from([DAY, LATER, None]), st.sampled_from([(), (LANGUAGES,), (UNFIXED,)]),
)  # fmt: skip


@given(st.lists(REPORTS, min_size=2, max_size=4))
def test_every_difference_is_told_once_whatever_scanners_say(given_: list[Any]) -> None:
    """Compared with what a person would do: every two answers of every vulnerability, side by side."""
    reports = [
        report(f"s{number}", *(found(f"s{number}", **one) for one in opinions), data_date=day, ignores=ignores)
        for number, (opinions, day, ignores) in enumerate(given_)
    ]
    told = disagreements(reports)
    keys = [(one.id, one.package, one.question) for one in told]
    assert len(set(keys)) == len(keys)
    by_scanner = [{(one.id, one.package): one for one in each.findings} for each in reports]
    expected = set()
    for a, b in combinations(by_scanner, 2):
        expected |= {(*key, Question.PRESENCE) for key in a.keys() ^ b.keys()}
        expected |= {(*key, Question.SEVERITY) for key in a.keys() & b.keys() if a[key].severity != b[key].severity}
        expected |= {(*key, Question.FIXED) for key in a.keys() & b.keys() if a[key].fixed != b[key].fixed}
    assert set(keys) == expected
    causes = {(one.id, one.package, one.question): one.cause for one in disagreements(reports[::-1])}
    assert {(one.id, one.package, one.question): one.cause for one in told}.keys() == causes.keys()
    unexplained = {key for key, cause in causes.items() if cause is DisagreementCause.UNEXPLAINED}
    assert unexplained == {(o.id, o.package, o.question) for o in told if o.cause is DisagreementCause.UNEXPLAINED}
