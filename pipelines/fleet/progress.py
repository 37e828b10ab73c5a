"""How far a rollout is, as it is saved before every effect. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from pipelines.fleet.members import Key, Target


class Phase(StrEnum):
    """How far a step is. REPLACING: it may have done anything up to the swap; SWAPPED: the new one has the name."""

    PLANNED = "planned"
    REPLACING = "replacing"
    SWAPPED = "swapped"
    DONE = "done"
    RESTORED = "restored"
    SKIPPED = "skipped"


OPEN = (Phase.REPLACING, Phase.SWAPPED)


@dataclass(frozen=True)
class StepState:
    """One member's step, as it is saved. `note` says what a person should know of its end."""

    key: Key
    phase: Phase = Phase.PLANNED
    note: str = ""


@dataclass(frozen=True)
class RolloutState:
    """A rollout, as it is saved. `failure` is empty while it goes well."""

    id: str
    fleet: str
    target: Target
    started_at: datetime
    steps: tuple[StepState, ...]
    failure: str = ""
    ended_at: datetime | None = None

    def with_step(self, key: Key, phase: Phase, note: str = "") -> RolloutState:
        """The state with one step further on; a note stays until another comes."""
        steps = tuple(StepState(key, phase, note or s.note) if s.key.member == key.member else s for s in self.steps)
        return replace(self, steps=steps)
