"""What `roll.plan` and `roll.start` print: with `--json`, for a terminal, and as markdown. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Literal

from hardening.foundation import text
from hardening.foundation.durations import in_short
from hardening.foundation.grouping import by_key
from hardening.foundation.text import many
from pipelines.cli.deadlines_output import LateLine, deadlines
from pipelines.contract import Line
from pipelines.rollout.plan_model import GroupStep, Plan
from pipelines.rollout.state import Phase, RolloutOutcome, RolloutStage, doing, put_back
from pipelines.rollout.waves import Wave

Done = Mapping[str, dict[str, Any]]  # by the id of a member or group: the outcome and note of its line


class StepLine(Line):
    """One member that would be, or was, replaced, and why; `outcome` is empty in a plan.

    `rule`: which of its reasons the budgets count. `seconds`: what it takes at least. `changes`: what the new image
    changes in it beside its files. `deadline`: when the first of its reasons must be gone. `ends_at`: when the new one
    serves, as predicted; null where limits forbid it for a year. `replacement`: what it becomes, where that is not the
    plan's: the very image that it runs.
    """

    member: str
    wave: int
    why: tuple[str, ...]
    zone: str
    rule: str
    seconds: int
    changes: tuple[str, ...] = ()
    outcome: Phase | Literal[""] = ""
    note: str = ""
    deadline: datetime | None = None
    ends_at: datetime | None = None
    replacement: str = ""


class SkipLine(Line):
    """One violating member that is skipped, and why."""

    member: str
    why: str


def skipped(plan: Plan) -> tuple[SkipLine, ...]:
    """The members that the plan leaves alone."""
    return tuple(map(SkipLine.of, plan.skipped))


class WaveLine(Line):
    """One wave: how many members, `parallel` at a time, with the bake after them. The canary wave waits for approval if
    `auto_promote` is off. `begins_at`: as predicted.
    """

    wave: int
    canary: bool
    members: int
    parallel: int
    zones: tuple[str, ...]
    seconds: int
    bake_seconds: int
    begins_at: datetime | None = None


class CallsLine(Line):
    """How many calls of one kind a rollout makes in an account and region, and the minimum time that they take."""

    place: str
    calls_of: str
    calls: int
    seconds: int


class GroupLine(Line):
    """One group that a service rolls: how much of it stays healthy, where it stops, and its outcome.

    `runs`: the exact version that it starts members from before. `instead`: what to merge where it is kept, as text.
    `changes`: what rolling it changes beside the image.
    """

    group: str
    desired: int
    min_healthy_percent: int
    max_healthy_percent: int
    checkpoints: tuple[int, ...]
    cannot_roll: str
    runs: str
    instead: str = ""
    changes: tuple[str, ...] = ()
    outcome: Phase | Literal[""] = ""
    note: str = ""


class RollOutput(Line):
    """`roll.plan` and `roll.start`: `rollout` is empty if nothing was done. `failure` says why it failed.

    `waits_until` and `waits_for`: windows, freezes or budgets that let it do nothing before that. `afterwards`: what a
    person has to change elsewhere, lest that undo it. `needs_approval`: another user must approve the plan first.
    `rehearsed`: each new member is tried beside the old one first. `takes`: of what the time of one consists.
    `ends_at`: when the last wave of members has baked, as predicted, if nothing goes wrong and nobody is waited for. Of
    the members that are replaced `deadlines_met` are so by their deadlines, `overdue` were past them before, and the
    others are `late`. `neglected`: those for which their owner must act, since they do not run, or are overdue and
    skipped.
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
    rehearsed: bool = False
    takes: str = ""
    rollout: str = ""
    failure: str = ""
    ends_at: datetime | None = None
    deadlines_met: int = 0
    overdue: int = 0
    late: tuple[LateLine, ...] = ()
    neglected: tuple[SkipLine, ...] = ()


def roll_output(plan: Plan, outcome: RolloutOutcome | None = None) -> RollOutput:
    """A plan, with what became of each member and group where it was carried out; of a way back those that went it."""
    members = outcome.members if outcome else ()
    done: Done = {member.id: {"outcome": member.phase, "note": member.said} for member in members}
    steps = [
        StepLine.of(
            step,
            member=step.member.id,
            wave=number,
            zone=step.member.zone,
            replacement=step.target.reference if step.target else "",
            **done.get(step.member.id, {}),
        )
        for number, wave in enumerate(plan.waves, start=1)
        for step in wave.steps
        if not outcome or step.member.id in done
    ]
    return RollOutput.of(
        plan,
        replacement=plan.targets[0].reference,
        steps=tuple(steps),
        waves=tuple(_wave(number, wave) for number, wave in enumerate(plan.waves, start=1)),
        calls=tuple(CallsLine.of(calls, calls_of=calls.bucket) for calls in plan.calls),
        waits_until=plan.hold.until if plan.hold else None,
        waits_for=plan.hold.why if plan.hold else "",
        afterwards=_afterwards(plan),
        groups=tuple(_group(step, done) for step in plan.groups if not outcome or step.group.id in done),
        deadlines_met=plan.deadlines_met,
        overdue=plan.overdue,
        late=tuple(map(LateLine.of, plan.late)),
        neglected=tuple(map(SkipLine.of, plan.neglected)),
        rollout=outcome.state.id if outcome else "",
        failure=outcome.state.failure if outcome else "",
    )


def _afterwards(plan: Plan) -> tuple[str, ...]:
    """What else defines the members that are replaced, and must name the new image."""
    defined = sorted({step.member.defined_in for step in plan.steps if not step.target} - {""})
    return tuple(f"{one} must name {plan.target.reference}, or compose brings the old image back" for one in defined)


def _group(step: GroupStep, done: Done) -> GroupLine:
    group, pacing = step.group, step.pacing
    healthy = {name: getattr(pacing, name) for name in ("min_healthy_percent", "max_healthy_percent")}
    ended = done.get(group.id, {})
    return GroupLine.of(
        group, group=group.id, checkpoints=pacing.checkpoint_percents, changes=group.told, **healthy, **ended
    )


def ends(roll: RollOutput) -> str:
    """How many members and groups ended in which way, and who needs a person."""
    ended = {one.member: one.outcome for one in roll.steps} | {one.group: one.outcome for one in roll.groups}
    counts = Counter(ended.values())
    said = [f"{counts[phase]} {meaning(phase, RolloutStage.ENDED)}" for phase in Phase if counts[phase]]
    failed = [one.rpartition("/")[2] for one, outcome in ended.items() if outcome == Phase.FAILED]
    return ", ".join(said) + (f": {', '.join(failed)}" if failed else "")


def _wave(number: int, wave: Wave) -> WaveLine:
    zones = tuple(sorted({step.member.zone for step in wave.steps} - {""}))
    bakes = int(wave.bake.total_seconds())
    return WaveLine.of(
        wave, wave=number, begins_at=wave.begins_at, members=len(wave.steps), zones=zones, bake_seconds=bakes
    )


Table = tuple[list[str], list[list[str]]]
SOME = 5
MOST_STEPS = 200  # in markdown: a forge takes some 60,000 characters


def heading(roll: RollOutput) -> list[str]:
    """What it is about, in a few lines."""
    lines = [f"{roll.method}, never below {roll.floor} of {roll.desired} serving"] if roll.desired else []
    if roll.steps:
        members, waves = many(len(roll.steps), "member"), many(len(roll.waves), "wave")
        lines.append(f"{members} in {waves}, in {_span(roll.seconds)} or more")
        lines += [] if roll.rollout else deadlines(roll.ends_at, roll.deadlines_met, roll.overdue, roll.late)
    if roll.rehearsed and roll.steps:
        lines.append("each is tried beside the old one first, and the old one stops only if that is healthy")
    lines += [roll.takes] if roll.takes and not roll.rollout else []
    if roll.groups:
        lines.append(f"{many(len(roll.groups), 'group')} that a service rolls, one after the other")
    if roll.waits_until:
        lines.append(f"nothing is done before {roll.waits_until:%Y-%m-%d %H:%M} UTC: {roll.waits_for}")
    return [*lines, *again(roll), *roll.afterwards]


def again(roll: RollOutput) -> list[str]:
    """Who is rolled onto the image that it runs already, a line for each image."""
    members = by_key((step.replacement, step.member.rpartition("/")[2]) for step in roll.steps)
    return [
        f"{text.listed(names, SOME)}: onto the image that {'they run' if names[1:] else 'it runs'}, "
        f"{text.short_digests(image)}"
        for image, names in members.items()
        if image
    ]


def tables(roll: RollOutput) -> tuple[Table, Table, Table, Table]:
    """The columns and rows of its waves, of each limit of a service that it meets, of its members, of its groups."""
    calls = [[call.place, call.calls_of, str(call.calls), _span(call.seconds)] for call in roll.calls]
    steps = sorted(roll.steps, key=lambda step: FAILED_FIRST.index(step.outcome) if step.outcome else 0)
    named_steps = [([str(step.wave), step.member.rpartition("/")[2]], step) for step in steps]
    members = (
        ["wave", "member", "because", "outcome"],
        _once([[*name, "; ".join(step.why), _ended(step.outcome)] for name, step in named_steps], at=2),
    )
    if roll.rollout:
        ended = [[*name, _ended(step.outcome), step.note] for name, step in named_steps]
        members = ["wave", "member", "outcome", "note"], _once(ended, at=3)
    return (
        (["wave", "members", "at once", "zone", "begins, UTC", "takes", "then bakes"], wave_rows(roll)),
        (["place", "calls", "number", "last at least"], calls),
        members,
        (["group", "members", "runs", "healthy", "stops at", "outcome"], [_shown_group(one) for one in roll.groups]),
    )


def _once(rows: list[list[str]], at: int) -> list[list[str]]:
    """The rows with what stands `at` a column once, where the next ones say the same."""
    said = [row[at] for row in rows]
    return [
        [*row[:at], "as above" if row[at] and number and row[at] == said[number - 1] else row[at], *row[at + 1 :]]
        for number, row in enumerate(rows)
    ]


def changed(roll: RollOutput) -> list[str]:
    """The changes to members beside their files; a change that many share is listed once, under their names."""
    members = by_key((step.changes, step.member.rpartition("/")[2]) for step in roll.steps)
    of_members = [
        line
        for changes, names in members.items()
        if changes
        for line in (f"what changes for {', '.join(names)}:", *(f"  {change}" for change in changes))
    ]
    rolled = (group for group in roll.groups if not group.cannot_roll)
    return [*of_members, *(f"{one.group.rpartition('/')[2]}: {change}" for one in rolled for change in one.changes)]


def wave_rows(roll: RollOutput) -> list[list[str]]:
    """A row for each wave; equal ones after each other share one, which begins with the first, but for canaries."""
    rows = []
    for (canary, *cells), same in groupby(roll.waves, lambda wave: (wave.canary and wave.wave, *_shown_wave(wave))):
        alike = list(same)
        first, last = alike[0].wave, alike[-1].wave
        range_of = f"{first}-{last}" if alike[1:] else f"{first}{' canary' if canary else ''}"
        begins = f"{at:%m-%d %H:%M}" if (at := alike[0].begins_at) else ""
        rows.append([range_of, *cells[:3], begins, *cells[3:]])
    return rows


def _shown_wave(wave: WaveLine) -> list[str]:
    bakes, working = wave.bake_seconds, wave.seconds - wave.bake_seconds
    zones = ", ".join(wave.zones)
    return [str(wave.members), str(wave.parallel), zones, _span(working), _span(bakes) if bakes else ""]


def _shown_group(one: GroupLine) -> list[str]:
    healthy = f"{one.min_healthy_percent}-{one.max_healthy_percent} %"
    stops = ", ".join(f"{percent} %" for percent in one.checkpoints)
    name, ended = one.group.rpartition("/")[2], one.cannot_roll or _ended(one.outcome)
    return [name, str(one.desired), one.runs, healthy, stops, ended]


def markdown(roll: RollOutput, made_by: str, valid_until: str = "") -> str:
    """The plan as somebody approves it: what, in which order, how long, what it asks of others, who is left alone."""
    waves, calls, (step_columns, steps), groups = tables(roll)
    members = step_columns[:3], [row[:3] for row in steps[:MOST_STEPS]]
    left_alone = ["member", "why"], [[skip.member, skip.why] for skip in roll.skipped[:MOST_STEPS]]
    parts = [
        f"## Rollout of {text.markdown(roll.fleet)}",
        f"To {text.markdown_code(roll.replacement)}, planned by {text.markdown(made_by)}."
        + (f" Good until {valid_until}." if valid_until else ""),
        "\n".join(f"- {text.markdown(line)}" for line in heading(roll)),
        text.markdown_table(*waves),
        text.markdown_folded("Members", text.markdown_table(*members)),
        "\n".join(f"- {text.markdown(line.strip())}" for line in changed(roll)),
        f"And {len(steps) - MOST_STEPS} more, in the plan's file." if len(steps) > MOST_STEPS else "",
        text.markdown_table(*groups),
        text.markdown_folded("To merge", text.markdown_block([one.instead for one in roll.groups])),
        text.markdown_folded("Calls", text.markdown_table(*calls)),
        text.markdown_folded("Skipped", text.markdown_table(*left_alone)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _ended(outcome: Phase | Literal[""]) -> str:
    return meaning(outcome, RolloutStage.ENDED) if outcome else "planned"


def _span(seconds: int) -> str:
    return in_short(timedelta(seconds=seconds))


# -- `roll.status` -----------------------------------------------------------------------------------------------------


COLUMNS = ["member", "state", "note"]
MEANING = {
    Phase.PLANNED: "waiting",
    Phase.REPLACING: "being replaced",
    Phase.SERVING: "new serves, old kept",
    Phase.NEW: "replaced",
    Phase.OLD: "as it was",
    Phase.SKIPPED: "skipped",
    Phase.FAILED: "needs a person",
}
NOT_BEGUN = "not begun"
BACK = (Phase.OLD, Phase.SKIPPED, Phase.FAILED)
FAILED_FIRST = (Phase.FAILED, Phase.OLD, Phase.SKIPPED, Phase.PLANNED, Phase.REPLACING, Phase.SERVING, Phase.NEW)
FINISHED = (Phase.NEW, *BACK)
BAR = 40


class MemberStatus(Line):
    """`roll.status`: how far one member is."""

    member: str
    name: str
    state: Phase
    note: str


class ToldLine(Line):
    """`roll.status`: somebody's command to the rollout."""

    command: str
    actor: str
    at: datetime


class StatusOutput(Line):
    """`roll.status`: one rollout. `stage` is `begun` before its first step; `carried_by` is empty if no process
    executes it, `failure` unless it failed. `back`: members are rolled back from the replacement to what they ran
    before. `skipped`: members that the plan skipped. `missing_file`: the fleet's file if it is gone; empty otherwise.
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
    missing_file: str = ""


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
        first = put_back(status.missing_file)
        again = f"no process is executing it; {first}./goldsmith roll.start {status.fleet} --apply continues it"
        said.append(f"executed by {status.carried_by}" if status.carried_by else again)
    return said


def same_base(tag: str) -> str:
    """A line about builds that `replacement.tag` does not roll."""
    return f"replacement.tag: a newer build of {tag} on the same base is within policy, so it is not rolled"


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


class RollbackLine(Line):
    """One member that is rolled back to `before`; `outcome` is empty until then."""

    member: str
    before: str
    outcome: Phase | Literal[""] = ""
    note: str = ""


RollbackState = Literal["planned", "told", "ended"]


class RollbackOutput(Line):
    """`roll.rollback`: `state` is planned without `--apply`, told if another process executes it, else ended.

    `rollout`: the one that `roll.status` shows then. `failure` says why not all went back.
    """

    fleet: str
    rollout: str
    state: RollbackState
    members: tuple[RollbackLine, ...]
    failure: str = ""
