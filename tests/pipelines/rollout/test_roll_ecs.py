"""An ECS fleet from its file to its end: judged, planned, rolled on the durable engine, taken back; and adopted."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import ContentError, OutsideError, RefusedError, UsageError
from hardening.foundation.settings import Judging
from images.context import Context
from pipelines.cli.adopt import AdoptLine, in_cloud, show_adopted
from pipelines.cli.adopt_clusters import adopt_cluster
from pipelines.fleet.catalog import load_fleet
from pipelines.fleet.violations import Judged
from pipelines.rollout.rollout_store import newest
from pipelines.rollout.service import back, start
from pipelines.rollout.session import FleetSession, check, fleet_session
from pipelines.rollout.state import Phase
from pipelines.rollout.whole_plan import plan_all
from tests.images.registry.test_hostile_registry import Stage
from tests.pipelines.fleet.test_provenance import BASE, OTHER, Place
from tests.pipelines.rollout.test_roll_kubernetes import released
from tests.strict_aws import StrictAws
from tests.support import ecs
from tests.support.ecs import DEFINITION, TURN
from tests.support.hostile import hostile
from tests.support.publishing import NOW

pytestmark = pytest.mark.needs("skopeo")
FLEET = """
title = "The web servers"
owner = "web team"
kind = "ecs"
replacement = { definition = "web" }

[ecs]
cluster = "shop"
services = ["web"]

[limits]
min_healthy_time = "1s"
bake_time = "20s"
"""


@dataclass
class Town:
    """A registry with two releases of one image, a cluster that runs the older one, and the fleet's file."""

    place: Place
    at: ecs.Town
    context: Context
    old: str
    new: str

    @contextmanager
    def opened(self, name: str = "web") -> Iterator[FleetSession]:
        with fleet_session(name, self.context, now=lambda: NOW) as at:
            yield at

    def checked(self) -> dict[str, Judged]:
        with self.opened() as at:
            return {one.member.name: one for one in check(at)}

    def runs(self, image: str, name: str = "web", **more: Any) -> None:
        """A service that runs an image."""
        containers = [{**DEFINITION["containerDefinitions"][0], "image": image}]
        self.at.add(name, definition={"containerDefinitions": containers}, **more)


@pytest.fixture
def town(aws: StrictAws, tmp_path: Path) -> Iterator[Town]:
    with hostile() as server, ecs.town(aws, tmp_path / "cloud") as at:
        stage = Stage(server, tmp_path)
        place = Place(stage, Context(stage.settings, NOW, lambda: "", lambda: server.authority))
        with closing(place.context.ledger):
            old, new = released(place, OTHER, -3), released(place, BASE, -1)
            folder = tmp_path / "content/pipelines/fleets"
            folder.mkdir(parents=True)
            (folder / "web.toml").write_text(FLEET)
            settings = stage.settings.model_copy(update={"content": (tmp_path / "content",), "aws": at.cloud.aws})
            context = replace(place.context, settings=settings, actor="ann")
            context.__dict__.update(ledger=place.context.ledger, registry=stage.registry, cloud=at.cloud)
            aws.digests(**{f"{stage.repository}:1": old.partition("@")[2]})
            yield Town(place, at, context, old, new)


def test_tasks_are_judged_by_what_is_known_of_their_images(town: Town) -> None:
    """By the digest that runs, whatever their tag says now; how they run is judged as of containers."""
    town.runs(f"{town.place.stage.repository}:1", desiredCount=1, deploymentConfiguration={})
    (ours,) = town.checked().values()
    assert ours.rules == {"superseded"}
    assert ours.facts is not None
    recorded = {reason.rule for reason in ours.reasons}
    assert {"new_privileges"} <= recorded
    assert "writable_root" not in recorded
    town.at.client.update_service(cluster="shop", service="web", taskDefinition=town.at.register())
    town.at.aws.advance(60)
    (foreign,) = town.checked().values()
    assert foreign.rules >= {"unknown", "approved_source"}


def test_what_is_unread_is_told_and_nothing_is_planned(town: Town) -> None:
    """A service that its file names is not there."""
    found = town.checked()
    assert [(one.member.name.rpartition("/")[2], one.rules) for one in found.values()] == [("web", {"unread"})]
    town.runs(town.old, "other")
    file = town.context.settings.content[0] / "pipelines/fleets/web.toml"
    file.write_text(FLEET.replace('["web"]', '["web", "other"]'))
    with town.opened() as at, pytest.raises(OutsideError, match="not every service"):
        plan_all(at)


def test_a_plan_names_the_service_and_a_configuration_that_breaks_the_floor_is_refused(town: Town) -> None:
    """Before anything is done."""
    town.runs(town.old)
    with town.opened() as at:
        (step,) = plan_all(at).plan.groups
        assert (step.group.name, step.group.cannot_roll, step.pacing.min_healthy_percent) == ("web", "", 100)
    loose = {**TURN, "minimumHealthyPercent": 50}
    town.at.client.update_service(cluster="shop", service="web", deploymentConfiguration=loose)
    below = r"the ECS service web .3 tasks.: .*max_unavailable is 0"
    with town.opened() as at, pytest.raises(RefusedError, match=below):
        plan_all(at)
    assert town.at.effects("RegisterTaskDefinition") == 1


def test_one_that_code_deploy_rolls_is_left_alone_with_the_reason(town: Town) -> None:
    """A rollout skips it."""
    town.runs(town.old, deploymentController={"type": "CODE_DEPLOY"})
    with town.opened() as at:
        _, outcome = start(at, apply=True, as_owner=True)
    assert outcome is not None
    assert [one.phase for one in outcome.members] == [Phase.SKIPPED]
    assert "CODE_DEPLOY" in outcome.members[0].note
    assert town.at.effects("UpdateService") == 0


@contextmanager
def hurrying(at: ecs.Town, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forty of the emulator's seconds pass in each of ours, and the flow looks more often."""
    from pipelines.fleet.ecs.members import ClusterReader

    began, real = time.monotonic(), ClusterReader.service
    at.follow(lambda: 40 * (time.monotonic() - began))

    def service(self: ClusterReader, name: str) -> Any:
        at.catch_up()
        return real(self, name)

    monkeypatch.setattr(ClusterReader, "service", service)
    monkeypatch.setattr("pipelines.rollout.group.BETWEEN_LOOKS", timedelta(seconds=0.1))
    yield


@pytest.mark.slow
@pytest.mark.parametrize("ill", [False, True])
def test_a_service_is_rolled_or_goes_back_by_itself(town: Town, monkeypatch: pytest.MonkeyPatch, ill: bool) -> None:
    """To the release by digest, and taken back by a person; or, ill, back to the revision that ran before."""
    town.runs(town.old)
    if ill:
        town.at.aws.ail(town.new, "task")
    with hurrying(town.at, monkeypatch), fleet_session("web", town.context, now=town.at.now) as at:
        _, outcome = start(at, apply=True, as_owner=True)
        assert outcome is not None
        assert [one.phase for one in outcome.members] == [Phase.OLD if ill else Phase.NEW], outcome
        assert town.at.running() == {town.old if ill else town.new}
        assert bool(outcome.state.failure) == bool(ill)
        if not ill:
            assert start(at, apply=True, as_owner=True)[1] is None
            done = back(at, newest(at.context, "web"))
            assert [one.phase for one in done.members] == [Phase.OLD], done
    assert town.at.running() == {town.old}


# -- adopt -------------------------------------------------------------------------------------------------------------


def adopt(town: Town, what: str = "ecs:shop", **how: Any) -> list[AdoptLine]:
    """What is drafted into the town's own root, whose one fleet was taken away."""
    root = town.context.settings.content[0]
    (root / "pipelines/fleets/web.toml").unlink(missing_ok=True)
    town.context.__dict__["settings"] = town.context.settings.model_copy(update={"judging": Judging(roots=(root,))})
    return adopt_cluster([what], **how, context=town.context)


def test_each_service_becomes_a_fleet_and_a_plan_names_what_is_out_of_policy(town: Town) -> None:
    """By its name, within what its configuration does today; one that is in a fleet is not drafted again."""
    town.runs(town.old, "old", deploymentConfiguration={})
    town.runs(town.new, "new")
    shown = adopt(town)
    assert [(one.fleet, one.written, len(one.members)) for one in shown] == [("new", False, 3), ("old", False, 3)] or [
        (one.fleet, one.written, len(one.members)) for one in shown
    ] == [("old", False, 3), ("new", False, 3)]
    assert not list(town.context.settings.content[0].glob("pipelines/fleets/*"))
    written = adopt(town, apply=True)
    assert all(one.written and Path(one.files[0]).is_file() for one in written)
    old = load_fleet(town.context.settings.roots, "old")
    assert (old.ecs.cluster, old.ecs.services, old.replacement.definition) == ("shop", ("old",), "web")
    assert (old.limits.max_unavailable, old.limits.max_surge, old.limits.max_parallel) == (0, 3, 3)
    for name, groups in (("old", ["old"]), ("new", [])):
        with town.opened(name) as at:
            assert [one.group.name for one in plan_all(at).plan.groups] == groups
    with pytest.raises(RefusedError, match="the fleet old selects"):
        adopt(town, "ecs:shop/old")


def test_an_image_of_nobodys_is_followed_by_its_tag(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    """What a rollout would leave alone is said; a sidecar is a question."""
    assert in_cloud(["ecs:shop"], definition=False, engine="")
    side = {"name": "side", "image": "r.example/side:1", "essential": False}
    containers = [side, {**DEFINITION["containerDefinitions"][0], "image": "r.example/team/shop:1.2"}]
    town.at.add("shop", definition={"containerDefinitions": containers}, deploymentController={"type": "CODE_DEPLOY"})
    (line,) = adopt(town)
    assert 'replacement = { tag = "r.example/team/shop:1.2" }' in line.text
    assert 'container = "web"' in line.text
    assert line.next[-1] == "./goldsmith roll.plan shop --adopt all"
    assert "CODE_DEPLOY" in line.found[0].left_alone
    show_adopted([line], as_json=False)
    assert "ECS service shop" in capsys.readouterr().out
    assert json.loads(json.dumps(line.model_dump(mode="json")))["fleet"] == "shop"


@pytest.mark.parametrize(
    ("what", "how", "error", "said"),
    [
        ("ecs:shop/wbe", {}, ContentError, "did you mean web"),
        ("ecs:s hop", {}, ContentError, "a name such as shop"),
        ("ecs:shop", {"regions": "eu-central-1,us-east-1"}, UsageError, "a cluster is in one"),
    ],
)
def test_what_is_not_there_is_said(town: Town, what: str, how: Any, error: type[Exception], said: str) -> None:
    """With what may be meant."""
    town.runs(town.old)
    with pytest.raises(error) as raised:
        adopt(town, what, **how)
    assert said in str(raised.value)
