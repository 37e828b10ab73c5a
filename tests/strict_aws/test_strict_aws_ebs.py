"""The emulator's EBS direct refuses what AWS refuses, so that an uploader that passes here is right there."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import Any

import pytest

from tests.strict_aws import ACCOUNT, REGION, StrictAws
from tests.strict_aws.blocks import BLOCK
from tests.strict_aws.making import checksum, filled, linear, put, refused, settled, snapshot

OTHER = "222222222222"


@pytest.fixture
def ebs(aws: StrictAws) -> Any:
    return aws.client("ebs")


@pytest.fixture
def started(ebs: Any) -> str:
    return str(ebs.start_snapshot(VolumeSize=1)["SnapshotId"])


def key_in(aws: StrictAws, region: str = REGION, account: str = ACCOUNT) -> str:
    return str(aws.client("kms", region, account).create_key()["KeyMetadata"]["Arn"])


def encryption_by_default(aws: StrictAws) -> None:
    aws.client("ec2").enable_ebs_encryption_by_default()


def test_one_token_makes_one_snapshot(aws: StrictAws, ebs: Any) -> None:
    """The same ClientToken with the same request gives the same snapshot, in this account and region."""
    asked = {"VolumeSize": 1, "ClientToken": "t", "Tags": [{"Key": "k", "Value": "v"}]}
    assert ebs.start_snapshot(**asked)["SnapshotId"] == ebs.start_snapshot(**asked)["SnapshotId"]
    elsewhere = aws.client("ebs", "us-east-1").start_snapshot(**asked)["SnapshotId"]
    other = aws.client("ebs", account=OTHER).start_snapshot(**asked)["SnapshotId"]
    assert len({elsewhere, other, ebs.start_snapshot(**asked)["SnapshotId"]}) == 3
    assert len(aws.snapshots()) == 3


def test_a_token_with_another_request_is_a_conflict(aws: StrictAws, ebs: Any) -> None:
    """The same ClientToken with another request is refused, and makes nothing."""
    ebs.start_snapshot(VolumeSize=1, ClientToken="t")
    with refused("ConflictException", status=409):
        ebs.start_snapshot(VolumeSize=2, ClientToken="t")
    assert len(aws.snapshots()) == 1


def test_a_refused_start_uses_no_token_up(ebs: Any, started: str) -> None:
    """After a refusal the same token may be used, with the same request, once it is right."""
    asked = {"VolumeSize": 1, "ClientToken": "t", "ParentSnapshotId": started}
    with refused("ValidationException", "INVALID_SNAPSHOT_ID"):
        ebs.start_snapshot(**asked)
    ebs.complete_snapshot(SnapshotId=started, ChangedBlocksCount=0)
    settled_parent = ebs.start_snapshot(VolumeSize=1, ClientToken="other")["SnapshotId"]
    assert settled_parent != started


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"Checksum": checksum(b"other")}, "INVALID_PARAMETER_VALUE"),
        ({"BlockIndex": 2048}, "INVALID_PARAMETER_VALUE"),
        ({"BlockIndex": -1}, "INVALID_PARAMETER_VALUE"),
        ({"DataLength": BLOCK - 1}, "INVALID_BLOCK"),
        ({"BlockData": b"short", "Checksum": checksum(b"short"), "DataLength": 5}, "INVALID_BLOCK"),
        ({"BlockData": b"short", "Checksum": checksum(b"short"), "DataLength": BLOCK}, "INVALID_BLOCK"),
        ({"BlockData": bytes(BLOCK + 1), "Checksum": checksum(bytes(BLOCK + 1))}, "INVALID_BLOCK"),
        ({"ChecksumAlgorithm": "MD5"}, "INVALID_PARAMETER_VALUE"),
    ],
)
def test_a_wrong_block_is_refused(aws: StrictAws, started: str, wrong: dict[str, Any], reason: str) -> None:
    """A block has 524,288 bytes, lies within the volume, and is what its SHA-256 says; else nothing is written."""
    lenient = aws.client("ebs", parameter_validation=False)
    with refused("ValidationException", reason):
        put(lenient, started, 0, filled(1), **{"DataLength": BLOCK, **wrong})
    assert aws.snapshots()[started]["written"] == []


def test_the_last_block_of_the_volume_can_be_written(ebs: Any, started: str) -> None:
    """A volume of 1 GiB has 2,048 blocks, the last of which has index 2,047."""
    assert put(ebs, started, 2047, filled(7))["Checksum"] == checksum(filled(7))


def test_writing_a_block_again_counts_once(ebs: Any, started: str) -> None:
    """A block written twice holds what was written last, and counts as one."""
    put(ebs, started, 3, filled(1))
    put(ebs, started, 3, filled(2))
    ebs.complete_snapshot(SnapshotId=started, **linear({3: filled(2)}))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_count_of_blocks_is_refused(aws: StrictAws, ebs: Any, started: str, count: int) -> None:
    """ChangedBlocksCount is the number of blocks that were written to this snapshot."""
    put(ebs, started, 0, filled(1))
    put(ebs, started, 1, filled(2))
    with refused("ValidationException", "INVALID_PARAMETER_VALUE"):
        ebs.complete_snapshot(SnapshotId=started, ChangedBlocksCount=count)
    assert aws.snapshots()[started]["state"] == "pending"


def test_the_linear_checksum_is_over_digests_in_order_of_indexes(ebs: Any, started: str) -> None:
    """The aggregated checksum is verified, whatever the order in which blocks came."""
    put(ebs, started, 5, filled(5))
    put(ebs, started, 1, filled(1))
    digests = [hashlib.sha256(filled(byte)).digest() for byte in (5, 1)]
    said = {"ChangedBlocksCount": 2, "ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
    with refused("ValidationException", "INVALID_PARAMETER_VALUE"):
        ebs.complete_snapshot(SnapshotId=started, Checksum=checksum(b"".join(digests)), **said)
    ebs.complete_snapshot(SnapshotId=started, Checksum=checksum(b"".join(reversed(digests))), **said)


def test_a_checksum_needs_its_algorithm_and_method(ebs: Any, started: str) -> None:
    """Checksum, ChecksumAlgorithm and ChecksumAggregationMethod go together."""
    with refused("ValidationException", "INVALID_PARAMETER_VALUE"):
        ebs.complete_snapshot(SnapshotId=started, ChangedBlocksCount=0, Checksum=checksum(b""))


def test_nothing_is_written_after_completion(ebs: Any, started: str) -> None:
    """A snapshot that was completed takes no block, and is not completed again."""
    ebs.complete_snapshot(SnapshotId=started, ChangedBlocksCount=0)
    with refused("ValidationException", "INVALID_SNAPSHOT_ID"):
        put(ebs, started, 0, filled(1))
    with refused("ValidationException", "INVALID_SNAPSHOT_ID"):
        ebs.complete_snapshot(SnapshotId=started, ChangedBlocksCount=0)


def test_a_snapshot_is_pending_before_it_is_completed(aws: StrictAws, ebs: Any, started: str) -> None:
    """Completing takes its time; until then the snapshot cannot be read."""
    aws.hold()
    put(ebs, started, 0, filled(1))
    assert ebs.complete_snapshot(SnapshotId=started, ChangedBlocksCount=1)["Status"] == "pending"
    shown = aws.client("ec2").describe_snapshots(SnapshotIds=[started])["Snapshots"][0]
    assert (shown["State"], shown["Progress"]) == ("pending", "0%")
    with refused("ValidationException", "INVALID_SNAPSHOT_ID"):
        ebs.list_snapshot_blocks(SnapshotId=started)
    aws.release()
    shown = aws.client("ec2").describe_snapshots(SnapshotIds=[started])["Snapshots"][0]
    assert (shown["State"], shown["Progress"]) == ("completed", "100%")
    assert len(ebs.list_snapshot_blocks(SnapshotId=started)["Blocks"]) == 1


def test_an_abandoned_snapshot_is_cancelled_in_time(aws: StrictAws, ebs: Any) -> None:
    """Timeout counts from the last block; afterwards the snapshot is in error and takes nothing."""
    name = ebs.start_snapshot(VolumeSize=1, Timeout=10)["SnapshotId"]
    aws.advance(500)
    put(ebs, name, 0, filled(1))
    aws.advance(500)
    put(ebs, name, 1, filled(1))
    aws.advance(601)
    assert aws.client("ec2").describe_snapshots(SnapshotIds=[name])["Snapshots"][0]["State"] == "error"
    with refused("ValidationException", "INVALID_SNAPSHOT_ID"):
        put(ebs, name, 2, filled(1))


def test_a_child_inherits_its_parents_blocks(aws: StrictAws, ebs: Any) -> None:
    """A delta on a parent holds the parent's blocks and its own; a zero that was written is a zero that is read."""
    parent = snapshot(aws, {0: filled(1), 1: filled(2), 2: filled(3)})
    child = snapshot(aws, {1: bytes(BLOCK), 4: filled(9)}, ParentSnapshotId=parent)
    held = [filled(1), bytes(BLOCK), filled(3), bytes(BLOCK), filled(9)]
    assert list(aws.read(child, 5 * BLOCK)) == held
    assert list(aws.read(parent, 3 * BLOCK)) == [filled(1), filled(2), filled(3)]
    changed = ebs.list_changed_blocks(FirstSnapshotId=parent, SecondSnapshotId=child)["ChangedBlocks"]
    assert [(one["BlockIndex"], "FirstBlockToken" in one) for one in changed] == [(1, True), (4, False)]


def test_blocks_are_read_back_by_their_tokens(aws: StrictAws, ebs: Any) -> None:
    """What a listing names can be read with its token, and with no other."""
    name = snapshot(aws, {0: filled(1), 9: filled(2)})
    listed = ebs.list_snapshot_blocks(SnapshotId=name)
    assert (listed["VolumeSize"], listed["BlockSize"]) == (1, BLOCK)
    first, second = listed["Blocks"]
    got = ebs.get_snapshot_block(SnapshotId=name, BlockIndex=9, BlockToken=second["BlockToken"])
    assert (got["BlockData"].read(), got["DataLength"], got["Checksum"]) == (filled(2), BLOCK, checksum(filled(2)))
    with refused("ValidationException", "INVALID_BLOCK_TOKEN"):
        ebs.get_snapshot_block(SnapshotId=name, BlockIndex=9, BlockToken=first["BlockToken"])


def test_listings_come_in_pages(aws: StrictAws, ebs: Any) -> None:
    """MaxResults is kept, from 100 to 10,000, and the token leads to what follows."""
    blocks = {index: filled(1) for index in range(130)}
    name = snapshot(aws, blocks)
    first = ebs.list_snapshot_blocks(SnapshotId=name, MaxResults=100)
    second = ebs.list_snapshot_blocks(SnapshotId=name, MaxResults=100, NextToken=first["NextToken"])
    assert [one["BlockIndex"] for page in (first, second) for one in page["Blocks"]] == list(range(130))
    assert "NextToken" not in second
    late = ebs.list_snapshot_blocks(SnapshotId=name, StartingBlockIndex=125)["Blocks"]
    assert [one["BlockIndex"] for one in late] == [125, 126, 127, 128, 129]
    with refused("ValidationException", "INVALID_PARAMETER_VALUE"):
        aws.client("ebs", parameter_validation=False).list_snapshot_blocks(SnapshotId=name, MaxResults=99)
    with refused("ValidationException", "INVALID_PAGE_TOKEN"):
        ebs.list_snapshot_blocks(SnapshotId=name, NextToken=b64encode(b"mine").decode())


def test_unrelated_snapshots_are_not_compared(aws: StrictAws, ebs: Any) -> None:
    """Changed blocks are told within one lineage only, and of two snapshots."""
    one, other = snapshot(aws), snapshot(aws)
    with refused("ValidationException", "UNRELATED_SNAPSHOTS"):
        ebs.list_changed_blocks(FirstSnapshotId=one, SecondSnapshotId=other)
    with refused("ValidationException", "INVALID_SNAPSHOT_ID"):
        ebs.list_changed_blocks(SecondSnapshotId=other)


def test_a_parent_must_be_completed_own_and_not_larger(aws: StrictAws, ebs: Any, started: str) -> None:
    """A child cannot stand on a pending, a larger, a foreign, or an absent snapshot."""
    with refused("ValidationException", "INVALID_SNAPSHOT_ID"):
        ebs.start_snapshot(VolumeSize=1, ParentSnapshotId=started)
    large = snapshot(aws, VolumeSize=2)
    with refused("ValidationException", "INVALID_VOLUME_SIZE"):
        ebs.start_snapshot(VolumeSize=1, ParentSnapshotId=large)
    foreign = snapshot(aws, account=OTHER)
    aws.client("ec2", account=OTHER).modify_snapshot_attribute(
        SnapshotId=foreign, Attribute="createVolumePermission", OperationType="add", UserIds=[ACCOUNT]
    )
    for absent in (foreign, "snap-0123456789abcdef0", snapshot(aws, region="us-east-1")):
        with refused("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", 404):
            ebs.start_snapshot(VolumeSize=1, ParentSnapshotId=absent)


def test_a_snapshot_of_another_account_takes_no_blocks(aws: StrictAws, started: str) -> None:
    """Others do not see it; those it is shared with may not write to it."""
    other = aws.client("ebs", account=OTHER)
    with refused("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", 404):
        put(other, started, 0, filled(1))
    with refused("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", 404):
        put(aws.client("ebs", "us-east-1"), started, 0, filled(1))
    aws.client("ec2").modify_snapshot_attribute(SnapshotId=started, OperationType="add", UserIds=[OTHER])
    with refused("AccessDeniedException", "UNAUTHORIZED_ACCOUNT", 403):
        put(other, started, 0, filled(1))


def test_a_volume_is_not_larger_than_64_tib(ebs: Any) -> None:
    with refused("ValidationException", "INVALID_VOLUME_SIZE"):
        ebs.start_snapshot(VolumeSize=65_537)


@pytest.mark.parametrize(
    "tags", [[{"Key": "aws:mine", "Value": "x"}], [{"Key": f"k{n}", "Value": ""} for n in range(51)]]
)
def test_tags_have_limits(aws: StrictAws, ebs: Any, tags: list[dict[str, str]]) -> None:
    """No tag begins with aws:, and there are fifty at most."""
    with refused("ValidationException", "INVALID_TAG"):
        ebs.start_snapshot(VolumeSize=1, Tags=tags)
    assert not aws.snapshots()


def test_tags_are_there_from_the_start(aws: StrictAws, ebs: Any) -> None:
    """Tags given at creation are seen by EC2 while the snapshot is still pending."""
    name = ebs.start_snapshot(VolumeSize=1, Tags=[{"Key": "k", "Value": "v"}])["SnapshotId"]
    found = aws.client("ec2").describe_snapshots(Filters=[{"Name": "tag:k", "Values": ["v"]}])["Snapshots"]
    assert [(one["SnapshotId"], one["State"], one["Tags"]) for one in found] == [
        (name, "pending", [{"Key": "k", "Value": "v"}])
    ]


def test_encryption_follows_the_request(aws: StrictAws, ebs: Any) -> None:
    """Encrypted with the named key; without one, with the account's default key, which is AWS's own until changed."""
    key = key_in(aws)
    assert ebs.start_snapshot(VolumeSize=1, Encrypted=True, KmsKeyArn=key)["KmsKeyArn"] == key
    managed = ebs.start_snapshot(VolumeSize=1, Encrypted=True)["KmsKeyArn"]
    kms = aws.client("kms").describe_key(KeyId="alias/aws/ebs")["KeyMetadata"]
    assert (managed, kms["KeyManager"]) == (kms["Arn"], "AWS")
    aws.client("ec2").modify_ebs_default_kms_key_id(KmsKeyId=key)
    assert ebs.start_snapshot(VolumeSize=1, Encrypted=True)["KmsKeyArn"] == key
    assert "KmsKeyArn" not in ebs.start_snapshot(VolumeSize=1)


def test_encryption_by_default_leaves_nothing_plain(aws: StrictAws, ebs: Any) -> None:
    """Where encryption by default is on, a snapshot is encrypted unasked, and none can be asked to be plain."""
    encryption_by_default(aws)
    assert ebs.start_snapshot(VolumeSize=1)["SseType"] == "sse-kms"
    with refused("ValidationException", "INVALID_PARAMETER_VALUE"):
        ebs.start_snapshot(VolumeSize=1, Encrypted=False)


def test_a_child_takes_its_parents_encryption(aws: StrictAws, ebs: Any) -> None:
    """The child of an encrypted parent has its key, whatever the account's default."""
    key = key_in(aws)
    parent = snapshot(aws, Encrypted=True, KmsKeyArn=key)
    encryption_by_default(aws)
    assert ebs.start_snapshot(VolumeSize=1, ParentSnapshotId=parent)["KmsKeyArn"] == key


@pytest.mark.parametrize("extra", [{"Encrypted": True}, {"Encrypted": False}, {"KmsKeyArn": "key"}])
def test_encryption_is_not_said_of_a_child(aws: StrictAws, ebs: Any, extra: dict[str, Any]) -> None:
    """Encrypted or KmsKeyArn beside ParentSnapshotId is refused."""
    parent = snapshot(aws)
    extra = {"KmsKeyArn": key_in(aws)} if "KmsKeyArn" in extra else extra
    with refused("ValidationException", "INVALID_PARAMETER_VALUE"):
        ebs.start_snapshot(VolumeSize=1, ParentSnapshotId=parent, **extra)


def test_an_unencrypted_parent_does_not_do_where_encryption_is_the_default(aws: StrictAws, ebs: Any) -> None:
    parent = snapshot(aws)
    encryption_by_default(aws)
    with refused("ValidationException", "INVALID_PARAMETER_VALUE"):
        ebs.start_snapshot(VolumeSize=1, ParentSnapshotId=parent)


def test_a_key_needs_encrypted_and_must_be_of_use(aws: StrictAws, ebs: Any) -> None:
    """A key without Encrypted, of another region, absent, disabled or for signing is refused."""
    with refused("ValidationException", "INVALID_PARAMETER_VALUE"):
        ebs.start_snapshot(VolumeSize=1, KmsKeyArn=key_in(aws))
    disabled = key_in(aws)
    aws.client("kms").disable_key(KeyId=disabled)
    signing = aws.client("kms").create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    absent = disabled[:-4] + "0000"
    for wrong in (key_in(aws, "us-east-1"), disabled, signing, absent):
        with refused("ValidationException", "INVALID_CUSTOMER_KEY"):
            ebs.start_snapshot(VolumeSize=1, Encrypted=True, KmsKeyArn=wrong)


def test_what_nobody_wrote_is_noise_when_encrypted(aws: StrictAws) -> None:
    """Blocks left out of an encrypted full snapshot do not read as zeros; those of a plain one do."""
    plain, encrypted = snapshot(aws), snapshot(aws, Encrypted=True)
    assert list(aws.read(plain, 2 * BLOCK))[1] == bytes(BLOCK)
    first, second = aws.read(encrypted, 2 * BLOCK)
    assert (first, second != bytes(BLOCK)) == (filled(1), True)
    child = snapshot(aws, {1: bytes(BLOCK)}, ParentSnapshotId=encrypted)
    assert list(aws.read(child, 2 * BLOCK)) == [filled(1), bytes(BLOCK)]


def test_a_deleted_snapshot_leaves_its_children_whole(aws: StrictAws) -> None:
    """A parent may go; what its children inherited stays."""
    parent = snapshot(aws)
    child = snapshot(aws, {1: filled(2)}, ParentSnapshotId=parent)
    aws.client("ec2").delete_snapshot(SnapshotId=parent)
    assert list(aws.read(child, 2 * BLOCK)) == [filled(1), filled(2)]


def test_settled_means_no_longer_pending(aws: StrictAws, ebs: Any, started: str) -> None:
    """The helper that other tests wait with looks at the state."""
    ebs.complete_snapshot(SnapshotId=started, ChangedBlocksCount=0)
    settled(aws.client("ec2"), snapshot=started)
    assert aws.snapshots()[started]["state"] == "completed"
