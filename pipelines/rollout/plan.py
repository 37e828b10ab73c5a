"""How a fleet gets back into policy: waves of steps within its limits, or a refusal that says what forbids it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from hardening.foundation.errors import RefusedError
from pipelines.fleet.members import ReplacementImage
from pipelines.fleet.model import Fleet, Method
from pipelines.fleet.port import Group, Pacing
from pipelines.fleet.violations import Judged
from pipelines.rollout.cost import Calls, calls, step_time
from pipelines.rollout.refusals import refuse_implausible, refuse_surge, refuse_target, why_not
from pipelines.rollout.schedule import Cap, Hold, caps, gravest, may_act, turn
from pipelines.rollout.waves import Room, Step, Wave, waves


@dataclass(frozen=True)
class Skip:
    """A member that violates and is left alone, and why."""

    member: str
    why: str


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
    budgets let it do nothing; the waves are those of that moment's budgets. `calls`: what it asks of a service that
    limits its callers.
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

    @property
    def parts(self) -> int:
        """How many parts it has, one after the other: waves and groups."""
        return len(self.waves) + len(self.groups)

    @property
    def names(self) -> dict[str, str]:
        """Whom it rolls, by id, in its order."""
        members = {step.member.id: step.member.name for step in self.steps}
        return members | {step.group.id: step.group.name for step in self.groups}

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps of members in order."""
        return tuple(step for wave in self.waves for step in wave.steps)


def plan(
    fleet: Fleet,
    judged: Sequence[Judged],
    target: ReplacementImage,
    now: datetime,
    adopt: Sequence[str] = (),
    *,
    automated: bool = False,
) -> Plan:
    """The rollout that brings `judged` to `target`; without a violation it has no waves.

    `adopt`: names, globs or `all`: members with an unknown origin that are taken over on purpose. `automated`: nobody
    asked for it now, so that members that are merely too old wait for their turn (`jitter`).
    Raises RefusedError naming the limit that forbids it.
    """
    _refuse_empty(fleet, judged)
    violating = [one for one in judged if one.violations]
    if violating:
        refuse_target(fleet, target, now)
        refuse_implausible(fleet, judged, adopt)
    hold = refuse_standstill(fleet, now) if violating else None
    budgets = caps(fleet.limits, len(judged), hold.until if hold and hold.until else now)

    def why_left(one: Judged) -> str:
        waits = not_yet(fleet, one, now) if automated else ""
        return why_not(fleet, one, target, now, adopt) or waits or frozen(one, budgets)

    left = {one.member.id: why_left(one) for one in violating}
    rolled = [one for one in violating if not left[one.member.id]]
    refuse_surge(fleet, violating, left)
    room = Room(fleet.limits, len(judged), sum(one.member.healthy for one in judged), budgets)
    made = Plan(
        fleet=fleet.name,
        target=target,
        method=fleet.limits.method,
        desired=room.desired,
        floor=room.floor,
        waves=waves(_steps(fleet, rolled), room),
        skipped=tuple(Skip(member, why) for member, why in left.items() if why),
        seconds=0,
        hold=hold if rolled else None,
        calls=calls(fleet, (one.member.id for one in rolled)),
    )
    return replace(made, seconds=_seconds(made))


def _refuse_empty(fleet: Fleet, judged: Sequence[Judged]) -> None:
    if not judged:
        labels = ", ".join(f"{key}={value}" for key, value in fleet.selector.items())
        raise RefusedError(f"nothing runs with the labels of fleet {fleet.name}: {labels}", hint="see its selector")


def nothing(fleet: Fleet, target: ReplacementImage) -> Plan:
    """The plan for a fleet that has no members of ours to step: a service rolls all of it."""
    return Plan(fleet.name, target, fleet.limits.method, 0, 0, (), (), 0)


def refuse_standstill(fleet: Fleet, now: datetime) -> Hold | None:
    """Until when nothing may be done. Raises RefusedError where no end of that is in sight."""
    hold = may_act(fleet.limits, now)
    if hold and hold.until is None:
        raise RefusedError(
            f"{hold.why}, and no end of that is in sight", hint="change it in the fleet's file: an explicit 0 "
            "freezes the fleet, and a window that never opens as well"
        )  # fmt: skip
    return hold


def frozen(one: Judged, budgets: Sequence[Cap]) -> str:
    """Why a budget of nobody leaves this member alone; empty when none binds it."""
    rule = gravest(one.rules)
    return next(
        (f"{cap.name} allows no member that is {rule}" for cap in budgets if not cap.most and cap.binds(rule)), ""
    )


def not_yet(fleet: Fleet, one: Judged, now: datetime) -> str:
    """Why an automated run leaves this member to a later one; empty when it is its turn."""
    at = turn(one.member.id, one.violations, fleet.limits.jitter)
    return f"its turn comes at {at:%Y-%m-%d %H:%M} UTC (limits.jitter {fleet.limits.jitter})" if at and now < at else ""


def _steps(fleet: Fleet, rolled: Sequence[Judged]) -> list[Step]:
    seconds = int(step_time(fleet).total_seconds())
    return [
        Step(one.member, tuple(reason.what for reason in one.violations), gravest(one.rules), seconds) for one in rolled
    ]


def _seconds(made: Plan) -> int:
    """The waves after each other, or as long as the service's limits make the calls last."""
    return max(sum(wave.seconds for wave in made.waves), max((call.seconds for call in made.calls), default=0))
