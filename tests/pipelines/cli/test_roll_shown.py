"""How a plan looks: within 80 columns for a person at a terminal, as markdown for whoever approves it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hardening.foundation.console import out
from hardening.foundation.settings import ROOT
from hardening.model import Enforcement
from pipelines.cli.check_output import member_lines
from pipelines.cli.rollout import show_members, show_roll
from pipelines.cli.rollout_output import (
    RollOutput,
    SkipLine,
    changed,
    heading,
    markdown,
    roll_output,
    same_base,
    tables,
    wave_rows,
)
from pipelines.cli.rollout_watch import HistoryLine, print_history
from pipelines.fleet.ec2.pacing import pacing
from pipelines.fleet.members import Changes
from pipelines.fleet.model import Fleet
from pipelines.fleet.port import Group
from pipelines.rollout.plan import adoptions, plan
from pipelines.rollout.plan_model import GroupStep
from pipelines.rollout.state import MemberState, Phase, RolloutOutcome, RolloutState
from tests.support.fleets import NOW, fleet, judged, reason, target


def planned(count: int = 3, of: Fleet | None = None, name: str = "web-{}", **more: Any) -> RollOutput:
    known = [judged(name.format(number), "expired", **more) for number in range(count)]
    return roll_output(plan(of or fleet(), known, target(), NOW))


def test_what_is_only_recorded_of_how_a_member_runs_is_for_who_asks(capsys: pytest.CaptureFixture[str]) -> None:
    """An overview leaves it out, and no member is out of policy for it; with --all it is told."""
    recorded = reason("privileged", enforcement=Enforcement.AUDIT)
    well = replace(judged("web-1"), reasons=(recorded,))
    bad = replace(judged("web-2", "expired"), reasons=(reason("expired"), recorded))
    lines = member_lines([well, bad])
    assert (show_members(lines[:1]), show_members(lines)) == (0, 3)
    printed = capsys.readouterr().out
    assert ("expired" in printed, "privileged" in printed, "only records" in printed) == (True, False, False)
    show_members(lines, everyone=True)
    assert "it is privileged" in capsys.readouterr().out


def test_equal_waves_share_a_row() -> None:
    """A fleet of a hundred, one at a time, is two rows: the canary and the rest."""
    assert wave_rows(planned(100)) == [
        ["1 canary", "1", "1", "", "03-01 12:00", "35s", "5m"],
        ["2-100", "1", "1", "", "03-01 12:05", "35s", ""],
    ]


def test_the_heading_says_how_much_how_long_and_from_when() -> None:
    """A plan outside of its window names the moment at which it begins."""
    window = {"start": "03:00", "end": "04:00", "zone": "UTC"}
    assert heading(planned(3, fleet(windows=[window])))[1:] == [
        "3 members in 3 waves, in 6m 45s or more",
        "over on 2026-03-02 at 03:06 UTC or later",
        "deadlines: 3 past theirs already",
        "each takes 35s: 3s to start, 30s healthy, 2s settle; and up to 30s more to stop (drain)",
        "nothing is done before 2026-03-02 03:00 UTC: no window of limits.windows is open",
    ]


def test_the_heading_says_who_is_too_late_and_what_to_change() -> None:
    """Those of one cause together, the first few by name; what was done says nothing of it."""
    due = reason("expired", since=NOW, deadline=NOW + timedelta(hours=2))
    known = [replace(judged(f"web-{number}"), reasons=(due,)) for number in range(7)]
    made = plan(fleet(windows=[{"start": "22:00", "end": "23:00"}]), known, target(), NOW)
    shown = roll_output(made)
    assert heading(shown)[3:5] == [
        "deadlines: 7 too late",
        "too late for 2026-03-01 14:00 UTC: web-0, web-1, web-2, web-3, web-4 and 2 more: limits.windows: open a "
        "window before that, or a longer one",
    ]
    assert [(one.limits, one.deadline) for one in shown.late] == [(("limits.windows",), due.deadline)] * 7
    assert (shown.deadlines_met, shown.overdue) == (0, 0)
    assert shown.waves[0].begins_at == NOW + timedelta(hours=10)
    done = RolloutOutcome(RolloutState("r1", "web", "t", NOW, 1), ())
    assert not [line for line in heading(roll_output(made, done)) if "late" in line]


def test_what_the_image_changes_stands_once_for_all_whom_it_changes() -> None:
    """Under their names, in the order of the plan; whom it does not change is not named."""
    known = [judged(f"web-{number}", "expired") for number in range(4)]
    told = [("user: root → 7",), (), ("user: root → 7",), ("port 80/tcp: gone",)]
    changes = {one.member.id: Changes(lines) for one, lines in zip(known, told, strict=True)}
    shown = roll_output(plan(fleet(), known, target(), NOW, changes=changes))
    assert changed(shown) == [
        "what changes for web-0, web-2:", "  user: root → 7",
        "what changes for web-3:", "  port 80/tcp: gone",
    ]  # fmt: skip
    assert changed(planned()) == []


def test_the_heading_says_that_each_new_one_is_tried_first() -> None:
    """Where it is."""
    rehearsed = planned(1, fleet(method="in_place", max_unavailable=1))
    assert (
        heading(rehearsed)[4] == "each is tried beside the old one first, and the old one stops only if that is healthy"
    )
    assert len(heading(planned(1))) == 5


def test_the_heading_says_which_compose_file_must_name_the_new_image() -> None:
    """Each service once: `docker compose up` would bring the old image back."""
    of = {"defined_in": "the service web in /srv/shop/compose.yaml"}
    shown = planned(2, **of)
    assert heading(shown)[5:] == [
        f"the service web in /srv/shop/compose.yaml must name {shown.replacement}, or compose brings the old image back"
    ]
    assert heading(planned(2))[5:] == []


def test_a_plan_with_long_names_and_reasons_stays_within_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Folded, not cut."""
    out.cache_clear()
    show_roll(
        planned(3, name="a-very-long-name-that-somebody-gave-to-a-container-{}", zone="eu-central-1a"), as_json=False
    )
    printed = capsys.readouterr().out
    out.cache_clear()
    assert max(len(line.rstrip()) for line in printed.splitlines()) <= 80
    assert "canary" in printed
    assert re.search(r"to r\.example/\S+ \(sha256:[0-9a-f]{12}\)$", printed.splitlines()[0])


OUTCOME = "failed: frontend-proxy-1 did not become healthy within 5m, its old one serves again"


def history_of(rollout: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a history of two rollouts with one id."""
    line = HistoryLine(
        rollout=rollout, replacement="r.example/web@sha256:1", begun_at=NOW, ended_at=NOW, members=12, outcome=OUTCOME
    )
    out.cache_clear()
    print_history([line, line.model_copy(update={"outcome": "over: all replaced"})])
    out.cache_clear()
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    return lines


@pytest.mark.parametrize("name", ["web", "frontend-proxy", "a-fleet-of-23-character"])
def test_the_id_of_a_rollout_is_not_broken_in_its_history(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Who copies it out of a terminal of 80 columns has all of it: what stands beside it folds."""
    rollout = f"{name}-20261125221427-54ef21-back"
    assert sum(rollout in line.split() for line in history_of(rollout, capsys)) == 2


def test_beside_a_usual_id_the_date_is_not_broken_either(capsys: pytest.CaptureFixture[str]) -> None:
    """And the outcome is all there, folded."""
    rollout = "frontend-proxy-20261125221427-54ef21-back"
    header, *lines = history_of(rollout, capsys)
    assert sum(line.startswith(f"{NOW:%Y-%m-%d %H:%M}  {rollout}  12 ") for line in lines) == 2
    told = "".join(line[header.index("outcome") :] for line in lines)
    assert "".join(told.split()).startswith("".join(OUTCOME.split()))


def test_an_id_too_long_for_80_columns_folds_and_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """Its pieces are all there."""
    rollout = f"{'f' * 40}-20261125221427-54ef21-back"
    header, *lines = history_of(rollout, capsys)
    at = header.index("rollout")
    assert "".join(line[at:].split()[0] for line in lines if line[at] != " ") == 2 * rollout


def test_markdown_takes_what_others_wrote_as_plain_text() -> None:
    """A label or reason must not become a link, an image, a cell or HTML in the eyes of whoever approves."""
    evil = replace(judged("web-1"), reasons=(reason("expired", what="![x](http://e) | <script>\n# **approved**"),))
    text = markdown(roll_output(plan(fleet(), [evil], target(), NOW)), "ana@host")
    assert "\\[x\\](http" in text
    assert "<script>" not in text
    assert not re.search(r"^# ", text, re.MULTILINE)
    assert all(len(re.findall(r"(?<!\\)\|", line)) in (4, 8) for line in text.splitlines() if line.startswith("|"))


def test_markdown_of_a_huge_fleet_stays_short_enough_for_a_forge() -> None:
    """It names how many more stand in the file."""
    text = markdown(planned(3000), "ana@host")
    assert len(text) < 60_000
    assert "And 2800 more, in the plan's file." in text


def test_what_to_type_next_names_the_plan_that_was_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A plan of a file is not carried out without it; where nobody violates, there is nothing to type."""
    nobody = roll_output(plan(fleet(), [judged("web-1")], target(), NOW))
    alone = nobody.model_copy(update={"skipped": (SkipLine(member="web-2", why="protected"),)})
    for roll, file, said in (
        (planned(), "", "roll.start web --apply"),
        (planned(), "plan.json", "roll.start web --plan plan.json --apply"),
        (nobody, "", "nothing to replace; ./goldsmith fleet.check web shows why, roll.status if a rollout is open"),
        (alone, "", "nothing to replace: every member that is out of policy is skipped"),
    ):
        show_roll(roll, as_json=False, file=file)
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("needs_approval", [False, True])
def test_what_to_type_next_repeats_every_flag_that_was_given(
    capsys: pytest.CaptureFixture[str], needs_approval: bool
) -> None:
    """Quoted as a shell needs it; a plan in a file says itself whom it takes over."""
    made = planned().model_copy(update={"needs_approval": needs_approval})
    show_roll(made, as_json=False, adopt=["web-*", "db"], as_owner=not needs_approval)
    said = capsys.readouterr().err
    wanted = "roll.plan web --adopt 'web-*' --adopt db --output FILE" if needs_approval else (
        "roll.start web --adopt 'web-*' --adopt db --approve-as-owner --apply"
    )  # fmt: skip
    assert wanted in said
    show_roll(made, as_json=False, adopt=["all"], file="a plan.json")
    said = capsys.readouterr().err
    assert "--adopt" not in said
    assert "roll.start web --plan 'a plan.json' --apply" in said


def test_the_history_says_what_was_adopted_with_old_and_new_image() -> None:
    """Those that the flag names and that ran another image; digests in full, for programs."""
    strangers = [judged(name, "unknown", image="nginx:1.27", exact=f"sha256:{1:064x}") for name in ("web-1", "web-2")]
    made = plan(fleet(), [*strangers, judged("web-3", "expired")], target(), NOW, adopt=["web-1", "web-3"])
    assert adoptions(made, ["web-1", "web-3"]) == {
        "host/local/docker/web-1": f"web-1: nginx:1.27@sha256:{1:064x} → {target().reference}"
    }
    assert adoptions(made, []) == {}


@pytest.mark.parametrize(
    ("file", "first"), [("", "roll.plan web --output FILE"), ("p.json", "roll.approve web --plan p")]
)
def test_what_needs_an_approval_names_each_step_in_its_order(
    capsys: pytest.CaptureFixture[str], file: str, first: str
) -> None:
    """No line says to begin before another user has approved; a plan in a file is not written again."""
    show_roll(planned().model_copy(update={"needs_approval": True}), as_json=False, file=file)
    _, *lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"  ./goldsmith {first}")
    assert "roll.approve web --plan" in lines[-2]
    assert lines[-1] == f"  ./goldsmith roll.start web --plan {file or 'FILE'} --apply"


def test_the_groups_that_a_service_rolls_stand_in_what_is_approved() -> None:
    """In markdown with what they run and where they stop; of a fleet of groups alone nothing is said about members."""
    of = fleet(canary=1)
    group = Group("123456789012/eu-central-1/autoscaling/shop|1", "shop|1", 4, 4, "", "lt-1 version 3")
    groups = (GroupStep(group, pacing(of.limits, 4, 4)),)
    text = markdown(roll_output(replace(plan(of, (), target(), NOW, grouped=True), groups=groups)), "ana@host")
    assert "| shop\\|1 | 4 | lt-1 version 3 | 100-125 % | 25 %, 100 % | planned |" in text
    assert "- 1 group that a service rolls" in text
    assert "serving" not in text


def test_a_rollout_that_failed_says_how_each_ended_and_not_that_all_went_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without auto_rollback those that are well stay new, and one that could not be rolled back needs a person."""
    made = plan(fleet(), [judged(f"web-{number}", "expired") for number in range(4)], target(), NOW)
    ids = [step.member.id for step in made.steps]
    ended = [
        MemberState(one, one, phase) for one, phase in zip(ids, (Phase.NEW, Phase.OLD, Phase.FAILED), strict=False)
    ]
    outcome = RolloutOutcome(
        RolloutState("r1", "web", "", NOW, 4, failure="it fell ill"), (*ended, MemberState(ids[3], ids[3]))
    )
    assert show_roll(roll_output(made, outcome), as_json=False) == 3
    said = capsys.readouterr().err
    assert "it failed: it fell ill" in said
    assert "went back" not in said
    assert "r1 ended with 1 not begun, 1 replaced, 1 as it was, 1 needs a person: " in said
    assert said.rstrip().endswith(f": {ids[2].rpartition('/')[2]}")


def test_a_rollout_tells_what_failed_before_what_went_well(capsys: pytest.CaptureFixture[str]) -> None:
    """Who needs a person stands first, with the note, and a note that the next ones share stands once."""
    made = plan(fleet(), [judged(f"web-{number}", "expired") for number in range(4)], target(), NOW)
    ids = [step.member.id for step in made.steps]
    ended = (
        MemberState(ids[0], "web-0", Phase.NEW), MemberState(ids[1], "web-1", Phase.OLD, failure="not healthy"),
        MemberState(ids[2], "web-2", Phase.FAILED, failure="gone"),
        MemberState(ids[3], "web-3", Phase.OLD, failure="not healthy"),
    )  # fmt: skip
    roll = roll_output(made, RolloutOutcome(RolloutState("r1", "web", "", NOW, 4, failure="it fell ill"), ended))
    columns, rows = tables(roll)[2]
    assert columns == ["wave", "member", "outcome", "note"]
    assert [row[1:] for row in rows] == [
        ["web-2", "needs a person", "gone"],
        ["web-1", "as it was", "not healthy"],
        ["web-3", "as it was", "as above"],
        ["web-0", "replaced", ""],
    ]
    show_roll(roll, as_json=False)
    assert "it failed: it fell ill" in capsys.readouterr().err


def test_a_note_of_several_lines_is_printed_as_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Not with the two characters of an escape in the place of each newline."""
    made = plan(fleet(), [judged("web-1", "expired")], target(), NOW)
    ended = MemberState(made.steps[0].member.id, "web-1", Phase.FAILED, note="first line\nhealth: second line")
    show_roll(roll_output(made, RolloutOutcome(RolloutState("r1", "web", "", NOW, 1), (ended,))), as_json=False)
    said = capsys.readouterr().out
    assert "\\n" not in said
    lines = [line.split()[-2:] for line in said.splitlines() if "line" in line]
    assert lines == [["first", "line"], ["second", "line"]]


def test_a_plan_tells_a_reason_that_members_share_once() -> None:
    """It stands at the first of them."""
    because = [row[2] for row in tables(planned(3))[2][1]]
    assert because == ["it is expired", "as above", "as above"]


def test_members_that_are_left_alone_for_one_reason_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Forty that are protected are one line."""
    skipped = tuple(SkipLine(member=f"h/l/docker/web-{number}", why="protected") for number in range(3))
    show_roll(planned().model_copy(update={"skipped": skipped}), as_json=False)
    assert "skipped: web-0, web-1, web-2: protected\n" in capsys.readouterr().out


def checked(found: list[Any], capsys: pytest.CaptureFixture[str], **how: bool) -> list[str]:
    """What `fleet.check` prints of judged members, in 80 columns."""
    out.cache_clear()
    show_members(member_lines(found), **how)
    out.cache_clear()
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    return lines


def test_members_within_policy_are_counted_and_listed_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Sixty of them are one line; each is one line with its image by name and day."""
    sixty = [judged(f"web-{number:02}") for number in range(60)]
    assert checked(sixty, capsys) == ["60 member(s) within policy; --all lists them"]
    listed = checked(sixty, capsys, everyone=True)
    assert len(listed) == 61
    assert listed[1].split() == ["web-00", "within", "policy", "nginx", "of", "2026-01-31"]


def test_members_out_of_policy_come_first_and_what_they_share_stands_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A line each; then every reason, with the names of those that it is about."""
    found = [judged(f"web-{number}", *(["expired"] if number > 2 else [])) for number in range(6)]
    lines = checked(found, capsys)
    assert [line.split()[0] for line in lines[1:4]] == ["web-3", "web-4", "web-5"]
    assert all("expired" in line and "2026-02-28 12:00" in line for line in lines[1:4])
    assert lines[5] == "web-3, web-4, web-5:"
    assert sum("it is expired" in line for line in lines) == 1
    assert lines[-1] == "3 member(s) within policy; --all lists them"


def test_a_plan_of_a_tag_says_that_newer_builds_on_the_same_base_are_not_rolled() -> None:
    """Its schema says so to whoever writes the file."""
    assert "a newer build of r/app:1 on the same base is within policy, so it is not rolled" in same_base("r/app:1")
    schema = json.loads((ROOT / "docs/schemas/content/fleet.json").read_text())
    assert "same base is not rolled" in schema["$defs"]["Replacement"]["properties"]["tag"]["description"]
