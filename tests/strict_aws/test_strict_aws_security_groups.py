"""Where moto lies about rules of security groups: red without the strict rule."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.strict_aws import StrictAws


def rule(peer: dict[str, Any], kind: str, port: int = 443) -> dict[str, Any]:
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, kind: [peer]}


@pytest.fixture
def group(aws: StrictAws) -> tuple[Any, str]:
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    return ec2, ec2.create_security_group(GroupName="g", Description="g", VpcId=vpc)["GroupId"]


def shown(ec2: Any, group: str, side: str = "IpPermissions") -> list[Any]:
    return list(ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0][side])


def refused(act: Any, **request: Any) -> str:
    with pytest.raises(ClientError) as caught:
        act(**request)
    return str(caught.value.response["Error"]["Code"])


def test_a_rule_is_revoked_without_its_description(group: tuple[Any, str]) -> None:
    ec2, name = group
    for peer, kind in (({"GroupId": name}, "UserIdGroupPairs"), ({"CidrIpv6": "fd00::/8"}, "Ipv6Ranges")):
        ec2.authorize_security_group_ingress(GroupId=name, IpPermissions=[rule({**peer, "Description": "d"}, kind)])
        assert shown(ec2, name)
        ec2.revoke_security_group_ingress(GroupId=name, IpPermissions=[rule(peer, kind)])
        assert not shown(ec2, name)


def test_a_request_is_done_whole_or_not_at_all(group: tuple[Any, str]) -> None:
    ec2, name = group
    old, new = rule({"CidrIp": "10.0.0.0/8"}, "IpRanges"), rule({"CidrIp": "10.0.0.0/8"}, "IpRanges", 80)
    ec2.authorize_security_group_ingress(GroupId=name, IpPermissions=[old])
    asked = {"GroupId": name, "IpPermissions": [new, old]}
    assert refused(ec2.authorize_security_group_ingress, **asked) == "InvalidPermission.Duplicate"
    assert refused(ec2.revoke_security_group_ingress, **asked) == "InvalidPermission.NotFound"
    (only,) = shown(ec2, name)
    assert only["FromPort"] == 443


def test_ipv6_goes_out_too(group: tuple[Any, str]) -> None:
    ec2, name = group
    asked = {"GroupId": name, "IpPermissions": [rule({"CidrIpv6": "fd00::/8"}, "Ipv6Ranges")]}
    ec2.authorize_security_group_egress(**asked)
    assert any(one["Ipv6Ranges"] for one in shown(ec2, name, "IpPermissionsEgress"))
    ec2.revoke_security_group_egress(**asked)
    assert not any(one["Ipv6Ranges"] for one in shown(ec2, name, "IpPermissionsEgress"))


def test_a_group_takes_sixty_rules_and_no_peer_that_is_not_there(group: tuple[Any, str]) -> None:
    ec2, name = group
    many = [rule({"CidrIp": "10.0.0.0/8"}, "IpRanges", port) for port in range(1, 61)]
    ec2.authorize_security_group_ingress(GroupId=name, IpPermissions=many)
    one = [rule({"CidrIp": "10.0.0.0/8"}, "IpRanges", 99)]
    code = refused(ec2.authorize_security_group_ingress, GroupId=name, IpPermissions=one)
    assert code == "RulesPerSecurityGroupLimitExceeded"
    absent = [rule({"GroupId": "sg-00000000000000000"}, "UserIdGroupPairs")]
    assert refused(ec2.authorize_security_group_egress, GroupId=name, IpPermissions=absent) == "InvalidGroup.NotFound"


def test_interfaces_are_found_by_any_of_several_groups(group: tuple[Any, str]) -> None:
    ec2, name = group
    vpc = ec2.describe_security_groups(GroupIds=[name])["SecurityGroups"][0]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    other, third = (
        ec2.create_security_group(GroupName=one, Description=one, VpcId=vpc)["GroupId"] for one in ("h", "i")
    )
    for groups in ([name, third], [other, third], [third]):
        ec2.create_network_interface(SubnetId=subnet, Groups=groups)
    wanted = [{"Name": "group-id", "Values": [name, other]}, {"Name": "subnet-id", "Values": [subnet]}]
    found = [one for page in ec2.get_paginator("describe_network_interfaces").paginate(
        Filters=wanted, PaginationConfig={"PageSize": 5}) for one in page["NetworkInterfaces"]]  # fmt: skip
    assert len(found) == 2
    assert len(ec2.describe_network_interfaces(Filters=wanted[1:])["NetworkInterfaces"]) == 3
