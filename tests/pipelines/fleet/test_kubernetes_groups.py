"""Deployments, StatefulSets and DaemonSets are rolled to a digest by one patch, watched, held and taken back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
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
    assert len(at.kube.patches) == 1


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
