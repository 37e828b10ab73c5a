"""Edge: reads the pods of a fleet and their controllers; and a fleet whose members are not replaced one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from pipelines.fleet.delegated import GroupReader
from pipelines.fleet.docker.images import Configuration
from pipelines.fleet.kubernetes.cluster_client import ClusterClient, Json
from pipelines.fleet.kubernetes.pod_facts import PodContainer, containers_of, controller, facts_of, runs
from pipelines.fleet.kubernetes.workloads import KINDS, Workload
from pipelines.fleet.members import Member, Seen, protection
from pipelines.fleet.model import Fleet, claim
from pipelines.fleet.unstepped import FOREVER, ContainerMembers

APPS = "/apis/apps/v1/namespaces"
BESIDE = "the fleet rolls the container {0} of its pod: the owner of this one rolls it"
KEEPERS = "a Deployment, StatefulSet or DaemonSet"


@dataclass
class PodInventory:
    """All that a namespace holds of a fleet: workloads by group id, and each member with its container."""

    workloads: dict[str, Workload] = field(default_factory=dict)
    containers: dict[str, PodContainer] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    alone: list[Member] = field(default_factory=list)


class NamespaceReader(GroupReader):
    """The namespace of a fleet. A cluster that cannot be reached, or denies, raises OutsideError.

    `rivals`: the other fleets of the namespace.
    """

    def __init__(self, fleet: Fleet, client: ClusterClient, rivals: Sequence[Fleet] = ()) -> None:
        self.fleet = fleet
        self._rivals = rivals
        self.client = client
        self.api = client.access.server
        self.namespace = str(fleet.kubernetes.namespace)
        self.where = f"{client.access.name}/{self.namespace}"

    def path(self, kind: str, name: str = "") -> str:
        """The address of objects of a kind, or of one."""
        plural = KINDS.get(kind, kind)
        return "/".join(filter(None, [APPS, self.namespace, plural, quote(name, safe="")]))

    def pod_path(self, name: str = "") -> str:
        """The address of the pods, or of one."""
        return "/".join(filter(None, [f"/api/v1/namespaces/{self.namespace}/pods", quote(name, safe="")]))

    def workload(self, kind: str, name: str) -> Workload:
        """One object as it is now."""
        return self._workload(kind, self.client.get(self.path(kind, name)))

    def _workload(self, kind: str, shown: Json) -> Workload:
        return Workload(kind, shown, self._rolled(shown["spec"]["template"]["spec"]))

    def _rolled(self, spec: Json) -> str:
        """The container of such pods that is rolled: the named one, or the only one; empty where that is not clear."""
        names = [str(one["name"]) for one in spec["containers"]]
        return self.fleet.kubernetes.container or (names[0] if len(names) == 1 else "")

    def workloads(self) -> dict[str, Workload]:
        """The objects whose pods carry the fleet's labels, by group id."""
        return {name: one for name, one in self.everything().items() if self.fleet.selects(one.labels)}

    def everything(self) -> dict[str, Workload]:
        """All objects of the namespace that keep pods, by group id."""
        found = [self._workload(kind, shown) for kind in KINDS for shown in self.client.pages(self.path(kind))]
        return {self.group_id(one.kind, one.name): one for one in found}

    def group_id(self, kind: str, name: str) -> str:
        """The id of a workload as rollouts know it."""
        return f"{self.where}/{kind.lower()}/{name}"

    @property
    def _selector(self) -> str:
        return ",".join(f"{key}={value}" for key, value in sorted(self.fleet.selector.items()))

    def pods(self) -> list[Json]:
        """The pods that run with the fleet's labels."""
        pods = self.client.pages(self.pod_path(), labelSelector=self._selector)
        return [one for one in pods if runs(one) and self.fleet.selects(one["metadata"].get("labels"))]

    def keepers(self, pods: Iterable[Json]) -> Callable[[Json], str]:
        """Answers with the group that keeps a pod; a Deployment does so through a ReplicaSet."""
        through = dict[str, tuple[str, str]]()
        if any(controller(pod)[0] == "ReplicaSet" for pod in pods):
            sets = self.client.pages(self.path("replicasets"), labelSelector=self._selector)  # as their pods
            through = {str(one["metadata"]["name"]): controller(one) for one in sets}

        def keeper(pod: Json) -> str:
            kind, name = controller(pod)
            if kind == "ReplicaSet":
                kind, name = through.get(name, ("", ""))
            return self.group_id(kind, name) if kind in KINDS else ""

        return keeper

    def inventory(self) -> PodInventory:
        """All of it."""
        with self.understood():
            return self._inventory()

    def _inventory(self) -> PodInventory:
        found, pods = PodInventory(self.workloads()), self.pods()
        keeper = self.keepers(pods)
        for pod in pods:
            group = keeper(pod)
            work = found.workloads.get(group)
            # A pod may have more than its template: a mesh's proxy.
            rolled = work.container if work else self._rolled(pod["spec"])
            for one in containers_of(pod):
                member = self._member(one, group if work else "", rolled)
                found.containers[member.id] = one
                (found.members if member.group or rolled not in ("", one.name) else found.alone).append(member)
        return found

    def _member(self, one: PodContainer, group: str, rolled: str) -> Member:
        pod, ours = one.pod["metadata"], rolled in ("", one.name)  # where none is named, the object says so itself
        name = str(pod["name"]) if one.name == rolled else f"{pod['name']}:{one.name}"
        until, wrong = protection(self.fleet.limits.do_not_disrupt, pod.get("annotations") or {})
        kept = " ".join(controller(one.pod)).strip()
        alone = f"the {kept} keeps its pod" if kept else "nothing keeps its pod"
        why = f"the {_named(group)} rolls it" if group else f"{alone}, not {KEEPERS}: nothing here would start another"
        digest = one.digest or (one.image.rpartition("@")[2] if "@sha256:" in one.image else "")
        return Member(
            id=f"{self.where}/pod/{name}",
            name=name,
            handle=str(one.status.get("containerID") or pod.get("uid") or name),
            image=one.image,
            digests=(digest or one.image,),
            since=one.since,
            healthy=one.ready,
            protected_until=FOREVER if wrong else until,  # until somebody mends it
            cannot_roll=wrong or (why if ours else BESIDE.format(rolled)),
            exact=one.exact,
            group=group if ours else "",
            beside="" if ours else group,
            claimed_by=claim(self._rivals, pod.get("labels")),
        )


class PodFleet(ContainerMembers[PodContainer]):
    """The pods of a fleet. None of them is stepped: their controllers replace them, and nothing replaces the others."""

    def __init__(self, reader: NamespaceReader, configuration: Configuration) -> None:
        super().__init__(configuration, facts_of, "the API's answer")
        self.reader = reader

    def describe(self) -> tuple[Member, ...]:
        """The pods that nothing keeps, which are left alone."""
        return tuple(sorted(self._inventory().alone, key=lambda one: one.id))

    def seen(self, _group: str = "") -> Seen:
        """All containers of the fleet's pods. Raises OutsideError where the cluster cannot be read."""
        found = self._inventory()
        return Seen(tuple(sorted((*found.members, *found.alone), key=lambda one: one.id)))

    def _inventory(self) -> PodInventory:
        found = self.reader.inventory()
        self._last.update(found.containers)
        return found


def _named(group: str) -> str:
    """What keeps a pod, as people call it, by the group's id."""
    kind, name = group.split("/")[-2:]
    return f"{next(one for one in KINDS if one.lower() == kind)} {name}"
