"""Drafts the files of Kubernetes, ECS and EKS fleets from existing services. Pure.

Each choice has a comment that says from what it was derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from images.model import Definition
from pipelines.fleet.delegated import Reach
from pipelines.fleet.docker.drafts import fitting
from pipelines.fleet.drafting import Draft, lacking, lacking_machine, slug
from pipelines.fleet.ecs import services
from pipelines.fleet.ecs.services import Service
from pipelines.fleet.eks import node_groups
from pipelines.fleet.eks.node_groups import NodeGroup
from pipelines.fleet.kubernetes import workloads
from pipelines.fleet.kubernetes.workloads import Workload
from pipelines.fleet.model import Ecs, Eks, Kubernetes

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"  # which kubectl itself goes by
Drafted = tuple[Draft, str]
"""The file of a fleet, and what its members become."""


@dataclass(frozen=True)
class UnadoptedInCluster:
    """A service or node group at AWS that is in no fleet. `golden`: the definition whose release its members run, empty
    where none is known here; `called` is the release as people call it. `home`: the account and region of the settings.
    """

    group: Service | NodeGroup
    place: Ecs | Eks
    home: tuple[str, str]
    golden: str = ""
    called: str = ""

    @property
    def source(self) -> str:
        """Where it was found."""
        return f"{self.group.called} of the cluster {self.place.cluster}"

    def set_place(self, draft: Draft, kind: str, key: str, many: str) -> None:
        """Where the fleet is, and by `key` the name of its one group, of which there are `many`."""
        draft.table(kind)
        draft.set("cluster", self.place.cluster)
        draft.set(key, [self.group.name], f"By its name; a selector would find {many} by their tags.")
        if (self.place.account, self.place.region) != self.home:
            draft.set("account", self.place.account)
            draft.set("region", self.place.region)


@dataclass(frozen=True)
class UnadoptedService(UnadoptedInCluster):
    """A service of ECS."""

    group: Service

    @property
    def container(self) -> str:
        """The container that is meant: the only one, or the first that its task cannot do without."""
        containers = self.group.revision.containers
        essential = (name for name, one in containers.items() if one.get("essential", True))
        return next(essential, next(iter(containers), ""))

    @property
    def image(self) -> str:
        """What that one is started from."""
        return self.group.revision.image(self.container)

    @property
    def left_alone(self) -> str:
        """Why a rollout would leave it alone; empty where it would not."""
        return services.forbids(replace(self.group, container=self.container))


@dataclass(frozen=True)
class UnadoptedNodeGroup(UnadoptedInCluster):
    """A managed node group. `left_alone`: why a rollout would skip it."""

    group: NodeGroup
    left_alone: str = ""

    @property
    def image(self) -> str:
        """What its nodes are started from."""
        return self.group.runs


@dataclass(frozen=True)
class UnadoptedWorkload:
    """A Kubernetes object that owns pods and is in no fleet. `golden` and `called` as for an UnadoptedInCluster."""

    group: Workload
    place: Kubernetes
    golden: str = ""
    called: str = ""

    @property
    def source(self) -> str:
        """Where it was found."""
        return f"{self.group.called} of the namespace {self.place.namespace}"

    @property
    def selector(self) -> dict[str, str]:
        """What its own controller tells its pods by; what they carry, where that is no list of labels."""
        return dict((self.group.spec.get("selector") or {}).get("matchLabels") or self.group.labels)

    @property
    def container(self) -> str:
        """The container that is meant: the only one, the one that kubectl would take, or the first."""
        annotations = (self.group.spec["template"].get("metadata") or {}).get("annotations") or {}
        named = str(annotations.get(DEFAULT_CONTAINER) or "")
        return named if named in self.group.containers else next(iter(self.group.containers), "")

    @property
    def image(self) -> str:
        """What that one is started from."""
        return self.group.containers.get(self.container, "")

    @property
    def left_alone(self) -> str:
        """Why a rollout would leave it alone; empty where it would not."""
        return workloads.obstacle(replace(self.group, container=self.container))


def service_fleet_draft(
    found: UnadoptedService, owner: str, replacement: str, known: Mapping[str, Definition]
) -> Drafted:
    """The fleet of a service, whose tasks become `replacement`, the definition that they run, or their tag."""
    service, draft = found.group, Draft()
    becomes, because = _becomes(found, replacement, known)
    definition = known.get(becomes)
    draft.begin_fleet(found.source, service.name, "ecs", owner)
    draft.set_replacement(becomes, because, definition, lacks=lacking(becomes, definition))
    found.set_place(draft, "ecs", "services", "services")
    _set_container(draft, found.container, service.revision.containers, "tasks")
    many = f"{service.desired} tasks"
    _limit_as(draft, service.called, many, services.reach_of(service), "raise minimumHealthyPercent")
    _tell_left_alone(draft, found)
    return draft, becomes


def workload_fleet_draft(
    found: UnadoptedWorkload, owner: str, replacement: str, known: Mapping[str, Definition]
) -> Drafted:
    """The fleet of an object, whose pods become `replacement`, the definition that they run, or their tag."""
    work, place, draft = found.group, found.place, Draft()
    becomes, because = _becomes(found, replacement, known)
    definition = known.get(becomes)
    draft.begin_fleet(found.source, work.name, "kubernetes", owner)
    draft.set("selector", found.selector, "What its own controller tells its pods by.")
    draft.set_replacement(becomes, because, definition, lacks=lacking(becomes, definition))
    draft.table("kubernetes")
    draft.set("kubeconfig", place.kubeconfig)
    draft.set("context", place.context)
    draft.set("namespace", place.namespace)
    _set_container(draft, found.container, work.containers, "pods")
    _limit_as(draft, work.called, f"{work.desired} pods", workloads.reach_of(work), "lower maxUnavailable")
    _tell_left_alone(draft, found)
    return draft, becomes


def node_fleet_draft(
    found: UnadoptedNodeGroup, owner: str, replacement: str, known: Mapping[str, Definition]
) -> Drafted:
    """The fleet of a node group, whose nodes become the definition `replacement`, or what they run."""
    node, draft = found.group, Draft()
    becomes = replacement or found.golden or slug(node.name)
    runs = f"Its nodes run {found.called}." if found.golden else "Its nodes run no release that is known here."
    definition = known.get(becomes)
    draft.begin_fleet(found.source, node.name, "eks", owner)
    because = "As --replacement says." if replacement else runs
    draft.set_replacement(becomes, because, definition, lacks=lacking_machine(becomes, definition))
    found.set_place(draft, "eks", "node_groups", "node groups")
    lower = "lower maxUnavailable in its updateConfig"
    _limit_as(draft, node.called, f"{node.desired} nodes", node_groups.reach_of(node), lower)
    _tell_left_alone(draft, found)
    return draft, becomes


def _becomes(
    found: UnadoptedService | UnadoptedWorkload, replacement: str, known: Mapping[str, Definition]
) -> tuple[str, str]:
    """What members become, and why: `replacement`, the definition whose release they run, or their tag."""
    image = found.image
    if replacement:
        return replacement, "As --replacement says."
    if found.golden:
        return found.golden, f"It runs {found.called}."
    if near := fitting(image, known):
        return near, f"It runs {image}, and {near} is the one definition of that name."
    if "@" not in image and ":" in image.rpartition("/")[2]:
        return image, f"It runs {image}, which no definition is called after: members become what that tag names."
    return slug(found.group.name), f"It runs {image}, which no definition is called after."


def _set_container(draft: Draft, chosen: str, containers: Mapping[str, object], members: str) -> None:
    """Which of the containers is rolled, where `members` have several."""
    if also := ", ".join(name for name in containers if name != chosen):
        draft.set("container", chosen, f"Its {members} also have {also}: those are judged, not rolled.")
        draft.todo.append(f"is {chosen} the container that becomes another? {also} stay")


def _limit_as(draft: Draft, called: str, many: str, reach: Reach, lower: str) -> None:
    """What the strategy of a group of so `many` does today, so that a plan is not refused for it; said, where that
    takes members away. `lower` says how it would take fewer.
    """
    draft.table("limits")
    if reach.missing:
        draft.set("max_unavailable", reach.missing, f"Of its {many} its strategy lets so many be missing.")
        draft.todo.append(f"{called} has {reach.missing} of {many} missing while it rolls: {lower}?")
    if reach.more > 1:
        draft.set("max_surge", reach.more, "As many new ones as its strategy lets run beside the old ones.")
    if reach.at_once > 1:
        draft.set("max_parallel", reach.at_once, "So many its strategy replaces at once.")
        draft.set("budgets", [{"nodes": reach.at_once}], "The same: the default of 10 % would allow fewer.")
    if not reach.missing and reach.at_once <= 1:
        draft.say("One new one beside the old ones at a time: the defaults fit its strategy.")


def _tell_left_alone(draft: Draft, found: UnadoptedService | UnadoptedWorkload | UnadoptedNodeGroup) -> None:
    if found.left_alone:
        draft.todo.append(f"{found.group.called} will be skipped: {found.left_alone}")
