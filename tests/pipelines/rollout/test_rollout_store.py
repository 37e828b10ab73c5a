"""Rollouts seen and told from outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.errors import ContentError, RefusedError
from hardening.foundation.settings import Settings
from images.artifact import Release
from images.context import Context
from images.documents import to_json
from images.ledger import Holder
from pipelines.cli import rollout, rollout_watch
from pipelines.cli.rollout import roll_back
from pipelines.cli.rollout_output import StatusOutput, lines, meaning, rows
from pipelines.cli.rollout_watch import status
from pipelines.durable.dbos import engine_url
from pipelines.durable.dbos.system_database import locks
from pipelines.fleet.ec2.pacing import pacing
from pipelines.fleet.port import Group
from pipelines.rollout.plan import plan
from pipelines.rollout.plan_model import GroupStep, Skip
from pipelines.rollout.rollout_store import history, newest, refuse_unasked, require_known, told
from pipelines.rollout.service import order_back
from pipelines.rollout.session import fleet_session
from pipelines.rollout.state import Command, MemberState, Order, Phase, RolloutStage, RolloutState
from tests.support.fleets import fleet, judged, target

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ANN = Holder("shop", "ann:1", "r1")
ENDED = timedelta(seconds=-1)
SHOP = "123456789012/eu-central-1/autoscaling/shop"


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """A ledger that has a rollout of two members under way."""
    context = Context(Settings(state=tmp_path), NOW, str, str)
    at = target(expires_at=NOW + timedelta(days=60))
    order = Order(
        "r1", plan(fleet(), [judged("web-1", "expired"), judged("web-2", "expired")], at, NOW), fleet().limits
    )
    with closing(context.ledger):
        context.ledger.begin_rollout("r1", "shop", "ann:1", to_json(order), NOW)
        yield context


def test_content_that_is_broken_keeps_nobody_from_a_rollout_under_way(tmp_path: Path) -> None:
    """An abort is asked for by the name that was rolled; a name that nobody ever rolled must be a fleet's."""
    fleets = tmp_path / "content/pipelines/fleets"
    fleets.mkdir(parents=True)
    (fleets / "other.toml").write_text("garbage = [")
    (tmp_path / "state").mkdir()
    settings = Settings(state=tmp_path / "state", content=(tmp_path / "content",))
    context = Context(settings, NOW, str, str)
    with closing(context.ledger):
        context.ledger.begin_rollout("r1", "shop", "ann", {}, NOW)
        require_known(context, "shop")
        with pytest.raises(ContentError, match="not TOML"):
            require_known(context, "shpo")
        (fleets / "other.toml").unlink()
        with pytest.raises(ContentError, match="unknown fleet: shpo"):
            require_known(context, "shpo")


def test_a_fleet_without_file_names_its_open_rollout_and_what_to_put_back(tmp_path: Path) -> None:
    """What continues a rollout, or rolls it back, needs the file; a fleet without open rollout is unknown."""
    context = Context(Settings(state=tmp_path, content=(tmp_path / "content",)), NOW, str, str)
    with closing(context.ledger):
        context.ledger.begin_rollout("r1", "shop", "ann", {}, NOW)
        with pytest.raises(ContentError, match="file of shop is gone, and its rollout r1 is open") as gone:
            fleet_session("shop", context).__enter__()
        assert "put pipelines/fleets/shop.toml back" in gone.value.hint
        context.ledger.save_rollout("r1", {}, NOW, is_open=False)
        with pytest.raises(ContentError, match="unknown fleet: shop"):
            fleet_session("shop", context).__enter__()


def test_commands_on_a_fleet_without_file_name_what_to_put_back_first(
    context: Context, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they offer to type would only answer that its file is gone. An abort is noted all the same."""
    first = "put pipelines/fleets/shop.toml back, for example from git; then ./goldsmith"
    monkeypatch.setattr(rollout_watch, "image_context", lambda **_: context)
    assert status("shop", context).missing_file == "pipelines/fleets/shop.toml"
    last = lines(status("shop", context), NOW)[-1]
    assert last == f"no process is executing it; {first} roll.start shop --apply continues it"
    roll_back("shop", "", apply=False, context=context)
    assert f"to do it: {first} roll.rollback shop --apply" in capsys.readouterr().err
    rollout_watch.command("shop", Command.ABORT)
    assert f"executing it: {first} roll.start shop --apply continues it, and obeys" in capsys.readouterr().err
    assert [given.command for given in context.ledger.commands("r1")] == [Command.ABORT]


def test_commands_on_a_fleet_with_its_file_ask_for_none(context: Context, tmp_path: Path) -> None:
    """In any content root."""
    (folder := tmp_path / "content/pipelines/fleets").mkdir(parents=True)
    (folder / "shop.toml").touch()
    there = replace(context, settings=context.settings.model_copy(update={"content": (tmp_path / "content",)}))
    assert status("shop", there).missing_file == ""
    last = lines(status("shop", there), NOW)[-1]
    assert last == "no process is executing it; ./goldsmith roll.start shop --apply continues it"


@pytest.mark.parametrize("phase", [Phase.REPLACING, Phase.SERVING, Phase.NEW])
@pytest.mark.parametrize("stage", list(RolloutStage))
def test_an_approval_is_taken_where_something_bakes_and_refused_elsewhere(stage: RolloutStage, phase: Phase) -> None:
    """Given before, also in a pause before, it would be written down and have no effect."""
    state = RolloutState("r1", "shop", "shop:2", NOW, 1, stage)
    members = (MemberState("web-1", "web-1", phase), MemberState("web-2", "web-2"))
    seen: Any = SimpleNamespace(row=SimpleNamespace(id="r1", fleet="shop"), state=state, members=members)
    if stage in ("baking", "approval") or (stage == "paused" and phase != "replacing"):
        return refuse_unasked(seen)
    with pytest.raises(RefusedError, match=f"r1 is {stage}: nothing waits for approval yet"):
        refuse_unasked(seen)
    return None


def test_a_carrier_that_has_died_carries_nothing(context: Context) -> None:
    """Its lease lasts on for a minute; its lock on the engine has gone with it."""
    url = engine_url(context.settings.database_url, "shop")
    assert not newest(context, "shop").carried
    with locks(url, "worker"):
        assert not newest(context, "shop").carried, "the engine is at work for nobody's lease"
        lease = context.ledger.acquire_lease(ANN, timedelta(minutes=1))
        assert newest(context, "shop").carried
    assert not newest(context, "shop").carried
    assert newest(context, "shop").lease == lease


def test_a_carrier_that_sleeps_through_its_lease_carries_the_rollout_still(context: Context) -> None:
    """It has its lock, and goes on when it wakes; on a SQLite file nobody else can meanwhile."""
    context.ledger.acquire_lease(ANN, ENDED)
    with locks(engine_url(context.settings.database_url, "shop"), "worker"):
        assert newest(context, "shop").carried


def test_where_no_lock_can_be_asked_the_lease_tells(context: Context) -> None:
    """As on PostgreSQL, or where the lock is another user's."""
    context.ledger.acquire_lease(ANN, timedelta(minutes=1))
    (context.settings.state_dir / "engine-shop.sqlite.lock").mkdir()
    assert newest(context, "shop").carried
    context.ledger.renew_lease(ANN, ENDED)
    assert not newest(context, "shop").carried


def test_a_rollout_that_goes_back_is_done_where_members_are_back(context: Context) -> None:
    """It comes from the replacement; who still runs that is left to do, who was never replaced is none of it."""
    seen = newest(context, "shop")
    replaced = replace(seen.members[0], phase=Phase.NEW, pinned="r.example/nginx@sha256:old")
    going_back(context, replaced)

    def shown() -> list[str]:
        found = status("shop", context)
        assert isinstance(found, StatusOutput)
        return lines(found, NOW)

    assert shown()[1].startswith("back from r.example/nginx (sha256:")
    assert shown()[3].endswith(" 0 of 1")
    context.ledger.save_member("r1-back", replaced.id, to_json(replace(replaced, phase=Phase.OLD)))
    assert shown()[3].endswith(" 1 of 1")


def test_whom_the_plan_left_alone_is_told_beside_the_members(context: Context) -> None:
    """With the reason, as the plan had it; what goes back is told without."""
    seen = newest(context, "shop")
    left = replace(seen.order, rollout="r2", plan=replace(seen.order.plan, skipped=(Skip("a/b/web-9", "protected"),)))
    context.ledger.save_rollout("r1", None, NOW, is_open=False)
    context.ledger.begin_rollout("r2", "shop", "ann:1", to_json(left), NOW)
    shown = status("shop", context)
    assert rows(shown)[-1] == ["web-9", "skipped", "protected"]
    assert [line.member for line in shown.skipped] == ["a/b/web-9"]
    going_back(context, replace(seen.members[0], phase=Phase.NEW))
    assert status("shop", context).skipped == ()


def test_in_a_rollout_that_is_over_no_member_waits() -> None:
    """Its turn never came, and never will; why it failed is told where no note is."""
    assert [meaning(Phase.PLANNED, stage) for stage in (RolloutStage.ROLLING, RolloutStage.ENDED)] == [
        "waiting",
        "not begun",
    ]
    assert {meaning(phase, RolloutStage.ENDED) for phase in Phase if phase is not Phase.PLANNED} == {
        meaning(phase, RolloutStage.ROLLING) for phase in Phase if phase is not Phase.PLANNED
    }
    assert MemberState("web-1", "web-1", failure="it is ill").said == "it is ill"
    assert MemberState("web-1", "web-1", note="put back", failure="it is ill").said == "put back"


def test_groups_that_go_back_are_told_so_too(context: Context) -> None:
    """They stand in the order beside members."""
    steps = (GroupStep(Group(SHOP, "shop", 4, 4), pacing(fleet().limits, 4, 4)),)
    there = Order("g1", replace(plan(fleet(), (), target(), NOW, grouped=True), groups=steps), fleet().limits)
    context.ledger.save_rollout("r1", None, NOW, is_open=False)
    for one in (there, replace(there, rollout="g1-back", back=(MemberState(SHOP, "shop"),))):
        context.ledger.begin_rollout(one.rollout, "shop", "ann:1", to_json(one), NOW)
        seen = newest(context, "shop")
        assert (seen.back, seen.waves, [member.name for member in seen.members]) == (bool(one.back), 1, ["shop"])
        context.ledger.save_rollout(one.rollout, None, NOW, is_open=False)


@pytest.mark.parametrize("part", ["all", "back"])
def test_a_rollout_of_groups_alone_that_an_older_version_made_can_be_read_and_go_back(
    context: Context, part: str
) -> None:
    """It had another order, with the pin of each group in it, and was told of group by group."""
    limits, pin = to_json(fleet().limits), '{"version": 3}'
    group, pace = to_json(Group(SHOP, "shop", 4, 4)), to_json(pacing(fleet().limits, 4, 4))
    one = {"rollout": "g1", "fleet": "shop", "group": group, "target": to_json(target()), "pacing": pace,
           "limits": limits, "part": part, "pinned": pin if part == "back" else ""}  # fmt: skip
    order = {"rollout": "g1", "fleet": "shop", "target": to_json(target()), "limits": limits, "groups": [one]}
    context.ledger.save_rollout("r1", None, NOW, is_open=False)
    context.ledger.begin_rollout("g1", "shop", "ann:1", order, NOW + timedelta(hours=1))
    context.ledger.save_rollout("g1", None, NOW, is_open=False)
    seen = newest(context, "shop")
    assert (seen.back, seen.waves, seen.replacement) == (part == "back", 1, target().reference)
    assert [(member.id, member.name) for member in seen.members] == [(SHOP, "shop")]
    context.ledger.save_member("g1", SHOP, to_json(MemberState(SHOP, "shop", Phase.NEW, pinned=pin)))
    back = order_back(newest(context, "shop"))
    assert (back.rollout, [one.pinned for one in back.back], len(back.plan.groups)) == ("g1-back", [pin], 1)


def test_what_a_group_ran_before_is_told_in_words() -> None:
    """Its pin is JSON; a member's is the reference of an image."""
    assert MemberState("a", "a", pinned='{"template": "lt-1", "version": 3}').before == "template lt-1, version 3"
    assert MemberState("b", "b", pinned="r/nginx@sha256:old").before == "r/nginx@sha256:old"


def going_back(context: Context, *members: MemberState) -> None:
    """The rollout is over, and these members go back."""
    order = newest(context, "shop").order
    assert isinstance(order, Order)
    context.ledger.save_rollout("r1", None, NOW, is_open=False)
    context.ledger.begin_rollout(
        "r1-back", "shop", "ann:1", to_json(replace(order, rollout="r1-back", back=members)), NOW
    )
    for one in members:
        context.ledger.save_member("r1-back", one.id, to_json(one))


def test_a_rollback_names_whom_it_would_bring_back(context: Context, capsys: pytest.CaptureFixture[str]) -> None:
    """Under way also whose old one is kept; where nobody of one that is over can go back, it offers nothing."""
    serving = replace(newest(context, "shop").members[0], phase=Phase.SERVING, pinned="r.example/nginx@sha256:old")
    context.ledger.save_member("r1", serving.id, to_json(serving))
    assert roll_back("shop", "", apply=False, context=context) == 0
    shown = capsys.readouterr()
    assert "r.example/nginx@sha256:old" in shown.out
    assert "roll.rollback shop --apply" in shown.err
    assert roll_back("shop", "", apply=False, as_json=True, context=context) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["rollout"], planned["state"], planned["failure"]) == ("r1", "planned", "")
    line = {"member": serving.name, "before": serving.pinned, "outcome": "", "note": ""}
    assert planned["members"] == [line]
    going_back(context, replace(serving, phase=Phase.OLD))
    context.ledger.save_rollout("r1-back", None, NOW, is_open=False)
    for apply in (False, True):
        with pytest.raises(RefusedError, match="r1-back: nothing to roll back"):
            roll_back("shop", "", apply=apply, context=context)
    assert capsys.readouterr() == ("", "")


def test_a_rollback_to_what_was_revoked_needs_a_reason(
    context: Context, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `image.rollback` does; the reason is in the history of the rollout. What is only old needs none."""

    @contextmanager
    def fleet_session(*_: Any) -> Iterator[None]:
        yield None

    gone = replace(newest(context, "shop").members[0], phase=Phase.OLD)
    ended = SimpleNamespace(members=(gone,), state=SimpleNamespace(failure=""))
    monkeypatch.setattr(rollout, "fleet_session", fleet_session)
    monkeypatch.setattr(rollout, "back", lambda *_: ended)
    old = f"sha256:{7:064x}"
    new = replace(newest(context, "shop").members[0], phase=Phase.NEW, pinned=f"r.example/nginx@{old}")
    context.ledger.save_member("r1", new.id, to_json(new))
    context.ledger.save_rollout("r1", None, NOW, is_open=False)
    context.ledger.record_release(
        Release("nginx", "r.example/nginx", old, f"sha256:{8:064x}", "", "", "", NOW, NOW, NOW)
    )
    assert roll_back("shop", "", apply=True, context=context) == 0
    context.ledger.revoke(old, "a back door", NOW)
    with pytest.raises(RefusedError, match="of shop would go back to what was revoked") as error:
        roll_back("shop", "", apply=True, context=context)
    assert error.value.evidence.endswith("was revoked: a back door")
    capsys.readouterr()
    assert roll_back("shop", "the new one loses data", apply=True, as_json=True, context=context) == 0
    went = json.loads(capsys.readouterr().out)
    assert (went["rollout"], went["state"], went["members"][0]["outcome"]) == ("r1-back", "ended", "old")
    assert [line.detail for line in told(context, "shop", "r1")] == ["the new one loses data"]


def test_the_history_of_a_fleet_is_none_of_another(context: Context) -> None:
    """Whoever takes a rollout for another fleet's is told whose it is."""
    context.ledger.audit(NOW, "ann", "step: swap web-1", "r1")
    assert [line.action for line in told(context, "shop", "r1")] == ["step: swap web-1"]
    for fleet_name, named, whose in (("web", "r1", "shop"), ("shop", "r2", "shop")):
        with pytest.raises(RefusedError, match=f"no rollout {named} of {fleet_name}") as refused:
            told(context, fleet_name, named)
        assert f"roll.history {whose} lists" in str(refused.value.hint)


def test_the_newest_rollout_is_read_without_those_before_it(context: Context) -> None:
    """A fleet that is rolled each week for years has thousands; a rollout's order names all its members."""
    context.ledger.begin_rollout("r0", "shop", "ann:1", {"unreadable": True}, NOW - timedelta(days=400))
    context.ledger.save_rollout("r0", None, NOW, is_open=False)
    assert next(history(context, "shop")).row.id == "r1"
    assert newest(context, "shop").row.id == "r1"
    state = RolloutState("r1", "shop", "r", NOW, 1, RolloutStage.ENDED)
    context.ledger.save_rollout("r1", to_json(state), NOW, is_open=False)
    assert newest(context, "shop").row.id == "r1"
