"""A rollout's values: how far it is, what people want of it, the orders of its flows, and the ports of these. Pure.

The states are what people read; flows go by the workflow engine's record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

from pydantic import PlainSerializer

from hardening.foundation.errors import RefusedError
from images.documents import from_json
from pipelines.durable.port import Json
from pipelines.fleet.members import Key, Member, ReplacementImage
from pipelines.fleet.model import Limits, Method
from pipelines.fleet.port import DelegatedFleet, Group, GroupPin, MemberFleet, Pacing
from pipelines.rollout.plan_model import GroupStep, Plan


class Phase(StrEnum):
    """How far a member is. REPLACING: anything up to the swap; SERVING: the new one serves, the old one is kept.

    The rest are ends: NEW and OLD say what runs, SKIPPED was left alone with a reason, FAILED needs a person.
    """

    PLANNED = "planned"
    REPLACING = "replacing"
    SERVING = "serving"
    NEW = "new"
    OLD = "old"
    SKIPPED = "skipped"
    FAILED = "failed"


class Cause(StrEnum):
    """Why a member ended as it did, where what follows goes by that. Its note says it to people, in SAID's words."""

    GONE = "gone"
    CHANGED = "changed"
    BACK_ALREADY = "back already"
    NOT_TAKEN = "not taken"
    COULD_NOT = "could not"


SAID = {
    Cause.GONE: "it is gone",
    Cause.CHANGED: "somebody else has changed it since",
    Cause.BACK_ALREADY: "it runs what it is to go back to",
    Cause.NOT_TAKEN: "it was not taken back",
    Cause.COULD_NOT: "it could not go back",
}


class RolloutStage(StrEnum):
    """What the rollout as a whole is doing."""

    ROLLING = "rolling"
    WAITING = "waiting"
    PAUSED = "paused"
    BAKING = "baking"
    CANARY_APPROVAL = "approval"
    RESTORING = "restoring"
    ENDED = "ended"


@dataclass(frozen=True)
class MemberState:
    """One member in a rollout. `old` is the handle of the instance that is replaced, `pinned` what it ran, exactly.

    `note` is what a person should know, and nothing goes by it but `cause`; `failure` why the member stopped the
    rollout, empty where it did not.
    """

    id: str
    name: str
    phase: Phase = Phase.PLANNED
    old: str = ""
    pinned: str = ""
    note: str = ""
    failure: str = ""
    cause: Cause | None = None

    @property
    def said(self) -> str:
        """What a person should know of it: the note, else why it failed."""
        return self.note or self.failure

    @property
    def pin(self) -> GroupPin:
        """What a group ran before."""
        return from_json(GroupPin, json.loads(self.pinned))

    @property
    def before(self) -> str:
        """What it ran before, in words: a group's pin is JSON, such as of a launch template and its version."""
        if not self.pinned.startswith("{"):
            return self.pinned
        return ", ".join(f"{name} {value}" for name, value in json.loads(self.pinned).items() if value)


@dataclass(frozen=True)
class RolloutState:
    """A rollout. `wave` counts from 1, 0 before the first; `note` says what it waits for; `failure` why it failed."""

    id: str
    fleet: str
    target: str
    started_at: datetime
    waves: int
    stage: RolloutStage = RolloutStage.ROLLING
    wave: int = 0
    note: str = ""
    failure: str = ""
    ended_at: datetime | None = None


@dataclass(frozen=True)
class RolloutOutcome:
    """What a rollout came to: all that its flow answers."""

    state: RolloutState
    members: tuple[MemberState, ...]


# -- what people want of a rollout, and the port to the ledger that a flow writes to -----------------------------------


class DesiredState(StrEnum):
    """What people want of a rollout now. Pause and resume take turns; abort and rollback are final."""

    GO = "go"
    PAUSE = "pause"
    ABORT = "abort"
    ROLLBACK = "rollback"


@dataclass(frozen=True)
class OperatorCommands:
    """What people have asked so far: where it stands, and how often they have approved a canary."""

    desired_state: DesiredState = DesiredState.GO
    canary_approvals: int = 0

    @classmethod
    def given(cls, commands: Sequence[str]) -> OperatorCommands:
        """What people want now, from all commands in their order: the first final one stands."""
        said = [Command(command) for command in commands]
        final = next((FINAL[command] for command in said if command in FINAL), None)
        reversible = [REVERSIBLE[command] for command in said if command in REVERSIBLE]
        return cls(final or (reversible[-1] if reversible else DesiredState.GO), said.count(Command.APPROVE))


class Event(StrEnum):
    """What people are told of without asking."""

    STARTED = "started"
    PAUSED = "paused"
    APPROVAL = "approval"
    FAILED = "failed"
    ENDED = "ended"
    REBUILD = "rebuild"
    NIGHT = "night"


class Journal(Protocol):
    """The ledger, as one process sees it. Everything is idempotent; a ledger that cannot be reached is an OutsideError.

    Only steps call it.
    """

    def fence(self, rollout: str) -> None:
        """Raises FencedError when this process does not hold the lease of the rollout's fleet any more."""

    def orders(self, rollout: str) -> OperatorCommands:
        """What people have asked of the rollout."""

    def begin(self, state: RolloutState, members: Sequence[MemberState]) -> None:
        """Write down a rollout with all its members."""

    def save(self, state: RolloutState) -> None:
        """Write down how far the rollout is."""

    def mark(self, rollout: str, member: MemberState) -> None:
        """Write down how far one member is."""

    def audit(self, rollout: str, action: str, detail: str = "") -> None:
        """Write down that something was done."""

    def notify(self, rollout: str, event: Event, text: str) -> None:
        """Tell people."""


STEP = "step: "  # how the audit calls what a rollout did to one member


class Command(StrEnum):
    """What people tell a rollout."""

    PAUSE = "pause"
    RESUME = "resume"
    APPROVE = "approve"
    ABORT = "abort"
    ROLLBACK = "rollback"


REVERSIBLE = {Command.PAUSE: DesiredState.PAUSE, Command.RESUME: DesiredState.GO}
FINAL = {Command.ABORT: DesiredState.ABORT, Command.ROLLBACK: DesiredState.ROLLBACK}


STAGES: dict[RolloutStage | Literal["begun"], str] = {
    RolloutStage.ROLLING: "replacing members",
    RolloutStage.WAITING: "waiting",
    RolloutStage.PAUSED: "paused",
    RolloutStage.BAKING: "baking: the new are watched, the old kept",
    RolloutStage.CANARY_APPROVAL: "waiting for approval",
    RolloutStage.RESTORING: "going back",
    RolloutStage.ENDED: "over",
}


def put_back(file: str) -> str:
    """What to do before a command on the fleet whose file is missing; empty where none is."""
    return f"put {file} back, for example from git; then " if file else ""


def doing(stage: RolloutStage | Literal["begun"], wave: int, waves: int, note: str) -> str:
    """What an open rollout does, in which wave, and what it waits for."""
    words = STAGES.get(stage, "about to begin")
    place = f"wave {wave} of {waves}: " if wave else ""
    return f"{place}{words}{f' ({note})' if note else ''}"


# -- what the flows are given: their orders (JSON, recorded) and the world that they act through -----------------------

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

    @classmethod
    def read(cls, order: Json) -> Order:
        """An order as the ledger keeps it, also one of groups alone, as an older version wrote it."""
        if "groups" not in order:
            return from_json(cls, order)
        groups = from_json(tuple[_OlderGroup, ...], order["groups"])
        target, limits = from_json(ReplacementImage, order["target"]), from_json(Limits, order["limits"])
        steps = tuple(GroupStep(one.group, one.pacing) for one in groups)
        plan = Plan(order["fleet"], target, limits.method, 0, 0, (), (), 0, groups=steps)
        going = (one for one in groups if one.part is Scope.BACK)
        back = tuple(MemberState(one.group.id, one.group.name, pinned=one.pinned) for one in going)
        return cls(order["rollout"], plan, limits, back=back)


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
    """One group of it. `pinned` (JSON): what it ran before, as soon as that is known; `adopt` as in Order."""

    rollout: str
    step: GroupStep
    target: ReplacementImage
    limits: Written
    part: Scope = Scope.ALL
    pinned: str = ""
    adopt: tuple[str, ...] = ()


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

    def group_left_alone(self, order: GroupOrder) -> str:
        """The same of a group."""

    def refuse(self, target: ReplacementImage) -> None:
        """Raises RefusedError as soon as the replacement must not run any more."""

    def alarms(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the alarms that are firing."""


Together = Callable[[Sequence[Callable[[], Any]]], list[Any]]  # the answers to questions, in their order


def one_by_one(questions: Sequence[Callable[[], Any]]) -> list[Any]:
    """The answers in the questions' order."""
    return [ask() for ask in questions]


@dataclass(frozen=True)
class World:
    """What a process acts through. Nothing of it is touched outside of a step.

    `together` asks many members at once, where the fleet bears that. `delegated`: the groups that a service rolls,
    None where the fleet's kind knows none. `until`: a rollout that may not act before this moment is left to a later
    process; None where this one waits as long as it takes. `retiring`: the ids of members that are stopping in place,
    on their way there or back; who counts them and adds one is in `exclusive`, a lock where steps run in several
    threads.
    """

    fleet: MemberFleet
    journal: Journal
    judge: Judge
    now: Callable[[], datetime]
    together: Together = one_by_one
    delegated: DelegatedFleet | None = None
    until: datetime | None = None
    exclusive: AbstractContextManager[object] = field(default_factory=nullcontext)
    retiring: set[str] = field(default_factory=set)

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
            hint = "its file has changed since the plan"
            raise RefusedError("the fleet no longer has Auto Scaling groups", hint=hint)
        return self.delegated
