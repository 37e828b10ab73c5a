"""Copies of images: new snapshots of their own, pending for a while, at most twenty at once in a region."""

from __future__ import annotations

import copy
from typing import Any

from tests.strict_aws import images, registering, snapshots, tags
from tests.strict_aws.errors import AwsError
from tests.strict_aws.wire import Call
from tests.strict_aws.world import Image, World, new_id


def copy_image(world: World, call: Call) -> dict[str, Any]:
    """The same ClientToken gives the same copy."""
    differs = AwsError("IdempotentParameterMismatch", "The client token was used with other parameters before")
    scope = (call.account, call.region, "CopyImage")
    return world.once(scope, call.params.get("ClientToken"), call.params, lambda: _copied(world, call), differs)


def _copied(world: World, call: Call) -> dict[str, Any]:
    params = call.params
    there = Call("ec2", call.operation, params["SourceRegion"], call.account, call.model, b"", "", "", {})
    source = images.found(world, there, params["SourceImageId"], own=False)
    if world.state_of_image(source) != "available":
        raise AwsError("InvalidAMIID.Unavailable", f"The image {source.id} is {world.state_of_image(source)}")
    registering.check_name(world, call)
    given = tags.specified(call, "image", "snapshot")
    readable = images.readable(world, call, source)
    if _pending(world, call) >= world.copies_at_once:
        said = f"You have reached the limit of {world.copies_at_once} concurrent copies to {call.region}"
        raise AwsError("ResourceLimitExceeded", said)
    made, ready = new_id("ami"), world.ready_at()
    said = f"Copied for DestinationAmi {made} from SourceAmi {source.id}"
    copies = {
        one.id: snapshots.copied(world, call, one, f"{said} for SourceSnapshot {one.id}", ready) for one in readable
    }
    for one in copies.values():
        snapshots.add(world, call, one, given.get("snapshot", {}))
    own = source.owner == call.account and params.get("CopyImageTags")
    brought = tags.of(source.owner, source.region, source.id) if own else {}
    image = Image(
        id=made,
        owner=call.account,
        region=call.region,
        name=params["Name"],
        created=world.now(),
        shown=_shown(
            source, params, {old: new.id for old, new in copies.items()}, any(one.key for one in copies.values())
        ),
        ready=ready,
        copied_from=f"{source.region}/{source.id}",
    )
    images.add(world, call, image, {**brought, **given.get("image", {})})
    return {"ImageId": made}


def _pending(world: World, call: Call) -> int:
    """Copies on their way into the caller's region."""
    mine = [one for one in world.images.values() if (one.owner, one.region) == (call.account, call.region)]
    return sum(bool(one.copied_from) and world.state_of_image(one) == "pending" for one in mine)


def _shown(source: Image, params: dict[str, Any], renamed: dict[str, str], encrypted: bool) -> dict[str, Any]:
    """What the copy shows: all that the source does, with its own snapshots."""
    shown = copy.deepcopy(source.shown)
    for mapping in shown["BlockDeviceMappings"]:
        if name := mapping.get("Ebs", {}).get("SnapshotId"):
            mapping["Ebs"].update(SnapshotId=renamed[name], Encrypted=encrypted)
    if "Description" in params:
        shown["Description"] = params["Description"]
    return shown


RULES = {"CopyImage": copy_image}
