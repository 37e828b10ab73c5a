"""Differences between the defined network and the actual one: too open, too closed, unknown. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter

from images.boot.observations import Listener, listener
from pipelines.fleet.members import is_shared
from pipelines.network.docker_networks import EngineNetwork, SeenContainer, SeenEngine
from pipelines.network.model import EVERYWHERE, WORLD, Network, has_port, lets_in, may_ask, protocol_and_bounds
from pipelines.network.nftables import SeenRules, read_ruleset
from pipelines.network.openings import ANY, Opening, minus, told
from pipelines.network.security_groups import GroupKey, GroupRule, Rules, SeenInterface


class Openness(StrEnum):
    """What a difference is. What is unknown is never compliant; what is overdue is to be reviewed again."""

    TOO_OPEN = "too-open"
    TOO_CLOSED = "too-closed"
    UNKNOWN = "unknown"
    OVERDUE = "overdue"


@dataclass(frozen=True)
class NetworkDifference:
    """One difference: where, and what."""

    where: str
    verdict: Openness
    what: str


def compare_openings(where: str, wanted: Iterable[Opening], real: Iterable[Opening]) -> Iterator[NetworkDifference]:
    """What is open and should not be, and the other way round."""
    wanted, real = list(wanted), list(real)
    yield from (NetworkDifference(where, Openness.TOO_OPEN, one) for one in told(minus(real, wanted)))
    yield from (NetworkDifference(where, Openness.TOO_CLOSED, one) for one in told(minus(wanted, real)))


# --- machines -------------------------------------------------------------------------------------------------------


def compare_ruleset(network: Network, role: str, document: object, where: str) -> Iterator[NetworkDifference]:
    """A machine of a role by the answer of `nft -j list ruleset`. Raises ContentError for a peer without addresses."""
    for side in ("input", "output"):
        seen: SeenRules = read_ruleset(document, role, side)
        wanted = _into(network, role) if side == "input" else _out_of(network, role)
        yield from (NetworkDifference(where, Openness.UNKNOWN, one) for one in seen.unknown)
        yield from compare_openings(f"{where} {side}", wanted, seen.openings)


def _into(network: Network, role: str) -> list[Opening]:
    return [Opening(address, role, *protocol_and_bounds(ports)) for ports, address in lets_in(network, role)]


def _out_of(network: Network, role: str) -> list[Opening]:
    if network.roles[role].outgoing == "any":
        return [Opening(role, address, ANY) for address in EVERYWHERE]
    dhcp = [Opening(role, address, "udp", port, port) for address in EVERYWHERE for port in (67, 547)]
    return dhcp + [Opening(role, address, *protocol_and_bounds(ports)) for ports, address in may_ask(network, role)]


def compare_sockets(network: Network, role: str, said: str, where: str) -> Iterator[NetworkDifference]:
    """A machine of a role by the lines of `ss -Hltnup`: what listens without a rule, and rules without a listener."""
    try:
        sockets: list[Listener] = [listener(line) for line in said.splitlines() if line.strip()]
        listening = {one.name for one in sockets if not one.harmless}
    except (ValueError, IndexError) as error:
        yield NetworkDifference(where, Openness.UNKNOWN, f"the listening sockets were not understood: {error}")
        return
    yield from compare_listeners(network, role, listening, f"{where} sockets")


def compare_listeners(network: Network, role: str, listening: Iterable[str], where: str) -> Iterator[NetworkDifference]:
    """What a machine of a role listens on, such as `22/tcp`, beside the rules that let somebody in to the role."""
    heard = {one if "/" in one else f"{one}/tcp" for one in listening}
    ruled = {ports for _, ports in network.into(role)}
    for one in sorted(heard):
        if not any(has_port(ports, one) for ports in ruled):
            yield NetworkDifference(
                where, Openness.TOO_CLOSED, f"{one} is listened on, and no rule lets anybody in to {role}"
            )
    for ports in sorted(ruled):
        if not any(has_port(ports, one) for one in heard):
            yield NetworkDifference(where, Openness.TOO_OPEN, f"{ports} is let in to {role}, and nothing listens there")


# --- security groups ------------------------------------------------------------------------------------------------


def compare_groups(wanted: Rules, seen: Mapping[GroupKey, frozenset[GroupRule] | str]) -> Iterator[NetworkDifference]:
    """Groups by their rules; of one that could not be read `seen` says why."""
    for key, permissions in sorted(wanted.items()):
        where, found = "/".join(key), seen.get(key, "it was not looked at")
        if isinstance(found, str):
            yield NetworkDifference(where, Openness.UNKNOWN, found)
            continue
        group = key[2]
        yield from compare_openings(
            where, [one.opening(group) for one in permissions], [one.opening(group) for one in found]
        )


def compare_interfaces(
    network: Network, account: str, seen: Mapping[tuple[str, str], tuple[SeenInterface, ...] | str]
) -> Iterator[NetworkDifference]:
    """Interfaces by the groups that they have: those of one role, and no others.

    `account` has the groups that name none.
    """
    role_of = {
        (group.account or account, group.region, group.id): name
        for name, role in network.roles.items() for group in role.security_groups
    }  # fmt: skip
    for place, found in sorted(seen.items()):
        where, told_of = "/".join(place), defaultdict[tuple[Openness, str], list[str]](list)
        if isinstance(found, str):
            yield NetworkDifference(where, Openness.UNKNOWN, f"who has which group was not read: {found}")
            continue
        for one in sorted(found, key=attrgetter("id")):
            roles = {group: role_of.get((*place, group), "") for group in one.groups}
            if len(mine := sorted({*roles.values()} - {""})) > 1:
                what = f"the groups of the roles {', '.join(mine)}: a member has one role"
                told_of[Openness.TOO_OPEN, what].append(one.id)
            for group in (group for group, role in roles.items() if not role):
                told_of[Openness.UNKNOWN, f"{group} too, which no role names: its rules are not compared"].append(
                    one.id
                )
        for (verdict, what), ids in sorted(told_of.items()):
            yield NetworkDifference(where, verdict, f"{_some(ids)} {what}")


def _some(ids: Sequence[str]) -> str:
    return f"{ids[0]} has" if len(ids) == 1 else f"{ids[0]} and {len(ids) - 1} more have"


# --- Docker ---------------------------------------------------------------------------------------------------------


def compare_engine(
    network: Network,
    wanted: Mapping[str, frozenset[EngineNetwork]],
    seen: SeenEngine,
    where: str,
    *,
    walled: bool = True,
) -> Iterator[NetworkDifference]:
    """Containers by the networks that they share, and by what is published of them.

    `walled`: whether the engine keeps rules of a firewall, without which it cannot part containers of one network.
    """
    if not walled:
        yield from _unparted(seen, where)
    for one in seen.containers:
        yield from (
            NetworkDifference(f"{where} {one.name}", verdict, what) for verdict, what in _container(wanted, seen, one)
        )
        yield from _published(network, one, where)


def _unparted(seen: SeenEngine, where: str) -> Iterator[NetworkDifference]:
    for name in sorted(name for name in seen.ours if not seen.networks[name].icc):
        together = [one.name for one in seen.containers if name in one.networks]
        if len(together) > 1:
            what = f"{', '.join(together)} reach each other on {name}: this engine keeps no firewall"
            yield NetworkDifference(where, Openness.TOO_OPEN, what)


def _container(
    wanted: Mapping[str, frozenset[EngineNetwork]], seen: SeenEngine, one: SeenContainer
) -> Iterator[tuple[Openness, str]]:
    mine = {each.name: each for each in wanted[one.role]}
    if is_shared(one.mode):
        yield Openness.TOO_OPEN, f"it runs in another's network (--network {one.mode}), whose rules it has"
        return
    for guest in sorted(one.guests):
        yield Openness.TOO_OPEN, f"{guest}, which has no role, shares its network"
    for name in sorted(one.networks - mine.keys()):
        company = [each.name for each in seen.containers if name in each.networks and each.name != one.name]
        company += sorted(seen.others.get(name, ()))
        beside = f" with {', '.join(sorted(company))}" if company else ""
        yield Openness.TOO_OPEN, f"it is on the network {name}{beside}"
    for name in sorted(mine.keys() - one.networks):
        yield Openness.TOO_CLOSED, f"it is not on the network {name}"
    for name in sorted(mine.keys() & one.networks):
        there = seen.networks.get(name)
        if there is None:
            yield Openness.UNKNOWN, f"the network {name} could not be read"
        elif (there.internal, there.icc) != (mine[name].internal, mine[name].icc):
            yield Openness.TOO_OPEN, f"the network {name} has internal {there.internal} and icc {there.icc}"
        for other in sorted(seen.others.get(name, ())):
            yield Openness.TOO_OPEN, f"{other}, which has no role, is on its network {name}"


def _published(network: Network, one: SeenContainer, where: str) -> Iterator[NetworkDifference]:
    """What other machines reach. Which of them, is for the firewall of the host: Docker publishes to all."""
    outside = {ports for placed, ports in network.into(one.role) if _is_outside(network, placed.rule.source)}
    for published in sorted(one.published):
        if not any(has_port(ports, published) for ports in outside):
            what = f"{published} is published, and no rule lets anybody outside in to {one.role}"
            yield NetworkDifference(f"{where} {one.name}", Openness.TOO_OPEN, what)


def _is_outside(network: Network, peer: str) -> bool:
    return peer == WORLD or "/" in peer or not network.roles[peer].containers
