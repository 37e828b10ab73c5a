"""The emulator's root volumes are replaced in place as EC2 does it, and the instance stays what it is."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.strict_aws import REGION, Fault, StrictAws
from tests.strict_aws.making import filled, image, refused, snapshot


@pytest.fixture
def ec2(aws: StrictAws) -> Any:
    """Everything takes ten seconds of the emulator's clock."""
    aws.takes(launch=10, check=10, root=10, stop=10)
    return aws.client("ec2")


def running(aws: StrictAws, ec2: Any, name: str, **how: Any) -> str:
    number = str(ec2.run_instances(ImageId=name, MinCount=1, MaxCount=1, **how)["Instances"][0]["InstanceId"])
    for _ in range(2):
        aws.advance(11)
        ec2.describe_instances()
    return number


def begin(ec2: Any, number: str, **how: Any) -> str:
    return str(
        ec2.create_replace_root_volume_task(InstanceId=number, **how)["ReplaceRootVolumeTask"][
            "ReplaceRootVolumeTaskId"
        ]
    )


def task(ec2: Any, name: str) -> dict[str, Any]:
    return dict(ec2.describe_replace_root_volume_tasks(ReplaceRootVolumeTaskIds=[name])["ReplaceRootVolumeTasks"][0])


def instance(ec2: Any, number: str) -> dict[str, Any]:
    return dict(ec2.describe_instances(InstanceIds=[number])["Reservations"][0]["Instances"][0])


def root(ec2: Any, number: str) -> str:
    return str(instance(ec2, number)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"])


def volume(ec2: Any, name: str) -> dict[str, Any]:
    return dict(ec2.describe_volumes(VolumeIds=[name])["Volumes"][0])


def checked(ec2: Any, number: str) -> str:
    found = ec2.describe_instance_status(InstanceIds=[number])["InstanceStatuses"]
    return str(found[0]["InstanceStatus"]["Status"])


def done(aws: StrictAws, ec2: Any, name: str) -> str:
    """The state that the task ends in."""
    for _ in range(3):
        aws.advance(10)
        state = str(task(ec2, name)["TaskState"])
    return state


def test_a_root_volume_is_replaced_by_that_of_an_image(aws: StrictAws, ec2: Any) -> None:
    """pending, in-progress, succeeded; the instance reboots and shows the new image; the old volume stays, detached."""
    old, new = image(aws, "old"), image(aws, "new", snapshot=snapshot(aws, {0: filled(2)}))
    number = running(aws, ec2, old)
    before, first = instance(ec2, number), root(ec2, number)
    tagged = [{"ResourceType": "replace-root-volume-task", "Tags": [{"Key": "rollout", "Value": "r1"}]}]
    name = begin(ec2, number, ImageId=new, TagSpecifications=tagged)
    shown = task(ec2, name)
    assert (shown["TaskState"], shown["ImageId"], shown["DeleteReplacedRootVolume"]) == ("pending", new, False)
    assert shown["Tags"] == [{"Key": "rollout", "Value": "r1"}]
    assert checked(ec2, number) == "ok"
    aws.advance(10)
    assert (task(ec2, name)["TaskState"], checked(ec2, number)) == ("in-progress", "initializing")
    aws.advance(10)
    assert (task(ec2, name)["TaskState"], checked(ec2, number)) == ("succeeded", "initializing")
    aws.advance(10)
    assert checked(ec2, number) == "ok"
    after, second = instance(ec2, number), root(ec2, number)
    assert volume(ec2, second)["SnapshotId"] == aws.images()[new]["snapshots"][0]
    assert (volume(ec2, first)["State"], volume(ec2, second)["State"]) == ("available", "in-use")
    assert (before.pop("ImageId"), after.pop("ImageId")) == (old, new)
    assert {key for key in before if before[key] != after[key]} == {"BlockDeviceMappings"}


def test_an_answer_says_when_it_was_given(aws: StrictAws, ec2: Any) -> None:
    """By the service's own clock, as HTTP has it (RFC 9110, Date): how long ago a task ended can be told."""
    number = running(aws, ec2, image(aws))
    name = begin(ec2, number)
    assert done(aws, ec2, name) == "succeeded"
    aws.freeze()
    aws.advance(1000)
    told = ec2.describe_replace_root_volume_tasks()
    ended = datetime.fromisoformat(told["ReplaceRootVolumeTasks"][0]["CompleteTime"])
    now = parsedate_to_datetime(told["ResponseMetadata"]["HTTPHeaders"]["date"])
    assert 1000 <= (now - ended).total_seconds() < 1100


def test_the_replaced_root_volume_is_deleted_where_asked(aws: StrictAws, ec2: Any) -> None:
    number = running(aws, ec2, image(aws))
    first = root(ec2, number)
    assert done(aws, ec2, begin(ec2, number, ImageId=image(aws, "new"), DeleteReplacedRootVolume=True)) == "succeeded"
    with refused("InvalidVolume.NotFound"):
        ec2.describe_volumes(VolumeIds=[first])


def test_a_root_volume_goes_back_to_its_own_lineage(aws: StrictAws, ec2: Any) -> None:
    """By a snapshot of it, by nothing at all (the launch's state), or by the kept volume; a stranger is refused."""
    number = running(aws, ec2, image(aws))
    first, launched = root(ec2, number), volume(ec2, root(ec2, number))["SnapshotId"]
    taken = ec2.create_snapshot(VolumeId=first)["SnapshotId"]
    aws.advance(10)
    assert done(aws, ec2, begin(ec2, number, ImageId=image(aws, "new"))) == "succeeded"
    assert done(aws, ec2, begin(ec2, number, SnapshotId=taken)) == "succeeded"
    assert volume(ec2, root(ec2, number))["SnapshotId"] == taken
    assert done(aws, ec2, begin(ec2, number)) == "succeeded"
    assert volume(ec2, root(ec2, number))["SnapshotId"] == launched
    assert done(aws, ec2, begin(ec2, number, VolumeId=first)) == "succeeded"
    assert root(ec2, number) == first
    with refused("InvalidParameterValue"):
        begin(ec2, number, SnapshotId=snapshot(aws))
    with refused("IncorrectState"):
        begin(ec2, number, VolumeId=first)
    with refused("InvalidParameterCombination"):
        begin(ec2, number, VolumeId=first, SnapshotId=taken)


def test_a_volume_elsewhere_or_less_safe_becomes_no_root(aws: StrictAws, ec2: Any) -> None:
    """Another zone is refused, and a volume in the clear where the root is encrypted."""
    number = running(aws, ec2, image(aws, snapshot=snapshot(aws, Encrypted=True)))
    away = ec2.create_volume(AvailabilityZone=f"{REGION}b", Size=1, Encrypted=True)["VolumeId"]
    clear = ec2.create_volume(AvailabilityZone=instance(ec2, number)["Placement"]["AvailabilityZone"], Size=1)[
        "VolumeId"
    ]
    with refused("InvalidVolume.ZoneMismatch"):
        begin(ec2, number, VolumeId=away)
    with refused("InvalidParameterValue"):
        begin(ec2, number, VolumeId=clear)
    with refused("InvalidVolume.NotFound"):
        begin(ec2, number, VolumeId="vol-0123456789abcdef0")


def test_an_image_must_fit_the_instance(aws: StrictAws, ec2: Any) -> None:
    """Another architecture, one without ENA or NitroTPM, and an absent image are refused; nothing has changed."""
    number = running(aws, ec2, image(aws))
    without = {"ena": {"EnaSupport": None}, "tpm": {"TpmSupport": None}, "arm": {"Architecture": "arm64"}}
    for wrong in [image(aws, name, **how) for name, how in without.items()]:
        with refused("InvalidParameterValue"):
            begin(ec2, number, ImageId=wrong)
    with refused("InvalidAMIID.NotFound"):
        begin(ec2, number, ImageId="ami-0123456789abcdef0")
    assert not ec2.describe_replace_root_volume_tasks()["ReplaceRootVolumeTasks"]


def test_the_larger_of_both_sizes_is_the_new_roots(aws: StrictAws, ec2: Any) -> None:
    """EC2 User Guide, "Replace a root volume", considerations for using an AMI: a smaller image is no hindrance."""
    number = running(aws, ec2, image(aws, snapshot=snapshot(aws, VolumeSize=2)))
    assert done(aws, ec2, begin(ec2, number, ImageId=image(aws, "small"))) == "succeeded"
    assert volume(ec2, root(ec2, number))["Size"] == 2
    big = image(aws, "big", snapshot=snapshot(aws, VolumeSize=3))
    assert done(aws, ec2, begin(ec2, number, ImageId=big)) == "succeeded"
    assert volume(ec2, root(ec2, number))["Size"] == 3


def test_an_encrypted_root_keeps_its_key(aws: StrictAws, ec2: Any) -> None:
    """EC2 User Guide, "Encryption outcomes": the original's key, else the key of the own image, else the default."""
    keys = [aws.client("kms").create_key()["KeyMetadata"]["Arn"] for _ in range(2)]
    ours = [image(aws, f"key-{n}", snapshot=snapshot(aws, Encrypted=True, KmsKeyArn=key)) for n, key in enumerate(keys)]
    number = running(aws, ec2, image(aws, "clear"))
    for name in (*ours, image(aws, "clear-again")):
        assert done(aws, ec2, begin(ec2, number, ImageId=name)) == "succeeded"
        assert volume(ec2, root(ec2, number))["KmsKeyId"] == keys[0]


def test_encryption_by_default_encrypts_the_new_root(aws: StrictAws, ec2: Any) -> None:
    """EC2 User Guide, "Encryption outcomes": whatever image and old root are; then there is no way back by volume."""
    number = running(aws, ec2, image(aws))
    first = root(ec2, number)
    ec2.enable_ebs_encryption_by_default()
    assert done(aws, ec2, begin(ec2, number, ImageId=image(aws, "new"))) == "succeeded"
    assert volume(ec2, root(ec2, number))["Encrypted"] is True
    with refused("InvalidParameterValue"):
        begin(ec2, number, VolumeId=first)


def test_an_images_boot_mode_stays_with_the_instance(aws: StrictAws, ec2: Any) -> None:
    """EC2 User Guide, "Replace the root volume using an AMI": it is propagated; a kept volume changes nothing of it.

    What does not boot so is impaired, and stays so after a stop and a start.
    """
    number = running(aws, ec2, image(aws, BootMode="legacy-bios", TpmSupport=None), InstanceType="t3.micro")
    first, before = root(ec2, number), instance(ec2, number)
    assert (before["BootMode"], before["CurrentInstanceBootMode"]) == ("legacy-bios", "legacy-bios")
    assert (before.get("TpmSupport"), before["EnaSupport"]) == (None, True)
    assert done(aws, ec2, begin(ec2, number, ImageId=image(aws, "new"))) == "succeeded"
    after = instance(ec2, number)
    assert (after["BootMode"], after["CurrentInstanceBootMode"], after["TpmSupport"]) == ("uefi", "uefi", "v2.0")
    assert checked(ec2, number) == "ok"
    assert done(aws, ec2, begin(ec2, number, VolumeId=first)) == "succeeded"
    assert (instance(ec2, number)["CurrentInstanceBootMode"], checked(ec2, number)) == ("uefi", "impaired")
    ec2.stop_instances(InstanceIds=[number])
    aws.advance(10)
    ec2.start_instances(InstanceIds=[number])
    for _ in range(2):
        aws.advance(11)
        ec2.describe_instances()
    assert checked(ec2, number) == "impaired"


def test_a_type_that_lacks_the_boot_mode_gets_no_such_root(aws: StrictAws, ec2: Any) -> None:
    """EC2 User Guide, "Replace the root volume using an AMI": the request fails."""
    how = {"BootMode": None, "TpmSupport": None, "EnaSupport": None}
    number = running(aws, ec2, image(aws, **how), InstanceType="t2.micro")
    with refused("UnsupportedOperation"):
        begin(ec2, number, ImageId=image(aws, "new"))


def test_the_root_of_bare_metal_is_not_replaced(aws: StrictAws, ec2: Any) -> None:
    """EC2 User Guide, "Replace a root volume", requirements: virtualized types and Mac alone."""
    number = running(aws, ec2, image(aws, BootMode="legacy-bios", TpmSupport=None), InstanceType="m5.metal")
    with refused("UnsupportedOperation"):
        begin(ec2, number)


def test_whether_the_root_ends_does_not_go_over_to_a_kept_volume(aws: StrictAws, ec2: Any) -> None:
    """EC2 User Guide, "Replace the root volume using an existing Amazon EBS volume"; to that of an image it does."""
    number = running(aws, ec2, image(aws))
    first = root(ec2, number)
    assert done(aws, ec2, begin(ec2, number, ImageId=image(aws, "new"))) == "succeeded"
    assert instance(ec2, number)["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"] is True
    assert done(aws, ec2, begin(ec2, number, VolumeId=first)) == "succeeded"
    assert instance(ec2, number)["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"] is False


def test_a_task_may_fail_and_leave_no_root(aws: StrictAws, ec2: Any) -> None:
    """API reference, ReplaceRootVolumeTask, TaskState: failing-detached, failed-detached; what is left is stopping."""
    new = image(aws, "new")
    number = running(aws, ec2, image(aws))
    first = root(ec2, number)
    aws.ail(new, "root-detached")
    name, states = begin(ec2, number, ImageId=new), []
    for _ in range(3):
        aws.advance(10)
        states.append(task(ec2, name)["TaskState"])
    assert states == ["in-progress", "failing-detached", "failed-detached"]
    assert (instance(ec2, number)["BlockDeviceMappings"], volume(ec2, first)["State"]) == ([], "available")
    with refused("IncorrectInstanceState"):
        begin(ec2, number, VolumeId=first)
    ec2.stop_instances(InstanceIds=[number])
    aws.advance(10)
    ec2.attach_volume(VolumeId=first, InstanceId=number, Device="/dev/xvda")
    ec2.start_instances(InstanceIds=[number])


def test_a_failed_task_leaves_the_old_root(aws: StrictAws, ec2: Any) -> None:
    """The instance has rebooted with the volume and the image that it had."""
    old, new = image(aws, "old"), image(aws, "new")
    number = running(aws, ec2, old)
    first = root(ec2, number)
    aws.ail(new, "root")
    assert done(aws, ec2, begin(ec2, number, ImageId=new)) == "failed"
    assert (root(ec2, number), instance(ec2, number)["ImageId"], checked(ec2, number)) == (first, old, "initializing")
    assert len(ec2.describe_volumes()["Volumes"]) == 1


def test_a_bad_image_is_seen_by_the_checks_after_the_replacement(aws: StrictAws, ec2: Any) -> None:
    new = image(aws, "new")
    number = running(aws, ec2, image(aws))
    aws.ail(new, "status")
    assert done(aws, ec2, begin(ec2, number, ImageId=new)) == "succeeded"
    aws.advance(10)
    assert checked(ec2, number) == "impaired"


def test_one_task_at_a_time_on_what_runs(aws: StrictAws, ec2: Any) -> None:
    """A second task is refused while one is in hand, and a stopped instance gets none."""
    number, new = running(aws, ec2, image(aws)), image(aws, "new")
    name = begin(ec2, number, ImageId=new)
    with refused("IncorrectInstanceState"):
        begin(ec2, number, ImageId=new)
    assert done(aws, ec2, name) == "succeeded"
    ec2.stop_instances(InstanceIds=[number])
    aws.advance(10)
    with refused("IncorrectInstanceState"):
        begin(ec2, number, ImageId=new)


def test_a_lost_answer_replaces_once(aws: StrictAws, ec2: Any) -> None:
    """The same ClientToken finds the task; with another request it is refused."""
    number, new = running(aws, ec2, image(aws)), image(aws, "new")
    with (
        aws.faulty(Fault("lost", operation="CreateReplaceRootVolumeTask", times=1)),
        pytest.raises(Exception, match="closed"),
    ):
        begin(ec2, number, ImageId=new, ClientToken="t")
    name = begin(ec2, number, ImageId=new, ClientToken="t")
    assert [
        one["ReplaceRootVolumeTaskId"] for one in ec2.describe_replace_root_volume_tasks()["ReplaceRootVolumeTasks"]
    ] == [name]
    with refused("IdempotentParameterMismatch"):
        begin(ec2, number, ClientToken="t")


def test_tasks_are_listed_by_instance_in_pages(aws: StrictAws, ec2: Any) -> None:
    name = image(aws)
    numbers = [running(aws, ec2, name) for _ in range(3)]
    for number in numbers:
        begin(ec2, number)
    asked = ec2.get_paginator("describe_replace_root_volume_tasks").paginate(PaginationConfig={"PageSize": 2})
    assert [len(page["ReplaceRootVolumeTasks"]) for page in asked] == [2, 1]
    mine = [{"Name": "instance-id", "Values": [numbers[1]]}]
    (found,) = ec2.describe_replace_root_volume_tasks(Filters=mine)["ReplaceRootVolumeTasks"]
    assert found["InstanceId"] == numbers[1]
    with refused("InvalidReplaceRootVolumeTaskId.NotFound"):
        task(ec2, "replacevol-0123456789abcdef0")
