"""The reapers: what killed runs left at AWS, what rollouts launched and nothing owns; removed on request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, assert_never

from hardening.foundation.errors import GoldsmithError
from images.context import Context
from images.ledger import Ledger
from pipelines.contract import Line
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.model import Fleet, FleetKind
from pipelines.fleet.orphans import Orphan, OrphanSource, OwnerStatus, Reaping, decide
from pipelines.wiring import clock, fleet_host, image_context

if TYPE_CHECKING:
    from images.aws.reaping import AwsReaping, TaggedResource

REAP_COLUMNS = {"what": "kind", "where": "where", "image": "name", "action": "action", "because": "why"}


class ReapLine(Line):
    """`image.reap` and `roll.reap`: one thing that nothing owns, and what becomes of it: keep, remove, removed."""

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


def orphan_sources(context: Context) -> tuple[OrphanSource, ...]:
    """Every place where the fleets of this installation are."""
    fleets: dict[FleetKind, list[Fleet]] = defaultdict(list)
    for fleet in load_fleets(context.settings.roots).values():
        fleets[fleet.kind].append(fleet)
    found = (_source(kind, fleets[kind], context) for kind in FleetKind if fleets[kind])
    return tuple(source for source in found if source)


def _source(kind: FleetKind, fleets: Iterable[Fleet], context: Context) -> OrphanSource | None:
    match kind:
        case FleetKind.DOCKER:
            from pipelines.fleet.docker.orphans import DockerOrphanSource

            return DockerOrphanSource(fleet_host(context))
        case FleetKind.EC2:
            from pipelines.fleet.ec2.members import regions_of
            from pipelines.fleet.ec2.orphans import Ec2OrphanSource

            regions = dict.fromkeys(region for fleet in fleets for region in regions_of(fleet, context.cloud))
            return Ec2OrphanSource(context.cloud.clients, regions, context.ledger)
        case FleetKind.KUBERNETES:
            return None  # what rollouts start there, the object that it belongs to owns
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
        if (reaping := decide(orphan, lambda name: _owner_status(ledger, name), now))
    ]
    return tuple(_done(source, reaping, ledger, now, actor) if apply else reaping for source, reaping in found)


def _owner_status(ledger: Ledger, rollout: str) -> OwnerStatus:
    known = ledger.rollout(rollout)
    if known is None:
        return OwnerStatus.UNKNOWN
    return OwnerStatus.OPEN if known.open else OwnerStatus.OVER


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


def reap_rollouts(*, apply: bool) -> list[ReapLine]:
    """The orphans of rollouts in all places of the fleets, and what becomes of each."""
    context = image_context(looks=not apply)
    found = reap(orphan_sources(context), context.ledger, clock(), context.actor, apply=apply)
    return [_line(one.orphan, f"{one.orphan.where}/{one.orphan.id[:20]}", one, apply=apply) for one in found]
