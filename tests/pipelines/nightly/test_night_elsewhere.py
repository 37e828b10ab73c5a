"""What a night makes of images that another machine has built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.settings import Settings
from images.build.flow import BuildOutcome
from images.context import Context
from images.plan.build_plan import Action
from pipelines.nightly import image_stages, planning
from pipelines.nightly.image_stages import built
from pipelines.nightly.model import ImageJob, NightOrder

NOW = datetime(2026, 11, 27, 2, tzinfo=UTC)
NIGHT = NightOrder("night-1", NOW)
OLD, NEW = (f"sha256:{digit * 64}" for digit in "ab")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """A context whose ledger knows one content of the parent, which may lie on another machine."""
    context = Context(Settings(state=tmp_path), NOW, str, str, lenient=True)
    context.__dict__["parents"] = {"base": None, "web": "base"}
    with closing(context.ledger):
        yield context


@pytest.mark.parametrize(("digest", "action"), [(OLD, "unchanged"), (NEW, "failed")])
def test_a_parent_that_is_built_again_to_the_same_content_has_not_changed(
    digest: str, action: str, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine, or what a Dockerfile made, is in no registry; only other content is another parent."""
    known = {"base": SimpleNamespace(digest=OLD), "web": None}
    monkeypatch.setattr(context.ledger, "latest_artifact", lambda name, _platform: known[name])

    def build(_context: Context, _names: list[str]) -> list[BuildOutcome]:
        known["base"] = SimpleNamespace(digest=digest)
        return [BuildOutcome("base", Action.BUILT, digest), BuildOutcome("web", Action.BUILT, NEW)]

    monkeypatch.setattr(image_stages, "build", build)
    assert built(context, ImageJob(NIGHT, "web")).action == action


@pytest.mark.parametrize("fetches", [True, False])
def test_what_another_machine_built_is_fetched_before_it_is_work(
    fetches: bool, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would else have work in every night; a dry run fetches nothing."""
    here: set[str] = set()

    def plan(name: str) -> Any:
        return SimpleNamespace(name=name, action=Action.UNCHANGED if name in here else Action.BUILD)

    def brought(_context: Context, _upstream: object, wanted: Any) -> bool:
        if wanted.name in here:
            return False
        here.add(wanted.name)
        return True

    monkeypatch.setattr(planning, "brought", brought)
    found, planner = planning._Planned(context, NIGHT, NOW), SimpleNamespace(plan=plan, upstream=None)
    planning._plan_builds(found, planner, ["base", "web"], fetches=fetches)  # type: ignore[arg-type]
    actions = {name: one.action for name, one in found.plans.items()}
    assert actions == dict.fromkeys(["base", "web"], Action.UNCHANGED if fetches else Action.BUILD)
