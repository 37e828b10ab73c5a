"""Requests under the policies of our own roles that an independent simulator of IAM judges too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hardening.foundation.settings import Aws, Settings
from pipelines.fleet.model import Fleet
from pipelines.network.model import RoleGroup
from tests.support.roles import rendered

ACCOUNT, PARTNER, HOME = "123456789012", "210987654321", "eu-central-1"
KEY = f"arn:aws:kms:{HOME}:{ACCOUNT}:key/"
EC2 = f"arn:aws:ec2:{HOME}:{ACCOUNT}:"
PUBLIC = f"arn:aws:ec2:{HOME}::"
INSTANCE, VOLUME, SNAPSHOT = f"{EC2}instance/i-1", f"{EC2}volume/vol-1", f"{PUBLIC}snapshot/snap-1"
GROUP = f"arn:aws:autoscaling:{HOME}:{ACCOUNT}:autoScalingGroup:0:autoScalingGroupName/shop"
PARAMETER = f"arn:aws:ssm:{HOME}:{ACCOUNT}:parameter/"
SHOP, ADMIN = f"arn:aws:iam::{ACCOUNT}:role/shop", f"arn:aws:iam::{ACCOUNT}:role/admin"
THERE = f"arn:aws:iam::{PARTNER}:role/goldsmith"
GROUP_ID = "sg-0123456789abcdef0"


def tagged(**tags: str) -> dict[str, str]:
    """A resource's tags; of ours without the prefix."""
    named = {key if key in ("app", "team") else f"dev.goldsmith.{key}": value for key, value in tags.items()}
    return {f"aws:ResourceTag/{key}": value for key, value in named.items()}


def given(*keys: str, **more: str) -> dict[str, Any]:
    """A request with these tags."""
    return {**{f"aws:RequestTag/{key}": "x" for key in keys}, "aws:TagKeys": list(keys), **more}


OURS = "dev.goldsmith."
MEMBER, OWNED = tagged(app="shop"), tagged(app="shop", owned="x")
LAUNCH = {"aws:RequestTag/dev.goldsmith.owned": "x", "ec2:MetadataHttpTokens": "required"}
ASKED: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("roller", "ec2:TerminateInstances", INSTANCE, OWNED),
    ("roller", "ec2:TerminateInstances", INSTANCE, MEMBER),
    ("roller", "ec2:TerminateInstances", INSTANCE, {}),
    ("roller", "ec2:TerminateInstances", INSTANCE, tagged(app="bank", owned="x")),
    ("roller", "ec2:TerminateInstances", INSTANCE, {**OWNED, "aws:RequestedRegion": "us-west-2"}),
    ("roller", "ec2:StopInstances", INSTANCE, MEMBER),
    ("roller", "ec2:StopInstances", INSTANCE, tagged(app="bank")),
    ("roller", "ec2:StopInstances", f"arn:aws:ec2:{HOME}:{PARTNER}:instance/i-1", MEMBER),
    ("roller", "ec2:ModifyInstanceAttribute", INSTANCE, {}),
    ("roller", "ec2:CreateTags", INSTANCE, {**MEMBER, **given(f"{OURS}member", f"{OURS}rollout")}),
    ("roller", "ec2:CreateTags", INSTANCE, {**MEMBER, **given(f"{OURS}member", "team")}),
    ("roller", "ec2:CreateTags", INSTANCE, {**MEMBER, **given(f"{OURS}owned")}),
    ("roller", "ec2:CreateTags", INSTANCE, {**tagged(app="bank"), **given(f"{OURS}member")}),
    ("roller", "ec2:CreateTags", INSTANCE, given(f"{OURS}owned", **{"ec2:CreateAction": "RunInstances"})),
    ("roller", "ec2:DeleteTags", INSTANCE, {**MEMBER, "aws:TagKeys": [f"{OURS}expiry"]}),
    ("roller", "ec2:DeleteTags", INSTANCE, {**MEMBER, "aws:TagKeys": ["app"]}),
    ("roller", "ec2:DeleteVolume", VOLUME, tagged(rollout="x")),
    ("roller", "ec2:DeleteVolume", VOLUME, {}),
    ("roller", "ec2:RunInstances", INSTANCE, LAUNCH),
    ("roller", "ec2:RunInstances", INSTANCE, {**LAUNCH, "ec2:MetadataHttpTokens": "optional"}),
    ("roller", "ec2:RunInstances", INSTANCE, {"ec2:MetadataHttpTokens": "required"}),
    ("roller", "ec2:RunInstances", INSTANCE,
     {"ec2:LaunchTemplate": f"{EC2}launch-template/lt-1", "ec2:IsLaunchTemplateResource": "true"}),
    ("roller", "ec2:RunInstances", INSTANCE,
     {"ec2:LaunchTemplate": f"{EC2}launch-template/lt-1", "ec2:IsLaunchTemplateResource": "false"}),
    ("roller", "ec2:RunInstances", f"{PUBLIC}image/ami-1", {"ec2:Owner": ACCOUNT}),
    ("roller", "ec2:RunInstances", f"{PUBLIC}image/ami-1", {"ec2:Owner": "amazon"}),
    ("roller", "autoscaling:StartInstanceRefresh", GROUP, MEMBER),
    ("roller", "autoscaling:StartInstanceRefresh", GROUP, {}),
    ("roller", "iam:PassRole", SHOP, {"iam:PassedToService": "ec2.amazonaws.com"}),
    ("roller", "iam:PassRole", SHOP, {"iam:PassedToService": "lambda.amazonaws.com"}),
    ("roller", "iam:PassRole", ADMIN, {"iam:PassedToService": "ec2.amazonaws.com"}),
    ("roller", "ecs:UpdateService", f"arn:aws:ecs:{HOME}:{ACCOUNT}:service/shop/web", {}),
    ("roller", "ecs:UpdateService", f"arn:aws:ecs:{HOME}:{ACCOUNT}:service/bank/web", {}),
    ("roller", "kms:CreateGrant", f"{KEY}data",
     {"kms:ViaService": f"ec2.{HOME}.amazonaws.com", "kms:GrantIsForAWSResource": "true"}),
    ("roller", "kms:CreateGrant", f"{KEY}data",
     {"kms:ViaService": f"ec2.{HOME}.amazonaws.com", "kms:GrantIsForAWSResource": "false"}),
    ("roller", "kms:Decrypt", f"{KEY}data", {"kms:ViaService": f"s3.{HOME}.amazonaws.com"}),
    ("reaper", "ec2:TerminateInstances", INSTANCE, tagged(owned="x", expiry="x")),
    ("reaper", "ec2:TerminateInstances", INSTANCE, OWNED),
    ("reaper", "ec2:TerminateInstances", INSTANCE, tagged(expiry="x")),
    ("reaper", "ec2:DeregisterImage", f"{PUBLIC}image/ami-1", tagged(name="x")),
    ("reaper", "ec2:DeregisterImage", f"{PUBLIC}image/ami-1", {}),
    ("reaper", "ssm:DeleteParameters", f"{PARAMETER}goldsmith/debian-server/statements/x", {}),
    ("reaper", "ssm:DeleteParameters", f"{PARAMETER}shop/x", {}),
    ("publisher", "ec2:ModifySnapshotAttribute", SNAPSHOT, {**tagged(name="x"), "ec2:Add/userId": [PARTNER]}),
    ("publisher", "ec2:ModifySnapshotAttribute", SNAPSHOT, {**tagged(name="x"), "ec2:Add/userId": ["999999999999"]}),
    ("publisher", "ec2:ModifySnapshotAttribute", SNAPSHOT, {**tagged(name="x"), "ec2:Add/group": "all"}),
    ("publisher", "kms:Sign", f"{KEY}sign", {}),
    ("publisher", "kms:Sign", f"{KEY}other", {}),
    ("publisher", "ec2:DeleteTags", SNAPSHOT, {**tagged(name="x"), "aws:TagKeys": [f"{OURS}reap-after"]}),
    ("publisher", "ec2:DeleteTags", SNAPSHOT, {**tagged(name="x"), "aws:TagKeys": [f"{OURS}name"]}),
    ("scanner", "sts:AssumeRole", THERE, {"sts:ExternalId": "shop-7"}),
    ("scanner", "sts:AssumeRole", THERE, {}),
    ("scanner", "sts:AssumeRole", THERE, {"sts:ExternalId": "other"}),
    ("scanner", "ec2:StopInstances", INSTANCE, MEMBER),
    ("auditor", "iam:GetAccountAuthorizationDetails", "*", {}),
    ("auditor", "ec2:DescribeInstances", "*", {}),
    ("auditor", "ec2:DescribeInstances", "*", {"aws:RequestedRegion": "us-west-2"}),
    ("builder", "kms:GetPublicKey", f"{KEY}sign", {}),
    ("builder", "kms:Sign", f"{KEY}sign", {}),
    ("network", "ec2:DescribeSecurityGroups", "*", {}),
    ("network", "ec2:DescribeNetworkInterfaces", "*", {}),
    ("network", "ec2:AuthorizeSecurityGroupIngress", f"{EC2}security-group/{GROUP_ID}", {}),
    ("network", "ec2:RevokeSecurityGroupEgress", f"{EC2}security-group/{GROUP_ID}",
     {"aws:RequestedRegion": "us-west-2"}),
    ("network", "ec2:AuthorizeSecurityGroupIngress", f"{EC2}security-group/sg-ffffffff", {}),
    ("network", "ec2:RevokeSecurityGroupEgress", f"arn:aws:ec2:{HOME}:{PARTNER}:security-group/{GROUP_ID}", {}),
)  # fmt: skip


def settings() -> Settings:
    """An installation with one account beside its own."""
    aws = Aws(
        account=ACCOUNT, region=HOME, kms_keys={HOME: f"{KEY}images"}, signing_key=f"{KEY}sign",
        share_accounts=(PARTNER,), roles={PARTNER: THERE}, external_ids={PARTNER: "shop-7"},
    )  # fmt: skip
    return Settings(state=Path("/nowhere"), aws=aws)


def fleets() -> list[Fleet]:
    """One of machines, one of services."""
    common = {"title": "x", "owner": "ann", "replacement": {"definition": "debian-server"}}
    return [
        Fleet.model_validate({**common, "name": "shop", "kind": "ec2", "selector": {"app": "shop"}}),
        Fleet.model_validate({**common, "name": "web", "kind": "ecs", "selector": {"app": "web"},
                              "ecs": {"cluster": "shop"}}),
    ]  # fmt: skip


KEY_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
            "Action": "kms:*",
            "Resource": "*",
        }
    ],
}
"""As AWS makes it: policies of the account decide."""


def of_roles() -> Iterator[dict[str, Any]]:
    """Each request with the policies of its role, as the simulator takes it."""
    for number, (role, action, resource, context) in enumerate(ASKED):
        me = f"arn:aws:iam::{ACCOUNT}:role/{role}"
        yield {
            "name": f"role {number} {role} {action}",
            "principal": me,
            "action": action,
            "resource": resource,
            "context": {"aws:PrincipalArn": me, "aws:RequestedRegion": HOME, **context},
            "identity": rendered(
                role,
                settings(),
                fleets(),
                groups=[RoleGroup(id=GROUP_ID, region=HOME, account="")],
                passed_roles=(SHOP,),
            ),
            "boundary": None,
            "trust": KEY_POLICY if action.startswith("kms:") else None,
        }
