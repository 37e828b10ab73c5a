"""Edge: reads the rules of security groups from EC2, and changes them step by step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from hardening.foundation.asking import ask_each, portions
from hardening.foundation.errors import ContentError, GoldsmithError, understood
from images.aws.permissions import NETWORK, ResourcePattern, permit
from pipelines.network.model import Network
from pipelines.network.security_groups import GroupKey, GroupRule, GroupRuleStep, SeenInterface, as_request, read_group

if TYPE_CHECKING:
    from images.aws.client import Client
    from images.aws.cloud import Cloud

T = TypeVar("T")
AccountRegion = tuple[str, str]
"""An account, and a region of it."""

GROUPS = "network_groups"
GROUP = ResourcePattern("arn:{partition}:ec2:{region}:{account}:security-group/{group}", each=GROUPS)
"""A group that the network names; not those that its rules name as peers, for which EC2 asks no permission."""
PERMISSIONS = (
    permit("ec2:DescribeNetworkInterfaces ec2:DescribeSecurityGroups", NETWORK, on=ResourcePattern(each=GROUPS)),
    permit("ec2:AuthorizeSecurityGroupEgress ec2:AuthorizeSecurityGroupIngress", NETWORK, on=GROUP),
    permit("ec2:RevokeSecurityGroupEgress ec2:RevokeSecurityGroupIngress", NETWORK, on=GROUP),
)
DESCRIPTION = "goldsmith: network"
AT_ONCE = 200
"""Values of one filter, which is what EC2 takes."""
OPERATIONS = {
    ("authorize", "ingress"): "AuthorizeSecurityGroupIngress", ("revoke", "ingress"): "RevokeSecurityGroupIngress",
    ("authorize", "egress"): "AuthorizeSecurityGroupEgress", ("revoke", "egress"): "RevokeSecurityGroupEgress",
}  # fmt: skip
DONE = {"authorize": "InvalidPermission.Duplicate", "revoke": "InvalidPermission.NotFound"}
"""What EC2 answers where an earlier run, or a lost answer, has done it already."""


def own_account(cloud: Cloud, network: Network) -> str:
    """The account of groups that name none. Raises ContentError where there are such, and none is set."""
    if not cloud.aws.account and any(not one.account for one in network.groups):
        hint = "docs/aws.md shows the [aws] table of goldsmith.toml; or give each group its `account`"
        raise ContentError("security groups are in an account, and none is set", key="aws.account", hint=hint)
    return cloud.aws.account


def read_groups(cloud: Cloud, keys: Iterable[GroupKey]) -> dict[GroupKey, frozenset[GroupRule] | str]:
    """The rules of each group; of one that could not be read why."""
    return {
        (*place, group): found if isinstance(found, str) else found.get(group, "there is no such group")
        for place, (groups, found) in _each_place(cloud, keys, _ask_groups).items()
        for group in groups
    }


def read_interfaces(cloud: Cloud, keys: Iterable[GroupKey]) -> dict[AccountRegion, tuple[SeenInterface, ...] | str]:
    """The interfaces that have some of the groups, by account and region; where they could not be read why."""
    return {
        place: found if isinstance(found, str) else tuple(found.values())
        for place, (_, found) in _each_place(cloud, keys, _ask_interfaces).items()
    }


def _each_place(
    cloud: Cloud, keys: Iterable[GroupKey], ask: Callable[[Client, list[str]], dict[str, T]]
) -> dict[AccountRegion, tuple[list[str], dict[str, T] | str]]:
    """Ask accounts and regions side by side: the groups there, and the answer, or why there is none."""
    places: dict[AccountRegion, list[str]] = defaultdict(list)
    for account, region, group in sorted(set(keys)):
        places[account, region].append(group)

    def question(account: str, region: str) -> dict[str, T]:
        return ask(cloud.client("ec2", region, account), places[account, region])

    answers = ask_each({place: partial(question, *place) for place in places}, cloud.aws.read_within)
    return {
        place: (places[place], answer.message if isinstance(answer, GoldsmithError) else answer)
        for place, answer in answers.items()
    }


def _ask_groups(client: Client, groups: list[str]) -> dict[str, frozenset[GroupRule]]:
    found = dict[str, frozenset[GroupRule]]()
    for wanted in _filters(groups):
        for shown in client.pages("DescribeSecurityGroups", "SecurityGroups", Filters=wanted):
            found[str(shown.get("GroupId"))] = read_group(shown)
    return found


@understood("EC2")
def _ask_interfaces(client: Client, groups: list[str]) -> dict[str, SeenInterface]:
    found = dict[str, SeenInterface]()
    for wanted in _filters(groups):
        for shown in client.pages("DescribeNetworkInterfaces", "NetworkInterfaces", Filters=wanted):
            name, its = str(shown["NetworkInterfaceId"]), frozenset(str(one["GroupId"]) for one in shown["Groups"])
            found[name] = SeenInterface(name, its)
    return found


def _filters(groups: list[str]) -> Iterator[list[dict[str, Any]]]:
    return ([{"Name": "group-id", "Values": some}] for some in portions(groups, AT_ONCE))


def change_group(cloud: Cloud, step: GroupRuleStep) -> None:
    """Do one step. What is done already is no error; rules of which only some are, are done one by one."""
    account, region, group = step.group
    client, operation = cloud.client("ec2", region, account), OPERATIONS[step.action, step.direction]
    said = DESCRIPTION if step.action == "authorize" else ""
    done, request = {DONE[step.action]}, partial(as_request, owner=account, description=said)
    if client.call_unless(operation, done, GroupId=group, IpPermissions=request(step.permissions)) is None:
        for one in step.permissions:
            client.call_unless(operation, done, GroupId=group, IpPermissions=request([one]))
