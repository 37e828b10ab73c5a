"""A lost ledger is filled again from AWS: from images whose signed statement holds."""

from __future__ import annotations

from hardening.foundation.console import say
from images.artifact import Release
from images.aws import tags
from images.aws.amis import ours_in
from images.aws.cloud import Cloud
from images.aws.model import Ami
from images.aws.statement import proof_of, public_key
from images.ledger import Made
from images.ledger.cloud_resources import STANDING
from images.release.lifecycle import newest_first
from images.release.revocations import said_by_ledger


def rebuild_machines(cloud: Cloud) -> tuple[Release, ...]:
    """Write into the ledger what AWS knows: releases, images, snapshots. Run again, it changes nothing.

    What is not signed by our key is not believed, and said; what a killed run left is the reaper's.
    """
    key, found = public_key(cloud), {}
    for region in cloud.aws.all_regions:
        for ami in ours_in(cloud, region):
            if f"{cloud.prefix}{tags.REAP_AFTER}" in ami.tags:
                continue
            if problems := proof_of(cloud, ami, key).problems:
                say(f"{ami.where} is passed over: {problems[0]}")
            elif ami.release:
                found[ami.release.digest] = ami.release
                _record(cloud, ami, ami.release)
    for release in newest_first(found.values())[::-1]:
        cloud.ledger.record_release(said_by_ledger(cloud.ledger, release))
    return newest_first(found.values())


def _record(cloud: Cloud, ami: Ami, release: Release) -> None:
    """The lines of an image and its snapshots; the snapshots' can be no parents until their digests are at hand."""
    known = {line.resource for line in cloud.made(region=ami.region)}
    if ami.id not in known:
        cloud.ledger.record_made(_line(cloud, ami, release, "image", ami.name, ami.id, {"snapshots": ami.snapshots}))
    linear = ami.tags[f"{cloud.prefix}{tags.LINEAR}"]
    details = {"key": cloud.key(ami.region), "linear": linear, "gib": 0, "parent": "", "parent_linear": ""}
    for snapshot in set(ami.snapshots) - known:
        found = cloud.client("ec2", ami.region).call("DescribeSnapshots", SnapshotIds=[snapshot])["Snapshots"][0]
        sized = details | {"gib": found["VolumeSize"], "key": found.get("KmsKeyId", "")}
        cloud.ledger.record_made(_line(cloud, ami, release, "snapshot", snapshot, snapshot, sized))


def _line(
    cloud: Cloud, ami: Ami, release: Release, kind: str, token: str, resource: str, details: dict[str, object]
) -> Made:
    return Made(cloud.aws.account, ami.region, kind, token, release.name, release.content, release.digest,
                release.published_at, resource, STANDING, details)  # fmt: skip
