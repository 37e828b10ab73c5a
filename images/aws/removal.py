"""Images and their snapshots leave together; what lies under another image stays. Done again, it changes nothing."""

from __future__ import annotations

from images.aws.amis import NO_SUCH_IMAGE, images_in
from images.aws.client import AwsError
from images.aws.cloud import Cloud
from images.aws.model import Ami
from images.aws.snapshots import NO_SUCH
from images.ledger.cloud import GONE

IN_USE = {"InvalidSnapshot.InUse"}


def remove_image(cloud: Cloud, ami: Ami) -> None:
    """Deregister an image, and delete its snapshots unless another image lies on them."""
    try:
        cloud.client("ec2", ami.region).call("DeregisterImage", ImageId=ami.id)
    except AwsError as error:
        if error.code not in NO_SUCH_IMAGE:
            raise
    forget(cloud, ami.region, ami.id)
    under_others = {snapshot for other in images_in(cloud, ami.region) for snapshot in other.snapshots}
    for snapshot in set(ami.snapshots) - under_others:
        remove_snapshot(cloud, ami.region, snapshot)


def remove_snapshot(cloud: Cloud, region: str, snapshot: str) -> None:
    """Delete a snapshot, unless an image lies on it or it has gone."""
    try:
        cloud.client("ec2", region).call("DeleteSnapshot", SnapshotId=snapshot)
    except AwsError as error:
        if error.code in IN_USE:
            return
        if error.code not in NO_SUCH:
            raise
    forget(cloud, region, snapshot)


def forget(cloud: Cloud, region: str, resource: str) -> None:
    """Write down that something is not there any more."""
    for line in cloud.made(region=region, resource=resource):
        cloud.mark(line, state=GONE)


def orphans(cloud: Cloud) -> list[tuple[str, str, str]]:
    """Snapshots that a removal cut short left: region, id and name of those whose content has no image there."""
    under_way = {
        begun.release.content
        for name in {line.name for line in cloud.made(kind="snapshot")}
        for begun in cloud.ledger.open_publications(cloud.repository(name))
    }
    imaged = {(line.region, line.content) for line in cloud.made(kind="image")}
    return [
        (line.region, line.resource, line.name)
        for line in cloud.made(kind="snapshot")
        if line.resource and line.content not in under_way and (line.region, line.content) not in imaged
    ]
