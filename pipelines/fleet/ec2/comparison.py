"""What of two EC2 instances, or of two root volumes, differs beyond the image. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.fleet.ec2.essence import RUNNING, SETTINGS, Hung, Json, Kept, Shown, persons_tags

KEY = "key of the root volume"
GP3 = {"Iops": 3000, "Throughput": 125}  # MiB/s


def differences(old: Shown, kept: Kept, new: Shown) -> tuple[str, ...]:
    """What differs beyond the image, one line each. What is on its way to the new one counts as its own."""
    was = {**traits(old), "public address": kept.public}
    return (*changed(was, traits(new)), *_missing(old, kept.hung, new))


def changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The values that differ, one line each; a root volume that was in the clear and is encrypted is none."""
    names = [name for name in was if was[name] != now[name] and not (name == KEY and was[name] is None)]
    return [f"{name}: {was[name]} → {now[name]}" for name in names]


def _missing(old: Shown, wanted: Hung, new: Shown) -> list[str]:
    """What hung on the old one and does not on the new; while the old one runs it may still be there."""
    has, had = new.hung(), old.hung() if old.state in RUNNING else Hung()
    lines = []
    for name, (device, _) in sorted(wanted.volumes.items()):
        if device not in {held.volumes[name][0] for held in (has, had) if name in held.volumes}:
            lines.append(f"the data volume {name} is not at {device}")
    for name, index in sorted(wanted.interfaces.items()):
        places = {(held.interfaces[name], held.cards.get(name, 0)) for held in (has, had) if name in held.interfaces}
        if (index, wanted.cards.get(name, 0)) not in places:
            lines.append(f"the network interface {name} is not its number {index}")
    lines += [f"the Elastic IP {name} is not its own" for name in wanted.addresses
              if name not in (*has.addresses, *had.addresses)]  # fmt: skip
    lines += [f"it is not registered in {one.group} at port {one.port}" for one in wanted.registrations
              if one not in (*has.registrations, *had.registrations)]  # fmt: skip
    more = sorted({*has.volumes, *has.interfaces} - {*wanted.volumes, *wanted.interfaces})
    return lines + [f"{name} hangs on it and did not before" for name in more]


def traits(shown: Shown) -> dict[str, Any]:
    """Everything that people chose and that a region can give twice, by what they call it."""
    instance, placement = shown.instance, shown.instance.get("Placement", {})
    metadata = instance.get("MetadataOptions", {})
    root = shown.volumes.get(shown.root, {})
    return {
        "instance type": instance.get("InstanceType"),
        "subnet": instance.get("SubnetId"),
        "security groups": sorted(one["GroupId"] for one in shown.primary.get("Groups", ())),
        "instance profile": instance.get("IamInstanceProfile", {}).get("Arn"),
        "key": instance.get("KeyName"),
        "user data": shown.attributes.get("userData"),
        "tags": persons_tags(instance.get("Tags")),
        "metadata options": {key: metadata.get(key) for key in SETTINGS},
        "placement": {key: placement.get(key) or None for key in ("AvailabilityZone", "Tenancy", "GroupName")},
        "EBS optimised": bool(instance.get("EbsOptimized")),
        "detailed monitoring": instance.get("Monitoring", {}).get("State") in ("enabled", "pending"),
        "source/destination check": shown.checked,
        "shutdown behaviour": shown.attributes.get("instanceInitiatedShutdownBehavior"),
        "CPU credits": shown.attributes.get("credits"),
        "public address": shown.public,
        "IPv6 addresses": len(shown.primary.get("Ipv6Addresses", ())),
        "type of the network interface": shown.primary.get("InterfaceType", "interface"),
        "root volume ends with it": shown.root_ends,
        **options(instance),
        **root_traits(root),
    }


def options(instance: Json) -> dict[str, Any]:
    """What people chose at the launch; the service's default where nothing is said."""
    reserved = instance.get("CapacityReservationSpecification", {})
    weight = instance.get("NetworkPerformanceOptions", {}).get("BandwidthWeighting")
    return {
        "CPU options": instance.get("CpuOptions"),
        "enclave": bool(instance.get("EnclaveOptions", {}).get("Enabled")),
        "hibernation": bool(instance.get("HibernationOptions", {}).get("Configured")),
        "capacity reservation": reserved.get("CapacityReservationTarget")
        or reserved.get("CapacityReservationPreference", "open"),
        "licences": sorted(one["LicenseConfigurationArn"] for one in instance.get("Licenses", ())),
        "recovery": instance.get("MaintenanceOptions", {}).get("AutoRecovery", "default"),
        "private DNS options": instance.get("PrivateDnsNameOptions"),
        "bandwidth weighting": weight or "default",
    }


def root_traits(volume: Json) -> dict[str, Any]:
    """What people chose of a root volume; a gp3 volume has its baseline where nothing is said."""
    least = GP3 if volume.get("VolumeType") == "gp3" else {}
    return {
        "root volume": {key: volume.get(key) or least.get(key) for key in ("Size", "VolumeType", "Iops", "Throughput")},
        "tags of the root volume": persons_tags(volume.get("Tags")),
        KEY: volume.get("KmsKeyId") if volume.get("Encrypted") else None,
    }
