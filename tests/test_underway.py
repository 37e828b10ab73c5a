"""Rollouts seen and told from outside."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.errors import ContentError, RefusedError
from hardening.foundation.settings import Settings
from images.context import Context
from pipelines.roll.underway import refuse_unasked, require_known
from pipelines.rollouts.state import RolloutState, Stage

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


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
        with pytest.raises(ContentError, match="no fleet is called shpo"):
            require_known(context, "shpo")


@pytest.mark.parametrize("stage", list(Stage))
def test_an_approval_is_taken_where_something_bakes_and_refused_elsewhere(stage: Stage) -> None:
    """Given before, it would be written down and have no effect."""
    state = RolloutState("r1", "shop", "shop:2", NOW, 1, stage)
    seen: Any = SimpleNamespace(row=SimpleNamespace(id="r1", fleet="shop"), state=state)
    if stage in ("baking", "approval", "paused"):
        return refuse_unasked(seen)
    with pytest.raises(RefusedError, match=f"r1 is {stage}: nothing of it waits for approval yet"):
        refuse_unasked(seen)
    return None
