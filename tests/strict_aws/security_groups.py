"""Rules of security groups: all of a request or nothing, told apart without their descriptions, and counted.

moto tells rules between groups apart by their descriptions, authorizes half of a request whose rest is refused, and
drops rules of IPv6. A group of a default VPC is no exception here: what does not match is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from typing import Any
from urllib.parse import parse_qsl, urlencode

from tests.strict_aws.errors import AwsError
from tests.strict_aws.listing import part
from tests.strict_aws.paging import Names, asking, paged, whole
from tests.strict_aws.tags import backend
from tests.strict_aws.wire import Answer, Call
from tests.strict_aws.world import World

MOST = 60
"""Rules of a group in one direction, for each family of addresses; a group that is a peer counts for both."""
Atom = tuple[str, int, int, str]
"""Protocol, first and last port, and peer."""


def change(world: World, call: Call, *, direction: str, authorize: bool) -> dict[str, Any]:
    """Authorize or revoke the rules of a request, all or none."""
    params = call.params
    group = found(call, params.get("GroupId", ""))
    known = {atom_of(rule): rule for rule in getattr(group, f"{direction}_rules")}
    asked = [*atoms(call, params.get("IpPermissions") or [])]
    if not asked:
        raise AwsError("MissingParameter", "Either 'ipPermissions' or 'securityGroupRuleIds' should be provided.")
    if len({atom for atom, _ in asked}) < len(asked):
        raise AwsError("InvalidParameterValue", "The same permission must not appear multiple times")
    return (authorized if authorize else revoked)(call, group, direction, known, asked)


def authorized(call: Call, group: Any, direction: str, known: dict[Atom, Any], asked: list[Any]) -> dict[str, Any]:
    from moto.ec2.models.security_groups import SecurityGroupRule

    if both := [atom for atom, _ in asked if atom in known]:
        raise AwsError("InvalidPermission.Duplicate", f"the specified rule {both[0]} already exists")
    every = [*known, *(atom for atom, _ in asked)]
    for other in (":", "."):
        if sum(other not in peer for *_, peer in every) > MOST:
            raise AwsError("RulesPerSecurityGroupLimitExceeded", f"The group has more than {MOST} rules")
    for (protocol, first, last, peer), shown in asked:
        kind = "CidrIpv6" if ":" in peer else "CidrIp"
        address = {**shown, kind: peer} if "/" in peer else None
        theirs = {"UserId": call.account, "OwnerId": call.account, **shown} if peer.startswith("sg-") else None
        rule = SecurityGroupRule(
            backend(call.account, call.region), protocol, group.id, first, last, address, theirs,
            shown if peer.startswith("pl-") else None, is_egress=direction == "egress",
        )  # fmt: skip
        getattr(group, f"{direction}_rules").append(rule)
    return {"Return": True}


def revoked(call: Call, group: Any, direction: str, known: dict[Atom, Any], asked: list[Any]) -> dict[str, Any]:
    if missing := [atom for atom, _ in asked if atom not in known]:
        raise AwsError("InvalidPermission.NotFound", f"The rule {missing[0]} does not exist in this security group")
    gone = {atom for atom, _ in asked}
    setattr(group, f"{direction}_rules", [rule for atom, rule in known.items() if atom not in gone])
    return {"Return": True}


def found(call: Call, name: str) -> Any:
    """The group of that id, in the caller's account and region."""
    group = backend(call.account, call.region).get_security_group_from_id(name)
    if group is None:
        raise AwsError("InvalidGroup.NotFound", f"The security group '{name}' does not exist")
    return group


def atoms(call: Call, permissions: list[dict[str, Any]]) -> Iterator[tuple[Atom, dict[str, Any]]]:
    """Each rule of a request, with what it says of its peer."""
    for one in permissions:
        protocol, first, last = one["IpProtocol"], one.get("FromPort", -1), one.get("ToPort", -1)
        if protocol in ("tcp", "udp") and not 0 <= first <= last <= 65535:
            raise AwsError("InvalidParameterValue", f"Invalid value for portRange: {first}-{last}")
        for key, shown in peers(one):
            peer = shown[key]
            if key.startswith("Cidr"):
                yield (protocol, first, last, canonical(peer, key)), shown
                continue
            if key == "GroupId" and shown.get("UserId", call.account) == call.account:
                found(call, peer)
            yield (protocol, first, last, peer), shown


def peers(permission: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    lists = {
        "IpRanges": "CidrIp",
        "Ipv6Ranges": "CidrIpv6",
        "UserIdGroupPairs": "GroupId",
        "PrefixListIds": "PrefixListId",
    }
    for name, key in lists.items():
        yield from ((key, shown) for shown in permission.get(name) or [])


def canonical(text: str, key: str) -> str:
    """A range with what lies behind its prefix cleared, as EC2 keeps it."""
    try:
        address = ip_network(text, strict=False)
    except ValueError:
        raise AwsError("InvalidParameterValue", f"CIDR block {text} is malformed") from None
    if (address.version == 6) != (key == "CidrIpv6"):
        raise AwsError("InvalidParameterValue", f"CIDR block {text} is malformed")
    return str(address)


def atom_of(rule: Any) -> Atom:
    """A rule that is kept, as a request would say it."""
    address = rule.ip_range if isinstance(rule.ip_range, dict) else {"CidrIp": rule.ip_range} if rule.ip_range else {}
    prefix = rule.prefix_list_id
    peer = (
        address.get("CidrIp") or address.get("CidrIpv6") or (rule.source_group or {}).get("GroupId")
        or (prefix.get("PrefixListId") if isinstance(prefix, dict) else prefix)
    )  # fmt: skip
    ports = (-1, -1) if rule.from_port in (None, "") else (int(rule.from_port), int(rule.to_port))
    return (str(rule.ip_protocol), *ports, str(peer))


INTERFACES = Names("NetworkInterfaces")


def interfaces(world: World, call: Call) -> Any:
    """Network interfaces, in pages; of several groups in a filter any will do."""
    wanted = [{*one["Values"]} for one in call.params.get("Filters") or [] if one["Name"] == "group-id"]
    if not wanted:
        return paged(INTERFACES, 1000, 1000, world, call)
    form = parse_qsl(call.body.decode(), keep_blank_values=True)
    dropped = tuple(name.removesuffix("Name") for name, value in form if value == "group-id")
    body = urlencode([(name, value) for name, value in form if not name.startswith(dropped)]).encode()
    every = replace(call, body=body)
    answer = whole(every, INTERFACES, call.forward(asking(every, INTERFACES, "")))
    if isinstance(answer, Answer):
        return answer
    found = [one for one in answer[INTERFACES.key] if all(_has(one, groups) for groups in wanted)]
    size = min(call.params.get("MaxResults") or 1000, 1000, world.page_at_most)
    shown, more = part(found, call.params.get("NextToken"), size)
    return {INTERFACES.key: shown, **more}


def _has(interface: dict[str, Any], groups: set[str]) -> bool:
    return any(one["GroupId"] in groups for one in interface["Groups"])


RULES = {
    "DescribeNetworkInterfaces": interfaces,
    "AuthorizeSecurityGroupIngress": partial(change, direction="ingress", authorize=True),
    "AuthorizeSecurityGroupEgress": partial(change, direction="egress", authorize=True),
    "RevokeSecurityGroupIngress": partial(change, direction="ingress", authorize=False),
    "RevokeSecurityGroupEgress": partial(change, direction="egress", authorize=False),
}
