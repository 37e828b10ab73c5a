"""The emulator's instances, volumes, templates, groups, parameters and keys, where moto lies about them."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.strict_aws import REGION, StrictAws
from tests.strict_aws.making import filled, image, refused, snapshot

OTHER, ZONE = "222222222222", f"{REGION}a"
ABSENT = "ami-0123456789abcdef0"


@pytest.fixture
def ec2(aws: StrictAws) -> Any:
    return aws.client("ec2")


def run(ec2: Any, name: str, **how: Any) -> list[dict[str, Any]]:
    return list(ec2.run_instances(**{"ImageId": name, "MinCount": 1, "MaxCount": 1, **how})["Instances"])


def template(ec2: Any, name: str, versions: int = 1) -> str:
    made = ec2.create_launch_template(LaunchTemplateName="template", LaunchTemplateData={"ImageId": name})
    number = str(made["LaunchTemplate"]["LaunchTemplateId"])
    for _ in range(versions - 1):
        ec2.create_launch_template_version(LaunchTemplateId=number, LaunchTemplateData={"ImageId": name})
    return number


def group(aws: StrictAws, name: str, **template: str) -> None:
    aws.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName=name,
        MinSize=0,
        MaxSize=3,
        DesiredCapacity=1,
        AvailabilityZones=[ZONE],
        LaunchTemplate=template,
    )


def test_instances_start_from_available_images_only(aws: StrictAws, ec2: Any) -> None:
    """An absent, a deregistered, a disabled, a pending or a foreign image starts nothing."""
    gone, off = image(aws, "gone"), image(aws, "off")
    ec2.deregister_image(ImageId=gone)
    ec2.disable_image(ImageId=off)
    foreign, away = image(aws, account=OTHER), image(aws, region="us-east-1")
    aws.hold()
    pending = ec2.copy_image(Name="pending", SourceImageId=away, SourceRegion="us-east-1")
    for name in (ABSENT, gone, foreign, away):
        with refused("InvalidAMIID.NotFound"):
            run(ec2, name)
    for name in (off, pending["ImageId"]):
        with refused("InvalidAMIID.Unavailable"):
            run(ec2, name)
    with refused("MissingParameter"):
        ec2.run_instances(MinCount=1, MaxCount=1)
    assert not ec2.describe_instances()["Reservations"]


def test_as_many_start_as_were_asked_for_once(aws: StrictAws, ec2: Any) -> None:
    """MaxCount instances; the same ClientToken starts none again."""
    name = image(aws)
    first = run(ec2, name, MaxCount=3, ClientToken="t")
    again = run(ec2, name, MaxCount=3, ClientToken="t")
    assert [one["InstanceId"] for one in first] == [one["InstanceId"] for one in again]
    assert len(first) == 3
    with refused("IdempotentParameterMismatch"):
        run(ec2, name, MaxCount=2, ClientToken="t")
    with refused("InvalidParameterValue"):
        run(ec2, name, MinCount=2)


def test_an_instance_has_its_images_root_volume(aws: StrictAws, ec2: Any) -> None:
    """Device, size, type, key and snapshot of the root volume are the image's; the launch is seen on the image."""
    source = snapshot(aws, VolumeSize=2, Encrypted=True)
    name = image(aws, snapshot=source)
    number = run(ec2, name)[0]["InstanceId"]
    shown = ec2.describe_instances(InstanceIds=[number])["Reservations"][0]["Instances"][0]
    assert (shown["RootDeviceName"], shown["BootMode"], shown["VirtualizationType"]) == ("/dev/xvda", "uefi", "hvm")
    assert [one["DeviceName"] for one in shown["BlockDeviceMappings"]] == ["/dev/xvda"]
    volume = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [number]}])["Volumes"][0]
    assert (volume["SnapshotId"], volume["Size"], volume["VolumeType"], volume["Encrypted"]) == (source, 2, "gp3", True)
    assert volume["Attachments"][0]["Device"] == "/dev/xvda"
    assert "LastLaunchedTime" in ec2.describe_images(ImageIds=[name])["Images"][0]


def test_an_image_is_made_of_an_instance(aws: StrictAws, ec2: Any) -> None:
    """It has a snapshot of its own, pending first, that holds what the instance's image held."""
    name = image(aws)
    number = run(ec2, name)[0]["InstanceId"]
    aws.hold()
    made = ec2.create_image(InstanceId=number, Name="made", Description="of an instance")["ImageId"]
    shown = ec2.describe_images(ImageIds=[made])["Images"][0]
    assert (shown["State"], shown["BootMode"], shown["Description"]) == ("pending", "uefi", "of an instance")
    aws.release()
    (own,) = aws.images()[made]["snapshots"]
    assert own not in aws.images()[name]["snapshots"]
    assert next(aws.read(own, len(filled(1)))) == filled(1)
    with refused("InvalidAMIName.Duplicate"):
        ec2.create_image(InstanceId=number, Name="made")
    with refused("InvalidInstanceID.NotFound"):
        ec2.create_image(InstanceId="i-0123456789abcdef0", Name="other")


def test_a_template_version_must_be_there(aws: StrictAws, ec2: Any) -> None:
    """RunInstances and groups refuse a template or a version that does not exist, zero and negative ones too."""
    number = template(ec2, image(aws), versions=2)
    assert len(run_template(ec2, LaunchTemplateId=number, Version="2")) == 1
    assert len(run_template(ec2, LaunchTemplateName="template", Version="$Latest")) == 1
    for version in ("3", "0", "-1"):
        with refused("InvalidLaunchTemplateId.VersionNotFound"):
            run_template(ec2, LaunchTemplateId=number, Version=version)
        with refused("ValidationError"):
            group(aws, "g", LaunchTemplateId=number, Version=version)
    with refused("InvalidLaunchTemplateId.NotFound"):
        run_template(ec2, LaunchTemplateId="lt-0123456789abcdef0")
    with refused("InvalidLaunchTemplateName.NotFoundException"):
        run_template(ec2, LaunchTemplateName="absent")
    assert not aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]


def run_template(ec2: Any, **named: str) -> list[dict[str, Any]]:
    return list(ec2.run_instances(MinCount=1, MaxCount=1, LaunchTemplate=named)["Instances"])


def test_a_group_starts_from_an_image_that_is_there(aws: StrictAws, ec2: Any) -> None:
    """A group's template must name an available image; what it starts has that image's root volume."""
    name = image(aws)
    number = template(ec2, name)
    group(aws, "g", LaunchTemplateId=number, Version="1")
    assert [one["SnapshotId"] for one in ec2.describe_volumes()["Volumes"]] == aws.images()[name]["snapshots"]
    ec2.disable_image(ImageId=name)
    with refused("ValidationError"):
        group(aws, "other", LaunchTemplateId=number, Version="1")
    with refused("ValidationError"):
        aws.client("autoscaling").update_auto_scaling_group(
            AutoScalingGroupName="g", LaunchTemplate={"LaunchTemplateId": number, "Version": "$Latest"}
        )


def test_a_template_is_made_once_for_a_token(aws: StrictAws, ec2: Any) -> None:
    asked = {"LaunchTemplateName": "template", "LaunchTemplateData": {"ImageId": ABSENT}, "ClientToken": "t"}
    first, again = ec2.create_launch_template(**asked), ec2.create_launch_template(**asked)
    assert first["LaunchTemplate"]["LaunchTemplateId"] == again["LaunchTemplate"]["LaunchTemplateId"]
    version = {**asked, "ClientToken": "v"}
    ec2.create_launch_template_version(**version)
    ec2.create_launch_template_version(**version)
    found = ec2.describe_launch_templates(LaunchTemplateNames=["template"])["LaunchTemplates"][0]
    assert found["LatestVersionNumber"] == 2


def test_listings_are_whole_and_come_in_pages(aws: StrictAws, ec2: Any) -> None:
    """More than fifteen template versions are told of, and every listing goes on with its token."""
    name = image(aws)
    number = template(ec2, name, versions=18)
    for one in range(3):
        run(ec2, name)
        group(aws, f"g{one}", LaunchTemplateId=number, Version="1")
    aws.limit_pages(2)
    try:
        versions = pages(ec2, "describe_launch_template_versions", "LaunchTemplateVersions", LaunchTemplateId=number)
        instances = pages(ec2, "describe_instances", "Reservations")
        groups = pages(aws.client("autoscaling"), "describe_auto_scaling_groups", "AutoScalingGroups")
    finally:
        aws.limit_pages(1000)
    with refused("InvalidParameterValue"):
        ec2.describe_instances(MaxResults=0)
    assert [len(page) for page in versions] == [2] * 9
    assert sorted(one["VersionNumber"] for page in versions for one in page) == list(range(1, 19))
    assert [len(page) for page in instances] == [2, 2, 2]
    assert [one["AutoScalingGroupName"] for page in groups for one in page] == ["g0", "g1", "g2"]


def pages(client: Any, operation: str, key: str, **asked: Any) -> list[list[Any]]:
    return [page[key] for page in client.get_paginator(operation).paginate(**asked)]


def test_a_volume_comes_from_a_completed_snapshot(aws: StrictAws, ec2: Any) -> None:
    """It has the snapshot's size and key, is made once for a token, and a pending or larger snapshot is refused."""
    source = snapshot(aws, VolumeSize=2, Encrypted=True)
    asked = {"AvailabilityZone": ZONE, "SnapshotId": source, "ClientToken": "t"}
    made = ec2.create_volume(**asked)
    assert (made["SnapshotId"], made["Size"], made["Encrypted"]) == (source, 2, True)
    assert ec2.create_volume(**asked)["VolumeId"] == made["VolumeId"]
    with refused("IdempotentParameterMismatch"):
        ec2.create_volume(**{**asked, "Size": 3})
    with refused("InvalidParameterValue"):
        ec2.create_volume(AvailabilityZone=ZONE, SnapshotId=source, Size=1)
    pending = aws.client("ebs").start_snapshot(VolumeSize=1)["SnapshotId"]
    with refused("IncorrectState"):
        ec2.create_volume(AvailabilityZone=ZONE, SnapshotId=pending)
    with refused("InvalidParameterDependency"):
        ec2.create_volume(AvailabilityZone=ZONE, Size=1, KmsKeyId="alias/aws/ebs")
    with refused("InvalidVolume.NotFound"):
        ec2.create_snapshot(VolumeId="vol-0123456789abcdef0")
    again = ec2.create_snapshot(VolumeId=made["VolumeId"])
    assert (again["VolumeSize"], again["Encrypted"], again["State"]) == (2, True, "pending")


def test_plain_volumes_are_made_once_for_a_token(aws: StrictAws, ec2: Any) -> None:
    asked = {"AvailabilityZone": ZONE, "Size": 1, "ClientToken": "t"}
    assert ec2.create_volume(**asked)["VolumeId"] == ec2.create_volume(**asked)["VolumeId"]
    assert len(ec2.describe_volumes()["Volumes"]) == 1
    ec2.enable_ebs_encryption_by_default()
    assert ec2.create_volume(AvailabilityZone=ZONE, Size=1)["Encrypted"] is True


def test_parameters_are_as_long_as_their_tier_lets(aws: StrictAws) -> None:
    """4 KB in the standard tier, 8 KB in the advanced one, from which there is no way back."""
    ssm = aws.client("ssm")
    asked = {"Name": "/app/long", "Type": "String", "Overwrite": True}
    with refused("ValidationException"):
        ssm.put_parameter(**asked, Value="x" * 4097)
    ssm.put_parameter(**asked, Value="x" * 8192, Tier="Advanced")
    with refused("ValidationException"):
        ssm.put_parameter(**asked, Value="x" * 8193)
    with refused("ValidationException"):
        ssm.put_parameter(**asked, Value="x", Tier="Standard")


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"Name": "app/channel"}, "ValidationException"),
        ({"Name": "/app/chan nel"}, "ValidationException"),
        ({"Name": "/a" * 16}, "HierarchyLevelLimitExceededException"),
        ({"AllowedPattern": r"\d+"}, "ParameterPatternMismatchException"),
        ({"DataType": "aws:ec2:image"}, "ValidationException"),
    ],
)
def test_a_wrong_parameter_is_refused(aws: StrictAws, how: dict[str, str], code: str) -> None:
    """Names, patterns and data types are kept to."""
    with refused(code):
        aws.client("ssm").put_parameter(**{"Name": "/app/channel", "Value": "x", "Type": "String", **how})


def test_a_parameter_of_an_image_that_is_not_there_is_lost(aws: StrictAws, ec2: Any) -> None:
    """AWS answers well and stores nothing; with an image that is there the parameter starts instances."""
    ssm, name = aws.client("ssm"), image(aws)
    asked = {"Name": "/app/stable", "Type": "String", "DataType": "aws:ec2:image"}
    assert ssm.put_parameter(**asked, Value=ABSENT)["Version"] == 1
    with refused("ParameterNotFound"):
        ssm.get_parameter(Name="/app/stable")
    ssm.put_parameter(**asked, Value=name)
    assert ssm.put_parameter(**asked, Value=image(aws, region="us-east-1"), Overwrite=True)["Version"] == 2
    assert (ssm.get_parameter(Name="/app/stable")["Parameter"]["Value"]) == name
    with refused("ParameterAlreadyExists"):
        ssm.put_parameter(**asked, Value=ABSENT)
    assert run(ec2, "resolve:ssm:/app/stable")[0]["ImageId"] == name
    with refused("InvalidAMIID.Malformed"):
        run(ec2, "resolve:ssm:/app/absent")


def test_a_digest_is_signed_as_it_is(aws: StrictAws) -> None:
    """A signature over a digest is that over its message, as any verifier finds with the public key."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    kms = aws.client("kms")
    key = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    how = {"KeyId": key, "SigningAlgorithm": "ECDSA_SHA_256"}
    digest = hashlib.sha256(b"message").digest()
    signature = kms.sign(**how, Message=digest, MessageType="DIGEST")["Signature"]
    public = kms.get_public_key(KeyId=key)
    assert (public["KeySpec"], public["KeyId"]) == ("ECC_NIST_P256", key)
    load_der_public_key(public["PublicKey"]).verify(signature, b"message", ec.ECDSA(hashes.SHA256()))
    assert kms.verify(**how, Message=b"message", Signature=signature)["SignatureValid"]
    assert kms.verify(**how, Message=digest, MessageType="DIGEST", Signature=signature)["SignatureValid"]
    with refused("KMSInvalidSignatureException"):
        kms.verify(**how, Message=b"other", Signature=signature)
    with refused("ValidationException"):
        kms.sign(**how, Message=digest[:31], MessageType="DIGEST")
    with refused("InvalidKeyUsageException"):
        kms.sign(**{**how, "SigningAlgorithm": "ECDSA_SHA_384"}, Message=b"message")


def test_a_key_must_be_of_use(aws: StrictAws) -> None:
    """A disabled key, one that is to be deleted, one for encryption, and an absent one sign nothing."""
    kms = aws.client("kms")
    key = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    how = {"SigningAlgorithm": "ECDSA_SHA_256", "Message": b"message"}
    kms.disable_key(KeyId=key)
    with refused("DisabledException"):
        kms.sign(KeyId=key, **how)
    kms.enable_key(KeyId=key)
    kms.sign(KeyId=key, **how)
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    with refused("KMSInvalidStateException"):
        kms.sign(KeyId=key, **how)
    with refused("InvalidKeyUsageException"):
        kms.sign(KeyId=kms.create_key()["KeyMetadata"]["KeyId"], **how)
    with refused("NotFoundException"):
        kms.sign(KeyId="alias/absent", **how)


def test_digests_are_signed_with_elliptic_curves_only(aws: StrictAws) -> None:
    """The emulator says so rather than sign with RSA what moto would hash once more."""
    kms = aws.client("kms")
    key = kms.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    how = {"KeyId": key, "SigningAlgorithm": "RSASSA_PSS_SHA_256"}
    assert kms.sign(**how, Message=b"message")["Signature"]
    with refused("UnsupportedOperationException"):
        kms.sign(**how, Message=bytes(32), MessageType="DIGEST")


def test_whose_key_it_is_can_be_seen(aws: StrictAws) -> None:
    """alias/aws/ebs is AWS's, what an account made is its own."""
    kms = aws.client("kms")
    own = kms.create_key()["KeyMetadata"]
    assert (own["KeyManager"], own["KeyUsage"]) == ("CUSTOMER", "ENCRYPT_DECRYPT")
    assert kms.describe_key(KeyId="alias/aws/ebs")["KeyMetadata"]["KeyManager"] == "AWS"
    assert aws.client("ec2").get_ebs_default_kms_key_id()["KmsKeyId"] == "alias/aws/ebs"
