"""A rollout's plan as data: its waves, its groups, the members it skips, and what it needs of services. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipelines.fleet.members import ReplacementImage
from pipelines.fleet.model import Method
from pipelines.fleet.port import Group, Pacing
from pipelines.rollout.schedule import Hold
from pipelines.rollout.waves import Late, Step, Wave


@dataclass(frozen=True)
class Skip:
    """A member that violates and is left alone, and why."""

    member: str
    why: str


@dataclass(frozen=True)
class Calls:
    """How many calls of a bucket a rollout makes in one account and region, and how many seconds they last at least."""

    place: str
    bucket: str
    calls: int
    seconds: int


@dataclass(frozen=True)
class GroupStep:
    """One group that a service rolls as a whole, and the pace that it is asked for."""

    group: Group
    pacing: Pacing

    @property
    def whole(self) -> bool:
        """Whether the canary is all of the group."""
        return not self.pacing.checkpoint_percents


@dataclass(frozen=True)
class Plan:
    """What a rollout would do: `floor` members serve at every moment, and it takes `seconds` at least.

    Members first, wave after wave, then the `groups`, one after the other. `hold`: until when windows, freezes or
    budgets let it do nothing. `calls`: what it asks of a service that limits its callers. `rehearsed`: each new member
    is tried beside the old one first. `takes`: of what the time of one consists. `ends_at`: when the last wave has
    baked, as predicted; None without waves, or where that is not within a year. `late`: whose deadlines it cannot meet,
    of those still to come. `neglected`: the members for which their owner must do something, since no rollout does:
    they do not run, or are skipped and overdue.
    """

    fleet: str
    target: ReplacementImage
    method: Method
    desired: int
    floor: int
    waves: tuple[Wave, ...]
    skipped: tuple[Skip, ...]
    seconds: int
    hold: Hold | None = None
    calls: tuple[Calls, ...] = ()
    groups: tuple[GroupStep, ...] = ()
    rehearsed: bool = False
    takes: str = ""
    ends_at: datetime | None = None
    late: tuple[Late, ...] = ()
    neglected: tuple[Skip, ...] = ()

    @property
    def parts(self) -> int:
        """How many parts it has, one after the other: waves and groups."""
        return len(self.waves) + len(self.groups)

    @property
    def deadlines_met(self) -> int:
        """How many of its members are replaced by their deadlines."""
        return sum(step.deadline is not None and step.in_time for step in self.steps)

    @property
    def overdue(self) -> int:
        """How many of its members were past their deadlines when it was made."""
        return sum(not step.in_time for step in self.steps) - len(self.late)

    @property
    def names(self) -> dict[str, str]:
        """Whom it rolls, by id, in its order."""
        members = {step.member.id: step.member.name for step in self.steps}
        return members | {step.group.id: step.group.name for step in self.groups}

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps of members in order."""
        return tuple(step for wave in self.waves for step in wave.steps)

    @property
    def targets(self) -> tuple[ReplacementImage, ...]:
        """What its members and groups become, each once, the plan's own first; that alone without any."""
        found = dict.fromkeys(step.target or self.target for step in self.steps)
        if self.groups or not found:
            found[self.target] = None
        return tuple(sorted(found, key=lambda one: one != self.target))
