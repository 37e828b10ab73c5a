"""How far a rollout and its members are, as people read it; flows go by the engine's record. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from images.documents import from_json
from pipelines.fleet.port import GroupPin


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
    APPROVAL = "approval"
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


def summary(members: Iterable[MemberState]) -> str:
    """How many members are in which phase, in words."""
    counts = Counter(member.phase for member in members)
    return ", ".join(f"{counts[phase]} {phase}" for phase in Phase if counts[phase])
