"""What an instance starts with: interfaces and addresses that are free, a key that is there, protections, options."""

from __future__ import annotations

from typing import Any

from tests.strict_aws import tags
from tests.strict_aws.errors import AwsError
from tests.strict_aws.wire import Call

# What DescribeInstances shows where a launch says nothing of it, and how moto's instances call it.
OPTIONS: dict[str, Any] = {
    "CapacityReservationSpecification": {"CapacityReservationPreference": "open"},
    "CpuOptions": None,
    "EnclaveOptions": {"Enabled": False},
    "HibernationOptions": {"Configured": False},
    "LicenseSpecifications": [],
    "MaintenanceOptions": {"AutoRecovery": "default"},
    "NetworkPerformanceOptions": {"BandwidthWeighting": "default"},
    "PrivateDnsNameOptions": {"HostnameType": "ip-name", "EnableResourceNameDnsARecord": False},
}
MEMBERS = {
    "CapacityReservationSpecification": "capacity_reservation_specification",
    "CpuOptions": "cpu_options",
    "EnclaveOptions": "enclave_options",
    "HibernationOptions": "hibernation_options",
    "LicenseSpecifications": "licenses",
    "MaintenanceOptions": "maintenance_options",
    "NetworkPerformanceOptions": "network_performance_options",
    "PrivateDnsNameOptions": "private_dns_name_options",
}
TAGGABLE = ("instance", "volume", "network-interface", "spot-instances-request", "elastic-gpu")


def check(call: Call, data: dict[str, Any]) -> None:
    """Raise AwsError for a key, an interface or an address that cannot be had; `data` is the template's."""
    params, backend = call.params, tags.backend(call.account, call.region)
    tags.specified(call, *TAGGABLE)
    key = params.get("KeyName") or data.get("KeyName")
    if key and key not in backend.key_pairs:
        raise AwsError("InvalidKeyPair.NotFound", f"The key pair '{key}' does not exist")
    wanted = [(params.get("SubnetId"), params.get("PrivateIpAddress"))]
    for asked in params.get("NetworkInterfaces", []):
        if name := asked.get("NetworkInterfaceId"):
            free_interface(backend, name)
        wanted.append((asked.get("SubnetId"), asked.get("PrivateIpAddress")))
    for subnet, address in wanted:
        if address and taken(backend, subnet, address):
            raise AwsError("InvalidIPAddress.InUse", f"The IP address {address} is in use")


def interface(backend: Any, name: str) -> Any:
    """Raises AwsError where it is not there."""
    if name not in backend.enis:
        raise AwsError("InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID '{name}' does not exist")
    return backend.enis[name]


def free_interface(backend: Any, name: str) -> Any:
    """Raises AwsError where it is attached already."""
    found = interface(backend, name)
    if found.instance is not None:
        raise AwsError("InvalidNetworkInterface.InUse", f"Interface: [{name}] in use.")
    return found


def taken(backend: Any, subnet: str | None, address: str) -> bool:
    return any(
        held["PrivateIpAddress"] == address
        for nic in backend.enis.values()
        if subnet in (None, nic.subnet.id)
        for held in nic.private_ip_addresses
    )


def fit(backend: Any, instance: Any, params: dict[str, Any], data: dict[str, Any]) -> None:
    """Give the instance what moto does not read: of the request first, of the template otherwise."""
    from moto.ec2.models.instances import MetadataOptions

    asked = {**data, **params}
    instance.typed = bool(asked.get("InstanceType"))
    for name, usual in OPTIONS.items():
        setattr(instance, MEMBERS[name], asked.get(name, usual))
    instance.disable_api_termination = flag(asked.get("DisableApiTermination"))
    instance.disable_api_stop = flag(asked.get("DisableApiStop"))
    if options := asked.get("MetadataOptions"):
        instance.metadata_options = MetadataOptions(options)
    kept = {one.get("DeviceIndex", 0): one for one in params.get("NetworkInterfaces", [])}
    for index, nic in instance.nics.items():
        given = kept.get(index, {})
        nic.delete_on_termination = given.get("DeleteOnTermination", "NetworkInterfaceId" not in given)
        nic.interface_type = given.get("InterfaceType", nic.interface_type)
        nic.network_card_index = given.get("NetworkCardIndex", 0)
    instance.asked_devices = asked_devices(params, data)
    instance.asked_tags = [*data.get("TagSpecifications", []), *params.get("TagSpecifications", [])]
    if profile := data.get("IamInstanceProfile", {}) if "IamInstanceProfile" not in params else {}:
        named = {"iam_instance_profile_name": profile.get("Name"), "iam_instance_profile_arn": profile.get("Arn")}
        backend.associate_iam_instance_profile(instance.id, **named)


def flag(value: Any) -> bool:
    return str(value).lower() == "true"


def asked_devices(params: dict[str, Any], data: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The block devices of the template and of the request."""
    return [data.get("BlockDeviceMappings", []), params.get("BlockDeviceMappings", [])]


def tag(backend: Any, instance: Any) -> None:
    """Tags at creation for what came with the instance; the request's win over the template's."""
    made = {
        "volume": [one.volume_id for one in instance.block_device_mapping.values()],
        "network-interface": [nic.id for nic in instance.nics.values()],
        "instance": [instance.id],
    }
    for entry in getattr(instance, "asked_tags", []):
        for name in made.get(entry.get("ResourceType", ""), []):
            given = {one["Key"]: one.get("Value", "") for one in entry.get("Tags", [])}
            backend.tags[name].update(given)
