"""Networks for tests: a small shop, and any network that hypothesis thinks of."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from hardening.foundation.content import parse
from pipelines.network.model import WORLD, Network, NetworkFile, combined, has_port

HEAD = 'title = "The shop"\nowner = "shop"\nreview_by = 2027-05-31\n'
SHOP = (
    HEAD
    + """
# Who serves customers.
[roles.web]
what = "web servers"
addresses = ["10.1.0.0/24"]  # the subnet of the load balancer's targets
containers = { app = "shop", part = "web" }
pods = { namespace = "shop", labels = { app = "web" } }

[roles.db]
what = "the database"
addresses = ["10.2.0.0/24", "fd00:2::/64"]
containers = { app = "shop", part = "db" }
pods = { namespace = "shop", labels = { app = "db" } }

[[rules]]
from = "world"
to = "web"
ports = ["443/tcp"]
reason = "customers"

[[rules]]
from = "web"
to = "db"
ports = ["5432/tcp"]
reason = "orders"

[[rules]]
from = "10.9.0.0/24"  # the office
to = "db"
ports = ["5432/tcp", "9100-9104/tcp"]
reason = "reports and metrics"
review_by = 2026-06-30
"""
)
REGION = "eu-central-1"


def network(*texts: str) -> Network:
    """The network of some files."""
    return combined({
        Path(f"network/{number}.toml"): parse(tomllib.loads(text), NetworkFile, f"{number}.toml", name=f"n{number}")
        for number, text in enumerate(texts)
    })  # fmt: skip


ROLES = ("a", "b", "c")
GROUPS = {name: f"sg-0000000{number}" for number, name in enumerate(ROLES)}
ADDRESS = {"a": "10.0.0.7", "b": "10.0.1.7", "c": "10.0.2.7", "": "192.0.2.9"}
"""Where a member of each role is, and somebody of none."""
RANGES = ("10.0.0.0/16", "10.0.1.0/24", "192.0.2.0/24", "198.51.100.0/24", "fd00::/8")
PORTS = ("22/tcp", "443/tcp", "53/udp", "8000-8010/udp", "20-30/tcp")
PROBES = (("tcp", 22), ("tcp", 443), ("udp", 53), ("udp", 8005), ("tcp", 25), ("tcp", 8005))


def role(name: str, outgoing: str) -> dict[str, Any]:
    """A role that every renderer can tell."""
    address = ADDRESS[name]
    return {
        "what": name, "addresses": [f"{address[:-1]}0/24"], "containers": {"role": name}, "outgoing": outgoing,
        "security_groups": [{"id": GROUPS[name], "region": REGION}],
        "pods": {"namespace": f"n-{name}", "labels": {"role": name}},
    }  # fmt: skip


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Any network of three roles."""
    outgoing = {name: draw(st.sampled_from(("listed", "listed", "any"))) for name in ROLES}
    peers = st.sampled_from((*ROLES, *ROLES, *RANGES, WORLD))
    ends = st.tuples(peers, peers).filter(lambda both: bool({*both} & {*ROLES}))
    some = draw(st.lists(st.tuples(ends, st.lists(st.sampled_from(PORTS), min_size=1, max_size=2)), max_size=6))
    rules = [{"from": source, "to": target, "ports": ports, "reason": "r"} for (source, target), ports in some]
    data = {
        "title": "t", "owner": "o", "review_by": "2027-01-01", "rules": rules,
        "roles": {name: role(name, how) for name, how in outgoing.items()},
    }  # fmt: skip
    return combined({"any.toml": parse(data, NetworkFile, "any.toml", name="any")})


@dataclass(frozen=True)
class Endpoint:
    """One end of a connection: a member of a role, an address, or a member at an address."""

    role: str = ""
    address: str = ""


def allows(network: Network, source: Endpoint, target: Endpoint, protocol: str, port: int) -> bool:
    """Whether `source` may open a connection to that port of `target`: both ends have a say, each by its own rules.

    A member of a role asks whom a rule from its role names, and is asked by whom a rule to its role names. So a range
    of addresses opens no role that lies in it. What is rendered for each kind is held against this.
    """
    wanted = f"{port}/{protocol}"
    asks = (
        not source.role
        or network.roles[source.role].outgoing == "any"
        or any(
            _covers(one.rule.target, target) and has_port(ports, wanted) for one, ports in network.out_of(source.role)
        )
    )
    return asks and (
        not target.role
        or any(_covers(one.rule.source, source) and has_port(ports, wanted) for one, ports in network.into(target.role))
    )


def _covers(peer: str, one: Endpoint) -> bool:
    if peer == WORLD:
        return bool(one.address)
    if "/" not in peer:
        return peer == one.role
    return bool(one.address) and ip_address(one.address) in ip_network(peer)


def member(name: str) -> Endpoint:
    """A member of a role at its address; without a name somebody of no role."""
    return Endpoint(name, ADDRESS[name])
