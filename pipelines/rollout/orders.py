"""What the flows of a rollout are given: their orders (JSON, recorded) and the world that they act through. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Protocol

from pydantic import PlainSerializer

from pipelines.durable.port import Json
from pipelines.fleet.members import Key, Member, Target
from pipelines.fleet.model import Limits, Method
from pipelines.fleet.port import Group, MemberFleet, Pacing
from pipelines.rollout.journal import Journal
from pipelines.rollout.plan import Plan
from pipelines.rollout.state import MemberState

# As the fleet's file wrote them: its checks ask what was written, and a default is not.
Written = Annotated[Limits, PlainSerializer(lambda limits: limits.model_dump(mode="json", exclude_unset=True))]


@dataclass(frozen=True)
class Order:
    """A whole rollout: what was approved. `adopt` names members that are taken over on purpose.

    `back`: the members that an earlier rollout of this plan has replaced; they go back to what they ran, and that is
    all.
    """

    rollout: str
    plan: Plan
    limits: Written
    adopt: tuple[str, ...] = ()
    back: tuple[MemberState, ...] = ()


@dataclass(frozen=True)
class MemberOrder:
    """One member of it. `label` marks what is made for it; `rule` is the reason that budgets count; `back`: the member
    goes back to what it ran.

    `replaces` is the digest that it must run for that: what somebody else has changed since is left alone.
    """

    rollout: str
    label: str
    fleet: str
    member: str
    name: str
    target: Target
    method: Method
    floor: int
    limits: Written
    adopt: tuple[str, ...] = ()
    rule: str = ""
    back: bool = False
    replaces: str = ""

    def key(self, old: str) -> Key:
        """The domain key of the step, with the very instance that is replaced."""
        return Key(self.label, self.member, self.name, old, self.method)


@dataclass(frozen=True)
class Finish:
    """What becomes of a member whose new instance serves; `verb` is one of `ending.Verb`."""

    verb: str
    order: MemberOrder
    state: MemberState
    note: str = ""


class Part(StrEnum):
    """What of a group is to be rolled; BACK: all of it, to what was pinned."""

    ALL = "all"
    CANARY = "canary"
    REST = "rest"
    BACK = "back"


@dataclass(frozen=True)
class GroupOrder:
    """One group that a service rolls, and the pace that it is asked for.

    `pinned` (JSON): what it ran before, as soon as that is known.
    """

    rollout: str
    fleet: str
    group: Group
    target: Target
    pacing: Pacing
    limits: Written
    part: Part = Part.ALL
    pinned: str = ""

    @property
    def asks(self) -> bool:
        """Whether a person has to approve the canary; of a group that is no larger, that is all of it."""
        return not self.limits.auto_promote and self.limits.canary > 0 and self.group.desired > 0

    @property
    def whole(self) -> bool:
        """Whether the canary is all of the group."""
        return not self.pacing.checkpoint_percents


@dataclass(frozen=True)
class GroupsOrder:
    """A rollout of groups, one after the other; those that are to go BACK do so, and that is all, the last first."""

    rollout: str
    fleet: str
    target: Target
    limits: Written
    groups: tuple[GroupOrder, ...]


def named(order: GroupsOrder, rollout: str) -> GroupsOrder:
    """The order under a rollout's name: an approved one gets it at its start, since no name is used twice."""
    return replace(order, rollout=rollout, groups=tuple(replace(one, rollout=rollout) for one in order.groups))


def going_back(order: GroupsOrder, rollout: str, pins: Mapping[str, str]) -> GroupsOrder:
    """The order under which the groups that `pins` names, of a rollout that is over, go back to what they ran."""
    back = tuple(
        replace(one, part=Part.BACK, pinned=pins[one.group.id]) for one in order.groups if one.group.id in pins
    )
    return named(replace(order, groups=back), rollout)


class Judge(Protocol):
    """Says right before an effect what has changed since the plan was made. Only steps call it."""

    def left_alone(self, order: MemberOrder, member: Member) -> str:
        """Why the member is left alone after all; empty when it is to be replaced."""

    def refuse(self, target: Target) -> None:
        """Raises RefusedError as soon as the replacement must not run any more."""

    def alarms(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the alarms that are firing."""


def one_by_one(questions: Sequence[Callable[[], Json]]) -> list[Json]:
    """The answers in the questions' order."""
    return [ask() for ask in questions]


@dataclass(frozen=True)
class World:
    """What a process acts through. Nothing of it is touched outside of a step.

    `together` asks many members at once, where the fleet bears that.
    """

    fleet: MemberFleet
    journal: Journal
    judge: Judge
    now: Callable[[], datetime]
    together: Callable[[Sequence[Callable[[], Json]]], list[Json]] = one_by_one
