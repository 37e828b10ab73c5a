"""The reaper of rollouts: finds what they launched and nothing owns, and on request removes what is due."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from hardening.foundation.errors import GoldsmithError
from images.context import Context
from images.ledger import Ledger
from pipelines.cli.machine_release import ReapLine
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.docker.orphans import DockerGround
from pipelines.fleet.ec2.inventory import places
from pipelines.fleet.ec2.orphans import Ec2Ground
from pipelines.fleet.model import FleetKind
from pipelines.fleet.orphans import Ground, Reaping, Standing, decide
from pipelines.wiring import clock, fleet_host, image_context


def grounds(context: Context, engine: Callable[[], str]) -> tuple[Ground, ...]:
    """Every place where the fleets of this installation are."""
    fleets = load_fleets(context.settings.roots).values()
    found: list[Ground] = []
    if any(one.kind is FleetKind.DOCKER for one in fleets):
        found.append(DockerGround(engine()))
    machines = [one for one in fleets if one.kind is FleetKind.EC2]
    if machines:
        where = dict.fromkeys(place for fleet in machines for place in places(fleet, context.cloud))
        found.append(Ec2Ground(context.cloud.clients, where, context.ledger))
    return tuple(found)


def reap(over: Iterable[Ground], ledger: Ledger, now: datetime, actor: str, *, apply: bool) -> tuple[Reaping, ...]:
    """All that no rollout owns, and what becomes of it. Raises OutsideError where a ground cannot be read."""
    found = [
        (ground, reaping)
        for ground in over
        for leaving in ground.leavings()
        if (reaping := decide(leaving, lambda name: _standing(ledger, name), now))
    ]
    return tuple(_done(ground, reaping, ledger, now, actor) if apply else reaping for ground, reaping in found)


def _standing(ledger: Ledger, rollout: str) -> Standing:
    known = ledger.rollout(rollout)
    if known is None:
        return Standing.UNKNOWN
    return Standing.OPEN if known.open else Standing.OVER


def _done(ground: Ground, reaping: Reaping, ledger: Ledger, now: datetime, actor: str) -> Reaping:
    """Remove a thing that may go; a failure is told and stops no other."""
    if not reaping.remove:
        return reaping
    try:
        ground.remove(reaping.leaving)
    except GoldsmithError as error:
        return replace(reaping, remove=False, why=f"{reaping.why}; not removed: {error.message}")
    ledger.audit(now, actor, "reap", f"{reaping.leaving.where}/{reaping.leaving.id}", reaping.why)
    return reaping


def reap_rollouts(*, apply: bool) -> list[ReapLine]:
    """What rollouts left in all places of the fleets, and what becomes of it."""
    context = image_context(looks=not apply)
    over = grounds(context, lambda: fleet_host(context))
    return reap_lines(reap(over, context.ledger, clock(), context.actor, apply=apply), apply=apply)


def reap_lines(found: Iterable[Reaping], *, apply: bool) -> list[ReapLine]:
    """What `roll.reap` prints."""
    return [
        ReapLine(
            kind=one.leaving.kind,
            where=f"{one.leaving.where}/{one.leaving.id[:20]}",
            name=one.leaving.name,
            action=("removed" if apply else "remove") if one.remove else "keep",
            why=one.why,
        )
        for one in found
    ]
