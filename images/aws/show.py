"""Everything about a published machine image, from AWS alone, and whether it is what was signed."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from hardening.foundation.errors import ContentError, nearest
from images.aws import tags
from images.aws.amis import image, named
from images.aws.channels import at, channel_name
from images.aws.cloud import Cloud
from images.aws.model import Ami
from images.aws.statement import StatementProof, parameter, proof_of, public_key
from images.release.store import CHANNELS, PREVIOUS, ShownRelease, as_shown


class ShownAmi(BaseModel):
    """The image in one region. `problems`: where it is not what was signed."""

    model_config = ConfigDict(frozen=True)

    region: str
    id: str
    state: str
    snapshots: tuple[str, ...]
    deprecated_at: datetime | None
    channels: tuple[str, ...]
    signed: bool
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.region} {self.id} ({self.state}{': ' + ', '.join(self.channels) if self.channels else ''})"


class ShownMachine(ShownRelease):
    """A machine image's release as AWS knows it. `proven`: the signed statement holds of every image shown."""

    linear_digest: str
    packages_digest: str
    verdict_digest: str
    builder: str
    proven: bool
    problems: tuple[str, ...]
    images: tuple[ShownAmi, ...]


def show_machine(cloud: Cloud, ref: str, known: Collection[str] = ()) -> ShownMachine:
    """What AWS says of `ref`: a definition's name, `name:channel`, `name:date-digest`, or an image's id at home.

    Raises ContentError where there is none, with the nearest of the `known` names.
    """
    home = home_image(cloud, ref, known)
    found = [home, *_elsewhere(cloud, home)]
    key = public_key(cloud)
    proofs = {ami.where: proof_of(cloud, ami, key) for ami in found}
    release = home.release
    if release is None:
        raise ContentError(f"{home.where} carries no tags of a release of ours", hint="./goldsmith image.list")
    said = proofs[home.where].statement.get("predicate", {})
    shown = tuple(_shown(cloud, ami, proofs[ami.where], release.name) for ami in found)
    return ShownMachine(
        **as_shown(release, ref, cloud.now),
        linear_digest=home.tags.get(f"{cloud.prefix}{tags.LINEAR}", ""),
        packages_digest=said.get("packagesDigest", ""),
        verdict_digest=said.get("verdictDigest", ""),
        builder=said.get("builder", ""),
        proven=all(proof.holds for proof in proofs.values()),
        problems=tuple(dict.fromkeys(problem for one in shown for problem in one.problems)),
        images=shown,
    )


def home_image(cloud: Cloud, ref: str, known: Collection[str]) -> Ami:
    """The image at home that a reference means."""
    name, _, wanted = ref.partition(":")
    if ref.startswith("ami-"):
        found = image(cloud, cloud.home, ref)
    elif wanted and wanted.removesuffix(PREVIOUS) not in CHANNELS:
        found = named(cloud, cloud.home, f"{cloud.aws.name_prefix}/{name}/{wanted}")
    else:
        channels = (wanted,) if wanted else tuple(reversed(CHANNELS))
        found = next((ami for channel in channels if (ami := at(cloud, cloud.home, name, channel))), None)
    if found is None:
        publish = f"./goldsmith image.publish {name} publishes to the candidate channel"
        hint = nearest(name, known) if known and name not in known else publish
        raise ContentError(f"nothing is published as {ref} in {cloud.home}", hint=hint)
    return found


def _elsewhere(cloud: Cloud, home: Ami) -> list[Ami]:
    others = (named(cloud, region, home.name) for region in cloud.aws.all_regions if region != home.region)
    return [ami for ami in others if ami]


def _shown(cloud: Cloud, ami: Ami, proof: StatementProof, name: str) -> ShownAmi:
    every = [f"{channel}{suffix}" for channel in CHANNELS for suffix in ("", PREVIOUS)]
    pointing = [one for one in every if parameter(cloud, ami.region, channel_name(cloud, name, one)) == ami.id]
    return ShownAmi(
        region=ami.region, id=ami.id, state=ami.state, snapshots=ami.snapshots, deprecated_at=ami.deprecated_at,
        channels=tuple(pointing), signed=proof.signed, problems=proof.problems,
    )  # fmt: skip
