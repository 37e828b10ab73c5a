"""Images registered: what they are given is kept, what does not fit is refused."""

from __future__ import annotations

import re
from typing import Any

from tests.strict_aws import images, snapshots, tags
from tests.strict_aws.errors import AwsError
from tests.strict_aws.wire import Call
from tests.strict_aws.world import Image, World, new_id

NAME = re.compile(r"[\w()\[\] ./\-'@]{3,128}")
KEPT = (
    "Description",
    "BootMode",
    "TpmSupport",
    "ImdsSupport",
    "EnaSupport",
    "SriovNetSupport",
    "KernelId",
    "RamdiskId",
)


def register_image(world: World, call: Call) -> dict[str, Any]:
    """An image of the caller's completed snapshots, under a name that is free."""
    params = call.params
    check_name(world, call)
    given = tags.specified(call, "image").get("image", {})
    _check_boot(params)
    image = Image(
        id=new_id("ami"),
        owner=call.account,
        region=call.region,
        name=params["Name"],
        created=world.now(),
        shown={
            **{name: params[name] for name in KEPT if name in params},
            "Architecture": params.get("Architecture", "i386"),
            "VirtualizationType": params.get("VirtualizationType", "paravirtual"),
            "RootDeviceName": params.get("RootDeviceName", "/dev/sda1"),
            "BlockDeviceMappings": _mappings(world, call),
        },
    )
    images.add(world, call, image, given)
    return {"ImageId": image.id}


def check_name(world: World, call: Call) -> None:
    """Raise AwsError where the name has wrong characters or an own image in this region has it, disabled ones too."""
    name = call.params["Name"]
    if not NAME.fullmatch(name):
        raise AwsError("InvalidAMIName.Malformed", f"AMI names are of letters, digits and ()[] ./-'@_ : {name}")
    for image in world.images.values():
        if (image.name, image.owner, image.region) == (name, call.account, call.region):
            said = f"AMI name {name} is already in use by AMI {image.id}"
            raise AwsError("InvalidAMIName.Duplicate", said)


def _check_boot(params: dict[str, Any]) -> None:
    uefi = params.get("BootMode") in {"uefi", "uefi-preferred"}
    if params.get("TpmSupport") and params.get("BootMode") != "uefi":
        raise AwsError("InvalidParameterCombination", "TpmSupport needs BootMode uefi")
    if (uefi or params.get("EnaSupport")) and params.get("VirtualizationType") != "hvm":
        raise AwsError("InvalidParameterCombination", "UEFI and ENA need VirtualizationType hvm")
    if params.get("Architecture") == "arm64" and params.get("BootMode") not in {None, "uefi"}:
        raise AwsError("InvalidParameterCombination", "arm64 boots by uefi alone")


def _mappings(world: World, call: Call) -> list[dict[str, Any]]:
    """The block devices as DescribeImages shows them. Raises AwsError where one cannot be."""
    given = call.params.get("BlockDeviceMappings", [])
    root = call.params.get("RootDeviceName", "/dev/sda1")
    names = [mapping.get("DeviceName") for mapping in given]
    if root not in names:
        raise AwsError("InvalidBlockDeviceMapping", f"There is no mapping for the root device {root}")
    if len(names) != len(set(names)):
        raise AwsError("InvalidBlockDeviceMapping", "A device is mapped twice")
    shown = [_mapping(world, call, mapping) for mapping in given]
    if "SnapshotId" not in shown[names.index(root)].get("Ebs", {}):
        raise AwsError("InvalidBlockDeviceMapping", "The root device has no snapshot")
    return shown


def _mapping(world: World, call: Call, mapping: dict[str, Any]) -> dict[str, Any]:
    ebs = mapping.get("Ebs")
    if ebs is None:
        return dict(mapping)
    if "Encrypted" in ebs or "KmsKeyId" in ebs:
        raise AwsError(
            "InvalidParameterCombination", "Encryption follows the snapshot: Encrypted and KmsKeyId go not here"
        )
    shown = {"DeleteOnTermination": True, "VolumeType": "gp2", "Encrypted": False, **ebs}
    if name := ebs.get("SnapshotId"):
        snapshot = snapshots.found(world, call, name)
        if world.state_of(snapshot) != "completed":
            raise AwsError("IncorrectState", f"The snapshot {name} is {world.state_of(snapshot)}, not completed")
        if ebs.get("VolumeSize", snapshot.size_gib) < snapshot.size_gib:
            raise AwsError("InvalidBlockDeviceMapping", f"Volume smaller than snapshot {name}: {snapshot.size_gib} GiB")
        shown = {**shown, "VolumeSize": ebs.get("VolumeSize", snapshot.size_gib), "Encrypted": snapshot.key is not None}
    if shown["VolumeType"] == "gp3":
        shown = {"Iops": 3000, "Throughput": 125, **shown}
    elif "Throughput" in shown:
        raise AwsError("InvalidParameterCombination", "Throughput is for gp3 alone")
    return {**mapping, "Ebs": shown}


RULES = {"RegisterImage": register_image}
