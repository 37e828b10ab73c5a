"""Edge: standalone EC2 instances as a fleet, each given a new root volume in place. Nothing else about them changes.

The old root volume is kept, detached. Going back replaces the new one by it, which reboots the instance: it is never
stopped, which would take its automatic address and the data of an instance store, and which protection or Spot forbid.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hardening.foundation.errors import OutsideError, RefusedError, understood
from images.aws.permissions import ROLLER, permit, use_keys
from images.aws.tags import as_dict, as_list
from pipelines.fleet.ec2 import instance_spec
from pipelines.fleet.ec2.instance_spec import (
    KEPT,
    KEPT_FOR,
    RUNNING,
    STOPPED,
    Hung,
    InstanceDescription,
    Json,
    ReplacementRecord,
)
from pipelines.fleet.ec2.members import Ec2Members, kept_for
from pipelines.fleet.ec2.obstacles import essentials, lost_by_stop, unfit
from pipelines.fleet.ec2.orphans import note_volume, volumes_of
from pipelines.fleet.ec2.provenance import image_of
from pipelines.fleet.ec2.region_client import Moving, RegionClient
from pipelines.fleet.members import EXPIRY, MEMBER, ROLLOUT, Key, Read, ReplacementImage
from pipelines.fleet.model import ReplacementStrategy
from pipelines.fleet.port import InProgressError
from pipelines.fleet.rollout_targets import ROOT_PARTS, ROOT_VOLUMES, TAGGED_AT_LAUNCH, VOLUME_KEYS

PERMISSIONS = (
    permit("ec2:DescribeReplaceRootVolumeTasks", ROLLER, on=ROOT_VOLUMES),
    permit("ec2:CreateReplaceRootVolumeTask", ROLLER, on=ROOT_PARTS),
    permit("ec2:CreateTags", ROLLER, on=TAGGED_AT_LAUNCH, by="CreateReplaceRootVolumeTask"),
    *use_keys(ROLLER, VOLUME_KEYS, "CreateReplaceRootVolumeTask"),
)

UNDER_WAY = ("pending", "in-progress", "failing", "failing-detached")
FAILED = ("failed", "failed-detached")
CHECKED = timedelta(minutes=2)  # EC2 User Guide, "Status checks": they run every minute


class RootVolumeFleet(Ec2Members):
    """The standalone instances of a fleet, each replaced inside: the instance stays, its root volume does not."""

    @understood("EC2")
    def create(self, key: Key, target: ReplacementImage, expiry: datetime) -> None:
        """Write down on the instance which root volume it has and which image comes. Raises RefusedError."""
        place = self.place(key)
        shown = place.shown(place.need(key.old))
        if shown.kept:
            kept_for(shown, key)
            return
        if not shown.root:
            raise RefusedError(f"{shown.id} shows no root volume", hint="look at its block devices, and try again")
        image = place.image(image_of(self.cloud, target, place.region))
        self._refuse_unfit(place, shown, image)
        root = {shown.root: (str(shown.instance["RootDeviceName"]), shown.root_ends)}
        held = Hung(volumes=root, registrations=shown.registrations)
        until = expiry.astimezone(UTC).isoformat()
        place.tag([key.old], ReplacementRecord(key.rollout, image["ImageId"], until, shown.public, held).tags())

    def _refuse_unfit(self, place: RegionClient, shown: InstanceDescription, image: Json) -> None:
        """Raise RefusedError, before anything is drained, for what EC2 refuses or what could not go back."""
        comes, was = essentials(image), shown.volumes[shown.root]
        if not was.get("Encrypted") and not comes["Encrypted"]:
            comes["Encrypted"] = place.encrypts()
        if why := unfit(shown, comes, ReplacementStrategy.ROOT_VOLUME):
            raise RefusedError(f"{shown.id} cannot get the root volume of {image['ImageId']}: {why}")

    def _present(self, key: Key) -> tuple[RegionClient, InstanceDescription | None, ReplacementRecord | None]:
        """The instance in its region, if it is there, and what is written on it."""
        place = self.place(key)
        found = place.find(key.old)
        return place, found, found.kept if found else None

    @understood("EC2")
    def retire(self, key: Key, drain: timedelta) -> None:
        """Take the instance out of its target groups and let it drain; it is still what it was."""
        place = self.place(key)
        if found := place.find(key.old):
            place.deregister(key.old, kept_for(found, key).hung.registrations, drain)

    @understood("EC2")
    def start(self, key: Key) -> None:
        """Replace the root volume, wait until that is done, and register the instance again."""
        place = self.place(key)
        kept = kept_for(place.need(key.old), key)
        self._replace(key, place, kept)
        shown = place.need(key.old)
        if shown.root in ("", *kept.hung.volumes):
            raise InProgressError(f"{key.old} to show its new root volume")
        self._note(key, place, *kept.hung.volumes, shown.root)
        own = instance_spec.own_tags(key.rollout, key.member, kept.expiry)
        place.tag(kept.hung.volumes, {**own, KEPT_FOR: key.rollout})
        was = place.volume(next(iter(kept.hung.volumes)))
        persons = instance_spec.persons_tags(was.get("Tags"))
        place.tag([shown.root], {**persons, ROLLOUT: key.rollout, MEMBER: key.member})
        place.register(key.old, kept.hung.registrations)

    def _replace(self, key: Key, place: RegionClient, kept: ReplacementRecord, *, back: bool = False) -> None:
        """One task that replaces it from the image, or by the old volume on the way `back`; the present one stays.

        It is begun once, on the way back again after a failure, and looked at before the instance is: that shows it a
        bit later. Raises OutsideError where it failed.
        """
        tasks = self._tasks(key, place, back=back)
        if not tasks or (back and tasks[-1]["TaskState"] in FAILED):
            source = {"VolumeId": next(iter(kept.hung.volumes))} if back else {"ImageId": kept.image}
            own = as_list(instance_spec.own_tags(key.rollout, key.member, kept.expiry))
            place.ec2.call(
                "CreateReplaceRootVolumeTask", InstanceId=key.old, **source, DeleteReplacedRootVolume=False,
                ClientToken=instance_spec.token(key.rollout, key.member, "back" if back else "root", len(tasks)),
                TagSpecifications=[{"ResourceType": "replace-root-volume-task", "Tags": own}],
            )  # fmt: skip
        ended = self._ended(key, place, back=back)
        if ended["TaskState"] != "succeeded":
            raise OutsideError(f"the root volume of {key.old} could not be replaced: {ended['TaskState']}")

    def _ended(self, key: Key, place: RegionClient, *, back: bool) -> Json:
        """The last task once it has ended."""

        def last() -> Any:
            tasks = self._tasks(key, place, back=back)
            return tasks and tasks[-1]["TaskState"] not in UNDER_WAY and tasks[-1]

        return dict(place.until(last, f"the root volume of {key.old} to be replaced"))

    def _tasks(self, key: Key, place: RegionClient, *, back: bool = False) -> list[Json]:
        """The tasks of this replacement or, by a volume and no image, of its way back, the oldest first."""
        mine = [{"Name": "instance-id", "Values": [key.old]}]
        found = place.ec2.pages("DescribeReplaceRootVolumeTasks", "ReplaceRootVolumeTasks", Filters=mine)
        own = [one for one in found if as_dict(one.get("Tags")).get(ROLLOUT) == key.rollout]
        return sorted((one for one in own if back != bool(one.get("ImageId"))), key=lambda one: str(one["StartTime"]))

    @understood("EC2")
    def read(self, key: Key) -> Read:
        """One look at the instance, with its new root volume."""
        place, found, kept = self._present(key)
        if found and kept and found.root in kept.hung.volumes:
            return Read(False, f"{key.old} still has its old root volume")
        seen = self.read_old(key)
        if seen.good and found and self._stale(key, place, found):
            return Read(False, f"the status checks of {key.old} may be from before its reboot: they run once a minute")
        return seen

    def _stale(self, key: Key, place: RegionClient, instance: InstanceDescription) -> bool:
        """Whether only status checks speak for an instance, and did so before it rebooted, by the service's clock."""
        places = self.registrations(place, instance)
        if self.fleet.health.kind != "ec2" or any(one.state == "healthy" for one in places):
            return False
        ended = [one for one in self._tasks(key, place) if one.get("CompleteTime")]
        return bool(ended) and place.age(ended[-1]) < CHECKED

    @understood("EC2")
    def expose(self, key: Key) -> None:
        """Nothing: `start` registers the instance again."""

    @understood("EC2")
    def swap(self, key: Key) -> None:
        """Write on the instance whose work it is now."""
        place = self.place(key)
        place.tag([key.old], {ROLLOUT: key.rollout, MEMBER: key.member})

    @understood("EC2")
    def remove_old(self, key: Key) -> None:
        """Delete the old root volume, and what was written about it."""
        place, found, kept = self._present(key)
        if found is None or kept is None or kept.rollout != key.rollout:
            return
        for volume in kept.hung.volumes:
            if volume == found.root:
                raise OutsideError(f"{volume} is the root volume of {key.old} still, and not removed")
            place.delete_volume(volume)
        place.forget(found, KEPT)

    @understood("EC2")
    def revive(self, key: Key) -> None:
        """The old root volume is in its place again, and the instance runs and is registered."""
        place = self.place(key)
        shown = place.need(key.old)
        kept = shown.kept
        if kept is None:
            place.start(key.old)
            return
        if self._tasks(key, place) and shown.state in RUNNING:
            self._ended(key, place, back=False)
            shown = place.need(key.old)
        if shown.root not in kept.hung.volumes:
            self._put_back(key, place, shown, kept)
        place.end_volumes(key.old, kept.hung.volumes)
        place.start(key.old)
        place.register(key.old, kept.hung.registrations)

    def _put_back(self, key: Key, place: RegionClient, shown: InstanceDescription, kept: ReplacementRecord) -> None:
        """The old root volume takes the place of the new one, which is marked for the reaper."""
        if not self._tasks(key, place, back=True):
            self.drain(place, shown, kept.hung.registrations)
        if not shown.root:
            self._attach(key, place, kept)
            return
        self._note(key, place, shown.root)
        place.tag([shown.root], instance_spec.own_tags(key.rollout, key.member, kept.expiry))
        place.start(key.old)  # only the root volume of what runs is replaced
        self._replace(key, place, kept, back=True)
        if place.need(key.old).root not in kept.hung.volumes:
            raise InProgressError(f"{key.old} to show its old root volume")

    def _note(self, key: Key, place: RegionClient, *volumes: str) -> None:
        """Write down in the ledger what this rollout took off or put on, before anything of it is removed by tags."""
        for volume in volumes:
            note_volume(self.cloud.ledger, place, volume, key.member, self.cloud.now)

    def _attach(self, key: Key, place: RegionClient, kept: ReplacementRecord) -> None:
        """A task left the instance without any root volume: it stops, and gets its own again, if a stop costs nothing.

        Raises OutsideError where it would: then a person decides.
        """
        (volume, (device, _)), *_ = kept.hung.volumes.items()
        if place.need(key.old).state not in STOPPED:
            shown = place.shown(place.need(key.old))
            protected = ["its protection from being stopped"] if place.attribute(key.old, "disableApiStop") else []
            if lost := [*lost_by_stop(shown), *protected]:
                why = f"{key.old} has no root volume, and to stop it would cost {', '.join(lost)}"
                raise OutsideError(why, hint=f"stop it, attach {volume} at {device}, start it, and roll back again")
        place.stop(key.old, wait=True)
        Moving(place, [key.old]).volume(volume, device, key.old)

    @understood("EC2")
    def discard(self, key: Key) -> None:
        """Delete the new root volume, and what was written about the old one. Raises OutsideError before `revive`.

        With an instance that is gone, so is what it runs: a volume that is left may be the last copy of its disk.
        """
        place, found, kept = self._present(key)
        if found is None or kept is None or kept.rollout != key.rollout:
            return
        old = kept.hung.volumes
        if found.root not in old:
            raise OutsideError(f"{key.old} has not got back its root volume", hint="revive the old one first")
        ours = volumes_of(self.cloud.ledger, place)  # a tag can be put on any volume
        for volume in place.detached(key):
            if volume in ours and volume not in old:
                place.delete_volume(volume)
        place.untag(old, [ROLLOUT, MEMBER, EXPIRY, KEPT_FOR])
        place.forget(found, KEPT, ROLLOUT, MEMBER)

    @understood("EC2")
    def differences(self, key: Key) -> tuple[str, ...]:
        """What differs between old and new root volume beyond what is on them; all else is the same instance's."""
        place, found, kept = self._present(key)
        if found is None or kept is None or found.root in ("", *kept.hung.volumes):
            return ()
        was = instance_spec.root_traits(place.volume(next(iter(kept.hung.volumes))))
        now = instance_spec.root_traits(place.volume(found.root))
        return tuple(instance_spec.changed(was, now))

    @understood("EC2")
    def log(self, key: Key) -> str:
        """The last lines of the instance's console."""
        place = self.place(key)
        return place.console(key.old) if place.find(key.old) else ""
