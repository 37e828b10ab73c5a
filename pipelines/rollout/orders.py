"""What the flows of a rollout are given: their orders (JSON, recorded) and the world that they act through. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Protocol

from pydantic import PlainSerializer

from hardening.foundation.errors import RefusedError
from images.documents import from_json
from pipelines.durable.port import Json
from pipelines.fleet.members import Key, Member, ReplacementImage
from pipelines.fleet.model import Limits, Method
from pipelines.fleet.port import DelegatedFleet, Group, MemberFleet, Pacing
from pipelines.rollout.journal import Journal
from pipelines.rollout.plan import GroupStep, Plan
from pipelines.rollout.state import MemberState

# As the fleet's file wrote them: its checks ask what was written, and a default is not.
Written = Annotated[Limits, PlainSerializer(lambda limits: limits.model_dump(mode="json", exclude_unset=True))]


@dataclass(frozen=True)
class Order:
    """A whole rollout: what was approved. `adopt` names members that are taken over on purpose.

    `back`: the members and groups that an earlier rollout of this plan has replaced; they go back to what they ran, and
    that is all.
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
    member: str
    name: str
    target: ReplacementImage
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


class Verb(StrEnum):
    """What becomes of a pair of old and new."""

    PROMOTE = "promote"
    RESTORE = "restore"


@dataclass(frozen=True)
class Finish:
    """What becomes of a member whose new instance serves."""

    verb: Verb
    order: MemberOrder
    state: MemberState
    note: str = ""


class Scope(StrEnum):
    """What of a group is to be rolled; BACK: all of it, to what was pinned."""

    ALL = "all"
    CANARY = "canary"
    REST = "rest"
    BACK = "back"


@dataclass(frozen=True)
class GroupOrder:
    """One group of it. `pinned` (JSON): what it ran before, as soon as that is known."""

    rollout: str
    step: GroupStep
    target: ReplacementImage
    limits: Written
    part: Scope = Scope.ALL
    pinned: str = ""


def ordered(order: Json) -> Order:
    """An order as the ledger keeps it, also one of groups alone, as an older version wrote it."""
    if "groups" not in order:
        return from_json(Order, order)
    groups = from_json(tuple[_OlderGroup, ...], order["groups"])
    target, limits = from_json(ReplacementImage, order["target"]), from_json(Limits, order["limits"])
    steps = tuple(GroupStep(one.group, one.pacing) for one in groups)
    plan = Plan(order["fleet"], target, limits.method, 0, 0, (), (), 0, groups=steps)
    back = tuple(
        MemberState(one.group.id, one.group.name, pinned=one.pinned) for one in groups if one.part is Scope.BACK
    )
    return Order(order["rollout"], plan, limits, back=back)


@dataclass(frozen=True)
class _OlderGroup:
    group: Group
    pacing: Pacing
    part: Scope = Scope.ALL
    pinned: str = ""


class AlarmError(RefusedError):
    """An alarm that the fleet names is firing."""


class Judge(Protocol):
    """Says right before an effect what has changed since the plan was made. Only steps call it."""

    def left_alone(self, order: MemberOrder, member: Member) -> str:
        """Why the member is left alone after all; empty when it is to be replaced."""

    def refuse(self, target: ReplacementImage) -> None:
        """Raises RefusedError as soon as the replacement must not run any more."""

    def alarms(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the alarms that are firing."""


def one_by_one(questions: Sequence[Callable[[], Json]]) -> list[Json]:
    """The answers in the questions' order."""
    return [ask() for ask in questions]


@dataclass(frozen=True)
class World:
    """What a process acts through. Nothing of it is touched outside of a step.

    `together` asks many members at once, where the fleet bears that. `delegated`: the groups that a service rolls,
    None where the fleet's kind knows none.
    """

    fleet: MemberFleet
    journal: Journal
    judge: Judge
    now: Callable[[], datetime]
    together: Callable[[Sequence[Callable[[], Json]]], list[Json]] = one_by_one
    delegated: DelegatedFleet | None = None

    def refuse(self, target: ReplacementImage, limits: Limits) -> None:
        """Raises RefusedError where the replacement must not run any more, AlarmError where an alarm is firing.

        For use inside a step.
        """
        self.judge.refuse(target)
        if firing := self.judge.alarms(limits.alarms):
            raise AlarmError(f"an alarm is firing: {', '.join(firing)}")

    @property
    def groups(self) -> DelegatedFleet:
        """The groups that a service rolls. Raises RefusedError where the fleet's kind knows none."""
        if self.delegated is None:
            raise RefusedError(
                "the fleet no longer has Auto Scaling groups", hint="its file has changed since the plan"
            )
        return self.delegated
