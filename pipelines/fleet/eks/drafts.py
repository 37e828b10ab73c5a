"""The draft of an EKS fleet's file, from a managed node group that runs already. Pure.

Each choice has a comment that says from what it was derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from images.model import Definition
from pipelines.fleet.delegated_drafts import UnadoptedInCluster, limit_as
from pipelines.fleet.drafting import Draft, slug
from pipelines.fleet.eks.node_groups import NodeGroup, reach_of


@dataclass(frozen=True)
class UnadoptedNodeGroup(UnadoptedInCluster):
    """A managed node group that is in no fleet. `left_alone`: why a rollout would leave it alone."""

    group: NodeGroup
    left_alone: str = ""

    @property
    def image(self) -> str:
        """What its nodes are started from."""
        return self.group.runs


def node_fleet_draft(
    found: UnadoptedNodeGroup, owner: str, replacement: str, known: Mapping[str, Definition]
) -> tuple[Draft, str]:
    """The file of a fleet, and the definition that its nodes become: `replacement`, or what they run."""
    node, draft = found.group, Draft()
    becomes = replacement or found.golden or slug(node.name)
    runs = f"Its nodes run {found.called}." if found.golden else "Its nodes run no release that is known here."
    definition = known.get(becomes)
    defined = definition is not None and definition.is_machine
    draft.begin_fleet(found.source, node.name, "eks", owner)
    draft.set_replacement(
        becomes, "As --replacement says." if replacement else runs, definition,
        lacks="" if defined else f"no machine is defined as {becomes}",
    )  # fmt: skip
    found.set_place(draft, "eks", "node_groups", "node groups")
    limit_as(draft, node.called, f"{node.desired} nodes", reach_of(node), "lower maxUnavailable in its updateConfig")
    if found.left_alone:
        draft.todo.append(f"{node.called} will be left alone: {found.left_alone}")
    return draft, becomes
