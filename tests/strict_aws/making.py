"""Snapshots and images for tests that need some to be there already, made as a client would make them."""

from __future__ import annotations

import hashlib
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.strict_aws.blocks import BLOCK
from tests.strict_aws.client import ACCOUNT, REGION, StrictAws


def filled(byte: int) -> bytes:
    """A block of nothing but this byte."""
    return bytes([byte]) * BLOCK


def checksum(data: bytes) -> str:
    return b64encode(hashlib.sha256(data).digest()).decode()


def put(ebs: Any, snapshot: str, index: int, data: bytes, **other: Any) -> Any:
    """Put one block; `other` members take the place of the right ones."""
    right = {"DataLength": len(data), "Checksum": checksum(data), "ChecksumAlgorithm": "SHA256"}
    return ebs.put_snapshot_block(**{"SnapshotId": snapshot, "BlockIndex": index, "BlockData": data, **right, **other})


def linear(blocks: Mapping[int, bytes]) -> dict[str, Any]:
    """What CompleteSnapshot takes for these blocks."""
    joined = b"".join(hashlib.sha256(blocks[index]).digest() for index in sorted(blocks))
    said = {"Checksum": checksum(joined), "ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
    return {"ChangedBlocksCount": len(blocks), **said}


def snapshot(aws: StrictAws, blocks: Mapping[int, bytes] | None = None, **how: Any) -> str:
    """A completed snapshot of 1 GiB with these blocks; `how`: region, account, and members of StartSnapshot."""
    place = {"region": how.pop("region", REGION), "account": how.pop("account", ACCOUNT)}
    ebs, held = aws.client("ebs", **place), blocks or {0: filled(1)}
    name = str(ebs.start_snapshot(**{"VolumeSize": 1, **how})["SnapshotId"])
    for index, data in held.items():
        put(ebs, name, index, data)
    ebs.complete_snapshot(SnapshotId=name, **linear(held))
    settled(aws.client("ec2", **place), snapshot=name)
    return name


def image(aws: StrictAws, name: str = "golden", **how: Any) -> str:
    """A registered image; `how`: region, account, snapshot (made if none), members of RegisterImage (None: none)."""
    place = {"region": how.pop("region", REGION), "account": how.pop("account", ACCOUNT)}
    source = how.pop("snapshot", None) or snapshot(aws, **place)
    asked = {key: value for key, value in {**registration(name, source), **how}.items() if value is not None}
    return str(aws.client("ec2", **place).register_image(**asked)["ImageId"])


def registration(name: str, source: str) -> dict[str, Any]:
    """What a modern image is registered with."""
    return {
        "Name": name,
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "BootMode": "uefi",
        "TpmSupport": "v2.0",
        "ImdsSupport": "v2.0",
        "EnaSupport": True,
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": source, "VolumeType": "gp3"}}],
    }


def settled(ec2: Any, *, snapshot: str = "", image: str = "") -> None:
    """Wait until it is no longer pending, for half a minute at most."""
    for _ in range(1500):
        shown = (
            ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
            if snapshot
            else ec2.describe_images(ImageIds=[image])["Images"]
        )
        if shown[0]["State"] != "pending":
            return
        time.sleep(0.02)
    raise TimeoutError(f"{snapshot or image} stays pending")


@contextmanager
def refused(code: str, reason: str = "", status: int = 400) -> Iterator[None]:
    """The block must end with this error of the service, with its modelled reason and HTTP status."""
    import pytest
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as caught:
        yield
    told = caught.value.response
    got = (told["Error"]["Code"], told.get("Reason", ""), told["ResponseMetadata"]["HTTPStatusCode"])
    assert got == (code, reason, status), caught.value
