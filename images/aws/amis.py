"""Images in a region: read, found by name, registered at home, copied to other regions, and tagged. Each only once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError, RefusedError
from hardening.foundation.hashing import digest_of
from images.artifact import Release
from images.aws import call_arguments, permissions, tags
from images.aws.client import AwsError
from images.aws.cloud import Cloud
from images.aws.model import Ami, MachineImage
from images.aws.permissions import LOOKING, PUBLISHER, REAPER, permit, use_keys
from images.aws.snapshots import NO_SUCH, REAP_AFTER, record_snapshot, standing_snapshot
from images.ledger import STANDING, Made
from images.release import lifecycle

PERMISSIONS = (
    permit("ec2:DescribeImages", PUBLISHER, REAPER, *LOOKING, on=permissions.ANY),
    permit("ec2:RegisterImage", PUBLISHER, on=(permissions.NEW_IMAGE, permissions.OWN_SNAPSHOT)),
    permit("ec2:CopyImage", PUBLISHER, on=(permissions.IMAGE, permissions.SNAPSHOT)),
    permit("ec2:CreateTags", PUBLISHER, REAPER, on=(permissions.OWN_IMAGE, permissions.OWN_SNAPSHOT)),
    permit("ec2:CreateTags", PUBLISHER, on=permissions.MADE, by="RegisterImage CopyImage"),
    permit("ec2:EnableImageDeprecation ec2:DeregisterImage", PUBLISHER, REAPER, on=permissions.OWN_IMAGE),
    permit("ec2:DeleteSnapshot", PUBLISHER, REAPER, on=permissions.OWN_SNAPSHOT),
    *use_keys(PUBLISHER, permissions.KEYS, "CopyImage"),
)

QUEUE_FULL = {"ResourceLimitExceeded", "SnapshotCopyLimitExceeded", "ConcurrentSnapshotLimitExceeded"}
NAME_TAKEN = {"InvalidAMIName.Duplicate"}
MINUTE = timedelta(minutes=1)
SOON = 2 * MINUTE  # the service deprecates nothing in the past, by its own clock
OURS = {"Owners": ["self"], "IncludeDeprecated": True, "IncludeDisabled": True}
FAILED = {"failed", "error", "invalid"}
IN_USE = {"InvalidSnapshot.InUse"}
NO_SUCH_IMAGE = {"InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"}


def image_name(cloud: Cloud, release: Release) -> str:
    """The name of a release's images, the same in every region: what it is, its day, and the head of its digest."""
    return f"{cloud.aws.name_prefix}/{release.name}/{lifecycle.dated_tag(release)}"


def images_in(cloud: Cloud, region: str, **request: Any) -> Iterator[Ami]:
    """The account's own images in a region, deprecated and disabled ones too."""
    for found in cloud.client("ec2", region).pages("DescribeImages", "Images", **OURS, **request):
        yield _ami(cloud, region, found)


def ours_in(cloud: Cloud, region: str) -> list[Ami]:
    """The images in a region whose tags tell of a release of ours."""
    keyed = [{"Name": "tag-key", "Values": [f"{cloud.prefix}{tags.RELEASE}"]}]
    return [ami for ami in images_in(cloud, region, Filters=keyed) if ami.release]


def named(cloud: Cloud, region: str, name: str) -> Ami | None:
    """The image of that name in a region."""
    return next(images_in(cloud, region, Filters=[{"Name": "name", "Values": [name]}]), None)


def image(cloud: Cloud, region: str, image_id: str) -> Ami | None:
    """The image of that id, if it is there."""
    answer = cloud.client("ec2", region).call_unless("DescribeImages", NO_SUCH_IMAGE, ImageIds=[image_id], **OURS)
    return next((_ami(cloud, region, found) for found in answer["Images"]), None) if answer else None


def images_of(cloud: Cloud, release: Release) -> list[Ami]:
    """The release's images in every region where the ledger knows one, as they are now."""
    lines = cloud.made(kind="image", release=release.digest, state=STANDING)
    return [ami for line in lines if (ami := image(cloud, line.region, line.resource))]


def ensure_registered(cloud: Cloud, release: Release, machine: MachineImage, region: str, snapshot: str) -> Ami:
    """The release's image over a snapshot of the region. Raises RefusedError where a stranger has its name."""
    name = image_name(cloud, release)
    found = _mine(cloud, region, release, snapshots=(snapshot,))
    if found is None:
        line = _begin(cloud, release, region)
        asked = call_arguments.register_image(machine, name, snapshot, _tags(cloud, release, machine)[0])
        # An earlier try may have gone through, its answer lost: then the name is taken.
        if answer := cloud.client("ec2", region).call_unless("RegisterImage", NAME_TAKEN, **asked):
            cloud.mark(line, resource=str(answer["ImageId"]))
    return _settled(cloud, release, machine, region, lambda ami: ami.snapshots == (snapshot,))


def ensure_copied(cloud: Cloud, release: Release, machine: MachineImage, region: str, home: Ami) -> Ami:
    """The release's image in another region: registered over what lies there already, else copied from home."""
    if snapshot := standing_snapshot(cloud, region, release.content):
        return ensure_registered(cloud, release, machine, region, snapshot)
    if _mine(cloud, region, release, source=home.id) is None:
        line = _begin(cloud, release, region)
        failed = len(line.details.get("failed", ()))
        token = digest_of([release.digest, home.id, region, cloud.key(region), failed]).removeprefix("sha256:")
        image_tags, snapshot_tags = _tags(cloud, release, machine)
        asked = call_arguments.copy_image(home, token, key=cloud.key(region), image=image_tags, snapshot=snapshot_tags)
        say(f"{release.name}: copying {home.where} to {region}")
        answer = cloud.clients.until(lambda: _queued(cloud, region, asked), f"a place among the copies to {region}")
        cloud.mark(line, resource=str(answer["ImageId"]))
    return _settled(cloud, release, machine, region, lambda ami: ami.source in {"", home.id})


def put_tags(cloud: Cloud, region: str, resources: Iterable[str], wanted: dict[str, str]) -> None:
    """Tag what a region holds."""
    if wanted and (ids := list(resources)):
        cloud.client("ec2", region).call("CreateTags", Resources=ids, Tags=tags.as_list(wanted))


def deprecate(cloud: Cloud, ami: Ami, at: datetime) -> None:
    """Let the service deprecate an image at that moment, which it keeps to the minute."""
    if ami.deprecated_at is None or abs(ami.deprecated_at - at) >= MINUTE:
        cloud.client("ec2", ami.region).call("EnableImageDeprecation", ImageId=ami.id, DeprecateAt=at)


def _queued(cloud: Cloud, region: str, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The answer to a copy; None while the region's limit of copies at once is reached."""
    try:
        return cloud.client("ec2", region).call("CopyImage", **asked)
    except AwsError as error:
        if error.code in QUEUE_FULL:
            return None
        if error.code in NAME_TAKEN and (found := named(cloud, region, asked["Name"])):
            return {"ImageId": found.id}
        raise


def _mine(
    cloud: Cloud, region: str, release: Release, *, snapshots: tuple[str, ...] = (), source: str = ""
) -> Ami | None:
    """The image under the release's name, if it is this release's; one that failed is removed first.

    It is ours when it lies on the snapshot that we made, or was copied from our image, or was begun in our ledger,
    or its tags say so.
    """
    found = named(cloud, region, image_name(cloud, release))
    if found is None:
        return None
    lines = cloud.made(region=region, kind="image", token=found.name)
    ours = (
        (snapshots and found.snapshots == snapshots)
        or (source and found.source == source)
        or any(line.resource == found.id for line in lines)
        or (found.release and found.release.digest == release.digest)
    )
    if not ours:
        raise taken(found)
    if found.state in FAILED:
        cloud.client("ec2", region).call("DeregisterImage", ImageId=found.id)
        for line in lines:  # the same token would mean the failed one
            cloud.mark(line, resource="", details={"failed": [*line.details.get("failed", ()), found.id]})
        for snapshot in found.snapshots if found.source else ():  # a copy's are its own
            remove_snapshot(cloud, region, snapshot)
        return None
    return found


def taken(found: Ami) -> RefusedError:
    """The error for a name that an image of somebody else has."""
    hint = "remove or rename it, or set another aws.name_prefix in goldsmith.toml"
    return RefusedError(f"the name {found.name} is taken in {found.region} by {found.id}, which is not ours", hint=hint)


def _begin(cloud: Cloud, release: Release, region: str) -> Made:
    name = image_name(cloud, release)
    known = cloud.made(region=region, kind="image", token=name)
    return known[0] if known else cloud.record(release, release.digest, region, "image", name)


def _settled(cloud: Cloud, release: Release, machine: MachineImage, region: str, expected: Any) -> Ami:
    """The image once it is available: as we wanted it, tagged, and in the ledger."""
    name = image_name(cloud, release)
    ami: Ami = cloud.clients.until(lambda: _available(cloud, region, name), f"the image {name} in {region}")
    if not expected(ami):
        raise taken(ami)
    wanted, under = _tags(cloud, release, machine)
    missing = {key: value for key, value in wanted.items() if ami.tags.get(key) != value}
    if [key for key in missing if key != f"{cloud.prefix}{tags.REAP_AFTER}"]:  # that one goes when all is done
        put_tags(cloud, region, (ami.id,), missing)
        put_tags(cloud, region, ami.snapshots, under)
    for snapshot in ami.snapshots:
        record_snapshot(cloud, region, machine, release.digest, snapshot)
    line = _begin(cloud, release, region)
    cloud.mark(line, resource=ami.id, state=STANDING, details={**line.details, "snapshots": ami.snapshots})
    return ami


def _available(cloud: Cloud, region: str, name: str) -> Ami | None:
    """The image once it can be used; a region may take a moment to show what was just made."""
    found = named(cloud, region, name)
    if found and found.state in FAILED:
        raise OutsideError(f"{found.where} failed: {found.state}", hint="publish again: it is made again")
    return found if found and found.state in {"available", "disabled"} else None


def _tags(cloud: Cloud, release: Release, machine: MachineImage) -> tuple[dict[str, str], dict[str, str]]:
    """The tags of a release's image, and of the snapshot under it."""
    said = machine.linear, cloud.prefix, release.published_at + REAP_AFTER
    return tags.of_image(release, *said), tags.of_snapshot(release.name, release.content, *said)


def _ami(cloud: Cloud, region: str, found: dict[str, Any]) -> Ami:
    """An image as DescribeImages shows it."""
    said = tags.as_dict(found.get("Tags"))
    disks = [mapping["Ebs"] for mapping in found.get("BlockDeviceMappings", ()) if "Ebs" in mapping]
    title = said.get(f"{lifecycle.OCI}title", "")
    return Ami(
        region=region,
        id=found["ImageId"],
        name=found.get("Name", ""),
        state=found.get("State", ""),
        snapshots=tuple(disk["SnapshotId"] for disk in disks if disk.get("SnapshotId")),
        tags=said,
        release=tags.release_of(said, cloud.prefix, cloud.repository(title)),
        deprecated_at=_moment(found.get("DeprecationTime")),
        launched_at=_moment(found.get("LastLaunchedTime")),
        source=found.get("SourceImageId", ""),
    )


def _moment(text: str | None) -> datetime | None:
    """A moment that EC2 tells. Raises ValueError for what is none: an unreadable use must not look like no use."""
    return lifecycle.moment(text) if text else None


def remove_image(cloud: Cloud, ami: Ami) -> None:
    """Deregister an image, and delete its snapshots unless another image lies on them."""
    cloud.client("ec2", ami.region).call_unless("DeregisterImage", NO_SUCH_IMAGE, ImageId=ami.id)
    cloud.forget(region=ami.region, resource=ami.id)
    under_others = {snapshot for other in images_in(cloud, ami.region) for snapshot in other.snapshots}
    for snapshot in set(ami.snapshots) - under_others:
        remove_snapshot(cloud, ami.region, snapshot)


def remove_snapshot(cloud: Cloud, region: str, snapshot: str) -> bool:
    """Delete a snapshot; whether it is gone: one that an image lies on stays."""
    try:
        cloud.client("ec2", region).call("DeleteSnapshot", SnapshotId=snapshot)
    except AwsError as error:
        if error.code in IN_USE:
            return False
        if error.code not in NO_SUCH:
            raise
    cloud.forget(region=region, resource=snapshot)
    return True


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
