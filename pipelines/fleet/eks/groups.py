"""Edge: managed node groups as groups that EKS rolls: a version update to a new version of their launch template."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from hardening.foundation.errors import OutsideError, RefusedError
from images.aws.permissions import ROLLER, permit
from pipelines.fleet.delegated import Bakes, StrategyWords, pace_of, rolled_percent, understood
from pipelines.fleet.ec2.instance_spec import token
from pipelines.fleet.eks.members import NodeReader
from pipelines.fleet.eks.node_groups import DONE, GOES_ON, NodeGroup, NodeUpdate, newest_of, obstacle, reach_of
from pipelines.fleet.members import ReplacementImage, require_read
from pipelines.fleet.model import Fleet
from pipelines.fleet.port import Group, GroupPin, InProgressError, Pacing, Progress, UnseenError, Watched
from pipelines.fleet.rollout_targets import eks, launch_from_template

PERMISSIONS = (
    permit("eks:UpdateNodegroupVersion", ROLLER, on=eks("nodegroup/{cluster}/*")),
    *launch_from_template("UpdateNodegroupVersion"),
)


class NodeGroupFleet:
    """The node groups of `fleet`. An update cannot be stopped: a node group that is to stop finishes it first."""

    def __init__(self, fleet: Fleet, reader: NodeReader, now: Callable[[], datetime]) -> None:
        self.fleet = fleet
        self.reader = reader
        self._bakes = Bakes(now)

    @understood
    def groups(self) -> tuple[Group, ...]:
        """Every node group of the fleet. Raises OutsideError where one cannot be read."""
        found = self.reader.inventory()
        require_read(found.unread, "node group")
        healthy = {name: sum(one.healthy for one in instances) for name, instances in found.instances.items()}
        return tuple(
            Group(
                name, one.name, one.desired, min(one.desired, healthy.get(name, 0)), obstacle(one, self._image(one)),
                one.runs,
            )
            for name, one in sorted(found.groups.items())
        )  # fmt: skip

    def _image(self, node: NodeGroup, version: int = 0) -> str:
        """The image that a version of its launch template names, by default the present one."""
        if node.template is None:
            return ""
        template, present = node.template
        data = self.reader.templates.version(template, str(version or present))["LaunchTemplateData"]
        return str(data.get("ImageId", ""))

    @understood
    def pace(self, group: Group, allowed: int) -> Pacing:
        """The pace of the node group's own settings. Raises RefusedError where that breaks one of the limits."""
        node = self.reader.node_group(group.name)
        lower = "lower maxUnavailable in its updateConfig"
        words = StrategyWords(
            f"{node.called} ({node.desired} nodes)", lower, "set updateStrategy MINIMAL in its updateConfig", lower
        )
        return pace_of(group, reach_of(node), words, self.fleet.limits, allowed)

    @understood
    def pin(self, group: Group) -> GroupPin:
        """The version of its launch template that it runs, by number."""
        node = self.reader.node_group(group.name)
        if node.template is None:
            raise OutsideError(f"{node.called} has lost its own launch template")
        return GroupPin(*node.template)

    @understood
    def begin(self, rollout: str, group: Group, target: ReplacementImage, pinned: GroupPin, _pacing: Pacing) -> None:
        """Make the version with the target's image, once, and ask for the update to it, once by its token.

        Raises RefusedError where the group no longer runs what was pinned, or is somebody else's to update by now.
        """
        made = self.reader.templates.made_for(rollout, group.name, pinned.template)
        if made and newest_of(self.reader.updates(group.name), {made[0]}):
            return
        node = self.reader.node_group(group.name)
        if node.template != (pinned.template, pinned.version):
            why = f"{node.called} is now at {node.runs}, but version {pinned.version} of {pinned.template} was pinned"
            raise RefusedError(why, hint="somebody else has changed it: plan again")
        if why := obstacle(node, self._image(node)):
            raise RefusedError(f"{node.called}: {why}", hint="nothing was changed: plan again")
        version = self.reader.templates.make(rollout, group.name, group.id, target, pinned)
        self._update(group, pinned.template, version, token(rollout, group.id, "update"))

    def hold(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """Do nothing: EKS rolls the whole node group, and cannot leave a part for later."""

    @understood
    def watch(self, rollout: str, group: Group) -> Watched:
        """One look at the update, or at the one that takes it back, and how long all of it has been well.

        Raises UnseenError where there is a version and no update to it: EKS has refused that, or does not show it yet.
        """
        node = self.reader.node_group(group.name)
        made = self._made(rollout, group, node)
        if made is None:
            return Watched(Progress.ROLLED_BACK, 0, "nothing was begun")
        newest = self._newest(group, made)
        if newest is None:
            unseen = UnseenError if node.template and node.template[1] == made[1] else OutsideError
            raise unseen(f"no update of {rollout} is known of {group.name}")
        back = newest.version == made[1]
        if back and newest.status != GOES_ON:
            stands = Progress.ROLLED_BACK if newest.status == DONE else Progress.FAILED
            said = newest.why or f"the update to version {newest.version} is {newest.status}"
            return Watched(stands, 0, said, newest.created)
        return self._replaced(group, node, newest, back=back)

    def _replaced(self, group: Group, node: NodeGroup, newest: NodeUpdate, *, back: bool) -> Watched:
        """How many nodes run what the last update goes to, and how long all of them have been well."""
        images, wanted = self.reader.images(node), self._image(node, newest.version)
        count = sum(one == wanted for one in images)
        text = f"{count} of {node.desired} nodes run version {newest.version}"
        percent = rolled_percent(count, node.desired)
        if newest.status == GOES_ON:
            return Watched(Progress.ROLLING_BACK if back else Progress.RUNNING, percent, text, newest.created)
        if newest.status != DONE:
            return Watched(Progress.FAILED, percent, f"the update is {newest.status}: {newest.why}", newest.created)
        if count < node.desired or len(images) > count or node.ill or node.shown.get("status") != "ACTIVE":
            self._bakes.forget(group.id, str(newest.version))
            return Watched(Progress.RUNNING, percent, f"{text}; {node.ill or node.shown.get('status')}", newest.created)
        limits = self.fleet.limits
        bake = max(limits.bake_time, limits.min_healthy_time).total_seconds()
        return self._bakes.look(group.id, str(newest.version), bake, text)

    def cancel(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """Do nothing: EKS finishes every update, and its end is waited for."""

    @understood
    def way_back(self, rollout: str, group: Group, pinned: GroupPin) -> str:
        """Why the node group cannot go back to what was pinned; empty where it can."""
        node = self.reader.node_group(group.name)
        if node.template is None or node.template[0] != pinned.template:
            return f"{node.called} now starts from another launch template: somebody else has changed it"
        made = self._made(rollout, group, node)
        if node.template[1] not in {pinned.version, *(made or ())}:
            return f"{node.called} is now at version {node.template[1]}, set by somebody else"
        return self.reader.templates.gone(node.called, pinned)

    @understood
    def roll_back(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """Ask for an update to the version that was pinned, once the one that goes on has ended.

        Raises RefusedError where it cannot go back.
        """
        node = self.reader.node_group(group.name)
        made = self._made(rollout, group, node)
        newest = self._newest(group, made) if made else None
        if made is None or newest is None:
            return
        if newest.version == made[1] and newest.status in (GOES_ON, DONE):
            return
        if newest.status == GOES_ON:
            raise InProgressError(f"the update of {group.name} to end")
        if why := self.way_back(rollout, group, pinned):
            raise RefusedError(why, hint="nothing was done; build and roll what shall run instead")
        self._update(group, pinned.template, int(pinned.version), token(newest.id, group.id, "back"))
        self._bakes.forget(group.id, str(made[0]))

    def _made(self, rollout: str, group: Group, node: NodeGroup) -> tuple[int, int] | None:
        """The version that a rollout made for the node group, and the one before; None where it made none."""
        return self.reader.templates.made_for(rollout, group.name, node.template[0]) if node.template else None

    def _newest(self, group: Group, made: tuple[int, int]) -> NodeUpdate | None:
        """The last update of a rollout, there or back; None before the first to its version."""
        updates = self.reader.updates(group.name)
        return newest_of(updates, {*made}) if newest_of(updates, {made[0]}) else None

    def _update(self, group: Group, template: str, version: int, once: str) -> None:
        """Ask for an update; asked again by the same token, it is the same. Disruption budgets of pods are kept."""
        self.reader.eks.call(
            "UpdateNodegroupVersion", clusterName=self.reader.cluster, nodegroupName=group.name,
            launchTemplate={"id": template, "version": str(version)}, clientRequestToken=once, force=False,
        )  # fmt: skip
