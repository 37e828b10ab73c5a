"""Edge: standalone EC2 instances as a fleet, each replaced by a new instance. Every effect finds its earlier attempt.

The new instance is found by the tags that it was launched with, the old one by its id, and what hung on the old one by
the tags that it was given before the first change; the new one has them too, and goes on where somebody else has ended
the old one (`pipelines.fleet.ec2.instance_spec`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from hardening.foundation.errors import OutsideError, RefusedError, understood
from images.aws.permissions import ROLLER, permit, use_keys
from pipelines.fleet.ec2 import instance_spec
from pipelines.fleet.ec2.instance_spec import KEPT, STOPPED, TAKES, Hung, InstanceDescription, ReplacementRecord
from pipelines.fleet.ec2.members import Ec2Members, kept_for
from pipelines.fleet.ec2.obstacles import essentials, unfit
from pipelines.fleet.ec2.provenance import image_of
from pipelines.fleet.ec2.region_client import Moving, RegionClient
from pipelines.fleet.members import EXPIRY, Key, Read, ReplacementImage
from pipelines.fleet.model import Method, ReplacementStrategy
from pipelines.fleet.port import GoneError
from pipelines.fleet.rollout_targets import (
    LAUNCHED,
    OWN_AMI,
    OWN_INTERFACE,
    PARTS,
    TAGGED_AT_LAUNCH,
    VOLUME_KEYS,
    passed,
)

PERMISSIONS = (
    permit("ec2:RunInstances", ROLLER, on=(OWN_AMI, LAUNCHED, *PARTS)),
    permit("ec2:CreateTags", ROLLER, on=TAGGED_AT_LAUNCH, by="RunInstances"),
    permit("iam:PassRole", ROLLER, on=passed("ec2.amazonaws.com"), by="RunInstances"),
    permit("ec2:ModifyNetworkInterfaceAttribute", ROLLER, on=OWN_INTERFACE),
    *use_keys(ROLLER, VOLUME_KEYS, "RunInstances"),
)


class Ec2Fleet(Ec2Members):
    """The standalone instances of a fleet, each replaced by a new one."""

    @understood("EC2")
    def create(self, key: Key, target: ReplacementImage, expiry: datetime) -> None:
        """Write down on the old instance what hangs on it and what comes; beside it, launch the new one.

        In place the new one is launched by `start`: it must not run without what it takes over.
        """
        place = self.place(key)
        if place.find(key.old) is None and self._new(key):
            return
        old = place.shown(place.need(key.old))
        if old.kept is None:
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

    def _launch(self, key: Key, place: RegionClient) -> str:
        """The new instance, launched once."""
        new, ended = place.launched(key)
        if new:
            return new.id
        old = place.shown(place.need(key.old))
        kept = kept_for(old, key)
        token = instance_spec.token(key.rollout, key.member, "create", ended)
        own = instance_spec.own_tags(key.rollout, key.member, kept.expiry)
        asked = instance_spec.run_instances(old, kept, place.image(kept.image), token, own)
        return str(place.ec2.call("RunInstances", **asked)["Instances"][0]["InstanceId"])

    @understood("EC2")
    def start(self, key: Key) -> None:
        """The new instance runs, and has what could not exist twice, where the old one is stopped already."""
        place = self.place(key)
        name = self._begun(key, place)
        with _about_the_new(key):
            new = place.need(name)
            hung = self._hung(key, place, new)
            _set_check(place, new, hung)
            if key.method is Method.IN_PLACE:
                self._move_over(place, hung, new, key.old)
                place.register(name, hung.registrations)

    def _begun(self, key: Key, place: RegionClient) -> str:
        """The new instance, once it runs. One that has ended is not launched again: the next would end, too."""
        gone = OutsideError(f"the new instance of {key.name} ended while it started")
        new, ended = place.launched(key)
        if new is None and ended:
            raise gone
        name = new.id if new else self._launch(key, place)
        place.until(lambda: self._new(key), f"the new instance of {key.name}")
        with _about_the_new(key):
            place.start(name)
        return name

    def _new(self, key: Key) -> InstanceDescription | None:
        """The new instance, if it is there."""
        return self.place(key).launched(key)[0]

    def _hung(self, key: Key, place: RegionClient, new: InstanceDescription) -> Hung:
        """What hung on the old instance, as is written onto it or, where it has gone, onto the new one."""
        old = place.find(key.old)
        return kept_for(old, key).hung if old else new.takes

    def _move_over(self, place: RegionClient, hung: Hung, to: InstanceDescription, *off: str) -> None:
        """What cannot exist twice goes to an instance, off the other one."""
        moving = Moving(place, (to.id, *off))
        for volume, (device, _) in hung.volumes.items():
            moving.volume(volume, device, to.id)
        for interface, (index, card) in hung.interfaces.items():
            moving.interface(interface, index, card, to.id)
        for address in hung.addresses:
            moving.address(address, to.primary["NetworkInterfaceId"])

    @understood("EC2")
    def read(self, key: Key) -> Read:
        """One look at the new instance."""
        new = self._new(key)
        return self.look(self.place(key), new) if new else Read(False, "the new instance is gone")

    @understood("EC2")
    def expose(self, key: Key) -> None:
        """Register the new instance wherever the old one is, or was."""
        place = self.place(key)
        if new := self._new(key):
            with _about_the_new(key):
                place.register(new.id, self._hung(key, place, new).registrations)

    @understood("EC2")
    def retire(self, key: Key, drain: timedelta) -> None:
        """Take the old instance out of its target groups, let it drain, and stop it. Beside it, its addresses move."""
        place = self.place(key)
        old, new = place.find(key.old), self._new(key)
        if old:
            place.deregister(key.old, kept_for(old, key).hung.registrations, drain)
        if key.method is Method.SURGE and new:
            self._move_over(place, self._hung(key, place, new), new, key.old)
        if old:
            place.stop(key.old, wait=key.method is Method.IN_PLACE)

    @understood("EC2")
    def swap(self, key: Key) -> None:
        """The new instance is the member: it carries no expiry any more, and its data ends with it as before.

        Where the old one has gone, it has all of that one's first. Raises OutsideError where something of it has gone
        as well.
        """
        place, new = self.place(key), self._new(key)
        if new is None:
            raise OutsideError(f"the new instance of {key.name} is gone")
        hung = self._hung(key, place, new)
        if gone := place.find(key.old) is None:
            _set_check(place, new, hung)
            self._move_over(place, hung, new, key.old)
            with _about_the_new(key):
                place.register(new.id, hung.registrations)
        place.untag(_parts(new), [EXPIRY])  # first: nobody may end it with the member's data
        if hung.volumes:
            place.end_volumes(new.id, hung.volumes)
        if gone:
            place.forget(new, TAKES)

    @understood("EC2")
    def remove_old(self, key: Key) -> None:
        """Terminate the old instance, and forget what the new one took over from it."""
        place = self.place(key)
        place.terminate(key.old)
        if new := self._new(key):
            place.forget(new, TAKES)

    @understood("EC2")
    def revive(self, key: Key) -> None:
        """The old instance has back what hung on it, runs, and is registered. Raises GoneError."""
        place = self.place(key)
        old, new = place.need(key.old), self._new(key)
        kept, off = old.kept, [new.id] if new else []
        if kept is None:
            place.start(key.old)
            return
        if new:
            with _about_the_new(key):
                self._unmake(key, place, new, kept)
        if key.method is Method.IN_PLACE:
            self._give_back(place, kept.hung, key.old, *off)
        place.start(key.old)
        if key.method is Method.SURGE:
            self._move_over(place, kept.hung, old, *off)
        place.register(key.old, kept.hung.registrations)

    def _give_back(self, place: RegionClient, hung: Hung, old: str, *off: str) -> None:
        """What could not exist twice goes back to the stopped old instance before it starts."""
        if place.need(old).state in STOPPED:
            place.until_state(old, "stopped")
        self._move_over(place, hung, place.need(old), *off)
        if hung.volumes:
            place.end_volumes(old, hung.volumes)

    def _unmake(self, key: Key, place: RegionClient, new: InstanceDescription, kept: ReplacementRecord) -> None:
        """The new instance is no member any more; where it holds what is the old one's, it is stopped first."""
        place.tag(_parts(new), {EXPIRY: kept.expiry})
        if key.method is Method.IN_PLACE:
            self.drain(place, new, kept.hung.registrations)
            place.stop(new.id, wait=True)

    @understood("EC2")
    def discard(self, key: Key) -> None:
        """Terminate the new instance, out of its target groups first, and forget what was written about the old one."""
        place = self.place(key)
        old = place.find(key.old)
        if new := self._new(key):
            if held := new.hung().volumes:
                raise OutsideError(f"{new.id} holds {', '.join(held)}", hint="revive the old one first")
            hung = old.kept.hung if old and old.kept else new.takes  # what drains is not listed any more
            with _about_the_new(key):
                self.drain(place, new, tuple(dict.fromkeys((*hung.registrations, *place.registrations(new)))))
            if not new.root_ends:
                place.end_volumes(new.id, {new.root: (new.instance["RootDeviceName"], True)})
            place.terminate(new.id)
        if old:
            place.forget(old, KEPT)

    @understood("EC2")
    def differences(self, key: Key) -> tuple[str, ...]:
        """What differs between old and new beyond the image."""
        place = self.place(key)
        new, old = self._new(key), place.find(key.old)
        if new and old is None:
            return (f"{key.old} has gone, so that nothing could be compared",)
        if old is None or new is None or old.kept is None:
            return ()
        return instance_spec.differences(place.shown(old), old.kept, place.shown(new))

    @understood("EC2")
    def log(self, key: Key) -> str:
        """The last lines of the new instance's console."""
        new = self._new(key)
        return self.place(key).console(new.id) if new else ""


@contextmanager
def _about_the_new(key: Key) -> Iterator[None]:
    """GoneError means the old instance; where the new one is gone, or is not shown yet, that is another error."""
    try:
        yield
    except GoneError:
        raise OutsideError(f"the new instance of {key.name} is gone") from None


def _set_check(place: RegionClient, new: InstanceDescription, hung: Hung) -> None:
    """Let the first interface of the new instance drop no more than the old one's does."""
    if not hung.checked:
        first = new.primary["NetworkInterfaceId"]  # a further one may be there: it is named
        off = {"NetworkInterfaceId": first, "SourceDestCheck": {"Value": False}}
        place.ec2.call("ModifyNetworkInterfaceAttribute", **off)


def _parts(shown: InstanceDescription) -> list[str]:
    """An instance with what was launched with it."""
    parts = [shown.id, shown.root, str(shown.primary.get("NetworkInterfaceId", ""))]
    return [one for one in parts if one]
