"""What `adopt` does with a Kubernetes namespace: shows its controllers, and drafts a fleet's file for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from hardening.foundation.errors import ContentError, UsageError, nearest
from images.context import Context
from pipelines.cli.adopt import KUBERNETES, AdoptLine, FoundLine, selected
from pipelines.cli.adopt_clouds import definitions, fleet_as_read, golden_of, told, written
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.delegated_drafts import UnadoptedWorkload, workload_fleet_draft
from pipelines.fleet.docker.images import registered
from pipelines.fleet.drafting import slug
from pipelines.fleet.kubernetes.cluster_client import ClusterClient
from pipelines.fleet.kubernetes.kubeconfig import access_of
from pipelines.fleet.kubernetes.members import NamespaceReader, PodFleet
from pipelines.fleet.kubernetes.workloads import Workload
from pipelines.fleet.members import Member
from pipelines.fleet.model import Fleet, FleetKind
from pipelines.fleet.unstepped import RemoteProvenance
from pipelines.wiring import image_context, person, root_for

Found = tuple[UnadoptedWorkload, tuple[Member, ...]]


def adopt_kubernetes(
    what: Sequence[str], *, kubeconfig: str, cluster: str, name: str = "", replacement: str = "", content: str = "",
    apply: bool = False, context: Context | None = None,
) -> list[AdoptLine]:  # fmt: skip
    """Draft the fleets of `kubernetes:NAMESPACE`, or of one object of it, `kubernetes:NAMESPACE/NAME`.

    `cluster` is the kubeconfig's context. With `apply` the files are written, never over others. Raises UsageError,
    ContentError, RefusedError where all of it is in fleets already, and OutsideError.
    """
    if len(what) > 1:
        raise UsageError(f"adopt: {len(what)} namespaces at once", hint="adopt one by one")
    if not kubeconfig or not cluster:
        hint = f"./goldsmith adopt {what[0]} --kubeconfig FILE --context NAME"
        raise UsageError("adopt: which cluster is meant?", hint=hint)
    context = context or image_context(looks=not apply)
    namespace, _, one = what[0].removeprefix(KUBERNETES).partition("/")
    found = _found(context, {"kubeconfig": kubeconfig, "context": cluster, "namespace": namespace}, one)
    if name and len(found) > 1:
        raise UsageError(f"--name {name}: {len(found)} objects are meant", hint="name one: kubernetes:NAMESPACE/NAME")
    root = root_for(context.settings, content)
    lines = [_drafted(each, context, root, name or called, replacement) for called, each in _called(found)]
    return written(context, lines) if apply else lines


def _found(context: Context, place: dict[str, str], wanted: str) -> list[Found]:
    """What keeps pods there and is in no fleet, with its pods. Raises RefusedError where none is left."""
    fleet = fleet_as_read("kubernetes", place, {"x": "x"})
    client = ClusterClient(partial(access_of, fleet.kubernetes), context.settings.retry_for)
    reader = NamespaceReader(fleet, client)
    with reader.understood():
        works = [one for one in reader.everything().values() if wanted in ("", one.name)]
        if not works:
            known = [one.name for one in reader.everything().values()]
            what = f"no Deployment, StatefulSet or DaemonSet {wanted}".rstrip()
            raise ContentError(f"{what} is in the namespace {place['namespace']}", hint=nearest(wanted, known))
        free = [one for one in works if not _owner(one, fleet, context)]
        if not free:
            raise selected(_owner(works[0], fleet, context), works[0].called)
        return [_described(one, client, place, context) for one in free]


def _owner(work: Workload, there: Fleet, context: Context) -> str:
    """The fleet that selects its pods already; empty where none does."""
    fleets = load_fleets(context.settings.roots).values()
    same = (
        one for one in fleets if one.kind is FleetKind.KUBERNETES and one.kubernetes.place == there.kubernetes.place
    )
    return next((one.name for one in same if one.selects(work.labels)), "")


def _described(work: Workload, client: ClusterClient, place: dict[str, str], context: Context) -> Found:
    """An object, with what is known of the images of its pods."""
    plain = UnadoptedWorkload(work, fleet_as_read("kubernetes", place, {"x": "x"}).kubernetes)
    fleet = fleet_as_read("kubernetes", {**place, "container": plain.container}, plain.selector)
    reader = NamespaceReader(fleet, client)
    members = PodFleet(reader, registered(context.registry, fleet)).seen().members
    ours = tuple(one for one in members if one.group == reader.group_id(work.kind, work.name))
    runs = golden_of(RemoteProvenance(fleet, context, (), context.now, context.registry), ours)
    return UnadoptedWorkload(work, plain.place, *runs), ours


def _called(found: Sequence[Found]) -> Iterator[tuple[str, Found]]:
    """Each with the name of its fleet, which has the kind where two objects are called alike."""
    names = [slug(each.group.name) for each, _ in found]
    for name, one in zip(names, found, strict=True):
        yield (f"{name}-{one[0].group.kind.lower()}" if names.count(name) > 1 else name), one


def _drafted(one: Found, context: Context, root: Path, name: str, replacement: str) -> AdoptLine:
    """What is told, with the text of the file."""
    found, members = one
    line = FoundLine(
        member=f"{found.group.kind} {found.group.name}",
        place=f"{found.place.context}/{found.place.namespace}",
        runs=found.called or f"{found.image} (unknown)",
        left_alone=found.left_alone,
    )
    drafted = workload_fleet_draft(found, person(context.actor), replacement, definitions(context))
    return told(
        context, root, name, drafted, found.source, [one.name for one in members], [line],
        "" if found.golden else "--adopt all",
    )  # fmt: skip
