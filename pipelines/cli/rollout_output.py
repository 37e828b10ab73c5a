"""What `fleet.check`, `roll.plan` and `roll.start` print: with `--json`, for a terminal, and as markdown. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from hardening.findings import Reason
from hardening.foundation import text
from hardening.foundation.durations import in_short
from pipelines.contract import Line
from pipelines.fleet.violations import Judged, named
from pipelines.rollout.plan import GroupStep, Plan
from pipelines.rollout.state import MemberState, Phase, RolloutOutcome, RolloutStage, doing
from pipelines.rollout.waves import Wave


class MemberLine(Line):
    """`fleet.check`: one member of `fleet`. `violations` are the reasons to replace it; `reasons` all, recorded and
    waived ones too.
    """

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
    fleet: str = ""


class SeenLine(Line):
    """`fleet.scan`: one member, or a place that could not be read. `golden` is the release that it is judged by."""

    fleet: str
    member: str
    name: str
    image: str
    golden: str
    state: str


class StepLine(Line):
    """One member that would be, or was, replaced, and why; `outcome` is empty in a plan.

    `rule`: which of its reasons the budgets count. `seconds`: what it takes at least.
    """

    member: str
    wave: int
    why: tuple[str, ...]
    zone: str
    rule: str
    seconds: int
    outcome: Phase | Literal[""] = ""
    note: str = ""


class SkipLine(Line):
    """One member that violates and is left alone, and why."""

    member: str
    why: str


def skipped(plan: Plan) -> tuple[SkipLine, ...]:
    """The members that the plan leaves alone."""
    return tuple(SkipLine(member=skip.member, why=skip.why) for skip in plan.skipped)


class WaveLine(Line):
    """One wave: so many members, `parallel` at a time, with the bake after them. The canary wave waits for approval
    where `auto_promote` is off.
    """

    wave: int
    canary: bool
    members: int
    parallel: int
    zones: tuple[str, ...]
    seconds: int
    bake_seconds: int


class CallsLine(Line):
    """How many calls of one kind a rollout makes in an account and region, and how long they last at least."""

    place: str
    calls_of: str
    calls: int
    seconds: int


class GroupLine(Line):
    """One group that a service rolls: how much of it stays healthy, where it stops, and what became of it.

    `runs`: the exact version that it starts members from before.
    """

    group: str
    desired: int
    min_healthy_percent: int
    max_healthy_percent: int
    checkpoints: tuple[int, ...]
    cannot_roll: str
    runs: str
    outcome: Phase | Literal[""] = ""
    note: str = ""


class RollOutput(Line):
    """`roll.plan` and `roll.start`: `rollout` is empty where nothing was done. `failure` says why it failed.

    `waits_until` and `waits_for`: windows, freezes or budgets that let it do nothing before that. `afterwards`: what a
    person has to change elsewhere, lest that undo it. `needs_approval`: another user must approve the plan first.
    """

    fleet: str
    replacement: str
    method: str
    desired: int
    floor: int
    seconds: int
    steps: tuple[StepLine, ...]
    skipped: tuple[SkipLine, ...]
    waves: tuple[WaveLine, ...]
    calls: tuple[CallsLine, ...]
    waits_until: datetime | None
    waits_for: str
    afterwards: tuple[str, ...] = ()
    groups: tuple[GroupLine, ...] = ()
    needs_approval: bool = False
    rollout: str = ""
    failure: str = ""


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


def roll_output(plan: Plan, outcome: RolloutOutcome | None = None) -> RollOutput:
    """A plan, with what became of each member and group where it was carried out."""
    done = {member.id: member for member in outcome.members} if outcome else {}
    steps = [
        StepLine(
            member=step.member.id,
            wave=number,
            why=step.why,
            zone=step.member.zone,
            rule=step.rule,
            seconds=step.seconds,
            outcome=done[step.member.id].phase if step.member.id in done else "",
            note=done[step.member.id].said if step.member.id in done else "",
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
        skipped=skipped(plan),
        waves=tuple(_wave(number, wave) for number, wave in enumerate(plan.waves, start=1)),
        calls=tuple(CallsLine(place=c.place, calls_of=c.bucket, calls=c.calls, seconds=c.seconds) for c in plan.calls),
        waits_until=plan.hold.until if plan.hold else None,
        waits_for=plan.hold.why if plan.hold else "",
        afterwards=_afterwards(plan),
        groups=tuple(_group(step, done) for step in plan.groups),
        rollout=outcome.state.id if outcome else "",
        failure=outcome.state.failure if outcome else "",
    )


def _afterwards(plan: Plan) -> tuple[str, ...]:
    """What else defines the members that are replaced, and must name the new image."""
    defined = sorted({step.member.defined_in for step in plan.steps} - {""})
    return tuple(f"{one} must name {plan.target.reference}, or compose brings the old image back" for one in defined)


def _group(step: GroupStep, done: Mapping[str, MemberState]) -> GroupLine:
    group, pacing, ended = step.group, step.pacing, done.get(step.group.id)
    return GroupLine(
        group=group.id,
        desired=group.desired,
        min_healthy_percent=pacing.min_healthy_percent,
        max_healthy_percent=pacing.max_healthy_percent,
        checkpoints=pacing.checkpoint_percents,
        cannot_roll=group.cannot_roll,
        runs=group.runs,
        outcome=ended.phase if ended else "",
        note=ended.said if ended else "",
    )


def ends(roll: RollOutput) -> str:
    """How many members and groups ended in which way, and who needs a person."""
    ended = {one.member: one.outcome for one in roll.steps} | {one.group: one.outcome for one in roll.groups}
    counts = Counter(ended.values())
    said = [f"{counts[phase]} {meaning(phase, RolloutStage.ENDED)}" for phase in Phase if counts[phase]]
    failed = [one.rpartition("/")[2] for one, outcome in ended.items() if outcome == Phase.FAILED]
    return ", ".join(said) + (f": {', '.join(failed)}" if failed else "")


def _wave(number: int, wave: Wave) -> WaveLine:
    return WaveLine(
        wave=number,
        canary=wave.canary,
        members=len(wave.steps),
        parallel=wave.parallel,
        zones=tuple(sorted({step.member.zone for step in wave.steps} - {""})),
        seconds=wave.seconds,
        bake_seconds=int(wave.bake.total_seconds()),
    )


WAVE_COLUMNS = ["wave", "members", "at once", "zone", "takes", "then bakes"]
STEP_COLUMNS = ["wave", "member", "because", "outcome"]
GROUP_COLUMNS = ["group", "members", "runs", "healthy", "stops at", "outcome"]
CALL_COLUMNS = ["place", "calls", "number", "last at least"]
MOST_STEPS = 200  # in markdown: a forge takes some 60,000 characters


def heading(roll: RollOutput) -> list[str]:
    """What it is about, in a few lines."""
    lines = [f"{roll.method}, never below {roll.floor} of {roll.desired} serving"] if roll.desired else []
    if roll.steps:
        many, waves = _many(len(roll.steps), "member"), _many(len(roll.waves), "wave")
        lines.append(f"{many} in {waves}, in {_span(roll.seconds)} or more")
    if roll.groups:
        lines.append(f"{_many(len(roll.groups), 'group')} that a service rolls, one after the other")
    if roll.waits_until:
        lines.append(f"nothing is done before {roll.waits_until:%Y-%m-%d %H:%M} UTC: {roll.waits_for}")
    return [*lines, *roll.afterwards]


def wave_rows(roll: RollOutput) -> list[list[str]]:
    """A row for each wave; equal ones after each other share one."""
    rows: list[list[str]] = []
    last: list[str] = []
    for wave in roll.waves:
        cells = _shown_wave(wave)
        if cells == last and not wave.canary:
            rows[-1][0] = f"{rows[-1][0].partition('-')[0]}-{wave.wave}"
        else:
            rows.append([f"{wave.wave}{' canary' if wave.canary else ''}", *cells])
        last = cells if not wave.canary else []
    return rows


def step_rows(steps: Iterable[StepLine]) -> list[list[str]]:
    """A row for each member."""
    return [
        [str(step.wave), step.member.rpartition("/")[2], "; ".join(step.why), _ended(step.outcome)] for step in steps
    ]


def group_rows(groups: Iterable[GroupLine]) -> list[list[str]]:
    """A row for each group that a service rolls."""
    return [
        [
            group.group.rpartition("/")[2],
            str(group.desired),
            group.runs,
            f"{group.min_healthy_percent}-{group.max_healthy_percent} %",
            ", ".join(f"{percent} %" for percent in group.checkpoints),
            group.cannot_roll or _ended(group.outcome),
        ]
        for group in groups
    ]


def call_rows(calls: Iterable[CallsLine]) -> list[list[str]]:
    """A row for each limit of a service that the rollout meets."""
    return [[call.place, call.calls_of, str(call.calls), _span(call.seconds)] for call in calls]


def markdown(roll: RollOutput, made_by: str, valid_until: str = "") -> str:
    """The plan as somebody approves it: what, in which order, how long, what it asks of others, who is left alone."""
    parts = [
        f"## Rollout of {text.markdown(roll.fleet)}",
        f"To {text.markdown_code(roll.replacement)}, planned by {text.markdown(made_by)}."
        + (f" Good until {valid_until}." if valid_until else ""),
        "\n".join(f"- {text.markdown(line)}" for line in heading(roll)),
        _table(WAVE_COLUMNS, wave_rows(roll)),
        _folded("Members", _table(STEP_COLUMNS[:3], [row[:3] for row in step_rows(roll.steps[:MOST_STEPS])])),
        f"And {len(roll.steps) - MOST_STEPS} more, in the plan's file." if len(roll.steps) > MOST_STEPS else "",
        _table(GROUP_COLUMNS, group_rows(roll.groups)),
        _folded("Calls", _table(CALL_COLUMNS, call_rows(roll.calls))),
        _folded(
            "Left alone", _table(["member", "why"], [[skip.member, skip.why] for skip in roll.skipped[:MOST_STEPS]])
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _ended(outcome: Phase | Literal[""]) -> str:
    return meaning(outcome, RolloutStage.ENDED) if outcome else "planned"


def _shown_wave(wave: WaveLine) -> list[str]:
    bakes = _span(wave.bake_seconds) if wave.bake_seconds else ""
    working = _span(wave.seconds - wave.bake_seconds)
    return [str(wave.members), str(wave.parallel), ", ".join(wave.zones), working, bakes]


def _span(seconds: int) -> str:
    return in_short(timedelta(seconds=seconds))


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; empty without rows."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(text.markdown, line))} |" for line in lines) if rows else ""


def _folded(title: str, table: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{table}\n\n</details>" if table else ""


# -- `roll.status` -----------------------------------------------------------------------------------------------------


COLUMNS = ["member", "state", "note"]
MEANING = {
    Phase.PLANNED: "waiting",
    Phase.REPLACING: "being replaced",
    Phase.SERVING: "new serves, old kept",
    Phase.NEW: "replaced",
    Phase.OLD: "as it was",
    Phase.SKIPPED: "left alone",
    Phase.FAILED: "needs a person",
}
NOT_BEGUN = "not begun"
BACK = (Phase.OLD, Phase.SKIPPED, Phase.FAILED)
FINISHED = (Phase.NEW, *BACK)
BAR = 40


class MemberStatus(Line):
    """`roll.status`: how far one member is."""

    member: str
    name: str
    state: Phase
    note: str


class ToldLine(Line):
    """`roll.status`: what somebody told the rollout."""

    command: str
    actor: str
    at: datetime


class StatusOutput(Line):
    """`roll.status`: one rollout. `stage` is `begun` before its first step; `carried_by` is empty where no process
    carries it, `failure` where it goes well. `back`: members go back from the replacement to what they ran before.
    `skipped`: members that the plan left alone.
    """

    fleet: str
    rollout: str
    replacement: str
    back: bool
    stage: RolloutStage | Literal["begun"]
    wave: int
    waves: int
    note: str
    failure: str
    begun_at: datetime
    ended_at: datetime | None
    carried_by: str
    told: tuple[ToldLine, ...]
    members: tuple[MemberStatus, ...]
    skipped: tuple[SkipLine, ...] = ()


def lines(status: StatusOutput, now: datetime) -> list[str]:
    """What it does and how far it is; `now` dates what is still under way."""
    until = status.ended_at or now
    took = in_short(until - status.begun_at)
    heading = f"{status.fleet}: {status.rollout}"
    counts = Counter(member.state for member in status.members)
    said = [heading, towards(status.replacement, back=status.back), _stage(status), progress(status)]
    said.append(", ".join(f"{counts[phase]} {meaning(phase, status.stage)}" for phase in Phase if counts[phase]))
    said.append(f"began {status.begun_at:%Y-%m-%d %H:%M} UTC, {'took' if status.ended_at else 'for'} {took}")
    said += [f"{one.actor} told it to {one.command} at {one.at:%H:%M:%S} UTC" for one in status.told]
    if status.stage != RolloutStage.ENDED:
        again = f"no process is executing it; ./goldsmith roll.start {status.fleet} --apply continues it"
        said.append(f"executed by {status.carried_by}" if status.carried_by else again)
    return said


def towards(replacement: str, *, back: bool = False) -> str:
    """What members become, or go `back` from, with the head of its digest."""
    name, _, digest = replacement.partition("@")
    way = "back from" if back else "to"
    return f"{way} {name} ({digest[:19]})" if digest else f"{way} {name}"


def progress(status: StatusOutput) -> str:
    """A bar of the members that are done with."""
    finished = BACK if status.back else FINISHED
    done, total = sum(member.state in finished for member in status.members), len(status.members)
    filled = BAR * done // total if total else BAR
    return f"[{'#' * filled}{'.' * (BAR - filled)}] {done} of {total}"


def rows(status: StatusOutput) -> list[list[str]]:
    """A row for each member, and for each that the plan left alone."""
    members = [[member.name, meaning(member.state, status.stage), member.note] for member in status.members]
    return members + [[skip.member.rpartition("/")[2], MEANING[Phase.SKIPPED], skip.why] for skip in status.skipped]


def meaning(phase: Phase, stage: RolloutStage | Literal["begun"]) -> str:
    """How a member is, in words: in a rollout that is over none waits any more."""
    return NOT_BEGUN if (phase, stage) == (Phase.PLANNED, RolloutStage.ENDED) else MEANING[phase]


def _stage(status: StatusOutput) -> str:
    if status.stage == RolloutStage.ENDED:
        return f"failed: {status.failure.splitlines()[0]}" if status.failure else f"over: {status.note}"
    return doing(status.stage, status.wave, status.waves, status.note)
