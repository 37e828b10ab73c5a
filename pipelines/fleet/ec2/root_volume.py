"""Edge: standalone EC2 instances as a fleet, each given a new root volume in place. All else about them never moves.

The old root volume is kept, detached: going back puts it into its place again, while the instance is stopped.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hardening.foundation.errors import OutsideError, RefusedError
from images.aws.tags import as_dict
from pipelines.fleet.ec2 import requests
from pipelines.fleet.ec2.amis import image_of
from pipelines.fleet.ec2.essence import (
    KEPT,
    RUNNING,
    Hung,
    Json,
    Kept,
    Shown,
    kept_in,
    own_tags,
    persons_tags,
    root_traits,
)
from pipelines.fleet.ec2.members import Ec2Members, kept_for
from pipelines.fleet.ec2.place import Place
from pipelines.fleet.leavings import EXPIRY, MEMBER, ROLLOUT
from pipelines.fleet.members import Key, Read, Target
from pipelines.fleet.port import UnderwayError

UNDER_WAY = ("pending", "in-progress", "failing")


class RootVolumeFleet(Ec2Members):
    """The standalone instances of a fleet, each replaced inside: the instance stays, its root volume does not."""

    def create(self, key: Key, target: Target, expiry: datetime) -> None:
        """Write down on the instance which root volume it has and which image comes. Raises RefusedError."""
        place = self.place(key)
        shown = place.shown(place.need(key.old))
        if kept_in(shown.tags):
            kept_for(shown, key)
            return
        image = place.image(image_of(self.cloud, target, place.region))
        _refuse_smaller(shown, image)
        held = Hung(volumes=_root_of(shown), registrations=shown.registrations)
        until = expiry.astimezone(UTC).isoformat()
        place.tag([key.old], Kept(key.rollout, image["ImageId"], until, shown.public, held).tags())

    def retire(self, key: Key, drain: timedelta) -> None:
        """Take the instance out of its target groups and let it drain; it is still what it was."""
        place = self.place(key)
        if found := place.find(key.old):
            place.deregister(key.old, kept_for(Shown(found), key).hung.registrations, drain)

    def start(self, key: Key) -> None:
        """Replace the root volume, wait until that is done, and register the instance again."""
        place = self.place(key)
        kept = kept_for(Shown(place.need(key.old)), key)
        self._replace(key, place, kept)
        shown = Shown(place.need(key.old))
        if shown.root in ("", *kept.hung.volumes):
            raise UnderwayError(f"waiting for {key.old} to show its new root volume")
        place.tag([*kept.hung.volumes], own_tags(key.rollout, key.member, kept.expiry))
        was = place.volume(next(iter(kept.hung.volumes)))
        place.tag([shown.root], {**persons_tags(was.get("Tags")), ROLLOUT: key.rollout, MEMBER: key.member})
        place.register(key.old, kept.hung.registrations)

    def _replace(self, key: Key, place: Place, kept: Kept) -> None:
        """One task that replaces it, begun once, and looked at before the instance is: that shows it a bit later."""
        if not self._tasks(key, place):
            token = requests.token(key.rollout, key.member, "root", 0)
            own = own_tags(key.rollout, key.member, kept.expiry)
            place.ec2.call("CreateReplaceRootVolumeTask", **requests.replace_root(key.old, kept.image, token, own))
        ended = self._ended(key, place)
        if ended["TaskState"] != "succeeded":
            raise OutsideError(f"the root volume of {key.old} could not be replaced: {ended['TaskState']}")

    def _ended(self, key: Key, place: Place) -> Json:
        """The last task once it has ended."""
        what = f"the root volume of {key.old} to be replaced"

        def last() -> Any:
            tasks = self._tasks(key, place)
            return tasks and tasks[-1]["TaskState"] not in UNDER_WAY and tasks[-1]

        found: Json = place.until(last, what)
        return found

    def _tasks(self, key: Key, place: Place) -> list[Json]:
        """The tasks of this replacement, the oldest first."""
        mine = [{"Name": "instance-id", "Values": [key.old]}]
        found = place.ec2.pages("DescribeReplaceRootVolumeTasks", "ReplaceRootVolumeTasks", Filters=mine)
        own = [one for one in found if as_dict(one.get("Tags")).get(ROLLOUT) == key.rollout]
        return sorted(own, key=lambda one: str(one["StartTime"]))

    def read(self, key: Key) -> Read:
        """One look at the instance, with its new root volume."""
        place = self.place(key)
        found = place.find(key.old)
        kept = kept_in(Shown(found).tags) if found else None
        if found and kept and Shown(found).root in kept.hung.volumes:
            return Read(False, f"{key.old} still has its old root volume")
        return self.read_old(key)

    def expose(self, key: Key) -> None:
        """Nothing: `start` registers the instance again."""

    def swap(self, key: Key) -> None:
        """Write on the instance whose work it is now."""
        place = self.place(key)
        place.tag([key.old], {ROLLOUT: key.rollout, MEMBER: key.member})

    def remove_old(self, key: Key) -> None:
        """Delete the old root volume, and what was written about it."""
        place = self.place(key)
        found = place.find(key.old)
        kept = kept_in(Shown(found).tags) if found else None
        if found is None or kept is None or kept.rollout != key.rollout:
            return
        for volume in kept.hung.volumes:
            if volume == Shown(found).root:
                raise OutsideError(f"{volume} is the root volume of {key.old} still, and not removed")
            place.delete_volume(volume)
        self._forget(place, found, KEPT)

    def revive(self, key: Key) -> None:
        """The old root volume is in its place again, and the instance runs and is registered."""
        place = self.place(key)
        shown = Shown(place.need(key.old))
        kept = kept_in(shown.tags)
        if kept is None:
            place.start(key.old)
            return
        if self._tasks(key, place) and shown.state in RUNNING:
            self._ended(key, place)
            shown = Shown(place.need(key.old))
        if shown.root not in kept.hung.volumes:
            self._put_back(key, place, shown, kept)
        place.ec2.call("ModifyInstanceAttribute", **requests.ends_with(key.old, kept.hung.volumes))
        place.start(key.old)
        place.register(key.old, kept.hung.registrations)

    def _put_back(self, key: Key, place: Place, shown: Shown, kept: Kept) -> None:
        """Stop the instance and give it its old root volume; the new one is marked for whoever clears up."""
        if shown.root:
            place.tag([shown.root], own_tags(key.rollout, key.member, kept.expiry))
        place.deregister(key.old, kept.hung.registrations, timedelta())
        place.stop(key.old, wait=True)
        if shown.root:
            place.take_off(shown.root)
        for volume, (device, _) in kept.hung.volumes.items():
            place.move_volume(volume, device, key.old)

    def discard(self, key: Key) -> None:
        """Delete the new root volume, and what was written about the old one. Raises OutsideError before `revive`."""
        place = self.place(key)
        found = place.find(key.old)
        kept = kept_in(Shown(found).tags) if found else None
        if found and kept and Shown(found).root not in kept.hung.volumes:
            raise OutsideError(f"{key.old} has not got back its root volume", hint="revive the old one first")
        old = kept.hung.volumes if kept else {}
        for volume in place.detached(key.rollout, key.member):
            if volume not in old:
                place.delete_volume(volume)
        if found and kept:
            place.untag(old, [ROLLOUT, MEMBER, EXPIRY])
            self._forget(place, found, KEPT, ROLLOUT, MEMBER)

    def differences(self, key: Key) -> tuple[str, ...]:
        """What differs between old and new root volume beyond what is on them; all else is the same instance's."""
        place = self.place(key)
        found = place.find(key.old)
        kept = kept_in(Shown(found).tags) if found else None
        if found is None or kept is None or Shown(found).root in ("", *kept.hung.volumes):
            return ()
        was = root_traits(place.volume(next(iter(kept.hung.volumes))))
        now = root_traits(place.volume(Shown(found).root))
        return tuple(f"{name}: {was[name]} → {now[name]}" for name in was if was[name] != now[name])

    def log(self, key: Key) -> str:
        """The last lines of the instance's console."""
        place = self.place(key)
        return place.console(key.old) if place.find(key.old) else ""

    def _forget(self, place: Place, instance: Json, *begins: str) -> None:
        """Take off an instance what was written onto it."""
        place.untag([instance["InstanceId"]], [tag for tag in Shown(instance).tags if tag.startswith(begins)])


def _root_of(shown: Shown) -> dict[str, tuple[str, bool]]:
    """The root volume with its device, and whether it ends with the instance."""
    name = shown.instance["RootDeviceName"]
    ebs = next(one["Ebs"] for one in shown.instance["BlockDeviceMappings"] if one["DeviceName"] == name)
    return {ebs["VolumeId"]: (name, bool(ebs.get("DeleteOnTermination")))}


def _refuse_smaller(shown: Shown, image: Json) -> None:
    """EC2 puts no smaller volume into a root's place."""
    device, has = image["RootDeviceName"], int(shown.volumes[shown.root]["Size"])
    size = next(one["Ebs"]["VolumeSize"] for one in image["BlockDeviceMappings"] if one["DeviceName"] == device)
    if int(size) < has:
        raise RefusedError(
            f"the root volume of {shown.id} has {has} GiB and that of {image['ImageId']} {size}: it cannot be replaced "
            "by a smaller one",
            hint='build the image with a disk as large, or set ec2.way = "instance"',
        )
