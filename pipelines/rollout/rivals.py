"""Edge: the other fleets of one engine, namespace or cluster, which could select the same members."""

from __future__ import annotations

from collections.abc import Sequence

from hardening.foundation.engine_address import place
from images.context import Context
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.model import Fleet
from pipelines.wiring import present_fleet_host


def others(fleet: Fleet, context: Context) -> list[Fleet]:
    """The other fleets of the same kind."""
    every = load_fleets(context.settings.roots).values()
    return [one for one in every if one.kind is fleet.kind and one.name != fleet.name]


def of_engine(fleet: Fleet, rivals: Sequence[Fleet], context: Context, engine: str) -> list[Fleet]:
    """Those of the other Docker fleets that have members on the engine at this address."""
    own = set[str]()
    if not fleet.docker.hosts:
        own = {place(engine)}
    elif not all(one.docker.hosts for one in rivals):  # only then it matters where those without hosts are
        own = {place(present_fleet_host(context, local=engine.startswith("unix:")))}
    return [one for one in rivals if place(engine) in ({at.label for at in one.docker.addresses} or own)]


def of_namespace(fleet: Fleet, context: Context) -> list[Fleet]:
    """The other fleets of the same Kubernetes namespace."""
    from pipelines.fleet.kubernetes.kubeconfig import leads_to

    return [one for one in others(fleet, context) if leads_to(one.kubernetes, fleet.kubernetes)]


def of_cluster(fleet: Fleet, context: Context) -> list[Fleet]:
    """The other fleets of the same cluster at AWS."""

    def cluster(one: Fleet) -> tuple[str | None, ...]:
        at = one.ecs if one.ecs.cluster else one.eks
        return at.cluster, at.account or context.cloud.aws.account, at.region or context.cloud.home

    return [one for one in others(fleet, context) if cluster(one) == cluster(fleet)]
