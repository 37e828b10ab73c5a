"""The emulator's instances over time: states, status checks, protections, and what they start with."""

from __future__ import annotations

from typing import Any

import pytest

from tests.strict_aws import StrictAws
from tests.strict_aws.making import image, refused, snapshot

ABSENT = "i-0123456789abcdef0"


@pytest.fixture
def ec2(aws: StrictAws) -> Any:
    """Everything takes ten seconds of the emulator's clock."""
    aws.takes(launch=10, stop=10, terminate=10, check=10, attach=10, detach=10)
    return aws.client("ec2")


def run(ec2: Any, name: str, **how: Any) -> str:
    return str(
        ec2.run_instances(**{"ImageId": name, "MinCount": 1, "MaxCount": 1, **how})["Instances"][0]["InstanceId"]
    )


def running(aws: StrictAws, ec2: Any, **how: Any) -> str:
    """An instance that runs and whose status checks know."""
    number = run(ec2, image(aws, f"golden-{len(aws.images())}"), **how)
    aws.advance(25)
    assert state(ec2, number) == "running"
    aws.advance(25)
    return number


def instance(ec2: Any, number: str) -> dict[str, Any]:
    return dict(ec2.describe_instances(InstanceIds=[number])["Reservations"][0]["Instances"][0])


def state(ec2: Any, number: str) -> str:
    return str(instance(ec2, number)["State"]["Name"])


def checks(ec2: Any, number: str) -> tuple[str, str]:
    asked = ec2.describe_instance_status(InstanceIds=[number], IncludeAllInstances=True)
    (found,) = asked["InstanceStatuses"]
    return found["InstanceStatus"]["Status"], found["SystemStatus"]["Status"]


def test_an_instance_is_pending_then_running_then_checked(aws: StrictAws, ec2: Any) -> None:
    """Status checks tell nothing before it runs, are initializing then, and ok after a while."""
    started = ec2.run_instances(ImageId=image(aws), MinCount=1, MaxCount=1)["Instances"][0]
    number = started["InstanceId"]
    assert started["State"] == {"Code": 0, "Name": "pending"}
    assert (state(ec2, number), checks(ec2, number)) == ("pending", ("not-applicable", "not-applicable"))
    assert not ec2.describe_instance_status()["InstanceStatuses"]
    aws.advance(10)
    assert (state(ec2, number), checks(ec2, number)) == ("running", ("initializing", "initializing"))
    aws.advance(10)
    assert checks(ec2, number) == ("ok", "ok")


@pytest.mark.parametrize("by_image", [True, False])
def test_status_checks_fail_where_they_shall(aws: StrictAws, ec2: Any, by_image: bool) -> None:
    """By image or by instance, at once or some time after the start, until cured."""
    name = image(aws)
    number = run(ec2, name)
    aws.ail(name if by_image else number, "status", after=60)
    aws.advance(30)
    assert checks(ec2, number) == ("ok", "ok")
    aws.advance(40)
    assert checks(ec2, number) == ("impaired", "ok")
    impaired = [{"Name": "instance-status.status", "Values": ["impaired"]}]
    assert len(ec2.describe_instance_status(Filters=impaired)["InstanceStatuses"]) == 1
    aws.cure(name if by_image else number)
    assert checks(ec2, number) == ("ok", "ok")


def test_an_instance_of_a_bad_image_ends_while_pending(aws: StrictAws, ec2: Any) -> None:
    """It is terminated, says why, and its root volume is gone."""
    name = image(aws)
    aws.ail(name, "launch")
    number = run(ec2, name)
    aws.advance(10)
    shown = instance(ec2, number)
    assert (shown["State"]["Name"], shown["StateReason"]["Code"]) == ("terminated", "Server.InternalError")
    assert not ec2.describe_volumes()["Volumes"]


def test_stopping_and_starting_take_their_time(aws: StrictAws, ec2: Any) -> None:
    """stopping, stopped, pending, running, and the checks anew; a stopping instance cannot be started."""
    number = running(aws, ec2)
    told = ec2.stop_instances(InstanceIds=[number])["StoppingInstances"][0]
    assert (told["PreviousState"]["Name"], told["CurrentState"]["Name"]) == ("running", "stopping")
    with refused("IncorrectInstanceState"):
        ec2.start_instances(InstanceIds=[number])
    aws.advance(10)
    assert (state(ec2, number), checks(ec2, number)[0]) == ("stopped", "not-applicable")
    assert ec2.stop_instances(InstanceIds=[number])["StoppingInstances"][0]["CurrentState"]["Name"] == "stopped"
    assert ec2.start_instances(InstanceIds=[number])["StartingInstances"][0]["CurrentState"]["Name"] == "pending"
    aws.advance(10)
    assert (state(ec2, number), checks(ec2, number)[0]) == ("running", "initializing")
    with refused("InvalidInstanceID.NotFound"):
        ec2.stop_instances(InstanceIds=[number, ABSENT])
    assert state(ec2, number) == "running"


def test_a_reboot_starts_the_checks_anew(aws: StrictAws, ec2: Any) -> None:
    """What the checks were about to know before it counts no more; only what runs is rebooted."""
    number = running(aws, ec2)
    aws.freeze()
    ec2.reboot_instances(InstanceIds=[number])
    aws.advance(5)
    ec2.reboot_instances(InstanceIds=[number])
    aws.advance(6)
    assert (state(ec2, number), checks(ec2, number)[0]) == ("running", "initializing")
    aws.advance(4)
    assert checks(ec2, number)[0] == "ok"
    ec2.stop_instances(InstanceIds=[number])
    with refused("IncorrectInstanceState"):
        ec2.reboot_instances(InstanceIds=[number])


def test_ending_takes_its_time(aws: StrictAws, ec2: Any) -> None:
    """shutting-down keeps the volume and the interface, terminated deletes them; an hour later nothing is shown."""
    number = running(aws, ec2)
    assert ec2.terminate_instances(InstanceIds=[number])["TerminatingInstances"][0]["CurrentState"]["Code"] == 32
    assert state(ec2, number) == "shutting-down"
    assert len(ec2.describe_volumes()["Volumes"]) == len(ec2.describe_network_interfaces()["NetworkInterfaces"]) == 1
    with refused("IncorrectInstanceState"):
        ec2.stop_instances(InstanceIds=[number])
    aws.advance(10)
    assert state(ec2, number) == "terminated"
    assert not ec2.describe_volumes()["Volumes"]
    assert not ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert ec2.terminate_instances(InstanceIds=[number])["TerminatingInstances"][0]["CurrentState"]["Code"] == 48
    with refused("IncorrectInstanceState"):
        ec2.start_instances(InstanceIds=[number])
    aws.advance(3600)
    with refused("InvalidInstanceID.NotFound"):
        ec2.describe_instances(InstanceIds=[number])


def test_protections_are_kept(aws: StrictAws, ec2: Any) -> None:
    """Termination and stop protection, set at the launch or later, refuse for all named instances."""
    number = running(aws, ec2, DisableApiTermination=True, DisableApiStop=True)
    other = running(aws, ec2)
    for attribute in ("disableApiTermination", "disableApiStop"):
        shown = ec2.describe_instance_attribute(InstanceId=number, Attribute=attribute)
        assert shown[attribute[0].upper() + attribute[1:]] == {"Value": True}
    with refused("OperationNotPermitted"):
        ec2.terminate_instances(InstanceIds=[other, number])
    with refused("OperationNotPermitted"):
        ec2.stop_instances(InstanceIds=[other, number])
    assert state(ec2, other) == "running"
    ec2.modify_instance_attribute(InstanceId=number, DisableApiTermination={"Value": False})
    ec2.terminate_instances(InstanceIds=[other, number])
    assert state(ec2, number) == "shutting-down"


def test_an_instance_has_what_it_was_started_with(aws: StrictAws, ec2: Any) -> None:
    """Key, user data, profile, metadata options, and tags of instance, volume and interface at creation."""
    iam = aws.client("iam")
    iam.create_instance_profile(InstanceProfileName="web")
    ec2.create_key_pair(KeyName="ops")
    kinds = ("instance", "volume", "network-interface")
    tagged = [{"ResourceType": kind, "Tags": [{"Key": "rollout", "Value": kind}]} for kind in kinds]
    options = {"HttpTokens": "required", "HttpPutResponseHopLimit": 2, "HttpEndpoint": "enabled"}
    how = {"KeyName": "ops", "UserData": "#cloud-config", "IamInstanceProfile": {"Name": "web"}}
    number = running(aws, ec2, **how, MetadataOptions=options, TagSpecifications=tagged)
    shown = instance(ec2, number)
    assert (shown["KeyName"], shown["IamInstanceProfile"]["Arn"].rpartition("/")[2]) == ("ops", "web")
    assert shown["MetadataOptions"].items() >= options.items()
    data = ec2.describe_instance_attribute(InstanceId=number, Attribute="userData")["UserData"]["Value"]
    assert data == "I2Nsb3VkLWNvbmZpZw=="
    assert ec2.describe_volumes()["Volumes"][0]["Tags"] == [{"Key": "rollout", "Value": "volume"}]
    nic = ec2.describe_network_interfaces()["NetworkInterfaces"][0]
    assert nic["TagSet"] == [{"Key": "rollout", "Value": "network-interface"}]
    with refused("InvalidKeyPair.NotFound"):
        run(ec2, shown["ImageId"], KeyName="absent")
    reserved = [{"ResourceType": "instance", "Tags": [{"Key": "aws:x", "Value": ""}]}]
    with refused("InvalidParameterValue"):
        run(ec2, shown["ImageId"], TagSpecifications=reserved)


def test_a_template_gives_what_the_request_does_not(aws: StrictAws, ec2: Any) -> None:
    """Metadata options, protection and tags of the template version, the request's first."""
    tagged = [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "1"}]}]
    data = {"ImageId": image(aws), "MetadataOptions": {"HttpTokens": "required"}, "TagSpecifications": tagged}
    ec2.create_launch_template(LaunchTemplateName="t", LaunchTemplateData={**data, "DisableApiTermination": True})
    own = [{"ResourceType": "instance", "Tags": [{"Key": "b", "Value": "2"}]}]
    named = {"LaunchTemplateName": "t", "Version": "1"}
    started = ec2.run_instances(MinCount=1, MaxCount=1, LaunchTemplate=named, TagSpecifications=own)["Instances"][0]
    shown = instance(ec2, started["InstanceId"])
    assert shown["MetadataOptions"]["HttpTokens"] == "required"
    kept = {one["Key"]: one["Value"] for one in shown["Tags"]}
    assert (kept["a"], kept["b"]) == ("1", "2")
    with refused("OperationNotPermitted"):
        ec2.terminate_instances(InstanceIds=[started["InstanceId"]])


def test_status_comes_in_pages(aws: StrictAws, ec2: Any) -> None:
    run(ec2, image(aws), MaxCount=12)
    aws.advance(10)
    pages = ec2.get_paginator("describe_instance_status").paginate(PaginationConfig={"PageSize": 5})
    assert [len(page["InstanceStatuses"]) for page in pages] == [5, 5, 2]


def test_block_devices_are_the_images_the_templates_and_the_requests(aws: StrictAws, ec2: Any) -> None:
    """Each says more about a device than the one before; a device can be left out; wrong ones start nothing."""
    data, small = snapshot(aws, VolumeSize=2), {"VolumeSize": 1}
    both = [
        {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot(aws), "VolumeType": "gp3"}},
        {"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": data, "VolumeType": "gp3"}},
        {"DeviceName": "/dev/sdg", "Ebs": {"SnapshotId": data, "VolumeType": "gp3"}},
    ]
    name = image(aws, BlockDeviceMappings=both)
    larger = [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 4}}]
    described = {"ImageId": name, "BlockDeviceMappings": larger}
    ec2.create_launch_template(LaunchTemplateName="tmpl", LaunchTemplateData=described)
    asked = [
        {"DeviceName": "/dev/sdg", "NoDevice": ""},
        {"DeviceName": "/dev/sdh", "Ebs": {"VolumeSize": 3, "DeleteOnTermination": True}},
        {"DeviceName": "/dev/sdi", "Ebs": {"VolumeSize": 5}},
    ]
    named = {"LaunchTemplateName": "tmpl", "Version": "1"}
    ec2.run_instances(MinCount=1, MaxCount=1, LaunchTemplate=named, BlockDeviceMappings=asked)
    found = {one["Attachments"][0]["Device"]: one for one in ec2.describe_volumes()["Volumes"]}
    sizes = {device: one["Size"] for device, one in found.items()}
    assert sizes == {"/dev/xvda": 4, "/dev/sdf": 2, "/dev/sdh": 3, "/dev/sdi": 5}
    stay = {device for device, one in found.items() if not one["Attachments"][0]["DeleteOnTermination"]}
    assert stay == {"/dev/sdi"}
    with refused("InvalidBlockDeviceMapping"):
        run(ec2, name, BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": small}])
    with refused("InvalidSnapshot.NotFound"):
        run(
            ec2, name, BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": "snap-0123456789abcdef0"}}]
        )
    with refused("MissingParameter"):
        run(ec2, name, BlockDeviceMappings=[{"DeviceName": "/dev/sdz", "Ebs": {"VolumeType": "gp3"}}])


def test_a_template_version_is_based_on_another(aws: StrictAws, ec2: Any) -> None:
    """What is not said is as in the source version, once for a token; without a source nothing is taken over."""
    data = {"ImageId": image(aws), "InstanceType": "t3.micro", "MetadataOptions": {"HttpTokens": "required"}}
    ec2.create_launch_template(LaunchTemplateName="tmpl", LaunchTemplateData=data)
    other = image(aws, "other")
    asked = {"LaunchTemplateName": "tmpl", "LaunchTemplateData": {"ImageId": other}}
    for _ in range(2):
        made = ec2.create_launch_template_version(**asked, SourceVersion="1", ClientToken="t")["LaunchTemplateVersion"]
        assert (made["VersionNumber"], made["LaunchTemplateData"]) == (2, {**data, "ImageId": other})
    ec2.create_launch_template_version(**asked)
    listed = ec2.describe_launch_template_versions(LaunchTemplateName="tmpl")["LaunchTemplateVersions"]
    kept = {one["VersionNumber"]: one["LaunchTemplateData"].get("InstanceType") for one in listed}
    assert kept == {1: "t3.micro", 2: "t3.micro", 3: None}
    with refused("InvalidLaunchTemplateId.VersionNotFound"):
        ec2.create_launch_template_version(**asked, SourceVersion="9")


@pytest.mark.parametrize(
    ("kind", "how", "code"),
    [
        ("t3.micro", {"Architecture": "arm64"}, "InvalidParameterValue"),
        ("t2.micro", {"TpmSupport": None}, "UnsupportedOperation"),
        ("m5.metal", {}, "UnsupportedOperation"),
        ("t3.micro", {"EnaSupport": None}, "InvalidParameterCombination"),
        ("t4g.micro", {"BootMode": "uefi"}, "InvalidParameterValue"),
    ],
)
def test_a_type_starts_only_what_it_supports(
    aws: StrictAws, ec2: Any, kind: str, how: dict[str, Any], code: str
) -> None:
    """Architecture, boot mode, NitroTPM, ENA. EC2 User Guide: boot modes, NitroTPM, enhanced networking."""
    with refused(code):
        run(ec2, image(aws, **how), InstanceType=kind)
    assert not ec2.describe_instances()["Reservations"]


def test_what_a_launch_chose_is_shown(aws: StrictAws, ec2: Any) -> None:
    """As DescribeInstances does by botocore's model of Instance, with the service's defaults where nothing was said."""
    usual = instance(ec2, running(aws, ec2, InstanceType="m5.large"))
    assert (usual["CpuOptions"], usual["EnclaveOptions"]) == ({"CoreCount": 1, "ThreadsPerCore": 2}, {"Enabled": False})
    assert usual["CapacityReservationSpecification"] == {"CapacityReservationPreference": "open"}
    assert (usual["MaintenanceOptions"], usual["HibernationOptions"]) == (
        {"AutoRecovery": "default"},
        {"Configured": False},
    )
    asked: dict[str, Any] = {
        "CpuOptions": {"CoreCount": 1, "ThreadsPerCore": 1},
        "EnclaveOptions": {"Enabled": True},
        "HibernationOptions": {"Configured": True},
        "CapacityReservationSpecification": {"CapacityReservationTarget": {"CapacityReservationId": "cr-1"}},
        "MaintenanceOptions": {"AutoRecovery": "disabled"},
        "PrivateDnsNameOptions": {"HostnameType": "resource-name", "EnableResourceNameDnsARecord": True},
    }
    licence = {"LicenseConfigurationArn": "arn:aws:license-manager:eu-central-1:111111111111:license-configuration:x"}
    shown = instance(ec2, running(aws, ec2, InstanceType="m5.large", LicenseSpecifications=[licence], **asked))
    assert {name: shown[name] for name in asked} == asked
    assert shown["Licenses"] == [licence]


def test_a_one_time_spot_instance_cannot_stop(aws: StrictAws, ec2: Any) -> None:
    """EC2 User Guide, "Stop a Spot Instance": only of a persistent request; it can reboot."""
    number = running(aws, ec2, InstanceMarketOptions={"MarketType": "spot"})
    assert instance(ec2, number)["InstanceLifecycle"] == "spot"
    with refused("UnsupportedOperation"):
        ec2.stop_instances(InstanceIds=[number])
    ec2.reboot_instances(InstanceIds=[number])
