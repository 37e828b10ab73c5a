"""`roll.auto` over several fleets: side by side, each to its own end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier

import pytest

from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError
from hardening.foundation.settings import Nightly, Settings
from images.context import Context
from pipelines.cli import auto_roll
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

    together: Barrier
    fails: dict[str, GoldsmithError] = field(default_factory=dict)
    began: list[str] = field(default_factory=list)

    def __call__(self, _context: Context, name: str) -> AutoLine:
        """Begin, wait for the others, and end."""
        self.began.append(name)
        self.together.wait(60)
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
    ill = RefusedError("too many are ill")
    rolled = Rolled(Barrier(3), {"tools": ill})
    monkeypatch.setattr(auto_roll, "bring_into_policy", rolled)
    lines, errors = auto_roll.auto_roll("all", apply=True, context=world(tmp_path, 3))
    ends = [("shop", "empty", ""), ("tools", "refused", "too many are ill"), ("web", "rolled", "")]
    assert [(one.fleet, one.outcome, one.detail) for one in lines] == ends
    assert ill in errors
    assert len(errors) == 2
    assert "shop: no member runs" in str(next(error for error in errors if error is not ill))


def test_so_many_at_a_time_as_the_settings_say_and_who_must_wait_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet that is frozen would keep its place for a day."""
    rolled = Rolled(Barrier(1), {"web": OutsideError("no engine")})
    monkeypatch.setattr(auto_roll, "bring_into_policy", rolled)
    lines, errors = auto_roll.auto_roll("*", apply=True, context=world(tmp_path, 1))
    assert rolled.began == ["tools", "web", "shop"]
    assert [(one.fleet, one.outcome) for one in lines] == [("shop", "empty"), ("tools", "rolled"), ("web", "failed")]
    assert len(errors) == 2
