"""The instances of a simulated fleet, and what is to happen to those who ask for them or act upon them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from pipelines.rollout.baking import LEAST_READS
from tests.simulation.ledger import Ledger
from tests.simulation.memory import Memory

ID = "r1"  # of the one rollout
KEPT_READS = 64
Look = tuple[float, float, str, bool]


@dataclass
class Box:
    """One instance, known by `handle`. `label` is that of the rollout that launched it.

    `ill` are spells in seconds of its life; every `flaps`th look at it is bad; `reads` are looks at it: made at, told
    at, by whom, good. `named_at`: when it got the member's name, also without the time in which the rollout was paused.
    """

    handle: str
    name: str
    member: str
    digest: str
    exact: str
    running: bool = True
    exposed: bool = True
    label: str = ""
    started: float = 0.0
    warm_after: float = 0.0
    ill: list[tuple[float, float]] = field(default_factory=list)
    flaps: int = 0
    reads: list[Look] = field(default_factory=list)
    protected_until: datetime | None = None
    protected_at: float = math.inf
    named_at: tuple[float, float] = (0.0, 0.0)

    def well(self, now: float) -> bool:
        """Whether it serves whoever asks it."""
        age = now - self.started
        return self.running and age >= self.warm_after and not any(a <= age < b for a, b in self.ill)

    def serves(self, now: float) -> bool:
        """Whether it counts: one that flaps as it was last seen."""
        return self.well(now) and (not self.flaps or (bool(self.reads) and self.reads[-1][3]))

    def good_for(self, now: float) -> float:
        """For how long every look at it was good; -1 where fewer than LEAST_READS were."""
        since, count = now, 0
        for made, _, _, good in reversed(self.reads):
            if not good:
                break
            since, count = made, count + 1
        return now - since if count >= LEAST_READS else -1.0


@dataclass
class SimulatedWorld:
    """All instances. `throttled`, `lost`, `underway`, `bad_reads`: numbers of the effects and looks that meet that.

    `neighbours`: what happens to another member than that of the effect with this number.
    """

    memory: Memory
    ledger: Ledger
    floor: int
    min_healthy: float
    boxes: dict[str, Box] = field(default_factory=dict)
    newborn: Callable[[Box], None] = lambda _box: None
    dark_until: float = -1.0
    throttled: set[int] = field(default_factory=set)
    in_progress: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    bad_reads: set[int] = field(default_factory=set)
    neighbours: dict[int, Callable[[str], None]] = field(default_factory=dict)
    unlaunched: set[str] = field(default_factory=set)
    launches: dict[str, str] = field(default_factory=dict)
    done: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    effects: int = 0
    looks: int = 0

    def capacity(self) -> int:
        """How many members serve."""
        now = self.memory.time
        return len({box.member for box in self.boxes.values() if box.exposed and box.serves(now)})

    def members(self) -> dict[str, Box]:
        """The instances that run under a member's name, by member id."""
        return {b.member: b for b in self.boxes.values() if b.running and "." not in b.name}

    def launched(self, label: str, member: str) -> Box | None:
        """What a rollout has launched for a member."""
        return next((box for box in self.boxes.values() if box.label == label and box.member == member), None)

    def forget_looks(self, process: str, since: float) -> None:
        """Looks whose answer died with their process were seen by nobody."""
        for box in self.boxes.values():
            box.reads = [one for one in box.reads if one[2] != process or one[1] <= since]
