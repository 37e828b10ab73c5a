"""What a managed node group and its updates are to a rollout: what may be done to it, and how far it is. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.fleet.delegated import ALL, Reach, owner_of

Json = dict[str, Any]
OURS = "CUSTOM"  # the amiType of groups whose launch template names an image
VERSION = "LaunchTemplateVersion"
PER_ZONE = 2
GOES_ON, DONE = "InProgress", "Successful"


@dataclass(frozen=True)
class NodeGroup:
    """One managed node group, as DescribeNodegroup shows it."""

    shown: Json

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.shown["nodegroupName"])

    @property
    def called(self) -> str:
        """What people call it."""
        return f"the EKS node group {self.name}"

    @property
    def tags(self) -> dict[str, str]:
        """Its tags."""
        return dict(self.shown.get("tags") or {})

    @property
    def desired(self) -> int:
        """How many nodes it is to have."""
        return int((self.shown.get("scalingConfig") or {}).get("desiredSize") or 0)

    @property
    def scaling_groups(self) -> list[str]:
        """The Auto Scaling groups that start its instances."""
        return [str(one["name"]) for one in (self.shown.get("resources") or {}).get("autoScalingGroups") or ()]

    @property
    def template(self) -> tuple[str, int] | None:
        """The launch template that it was given, and the version; None where EKS has made its own."""
        named = self.shown.get("launchTemplate") or {}
        return (str(named["id"]), int(named["version"])) if named.get("id") and named.get("version") else None

    @property
    def runs(self) -> str:
        """What it starts nodes from, in words."""
        named = self.template
        return f"{named[0]} version {named[1]}" if named else f"{self.ami_type} {self.shown.get('releaseVersion', '')}"

    @property
    def ami_type(self) -> str:
        """Who chooses its images."""
        return str(self.shown.get("amiType") or "")

    @property
    def ill(self) -> str:
        """What EKS says is wrong with it; empty where nothing is."""
        issues = (self.shown.get("health") or {}).get("issues") or ()
        return "; ".join(f"{one.get('code')}: {one.get('message')}"[:300] for one in issues)


@dataclass(frozen=True)
class NodeUpdate:
    """One version update of a node group, to a version of its launch template. `why`: what EKS says went wrong."""

    id: str
    status: str
    version: int
    created: datetime
    why: str = ""


def update_of(shown: Json) -> NodeUpdate | None:
    """A version update as DescribeUpdate shows it; None for what goes to no version of a launch template."""
    said = [str(one.get("value")) for one in shown.get("params") or () if one.get("type") == VERSION]
    if shown.get("type") != "VersionUpdate" or not said or not said[0].isdigit():
        return None
    wrong = "; ".join(f"{one.get('errorCode')}: {one.get('errorMessage')}"[:300] for one in shown.get("errors") or ())
    return NodeUpdate(str(shown["id"]), str(shown["status"]), int(said[0]), shown["createdAt"], wrong)


def newest_of(updates: Sequence[NodeUpdate], to: set[int]) -> NodeUpdate | None:
    """The last update to one of these versions."""
    return max((one for one in updates if one.version in to), key=lambda one: one.created, default=None)


def reach_of(node: NodeGroup) -> Reach:
    """What its own update settings let EKS do: how many nodes may be drained at once, one where nothing is said.

    https://docs.aws.amazon.com/eks/latest/userguide/managed-node-update-behavior.html: before it drains any, EKS starts
    up to two new nodes for each Availability Zone, of which there are no more than subnets, or as many as it drains at
    once. With the strategy MINIMAL it drains first.
    """
    said = node.shown.get("updateConfig") or {}
    percent = int(said.get("maxUnavailablePercentage") or 0)
    many = max(1, -(-node.desired * percent // ALL)) if percent else int(said.get("maxUnavailable") or 1)
    drains_first = said.get("updateStrategy") == "MINIMAL"
    return Reach(many, 0, 0 if drains_first else max(many, PER_ZONE * len(node.shown.get("subnets") or ())))


def obstacle(node: NodeGroup, image: str) -> str:
    """Why a rollout may not begin with it; empty where it may. `image`: what its launch template names."""
    return next(_obstacles(node, image), "")


def _obstacles(node: NodeGroup, image: str) -> Iterator[str]:
    if node.ami_type != OURS or node.template is None:
        needed = f"make a node group whose launch template names an image (amiType {OURS}), and move its pods there"
        yield f"EKS chooses its images (amiType {node.ami_type}): {needed}"
    elif image.startswith("resolve:ssm:"):
        yield "its launch template takes the image from a parameter: give it a version with an image's id"
    if owner := owner_of(node.tags, "the node group", "its launch template's version"):
        yield owner
    if (status := node.shown.get("status")) != "ACTIVE":
        yield f"it is {status}: wait until it is ACTIVE"
    if node.ill:
        yield f"EKS says that it is not healthy: {node.ill}"
