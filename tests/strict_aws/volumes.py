"""Volumes that know which snapshot they came from."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

from tests.strict_aws import encryption, snapshots, tags, types
from tests.strict_aws.errors import AwsError
from tests.strict_aws.wire import Answer, Call
from tests.strict_aws.world import Image, Place, World


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


def devices(image: Image, *asked: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What an instance of the image has at each device: the image's, then what was asked for, later lists first."""
    found: dict[str, dict[str, Any]] = {}
    for listed in (image.shown["BlockDeviceMappings"], *asked):
        for entry in listed:
            name = entry["DeviceName"]
            if "NoDevice" in entry:
                found.pop(name, None)
            elif "Ebs" in entry:
                found[name] = {**found.get(name, {}), **entry["Ebs"]}
    return found


def check(world: World, call: Call, wanted: dict[str, dict[str, Any]]) -> None:
    """Raise AwsError for a device whose snapshot cannot be used, or that is smaller than it, or has no size."""
    for name, ebs in wanted.items():
        size, source = int(ebs.get("VolumeSize", 0)), None
        if "SnapshotId" in ebs:
            source = world.snapshots.get(ebs["SnapshotId"]) or snapshots.found(
                world, call, ebs["SnapshotId"], own=False
            )
        if source is None and not size:
            raise AwsError("MissingParameter", f"The request must contain the size or the snapshot of {name}")
        if source is not None and size and size < source.size_gib:
            said = f"Volume of size {size}GB is smaller than snapshot '{source.id}', expect size >= {source.size_gib}GB"
            raise AwsError("InvalidBlockDeviceMapping", said)


def of_instance(world: World, backend: Any, instance: Any, image: Image, asked: list[list[dict[str, Any]]]) -> None:
    """Give an instance that moto just started, without any volume, those that its image and its request say."""
    shown = image.shown
    instance.root_device_name, instance.architecture = shown["RootDeviceName"], shown["Architecture"]
    instance.virtualization_type = shown["VirtualizationType"]
    types.equip(instance, shown)
    for name, ebs in devices(image, *asked).items():
        volume = made(world, backend, instance, ebs)
        if name == instance.root_device_name:
            volume.boots = instance.current_instance_boot_mode
        ends = ebs.get("DeleteOnTermination", name == instance.root_device_name)
        backend.attach_volume(volume.id, instance.id, name, str(ends).lower() == "true")


def made(world: World, backend: Any, instance: Any, ebs: dict[str, Any]) -> Any:
    """A volume for a device of an instance."""
    source = world.snapshots.get(ebs.get("SnapshotId", ""))
    key = encryption.for_volume(world, Place(backend.account_id, backend.region_name), ebs)
    volume = backend.create_volume(
        size=int(ebs.get("VolumeSize") or (source.size_gib if source else 0)),
        zone_name=instance.availability_zone,
        volume_type=ebs.get("VolumeType"),
        iops=int(ebs["Iops"]) if "Iops" in ebs else None,
        throughput=int(ebs["Throughput"]) if "Throughput" in ebs else None,
    )
    volume.snapshot_id, volume.encrypted, volume.kms_key_id = source.id if source else None, key is not None, key
    return volume


RULES = {"CreateVolume": create_volume}
