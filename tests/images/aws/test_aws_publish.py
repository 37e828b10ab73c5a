"""A machine image becomes images in several regions: whole, dated, shared, found by its channel; never twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from hardening.foundation.errors import ContentError, OutsideError, RefusedError
from images.aws import launch_permissions, snapshots
from images.aws.client import Client
from images.aws.cloud import Cloud
from images.aws.release_store import AwsStore, channel_name
from images.aws.signed_statement import parameter
from images.machine.blocks import BLOCK
from images.release.publish import release, stands
from tests.images.aws.test_aws_faults import Killed, dying
from tests.strict_aws import Fault, StrictAws
from tests.support.cloud import (
    DAY,
    HOME,
    ORGANIZATION,
    OTHER,
    PARTNER,
    THIRD,
    at,
    built,
    cloud_for,
    definition,
    disk,
    publish,
    settings_at,
)
from tests.support.publishing import judged

NOISE = hashlib.sha256(b"noise").digest() * (BLOCK // 32)


def image_of(aws: StrictAws, region: str) -> dict[str, Any]:
    """The one image of ours in a region, as EC2 describes it."""
    (found,) = aws.client("ec2", region).describe_images(Owners=["self"])["Images"]
    return dict(found)


def snapshot_of(image: dict[str, Any]) -> str:
    (mapping,) = image["BlockDeviceMappings"]
    return str(mapping["Ebs"]["SnapshotId"])


def tags_of(image: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in image["Tags"]}


def read(aws: StrictAws, image: dict[str, Any], blocks: int) -> list[bytes]:
    """The blocks that a volume made from the image would hold."""
    return list(aws.read(snapshot_of(image), blocks * BLOCK))


def put_blocks(aws: StrictAws, since: int = 0) -> list[int]:
    """The indexes of the blocks that were put, in order."""
    found = aws.calls("ebs", "PutSnapshotBlock", since=since, effect=True)
    return sorted(call["params"]["BlockIndex"] for call in found)


def last_call(aws: StrictAws) -> int:
    return max((call["number"] for call in aws.calls()), default=0)


def test_an_image_stands_in_every_region_and_holds_the_disk(aws: StrictAws, cloud: Cloud) -> None:
    """Block for block, encrypted by each region's own key, available, and nothing is pending."""
    blocks = disk()
    publish(cloud, blocks)
    for region in (HOME, OTHER, THIRD):
        image = image_of(aws, region)
        assert image["State"] == "available"
        assert read(aws, image, len(blocks)) == blocks
        snapshot = aws.snapshots()[snapshot_of(image)]
        assert (snapshot["key"], snapshot["state"]) == (cloud.aws.kms_keys[region], "completed")
    assert put_blocks(aws) == list(range(len(blocks)))


def test_an_image_boots_by_uefi_with_a_tpm_and_imdsv2_alone(aws: StrictAws, cloud: Cloud) -> None:
    """In every region, on a gp3 root that goes with its instance."""
    publish(cloud, disk())
    for region in (HOME, OTHER, THIRD):
        image = image_of(aws, region)
        assert (image["BootMode"], image["TpmSupport"], image["ImdsSupport"]) == ("uefi", "v2.0", "v2.0")
        assert (image["EnaSupport"], image["Architecture"]) == (True, "x86_64")
        (root,) = image["BlockDeviceMappings"]
        assert (root["DeviceName"], root["Ebs"]["VolumeType"]) == (image["RootDeviceName"], "gp3")
        assert root["Ebs"]["DeleteOnTermination"] is True


def test_dates_stand_in_tags_and_in_the_services_own_deprecation(aws: StrictAws, cloud: Cloud) -> None:
    """The same keys as in a container's annotations; the tag that lets the reaper in is gone."""
    release = publish(cloud, disk()).release
    for region in (HOME, OTHER, THIRD):
        image, expires = image_of(aws, region), f"{release.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        assert tags_of(image)["dev.goldsmith.expires-at"] == expires
        assert tags_of(image)["dev.goldsmith.release"] == release.digest
        assert tags_of(image)["dev.goldsmith.input-digest"] == release.input_digest
        deprecated = datetime.fromisoformat(image["DeprecationTime"])
        assert abs(deprecated - release.expires_at) < timedelta(minutes=1)
        snapshot = aws.client("ec2", region).describe_snapshots(SnapshotIds=[snapshot_of(image)])["Snapshots"][0]
        assert tags_of(snapshot)["dev.goldsmith.content"] == release.content
        assert "dev.goldsmith.reap-after" not in tags_of(image) | tags_of(snapshot)


def test_it_is_shared_with_those_of_the_settings_and_nobody_else(aws: StrictAws, cloud: Cloud) -> None:
    """Accounts and organisations may launch it, accounts may copy its snapshot."""
    publish(cloud, disk())
    for region in (HOME, OTHER, THIRD):
        image, ec2 = image_of(aws, region), aws.client("ec2", region)
        allowed = aws.images()[image["ImageId"]]["permissions"]
        assert allowed == [{"UserId": PARTNER}, {"OrganizationArn": ORGANIZATION}]
        asked = {"SnapshotId": snapshot_of(image), "Attribute": "createVolumePermission"}
        assert ec2.describe_snapshot_attribute(**asked)["CreateVolumePermissions"] == [{"UserId": PARTNER}]


def closed(cloud: Cloud, days: int, **settings: Any) -> Cloud:
    """The same cloud some days later, which shares with nobody but whom these settings name."""
    nobody = {"share_accounts": (), "share_organizations": ()}
    aws = cloud.aws.model_copy(update=nobody | settings)
    return replace(at(cloud, cloud.now + days * DAY), settings=cloud.settings.model_copy(update={"aws": aws}))


def shared_with(aws: StrictAws) -> set[str]:
    """Whom any image or snapshot of the account is shared with."""
    images = {value for image in aws.images().values() for one in image["permissions"] for value in one.values()}
    snapshots = {user for snapshot in aws.snapshots().values() for user in snapshot["users"]}
    return images | snapshots


def test_whom_the_settings_no_longer_name_loses_what_we_gave_and_nothing_else(aws: StrictAws, cloud: Cloud) -> None:
    """In every region, of older releases too, audited, once. What somebody else gave stays; what runs goes on."""
    friend = "333333333333"
    old = publish(cloud, disk()).release
    image, ec2 = image_of(aws, HOME), aws.client("ec2")
    theirs = aws.client("ec2", account=PARTNER)
    runs = theirs.run_instances(ImageId=image["ImageId"], MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    ec2.modify_image_attribute(ImageId=image["ImageId"], LaunchPermission={"Add": [{"UserId": friend}]})
    artifact, now = built(cloud, disk()), closed(cloud, 1)
    kept = replace(now, settings=cloud.settings)
    assert stands(AwsStore(kept), artifact, definition(), "default", thorough=False) == old
    why = stands(AwsStore(now), artifact, definition(), "default", thorough=False)
    assert why == (
        f"6 image(s) and snapshot(s) are still shared with {PARTNER}, {ORGANIZATION}, whom the settings no longer name"
    )
    assert publish(now, disk(seed=2)).action == "published"
    assert shared_with(aws) == {friend}
    lines = [line for line in cloud.ledger.audit_lines() if line.action == "unshare"]
    assert {line.subject.partition("/")[0] for line in lines} == {HOME, OTHER, THIRD}
    assert (len(lines), PARTNER in lines[0].detail) == (6, True)
    aws.advance(60)
    (shown,) = theirs.describe_instances(InstanceIds=[runs])["Reservations"]
    assert shown["Instances"][0]["State"]["Name"] == "running"
    number = last_call(aws)
    publish(closed(cloud, 2), disk(seed=2))
    assert not [call for call in aws.calls(since=number) if call["operation"].startswith("Modify")]
    assert len([line for line in cloud.ledger.audit_lines() if line.action == "unshare"]) == 6


def test_what_others_gave_before_us_is_not_ours_to_take(aws: StrictAws, cloud: Cloud) -> None:
    """The image was shared by hand with an account that the settings named only later, and do not name any more."""
    publish(closed(cloud, 0), disk())
    image, ec2 = image_of(aws, HOME)["ImageId"], aws.client("ec2")
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": PARTNER}]})
    publish(cloud, disk())
    assert shared_with(aws) == {PARTNER, ORGANIZATION}
    publish(closed(cloud, 1), disk())
    assert aws.images()[image]["permissions"] == [{"UserId": PARTNER}]
    assert shared_with(aws) == {PARTNER}


def test_an_image_that_somebody_made_public_is_not_whole(aws: StrictAws, cloud: Cloud) -> None:
    """A night that looks sees it, and publishing again is refused until it is closed."""
    bare = closed(cloud, 0, encrypted=False)
    done = publish(bare, disk()).release
    assert AwsStore(bare).publication().whole(done)
    image, ec2 = image_of(aws, OTHER)["ImageId"], aws.client("ec2", OTHER)
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"Group": "all"}]})
    assert not AwsStore(bare).publication().whole(done)
    with pytest.raises(RefusedError, match=f"{image} in {OTHER} is public"):
        publish(bare, disk())


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_withdrawal_that_is_killed_or_fails_is_finished_by_the_next(
    aws: StrictAws, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, after: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever call was the last; where AWS refuses one, the publication goes on and the rest is closed."""
    publish(cloud, disk())
    now = closed(cloud, 1)
    with aws.faulty(Fault("denied", operation="Modify*", region=OTHER)):
        for nth in (0, 1):  # in whatever order the regions come
            with monkeypatch.context() as patched:
                patched.setattr(Client, "call", dying("ModifySnapshotAttribute", nth, after=after))
                with suppress(Killed):
                    publish(now, disk())
        assert publish(now, disk()).action == "unchanged"
    assert PARTNER in shared_with(aws)
    assert f"stays shared with {PARTNER}" in capsys.readouterr().err
    publish(now, disk())
    assert not shared_with(aws)
    assert not launch_permissions.overdue(now)


def test_a_night_sees_that_an_image_is_gone_or_no_longer_shared(aws: StrictAws, cloud: Cloud) -> None:
    """Of a release that stands by its ledger; publishing again makes it whole."""
    done = publish(cloud, disk()).release
    making = AwsStore(cloud).publication()
    assert making.whole(done)
    image, ec2 = image_of(aws, OTHER)["ImageId"], aws.client("ec2", OTHER)
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Remove": [{"UserId": PARTNER}]})
    assert not making.whole(done)
    assert publish(cloud, disk()).release == done
    assert making.whole(done)
    ec2.deregister_image(ImageId=image)
    assert not making.whole(done)
    assert publish(cloud, disk()).release == done
    assert making.whole(done)


def test_the_channel_moves_last(aws: StrictAws, cloud: Cloud) -> None:
    """In every region it names that region's image, which is there for good by then; nothing comes after it."""
    publish(cloud, disk())
    for region in (HOME, OTHER, THIRD):
        assert (
            parameter(cloud, region, channel_name(cloud, "debian-server", "candidate"))
            == image_of(aws, region)["ImageId"]
        )
    changes = [
        call["operation"]
        for call in aws.calls(outcome="ok")
        if not call["operation"].startswith(("Get", "Describe", "List", "CreateKey"))
    ]
    assert changes[-6:] == ["DeleteTags"] * 3 + ["PutParameter"] * 3


def test_published_again_nothing_changes(aws: StrictAws, cloud: Cloud) -> None:
    """No block, no image, no signature, no parameter; and it says that it is unchanged."""
    blocks = disk()
    publish(cloud, blocks)
    before, images, number = aws.snapshots(), aws.images(), last_call(aws)
    done = publish(at(cloud, cloud.now + DAY), blocks)
    assert (done.action, aws.snapshots(), aws.images()) == ("unchanged", before, images)
    operations = {call["operation"] for call in aws.calls(since=number, outcome="ok")}
    assert not operations & {"StartSnapshot", "PutSnapshotBlock", "RegisterImage", "CopyImage", "Sign", "PutParameter"}


def test_a_later_disk_is_a_delta_of_what_differs_and_of_what_became_zero(aws: StrictAws, cloud: Cloud) -> None:
    """Only those blocks are sent, the rest is the parent's, and every block reads back as the disk has it."""
    publish(cloud, disk())
    first, number = image_of(aws, HOME), last_call(aws)
    changed = disk({1: NOISE, 3: bytes(BLOCK)})
    publish(at(cloud, cloud.now + DAY), changed)
    assert put_blocks(aws, number) == [1, 3]
    (newest,) = [
        image
        for image in aws.images().values()
        if image["region"] == HOME and image["snapshots"] != [snapshot_of(first)]
    ]
    snapshot = aws.snapshots()[newest["snapshots"][0]]
    assert snapshot["parent"] == snapshot_of(first)
    assert list(aws.read(newest["snapshots"][0], len(changed) * BLOCK)) == changed


@pytest.mark.parametrize("blocks", [9, 15])
def test_a_disk_that_grew_or_shrank_reads_back_too(aws: StrictAws, cloud: Cloud, blocks: int) -> None:
    """Beyond the parent's end every block is written, zeros too; what a longer parent had there becomes zeros."""
    publish(cloud, disk())
    first = snapshot_of(image_of(aws, HOME))
    other = disk(blocks=blocks)
    publish(at(cloud, cloud.now + DAY), other)
    (newest,) = [
        image for image in aws.client("ec2").describe_images(Owners=["self"])["Images"] if snapshot_of(image) != first
    ]
    snapshot = aws.snapshots()[snapshot_of(newest)]
    assert snapshot["parent"] == first
    assert list(aws.read(snapshot_of(newest), len(other) * BLOCK)) == other
    assert len(snapshot["blocks"]) == max(blocks, len(disk()))


def test_another_key_means_a_full_upload(aws: StrictAws, cloud: Cloud, tmp_path: Path) -> None:
    """A delta would be encrypted as its parent is: a new key in the settings is a new first upload."""
    publish(cloud, disk())
    settings = settings_at(aws, tmp_path)
    number = last_call(aws)
    other = cloud_for(settings, cloud.now + DAY)
    publish(other, disk({0: NOISE}))
    assert len(put_blocks(aws, number)) == len(disk())
    assert {snapshot["key"] for snapshot in aws.snapshots().values() if snapshot["region"] == HOME} == {
        cloud.aws.kms_keys[HOME],
        settings.aws.kms_keys[HOME],
    }
    other.ledger.close()


def test_a_parent_that_is_gone_is_not_stood_on(aws: StrictAws, cloud: Cloud) -> None:
    """Somebody removed the image and its snapshot by hand: the next upload is a full one."""
    publish(cloud, disk())
    image = image_of(aws, HOME)
    aws.client("ec2").deregister_image(ImageId=image["ImageId"])
    aws.client("ec2").delete_snapshot(SnapshotId=snapshot_of(image))
    number = last_call(aws)
    publish(at(cloud, cloud.now + DAY), disk({0: NOISE}))
    assert len(put_blocks(aws, number)) == len(disk())


def test_near_its_end_it_is_dated_anew_over_the_same_snapshots(aws: StrictAws, cloud: Cloud) -> None:
    """No block is sent and nothing is copied: new images, with new dates and statement, over what is there."""
    blocks = disk()
    publish(cloud, blocks)
    snapshots, number = aws.snapshots(), last_call(aws)
    aws.advance(25 * DAY.total_seconds())
    done = publish(at(cloud, cloud.now + 25 * DAY), blocks, redate=True)
    assert (done.action, aws.snapshots()) == ("re-dated", snapshots)
    assert not aws.calls("ebs", since=number)
    assert not aws.calls("ec2", "CopyImage", since=number, outcome="ok")
    assert len(aws.images()) == 6
    assert done.release.expires_at == cloud.now + 55 * DAY


def test_a_lost_ledger_does_not_stand_in_the_way(aws: StrictAws, cloud: Cloud) -> None:
    """The same content again, by a ledger that knows nothing: made again, under tokens of its own."""
    publish(cloud, disk())
    settings = cloud.settings.model_copy(update={"database": f"sqlite:///{cloud.settings.state_dir}/new"})
    new = cloud_for(settings, cloud.now + timedelta(hours=1))
    assert publish(new, disk()).action == "published"
    assert len(aws.images()) == len(aws.snapshots()) == 6
    new.ledger.close()


def test_a_new_region_gets_its_copy_and_the_others_stay(aws: StrictAws, cloud: Cloud, tmp_path: Path) -> None:
    """Publication completes what the settings ask for now; the statement then speaks of all."""
    few = cloud_for(cloud.settings.model_copy(update={"aws": cloud.aws.model_copy(update={"regions": ()})}), cloud.now)
    publish(few, disk())
    few.ledger.close()
    images = aws.images()
    assert publish(cloud, disk()).action == "unchanged"
    assert len(aws.images()) == 3
    assert images.items() <= aws.images().items()


@pytest.mark.parametrize("late", [False, True], ids=["before", "meanwhile"])
def test_a_strangers_image_of_the_same_name_is_refused(
    aws: StrictAws, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """In any region, before a block is sent, or at the latest when it appeared meanwhile; and it is left alone."""
    if late:
        monkeypatch.setattr("images.aws.publish.AwsPublication.refuse_taken", lambda self, release: None)
    blocks = disk()
    publish(cloud, blocks)
    name = image_of(aws, HOME)["Name"]
    aws.reset()
    settings = settings_at(aws, cloud.settings.state_dir.parent / "other")
    fresh = cloud_for(settings, cloud.now)
    volume = aws.client("ebs", OTHER).start_snapshot(VolumeSize=1)["SnapshotId"]
    aws.client("ebs", OTHER).complete_snapshot(SnapshotId=volume, ChangedBlocksCount=0)
    root = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": volume}}
    _completed(aws, OTHER, volume)
    mine = aws.client("ec2", OTHER).register_image(
        Name=name, RootDeviceName="/dev/sda1", BlockDeviceMappings=[root], VirtualizationType="hvm"
    )
    with pytest.raises(RefusedError, match=f"{name} is taken in {OTHER}"):
        publish(fresh, blocks)
    assert mine["ImageId"] in aws.images()
    assert len(aws.images()) == (3 if late else 1)
    assert bool(put_blocks(aws)) == late
    fresh.ledger.close()


def _completed(aws: StrictAws, region: str, snapshot: str) -> None:
    while aws.client("ec2", region).describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"] != "completed":
        pass


def test_what_the_gate_refuses_never_reaches_aws(aws: StrictAws, cloud: Cloud) -> None:
    """Nothing is asked there at all."""
    artifact, number = built(cloud, disk()), last_call(aws)
    with pytest.raises(RefusedError, match="nothing was published"):
        release(AwsStore(cloud), artifact, definition(), judged(cloud.now, allowed=False))
    assert last_call(aws) == number


def test_a_disk_that_was_changed_since_it_was_built_is_refused_by_its_checksum(aws: StrictAws, cloud: Cloud) -> None:
    """The service holds every block to the digest of the build."""
    artifact = built(cloud, disk())
    file = next((cloud.settings.state_dir / "disks").iterdir())
    file.write_bytes(NOISE + file.read_bytes()[BLOCK:])
    with pytest.raises(OutsideError, match="PutSnapshotBlock"):
        release(AwsStore(cloud), artifact, definition(), judged(cloud.now))
    assert not aws.images()


def test_a_snapshot_that_was_never_written_whole_reads_as_noise(aws: StrictAws, cloud: Cloud) -> None:
    """Why no block is left out, zeros neither: the emulator shows what an encrypted snapshot does there."""
    key = cloud.aws.kms_keys[HOME]
    ebs = aws.client("ebs")
    snapshot = ebs.start_snapshot(VolumeSize=1, Encrypted=True, KmsKeyArn=key)["SnapshotId"]
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=0)
    assert list(aws.read(snapshot, BLOCK)) != [bytes(BLOCK)]


def test_settings_that_cannot_work_are_told_before_anything_is_asked(aws: StrictAws, cloud: Cloud) -> None:
    """A region without a key, a key of elsewhere, no key that signs, no AWS at all."""
    number = last_call(aws)
    for change, words in (
        ({"kms_keys": {}}, "aws.kms_keys: no key is set for eu-central-1; the account's default key will not do"),
        ({"kms_keys": {**cloud.aws.kms_keys, OTHER: cloud.aws.kms_keys[HOME]}}, "is no key of eu-west-1"),
        ({"signing_key": ""}, "aws.signing_key: no key is set"),
        ({"region": ""}, "goldsmith.toml: aws.region: it is not set, and nothing at AWS is read or made"),
        ({"account": ""}, "goldsmith.toml: aws.account: it is not set, and nothing at AWS is read or made"),
    ):
        wrong = replace(cloud, settings=cloud.settings.model_copy(update={"aws": cloud.aws.model_copy(update=change)}))
        with pytest.raises(ContentError, match=words):
            publish(wrong, disk())
    assert last_call(aws) == number


class _Interrupted(tuple[int, ...]):
    """Indexes of blocks; Ctrl-C comes when they have all been queued."""

    def __iter__(self) -> Iterator[int]:
        yield from super().__iter__()
        raise KeyboardInterrupt


def test_an_upload_that_is_interrupted_sends_nothing_of_what_is_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block on its way is awaited; the others would take minutes."""
    goes, sent = Event(), list[int]()

    class Pool(ThreadPoolExecutor):
        """Lets the first block go as soon as its end is waited for, and no sooner."""

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            if wait:
                goes.set()
            super().shutdown(wait=wait, cancel_futures=cancel_futures)

    class Ebs:
        def call(self, _operation: str, **given: object) -> None:
            goes.wait(600)
            sent.append(len(sent))

    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"")
    monkeypatch.setattr(snapshots, "ThreadPoolExecutor", Pool)
    ebs: Any = Ebs()
    with pytest.raises(KeyboardInterrupt):
        snapshots.upload(ebs, "snap-1", disk, _Interrupted(range(50)), bytes(32 * 50), parallel=1, progress=print)
    assert len(sent) <= 1
