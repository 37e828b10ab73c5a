"""A Kubernetes fleet from its file to its end: judged, planned, rolled on the durable engine, and taken back."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from hardening.foundation.errors import OutsideError, RefusedError
from hardening.foundation.process import run
from images.context import Context
from pipelines.cli.image import look_at_fleets
from pipelines.cli.rollout import show_roll
from pipelines.cli.rollout_output import markdown, roll_output
from pipelines.fleet.violations import Judged
from pipelines.rollout.rollout_store import newest
from pipelines.rollout.service import back, start
from pipelines.rollout.session import FleetSession, check, fleet_session
from pipelines.rollout.state import Phase
from pipelines.rollout.whole_plan import plan_all
from tests.images.registry.test_hostile_registry import Stage, sign
from tests.pipelines.fleet.test_kubernetes_groups import SURGE
from tests.pipelines.fleet.test_provenance import BASE, OTHER, Place
from tests.strict_kube import NAMESPACE, Ill, StrictKube, running
from tests.support.hostile import Reply, hostile
from tests.support.publishing import DAY, NOW

pytestmark = pytest.mark.needs("skopeo")
FLEET = """
title = "The web servers"
owner = "web team"
kind = "kubernetes"
selector = {{ app = "web" }}
replacement = {{ definition = "web" }}

[kubernetes]
kubeconfig = "{file}"
context = "here"
namespace = "{namespace}"

[limits]
min_healthy_time = "1s"
bake_time = "20s"
"""


@dataclass
class Town:
    """A registry with two releases of one image, a cluster that runs the older one, and the fleet's file."""

    place: Place
    kube: StrictKube
    context: Context
    old: str
    new: str

    @contextmanager
    def opened(self, name: str = "web") -> Iterator[FleetSession]:
        with fleet_session(name, self.context, now=lambda: self.kube.now) as at:
            yield at

    def checked(self) -> dict[str, Judged]:
        with self.opened() as at:
            return {one.member.name: one for one in check(at)}


def released(place: Place, layer: str, days: float, user: str = "") -> str:
    """Publish a release of `web` over a content, on that day, which sets that user; its reference by digest."""
    content = place.image(f"golden-{layer[-4:]}", (layer,), user)
    reference = place.stage.release(place.stage.child(content))
    sign(place.stage, reference)
    place.stage.server["/v2/web/manifests/stable"] = place.stage.server.routes["/v2/web/manifests/candidate"]
    found = place.stage.registry.get(reference)
    points = dict.fromkeys(("candidate", "stable"), found.digest)
    place.stage.channels(issued=NOW + days * DAY, expires=NOW + 60 * DAY, **points)
    made = place.origins()._published(place.stage.repository, found.digest) or pytest.fail("no release")
    place.context.ledger.record_release(replace(made, published_at=NOW + days * DAY))
    return reference


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    kube = StrictKube(now_at=NOW)
    with hostile() as server, running(kube, tmp_path):
        stage = Stage(server, tmp_path)
        place = Place(stage, Context(stage.settings, NOW, lambda: "", lambda: server.authority))
        with closing(place.context.ledger):
            old, new = released(place, OTHER, -3), released(place, BASE, -1)
            folder = tmp_path / "content/pipelines/fleets"
            folder.mkdir(parents=True)
            (folder / "web.toml").write_text(FLEET.format(file=kube.kubeconfig(tmp_path), namespace=NAMESPACE))
            settings = stage.settings.model_copy(update={"content": (tmp_path / "content",)})
            context = replace(place.context, settings=settings, actor="ann")
            context.__dict__.update(ledger=place.context.ledger, registry=stage.registry)
            tag = f"{stage.repository}:1"
            kube.controllers.digests[tag] = old.partition("@")[2]
            yield Town(place, kube, context, old, new)


def test_pods_are_judged_by_what_is_known_of_their_images(town: Town) -> None:
    """By the digest that their nodes run, whatever their tag says now; how they run is judged as of containers."""
    town.kube.add("Deployment", image=f"{town.place.stage.repository}:1", replicas=1, **SURGE)
    town.kube.pod("new", town.new)
    town.kube.pod("foreign", "r.example/other:1")
    judged = town.checked()
    (ours,) = [one for one in judged.values() if one.member.group]
    assert ours.rules == {"superseded"}
    assert judged["new"].rules == set()
    assert judged["foreign"].rules >= {"unknown", "approved_source"}
    assert ours.facts is not None
    recorded = {reason.rule for reason in ours.reasons}
    assert {"writable_root", "no_limits", "new_privileges"} <= recorded
    assert "no limit of pids" not in str(ours.reasons)


def test_a_cluster_that_denies_is_an_error_and_no_pass(town: Town) -> None:
    """Exit code 4."""
    town.kube.add("Deployment", image=town.old, **SURGE)
    town.kube.denied = {"list pods"}
    with town.opened() as at, pytest.raises(OutsideError):
        check(at)


def test_a_plan_names_what_its_controller_rolls_and_a_strategy_that_breaks_the_floor_is_refused(town: Town) -> None:
    """Before anything is done."""
    town.kube.add("Deployment", image=town.old, **SURGE)
    with town.opened() as at:
        (step,) = plan_all(at).plan.groups
        assert (step.group.name, step.group.cannot_roll, step.pacing.min_healthy_percent) == ("web", "", 100)
    town.kube.add("Deployment", "loose", town.old, replicas=4)
    with (
        town.opened() as at,
        pytest.raises(RefusedError, match=r"the Deployment loose .4 pods.: .*max_unavailable is 0"),
    ):
        plan_all(at)
    assert not town.kube.patches


@pytest.mark.needs("kubectl")
def test_what_gitops_keeps_is_left_alone_with_a_patch_that_kustomize_takes(town: Town, tmp_path: Path) -> None:
    """The plan shows the pull request; a rollout skips the object, and never patches it."""
    flux = {"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}
    made = town.kube.add("Deployment", image=town.old, metadata=flux, **SURGE)
    with town.opened() as at:
        planned, outcome = start(at, apply=True, as_owner=True)
    assert outcome is not None
    assert [one.phase for one in outcome.members] == [Phase.SKIPPED]
    assert "Flux (label kustomize.toolkit.fluxcd.io/name) owns it" in outcome.members[0].note
    assert (town.kube.patches, town.kube.image()) == ([], town.old)
    text = planned.groups[0].group.instead
    assert re.search(r"\n- .*web of 2026-11-2. \(sha256:[0-9a-f]{12}\).*superseded", text), text
    (tmp_path / "patch").mkdir()
    base = {key: value for key, value in made.items() if key != "status"}
    (tmp_path / "patch/base.yaml").write_text(json.dumps(base))
    name, _, patch = text.rpartition("goldsmith-")[2].partition(":\n\n")
    (tmp_path / "patch/p.yaml").write_text(patch)
    (tmp_path / "patch/kustomization.yaml").write_text('{"resources": ["base.yaml"], "patches": [{"path": "p.yaml"}]}')
    built = yaml.safe_load(run(["kubectl", "kustomize", "patch"], cwd=tmp_path).stdout)
    assert built["spec"]["template"]["spec"]["containers"] == [{"name": "web", "image": town.new}]
    assert name == "deployment-web.yaml"


def test_the_pull_request_is_shown_by_the_plan(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    """In the terminal as it is; in markdown as code, which nothing in it ends."""
    town.kube.add("Deployment", image=town.old, metadata={"annotations": {"argocd.argoproj.io/tracking-id": "x"}})
    with town.opened() as at:
        shown = roll_output(plan_all(at).plan, None)
    show_roll(shown, as_json=False)
    printed = capsys.readouterr().out
    assert "to merge for web, which is skipped:\n\nPull request: Roll Deployment web" in printed
    assert f'\n          image: "{town.new}"\n' in printed
    assert f'              image: "{town.new}"' in markdown(shown, "ann")


@contextmanager
def hurrying(kube: StrictKube, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forty of the cluster's seconds pass in each of ours, and the flow looks more often."""
    began, start_at = time.monotonic(), kube.now
    kube.clock = lambda: start_at + timedelta(seconds=40 * (time.monotonic() - began))
    monkeypatch.setattr("pipelines.rollout.group.BETWEEN_LOOKS", timedelta(seconds=0.1))
    yield
    kube.clock = lambda: kube.now


@pytest.mark.slow
@pytest.mark.parametrize("ill", [None, Ill.CRASHES])
def test_a_deployment_is_rolled_or_goes_back_by_itself(
    town: Town, monkeypatch: pytest.MonkeyPatch, ill: Ill | None
) -> None:
    """To the release by digest, and taken back by a person; or, ill, back to the digest that ran before."""
    town.kube.add("Deployment", image=f"{town.place.stage.repository}:1", **SURGE)
    if ill:
        town.kube.controllers.ill[town.new] = ill
    with hurrying(town.kube, monkeypatch), town.opened() as at:
        _, outcome = start(at, apply=True, as_owner=True)
        assert outcome is not None
        assert [one.phase for one in outcome.members] == [Phase.OLD if ill else Phase.NEW], outcome
        assert town.kube.image() == (town.old if ill else town.new)
        assert bool(outcome.state.failure) == bool(ill)
        if not ill:
            assert not [one for one in check(at) if one.violations]
            assert start(at, apply=True, as_owner=True)[1] is None
            done = back(at, newest(at.context, "web"))
            assert [one.phase for one in done.members] == [Phase.OLD], done
    assert town.kube.image() == town.old
    assert town.kube.running() == {town.old}


def test_nothing_is_pruned_while_the_registry_of_a_followed_tag_is_silent(town: Town) -> None:
    """The refusal names what does not answer, for whom, and what to do where it never will."""
    place, repository = town.place, town.place.stage.repository
    file = town.context.settings.content[0] / "pipelines/fleets/web.toml"
    file.write_text(file.read_text().replace('{ definition = "web" }', f'{{ follow = "{repository}:1" }}'))
    place.stage.server["/v2/web/manifests/1"] = Reply(b"{}", status=500)
    town.kube.add("Deployment", image=f"{repository}:1", replicas=5, **SURGE)
    with pytest.raises(OutsideError, match="the fleet web cannot be read, so nothing is pruned") as refused:
        look_at_fleets(town.context)
    pods = sorted(name for kind, name in town.kube.objects if kind == "pods")
    told = refused.value.evidence.splitlines()
    assert any(line.startswith(f"{', '.join(pods[:3])} and 2 more: its image could not be read: ") for line in told)
    assert f"{place.stage.server.authority} answers 500 for {repository}:1" in refused.value.evidence
    assert str(file) in str(refused.value.hint)
    assert "./goldsmith fleet.check web" in str(refused.value.hint)


@pytest.mark.slow
def test_a_deployment_follows_a_tag_of_others(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is rolled to what the tag names, by digest, and then there is nothing to do."""
    place, repository = town.place, town.place.stage.repository
    first, second = place.image("others-1", (OTHER,)), place.image("others-2", (BASE, OTHER))
    town.kube.controllers.digests[f"{repository}:1"] = first
    place.stage.server["/v2/web/manifests/1"] = place.stage.server.routes["/v2/web/manifests/others-2"]
    file = town.context.settings.content[0] / "pipelines/fleets/web.toml"
    follows = f'{{ follow = "{repository}:1", cooldown = "0s" }}'
    file.write_text(file.read_text().replace('{ definition = "web" }', follows))
    town.kube.add("Deployment", image=f"{repository}:1", **SURGE)
    with hurrying(town.kube, monkeypatch), town.opened() as at:
        assert all("superseded" in one.rules for one in check(at))
        _, outcome = start(at, apply=True, as_owner=True)
        assert outcome is not None
        assert [one.phase for one in outcome.members] == [Phase.NEW], outcome
        assert town.kube.running() == {f"{repository}@{second}"}
        assert not [one for one in check(at) if one.violations]
        assert start(at, apply=True, as_owner=True)[1] is None
