"""An automated run waits for a day at most until it may touch a fleet: the night waits with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.settings import Settings
from images.context import Context
from pipelines.fleet.model import Approval
from pipelines.rollout import admission, service
from pipelines.rollout.plan import plan
from pipelines.rollout.service import WAITS, HeldBackError, automated, execute
from pipelines.rollout.state import Order, RolloutOutcome, RolloutStage, RolloutState
from tests.support.fleets import NOW, fleet, judged, target
from tests.support.sleeping import NAMES, FileFleet, desk_on

OPENS = datetime(2026, 3, 7, 22, tzinfo=UTC)  # a Saturday; NOW is the Sunday before
WEEKLY = [{"days": ["sat"], "start": "22:00", "end": "23:00"}]
QUICK = {"bake_time": "0s", "min_healthy_time": "1s", "settle": "0s", "drain": "0s"}
FREEZE = [{"first_day": "2026-02-20", "last_day": "2026-03-10", "reason": "holidays"}]


@pytest.mark.parametrize(
    ("limits", "now", "outcome", "told"),
    [
        ({"freezes": FREEZE}, NOW, "waits", "holidays, until 2026-03-11 00:00 UTC"),
        ({"windows": WEEKLY}, NOW, "waits", "no window of limits.windows is open, until 2026-03-07 22:00 UTC"),
        ({"windows": WEEKLY}, OPENS - WAITS, "rolled", "2 new"),
        ({"freezes": FREEZE}, datetime(2026, 3, 10, 2, tzinfo=UTC), "rolled", "2 new"),
    ],
)
def test_an_automated_run_begins_what_may_begin_within_a_day(
    monkeypatch: pytest.MonkeyPatch, limits: Any, now: datetime, outcome: str, told: str
) -> None:
    """Else it says until when, and the night goes on to its report."""
    of = fleet(**limits).model_copy(update={"approval": Approval.NONE})
    known = [judged(name, "expired") for name in NAMES]
    made = plan(of, known, target(29), now)
    ended = RolloutOutcome(RolloutState("r1", "web", "r", now, 1, RolloutStage.ENDED, note="2 new"), ())
    ledger = SimpleNamespace(open_rollouts=lambda _: (), rollout=lambda _: None)
    at: Any = SimpleNamespace(context=SimpleNamespace(ledger=ledger, actor="root"), fleet=of, now=lambda: now)
    monkeypatch.setattr(service, "check", lambda _at: known)
    monkeypatch.setattr(service, "plan_all", lambda *_, **__: SimpleNamespace(plan=made, adopt=()))
    monkeypatch.setattr(service, "consented", lambda *_, **__: pytest.MonkeyPatch.context())
    monkeypatch.setattr(service, "execute", lambda *_: ended)
    line = automated(at, apply=True)
    assert (line.outcome, told in line.detail) == (outcome, True), line.detail


@pytest.mark.slow
def test_a_rollout_whose_window_is_shut_for_days_is_left_to_the_run_that_finds_it_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On the real engine: nothing is touched, the lease is free, and a later process goes on where it stopped."""
    monkeypatch.setattr(admission, "LONGEST_SLEEP", timedelta(seconds=1))
    limits = fleet(**QUICK, windows=WEEKLY).limits
    made = plan(fleet(**QUICK, windows=WEEKLY), [judged(name, "expired") for name in NAMES], target(29), NOW)
    members = FileFleet(tmp_path)
    members.lay_out()
    (tmp_path / "well").touch()
    context = Context(Settings(state=tmp_path, database=f"sqlite:///{tmp_path}/ledger.sqlite"), NOW, str, str)
    desk = desk_on(context, tmp_path)
    with pytest.raises(HeldBackError, match=r"r1 is left open: .*until 2026-03-07 22:00 UTC"):
        execute(desk, Order("r1", made, limits), NOW + WAITS)
    assert [one.id for one in context.ledger.open_rollouts("web")] == ["r1"]
    assert (members.effects, context.ledger.lease("web")) == ([], None)
    later = replace(desk, now=lambda: OPENS + timedelta(minutes=1))
    outcome = execute(later, Order("r1", made, limits), OPENS + WAITS)
    assert (outcome.state.failure, [one.phase for one in outcome.members]) == ("", ["new", "new"])
