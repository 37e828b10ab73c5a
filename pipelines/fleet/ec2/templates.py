"""Edge: versions of launch templates that rollouts make for groups, each known by its description."""

from __future__ import annotations

from hardening.foundation.errors import RefusedError
from images.aws.amis import NO_SUCH_IMAGE
from images.aws.cloud import Cloud
from images.aws.permissions import AUDITOR, ROLLER, permit
from pipelines.fleet.delegated import stem
from pipelines.fleet.ec2.instance_spec import Json, token
from pipelines.fleet.ec2.provenance import image_of
from pipelines.fleet.members import ReplacementImage
from pipelines.fleet.port import GroupPin
from pipelines.fleet.rollout_targets import MACHINES, TEMPLATE

PERMISSIONS = (
    permit("ec2:DescribeLaunchTemplateVersions", ROLLER, AUDITOR, on=MACHINES),
    permit("ec2:DescribeImages", ROLLER, on=MACHINES),
    permit("ec2:CreateLaunchTemplateVersion", ROLLER, on=TEMPLATE),
)

METADATA = "MetadataOptions"


class LaunchTemplates:
    """The launch templates of one region of one account."""

    def __init__(self, cloud: Cloud, account: str, region: str) -> None:
        self.cloud = cloud
        self.region = region
        self.ec2 = cloud.client("ec2", region, account)

    def version(self, template: str, version: str) -> Json:
        """One version of a launch template."""
        asked = {"LaunchTemplateId": template, "Versions": [version]}
        return dict(self.ec2.call("DescribeLaunchTemplateVersions", **asked)["LaunchTemplateVersions"][0])

    def versions(self, template: str) -> list[Json]:
        """Every version that there is."""
        asked = {"LaunchTemplateId": template}
        return list(self.ec2.pages("DescribeLaunchTemplateVersions", "LaunchTemplateVersions", **asked))

    def has_image(self, image: str) -> bool:
        """Whether an image can be started from here."""
        answer = self.ec2.call_unless("DescribeImages", NO_SUCH_IMAGE, ImageIds=[image])
        return any(one["State"] == "available" for one in (answer["Images"] if answer else ()))

    def made_for(self, rollout: str, name: str, template: str) -> tuple[int, int] | None:
        """The version that a rollout made for the group of that name, and the one before; None where it made none."""
        mine = f"{_mark(rollout, name)} from "
        for one in self.versions(template):
            if (said := one.get("VersionDescription", "")).startswith(mine):
                return int(one["VersionNumber"]), int(said.removeprefix(mine))
        return None

    def make(self, rollout: str, name: str, group: str, target: ReplacementImage, pinned: GroupPin) -> int:
        """A version that differs from the pinned one by its image, and allows IMDSv2 only; made once for a group.

        Raises RefusedError where there is one with its description that is another: anybody may have written that.
        """
        source = self.version(pinned.template, str(pinned.version))["LaunchTemplateData"]
        metadata = {key: value for key, value in source.get(METADATA, {}).items() if key != "State"}
        changes = {
            "ImageId": image_of(self.cloud, target, self.region),
            METADATA: {**metadata, "HttpTokens": "required"},
        }
        if made := self.made_for(rollout, name, pinned.template):
            self._require_same(f"version {made[0]} of {pinned.template}", {**source, **changes}, made[0], pinned)
            return made[0]
        answer = self.ec2.call(
            "CreateLaunchTemplateVersion", LaunchTemplateId=pinned.template, SourceVersion=str(pinned.version),
            VersionDescription=f"{_mark(rollout, name)} from {pinned.version}",
            ClientToken=token(stem(rollout), group, "version"),
            LaunchTemplateData=changes,
        )  # fmt: skip
        return int(answer["LaunchTemplateVersion"]["VersionNumber"])

    def _require_same(self, called: str, wanted: Json, version: int, pinned: GroupPin) -> None:
        """Raise RefusedError where a version is not what it should be; of metadata options IMDSv2 alone counts."""
        there = self.version(pinned.template, str(version))["LaunchTemplateData"]
        differs = [key for key in sorted({*wanted, *there} - {METADATA}) if wanted.get(key) != there.get(key)]
        if there.get(METADATA, {}).get("HttpTokens") != "required":
            differs.append(METADATA)
        if differs:
            why = f"{called} is described as this rollout's, which would have made it with other {', '.join(differs)}"
            raise RefusedError(why, hint="find out who made it, delete that version, and roll again")

    def gone(self, name: str, pinned: GroupPin) -> str:
        """Why the group of that name cannot start from the pinned version any more; empty where it can."""
        versions = {int(one["VersionNumber"]): one for one in self.versions(pinned.template)}
        if pinned.version not in versions:
            return f"version {pinned.version} of its launch template, which {name} ran before, is gone"
        image = str(versions[int(pinned.version)]["LaunchTemplateData"].get("ImageId", ""))
        return (
            "" if self.has_image(image) else f"{image}, the image that {name} ran before, is deregistered or disabled"
        )


def _mark(rollout: str, name: str) -> str:
    """How the version that a rollout makes for one group is known. A group's whole name may not fit into it."""
    return f"{stem(rollout)} for {token(name, '', 'version')[:12]}"
