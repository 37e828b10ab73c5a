"""The benchmark of a policy: measured or refused, far enough or refused, and for each broken rule somebody answers."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from hardening.findings import Finding, FindingKind, Outcome, ScanReport, Verdict
from hardening.gate import explain
from hardening.model import Enforcement, Severity, Waiver
from tests.hardening.test_gate import NOW, judged, policy, report

PROFILE = "cis_level1_server"


def rule(name: str = "sshd_limit_user_access", scanner: str = "openscap") -> Finding:
    said = ((scanner, Severity.MEDIUM),)
    return Finding(FindingKind.MISCONFIGURATION, name, "benchmark", "", "", Severity.MEDIUM, said, "A title")


def measure(evaluated: int = 100, broken: int = 1, **change: object) -> ScanReport:
    """A measurement by which that many rules do not hold, `sshd_limit_user_access` among them."""
    found = tuple(rule() if number == 0 else rule(f"rule_{number}") for number in range(broken))
    made = ScanReport("openscap", FindingKind.MISCONFIGURATION, Outcome.FAIL, evaluated, NOW, "ssg", "", found, "1.4")
    return replace(made, **{"profile": PROFILE, **change})


EXPLAINED = {"reason": "who may log in is told to cloud-init", "owner": "platform"}


def verdict(measured: ScanReport | None, waivers: tuple[Waiver, ...] = (), **benchmark: Any) -> Verdict:
    asked = policy(benchmark={"profile": PROFILE, **benchmark})
    reports = (report(), measured) if measured else (report(),)
    return judged(*(measured.findings if measured else ()), by=asked, reports=reports, waivers=waivers)


def told(name: str = "sshd_limit_user_access", **change: object) -> dict[str, object]:
    return {name: {**EXPLAINED, **change}}


def test_an_image_that_holds_enough_and_explains_the_rest_is_allowed():
    """The explained rule is recorded with its reason and its owner."""
    made = verdict(measure(), explained=told())
    assert made.allowed
    [reason] = made.reasons
    assert (reason.enforcement, reason.rule) == (Enforcement.AUDIT, "sshd_limit_user_access")
    assert reason.what.endswith("A title; explained by platform: who may log in is told to cloud-init")


@pytest.mark.parametrize(
    ("measured", "why"),
    [
        (None, "it did not run"),
        (measure(0, 0, outcome=Outcome.NOT_EVALUATED, reason="none of its 403 rules applies"), "none of its 403 rules"),
        (measure(0, 0, outcome=Outcome.ERROR, reason="oscap ended with status 1"), "oscap ended with status 1"),
        (measure(0, 0, outcome=Outcome.NOT_APPLICABLE, reason="it is for machines"), "it is for machines"),
        (measure(0, 0, outcome=Outcome.PASS), "it evaluated no rule"),
        (measure(profile="cis_level2_server"), "it measured by cis_level2_server"),
        (measure(profile=""), "it evaluated no rule"),
        (measure(49), "it evaluated 49 rules; the policy requires 50"),
    ],
)
def test_an_image_that_was_not_measured_is_refused(measured, why):
    """No scanner, another release's content, an error, a container, another profile, hardly a rule: none is a pass."""
    made = verdict(measured, minimum_rules=50, explained=told())
    assert not made.allowed
    [refusal] = made.refusals
    assert refusal.rule == "openscap-evaluated"
    assert why in refusal.what


def test_the_score_counts_what_is_explained_as_broken():
    """95 % is asked for: five of a hundred may be broken, six may not, whatever is said about them."""
    explained = {**told(), **{f"rule_{n}": EXPLAINED for n in range(1, 6)}}
    five = {name: why for name, why in explained.items() if name != "rule_5"}
    assert verdict(measure(100, 5), explained=five).allowed
    six = verdict(measure(100, 6), explained=explained)
    [refusal] = six.refusals
    assert refusal.rule == "benchmark-score"
    assert refusal.what == ("94.0 % of cis_level1_server holds (94 of 100 rules evaluated); the policy requires 95 %")
    assert 'rules = ["benchmark-score"]' in refusal.waiver


def test_a_broken_rule_that_nobody_answers_for_is_refused_and_says_what_to_do():
    """What, why it matters, what to do, and how to ask for an exception."""
    made = verdict(measure())
    [refusal] = made.refusals
    text = explain([refusal])
    assert "rule sshd_limit_user_access (medium) of cis_level1_server does not hold: A title" in text
    assert "image.benchmark.explained" in text
    assert 'benchmark = ["sshd_limit_user_access"]' in text


def test_a_benchmark_that_only_warns_warns():
    """Its enforcement is that of the score, of each rule, and of having been measured at all."""
    for measured in (measure(), measure(10, 6), None):
        made = verdict(measured, enforcement="warn")
        assert made.allowed
        assert {reason.enforcement for reason in made.reasons} == {Enforcement.WARN}


def test_a_waiver_with_a_date_lets_a_broken_rule_through_until_then():
    """On the day after, it is refused again."""

    def waived(expires: date) -> Verdict:
        given = {
            "id": "w", "benchmark": ("sshd_limit_user_access",), "subjects": ("*",), "reason": "r", "owner": "a",
            "approver": "b", "created": NOW.date() - timedelta(days=30), "expires": expires,
        }  # fmt: skip
        return verdict(measure(), (Waiver.model_validate(given),))

    assert waived(NOW.date()).allowed
    assert not waived(NOW.date() - timedelta(days=1)).allowed


def test_an_explanation_of_what_holds_is_reported_as_stale():
    """To its owner, by its place in the policy; it refuses nothing."""
    made = verdict(measure(), explained={**told(), **told("rule_of_old")})
    assert made.allowed
    [stale] = [reason for reason in made.reasons if reason.rule == "explanation-stale"]
    assert stale.enforcement is Enforcement.WARN
    assert "rule_of_old" in stale.what
    assert "platform: delete image.benchmark.explained.rule_of_old" in stale.todo


def test_an_explanation_is_for_the_images_that_it_names():
    """Another image that breaks the rule is refused; and one that the explanation is not about makes it not stale."""
    assert verdict(measure(), explained=told(subjects=["debian-*"])).allowed
    elsewhere = verdict(
        measure(), explained={**told(subjects=["bastion"]), **told("rule_of_old", subjects=["bastion"])}
    )
    assert [reason.rule for reason in elsewhere.reasons] == ["sshd_limit_user_access"]
    assert not elsewhere.allowed


def test_without_a_benchmark_in_the_policy_its_rules_are_misconfigurations_like_others():
    """Whoever scans by another policy still sees them."""
    made = judged(rule(), reports=(report(), measure()))
    assert made.allowed
    assert [(reason.rule, reason.enforcement) for reason in made.reasons] == [
        ("sshd_limit_user_access", Enforcement.WARN)
    ]


def test_misconfigurations_of_other_scanners_are_no_rules_of_the_benchmark():
    """They go by their own rule of the policy, and an explanation does not cover them."""
    other = rule(scanner="systemd-analyze")
    asked = policy(benchmark={"profile": PROFILE, "explained": told()}, misconfigurations={"enforcement": "enforce"})
    made = judged(other, by=asked, reports=(report(), measure()))
    assert [reason.rule for reason in made.refusals] == ["sshd_limit_user_access"]
    assert "explained" not in made.refusals[0].what


def test_the_same_engine_over_tree_and_disk_is_one_judge():
    """It reads the same data; a second opinion is another engine's."""
    two = policy(judges={"minimum": 2})
    trivy, disk = report(scanner="trivy"), report(scanner="trivy-disk")
    assert not judged(by=two, reports=(trivy, disk)).allowed
    assert judged(by=two, reports=(trivy, disk, report())).allowed


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.NOT_EVALUATED])
def test_a_disk_that_could_not_be_read_is_refused_though_the_tree_could(outcome):
    """What ships is the disk. Where the engine evaluated nothing at all, the judges have said so."""
    unread = report(scanner="trivy-disk", outcome=outcome, evaluated=0, reason="it recognised nothing")
    made = judged(reports=(report(), report(scanner="trivy"), unread))
    [refusal] = made.refusals
    assert refusal.what == "trivy-disk did not evaluate this image, though trivy did: it recognised nothing"
    blind = replace(unread, scanner="trivy")
    assert judged(reports=(report(), blind, unread)).allowed
