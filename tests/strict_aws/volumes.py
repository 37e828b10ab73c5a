"""Volumes that know which snapshot they came from."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

from tests.strict_aws import encryption, snapshots, tags
from tests.strict_aws.errors import AwsError
from tests.strict_aws.wire import Answer, Call
from tests.strict_aws.world import Image, World


def create_volume(world: World, call: Call) -> Any:
    """From a completed snapshot that the caller may read, not smaller than it, once for a ClientToken."""
    differs = AwsError("IdempotentParameterMismatch", "The client token was used with other parameters before")
    scope = (call.account, call.region, "CreateVolume")
    return world.once(scope, call.params.get("ClientToken"), call.params, lambda: _created(world, call), differs)


def _created(world: World, call: Call) -> Any:
    params = call.params
    key = encryption.for_volume(world, call, params)
    if not (name := params.get("SnapshotId")):
        return call.forward() if key is None else _from_moto(call, {}, {"encrypted": True, "kms_key_id": key})
    source = snapshots.found(world, call, name, own=False)
    if world.state_of(source) != "completed":
        raise AwsError("IncorrectState", f"The snapshot {name} is {world.state_of(source)}")
    if params.get("Size", source.size_gib) < source.size_gib:
        raise AwsError("InvalidParameterValue", f"The size is less than that of {name}, {source.size_gib} GiB")
    size = {"Size": str(params.get("Size", source.size_gib))}
    return _from_moto(call, size, {"snapshot_id": name, "encrypted": key is not None, "kms_key_id": key})


def _from_moto(call: Call, form: dict[str, str], known: dict[str, Any]) -> Any:
    """moto's volume, made of what it understands, then told the rest."""
    kept = dict(parse_qsl(call.body.decode(), keep_blank_values=True))
    kept = {name: value for name, value in kept.items() if name not in {"SnapshotId", "Encrypted", "KmsKeyId"}}
    answer = call.forward(urlencode({**kept, **form}).encode())
    if answer.status >= 400:
        return answer
    shown = parsed(call, answer)
    volume = tags.backend(call.account, call.region).volumes[shown["VolumeId"]]
    for name, value in known.items():
        setattr(volume, name, value)
    more = {"SnapshotId": known.get("snapshot_id"), "Encrypted": known["encrypted"], "KmsKeyId": known["kms_key_id"]}
    return {**shown, **{name: value for name, value in more.items() if value is not None}}


def parsed(call: Call, answer: Answer) -> dict[str, Any]:
    """moto's answer in the shapes of the model."""
    from botocore.parsers import create_parser

    response = {"body": answer.body, "headers": dict(answer.headers), "status_code": answer.status}
    shown = create_parser(call.protocol).parse(response, call.model.output_shape)
    shown.pop("ResponseMetadata", None)
    return dict(shown)


def of_image(world: World, backend: Any, instance: Any, image: Image) -> None:
    """Give an instance that moto just started the root device and volume that its image says."""
    root = image.shown["RootDeviceName"]
    ebs = next(one["Ebs"] for one in image.shown["BlockDeviceMappings"] if one["DeviceName"] == root)
    mapping = instance.block_device_mapping
    if root not in mapping:  # moto made one of its own device name, 8 GiB of nothing
        mapping[root] = mapping.pop(instance.root_device_name)
    instance.root_device_name, instance.architecture = root, image.shown["Architecture"]
    instance.virtualization_type, instance.boot_mode = image.shown["VirtualizationType"], image.shown.get("BootMode")
    volume = backend.volumes[mapping[root].volume_id]
    source = world.snapshots[ebs["SnapshotId"]]
    volume.snapshot_id, volume.encrypted, volume.kms_key_id = source.id, source.key is not None, source.key
    volume.size = mapping[root].size = max(int(volume.size or 0) if volume.size != 8 else 0, ebs["VolumeSize"])
    volume.volume_type = ebs["VolumeType"]
    volume.attachment.device = root
    mapping[root].delete_on_termination = ebs.get("DeleteOnTermination", True)


RULES = {"CreateVolume": create_volume}
