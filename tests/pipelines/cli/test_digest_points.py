"""What a digest tells of open points: each stage once, reminders in time, nothing as ended that was not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.findings import Repair, Side
from hardening.foundation.settings import ROOT
from hardening.foundation.telling import DigestSettings
from hardening.model import Enforcement, Severity
from images.ledger import ToldPoint
from pipelines.cli.digest_points import (
    OVERDUE,
    UNCHECKED,
    Automation,
    DigestStage,
    News,
    OpenPoints,
    OpenRollout,
    Point,
    news_for,
    points_of,
)
from pipelines.cli.digest_text import MOST_CHARACTERS, TargetDigest, as_html, as_text, grouped, subject_of
from pipelines.cli.open_points import OpenFix, open_points
from pipelines.fleet.judged_state import JudgedFleet, JudgedMember, JudgedState, ViolationLine
from pipelines.fleet.model import FleetKind
from pipelines.fleet.violations import PolicyState
from tests.support.fleets import NOW

DAY = timedelta(days=1)
PACE = DigestSettings(remind_after=7 * DAY, near=2 * DAY)
POINT = Point(
    "fleet shop web-1 expired", "shop", "expired", "web-1", "its image has expired", NOW - DAY, NOW + 30 * DAY,
    ("web team",), "web team", "./goldsmith roll.start shop",
)  # fmt: skip
Told = dict[str, ToldPoint]


def violation(rule: str = "expired", **more: Any) -> ViolationLine:
    made: dict[str, Any] = {
        "rule": rule, "enforcement": Enforcement.ENFORCE, "stands": True, "what": f"it is {rule}", "why": "so",
        "evidence": (), "since": NOW - DAY, "deadline": NOW + 9 * DAY, "repairs": (Repair.ROLL,), "todo": "roll it",
        "side": Side.BASE, "acts": "web team",
    }  # fmt: skip
    return ViolationLine(**made | more)


def member(name: str, *violations: ViolationLine, state: PolicyState = PolicyState.OUT) -> JudgedMember:
    return JudgedMember(
        fleet="shop", id=name, name=name, image="i", golden="nginx", release="r", on_base=False, since=NOW, state=state,
        healthy=True, superseded=False, deadline=None, violations=violations,
    )  # fmt: skip


def fleet(*members: JudgedMember, **more: Any) -> JudgedFleet:
    made: dict[str, Any] = {
        "name": "shop", "title": "t", "owner": "shop owner", "kind": FleetKind.DOCKER, "policy": "default",
        "checked_at": NOW, "members": members,
    }  # fmt: skip
    return JudgedFleet(**made | more)


def open_in(*fleets: JudgedFleet, **does: Automation) -> OpenPoints:
    return points_of((), JudgedState(made_at=NOW, fleets=fleets), does)


def tell(told: Told, points: Sequence[Point], now: Any = NOW, *, blind: Sequence[str] = ()) -> list[News]:
    """Tell a target, which takes it."""
    news, others = news_for("t", ("*",), OpenPoints(tuple(points), frozenset(blind)), told, now, PACE)
    for subject in (*others, *(one.point.subject for one in news)):
        told.pop(subject, None)
    told |= {one.kept.subject: one.kept for one in news if one.kept}
    return list(news)


def stages(news: Sequence[News]) -> list[str]:
    return [str(one.stage) for one in news]


FIX = OpenFix(
    kind="fleet", name="shop", vulnerability="CVE-1", package="openssl", since=NOW - DAY, due=NOW + DAY,
    waits_for="rollout", members=3, acts="web team", todo="roll", image="nginx", severity=Severity.HIGH,
    exploited=False,
)  # fmt: skip
VULNERABLE = JudgedState(made_at=NOW, fleets=(fleet(member("web-1", violation("vulnerable"))),))


# -- what is open ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reasons", "rules"),
    [
        (["CVE-1 in openssl 3.5: severity high"], ["fix"]),
        (["CVE-1 in openssl 3.5: severity high", "no-setuid: /usr/bin/env"], ["fix", "refused"]),
        (["CVE-2 in openssl 3.5: severity high"], ["fix", "refused"]),
        ([], ["fix", "refused"]),
    ],
)
def test_an_image_that_is_refused_for_open_fixes_alone_adds_no_point(reasons: list[str], rules: list[str]) -> None:
    """One row for one vulnerability, also when its time is over."""
    refused = violation("refused", evidence=tuple(reasons))
    state = JudgedState(made_at=NOW, fleets=(fleet(member("web-1", refused)),))
    assert [one.rule for one in open_points([FIX], state)] == rules


def test_each_rule_that_a_member_breaks_is_a_point_of_who_acts_and_of_the_fleets_owner() -> None:
    """What is waived or only recorded is none."""
    waived = violation("root-user", stands=False)
    found = open_in(fleet(member("web-1", violation(), waived), member("web-2", violation("privileged"))))
    assert [one.subject for one in found.points] == ["fleet shop web-1 expired", "fleet shop web-2 privileged"]
    assert found.points[0].owners == ("web team", "shop owner")
    assert found.blind == frozenset()


@pytest.mark.parametrize(
    ("checked", "said"),
    [(None, "never checked"), (NOW - 3 * DAY, "last checked on 2026-02-26"), (NOW, "found no member")],
)
def test_a_fleet_that_was_not_checked_lately_is_a_point_and_nothing_there_ends(checked: Any, said: str) -> None:
    """Unread is never compliant."""
    found = open_in(fleet(checked_at=checked))
    assert [(one.rule, said in one.what) for one in found.points] == [(UNCHECKED, True)]
    assert found.blind == {"shop"}


def test_where_a_place_is_unread_nothing_of_the_fleet_has_ended() -> None:
    """A member that is not listed may only not have been seen."""
    told: Told = {}
    tell(told, open_in(fleet(member("web-1", violation()))).points)
    unread = open_in(fleet(member("eu-central-1/*", violation("unread"), state=PolicyState.UNREAD)))
    assert unread.blind == {"shop"}
    assert stages(tell(told, unread.points, blind=tuple(unread.blind))) == ["mark"]
    read = open_in(fleet(member("web-2", state=PolicyState.WITHIN)))
    assert sorted(stages(tell(told, read.points))) == ["ended", "ended"]


def test_of_a_member_whose_running_could_not_be_read_nothing_has_ended() -> None:
    """Also where its image breaks a rule, so that it counts as out of policy and not as unread."""
    told: Told = {}
    tell(told, open_in(fleet(member("web-1", violation("privileged"), violation()))).points)
    half = open_in(fleet(member("web-1", violation("unread"), violation())))
    assert half.blind == {"shop"}
    assert "ended" not in stages(tell(told, half.points, blind=tuple(half.blind)))
    recorded = open_in(fleet(member("web-1", violation("unread", stands=False))))
    assert recorded.blind == {"shop"}


def test_a_check_that_a_wrong_clock_dated_is_none() -> None:
    """Else the fleet would count as freshly checked until that day comes."""
    found = open_in(fleet(checked_at=NOW + 400 * DAY))
    assert ([one.rule for one in found.points], found.blind) == ([UNCHECKED], {"shop"})
    near = open_in(fleet(member("web-1", state=PolicyState.WITHIN), checked_at=NOW + timedelta(minutes=5)))
    assert (near.points, near.blind) == ((), frozenset())


def test_what_a_wrong_clock_has_told_is_told_again_by_the_right_one_once() -> None:
    """Otherwise there would be no reminder until that day."""
    told: Told = {}
    assert stages(tell(told, [POINT], NOW + 400 * DAY)) == ["act"]
    point = replace(POINT, due=NOW + 30 * DAY)
    assert [stages(tell(told, [point], NOW + hours * timedelta(hours=1))) for hours in (0, 1)] == [["remind"], []]
    assert stages(tell(told, [point], NOW + 7 * DAY)) == ["remind"]


def test_a_members_rule_that_is_now_told_by_its_vulnerabilities_has_not_ended() -> None:
    """It is the same hole under another name."""
    told: Told = {}
    tell(told, points_of([], VULNERABLE, {}).points)
    news, others = news_for("t", ("*",), points_of([FIX], VULNERABLE, {}), told, NOW, PACE)
    assert (stages(news), others) == (["mark"], tuple(told))


def test_of_a_fleet_whose_file_is_gone_nobody_knows_whether_it_ended() -> None:
    """A content root that is not there any more has no files, and that is not an error."""
    told: Told = {}
    tell(told, open_in(fleet(member("web-1", violation()))).points)
    news, _ = news_for("t", ("*",), open_in(), told, NOW, PACE)
    assert [one.point.what for one in news] == [
        "no file names this fleet any more, so it is not checked: it is expired"
    ]


def test_a_vulnerability_is_told_by_its_own_name_and_not_again_by_the_members_rule() -> None:
    """So a second one of the same package is new."""
    told: Told = {}
    first = points_of([FIX], VULNERABLE, {})
    assert [point.one for point in first.points] == ["CVE-1"]
    tell(told, first.points)
    second = points_of([FIX, FIX.model_copy(update={"vulnerability": "CVE-2"})], VULNERABLE, {})
    assert [news.point.one for news in tell(told, second.points)] == ["CVE-2"]


def test_what_goldsmith_does_is_told_of_those_that_a_new_instance_mends() -> None:
    """A rollout of theirs, or what comes next; of what only its host mends nothing."""
    rolls = Automation("it comes at night", (OpenRollout("shop-1", "wave 1 of 2", frozenset({"web-1"})),))
    hosts = violation("privileged", repairs=(Repair.CONFIGURE,))
    found = open_in(fleet(member("web-1", violation(), hosts), member("web-2", violation())), shop=rolls)
    assert [(one.one, one.rule, one.act, one.doing) for one in found.points] == [
        ("web-1", "expired", "shop-1", "shop-1 rolls it now: wave 1 of 2"),
        ("web-1", "privileged", "", ""),
        ("web-2", "expired", "", "it comes at night"),
    ]
    assert [one.explain for one in found.points] == ["", "", "shop/web-2"], "a plan may leave it alone"
    told: Told = {}
    for day, asked in ((NOW, False), (NOW + 8 * DAY, True)):
        (line,) = [one.text for one in digest(tell(told, found.points[-1:], day)).lines]
        assert line.endswith("it comes at night; what keeps it: ./goldsmith fleet.explain shop/web-2") == asked


def test_who_is_of_unknown_origin_is_taken_over_by_a_person() -> None:
    """No plan rolls it by itself: what to type names `--adopt`, unless a rollout has it in hand already."""
    todo = "`./goldsmith roll.plan shop --adopt web-2`"
    rolls = Automation("it comes at night", (OpenRollout("shop-1", "wave 1 of 2", frozenset({"web-1"})),))
    unknown = violation("unknown", todo=todo)
    found = open_in(fleet(member("web-1", unknown), member("web-2", unknown)), shop=rolls)
    assert [(one.one, one.doing, one.todo) for one in found.points] == [
        ("web-1", "shop-1 rolls it now: wave 1 of 2", todo), ("web-2", "", todo),
    ]  # fmt: skip


def test_groups_that_a_service_rolls_have_members_that_no_plan_names() -> None:
    """So all of the fleet is being rolled."""
    rolls = Automation("", (OpenRollout("shop-1", "wave 1 of 1", everyone=True),))
    assert open_in(fleet(member("i-1", violation())), shop=rolls).points[0].act == "shop-1"


# -- what is told of it, and when --------------------------------------------------------------------------------------


def test_a_point_is_marked_then_reminded_of_then_acted_on_then_ended_each_once() -> None:
    """The whole life of a violation, asked every day."""
    told: Told = {}
    life = {}
    for day in range(36):
        now = NOW + day * DAY
        act = "shop-1" if 32 <= day < 34 else ""
        points = [replace(POINT, act=act)] if day < 35 else []
        if said := stages(tell(told, points, now)):
            life[day] = said
    reminded = {day: ["remind"] for day in (7, 14, 21, 28)}
    assert life == {0: ["mark"], **reminded, 30: ["act"], 32: ["act"], 35: ["ended"]}
    assert told == {}


def test_shortly_before_its_deadline_a_point_is_told_once_more() -> None:
    """And not where it was told after that moment, or where the reminder has said so."""
    told: Told = {}
    point = replace(POINT, due=NOW + 5 * DAY)
    assert stages(tell(told, [point])) == ["mark"]
    assert stages(tell(told, [point], NOW + 2 * DAY)) == []
    assert stages(tell(told, [point], NOW + 3 * DAY)) == ["remind"]
    assert stages(tell(told, [point], NOW + 4 * DAY)) == []
    assert stages(tell(told, [point], NOW + 5 * DAY)) == ["act"]


def test_a_deadline_that_moves_nearer_is_told() -> None:
    """As when a hole is found to be exploited: what was said of it before was of another day."""
    told: Told = {}
    assert stages(tell(told, [POINT], NOW)) == ["mark"]
    assert stages(tell(told, [replace(POINT, due=NOW + 2 * DAY)], NOW + DAY)) == ["remind"]
    assert stages(tell(told, [replace(POINT, due=NOW + 2 * DAY)], NOW + 1.5 * DAY)) == []


def test_what_is_overdue_as_it_is_found_is_told_as_that_at_once() -> None:
    """And what is being rolled."""
    assert stages(tell({}, [replace(POINT, due=NOW)])) == ["act"]
    assert stages(tell({}, [replace(POINT, act="shop-1")])) == ["act"]


def test_a_second_rollout_is_news_and_the_first_that_failed_is_not_told_again() -> None:
    """Each act once, in whatever order they come back."""
    told: Told = {}
    for act, said in (("shop-1", ["act"]), ("", []), ("shop-2", ["act"]), ("shop-1", []), ("shop-2", [])):
        assert stages(tell(told, [replace(POINT, act=act)])) == said


def test_a_channel_hears_of_its_own_points_alone_and_forgets_what_becomes_anothers() -> None:
    """A change of owner does not end a violation."""
    other = replace(POINT, subject="fleet bank b-1 expired", owners=("bank",))
    found = OpenPoints((POINT, other))
    news, _ = news_for("t", ("web*",), found, {}, NOW, PACE)
    assert [one.point for one in news] == [POINT]
    told = {one.kept.subject: one.kept for one in news if one.kept}
    assert news_for("t", ("bank",), found, told, NOW, PACE)[1] == (POINT.subject,)
    assert [one.stage for one in news_for("t", ("bank",), found, told, NOW, PACE)[0]] == [DigestStage.MARK]


days = st.integers(0, 60)
lives = st.lists(
    st.tuples(st.booleans(), st.integers(-2, 40), st.sampled_from(["", "r1", "r2"]), st.booleans()), max_size=50
)


@given(lives)
def test_whatever_happens_no_open_point_stays_untold_and_none_is_told_the_same_twice(life: list[Any]) -> None:
    """A day each: open or not, due in so many days, rolled by what, readable or not."""
    told: Told = {}
    since_mark: list[tuple[int, str, str]] = []
    for day, (is_open, due, act, readable) in enumerate(life):
        now = NOW + day * DAY
        point = replace(POINT, due=NOW + due * DAY, act=act)
        before = told.get(POINT.subject)
        news = tell(told, [point] if is_open else [], now, blind=() if readable else ("shop",))
        assert len(news) <= 1
        stage = str(news[0].stage) if news else ""
        if is_open:
            assert POINT.subject in told, "it was told, now or before"
            assert (before is None) <= (stage in ("mark", "act"))
            assert now - told[POINT.subject].told_at < PACE.remind_after
        elif before and readable:
            assert (stage, told) == ("ended", {})
        elif before:
            assert (stage, told) == ("", {POINT.subject: before}), "unread is not ended"
        if stage == "ended":
            since_mark = []
        elif stage:
            doing = act or (OVERDUE if point.due and point.due <= now else "")
            since_mark.append((day, stage, doing if stage == "act" else ""))
    acts = [doing for _, stage, doing in since_mark if stage == "act"]
    assert len(acts) == len(set(acts)), "each act once"
    assert [stage for _, stage, _ in since_mark].count("mark") <= 1


# -- the words ---------------------------------------------------------------------------------------------------------


def digest(news: Sequence[News], channel: str = "web") -> TargetDigest:
    lines = tuple(line for line, _ in grouped(news, NOW))
    return TargetDigest(
        channel=channel, target="t", outcome="sent", subject=subject_of(channel, news), lines=lines, left_out=0
    )


def test_members_that_lack_the_same_are_one_line() -> None:
    """By stage and by who acts; the first due decides its place."""
    points = [replace(POINT, subject=f"fleet shop web-{number} expired", one=f"web-{number}") for number in range(6)]
    points.append(replace(POINT, subject="x", one="web-9", due=NOW - DAY, rule="revoked", what="it is revoked"))
    said = digest(tell({}, points))
    assert [line.text for line in said.lines] == [
        "shop: web-9: it is revoked; overdue since 2026-02-28 12:00 UTC; web team: ./goldsmith roll.start shop",
        "shop: web-0, web-1, web-2 and 3 more: its image has expired; open for 1d; due 2026-03-31, in 30d; "
        "web team: ./goldsmith roll.start shop",
    ]
    assert said.subject == "Goldsmith, web: 1 acted on or overdue, 6 new"


def test_strangers_text_becomes_no_line_of_ours_no_markup_and_has_an_end() -> None:
    """A member's name with line breaks, invisible letters and HTML."""
    name = "web\r\nBcc: x@example.com\u202e<script>alert(1)</script>" + "x" * 5000
    said = digest(tell({}, [replace(POINT, one=name, what=name)]))
    (line,) = said.lines
    assert len(line.text) <= MOST_CHARACTERS
    text, html = as_text(said), as_html(said)
    assert "\nBcc" not in text
    assert "\u202e" not in text + html
    assert "<script" not in html
    assert "Bcc" not in said.subject


def test_one_vulnerability_is_one_line_for_its_image_and_all_fleets_that_run_it() -> None:
    """With its severity, its packages, how many members lack the fix, and each who acts."""
    bank = FIX.model_copy(update={"name": "bank", "members": 1, "acts": "bank team", "todo": "roll bank"})
    image = FIX.model_copy(update={"kind": "image", "name": "nginx", "members": 0, "todo": "promote"})
    fixes = [image, FIX, bank, *(one.model_copy(update={"package": "libssl"}) for one in (image, FIX, bank))]
    found = points_of(fixes, JudgedState(made_at=NOW, fleets=()), {})
    [(line, told)] = grouped(tell({}, found.points), NOW)
    assert (line.place, line.names, len(told)) == ("nginx", ("CVE-1",), 6)
    assert line.text == (
        "nginx: CVE-1 in libssl, openssl (high): the fix is missing, in 4 member(s) of bank, shop; open for 1d; "
        "due 2026-03-02 12:00 UTC, in 1d; bank team: roll bank; web team: roll; web team: promote"
    )


def test_a_fix_that_a_waiver_accepts_ends_with_the_name_of_the_waiver() -> None:
    """It is not open any more, and not fixed either."""
    told: Told = {}
    tell(told, points_of([FIX], JudgedState(made_at=NOW, fleets=()), {}).points)
    waived = points_of(
        [FIX.model_copy(update={"waived_by": "w-1 until 2026-03-31: not reached"})],
        JudgedState(made_at=NOW, fleets=()), {},
    )  # fmt: skip
    assert waived.points == ()
    [one] = news_for("t", ("*",), waived, told, NOW + DAY, PACE)[0]
    assert (one.stage, one.point.what) == (
        "ended", "waived by w-1 until 2026-03-31: not reached: openssl lacks a fix"
    )  # fmt: skip


def test_what_was_fixed_and_what_is_waived_of_one_package_are_two_lines() -> None:
    """Each says why its vulnerability has ended."""
    other = FIX.model_copy(update={"vulnerability": "CVE-2"})
    told: Told = {}
    nothing = JudgedState(made_at=NOW, fleets=())
    tell(told, points_of([FIX, other], nothing, {}).points)
    waived = points_of([FIX.model_copy(update={"waived_by": "w-1 until 2026-03-31: not reached"})], nothing, {})
    news = news_for("t", ("*",), waived, told, NOW + DAY, PACE)[0]
    assert {line.names: "waived" in line.text for line, _ in grouped(news, NOW + DAY)} == {
        ("CVE-1",): True, ("CVE-2",): False,
    }  # fmt: skip


@pytest.mark.parametrize("severity", [Severity.HIGH, Severity.CRITICAL])
def test_vulnerabilities_of_one_package_share_a_line_by_severity(severity: Severity) -> None:
    """A critical one is not hidden in the line of one that is less severe."""
    other = FIX.model_copy(update={"vulnerability": "CVE-2", "severity": severity})
    found = points_of([FIX, other], JudgedState(made_at=NOW, fleets=()), {})
    lines = [(line.names, f"({severity})" in line.text) for line, _ in grouped(tell({}, found.points), NOW)]
    assert sorted(lines) == (
        [(("CVE-1", "CVE-2"), True)] if severity is FIX.severity else [(("CVE-1",), False), (("CVE-2",), True)]
    )


def test_what_has_ended_says_after_how_long() -> None:
    """From when it was told first."""
    told: Told = {}
    tell(told, [POINT])
    news = tell(told, [], NOW + 3 * DAY)
    (line, _), *_ = grouped(news, NOW + 3 * DAY)
    assert line.text == "shop: web-1: its image has expired; ended after 3d"


def test_the_digest_of_the_documentation_is_what_would_be_sent() -> None:
    """Line by line, as docs/notifications.md shows it."""
    night, rolled = "the next night plans its replacement", "shop-1 rolls it now: wave 1 of 2: replacing members"
    shop = replace(POINT, todo="")
    open_now = [
        replace(shop, subject="1", rule="revoked", one="web-9", what="it is revoked", due=NOW - DAY, doing=night,
                explain="shop/web-9"),
        *(
            replace(shop, subject=one, one=one, due=NOW + 9 * DAY, act="shop-1", doing=rolled)
            for one in ("web-1", "web-2")
        ),
        *(
            replace(
                shop, subject=cve, place="bank", rule="openssl", one=cve, what="openssl lacks a fix", acts="bank",
                since=NOW - timedelta(hours=3), due=NOW + DAY, image="debian-base", severity="high", members=3,
                doing="it waits for an approval (bank: ./goldsmith roll.plan bank)",
            )
            for cve in ("CVE-2026-0001", "CVE-2026-0002")
        ),
        replace(
            shop, subject="2", rule="privileged", one="web-4", what="it is privileged", since=NOW - 8 * DAY,
            due=NOW + 30 * DAY, acts="whoever runs its host", todo="change how it is started",
        ),
    ]  # fmt: skip
    told: Told = {}
    tell(told, [open_now[-1]], NOW - 8 * DAY)
    tell(told, [open_now[-1], replace(shop, subject="3", one="web-7")], NOW - 7 * DAY)
    told["3"] = replace(told["3"], marked_at=NOW - 3 * DAY)
    told["2"] = replace(told["2"], told_at=NOW - 8 * DAY)
    said = as_text(digest(tell(told, open_now)))
    assert f"```text\n{said}```\n" in (ROOT / "docs/notifications.md").read_text()
