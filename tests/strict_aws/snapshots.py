"""Snapshots as EC2 shows, shares, copies and deletes them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.strict_aws import encryption, tags
from tests.strict_aws.errors import AwsError, bad_value
from tests.strict_aws.listing import filtered, member, page
from tests.strict_aws.wire import Call
from tests.strict_aws.world import Snapshot, World, new_id

FILTERS = {
    "description": member("Description"),
    "encrypted": member("Encrypted"),
    "owner-id": member("OwnerId"),
    "progress": member("Progress"),
    "snapshot-id": member("SnapshotId"),
    "start-time": member("StartTime"),
    "status": member("State"),
    "storage-tier": member("StorageTier"),
    "volume-id": member("VolumeId"),
    "volume-size": member("VolumeSize"),
}


def found(world: World, call: Call, name: str, *, own: bool = True) -> Snapshot:
    """The snapshot of this region, the caller's own or, with `own` false, readable. Raises AwsError."""
    if not name.startswith("snap-"):
        raise AwsError("InvalidSnapshotID.Malformed", f'Invalid id: "{name}" (expecting "snap-...")')
    snapshot = world.snapshots.get(name)
    if snapshot is None or snapshot.region != call.region or not encryption.may_read(snapshot, call.account):
        raise AwsError("InvalidSnapshot.NotFound", f"The snapshot '{name}' does not exist.")
    if own and snapshot.owner != call.account:
        raise AwsError("UnauthorizedOperation", f"You are not the owner of {name}", 403)
    return snapshot


def shown(world: World, snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot in the shape of DescribeSnapshots."""
    state = world.state_of(snapshot)
    known = {
        "SnapshotId": snapshot.id,
        "State": state,
        "StateMessage": snapshot.failed or None,
        "Progress": "100%" if state == "completed" else "0%",
        "OwnerId": snapshot.owner,
        "Description": snapshot.description,
        "VolumeId": snapshot.volume,
        "VolumeSize": snapshot.size_gib,
        "StartTime": snapshot.start,
        "Encrypted": snapshot.key is not None,
        "KmsKeyId": snapshot.key,
        "StorageTier": "standard",
        "Tags": tags.shown(snapshot.owner, snapshot.region, snapshot.id) or None,
    }
    if state == "completed":
        known["CompletionTime"] = snapshot.ready
    return {name: value for name, value in known.items() if value is not None}


def describe_snapshots(world: World, call: Call) -> dict[str, Any]:
    """Own, shared and public snapshots of the region. A named one that is not there is an error."""
    params = call.params
    named = [found(world, call, name, own=False) for name in params.get("SnapshotIds", [])]
    visible = named or [one for one in world.snapshots.values() if one.region == call.region]
    visible = [one for one in visible if encryption.may_read(one, call.account)]
    if owners := params.get("OwnerIds"):
        wanted = {call.account if owner == "self" else owner for owner in owners}
        visible = [one for one in visible if one.owner in wanted]
    if users := params.get("RestorableByUserIds"):
        wanted = {call.account if user == "self" else user for user in users}
        visible = [one for one in visible if wanted & {one.owner, *one.users, *one.groups}]
    kept = filtered(call, [shown(world, one) for one in visible], FILTERS)
    listed, more = page(world, call, kept, "SnapshotIds")
    return {"Snapshots": listed, **more}


def delete_snapshot(world: World, call: Call) -> dict[str, Any]:
    """Refused while a registered image, disabled or not, stands on it."""
    snapshot = found(world, call, call.params["SnapshotId"])
    if user := user_of(world, snapshot.id):
        raise AwsError("InvalidSnapshot.InUse", f"The snapshot {snapshot.id} is currently in use by {user}")
    remove(world, snapshot)
    return {}


def user_of(world: World, name: str, *, but: str = "") -> str:
    """An image other than `but` that stands on the snapshot, or nothing."""
    return next((image.id for image in world.images.values() if image.id != but and name in image.snapshots()), "")


def remove(world: World, snapshot: Snapshot) -> None:
    del world.snapshots[snapshot.id]
    tags.drop(snapshot.owner, snapshot.region, snapshot.id)


def create_snapshot(world: World, call: Call) -> dict[str, Any]:
    """A snapshot of a volume; its content is that of the snapshot that the volume was made from."""
    volume = tags.backend(call.account, call.region).volumes.get(call.params["VolumeId"])
    if volume is None:
        raise AwsError("InvalidVolume.NotFound", f"The volume '{call.params['VolumeId']}' does not exist.")
    given = tags.specified(call, "snapshot").get("snapshot", {})
    made = of_volume(world, call, volume, given, world.ready_at())
    return {**shown(world, made), "Tags": tags.shown(call.account, call.region, made.id)}


def of_volume(world: World, call: Call, volume: Any, given: dict[str, str], ready: datetime) -> Snapshot:
    """A new snapshot of a volume, with these tags; the emulator knows of no writes to volumes."""
    source = world.snapshots.get(volume.snapshot_id or "")
    made = Snapshot(
        id=new_id("snap"),
        owner=call.account,
        region=call.region,
        size_gib=int(volume.size),
        start=world.now(),
        description=call.params.get("Description", ""),
        volume=volume.id,
        key=volume.kms_key_id if volume.encrypted else None,
        inherited=source.blocks() if source else {},
        ready=ready,
    )
    return add(world, call, made, given)


def add(world: World, call: Call, made: Snapshot, given: dict[str, str]) -> Snapshot:
    """Keep a new snapshot with its tags."""
    made.lineage, made.document = made.lineage or made.id, True
    world.snapshots[made.id] = made
    tags.put(call, made.id, given)
    return made


def copied(world: World, call: Call, source: Snapshot, description: str, ready: datetime) -> Snapshot:
    """A copy of `source` into the region of `call`, not kept yet."""
    return Snapshot(
        id=new_id("snap"),
        owner=call.account,
        region=call.region,
        size_gib=source.size_gib,
        start=world.now(),
        description=description,
        key=encryption.for_copy(world, call, source.key),
        inherited=source.blocks(),
        ready=ready,
    )


def copy_snapshot(world: World, call: Call) -> dict[str, Any]:
    """A new snapshot, pending for a while; the source must be completed."""
    params = call.params
    asked = Call("ec2", call.operation, params["SourceRegion"], call.account, call.model, b"", "", "", {})
    source = found(world, asked, params["SourceSnapshotId"], own=False)
    if world.state_of(source) != "completed":
        raise AwsError("IncorrectState", f"The snapshot {source.id} is {world.state_of(source)}")
    given = tags.specified(call, "snapshot").get("snapshot", {})
    made = add(world, call, copied(world, call, source, params.get("Description", ""), world.ready_at()), given)
    return {"SnapshotId": made.id, "Tags": tags.shown(call.account, call.region, made.id)}


def modify_snapshot_attribute(world: World, call: Call) -> dict[str, Any]:
    """Shares with accounts or with all; never what is encrypted with a key that AWS manages."""
    snapshot, params = found(world, call, call.params["SnapshotId"]), call.params
    if params.get("Attribute", "createVolumePermission") != "createVolumePermission":
        raise bad_value("Only createVolumePermission can be modified")
    change = params.get("CreateVolumePermission", {})
    flat = [{"UserId": user} for user in params.get("UserIds", [])] + [
        {"Group": g} for g in params.get("GroupNames", [])
    ]
    operation = params.get("OperationType")
    added = change.get("Add", []) + (flat if operation == "add" else [])
    removed = change.get("Remove", []) + (flat if operation == "remove" else [])
    if not added and not removed:
        raise AwsError("MissingParameter", "Nothing to add or remove")
    _may_share(world, call, snapshot, added)
    snapshot.users |= {entry["UserId"] for entry in added if "UserId" in entry}
    snapshot.groups |= {entry["Group"] for entry in added if "Group" in entry}
    snapshot.users -= {entry["UserId"] for entry in removed if "UserId" in entry}
    snapshot.groups -= {entry["Group"] for entry in removed if "Group" in entry}
    return {}


def _may_share(world: World, call: Call, snapshot: Snapshot, added: list[dict[str, str]]) -> None:
    for entry in added:
        user = entry.get("UserId")
        if user is not None and not (user.isdigit() and len(user) == 12):
            raise bad_value(f"'{user}' is not an account")
    if added and snapshot.key and encryption.is_managed(snapshot.key):
        said = "Encrypted snapshots with EBS default key cannot be shared"
        raise AwsError("OperationNotPermitted", said)
    if any("Group" in entry for entry in added):
        if snapshot.key:
            raise AwsError("OperationNotPermitted", "Encrypted snapshots cannot be public")
        if world.accounts[call.account, call.region].block_snapshots != "unblocked":
            raise AwsError("OperationNotPermitted", "Block public access for snapshots is on")


def describe_snapshot_attribute(world: World, call: Call) -> dict[str, Any]:
    snapshot = found(world, call, call.params["SnapshotId"])
    permissions: list[dict[str, str]] = [{"UserId": user} for user in sorted(snapshot.users)]
    permissions += [{"Group": group} for group in sorted(snapshot.groups)]
    return {"SnapshotId": snapshot.id, "CreateVolumePermissions": permissions}


def reset_snapshot_attribute(world: World, call: Call) -> dict[str, Any]:
    snapshot = found(world, call, call.params["SnapshotId"])
    snapshot.users, snapshot.groups = set(), set()
    return {}


RULES = {
    "DescribeSnapshots": describe_snapshots,
    "DeleteSnapshot": delete_snapshot,
    "CreateSnapshot": create_snapshot,
    "CopySnapshot": copy_snapshot,
    "ModifySnapshotAttribute": modify_snapshot_attribute,
    "DescribeSnapshotAttribute": describe_snapshot_attribute,
    "ResetSnapshotAttribute": reset_snapshot_attribute,
}
