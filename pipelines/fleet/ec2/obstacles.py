"""Why an EC2 instance cannot be replaced, or not by that image, before anything is touched. Pure.

Sources: the EC2 User Guide, "Replace the root volume for an Amazon EC2 instance without stopping it", "Instance launch
behavior with Amazon EC2 boot modes", "Instance store temporary block storage", "Elastic Fabric Adapter".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from pipelines.fleet.ec2.instance_spec import FIRST, TAGS_AT_MOST, InstanceDescription, Json, ReplacementRecord
from pipelines.fleet.model import Ec2, ReplacementStrategy

CARDS = ("interface", "efa", "efa-only")
INSTEAD = 'set ec2.way = "root_volume"'
ANEW = 'set ec2.way = "instance"'


def forced_in_place(shown: InstanceDescription, way: ReplacementStrategy) -> tuple[str, ...]:
    """What of an instance cannot exist twice; an Elastic IP moves between running instances and forces nothing."""
    if way is ReplacementStrategy.ROOT_VOLUME:
        return ("its root volume is replaced in place, which reboots it",)
    hung = shown.hung()
    volumes = [f"the data volume {name} at {device}" for name, (device, _) in sorted(hung.volumes.items())]
    reserved = shown.instance.get("CapacityReservationSpecification", {}).get("CapacityReservationTarget", {})
    places = [f"the place in the capacity reservation {name}" for name in sorted(reserved.values())]
    return (*volumes, *(f"the network interface {name}" for name in sorted(hung.interfaces)), *places)


def cannot_roll(shown: InstanceDescription, how: Ec2, image: Json) -> str:
    """Why an instance cannot be replaced at all; empty when it can. `image`: what is known of the one that comes."""
    return next(_obstacles(shown, how), "") or unfit(shown, image, how.way)


def _obstacles(shown: InstanceDescription, how: Ec2) -> Iterator[str]:
    instance = shown.instance
    if instance.get("RootDeviceType", "ebs") != "ebs":
        yield "its root device is an instance store, which does not outlive a stop"
    if instance.get("Operator", {}).get("Managed"):
        yield f"{instance['Operator'].get('Principal', 'a service')} manages it"
    if shown.classic:
        yield (
            f"it is registered in the Classic Load Balancer {', '.join(shown.classic)}, which does not report when the "
            "requests of a member have ended: register it in a target group instead"
        )
    if abroad := [one for one in shown.registrations if one.network]:
        groups = ", ".join(f"{one.group.split(':')[-1]} ({one.network})" for one in abroad)
        yield (
            f"its address is registered in a target group of another network, {groups}, where nothing tells it from "
            "another machine of that address: register it in a target group of its own network instead"
        )
    if how.way is ReplacementStrategy.INSTANCE:
        yield from _not_carried(shown, how)


def _not_carried(shown: InstanceDescription, how: Ec2) -> Iterator[str]:
    """What a new instance would not have, or what a stop would take from the old one that is kept."""
    instance = shown.instance
    if instance.get("InstanceLifecycle"):
        yield f"it is a {instance['InstanceLifecycle']} instance, which cannot be kept stopped"
    if shown.type.get("InstanceStorageSupported"):
        yield f"{instance['InstanceType']} has an instance store, whose data does not outlive a stop: {INSTEAD}"
    if address := _kept_address(shown, how):
        yield (
            f"the private address {address} belongs to its first interface, which cannot leave it while it is kept: "
            f"{INSTEAD}"
        )
    if shown.primary.get("InterfaceType", CARDS[0]) not in CARDS:
        yield f"its first network interface is of the type {shown.primary['InterfaceType']}: {INSTEAD}"
    for one in shown.further:
        if one.get("InterfaceType", CARDS[0]) != CARDS[0]:
            kind = f"the network interface {one['NetworkInterfaceId']} is of the type {one['InterfaceType']}"
            yield f"{kind}, which a running instance does not take: {INSTEAD}"
    if instance.get("MaintenanceOptions", {}).get("RebootMigration") == "disabled":
        yield f"its maintenance option RebootMigration is disabled, which a launch cannot ask for: {INSTEAD}"
    taken = len(shown.tags) + len(ReplacementRecord("", "", "", False, shown.hung()).tags())
    if taken > TAGS_AT_MOST:
        yield f"it has no room for the tags that a replacement needs: {taken} of 50"


def _kept_address(shown: InstanceDescription, how: Ec2) -> str:
    """A private address of the first interface that is part of the member; empty where there is none.

    An interface that outlives its instance was made by a person, for its address. So were prefixes, and addresses that
    are registered in a target group beside the first.
    """
    primary = shown.primary
    further = [one["PrivateIpAddress"] for one in primary.get("PrivateIpAddresses", ()) if not one.get("Primary")]
    further += [one["Ipv4Prefix"] for one in primary.get("Ipv4Prefixes", ())]
    further += [one["Ipv6Prefix"] for one in primary.get("Ipv6Prefixes", ())]
    made = how.keep_address or primary.get("Attachment", {}).get("DeleteOnTermination") is False
    own = [str(primary.get("PrivateIpAddress", ""))] if made else []
    newer = [one["Ipv6Address"] for one in primary.get("Ipv6Addresses", ())]
    registered = {one.address for one in shown.registrations} - {"", FIRST}
    found = [*own, *further, *(one for one in newer if made or one in registered)]
    return ", ".join(one for one in found if one)


def unfit(shown: InstanceDescription, image: Json, way: ReplacementStrategy) -> str:
    """Why an image cannot be an instance's, or could not be taken back; empty where it can. What is unknown fits."""
    further = _no_way_back(shown, image) if way is ReplacementStrategy.ROOT_VOLUME else ()
    return next(chain(_unsupported(shown, image), further), "")


def _unsupported(shown: InstanceDescription, image: Json) -> Iterator[str]:
    """What the instance's type does not support."""
    kind, name = shown.type, shown.instance.get("InstanceType")
    if not kind:
        return
    runs = kind.get("ProcessorInfo", {}).get("SupportedArchitectures", ())
    if image.get("Architecture", *runs[:1]) not in runs:
        yield f"{name} is of {', '.join(runs)}, and the image of {image['Architecture']}"
    if (mode := boots(image, kind)) not in kind.get("SupportedBootModes", (mode,)):
        yield f"{name} does not boot by {mode}, as the image does: take another instance type"
    if image.get("TpmSupport") and kind.get("NitroTpmSupport", "supported") != "supported":
        yield f"{name} has no NitroTPM, which the image requires: use another instance type"
    if kind.get("NetworkInfo", {}).get("EnaSupport") == "required" and image.get("EnaSupport") is False:
        yield f"{name} needs ENA, which the image does not support"


def _no_way_back(shown: InstanceDescription, image: Json) -> Iterator[str]:
    """What EC2 refuses of a new root volume, or would not undo when the old one comes back."""
    instance, kind = shown.instance, shown.type
    if kind.get("BareMetal") and not str(instance["InstanceType"]).startswith("mac"):
        yield f"EC2 does not replace the root volume of bare metal ({instance['InstanceType']}): {ANEW}"
    if codes := [one["ProductCodeId"] for one in instance.get("ProductCodes", ())]:
        yield f"it has the product code {', '.join(codes)}, and the image has not: {ANEW}"
    if image.get("Architecture", instance.get("Architecture")) != instance.get("Architecture"):
        yield f"it is of {instance['Architecture']}, and the image of {image['Architecture']}"
    now, then = instance.get("CurrentInstanceBootMode") or boots(instance, kind), boots(image, kind)
    if now != then:
        yield f"it boots by {now} and the image by {then}, which would stay when its old disk comes back: {ANEW}"
    if instance.get("EnaSupport") and image.get("EnaSupport") is False:
        yield f"it has ENA switched on, which the image does not support: {ANEW}"
    if not instance.get("EnaSupport") and image.get("EnaSupport"):
        yield f"the image would switch ENA on, which would stay when its old disk comes back: {ANEW}"
    if instance.get("TpmSupport") and image.get("TpmSupport", "") is None:
        yield f"it has a NitroTPM, which the image does not support: {ANEW}"
    root = shown.volumes.get(shown.root, {})
    if root.get("Encrypted") is False and image.get("Encrypted"):
        yield f"its root volume is not encrypted, and cannot take the place of one that is: {ANEW}"


def essentials(image: Json) -> Json:
    """What of an image as its region shows it decides whether it fits; what it does not name it does not support."""
    name = image["RootDeviceName"]
    root = [one["Ebs"] for one in image["BlockDeviceMappings"] if one["DeviceName"] == name and "Ebs" in one]
    return {
        "Architecture": image["Architecture"],
        "BootMode": image.get("BootMode"),
        "TpmSupport": image.get("TpmSupport"),
        "EnaSupport": bool(image.get("EnaSupport")),
        "Encrypted": any(one.get("Encrypted") for one in root),
    }


def boots(image: Json, kind: Mapping[str, Any]) -> str:
    """How an instance of a type boots from an image: uefi-preferred falls back, nothing said is the type's own."""
    said = image.get("BootMode")
    if said == "uefi-preferred":
        return "uefi" if "uefi" in kind.get("SupportedBootModes", ("uefi",)) else "legacy-bios"
    return str(said or ("uefi" if image.get("Architecture") == "arm64" else "legacy-bios"))


def lost_by_stop(shown: InstanceDescription) -> list[str]:
    """What a stop and a start would take from an instance, or what keeps it from stopping."""
    found = []
    if shown.instance.get("InstanceLifecycle"):
        found.append(f"it as a {shown.instance['InstanceLifecycle']} instance")
    if shown.type.get("InstanceStorageSupported"):
        found.append("the data of its instance store")
    if shown.public and not shown.attributes.get("addresses"):
        found.append(f"its public address {shown.instance['PublicIpAddress']}")
    return found
