"""How a rollout stands, as people and programs read it: a few lines, a bar, a table. Pure."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Literal

from hardening.foundation.durations import in_short
from pipelines.contract import Line
from pipelines.rollout.state import Phase, RolloutStage

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
STAGES: dict[RolloutStage | Literal["begun"], str] = {
    RolloutStage.ROLLING: "replacing members",
    RolloutStage.WAITING: "waiting",
    RolloutStage.PAUSED: "paused",
    RolloutStage.BAKING: "baking: the new are watched, the old kept",
    RolloutStage.APPROVAL: "waiting for approval",
    RolloutStage.RESTORING: "going back",
    RolloutStage.ENDED: "over",
}
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


def doing(stage: RolloutStage | Literal["begun"], wave: int, waves: int, note: str) -> str:
    """What a rollout under way does, in which wave, and what it waits for."""
    words = STAGES.get(stage, "about to begin")
    place = f"wave {wave} of {waves}: " if wave else ""
    return f"{place}{words}{f' ({note})' if note else ''}"


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
    """A row for each member."""
    return [[member.name, meaning(member.state, status.stage), member.note] for member in status.members]


def meaning(phase: Phase, stage: RolloutStage | Literal["begun"]) -> str:
    """How a member is, in words: in a rollout that is over none waits any more."""
    return NOT_BEGUN if (phase, stage) == (Phase.PLANNED, RolloutStage.ENDED) else MEANING[phase]


def _stage(status: StatusOutput) -> str:
    if status.stage == RolloutStage.ENDED:
        return f"failed: {status.failure.splitlines()[0]}" if status.failure else f"over: {status.note}"
    return doing(status.stage, status.wave, status.waves, status.note)
