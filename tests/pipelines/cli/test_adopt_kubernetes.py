"""`adopt` over a Kubernetes namespace: each object becomes a fleet's file, and a plan names what is out of policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import ContentError, RefusedError, UsageError
from hardening.foundation.settings import Judging
from images.documents import to_json
from pipelines.cli.adopt import AdoptLine, in_cloud, show_adopted
from pipelines.cli.adopt_kubernetes import adopt_kubernetes
from pipelines.fleet.catalog import load_fleet
from pipelines.rollout.session import fleet_session
from pipelines.rollout.whole_plan import plan_all
from tests.pipelines.fleet.test_kubernetes_groups import SURGE
from tests.pipelines.rollout.test_roll_kubernetes import Town, town

__all__ = ["town"]
pytestmark = pytest.mark.needs("skopeo")


def adopt(town: Town, what: str = "kubernetes:shop", **how: Any) -> list[AdoptLine]:
    """What is drafted into the town's own root, whose one fleet was taken away."""
    root = town.context.settings.content[0]
    (root / "pipelines/fleets/web.toml").unlink(missing_ok=True)
    settings = town.context.settings.model_copy(update={"judging": Judging(roots=(root,))})
    town.context.__dict__["settings"] = settings
    given = {"kubeconfig": str(root.parent / "kubeconfig"), "cluster": "here"}
    return adopt_kubernetes([what], **{**given, **how}, context=town.context)


def plan(town: Town, fleet: str) -> list[str]:
    """The groups that a rollout would roll."""
    with fleet_session(fleet, town.context, now=lambda: town.kube.now) as at:
        return [one.group.name for one in plan_all(at).plan.groups]


def test_each_object_becomes_a_fleet_and_a_plan_names_what_is_out_of_policy(town: Town) -> None:
    """By the labels that its own controller goes by, within what its strategy does today."""
    town.kube.add("Deployment", "old", town.old, replicas=4)
    town.kube.add("StatefulSet", "new", town.new)
    shown = adopt(town)
    assert [(one.fleet, one.written, len(one.members)) for one in shown] == [("old", False, 4), ("new", False, 3)]
    assert not list(town.context.settings.content[0].glob("pipelines/fleets/*"))
    assert [one.found[0].runs.partition(" ")[0] for one in shown] == ["web", "web"]
    written = adopt(town, apply=True)
    assert all(one.written and Path(one.files[0]).is_file() for one in written)
    old = load_fleet(town.context.settings.roots, "old")
    assert (old.selector, old.replacement.definition) == ({"part": "old"}, "web")
    assert (old.limits.max_unavailable, old.limits.max_surge, old.limits.max_parallel) == (1, 1, 2)
    assert (plan(town, "old"), plan(town, "new")) == (["old"], [])
    with pytest.raises(RefusedError, match="the fleet old selects"):
        adopt(town, "kubernetes:shop/old")


def test_an_image_of_nobodys_is_followed_by_its_tag(town: Town) -> None:
    """One that a definition here is called like becomes that."""
    town.kube.add("Deployment", "shop", "r.example/team/shop:1.2", **SURGE)
    (line,) = adopt(town)
    assert 'replacement = { tag = "r.example/team/shop:1.2" }' in line.text
    assert line.next[-1] == "./goldsmith roll.plan shop --adopt all"
    assert "the defaults fit its strategy" in line.text
    assert "max_unavailable" not in line.text


def test_what_would_be_left_alone_is_said_and_a_container_is_chosen(town: Town) -> None:
    """The one that kubectl takes by default; the others are a question."""
    containers = [{"name": "proxy", "image": "r.example/proxy:1"}, {"name": "web", "image": town.old}]
    template = {"spec": {"containers": containers},
                "metadata": {"annotations": {"kubectl.kubernetes.io/default-container": "web"}}}  # fmt: skip
    flux = {"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}
    town.kube.add("Deployment", image=town.old, metadata=flux, template=template, **SURGE)
    (line,) = adopt(town)
    assert 'container = "web"' in line.text
    assert any("is web the container" in todo for todo in line.todo)
    assert "Flux" in line.found[0].left_alone


def test_two_objects_that_are_called_alike_have_their_kinds_in_their_names(town: Town) -> None:
    """One name is one fleet."""
    town.kube.add("Deployment", "web", town.old, **SURGE)
    town.kube.add("StatefulSet", "web", town.old)
    assert [one.fleet for one in adopt(town)] == ["web-deployment", "web-statefulset"]
    with pytest.raises(UsageError, match="2 objects are meant"):
        adopt(town, name="x")


@pytest.mark.parametrize(
    ("what", "how", "error", "said"),
    [
        ("kubernetes:shop", {"cluster": ""}, UsageError, "which cluster is meant"),
        ("kubernetes:shop", {"cluster": "there"}, ContentError, "no context is called there"),
        ("kubernetes:shop/wbe", {}, ContentError, "did you mean web"),
        ("kubernetes:Shop", {}, ContentError, "a name such as shop"),
    ],
)
def test_what_is_not_there_is_said(
    town: Town, what: str, how: dict[str, str], error: type[Exception], said: str
) -> None:
    """With what may be meant."""
    town.kube.add("Deployment", "web", town.old, **SURGE)
    with pytest.raises(error) as raised:
        adopt(town, what, **how)
    assert said in str(raised.value)


def test_it_is_shown_with_what_to_do(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    """The file, what a person has to change, and what to type next."""
    town.kube.add("StatefulSet", "web", town.old)
    assert in_cloud(["kubernetes:shop"], definition=False, engine="")
    lines = adopt(town)
    show_adopted(lines, as_json=False)
    shown = capsys.readouterr().out
    assert "StatefulSet web" in shown
    assert "max_unavailable = 1" in shown
    assert to_json(tuple(lines))[0]["source"] == "the StatefulSet web of the namespace shop"
