"""Any network: each renderer agrees with the model, and no step of a change cuts what is allowed before and after."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from ipaddress import ip_address, ip_network
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardening.foundation.settings import ROOT
from hardening.model import Kind
from pipelines.network import docker_networks, kubernetes, security_groups
from pipelines.network.comparing import Openness
from pipelines.network.definitions import asked, differences, opened
from pipelines.network.docker_networks import EngineNetwork, EngineStep, SeenContainer, SeenEngine
from pipelines.network.engine_edge import _seen
from pipelines.network.model import Network
from pipelines.network.nftables import firewall_params
from pipelines.network.openings import Opening, minus
from pipelines.network.security_groups import GroupKey, GroupRule, Rules
from tests.pipelines.network.sample import ADDRESS, GROUPS, PROBES, REGION, ROLES, SHOP, allows, member, networks
from tests.pipelines.network.sample import network as network_of
from tests.strict_kube.schemas import require_valid

ACCOUNT = "111111111111"
TEXT = (ROOT / "docs/network.md").read_text()
EVERYBODY = (*ROLES, "")

ends = st.sampled_from(("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "0.0.0.0/0", "fd00::/8", "web"))
openings = st.builds(
    lambda source, target, protocol, first, more: Opening(source, target, protocol, first, first + more),
    ends, ends, st.sampled_from(("tcp", "udp", "any")), st.integers(0, 8), st.integers(0, 8),
)  # fmt: skip
NAMES = {"web", *ROLES}
SPOTS = ("10.1.2.3", "10.1.3.3", "10.2.0.1", "192.0.2.1", "fd00::1", "web")


def holds(found: Iterable[Opening], source: str, target: str, protocol: str, port: int) -> bool:
    """Whether some opening has exactly that way."""
    return any(
        within(source, one.source) and within(target, one.target) and one.protocol in (protocol, "any")
        and one.first <= port <= one.last
        for one in found
    )  # fmt: skip


@cache
def within(spot: str, where: str) -> bool:
    if "/" not in where or spot in NAMES:
        return spot == where
    address, found = ip_address(spot), ip_network(where)
    return address.version == found.version and address in found


def test_a_single_address_of_a_definition_is_a_range_of_one() -> None:
    """It stands without its length there, as nft lists it."""
    params = {
        "openings": ["22/tcp from 10.1.0.5", "22/tcp from fd00::5"],
        "output": "drop", "output_openings": ["53/udp to 10.1.0.5"],
    }  # fmt: skip
    assert [one.source for one in opened(params, "web")] == ["10.1.0.5/32", "fd00::5/128"]
    assert [one.target for one in asked(params, "web")] == ["10.1.0.5/32"]


@pytest.mark.parametrize("address", ["10.1.0.5/24", "10.1.0.1-10.1.0.9", "web"])
def test_what_is_no_range_of_addresses_in_a_definition_is_unknown(address: str) -> None:
    """nft may take it, as a range with the bits of a host: what it opens is not compared, and so not right."""
    params = {"firewall": {"openings": [f"5432/tcp from {address}"]}}
    definition = SimpleNamespace(kind=Kind.MACHINE, profile_params=params)
    machine: Any = SimpleNamespace(name="debian-server", definition=definition)
    shop = network_of(SHOP.replace('containers = { app = "shop", part = "db" }', 'definitions = ["debian-server"]'))
    (found,) = differences(shop, {"debian-server": machine})
    assert found.verdict is Openness.UNKNOWN
    assert "was not understood: ValueError" in found.what


@given(st.lists(openings, max_size=4), st.lists(openings, max_size=4), st.integers(0, 17))
def test_what_one_set_has_that_another_lacks_is_right_at_every_spot(
    left: list[Opening], right: list[Opening], port: int
) -> None:
    """Only of `any` against one protocol nothing is taken away: that it is more open is what must be told."""
    found = minus(left, [one for one in right if one.protocol != "any"])
    closed = [one for one in right if one.protocol == "tcp"]
    for source, target in product(SPOTS, SPOTS):
        expected = any(
            holds([one], source, target, "tcp", port)
            and (one.protocol == "any" or not holds(closed, source, target, "tcp", port))
            for one in left
        )  # fmt: skip
        assert holds(found, source, target, "tcp", port) == expected
    assert minus(left, left) == []


# --- the renderers --------------------------------------------------------------------------------------------------


@given(networks())
def test_the_firewalls_of_machines_agree_with_the_model(network: Network) -> None:
    """A connection needs the sender's output, where that is listed, and the receiver's input."""
    params = {name: firewall_params(network, name) for name in ROLES}
    for source, target, (protocol, port) in product(EVERYBODY, EVERYBODY, PROBES):
        if source or target:
            out = not source or holds(asked(params[source], source), source, ADDRESS[target], protocol, port)
            into = not target or holds(opened(params[target], target), ADDRESS[source], target, protocol, port)
            assert (out and into) == allows(network, member(source), member(target), protocol, port)


def passes(found: Iterable[GroupRule], direction: str, other: str, protocol: str, port: int) -> bool:
    """Whether a group's rules let a connection with a member of `other` pass."""
    return any(
        one.direction == direction and one.protocol in (protocol, "-1")
        and (one.first <= port <= one.last or one.protocol == "-1")
        and (one.peer == GROUPS.get(other) or ("/" in one.peer and within(ADDRESS[other], one.peer)))
        for one in found
    )  # fmt: skip


def key(name: str) -> GroupKey:
    return ACCOUNT, REGION, GROUPS[name]


def reaches(rules: Rules, source: str, target: str, protocol: str, port: int) -> bool:
    """Whether groups let a connection pass: out of the one, into the other."""
    out = not source or passes(rules[key(source)], "egress", target, protocol, port)
    return out and (not target or passes(rules[key(target)], "ingress", source, protocol, port))


@given(networks())
def test_security_groups_agree_with_the_model(network: Network) -> None:
    """By the groups of both ends, and by addresses."""
    rules = security_groups.wanted_rules(network, ACCOUNT)
    for source, target, (protocol, port) in product(EVERYBODY, EVERYBODY, PROBES):
        if source or target:
            allowed = allows(network, member(source), member(target), protocol, port)
            assert reaches(rules, source, target, protocol, port) == allowed


@given(networks())
@settings(max_examples=10)  # the schema is large
def test_policies_are_what_the_api_takes(network: Network) -> None:
    """By the schema of Kubernetes itself."""
    for one in kubernetes.policies(network):
        require_valid(one)


@given(networks())
def test_policies_of_a_cluster_agree_with_the_model(network: Network) -> None:
    """As Kubernetes evaluates them."""
    found = kubernetes.policies(network)
    for source, target, (protocol, port) in product(EVERYBODY, EVERYBODY, PROBES):
        if source or target:
            out = not source or admitted(found, source, target, "egress", "to", protocol, port)
            into = not target or admitted(found, target, source, "ingress", "from", protocol, port)
            assert (out and into) == allows(network, member(source), member(target), protocol, port)


def admitted(found: list[Any], mine: str, other: str, side: str, word: str, protocol: str, port: int) -> bool:
    """Whether the policies that select a pod of `mine` let that pass; without any of them, all would."""
    selecting = [
        one["spec"] for one in found
        if one["metadata"]["namespace"] == f"n-{mine}"
        and one["spec"]["podSelector"].get("matchLabels", {"role": mine}) == {"role": mine}
    ]  # fmt: skip
    assert selecting
    return any(
        (word not in rule or any(is_peer(peer, other) for peer in rule[word]))
        and ("ports" not in rule or any(is_port(each, protocol, port) for each in rule["ports"]))
        for spec in selecting for rule in spec.get(side, ())
    )  # fmt: skip


def is_peer(peer: dict[str, Any], other: str) -> bool:
    if "ipBlock" in peer:
        return within(ADDRESS[other], peer["ipBlock"]["cidr"])
    space = peer["namespaceSelector"]["matchLabels"][kubernetes.NAME_LABEL]
    return space == f"n-{other}" and peer["podSelector"]["matchLabels"] == {"role": other}


def is_port(each: dict[str, Any], protocol: str, port: int) -> bool:
    return bool(each["protocol"].lower() == protocol and each["port"] <= port <= each.get("endPort", each["port"]))


@given(networks())
def test_containers_share_a_network_with_whom_their_role_may_talk_and_with_nobody_else(network: Network) -> None:
    """An engine's networks have no ports and no direction: two roles share one where a rule is between them."""
    found = docker_networks.networks_of(network)
    for one, other in product(ROLES, ROLES):
        ruled = any({placed.rule.source, placed.rule.target} == {one, other} for placed in network.rules)
        shared = {each for each in found[one] & found[other] if each.icc} if one != other else {
            each for each in found[one] if each.name == f"goldsmith-{one}.{one}"
        }  # fmt: skip
        assert bool(shared) == ruled
    for role, each in ((name, each) for name in ROLES for each in found[name]):
        outside = network.roles[role].outgoing == "any" or any(
            {placed.rule.source, placed.rule.target} - {*ROLES} and role in (placed.rule.source, placed.rule.target)
            for placed in network.rules
        )
        leads_outside = each.name == f"goldsmith-{role}.outside"
        assert (each.internal, each.icc) == (not leads_outside, not leads_outside)
        assert outside or not leads_outside


def test_a_role_with_addresses_is_known_by_them_too() -> None:
    """A member that is no pod, or has no group, is let in by its address."""
    shop = network_of(SHOP)
    (db,) = [one for one in kubernetes.policies(shop) if one["metadata"]["name"] == "goldsmith-db"]
    pods, range_ = db["spec"]["ingress"][0]["from"]
    assert pods["podSelector"]["matchLabels"] == {"app": "web"}
    assert range_ == {"ipBlock": {"cidr": "10.1.0.0/24"}}
    group = '\nsecurity_groups = [{ id = "sg-1234567N", region = "eu-central-1" }]'
    text = SHOP.replace('what = "web servers"', f'what = "w"{group.replace("N", "1")}')
    both = network_of(text.replace('what = "the database"', f'what = "d"{group.replace("N", "2")}'))
    rules = security_groups.wanted_rules(both, ACCOUNT)[ACCOUNT, REGION, "sg-12345672"]
    into = {one.peer for one in rules if one.direction == "ingress" and one.first == 5432}
    assert into == {"sg-12345671", "10.1.0.0/24", "10.9.0.0/24"}


# --- the order of changes -------------------------------------------------------------------------------------------


@given(networks(), networks(), st.integers(0, 30))
def test_no_step_of_groups_cuts_what_is_allowed_before_and_after(before: Network, after: Network, killed: int) -> None:
    """Each way is probed after every step, also where the first run is killed and another one goes on."""
    old, new = (security_groups.wanted_rules(one, ACCOUNT) for one in (before, after))
    ways = [*product(EVERYBODY, EVERYBODY, PROBES)]
    must = [way for way in ways if (way[0] or way[1]) and flows(old, way) and flows(new, way)]
    now: dict[GroupKey, frozenset[GroupRule]] = dict(old)
    for step in (*security_groups.ordered(old, new)[:killed],):
        now = probed(now, step, old, new, must)
    for step in security_groups.ordered(now, new):
        now = probed(now, step, old, new, must)
    assert now == new
    assert security_groups.ordered(now, new) == ()


def flows(rules: Rules, way: tuple[str, str, tuple[str, int]]) -> bool:
    source, target, (protocol, port) = way
    return reaches(rules, source, target, protocol, port)


def after_step(rules: Rules, step: security_groups.GroupRuleStep) -> dict[GroupKey, frozenset[GroupRule]]:
    """What the groups have after one step."""
    known = rules.get(step.group, frozenset())
    changed = known | {*step.permissions} if step.action == "authorize" else known - {*step.permissions}
    return {**rules, step.group: frozenset(changed)}


def probed(
    now: Rules, step: security_groups.GroupRuleStep, old: Rules, new: Rules, must: list[Any]
) -> dict[GroupKey, frozenset[GroupRule]]:
    changed = after_step(now, step)
    assert all(flows(changed, way) for way in must)
    assert all(rules <= old[each] | new[each] for each, rules in changed.items()), "opened by neither"
    return changed


def test_an_order_that_revokes_first_would_cut() -> None:
    """The property above sees what it must: the same steps the other way round break it."""
    wide, narrow = (
        GroupRule("ingress", "tcp", 443, 443, "10.0.0.0/8"),
        GroupRule("ingress", "tcp", 443, 443, "10.0.0.0/16"),
    )
    old, new = {key("a"): frozenset({wide})}, {key("a"): frozenset({narrow})}
    steps = security_groups.ordered(old, new)
    assert [one.action for one in steps] == ["authorize", "revoke"]
    cut = after_step(old, steps[1])
    assert not cut[key("a")]


def test_both_ends_of_a_way_may_be_open_meanwhile_as_the_document_says() -> None:
    """No rule is there that neither network has; but what the one lets out meets what the other lets in."""
    everything = GroupRule("egress", security_groups.ALL, -1, -1, "0.0.0.0/0")
    customers = GroupRule("ingress", "tcp", 443, 443, "0.0.0.0/0")
    nothing = frozenset[GroupRule]()
    old = {key("a"): frozenset({everything}), key("b"): nothing}
    new = {key("a"): nothing, key("b"): frozenset({customers})}
    way, now, opened = ("a", "b", ("tcp", 443)), dict[GroupKey, frozenset[GroupRule]](old), list[bool]()
    for step in security_groups.ordered(old, new):
        now = probed(now, step, old, new, [])
        opened.append(flows(now, way))
    assert (flows(old, way), opened, flows(new, way)) == (False, [True, False], False)
    assert "a connection may pass that neither version allows" in " ".join(TEXT.split())


@given(networks(), networks(), st.integers(0, 30))
def test_no_step_of_an_engine_parts_whom_both_connect(before: Network, after: Network, killed: int) -> None:
    """Whoever shares a network before and after shares one at every moment; also after a killed run."""
    old, new = docker_networks.networks_of(before), docker_networks.networks_of(after)
    seen = engine(old)
    must = [
        (one, other)
        for one, other in product(ROLES, ROLES)
        if one < other and share(old, one, other) and share(new, one, other)
    ]
    for step in docker_networks.ordered(seen, new)[:killed]:
        seen = done(seen, step, must)
    for step in docker_networks.ordered(seen, new):
        seen = done(seen, step, must)
    assert {one.role: one.networks for one in seen.containers} == {
        role: frozenset(each.name for each in networks) for role, networks in new.items()
    }
    assert docker_networks.ordered(seen, new) == ()
    assert seen.networks.keys() == {each.name for networks in new.values() for each in networks}


def test_a_network_may_begin_as_the_hosts_is_called() -> None:
    """A project of compose may be called `hosting`; only the mode `host` itself is the host's."""
    modes = ("hosting_default", "nonesuch", "containers", "host", "none", "container:1")
    fixed = [SeenContainer("a", "a", "a", frozenset(), mode).fixed for mode in modes]
    assert fixed == [False, False, False, True, True, True]


def test_a_container_is_called_by_its_own_name() -> None:
    """Not by what a link calls it; one that is being removed has none any more."""
    listed: tuple[Any, ...] = (["/web/db", "/db"], None, [])
    assert [_seen({"Id": "a" * 64, "Names": names}, "db").name for names in listed] == ["db", "a" * 12, "a" * 12]


def share(networks: Any, one: str, other: str) -> bool:
    return any(each.icc for each in networks[one] & networks[other])


def engine(networks: dict[str, frozenset[EngineNetwork]]) -> SeenEngine:
    """An engine on which all is as it should be."""
    every = {each.name: each for some in networks.values() for each in some}
    mine = tuple(SeenContainer(role, role, role, frozenset(each.name for each in networks[role])) for role in ROLES)
    return SeenEngine(every, frozenset(every), mine, {})


def done(seen: SeenEngine, step: EngineStep, must: list[tuple[str, str]]) -> SeenEngine:
    """The engine after a step; it refuses what a real one does."""
    networks, mine, name = dict(seen.networks), {one.name: one for one in seen.containers}, step.network.name
    if step.action == "create":
        networks[name] = step.network
    elif step.action == "remove":
        assert not any(name in one.networks for one in mine.values())
        del networks[name]
    else:
        assert name in networks
        one = mine[step.container]
        changed = one.networks | {name} if step.action == "connect" else one.networks - {name}
        mine[step.container] = SeenContainer(one.name, one.id, one.role, changed)
    for one, other in must:
        assert any(networks[each].icc for each in mine[one].networks & mine[other].networks)
    return SeenEngine(networks, frozenset(networks), tuple(mine.values()), {})
