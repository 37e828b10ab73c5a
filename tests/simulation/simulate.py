"""Simulated rollouts by the thousand: what they came to, and the smallest scenario of each that broke a promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

from hardening.foundation.errors import RefusedError
from tests.simulation.faults import arrange
from tests.simulation.invariants import kept, watch
from tests.simulation.ledger import ViolationError
from tests.simulation.scenario import Fault, Scenario, scenario
from tests.simulation.stage import Simulation

CHUNK = 250


@dataclass(frozen=True)
class Broken:
    """A promise that a seed broke: how, and the smallest scenario that was found to break it, in words."""

    seed: int
    promise: str
    how: str
    smallest: str


@dataclass
class Report:
    """What came of the rollouts: how many, their events and steps, and the ends of their members by phase."""

    rollouts: int = 0
    events: int = 0
    steps: int = 0
    rivals_refused: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    broken: list[Broken] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Count another report in."""
        self.rollouts += other.rollouts
        self.events += other.events
        self.steps += other.steps
        self.rivals_refused += other.rivals_refused
        self.ends += other.ends
        self.troubles += other.troubles
        self.broken += other.broken


def simulate(seeds: int, start: int = 0, processes: int = 1) -> Report:
    """The rollouts of the seeds from `start` on; the same seeds give the same report."""
    report = Report()
    chunks = [(first, min(CHUNK, start + seeds - first)) for first in range(start, start + seeds, CHUNK)]
    if processes == 1:
        for chunk in chunks:
            report.add(_chunk(chunk))
        return report
    with ProcessPoolExecutor(processes) as pool:
        for part in pool.map(_chunk, chunks):
            report.add(part)
    return report


def _chunk(chunk: tuple[int, int]) -> Report:
    report = Report()
    for seed in range(chunk[0], chunk[0] + chunk[1]):
        played = scenario(seed)
        if broken := play(played, report):
            report.broken.append(_smallest(played, broken))
    return report


def play(played: Scenario, report: Report) -> ViolationError | None:
    """Play one scenario, count it in, and give the promise that it broke."""
    report.rollouts += 1
    report.troubles.update(fault.trouble for fault in played.faults)
    try:
        stage = Simulation(played)
    except RefusedError:
        report.ends["refused"] += 1
        return None
    stage.each_event = lambda: watch(stage)
    arrange(stage)
    try:
        outcome = kept(stage, stage.run())
    except ViolationError as broken:
        return broken
    finally:
        report.events += stage.events
        report.steps += stage.steps
        report.rivals_refused += stage.refused
    report.ends.update(member.phase for member in outcome.members)
    return None


def _smallest(played: Scenario, broken: ViolationError) -> Broken:
    """Take away what is not needed to break the same promise."""
    found, how, again = played, broken, True
    while again:
        again = False
        for smaller in _smaller(found):
            seen = play(smaller, Report())
            if seen is not None and seen.promise == broken.promise:
                found, how, again = smaller, seen, True
                break
    return Broken(played.seed, broken.promise, str(how), str(found))


def _smaller(played: Scenario) -> Iterator[Scenario]:
    """The scenario with fewer members, without one of its faults, or with a default in place of a limit."""
    for members in (played.members // 2, played.members - 1):
        if 0 < members < played.members:
            yield replace(played, members=members)
    if played.groups:
        yield replace(played, groups=played.groups - 1)
    for number in range(len(played.faults)):
        yield replace(played, faults=_without(played.faults, number))
    for key in ("bake_between_waves", "bake_time", "budgets", "canary", "max_parallel"):
        if key in played.limits:
            yield replace(played, limits={name: value for name, value in played.limits.items() if name != key})


def _without(items: tuple[Fault, ...], number: int) -> tuple[Fault, ...]:
    return (*items[:number], *items[number + 1 :])
