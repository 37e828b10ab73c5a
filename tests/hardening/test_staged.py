"""Rules that are enforced from a date, fix windows by EPSS, and waivers that end soon."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.catalog import require_may_publish
from hardening.findings import CheckResult, Finding, FindingKind, Outcome, ScanReport, Verdict, merge
from hardening.foundation.content import parse
from hardening.foundation.errors import ContentError, RefusedError
from hardening.foundation.settings import ROOT, Judging
from hardening.gate import enforced_as, judge_image
from hardening.model import Enforcement, Severity, Waiver
from hardening.policy import Policy, covering, weaknesses
from hardening.running import RunningFacts
from pipelines.cli.controls import policy_text
from tests.support.fleets import judge_member

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)
FROM = date(2026, 12, 1)
BEGINS = datetime(2026, 12, 1, tzinfo=UTC)
HIGH = {"severity": "high", "within": "0s"}
REPORT = ScanReport("trivy", FindingKind.VULNERABILITY, Outcome.PASS, 90, NOW, "feed", "")


def policy(running: dict[str, Any] | None = None, **image: Any) -> Policy:
    data = {
        "title": "t", "owner": "security", "rationale": "r", "review_by": date(2028, 1, 1), "exception_contact": "s",
        "image": {"vulnerabilities": [HIGH], "judges": {"data_max_age": "99d"}, **image}, "running": running or {},
    }  # fmt: skip
    return parse(data, Policy, "own.toml", name="own")


def hole(severity: Severity = Severity.HIGH, **change: Any) -> Finding:
    base = Finding(FindingKind.VULNERABILITY, "CVE-2026-0001", "zlib1g", "1", "2", severity, (("trivy", severity),))
    return replace(base, **{"fix_known_since": NOW - 5 * DAY, **change})


def secret() -> Finding:
    return replace(hole(), kind=FindingKind.SECRET, id="private-key", package="/root/key")


def judged(by: Policy, *findings: Finding, now: datetime = NOW, waivers: tuple[Waiver, ...] = ()) -> Verdict:
    return judge_image(by, "shop", None, (REPORT,), findings, waivers, now)


def staged(**more: Any) -> dict[str, Any]:
    return {"from": FROM, **more}


@pytest.mark.parametrize(
    ("by", "found"),
    [
        (policy(secrets=staged()), secret()),
        (policy(unfixed=staged()), hole(fixed="")),
        (policy(vulnerabilities=[HIGH, {"severity": "medium", **staged()}]), hole(Severity.MEDIUM)),
        (policy(misconfigurations=staged()), replace(secret(), kind=FindingKind.MISCONFIGURATION)),
        (policy(judges={"minimum": 2, "data_max_age": "99d", **staged()}), hole(Severity.LOW)),
        (policy(reproduced={"minimum_percent": 50, "enforcement": "enforce", **staged()}), hole(Severity.LOW)),
    ],
    ids=["secret", "unfixed", "window", "misconfiguration", "judges", "reproduced"],
)
def test_a_rule_warns_until_its_day_and_refuses_from_then_on(by: Policy, found: Finding) -> None:
    """To the minute; the warning names the day, and the reason is due on it."""
    before = judged(by, found, now=BEGINS - timedelta(seconds=1))
    assert before.allowed
    [reason] = [one for one in before.reasons if one.enforcement is Enforcement.WARN]
    assert "2026-12-01" in reason.what
    assert reason.deadline == BEGINS
    after = judged(by, found, now=BEGINS)
    assert not after.allowed
    assert [one.deadline for one in after.refusals] == [BEGINS], "it refuses since then"


def test_a_member_is_warned_until_the_day_and_due_then() -> None:
    """The grace does not end before the rule is enforced, and is not added to that day."""
    facts = RunningFacts(True, "shop", published_at=NOW - 90 * DAY)
    by = policy(running={"max_age": {"limit": "60d", "grace": "7d", **staged()}})
    [warned] = judge_member(by, "web/1", facts, (), NOW)
    assert (warned.enforcement, warned.deadline) == (Enforcement.WARN, BEGINS)
    assert "; enforced from 2026-12-01 on (since 2026-10-26" in warned.what
    [due] = judge_member(by, "web/1", facts, (), BEGINS)
    assert (due.enforcement, due.deadline) == (Enforcement.ENFORCE, BEGINS)
    assert "enforced from" not in due.what
    later = judge_member(by, "web/1", replace(facts, published_at=BEGINS - 61 * DAY), (), BEGINS)
    assert later[0].deadline == BEGINS - DAY + 7 * DAY


def test_what_only_warns_has_no_day_of_enforcement() -> None:
    """It would read as if something began then."""
    with pytest.raises(ContentError, match=r'own.toml: image.secrets: from is for what is enforced .* this is "warn"'):
        policy(secrets=staged(enforcement="warn"))
    with pytest.raises(ContentError, match=r"image.secrets.form: unknown key\n.*did you mean from"):
        policy(secrets={"form": FROM})


def test_the_policy_as_people_read_it_names_the_day() -> None:
    """Of image's and running rules, and of a window by EPSS its score."""
    text = policy_text(
        policy(
            running={"expired": staged()}, secrets=staged(),
            vulnerabilities=[HIGH, {"severity": "low", "epss": 0.5, **staged()}],
        )
    )  # fmt: skip
    assert "secrets: enforce from 2026-12-01 on, warn before" in text
    assert "expired: enforce from 2026-12-01 on, warn before after a grace of 0s" in text
    assert "of severity low or worse with an EPSS score from 0.5: gone 0s after a fix is known: enforce from" in text


def test_a_policy_that_only_begins_to_ask_is_weaker_than_its_floor_until_then() -> None:
    """And no window that waits is enough to publish by; a floor that waits longer is no stricter."""
    floor, ours = policy(), policy(secrets=staged())
    assert weaknesses(ours, floor) == ("image.secrets.enforcement: warn until 2026-12-01, and the floor says enforce",)
    assert weaknesses(floor, ours) == ()
    assert weaknesses(ours, policy(secrets={"from": FROM + DAY})) == ()
    assert weaknesses(policy(secrets={"from": FROM + DAY}), ours) == (
        "image.secrets.enforcement: warn until 2026-12-02, and the floor says enforce",
    )
    waits = policy(vulnerabilities=[{**HIGH, **staged()}])
    assert weaknesses(waits, None) == ("image.vulnerabilities: no window is enforced",)
    assert [one.rule for one in judged(waits).refusals] == ["policy-window"]
    assert judged(waits, now=BEGINS).allowed


def test_once_its_day_has_come_a_rule_is_as_strict_as_the_floor(tmp_path: Path) -> None:
    """So that publishing goes on from that day; what begins later counts until then."""
    floor, ours = policy(), policy(secrets=staged(), vulnerabilities=[{**HIGH, **staged()}])
    assert weaknesses(ours, floor, FROM - DAY)
    assert weaknesses(ours, floor, FROM) == weaknesses(ours, floor, FROM + DAY) == ()
    folder, text = tmp_path / "hardening/policies", (ROOT / "hardening/policies/default.toml").read_text()
    shutil.copytree(ROOT / "hardening/profiles", tmp_path / "hardening/profiles")
    folder.mkdir(parents=True)
    (folder / "default.toml").write_text(text)
    (folder / "own.toml").write_text(text.replace("[image.secrets]", f"[image.secrets]\nfrom = {FROM}"))
    judging = Judging(policies=("own",))
    with pytest.raises(RefusedError, match="weaker than the policy default"):
        require_may_publish((tmp_path,), judging, "own", FROM - DAY)
    require_may_publish((tmp_path,), judging, "own", FROM)


LIKELY = [HIGH, {"severity": "low", "epss": 0.5, "within": "0s"}]


@pytest.mark.parametrize(
    ("epss", "severity", "allowed"),
    [
        (0.5, Severity.LOW, False),
        (0.97, Severity.MEDIUM, False),
        (0.49, Severity.LOW, True),
        (None, Severity.LOW, True),
        (None, Severity.HIGH, False),
        (0.0, Severity.CRITICAL, False),
        (0.97, Severity.UNKNOWN, False),
        (None, Severity.UNKNOWN, False),
    ],
)
def test_a_window_by_epss_covers_what_is_as_likely_and_frees_nothing(epss, severity, allowed) -> None:
    """A score that is low or unknown takes nothing out of the windows by severity."""
    verdict = judged(policy(vulnerabilities=LIKELY), hole(severity, epss=epss))
    assert verdict.allowed is allowed
    assert ("EPSS score 0.97" in verdict.reasons[0].what) is (epss == 0.97)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"severity": st.sampled_from([*Severity])},
            optional={"exploited": st.booleans(), "epss": st.sampled_from([0.0, 0.1, 0.5, 1.0])},
        ),
        max_size=4,
    ),
    st.sampled_from([*Severity]),
    st.booleans(),
    st.sampled_from([None, 0.0, 0.05, 0.1, 0.7, 1.0]),
)
def test_a_score_never_frees_a_finding_from_a_window_without_one(windows, severity, exploited, epss) -> None:
    """Windows by score only ever add to those that there are without them."""
    every = policy(vulnerabilities=windows).image.vulnerabilities
    plain = tuple(window for window in every if window.epss is None)
    of = covering(every, severity, exploited=exploited, epss=epss)
    assert [window for window in of if window.epss is None] == covering(plain, severity, exploited=exploited)
    assert all(epss is not None and epss >= (window.epss or 0) for window in of if window.epss is not None)


def test_windows_by_epss_are_compared_with_the_floors() -> None:
    """Each by its score; and they alone are no window to publish by, for without a feed they cover nothing."""
    floor, without = policy(vulnerabilities=LIKELY), policy()
    assert weaknesses(floor, without) == ()
    told = weaknesses(without, floor)
    which = (
        "image.vulnerabilities: those of severity low with an EPSS score from 0.5, and the floor says enforce after 0s"
    )
    assert which in told
    milder = policy(vulnerabilities=[HIGH, {"severity": "low", "epss": 0.6, "within": "0s"}])
    assert weaknesses(milder, floor)
    assert weaknesses(policy(vulnerabilities=[HIGH, {"severity": "low", "epss": 0.4}]), floor) == ()
    only = policy(vulnerabilities=LIKELY[1:])
    assert [one.rule for one in judged(only).refusals] == ["policy-window"]


def test_the_highest_score_of_merged_findings_counts() -> None:
    """And none that is unknown lowers it."""
    scores = [merge([hole(epss=one), hole(epss=two)])[0].epss for one, two in ((0.1, 0.9), (None, 0.2), (None, None))]
    assert scores == [0.9, 0.2, None]


def waiver(expires: date, **change: Any) -> Waiver:
    data = {
        "id": "w", "vulnerabilities": ("CVE-2026-0001",), "packages": ("zlib1g",), "subjects": ("shop",),
        "reason": "r", "owner": "web", "approver": "security", "created": NOW.date() - 30 * DAY, "expires": expires,
    }  # fmt: skip
    return Waiver.model_validate({**data, **change})


def test_a_waiver_that_ends_tomorrow_passes_today_with_a_warning_and_refuses_a_day_later() -> None:
    """It works through its last day, and everybody hears of that for 14 days."""
    ends = waiver(NOW.date())
    today, tomorrow = (judged(policy(), hole(), now=NOW + days * DAY, waivers=(ends,)) for days in (0, 1))
    assert today.allowed
    [warning] = [one for one in today.reasons if one.rule == "waiver-ending"]
    assert (warning.enforcement, warning.waived_by) == (Enforcement.WARN, "")
    assert warning.what == "waiver w for CVE-2026-0001 ends on 2026-11-25"
    assert warning.todo == "web: fix what it covers, or have security approve a new end"
    assert not tomorrow.allowed
    assert [one.rule for one in tomorrow.refusals] == ["CVE-2026-0001"]
    assert "waiver-ended" in [one.rule for one in tomorrow.reasons]


@pytest.mark.parametrize(("days", "told"), [(0, 1), (14, 1), (15, 0), (-1, 0)])
def test_an_end_is_announced_for_two_weeks(days: int, told: int) -> None:
    """Of a waiver in force, about that image."""
    for subject, number in (("shop", told), ("bank", 0)):
        verdict = judged(policy(), waivers=(waiver(NOW.date() + days * DAY, subjects=(subject,)),))
        assert sum(one.rule == "waiver-ending" for one in verdict.reasons) == number


def test_a_control_counts_as_the_profile_asks_for_it_today() -> None:
    """One that it no longer lists does not; what a start showed is asked for by none."""
    of = {
        name: CheckResult(name, "t", Severity.HIGH, Enforcement.ENFORCE, Outcome.FAIL, "e")
        for name in ("kept", "gone", "container-starts")
    }
    asked = enforced_as(of.values(), {"kept": Enforcement.WARN, "new": Enforcement.ENFORCE})
    assert asked == (replace(of["kept"], enforcement=Enforcement.WARN), of["container-starts"])
