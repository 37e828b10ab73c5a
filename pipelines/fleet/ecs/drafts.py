"""The draft of an ECS fleet's file, from a service that runs already. Pure.

Each choice has a comment that says from what it was derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from images.model import Definition
from pipelines.fleet.delegated_drafts import UnadoptedInCluster, becomes_of, limit_as, set_container
from pipelines.fleet.drafting import Draft, lacking
from pipelines.fleet.ecs.services import Service, forbids, reach_of


@dataclass(frozen=True)
class UnadoptedService(UnadoptedInCluster):
    """A service that is in no fleet."""

    group: Service

    @property
    def container(self) -> str:
        """The container that is meant: the only one, or the first that its task cannot do without."""
        containers = self.group.revision.containers
        essential = (name for name, one in containers.items() if one.get("essential", True))
        return next(essential, next(iter(containers), ""))

    @property
    def image(self) -> str:
        """What that one is started from."""
        return self.group.revision.image(self.container)

    @property
    def left_alone(self) -> str:
        """Why a rollout would leave it alone; empty where it would not."""
        return forbids(replace(self.group, container=self.container))


def service_fleet_draft(
    found: UnadoptedService, owner: str, replacement: str, known: Mapping[str, Definition]
) -> tuple[Draft, str]:
    """The file of a fleet, and what its tasks become: `replacement`, the definition that they run, or their tag."""
    service, draft = found.group, Draft()
    becomes, because = becomes_of(service.name, found.image, found.golden, found.called, replacement, known)
    definition = known.get(becomes)
    draft.begin_fleet(found.source, service.name, "ecs", owner)
    draft.set_replacement(becomes, because, definition, lacks=lacking(becomes, definition))
    found.set_place(draft, "ecs", "services", "services")
    set_container(
        draft, found.container, [one for one in service.revision.containers if one != found.container], "tasks"
    )
    many = f"{service.desired} tasks"
    limit_as(draft, service.called, many, reach_of(service), "raise minimumHealthyPercent")
    if why := found.left_alone:
        draft.todo.append(f"{service.called} will be left alone: {why}")
    return draft, becomes
