"""Edge: what both ways to replace a standalone EC2 instance share: who is a member, how it is, and where it lives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from hardening.foundation.errors import OutsideError
from images.aws.call_arguments import BOOT
from images.aws.cloud import Cloud
from pipelines.fleet.ec2.instance_spec import KEPT, InstanceDescription, Json, ReplacementRecord, kept_in
from pipelines.fleet.ec2.inventory import Inventory, RunningInstance, Template, read_fleet, regions_of
from pipelines.fleet.ec2.obstacles import cannot_roll, forced_in_place
from pipelines.fleet.ec2.provenance import image_of, is_image
from pipelines.fleet.ec2.region_client import RegionClient
from pipelines.fleet.health import ask
from pipelines.fleet.members import MEMBER, Key, Member, Read, ReplacementImage, Seen, protection
from pipelines.fleet.model import Fleet


class Ec2Members:
    """The standalone instances of `fleet`, in every region and account that it names."""

    def __init__(self, fleet: Fleet, cloud: Cloud) -> None:
        self.fleet = fleet
        self.cloud = cloud
        self._places: dict[tuple[str, str], RegionClient] = {}

    def inventory(self) -> Inventory:
        """Everything with the fleet's tags, and where nothing could be read."""
        return read_fleet(self.fleet, self.cloud)

    def describe(self) -> tuple[Member, ...]:
        """Every instance that runs with the fleet's tags. Raises OutsideError where a region cannot be read."""
        return self._described(self.inventory())

    def _described(self, inventory: Inventory) -> tuple[Member, ...]:
        if inventory.unread:
            shown = "\n".join(f"{one.id}: {one.why}" for one in inventory.unread)
            raise OutsideError("not every region of the fleet can be read", evidence=shown)
        return tuple(sorted(self._members(inventory.standalone), key=lambda one: one.id))

    def seen(self) -> Seen:
        """The members, the instances of the fleet's groups, and the templates that others would start from."""
        inventory = self.inventory()
        alone = sorted(self._members(inventory.standalone), key=lambda one: one.id)
        grouped = [self._grouped(one) for one in inventory.instances if one.group]
        templates = [self._template(one) for one in inventory.templates]
        return Seen((*alone, *grouped, *templates), inventory.unread)

    def _grouped(self, found: RunningInstance) -> Member:
        """An instance of an Auto Scaling group, which the group replaces."""
        one = self.member(found, f"{found.account}/{found.region}/ec2/{found.shown.id}")
        why = f"the Auto Scaling group {found.group} rolls it"
        return replace(one, forced_in_place=(), cannot_roll=why, group=_group(found.account, found.region, found.group))

    def _template(self, found: Template) -> Member:
        """A version of a launch template, judged as what it would start."""
        of = f" of the Auto Scaling group {found.group}" if found.group else ""
        return Member(
            id=f"{found.account}/{found.region}/launch-template/{found.id}:{found.version}",
            name=f"launch template {found.name} version {found.version}{of}",
            handle=found.id,
            image=found.image,
            digests=(found.image,),
            cannot_roll="a launch template runs nothing itself: give it a new version",
            group=_group(found.account, found.region, found.group) if found.group else "",
        )

    def find(self, member: str) -> Member | None:
        """The member with this id, if it runs now."""
        account, region = member.split("/")[:2]
        there = self._described(read_fleet(self.fleet, self.cloud, (account, region)))
        return next((one for one in there if one.id == member), None)

    def _members(self, found: Sequence[RunningInstance]) -> Iterator[Member]:
        """The instances as members. One that took another's place has its id, whoever else copied its tags."""
        taken: set[str] = set()
        for one in sorted(found, key=lambda one: one.shown.since):
            own = f"{one.account}/{one.region}/ec2/{one.shown.id}"
            name = one.shown.tags.get(MEMBER, own)
            yield self.member(one, own if name in taken else name)
            taken.add(name)

    def member(self, found: RunningInstance, name: str) -> Member:
        """An instance as the engine knows it, under the id `name`."""
        shown = found.shown
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
            cannot_roll=cannot_roll(shown, self.fleet.ec2, self._coming) or wrong,
            zone=shown.instance.get("Placement", {}).get("AvailabilityZone", ""),
            exact=found.image,
        )

    @property
    def _coming(self) -> Json:
        """What is known of every image of ours before one is chosen."""
        return {**BOOT, "Encrypted": self.cloud.aws.encrypted}

    def prepare(self, target: ReplacementImage) -> None:
        """See that a release is there in every region. Raises RefusedError where it is not what was signed."""
        if is_image(target):
            return
        if target.reference.startswith(("snap-", "vol-")):
            raise OutsideError(
                f"what ran before is no image: the disk was made of {target.reference}, of which nothing is known",
                hint="make an image of that snapshot or volume, and launch the member from it",
            )
        for region in dict.fromkeys(region for _, region in regions_of(self.fleet, self.cloud)):
            image_of(self.cloud, target, region)

    def read_old(self, key: Key) -> Read:
        """One look at the old instance."""
        place = self.place(key)
        old = place.find(key.old)
        return Read(False, f"{key.old} is gone") if old is None else self.look(place, old)

    def look(self, place: RegionClient, instance: Json) -> Read:
        """Status checks, every target group that it is in, and what else the fleet asks for."""
        good, text = place.health(instance["InstanceId"])
        if not good:
            return Read(good, text)
        for one in place.registrations(instance):
            if one.state not in ("healthy", "unused"):
                return Read(False, f"{instance['InstanceId']} is {one.state} in {one.group.rpartition(':')[2]}")
        health = self.fleet.health
        return Read(good, text) if health.kind == "ec2" else ask(health, instance.get("PrivateIpAddress", ""))

    def place(self, key: Key) -> RegionClient:
        """The region that a member is in."""
        account, region = key.member.split("/")[:2]
        if (account, region) not in self._places:
            self._places[account, region] = RegionClient(self.cloud.clients, account, region)
        return self._places[account, region]


def _group(account: str, region: str, name: str) -> str:
    return f"{account}/{region}/autoscaling/{name}"


def kept_for(old: InstanceDescription, key: Key) -> ReplacementRecord:
    """What was written onto the old instance. Raises OutsideError where it is not this rollout's."""
    kept = kept_in(old.tags)
    if kept is None or kept.rollout != key.rollout:
        by = f"belongs to the rollout {kept.rollout}" if kept else "was not prepared"
        raise OutsideError(f"{key.old} {by}", hint=f"its tags {KEPT}… say what hangs on it")
    return kept
