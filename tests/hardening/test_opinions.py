"""What the gate and the scanners make of many opinions, down to the last bound: each of these was once wrong unseen."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from hardening.findings import CheckResult, Outcome, merge
from hardening.foundation.errors import OutsideError
from hardening.model import Enforcement, Severity
from images.artifact import Package
from images.release.lifecycle import Status, status
from images.scan import SCANNERS, syft
from tests.hardening.test_gate import DAY, NOW, finding, judged, policy, report
from tests.images.release.test_lifecycle import RELEASE
from tests.images.scan.test_scanners import INPUTS, TARGET, sample

WINDOW = {"severity": "medium", "enforcement": "warn"}


def test_of_two_windows_that_treat_a_finding_alike_the_sooner_deadline_counts() -> None:
    """Whatever order the policy lists them in: the strictest counts."""
    windows = [{**WINDOW, "within": "9d"}, {**WINDOW, "within": "3d"}]
    for listed in (windows, windows[::-1]):
        one = finding(Severity.MEDIUM, fix_known_since=NOW)
        verdict = judged(one, by=policy(vulnerabilities=listed))
        assert [reason.deadline for reason in verdict.reasons if reason.rule == one.id] == [NOW + 3 * DAY]


def test_the_grace_of_a_window_is_added_to_its_time() -> None:
    """The deadline is after both, and until then the finding refuses nothing."""
    by = policy(vulnerabilities=[{"severity": "medium", "within": "3d", "grace": "2d"}])
    known = finding(Severity.MEDIUM, fix_known_since=NOW)
    assert judged(known, by=by).reasons[0].deadline == NOW + 5 * DAY
    for at, allowed in ((NOW + 5 * DAY - timedelta(seconds=1), True), (NOW + 5 * DAY, False)):
        assert judged(known, by=by, now=at, reports=[report(data_date=at)]).allowed is allowed


def test_of_several_dates_of_a_fix_the_first_counts_and_one_word_of_exploitation_suffices() -> None:
    """A scanner that heard later, or not at all, gives no more time."""
    early, late = finding(fix_known_since=NOW - 5 * DAY), finding(fix_known_since=NOW - DAY, exploited=True)
    for group in ([early, late], [late, early], [early, late, finding()]):
        [one] = merge(group)
        assert one.fix_known_since == NOW - 5 * DAY
        assert one.exploited
    assert not merge([finding(), finding()])[0].exploited


@pytest.mark.parametrize(
    "evidence", ["nothing to look at: no filesystem", "the check ended with status 1\nnothing to look at", ""]
)
@pytest.mark.parametrize("absent", [False, True])
def test_no_evidence_says_that_there_was_nothing_to_look_at(evidence: str, absent: bool) -> None:
    """A check may print those words too: it broke all the same."""
    result = CheckResult("c", "t", Severity.HIGH, Enforcement.ENFORCE, Outcome.ERROR, evidence, absent)
    assert result.broke is not absent
    assert not replace(result, outcome=Outcome.FAIL).broke


def test_a_revoked_release_is_revoked_also_after_its_end() -> None:
    """That it has expired meanwhile takes nothing back."""
    revoked = replace(RELEASE, revoked_at=NOW)
    assert status(revoked, RELEASE.expires_at + DAY) is Status.REVOKED


def test_one_block_of_debsecan_that_is_not_understood_makes_the_whole_an_error() -> None:
    """Beside findings that are understood, too: what it says may be the worst of them."""
    answer = SCANNERS["debsecan"].parse(
        f"{sample('debsecan').strip()}\n\nCVE-2026-0001 something else\n", TARGET, INPUTS
    )
    assert answer.outcome is Outcome.ERROR
    assert "CVE-2026-0001 something else" in answer.reason


def test_hadolint_without_a_dockerfile_evaluated_nothing() -> None:
    """An empty list of findings about no file is no pass."""
    without = SCANNERS["hadolint"].parse("[]", replace(TARGET, dockerfile=None), INPUTS)
    assert (without.outcome, without.evaluated) == (Outcome.NOT_EVALUATED, 0)
    assert SCANNERS["hadolint"].parse("[]", TARGET, INPUTS).outcome is Outcome.PASS


def test_packages_of_a_language_do_not_count_for_those_of_the_system() -> None:
    """An image whose dpkg status trivy did not read was not evaluated, however many wheels it saw."""
    document = json.loads(sample("trivy"))
    for result in document["Results"]:
        result["Class"] = "lang-pkgs"
    answer = SCANNERS["trivy"].parse(json.dumps(document), TARGET, INPUTS)
    assert (answer.outcome, answer.evaluated) == (Outcome.NOT_EVALUATED, 0)


def test_secrets_are_looked_for_in_the_configuration_of_a_container_too() -> None:
    """A password in ENV stands in no file of any layer."""
    assert "--image-config-scanners=secret" in SCANNERS["trivy-secret"].command(TARGET, INPUTS)


def test_an_sbom_that_names_another_version_lacks_the_package() -> None:
    """By name alone, a bill of the old image would do for the new one."""
    first, *others = TARGET.packages
    moved = Package(first.name, f"{first.version}+newer", first.architecture, first.sha256)
    with pytest.raises(OutsideError, match="lacks 1 of"):
        syft.normalise(sample("syft"), sample("syft-spdx"), replace(TARGET, packages=(moved, *others)))
