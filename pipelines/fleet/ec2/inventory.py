"""Edge: CloudWatch alarms by name, in every region of a fleet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hardening.foundation.errors import GoldsmithError
from images.aws.amis import ours_in
from images.aws.cloud import Cloud
from images.aws.model import Ami
from images.aws.tags import as_dict
from images.ledger import Made
from pipelines.fleet.ec2.instance_spec import InstanceDescription, Json, is_member
from pipelines.fleet.ec2.moving import of_instance
from pipelines.fleet.ec2.region_client import RegionClient, portions
from pipelines.fleet.members import Unread
from pipelines.fleet.model import Fleet

FIRING, AT_ONCE = "ALARM", 100


def firing(cloud: Cloud, places: Iterable[tuple[str, str]], names: Sequence[str]) -> tuple[str, ...]:
    """Those of the alarms that fire in some region; one that is nowhere, or cannot be asked, fires."""
    states: dict[str, set[str]] = {}
    try:
        for account, region in places:
            for name, state in _states(cloud, account, region, names):
                states.setdefault(name, set()).add(state)
    except GoldsmithError:
        return tuple(names)
    return tuple(name for name in names if FIRING in states.get(name, {FIRING}))


def _states(cloud: Cloud, account: str, region: str, names: Sequence[str]) -> Iterable[tuple[str, str]]:
    kinds = ["MetricAlarm", "CompositeAlarm"]
    for start in range(0, len(names), AT_ONCE):
        asked = {"AlarmNames": list(names[start : start + AT_ONCE]), "AlarmTypes": kinds}
        answer = cloud.client("cloudwatch", region, account).call("DescribeAlarms", **asked)
        for one in (*answer.get("MetricAlarms", ()), *answer.get("CompositeAlarms", ())):
            yield one["AlarmName"], one["StateValue"]


GROUP = "aws:autoscaling:groupName"


@dataclass(frozen=True)
class RunningInstance:
    """One instance that runs. `image` is the one whose disk it runs from, `release` the digest that its tags tell.

    `group` is the Auto Scaling group it is in.
    """

    account: str
    region: str
    shown: InstanceDescription
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

    instances: tuple[RunningInstance, ...] = ()
    groups: tuple[tuple[str, str, Json], ...] = ()
    templates: tuple[Template, ...] = ()
    unread: tuple[Unread, ...] = ()

    @property
    def standalone(self) -> tuple[RunningInstance, ...]:
        """The instances that are in no group and that no rollout is still preparing."""
        return tuple(one for one in self.instances if is_member(one.shown.tags, one.shown.state))


def regions_of(fleet: Fleet, cloud: Cloud) -> Iterator[tuple[str, str]]:
    """Every account and region that the fleet may be in."""
    for account in fleet.ec2.accounts or (cloud.aws.account,):
        for region in fleet.ec2.regions or cloud.aws.all_regions:
            yield account, region


def read_fleet(fleet: Fleet, cloud: Cloud, *only: tuple[str, str]) -> Inventory:
    """Everything with the fleet's tags, in all its places or in some."""
    parts = [_read(fleet, cloud, account, region) for account, region in only or regions_of(fleet, cloud)]
    return Inventory(
        tuple(one for part in parts for one in part.instances),
        tuple(one for part in parts for one in part.groups),
        tuple(one for part in parts for one in part.templates),
        tuple(one for part in parts for one in part.unread),
    )


def _read(fleet: Fleet, cloud: Cloud, account: str, region: str) -> Inventory:
    try:
        reading = _Reading(fleet, cloud, RegionClient(cloud.clients, account, region))
        groups = tuple(reading.groups())
        templates = (*reading.templates(), *reading.templates_of(groups))
        return Inventory(tuple(reading.instances()), tuple((account, region, one) for one in groups), templates)
    except GoldsmithError as error:
        return Inventory(unread=(Unread(f"{account}/{region}", error.message),))


@dataclass(frozen=True)
class _Reading:
    fleet: Fleet
    cloud: Cloud
    place: RegionClient

    def _selected(self) -> list[Json]:
        return [{"Name": f"tag:{key}", "Values": [value]} for key, value in sorted(self.fleet.selector.items())]

    def _exactly(self, one: Json) -> bool:
        """Whether the tags are the selector's to the letter: in a filter, EC2 reads * and ? as wildcards."""
        tags = as_dict(one.get("Tags", ()))
        return all(tags.get(key) == value for key, value in self.fleet.selector.items())

    def instances(self) -> Iterator[RunningInstance]:
        """The instances of the selector that run, with how they are."""
        running = {"Name": "instance-state-name", "Values": ["pending", "running"]}
        pages = self.place.ec2.pages("DescribeInstances", "Reservations", Filters=[*self._selected(), running])
        found = {one["InstanceId"]: one for each in pages for one in each["Instances"] if self._exactly(one)}
        if not found:
            return
        volumes = dict(self._volumes(found))
        networks = {str(one.get("VpcId")) for one in found.values()}
        checked, registered = set(self._checked(found)), list(self.place.balancers.registered(networks))
        types, classic, images = self.place.types(found.values()), self.place.balancers.classic(), self._images()
        for name, one in sorted(found.items()):
            places = of_instance(one, registered)
            shown = InstanceDescription(
                one, volumes, {}, places, types.get(one["InstanceType"], {}), classic.get(name, ())
            )
            image = self._image_of(shown, images)
            known = images[image].release if image in images else None
            serves = all(place.state in ("healthy", "unused") for place in places)
            yield RunningInstance(
                self.place.account, self.place.region, shown, image, known.digest if known else "",
                name in checked and serves, shown.tags.get(GROUP, ""),
            )  # fmt: skip

    def _image_of(self, shown: InstanceDescription, images: Mapping[str, Ami]) -> str:
        """The image that a root volume is made of, by its snapshot: a volume that was put back tells more than the id.

        Where none of our images has that snapshot, it is the snapshot itself, or the volume: nothing is known of those.
        """
        said, root = str(shown.instance["ImageId"]), shown.volumes.get(shown.root, {}).get("SnapshotId", "")
        if root and root in self._snapshots_of(said, images):
            return said
        if root and (made := next((image for image, ami in images.items() if root in ami.snapshots), "")):
            return made
        foreign = said not in images and not self._made(said)
        return said if foreign else root or shown.root or f"the disk of {shown.id}"

    def _snapshots_of(self, image: str, images: Mapping[str, Ami]) -> set[str]:
        """The snapshots of an image of ours, by the ledger where it is gone."""
        if image in images:
            return set(images[image].snapshots)
        return {str(name) for line in self._made(image) for name in line.details.get("snapshots", ())}

    def _made(self, image: str) -> tuple[Made, ...]:
        """The ledger's lines about an image that we made here, those about what is gone too."""
        here = {"region": self.place.region, "kind": "image", "resource": image}
        return self.cloud.ledger.made(self.cloud.aws.account, **here)

    def _volumes(self, found: Iterable[str]) -> Iterator[tuple[str, Json]]:
        for some in portions(found):
            mine = [{"Name": "attachment.instance-id", "Values": some}]
            for one in self.place.ec2.pages("DescribeVolumes", "Volumes", Filters=mine):
                yield one["VolumeId"], one

    def _checked(self, found: Iterable[str]) -> Iterator[str]:
        """The instances whose status checks passed."""
        for some in portions(found):
            for one in self.place.ec2.call("DescribeInstanceStatus", InstanceIds=some)["InstanceStatuses"]:
                if one["InstanceStatus"]["Status"] == one["SystemStatus"]["Status"] == "ok":
                    yield one["InstanceId"]

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
