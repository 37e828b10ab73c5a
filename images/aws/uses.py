"""Who still names an image: instances, launch templates, Auto Scaling groups, launch configurations, parameters.

All of a region is read before anything is decided in it. What cannot be read is never taken for unused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from images.aws.client import Client
from images.aws.cloud import Cloud

AMI = re.compile(r"ami-[0-9a-f]{8,17}")
Uses = dict[str, tuple[str, ...]]
NAMED_AT_ONCE = 10  # GetParameters' limit


def uses_in(cloud: Cloud, region: str) -> Uses:
    """Image id → what names it in a region, in the owner's account and in every other that a role leads to."""
    accounts = [cloud.aws.account, *(one for one in sorted(cloud.aws.roles) if one != cloud.aws.account)]
    found: dict[str, list[str]] = {}
    for account in accounts:
        where = "" if account == cloud.aws.account else f" in account {account}"
        for image_id, what in _uses(cloud, region, account):
            found.setdefault(image_id, []).append(f"{what}{where}")
    return {image_id: tuple(dict.fromkeys(users)) for image_id, users in found.items()}


def unseen(cloud: Cloud) -> tuple[str, ...]:
    """Whom images are shared with, and no role lets us look: accounts and organisations."""
    accounts = [account for account in cloud.aws.share_accounts if account not in cloud.aws.roles]
    return (*accounts, *cloud.aws.share_organizations)


def _uses(cloud: Cloud, region: str, account: str) -> Iterator[tuple[str, str]]:
    ec2, scaling = cloud.client("ec2", region, account), cloud.client("autoscaling", region, account)
    yield from _instances(ec2)
    groups = list(scaling.pages("DescribeAutoScalingGroups", "AutoScalingGroups"))
    yield from _templates(ec2, groups)
    yield from _configurations(scaling, groups)
    yield from _parameters(cloud.client("ssm", region, account))


def _instances(ec2: Client) -> Iterator[tuple[str, str]]:
    for reservation in ec2.pages("DescribeInstances", "Reservations"):
        for instance in reservation["Instances"]:
            if instance["State"]["Name"] != "terminated":
                yield instance["ImageId"], f"the instance {instance['InstanceId']}"


def _templates(ec2: Client, groups: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Every template's default and newest version, and each version that a group starts instances from.

    A parameter in the place of an image is resolved by the service.
    """
    for template in ec2.pages("DescribeLaunchTemplates", "LaunchTemplates"):
        named, wanted = template["LaunchTemplateId"], ("$Default", "$Latest")
        for version in _versions(ec2, named, wanted):
            if image_id := version["LaunchTemplateData"].get("ImageId"):
                number = f"{template['LaunchTemplateName']} version {version['VersionNumber']}"
                yield image_id, f"the launch template {number}"
    for group in groups:
        for template_id, number, own_image in _specified(group):
            shown = f"the Auto Scaling group {group['AutoScalingGroupName']}"
            if own_image:
                yield own_image, shown
            for version in _versions(ec2, template_id, (number,)):
                if image_id := version["LaunchTemplateData"].get("ImageId"):
                    yield image_id, f"{shown}, by its launch template's version {version['VersionNumber']}"


def _versions(ec2: Client, template_id: str, wanted: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    asked = {"LaunchTemplateId": template_id, "Versions": list(wanted), "ResolveAlias": True}
    yield from ec2.pages("DescribeLaunchTemplateVersions", "LaunchTemplateVersions", **asked)


def _specified(group: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The templates that a group starts from, each with its version, and an image that overrides the template's."""
    policy = group.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {})
    overrides = policy.get("Overrides", ())
    given = [group.get("LaunchTemplate"), policy.get("LaunchTemplateSpecification")]
    given += [override.get("LaunchTemplateSpecification") for override in overrides]
    for one in (found for found in given if found):
        yield one["LaunchTemplateId"], str(one.get("Version", "$Default")), ""
    for override in overrides:
        if image_id := override.get("ImageId"):
            yield policy["LaunchTemplateSpecification"]["LaunchTemplateId"], "$Default", image_id


def _configurations(scaling: Client, groups: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    users = {group.get("LaunchConfigurationName"): group["AutoScalingGroupName"] for group in groups}
    for found in scaling.pages("DescribeLaunchConfigurations", "LaunchConfigurations"):
        name = found["LaunchConfigurationName"]
        by = f" of the Auto Scaling group {users[name]}" if name in users else ""
        yield found["ImageId"], f"the launch configuration {name}{by}"


def _parameters(ssm: Client) -> Iterator[tuple[str, str]]:
    """Every parameter that names an image, channels of ours and anybody's.

    Those of type aws:ec2:image do by their type; others may hold an image's id as text.
    """
    named = [found["Name"] for found in ssm.pages("DescribeParameters", "Parameters") if found["Type"] == "String"]
    for start in range(0, len(named), NAMED_AT_ONCE):
        answer = ssm.call("GetParameters", Names=named[start : start + NAMED_AT_ONCE])
        for found in answer["Parameters"]:
            if AMI.fullmatch(found["Value"].strip()):
                yield found["Value"].strip(), f"the parameter {found['Name']}"
