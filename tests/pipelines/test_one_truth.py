"""One truth on every screen: whatever a fleet runs, `fleet.check`, `fleet.scan`, the report and the night agree."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hardening.foundation.errors import MalformedError, RefusedError
from hardening.foundation.settings import Settings
from images.context import Context
from images.documents import to_json
from pipelines.cli import auto_roll, rollout
from pipelines.cli.check_output import MemberLine, member_lines
from pipelines.cli.page import render_html
from pipelines.cli.report import gather
from pipelines.fleet.catalog import load_fleet
from pipelines.fleet.members import Changes, Member, Provenance, Seen, Unread
from pipelines.nightly import command, fleet_stage
from pipelines.nightly.model import NightOrder, NightRecord
from pipelines.nightly.stages import WorldStages
from pipelines.nightly.summary import output
from pipelines.rollout.service import AutoLine, automated
from pipelines.rollout.session import FleetSession, check
from tests.support.fleets import NOW, member, release, target

FLEET = """title = "t"
owner = "web team"
kind = "docker"
policy = "{policy}"
selector = {{ app = "web" }}
replacement = {{ definition = "nginx" }}
limits = {{ max_violating_fraction = {{ expired = 1.0, unknown = 1.0 }} }}
"""
POLICIES = ("default", "demo")
OURS = "r.example"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A ledger of its own, and a fleet for each policy."""
    folder = tmp_path_factory.mktemp("truth")
    fleets = folder / "content/pipelines/fleets"
    fleets.mkdir(parents=True)
    for policy in POLICIES:
        (fleets / f"by-{policy}.toml").write_text(FLEET.format(policy=policy))
    return Context(Settings(state=folder, content=(folder / "content",)), NOW, lambda: "", lambda: "")


def session(
    context: Context, name: str, running: Sequence[tuple[Member, Provenance | None]], unread: bool
) -> FleetSession:
    """A fleet in which these run; one without an origin is one whose image's answer is malformed."""
    origins, members = {one.id: origin for one, origin in running}, tuple(one for one, _ in running)

    def of(one: Member) -> Provenance:
        if (origin := origins[one.id]) is None:
            raise MalformedError("no manifest", hint="")
        return origin

    def look(*_: object) -> Any:
        return SimpleNamespace(of=of, target=lambda: target(expires_at=NOW + timedelta(days=90)))

    places = (Unread("123/eu-west-1", "denied"),) if unread else ()
    port: Any = SimpleNamespace(describe=lambda: members, changes=lambda *_: Changes())
    fleet = load_fleet(context.settings.roots, name)
    return FleetSession(fleet, context, port, lambda: NOW, OURS, look, lambda: Seen(members, places))


@st.composite
def origins(draw: st.DrawFn) -> Provenance | None:
    """Where an image comes from: of nowhere, old, revoked, refused, left by its channel, an application's base."""
    if draw(st.booleans()):
        return draw(st.sampled_from([None, Provenance()]))
    day = NOW + timedelta(days=draw(st.integers(-40, 40)))
    revoked = draw(st.sampled_from([None, NOW - timedelta(days=1)]))
    golden = release(1, expires_at=day, revoked_at=revoked, revoked_reason="bad" if revoked else "")
    refused = draw(st.booleans())
    return Provenance(
        release=golden if draw(st.booleans()) else None,
        base=golden,
        latest=draw(st.sampled_from([golden, release(9)])),
        latest_since=NOW - timedelta(days=draw(st.integers(0, 30))),
        refused_because="CVE-1" if refused else "",
        refused_since=NOW - timedelta(days=2) if refused else None,
    )


def members() -> st.SearchStrategy[list[tuple[Member, Provenance | None]]]:
    """The members of a fleet, healthy or not, from here or from elsewhere."""
    one = st.tuples(st.booleans(), st.sampled_from([f"{OURS}/nginx:stable", "elsewhere/nginx:1"]), origins())
    return st.lists(one, max_size=6).map(
        lambda drawn: [
            (member(f"web-{number}", healthy=healthy, image=image), origin)
            for number, (healthy, image, origin) in enumerate(drawn)
        ]
    )


def told_by_report(context: Context, fleet: str) -> tuple[list[dict[str, Any]], str, str]:
    """What the report's data say of the fleet's members and of the fleet, and the page."""
    report = gather(context)
    mine = [to_json(one) for one in report.members if one.fleet == fleet]
    return mine, next(one.said for one in report.fleets if one.name == fleet), render_html(report)


@settings(max_examples=settings.default.max_examples // 4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(running=members(), unread=st.booleans(), policy=st.sampled_from(POLICIES))
def test_every_screen_says_the_same_of_a_fleet(
    context: Context, running: list[tuple[Member, Provenance | None]], unread: bool, policy: str
) -> None:
    """Whether a member is within policy, by which rules not, until when, whether a newer one is out, whether it is
    healthy; and so how many are.
    """
    for name in POLICIES:
        context.ledger.record_check(_nothing(name))
    fleet = f"by-{policy}"
    at = session(context, fleet, running, unread)
    judged = check(at)
    lines = member_lines(judged)
    checked = {line["name"]: line for line in to_json(tuple(lines))}
    reported, said, page = told_by_report(context, fleet)
    assert {one["member"] for one in reported} == {f"{fleet}/{name}" for name in checked}
    for one in reported:
        line = checked[one["member"].partition("/")[2]]
        told = {key: one[key] for key in ("state", "deadline", "superseded", "healthy")}
        assert told == {key: line[key] for key in told}
        assert one["rules"] == line["violations"]
        assert not (one["newest"] and one["superseded"])
    bad = [line for line in lines if line.violations]
    assert f"{len(bad)}</b>member{'s' if len(bad) != 1 else ''} out of policy" in page
    unseen = any(line.state == "unread" for line in lines)
    assert rollout.show_members(lines) == (4 if unseen else 3 if bad or not lines else 0)
    seen = {line.name: line.policy for line in (rollout._seen(fleet, one) for one in judged)}
    assert seen == {line.name: line.verdict.text for line in lines}
    if unread and not running:
        with pytest.raises(RefusedError, match="nothing runs"):
            automated(at, apply=False)
    else:
        _night_agrees(automated(at, apply=False), said, bad, lines)


def _nothing(policy: str) -> Any:
    from images.ledger import FleetCheck

    return FleetCheck(f"by-{policy}", NOW, [])


def _night_agrees(night: AutoLine, said: str, bad: list[MemberLine], lines: list[MemberLine]) -> None:
    assert night.detail.startswith(said)
    assert (night.outcome == "compliant") == (bool(lines) and not bad)
    assert (night.outcome == "empty") == (not lines)
    assert (night.refused is not None) == (not lines or bool(night.neglected))
    if bad:
        assert night.detail.startswith(f"{len(bad)} of {len(lines)} member(s) ")


def test_where_nothing_was_judged_no_command_ends_well(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A selector that no longer matches: `fleet.check`, `roll.auto`, the night and its dry run name the owner (3). What
    was last seen running counts as running on, so that it is not pruned.
    """
    check(session(context, "by-demo", [(member("web-1"), Provenance())], unread=False))
    running = context.ledger.running_digests()
    for module in (fleet_stage, rollout, auto_roll):
        monkeypatch.setattr(module, "fleet_session", lambda name, at, **_: nullcontext(session(at, name, [], False)))
    assert rollout.show_fleets(rollout.check_fleets("by-demo", context=context), as_json=True) == 3
    lines, errors = auto_roll.auto_roll("by-demo", apply=True, context=context)
    assert ([one.outcome for one in lines], [error.exit_code for error in errors]) == (["empty"], [3])
    night = NightOrder("night-1", NOW)
    parts = [WorldStages(context).fleet(night, "by-demo"), *command._fleets(context, night, set())]
    told = output(NightRecord(night, (), (), tuple(parts), NOW))
    assert {(one.status, one.exit_code) for one in told.lines} == {("empty", 3)}
    assert [names for names in running.values() if "by-demo/web-1" in names]
    assert context.ledger.running_digests() == running
    assert (told.exit_code, told.must_act[0].parts) == (3, ("fleet by-demo", "fleet by-default", "fleet by-demo"))


def test_the_report_tells_how_old_its_word_on_a_fleet_is(tmp_path: Path) -> None:
    """The world is not asked again: a fleet that the night could not read stands as it was last judged, dated."""
    content = tmp_path / "content/pipelines/fleets"
    content.mkdir(parents=True)
    (content / "by-demo.toml").write_text(FLEET.format(policy="demo"))
    now = Context(Settings(state=tmp_path, content=(tmp_path / "content",)), NOW, lambda: "", lambda: "")
    old = Provenance(release=release(1, expires_at=NOW - timedelta(days=1)))
    check(session(now, "by-demo", [(member("web-1"), old)], unread=False))
    later = Context(now.settings, NOW + timedelta(days=3), lambda: "", lambda: "")
    report = gather(later)
    assert (report.members[0].state, report.members[0].judged_at) == ("out of policy", NOW)
    assert "checked 2026-03-01 12:00 UTC, 3d ago" in render_html(report)
    assert [action.owner for action in report.actions if "by-demo" in action.what] == ["web team"]


def test_a_check_counts_its_day(tmp_path: Path, context: Context) -> None:
    """How many it judged, and how many of them are within policy: the report's line over time."""
    alone = Context(Settings(state=tmp_path, content=context.settings.content), NOW, lambda: "", lambda: "")
    running = [(member("web-1"), Provenance()), (member("web-2"), Provenance(release=release(1), latest=release(1)))]
    judged = check(session(alone, "by-demo", running, unread=False))
    (day,) = alone.ledger.fleet_days(NOW - timedelta(days=1))
    assert (day.fleet, day.day, day.members) == ("by-demo", f"{NOW:%Y-%m-%d}", 2)
    assert day.within == sum(not one.standing for one in judged) == 1


def test_a_check_that_sees_no_member_calls_none_gone(tmp_path: Path, context: Context) -> None:
    """A label that was mistyped for an hour would else close every fix of the fleet."""
    alone = Context(Settings(state=tmp_path, content=context.settings.content), NOW, lambda: "", lambda: "")
    for running in ([(member("web-1"), Provenance())], []):
        check(session(alone, "by-demo", running, unread=False))
    assert [(run.member, run.gone) for run in alone.ledger.member_runs("by-demo")] == [("web-1", False)]


def test_what_is_judged_by_a_moved_clock_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: Context
) -> None:
    """A look at another day must not stand in the report of this one."""
    monkeypatch.setenv("GOLDSMITH_NOW", "2027-01-31T12:00Z")
    alone = Context(Settings(state=tmp_path, content=context.settings.content), NOW, lambda: "", lambda: "")
    check(session(alone, "by-demo", [(member("web-1"), Provenance())], unread=False))
    assert alone.ledger.fleet_checks() == {}
    (tmp_path / "rehearsal").touch()
    check(session(alone, "by-demo", [(member("web-1"), Provenance())], unread=False))
    assert set(alone.ledger.fleet_checks()) == {"by-demo"}


def test_what_is_judged_by_another_policy_is_not_kept(context: Context, tmp_path: Path) -> None:
    """A look by a policy that is not the fleet's must not stand in the report."""
    ours = Context(Settings(state=tmp_path, content=context.settings.content), NOW, lambda: "", lambda: "")
    by = ours.by_policy(ours.policy_named("demo"), "default")
    check(session(by, "by-default", [(member("web-1"), Provenance())], unread=False))
    assert ours.ledger.fleet_checks() == {}
