"""What an account has switched on in a region (encryption by default, its key, Block Public Access); its roles."""

from __future__ import annotations

from typing import Any

from tests.strict_aws import encryption
from tests.strict_aws.errors import AwsError
from tests.strict_aws.wire import Call
from tests.strict_aws.world import Account, World


def _of(world: World, call: Call) -> Account:
    return world.accounts[call.account, call.region]


def get_encryption(world: World, call: Call) -> dict[str, Any]:
    on = _of(world, call).encrypt
    return {"EbsEncryptionByDefault": on, "SseType": "sse-kms"} if on else {"EbsEncryptionByDefault": on}


def enable_encryption(world: World, call: Call) -> dict[str, Any]:
    _of(world, call).encrypt = True
    return {"EbsEncryptionByDefault": True}


def disable_encryption(world: World, call: Call) -> dict[str, Any]:
    _of(world, call).encrypt = False
    return {"EbsEncryptionByDefault": False}


def get_key(world: World, call: Call) -> dict[str, Any]:
    """alias/aws/ebs until another key was set."""
    return {"KmsKeyId": _of(world, call).default_key or encryption.DEFAULT}


def modify_key(world: World, call: Call) -> dict[str, Any]:
    _of(world, call).default_key = encryption.resolve(call, call.params["KmsKeyId"])
    return {"KmsKeyId": _of(world, call).default_key}


def reset_key(world: World, call: Call) -> dict[str, Any]:
    _of(world, call).default_key = ""
    return {"KmsKeyId": str(encryption.managed_key(call.account, call.region).arn)}


def get_images_block(world: World, call: Call) -> dict[str, Any]:
    state = "block-new-sharing" if _of(world, call).block_images else "unblocked"
    return {"ImageBlockPublicAccessState": state, "ManagedBy": "account"}


def enable_images_block(world: World, call: Call) -> dict[str, Any]:
    _of(world, call).block_images = True
    return {"ImageBlockPublicAccessState": "block-new-sharing"}


def disable_images_block(world: World, call: Call) -> dict[str, Any]:
    _of(world, call).block_images = False
    return {"ImageBlockPublicAccessState": "unblocked"}


def get_snapshots_block(world: World, call: Call) -> dict[str, Any]:
    return {"State": _of(world, call).block_snapshots, "ManagedBy": "account"}


def enable_snapshots_block(world: World, call: Call) -> dict[str, Any]:
    if call.params["State"] == "unblocked":
        raise AwsError("InvalidParameterValue", "unblocked is not a state to enable")
    _of(world, call).block_snapshots = call.params["State"]
    return {"State": call.params["State"]}


def disable_snapshots_block(world: World, call: Call) -> dict[str, Any]:
    _of(world, call).block_snapshots = "unblocked"
    return {"State": "unblocked"}


def assume_role(world: World, call: Call) -> None:
    """moto's answer, to whoever says the ExternalId that the role's trust policy asks for."""
    role = call.params["RoleArn"]
    if world.external_ids.get(role) not in (None, call.params.get("ExternalId")):
        raise AwsError("AccessDenied", f"User is not authorized to perform: sts:AssumeRole on resource: {role}", 403)


ROLES = {"AssumeRole": assume_role}
RULES = {
    "GetEbsEncryptionByDefault": get_encryption,
    "EnableEbsEncryptionByDefault": enable_encryption,
    "DisableEbsEncryptionByDefault": disable_encryption,
    "GetEbsDefaultKmsKeyId": get_key,
    "ModifyEbsDefaultKmsKeyId": modify_key,
    "ResetEbsDefaultKmsKeyId": reset_key,
    "GetImageBlockPublicAccessState": get_images_block,
    "EnableImageBlockPublicAccess": enable_images_block,
    "DisableImageBlockPublicAccess": disable_images_block,
    "GetSnapshotBlockPublicAccessState": get_snapshots_block,
    "EnableSnapshotBlockPublicAccess": enable_snapshots_block,
    "DisableSnapshotBlockPublicAccess": disable_snapshots_block,
}
