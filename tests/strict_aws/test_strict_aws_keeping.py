"""Who begins with a copy of what was made before has all of it, and changes nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from images.aws.release_store import AwsStore
from tests.strict_aws import REGION, StrictAws
from tests.strict_aws.keeping import untouched
from tests.support.cloud import OTHER, disk
from tests.support.ec2 import Shop, shop


def known(at: Shop) -> list[Any]:
    """What emulator and ledger say of a shop."""
    aws, cloud = at.aws, at.cloud
    (key, *_), (old, *_) = cloud.settings.aws.kms_keys.values(), cloud.made(kind="snapshot", release=at.old.digest)
    shown = AwsStore(cloud).show("debian-server:candidate")
    assert shown.proven, shown.problems
    return [
        aws.images(), aws.snapshots(), b"".join(aws.read(old.resource, 2 << 19)) == b"".join(disk(blocks=2)),
        aws.client("kms").describe_key(KeyId=key)["KeyMetadata"],
        [one["SubnetId"] for one in at.ec2.describe_subnets()["Subnets"]],
        [(at.image(one, region), one) for one in (at.old, at.new) for region in (REGION, OTHER)],
        shown, cloud.ledger.releases(), cloud.made(), cloud.ledger.audit_lines(),
        len(aws.calls(operation="RegisterImage")),
    ]  # fmt: skip


def test_a_copy_is_what_was_made_and_lives_its_own_life(aws: StrictAws, tmp_path: Path) -> None:
    """Whatever became of the first one: an emulator that was asked for something begins with no copy."""
    assert untouched(aws)
    first = shop(aws, tmp_path / "first", (OTHER,))
    told = known(first)
    assert told[2]
    first.instance()
    aws.fail(first.image(first.new))
    first.ec2.deregister_image(ImageId=first.image(first.old))
    assert not untouched(aws)
    assert aws.images() != told[0]
    first.cloud.ledger.close()
    for place in ("second", "third"):
        aws.reset()
        again = shop(aws, tmp_path / place, (OTHER,))
        assert known(again) == told
        assert again.running() == []
        again.instance()
        again.cloud.ledger.close()
