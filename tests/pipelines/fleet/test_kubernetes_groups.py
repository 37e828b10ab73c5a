"""Deployments, StatefulSets and DaemonSets are rolled to a digest by one patch, watched, held and taken back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
from pipelines.fleet.delegated import Bakes
from pipelines.fleet.port import GroupPin, Progress
from tests.strict_kube import Ill
from tests.support.kube import OLD, ROLLOUT, Cluster, Killed, cluster, killed_after

LIMITS = {"bake_time": "30s", "min_healthy_time": "5s", "max_unavailable": 1, "max_parallel": 3}
KINDS = ["Deployment", "StatefulSet", "DaemonSet"]
SURGE = {"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, **LIMITS) as made:
        yield made


def begun(at: Cluster, kind: str = "Deployment", **more: Any) -> tuple[Any, GroupPin]:
    """An object that has begun to roll to the new image; its group, and its pin."""
    at.kube.add(kind, **(more or (SURGE if kind == "Deployment" else {})))
    group = at.group
    pinned = at.port.pin(group)
    at.port.begin(ROLLOUT, group, at.target, pinned, at.port.pace(group, 3))
    return group, pinned


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_rolled_to_the_digest_and_baked(at: Cluster, kind: str) -> None:
    """Done is when its controller says that all of it is new and available, and has been for the bake."""
    group, _ = begun(at, kind)
    assert (group.desired, group.healthy, group.cannot_roll, group.runs) == (3, 3, "", OLD)
    assert at.watch(group).progress is Progress.RUNNING
    began = at.kube.now
    seen = at.until(group, Progress.DONE)
    assert (seen.percent, at.kube.running()) == (100, {at.new})
    assert (at.kube.now - began).total_seconds() >= 30
    (patch,) = [path for verb, path in at.kube.requests if verb == "PATCH"]
    assert patch.endswith("?fieldManager=goldsmith&fieldValidation=Strict"), "what the API does not know is refused"


@pytest.mark.parametrize("ill", [Ill.CRASHES, Ill.GONE, Ill.NEVER_READY, Ill.LATER])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_image_fails_and_goes_back_to_the_pinned_digest(at: Cluster, kind: str, ill: Ill) -> None:
    """Also one that only ends while it bakes. The digest is the one that its pods ran under their tag."""
    at.kube.controllers.ill[at.new] = ill
    if ill is Ill.LATER:
        at.limits["bake_time"] = "2m"
        at.begin_anew()
    group, pinned = begun(at, kind)
    assert "@sha256:" in str(pinned.version)
    failed = at.until(group, Progress.FAILED)
    assert failed.text
    for _ in range(2):
        at.port.roll_back(ROLLOUT, group, pinned)
    assert at.watch(group).progress is Progress.ROLLING_BACK
    at.until(group, Progress.ROLLED_BACK)
    assert at.kube.running() == {str(pinned.version)}
    assert len(at.kube.patches) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_at_any_point_goes_on_to_the_same_end(at: Cluster, kind: str) -> None:
    """Killed after each change, whose answer nobody saw, there and back: each is made once."""
    at.kube.add(kind, **(SURGE if kind == "Deployment" else {}))
    group = at.group
    pinned = at.port.pin(group)
    pace = at.port.pace(group, 3)
    with pytest.raises(Killed), killed_after(1):
        at.port.begin(ROLLOUT, group, at.target, pinned, pace)
    at.begin_anew()
    at.port.begin(ROLLOUT, group, at.target, pinned, pace)
    at.until(group, Progress.DONE)
    at.begin_anew()
    assert at.watch(group).progress is Progress.RUNNING  # it bakes anew: a new process has seen nothing
    at.until(group, Progress.DONE)
    with pytest.raises(Killed), killed_after(1):
        at.port.roll_back(ROLLOUT, group, pinned)
    at.begin_anew()
    at.port.roll_back(ROLLOUT, group, pinned)
    at.until(group, Progress.ROLLED_BACK)
    assert len(at.kube.patches) == 2


@pytest.mark.parametrize("effects", [1, 2])
def test_the_broken_pods_of_a_statefulset_are_ended_in_whichever_process(at: Cluster, effects: int) -> None:
    """Its controller waits for a broken pod before it goes back, and would for ever."""
    at.kube.controllers.ill[at.new] = Ill.CRASHES
    group, pinned = begun(at, "StatefulSet")
    at.until(group, Progress.FAILED)
    with pytest.raises(Killed), killed_after(effects):
        at.port.roll_back(ROLLOUT, group, pinned)
    if effects == 1:
        at.kube.pass_time(300)
        assert at.watch(group).progress is Progress.ROLLING_BACK
    at.begin_anew()
    at.port.roll_back(ROLLOUT, group, pinned)
    at.until(group, Progress.ROLLED_BACK)
    assert len([verb for verb, _ in at.kube.requests if verb == "DELETE"]) == 1


def test_a_strategy_that_was_changed_since_the_plan_begins_nothing(at: Cluster) -> None:
    """Days may lie between: by now it would let the controller take all of the pods at once."""
    at.kube.add("Deployment", **SURGE)
    group = at.group
    pinned, pace = at.port.pin(group), at.port.pace(group, 3)
    at.kube.objects["deployments", group.name]["spec"]["strategy"] = {"type": "Recreate"}
    with pytest.raises(RefusedError, match=r"lets 3 be missing, but limits\.max_unavailable is 1"):
        at.port.begin(ROLLOUT, group, at.target, pinned, pace)
    assert at.kube.patches == []


def test_a_lost_answer_is_looked_for_and_found(at: Cluster) -> None:
    """The patch is not sent again before a look; the step that failed is, and finds it."""
    at.kube.add("Deployment", **SURGE)
    group, at.kube.lost = at.group, 1
    pinned = at.port.pin(group)
    with pytest.raises(OutsideError, match="does not answer"):
        at.port.begin(ROLLOUT, group, at.target, pinned, at.port.pace(group, 3))
    at.port.begin(ROLLOUT, group, at.target, pinned, at.port.pace(group, 3))
    assert len(at.kube.patches) == 1
    at.until(group, Progress.DONE)


def test_what_changes_at_the_same_time_is_looked_at_again(at: Cluster) -> None:
    """A patch names the version that was read: somebody scales, and both changes stay; or sets the image, and wins."""
    at.kube.add("Deployment", **SURGE)
    group = at.group
    pinned = at.port.pin(group)

    def meanwhile(change: Any) -> Any:
        def once() -> None:
            at.kube.before_patch = lambda: None
            spec = at.kube.objects["deployments", "web"]["spec"]
            change(spec)
            at.kube._touch(at.kube.objects["deployments", "web"])

        return once

    at.kube.before_patch = meanwhile(lambda spec: spec.update(replicas=4))
    at.port.begin(ROLLOUT, group, at.target, pinned, at.port.pace(group, 3))
    assert (at.kube.image(), at.kube.objects["deployments", "web"]["spec"]["replicas"]) == (at.new, 4)
    at.port.roll_back(ROLLOUT, group, pinned)
    other = "r.example/web:other"
    at.kube.before_patch = meanwhile(
        lambda spec: spec["template"]["spec"]["containers"].__setitem__(0, {"name": "web", "image": other})
    )
    with pytest.raises(RefusedError, match=r"but r\.example/web:1 was pinned"):
        at.port.begin(f"{ROLLOUT[:-1]}7", group, at.target, pinned, at.port.pace(group, 3))
    assert at.kube.image() == other
    assert (at.watch(group).progress, other in at.watch(group).text) == (Progress.FAILED, True)
    assert "somebody else" in at.port.way_back(ROLLOUT, group, pinned)
    with pytest.raises(RefusedError, match="somebody else"):
        at.port.roll_back(ROLLOUT, group, pinned)


def test_one_that_never_stands_still_is_not_patched(at: Cluster) -> None:
    """Each look is out of date at once: the step fails, and is tried again later."""
    at.kube.add("Deployment", **SURGE)
    group = at.group
    at.kube.before_patch = lambda: at.kube._touch(at.kube.objects["deployments", "web"])
    with pytest.raises(OutsideError, match="changes all the time"):
        at.port.begin(ROLLOUT, group, at.target, at.port.pin(group), at.port.pace(group, 3))
    assert not at.kube.patches


def test_a_patch_that_is_refused_is_not_sent_again(at: Cluster) -> None:
    """Only one that came too late is; the error says what refused it."""
    at.kube.add("Deployment", **SURGE)
    group, at.kube.denied = at.group, {"patch deployments"}
    with pytest.raises(OutsideError, match="cannot patch resource"):
        at.port.begin(ROLLOUT, group, at.target, at.port.pin(group), at.port.pace(group, 3))
    assert len([verb for verb, _ in at.kube.requests if verb == "PATCH"]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_its_controller_has_not_seen_yet_is_not_done(at: Cluster, kind: str) -> None:
    """Its status is still that of before, when all was well: there, and right away back."""
    group, pinned = begun(at, kind)
    seen = at.watch(group)
    assert (seen.progress, seen.text) == (Progress.RUNNING, "its controller has not seen the change yet")
    at.port.roll_back(ROLLOUT, group, pinned)
    assert at.watch(group).progress is Progress.ROLLING_BACK
    at.until(group, Progress.ROLLED_BACK)


def test_what_gitops_keeps_by_now_is_not_taken_back_either(at: Cluster) -> None:
    """It would be set to what the repository has, in the middle of it."""
    group, pinned = begun(at)
    at.kube.objects["deployments", "web"]["metadata"]["annotations"]["argocd.argoproj.io/tracking-id"] = "x"
    assert "Argo CD" in at.port.way_back(ROLLOUT, group, pinned)
    with pytest.raises(RefusedError, match="Argo CD"):
        at.port.roll_back(ROLLOUT, group, pinned)
    assert len(at.kube.patches) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_is_held_stops_and_goes_on_when_begun_again(at: Cluster, kind: str) -> None:
    """As pausing and resuming need; its strategy is what it was."""
    group, pinned = begun(at, kind)
    at.kube.pass_time(6)
    for _ in range(2):
        at.port.cancel(ROLLOUT, group, pinned)
    at.kube.pass_time(100)
    running = at.kube.running()
    assert (at.watch(group).progress, len(running)) == (Progress.CANCELLED, 2)
    strategy = {"spec": at.kube.patches[-1]["spec"]}
    assert "template" not in strategy["spec"]
    again = f"{ROLLOUT}-2"
    at.port.begin(again, group, at.target, pinned, at.port.pace(group, 3))
    at.until(group, Progress.DONE, rollout=again)
    spec = at.kube.objects[f"{kind.lower()}s", "web"]["spec"]
    assert (at.kube.running(), spec.get("paused")) == ({at.new}, None)
    assert spec.get("updateStrategy", {}).get("type", "RollingUpdate") == "RollingUpdate"
    assert spec.get("updateStrategy", {}).get("rollingUpdate", {}).get("partition", 0) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_is_held_goes_back(at: Cluster, kind: str) -> None:
    """A person aborted it, and takes it back later."""
    group, pinned = begun(at, kind)
    at.kube.pass_time(6)
    at.port.cancel(ROLLOUT, group, pinned)
    assert at.port.way_back(f"{ROLLOUT}-back", group, pinned) == ""
    at.port.roll_back(f"{ROLLOUT}-back", group, pinned)
    at.until(group, Progress.ROLLED_BACK, rollout=f"{ROLLOUT}-back")
    assert at.kube.running() == {str(pinned.version)} | ({OLD} if kind == "DaemonSet" else set()) - {OLD}


def test_one_that_nothing_was_begun_with_is_where_it_was(at: Cluster) -> None:
    """Taking it back, or stopping it, is nothing to do; what an earlier rollout asked is not this one's."""
    at.kube.add("Deployment", **SURGE)
    group = at.group
    pinned = at.port.pin(group)
    at.port.cancel(ROLLOUT, group, pinned)
    at.port.roll_back(ROLLOUT, group, pinned)
    assert at.watch(group).progress is Progress.ROLLED_BACK
    assert not at.kube.patches


STRATEGIES: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "missing": ("Deployment", {}, {"strategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}},
                "lets 1 be missing, but limits.max_unavailable is 0"),
    "default": ("Deployment", {}, {"replicas": 4}, "lets 1 be missing, but limits.max_unavailable is 0"),
    "recreate": ("Deployment", {"max_unavailable": 2}, {"strategy": {"type": "Recreate"}}, "lets 3 be missing"),
    "beside": ("Deployment", {}, {"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "100%"}}},
               "lets 3 run beside the old ones, but limits.max_surge is 1"),
    "at once": ("Deployment", {"max_surge": 3, "max_parallel": 2},
                {"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 3}}}, "replaces 3 at once"),
    "statefulset": ("StatefulSet", {}, {}, "the old ones are gone"),
    "daemonset": ("DaemonSet", {}, {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "50%"}}},
                  "lets 2 be missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_that_breaks_a_limit_is_refused(tmp_path: Path, name: str) -> None:
    """Its controller would do what the fleet's file forbids: the floor first."""
    kind, limits, more, said = STRATEGIES[name]
    with cluster(tmp_path, **limits) as at:
        at.kube.add(kind, **more)
        with pytest.raises(RefusedError) as refused:
            at.port.pace(at.group, 10)
        assert said in str(refused.value)


OBSTACLES: dict[str, tuple[str, dict[str, Any], str]] = {
    "paused": ("Deployment", {"paused": True}, "it is paused"),
    "on delete": ("DaemonSet", {"updateStrategy": {"type": "OnDelete"}}, "OnDelete"),
    "partition": ("StatefulSet", {"updateStrategy": {"rollingUpdate": {"partition": 2}}}, "partition 2"),
    "argo": ("Deployment", {"metadata": {"annotations": {"argocd.argoproj.io/tracking-id": "x"}}}, "Argo CD"),
    "argo by fields": ("Deployment", {"metadata": {"managedFields": [{"manager": "argocd-controller"}]}}, "Argo CD"),
    "flux": ("Deployment", {"metadata": {"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}}, "Flux"),
    "flux helm": ("StatefulSet", {"metadata": {"labels": {"helm.toolkit.fluxcd.io/name": "apps"}}}, "Flux"),
    "flux by fields": ("Deployment", {"metadata": {"managedFields": [{"manager": "helm-controller"}]}}, "Flux"),
    "rancher": ("Deployment", {"metadata": {"labels": {"objectset.rio.cattle.io/hash": "x"}}}, "Rancher"),
    "operator": ("StatefulSet", {"metadata": {"ownerReferences": [
        {"apiVersion": "x/v1", "kind": "Database", "name": "db", "uid": "1", "controller": True}]}}, "Database db"),
    "containers": ("Deployment", {"template": {"spec": {"containers": [
        {"name": "web", "image": OLD}, {"name": "proxy", "image": "r.example/proxy:1"}]}}}, "several containers"),
}  # fmt: skip


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_may_not_be_touched_says_why_and_is_never_patched(at: Cluster, name: str) -> None:
    """Whoever owns it would set it back, or it could not be rolled; also where that comes after the plan."""
    kind, more, said = OBSTACLES[name]
    at.kube.add(kind, **more)
    group = at.group
    assert said in group.cannot_roll
    pace = at.port.pace(group, 1)
    with pytest.raises(RefusedError, match=said):
        at.port.begin(ROLLOUT, group, at.target, at.port.pin(group), pace)
    assert not at.kube.patches


@pytest.mark.parametrize("name", OBSTACLES)
def test_only_for_what_gitops_keeps_there_is_something_to_merge(at: Cluster, name: str) -> None:
    """And where it is clear which container is meant."""
    kind, more, said = OBSTACLES[name]
    at.kube.add(kind, **more)
    text = at.port.instead(at.group, at.target, ["superseded"])
    assert bool(text) == (said in ("Argo CD", "Flux", "Rancher"))
    pair = {"spec": {"containers": [{"name": "web", "image": OLD}, {"name": "proxy", "image": OLD}]}}
    at.kube.objects.clear()
    at.kube.add("Deployment", metadata={"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}, template=pair)
    assert at.port.instead(at.group, at.target, ["superseded"]) == ""


def test_labels_of_helm_alone_are_no_gitops(at: Cluster) -> None:
    """Argo CD may track by a label that every chart sets: what it manages tells."""
    labels = {"app.kubernetes.io/instance": "web", "app.kubernetes.io/managed-by": "Helm"}
    at.kube.add("Deployment", metadata={"labels": labels}, **SURGE)
    assert at.group.cannot_roll == ""


def test_a_bake_that_a_pod_interrupts_begins_anew(at: Cluster) -> None:
    """A node that goes away makes nothing worse than late."""
    group, _ = begun(at)
    at.until(group, Progress.DONE)
    at.begin_anew()
    assert at.watch(group).percent == 90
    at.kube.pass_time(15)
    assert at.watch(group).percent == 95
    name = next(name for kind, name in at.kube.objects if kind == "pods")
    del at.kube.objects["pods", name]
    at.kube.pass_time(1)
    assert at.watch(group).percent < 90
    at.kube.pass_time(10)
    assert at.watch(group).percent == 90


def test_a_clock_that_jumps_bakes_nothing() -> None:
    """Nor does a machine that sleeps: what was not watched may have been ill."""
    now = [datetime(2026, 3, 1, 12, tzinfo=UTC)]
    bakes = Bakes(lambda: now[0])

    def after(span: timedelta) -> tuple[Progress, int]:
        now[0] += span
        seen = bakes.look("a/deployment/web", "new", 300, "all serve")
        return seen.progress, seen.percent

    assert after(timedelta()) == (Progress.RUNNING, 90)
    assert after(timedelta(hours=2)) == (Progress.RUNNING, 92)
    assert after(timedelta(days=-1)) == (Progress.RUNNING, 92)
    assert [after(timedelta(seconds=60))[0] for _ in range(4)] == [*[Progress.RUNNING] * 3, Progress.DONE]


def test_the_pin_is_what_most_pods_run_under_a_tag_that_moved(at: Cluster) -> None:
    """A tag names two images: rolling back goes to the one that most pods have."""
    moved = f"sha256:{7:064x}"
    at.kube.add("Deployment", **SURGE)
    before = at.port.pin(at.group)
    at.kube.controllers.digests[OLD] = moved
    victim = next(name for kind, name in at.kube.objects if kind == "pods")
    del at.kube.objects["pods", victim]
    at.kube.pass_time(10)
    assert at.port.pin(at.group) == before
    assert moved not in str(before.version)


def test_a_bake_that_is_no_progress_for_too_long_is_refused(tmp_path: Path) -> None:
    """The rollout would be taken back in the middle of it."""
    with cluster(tmp_path, bake_time="48h") as at:
        at.kube.add("Deployment", **SURGE)
        with pytest.raises(RefusedError, match="bake_time"):
            at.port.pace(at.group, 3)


@pytest.mark.parametrize(
    "said", ["", "x", "[]", "{}", '{"rollout": 3}', "[" * 9999, "strategy"], ids=lambda said: said[:10] or "empty"
)
def test_an_annotation_that_is_not_ours_says_nothing(at: Cluster, said: str) -> None:
    """Whoever may annotate may write anything."""
    note = {"rollout": ROLLOUT, "new": at.new, "old": OLD, "state": "held", "bake_seconds": 1, "strategy": "[1]"}
    text = json.dumps(note) if said == "strategy" else said
    at.kube.add("Deployment", metadata={"annotations": {"dev.goldsmith.rollout": text}}, **SURGE)
    assert at.watch(at.group).text == "nothing was begun"
