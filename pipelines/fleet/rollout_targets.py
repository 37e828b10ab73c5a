"""What rollouts may touch at AWS: members of fleets by their selectors, and what rollouts launched. Pure."""

from __future__ import annotations

from images.aws.permissions import (
    OWN_PARAMETERS,
    PUBLIC_PARAMETERS,
    ROLLER,
    Permission,
    PermissionCondition,
    ResourcePattern,
    absent,
    only_tags,
    permit,
    present,
)
from pipelines.fleet.members import EXPIRY, OWN_LABELS, OWNED, ROLLOUT


def _ec2(kind: str, *conditions: PermissionCondition, each: str = "machines") -> ResourcePattern:
    return ResourcePattern(f"arn:{{partition}}:ec2:*:{{account}}:{kind}/*", conditions, each)


def _tagged(key: str) -> PermissionCondition:
    return present(f"aws:ResourceTag/{key}")


MACHINES = ResourcePattern(each="machines")
"""Reads that AWS cannot narrow, where some fleet has machines."""
ROOT_VOLUMES = ResourcePattern(each="root_volumes")
"""The same, where some fleet replaces root volumes."""
MEMBERS = _ec2("instance", each="members")
"""Instances with the tags of a fleet's selector."""
OUR_TAGS = only_tags(f"{OWN_LABELS}*")
MARKED = MEMBERS.where(OUR_TAGS, absent(f"aws:RequestTag/{OWNED}"))
"""The same as they are given tags of ours, but never the one by which they could be terminated."""
OWNED_INSTANCE = _ec2("instance", _tagged(OWNED), each="launching")
OWNED_MEMBER = _ec2("instance", _tagged(OWNED), each="launching_members")
"""What a rollout launched for a fleet: it has the tags of the selector from the first moment."""
DUE = _tagged(EXPIRY)
"""What a rollout made and has not handed over: the reaper's, once the tag's time has come."""
VOLUME, INTERFACE, ADDRESS = (_ec2(kind) for kind in ("volume", "network-interface", "elastic-ip"))
OWN_VOLUME, OWN_INTERFACE = (one.where(_tagged(ROLLOUT)) for one in (VOLUME, INTERFACE))
"""What a rollout launched beside an instance, or marked."""
ROOT_VOLUME = _ec2("volume", present(f"aws:RequestTag/{ROLLOUT}"), each="root_volumes")
"""A root volume as a rollout marks it: AWS cannot tell whose it is before."""
GROUP = ResourcePattern(
    "arn:{partition}:autoscaling:*:{account}:autoScalingGroup:*:autoScalingGroupName/*", each="members"
)
TEMPLATE = _ec2("launch-template")
TARGET_GROUP = ResourcePattern("arn:{partition}:elasticloadbalancing:*:{account}:targetgroup/*", each="machines")
ALARMS = ResourcePattern("arn:{partition}:cloudwatch:*:{account}:alarm:*", each="clouds")
OF_TEMPLATES = (PUBLIC_PARAMETERS, ResourcePattern(OWN_PARAMETERS.pattern, each="machines"))
"""Parameters that launch templates take images from."""
OWN_AMI = ResourcePattern("arn:{partition}:ec2:*::image/*", (("StringEquals", "ec2:Owner", "{owner}"),), "machines")
"""Images of the account that publishes them; their tags do not show in others."""
_PARTS = ("subnet", "security-group", "network-interface", "volume", "key-pair", "capacity-reservation")
ROOT_PARTS = (
    _ec2("instance", each="root_members"),
    *(_ec2(kind, each="root_volumes") for kind in ("volume", "replace-root-volume-task")),
    ResourcePattern(OWN_AMI.pattern, OWN_AMI.conditions, "root_volumes"),
)
"""What a task is about that replaces a root volume."""
PARTS = (
    *(_ec2(kind) for kind in (*_PARTS, "placement-group")),
    ResourcePattern("arn:{partition}:license-manager:*:{account}:license-configuration:*", each="machines"),
    ResourcePattern("arn:{partition}:resource-groups:*:{account}:group/*", each="machines"),
)
"""What a launch names or makes beside the instance."""
_IMDSV2 = ("StringEquals", "ec2:MetadataHttpTokens", "required")
LAUNCHED = _ec2("instance", present(f"aws:RequestTag/{OWNED}"), _IMDSV2, each="launching")
FROM_TEMPLATE = _ec2(
    "instance",
    ("ArnLike", "ec2:LaunchTemplate", "arn:{partition}:ec2:*:{account}:launch-template/*"),
    ("Bool", "ec2:IsLaunchTemplateResource", "true"),
)
"""Instances that Auto Scaling launches from a template, nothing of which the request changes."""
_BY_A_LAUNCH = ("StringEquals", "ec2:CreateAction", ("CreateReplaceRootVolumeTask", "RunInstances"))
_LAUNCHED = ("instance", "volume", "network-interface", "replace-root-volume-task")
TAGGED_AT_LAUNCH = tuple(_ec2(kind, _BY_A_LAUNCH) for kind in _LAUNCHED)
_BY_EC2 = ("StringLike", "kms:ViaService", "ec2.*.amazonaws.com")
VOLUME_KEYS = (
    ResourcePattern("arn:{partition}:kms:*:{account}:key/*", (_BY_EC2,), "machines"),
    ResourcePattern("{key}", (_BY_EC2,), "shared_keys"),
)
"""Of members' volumes, which may have any, and in another account those of the images; only for EC2 as it uses them."""
REGISTERED = ("StringEquals", "ecs:CreateAction", "RegisterTaskDefinition")


def ecs(pattern: str) -> ResourcePattern:
    """Something in the clusters of ECS fleets."""
    return ResourcePattern(f"arn:{{partition}}:ecs:{{region}}:{{account}}:{pattern}", each="ecs")


def eks(pattern: str) -> ResourcePattern:
    """Something in the clusters of EKS fleets."""
    return ResourcePattern(f"arn:{{partition}}:eks:{{region}}:{{account}}:{pattern}", each="eks")


SERVICES_OF_CLUSTER = ecs("service/{cluster}/*")


def passed(service: str) -> ResourcePattern:
    """The roles that the settings name, handed to one service of AWS."""
    return ResourcePattern("{role}", (("StringEquals", "iam:PassedToService", service),), "passed_roles")


def launch_from_template(by: str) -> tuple[Permission, ...]:
    """What AWS asks for in the name of who lets a service launch instances from a launch template."""
    return (
        permit("ec2:RunInstances", ROLLER, on=(OWN_AMI, FROM_TEMPLATE, TEMPLATE, *PARTS), by=by),
        permit("ec2:CreateTags", ROLLER, on=TAGGED_AT_LAUNCH, by=by),
        permit("iam:PassRole", ROLLER, on=passed("ec2.amazonaws.com"), by=by),
    )
