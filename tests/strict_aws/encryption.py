"""Which key a snapshot is encrypted with, and who may read it."""

from __future__ import annotations

from typing import Any

from tests.strict_aws.errors import AwsError, invalid
from tests.strict_aws.wire import Call
from tests.strict_aws.world import Snapshot, World

DEFAULT = "alias/aws/ebs"


def for_new_snapshot(world: World, call: Call, parent: Snapshot | None) -> str | None:
    """The key of a snapshot started by EBS direct: "Encryption outcomes for EBS direct APIs" in AWS's guide."""
    encrypted, key = call.params.get("Encrypted"), call.params.get("KmsKeyArn")
    by_default = world.accounts[call.account, call.region].encrypt
    if parent:
        if encrypted is not None or key:
            raise invalid("INVALID_PARAMETER_VALUE", "Encrypted and KmsKeyArn cannot go with ParentSnapshotId")
        if by_default and not parent.key:
            said = "An unencrypted parent cannot be used where encryption by default is on: copy it encrypted first"
            raise invalid("INVALID_PARAMETER_VALUE", said)
        return parent.key
    if encrypted is False and by_default:
        raise invalid("INVALID_PARAMETER_VALUE", "Encryption by default is on: no unencrypted snapshot can be made")
    if key and not encrypted and not by_default:
        raise invalid("INVALID_PARAMETER_VALUE", "KmsKeyArn needs Encrypted")
    if not encrypted and not by_default:
        return None
    try:
        return resolve(call, key) if key else default_key(world, call)
    except AwsError as error:
        raise invalid("INVALID_CUSTOMER_KEY", error.message) from error


def for_copy(world: World, call: Call, source_key: str | None) -> str | None:
    """The key of a copied snapshot: never unencrypted from encrypted, and no key follows into another region."""
    encrypted, key = call.params.get("Encrypted"), call.params.get("KmsKeyId")
    if key and not encrypted:
        raise AwsError("InvalidParameterDependency", "KmsKeyId needs Encrypted")
    if encrypted is False and source_key:
        raise AwsError("InvalidParameterCombination", "An encrypted snapshot cannot be copied to an unencrypted one")
    if not (encrypted or source_key or world.accounts[call.account, call.region].encrypt):
        return None
    return resolve(call, key) if key else default_key(world, call)


def for_volume(world: World, call: Call, asked: dict[str, Any]) -> str | None:
    """The key of a new volume: its snapshot's, else the one asked for, else the default where that is on."""
    source = world.snapshots.get(asked.get("SnapshotId", ""))
    if asked.get("KmsKeyId"):
        if not asked.get("Encrypted"):
            raise AwsError("InvalidParameterDependency", "KmsKeyId needs Encrypted")
        return resolve(call, asked["KmsKeyId"])
    if source and source.key:
        return source.key
    on = asked.get("Encrypted") or world.accounts[call.account, call.region].encrypt
    return default_key(world, call) if on else None


def default_key(world: World, call: Call) -> str:
    """The account's default key for EBS in the region: alias/aws/ebs unless another was set."""
    chosen = world.accounts[call.account, call.region].default_key
    return chosen or str(managed_key(call.account, call.region).arn)


def managed_key(account: str, region: str) -> Any:
    """AWS's own key for EBS, made at its first use."""
    key = _keys(account, region).describe_key(DEFAULT)
    key.key_manager = "AWS"
    return key


def is_managed(key: str) -> bool:
    """Whether this ARN is of a key that AWS manages and that therefore cannot be shared."""
    _, _, _, region, account, _ = key.split(":", 5)
    return key == managed_key(account, region).arn


def resolve(call: Call, named: str) -> str:
    """The ARN of an enabled symmetric key of this region, named by id, ARN or alias."""
    account, region = call.account, call.region
    if named.startswith("arn:"):
        _, _, _, region, account, _ = named.split(":", 5)
    if named.endswith(DEFAULT):
        return str(managed_key(account, region).arn)
    backend = _keys(account, region)
    try:
        key = backend.keys[backend.any_id_to_key_id(named)]
    except (KeyError, AttributeError, TypeError):
        raise AwsError("InvalidParameterValue", f"The KMS key {named} does not exist") from None
    if region != call.region:
        raise AwsError("InvalidParameterValue", f"The KMS key {named} is not in {call.region}")
    if key.key_state != "Enabled" or key.key_usage != "ENCRYPT_DECRYPT" or key.key_spec != "SYMMETRIC_DEFAULT":
        raise AwsError(
            "InvalidParameterValue", f"The KMS key {named} is {key.key_state}, {key.key_usage}, {key.key_spec}"
        )
    return str(key.arn)


def _keys(account: str, region: str) -> Any:
    from moto.kms.models import kms_backends

    return kms_backends[account][region]


def may_read(snapshot: Snapshot, account: str) -> bool:
    return account == snapshot.owner or account in snapshot.users or "all" in snapshot.groups
