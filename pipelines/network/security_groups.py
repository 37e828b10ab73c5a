"""Renders the rules of roles as security group rules, and orders the changes from the present ones. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from itertools import product
from operator import attrgetter
from typing import Any, Literal

from hardening.foundation.errors import NOT_UNDERSTOOD, ContentError, MalformedError, traced
from pipelines.network.model import (
    EVERYWHERE,
    WORLD,
    Network,
    PlacedRule,
    RoleGroup,
    bounds,
)
from pipelines.network.openings import ANY, Opening

ALL = "-1"
"""Of a protocol, as EC2 writes it: all of them."""
Direction = Literal["ingress", "egress"]
DIRECTIONS: tuple[Direction, Direction] = ("ingress", "egress")


@dataclass(frozen=True, order=True)
class GroupRule:
    """One rule of one security group: a peer (a range, a group's id, a list of prefixes), and ports of a protocol.

    `account` owns the group that is the peer, where it is another account's; it does not tell two rules apart.
    """

    direction: Direction
    protocol: str
    first: int
    last: int
    peer: str
    account: str = field(default="", compare=False)

    def opening(self, group: str) -> Opening:
        """The same as an opening of the group."""
        ends = (self.peer, group) if self.direction == "ingress" else (group, self.peer)
        if self.protocol == ALL:
            return Opening(*ends, ANY)
        return Opening(*ends, self.protocol, max(self.first, 0), 65535 if self.first < 0 else self.last)


GroupKey = tuple[str, str, str]
"""Account, region and id of a group."""
Rules = Mapping[GroupKey, frozenset[GroupRule]]


@dataclass(frozen=True)
class SeenInterface:
    """A network interface, whosever it is, and the groups that it has."""

    id: str
    groups: frozenset[str]


@dataclass(frozen=True)
class GroupRuleStep:
    """One change of one group in one direction: rules to authorize, or to revoke."""

    action: Literal["authorize", "revoke"]
    group: GroupKey
    direction: Direction
    permissions: tuple[GroupRule, ...]


def wanted_rules(network: Network, account: str) -> dict[GroupKey, frozenset[GroupRule]]:
    """The rules of every group that a role has; `account` owns those that name none.

    Raises ContentError for a peer that has neither a group in the same region nor addresses.
    """
    return {
        (one.account or account, one.region, one.id): frozenset(_rules(network, name, one, account))
        for name, role in sorted(network.roles.items())
        for one in role.security_groups
    }


def unnamed_peers(network: Network, account: str) -> Iterator[tuple[GroupKey, str]]:
    """Each group with the members of a peer that its rules cannot name: those of a group in another region, of a role
    without addresses.
    """
    for name, role in sorted(network.roles.items()):
        peers = {placed.rule.source for placed, _ in network.into(name)}
        if role.outgoing == "listed":
            peers |= {placed.rule.target for placed, _ in network.out_of(name)}
        untold = [(peer, network.roles[peer]) for peer in sorted(peers & network.roles.keys())]
        for group, (peer, its) in product(role.security_groups, untold):
            for far in its.security_groups if not its.addresses else ():
                if far.region != group.region:
                    yield (
                        (group.account or account, group.region, group.id),
                        f"members of {peer} by {far.id} in {far.region} are left out: EC2 takes no group of another "
                        f"region as a peer, and [roles.{peer}] has no addresses",
                    )


def _rules(network: Network, role: str, group: RoleGroup, account: str) -> Iterator[GroupRule]:
    for placed, ports in network.into(role):
        yield from _permissions("ingress", network, placed, placed.rule.source, ports, group, account)
    if network.roles[role].outgoing == "any":
        yield from (GroupRule("egress", ALL, -1, -1, peer) for peer in EVERYWHERE)
        return
    for placed, ports in network.out_of(role):
        yield from _permissions("egress", network, placed, placed.rule.target, ports, group, account)


def _permissions(
    direction: Direction, network: Network, placed: PlacedRule, peer: str, ports: str, group: RoleGroup,
    account: str,
) -> Iterator[GroupRule]:  # fmt: skip
    protocol, (first, last) = ports.partition("/")[2], bounds(ports)
    if peer == WORLD or "/" in peer:
        for address in EVERYWHERE if peer == WORLD else (peer,):
            yield GroupRule(direction, protocol, first, last, address)
        return
    role = network.roles[peer]
    near = [one for one in role.security_groups if one.region == group.region]
    for one in near:
        yield GroupRule(direction, protocol, first, last, one.id, one.account or account)
    for address in role.addresses:
        yield GroupRule(direction, protocol, first, last, address)
    if not near and not role.addresses:
        raise ContentError(
            f"the role {peer} has no addresses and no security group in {group.region}, which {group.id} could name",
            file=placed.file, key=placed.key, hint=f"name one of them under [roles.{peer}]",
        )  # fmt: skip


def ordered(before: Rules, after: Rules) -> tuple[GroupRuleStep, ...]:
    """The steps from `before` to `after`: all that is new is authorized in every group, then the rest is revoked.

    So a group has at every moment all that it has before and after, and never a rule that it has neither before nor
    after.
    """
    changes = [
        ("authorize", key, sorted(after[key] - before.get(key, frozenset()))) for key in sorted(after)
    ] + [("revoke", key, sorted(before.get(key, frozenset()) - after[key])) for key in sorted(after)]  # fmt: skip
    return tuple(
        GroupRuleStep(action, key, direction, mine)  # type: ignore[arg-type]
        for action, key, found in changes
        for direction in DIRECTIONS
        if (mine := tuple(one for one in found if one.direction == direction))
    )


def read_group(shown: Mapping[str, Any]) -> frozenset[GroupRule]:
    """The rules of a group as DescribeSecurityGroups shows it. Raises MalformedError for an answer of another form."""
    try:
        found = [
            one
            for direction, key in zip(DIRECTIONS, ("IpPermissions", "IpPermissionsEgress"), strict=True)
            for permission in shown.get(key) or ()
            for one in _read(direction, permission)
        ]
    except NOT_UNDERSTOOD as error:
        what = f"the rules of {shown.get('GroupId')} were not understood"
        raise MalformedError(what, evidence=traced(error)) from error
    return frozenset(found)


def _read(direction: Direction, shown: Mapping[str, Any]) -> Iterator[GroupRule]:
    protocol = str(shown["IpProtocol"])
    first, last = int(shown.get("FromPort", -1)), int(shown.get("ToPort", -1))
    peers = [
        *((str(ip_network(one["CidrIp"])), "") for one in shown.get("IpRanges") or ()),
        *((str(ip_network(one["CidrIpv6"])), "") for one in shown.get("Ipv6Ranges") or ()),
        *((one["PrefixListId"], "") for one in shown.get("PrefixListIds") or ()),
        *((one["GroupId"], str(one.get("UserId", ""))) for one in shown.get("UserIdGroupPairs") or ()),
    ]
    for peer, account in peers:
        yield GroupRule(direction, protocol, first, last, str(peer), account)


def as_request(permissions: Iterable[GroupRule], owner: str, description: str = "") -> list[dict[str, Any]]:
    """Rules as EC2 takes them, in the account `owner`; with a description where they are authorized."""
    said = {"Description": description} if description else {}
    found = []
    for one in sorted(permissions, key=attrgetter("protocol", "first", "last", "peer")):
        ports = {} if one.protocol == ALL else {"FromPort": one.first, "ToPort": one.last}
        found.append({"IpProtocol": one.protocol, **ports, **_peer(one, owner, said)})
    return found


def _peer(one: GroupRule, owner: str, said: Mapping[str, str]) -> dict[str, Any]:
    if one.peer.startswith("sg-"):
        theirs = {"UserId": one.account} if one.account and one.account != owner else {}
        return {"UserIdGroupPairs": [{"GroupId": one.peer, **theirs, **said}]}
    if one.peer.startswith("pl-"):
        return {"PrefixListIds": [{"PrefixListId": one.peer, **said}]}
    if ":" in one.peer:
        return {"Ipv6Ranges": [{"CidrIpv6": one.peer, **said}]}
    return {"IpRanges": [{"CidrIp": one.peer, **said}]}
