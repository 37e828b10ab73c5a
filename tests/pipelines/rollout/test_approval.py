"""Approvals: a plan that one person made and another approved, by the ledger's word, and one rollout that uses it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
from images.documents import to_json
from images.ledger import Ledger
from pipelines.cli import rollout
from pipelines.cli.rollout import approve
from pipelines.fleet.model import Approval, Fleet
from pipelines.rollout import service
from pipelines.rollout.approval import AS_OWNER, approve_plan, consented, file_plan, read_plan, told
from pipelines.rollout.approved_plan import FORM, ApprovedPlan, Present, digest, refuse_replanned, seal
from pipelines.rollout.plan import plan
from pipelines.rollout.plan_model import Skip
from pipelines.rollout.service import start
from pipelines.rollout.state import RolloutOutcome, RolloutStage, RolloutState
from pipelines.wiring import person
from tests.support.fleets import NOW, fleet, judged, target

KNOWN = [judged(f"web-{number}", "expired", zone="ab"[number % 2]) for number in range(4)]
WORLD = Present(fleet(), [one.member for one in KNOWN], target(), NOW)
FLEET = fleet().model_copy(update={"approval": Approval.REQUIRED})


def document(by: str = "ann@here", **limits: Any) -> ApprovedPlan:
    of = fleet(**limits)
    return seal(plan(of, KNOWN, target(), NOW), replace(WORLD, fleet=of), by)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite")) as opened:
        yield opened


def by(ledger: Ledger, actor: str) -> Any:
    """What approving needs of a context."""
    return SimpleNamespace(ledger=ledger, actor=actor, now=NOW)


def at(ledger: Ledger, actor: str = "ann@here", of: Fleet = FLEET) -> Any:
    """What starting needs of a session."""
    return SimpleNamespace(context=by(ledger, actor), fleet=of, now=lambda: NOW)


def filed(ledger: Ledger, folder: Path, made: ApprovedPlan | None = None) -> tuple[ApprovedPlan, Path]:
    """A plan that ann made, as `roll.plan --output` leaves it."""
    made = made or document()
    file_plan(by(ledger, made.made_by), made, folder / "plan.json")
    return made, folder / "plan.json"


def test_a_plan_that_replaces_nothing_is_no_file(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to approve; one that replaces something is written."""
    session = nullcontext(at(ledger))
    monkeypatch.setattr(rollout, "fleet_session", lambda *_: session)
    made, file = document(), tmp_path / "plan.json"
    for waves, written in (((), False), (made.plan.waves, True), ((), True)):
        one = seal(replace(made.plan, waves=waves), WORLD, "ann@here")
        monkeypatch.setattr(rollout, "plan_all", lambda *_, one=one: one)
        rollout.plan_roll("web", output=str(file), context=by(ledger, "ann@here"))
        assert file.exists() is written
    said = capsys.readouterr().err
    assert f"{file} was not written: the plan replaces nothing" in said
    assert f"{file} was not written, and what was there stays: the plan replaces nothing" in said


def begin(ledger: Ledger, made: ApprovedPlan, rollout: str = "r1", **how: Any) -> None:
    of = how.pop("of", FLEET)
    with consented(at(ledger, of=of), made, rollout, planned=how.pop("planned", True), **how):
        ledger.begin_rollout(rollout, "web", "me", {}, NOW)


def test_a_second_person_approves_and_one_rollout_begins_by_it(ledger: Ledger, tmp_path: Path) -> None:
    """Who made it, who approved it, when and by which digest stands in the ledger and in the rollout's history."""
    made, file = filed(ledger, tmp_path)
    with pytest.raises(RefusedError, match="no second person has approved this plan, made by ann@here") as error:
        begin(ledger, made)
    assert "./goldsmith roll.approve web --plan FILE" in error.value.hint
    approve_plan(by(ledger, "bob@there"), "web", file, "seen with ops")
    begin(ledger, made)
    line = ledger.plan_of("r1")
    assert line is not None
    assert (line.made_by, line.approved_by, line.approved_at, line.digest) == (
        "ann@here", "bob@there", NOW, digest(made),
    )  # fmt: skip
    audit = {one.action: one for one in ledger.audit_lines()}
    assert (audit["approve plan"].actor, "seen with ops" in audit["approve plan"].detail) == ("bob@there", True)
    assert audit["begin by plan"].subject == "r1"
    assert audit["begin by plan"].detail == told(line)
    with pytest.raises(RefusedError, match="the rollout r1 has used this plan already"):
        begin(ledger, made, "r2")
    with pytest.raises(RefusedError, match="the rollout r1 has used this plan already"):
        approve_plan(by(ledger, "carl@there"), "web", file)


def test_who_approves_reads_what(ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A digest alone tells a person nothing."""
    made, file = filed(ledger, tmp_path)
    approve("web", str(file), context=by(ledger, "bob@there"))
    said = capsys.readouterr()
    assert f"web to {made.plan.target.reference}" in " ".join(said.out.split())
    assert "4 members in " in said.out
    assert f"approved: {digest(made)}" in said.err


@pytest.mark.parametrize("actor", ["ann@here", "ann@elsewhere", "root (sudo by ann)@here"])
def test_who_made_a_plan_approves_it_from_nowhere(ledger: Ledger, tmp_path: Path, actor: str) -> None:
    """On another host, or as root by sudo, it is the same person."""
    _, file = filed(ledger, tmp_path)
    with pytest.raises(RefusedError, match="ann@here made this plan, so another user must approve it"):
        approve_plan(by(ledger, actor), "web", file)
    assert person("root (sudo by bob)@here") == "bob"
    assert person("root@here") == "root"


def test_a_file_does_not_say_who_made_it(ledger: Ledger, tmp_path: Path) -> None:
    """Written by hand with a right digest and another maker, it is a plan that the ledger does not know."""
    forged = replace(document(), made_by="bob@there", plan=replace(document().plan, floor=0))
    body = to_json(forged)
    file = tmp_path / "forged.json"
    file.write_text(json.dumps({"form": FORM, "digest": digest(forged), "sealed": body}))
    filed(ledger, tmp_path)
    with pytest.raises(RefusedError, match="this ledger knows no plan with that digest"):
        approve_plan(by(ledger, "ann@here"), "web", file)
    with pytest.raises(RefusedError, match="this ledger knows no plan with that digest"):
        begin(ledger, forged)


def test_a_plan_is_approved_once_in_time_and_for_its_fleet(ledger: Ledger, tmp_path: Path) -> None:
    """A second approval, a late one, and one for another fleet are refused."""
    made, file = filed(ledger, tmp_path)
    with pytest.raises(RefusedError, match="the plan is for the fleet web, not for shop"):
        approve_plan(by(ledger, "bob@there"), "shop", file)
    late = by(ledger, "bob@there")
    late.now = made.expires_at
    with pytest.raises(RefusedError, match="this plan was good until"):
        approve_plan(late, "web", file)
    approve_plan(by(ledger, "bob@there"), "web", file)
    with pytest.raises(RefusedError, match="approved already"):
        approve_plan(by(ledger, "carl@there"), "web", file)
    assert ledger.plan(digest(made)).approved_by == "bob@there"  # type: ignore[union-attr]


def test_without_a_plan_a_fleet_that_asks_for_approval_begins_only_as_its_owner(ledger: Ledger) -> None:
    """`--approve-as-owner` does without, and the audit and the history show it."""
    with pytest.raises(RefusedError, match="the fleet web requires an approval") as error:
        begin(ledger, document(), planned=False)
    assert "--approve-as-owner" in error.value.hint
    assert ledger.audit_lines() == ()
    begin(ledger, document(), planned=False, as_owner=True)
    line = ledger.plan_of("r1")
    assert line is not None
    assert (line.made_by, line.approved_by) == ("ann@here", "ann@here")
    assert [one.action for one in ledger.audit_lines()] == [AS_OWNER, "begin by plan"]


def test_no_later_start_uses_the_plan(ledger: Ledger, tmp_path: Path) -> None:
    """One start is one rollout, of members and of groups."""
    made, file = filed(ledger, tmp_path)
    approve_plan(by(ledger, "bob@there"), "web", file)
    begin(ledger, made, "r1")
    with pytest.raises(RefusedError, match="the rollout r1 has used this plan already"):
        begin(ledger, made, "r2")


@pytest.mark.parametrize("end", [OutsideError("somebody else has it"), KeyboardInterrupt()], ids=["refused", "Ctrl-C"])
def test_a_rollout_that_never_began_leaves_the_plan_unused(ledger: Ledger, tmp_path: Path, end: BaseException) -> None:
    """Such as one for which somebody else had the fleet: the approval still stands."""
    made, file = filed(ledger, tmp_path)
    approve_plan(by(ledger, "bob@there"), "web", file)
    with pytest.raises(type(end)), consented(at(ledger), made, "r1", planned=True):
        raise end
    begin(ledger, made, "r2")
    with pytest.raises(RefusedError, match="the rollout r2"), consented(at(ledger), made, "r3", planned=True):
        pytest.fail("it began")


def test_a_lost_answer_of_the_database_uses_up_no_plan(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had written down that the rollout uses it; that rollout never began, and the approval still stands."""
    made, file = filed(ledger, tmp_path)
    approve_plan(by(ledger, "bob@there"), "web", file)

    def lost(*asked: str) -> bool:
        assert Ledger.use_plan(ledger, *asked)
        raise OutsideError("no answer came")

    with monkeypatch.context() as away:
        away.setattr(ledger, "use_plan", lost)
        with pytest.raises(OutsideError, match="no answer came"):
            begin(ledger, made, "r1")
    begin(ledger, made, "r2")


@pytest.mark.parametrize("apply", [True, False])
def test_a_used_plan_is_called_used_and_not_outdated(ledger: Ledger, tmp_path: Path, apply: bool) -> None:
    """What has moved since is what its own rollout did."""
    made, file = filed(ledger, tmp_path)
    approve_plan(by(ledger, "bob@there"), "web", file)
    begin(ledger, made, "r1")
    ledger.save_rollout("r1", {}, NOW, is_open=False)
    with pytest.raises(RefusedError, match="the rollout r1 has used this plan already"):
        start(at(ledger), apply=apply, approved=made)


def test_a_fleet_that_asks_nobody_uses_each_plan_once_all_the_same(ledger: Ledger) -> None:
    """Without a file nothing is kept; by a file, the second start is refused."""
    free = fleet().model_copy(update={"approval": Approval.NONE})
    begin(ledger, document(), "r1", of=free, planned=False)
    begin(ledger, document(), "r2", of=free)
    with pytest.raises(RefusedError, match="the rollout r2 has used this plan already"):
        begin(ledger, document(), "r3", of=free)


def test_of_two_starts_at_once_one_uses_the_plan(ledger: Ledger, tmp_path: Path) -> None:
    """Both have seen it unused: the database lets one of them have it, and approves it once."""
    made, _ = filed(ledger, tmp_path)
    name = digest(made)
    assert [ledger.approve_plan(name, actor, NOW) for actor in ("bob", "carl")] == [True, False]
    assert [ledger.use_plan(name, rollout) for rollout in ("r1", "r2")] == [True, False]
    assert not ledger.use_plan("sha256:unknown", "r3")
    ledger.return_plan(name, "r2")
    assert ledger.plan_of("r1") is not None


FORGED = [
    ({"floor": 0}, "floor is 0 in the plan, and 4 by the fleet's file"),
    ({"desired": 9}, "desired is 9 in the plan, and 4 by the fleet's file"),
    ({"method": "in-place"}, "method is in-place in the plan, and surge"),
    ({"waves": document().plan.waves[:-1]}, "web-3 is to be replaced by the fleet's file, and not by the plan"),
    ({"waves": document().plan.waves[::-1]}, "the waves of the plan are not those that the fleet's file gives"),
    (
        {"waves": tuple(replace(wave, parallel=9) for wave in document().plan.waves)},
        "the waves of the plan are not those that the fleet's file gives",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), FORGED, ids=[said for _, said in FORGED])
def test_what_a_file_says_of_floor_waves_and_members_is_planned_again(change: dict[str, Any], said: str) -> None:
    """Whoever writes a file with a right digest still cannot begin more than the fleet's own file allows."""
    again = document().plan
    refuse_replanned(document(), again, WORLD)
    forged = replace(document(), plan=replace(again, **change))
    with pytest.raises(RefusedError, match="no longer fits") as error:
        refuse_replanned(forged, again, WORLD)
    assert said in error.value.evidence


def test_a_member_that_fell_ill_since_does_not_make_another_plan() -> None:
    """The order of the waves begins with those that did not serve then."""
    ill = [replace(one, member=replace(one.member, healthy=number != 3)) for number, one in enumerate(KNOWN)]
    world = replace(WORLD, members=[one.member for one in ill])
    made = seal(plan(fleet(), ill, target(), NOW), world, "ann@here")
    then = made.as_then(WORLD.members)
    assert [member.healthy for member in then] == [True, True, True, False]
    now = [replace(one, member=member) for one, member in zip(KNOWN, then, strict=True)]
    refuse_replanned(made, plan(fleet(), now, target(), NOW), WORLD)
    with pytest.raises(RefusedError):
        refuse_replanned(made, plan(fleet(), KNOWN, target(), NOW), WORLD)


def test_the_night_leaves_an_approved_plan_where_it_is(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would else be gone in the morning; one that is not right any more, or that is used, gives way to the next."""
    (tmp_path / "plans").mkdir()
    made, file = filed(ledger, tmp_path / "plans")
    file = file.rename(file.with_name("web.json"))
    night = at(ledger, "root@here")
    night.context.settings = SimpleNamespace(state_dir=tmp_path)
    night.same = lambda one: one
    monkeypatch.setattr(service, "plan_all", lambda *_, **_more: replace(made, made_by="root@here"))
    monkeypatch.setattr(service, "notifier", lambda _settings: lambda _message: None)
    approve_plan(by(ledger, "bob@there"), "web", file)
    waits = service._ask(night, "1 of 4 expired", apply=True)
    assert "; skipped:" not in waits.detail
    assert (waits.outcome, "its plan is approved" in waits.detail, "roll.approve" in waits.detail) == (
        "waits", True, False,
    )  # fmt: skip
    assert digest(read_plan(file)) == digest(made)

    def moved(_one: ApprovedPlan) -> ApprovedPlan:
        raise RefusedError("web-1 is gone")

    night.same = moved
    assert "roll.approve" in service._ask(night, "1 of 4 expired", apply=True).detail
    assert read_plan(file).made_by == "root@here"
    alone = replace(made.plan, skipped=(Skip("a/b/c/web-9", "it is protected"),))
    monkeypatch.setattr(service, "plan_all", lambda *_, **_more: replace(made, plan=alone))
    assert "1 of 4; skipped: web-9: it is protected; approval" in service._ask(night, "1 of 4", apply=True).detail


@pytest.mark.parametrize(("apply", "outcome"), [(False, "planned"), (True, "rolled")])
def test_what_an_automated_run_leaves_alone_is_told_beside_what_it_rolls(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, apply: bool, outcome: str
) -> None:
    """Its line is what a person reads in the morning."""
    made = replace(document().plan, skipped=(Skip("a/b/c/web-9", "it is protected"),))
    ended = RolloutOutcome(RolloutState("r1", "web", "r", NOW, 1, RolloutStage.ENDED, note="4 replaced"), ())
    monkeypatch.setattr(service, "check", lambda _at: KNOWN)
    monkeypatch.setattr(service, "start", lambda *_, **_more: (made, ended if apply else None))
    open_to_all = fleet().model_copy(update={"approval": Approval.NONE})
    line = service.automated(at(ledger, of=open_to_all), apply=apply)
    assert (line.outcome, line.detail.endswith("; skipped: web-9: it is protected")) == (outcome, True)
