"""A rollout in words: lines and tables for a terminal of 80 columns, markdown for whoever approves it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from hardening.foundation.durations import in_short
from pipelines.roll.lines import CallsLine, GroupLine, RollOutput, StepLine, WaveLine
from pipelines.roll.status import MEANING
from pipelines.rollouts.state import Phase

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
        cells = _wave(wave)
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
        f"## Rollout of {_plain(roll.fleet)}",
        f"To `{roll.replacement}`, planned by {_plain(made_by)}."
        + (f" Good until {valid_until}." if valid_until else ""),
        "\n".join(f"- {_plain(line)}" for line in heading(roll)),
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


def _ended(outcome: str) -> str:
    return MEANING[Phase(outcome)] if outcome else "planned"


def _wave(wave: WaveLine) -> list[str]:
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
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines) if rows else ""


def _folded(title: str, table: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{table}\n\n</details>" if table else ""


def _plain(text: str) -> str:
    """Text that markdown takes as it is: a label or reason must not become a link, a heading, a cell or HTML."""
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
