"""Whether enough scanners evaluated an image, on data that is fresh enough, and what is said where they did not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hardening.evaluation import counts, engine, judges, outdated, reproduced, unread, why_not
from hardening.findings import FindingKind, Outcome, Reason, ScanReport
from hardening.model import Enforcement
from hardening.policy import Judges, Reproduced

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
RULE = Judges(enforcement=Enforcement.WARN, minimum=2)
LOOKED = ScanReport("trivy", FindingKind.VULNERABILITY, Outcome.PASS, 1, NOW, "feed", "")
FEEDS = (
    "set feeds.debsecan (or feeds.trivy) in goldsmith.toml to an address that this machine reaches (HTTPS_PROXY "
    "counts) or a directory with current data (docs/feeds.md), "
    "or GOLDSMITH_FEEDS__DEBSECAN in the environment, and run again"
)
DOCTOR = "; ./goldsmith doctor shows which scanners are missing"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"outcome": Outcome.FAIL}, ""),
        ({"outcome": Outcome.ERROR}, "it evaluated nothing"),
        ({"outcome": Outcome.ERROR, "reason": "crashed"}, "crashed"),
        ({"evaluated": 0}, "it evaluated nothing"),
        ({"sample": True}, "judged by the feed, which this policy does not accept"),
        ({"data_date": None}, "the date of its data is unknown (feed)"),
        ({"data_date": NOW - 7 * DAY}, ""),
        ({"data_date": NOW - 7 * DAY - SECOND}, "its data is of 2026-11-18, 7 days old; the policy accepts 7d"),
        ({"data_date": NOW + DAY}, ""),
        ({"data_date": NOW + DAY + SECOND}, "its data is dated 2026-11-26, in the future"),
    ],
)
def test_a_report_counts_to_the_second_of_its_data(change: dict[str, object], why: str) -> None:
    """A clock that is a day ahead is forgiven."""
    report = replace(LOOKED, **change)  # type: ignore[arg-type]
    assert why_not(RULE, report, NOW) == why
    assert counts(RULE, report, NOW) is not bool(why)
    assert not counts(RULE, replace(report, kind=FindingKind.SECRET), NOW)


def test_the_sample_counts_whatever_its_date_where_the_policy_accepts_it() -> None:
    """It is for trying out."""
    old = replace(LOOKED, sample=True, data_date=NOW - 999 * DAY)
    assert why_not(Judges(accept_sample=True), old, NOW) == ""


@pytest.mark.parametrize(("scanner", "name"), [("trivy", "trivy"), ("trivy-disk", "trivy"), ("a-b-c", "a")])
def test_two_forms_of_one_engine_are_one_judge(scanner: str, name: str) -> None:
    """On the same data they have one opinion."""
    assert engine(replace(LOOKED, scanner=scanner)) == name


def test_too_few_judges_are_told_with_why_each_one_does_not_count() -> None:
    """As the policy says where there is one; where there is none, it refuses, whatever the policy says."""
    broken = replace(LOOKED, scanner="debsecan", outcome=Outcome.ERROR, reason="crashed")
    old = replace(LOOKED, scanner="grype", data_date=None)
    secret = replace(broken, scanner="secrets", kind=FindingKind.SECRET)
    told = Reason(
        rule="judges",
        subject="web",
        enforcement=Enforcement.WARN,
        what="1 of at least 2 vulnerability scanners judged this image (debsecan: crashed; grype: the date of its data "
        "is unknown (feed))",
        why="an image that nobody judged looks exactly like an image without vulnerabilities",
        todo=f"{FEEDS}{DOCTOR}",
    )
    assert list(judges(RULE, "web", [broken, LOOKED, old, secret], NOW)) == [told]
    both = replace(LOOKED, scanner="trivy-disk")
    assert list(judges(RULE, "web", [LOOKED, both], NOW)) == [
        replace(told, what="1 of at least 2 vulnerability scanners judged this image (none ran)")
    ]
    nothing = "nothing was evaluated: 0 of at least 2 vulnerability scanners judged this image"
    assert list(judges(RULE, "web", [broken], NOW)) == [
        replace(told, enforcement=Enforcement.ENFORCE, what=f"{nothing} (debsecan: crashed)")
    ]
    assert list(judges(RULE, "web", [], NOW)) == [
        replace(told, enforcement=Enforcement.ENFORCE, what=f"{nothing} (none ran)")
    ]
    assert list(judges(RULE, "web", [LOOKED, replace(LOOKED, scanner="grype")], NOW)) == []


def test_two_programs_that_read_the_same_data_are_one_judge() -> None:
    """Debsecan and our matcher both repeat Debian's security tracker; each alone is a judge as well."""
    debsecan, matcher = (replace(LOOKED, scanner=name) for name in ("debsecan", "matcher"))
    [reason] = judges(RULE, "web", [debsecan, matcher], NOW)
    assert reason.what.startswith("1 of at least 2 ")
    assert reason.what.endswith("; debsecan and matcher count as one: both read Debian's security tracker)")
    assert list(judges(RULE, "web", [LOOKED, matcher], NOW)) == []
    assert list(unread(RULE, "web", [replace(debsecan, outcome=Outcome.ERROR), matcher], NOW)) == []


def test_scanners_that_are_silent_for_one_reason_are_told_together() -> None:
    """An engine that looks at two forms of an image lacks the same data for both."""
    one, disk = (
        replace(LOOKED, scanner=name, outcome=Outcome.ERROR, reason="no data") for name in ("trivy", "trivy-disk")
    )
    [reason] = judges(RULE, "web", [one, disk, replace(one, scanner="debsecan", reason="crashed")], NOW)
    assert reason.what.endswith("(trivy, trivy-disk: no data; debsecan: crashed)")


def test_who_has_only_the_sample_is_told_how_to_try_without_a_feed() -> None:
    """And how to get one."""
    [reason] = judges(RULE, "web", [replace(LOOKED, sample=True)], NOW)
    trial = (
        "; to try Goldsmith without a feed, add --policy demo, which accepts the sample that ships and publishes where "
        "[judging] lets it (README.md, Settings)"
    )
    assert reason.todo == f"{FEEDS}{trial}{DOCTOR}"


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.NOT_EVALUATED])
def test_a_form_of_the_image_that_its_judge_could_not_read_is_told(outcome: Outcome) -> None:
    """By the rule for judges; another engine's silence is told elsewhere."""
    disk = replace(LOOKED, scanner="trivy-disk", outcome=outcome, reason="no partition")
    told = Reason(
        rule="trivy-disk-evaluated",
        subject="web",
        enforcement=Enforcement.WARN,
        what="trivy-disk did not evaluate this image, though trivy did: no partition",
        why="what ships is not known to be what was judged",
        todo="run `./goldsmith image.scan web`, and see what trivy-disk says of it",
    )
    assert list(unread(RULE, "web", [LOOKED, disk], NOW)) == [told]
    for reports in (
        [disk],
        [LOOKED, replace(disk, scanner="grype")],
        [LOOKED, replace(disk, kind=FindingKind.SECRET)],
        [LOOKED, replace(disk, outcome=Outcome.FAIL)],
        [replace(LOOKED, data_date=None), disk],
    ):
        assert list(unread(RULE, "web", reports, NOW)) == []


def test_an_old_list_of_what_is_exploited_is_a_warning() -> None:
    """With what to do: about a feed that is away, or about its age."""
    kev = replace(LOOKED, scanner="kev", kind=FindingKind.EXPLOITATION, data_date=NOW - 8 * DAY, data_source="kev.json")
    told = Reason(
        rule="kev-evaluated",
        subject="web",
        enforcement=Enforcement.WARN,
        what="the list of exploited vulnerabilities (kev.json): its data is of 2026-11-17, 8 days old; the policy "
        "accepts 7d",
        why="what began to be exploited since then counts as not exploited",
        todo="bring feeds.kev up to date",
    )
    assert list(outdated(RULE, "web", [LOOKED, kev], NOW)) == [told]
    assert list(outdated(RULE, "web", [replace(kev, reason="the feed is away")], NOW)) == [
        replace(told, todo="let this machine reach it, or set feeds.kev to a copy (docs/feeds.md)")
    ]
    assert list(outdated(RULE, "web", [replace(kev, data_date=NOW), replace(LOOKED, data_date=None)], NOW)) == []


def test_estimates_that_are_missing_are_a_warning_where_a_window_asks_for_them() -> None:
    """Else such a window would cover nothing, and nobody would know."""
    epss = replace(
        LOOKED, scanner="epss", kind=FindingKind.EXPLOITATION, outcome=Outcome.NOT_EVALUATED, data_date=None,
        data_source="epss.csv", reason="no answer",
    )  # fmt: skip
    [told] = outdated(RULE, "web", [epss], NOW, by_likelihood=True)
    away = "let this machine reach it, or set feeds.epss to a copy (docs/feeds.md)"
    assert (told.rule, told.enforcement, told.todo) == ("epss-evaluated", Enforcement.WARN, away)
    assert told.what == "the estimates of what will be exploited (epss.csv): no answer"
    assert list(outdated(RULE, "web", [epss], NOW)) == []
    [silent] = outdated(RULE, "web", [LOOKED], NOW, by_likelihood=True)
    assert (silent.rule, silent.enforcement, silent.todo) == ("epss-evaluated", Enforcement.WARN, "set feeds.epss")
    assert list(outdated(RULE, "web", [LOOKED], NOW)) == []


REBUILT = ScanReport("reproduced", FindingKind.REPRODUCTION, Outcome.PASS, 80, NOW, "feed", "", reproduced=60)


@pytest.mark.parametrize(
    ("report", "least", "what"),
    [
        (REBUILT, 75, ""),
        (REBUILT, 75.1, "75.0 % of the packages were reproduced (60 of 80); the policy requires 75.1 %"),
        (replace(REBUILT, reproduced=0), 1, "0.0 % of the packages were reproduced (0 of 80); the policy requires 1 %"),
        (
            replace(REBUILT, data_date=NOW - 8 * DAY), 0,
            "it is not known how many packages were reproduced: its data is of 2026-11-17, 8 days old; the policy "
            "accepts 7d",
        ),
        (
            replace(REBUILT, outcome=Outcome.NOT_EVALUATED, evaluated=0, reason="no answer", reproduced=None), 0,
            "it is not known how many packages were reproduced: no answer",
        ),
        (None, 0, "it is not known how many packages were reproduced: feeds.reproduced is not set"),
    ],
)  # fmt: skip
def test_a_policy_may_ask_how_many_packages_others_reproduced(
    report: ScanReport | None, least: float, what: str
) -> None:
    """What nobody told is not enough, even where the policy requires nothing but to be told."""
    rule = Reproduced(minimum_percent=least)
    reasons = list(reproduced(rule, RULE, "web", [report] if report else [], NOW))
    assert [reason.what for reason in reasons] == ([what] if what else [])
    name = "reproduced-evaluated" if what.startswith("it is not known") else "reproduced"
    assert all((reason.rule, reason.enforcement) == (name, Enforcement.AUDIT) for reason in reasons)
    assert not list(reproduced(None, RULE, "web", [], NOW))
