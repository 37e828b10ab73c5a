"""Edge: everything with a fleet's tags in its regions, and what both ways to replace a standalone instance share.

That is who is a member, how it is, and where it lives. The fleet's CloudWatch alarms, by name, are read here too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from time import monotonic

from hardening.foundation.asking import Once, ask_each, portions
from hardening.foundation.errors import GoldsmithError, MalformedError, OutsideError, understood
from hardening.runtime import Observed
from images.aws.amis import ours_in
from images.aws.call_arguments import BOOT
from images.aws.cloud import Cloud
from images.aws.model import Ami
from images.aws.permissions import LOOKING, ROLLER, permit
from images.aws.tags import as_dict
from images.ledger import Made
from pipelines.fleet.ec2.accounts import accounts_of
from pipelines.fleet.ec2.instance_spec import (
    DRAINS,
    KEPT,
    RUNNING,
    InstanceDescription,
    Json,
    Registered,
    Registration,
    ReplacementRecord,
    is_member,
)
from pipelines.fleet.ec2.observing import RunningInstance, look_at
from pipelines.fleet.ec2.obstacles import cannot_roll, forced_in_place
from pipelines.fleet.ec2.provenance import image_of, is_image
from pipelines.fleet.ec2.region_client import RegionClient
from pipelines.fleet.health import ask
from pipelines.fleet.members import MEMBER, Key, Member, Read, ReplacementImage, Seen, Unread, protection, require_read
from pipelines.fleet.model import ORGANIZATION, Fleet, claim
from pipelines.fleet.port import MemberFleet
from pipelines.fleet.rollout_targets import ALARMS, MACHINES, OF_TEMPLATES

PERMISSIONS = (
    permit("ec2:DescribeInstances autoscaling:DescribeAutoScalingGroups", *LOOKING, on=MACHINES),
    permit("ec2:DescribeLaunchTemplates ec2:DescribeLaunchTemplateVersions", *LOOKING, on=MACHINES),
    permit("ssm:GetParameters", *LOOKING, on=OF_TEMPLATES, by="DescribeLaunchTemplateVersions"),
    permit("cloudwatch:DescribeAlarms", ROLLER, on=ALARMS),
)

FIRING = "ALARM"
ASKED_AGAIN = timedelta(minutes=5)  # of all target groups, whether a member is in them


@dataclass
class Inventory:
    """All that was found, and where nothing could be read. Each group comes with its account and region."""

    instances: list[RunningInstance] = field(default_factory=list)
    groups: list[tuple[str, Json]] = field(default_factory=list)
    templates: list[Member] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)

    def whole(self) -> Inventory:
        """The inventory. Raises OutsideError where a region could not be read."""
        require_read(self.unread, "region")
        return self


class Ec2Members(MemberFleet):
    """The standalone instances of `fleet`, in every region and account that it names. `rivals`: the other fleets."""

    def __init__(self, fleet: Fleet, cloud: Cloud, rivals: Sequence[Fleet] = ()) -> None:
        self.fleet = fleet
        self.cloud = cloud
        self._rivals = rivals
        self._last: dict[str, RunningInstance] = {}
        self._groups: dict[str, tuple[float, frozenset[str]]] = {}

    @understood("EC2")
    def describe(self) -> tuple[Member, ...]:
        """Every instance that runs with the fleet's tags. Raises OutsideError where a region cannot be read."""
        return self.members_in(read_fleet(self.fleet, self.cloud).whole())

    @understood("EC2")
    def seen(self, group: str = "") -> Seen:
        """The members, the instances of the fleet's groups, and the templates that others would start from; or all that
        stand where one group does.
        """
        account, _, rest = group.partition("/")
        inventory = read_fleet(self.fleet, self.cloud, *([(account, rest.partition("/")[0])] if group else ()))
        grouped = [self._grouped(one) for one in inventory.instances if one.group]
        tags = {group_id(where, one["AutoScalingGroupName"]): (where, one) for where, one in inventory.groups}
        claims = {name: self._claim(where, as_dict(one.get("Tags"))) for name, (where, one) in tags.items()}
        templates = [replace(one, claimed_by=claims.get(one.group, "")) for one in inventory.templates]
        return Seen((*self.members_in(inventory), *grouped, *templates), tuple(inventory.unread))

    def _claim(self, where: str, tags: Mapping[str, str]) -> str:
        """The other fleet of an account and region that selects something with these tags; empty: none does."""
        account, region = where.split("/")
        return claim((one for one in self._rivals if _reaches(one, self.cloud, account, region)), tags)

    def _grouped(self, found: RunningInstance) -> Member:
        """An instance of an Auto Scaling group, which the group replaces."""
        one = self.member(found, f"{found.where}/ec2/{found.shown.id}")
        why = f"the Auto Scaling group {found.group} rolls it"
        return replace(one, forced_in_place=(), cannot_roll=why, group=group_id(found.where, found.group))

    @understood("EC2")
    def find(self, member: str) -> Member | None:
        """The member with this id, if it runs now."""
        account, region = member.split("/")[:2]
        there = self.members_in(read_fleet(self.fleet, self.cloud, (account, region)).whole())
        return next((one for one in there if one.id == member), None)

    def members_in(self, inventory: Inventory) -> tuple[Member, ...]:
        """The instances that are in no group and that no rollout is still preparing.

        One that took another's place has its id, whoever else copied its tags.
        """
        found, taken = list[Member](), set[str]()
        alone = [one for one in inventory.instances if is_member(one.shown.tags, one.shown.state)]
        for one in sorted(alone, key=lambda one: one.shown.since):
            own = f"{one.where}/ec2/{one.shown.id}"
            name = one.shown.tags.get(MEMBER, own)
            found.append(self.member(one, own if name in taken else name))
            taken.add(name)
        return tuple(sorted(found, key=lambda one: one.id))

    def member(self, found: RunningInstance, name: str) -> Member:
        """An instance as the engine knows it, under the id `name`."""
        shown, self._last[name] = found.shown, found
        coming = {**BOOT, "Encrypted": self.cloud.aws.encrypted}  # what is known of every image of ours
        until, wrong = protection(self.fleet.limits.do_not_disrupt, shown.tags)
        return Member(
            id=name,
            name=shown.id,
            handle=shown.id,
            image=found.image,
            digests=tuple(one for one in (found.image, found.release) if one),
            since=shown.since,
            healthy=found.healthy,
            protected_until=until,
            forced_in_place=forced_in_place(shown, self.fleet.ec2.way),
            cannot_roll=cannot_roll(shown, self.fleet.ec2, coming) or wrong,
            zone=shown.instance.get("Placement", {}).get("AvailabilityZone", ""),
            exact=found.image,
            claimed_by=self._claim(found.where, shown.tags),
        )

    @understood("EC2")
    def observe(self, members: Sequence[Member]) -> dict[str, Observed]:
        """How those of the members that are instances run, by their ids, as they were last listed; asks for their
        security groups and templates.
        """
        return look_at(self.cloud, {one.id: self._last[one.id] for one in members if one.id in self._last})

    @understood("EC2")
    def prepare(self, target: ReplacementImage, member: str = "") -> None:
        """See that a release is there in every region, or in the member's. Raises RefusedError where it is not what was
        signed.
        """
        if is_image(target):
            return
        if target.reference.startswith(("snap-", "vol-")):
            why = f"what ran before is not an image: the disk was made of {target.reference}, of which nothing is known"
            raise OutsideError(why, hint="make an image of that snapshot or volume, and launch the member from it")
        everywhere = dict.fromkeys(region for _, region in regions_of(self.fleet, self.cloud))
        for region in [member.split("/")[1]] if member else everywhere:
            image_of(self.cloud, target, region)

    @understood("EC2")
    def read_old(self, key: Key) -> Read:
        """One look at the old instance."""
        place = self.place(key)
        old = place.find(key.old)
        return Read(False, f"{key.old} is gone") if old is None else self.look(place, old)

    def look(self, place: RegionClient, instance: InstanceDescription) -> Read:
        """Status checks, every target group that it is in, and what else the fleet asks for.

        Which groups those are is asked of all of them once in a while; meanwhile they alone are asked, and those where
        its tags say that it belongs.
        """
        good, text = place.health(instance.id)
        if not good:
            return Read(good, text)
        for one in self.registrations(place, instance):
            if one.state not in ("healthy", "unused"):
                return Read(False, f"{instance.id} is {one.state} in {one.group.rpartition(':')[2]}")
        health = self.fleet.health
        return Read(good, text) if health.kind == "ec2" else ask(health, instance.instance.get("PrivateIpAddress", ""))

    def registrations(self, place: RegionClient, instance: InstanceDescription) -> tuple[Registration, ...]:
        """Where an instance is registered, for a look that is repeated."""
        hung = instance.kept.hung if instance.kept else instance.takes
        told, now = {one.group for one in hung.registrations}, monotonic()
        asked_at, groups = self._groups.get(instance.id, (-ASKED_AGAIN.total_seconds(), frozenset[str]()))
        known = now < asked_at + ASKED_AGAIN.total_seconds()
        found = place.registrations(instance, groups | told if known else None)
        kept = groups | told if known else told | {one.group for one in found}
        self._groups[instance.id] = (asked_at if known else now, frozenset(kept))
        return found

    def drain(self, place: RegionClient, instance: InstanceDescription, places: Collection[Registration]) -> None:
        """Take an instance that has to go out of target groups; one that serves finishes what it has begun."""
        if DRAINS in instance.tags or self.look(place, instance).good:
            place.leave(instance.id, places, self.fleet.limits.drain)
        else:
            place.deregister(instance.id, places, timedelta())

    def place(self, key: Key) -> RegionClient:
        """The region that a member is in."""
        return RegionClient(self.cloud.clients, *key.member.split("/")[:2])


def kept_for(old: InstanceDescription, key: Key) -> ReplacementRecord:
    """What was written onto the old instance. Raises OutsideError where it is not this rollout's."""
    kept = old.kept
    if kept is None or kept.rollout != key.rollout:
        by = f"belongs to the rollout {kept.rollout}" if kept else "was not prepared"
        raise OutsideError(f"{key.old} {by}", hint=f"its tags {KEPT}… list its attachments")
    return kept


def regions_of(fleet: Fleet, cloud: Cloud) -> Iterator[tuple[str, str]]:
    """Every account and region that the fleet may be in. Raises as `accounts_of` does."""
    for account in accounts_of(fleet, cloud):
        for region in fleet.ec2.regions or cloud.aws.all_regions:
            yield account, region


def _reaches(fleet: Fleet, cloud: Cloud, account: str, region: str) -> bool:
    """Whether a fleet may be in this account and region; one of the organisation may be in every account."""
    own = fleet.ec2.accounts == ORGANIZATION or account in accounts_of(fleet, cloud)
    return own and region in (fleet.ec2.regions or cloud.aws.all_regions)


def read_fleet(fleet: Fleet, cloud: Cloud, *only: tuple[str, str]) -> Inventory:
    """Everything with the fleet's tags, in all its places or in some, which are asked side by side.

    A place that refuses, fails, or does not end within `aws.read_within` is unread; the others are read all the same.
    """
    places = dict.fromkeys(only or regions_of(fleet, cloud))
    images = {region: Once(partial(ours_in, cloud, region)) for _, region in places}
    answers = ask_each(
        {place: partial(_read, fleet, cloud, place, images[place[1]]) for place in places}, cloud.aws.read_within
    )
    found = Inventory()
    for place, answer in answers.items():
        if isinstance(answer, GoldsmithError):
            found.unread.append(Unread("/".join(place), answer.message))
            continue
        try:
            with understood("EC2"):
                found.instances += [*answer.instances()]
        except MalformedError as error:
            found.unread.append(Unread("/".join(place), error.message))
            continue
        found.groups += [("/".join(place), group) for group in answer.groups]
        found.templates += answer.templates
    return found


@understood("EC2")
def _read(fleet: Fleet, cloud: Cloud, place: tuple[str, str], images: Once[list[Ami]]) -> _Shown:
    """All that a place shows of a fleet, of instances with all that it takes to judge them."""
    here = RegionClient(cloud.clients, *place)
    reading = _RegionReading(fleet, here)
    groups, instances = list(reading.groups()), reading.instances()
    templates = list(reading.templates(groups))
    shown = _Shown(cloud, here, groups, templates, instances)
    if not instances:
        return shown
    networks = {str(one.get("VpcId")) for one in instances.values()}
    return replace(
        shown,
        volumes=here.volumes(instances),
        checked=here.checked(instances),
        registered=tuple(here.registered(networks)),
        types=here.types(instances.values()),
        classic=here.classic(),
        images={ami.id: ami for ami in images()},
    )


@dataclass(frozen=True)
class _Shown:
    """What a place shows of a fleet: `groups` as they are, `templates` as members, the others by their ids.

    `checked`: the instances whose status checks passed; `images`: those of ours that the region has.
    """

    cloud: Cloud
    place: RegionClient
    groups: list[Json]
    templates: list[Member]
    running: Mapping[str, Json]
    volumes: Mapping[str, Json] = field(default_factory=dict)
    checked: frozenset[str] = frozenset()
    registered: tuple[Registered, ...] = ()
    types: Mapping[str, Json] = field(default_factory=dict)
    classic: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    images: Mapping[str, Ami] = field(default_factory=dict)
    _lines: dict[str, tuple[Made, ...]] = field(default_factory=dict)

    def instances(self) -> Iterator[RunningInstance]:
        """The instances, with how they are and what the ledger knows of their images."""
        for name, one in sorted(self.running.items()):
            places, kind = InstanceDescription(one).among(self.registered), self.types.get(one["InstanceType"], {})
            shown = InstanceDescription(one, self.volumes, {}, places, kind, self.classic.get(name, ()))
            image = self._image_of(shown)
            known = self.images[image].release if image in self.images else None
            serves = not _taken_off(shown) and all(place.state in ("healthy", "unused") for place in places)
            digest = known.digest if known else ""
            yield RunningInstance(self.place.where, shown, image, digest, name in self.checked and serves)

    def _image_of(self, shown: InstanceDescription) -> str:
        """The image that a root volume is made of, by its snapshot: a volume that was put back says more than the id.

        Where none of our images has that snapshot, it is the snapshot itself, or the volume: nothing is known of those.
        """
        said, root = str(shown.instance["ImageId"]), shown.volumes.get(shown.root, {}).get("SnapshotId", "")
        if root and root in self._snapshots_of(said):
            return said
        if root and (made := next((image for image, ami in self.images.items() if root in ami.snapshots), "")):
            return made
        foreign = said not in self.images and not self._made(said)
        return said if foreign else root or shown.root or f"the disk of {shown.id}"

    def _snapshots_of(self, image: str) -> set[str]:
        """The snapshots of an image of ours, by the ledger where it is gone."""
        if image in self.images:
            return set(self.images[image].snapshots)
        return {str(name) for line in self._made(image) for name in line.details.get("snapshots", ())}

    def _made(self, image: str) -> tuple[Made, ...]:
        """The ledger's lines about an image that we made here, those about what is gone too."""
        if image not in self._lines:  # many instances run one image
            here = {"region": self.place.region, "kind": "image", "resource": image}
            self._lines[image] = self.cloud.ledger.made(self.cloud.aws.account, **here)
        return self._lines[image]


def _taken_off(shown: InstanceDescription) -> bool:
    """Whether a rollout has taken an instance out of a target group, and has not brought it back: it drains, or has."""
    kept = shown.kept
    return kept is not None and not {*kept.hung.registrations} <= {*shown.registrations}


@dataclass(frozen=True)
class _RegionReading:
    fleet: Fleet
    place: RegionClient

    def _selected(self) -> list[Json]:
        return [{"Name": f"tag:{key}", "Values": [value]} for key, value in sorted(self.fleet.selector.items())]

    def instances(self) -> dict[str, Json]:
        """The instances of the selector, to the letter, that run, by their ids: in a filter, EC2 reads * and ? as
        wildcards.
        """
        running = {"Name": "instance-state-name", "Values": list(RUNNING)}
        pages = self.place.ec2.instances(Filters=[*self._selected(), running])
        return {str(one["InstanceId"]): one for one in pages if self.fleet.selects(as_dict(one.get("Tags")))}

    def groups(self) -> Iterator[Json]:
        """The Auto Scaling groups of the selector."""
        scaling = self.place.clients.client("autoscaling", self.place.region, self.place.account)
        yield from scaling.pages("DescribeAutoScalingGroups", "AutoScalingGroups", Filters=self._selected())

    def templates(self, groups: Iterable[Json]) -> Iterator[Member]:
        """The default version of each launch template of the selector, and all versions that groups start from."""
        for one in self.place.ec2.pages("DescribeLaunchTemplates", "LaunchTemplates", Filters=self._selected()):
            yield self._template(one["LaunchTemplateId"], "$Default")
        for group in groups:
            for named in specifications(group):
                yield self._template(*named, group["AutoScalingGroupName"])

    def _template(self, template: str, version: str, group: str = "") -> Member:
        """A version of a launch template, judged as what it would start, by itself or for a `group`."""
        asked = {"LaunchTemplateId": template, "Versions": [version], "ResolveAlias": True}
        found = self.place.ec2.call("DescribeLaunchTemplateVersions", **asked)["LaunchTemplateVersions"][0]
        image, number = str(found["LaunchTemplateData"].get("ImageId", "")), int(found["VersionNumber"])
        of = f" of the Auto Scaling group {group}" if group else ""
        return Member(
            id=f"{self.place.where}/launch-template/{template}:{number}",
            name=f"launch template {found['LaunchTemplateName']} version {number}{of}",
            handle=template,
            image=image,
            digests=(image,),
            cannot_roll="a launch template runs nothing itself: give it a new version",
            group=group_id(self.place.where, group) if group else "",
        )


def group_id(where: str, name: str) -> str:
    """The id of an Auto Scaling group as rollouts know it."""
    return f"{where}/autoscaling/{name}"


def specification(group: Json) -> tuple[str, str] | None:
    """The launch template that a group starts from, and the version as its settings say it; None where it has none."""
    return next(iter(specifications(group)), None)


def specifications(group: Json) -> list[tuple[str, str]]:
    """The same, and those that a mixed instances policy has for some instance types."""
    policy = group.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {})
    found = [group.get("LaunchTemplate") or policy.get("LaunchTemplateSpecification")]
    found += [one.get("LaunchTemplateSpecification") for one in policy.get("Overrides") or ()]
    named = [(str(one["LaunchTemplateId"]), str(one.get("Version", "$Default"))) for one in found if one]
    return list(dict.fromkeys(named))


def firing(cloud: Cloud, places: Iterable[tuple[str, str]], names: Sequence[str]) -> tuple[str, ...]:
    """Those of the alarms that fire in some region; one that is nowhere, or cannot be asked, fires."""
    states: dict[str, set[str]] = {}
    for answer in ask_each(
        {one: partial(_alarms, cloud, one, names) for one in places}, cloud.aws.read_within
    ).values():
        if isinstance(answer, GoldsmithError):
            return tuple(names)
        for name, state in answer:
            states.setdefault(name, set()).add(state)
    return tuple(name for name in names if FIRING in states.get(name, {FIRING}))


@understood("CloudWatch")
def _alarms(cloud: Cloud, place: tuple[str, str], names: Sequence[str]) -> list[tuple[str, str]]:
    """The states of the alarms that a place has, by their names."""
    client = cloud.client("cloudwatch", place[1], place[0])
    found = list[Json]()
    for some in portions(names):
        answer = client.call("DescribeAlarms", AlarmNames=some, AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        found += (*answer.get("MetricAlarms", ()), *answer.get("CompositeAlarms", ()))
    return [(str(one["AlarmName"]), str(one["StateValue"])) for one in found]
