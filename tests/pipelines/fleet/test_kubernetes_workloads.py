"""How far a workload is, by what its controller and its pods say: each of these alone keeps it from being done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipelines.fleet.delegated import RollingState
from pipelines.fleet.kubernetes.pod_facts import PodContainer
from pipelines.fleet.kubernetes.workloads import (
    HOPELESS,
    MOST_RESTARTS,
    RollNote,
    RollState,
    Workload,
    obstacle,
    rolling,
)
from pipelines.fleet.port import Progress

Json = dict[str, Any]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEADLINE = timedelta(minutes=5)
OLD, NEW = (f"r.example/web@sha256:{digit * 64}" for digit in "12")
ALL_NEW: dict[str, Json] = {
    "Deployment": {"replicas": 3, "updatedReplicas": 3, "availableReplicas": 3},
    "StatefulSet": {"updatedReplicas": 3, "availableReplicas": 3, "currentRevision": "2", "updateRevision": "2"},
    "DaemonSet": {"desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 3},
}


def work(kind: str = "Deployment", **status: Any) -> Workload:
    """An object of three pods that names the new image; all of it is new and available, but for `status`."""
    spec: Json = {"replicas": 3, "template": {"spec": {"containers": [{"name": "web", "image": NEW}]}}}
    told = {"observedGeneration": 7, **ALL_NEW[kind], **status}
    return Workload(kind, {"metadata": {"name": "web", "generation": 7}, "spec": spec, "status": told}, "web")


def pod(image: str = NEW, *, ready: bool = True, since: timedelta = timedelta(), **status: Any) -> PodContainer:
    """A pod's container; not ready for `since`, where it is not."""
    at = (NOW - since).isoformat()
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": at}
    shown: Json = {"metadata": {"name": "web-1", "creationTimestamp": at}, "status": {"conditions": [condition]}}
    return PodContainer(shown, {"name": "web", "image": image}, {"ready": ready, **status})


def seen(of: Workload, *pods: PodContainer, state: RollState = RollState.NEW) -> RollingState:
    """One look, at three good pods where none are given."""
    return rolling(of, pods or (pod(),) * 3, RollNote("r", NEW, OLD, state), NOW, DEADLINE)


def waiting(reason: str) -> Json:
    return {"state": {"waiting": {"reason": reason, "message": "said so"}}}


@pytest.mark.parametrize("kind", ALL_NEW)
def test_all_of_it_is_new_and_serves(kind: str) -> None:
    """Nothing less is done."""
    assert (seen(work(kind)).done, seen(work(kind)).percent, seen(work(kind)).failed) == (True, 90, "")
    assert (seen(work(kind), pod(), pod()).done, seen(work(kind), pod(), pod()).percent) == (False, 60), (
        "one is missing"
    )
    assert not seen(work(kind), pod(), pod(), pod(OLD)).done, "one is of another image"
    assert not seen(work(kind), pod(), pod(), pod(ready=False)).done, "one does not serve"


def test_a_way_back_ends_with_all_of_it_or_with_what_is_ill() -> None:
    """Until then it goes on."""
    looks = [RollingState(done, 0, "", failed) for done, failed in ((True, ""), (False, "ill"), (False, ""))]
    assert [one.back for one in looks] == [Progress.ROLLED_BACK, Progress.FAILED, Progress.ROLLING_BACK]


LACKS: list[tuple[str, Json]] = [
    *((kind, {"observedGeneration": 6}) for kind in ALL_NEW),
    ("Deployment", {"replicas": 4}), ("Deployment", {"updatedReplicas": 2}), ("Deployment", {"availableReplicas": 2}),
    ("StatefulSet", {"currentRevision": "1"}), ("StatefulSet", {"updatedReplicas": 2}),
    ("StatefulSet", {"availableReplicas": 2}), ("DaemonSet", {"updatedNumberScheduled": 2}),
    ("DaemonSet", {"numberAvailable": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "status"), LACKS)
def test_what_its_controller_does_not_say_is_not_done(kind: str, status: Json) -> None:
    """However good its pods look."""
    assert not seen(work(kind, **status)).done


def test_a_controller_that_has_given_up_has_failed() -> None:
    """By its own deadline; what it says of anything else is not that."""
    over = {"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "too late"}
    for of in (work(conditions=[over], updatedReplicas=2), work(conditions=[{"type": "Available"}, over])):
        assert seen(of).failed == "the Deployment web: too late"
    assert seen(work(conditions=[{**over, "reason": "NewReplicaSetAvailable"}])).failed == ""


ILL: dict[str, tuple[Callable[[], PodContainer], str]] = {
    **{reason: (lambda reason=reason: pod(ready=False, **waiting(reason)), "cannot start") for reason in HOPELESS},
    "restarts": (lambda: pod(restartCount=MOST_RESTARTS), f"was started again {MOST_RESTARTS} times"),
    "unready": (lambda: pod(ready=False, since=DEADLINE + timedelta(seconds=1)), "is not ready for 5m"),
}  # type: ignore[misc]


@pytest.mark.parametrize("name", ILL)
def test_a_new_pod_that_comes_to_nothing_fails_it_and_an_old_one_does_not(name: str) -> None:
    """With the pod, and what its node says; what is only late is waited for."""
    ill, said = ILL[name]
    assert said in seen(work(updatedReplicas=2), pod(), ill()).failed
    old = PodContainer(ill().pod, {"name": "web", "image": OLD}, ill().status)
    assert seen(work(updatedReplicas=2), pod(), old).failed == ""
    late = pod(ready=False, since=DEADLINE, restartCount=MOST_RESTARTS - 1, **waiting("ImagePullBackOff"))
    assert seen(work(updatedReplicas=2), pod(), late).failed == ""


def test_what_goes_back_is_not_failed_by_restarts_of_long_ago() -> None:
    """And once all of it is back, by nothing."""
    restarted = pod(OLD, restartCount=9)
    assert seen(work(), pod(OLD), pod(OLD), restarted, state=RollState.BACK).failed == ""
    hopeless = pod(OLD, **waiting(HOPELESS[0]))
    assert seen(work(), *[hopeless] * 3, state=RollState.BACK).failed == ""
    assert "cannot start" in seen(work(updatedReplicas=2), hopeless, state=RollState.BACK).failed


@pytest.mark.parametrize("state", RollState)
def test_only_one_that_a_rollout_holds_may_be_touched_while_it_is_paused(state: RollState) -> None:
    """A note of a rollout that has ended says nothing of who has paused it since."""
    note = RollNote("r", NEW, OLD, state).text()
    of = work()
    of.shown["metadata"]["annotations"] = {"dev.goldsmith.rollout": note}
    of.shown["spec"]["paused"] = True
    assert bool(obstacle(of)) == (state is not RollState.HELD)
