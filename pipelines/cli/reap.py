"""The reapers: what killed runs left at AWS, what rollouts launched and nothing owns; removed on request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from hardening.foundation.errors import GoldsmithError
from images.context import Context
from images.ledger import Ledger
from pipelines.contract import Line
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.model import Fleet, FleetKind
from pipelines.fleet.orphans import OrphanSource, OwnerStatus, Reaping, decide
from pipelines.wiring import clock, fleet_host, image_context

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
    from images.aws.retire import reap as reap_aws

    found = reap_aws(image_context(looks=not apply).cloud, apply=apply)
    return [
        ReapLine(
            kind=one.found.kind, where=one.found.where, name=one.found.name, action=_action(one.remove, apply=apply),
            why=one.why,
        )
        for one in found
    ]  # fmt: skip


def _action(remove: bool, *, apply: bool) -> str:
    return ("removed" if apply else "remove") if remove else "keep"


def orphan_sources(context: Context, engine: Callable[[], str]) -> tuple[OrphanSource, ...]:
    """Every place where the fleets of this installation are."""
    fleets: dict[FleetKind, list[Fleet]] = defaultdict(list)
    for fleet in load_fleets(context.settings.roots).values():
        fleets[fleet.kind].append(fleet)
    return tuple(_source(kind, fleets[kind], context, engine) for kind in FleetKind if fleets[kind])


def _source(kind: FleetKind, fleets: Iterable[Fleet], context: Context, engine: Callable[[], str]) -> OrphanSource:
    match kind:
        case FleetKind.DOCKER:
            from pipelines.fleet.docker.orphans import DockerOrphanSource

            return DockerOrphanSource(engine())
        case FleetKind.EC2:
            from pipelines.fleet.ec2.members import regions_of
            from pipelines.fleet.ec2.orphans import Ec2OrphanSource

            regions = dict.fromkeys(region for fleet in fleets for region in regions_of(fleet, context.cloud))
            return Ec2OrphanSource(context.cloud.clients, regions, context.ledger)
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
    over = orphan_sources(context, lambda: fleet_host(context))
    return reap_lines(reap(over, context.ledger, clock(), context.actor, apply=apply), apply=apply)


def reap_lines(found: Iterable[Reaping], *, apply: bool) -> list[ReapLine]:
    """What `roll.reap` prints."""
    return [
        ReapLine(
            kind=one.orphan.kind,
            where=f"{one.orphan.where}/{one.orphan.id[:20]}",
            name=one.orphan.name,
            action=_action(one.remove, apply=apply),
            why=one.why,
        )
        for one in found
    ]
