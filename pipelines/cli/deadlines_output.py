"""What `roll.plan` says about deadlines: when it ends, which members are in time, which not and why. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

from hardening.foundation.text import listed
from pipelines.contract import Line

SHOWN = 5  # by name; --json has all


class LateLine(Line):
    """One member that cannot be replaced by its deadline. `limits`: the key paths in the fleet's file that together
    prevent it; empty: one replacement alone takes longer. `hint`: what to change.
    """

    member: str
    deadline: datetime
    ends_at: datetime | None
    limits: tuple[str, ...]
    hint: str


def deadlines(ends_at: datetime | None, met: int, overdue: int, late: Sequence[LateLine]) -> list[str]:
    """When a plan is over, how many of its members meet their deadlines, and who does not, by cause."""
    lines = [f"over on {ends_at:%Y-%m-%d at %H:%M} UTC or later"] if ends_at else []
    counts = {"in time": met, "too late": len(late), "past theirs already": overdue}
    if told := ", ".join(f"{number:,} {what}" for what, number in counts.items() if number):
        lines.append(f"deadlines: {told}")
    for (_, hint), alike in groupby(sorted(late, key=_cause), key=_cause):
        members = list(alike)
        names = listed([one.member.rpartition("/")[2] for one in members], SHOWN)
        lines.append(f"too late for {min(one.deadline for one in members):%Y-%m-%d %H:%M} UTC: {names}: {hint}")
    return lines


def _cause(late: LateLine) -> tuple[tuple[str, ...], str]:
    return late.limits, late.hint
