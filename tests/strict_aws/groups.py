"""Auto Scaling groups in moto, set right: exact template versions, zones in turn, members that are Pending at first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from tests.strict_aws import health, launching, lifecycle
from tests.strict_aws.world import World

ACTIVE = {"Pending", "InService"}


@dataclass(frozen=True)
class Version:
    """One exact version of a launch template: what a group starts from."""

    template: Any
    number: int

    @property
    def data(self) -> dict[str, Any]:
        return dict(self.template.get_version(self.number).data)

    def shown(self) -> dict[str, str]:
        return {
            "LaunchTemplateId": self.template.id,
            "LaunchTemplateName": self.template.name,
            "Version": str(self.number),
        }


def version_of(backend: Any, named: dict[str, str]) -> Version:
    """The exact version that a LaunchTemplateSpecification stands for now."""
    name = named.get("LaunchTemplateId") or backend.launch_template_name_to_ids[named["LaunchTemplateName"]]
    template = backend.launch_templates[name]
    return Version(template, int(template.get_version(named.get("Version") or "$Default").number))


def own_version(group: Any) -> Version | None:
    """What the group's settings stand for now; None where it starts from a launch configuration."""
    if group.ec2_launch_template is None:
        return None
    return Version(
        group.ec2_launch_template, int(group.ec2_launch_template.get_version(group.launch_template_version).number)
    )


ATTACHED_TO = "attachment.instance-id"


def mend() -> None:
    """Put right what moto does wrong inside, in groups and at launches, where no rule in front of it could."""
    from moto.autoscaling import models
    from moto.ec2.models.elastic_block_store import EBSBackend, Volume, VolumeAttachment
    from moto.ec2.models.elastic_network_interfaces import Attachment, NetworkInterface
    from moto.ec2.models.instances import Instance
    from moto.ec2.models.launch_templates import LaunchTemplate
    from moto.elbv2.models import FakeTargetGroup

    group, member, backend = models.FakeAutoScalingGroup, models.InstanceState, models.AutoScalingBackend
    if getattr(group, "mended", False):
        return
    group.mended = True
    usual = group.replace_autoscaling_group_instances
    group.active_instances = lambda self: [one for one in self.instance_states if one.lifecycle_state in ACTIVE]
    group.replace_autoscaling_group_instances = lambda self, count, given: (
        start(self, count, given, version)
        if (version := getattr(self, "rolling", None) or own_version(self))
        else usual(self, count, given)
    )
    member.launch_template = property(lambda self: version.shown() if (version := started_from(self)) else None)
    backend.update_attached_target_groups = attach
    LaunchTemplate.get_version, LaunchTemplate.create_version = numbered, numbering
    VolumeAttachment.delete_on_termination = property(
        lambda self: self.instance.block_device_mapping[self.device].delete_on_termination
    )
    Volume.attachments = property(
        lambda self: [one for one in (self.attachment, *getattr(self, "further", [])) if one is not None]
    )
    listed = EBSBackend.describe_volumes
    EBSBackend.describe_volumes = lambda self, volume_ids=None, filters=None: on_any(
        listed(self, volume_ids, {key: one for key, one in (filters or {}).items() if key != ATTACHED_TO}),
        (filters or {}).get(ATTACHED_TO),
    )
    NetworkInterface.attachment = property(lambda self: carded(Attachment(self), self) if self.attachment_id else None)
    Instance.setup_defaults = Instance.add_block_device = lambda *given, **more: None  # `volumes` gives them theirs
    FakeTargetGroup.register = lambda self, asked: self.targets.update(
        {one["Id"]: {"Id": one["Id"], "Port": one.get("Port", self.port)} for one in asked}
    )  # who may be registered is for the rule to say


def on_any(volumes: list[Any], instances: list[str] | None) -> list[Any]:
    """The volumes that are attached to one of these instances; to moto a volume is attached once."""
    if instances is None:
        return volumes
    return [volume for volume in volumes if any(one.instance.id in instances for one in volume.attachments)]


def carded(attachment: Any, nic: Any) -> Any:
    """An interface's attachment with the network card that it was put on."""
    attachment.network_card_index = getattr(nic, "network_card_index", 0)
    return attachment


def numbered(self: Any, wanted: Any) -> Any:
    """A template's version by its number, which is no place in a list: versions may have been deleted."""
    from moto.ec2.exceptions import InvalidLaunchTemplateVersionNotFound

    symbols = {"$latest": self.versions[-1].number, "$default": self.default_version_number}
    number = symbols.get(str(wanted).lower(), wanted)
    found = [one for one in self.versions if str(one.number) == str(number)]
    if not found:
        raise InvalidLaunchTemplateVersionNotFound(template_id=self.id, version=wanted)
    return found[0]


def numbering(self: Any, data: dict[str, Any], description: str) -> Any:
    """A new version has the next number: none is given twice."""
    from moto.ec2.models.launch_templates import LaunchTemplateVersion

    number = self.versions[-1].number + 1 if self.versions else 1
    self.versions.append(LaunchTemplateVersion(self, number, data, description))
    return self.versions[-1]


def started_from(member: Any) -> Version | None:
    return getattr(member.instance, "version", None)


def attach(self: Any, name: str) -> None:
    """Register a group's members with its target groups: those that stay."""
    group = self.autoscaling_groups[name]
    for arn in group.target_group_arns:
        found = self.elbv2_backend.target_groups[arn]
        found.register([{"Id": one.instance.id, "Port": found.port} for one in group.active_instances()])


def start(group: Any, count: int, given: dict[str, str], version: Version) -> list[Any]:
    """Start members from this exact version, in the zone or subnet that has the fewest."""
    from moto.autoscaling.models import InstanceState

    made = []
    for _ in range(count):
        instance = started(group, version, {**given, "aws:autoscaling:groupName": group.name})
        instance.autoscaling_group, instance.version = group, version
        protected = group.new_instances_protected_from_scale_in
        made.append(InstanceState(instance, protected_from_scale_in=protected))
        group.instance_states.append(made[-1])
    return made


def started(group: Any, version: Version, given: dict[str, str]) -> Any:
    subnets = group.vpc_zone_identifier.split(",") if group.vpc_zone_identifier else []
    places = subnets or group.availability_zones
    used = Counter(
        one.instance.subnet_id if subnets else one.instance.availability_zone for one in group.active_instances()
    )
    place = min(places, key=lambda name: used[name])
    data = version.data
    reservation = group.ec2_backend.run_instances(
        data.get("ImageId", ""), 1, data.get("UserData"), data.get("SecurityGroups", []),
        instance_type=data.get("InstanceType", "m1.small"), is_instance_type_default=False,
        key_name=data.get("KeyName"), security_group_ids=data.get("SecurityGroupIds", []),
        placement=None if subnets else place, subnet_id=place if subnets else None, region_name=group.region,
        launch_template={"LaunchTemplateId": version.template.id, "Version": str(version.number)},
        tags={"instance": given},
    )  # fmt: skip
    (instance,) = reservation.instances
    launching.fit(group.ec2_backend, instance, {}, data)
    return instance


def settle(world: World, account: str, region: str) -> None:
    """Members that are new are Pending until they run; targets of groups are known from now on."""
    from moto.autoscaling import autoscaling_backends

    for group in autoscaling_backends[account][region].autoscaling_groups.values():
        for member in group.instance_states:
            if member.instance.state == "pending" and not hasattr(member, "since"):
                member.lifecycle_state, member.since = "Pending", None
                world.after("launch", partial(serve, world, member))
        for arn in group.target_group_arns:
            if found := group.autoscaling_backend.elbv2_backend.target_groups.get(arn):
                health.targets(world, found)


def serve(world: World, member: Any) -> None:
    if member.lifecycle_state == "Pending" and member.instance.state == "running":
        member.lifecycle_state, member.since = "InService", world.now()


def well(world: World, group: Any, member: Any) -> bool:
    """In service, not called unhealthy, and healthy to the checks that the group goes by."""
    backend = group.ec2_backend
    if member.lifecycle_state != "InService" or member.health_status != "Healthy":
        return False
    if "impaired" in {lifecycle.status_of(world, member.instance, kind) for kind in ("status", "system")}:
        return False
    if "ELB" not in group.health_check_type:
        return bool(member.instance.state == "running")
    found = [group.autoscaling_backend.elbv2_backend.target_groups[arn] for arn in group.target_group_arns]
    return all(
        health.state_of(world, backend, one, (member.instance.id, int(one.port)))[0] == "healthy" for one in found
    )


def since(member: Any) -> datetime | None:
    """From when on it is in service."""
    return getattr(member, "since", None)


def retire(world: World, group: Any, member: Any) -> None:
    """A member goes: its connections drain, then it is terminated."""
    if member.lifecycle_state.startswith("Terminating"):
        return
    member.lifecycle_state = "Terminating"
    backend = group.ec2_backend
    when = health.drained(world, backend, group.target_group_arns, member.instance.id)
    world.timeline.at(when, partial(lifecycle.end, world, backend, member.instance))
