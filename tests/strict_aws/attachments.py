"""Volumes, interfaces and Elastic addresses belong to one instance at a time; attaching and detaching take a while.

Multi-Attach volumes hang on several (EBS User Guide, "Attach an EBS volume to multiple EC2 instances").
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.strict_aws import launching, lifecycle, tags
from tests.strict_aws.errors import AwsError, bad_value
from tests.strict_aws.wire import Answer, Call
from tests.strict_aws.world import World


def volume_of(backend: Any, name: str) -> Any:
    if name not in backend.volumes:
        raise AwsError("InvalidVolume.NotFound", f"The volume '{name}' does not exist.")
    return backend.volumes[name]


def shown(attachment: Any) -> dict[str, Any]:
    """An attachment in the shape of VolumeAttachment."""
    return {
        "VolumeId": attachment.volume.id,
        "InstanceId": attachment.instance.id,
        "Device": attachment.device,
        "State": attachment.status,
        "AttachTime": attachment.attach_time,
    }


def attach_volume(world: World, call: Call) -> dict[str, Any]:
    """One that is free, in the instance's zone, at a device that is free."""
    params, backend = call.params, tags.backend(call.account, call.region)
    volume = volume_of(backend, params["VolumeId"])
    (instance,) = lifecycle.found(backend, params["InstanceId"])
    if volume.attachments and (not volume.multi_attach_enabled or on(volume, instance.id)):
        raise AwsError("VolumeInUse", f"{volume.id} is already attached to an instance")
    if instance.state not in {"running", "stopped"}:
        raise AwsError("IncorrectState", f"Instance '{instance.id}' is not 'running'.")
    if volume.zone.name != instance.availability_zone:
        raise AwsError("InvalidVolume.ZoneMismatch", f"The volume '{volume.id}' is not in the zone of {instance.id}")
    if params["Device"] in instance.block_device_mapping:
        raise bad_value(f"Invalid value '{params['Device']}' for unixDevice. The attachment point is already in use")
    first = volume.attachment
    attachment = backend.attach_volume(volume.id, instance.id, params["Device"])
    if first is not None:  # moto knows one
        volume.attachment, volume.further = first, [*further(volume), attachment]
    attachment.status = "attaching"
    world.after("attach", partial(attached, attachment))
    return shown(attachment)


def further(volume: Any) -> list[Any]:
    """The attachments of a Multi-Attach volume beside the first."""
    return list(getattr(volume, "further", []))


def on(volume: Any, instance: str) -> Any:
    """The attachment of a volume to an instance; None where it is not attached to it."""
    return next((one for one in volume.attachments if one.instance.id == instance), None)


def attached(attachment: Any) -> None:
    if attachment.status == "attaching":
        attachment.status = "attached"


def detach_volume(world: World, call: Call) -> dict[str, Any]:
    """From what it is attached to; never the root of an instance that is not stopped."""
    params, backend = call.params, tags.backend(call.account, call.region)
    volume = volume_of(backend, params["VolumeId"])
    if not volume.attachments:
        raise AwsError("IncorrectState", f"Volume '{volume.id}' is in the 'available' state.")
    if volume.multi_attach_enabled and "InstanceId" not in params:
        raise AwsError("MissingParameter", "An instance ID must be given for a Multi-Attach enabled volume")
    attachment = on(volume, params.get("InstanceId", "")) or volume.attachments[0]
    instance = attachment.instance
    real = {"InstanceId": instance.id, "Device": attachment.device}
    if any(params.get(name, value) != value for name, value in real.items()):
        raise AwsError("InvalidAttachment.NotFound", f"The volume '{volume.id}' is not attached to this instance so")
    if attachment.device == instance.root_device_name and instance.state != "stopped":
        raise AwsError("OperationNotPermitted", f"Unable to detach root volume '{volume.id}' from '{instance.id}'")
    if attachment.status != "detaching":
        attachment.status = "detaching"
        world.after("detach", partial(detached, backend, attachment))
    return shown(attachment)


def detached(backend: Any, attachment: Any) -> None:
    volume = attachment.volume
    if attachment not in volume.attachments:
        return
    left = [one for one in volume.attachments if one is not attachment]
    volume.attachment = attachment
    backend.detach_volume(volume.id, attachment.instance.id, attachment.device)
    volume.attachment, volume.further = (left[0] if left else None), left[1:]


def attach_interface(world: World, call: Call) -> Answer:
    """One that is free, at an index that is free, in the instance's zone."""
    params, backend = call.params, tags.backend(call.account, call.region)
    nic = launching.free_interface(backend, params["NetworkInterfaceId"])
    (instance,) = lifecycle.found(backend, params["InstanceId"])
    if instance.state not in {"running", "stopped"}:
        raise AwsError("IncorrectState", f"Instance '{instance.id}' is not 'running' or 'stopped'.")
    if nic.subnet.availability_zone != instance.availability_zone:
        raise bad_value(f"Interface {nic.id} is not in the availability zone of {instance.id}")
    if params["DeviceIndex"] in instance.nics:
        index = params["DeviceIndex"]
        raise bad_value(f"Instance '{instance.id}' already has an interface attached at device index '{index}'.")
    efa(nic, instance)
    answer = call.forward()
    nic.delete_on_termination, nic.network_card_index = False, params.get("NetworkCardIndex", 0)
    return answer


def efa(nic: Any, instance: Any) -> None:
    """Raise AwsError where an EFA comes to, or leaves, what is not stopped: EC2 User Guide, Elastic Fabric Adapter."""
    if nic.interface_type.startswith("efa") and instance.state != "stopped":
        raise AwsError("IncorrectState", f"Instance '{instance.id}' must be stopped to attach or detach {nic.id}.")


def detach_interface(world: World, call: Call) -> dict[str, Any]:
    """Never the primary one."""
    backend, name = tags.backend(call.account, call.region), call.params["AttachmentId"]
    nic = next((one for one in backend.enis.values() if one.attachment_id == name), None)
    if nic is None:
        raise AwsError("InvalidAttachmentID.NotFound", f"The attachment '{name}' does not exist")
    if nic.device_index == 0:
        raise AwsError("OperationNotPermitted", "The network interface at device index 0 cannot be detached.")
    efa(nic, nic.instance)
    nic.instance.detach_eni(nic)
    return {}


def delete_interface(world: World, call: Call) -> None:
    launching.free_interface(tags.backend(call.account, call.region), call.params["NetworkInterfaceId"])


def modify_interface(world: World, call: Call) -> Any:
    """DeleteOnTermination of an attachment, the source/destination check; all else is moto's."""
    nic = launching.interface(tags.backend(call.account, call.region), call.params["NetworkInterfaceId"])
    if "SourceDestCheck" in call.params:
        return checked(nic, call.params["SourceDestCheck"]["Value"])
    asked = call.params.get("Attachment")
    if asked is None:
        return None
    if nic.attachment_id is None or nic.attachment_id != asked.get("AttachmentId"):
        raise AwsError("InvalidAttachmentID.NotFound", f"The attachment '{asked.get('AttachmentId')}' does not exist")
    nic.delete_on_termination = asked.get("DeleteOnTermination", nic.delete_on_termination)
    return {}


def create_interface(world: World, call: Call) -> Answer:
    """Its addresses must be free in the subnet; it is of the type that was asked for."""
    params, backend = call.params, tags.backend(call.account, call.region)
    asked = [params.get("PrivateIpAddress"), *(one["PrivateIpAddress"] for one in params.get("PrivateIpAddresses", []))]
    for address in asked:
        if address and launching.taken(backend, params["SubnetId"], address):
            raise AwsError("InvalidIPAddress.InUse", f"The IP address {address} is in use")
    known = set(backend.enis)
    answer = call.forward()
    for name in set(backend.enis) - known:
        backend.enis[name].interface_type = params.get("InterfaceType", "interface")
    return answer


def associate(world: World, call: Call) -> dict[str, Any]:
    """The address moves, unless AllowReassociation is false; what had it has none, what had another lets go of it."""
    params, backend = call.params, tags.backend(call.account, call.region)
    address, nic = address_of(backend, params), wanted(backend, params)
    if address.eni is nic and address.association_id:
        return {"AssociationId": address.association_id}
    if address.eni is not None and not params.get("AllowReassociation", True):
        said = f"resource {address.allocation_id} is already associated with associate-id {address.association_id}"
        raise AwsError("Resource.AlreadyAssociated", said)
    if address.eni is not None:
        backend.disassociate_address(association_id=address.association_id)
    for other in backend.addresses:
        if other.eni is nic:
            other.eni = other.instance = other.association_id = None
    how = {"allocation_id": address.allocation_id, "reassociate": True}
    made = backend.associate_address(instance=nic.instance, eni=nic, **how)
    return {"AssociationId": made.association_id}


def address_of(backend: Any, params: dict[str, Any]) -> Any:
    name = params.get("AllocationId") or params.get("PublicIp")
    for address in backend.addresses:
        if name and name in {address.allocation_id, address.public_ip}:
            return address
    if "AllocationId" in params:
        raise AwsError("InvalidAllocationID.NotFound", f"The allocation ID '{name}' does not exist")
    raise AwsError("InvalidAddress.NotFound", f"Address '{name}' not found.")


def wanted(backend: Any, params: dict[str, Any]) -> Any:
    """The interface that gets the address: named, or the instance's primary one."""
    if name := params.get("NetworkInterfaceId"):
        return launching.interface(backend, name)
    if "InstanceId" not in params:
        raise AwsError("MissingParameter", "Either instance ID or network interface id must be specified")
    (instance,) = lifecycle.found(backend, params["InstanceId"])
    if instance.state not in {"running", "stopped", "stopping"}:
        said = f"The {instance.state} instance '{instance.id}' is not in a valid state for this operation."
        raise AwsError("InvalidInstanceID", said)
    one_interface(instance)
    return instance.nics[0]


def one_interface(instance: Any) -> None:
    """Raise AwsError where what is asked for an instance is meant for one of several interfaces."""
    if len(instance.nics) > 1:
        said = f"There are multiple interfaces attached to instance '{instance.id}'. Please specify an interface ID"
        raise AwsError("InvalidInstanceID", f"{said} for the operation instead.")


def modify_instance(world: World, call: Call) -> Any:
    """Security groups and the source/destination check belong to interfaces: of several, EC2 wants to know which.

    Source: the API reference of ModifyInstanceAttribute, which points to ModifyNetworkInterfaceAttribute for both.
    """
    (instance,) = lifecycle.found(tags.backend(call.account, call.region), call.params["InstanceId"])
    if {"Groups", "SourceDestCheck"} & call.params.keys():
        one_interface(instance)
    if "SourceDestCheck" in call.params:
        return checked(instance.nics[0], call.params["SourceDestCheck"]["Value"])
    return None


def checked(nic: Any, on: bool) -> dict[str, Any]:
    """The source/destination check is the interface's; DescribeInstances shows that of the primary one."""
    nic.source_dest_check = on
    if nic.instance is not None and nic.device_index == 0:
        nic.instance.source_dest_check = on
    return {}


def release(world: World, call: Call) -> None:
    """Not while it is associated."""
    address = address_of(tags.backend(call.account, call.region), call.params)
    if address.association_id:
        raise AwsError("InvalidIPAddress.InUse", f"Address {address.public_ip} is in use.")


RULES = {
    "AttachVolume": attach_volume,
    "DetachVolume": detach_volume,
    "CreateNetworkInterface": create_interface,
    "AttachNetworkInterface": attach_interface,
    "DetachNetworkInterface": detach_interface,
    "DeleteNetworkInterface": delete_interface,
    "ModifyInstanceAttribute": modify_instance,
    "ModifyNetworkInterfaceAttribute": modify_interface,
    "AssociateAddress": associate,
    "ReleaseAddress": release,
}
