"""`roll.auto` over several fleets: side by side, each to its own end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Barrier

import pytest

from hardening.foundation import process
from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError
from hardening.foundation.settings import Nightly, Settings
from images.context import Context
from pipelines.cli import auto_roll, reap
from pipelines.durable.dbos import worker
from pipelines.rollout.service import AutoLine
from tests.support.fleets import NOW

FLEET = """title = "t"
owner = "web team"
kind = "docker"
selector = { app = "web" }
replacement = { definition = "nginx" }
"""
FROZEN = '[[limits.freezes]]\nfirst_day = 2026-01-01\nlast_day = 2027-01-01\nreason = "a year without changes"\n'


@dataclass
class Rolled:
    """In the place of what rolls one fleet: it waits for others, and may fail."""

    wait: Callable[[], object]
    fails: dict[str, BaseException] = field(default_factory=dict)
    began: list[str] = field(default_factory=list)
    over: int = 0
    most: int = 0

    def __call__(self, _context: Context, name: str) -> AutoLine:
        """Begin, wait for the others, and end."""
        self.began.append(name)
        self.most = max(self.most, len(self.began) - self.over)
        self.wait()
        self.over += 1
        if name in self.fails:
            raise self.fails[name]
        return AutoLine(fleet=name, outcome="empty" if name == "shop" else "rolled", detail="")


def world(folder: Path, parallel: int) -> Context:
    """Three fleets, of which the first by name may not be touched for a year."""
    fleets = folder / "content/pipelines/fleets"
    fleets.mkdir(parents=True)
    for name, more in (("shop", FROZEN), ("tools", ""), ("web", "")):
        (fleets / f"{name}.toml").write_text(FLEET + more)
    settings = Settings(state=folder, content=(folder / "content",), nightly=Nightly(parallel=parallel))
    return Context(settings, NOW, lambda: "", lambda: "")


def test_fleets_are_rolled_side_by_side_and_one_that_fails_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are under way at one moment; lines come in the fleets' order, and each thing that is wrong is an error."""
    ill, together = RefusedError("too many are ill"), Barrier(3)
    rolled = Rolled(lambda: together.wait(60), {"tools": ill})
    monkeypatch.setattr(auto_roll, "bring_into_policy", rolled)
    lines, errors = auto_roll.auto_roll("all", apply=True, context=world(tmp_path, 3))
    ends = [("shop", "empty", ""), ("tools", "refused", "too many are ill"), ("web", "rolled", "")]
    assert [(one.fleet, one.outcome, one.detail) for one in lines] == ends
    assert ill in errors
    assert len(errors) == 2
    assert "shop: no member runs" in str(next(error for error in errors if error is not ill))


def test_a_mistake_of_ours_in_one_fleet_is_that_fleets_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exit code of one, and where it happened; the others have their lines."""
    rolled = Rolled(lambda: None, {"tools": KeyError("image")})
    monkeypatch.setattr(auto_roll, "bring_into_policy", rolled)
    lines, errors = auto_roll.auto_roll("all", apply=True, context=world(tmp_path, 3))
    assert [(one.fleet, one.outcome) for one in lines] == [("shop", "empty"), ("tools", "failed"), ("web", "rolled")]
    assert lines[1].detail == "fleet tools failed because of a bug in Goldsmith: KeyError: 'image'"
    (mistake,) = (error for error in errors if error.exit_code == 1)
    assert "test_auto_roll.py" in mistake.evidence


def test_so_many_at_a_time_as_the_settings_say_and_who_must_wait_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet that is frozen would keep its place for a day."""
    rolled = Rolled(lambda: time.sleep(0.1), {"web": OutsideError("no engine")})
    monkeypatch.setattr(auto_roll, "bring_into_policy", rolled)
    lines, errors = auto_roll.auto_roll("*", apply=True, context=world(tmp_path, 1))
    assert (rolled.began, rolled.most) == (["tools", "web", "shop"], 1)
    assert [(one.fleet, one.outcome) for one in lines] == [("shop", "empty"), ("tools", "rolled"), ("web", "failed")]
    assert len(errors) == 2


def test_who_stops_it_is_told_what_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C lets the processes that roll end their step, as one that rolls a single fleet does."""
    assert process.LEAVE_SECONDS > worker.LEAVE_SECONDS
    monkeypatch.setattr(auto_roll, "bring_into_policy", Rolled(lambda: None, {"tools": KeyboardInterrupt()}))
    with pytest.raises(SystemExit, match=str(process.INTERRUPTED)):
        auto_roll.auto_roll("*", apply=True, context=world(tmp_path, 1))
    assert "./goldsmith roll.auto '*' --apply continues what is not over" in capsys.readouterr().err


def test_a_fleet_whose_file_was_deleted_during_its_rollout_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `roll.reap` too, since no file says where to look; both passed it over, and ended with 0."""
    monkeypatch.setattr(auto_roll, "bring_into_policy", Rolled(lambda: None))
    context = world(tmp_path, 1)
    context.ledger.begin_rollout("r1", "kiosk", "ann", {}, NOW)
    for names, apply in (("all", True), ("kiosk", True), ("kiosk", False)):
        lines, errors = auto_roll.auto_roll(names, apply=apply, context=context)
        assert [(one.fleet, one.outcome) for one in lines][:1] == [("kiosk", "failed")]
        assert_named(errors)
    alone = replace(context, settings=Settings(state=tmp_path))  # without other fleets, whose engine would be asked
    assert reap.reap_rollouts(apply=False, context=alone)[0] == []
    assert_named(reap.reap_rollouts(apply=False, context=alone)[1])
    context.ledger.close()


def assert_named(errors: list[GoldsmithError]) -> None:
    [error] = [error for error in errors if "kiosk" in error.message]
    assert (error.message, error.exit_code) == ("the file of kiosk is gone, and its rollout r1 is open", 2)
    assert error.hint == "put pipelines/fleets/kiosk.toml back, for example from git; then repeat the command"
