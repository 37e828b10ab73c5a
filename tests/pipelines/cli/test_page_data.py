"""What the report's page is made of: the four questions, history, releases, rows; strangers' text stays text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from hardening.foundation.durations import in_short
from hardening.model import Severity
from images.ledger import FleetDay, Ledger, MemberRun
from pipelines.cli import blast_radius
from pipelines.cli.blast_radius import record_radius, recorded_radius, svg_of
from pipelines.cli.charts import bars, graph
from pipelines.cli.member_rows import member_rows
from pipelines.cli.open_points import OpenFix, open_points
from pipelines.cli.page import MOST_BARS, charts_of, content_policy, render_html, with_commands
from pipelines.cli.report import gather_all
from pipelines.cli.report_history import AGES, UNKNOWN, by_age, by_day, by_week
from pipelines.cli.report_output import ReportOutput
from pipelines.fleet.judged_state import JudgedState
from tests.support.fleets import release
from tests.support.watched import DAY, NOW, watched

HOSTILE = "</script><script>alert(1)</script><!-- &lt; \u202e \u2028"
MEMBERS = 40


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportOutput, JudgedState]:
    """Two fleets that have run for weeks, as the page gathers them."""
    return gather_all(watched(tmp_path_factory.mktemp("watched"), MEMBERS))


def test_the_four_questions_are_answered_by_fleet_and_rule(found: tuple[ReportOutput, JudgedState]) -> None:
    """Members that lack the same are one point, due first first, each with who acts."""
    points = found[0].open_points
    assert [point.due for point in points if point.due] == sorted(point.due for point in points if point.due)
    expired = next(one for one in points if (one.name, one.rule) == ("shop", "expired"))
    assert (expired.members, expired.acts, expired.todo) == (2, "web team", "./goldsmith roll.start shop")
    assert (expired.since, expired.due) == (NOW - 10 * DAY, NOW + 4 * DAY)
    privileged = next(one for one in points if (one.name, one.rule) == ("warehouse", "privileged"))
    assert (privileged.acts, privileged.members) == ("whoever runs its host", 2)
    assert not [one for one in points if one.rule == "root-user"], "what is only recorded is no open point"
    text = render_html(*found)
    broken = sum(point.rule != "fix" for point in points)
    for word in ("What lacks a fix?", "Since when?", "Due when?", "Who acts?", "web team", f", {broken} broken rules<"):
        assert word in text


def test_a_fleet_that_was_checked_after_the_pages_moment_has_no_age(found: tuple[ReportOutput, JudgedState]) -> None:
    """Such as by the night that ends with the page, which is as of its beginning."""
    checked = re.compile(r"checked [0-9: -]+ UTC(, [^<]*)?</span>")
    assert set(checked.findall(render_html(*found))) == {", 3h ago"}
    earlier = found[0].model_copy(update={"made_at": NOW - DAY})
    assert set(checked.findall(render_html(earlier, found[1]))) == {""}
    assert [in_short(span) for span in (-timedelta(seconds=119), timedelta(), 2 * DAY)] == ["-1m 59s", "0s", "2d"]


def fix(**changed: object) -> OpenFix:
    made = OpenFix(
        kind="fleet", name="shop", vulnerability="CVE-1", package="openssl", image="nginx", severity=Severity.HIGH,
        exploited=False, since=NOW - DAY, due=NOW + DAY, waits_for="rollout", members=2, acts="web team",
        todo="./goldsmith roll.start shop",
    )  # fmt: skip
    return made.model_copy(update=changed)


def test_one_vulnerability_is_one_row_for_all_images_fleets_and_packages() -> None:
    """By the image that brings it in, with the earliest dates and each who acts; another vulnerability is another."""
    bank = {"name": "bank", "members": 1, "acts": "bank", "todo": "./goldsmith roll.start bank"}
    publish = {
        "kind": "image",
        "members": 0,
        "acts": "platform",
        "due": None,
        "todo": "./goldsmith image.publish nginx",
    }
    fixes = [
        fix(), fix(package="libssl3t64"), fix(**bank, since=NOW - 2 * DAY), fix(**publish, name="nginx"),
        fix(**publish, name="debian-base", image="debian-base"), fix(vulnerability="CVE-2", exploited=True),
        fix(vulnerability="CVE-3", waived_by="w-1 until 2026-12-24: not reached"),
    ]  # fmt: skip
    parents = {"nginx": "debian-base", "debian-base": None}
    first, *others = sorted(
        open_points(fixes, JudgedState(made_at=NOW, fleets=()), parents), key=lambda one: one.vulnerability
    )
    assert (first.name, first.images, first.packages) == (
        "debian-base", ("debian-base", "nginx"), ("libssl3t64", "openssl")
    )  # fmt: skip
    assert (first.members, first.fleets, first.severity) == (3, ("bank", "shop"), "high")
    assert (first.since, first.due) == (NOW - 2 * DAY, NOW + DAY)
    assert [(one.acts, one.todo.rpartition(" ")[2]) for one in first.steps] == [
        ("bank", "bank"), ("web team", "shop"), ("platform", "nginx")
    ]  # fmt: skip
    assert [(one.name, one.exploited, one.waived_by[:3]) for one in others] == [
        ("nginx", True, ""), ("nginx", False, "w-1")
    ]  # fmt: skip


def test_the_row_of_a_vulnerability_names_its_severity_and_commands_that_do_not_break(
    found: tuple[ReportOutput, JudgedState],
) -> None:
    """Waived ones stand apart, with the waiver's end and without a deadline, and no number counts them."""
    several = [fix(), fix(name="bank", members=1, acts="bank & sons", todo="./goldsmith roll.start bank")]
    points = open_points(several, JudgedState(made_at=NOW, fleets=()))
    waived = open_points([fix(waived_by="w-1 until 2026-12-24: not reached")], JudgedState(made_at=NOW, fleets=()))
    text = render_html(found[0].model_copy(update={"open_points": points, "waived_points": waived}))
    (row,) = re.findall(r"<tr><td><b>CVE-1</b>.*?</tr>", text.partition("1 waived fix, in no number above")[0], re.S)
    for part in ("openssl", ">high</span>", "nginx", "3 members in 2 fleets", "2026-11-26 12:00", "bank &amp; sons",
                 '<span class="command"><code>./goldsmith roll.start shop</code></span>'):  # fmt: skip
        assert part in row
    assert "1 with an open fix, 0 broken rules" in text
    apart = text.partition("1 waived fix, in no number above")[2].partition("</table>")[0]
    assert '<span class="badge small soft">waived until 2026-12-24</span><br>by w-1' in apart
    assert "2026-11-26" not in apart
    assert "./goldsmith" not in apart


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("./goldsmith image.publish nginx says why, and releases it", ["./goldsmith image.publish nginx"]),
        ("./goldsmith fleet.check shop, then ./goldsmith roll.plan shop.",
         ["./goldsmith fleet.check shop", "./goldsmith roll.plan shop"]),
        ("./goldsmith doctor tells what", ["./goldsmith doctor"]),
        ("./goldsmith lint --content lists everything", ["./goldsmith lint --content"]),
        ('./goldsmith image.lock all --now --reason "a b" pins', ['./goldsmith image.lock all --now --reason "a b"']),
        ("rebuild (`./goldsmith image.build a b` takes it)", ["./goldsmith image.build a b"]),
        ("docker run flags", []),
    ],
)  # fmt: skip
def test_commands_within_a_text_are_marked_to_be_copied(text: str, commands: list[str]) -> None:
    """Whole, without the words around them."""
    shown = with_commands(text)
    marked = re.findall(r'<span class="command"><code>(.*?)</code>', shown)
    assert marked == [one.replace('"', "&#34;") for one in commands]


def test_days_tell_who_ran_what_was_in_date_and_who_was_within_policy() -> None:
    """By what members ran at each day's end, and by the last check of each fleet up to that day."""
    good = release(1, published_at=NOW - 20 * DAY, expires_at=NOW - 2 * DAY)
    newer = release(2, published_at=NOW - 3 * DAY, expires_at=NOW + 20 * DAY)
    runs = [
        MemberRun("shop", "a", good.content, gone=False, told_by="check", at=NOW - 5 * DAY),
        MemberRun("shop", "b", good.content, gone=False, told_by="check", at=NOW - 5 * DAY),
        MemberRun("shop", "c", "", gone=False, told_by="check", at=NOW - 4 * DAY),
        MemberRun("shop", "a", newer.content, gone=False, told_by="check", at=NOW - DAY),
        MemberRun("shop", "c", "", gone=True, told_by="check", at=NOW - DAY),
    ]
    checks = [FleetDay("shop", f"{NOW - back * DAY:%Y-%m-%d}", NOW - back * DAY, 3, 3 - back) for back in (3, 1)]
    days = by_day([good, newer], runs, checks, NOW)
    assert [(one.members, one.in_date, one.others, one.judged, one.within) for one in days] == [
        (2, 2, 0, 0, 0), (2, 2, 1, 0, 0), (2, 2, 1, 3, 0), (2, 0, 1, 3, 0), (2, 1, 0, 3, 2), (2, 1, 0, 3, 2),
    ]  # fmt: skip
    assert days[-1].day == NOW.date()
    assert by_day([], [], [], NOW) == ()


def test_a_revoked_release_is_not_in_date_from_then_on() -> None:
    """Nor one that was dated anew before it expired out of date."""
    revoked = release(1, published_at=NOW - 9 * DAY, expires_at=NOW + DAY, revoked_at=NOW - DAY, revoked_reason="bad")
    runs = [MemberRun("shop", "a", revoked.content, gone=False, told_by="check", at=NOW - 3 * DAY)]
    assert [one.in_date for one in by_day([revoked], runs, [], NOW)] == [1, 1, 0, 0]
    again = replace(revoked, digest="sha256:other", revoked_at=None)
    assert [one.in_date for one in by_day([revoked, again], runs, [], NOW)] == [1, 1, 1, 1]


def test_weeks_tell_how_long_half_and_nine_of_ten_fixes_took() -> None:
    """By the week in which they were closed; what was closed before is not among them."""
    closed = [("image", NOW - DAY, 60.0 * number) for number in range(1, 11)]
    (week,) = by_week([*closed, ("image", NOW - 200 * DAY, 1.0)], NOW)  # type: ignore[list-item]
    assert (week.monday.isoformat(), week.fixes, week.median, week.p90) == ("2026-11-23", 10, 300.0, 540.0)


def test_ages_are_counted_up_to_their_ends() -> None:
    """Unknown is its own answer."""
    ends = [NOW - days * DAY for days, _ in AGES]
    found = {one.age: one.members for one in by_age([*ends, ends[0] - timedelta(seconds=1), None], NOW)}
    assert [found[name] for _, name in AGES] == [1, 2, 1, 1]
    assert (found[UNKNOWN], by_age([], NOW)) == (1, ())


def test_a_release_tells_its_evidence_changes_and_what_it_closed(found: tuple[ReportOutput, JudgedState]) -> None:
    """And how many members run it."""
    newest, before = found[0].releases[:2]
    assert (newest.changes, newest.closed) == (("openssl 3.5.6 → 3.5.7",), ("CVE-2026-0007 in openssl",))
    assert newest.evidence == ("allowed by the policy default on 2026-11-18 12:00 UTC",)
    assert (newest.channels, before.channels) == (("stable",), ())
    assert newest.members > 0


def test_a_rollout_under_way_tells_its_waves(found: tuple[ReportOutput, JudgedState]) -> None:
    """How many of each are done, and what it does now."""
    (rollout,) = found[0].rollouts
    canary = rollout.waves[0]
    assert (canary.canary, canary.members, canary.done) == (True, 1, 1)
    assert sum(wave.members for wave in rollout.waves) == 4
    assert rollout.doing.startswith(f"wave 1 of {len(rollout.waves)}: ")


def test_rows_tell_of_each_member_what_the_judged_state_says(found: tuple[ReportOutput, JudgedState]) -> None:
    """Every text is there once, and every violation of every member."""
    told = json.loads(member_rows(*found))
    texts = told["texts"]
    assert len(texts) == len(set(texts))
    rows = {texts[row[0]]: row for row in told["members"]}
    assert len(rows) == MEMBERS
    for fleet in found[1].fleets:
        for member in fleet.members:
            row = rows[f"{fleet.name}/{member.name}"]
            said = [[texts[told["violations"][one][at]] for at in (0, 3, 11)] for one in row[14]]
            assert said == [[one.rule, one.what, one.acts] for one in member.violations]
    facts = {texts[name]: texts[value] for name, value in told["facts"][rows["shop/web-00001"][15]]}
    assert facts["memory bytes"] == str(1 << 26)


def test_no_text_of_strangers_ends_the_rows_or_hides_in_them(found: tuple[ReportOutput, JudgedState]) -> None:
    """Names, evidence, settings: whatever stands in them, it is a JSON string."""
    report, state = found
    member = report.members[0].model_copy(update={"member": f"shop/{HOSTILE}", "image": HOSTILE})
    rows = member_rows(report.model_copy(update={"members": (member,)}), state)
    assert not re.search(r"[<>&\u202e\u2028]", rows)
    assert "</script><script>alert(1)" in json.loads(rows)["texts"][0]


def test_what_strangers_wrote_stands_on_the_page_as_text(found: tuple[ReportOutput, JudgedState]) -> None:
    """Names, owners, references of images, evidence, who did something: the only markup is the template's."""
    page = render_html(*found)
    assert page.count("&lt;script&gt;document.title=") >= 4
    assert len(re.findall(r"<script\b", page)) == 2, "its own, and the rows'"
    assert not re.search(r"<img|<[^>]*onerror", page)


def test_the_page_runs_its_own_script_alone(found: tuple[ReportOutput, JudgedState]) -> None:
    """By its policy, whose hashes are of what stands in it; only a live page may ask, and only us."""
    page = render_html(*found)
    assert content_policy(live=False).startswith("default-src 'none'; style-src 'sha256-")
    assert "connect-src" not in content_policy(live=False)
    assert "connect-src 'self'" in content_policy(live=True)
    assert "unsafe" not in content_policy(live=True)
    assert content_policy(live=False).replace("'", "&#39;") in page
    assert " style=" not in page
    assert not re.search(r"<[a-z][^<>]* on[a-z]+=", page)


def test_charts_hold_no_style_script_or_link(found: tuple[ReportOutput, JudgedState]) -> None:
    """What the library draws for itself would be refused by the page's policy."""
    drawings = re.findall(r"<svg.*?</svg>", render_html(*found), re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        assert not re.search(r"<(style|script|a|image|use|!--)|href|style=|pygal\.org", drawing)
        assert 'role="img"' in drawing


def test_the_graph_is_of_the_first_member_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where several reach as much: its caption names that one."""
    monkeypatch.setattr(blast_radius, "svg_of", lambda dot: dot)
    context = watched(tmp_path, 4)
    record_radius(context)
    kept = recorded_radius(context)
    assert kept
    assert kept.sizes[0].exposed == kept.sizes[1].exposed > 0, "the first is not the only one"
    (source,) = [line for line in kept.drawing.splitlines() if "penwidth=2" in line]
    assert f'"member:{kept.sizes[0].member}"' in source


@pytest.mark.needs("dot")
def test_a_graph_keeps_shapes_and_text_alone() -> None:
    """Whatever stands in its names, or in a file that another wrote; the colours are the page's."""
    colours = {"#b3261e": "certain"}
    nodes = f'a [label={json.dumps(HOSTILE)}, color="#b3261e"]; b [URL="x:y"]'
    drawn = svg_of(f'digraph {{ {nodes}; a -> b [color="#b3261e"]; }}')
    made = graph(drawn, HOSTILE, colours)
    assert not re.search(r"<(style|script|a|title|image|use|!)|href|style=|#b3261e", made)
    assert made.count('class="certain"') == 2
    assert 'class="certain filled"' in made
    assert "alert(1)" in made
    inner = '<script>x()</script><g onclick="x()"><a href="x"/></g>'
    others = f'<svg xmlns="http://www.w3.org/2000/svg" onload="x()">{inner}</svg>'
    assert re.sub(r' (xmlns|role|aria-label)="[^"]*"', "", graph(others, "t", colours)) == "<svg><g /></svg>"
    for bad in ("", "<svg", "<html/>"):
        with pytest.raises(ValueError, match="not a drawing"):
            graph(bad, "t", colours)


@pytest.mark.parametrize("most", [1, 3, 7, 70, 12_345])
def test_what_is_counted_has_whole_numbers_on_its_axis(most: int) -> None:
    """There are no 0.8 members."""
    drawn = bars("Members", ["new", "old"], [most, 1], lying=True)
    numbers = [float(one) for one in re.findall(r">([0-9.e+]+)</text>", drawn)]
    assert 2 <= len(numbers) <= 7
    assert all(one.is_integer() for one in numbers)


def test_of_many_releases_the_first_to_expire_have_bars(found: tuple[ReportOutput, JudgedState]) -> None:
    """A chart of two hundred bars would push all that follows off the screen."""
    one = next(image for image in found[0].images if image.release)
    many = [
        one.model_copy(update={"name": f"image-{days:03}", "expires_at": NOW + days * DAY})
        for days in range(2 * MOST_BARS, 0, -1)
    ]
    report = found[0].model_copy(update={"images": tuple(many)})
    chart = charts_of(report)["expiring"]
    assert re.findall(r"image-\d+", chart) == [f"image-{days:03}" for days in range(MOST_BARS, 0, -1)]
    assert f"the first first: {MOST_BARS} of {2 * MOST_BARS}<" in render_html(report, found[1])


def test_the_ledger_keeps_one_count_of_a_fleet_a_day(database: str) -> None:
    """The last check's; and its stamp is another after every check."""
    ledger = Ledger.open(database)
    before = ledger.state_stamp()
    for hours, within in ((0, 3), (1, 4)):
        at = NOW - timedelta(hours=hours)
        ledger.record_fleet_day(FleetDay("shop", f"{NOW:%Y-%m-%d}", at, 5, within))
    ledger.record_fleet_day(FleetDay("shop", "2026-11-24", NOW - DAY, 5, 1))
    assert [one.within for one in ledger.fleet_days(NOW - 2 * DAY)] == [1, 4]
    assert [one.within for one in ledger.fleet_days(NOW - DAY / 2)] == [4]
    ledger.audit(NOW, "ann", "look", "shop")
    assert ledger.state_stamp() != before
    ledger.close()
