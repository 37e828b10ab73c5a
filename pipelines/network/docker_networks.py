"""Renders who may talk to whom as Docker networks, and orders the changes from the present ones. Pure.

A network of Docker knows no ports and no direction: two roles that have a rule between them share one, and nobody else
is on it. What a role has with the outside is a network of its own, on which containers do not reach each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Literal

from pipelines.network.model import Network

LABEL = "dev.goldsmith.network"
PREFIX = "goldsmith-"
OUTSIDE = "outside"
ICC = "com.docker.network.bridge.enable_icc"
UNCONNECTABLE = ("host", "none", "container")
"""Modes of a container, up to a colon, whose networks cannot be changed while it is there."""


@dataclass(frozen=True, order=True)
class EngineNetwork:
    """A network of an engine. `internal`: nothing leaves it; `icc`: containers on it reach each other."""

    name: str
    internal: bool
    icc: bool


@dataclass(frozen=True)
class SeenContainer:
    """A container of a role: the networks that it is on, its mode, and what of it is published to other machines.

    `guests` are containers without a role that share its network.
    """

    name: str
    id: str
    role: str
    networks: frozenset[str]
    mode: str = ""
    published: frozenset[str] = frozenset()
    guests: frozenset[str] = frozenset()

    @property
    def fixed(self) -> bool:
        """Whether its networks cannot be changed."""
        return self.mode.partition(":")[0] in UNCONNECTABLE


@dataclass(frozen=True)
class SeenEngine:
    """What an engine has: its networks (`ours`: by our label), the containers of roles, who else is on each."""

    networks: Mapping[str, EngineNetwork]
    ours: frozenset[str]
    containers: tuple[SeenContainer, ...]
    others: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class EngineStep:
    """One change: create, connect, disconnect or remove; `container` is empty for a network alone."""

    action: Literal["create", "connect", "disconnect", "remove"]
    network: EngineNetwork
    container: str = ""
    container_id: str = ""


def networks_of(network: Network) -> dict[str, frozenset[EngineNetwork]]:
    """The networks that the containers of each role belong on, by role."""
    here = {name for name, role in network.roles.items() if role.containers}
    return {role: frozenset(_networks(network, role, here)) for role in sorted(here)}


def _networks(network: Network, role: str, here: Set[str]) -> Iterator[EngineNetwork]:
    peers = {placed.rule.source for placed, _ in network.into(role)}
    peers |= {placed.rule.target for placed, _ in network.out_of(role)}
    for peer in peers & here:
        yield EngineNetwork(f"{PREFIX}{'.'.join(sorted((role, peer)))}", internal=True, icc=True)
    if peers - here or network.roles[role].outgoing == "any":
        yield EngineNetwork(f"{PREFIX}{role}.{OUTSIDE}", internal=False, icc=False)


def ordered(seen: SeenEngine, wanted: Mapping[str, frozenset[EngineNetwork]]) -> tuple[EngineStep, ...]:
    """The steps from what an engine has to what it should have.

    Every network is there and every container connected before any is disconnected: who may talk before and after
    shares a network at every moment. Only networks of ours are removed, and only when nobody is on them.
    """
    every = {one for networks in wanted.values() for one in networks}
    moving = [one for one in seen.containers if not one.fixed]
    return (
        *(EngineStep("create", one) for one in sorted(every) if one.name not in seen.networks),
        *_moves("connect", ((one, target) for one in moving for target in wanted[one.role]
                            if target.name not in one.networks)),
        *_moves("disconnect", ((one, seen.networks[name]) for one in moving for name in one.networks
                               if name in seen.networks and name not in {each.name for each in wanted[one.role]})),
        *(EngineStep("remove", seen.networks[name]) for name in sorted(seen.ours - {one.name for one in every})
          if not seen.others.get(name)),
    )  # fmt: skip


def _moves(
    action: Literal["connect", "disconnect"], found: Iterable[tuple[SeenContainer, EngineNetwork]]
) -> list[EngineStep]:
    steps = [EngineStep(action, network, one.name, one.id) for one, network in found]
    return sorted(steps, key=lambda step: (step.network.name, step.container))


def conflicts(seen: SeenEngine, wanted: Mapping[str, frozenset[EngineNetwork]]) -> Iterator[str]:
    """Why a network that is wanted cannot be had: one of its name is there, with other options, of others, or with
    somebody of no role on it whom a container would join.
    """
    for one in sorted({one for networks in wanted.values() for one in networks}):
        there = seen.networks.get(one.name)
        if there and one.name not in seen.ours:
            yield f"the network {one.name} is there, and not ours (it lacks the label {LABEL})"
        elif there and there != one:
            yield f"the network {one.name} has other options: internal {there.internal}, icc {there.icc}"
    for step in ordered(seen, wanted):
        if step.action == "connect" and step.network.name in seen.ours:
            for line in strangers(seen, step.network.name):
                yield f"{line}, which {step.container} would join"


def strangers(seen: SeenEngine, name: str) -> list[str]:
    """Who is on a network without being of a role, a line each."""
    return [f"{one}, which no role owns, is on {name}" for one in sorted(seen.others.get(name, ()))]
