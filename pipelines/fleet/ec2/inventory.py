"""Edge: what a fleet's selector finds at EC2: instances, Auto Scaling groups and launch templates, over regions.

A region that cannot be read is told as such, with the reason: nothing in it counts as found, or as compliant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hardening.foundation.errors import GoldsmithError
from images.aws.amis import ours_in
from images.aws.cloud import Cloud
from images.aws.model import Ami
from images.aws.tags import as_dict
from pipelines.fleet.ec2.essence import Json, Shown, is_member
from pipelines.fleet.ec2.place import Place
from pipelines.fleet.members import Unread
from pipelines.fleet.model import Fleet

AT_ONCE = 100
GROUP = "aws:autoscaling:groupName"


@dataclass(frozen=True)
class Found:
    """One instance that runs. `image` is the one whose disk it runs from, `release` the digest that its tags tell.

    `group` is the Auto Scaling group it is in.
    """

    account: str
    region: str
    shown: Shown
    image: str
    release: str
    healthy: bool
    group: str = ""


@dataclass(frozen=True)
class Template:
    """A version of a launch template that instances would start from, by itself or for a `group`."""

    account: str
    region: str
    id: str
    name: str
    version: int
    image: str
    group: str = ""


@dataclass(frozen=True)
class Inventory:
    """All that was found, and where nothing could be read."""

    instances: tuple[Found, ...] = ()
    groups: tuple[tuple[str, str, Json], ...] = ()
    templates: tuple[Template, ...] = ()
    unread: tuple[Unread, ...] = ()

    @property
    def standalone(self) -> tuple[Found, ...]:
        """The instances that are in no group and that no rollout is still preparing."""
        return tuple(one for one in self.instances if is_member(one.shown.tags, one.shown.state))


def places(fleet: Fleet, cloud: Cloud) -> Iterator[tuple[str, str]]:
    """Every account and region that the fleet may be in."""
    for account in fleet.ec2.accounts or (cloud.aws.account,):
        for region in fleet.ec2.regions or cloud.aws.all_regions:
            yield account, region


def read_fleet(fleet: Fleet, cloud: Cloud, *only: tuple[str, str]) -> Inventory:
    """Everything with the fleet's tags, in all its places or in some."""
    parts = [_read(fleet, cloud, account, region) for account, region in only or places(fleet, cloud)]
    return Inventory(
        tuple(one for part in parts for one in part.instances),
        tuple(one for part in parts for one in part.groups),
        tuple(one for part in parts for one in part.templates),
        tuple(one for part in parts for one in part.unread),
    )


def _read(fleet: Fleet, cloud: Cloud, account: str, region: str) -> Inventory:
    try:
        reading = _Reading(fleet, cloud, Place(cloud.clients, account, region))
        groups = tuple(reading.groups())
        templates = (*reading.templates(), *reading.templates_of(groups))
        return Inventory(tuple(reading.instances()), tuple((account, region, one) for one in groups), templates)
    except GoldsmithError as error:
        return Inventory(unread=(Unread(f"{account}/{region}", error.message),))


@dataclass(frozen=True)
class _Reading:
    fleet: Fleet
    cloud: Cloud
    place: Place

    def _selected(self) -> list[Json]:
        return [{"Name": f"tag:{key}", "Values": [value]} for key, value in sorted(self.fleet.selector.items())]

    def _exactly(self, one: Json) -> bool:
        """Whether the tags are the selector's to the letter: in a filter, EC2 reads * and ? as wildcards."""
        tags = as_dict(one.get("Tags", ()))
        return all(tags.get(key) == value for key, value in self.fleet.selector.items())

    def instances(self) -> Iterator[Found]:
        """The instances of the selector that run, with how they are."""
        running = {"Name": "instance-state-name", "Values": ["pending", "running"]}
        pages = self.place.ec2.pages("DescribeInstances", "Reservations", Filters=[*self._selected(), running])
        found = {one["InstanceId"]: one for each in pages for one in each["Instances"] if self._exactly(one)}
        if not found:
            return
        volumes = dict(self._volumes(found))
        good = set(self._checked(found)) - set(self._out_of_service())
        images = self._images()
        for name, one in sorted(found.items()):
            shown = Shown(one, volumes)
            root = volumes.get(shown.root, {}).get("SnapshotId", "")
            image = _image_of(one["ImageId"], root, images)
            known = images[image].release if image in images else None
            yield Found(
                self.place.account, self.place.region, shown, image, known.digest if known else "", name in good,
                shown.tags.get(GROUP, ""),
            )  # fmt: skip

    def _volumes(self, found: Iterable[str]) -> Iterator[tuple[str, Json]]:
        for some in _portions(found):
            mine = [{"Name": "attachment.instance-id", "Values": some}]
            for one in self.place.ec2.pages("DescribeVolumes", "Volumes", Filters=mine):
                yield one["VolumeId"], one

    def _checked(self, found: Iterable[str]) -> Iterator[str]:
        """The instances whose status checks passed."""
        for some in _portions(found):
            for one in self.place.ec2.call("DescribeInstanceStatus", InstanceIds=some)["InstanceStatuses"]:
                if one["InstanceStatus"]["Status"] == one["SystemStatus"]["Status"] == "ok":
                    yield one["InstanceId"]

    def _out_of_service(self) -> Iterator[str]:
        """Who is registered in some target group and gets no requests from it."""
        for group in self.place.balancers.pages("DescribeTargetGroups", "TargetGroups"):
            yield from (name for name, one in self.place.targets(group) if one.state not in ("healthy", "unused"))

    def _images(self) -> dict[str, Ami]:
        """Our images of the region, by id."""
        return {ami.id: ami for ami in ours_in(self.cloud, self.place.region)}

    def groups(self) -> Iterator[Json]:
        """The Auto Scaling groups of the selector."""
        scaling = self.cloud.client("autoscaling", self.place.region, self.place.account)
        yield from scaling.pages("DescribeAutoScalingGroups", "AutoScalingGroups", Filters=self._selected())

    def templates(self) -> Iterator[Template]:
        """The default version of each launch template of the selector."""
        for one in self.place.ec2.pages("DescribeLaunchTemplates", "LaunchTemplates", Filters=self._selected()):
            yield self._template(one["LaunchTemplateId"], "$Default")

    def templates_of(self, groups: Iterable[Json]) -> Iterator[Template]:
        """The version that each group starts instances from."""
        for group in groups:
            if named := specification(group):
                version = str(named.get("Version", "$Default"))
                yield self._template(named["LaunchTemplateId"], version, group["AutoScalingGroupName"])

    def _template(self, template: str, version: str, group: str = "") -> Template:
        asked = {"LaunchTemplateId": template, "Versions": [version], "ResolveAlias": True}
        found = self.place.ec2.call("DescribeLaunchTemplateVersions", **asked)["LaunchTemplateVersions"][0]
        image = str(found["LaunchTemplateData"].get("ImageId", ""))
        name, number = found["LaunchTemplateName"], int(found["VersionNumber"])
        return Template(self.place.account, self.place.region, template, name, number, image, group)


def specification(group: Json) -> Json | None:
    """The launch template that a group starts from, with its version; None where it has none."""
    policy = group.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {})
    found: Json | None = group.get("LaunchTemplate") or policy.get("LaunchTemplateSpecification")
    return found


def _image_of(said: str, root: str, images: Mapping[str, Ami]) -> str:
    """The image whose snapshot the root volume is made of: a root volume that was put back tells more than the id."""
    if not root or said not in images or root in images[said].snapshots:
        return said
    return next((image for image, ami in images.items() if root in ami.snapshots), said)


def _portions(found: Iterable[str]) -> Iterator[list[Any]]:
    names = sorted(found)
    for start in range(0, len(names), AT_ONCE):
        yield names[start : start + AT_ONCE]
