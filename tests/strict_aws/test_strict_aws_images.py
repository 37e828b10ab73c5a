"""The emulator's images, copies and shares refuse what AWS refuses and keep what they are given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.strict_aws import ACCOUNT, REGION, StrictAws
from tests.strict_aws.blocks import BLOCK
from tests.strict_aws.making import filled, image, refused, registration, settled, snapshot

OTHER, AWAY = "222222222222", "us-east-1"
ORGANIZATION = "arn:aws:organizations::111111111111:organization/o-abcdefghij"


@pytest.fixture
def ec2(aws: StrictAws) -> Any:
    return aws.client("ec2")


def shown(ec2: Any, name: str, **how: Any) -> dict[str, Any]:
    return dict(ec2.describe_images(ImageIds=[name], **how)["Images"][0])


def tagged(resource: str, **tags: str) -> list[dict[str, Any]]:
    return [{"ResourceType": resource, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]


def customer_key(aws: StrictAws, region: str = REGION) -> str:
    return str(aws.client("kms", region).create_key()["KeyMetadata"]["Arn"])


def share(ec2: Any, name: str, **entry: str) -> None:
    ec2.modify_image_attribute(ImageId=name, LaunchPermission={"Add": [entry]})


def copy(aws: StrictAws, source: str, region: str = AWAY, **how: Any) -> str:
    asked = {"Name": "golden", "SourceImageId": source, "SourceRegion": REGION, **how}
    return str(aws.client("ec2", region).copy_image(**asked)["ImageId"])


def test_an_image_keeps_what_it_is_given(aws: StrictAws, ec2: Any) -> None:
    """Boot mode, TPM, IMDS, ENA, architecture, devices, description and tags are all there again."""
    source = snapshot(aws, Encrypted=True)
    name = image(aws, snapshot=source, Description="what", TagSpecifications=tagged("image", k="v"))
    found = shown(ec2, name)
    given = {**registration("golden", source), "Description": "what", "Tags": [{"Key": "k", "Value": "v"}]}
    assert {key: found[key] for key in given if key != "BlockDeviceMappings"} == {
        key: value for key, value in given.items() if key != "BlockDeviceMappings"
    }
    device = found["BlockDeviceMappings"][0]
    assert device["DeviceName"] == "/dev/xvda"
    assert device["Ebs"] == {
        "SnapshotId": source,
        "VolumeSize": 1,
        "VolumeType": "gp3",
        "Iops": 3000,
        "Throughput": 125,
        "Encrypted": True,
        "DeleteOnTermination": True,
    }
    assert (found["State"], found["Public"], found["OwnerId"]) == ("available", False, ACCOUNT)


def test_an_image_needs_a_completed_snapshot_of_its_own(aws: StrictAws, ec2: Any) -> None:
    """A pending, an absent, and a foreign snapshot are refused, and so is a volume that is too small."""
    pending = aws.client("ebs").start_snapshot(VolumeSize=1)["SnapshotId"]
    with refused("IncorrectState"):
        image(aws, snapshot=pending)
    for absent in ("snap-0123456789abcdef0", snapshot(aws, region=AWAY), snapshot(aws, account=OTHER)):
        with refused("InvalidSnapshot.NotFound"):
            image(aws, snapshot=absent)
    shared = snapshot(aws, account=OTHER)
    aws.client("ec2", account=OTHER).modify_snapshot_attribute(
        SnapshotId=shared, OperationType="add", UserIds=[ACCOUNT]
    )
    with refused("UnauthorizedOperation", status=403):
        image(aws, snapshot=shared)
    with refused("InvalidSnapshotID.Malformed"):
        image(aws, snapshot="mine")
    large = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot(aws, VolumeSize=2), "VolumeSize": 1}}
    with refused("InvalidBlockDeviceMapping"):
        image(aws, BlockDeviceMappings=[large])
    assert not aws.images()


def test_a_name_is_taken_once_an_account_and_region(aws: StrictAws, ec2: Any) -> None:
    """A name can be used once, by a disabled image too, until that is deregistered."""
    name = image(aws)
    ec2.disable_image(ImageId=name)
    with refused("InvalidAMIName.Duplicate"):
        image(aws)
    image(aws, region=AWAY)
    image(aws, account=OTHER)
    ec2.deregister_image(ImageId=name)
    image(aws)


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"Name": "wrong*name"}, "InvalidAMIName.Malformed"),
        ({"BootMode": "legacy-bios"}, "InvalidParameterCombination"),
        ({"VirtualizationType": "paravirtual"}, "InvalidParameterCombination"),
        ({"Architecture": "arm64", "BootMode": "uefi-preferred", "TpmSupport": None}, "InvalidParameterCombination"),
        ({"RootDeviceName": "/dev/sda1"}, "InvalidBlockDeviceMapping"),
        ({"TagSpecifications": tagged("snapshot", k="v")}, "InvalidParameterValue"),
        ({"TagSpecifications": tagged("image", **{"aws:k": "v"})}, "InvalidParameterValue"),
        ({"TagSpecifications": tagged("image", **{f"k{n}": "v" for n in range(51)})}, "TagLimitExceeded"),
        ({"TagSpecifications": tagged("image", k="v" * 257)}, "InvalidParameterValue"),
    ],
)
def test_a_wrong_image_is_refused(aws: StrictAws, how: dict[str, Any], code: str) -> None:
    """Names, boot modes, root devices and tags must be right, and fit each other."""
    with refused(code):
        image(aws, **how)
    assert not aws.images()


@pytest.mark.parametrize(
    "ebs",
    [{"Encrypted": True}, {"KmsKeyId": "alias/mine"}, {"VolumeType": "gp2", "Throughput": 125}],
)
def test_devices_of_an_image_are_not_encrypted_by_request(aws: StrictAws, ebs: dict[str, Any]) -> None:
    """Encryption follows the snapshot, and throughput is of gp3 alone."""
    device = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot(aws), **ebs}}
    with refused("InvalidParameterCombination"):
        image(aws, BlockDeviceMappings=[device])


def test_a_device_is_mapped_once_and_the_root_has_a_snapshot(aws: StrictAws) -> None:
    one = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot(aws)}}
    for devices in ([one, one], [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 1}}]):
        with refused("InvalidBlockDeviceMapping"):
            image(aws, BlockDeviceMappings=devices)


def test_a_snapshot_in_use_is_not_deleted(aws: StrictAws, ec2: Any) -> None:
    """While an image stands on it, a disabled one too, a snapshot stays."""
    source = snapshot(aws)
    name = image(aws, snapshot=source)
    ec2.disable_image(ImageId=name)
    with refused("InvalidSnapshot.InUse"):
        ec2.delete_snapshot(SnapshotId=source)
    ec2.deregister_image(ImageId=name)
    ec2.delete_snapshot(SnapshotId=source)
    with refused("InvalidSnapshot.NotFound"):
        ec2.describe_snapshots(SnapshotIds=[source])


def test_deregistering_can_take_snapshots_along(aws: StrictAws, ec2: Any) -> None:
    """With DeleteAssociatedSnapshots they go, but not one that another image stands on; without they stay."""
    both, alone = snapshot(aws), snapshot(aws)
    extra = [{"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": alone}}]
    name = image(aws, snapshot=both, BlockDeviceMappings=registration("", both)["BlockDeviceMappings"] + extra)
    kept = image(aws, "kept", snapshot=both)
    results = ec2.deregister_image(ImageId=name, DeleteAssociatedSnapshots=True)["DeleteSnapshotResults"]
    assert {one["SnapshotId"]: one["ReturnCode"] for one in results} == {both: "skipped", alone: "success"}
    assert "DeleteSnapshotResults" not in ec2.deregister_image(ImageId=kept)
    assert set(aws.snapshots()) == {both}
    with refused("InvalidAMIID.NotFound"):
        ec2.deregister_image(ImageId=kept)


def test_a_protected_image_stays(aws: StrictAws, ec2: Any) -> None:
    """Deregistration is refused while protected, and for a day more where it was protected with a cool-down."""
    name = image(aws)
    ec2.enable_image_deregistration_protection(ImageId=name, WithCooldown=True)
    assert shown(ec2, name)["DeregistrationProtection"] == "enabled-with-cooldown"
    with refused("OperationNotPermitted"):
        ec2.deregister_image(ImageId=name)
    ec2.disable_image_deregistration_protection(ImageId=name)
    with refused("OperationNotPermitted"):
        ec2.deregister_image(ImageId=name)
    aws.advance(24 * 3600 + 1)
    ec2.deregister_image(ImageId=name)


def test_protection_without_cooldown_ends_at_once(aws: StrictAws, ec2: Any) -> None:
    name = image(aws)
    answer = ec2.enable_image_deregistration_protection(ImageId=name)
    assert answer["Return"] == "enabled-without-cooldown"
    ec2.disable_image_deregistration_protection(ImageId=name)
    ec2.deregister_image(ImageId=name)


def test_deprecation_is_to_the_minute_and_ahead(aws: StrictAws, ec2: Any) -> None:
    """A date in the past or beyond ten years is refused; the owner always sees the image, others only on request."""
    name, now = image(aws), datetime.now(UTC)
    for wrong in (now - timedelta(minutes=1), now + timedelta(days=3700)):
        with refused("InvalidParameterValue"):
            ec2.enable_image_deprecation(ImageId=name, DeprecateAt=wrong)
    ec2.enable_image_deprecation(ImageId=name, DeprecateAt=datetime(now.year + 1, 3, 1, 12, 0, 40, tzinfo=UTC))
    assert shown(ec2, name)["DeprecationTime"] == f"{now.year + 1}-03-01T12:01:00.000Z"
    share(ec2, name, UserId=OTHER)
    aws.advance(400 * 24 * 3600)
    other = aws.client("ec2", account=OTHER)
    assert shown(ec2, name)["State"] == "available"
    assert not other.describe_images(Filters=[{"Name": "image-id", "Values": [name]}])["Images"]
    assert shown(other, name, IncludeDeprecated=True)["ImageId"] == name
    ec2.disable_image_deprecation(ImageId=name)
    assert "DeprecationTime" not in shown(other, name)


def test_a_public_image_is_deprecated_within_two_years(aws: StrictAws, ec2: Any) -> None:
    name = image(aws)
    share(ec2, name, Group="all")
    with refused("InvalidParameterValue"):
        ec2.enable_image_deprecation(ImageId=name, DeprecateAt=datetime.now(UTC) + timedelta(days=1000))


def test_a_disabled_image_is_hidden_and_shared_no_more(aws: StrictAws, ec2: Any) -> None:
    """Only the owner sees it, on request; its permissions are gone for good."""
    name = image(aws)
    share(ec2, name, UserId=OTHER)
    ec2.disable_image(ImageId=name)
    with refused("InvalidAMIID.NotFound"):
        ec2.describe_images(ImageIds=[name])
    assert not ec2.describe_images(Owners=["self"])["Images"]
    assert shown(ec2, name, IncludeDisabled=True)["State"] == "disabled"
    assert ec2.describe_images(Filters=[{"Name": "state", "Values": ["disabled"]}])["Images"]
    with refused("InvalidAMIID.Unavailable"):
        share(ec2, name, UserId=OTHER)
    ec2.enable_image(ImageId=name)
    assert shown(ec2, name)["State"] == "available"
    with refused("InvalidAMIID.NotFound"):
        aws.client("ec2", account=OTHER).describe_images(ImageIds=[name])


def test_a_copy_has_snapshots_of_its_own(aws: StrictAws, ec2: Any) -> None:
    """It is pending for a while, shows what its source shows, and holds the same blocks."""
    source = image(aws, snapshot=snapshot(aws, {0: filled(1), 3: filled(3)}))
    aws.hold()
    made, away = copy(aws, source), aws.client("ec2", AWAY)
    assert shown(away, made)["State"] == "pending"
    with refused("InvalidAMIID.Unavailable"):
        away.disable_image(ImageId=made)
    own = shown(away, made)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    assert away.describe_snapshots(SnapshotIds=[own])["Snapshots"][0]["State"] == "pending"
    aws.release()
    found = shown(away, made)
    assert (found["State"], found["SourceImageId"], found["SourceImageRegion"]) == ("available", source, REGION)
    same = ("BootMode", "TpmSupport", "ImdsSupport", "EnaSupport", "Architecture", "RootDeviceName")
    assert [found[key] for key in same] == [shown(ec2, source)[key] for key in same]
    assert list(aws.read(own, 4 * BLOCK)) == [filled(1), bytes(BLOCK), bytes(BLOCK), filled(3)]
    ec2.deregister_image(ImageId=source, DeleteAssociatedSnapshots=True)
    assert next(aws.read(own, BLOCK)) == filled(1)


def test_tags_are_copied_only_on_request(aws: StrictAws) -> None:
    """CopyImageTags brings the image's tags; TagSpecifications tag copy and snapshots, and win."""
    source = image(aws, TagSpecifications=tagged("image", k="v", m="n"))
    away = aws.client("ec2", AWAY)
    assert "Tags" not in shown(away, copy(aws, source, Name="plain"))
    both = [*tagged("image", k="other"), *tagged("snapshot", s="t")]
    made = shown(away, copy(aws, source, CopyImageTags=True, TagSpecifications=both))
    assert made["Tags"] == [{"Key": "k", "Value": "other"}, {"Key": "m", "Value": "n"}]
    own = made["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    assert away.describe_snapshots(SnapshotIds=[own])["Snapshots"][0]["Tags"] == [{"Key": "s", "Value": "t"}]


def test_one_token_makes_one_copy(aws: StrictAws) -> None:
    """The same ClientToken gives the same copy, and with other parameters an error."""
    source = image(aws)
    assert copy(aws, source, ClientToken="t") == copy(aws, source, ClientToken="t")
    with refused("IdempotentParameterMismatch"):
        copy(aws, source, ClientToken="t", Description="other")
    assert len(aws.images()) == 2


def test_a_copy_of_what_is_not_there_is_refused(aws: StrictAws, ec2: Any) -> None:
    """The source must be there, seen by the caller, available; the name must be free."""
    source = image(aws)
    copy(aws, source)
    with refused("InvalidAMIName.Duplicate"):
        copy(aws, source)
    foreign = image(aws, account=OTHER)
    for absent in (foreign, "ami-0123456789abcdef0"):
        with refused("InvalidAMIID.NotFound"):
            copy(aws, absent, Name="another")
    ec2.disable_image(ImageId=source)
    with refused("InvalidAMIID.Unavailable"):
        copy(aws, source, Name="another")
    with refused("InvalidAMIID.Malformed"):
        copy(aws, "golden", Name="another")


def test_a_shared_image_is_copied_only_with_its_snapshots(aws: StrictAws, ec2: Any) -> None:
    """Whom the image is shared with may copy it once its snapshots are shared, too."""
    source = snapshot(aws)
    name, asked = image(aws, snapshot=source), {"Name": "mine", "SourceRegion": REGION}
    share(ec2, name, UserId=OTHER)
    other = aws.client("ec2", account=OTHER)
    with refused("InvalidSnapshot.NotFound"):
        other.copy_image(SourceImageId=name, **asked)
    ec2.modify_snapshot_attribute(SnapshotId=source, OperationType="add", UserIds=[OTHER])
    assert shown(other, other.copy_image(SourceImageId=name, **asked)["ImageId"])["OwnerId"] == OTHER


def test_copies_are_encrypted_with_a_key_of_their_region(aws: StrictAws) -> None:
    """No key follows into another region, nothing becomes plain, and a key needs Encrypted."""
    plain = image(aws)
    closed = image(aws, "closed", snapshot=snapshot(aws, Encrypted=True, KmsKeyArn=customer_key(aws)))
    away, key = aws.client("ec2", AWAY), customer_key(aws, AWAY)

    def key_of(name: str) -> str | None:
        held = aws.images()[name]["snapshots"][0]
        return aws.snapshots()[held]["key"]

    assert key_of(copy(aws, plain)) is None
    assert key_of(copy(aws, plain, Name="copy-b", Encrypted=True, KmsKeyId=key)) == key
    managed = aws.client("kms", AWAY).describe_key(KeyId="alias/aws/ebs")["KeyMetadata"]["Arn"]
    made = copy(aws, closed, Name="copy-c")
    assert (key_of(made), shown(away, made)["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]) == (managed, True)
    with refused("InvalidParameterCombination"):
        copy(aws, closed, Name="copy-d", Encrypted=False)
    with refused("InvalidParameterDependency"):
        copy(aws, plain, Name="copy-d", KmsKeyId=key)
    with refused("InvalidParameterValue"):
        copy(aws, plain, Name="copy-d", Encrypted=True, KmsKeyId=customer_key(aws))
    away.enable_ebs_encryption_by_default()
    assert key_of(copy(aws, plain, Name="copy-e")) == managed


def test_twenty_copies_at_once_are_the_limit(aws: StrictAws) -> None:
    """The next one is refused until one of them is done; other regions count for themselves."""
    source = image(aws)
    aws.hold()
    for number in range(20):
        copy(aws, source, Name=f"copy-{number}")
    with refused("ResourceLimitExceeded"):
        copy(aws, source, Name="copy-20")
    copy(aws, source, "eu-west-1")
    aws.release()
    copy(aws, source, Name="copy-20")


def test_a_copy_can_fail(aws: StrictAws) -> None:
    """A test may let a copy end as failed, as one does whose key cannot be used."""
    made = copy(aws, image(aws))
    aws.fail(made)
    assert shown(aws.client("ec2", AWAY), made)["State"] == "failed"


def test_a_shared_image_is_seen_by_whom_it_is_shared_with(aws: StrictAws, ec2: Any) -> None:
    """An account, an organisation and all see it as they are let, and no longer once that is taken back."""
    name = image(aws)
    other = aws.client("ec2", account=OTHER)
    with refused("InvalidAMIID.NotFound"):
        shown(other, name)
    share(ec2, name, UserId=OTHER)
    assert shown(other, name)["OwnerId"] == ACCOUNT
    assert other.describe_images(ExecutableUsers=["self"])["Images"]
    with refused("AuthFailure", status=403):
        other.deregister_image(ImageId=name)
    ec2.modify_image_attribute(ImageId=name, LaunchPermission={"Remove": [{"UserId": OTHER}]})
    with refused("InvalidAMIID.NotFound"):
        shown(other, name)
    share(ec2, name, OrganizationArn=ORGANIZATION)
    with refused("InvalidAMIID.NotFound"):
        shown(other, name)
    aws.organization(OTHER, ORGANIZATION)
    assert shown(other, name)["ImageId"] == name
    permissions = ec2.describe_image_attribute(ImageId=name, Attribute="launchPermission")["LaunchPermissions"]
    assert permissions == [{"OrganizationArn": ORGANIZATION}]
    ec2.reset_image_attribute(ImageId=name, Attribute="launchPermission")
    with refused("InvalidAMIID.NotFound"):
        shown(other, name)


@pytest.mark.parametrize(
    "entry", [{"UserId": "12"}, {"OrganizationArn": "o-abcdefghij"}, {"OrganizationalUnitArn": "ou"}]
)
def test_whom_to_share_with_must_be_named_rightly(aws: StrictAws, ec2: Any, entry: dict[str, str]) -> None:
    name = image(aws)
    with refused("InvalidAMIAttributeItemValue"):
        share(ec2, name, **entry)


def test_the_default_key_cannot_be_shared(aws: StrictAws, ec2: Any) -> None:
    """An image or snapshot encrypted with AWS's own key is not shared; with a customer's key it is."""
    managed, own = snapshot(aws, Encrypted=True), snapshot(aws, Encrypted=True, KmsKeyArn=customer_key(aws))
    name = image(aws, snapshot=managed)
    with refused("OperationNotPermitted"):
        share(ec2, name, UserId=OTHER)
    with refused("OperationNotPermitted"):
        ec2.modify_snapshot_attribute(SnapshotId=managed, OperationType="add", UserIds=[OTHER])
    share(ec2, image(aws, "own", snapshot=own), UserId=OTHER)
    ec2.modify_snapshot_attribute(SnapshotId=own, OperationType="add", UserIds=[OTHER])
    seen = aws.client("ec2", account=OTHER).describe_snapshots(RestorableByUserIds=["self"])["Snapshots"]
    assert [one["SnapshotId"] for one in seen] == [own]


def test_block_public_access_blocks_the_public_only(aws: StrictAws, ec2: Any) -> None:
    """With it nothing becomes public; accounts can still be shared with. Encrypted things are never public."""
    source = snapshot(aws)
    name = image(aws, snapshot=source)
    ec2.enable_image_block_public_access(ImageBlockPublicAccessState="block-new-sharing")
    ec2.enable_snapshot_block_public_access(State="block-all-sharing")
    assert ec2.get_image_block_public_access_state()["ImageBlockPublicAccessState"] == "block-new-sharing"
    assert ec2.get_snapshot_block_public_access_state()["State"] == "block-all-sharing"
    public = {"SnapshotId": source, "OperationType": "add", "GroupNames": ["all"]}
    with refused("OperationNotPermitted"):
        share(ec2, name, Group="all")
    with refused("OperationNotPermitted"):
        ec2.modify_snapshot_attribute(**public)
    share(ec2, name, UserId=OTHER)
    with refused("InvalidParameterValue"):
        ec2.enable_snapshot_block_public_access(State="unblocked")
    ec2.disable_image_block_public_access()
    ec2.disable_snapshot_block_public_access()
    share(ec2, name, Group="all")
    ec2.modify_snapshot_attribute(**public)
    assert shown(aws.client("ec2", account="333333333333"), name)["Public"] is True
    closed = snapshot(aws, Encrypted=True, KmsKeyArn=customer_key(aws))
    with refused("OperationNotPermitted"):
        share(ec2, image(aws, "closed", snapshot=closed), Group="all")
    with refused("OperationNotPermitted"):
        ec2.modify_snapshot_attribute(**{**public, "SnapshotId": closed})


def test_snapshots_are_shared_with_accounts_and_taken_back(aws: StrictAws, ec2: Any) -> None:
    name, other = snapshot(aws), aws.client("ec2", account=OTHER)
    with refused("InvalidParameterValue"):
        ec2.modify_snapshot_attribute(SnapshotId=name, OperationType="add", UserIds=["12"])
    ec2.modify_snapshot_attribute(SnapshotId=name, CreateVolumePermission={"Add": [{"UserId": OTHER}]})
    with refused("UnauthorizedOperation", status=403):
        other.delete_snapshot(SnapshotId=name)
    listed = ec2.describe_snapshot_attribute(SnapshotId=name, Attribute="createVolumePermission")
    assert listed["CreateVolumePermissions"] == [{"UserId": OTHER}]
    assert not other.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    ec2.reset_snapshot_attribute(SnapshotId=name, Attribute="createVolumePermission")
    with refused("InvalidSnapshot.NotFound"):
        other.describe_snapshots(SnapshotIds=[name])


def test_imds_support_is_not_taken_back(aws: StrictAws, ec2: Any) -> None:
    """Description and ImdsSupport can be modified; the latter only to v2.0, and nothing is no modification."""
    name = image(aws)
    ec2.modify_image_attribute(ImageId=name, Description={"Value": "new"})
    assert ec2.describe_image_attribute(ImageId=name, Attribute="description")["Description"]["Value"] == "new"
    with refused("InvalidParameterValue"):
        ec2.modify_image_attribute(ImageId=name, ImdsSupport={"Value": "v1.0"})
    with refused("InvalidParameterCombination"):
        ec2.modify_image_attribute(ImageId=name)
    with refused("InvalidParameterValue"):
        ec2.describe_image_attribute(ImageId=name, Attribute="uefiData")
    with refused("MissingParameter"):
        ec2.modify_image_attribute(ImageId=name, UserIds=[OTHER])


def test_a_change_of_a_snapshots_attribute_says_what(aws: StrictAws, ec2: Any) -> None:
    """Only who may make volumes of it can be changed, and nothing is no change."""
    name = snapshot(aws)
    with refused("InvalidParameterValue"):
        ec2.modify_snapshot_attribute(SnapshotId=name, Attribute="productCodes", OperationType="add", UserIds=[OTHER])
    with refused("MissingParameter"):
        ec2.modify_snapshot_attribute(SnapshotId=name, OperationType="add")


def test_moto_says_whether_other_resources_are_there(aws: StrictAws, ec2: Any) -> None:
    """Tags of what moto holds are refused for what it does not hold, together with all else that was named."""
    name = image(aws)
    with refused("InvalidVolume.NotFound"):
        ec2.create_tags(Resources=[name, "vol-0123456789abcdef0"], Tags=[{"Key": "k", "Value": "v"}])
    assert "Tags" not in shown(ec2, name)


def test_tags_can_be_changed_on_what_is_there(aws: StrictAws, ec2: Any) -> None:
    """All named resources are tagged or none; the limits hold; DescribeTags sees them."""
    name = image(aws)
    with refused("InvalidAMIID.NotFound"):
        ec2.create_tags(Resources=[name, "ami-0123456789abcdef0"], Tags=[{"Key": "k", "Value": "v"}])
    assert "Tags" not in shown(ec2, name)
    ec2.create_tags(Resources=[name], Tags=[{"Key": f"k{number}", "Value": "v"} for number in range(50)])
    with refused("TagLimitExceeded"):
        ec2.create_tags(Resources=[name], Tags=[{"Key": "one-more", "Value": "v"}])
    with refused("InvalidAMIID.NotFound"):
        aws.client("ec2", account=OTHER).create_tags(Resources=[name], Tags=[{"Key": "k", "Value": "v"}])
    ec2.delete_tags(Resources=[name], Tags=[{"Key": "k1"}, {"Key": "k2", "Value": "other"}])
    kept = {tag["Key"] for tag in ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [name]}])["Tags"]}
    assert kept == {f"k{number}" for number in range(50)} - {"k1"}


def test_filters_are_known_or_refused(aws: StrictAws, ec2: Any) -> None:
    """Wildcards match; a filter that does not exist is an error, not an empty answer."""
    one, other = image(aws, "app-1"), image(aws, "web-1", TagSpecifications=tagged("image", team="a"))

    def names(**rule: str) -> list[str]:
        rules = [{"Name": key.replace("_", "-"), "Values": [value]} for key, value in rule.items()]
        return [found["ImageId"] for found in ec2.describe_images(Filters=rules)["Images"]]

    assert (names(name="app-*"), names(tag_key="team"), names(architecture="arm64")) == ([one], [other], [])
    assert names(name="*-1", tag_key="team") == [other]
    with refused("InvalidParameterValue"):
        names(colour="red")


def test_descriptions_come_in_pages(aws: StrictAws, ec2: Any) -> None:
    """AWS may give fewer than were asked for; ids and pages do not go together."""
    made = [image(aws, f"app-{number}", snapshot=source) for source in [snapshot(aws)] for number in range(7)]
    aws.limit_pages(3)
    try:
        pages = list(ec2.get_paginator("describe_images").paginate(Owners=["self"]))
        first = ec2.describe_snapshots(MaxResults=5)
    finally:
        aws.limit_pages(1000)
    assert [found["ImageId"] for page in pages for found in page["Images"]] == made
    assert ([len(page["Images"]) for page in pages], len(first["Snapshots"])) == ([3, 3, 1], 1)
    assert len(ec2.describe_images(ImageIds=made)["Images"]) == 7
    for wrong in ({"ImageIds": made, "MaxResults": 5}, {"MaxResults": 4}, {"NextToken": "mine"}):
        code = "InvalidParameterCombination" if "ImageIds" in wrong else "InvalidParameterValue"
        with refused(code):
            ec2.describe_images(**wrong)


def test_snapshots_are_copied(aws: StrictAws) -> None:
    """A copied snapshot is pending, then holds the same; a pending one cannot be copied."""
    pending = aws.client("ebs").start_snapshot(VolumeSize=1)["SnapshotId"]
    away = aws.client("ec2", AWAY)
    with refused("IncorrectState"):
        away.copy_snapshot(SourceRegion=REGION, SourceSnapshotId=pending)
    made = away.copy_snapshot(SourceRegion=REGION, SourceSnapshotId=snapshot(aws), Encrypted=True)["SnapshotId"]
    settled(away, snapshot=made)
    assert next(aws.read(made, BLOCK)) == filled(1)
    assert aws.snapshots()[made]["key"]
