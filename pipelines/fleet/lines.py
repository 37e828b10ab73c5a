"""What `fleet.check`, `roll.plan` and `roll.start` print with `--json`, made from what the flows return. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from hardening.findings import Reason
from pipelines.contract import Line
from pipelines.fleet.progress import RolloutState
from pipelines.rollouts.plan import Plan
from pipelines.violations import Judged, named


class MemberLine(Line):
    """`fleet.check`: one member. `violations` are the reasons to replace it; `reasons` all, recorded and waived too."""

    member: str
    name: str
    image: str
    release: str
    base: str
    expires_at: datetime | None
    healthy: bool
    violations: tuple[str, ...]
    deadline: datetime | None
    reasons: tuple[Reason, ...]


class StepLine(Line):
    """One member that would be, or was, replaced, and why; `outcome` is empty in a plan."""

    member: str
    wave: int
    why: tuple[str, ...]
    outcome: str = ""
    note: str = ""


class SkipLine(Line):
    """One member that violates and is left alone, and why."""

    member: str
    why: str


class RollOutput(Line):
    """`roll.plan` and `roll.start`: `rollout` is empty where nothing was done."""

    fleet: str
    replacement: str
    method: str
    desired: int
    floor: int
    seconds: int
    steps: tuple[StepLine, ...]
    skipped: tuple[SkipLine, ...]
    rollout: str = ""


def member_lines(judged: Sequence[Judged]) -> list[MemberLine]:
    """One line for each member."""
    return [_member(one) for one in judged]


def _member(one: Judged) -> MemberLine:
    origin, member = one.origin, one.member
    return MemberLine(
        member=member.id,
        name=member.name,
        image=member.image,
        release=named(origin.release) if origin.release else "",
        base=named(origin.base) if origin.base else "",
        expires_at=origin.golden.expires_at if origin.golden else None,
        healthy=member.healthy,
        violations=tuple(sorted(one.rules)),
        deadline=one.deadline,
        reasons=one.reasons,
    )


def roll_output(plan: Plan, state: RolloutState | None = None) -> RollOutput:
    """A plan, with what became of each step where it was carried out."""
    done = {step.key.member: step for step in state.steps} if state else {}
    steps = [
        StepLine(
            member=step.member.id,
            wave=number,
            why=step.why,
            outcome=done[step.member.id].phase if step.member.id in done else "",
            note=done[step.member.id].note if step.member.id in done else "",
        )
        for number, wave in enumerate(plan.waves, start=1)
        for step in wave.steps
    ]
    return RollOutput(
        fleet=plan.fleet,
        replacement=plan.target.reference,
        method=plan.method,
        desired=plan.desired,
        floor=plan.floor,
        seconds=plan.seconds,
        steps=tuple(steps),
        skipped=tuple(SkipLine(member=skip.member, why=skip.why) for skip in plan.skipped),
        rollout=state.id if state else "",
    )
