"""What hangs on the emulator's instances: volumes, interfaces, addresses, and registrations as targets."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from tests.strict_aws import REGION, Fault, StrictAws
from tests.strict_aws.making import image, refused

ZONE = f"{REGION}a"


@pytest.fixture
def ec2(aws: StrictAws) -> Any:
    """Everything takes ten seconds of the emulator's clock."""
    aws.takes(launch=10, stop=10, terminate=10, check=10, attach=10, detach=10, target=10)
    return aws.client("ec2")


def running(aws: StrictAws, ec2: Any, count: int = 1, **how: Any) -> list[str]:
    found = [name for name, one in aws.images().items() if one["name"] == "golden"]
    asked = {"ImageId": (found or [image(aws)])[0], "MinCount": count, "MaxCount": count, **how}
    started = ec2.run_instances(**asked)["Instances"]
    aws.freeze()
    aws.advance(10)
    return [str(one["InstanceId"]) for one in started]


def subnet(ec2: Any, zone: str = ZONE) -> str:
    found = ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": [zone]}])["Subnets"]
    return str(found[0]["SubnetId"])


def end(aws: StrictAws, ec2: Any, number: str) -> None:
    ec2.terminate_instances(InstanceIds=[number])
    aws.advance(10)


def instance(ec2: Any, number: str) -> dict[str, Any]:
    return dict(ec2.describe_instances(InstanceIds=[number])["Reservations"][0]["Instances"][0])


def states(ec2: Any, volume: str) -> tuple[str, list[str]]:
    shown = ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]
    return shown["State"], [one["State"] for one in shown["Attachments"]]


def test_a_volume_is_attached_to_one_instance_at_a_time(aws: StrictAws, ec2: Any) -> None:
    """attaching, attached, detaching, available; a second attachment waits for the end of the first."""
    first, second = running(aws, ec2, 2, Placement={"AvailabilityZone": ZONE})
    volume = ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
    told = ec2.attach_volume(VolumeId=volume, InstanceId=first, Device="/dev/sdf")
    assert (told["State"], states(ec2, volume)) == ("attaching", ("in-use", ["attaching"]))
    aws.advance(10)
    assert states(ec2, volume) == ("in-use", ["attached"])
    with refused("VolumeInUse"):
        ec2.attach_volume(VolumeId=volume, InstanceId=second, Device="/dev/sdf")
    with refused("InvalidAttachment.NotFound"):
        ec2.detach_volume(VolumeId=volume, InstanceId=second)
    assert ec2.detach_volume(VolumeId=volume, InstanceId=first)["State"] == "detaching"
    with refused("VolumeInUse"):
        ec2.attach_volume(VolumeId=volume, InstanceId=second, Device="/dev/sdf")
    aws.advance(10)
    assert states(ec2, volume) == ("available", [])
    with refused("IncorrectState"):
        ec2.detach_volume(VolumeId=volume)
    ec2.attach_volume(VolumeId=volume, InstanceId=second, Device="/dev/sdf")


def test_a_volume_fits_zone_device_and_state(aws: StrictAws, ec2: Any) -> None:
    """Another zone, a device in use, and an instance that is pending are refused."""
    (number,) = running(aws, ec2, Placement={"AvailabilityZone": ZONE})
    away = ec2.create_volume(AvailabilityZone=f"{REGION}b", Size=1)["VolumeId"]
    near = ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
    with refused("InvalidVolume.ZoneMismatch"):
        ec2.attach_volume(VolumeId=away, InstanceId=number, Device="/dev/sdf")
    with refused("InvalidParameterValue"):
        ec2.attach_volume(VolumeId=near, InstanceId=number, Device="/dev/xvda")
    started = ec2.run_instances(ImageId=instance(ec2, number)["ImageId"], MinCount=1, MaxCount=1)["Instances"][0]
    with refused("IncorrectState"):
        ec2.attach_volume(VolumeId=near, InstanceId=started["InstanceId"], Device="/dev/sdf")


def test_a_multi_attach_volume_hangs_on_several(aws: StrictAws, ec2: Any) -> None:
    """EBS User Guide, "Attach an EBS volume to multiple EC2 instances"; API reference of DetachVolume: which one."""
    first, second = running(aws, ec2, 2, Placement={"AvailabilityZone": ZONE})
    how = {"AvailabilityZone": ZONE, "Size": 4, "VolumeType": "io2", "Iops": 100, "MultiAttachEnabled": True}
    volume = ec2.create_volume(**how)["VolumeId"]
    for number in (first, second):
        ec2.attach_volume(VolumeId=volume, InstanceId=number, Device="/dev/sdf")
    aws.advance(10)
    assert states(ec2, volume) == ("in-use", ["attached", "attached"])
    for number in (first, second):
        (found,) = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [number]},
                                                 {"Name": "size", "Values": ["4"]}])["Volumes"]  # fmt: skip
        assert [one["InstanceId"] for one in found["Attachments"]] == [first, second]
    with refused("VolumeInUse"):
        ec2.attach_volume(VolumeId=volume, InstanceId=first, Device="/dev/sdg")
    with refused("MissingParameter"):
        ec2.detach_volume(VolumeId=volume)
    ec2.detach_volume(VolumeId=volume, InstanceId=first)
    aws.advance(10)
    (left,) = ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Attachments"]
    assert (left["InstanceId"], len(instance(ec2, first)["BlockDeviceMappings"])) == (second, 1)


def test_of_several_interfaces_one_must_be_named(aws: StrictAws, ec2: Any) -> None:
    """API reference of ModifyInstanceAttribute and AssociateAddress; the check is that of the primary interface."""
    (number,) = running(aws, ec2, SubnetId=subnet(ec2))
    ec2.modify_instance_attribute(InstanceId=number, SourceDestCheck={"Value": False})
    assert instance(ec2, number)["SourceDestCheck"] is False
    nic = ec2.create_network_interface(SubnetId=subnet(ec2))["NetworkInterface"]["NetworkInterfaceId"]
    ec2.attach_network_interface(NetworkInterfaceId=nic, InstanceId=number, DeviceIndex=1)
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    with refused("InvalidInstanceID"):
        ec2.modify_instance_attribute(InstanceId=number, SourceDestCheck={"Value": True})
    with refused("InvalidInstanceID"):
        ec2.modify_instance_attribute(InstanceId=number, Groups=["sg-1"])
    with refused("InvalidInstanceID"):
        ec2.associate_address(AllocationId=address, InstanceId=number)
    primary = instance(ec2, number)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    ec2.associate_address(AllocationId=address, NetworkInterfaceId=primary)
    ec2.modify_network_interface_attribute(NetworkInterfaceId=primary, SourceDestCheck={"Value": True})
    assert instance(ec2, number)["SourceDestCheck"] is True


def test_an_efa_comes_to_a_stopped_instance_only(aws: StrictAws, ec2: Any) -> None:
    """EC2 User Guide, "Elastic Fabric Adapter": attached and detached while it is stopped; its card is kept."""
    (number,) = running(aws, ec2, SubnetId=subnet(ec2))
    made = ec2.create_network_interface(SubnetId=subnet(ec2), InterfaceType="efa")["NetworkInterface"]
    asked = {"NetworkInterfaceId": made["NetworkInterfaceId"], "InstanceId": number, "DeviceIndex": 1}
    with refused("IncorrectState"):
        ec2.attach_network_interface(**asked)
    ec2.stop_instances(InstanceIds=[number])
    aws.advance(10)
    ec2.attach_network_interface(**asked, NetworkCardIndex=1)
    attached = instance(ec2, number)["NetworkInterfaces"][1]
    assert (attached["InterfaceType"], attached["Attachment"]["NetworkCardIndex"]) == ("efa", 1)


def test_the_root_volume_leaves_a_stopped_instance_only(aws: StrictAws, ec2: Any) -> None:
    """And without it the instance does not start."""
    (number,) = running(aws, ec2)
    root = instance(ec2, number)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    with refused("OperationNotPermitted"):
        ec2.detach_volume(VolumeId=root)
    ec2.stop_instances(InstanceIds=[number])
    aws.advance(10)
    ec2.detach_volume(VolumeId=root)
    aws.advance(10)
    with refused("IncorrectState"):
        ec2.start_instances(InstanceIds=[number])


def test_an_attached_volume_outlives_the_instance(aws: StrictAws, ec2: Any) -> None:
    """DeleteOnTermination is off for what was attached later, until it is switched on."""
    kept, gone = running(aws, ec2, 2, Placement={"AvailabilityZone": ZONE})
    volumes = [ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"] for _ in range(2)]
    for number, volume in zip((kept, gone), volumes, strict=True):
        ec2.attach_volume(VolumeId=volume, InstanceId=number, Device="/dev/sdf")
    mapping = [{"DeviceName": "/dev/sdf", "Ebs": {"DeleteOnTermination": True}}]
    ec2.modify_instance_attribute(InstanceId=gone, BlockDeviceMappings=mapping)
    end(aws, ec2, kept)
    end(aws, ec2, gone)
    assert [one["VolumeId"] for one in ec2.describe_volumes()["Volumes"]] == volumes[:1]


def test_an_interface_is_attached_once(aws: StrictAws, ec2: Any) -> None:
    """Neither a launch nor an attachment gets one that is in use; it outlives the instance it was given to."""
    nic = ec2.create_network_interface(SubnetId=subnet(ec2))["NetworkInterface"]
    given = [{"DeviceIndex": 0, "NetworkInterfaceId": nic["NetworkInterfaceId"]}]
    (number,) = running(aws, ec2, NetworkInterfaces=given)
    assert instance(ec2, number)["PrivateIpAddress"] == nic["PrivateIpAddress"]
    (other,) = running(aws, ec2, SubnetId=subnet(ec2))
    with refused("InvalidNetworkInterface.InUse"):
        running(aws, ec2, NetworkInterfaces=given)
    with refused("InvalidNetworkInterface.InUse"):
        ec2.attach_network_interface(NetworkInterfaceId=nic["NetworkInterfaceId"], InstanceId=other, DeviceIndex=1)
    with refused("InvalidNetworkInterface.InUse"):
        ec2.delete_network_interface(NetworkInterfaceId=nic["NetworkInterfaceId"])
    end(aws, ec2, number)
    shown = ec2.describe_network_interfaces(NetworkInterfaceIds=[nic["NetworkInterfaceId"]])["NetworkInterfaces"][0]
    assert (shown["Status"], shown.get("Attachment")) == ("available", None)
    (again,) = running(aws, ec2, NetworkInterfaces=given)
    assert instance(ec2, again)["PrivateIpAddress"] == nic["PrivateIpAddress"]


def test_a_second_interface_moves(aws: StrictAws, ec2: Any) -> None:
    """It goes to a free index only, leaves by its attachment, and the primary one never leaves."""
    first, second = running(aws, ec2, 2, SubnetId=subnet(ec2))
    nic = ec2.create_network_interface(SubnetId=subnet(ec2))["NetworkInterface"]["NetworkInterfaceId"]
    with refused("InvalidParameterValue"):
        ec2.attach_network_interface(NetworkInterfaceId=nic, InstanceId=first, DeviceIndex=0)
    name = ec2.attach_network_interface(NetworkInterfaceId=nic, InstanceId=first, DeviceIndex=1)["AttachmentId"]
    assert len(instance(ec2, first)["NetworkInterfaces"]) == 2
    primary = instance(ec2, first)["NetworkInterfaces"][0]["Attachment"]["AttachmentId"]
    with refused("OperationNotPermitted"):
        ec2.detach_network_interface(AttachmentId=primary)
    ec2.detach_network_interface(AttachmentId=name)
    with refused("InvalidAttachmentID.NotFound"):
        ec2.detach_network_interface(AttachmentId=name)
    ec2.attach_network_interface(NetworkInterfaceId=nic, InstanceId=second, DeviceIndex=1)
    assert (len(instance(ec2, first)["NetworkInterfaces"]), len(instance(ec2, second)["NetworkInterfaces"])) == (1, 2)


def test_a_private_address_is_free_when_its_instance_has_ended(aws: StrictAws, ec2: Any) -> None:
    """Not before: until then a launch or a new interface with it is refused."""
    (number,) = running(aws, ec2, SubnetId=subnet(ec2))
    how = {"SubnetId": subnet(ec2), "PrivateIpAddress": instance(ec2, number)["PrivateIpAddress"]}
    with refused("InvalidIPAddress.InUse"):
        running(aws, ec2, **how)
    ec2.terminate_instances(InstanceIds=[number])
    with refused("InvalidIPAddress.InUse"):
        ec2.create_network_interface(**how)
    aws.advance(10)
    (again,) = running(aws, ec2, **how)
    assert instance(ec2, again)["PrivateIpAddress"] == how["PrivateIpAddress"]


def test_an_interface_stays_where_asked(aws: StrictAws, ec2: Any) -> None:
    """DeleteOnTermination of an interface can be switched off, so that its address is kept."""
    (number,) = running(aws, ec2)
    nic = instance(ec2, number)["NetworkInterfaces"][0]
    asked = {"AttachmentId": nic["Attachment"]["AttachmentId"], "DeleteOnTermination": False}
    ec2.modify_network_interface_attribute(NetworkInterfaceId=nic["NetworkInterfaceId"], Attachment=asked)
    end(aws, ec2, number)
    (kept,) = ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert (kept["NetworkInterfaceId"], kept["Status"]) == (nic["NetworkInterfaceId"], "available")


def test_an_elastic_address_moves(aws: StrictAws, ec2: Any) -> None:
    """By default it goes from one instance to another; the same again changes nothing; refused where not allowed."""
    first, second = running(aws, ec2, 2, SubnetId=subnet(ec2))
    address = ec2.allocate_address(Domain="vpc")
    name = {"AllocationId": address["AllocationId"]}
    told = ec2.associate_address(**name, InstanceId=first)["AssociationId"]
    assert ec2.associate_address(**name, InstanceId=first)["AssociationId"] == told
    with refused("Resource.AlreadyAssociated"):
        ec2.associate_address(**name, InstanceId=second, AllowReassociation=False)
    assert ec2.associate_address(**name, InstanceId=second)["AssociationId"] != told
    assert instance(ec2, second)["PublicIpAddress"] == address["PublicIp"]
    assert instance(ec2, first).get("PublicIpAddress") != address["PublicIp"]
    with refused("InvalidIPAddress.InUse"):
        ec2.release_address(**name)


def test_an_elastic_address_stays_through_a_stop_and_is_free_after_the_end(aws: StrictAws, ec2: Any) -> None:
    (number,) = running(aws, ec2)
    address = ec2.allocate_address(Domain="vpc")
    ec2.associate_address(AllocationId=address["AllocationId"], InstanceId=number)
    ec2.stop_instances(InstanceIds=[number])
    aws.advance(10)
    assert instance(ec2, number)["PublicIpAddress"] == address["PublicIp"]
    end(aws, ec2, number)
    assert "AssociationId" not in ec2.describe_addresses()["Addresses"][0]


def test_a_second_elastic_address_takes_the_place_of_the_first(aws: StrictAws, ec2: Any) -> None:
    """The first stays allocated, associated with nothing; a pending instance gets none."""
    (number,) = running(aws, ec2)
    names = [ec2.allocate_address(Domain="vpc")["AllocationId"] for _ in range(2)]
    for name in names:
        ec2.associate_address(AllocationId=name, InstanceId=number)
    held = {one["AllocationId"] for one in ec2.describe_addresses()["Addresses"] if "AssociationId" in one}
    assert held == {names[1]}
    pending = ec2.run_instances(ImageId=instance(ec2, number)["ImageId"], MinCount=1, MaxCount=1)["Instances"][0]
    with refused("InvalidInstanceID"):
        ec2.associate_address(AllocationId=names[0], InstanceId=pending["InstanceId"])


@pytest.fixture
def targets(aws: StrictAws, ec2: Any) -> str:
    """A target group that a load balancer's listener sends to."""
    elb = aws.client("elbv2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    arn = elb.create_target_group(Name="t", Protocol="HTTP", Port=80, VpcId=vpc)["TargetGroups"][0]["TargetGroupArn"]
    subnets = [one["SubnetId"] for one in ec2.describe_subnets()["Subnets"]]
    load = elb.create_load_balancer(Name="lb", Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
    forward = [{"Type": "forward", "TargetGroupArn": arn}]
    elb.create_listener(LoadBalancerArn=load, Protocol="HTTP", Port=80, DefaultActions=forward)
    return str(arn)


def health(aws: StrictAws, arn: str, *named: str) -> list[str]:
    asked = {"Targets": [{"Id": name} for name in named]} if named else {}
    found = aws.client("elbv2").describe_target_health(TargetGroupArn=arn, **asked)["TargetHealthDescriptions"]
    return [str(one["TargetHealth"]["State"]) for one in found]


def test_a_target_is_initial_then_healthy(aws: StrictAws, ec2: Any, targets: str) -> None:
    """Registering it again changes nothing; where it shall fail it is unhealthy, later on too."""
    (number,), elb = running(aws, ec2), aws.client("elbv2")
    asked = {"TargetGroupArn": targets, "Targets": [{"Id": number}]}
    elb.register_targets(**asked)
    assert health(aws, targets) == ["initial"]
    aws.advance(10)
    elb.register_targets(**asked)
    assert health(aws, targets) == ["healthy"]
    aws.ail(number, "target", after=60)
    assert health(aws, targets) == ["healthy"]
    aws.advance(60)
    assert health(aws, targets) == ["unhealthy"]
    aws.cure(number)
    assert health(aws, targets) == ["healthy"]


def test_an_address_outside_of_the_network_of_its_targets_says_all_zones(aws: StrictAws, ec2: Any) -> None:
    """One inside is in its subnet's zone, and a target by its instance names none."""
    elb, subnet = aws.client("elbv2"), ec2.describe_subnets()["Subnets"][0]
    asked = {"Protocol": "HTTP", "Port": 80, "VpcId": subnet["VpcId"]}
    made = [elb.create_target_group(Name=kind, TargetType=kind, **asked)["TargetGroups"][0]["TargetGroupArn"]
            for kind in ("ip", "instance")]  # fmt: skip
    inside, outside = str(ip_network(subnet["CidrBlock"])[9]), {"Id": "192.0.2.7", "AvailabilityZone": "all"}
    (own,) = running(aws, ec2)
    for group, target in ((made[0], {"Id": "192.0.2.7"}), (made[1], {"Id": own, "AvailabilityZone": "all"})):
        with refused("ValidationError"):
            elb.register_targets(TargetGroupArn=group, Targets=[target])
    elb.register_targets(TargetGroupArn=made[0], Targets=[{"Id": inside}, outside])
    found = [one["Target"] for one in elb.describe_target_health(TargetGroupArn=made[0])["TargetHealthDescriptions"]]
    zones = [(inside, subnet["AvailabilityZone"]), ("192.0.2.7", "all")]
    assert [(one["Id"], one["AvailabilityZone"]) for one in found] == zones


def test_a_target_drains_when_it_goes(aws: StrictAws, ec2: Any, targets: str) -> None:
    """For the deregistration delay, 300 seconds unless said otherwise; then it is unused, and listed no longer."""
    (number,), elb = running(aws, ec2), aws.client("elbv2")
    asked = {"TargetGroupArn": targets, "Targets": [{"Id": number}]}
    elb.register_targets(**asked)
    elb.deregister_targets(**asked)
    aws.advance(299)
    assert health(aws, targets) == ["draining"]
    elb.deregister_targets(**asked)
    aws.advance(1)
    assert (health(aws, targets), health(aws, targets, number)) == ([], ["unused"])
    elb.deregister_targets(**asked)
    delay = [{"Key": "deregistration_delay.timeout_seconds", "Value": "5"}]
    elb.modify_target_group_attributes(TargetGroupArn=targets, Attributes=delay)
    elb.register_targets(**asked)
    elb.deregister_targets(**asked)
    elb.register_targets(**asked)
    assert health(aws, targets) == ["initial"]
    elb.deregister_targets(**asked)
    aws.advance(5)
    assert health(aws, targets) == []


def test_an_address_as_a_target_says_nothing_of_its_instance(aws: StrictAws, ec2: Any, targets: str) -> None:
    """ELB User Guide, target type ip: it stays registered when the instance has stopped or ended."""
    (number,), elb = running(aws, ec2), aws.client("elbv2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    made = elb.create_target_group(Name="ip", Protocol="HTTP", Port=80, VpcId=vpc, TargetType="ip")["TargetGroups"][0]
    arn, address = made["TargetGroupArn"], instance(ec2, number)["PrivateIpAddress"]
    balancer = elb.describe_load_balancers()["LoadBalancers"][0]["LoadBalancerArn"]
    forward = [{"Type": "forward", "TargetGroupArn": arn}]
    elb.create_listener(LoadBalancerArn=balancer, Protocol="HTTP", Port=81, DefaultActions=forward)
    elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": address}])
    aws.advance(10)
    assert health(aws, arn) == ["healthy"]
    ec2.stop_instances(InstanceIds=[number])
    aws.advance(10)
    assert health(aws, arn) == ["unhealthy"]
    end(aws, ec2, number)
    assert len(health(aws, arn)) == 1


def test_classic_load_balancers_are_another_interface(aws: StrictAws, ec2: Any) -> None:
    """Told by the version of the request: API reference of Elastic Load Balancing, 2012-06-01."""
    (number,), classic = running(aws, ec2), aws.client("elb")
    listener = {"Protocol": "HTTP", "LoadBalancerPort": 80, "InstancePort": 80}
    classic.create_load_balancer(LoadBalancerName="old", Listeners=[listener], AvailabilityZones=[ZONE])
    asked = {"LoadBalancerName": "old", "Instances": [{"InstanceId": number}]}
    classic.register_instances_with_load_balancer(**asked)
    (found,) = classic.describe_load_balancers()["LoadBalancerDescriptions"]
    assert found["Instances"] == [{"InstanceId": number}]
    assert aws.client("elbv2").describe_load_balancers()["LoadBalancers"] == []


def test_what_does_not_run_is_no_target(aws: StrictAws, ec2: Any, targets: str) -> None:
    """A pending instance and an absent one are refused, a stopped one is unused, and so is all behind no listener."""
    (number,), elb = running(aws, ec2), aws.client("elbv2")
    pending = ec2.run_instances(ImageId=instance(ec2, number)["ImageId"], MinCount=1, MaxCount=1)["Instances"][0]
    for name in (pending["InstanceId"], "i-0123456789abcdef0"):
        with refused("InvalidTarget"):
            elb.register_targets(TargetGroupArn=targets, Targets=[{"Id": number}, {"Id": name}])
    assert health(aws, targets) == []
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    made = elb.create_target_group(Name="alone", Protocol="HTTP", Port=80, VpcId=vpc)["TargetGroups"][0]
    for arn in (targets, made["TargetGroupArn"]):
        elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": number}])
    aws.advance(10)
    assert (health(aws, targets), health(aws, made["TargetGroupArn"])) == (["healthy"], ["unused"])
    ec2.stop_instances(InstanceIds=[number])
    assert health(aws, targets) == ["unused"]
    with refused("TargetGroupNotFound"):
        health(aws, targets.replace("targetgroup/t/", "targetgroup/u/"))


def test_what_hangs_on_instances_comes_in_pages(aws: StrictAws, ec2: Any, targets: str) -> None:
    """Volumes, interfaces, tags, target groups."""
    running(aws, ec2, 3, TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}])
    elb, vpc = aws.client("elbv2"), ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    for name in ("u", "v"):
        elb.create_target_group(Name=name, Protocol="HTTP", Port=80, VpcId=vpc)
    aws.limit_pages(2)
    for client, operation, key in (
        (ec2, "describe_volumes", "Volumes"),
        (ec2, "describe_network_interfaces", "NetworkInterfaces"),
        (ec2, "describe_tags", "Tags"),
        (elb, "describe_target_groups", "TargetGroups"),
    ):
        assert [len(page[key]) for page in client.get_paginator(operation).paginate()] == [2, 1]


OPERATIONS = [
    ("ec2", "attach_volume", {"VolumeId": "v", "InstanceId": "i", "Device": "d"}, "RequestLimitExceeded", 503),
    ("ec2", "create_replace_root_volume_task", {"InstanceId": "i"}, "RequestLimitExceeded", 503),
    ("ec2", "describe_instance_status", {}, "RequestLimitExceeded", 503),
    ("ec2", "stop_instances", {"InstanceIds": ["i"]}, "RequestLimitExceeded", 503),
    ("elbv2", "register_targets", {"TargetGroupArn": "a", "Targets": [{"Id": "i"}]}, "Throttling", 400),
    ("elbv2", "describe_target_health", {"TargetGroupArn": "a"}, "Throttling", 400),
]


@pytest.mark.parametrize(("service", "operation", "asked", "code", "status"), OPERATIONS)
def test_all_of_it_is_throttled(
    aws: StrictAws, service: str, operation: str, asked: dict[str, Any], code: str, status: int
) -> None:
    """In the service's own words."""
    with aws.faulty(Fault("throttle", service=service)), refused(code, status=status):
        getattr(aws.client(service), operation)(**asked)
