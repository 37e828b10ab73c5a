"""Edge: standalone EC2 instances as a fleet, each replaced by a new instance. Every effect finds what was done before.

The new instance is found by the tags that it was launched with, the old one by its id, and what hung on the old one by
the tags that it was given before the first change (`pipelines.fleet.ec2.instance_spec`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hardening.foundation.errors import OutsideError, RefusedError
from pipelines.fleet.ec2 import launch_requests
from pipelines.fleet.ec2.instance_spec import (
    KEPT,
    STOPPED,
    InstanceDescription,
    Json,
    ReplacementRecord,
    differences,
    kept_in,
    own_tags,
)
from pipelines.fleet.ec2.members import Ec2Members, kept_for
from pipelines.fleet.ec2.obstacles import essentials, unfit
from pipelines.fleet.ec2.provenance import image_of
from pipelines.fleet.ec2.region_client import RegionClient
from pipelines.fleet.members import EXPIRY, Key, Read, ReplacementImage
from pipelines.fleet.model import Method, ReplacementStrategy
from pipelines.fleet.port import GoneError


class Ec2Fleet(Ec2Members):
    """The standalone instances of a fleet, each replaced by a new one."""

    def create(self, key: Key, target: ReplacementImage, expiry: datetime) -> None:
        """Write down on the old instance what hangs on it and what comes; beside it, launch the new one.

        In place the new one is launched by `start`: it must not run without what it takes over.
        """
        place = self.place(key)
        old = place.shown(place.need(key.old))
        if kept_in(old.tags) is None:
            place.refuse_protected(key.old)
            image = image_of(self.cloud, target, place.region)
            if why := unfit(old, essentials(place.image(image)), ReplacementStrategy.INSTANCE):
                raise RefusedError(f"{key.old} cannot become {image}: {why}")
            kept = ReplacementRecord(key.rollout, image, expiry.astimezone(UTC).isoformat(), old.public, old.hung())
            place.tag([key.old], kept.tags())
        else:
            kept_for(old, key)
        if key.method is Method.SURGE:
            self._launch(key, place)

    def _launch(self, key: Key, place: RegionClient) -> Json:
        """The new instance, launched once."""
        new, ended = place.launched(key.rollout, key.member)
        if new is None:
            old = place.shown(place.need(key.old))
            kept = kept_for(old, key)
            asked = launch_requests.run_instances(
                old, kept, place.image(kept.image), launch_requests.token(key.rollout, key.member, "create", ended),
                own_tags(key.rollout, key.member, kept.expiry),
            )  # fmt: skip
            launched: Json = place.ec2.call("RunInstances", **asked)["Instances"][0]
            return launched
        return new

    def start(self, key: Key) -> None:
        """The new instance runs, and has what could not exist twice, where the old one is stopped already."""
        place = self.place(key)
        new = self._begun(key, place)
        old = InstanceDescription(place.need(key.old))
        if not old.checked:
            first = InstanceDescription(place.need(new)).primary[
                "NetworkInterfaceId"
            ]  # a further one may be there: it is named
            off = {"NetworkInterfaceId": first, "SourceDestCheck": {"Value": False}}
            place.ec2.call("ModifyNetworkInterfaceAttribute", **off)
        if key.method is Method.IN_PLACE:
            kept = kept_for(old, key)
            self._move_over(place, kept, place.need(new), key.old)
            place.register(new, kept.hung.registrations)

    def _begun(self, key: Key, place: RegionClient) -> str:
        """The new instance, once it runs. One that has ended is not launched again: the next would end, too."""
        new, ended = place.launched(key.rollout, key.member)
        if new is None and ended:
            raise OutsideError(f"the new instance of {key.name} ended while it started")
        name = str((new or self._launch(key, place))["InstanceId"])
        place.until(lambda: place.launched(key.rollout, key.member)[0], f"the new instance of {key.name}")
        try:
            place.start(name)
        except GoneError:  # which means the old one
            raise OutsideError(f"the new instance of {key.name} ended while it started") from None
        return name

    def _move_over(self, place: RegionClient, kept: ReplacementRecord, to: Json, *off: str) -> None:
        """What cannot exist twice goes to an instance, off the other one."""
        moving, hung, name = place.moving(to["InstanceId"], *off), kept.hung, to["InstanceId"]
        for volume, (device, _) in hung.volumes.items():
            moving.volume(volume, device, name)
        for interface, index in hung.interfaces.items():
            moving.interface(interface, index, hung.cards.get(interface, 0), name)
        for address in hung.addresses:
            moving.address(address, InstanceDescription(to).primary["NetworkInterfaceId"])

    def read(self, key: Key) -> Read:
        """One look at the new instance."""
        place = self.place(key)
        new, _ = place.launched(key.rollout, key.member)
        return Read(False, "the new instance is gone") if new is None else self.look(place, new)

    def expose(self, key: Key) -> None:
        """Register the new instance wherever the old one is."""
        place = self.place(key)
        new, _ = place.launched(key.rollout, key.member)
        if new:
            place.register(
                new["InstanceId"], kept_for(InstanceDescription(place.need(key.old)), key).hung.registrations
            )

    def retire(self, key: Key, drain: timedelta) -> None:
        """Take the old instance out of its target groups, let it drain, and stop it. Beside it, its addresses move."""
        place = self.place(key)
        old = place.find(key.old)
        if old is None:
            return
        kept = kept_for(InstanceDescription(old), key)
        place.deregister(key.old, kept.hung.registrations, drain)
        if key.method is Method.SURGE:
            new, _ = place.launched(key.rollout, key.member)
            if new:
                self._move_over(place, kept, new, key.old)
        place.stop(key.old, wait=key.method is Method.IN_PLACE)

    def swap(self, key: Key) -> None:
        """The new instance is the member: it carries no expiry any more, and its data ends with it as before."""
        place = self.place(key)
        new, _ = place.launched(key.rollout, key.member)
        if new is None:
            raise OutsideError(f"the new instance of {key.name} is gone")
        place.untag(_parts(new), [EXPIRY])  # first: nobody may end it with the member's data
        old = place.find(key.old)
        if old and (volumes := kept_for(InstanceDescription(old), key).hung.volumes):
            place.ec2.call("ModifyInstanceAttribute", **launch_requests.ends_with(new["InstanceId"], volumes))

    def remove_old(self, key: Key) -> None:
        """Terminate the old instance."""
        self.place(key).terminate(key.old)

    def revive(self, key: Key) -> None:
        """The old instance has back what hung on it, runs, and is registered. Raises GoneError."""
        place = self.place(key)
        old = place.need(key.old)
        kept = kept_in(InstanceDescription(old).tags)
        new, _ = place.launched(key.rollout, key.member)
        if kept is None:
            place.start(key.old)
            return
        if new:
            self._unmake(key, place, new, kept)
        off = [new["InstanceId"]] if new else []
        if key.method is Method.IN_PLACE:
            self._give_back(place, kept, key.old, *off)
        place.start(key.old)
        if key.method is Method.SURGE:
            self._move_over(place, kept, old, *off)
        place.register(key.old, kept.hung.registrations)

    def _give_back(self, place: RegionClient, kept: ReplacementRecord, old: str, *off: str) -> None:
        """What could not exist twice goes back to the stopped old instance before it starts."""
        if InstanceDescription(place.need(old)).state in STOPPED:
            place.until_state(old, "stopped")
        self._move_over(place, kept, place.need(old), *off)
        if kept.hung.volumes:
            place.ec2.call("ModifyInstanceAttribute", **launch_requests.ends_with(old, kept.hung.volumes))

    def _unmake(self, key: Key, place: RegionClient, new: Json, kept: ReplacementRecord) -> None:
        """The new instance is no member any more; where it holds what is the old one's, it is stopped first."""
        place.tag(_parts(new), {EXPIRY: kept.expiry})
        if key.method is Method.IN_PLACE:
            place.deregister(new["InstanceId"], kept.hung.registrations, timedelta())
            place.stop(new["InstanceId"], wait=True)

    def discard(self, key: Key) -> None:
        """Terminate the new instance, out of its target groups first, and forget what was written about the old one."""
        place = self.place(key)
        new, _ = place.launched(key.rollout, key.member)
        if new:
            if held := InstanceDescription(new).hung().volumes:
                raise OutsideError(f"{new['InstanceId']} holds {', '.join(held)}", hint="revive the old one first")
            place.deregister(new["InstanceId"], place.registrations(new), timedelta())
            if not InstanceDescription(new).root_ends:
                ends = {InstanceDescription(new).root: (new["RootDeviceName"], True)}
                place.ec2.call("ModifyInstanceAttribute", **launch_requests.ends_with(new["InstanceId"], ends))
            place.terminate(new["InstanceId"])
        if old := place.find(key.old):
            place.untag([key.old], [tag for tag in InstanceDescription(old).tags if tag.startswith(KEPT)])

    def differences(self, key: Key) -> tuple[str, ...]:
        """What differs between old and new beyond the image."""
        place = self.place(key)
        new, _ = place.launched(key.rollout, key.member)
        old = place.find(key.old)
        kept = kept_in(InstanceDescription(old).tags) if old else None
        if old is None or new is None or kept is None:
            return ()
        return differences(place.shown(old), kept, place.shown(new))

    def log(self, key: Key) -> str:
        """The last lines of the new instance's console."""
        place = self.place(key)
        new, _ = place.launched(key.rollout, key.member)
        return place.console(new["InstanceId"]) if new else ""


def _parts(instance: Json) -> list[str]:
    """An instance with what was launched with it."""
    shown = InstanceDescription(instance)
    parts = [shown.id, shown.root, str(shown.primary.get("NetworkInterfaceId", ""))]
    return [one for one in parts if one]
