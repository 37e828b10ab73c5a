"""Edge: which image a pinned replacement is in a region, held to what was signed."""

from __future__ import annotations

from hardening.foundation.errors import OutsideError, RefusedError
from images.aws import tags
from images.aws.amis import images_in
from images.aws.cloud import Cloud
from images.aws.signing import proof_of, public_key
from pipelines.fleet.members import Target


def is_image(target: Target) -> bool:
    """Whether a target is one very image, as what a rollback goes to is, and no release."""
    return target.reference.startswith("ami-")


def image_of(cloud: Cloud, target: Target, region: str) -> str:
    """The id of the image that a target is in a region.

    Raises OutsideError where there is none, and RefusedError where it is not what was signed.
    """
    if is_image(target):
        return target.reference
    keyed = [{"Name": f"tag:{cloud.prefix}{tags.RELEASE}", "Values": [target.digest]}]
    found = next((ami for ami in images_in(cloud, region, Filters=keyed) if ami.state == "available"), None)
    if found is None:
        raise OutsideError(
            f"{target.reference} has no image in {region}", hint="publish it there: aws.regions in goldsmith.toml"
        )
    if not (proof := proof_of(cloud, found, public_key(cloud))).holds:
        raise RefusedError(f"{found.where} is not what was signed", evidence="\n".join(proof.problems))
    return found.id
