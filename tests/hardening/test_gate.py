"""The gate: what refuses, what warns, what a waiver changes, and what can never be a pass."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.catalog import load_policy
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
from hardening.foundation.settings import ROOT
from hardening.gate import GateError, _of_nobody, brought_by, by_remedy, explain, explain_shared, judge_image, shared
from hardening.model import Enforcement, Severity, Waiver
from hardening.policy import Policy
from hardening.running import RunningFacts, under
from images.ledger import Ledger
from images.scan.judge import _dated
from tests.support.fleets import judge_member

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)
VULNERABILITY = FindingKind.VULNERABILITY


def policy(**image: object) -> Policy:
    return Policy.model_validate(
        {
            "name": "test",
            "title": "t",
            "owner": "security",
            "rationale": "r",
            "review_by": date(2027, 1, 1),
            "exception_contact": "security@example.com",
            "image": {
                "vulnerabilities": [
                    {"severity": "low", "exploited": True, "within": "0s"},
                    {"severity": "high", "within": "0s"},
                    {"severity": "unknown", "within": "2d"},
                    {"severity": "medium", "within": "7d"},
                ],
                **image,
            },
        }
    )


def finding(severity: Severity = Severity.HIGH, **change: object) -> Finding:
    base = Finding(VULNERABILITY, "CVE-2026-0001", "zlib1g", "1.3-1", "1.3-2", severity, (("trivy", severity),))
    return replace(base, **change)


def report(**change: object) -> ScanReport:
    base = ScanReport("debsecan", VULNERABILITY, Outcome.PASS, 78, NOW - DAY, "https://feed.example.com/trixie", "")
    return replace(base, **change)


def check(outcome: Outcome, enforcement: Enforcement = Enforcement.ENFORCE) -> CheckResult:
    return CheckResult("no-setuid", "No setuid files", Severity.HIGH, enforcement, outcome, "/usr/bin/su")


def waiver(**change: object) -> Waiver:
    base = {
        "id": "w",
        "vulnerabilities": ("CVE-2026-0001",),
        "packages": ("zlib1g",),
        "subjects": ("*",),
        "reason": "r",
        "owner": "a",
        "approver": "b",
        "created": NOW.date() - 30 * DAY,
        "expires": NOW.date() + 20 * DAY,
    }
    return Waiver.model_validate({**base, **change})


JUDGED = (report(),)


def judged(*findings: Finding, by: Policy | None = None, reports=JUDGED, checks=None, waivers=(), now=NOW) -> Verdict:
    return judge_image(by or policy(), "debian-base", checks, reports, findings, waivers, now)


def test_an_image_that_was_judged_and_holds_nothing_is_allowed():
    """One judge that looked, current data, no finding: no reason at all."""
    verdict = judged()
    assert verdict.allowed
    assert verdict.reasons == ()


def test_who_judged_too_little_is_told_without_scanners_for_other_kinds_of_images() -> None:
    """A container has no disk: that its scanner is silent is no gap."""
    other = report(scanner="trivy-disk", outcome=Outcome.NOT_APPLICABLE, evaluated=0, reason="it is for machines")
    lacking = report(scanner="trivy", outcome=Outcome.NOT_EVALUATED, evaluated=0, reason="trivy is not installed")
    [reason] = judged(reports=(other, lacking)).refusals
    assert reason.what.endswith("scanners judged this image (trivy: trivy is not installed)")
    assert judged(reports=(other,)).refusals[0].what.endswith("(trivy-disk: it is for machines)")


def test_a_reason_says_which_base_it_comes_from() -> None:
    """And a waiver of that base that is inherited lets the image pass."""
    bases = [BaseImage("middle", frozenset({("zlib1g", "1.3-1")})), BaseImage("low", frozenset({("zlib1g", "1.3-1")}))]

    def said(*waivers: Waiver) -> Verdict:
        return judge_image(policy(), "web", None, JUDGED, [finding()], waivers, NOW, bases)

    [reason] = said().refusals
    assert reason.comes_from == "low"
    assert reason.what.endswith("; it comes from low")
    assert "inherited = true" in reason.waiver
    assert not said(waiver(subjects=("low",))).allowed
    assert said(waiver(subjects=("low",), inherited=True)).allowed
    [own] = judge_image(policy(), "web", None, JUDGED, [finding(installed="1.2")], (), NOW, bases).refusals
    assert own.comes_from == ""


def test_each_reason_is_about_the_image_that_is_judged() -> None:
    """Waivers are matched by it, and people look for it."""
    failed, erred = check(Outcome.FAIL), check(Outcome.ERROR)
    other = finding(kind=FindingKind.MISCONFIGURATION, id="DS-1", package="", fixed="")
    old = report(data_date=NOW - 400 * DAY)
    verdicts = (
        judged(finding(), other, checks=(failed, erred)),
        judged(reports=(), checks=()),
        judged(reports=(*JUDGED, replace(old, scanner="trivy"))),
    )
    reasons = [reason for verdict in verdicts for reason in verdict.reasons]
    assert {reason.rule for reason in reasons} >= {"no-setuid", "judges", "checks"}
    assert {reason.subject for reason in reasons} == {"debian-base"}


@pytest.mark.parametrize(("days", "told"), [(6, ""), (8, "8 days old; the policy accepts 7d")])
def test_an_old_list_of_exploited_vulnerabilities_is_a_warning(days: int, told: str) -> None:
    """It is no judge, and its age is nobody's refusal; but who reads the verdict learns of it."""
    known = report(scanner="kev", kind=FindingKind.EXPLOITATION, data_date=NOW - days * DAY, data_source="kev.json")
    verdict = judged(reports=(*JUDGED, known))
    assert verdict.allowed
    assert [(reason.enforcement, told in reason.what) for reason in verdict.reasons] == (
        [(Enforcement.WARN, True)] if told else []
    )
    assert not judged(reports=(known,)).allowed


@pytest.mark.parametrize(
    ("reports", "because"),
    [
        ((), "none ran"),
        ((report(outcome=Outcome.NOT_EVALUATED, evaluated=0, reason="no data"),), "debsecan: no data"),
        ((report(outcome=Outcome.ERROR, evaluated=0, reason="crashed"),), "debsecan: crashed"),
        ((report(evaluated=0),), "debsecan: it evaluated nothing"),
        ((report(outcome=Outcome.NOT_APPLICABLE),), "debsecan: it evaluated nothing"),
        ((report(data_date=NOW - 8 * DAY),), "its data is of 2026-11-17, 8 days old; the policy accepts 7d"),
        ((report(data_date=NOW + 2 * DAY),), "in the future"),
        ((report(data_date=None),), "the date of its data is unknown"),
        ((report(kind=FindingKind.SECRET),), "none ran"),
        ((report(sample=True, data_source="sample of 2026-11-24"),), "judged by the sample of 2026-11-24"),
    ],
)
def test_what_nobody_evaluated_is_refused_and_says_so(reports, because):
    """Every silent pass that was ever seen: no scanner, no data, old data, undated data, a crash, the sample."""
    verdict = judged(reports=reports)
    [reason] = [reason for reason in verdict.refusals if reason.rule == "judges"]
    assert not verdict.allowed
    assert "nothing was evaluated" in reason.what
    assert because in reason.what
    assert "feeds.debsecan" in reason.todo


def test_no_leniency_of_a_policy_and_no_waiver_lets_an_unjudged_image_through():
    """A policy may ask for few judges, or only warn; that there is one at all is not up for debate."""
    lenient = policy(judges={"minimum": 1, "enforcement": "audit"})
    verdict = judged(by=lenient, reports=(), waivers=(waiver(rules=("judges",)),))
    assert not verdict.allowed
    assert [(reason.rule, reason.waived_by) for reason in verdict.refusals] == [("judges", "")]


def test_fewer_judges_than_the_policy_asks_for_is_treated_as_the_policy_says():
    """One of two: refused by an enforcing policy, a warning by a warning one. The same scanner twice is one judge."""
    two = {"minimum": 2}
    assert not judged(by=policy(judges=two), reports=(report(), report())).allowed
    assert judged(by=policy(judges=two), reports=(report(), report(scanner="trivy"))).allowed
    warned = judged(by=policy(judges={**two, "enforcement": "warn"}))
    assert warned.allowed
    assert "1 of at least 2" in warned.reasons[0].what


def test_the_sample_counts_only_where_the_policy_says_so_and_otherwise_tells_the_way_out():
    """The shipped default refuses and names both ways on; the shipped demo accepts it, whatever its age."""
    sampled = (report(sample=True, data_source="sample of 2026-11-01", data_date=NOW - 900 * DAY),)
    refused = judged(by=load_policy((ROOT,), "default"), reports=sampled)
    assert not refused.allowed
    assert "sample of 2026-11-01, which this policy does not accept" in refused.refusals[0].what
    assert "feeds.debsecan (or feeds.trivy) in goldsmith.toml" in refused.refusals[0].todo
    assert "--policy demo" in refused.refusals[0].todo
    assert judged(by=load_policy((ROOT,), "demo"), reports=sampled).allowed


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.ERROR, Outcome.NOT_EVALUATED])
def test_a_control_that_failed_or_could_not_be_checked_refuses(outcome):
    """Not knowing is failing; the reason names the control and its evidence."""
    verdict = judged(checks=[check(outcome)])
    assert not verdict.allowed
    [told] = [reason.what for reason in verdict.refusals if reason.rule == "no-setuid"]
    assert "no-setuid" in told
    assert "/usr/bin/su" in told


@pytest.mark.parametrize("checks", [(), (check(Outcome.NOT_APPLICABLE),), (check(Outcome.ERROR, Enforcement.WARN),)])
def test_an_image_that_no_control_was_checked_on_is_refused(checks):
    """Nothing evaluated is never a pass, and no waiver makes it one; a stranger's image has no controls."""
    for waivers in ((), (waiver(controls=("no-setuid",), rules=("checks",)),)):
        verdict = judged(checks=checks, waivers=waivers)
        assert not verdict.allowed
        assert "nothing was verified" in next(r.what for r in verdict.reasons if r.rule == "checks")
    assert judged(checks=None).allowed


def test_a_control_weighs_what_its_profile_says_that_day():
    """Staged enforcement arrives in the result: a warning today refuses nothing."""
    assert judged(checks=[check(Outcome.FAIL, Enforcement.WARN)]).allowed
    assert judged(checks=[check(Outcome.PASS), check(Outcome.NOT_APPLICABLE)]).reasons == ()


def test_inside_its_window_a_vulnerability_warns_with_a_deadline_and_after_it_refuses():
    """Counted from when the fix was first known here, to the second."""
    known = finding(Severity.MEDIUM, fix_known_since=NOW - 6 * DAY)
    early = judged(known)
    assert early.allowed
    assert early.reasons[0].enforcement is Enforcement.WARN
    assert early.reasons[0].deadline == NOW + DAY
    assert "must be in by 2026-11-26 12:00 UTC" in early.reasons[0].what
    assert not judged(known, now=NOW + DAY, reports=[report(data_date=NOW)]).allowed
    assert judged(known, now=NOW + DAY - timedelta(seconds=1), reports=[report(data_date=NOW)]).allowed


def test_the_ledgers_first_sight_counts_for_a_finding_that_carries_no_date(tmp_path: Path):
    """It is written into the finding before it is judged; without that its window has just begun."""
    medium = finding(Severity.MEDIUM)
    assert judged(medium).allowed
    with closing(Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite")) as ledger:
        for now in (NOW - 8 * DAY, NOW):
            context: Any = SimpleNamespace(ledger=ledger, now=now)
            [dated] = _dated(context, (medium,))
    assert dated.fix_known_since == NOW - 8 * DAY
    assert not judged(dated).allowed


def test_an_exploited_vulnerability_takes_the_strictest_window():
    """Known exploitation outweighs severity, also where nobody named one."""
    for severity in (Severity.MEDIUM, Severity.LOW, Severity.UNKNOWN):
        assert judged(finding(severity)).allowed
        assert not judged(finding(severity, exploited=True)).allowed


def test_an_unnamed_severity_without_a_window_of_its_own_is_treated_as_critical():
    """Nobody's opinion is not a mild opinion."""
    strict = policy(vulnerabilities=[{"severity": "critical", "within": "0s"}])
    assert judged(finding(Severity.HIGH), by=strict).allowed
    assert not judged(finding(Severity.UNKNOWN), by=strict).allowed


def test_a_vulnerability_without_a_fix_is_treated_by_its_own_rule():
    """Nothing can be rebuilt: recorded by default, refused where a policy says so."""
    unfixed = finding(Severity.CRITICAL, fixed="")
    assert judged(unfixed).allowed
    assert not judged(unfixed, by=policy(unfixed={"enforcement": "enforce"})).allowed


def test_scanners_that_disagree_are_all_shown_and_the_worst_counts():
    """Nothing is averaged: the reason names each scanner's opinion."""
    low = finding(Severity.LOW, scanners=(("debsecan", Severity.LOW),))
    verdict = judged(finding(Severity.HIGH), low)
    assert len(verdict.reasons) == 1
    assert "severity high, though scanners disagree (debsecan: low, trivy: high)" in verdict.reasons[0].what
    assert not verdict.allowed


def test_a_scanner_that_looked_and_found_nothing_is_named_beside_those_that_found_it():
    """Silence of a judge that evaluated the image is an opinion too; one that did not look has none."""
    [reason] = judged(finding()).refusals
    assert reason.what.endswith("; debsecan looked and did not find it")
    absent = report(scanner="debsecan", outcome=Outcome.NOT_EVALUATED)
    found = judged(finding(), reports=[report(scanner="trivy"), absent]).refusals
    assert "looked and did not" not in found[0].what


def test_secrets_refuse_and_misconfigurations_warn_by_default():
    """Each kind by its own rule of the policy, and under its own key of a waiver, a secret with its path."""
    secret = finding(kind=FindingKind.SECRET, id="private-key", package="/root/key")
    flaw = finding(kind=FindingKind.MISCONFIGURATION, id="DS-0002")
    assert not judged(secret).allowed
    assert judged(flaw).allowed
    assert 'secrets = ["private-key"]\npaths = ["/root/key"]' in judged(secret).reasons[0].waiver
    assert 'misconfigurations = ["DS-0002"]' in judged(flaw).reasons[0].waiver


def test_a_scanner_for_secrets_that_did_not_evaluate_refuses_as_a_secret_would():
    """Else removing the scanner would be the way to pass; an image without a Dockerfile lacks nothing."""
    silent = report(scanner="trivy-secret", kind=FindingKind.SECRET, outcome=Outcome.ERROR, reason="crashed")
    assert not judged(reports=[report(), silent]).allowed
    absent = report(scanner="hadolint", kind=FindingKind.MISCONFIGURATION, outcome=Outcome.NOT_APPLICABLE)
    assert judged(reports=[report(), absent]).reasons == ()


def test_a_waiver_silences_without_hiding():
    """The reason stays, says by which waiver and until when, and comes after what still needs someone."""
    verdict = judged(finding(), finding(id="CVE-2026-0002", severity=Severity.MEDIUM), waivers=[waiver()])
    assert verdict.allowed
    assert [reason.rule for reason in verdict.reasons] == ["CVE-2026-0002", "CVE-2026-0001"]
    assert verdict.reasons[1].waived_by == "w until 2026-12-15: r"


def test_a_refusal_tells_a_developer_what_why_what_to_do_and_how_to_get_an_exception():
    """All four, so that nobody has to ask what the refusal means; that nothing was judged comes first."""
    assert judged(finding(), reports=()).refusals[0].rule == "judges"
    [reason] = judged(finding()).refusals
    assert "CVE-2026-0001 in zlib1g 1.3-1" in reason.what
    assert reason.why
    assert "zlib1g 1.3-2" in reason.todo
    assert reason.waiver.startswith("ask security@example.com")


def test_a_policy_past_its_review_is_a_warning_to_its_owner():
    """It goes on to judge; on the day itself it is still in time."""
    stale = policy().model_copy(update={"review_by": NOW.date() - DAY})
    verdict = judged(by=stale)
    assert verdict.allowed
    assert verdict.reasons[0].rule == "policy-review"
    assert judged(by=stale.model_copy(update={"review_by": NOW.date()})).reasons == ()


severities = st.sampled_from(Severity)
findings_ = st.builds(
    Finding,
    kind=st.sampled_from(FindingKind),
    id=st.sampled_from(["CVE-2026-0001", "CVE-2026-0002", "CVE-2026-0003"]),
    package=st.sampled_from(["a", "b"]),
    installed=st.just("1"),
    fixed=st.sampled_from(["", "2", "3"]),
    severity=severities,
    scanners=st.tuples(st.tuples(st.sampled_from(["trivy", "debsecan", "other"]), severities)),
    exploited=st.booleans(),
    fix_known_since=st.none() | st.sampled_from([NOW - 10 * DAY, NOW]),
)
reports_ = st.builds(
    report,
    scanner=st.sampled_from(["trivy", "debsecan"]),
    outcome=st.sampled_from(Outcome),
    evaluated=st.integers(0, 2),
    data_date=st.sampled_from([None, NOW - 30 * DAY, NOW]),
    sample=st.booleans(),
)
waivers_ = st.builds(
    waiver,
    id=st.just("w"),
    packages=st.sampled_from([("a",), ("a", "b")]),
    vulnerabilities=st.sampled_from([("CVE-2026-0001",), ("CVE-2026-0002", "CVE-2026-0003")]),
    expires=st.sampled_from([NOW.date() - DAY, NOW.date()]),
)


@given(st.lists(findings_), findings_, st.lists(reports_), st.lists(waivers_))
def test_adding_a_finding_never_turns_refused_into_allowed(findings, one_more, reports, waivers):
    """Whatever was refused stays refused when more is found about something else."""
    key = (one_more.kind, one_more.id, one_more.package)
    others = [f for f in findings if (f.kind, f.id, f.package) != key]
    before = judged(*others, reports=reports, waivers=waivers)
    after = judged(*others, one_more, reports=reports, waivers=waivers)
    assert before.allowed or not after.allowed


@given(st.lists(findings_, min_size=1), st.sampled_from([s for s in Severity if s is not Severity.UNKNOWN]))
def test_a_second_opinion_never_makes_a_finding_milder(findings, severity):
    """Another scanner's word about something whose severity is known can only add to the refusal."""
    known = [f for f in findings if f.severity is not Severity.UNKNOWN]
    again = [replace(f, severity=severity, scanners=(("another", severity),)) for f in known]
    assert judged(*known).allowed or not judged(*known, *again).allowed


@given(st.lists(findings_), st.lists(reports_), st.lists(waivers_))
def test_an_image_without_a_judge_is_never_allowed(findings, reports, waivers):
    """For any findings, waivers and reports none of which evaluated the image on data in date."""
    counted = [
        r
        for r in reports
        if r.outcome in (Outcome.PASS, Outcome.FAIL) and r.evaluated and r.data_date == NOW and not r.sample
    ]
    verdict = judged(*findings, reports=reports, waivers=waivers)
    assert counted or not verdict.allowed
    assert verdict.allowed == (bool(counted) and not verdict.refusals)


@given(st.lists(findings_), st.lists(waivers_))
def test_a_waiver_that_expired_yesterday_has_no_effect(findings, waivers):
    """The verdict is the one without it, and it is reported."""
    expired = [w for w in waivers if w.expires < NOW.date()]
    alive = [w for w in waivers if w.expires >= NOW.date()]
    with_them, without = judged(*findings, waivers=waivers), judged(*findings, waivers=alive)
    assert with_them.allowed == without.allowed
    assert with_them.refusals == without.refusals
    assert sum(reason.rule == "waiver-ended" for reason in with_them.reasons) == len(expired)


@given(st.lists(findings_), st.randoms())
def test_merging_is_independent_of_order_and_done_once_is_done(findings, random):
    """Scanners that finish in another order give the same findings; merging what is merged changes nothing."""
    shuffled = list(findings)
    random.shuffle(shuffled)
    merged = merge(findings)
    # repr: fields that do not count for equality must not depend on the order either
    assert repr(merge(shuffled)) == repr(merged)
    assert repr(merge(merged)) == repr(merged)
    assert repr(merge([*merge(findings[:2]), *findings[2:]])) == repr(merged)
    assert {opinion for f in merged for opinion in f.scanners} == {o for f in findings for o in f.scanners}


@given(st.lists(findings_), st.lists(reports_), st.randoms())
def test_the_verdict_is_a_function_of_what_is_known_not_of_its_order(findings, reports, random):
    """The same verdict, reason by reason, in whatever order scanners and checks answered."""
    shuffled, other = list(findings), list(reports)
    random.shuffle(shuffled)
    assert judged(*findings, reports=reports).reasons == judged(*shuffled, reports=reports).reasons
    random.shuffle(other)
    assert judged(*findings, reports=reports).allowed == judged(*findings, reports=other).allowed


def running(**rules: object) -> Policy:
    return Policy.model_validate({**policy().model_dump(by_alias=True), "running": rules})


KNOWN = RunningFacts(
    known=True,
    image="web@sha256:1",
    source="r.example/golden/web",
    own_registry="r.example/golden",
    seen_since=NOW - 5 * DAY,
    published_at=NOW - 10 * DAY,
    expires_at=NOW + 20 * DAY,
)


@pytest.mark.parametrize(
    ("change", "rule", "since"),
    [
        ({"expires_at": NOW}, "expired", NOW),
        ({"revoked_at": NOW - DAY, "revoked_reason": "leaked key"}, "revoked", NOW - DAY),
        ({"superseded_since": NOW - 2 * DAY}, "superseded", NOW - 2 * DAY),
        ({"refused_since": NOW - DAY, "refused_because": "CVE-2026-0001"}, "refused", NOW - DAY),
        ({"published_at": NOW - 61 * DAY}, "max_age", NOW - DAY),
        ({"published_at": None}, "max_age", NOW - 5 * DAY),
        ({"source": "evil.example/web"}, "approved_source", NOW - 5 * DAY),
        ({"known": False, "expires_at": NOW - DAY}, "unknown", NOW - 5 * DAY),
    ],
)
def test_each_running_rule_is_its_own_reason_with_since_and_deadline(change, rule, since):
    """Only that one reason, counted from when it began, and due when the rule's grace is over."""
    rules = {"max_age": {"limit": "60d", "grace": "3d"}, "approved_source": {"grace": "3d"}}
    graced = {name: {"grace": "3d"} for name in ("expired", "revoked", "superseded", "refused", "unknown")}
    [reason] = judge_member(running(**rules, **graced), "web/web-1", replace(KNOWN, **change), (), NOW)
    assert (reason.rule, reason.since, reason.deadline) == (rule, since, since + 3 * DAY)
    assert reason.todo.startswith("replace it: ") == (rule not in ("approved_source", "unknown"))


def test_a_member_within_policy_has_no_reason():
    """A known image in date, from our own registry."""
    rules = {"max_age": {"limit": "60d"}, "approved_source": {}}
    assert judge_member(running(**rules), "web/web-1", KNOWN, (), NOW) == ()


def test_an_unknown_image_is_unknown_and_never_expired_but_a_revoked_one_is_revoked():
    """Nobody's image has no date to expire by; a digest that was revoked is revoked wherever it runs."""
    facts = replace(KNOWN, known=False, expires_at=NOW - DAY, superseded_since=NOW, revoked_at=NOW)
    rules = [reason.rule for reason in judge_member(running(), "web/web-1", facts, (), NOW)]
    assert rules == ["revoked", "unknown"]


def test_a_running_rule_can_be_waived_for_one_member():
    """By the rule's name, by subject glob, until the waiver ends."""
    facts, aged = replace(KNOWN, expires_at=NOW - DAY), (waiver(rules=("expired",), subjects=("web/*",)),)
    assert judge_member(running(), "web/web-1", facts, aged, NOW)[0].waived_by
    assert not judge_member(running(), "api/api-1", facts, aged, NOW)[0].waived_by
    assert not judge_member(running(), "web/web-1", facts, aged, NOW + 21 * DAY)[0].waived_by


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("r.example/golden", True),
        ("r.example/golden/web", True),
        ("r.example/golden@sha256:1", True),
        ("r.example/golden-evil/web", False),
        ("r.example.evil/golden/web", False),
        ("", False),
    ],
)
def test_a_source_is_approved_by_whole_parts_of_its_address(address, inside):
    """A prefix of the text is not a prefix of the place."""
    assert under(address, "r.example/golden") is inside
    assert not under("r.example:8443/golden", "r.example")
    assert not under("anything", "")


def test_holes_that_one_newer_package_closes_are_one_task_in_the_explanation():
    """Grouped by remedy, each named up to a readable number, with one waiver to paste at the end."""
    many = [finding(id=f"CVE-2026-{number:04}") for number in range(9)]
    text = explain(judged(*many, finding(id="CVE-2026-0100", package="libc6", fixed="2")).refusals)
    assert text.count("  do:  ") == 2
    assert "the same for: CVE-2026-0001, CVE-2026-0002" in text
    assert "and 2 more" in text
    assert "for CVE-2026-0000 ask security@example.com" in text
    assert text.count("expires = ") == 1


def test_an_explanation_of_what_is_waived_names_the_waiver_and_asks_for_none():
    """Nothing is left to ask for."""
    text = explain(judged(finding(), waivers=[waiver()]).reasons)
    assert "waived by w until 2026-12-15" in text
    assert "ask security@example.com" not in text


def said(verdict: Verdict) -> list[tuple[str, str, str, str]]:
    """Of each reason: its rule, what, why, and what to do."""
    return [(reason.rule, reason.what, reason.why, reason.todo) for reason in verdict.reasons]


READ = "attackers read the same advisories: once a fix is published, the hole is too"
REBUILD = "rebuild on zlib1g 1.3-2 (`./goldsmith image.build debian-base` takes it once the mirror has it)"


@pytest.mark.parametrize(
    ("offered", "todo"),
    [
        (None, REBUILD),
        ({("zlib1g", "1.3-2")}, REBUILD.replace(" once the mirror has it", "")),
        ({("zlib1g", "1.3-1")}, "leave the package out, or wait: the mirror's index lacks zlib1g 1.3-2 so far"),
    ],
)
def test_a_rebuild_is_said_to_take_a_fix_only_where_the_mirror_has_it(offered, todo):
    """Data often knows of a fix before the mirror does."""
    verdict = judge_image(policy(), "debian-base", None, JUDGED, [finding()], (), NOW, offered=offered)
    assert verdict.reasons[0].todo == todo


@pytest.mark.parametrize(
    ("change", "days", "enforcement", "text"),
    [
        ({}, 0, Enforcement.ENFORCE, ", and the policy gives no time to wait with it"),
        ({"severity": Severity.MEDIUM}, 6, Enforcement.WARN, ", and must be in by 2026-12-02 12:00 UTC"),
        ({"severity": Severity.MEDIUM}, 7, Enforcement.ENFORCE, ", and had to be in by 2026-12-02 12:00 UTC"),
    ],
)
def test_a_vulnerability_is_told_with_its_window(change, days, enforcement, text):
    """To the moment at which the window closes."""
    severity = change.get("severity", Severity.HIGH)
    found = finding(severity, fix_known_since=NOW, title="overflow")
    [reason] = judged(found, now=NOW + days * DAY, reports=(report(data_date=NOW + days * DAY),)).reasons
    assert (reason.rule, reason.enforcement, reason.why, reason.todo) == ("CVE-2026-0001", enforcement, READ, REBUILD)
    assert reason.subject == "debian-base"
    assert (reason.since, reason.deadline) == (NOW, NOW + (0 if severity is Severity.HIGH else 7) * DAY)
    assert reason.what == (
        f"CVE-2026-0001 in zlib1g 1.3-1: severity {severity} (trivy): overflow; a fix is known since 2026-11-25{text}; "
        "debsecan looked and did not find it"
    )


def test_of_several_windows_the_strictest_counts_and_of_those_the_first_to_end():
    """A window's grace is added to its time."""
    windows = [
        {"severity": "low", "within": "1d", "enforcement": "warn"},
        {"severity": "high", "within": "3d", "grace": "1d"},
        {"severity": "medium", "within": "5d"},
    ]
    warn, enforce = Enforcement.WARN, Enforcement.ENFORCE
    for order in (windows, windows[::-1]):
        by = policy(vulnerabilities=order)
        for days, enforcement, ends in ((3.9, warn, 1), (4, enforce, 4), (6, enforce, 4)):
            fresh = (report(data_date=NOW + days * DAY),)
            [reason] = judged(finding(fix_known_since=NOW), by=by, now=NOW + days * DAY, reports=fresh).reasons
            assert (reason.enforcement, reason.deadline) == (enforcement, NOW + ends * DAY)
    audit = policy(vulnerabilities=[{"severity": "low", "within": "1d", "enforcement": "audit"}])
    inside = [one for one in judged(finding(fix_known_since=NOW), by=audit).reasons if one.rule == "CVE-2026-0001"]
    assert [one.enforcement for one in inside] == [Enforcement.AUDIT]


def test_a_vulnerability_that_no_window_covers_or_that_has_no_fix_is_only_recorded():
    """With what a person can do."""
    [low] = judged(finding(Severity.LOW, fix_known_since=NOW - DAY)).reasons
    assert (low.enforcement, low.since, low.deadline) == (Enforcement.AUDIT, NOW - DAY, None)
    assert low.what == "CVE-2026-0001 in zlib1g 1.3-1: severity low (trivy); debsecan looked and did not find it"
    [open_] = judged(finding(fixed="", title="CVE-2026-0001")).reasons
    assert (open_.enforcement, open_.since, open_.deadline) == (Enforcement.AUDIT, None, None)
    assert open_.what == "CVE-2026-0001 in zlib1g 1.3-1: severity high (trivy); debsecan looked and did not find it"
    assert open_.todo == (
        "no fixed version is published: leave the package out if the image can do without, or wait for the fix"
    )
    strict = policy(unfixed={"enforcement": "enforce"})
    assert [one.enforcement for one in judged(finding(fixed=""), by=strict).reasons] == [Enforcement.ENFORCE]


def test_scanners_that_disagree_are_told_each_with_its_word():
    """And whoever looked and is silent says something too; a scanner that did not look says nothing."""
    both = finding(scanners=(("debsecan", Severity.LOW), ("trivy", Severity.HIGH)), exploited=True, fixed="")
    silent = [report(), report(scanner="grype"), report(scanner="broken", outcome=Outcome.ERROR), report(scanner="abc")]
    [reason] = [one for one in judged(both, reports=silent).reasons if one.rule == "CVE-2026-0001"]
    assert reason.what == (
        "CVE-2026-0001 in zlib1g 1.3-1: severity high, though scanners disagree (debsecan: low, trivy: high), known to "
        "be exploited; abc, grype looked and did not find it"
    )
    [reason] = judged(replace(both, scanners=(("a", Severity.HIGH), ("debsecan", Severity.HIGH)))).reasons
    assert reason.what == "CVE-2026-0001 in zlib1g 1.3-1: severity high (a, debsecan), known to be exploited"


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome.FAIL, "does not hold"),
        (Outcome.ERROR, "could not be checked"),
        (Outcome.NOT_EVALUATED, "was not evaluated"),
    ],
)
def test_a_control_that_broke_is_told_with_its_evidence(outcome, words):
    """One that passes, or does not apply, is no reason."""
    checks = [check(Outcome.PASS), replace(check(outcome), control="other"), check(Outcome.NOT_APPLICABLE)]
    assert said(judged(checks=checks)) == [
        (
            "other",
            f"control other (high) {words}: No setuid files: /usr/bin/su",
            "`./goldsmith control.show other` gives the reason and what it costs to comply",
            "remove what the evidence names from the image's definition, or let the control apply it",
        )
    ]
    [reason] = judged(checks=[check(Outcome.PASS), replace(check(outcome, Enforcement.WARN), control="other")]).reasons
    assert reason.enforcement is Enforcement.WARN
    assert reason.waiver.startswith("ask security@example.com")


def test_an_image_of_ours_that_no_control_looked_at_is_refused():
    """However many there were."""
    for checks in ([], [check(Outcome.NOT_APPLICABLE), check(Outcome.NOT_APPLICABLE)]):
        verdict = judged(checks=checks)
        assert not verdict.allowed
        assert said(verdict) == [
            (
                "checks",
                f"nothing was verified: of {len(checks)} controls none passed or failed",
                "an image that no control was checked on looks exactly like a hardened one",
                "`./goldsmith image.build debian-base --no-cache` verifies it by a profile whose controls apply",
            )
        ]
        assert verdict.reasons[0].waiver == ""
    assert judged(checks=[check(Outcome.PASS)]).allowed
    assert not judged(checks=[check(Outcome.PASS)], reports=()).allowed


def test_a_policy_without_a_window_refuses_everything():
    """And says whose it is."""
    verdict = judged(by=policy(vulnerabilities=[]))
    assert not verdict.allowed
    assert said(verdict) == [
        (
            "policy-window",
            "the policy test enforces no window in which vulnerabilities must be fixed",
            "by such a policy an image with every known hole would pass",
            "security: add [[image.vulnerabilities]] to hardening/policies/test.toml",
        )
    ]
    assert verdict.reasons[0].subject == "test"


def test_a_policy_is_overdue_the_day_after_its_review():
    """Which is a warning to its owner."""
    by = policy().model_copy(update={"review_by": NOW.date()})
    assert judged(by=by).reasons == ()
    late = judged(by=by, now=NOW + 2 * DAY, reports=(report(data_date=NOW + 2 * DAY),))
    assert late.allowed
    assert said(late) == [
        (
            "policy-review",
            "policy test had to be reviewed by 2026-11-25, 2 days ago",
            "limits that nobody has looked at again drift from what threatens us",
            "security: review hardening/policies/test.toml and move review_by",
        )
    ]
    assert (late.reasons[0].subject, late.reasons[0].enforcement) == ("test", Enforcement.WARN)


def test_secrets_and_misconfigurations_have_their_own_words_and_rules():
    """A title that is the id says nothing twice; other scanners' silence is no opinion about them."""
    secret = finding(kind=FindingKind.SECRET, id="private-key", package="/root/key", title="private-key")
    wrong = finding(kind=FindingKind.MISCONFIGURATION, id="DS-1", package="Dockerfile", fixed="add USER", title="root")
    plain = finding(kind=FindingKind.MISCONFIGURATION, id="DS-2", package="Dockerfile", fixed="")
    reports = [*JUDGED, report(scanner="other", kind=FindingKind.SECRET)]
    verdict = judged(secret, wrong, plain, reports=reports)
    weak = "it weakens the image for everyone who builds on it"
    assert said(verdict) == [
        (
            "private-key",
            "secret private-key in /root/key: severity high (trivy)",
            "whoever can pull the image can read it, and layers keep what a later layer deletes",
            "take it out of the image, revoke it where it was valid, and mount secrets when the container runs",
        ),
        (
            "DS-1",
            "misconfiguration DS-1 in Dockerfile: severity high (trivy): root",
            weak,
            "change the image's definition: add USER",
        ),
        (
            "DS-2",
            "misconfiguration DS-2 in Dockerfile: severity high (trivy)",
            weak,
            "change the image's definition",
        ),
    ]
    assert [one.enforcement for one in verdict.reasons] == [Enforcement.ENFORCE, Enforcement.WARN, Enforcement.WARN]


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.NOT_EVALUATED])
def test_a_scanner_for_secrets_that_did_not_look_is_told_by_the_rule_of_its_kind(outcome):
    """It refuses where a secret would, and warns where a misconfiguration would."""
    silent = [
        report(scanner=name, kind=kind, outcome=outcome, reason="no program")
        for name, kind in (("a", FindingKind.SECRET), ("b", FindingKind.MISCONFIGURATION))
    ]
    verdict = judged(reports=[*JUDGED, *silent])
    assert said(verdict) == [
        (
            f"{name}-evaluated",
            f"{name} did not evaluate this image for a {kind}: no program",
            "what was not looked at is not known to be good",
            "./goldsmith doctor shows what the scanner lacks",
        )
        for name, kind in (("a", "secret"), ("b", "misconfiguration"))
    ]
    assert [one.enforcement for one in verdict.reasons] == [Enforcement.ENFORCE, Enforcement.WARN]
    assert {one.subject for one in verdict.reasons} == {"debian-base"}
    looked = [replace(one, outcome=Outcome.PASS) for one in silent]
    assert judged(reports=[*JUDGED, *looked]).reasons == ()


def test_reasons_come_refusals_first_and_what_is_waived_last():
    """That nothing was judged at all comes before every other refusal; then by rule and words."""
    verdict = judged(
        finding(id="CVE-2026-0003"), finding(), finding(Severity.LOW, id="CVE-2026-0002"),
        finding(package="bzip2", id="CVE-2026-0003"), finding(kind=FindingKind.MISCONFIGURATION, id="DS-1"),
        reports=(), waivers=(waiver(),),
    )  # fmt: skip
    assert [(one.rule, one.what.split()[2], bool(one.waived_by)) for one in verdict.reasons] == [
        ("judges", verdict.reasons[0].what.split()[2], False),
        ("CVE-2026-0003", "bzip2", False),
        ("CVE-2026-0003", "zlib1g", False),
        ("DS-1", "in", False),
        ("CVE-2026-0002", "zlib1g", False),
        ("CVE-2026-0001", "zlib1g", True),
    ]
    assert (verdict.subject, verdict.policy, verdict.judged_at) == ("debian-base", "test", NOW)


def one_reason(rule: str, **change: object) -> Reason:
    return replace(Reason(rule, "web", Enforcement.ENFORCE, f"{rule} is\nwrong", "why\nso", "do\nthis"), **change)  # type: ignore[arg-type]


def test_reasons_with_one_remedy_are_one_block_that_names_six_more():
    """Each text on one line; another enforcement, cause, remedy or waiver is another block."""
    many = [one_reason(f"r{number}") for number in range(9)]
    assert explain(many[:1]) == "enforce: r0 is\\nwrong\n  why: why\\nso\n  do:  do\\nthis"
    assert explain(many[:7]).splitlines()[1] == "  the same for: r1, r2, r3, r4, r5, r6"
    assert explain(many).splitlines()[1] == "  the same for: r1, r2, r3, r4, r5, r6 and 2 more"
    apart = [
        one_reason("a"), one_reason("b", enforcement=Enforcement.WARN), one_reason("c", why="x"),
        one_reason("d", todo="x"), one_reason("e", waived_by="w until then"), one_reason("f"),
    ]  # fmt: skip
    assert [[one.rule for one in group] for group in by_remedy(apart)] == [["a", "f"], ["b"], ["c"], ["d"], ["e"]]


def test_an_explanation_asks_for_the_first_waiver_that_is_missing():
    """Whose refusal says how; what is waived says by which."""
    waived = one_reason("a", waived_by="w until then", waiver="ask nobody")
    text = explain([waived, one_reason("b"), one_reason("c", waiver="ask ann"), one_reason("d", waiver="ask bob")])
    assert "  waived by w until then\n" in text
    assert text.splitlines()[-1] == "if it cannot be done in time, for c ask ann"
    assert "in time" not in explain([waived])
    error = GateError("no", [one_reason("b")], hint="do it")
    assert (error.message, error.evidence, error.hint) == ("no", explain([one_reason("b")]), "do it")
    assert error.reasons == (one_reason("b"),)


def of_member(name: str, days: int = 1, **change: object) -> Reason:
    """What is against a member since so many days."""
    since = NOW - days * DAY
    what, todo = f"it is old{since_text(since)}", f"replace it: `roll.plan web --adopt {name}`"
    made = one_reason("old", subject=f"web/{name}", what=what, why="so", todo=todo, since=since, deadline=since)
    return replace(made, **change)  # type: ignore[arg-type]


def test_a_reason_that_many_share_stands_once_with_their_names():
    """Since the first of them, until the first deadline; what to type is for any of them."""
    both = shared([of_member("web-1"), of_member("web-2", 3), of_member("web-3", rule="other")])
    assert [one.subjects for one in both] == [("web-1", "web-2"), ("web-3",)]
    assert (both[0].reason.since, both[0].reason.deadline) == (NOW - 3 * DAY, NOW - 3 * DAY)
    assert both[0].reason.what == "it is old (the first since 2026-11-22 12:00 UTC)"
    assert both[0].reason.todo == "replace it: `roll.plan web --adopt NAME`"
    assert both[1].reason == of_member("web-3", rule="other"), "one alone is told as it is"
    same = shared([of_member("web-1"), of_member("web-2")])[0].reason.what
    assert same == "it is old (since 2026-11-24 12:00 UTC)"


def general_by_pattern(reason: Reason) -> str:
    """What to type for anybody, by a pattern of the name alone, however little it stands there."""
    name = re.escape(reason.subject.partition("/")[2] or reason.subject)
    whole = re.compile(rf"(?<![\w.-]){name}(?![\w.-])")
    return re.sub("`[^`]*`", lambda typed: whole.sub("NAME", typed[0]), reason.todo)


@pytest.mark.parametrize(
    ("name", "todo", "general"),
    [
        ("web", "`roll web` and `roll web`, not web", "`roll NAME` and `roll NAME`, not web"),
        ("web", "`roll web-1 my.web webs _web web.` and web", "`roll web-1 my.web webs _web web.` and web"),
        ("web", "`roll web,web (web) /web/`", "`roll NAME,NAME (NAME) /NAME/`"),
        ("a.b", "`roll a.b axb`", "`roll NAME axb`"),
        ("a+b[c]", "`roll a+b[c] aab`", "`roll NAME aab`"),
        ("(x|y)*$", "`roll (x|y)*$`", "`roll NAME`"),
        ("a\\1", "`roll a\\1 \\1`", "`roll NAME \\1`"),
        ("a`b", "`roll a`b`", "`roll a`b`"),
        ("web", "roll `other`", "roll `other`"),
        ("web", "", ""),
        ("né", "`roll né éné`", "`roll NAME éné`"),
    ],
)
def test_a_name_in_what_to_type_is_anybodys_where_it_stands_whole(name: str, todo: str, general: str):
    """Whatever stands in it: patterns' own characters, another's name within it or about it."""
    reason = one_reason("r", subject=f"fleet/{name}", todo=todo)
    assert _of_nobody(reason).todo == general == general_by_pattern(reason)


@given(
    name=st.text("ab.-_+*[(\\`$/é 1", min_size=0, max_size=4),
    parts=st.lists(st.sampled_from(["`", " ", "-", ".", "x", "/"]) | st.none(), max_size=10),
    fleet=st.sampled_from(["", "f/"]),
)
def test_the_quick_look_for_a_name_finds_what_its_pattern_finds(name: str, parts: list[str | None], fleet: str):
    """None stands for the name."""
    todo = "".join(name if part is None else part for part in parts)
    reason = one_reason("r", subject=f"{fleet}{name}", todo=todo)
    assert _of_nobody(reason).todo == general_by_pattern(reason)
    assert (_of_nobody(reason).since, _of_nobody(reason).subject, _of_nobody(reason).waiver) == (None, "", "")


@given(
    days=st.lists(st.integers(1, 5), min_size=1, max_size=8), waived=st.sampled_from(["", "w1 until 2027"]),
    rules=st.lists(st.sampled_from("abc"), min_size=8, max_size=8),
)  # fmt: skip
def test_nobody_is_lost_among_shared_reasons(days: list[int], waived: str, rules: list[str]):
    """Each pair of a name and a rule stands exactly once."""
    reasons = [of_member(f"web-{n}", day, rule=rules[n], waived_by=waived) for n, day in enumerate(days)]
    told = [(name, one.reason.rule) for one in shared(reasons) for name in one.subjects]
    assert sorted(told) == sorted((f"web-{n}", rules[n]) for n in range(len(days)))
    text = explain_shared(shared(reasons))
    assert all(f"web-{n}" in text for n in range(len(days)))


def test_what_images_have_from_a_base_is_the_bases_own_reason():
    """Also across one in between that does not have it; two bases are two."""
    parents = {"base": None, "mid": "base", "top": "mid", "else": None, "its": "else"}
    assert brought_by("top", {"base", "top"}, parents) == "base"
    assert brought_by("top", {"top"}, parents) == "top"
    made = {
        name: one_reason("CVE-1", subject=name, todo=f"do `image.build {name}`") for name in parents if name != "mid"
    }
    found = shared(made.values(), parents)
    assert {(one.brought_by, one.subjects) for one in found} == {("base", ("base", "top")), ("else", ("else", "its"))}
    assert {one.reason for one in found} == {made["base"], made["else"]}
    assert explain_shared(found).startswith("base, and by it top:\n  enforce: ")


def test_what_the_gate_says_comes_from_a_base_is_with_the_base():
    """Also where the base itself is not among the refused."""
    parents = {"base": None, "top": "base", "other": "base"}
    told = [
        one_reason("CVE-1", subject=name, what=f"CVE-1{come}", comes_from=base, todo=f"do `image.build {name}`")
        for name, base, come in (("base", "", ""), ("top", "base", "; it comes from base"))
    ]
    assert [(one.brought_by, one.subjects) for one in shared(told, parents)] == [("base", ("base", "top"))]
    alone = [told[1], replace(told[1], subject="other", todo="do `image.build other`")]
    assert [(one.brought_by, one.subjects) for one in shared(alone, parents)] == [("base", ("other", "top"))]


def test_too_few_reproduced_packages_refuse_where_the_policy_enforces_it_and_may_be_waived() -> None:
    """By Goldsmith's own rule `reproduced`; by default it is only recorded."""
    few = replace(report(scanner="reproduced"), kind=FindingKind.REPRODUCTION, evaluated=10, reproduced=7)
    for enforcement, allowed in (("audit", True), ("warn", True), ("enforce", False)):
        rules = policy(reproduced={"minimum_percent": 80, "enforcement": enforcement})
        verdict = judge_image(rules, "web", None, [report(), few], [], (), NOW)
        assert verdict.allowed is allowed
        assert [reason.rule for reason in verdict.reasons] == ["reproduced"]
    waiver = Waiver.model_validate({
        "id": "w", "rules": ["reproduced"], "subjects": ["web"], "reason": "r", "owner": "o", "approver": "p",
        "created": NOW.date(), "expires": (NOW + DAY).date(),
    })  # fmt: skip
    assert judge_image(rules, "web", None, [report(), few], [], (waiver,), NOW).allowed


def test_a_window_by_likelihood_without_any_estimate_is_a_warning() -> None:
    """Of a policy that asks for none, nothing is said."""
    window = {"severity": "low", "within": "0s", "epss": 0.5}
    for asked in (True, False):
        given = policy(vulnerabilities=[window] if asked else [{"severity": "low", "within": "0s"}])
        said = judge_image(given, "web", None, [report()], (), (), NOW).reasons
        assert ("epss-evaluated" in [reason.rule for reason in said]) is asked
