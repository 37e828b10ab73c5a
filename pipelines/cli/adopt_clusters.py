"""What `adopt` does with an ECS or EKS cluster: shows its services or node groups, and drafts a fleet for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardening.foundation.errors import ContentError, OutsideError, UsageError, nearest
from images.context import Context
from images.model import Definition
from pipelines.cli.adopt import AdoptLine, FoundLine, selected
from pipelines.cli.adopt_clouds import definitions, fleet_as_read, golden_of, only_place, told, written
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.delegated_drafts import (
    UnadoptedNodeGroup,
    UnadoptedService,
    node_fleet_draft,
    service_fleet_draft,
)
from pipelines.fleet.docker.images import registered
from pipelines.fleet.drafting import Draft, slug
from pipelines.fleet.ec2.provenance import AmiProvenance
from pipelines.fleet.ecs.members import ClusterReader, TaskFleet
from pipelines.fleet.ecs.services import Service
from pipelines.fleet.eks.groups import NodeGroupFleet
from pipelines.fleet.eks.members import NodeFleet, NodeReader
from pipelines.fleet.eks.node_groups import NodeGroup
from pipelines.fleet.members import Member
from pipelines.fleet.model import Ecs, Eks, Fleet, FleetKind
from pipelines.fleet.unstepped import RemoteProvenance
from pipelines.wiring import image_context, person, root_for

Group = Service | NodeGroup
Found = tuple[UnadoptedService | UnadoptedNodeGroup, tuple[Member, ...]]


@dataclass(frozen=True)
class ClusterKind:
    """One kind of cluster: what its groups are called, how they are read, described with their members, and drafted.

    `place`: where a fleet of the kind is, and the groups that it names.
    """

    kind: FleetKind
    one: str
    many: str
    example: str
    place: Callable[[Fleet], tuple[Ecs | Eks, Sequence[str]]]
    reader: type[ClusterReader | NodeReader]
    read: Callable[[Any, str], Group]
    described: Callable[[Any, Mapping[str, str], Context], Found]
    draft: Callable[[Any, str, str, Mapping[str, Definition]], tuple[Draft, str]]


def adopt_cluster(
    what: Sequence[str], *, name: str = "", replacement: str = "", content: str = "", regions: str = "",
    accounts: str = "", apply: bool = False, context: Context | None = None,
) -> list[AdoptLine]:  # fmt: skip
    """Draft the fleets of `ecs:CLUSTER` or `eks:CLUSTER`, or of one of their groups, as `ecs:CLUSTER/SERVICE`.

    With `apply` the files are written, never over others. Raises UsageError, ContentError, RefusedError where all of it
    is in fleets already, and OutsideError.
    """
    if len(what) > 1:
        raise UsageError(f"adopt: {len(what)} clusters at once", hint="adopt one by one")
    context = context or image_context(looks=not apply)
    prefix, _, words = what[0].partition(":")
    cluster, _, one = words.partition("/")
    kind, place = KINDS[prefix], {"cluster": cluster, **only_place(context, regions, accounts)}
    found = _found(kind, context, place, one)
    if name and len(found) > 1:
        raise UsageError(f"--name {name}: {len(found)} {kind.many} are meant", hint=f"name one: {kind.example}")
    root = root_for(context.settings, content)
    lines = [_drafted(kind, each, context, root, name, replacement) for each in found]
    return written(context, lines) if apply else lines


def _found(kind: ClusterKind, context: Context, place: Mapping[str, str], wanted: str) -> list[Found]:
    """The groups there that are in no fleet, with their members. Raises RefusedError where none is left."""
    every = kind.reader(fleet_as_read(kind.kind, place, {"x": "x"}), context.cloud)
    with every.understood():
        names = [str(one).rpartition("/")[2] for one in every.listed()]
        chosen = [kind.read(every, one) for one in names if wanted in ("", one)]
        if not chosen:
            what = f"no {kind.one} {wanted}".rstrip()
            raise ContentError(f"{what} is in the cluster {place['cluster']}", hint=nearest(wanted, names))
        owners = [_owner(kind, one, every, context) for one in chosen]
        if all(owners):
            raise selected(owners[0], chosen[0].called)
        return [kind.described(one, place, context) for one, owner in zip(chosen, owners, strict=True) if not owner]


def _owner(kind: ClusterKind, group: Group, at: ClusterReader | NodeReader, context: Context) -> str:
    """The fleet that selects a group already; empty where none does."""
    for fleet in load_fleets(context.settings.roots).values():
        if fleet.kind is not kind.kind:
            continue
        place, names = kind.place(fleet)
        there = place.account or context.cloud.aws.account, place.region or context.cloud.home, place.cluster
        meant = not names or group.name in names
        if there == (at.account, at.region, at.cluster) and meant and fleet.selects(group.tags):
            return fleet.name
    return ""


def _described_service(service: Service, place: Mapping[str, str], context: Context) -> Found:
    """A service, with what is known of the images of its tasks."""
    home = context.cloud.aws.account, context.cloud.home
    plain = UnadoptedService(service, fleet_as_read("ecs", place, {"x": "x"}).ecs, home)
    fleet = fleet_as_read("ecs", {**place, "services": [service.name], "container": plain.container}, {})
    members = TaskFleet(ClusterReader(fleet, context.cloud), registered(context.registry, fleet)).seen().members
    ours = tuple(one for one in members if one.group)
    runs = golden_of(RemoteProvenance(fleet, context, (), context.now, context.registry), ours)
    return UnadoptedService(service, plain.place, home, *runs), ours


def _described_nodes(node: NodeGroup, place: Mapping[str, str], context: Context) -> Found:
    """A node group, with what is known of the images of its nodes. Raises OutsideError where they cannot be read."""
    fleet = fleet_as_read("eks", {**place, "node_groups": [node.name]}, {})
    reader = NodeReader(fleet, context.cloud)
    seen = NodeFleet(reader).seen()
    if seen.unread:
        raise OutsideError(f"the nodes of {node.called} cannot be read", evidence=seen.unread[0].why)
    (group,) = NodeGroupFleet(fleet, reader, lambda: context.now).groups()
    runs = golden_of(AmiProvenance(fleet, context, (), context.now), seen.members)
    home = context.cloud.aws.account, context.cloud.home
    return UnadoptedNodeGroup(node, fleet.eks, home, *runs, group.cannot_roll), seen.members


def _drafted(kind: ClusterKind, one: Found, context: Context, root: Path, name: str, replacement: str) -> AdoptLine:
    """What is told, with the text of the file."""
    found, members = one
    line = FoundLine(
        member=found.group.called.removeprefix("the "),
        place=f"{found.place.account}/{found.place.region}/{found.place.cluster}",
        runs=found.called or f"{found.image} (unknown)",
        left_alone=found.left_alone,
    )
    drafted = kind.draft(found, person(context.actor), replacement, definitions(context))
    return told(
        context, root, name or slug(found.group.name), drafted, found.source, [one.name for one in members], [line],
        "" if found.golden else "--adopt all",
    )  # fmt: skip


KINDS: dict[str, ClusterKind] = {
    "ecs": ClusterKind(
        FleetKind.ECS, "service", "services", "ecs:CLUSTER/SERVICE", lambda fleet: (fleet.ecs, fleet.ecs.services),
        ClusterReader, ClusterReader.service, _described_service, service_fleet_draft,
    ),
    "eks": ClusterKind(
        FleetKind.EKS, "managed node group", "node groups", "eks:CLUSTER/GROUP",
        lambda fleet: (fleet.eks, fleet.eks.node_groups),
        NodeReader, NodeReader.node_group, _described_nodes, node_fleet_draft,
    ),
}  # fmt: skip
