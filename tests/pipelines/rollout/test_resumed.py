"""What an earlier process left is finished first; where it was stopped, failed or went back, nothing new begins."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.errors import RefusedError
from hardening.foundation.process import ROLLS
from hardening.foundation.settings import Settings
from images.context import Context
from images.documents import to_json
from images.ledger import CommandRow, Lease
from pipelines.cli import rollout
from pipelines.cli.rollout import roll_back, show_roll
from pipelines.cli.rollout_output import roll_output
from pipelines.fleet.model import Approval
from pipelines.rollout import service
from pipelines.rollout.plan import plan
from pipelines.rollout.rollout_store import newest
from pipelines.rollout.service import automated, start
from pipelines.rollout.session import FleetSession
from pipelines.rollout.state import Command, MemberState, Order, Phase, RolloutOutcome, RolloutStage, RolloutState
from tests.support.fleets import judged, target
from tests.support.forked import ended, start_forked
from tests.support.loop import until
from tests.support.sleeping import FLEET, NAMES, NOW, FileFleet, desk_on
from tests.support.sleeping import order as the_order

KNOWN = [judged(name, "expired") for name in NAMES]
MADE = plan(FLEET, KNOWN, target(29), NOW)
OLD = "r.example/nginx@sha256:old"
GOING = MemberState(KNOWN[0].member.id, NAMES[0], Phase.NEW, "id-web-1", OLD)


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FleetSession]:
    """A fleet of two members whose rollout r1 was begun by a process that is dead; each plan replaces both."""
    context = Context(Settings(state=tmp_path, database=f"sqlite:///{tmp_path}/ledger.sqlite"), NOW, str, str)
    FileFleet(tmp_path).lay_out()
    (tmp_path / "well").touch()
    desk = desk_on(context, tmp_path)
    monkeypatch.setattr(service, "check", lambda _at: KNOWN)
    monkeypatch.setattr(service, "plan_all", lambda *_, **__: SimpleNamespace(plan=MADE, adopt=()))
    monkeypatch.setattr(service, "consented", lambda *_, **__: nullcontext())
    with closing(context.ledger):
        yield replace(desk, fleet=FLEET.model_copy(update={"approval": Approval.NONE}))


def left_open(at: FleetSession, *commands: Command, back: bool = False) -> None:
    """The rollout that a dead process left, what people told it, and whether it is a way back."""
    order = replace(the_order(), rollout="r1-back", back=(GOING,)) if back else the_order()
    at.context.ledger.begin_rollout(order.rollout, FLEET.name, "ann:1", to_json(order), NOW)
    for said in commands:
        at.context.ledger.give_command(CommandRow(order.rollout, said, "ann", datetime.now(UTC)), "")


def executed(at: FleetSession, monkeypatch: pytest.MonkeyPatch, failure: str = "") -> list[str]:
    """The rollouts that are executed from now on: each ends at once, with this failure."""
    done = list[str]()

    def execute(_at: Any, order: Order, _until: Any = None) -> RolloutOutcome:
        done.append(order.rollout)
        if at.context.ledger.rollout(order.rollout):
            at.context.ledger.save_rollout(order.rollout, None, NOW, is_open=False)
        state = RolloutState(order.rollout, "web", "r", NOW, 1, RolloutStage.ENDED, note="2 done", failure=failure)
        return RolloutOutcome(state, ())

    monkeypatch.setattr(service, "execute", execute)
    return done


STOPS = [
    ((Command.ABORT,), False, "stopped by abort"),
    ((Command.ROLLBACK,), False, ""),
    ((Command.PAUSE, Command.ROLLBACK), False, ""),
    ((), False, "web-1 is ill"),
    ((), True, ""),
]


@pytest.mark.parametrize(("commands", "back", "failure"), STOPS)
def test_a_start_ends_with_what_was_stopped_or_failed_or_went_back(
    at: FleetSession, monkeypatch: pytest.MonkeyPatch, commands: tuple[Command, ...], back: bool, failure: str
) -> None:
    """Its plan and outcome are told, and the exit code is that of its failure; another start makes a new plan."""
    left_open(at, *commands, back=back)
    done = executed(at, monkeypatch, failure)
    made, outcome = start(at, apply=True)
    assert outcome
    assert (done, outcome.state.failure) == (["r1-back" if back else "r1"], failure)
    assert show_roll(roll_output(made, outcome), as_json=False) == (3 if failure else 0)
    start(at, apply=True)
    assert len(done) == 2


@pytest.mark.parametrize(("commands", "back", "failure"), STOPS)
def test_an_automated_run_ends_with_it_too(
    at: FleetSession, monkeypatch: pytest.MonkeyPatch, commands: tuple[Command, ...], back: bool, failure: str
) -> None:
    """Whatever the members are: what failed is never called compliant."""
    left_open(at, *commands, back=back)
    done = executed(at, monkeypatch, failure)
    well = [replace(one, reasons=()) for one in KNOWN]
    monkeypatch.setattr(service, "check", lambda _at: well if failure else KNOWN)
    if failure:
        with pytest.raises(RefusedError, match=f"r1: {failure}"):
            automated(at, apply=True)
    else:
        line = automated(at, apply=True)
        assert (line.outcome, line.rollout) == ("rolled", "r1-back" if back else "r1")
    assert len(done) == 1


@pytest.mark.parametrize("commands", [(), (Command.PAUSE, Command.RESUME), (Command.APPROVE,)])
@pytest.mark.parametrize("by_night", [False, True])
def test_after_a_rollout_that_went_well_a_new_plan_is_made(
    at: FleetSession, monkeypatch: pytest.MonkeyPatch, commands: tuple[Command, ...], by_night: bool
) -> None:
    """Those that it did not reach are replaced by the same command."""
    left_open(at, *commands)
    done = executed(at, monkeypatch)
    if by_night:
        automated(at, apply=True)
    else:
        start(at, apply=True)
    assert (done[0], len(done)) == ("r1", 2)


def test_of_several_that_were_left_the_one_that_failed_is_told() -> None:
    """Whichever was finished first."""

    def resumed(failure: str, *, stopped: bool) -> service.Resumed:
        state = RolloutState("r1", "web", "r", NOW, 1, failure=failure)
        return service.Resumed(the_order(), RolloutOutcome(state, ()), stopped)

    well, stopped, failed = resumed("", stopped=False), resumed("", stopped=True), resumed("ill", stopped=False)
    assert service.stops_here([well]) is None
    assert service.stops_here([well, stopped, failed]) is service.stops_here([failed, stopped]) is failed
    assert service.stops_here([stopped, well]) is stopped


def test_of_a_way_back_those_are_told_that_went_it(at: FleetSession, capsys: pytest.CaptureFixture[str]) -> None:
    """The plan that it goes back from has others, too."""
    state = RolloutState("r1-back", "web", "r", NOW, 1, RolloutStage.ENDED)
    roll = roll_output(MADE, RolloutOutcome(state, (replace(GOING, phase=Phase.OLD),)))
    assert [(step.member, step.outcome) for step in roll.steps] == [(GOING.id, Phase.OLD)]
    show_roll(roll, as_json=False)
    assert f"web: back from {MADE.target.reference.partition('@')[0]}" in capsys.readouterr().out


# -- on the real engine ------------------------------------------------------------------------------------------------


@contextmanager
def opened(at: FleetSession) -> Iterator[FleetSession]:
    yield at


@pytest.fixture
def rolled_back(at: FleetSession, monkeypatch: pytest.MonkeyPatch) -> FleetSession:
    """The fleet, for `roll.rollback`."""
    monkeypatch.setattr(rollout, "fleet_session", lambda *_: opened(at))
    monkeypatch.setattr(rollout, "check", lambda _at: KNOWN)
    return at


@pytest.mark.slow
def test_an_abort_that_finds_no_process_is_obeyed_by_the_next_start_which_replaces_nobody(at: FleetSession) -> None:
    """As `roll.abort` promises where it is typed."""
    left_open(at, Command.ABORT)
    _, outcome = start(at, apply=True)
    assert outcome
    assert (outcome.state.id, "stopped by abort" in outcome.state.failure) == ("r1", True)
    assert [row.id for row in at.context.ledger.rollouts("web")] == ["r1"]
    assert at.members.effects == []  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("told", [(), (Command.ROLLBACK,)], ids=["first", "again"])
def test_a_rollback_of_a_rollout_that_no_process_executes_is_executed_here(
    rolled_back: FleetSession, told: tuple[Command, ...]
) -> None:
    """Also where it was told before; nobody is left on the new version, so that it went well."""
    left_open(rolled_back, *told)
    assert roll_back("web", "", apply=True, context=rolled_back.context) == 0
    seen = newest(rolled_back.context, "web")
    assert (seen.row.open, [given.command for given in seen.commands]) == (False, ["rollback"])
    assert rolled_back.members.effects == []  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_way_back_that_no_process_executes_is_brought_to_its_end(
    rolled_back: FleetSession, capsys: pytest.CaptureFixture[str]
) -> None:
    """Typing roll.rollback again is enough, and tells it nothing; who is no longer what it was is named, with 3."""
    left_open(rolled_back, back=True)
    assert roll_back("web", "", apply=True, context=rolled_back.context) == 3
    seen = newest(rolled_back.context, "web")
    assert (seen.row.id, seen.row.open, seen.commands) == ("r1-back", False, ())
    assert "somebody else has changed it since" in capsys.readouterr().out


def test_a_rollback_of_a_rollout_that_a_process_executes_is_only_told(
    rolled_back: FleetSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It obeys within seconds."""
    left_open(rolled_back)
    monkeypatch.setattr(rollout, "go_on", lambda _at: pytest.fail("another process has it"))
    monkeypatch.setattr(rollout, "newest", lambda *_: replace(newest(rolled_back.context, "web"), carried=True))
    told = rollout.tell
    monkeypatch.setattr(rollout, "tell", lambda *words: replace(told(*words), carried=True))
    assert roll_back("web", "", apply=True, context=rolled_back.context) == 0
    assert capsys.readouterr().err.endswith("r1 was told to roll back; ./goldsmith roll.status web --watch shows it\n")


def test_who_rolls_back_what_only_a_lease_says_is_executed_learns_until_when(
    rolled_back: FleetSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a shared database one that was killed counts as alive for a minute, and ends nothing by itself."""
    left_open(rolled_back)
    lease = Lease("web", "ann:7", "r1", NOW)
    shared = rolled_back.context.settings.model_copy(update={"database": "postgresql+psycopg://db.example/goldsmith"})
    seen = replace(newest(rolled_back.context, "web"), carried=True, lease=lease)
    monkeypatch.setattr(rollout, "newest", lambda *_: seen)
    monkeypatch.setattr(rollout, "tell", lambda *_: seen)
    context = replace(rolled_back.context, settings=shared)
    context.__dict__["ledger"] = rolled_back.context.ledger
    assert roll_back("web", "", apply=True, as_json=True, context=context) == 0
    shown = capsys.readouterr()
    assert f"should ann:7 be dead: after {NOW:%H:%M:%S} UTC, ./goldsmith roll.start web --apply" in shown.err
    assert json.loads(shown.out)["state"] == "told"


def test_a_rollback_that_leaves_somebody_on_the_new_version_exits_with_3(
    rolled_back: FleetSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the reason."""
    left_open(rolled_back)
    ledger = rolled_back.context.ledger

    def go_on(_at: FleetSession) -> None:
        state = RolloutState(
            "r1", "web", "r", NOW, 1, RolloutStage.ENDED, failure="not all went back: web-1: it is away"
        )
        ledger.save_rollout("r1", to_json(state), NOW, is_open=False)
        ledger.save_member("r1", GOING.id, to_json(replace(GOING, phase=Phase.FAILED)))

    monkeypatch.setattr(rollout, "go_on", go_on)
    assert roll_back("web", "", apply=True, context=rolled_back.context) == 3
    assert "it failed: not all went back: web-1: it is away" in capsys.readouterr().err


def test_who_interrupts_a_rollout_is_told_how_it_goes_on(
    at: FleetSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Members may be half replaced at that moment."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    worker = SimpleNamespace(lose=lambda: None, execute=interrupted)
    monkeypatch.setattr("pipelines.durable.dbos.Worker", SimpleNamespace(launched=lambda *_, **__: nullcontext(worker)))
    monkeypatch.setattr(service, "_flows", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        service.execute(at, the_order())
    assert "interrupted, and r1 is not over: ./goldsmith roll.start web --apply continues it" in capsys.readouterr().err


def held(folder: str, command: str) -> None:
    """A command that rolls in a terminal, and begins to."""

    def begun(**_: Any) -> None:
        Path(folder, "begun").touch()
        while not Event().wait(0.05):  # a signal just before one wait that is endless would not end it
            pass

    signal.signal(signal.SIGINT, signal.default_int_handler)
    rollout.image_context = begun  # type: ignore[assignment]
    _ = rollout.roll_fleet("web", apply=True) if command == "roll.start" else roll_back("web", "", apply=True)


@pytest.mark.parametrize("command", ["roll.start", "roll.rollback"])
def test_ctrl_c_in_a_rollout_says_so_at_once_and_is_status_130(tmp_path: Path, command: str) -> None:
    """As in `roll.auto` and in nights."""
    printed = tmp_path / "printed"
    rolls = start_forked(held, str(tmp_path), command, stderr=printed)
    until((tmp_path / "begun").exists, "its start")
    os.kill(rolls.pid or 0, signal.SIGINT)
    assert ended(rolls) == 130, printed.read_text()
    assert printed.read_text() == f"interrupted: {ROLLS}\n"
