"""Attributes of images, launch permissions above all."""

from __future__ import annotations

import re
from typing import Any

from tests.strict_aws import encryption, images
from tests.strict_aws.errors import AwsError, bad_value
from tests.strict_aws.wire import Call
from tests.strict_aws.world import Image, World

FORMS = {
    "UserId": re.compile(r"\d{12}"),
    "Group": re.compile("all"),
    "OrganizationArn": re.compile(r"arn:aws[\w-]*:organizations::\d{12}:organization/o-[a-z0-9]{10,32}"),
    "OrganizationalUnitArn": re.compile(
        r"arn:aws[\w-]*:organizations::\d{12}:ou/o-[a-z0-9]{10,32}/ou-[a-z0-9]+-[a-z0-9]{8,32}"
    ),
}
FLAT = {
    "UserId": "UserIds",
    "Group": "UserGroups",
    "OrganizationArn": "OrganizationArns",
    "OrganizationalUnitArn": "OrganizationalUnitArns",
}
SHOWN = {"description": "Description", "bootMode": "BootMode", "tpmSupport": "TpmSupport", "imdsSupport": "ImdsSupport"}


def modify_image_attribute(world: World, call: Call) -> dict[str, Any]:
    """One attribute a call: description, ImdsSupport, or who may launch."""
    image, params = images.found(world, call, call.params["ImageId"]), call.params
    added, removed = _changes(params)
    if added or removed:
        _may_share(world, call, image, added)
        for entry in added:
            _valid(entry)
            if entry not in image.permissions:
                image.permissions.append(entry)
        image.permissions = [entry for entry in image.permissions if entry not in removed]
    elif "Description" in params or params.get("Attribute") == "description":
        image.shown["Description"] = params.get("Description", {}).get("Value") or params.get("Value", "")
    elif "ImdsSupport" in params:
        if params["ImdsSupport"].get("Value") != "v2.0":
            raise bad_value("ImdsSupport can only be set to v2.0, and not back")
        image.shown["ImdsSupport"] = "v2.0"
    else:
        raise AwsError("InvalidParameterCombination", "Nothing to modify")
    return {}


def _changes(params: dict[str, Any]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Permissions to add and to remove, whether given as LaunchPermission or flat with OperationType."""
    change = params.get("LaunchPermission", {})
    flat = [{kind: value} for kind, name in FLAT.items() for value in params.get(name, [])]
    if flat and params.get("OperationType") is None:
        raise AwsError("MissingParameter", "The request must contain the parameter OperationType")
    added = change.get("Add", []) + (flat if params.get("OperationType") == "add" else [])
    removed = change.get("Remove", []) + (flat if params.get("OperationType") == "remove" else [])
    return added, removed


def _valid(entry: dict[str, str]) -> None:
    for kind, value in entry.items():
        if not FORMS[kind].fullmatch(value):
            raise AwsError("InvalidAMIAttributeItemValue", f"'{value}' is no {kind}")


def _may_share(world: World, call: Call, image: Image, added: list[dict[str, str]]) -> None:
    """Raise AwsError where the image cannot be shared so: disabled, its key AWS's own, or public and blocked."""
    if not added:
        return
    for entry in added:
        _valid(entry)
    if image.disabled:
        raise AwsError("InvalidAMIID.Unavailable", f"The image {image.id} is disabled: it cannot be shared")
    keys = [key for key in (world.snapshots[name].key for name in image.snapshots()) if key]
    if any(encryption.is_managed(key) for key in keys):
        said = f"The image {image.id} has a snapshot encrypted with the default key, which cannot be shared"
        raise AwsError("OperationNotPermitted", said)
    if {"Group": "all"} in added:
        if keys:
            raise AwsError(
                "OperationNotPermitted", f"The image {image.id} has encrypted snapshots: it cannot be public"
            )
        if world.accounts[call.account, call.region].block_images:
            raise AwsError("OperationNotPermitted", "Block public access for AMIs is on")


def describe_image_attribute(world: World, call: Call) -> dict[str, Any]:
    """launchPermission, blockDeviceMapping, or one value. For the owner alone."""
    image, name = images.found(world, call, call.params["ImageId"]), call.params["Attribute"]
    if name == "launchPermission":
        return {"ImageId": image.id, "LaunchPermissions": image.permissions}
    if name == "blockDeviceMapping":
        return {"ImageId": image.id, "BlockDeviceMappings": image.shown["BlockDeviceMappings"]}
    if name not in SHOWN:
        raise bad_value(f"The emulator knows no {name}")
    value = image.shown.get(SHOWN[name])
    return {"ImageId": image.id, SHOWN[name]: {"Value": value} if value else {}}


def reset_image_attribute(world: World, call: Call) -> dict[str, Any]:
    images.found(world, call, call.params["ImageId"]).permissions = []
    return {}


RULES = {
    "ModifyImageAttribute": modify_image_attribute,
    "DescribeImageAttribute": describe_image_attribute,
    "ResetImageAttribute": reset_image_attribute,
}
