"""What tests of Kubernetes fleets share: a cluster that answers, and its fleet under the ports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines.fleet.docker.container_spec import Json
from pipelines.fleet.kubernetes.cluster_client import ClusterClient
from pipelines.fleet.kubernetes.groups import WorkloadFleet
from pipelines.fleet.kubernetes.kubeconfig import access_of
from pipelines.fleet.kubernetes.members import NamespaceReader, PodFleet
from pipelines.fleet.members import ReplacementImage
from pipelines.fleet.model import Fleet
from pipelines.fleet.port import Group, Progress, Watched
from tests.strict_kube import NAMESPACE, StrictKube, running
from tests.support.fleets import target

ROLLOUT = "web-20260301120000-123456"
OLD = "r.example/web:1"


class Killed(BaseException):
    """The process ended."""


@dataclass
class Cluster:
    """A cluster, and a fleet of it as a process sees it; `begin_anew` is another process."""

    kube: StrictKube
    file: Path
    limits: dict[str, Any]
    container: str | None = None

    def __post_init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        place = {"kubeconfig": str(self.file), "context": "here", "namespace": NAMESPACE}
        place |= {"container": self.container} if self.container else {}
        self.fleet = Fleet.model_validate({
            "name": "web", "title": "The web servers", "owner": "platform team", "kind": "kubernetes",
            "selector": {"app": "web"}, "replacement": {"definition": "nginx"}, "limits": self.limits,
            "kubernetes": place,
        })  # fmt: skip
        self.client = ClusterClient(partial(access_of, self.fleet.kubernetes), timedelta(seconds=1))
        self.reader = NamespaceReader(self.fleet, self.client)
        self.users: dict[str, Json | None] = {}
        self.pods = PodFleet(self.reader, self.users.get)
        self.port = WorkloadFleet(self.fleet, self.reader, lambda: self.kube.now)

    @property
    def target(self) -> ReplacementImage:
        return target()

    @property
    def new(self) -> str:
        """The reference of the replacement."""
        return self.target.reference

    @property
    def group(self) -> Group:
        (found,) = self.port.groups()
        return found

    def follow(self, seconds: Callable[[], float]) -> None:
        """Let the cluster's clock go by the engine's."""
        began = self.kube.now
        self.kube.clock = lambda: began + timedelta(seconds=seconds())

    def marks(self) -> tuple[Any, ...]:
        """What tells one state of it from another."""
        pods = tuple(sorted((image, self.kube.serving(image)) for image in self.kube.running()))
        return len(self.kube.patches), pods

    def watch(self, group: Group, rollout: str = ROLLOUT) -> Watched:
        return self.port.watch(rollout, group)

    def until(self, group: Group, *wanted: Progress, rollout: str = ROLLOUT, seconds: int = 2000) -> Watched:
        """What its controller comes to."""
        for _ in range(seconds // 5):
            seen = self.port.watch(rollout, group)
            if seen.progress in wanted:
                return seen
            self.kube.pass_time(5)
        raise AssertionError(seen)


@contextmanager
def cluster(folder: Path, **limits: Any) -> Iterator[Cluster]:
    """A cluster that answers."""
    kube = StrictKube()
    with running(kube, folder):
        kube.clock = lambda: kube.now
        yield Cluster(kube, kube.kubeconfig(folder), limits)


@contextmanager
def killed_after(effects: int) -> Iterator[None]:
    """The process ends right after so many effects at the cluster, whose last answer it never sees."""
    real, left = ClusterClient._ask, [effects]

    def ask(self: ClusterClient, verb: str, *given: Any) -> Any:
        if verb == "GET":
            return real(self, verb, *given)
        if left[0] == 0:
            raise Killed
        answer = real(self, verb, *given)
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return answer

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ClusterClient, "_ask", ask)
        yield
