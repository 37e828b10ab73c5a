"""The arguments of AWS calls, as pure functions from our values to requests. Pure.

Rules that these hold, each from the service's own documentation of the operation:
StartSnapshot refuses `Encrypted` and `KmsKeyArn` beside `ParentSnapshotId`: the child is encrypted as its parent is.
RegisterImage takes no encryption of its own for a snapshot: it follows the snapshot's.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from images.aws.model import Ami, MachineImage, Parent, digests_at
from images.aws.tags import as_list
from images.machine.blocks import BLOCK

ROOT_DEVICE = "/dev/xvda"
ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}
IDLE_MINUTES = 120  # after so long without a block, the service itself gives a pending snapshot up


def start_snapshot(
    machine: MachineImage, token: str, tags: Mapping[str, str], *, parent: Parent | None, key: str
) -> dict[str, Any]:
    """A snapshot to write blocks into: on `parent`, else encrypted by `key`, else (no key) plain.

    Its description, which nobody can change later, holds the token: EC2 shows no snapshot's own.
    """
    request: dict[str, Any] = {
        "VolumeSize": machine.volume_gib,
        "ClientToken": token,
        "Description": f"{machine.name} {machine.linear} {token}",
        "Tags": as_list(tags),
        "Timeout": IDLE_MINUTES,
    }
    if parent:
        return {**request, "ParentSnapshotId": parent.snapshot}
    return {**request, "Encrypted": True, "KmsKeyArn": key} if key else request


def put_block(snapshot: str, index: int, data: bytes, digest: bytes) -> dict[str, Any]:
    """One block, with the digest that the service holds it to."""
    return {
        "SnapshotId": snapshot,
        "BlockIndex": index,
        "BlockData": data,
        "DataLength": BLOCK,
        "Checksum": b64encode(digest).decode(),
        "ChecksumAlgorithm": "SHA256",
    }


def complete_snapshot(snapshot: str, written: Sequence[int], digests: bytes) -> dict[str, Any]:
    """The end of a snapshot, bound to every block that was written: the digest of their digests in order."""
    return {
        "SnapshotId": snapshot,
        "ChangedBlocksCount": len(written),
        "Checksum": b64encode(sha256(digests_at(digests, written)).digest()).decode(),
        "ChecksumAlgorithm": "SHA256",
        "ChecksumAggregationMethod": "LINEAR",
    }


# How every image of ours starts: UEFI with a TPM, ENA, metadata by IMDSv2 only.
BOOT = {"BootMode": "uefi", "TpmSupport": "v2.0", "ImdsSupport": "v2.0", "EnaSupport": True}


def register_image(machine: MachineImage, name: str, snapshot: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """An image over a snapshot: UEFI with a TPM, ENA, metadata by IMDSv2 only, a gp3 root."""
    root = {"SnapshotId": snapshot, "VolumeType": "gp3", "DeleteOnTermination": True}
    return {
        "Name": name,
        "Description": f"{machine.name} {machine.linear}",
        "Architecture": ARCHITECTURES[machine.architecture],
        "VirtualizationType": "hvm",
        **BOOT,
        "RootDeviceName": ROOT_DEVICE,
        "BlockDeviceMappings": [{"DeviceName": ROOT_DEVICE, "Ebs": root}],
        "TagSpecifications": [_tagged("image", tags)],
    }


def copy_image(
    home: Ami, token: str, *, key: str, image: Mapping[str, str], snapshot: Mapping[str, str]
) -> dict[str, Any]:
    """The same image in another region, encrypted by that region's own `key`; tagged from the beginning."""
    request = {
        "Name": home.name,
        "SourceImageId": home.id,
        "SourceRegion": home.region,
        "ClientToken": token,
        "TagSpecifications": [_tagged("image", image), _tagged("snapshot", snapshot)],
    }
    return {**request, "Encrypted": True, "KmsKeyId": key} if key else request


def shared_with(accounts: Sequence[str], organizations: Sequence[str] = ()) -> list[dict[str, str]]:
    """Accounts and organisations as permissions name them. Never a group: that would be the public."""
    return [*({"UserId": account} for account in accounts), *map(_organization, organizations)]


def change_image(image: str, change: str, to: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """`Add` to who may launch an image, or `Remove` from it."""
    return {"ImageId": image, "Attribute": "launchPermission", "LaunchPermission": {change: list(to)}}


def change_snapshot(snapshot: str, change: str, to: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """`Add` to who may copy a snapshot, or `Remove` from it. Snapshots know no organisations."""
    asked = {"SnapshotId": snapshot, "Attribute": "createVolumePermission"}
    return {**asked, "CreateVolumePermission": {change: list(to)}}


def put_parameter(name: str, value: str, description: str, *, image: bool) -> dict[str, Any]:
    """A parameter. One that names an image is of the type that launch templates resolve and the service checks."""
    return {
        "Name": name,
        "Value": value,
        "Description": description,
        "Type": "String",
        "Overwrite": True,
        "DataType": "aws:ec2:image" if image else "text",
        "Tier": "Advanced" if len(value.encode()) > STANDARD_PARAMETER else "Standard",
    }


STANDARD_PARAMETER, LARGEST_PARAMETER = 4096, 8192  # bytes


def _organization(arn: str) -> dict[str, str]:
    return {"OrganizationalUnitArn" if ":ou/" in arn else "OrganizationArn": arn}


def _tagged(kind: str, tags: Mapping[str, str]) -> dict[str, Any]:
    return {"ResourceType": kind, "Tags": as_list(tags)}
