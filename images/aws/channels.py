"""Channels of machine images: one parameter per image, channel and region, moved last, and moved back."""

from __future__ import annotations

from hardening.foundation.errors import RefusedError
from images.artifact import Release
from images.aws import call_arguments
from images.aws.amis import image
from images.aws.cloud import Cloud
from images.aws.model import Ami
from images.aws.statement import parameter
from images.ledger.releases import STANDING
from images.release.lifecycle import shown
from images.release.store import PREVIOUS


def channel_name(cloud: Cloud, name: str, channel: str) -> str:
    """The parameter of a channel."""
    return f"/{cloud.aws.name_prefix}/{name}/{channel}"


def at(cloud: Cloud, region: str, name: str, channel: str) -> Ami | None:
    """The image that a channel names in a region, if it is still there."""
    found = parameter(cloud, region, channel_name(cloud, name, channel))
    return image(cloud, region, found) if found else None


def images_of(cloud: Cloud, release: Release) -> list[Ami]:
    """The release's images in every region where the ledger knows one, as they are now."""
    lines = [line for line in cloud.made(kind="image", release=release.digest) if line.state == STANDING]
    found = [image(cloud, line.region, line.resource) for line in lines]
    return [ami for ami in found if ami]


def move(cloud: Cloud, release: Release, channel: str, back: str) -> None:
    """Move a channel in every region to the release's images, home last. Done again, it changes nothing."""
    amis = images_of(cloud, release)
    if cloud.home not in {ami.region for ami in amis}:
        raise RefusedError(
            f"{shown(release)} has no image in {cloud.home}",
            hint="./goldsmith image.rebuild reads from AWS what there is",
        )
    for ami in sorted(amis, key=lambda ami: ami.region == cloud.home):
        _move_in(cloud, release, ami, channel, back)


def _move_in(cloud: Cloud, release: Release, ami: Ami, channel: str, back: str) -> None:
    """Move a channel in one region: where it came from is written first."""
    name = channel_name(cloud, release.name, channel)
    present = parameter(cloud, ami.region, name)
    if present == ami.id:
        return
    previous = _id_of(cloud, ami.region, release.repository, back) if back else present
    if previous and image(cloud, ami.region, previous):  # AWS stores no image's id that is gone
        _put(cloud, ami.region, f"{name}{PREVIOUS}", previous, f"where {channel} of {release.name} would go back to")
    _put(cloud, ami.region, name, ami.id, f"{release.name}, {channel}: {release.digest}")


def _put(cloud: Cloud, region: str, name: str, image_id: str, description: str) -> None:
    """Write a parameter, and see that it is there: the service checks an image's id only after it has answered."""
    asked = call_arguments.put_parameter(name, image_id, description, image=True)
    cloud.client("ssm", region).call("PutParameter", **asked)
    cloud.clients.until(lambda: parameter(cloud, region, name) == image_id, f"the parameter {name} in {region}")


def _id_of(cloud: Cloud, region: str, repository: str, digest: str) -> str:
    lines = cloud.made(region=region, kind="image", release=digest)
    return next((line.resource for line in lines if cloud.repository(line.name) == repository), "")
