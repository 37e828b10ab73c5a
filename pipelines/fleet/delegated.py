"""The port to fleets that a service rolls: we start it, watch it, cancel it or let it roll back. Pure.

Auto Scaling groups now; the seam must fit EKS node groups and ECS services. Every effect is idempotent by `rollout`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from pipelines.fleet.members import Target


class Progress(StrEnum):
    """How a service's own rolling stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True)
class Group:
    """One group that a service rolls. `id` is `account/region/kind/name`; `desired` its members.

    `cannot_roll` says why the service could not bring it back or may not touch it; empty when it can be rolled. `runs`
    is the exact version that it starts members from.
    """

    id: str
    name: str
    desired: int
    healthy: int
    cannot_roll: str = ""
    runs: str = ""


@dataclass(frozen=True)
class Pacing:
    """How a service is asked to roll: percentages of `desired` that stay healthy, and where and how long it pauses."""

    min_healthy_percent: int
    max_healthy_percent: int
    checkpoint_percents: tuple[int, ...]
    checkpoint_delay: timedelta
    warmup: timedelta
    bake: timedelta
    alarms: tuple[str, ...]
    auto_rollback: bool

    @property
    def canary(self) -> Pacing:
        """The canary alone: the service's rolling ends at the first checkpoint, and the bake is ours to watch."""
        return replace(
            self,
            checkpoint_percents=self.checkpoint_percents[:1],
            checkpoint_delay=timedelta(),
            bake=timedelta(),
        )

    @property
    def rest(self) -> Pacing:
        """All that the canary has left."""
        return replace(self, checkpoint_percents=(), checkpoint_delay=timedelta())


@dataclass(frozen=True)
class Watched:
    """One look at a service's own rolling: `percent` done, and what it says itself."""

    progress: Progress
    percent: int = 0
    text: str = ""
    since: datetime | None = None


class DelegatedFleet(Protocol):
    """What a rollout needs of a fleet that a service rolls. A service that cannot be reached raises OutsideError."""

    def groups(self) -> tuple[Group, ...]:
        """Every group of the fleet."""

    def pin(self, rollout: str, group: Group) -> Any:
        """What the group runs now, as exact versions (JSON): what a rollback goes to. Changes nothing."""

    def begin(self, rollout: str, group: Group, target: Target, pinned: Any, pacing: Pacing) -> None:
        """Ask the service to roll the group to `target`; a repeated call finds the first. Raises RefusedError where the
        group has left what was pinned.
        """

    def hold(self, rollout: str, group: Group, pinned: Any) -> None:
        """Let whatever the group starts from now on run what was pinned: its canary is done, its rest is not begun."""

    def watch(self, rollout: str, group: Group) -> Watched:
        """One look."""

    def cancel(self, rollout: str, group: Group) -> None:
        """Ask the service to stop where it is; returns when the request is accepted."""

    def way_back(self, rollout: str, group: Group, pinned: Any) -> str:
        """Why the group cannot go back to what was pinned: that is gone, or it runs somebody else's. Empty: it can."""

    def roll_back(self, rollout: str, group: Group, pinned: Any) -> None:
        """Ask the service to bring the group back to what was pinned; returns when the request is accepted. Raises
        RefusedError where there is no way back.
        """
