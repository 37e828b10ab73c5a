"""Images: found, described, deprecated, disabled, deregistered."""

from __future__ import annotations

import copy
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.strict_aws import encryption, snapshots, tags
from tests.strict_aws.errors import AwsError, bad_value
from tests.strict_aws.listing import filtered, member, page
from tests.strict_aws.wire import Call
from tests.strict_aws.world import Image, Snapshot, World

UNKNOWN = "The image id '[{}]' does not exist"
FILTERS = {
    "architecture": member("Architecture"),
    "block-device-mapping.device-name": member("BlockDeviceMappings", "DeviceName"),
    "block-device-mapping.encrypted": member("BlockDeviceMappings", "Ebs", "Encrypted"),
    "block-device-mapping.snapshot-id": member("BlockDeviceMappings", "Ebs", "SnapshotId"),
    "block-device-mapping.volume-size": member("BlockDeviceMappings", "Ebs", "VolumeSize"),
    "block-device-mapping.volume-type": member("BlockDeviceMappings", "Ebs", "VolumeType"),
    "boot-mode": member("BootMode"),
    "creation-date": member("CreationDate"),
    "description": member("Description"),
    "ena-support": member("EnaSupport"),
    "image-id": member("ImageId"),
    "image-type": member("ImageType"),
    "is-public": member("Public"),
    "name": member("Name"),
    "owner-id": member("OwnerId"),
    "root-device-name": member("RootDeviceName"),
    "root-device-type": member("RootDeviceType"),
    "source-image-id": member("SourceImageId"),
    "source-image-region": member("SourceImageRegion"),
    "state": member("State"),
    "virtualization-type": member("VirtualizationType"),
}


def add(world: World, call: Call, image: Image, given: dict[str, str]) -> None:
    """Keep a new image with its tags."""
    world.images[image.id] = image
    tags.put(call, image.id, given)


def found(world: World, call: Call, name: str, *, own: bool = True) -> Image:
    """The image of this region, the caller's own or, with `own` false, visible. Raises AwsError."""
    if not re.fullmatch(r"ami-[0-9a-f]{8,17}", name):
        raise AwsError("InvalidAMIID.Malformed", f'Invalid id: "{name}"')
    image = world.images.get(name)
    if image is None or image.region != call.region or not visible(world, image, call.account):
        raise AwsError("InvalidAMIID.NotFound", UNKNOWN.format(name))
    if own and image.owner != call.account:
        raise AwsError("AuthFailure", f"Not authorized for image:{name}", 403)
    return image


def visible(world: World, image: Image, account: str) -> bool:
    """Whether an account may see and launch the image: its own, public, or shared with it or its organisation."""
    if account == image.owner:
        return True
    mine = {account, *world.organizations.get(account, "").split()}
    return any(set(entry.values()) & (mine | {"all"}) for entry in image.permissions)


def shown(world: World, image: Image) -> dict[str, Any]:
    """An image in the shape of DescribeImages."""
    known = copy.deepcopy(image.shown)
    if image.deprecate_at:
        known["DeprecationTime"] = stamp(image.deprecate_at)
    if image.protected or image.protection_ends:
        known["DeregistrationProtection"] = protection(world, image)
    if image.launched:
        known["LastLaunchedTime"] = stamp(image.launched)
    if image.copied_from:
        known["SourceImageRegion"], known["SourceImageId"] = image.copied_from.split("/")
    if held := tags.shown(image.owner, image.region, image.id):
        known["Tags"] = held
    return known | {
        "ImageId": image.id,
        "Name": image.name,
        "ImageLocation": f"{image.owner}/{image.name}",
        "OwnerId": image.owner,
        "State": world.state_of_image(image),
        "Public": {"Group": "all"} in image.permissions,
        "CreationDate": stamp(image.created),
        "ImageType": "machine",
        "RootDeviceType": "ebs",
        "Hypervisor": "xen",
        "PlatformDetails": "Linux/UNIX",
        "UsageOperation": "RunInstances",
    }


def stamp(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.000Z}"


def describe_images(world: World, call: Call) -> dict[str, Any]:
    """Visible images. Disabled ones only with IncludeDisabled, others' deprecated ones only with IncludeDeprecated."""
    params = call.params
    named = [found(world, call, name, own=False) for name in params.get("ImageIds", [])]
    chosen = named or [one for one in world.images.values() if one.region == call.region]
    chosen = [one for one in chosen if visible(world, one, call.account) and _listed(world, call, one)]
    if named and len(chosen) < len(named):
        raise AwsError("InvalidAMIID.NotFound", UNKNOWN.format(next(one.id for one in named if one not in chosen)))
    if owners := params.get("Owners"):
        wanted = {call.account if owner == "self" else owner for owner in owners}
        chosen = [one for one in chosen if one.owner in wanted]
    for user in params.get("ExecutableUsers", []):
        wanted = {call.account if user == "self" else user}
        chosen = [one for one in chosen if any(set(entry.values()) & wanted for entry in one.permissions)]
    kept = filtered(call, [shown(world, one) for one in chosen], FILTERS)
    listed, more = page(world, call, kept, "ImageIds")
    return {"Images": listed, **more}


def _listed(world: World, call: Call, image: Image) -> bool:
    states = [value for rule in call.params.get("Filters", []) if rule["Name"] == "state" for value in rule["Values"]]
    if image.disabled and not (call.params.get("IncludeDisabled") or "disabled" in states):
        return False
    if image.disabled and image.owner != call.account:
        return False
    old = image.deprecate_at is not None and image.deprecate_at <= world.now()
    return not old or image.owner == call.account or bool(call.params.get("IncludeDeprecated"))


def deregister_image(world: World, call: Call) -> dict[str, Any]:
    """Refused while protected. With DeleteAssociatedSnapshots its snapshots go too, but not those others stand on."""
    image = found(world, call, call.params["ImageId"])
    if protection(world, image) != "disabled":
        raise AwsError("OperationNotPermitted", f"{image.id} is protected from deregistration")
    del world.images[image.id]
    tags.drop(image.owner, image.region, image.id)
    answer: dict[str, Any] = {"Return": True}
    if call.params.get("DeleteAssociatedSnapshots"):
        results = [
            (name, _deleted(world, world.snapshots[name])) for name in image.snapshots() if name in world.snapshots
        ]
        answer["DeleteSnapshotResults"] = [{"SnapshotId": name, "ReturnCode": code} for name, code in results]
    return answer


def _deleted(world: World, snapshot: Snapshot) -> str:
    if snapshots.user_of(world, snapshot.id):
        return "skipped"
    snapshots.remove(world, snapshot)
    return "success"


def enable_image_deprecation(world: World, call: Call) -> dict[str, Any]:
    """To the minute, in the future, ten years at most (two for a public image)."""
    image, moment = found(world, call, call.params["ImageId"]), call.params["DeprecateAt"].replace(tzinfo=UTC)
    years = 2 if {"Group": "all"} in image.permissions else 10
    if not world.now() < moment <= world.now() + timedelta(days=365.25 * years):
        raise bad_value(f"DeprecateAt {moment:%Y-%m-%dT%H:%M:%SZ} is not within the next {years} years")
    image.deprecate_at = (moment + timedelta(seconds=30)).replace(second=0, microsecond=0)
    return {"Return": True}


def disable_image_deprecation(world: World, call: Call) -> dict[str, Any]:
    found(world, call, call.params["ImageId"]).deprecate_at = None
    return {"Return": True}


def disable_image(world: World, call: Call) -> dict[str, Any]:
    """No launches, no sharing any more; only an available image."""
    image = found(world, call, call.params["ImageId"])
    if world.state_of_image(image) == "pending":
        raise AwsError("InvalidAMIID.Unavailable", f"The image {image.id} is pending")
    image.disabled, image.permissions = True, []
    return {"Return": True}


def enable_image(world: World, call: Call) -> dict[str, Any]:
    found(world, call, call.params["ImageId"]).disabled = False
    return {"Return": True}


def protection(world: World, image: Image) -> str:
    """Whether deregistration is refused; with a cool-down for a day longer than it is on."""
    if image.protected:
        return f"enabled-with{'' if image.cooldown else 'out'}-cooldown"
    return "enabled-with-cooldown" if image.protection_ends and image.protection_ends > world.now() else "disabled"


def protect(world: World, call: Call) -> dict[str, Any]:
    image = found(world, call, call.params["ImageId"])
    image.protected, image.cooldown = True, bool(call.params.get("WithCooldown"))
    return {"Return": protection(world, image)}


def unprotect(world: World, call: Call) -> dict[str, Any]:
    image = found(world, call, call.params["ImageId"])
    if image.protected and image.cooldown:
        image.protection_ends = world.now() + timedelta(hours=24)
    image.protected = False
    return {"Return": protection(world, image)}


def readable(world: World, call: Call, image: Image) -> list[Snapshot]:
    """The image's snapshots, each of which the caller may read. Raises AwsError."""
    held = [world.snapshots[name] for name in image.snapshots()]
    for snapshot in held:
        if not encryption.may_read(snapshot, call.account):
            raise AwsError("InvalidSnapshot.NotFound", f"You do not have permission to access snapshot {snapshot.id}")
    return held


RULES = {
    "DescribeImages": describe_images,
    "DeregisterImage": deregister_image,
    "EnableImageDeprecation": enable_image_deprecation,
    "DisableImageDeprecation": disable_image_deprecation,
    "DisableImage": disable_image,
    "EnableImage": enable_image,
    "EnableImageDeregistrationProtection": protect,
    "DisableImageDeregistrationProtection": unprotect,
}
