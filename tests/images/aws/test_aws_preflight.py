"""What an account's own settings forbid is refused before a block is sent, and an image of ours is never public."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import ContentError, OutsideError, RefusedError
from images.aws.cloud import Cloud
from images.aws.release_store import AwsStore
from images.release.publish import release
from tests.strict_aws import StrictAws
from tests.support.cloud import HOME, OTHER, PARTNER, built, cloud_for, definition, disk, publish, settings_at
from tests.support.publishing import judged


@pytest.fixture
def cloud(aws: StrictAws, tmp_path: Path) -> Iterator[Cloud]:
    """A cloud of two regions."""
    made = cloud_for(settings_at(aws, tmp_path, regions=(OTHER,)))
    yield made
    made.ledger.close()


def changed(cloud: Cloud, **changes: Any) -> Cloud:
    """The same cloud by other settings."""
    return replace(cloud, settings=cloud.settings.model_copy(update={"aws": cloud.aws.model_copy(update=changes)}))


def refused(aws: StrictAws, cloud: Cloud, words: str, kind: type[Exception] = RefusedError) -> None:
    """Assert that publishing ends with these words before any snapshot is begun."""
    with pytest.raises(kind, match=words):
        publish(cloud, disk())
    assert not aws.calls("ebs")


def test_credentials_of_another_account_are_refused(aws: StrictAws, cloud: Cloud) -> None:
    """Images would land where nobody looks for them."""
    refused(aws, changed(cloud, account=PARTNER, roles={}), f"are of account 123456789012, and images .* {PARTNER}")


def test_the_accounts_default_key_is_refused_by_its_arn_too(aws: StrictAws, cloud: Cloud) -> None:
    """What it encrypts cannot be shared."""
    default = aws.client("kms", OTHER).describe_key(KeyId="alias/aws/ebs")["KeyMetadata"]["Arn"]
    keys = {**cloud.aws.kms_keys, OTHER: default}
    refused(aws, changed(cloud, kms_keys=keys), "AWS's own key of the account: what it encrypts cannot be shared")


def test_a_key_that_is_disabled_or_not_there_is_refused(aws: StrictAws, cloud: Cloud) -> None:
    """In whichever region."""
    aws.client("kms", OTHER).disable_key(KeyId=cloud.aws.kms_keys[OTHER])
    refused(aws, cloud, "is disabled")
    lost = cloud.aws.kms_keys[HOME][:-12] + "0" * 12
    refused(aws, changed(cloud, kms_keys={**cloud.aws.kms_keys, HOME: lost}), "there is no key", ContentError)


def test_a_signing_key_of_another_kind_is_refused(aws: StrictAws, cloud: Cloud) -> None:
    """Statements are signed by ECDSA P-256."""
    made = aws.client("kms").create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    refused(aws, changed(cloud, signing_key=made), "signed by ECC_NIST_P256", ContentError)


def test_plain_images_are_refused_where_a_region_encrypts_by_default(aws: StrictAws, cloud: Cloud) -> None:
    """They would be encrypted by a key that cannot be shared; elsewhere they are what was asked for."""
    plain = changed(cloud, encrypted=False, kms_keys={})
    aws.client("ec2", OTHER).enable_ebs_encryption_by_default()
    refused(aws, plain, f"{OTHER} encrypts every snapshot by default, and aws.encrypted is false")
    aws.client("ec2", OTHER).disable_ebs_encryption_by_default()
    publish(plain, disk())
    assert {snapshot["key"] for snapshot in aws.snapshots().values()} == {None}
    assert len(aws.images()) == 2


def test_an_image_that_somebody_made_public_is_refused(aws: StrictAws, cloud: Cloud) -> None:
    """Neither the image nor a snapshot of it; and it says which and how to keep that out."""
    plain = changed(cloud, encrypted=False, kms_keys={}, regions=())
    publish(plain, disk())
    (image,) = aws.images()
    (snapshot,) = aws.snapshots()
    ec2 = aws.client("ec2")
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"Group": "all"}]})
    with pytest.raises(RefusedError, match=f"{image} in {HOME} is public; images of ours never are"):
        publish(plain, disk())
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Remove": [{"Group": "all"}]})
    ec2.modify_snapshot_attribute(SnapshotId=snapshot, CreateVolumePermission={"Add": [{"Group": "all"}]})
    with pytest.raises(RefusedError, match=f"{snapshot} in {HOME} is public"):
        publish(plain, disk())


def test_where_public_access_is_blocked_nothing_is_said_of_it(
    aws: StrictAws, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """And where it is not, that is said once, by region and kind."""
    for region in (HOME, OTHER):
        ec2 = aws.client("ec2", region)
        ec2.enable_image_block_public_access(ImageBlockPublicAccessState="block-new-sharing")
    aws.client("ec2").enable_snapshot_block_public_access(State="block-all-sharing")
    publish(cloud, disk())
    said = " ".join(capsys.readouterr().err.split())
    assert f"Block Public Access is off in {OTHER} (snapshots):" in said
    aws.client("ec2", OTHER).enable_snapshot_block_public_access(State="block-all-sharing")
    publish(cloud, disk())
    assert "Block Public Access" not in capsys.readouterr().err


def test_home_is_no_region_to_copy_to(aws: StrictAws, cloud: Cloud) -> None:
    """The settings mean something else than they say."""
    refused(aws, changed(cloud, regions=(HOME, OTHER)), "name only the others", ContentError)


def test_a_disk_that_is_not_on_this_machine_is_told_with_what_to_do(aws: StrictAws, cloud: Cloud) -> None:
    """A published one is not needed any more."""
    artifact = built(cloud, disk())
    file = next((cloud.settings.state_dir / "disks").iterdir())
    data = file.read_bytes()
    file.unlink()
    with pytest.raises(OutsideError, match="is not on this machine any more") as raised:
        release(AwsStore(cloud), artifact, definition(), judged(cloud.now))
    assert "--no-cache" in raised.value.hint
    assert not aws.snapshots()
    file.write_bytes(data)
    release(AwsStore(cloud), artifact, definition(), judged(cloud.now))
    file.unlink()
    assert release(AwsStore(cloud), artifact, definition(), judged(cloud.now)).action == "unchanged"
