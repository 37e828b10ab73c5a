"""Renders a role's rules as params of the control `firewall`, and reads what nft shows of a machine. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network, summarize_address_range
from typing import Any

from hardening.foundation.errors import NOT_UNDERSTOOD, traced
from pipelines.network.model import EVERYWHERE, Network, bounds, lets_in, may_ask
from pipelines.network.openings import ANY, Opening

CONTROL = "firewall"
TABLE = "inet filter"
DHCP = ("67/udp", "547/udp")
"""What every machine asks, so that it has an address at all; the control lets the answers in."""
IGNORED = {"counter", "comment"}
SIDES = {"input": "saddr", "output": "daddr"}
Params = dict[str, Any]


def firewall_params(network: Network, role: str) -> Params:
    """The params of `firewall` for the machines of a role. Raises ContentError for a peer without addresses."""
    opened, asked = [*lets_in(network, role)], [*may_ask(network, role)]
    params: Params = {
        "ports": sorted({ports for ports, address in opened if address in EVERYWHERE}, key=_order),
        "openings": _lines(opened, "from"),
    }
    if network.roles[role].outgoing == "listed":
        to_all = {ports for ports, address in asked if address in EVERYWHERE}
        params |= {"output": "drop", "output_ports": sorted({*DHCP, *to_all}, key=_order)}
        params["output_openings"] = _lines(asked, "to")
    return params


def _lines(found: Iterable[tuple[str, str]], word: str) -> list[str]:
    """Such as `5432/tcp from 10.1.0.0/24`; a single address stands without its length, as nft lists it."""
    lines = {(ports, address) for ports, address in found if address not in EVERYWHERE}
    return [
        f"{ports} {word} {as_nft(address)}"
        for ports, address in sorted(lines, key=lambda one: (*_order(one[0]), one[1]))
    ]


def _order(ports: str) -> tuple[str, int, str]:
    return ports.partition("/")[2], bounds(ports)[0], ports


def as_nft(address: str) -> str:
    """A range of addresses as nft lists it."""
    found = ip_network(address)
    return str(found.network_address) if found.num_addresses == 1 else str(found)


@dataclass(frozen=True)
class SeenRules:
    """What a machine's ruleset opens in one direction; `unknown`: what of it was not understood, a line each."""

    openings: tuple[Opening, ...] = ()
    unknown: tuple[str, ...] = ()


def read_ruleset(document: Any, here: str, side: str) -> SeenRules:
    """What the answer of `nft -j list ruleset` opens: to `here` (side `input`), or from it (side `output`).

    Only what is certain counts as opened or closed: any other rule that could let something in or keep it out is
    unknown. Another chain at the same hook is harmless where it accepts all.
    """
    if not isinstance(document, dict) or not isinstance(document.get("nftables"), list):
        return SeenRules(unknown=("it is not what `nft -j list ruleset` prints: no list stands under nftables",))
    try:
        return _read(document["nftables"], here, side)
    except NOT_UNDERSTOOD as error:
        return SeenRules(unknown=(f"the ruleset was not understood: {traced(error)}",))


def _read(items: list[Mapping[str, Any]], here: str, side: str) -> SeenRules:
    chains = [one["chain"] for one in items if "chain" in one and one["chain"].get("hook") == side]
    rules = [one["rule"] for one in items if "rule" in one]
    found, unknown = list[Opening](), list[str]()
    ours = [one for one in chains if f"{one['family']} {one['table']}" == TABLE]
    tables = [one["table"] for one in items if "table" in one]
    if any(f"{one['family']} {one['name']}" == TABLE and one.get("flags") for one in tables):
        unknown.append(f"{TABLE} has flags: one that is dormant filters nothing")
    if not ours or ours[0].get("policy", "accept") == "accept":
        found += [_opening("0.0.0.0/0", here, side, ANY), _opening("::/0", here, side, ANY)]
    for chain in chains:
        its = [one for one in rules if all(one[key] == chain[other] for key, other in CHAIN_OF)]
        name = f"{chain['family']} {chain['table']} {chain['name']}"
        if chain in ours:
            for number, rule in enumerate(its):
                seen = _rule(rule["expr"], here, side)
                if seen is None:
                    unknown.append(f"{name}: rule {number + 1} is not understood")
                found += seen or ()
        elif chain.get("policy", "accept") != "accept" or any(_decides(rule["expr"]) for rule in its):
            unknown.append(f"{name}: another chain at the hook {side} decides too")
    if len(ours) > 1:
        unknown.append(f"{len(ours)} chains of {TABLE} stand at the hook {side}")
    return SeenRules(tuple(found), tuple(unknown))


CHAIN_OF = (("family", "family"), ("table", "table"), ("chain", "name"))


def _decides(expressions: Iterable[Mapping[str, Any]]) -> bool:
    return any(not one.keys() <= {*IGNORED, "match", "accept", "log"} for one in expressions)


def _opening(address: str, here: str, side: str, protocol: str, *ports: int) -> Opening:
    ends = (address, here) if side == "input" else (here, address)
    return Opening(*ends, protocol, *ports)


def _rule(expressions: Iterable[Mapping[str, Any]], here: str, side: str) -> list[Opening] | None:
    """What one rule of our chain opens; None where that is not certain."""
    matches, verdict, limited = list[Any](), "", False
    for one in expressions:
        if "match" in one:
            matches.append(one["match"])
        elif "limit" in one:
            limited = True
        elif one.keys() & {"accept", "drop"}:
            verdict = next(iter(one.keys()))
        elif not one.keys() <= IGNORED:
            return None
    facts = [(_left(one["left"]), one["op"], one["right"]) for one in matches]
    if not verdict:
        return []
    if verdict == "drop":
        return [] if any(_is_known_drop(fact, facts) for fact in facts) else None
    if any(_is_infrastructure(fact, facts) for fact in facts):
        return []
    return None if limited else _accepted(facts, here, side)


def _left(left: Mapping[str, Any]) -> tuple[str, str]:
    """What is compared, as (what, field): ("tcp", "dport"), ("meta", "iif"), ("ct", "state")."""
    kind, inside = next(iter(left.items()))
    return (inside["protocol"], inside["field"]) if kind == "payload" else (kind, inside["key"])


Fact = tuple[tuple[str, str], str, Any]


def _is_known_drop(fact: Fact, facts: list[Fact]) -> bool:
    """What no honest sender sends: packets of no connection, and loopback's addresses from outside."""
    (what, key), op, right = fact
    if (what, key) == ("ct", "state"):
        return right == "invalid" and len(facts) == 1
    others = [one for one in facts if one is not fact]
    of_own = all(one[0] in SOURCES and one[1] == "==" and _network(one[2]).is_loopback for one in others)
    outside = (what, key) in (("meta", "iif"), ("meta", "iifname")) and op == "!=" and right == "lo"
    return outside and len(others) == 1 and of_own


SOURCES = (("ip", "saddr"), ("ip6", "saddr"))


def _is_infrastructure(fact: Fact, facts: list[Fact]) -> bool:
    """What the control accepts for everybody: answers, loopback, ICMP, and the answers of DHCP."""
    (what, key), op, right = fact
    if op not in ("==", "in"):
        return False
    values = _values(right)
    if what == "ct" and key == "state":
        return set(values) <= {"established", "related"}
    if what == "meta" and key in ("iif", "iifname", "oif", "oifname"):
        return values == ["lo"]
    if what in ("icmp", "icmpv6") or (what == "meta" and key == "l4proto"):
        return what != "meta" or set(values) <= {"icmp", "ipv6-icmp", "icmpv6"}
    ports = {one[0]: one[2] for one in facts if one[1] == "==" and one[0][0] == "udp"}
    if what != "udp" or any(one[1] != "==" or one[0] not in (*SOURCES, *ports) for one in facts):
        return False
    return ports in ({("udp", "sport"): 67, ("udp", "dport"): 68}, {("udp", "sport"): 547, ("udp", "dport"): 546})


def _accepted(facts: list[Fact], here: str, side: str) -> list[Opening] | None:
    addresses, ports = list[str](), list[tuple[str, int, int]]()
    for (what, key), op, right in facts:
        if op != "==" or (addresses and what in ("ip", "ip6")) or (ports and what in ("tcp", "udp")):
            return None
        if what in ("ip", "ip6") and key == SIDES[side]:
            addresses = [text for value in _values(right) for text in _range(value)]
        elif what in ("tcp", "udp") and key == "dport":
            ports = [(what, *_port(value)) for value in _values(right)]
        else:
            return None
    return [
        _opening(address, here, side, *found)
        for address in addresses or ("0.0.0.0/0", "::/0")
        for found in ports or [(ANY, 0, 65535)]
    ]


def _values(right: Any) -> list[Any]:
    if isinstance(right, Mapping) and "set" in right:
        return list(right["set"])
    return list(right) if isinstance(right, list) else [right]


def _range(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and "range" in value:
        first, last = (ip_address(one) for one in value["range"])
        yield from (str(one) for one in summarize_address_range(first, last))
    else:
        yield str(_network(value))


def _network(value: Any) -> IPv4Network | IPv6Network:
    """An address, or a range of them by its prefix."""
    return ip_network(f"{value['prefix']['addr']}/{value['prefix']['len']}" if isinstance(value, Mapping) else value)


def _port(value: Any) -> tuple[int, int]:
    if isinstance(value, Mapping):
        first, last = value["range"]
        return int(first), int(last)
    return int(value), int(value)
