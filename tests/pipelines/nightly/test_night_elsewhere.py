"""What a night makes of images that another machine has built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import Settings
from images.build.flow import BuildOutcome
from images.context import Context
from images.plan.build_plan import Action
from pipelines.nightly import image_stages, planning, stages
from pipelines.nightly.image_stages import built
from pipelines.nightly.model import ImageAnswer, ImageJob, NightOrder, NightRecord
from pipelines.nightly.summary import image_line, output
from pipelines.shared_work import WorkerStages

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


def test_a_parent_that_cannot_be_built_again_fails_the_night(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own flow has ended well, elsewhere: no other line tells it."""
    error = OutsideError("the mirror does not answer")
    stopped = BuildOutcome("web", Action.FAILED, reasons=("its parent base failed",), error=error, stopped_by="base")
    monkeypatch.setattr(image_stages, "build", lambda *_: [BuildOutcome("base", Action.FAILED, error=error), stopped])
    answer = built(context, ImageJob(NIGHT, "web"))
    night = output(NightRecord(NIGHT, (), (ImageAnswer("base", "published"), answer), (), NOW))
    assert (night.exit_code, [one.parts for one in night.must_act]) == (4, [("image web",)])
    assert image_line(answer).detail == "its parent base failed; the mirror does not answer"


def test_a_worker_without_the_mirror_or_a_feed_tells_it(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds nothing to do by yesterday's index: nobody else would say so. Once, by its machine's name."""

    def silent(*_: object) -> tuple[str, str]:
        raise OutsideError("the mirror does not answer")

    monkeypatch.setattr(WorkerStages, "suites", lambda *_: ("trixie",))
    monkeypatch.setattr(WorkerStages, "_bootstrap", lambda *_: None)
    monkeypatch.setattr(stages, "_index", silent)
    monkeypatch.setattr(stages, "_feeds", lambda *_: ("kept", "", OutsideError("no newer data: kev")))
    monkeypatch.setattr(stages, "built", lambda _, job: ImageAnswer(job.name, "unchanged"))
    worker = WorkerStages(context)
    first, second = (worker.build(ImageJob(NIGHT, name)) for name in ("base", "web"))
    night = output(NightRecord(NIGHT, (), (first, second), (), NOW))
    host = gethostname()
    assert [one.parts for one in night.must_act] == [(f"index trixie on {host}", f"feeds trixie on {host}")]
    assert night.exit_code == 4


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
