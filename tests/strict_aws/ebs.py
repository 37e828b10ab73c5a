"""EBS direct: snapshots written and read block by block."""

from __future__ import annotations

import base64
import hashlib
from datetime import timedelta
from typing import Any

from tests.strict_aws import encryption, tags
from tests.strict_aws.blocks import BLOCK, PER_GIB
from tests.strict_aws.errors import AwsError, invalid
from tests.strict_aws.wire import Call
from tests.strict_aws.world import Snapshot, World, new_id

MOST_GIB = 65_536
PAGE = 10_000
ABSENT = "The snapshot '{}' does not exist"


def start_snapshot(world: World, call: Call) -> dict[str, Any]:
    """The same ClientToken gives the same snapshot; with other parameters it is a conflict."""
    differs = AwsError("ConflictException", "The client token was used with other parameters before")
    scope = (call.account, call.region, "StartSnapshot")
    return world.once(scope, call.params.get("ClientToken"), call.params, lambda: _started(world, call), differs)


def _started(world: World, call: Call) -> dict[str, Any]:
    params = call.params
    if params["VolumeSize"] > MOST_GIB:
        raise invalid("INVALID_VOLUME_SIZE", f"The volume size is over {MOST_GIB} GiB")
    parent = _parent(world, call)
    given = {tag["Key"]: tag["Value"] for tag in params.get("Tags", [])}
    try:
        tags.check(given)
    except AwsError as error:
        raise invalid("INVALID_TAG", error.message) from error
    snapshot = Snapshot(
        id=new_id("snap"),
        owner=call.account,
        region=call.region,
        size_gib=params["VolumeSize"],
        start=world.now(),
        description=params.get("Description", ""),
        key=encryption.for_new_snapshot(world, call, parent),
        parent=parent.id if parent else None,
        inherited=parent.blocks() if parent else {},
        timeout=timedelta(minutes=params.get("Timeout", 60)),
    )
    snapshot.lineage = parent.lineage if parent else snapshot.id
    world.snapshots[snapshot.id] = snapshot
    tags.put(call, snapshot.id, given)
    shown = {
        "SnapshotId": snapshot.id,
        "OwnerId": snapshot.owner,
        "Status": "pending",
        "StartTime": snapshot.start,
        "VolumeSize": snapshot.size_gib,
        "BlockSize": BLOCK,
        "Tags": params.get("Tags", []),
        "Description": snapshot.description or None,
        "ParentSnapshotId": snapshot.parent,
        "KmsKeyArn": snapshot.key,
        "SseType": "sse-kms" if snapshot.key else None,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _parent(world: World, call: Call) -> Snapshot | None:
    """The parent, if one was named: own, completed, not larger."""
    name = call.params.get("ParentSnapshotId")
    if not name:
        return None
    parent = _readable(world, call, name)
    if parent.owner != call.account:
        raise AwsError("ResourceNotFoundException", ABSENT.format(name), Reason="SNAPSHOT_NOT_FOUND")
    if world.state_of(parent) != "completed":
        raise invalid("INVALID_SNAPSHOT_ID", f"The parent snapshot '{name}' is {world.state_of(parent)}, not completed")
    if parent.size_gib > call.params["VolumeSize"]:
        raise invalid("INVALID_VOLUME_SIZE", f"The volume size is less than that of the parent, {parent.size_gib} GiB")
    return parent


def put_snapshot_block(world: World, call: Call) -> dict[str, Any]:
    """One block of exactly 524,288 bytes whose SHA-256 is what was said, within the volume, while pending."""
    params, data = call.params, call.params["BlockData"]
    snapshot = _writable(world, call)
    if not 0 <= params["BlockIndex"] < snapshot.size_gib * PER_GIB:
        raise invalid("INVALID_PARAMETER_VALUE", f"Block index {params['BlockIndex']} lies beyond the volume")
    if params["DataLength"] != BLOCK or len(data) != BLOCK:
        raise invalid(
            "INVALID_BLOCK", f"A block has {BLOCK} bytes; DataLength {params['DataLength']}, {len(data)} came"
        )
    digest = hashlib.sha256(data).digest()
    if base64.b64encode(digest).decode() != params["Checksum"]:
        raise invalid("INVALID_PARAMETER_VALUE", "The checksum is not that of the data")
    world.blocks.put(data, digest)
    with world.lock:
        _writable(world, call).written[params["BlockIndex"]] = digest
        snapshot.touched = world.now()
    return {"Checksum": params["Checksum"], "ChecksumAlgorithm": "SHA256"}


def complete_snapshot(world: World, call: Call) -> dict[str, Any]:
    """Seals the snapshot when count and LINEAR checksum are those of the blocks written to it, inherited ones apart."""
    snapshot, params = _writable(world, call), call.params
    if params["ChangedBlocksCount"] != len(snapshot.written):
        said = f"ChangedBlocksCount is {params['ChangedBlocksCount']}, but {len(snapshot.written)} blocks were written"
        raise invalid("INVALID_PARAMETER_VALUE", said)
    named = [params.get(name) for name in ("Checksum", "ChecksumAlgorithm", "ChecksumAggregationMethod")]
    if any(named) and not all(named):
        said = "Checksum, ChecksumAlgorithm and ChecksumAggregationMethod go together"
        raise invalid("INVALID_PARAMETER_VALUE", said)
    if named[0] and named[0] != linear(snapshot):
        raise invalid("INVALID_PARAMETER_VALUE", "The aggregated checksum is not that of the blocks written")
    snapshot.document, snapshot.ready = True, world.ready_at()
    return {"Status": world.state_of(snapshot)}


def linear(snapshot: Snapshot) -> str:
    """base64(SHA256(digests of the written blocks, in order of their indexes))."""
    joined = b"".join(digest for _, digest in sorted(snapshot.written.items()))
    return base64.b64encode(hashlib.sha256(joined).digest()).decode()


def list_snapshot_blocks(world: World, call: Call) -> dict[str, Any]:
    """The blocks that hold data, inherited ones among them, page by page."""
    snapshot = _completed(world, call, call.params["SnapshotId"])
    page, more = _page(call, sorted(snapshot.blocks()))
    blocks = [{"BlockIndex": index, "BlockToken": token(snapshot, index)} for index in page]
    return {"Blocks": blocks, **_about(world, snapshot, more)}


def list_changed_blocks(world: World, call: Call) -> dict[str, Any]:
    """The blocks that differ between two snapshots of one lineage."""
    if not call.params.get("FirstSnapshotId"):
        raise invalid("INVALID_SNAPSHOT_ID", "FirstSnapshotId must be specified with SecondSnapshotId")
    first = _completed(world, call, call.params["FirstSnapshotId"])
    second = _completed(world, call, call.params["SecondSnapshotId"])
    if first.lineage != second.lineage:
        raise invalid("UNRELATED_SNAPSHOTS", "The snapshots are not of the same lineage")
    indexes = sorted({*first.blocks(), *second.blocks()})
    page, more = _page(call, [index for index in indexes if first.block(index) != second.block(index)])
    changed = [_changed(first, second, index) for index in page]
    return {"ChangedBlocks": changed, **_about(world, second, more)}


def _changed(first: Snapshot, second: Snapshot, index: int) -> dict[str, Any]:
    named = {"FirstBlockToken": first, "SecondBlockToken": second}
    tokens = {name: token(side, index) for name, side in named.items() if side.block(index)}
    return {"BlockIndex": index, **tokens}


def get_snapshot_block(world: World, call: Call) -> dict[str, Any]:
    """One block, against the token that a listing gave for it."""
    snapshot, index = _completed(world, call, call.params["SnapshotId"]), call.params["BlockIndex"]
    digest = snapshot.block(index)
    if digest is None or call.params["BlockToken"] != token(snapshot, index):
        raise invalid("INVALID_BLOCK_TOKEN", f"The block token is not that of block {index}")
    checksum = base64.b64encode(digest).decode()
    said = {"DataLength": BLOCK, "Checksum": checksum, "ChecksumAlgorithm": "SHA256"}
    return {"BlockData": world.blocks.get(digest), **said}


def token(snapshot: Snapshot, index: int) -> str:
    """The token of a block, valid for its snapshot, index and content alone."""
    said = f"{snapshot.id}/{index}/".encode() + (snapshot.block(index) or b"")
    return base64.b64encode(hashlib.sha256(said).digest()).decode()


def _about(world: World, snapshot: Snapshot, more: str | None) -> dict[str, Any]:
    about = {"ExpiryTime": world.now() + timedelta(days=7), "VolumeSize": snapshot.size_gib, "BlockSize": BLOCK}
    return {**about, "NextToken": more} if more else about


def _page(call: Call, indexes: list[int]) -> tuple[list[int], str | None]:
    """The part of `indexes` that was asked for, and the token of the next."""
    start = call.params.get("StartingBlockIndex", 0)
    if given := call.params.get("NextToken"):
        try:
            start = int(base64.b64decode(given))
        except ValueError:
            raise invalid("INVALID_PAGE_TOKEN", "The page token is not one of ours") from None
    rest = [index for index in indexes if index >= start]
    size = call.params.get("MaxResults", PAGE)
    more = base64.b64encode(str(rest[size]).encode()).decode() if len(rest) > size else None
    return rest[:size], more


def _readable(world: World, call: Call, name: str) -> Snapshot:
    """The snapshot, if it is in this region and the account owns it or has it shared."""
    snapshot = world.snapshots.get(name)
    if snapshot is None or snapshot.region != call.region or not encryption.may_read(snapshot, call.account):
        raise AwsError("ResourceNotFoundException", ABSENT.format(name), Reason="SNAPSHOT_NOT_FOUND")
    return snapshot


def _completed(world: World, call: Call, name: str) -> Snapshot:
    snapshot = _readable(world, call, name)
    if world.state_of(snapshot) != "completed":
        raise invalid("INVALID_SNAPSHOT_ID", f"The snapshot '{name}' is not completed")
    return snapshot


def _writable(world: World, call: Call) -> Snapshot:
    name = call.params["SnapshotId"]
    snapshot = _readable(world, call, name)
    if snapshot.owner != call.account:
        raise AwsError("AccessDeniedException", "Not the owner", Reason="UNAUTHORIZED_ACCOUNT")
    if snapshot.timeout is None or snapshot.document or world.state_of(snapshot) != "pending":
        raise invalid("INVALID_SNAPSHOT_ID", f"The snapshot '{name}' is not pending: it takes no more blocks")
    return snapshot


RULES = {
    "StartSnapshot": start_snapshot,
    "PutSnapshotBlock": put_snapshot_block,
    "CompleteSnapshot": complete_snapshot,
    "ListSnapshotBlocks": list_snapshot_blocks,
    "ListChangedBlocks": list_changed_blocks,
    "GetSnapshotBlock": get_snapshot_block,
}
