"""The reapers: orphans of killed runs at AWS and of rollouts; removed on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, assert_never

from hardening.foundation.errors import GoldsmithError
from hardening.foundation.grouping import by_key
from images.context import Context
from images.documents import from_json
from images.ledger import Ledger
from pipelines.cli.image_output import told_of
from pipelines.contract import Line
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.model import Fleet, FleetKind
from pipelines.fleet.orphans import Orphan, OrphanSource, OwnerStatus, Reaping, decide
from pipelines.rollout.rollout_store import file_is_gone, without_file
from pipelines.rollout.state import MemberState, Phase
from pipelines.wiring import clock, fleet_host, image_context

if TYPE_CHECKING:
    from images.aws.reaping import AwsReaping, TaggedResource

REAP_COLUMNS = {"what": "kind", "where": "where", "image": "name", "action": "action", "because": "why"}


class ReapLine(Line):
    """`image.reap` and `roll.reap`: one thing that nothing owns, and what happens to it: keep, remove, removed."""

    kind: str
    where: str
    name: str
    action: str
    why: str


def reap_images(*, apply: bool) -> list[ReapLine]:
    """What killed runs left at AWS, and what becomes of it."""
    from images.aws.reaping import reap as reap_aws

    found = reap_aws(image_context(looks=not apply).cloud, apply=apply)
    return [_line(one.found, one.found.where, one, apply=apply) for one in found]


def _line(thing: TaggedResource | Orphan, where: str, end: AwsReaping | Reaping, *, apply: bool) -> ReapLine:
    action = ("removed" if apply else "remove") if end.remove else "keep"
    return ReapLine(kind=thing.kind, where=where, name=thing.name, action=action, why=end.why)


OpenSource = Callable[[], OrphanSource]


def orphan_sources(context: Context) -> tuple[tuple[str, OpenSource], ...]:
    """Every place where the fleets of this installation are, by name, and what opens it."""
    fleets = by_key((fleet.kind, fleet) for fleet in load_fleets(context.settings.roots).values())
    return tuple(source for kind in FleetKind if kind in fleets for source in _sources(kind, fleets[kind], context))


def _sources(kind: FleetKind, fleets: Sequence[Fleet], context: Context) -> Iterator[tuple[str, OpenSource]]:
    match kind:
        case FleetKind.DOCKER:
            from pipelines.fleet.docker.connecting import open_host
            from pipelines.fleet.docker.orphans import DockerOrphanSource, HoldOrphanSource

            yield "this machine", HoldOrphanSource
            if not all(fleet.docker.hosts for fleet in fleets):
                yield "the engine for fleets", lambda: DockerOrphanSource(fleet_host(context))
            connect = partial(open_host, ways=context.settings.docker)
            for host in dict.fromkeys(host for fleet in fleets for host in fleet.docker.hosts):
                yield host, partial(DockerOrphanSource, host, connect)
        case FleetKind.EC2:
            from pipelines.fleet.ec2.members import regions_of
            from pipelines.fleet.ec2.orphans import Ec2OrphanSource

            def at_aws() -> OrphanSource:
                regions = dict.fromkeys(region for fleet in fleets for region in regions_of(fleet, context.cloud))
                return Ec2OrphanSource(context.cloud.clients, regions, context.ledger)

            yield "EC2", at_aws
        case FleetKind.KUBERNETES | FleetKind.ECS | FleetKind.EKS:
            return  # what rollouts start there, the object, service or node group that it belongs to owns
        case _:
            assert_never(kind)


def reap(
    over: Iterable[OrphanSource], ledger: Ledger, now: datetime, actor: str, *, apply: bool
) -> tuple[Reaping, ...]:
    """All that no rollout owns, and what becomes of it. Raises OutsideError where a source cannot be read."""
    found = [
        (source, reaping)
        for source in over
        for orphan in source.orphans()
        if (reaping := decide(orphan, partial(_owner_status, ledger), partial(_failed, ledger), now))
    ]
    return tuple(_done(source, reaping, ledger, now, actor) if apply else reaping for source, reaping in found)


def _owner_status(ledger: Ledger, rollout: str) -> OwnerStatus:
    known = ledger.rollout(rollout)
    if known is None:
        return OwnerStatus.UNKNOWN
    return OwnerStatus.OPEN if known.open else OwnerStatus.OVER


def _failed(ledger: Ledger, rollout: str) -> frozenset[str]:
    """The members of a rollout that need a person: their ids, and their names without that of a Docker host."""
    members = (from_json(MemberState, saved) for saved in ledger.rollout_members(rollout).values())
    failed = [member for member in members if member.phase is Phase.FAILED]
    return frozenset(name for one in failed for name in (one.id, one.name.partition("@")[0]))


def _done(source: OrphanSource, reaping: Reaping, ledger: Ledger, now: datetime, actor: str) -> Reaping:
    """Remove a thing that may go; a failure is told and stops no other."""
    if not reaping.remove:
        return reaping
    try:
        source.remove(reaping.orphan)
    except GoldsmithError as error:
        return replace(reaping, remove=False, why=f"{reaping.why}; not removed: {error.message}")
    ledger.audit(now, actor, "reap", f"{reaping.orphan.where}/{reaping.orphan.id}", reaping.why)
    return reaping


def reap_rollouts(*, apply: bool, context: Context | None = None) -> tuple[list[ReapLine], list[GoldsmithError]]:
    """The orphans of rollouts in all places of the fleets, and what becomes of each. A place that cannot be read stops
    no other: it is among what went wrong. So is a fleet without a file whose rollout is open: nothing names its places.
    """
    context = context or image_context(looks=not apply)
    errors: list[GoldsmithError] = [e for name in without_file(context) if (e := file_is_gone(context, name))]
    found = list[Reaping]()
    for name, source in orphan_sources(context):
        try:
            found += reap([source()], context.ledger, clock(), context.actor, apply=apply)
        except GoldsmithError as error:
            errors.append(error if name in error.message else told_of(name, error))
    lines = [_line(one.orphan, f"{one.orphan.where}/{one.orphan.id[:20]}", one, apply=apply) for one in found]
    return lines, errors
