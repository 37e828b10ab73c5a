"""What is asked of EC2 and its load balancers for a replacement, as pure functions from values to requests. Pure."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any

from hardening.foundation.hashing import digest_of
from images.aws.tags import as_list
from pipelines.fleet.ec2.instance_spec import (
    FIRST,
    SETTINGS,
    InstanceDescription,
    Json,
    Registration,
    ReplacementRecord,
    options,
    persons_tags,
)

PLACEMENT = ("AvailabilityZone", "Tenancy", "GroupName", "PartitionNumber", "HostId", "HostResourceGroupArn")
WITH_IOPS = ("gp3", "io1", "io2")


def token(rollout: str, member: str, action: str, tried: int = 0) -> str:
    """The ClientToken of an effect, by its domain key; `tried` counts what was made by it and is gone."""
    return digest_of([rollout, member, action, tried]).removeprefix("sha256:")


def is_launched(instance: Json, rollout: str, member: str, tries: int) -> bool:
    """Whether an instance was launched by one of the first `tries` tokens of a rollout for a member."""
    tokens = {token(rollout, member, "create", tried) for tried in range(tries + 1)}
    return instance.get("ClientToken") in tokens


def run_instances(
    old: InstanceDescription, kept: ReplacementRecord, image: Json, client_token: str, own: Mapping[str, str]
) -> Json:
    """One instance like `old` from another image. Metadata by IMDSv2 only, whatever the old one allowed."""
    instance = old.instance
    asked: Json = {
        "ImageId": image["ImageId"],
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": client_token,
        "InstanceType": instance["InstanceType"],
        "EbsOptimized": bool(instance.get("EbsOptimized")),
        "Monitoring": {"Enabled": instance.get("Monitoring", {}).get("State") in ("enabled", "pending")},
        "Placement": {key: value for key in PLACEMENT if (value := instance.get("Placement", {}).get(key))},
        "NetworkInterfaces": [_interface(old, kept)],
        "BlockDeviceMappings": [_root(old, image)],
        "MetadataOptions": _metadata(instance),
        "TagSpecifications": _tagged(old, own),
        "InstanceInitiatedShutdownBehavior": old.attributes.get("instanceInitiatedShutdownBehavior") or "stop",
    }
    if arn := instance.get("IamInstanceProfile", {}).get("Arn"):
        asked["IamInstanceProfile"] = {"Arn": arn}
    if instance.get("KeyName"):
        asked["KeyName"] = instance["KeyName"]
    if script := old.attributes.get("userData"):
        asked["UserData"] = b64decode(script)  # the client encodes it again
    if kind := old.attributes.get("credits"):
        asked["CreditSpecification"] = {"CpuCredits": kind}
    return {**asked, **_options(old)}


def _options(old: InstanceDescription) -> Json:
    """What the old one's launch chose beside the service's defaults. Some types refuse even to be told theirs."""
    instance, usual, cores = old.instance, options({}), old.type.get("VCpuInfo", {})
    chosen = options(instance)
    plain = {"CoreCount": cores.get("DefaultCores"), "ThreadsPerCore": cores.get("DefaultThreadsPerCore")}
    cpu = {key: value for key, value in instance.get("CpuOptions", {}).items() if value != "disabled"}
    target = instance.get("CapacityReservationSpecification", {}).get("CapacityReservationTarget")
    found = {
        "CPU options": ("CpuOptions", cpu),
        "enclave": ("EnclaveOptions", {"Enabled": True}),
        "hibernation": ("HibernationOptions", {"Configured": True}),
        "capacity reservation": ("CapacityReservationSpecification", {"CapacityReservationTarget": target} if target
                                 else {"CapacityReservationPreference": chosen["capacity reservation"]}),
        "licences": ("LicenseSpecifications", [{"LicenseConfigurationArn": arn} for arn in chosen["licences"]]),
        "recovery": ("MaintenanceOptions", {"AutoRecovery": chosen["recovery"]}),
        "private DNS options": ("PrivateDnsNameOptions", instance.get("PrivateDnsNameOptions")),
        "bandwidth weighting": ("NetworkPerformanceOptions", {"BandwidthWeighting": chosen["bandwidth weighting"]}),
    }  # fmt: skip
    differs = [name for name in found if chosen[name] != usual[name]]
    return {found[name][0]: found[name][1] for name in differs if name != "CPU options" or cpu != plain}


def _interface(old: InstanceDescription, kept: ReplacementRecord) -> Json:
    """The first interface: where the old one's is, reachable from outside where the old one was."""
    asked: Json = {
        "DeviceIndex": 0,
        "SubnetId": old.instance["SubnetId"],
        "Groups": sorted(one["GroupId"] for one in old.primary.get("Groups", ())),
        "DeleteOnTermination": True,
        "AssociatePublicIpAddress": kept.public,
    }
    newer = old.primary.get("Ipv6Addresses", ())
    if newer:
        asked["Ipv6AddressCount"] = len(newer)
    if any(one.get("IsPrimaryIpv6") for one in newer):
        asked["PrimaryIpv6"] = True
    kind = old.primary.get("InterfaceType", "interface")
    return asked if kind == "interface" else {**asked, "InterfaceType": kind}


def _root(old: InstanceDescription, image: Json) -> Json:
    """The root volume: as large and fast as the old one's, never smaller than the image; by the same key."""
    volume, device = old.volumes.get(old.root, {}), image["RootDeviceName"]
    least = next(one["Ebs"].get("VolumeSize", 0) for one in image["BlockDeviceMappings"] if one["DeviceName"] == device)
    kind = volume.get("VolumeType", "gp3")
    ebs: Json = {
        "VolumeSize": max(int(volume.get("Size", 0)), int(least)),
        "VolumeType": kind,
        "DeleteOnTermination": old.root_ends,
    }
    if volume.get("Encrypted"):
        ebs.update(Encrypted=True, KmsKeyId=volume["KmsKeyId"])
    if kind in WITH_IOPS and volume.get("Iops"):
        ebs["Iops"] = volume["Iops"]
    if kind == "gp3" and volume.get("Throughput"):
        ebs["Throughput"] = volume["Throughput"]
    return {"DeviceName": device, "Ebs": ebs}


def _metadata(instance: Json) -> Json:
    options = instance.get("MetadataOptions", {})
    return {**{key: options[key] for key in SETTINGS if key in options}, "HttpTokens": "required"}


def _tagged(old: InstanceDescription, own: Mapping[str, str]) -> list[Json]:
    """People's tags and ours, from the first moment."""
    root, first = old.volumes.get(old.root, {}), old.primary
    given = {
        "instance": persons_tags(old.instance.get("Tags")),
        "volume": persons_tags(root.get("Tags")),
        "network-interface": persons_tags(first.get("TagSet")),
    }
    return [{"ResourceType": kind, "Tags": as_list({**tags, **own})} for kind, tags in given.items()]


def replace_root(instance: str, source: Mapping[str, str], client_token: str, own: Mapping[str, str]) -> Json:
    """A new root volume from an image, or a volume that was there before; the present one stays, detached."""
    return {
        "InstanceId": instance,
        **source,
        "ClientToken": client_token,
        "DeleteReplacedRootVolume": False,
        "TagSpecifications": [{"ResourceType": "replace-root-volume-task", "Tags": as_list(own)}],
    }


def targets(instance: Json, places: Sequence[Registration]) -> list[Json]:
    """RegisterTargets or DeregisterTargets, one request for each target group."""
    groups: dict[str, list[Json]] = {}
    for place in places:
        names = {"": instance["InstanceId"], FIRST: instance.get("PrivateIpAddress", "")}
        groups.setdefault(place.group, []).append({"Id": names.get(place.address, place.address), "Port": place.port})
    return [{"TargetGroupArn": group, "Targets": chosen} for group, chosen in sorted(groups.items())]


def ends_with(instance: str, volumes: Mapping[str, tuple[str, bool]]) -> dict[str, Any]:
    """Whether each data volume ends with the instance, as it was with the old one."""
    devices = [{"DeviceName": device, "Ebs": {"DeleteOnTermination": ends}} for device, ends in volumes.values()]
    return {"InstanceId": instance, "BlockDeviceMappings": devices}
