"""Shared by the drafts of fleets whose services replace members by their own strategy. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from images.model import Definition
from pipelines.fleet.delegated import Reach
from pipelines.fleet.docker.drafts import fitting
from pipelines.fleet.drafting import Draft, slug
from pipelines.fleet.ecs.services import Service
from pipelines.fleet.eks.node_groups import NodeGroup
from pipelines.fleet.model import Ecs, Eks


@dataclass(frozen=True)
class UnadoptedInCluster:
    """A service or node group that runs at AWS. `golden`: the definition whose release its members run, empty where
    none is known here; `called` is the release as people call it. `home`: the account and region of the settings.
    """

    group: Service | NodeGroup
    place: Ecs | Eks
    home: tuple[str, str]
    golden: str = ""
    called: str = ""

    @property
    def source(self) -> str:
        """Where it was found."""
        return f"{self.group.called} of the cluster {self.place.cluster}"

    def set_place(self, draft: Draft, kind: str, key: str, many: str) -> None:
        """Where the fleet is, and by `key` the name of its one group, of which there are `many`."""
        draft.table(kind)
        draft.set("cluster", self.place.cluster)
        draft.set(key, [self.group.name], f"By its name; a selector would find {many} by their tags.")
        if (self.place.account, self.place.region) != self.home:
            draft.set("account", self.place.account)
            draft.set("region", self.place.region)


def becomes_of(
    name: str, image: str, golden: str, called: str, replacement: str, known: Mapping[str, Definition]
) -> tuple[str, str]:
    """What members that run `image` become, and why: `replacement`, the definition `golden` whose release they run, or
    their tag. `called` is the release as people call it.
    """
    if replacement:
        return replacement, "As --replacement says."
    if golden:
        return golden, f"It runs {called}."
    if near := fitting(image, known):
        return near, f"It runs {image}, and {near} is the one definition of that name."
    if "@" not in image and ":" in image.rpartition("/")[2]:
        return image, f"It runs {image}, which no definition is called after: members become what that tag names."
    return slug(name), f"It runs {image}, which no definition is called after."


def limit_as(draft: Draft, called: str, many: str, reach: Reach, lower: str) -> None:
    """What the strategy of a group of so `many` does today, so that a plan is not refused for it; said, where that
    takes members away. `lower` says how it would take fewer.
    """
    draft.table("limits")
    if reach.missing:
        draft.set("max_unavailable", reach.missing, f"Of its {many} its strategy lets so many be missing.")
        draft.todo.append(f"{called} has {reach.missing} of {many} missing while it rolls: {lower}?")
    if reach.more > 1:
        draft.set("max_surge", reach.more, "So many new ones its strategy lets stand beside the old.")
    if reach.at_once > 1:
        draft.set("max_parallel", reach.at_once, "So many its strategy replaces at once.")
        draft.set("budgets", [{"nodes": reach.at_once}], "The same: the default of 10 % would allow fewer.")
    if not reach.missing and reach.at_once <= 1:
        draft.say("One new one beside the old ones at a time: the defaults fit its strategy.")


def set_container(draft: Draft, chosen: str, others: list[str], members: str) -> None:
    """Which container is rolled, where `members` have several."""
    if others:
        also = ", ".join(others)
        draft.set("container", chosen, f"Its {members} also have {also}: those are judged, not rolled.")
        draft.todo.append(f"is {chosen} the container that becomes another? {also} stay")
