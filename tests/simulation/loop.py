"""The whole loop under one clock: serve, its nights, workers and fleets, and all that goes wrong, from one seed."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

from hardening.catalog import load_policy
from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import ROOT
from hardening.model import Enforcement, Waiver
from hardening.policy import AgeRule, Rule
from images.documents import to_json
from images.model import Definition
from pipelines.contract import NightlyOutput
from pipelines.durable.port import Json
from pipelines.fleet.calendar import Freeze, cron
from pipelines.nightly.flow import flows
from pipelines.nightly.model import GIVEN_UP_AFTER, IMAGE, NIGHT, OF_THE_NIGHT, NightOrder
from pipelines.serve.moments import Schedule, TriggerKind
from pipelines.serve.runner import Runner
from tests.simulation.execution import Fate, Row
from tests.simulation.ledger import ViolationError
from tests.simulation.loop_fleets import LoopFleet
from tests.simulation.loop_ledger import LoopContext, LoopLedger
from tests.simulation.loop_promises import Promises
from tests.simulation.loop_stages import LoopStages
from tests.simulation.memory import EPOCH, Memory, Process
from tests.simulation.outside import DAY, HOUR, UPSTREAM, Outside, Registry
from tests.simulation.scenario import Fault
from tests.simulation.simulate import Broken

SCHEDULE = Schedule({TriggerKind.NIGHT: cron("0 2 * * *"), TriggerKind.URGENT: cron("0 */6 * * *")}, ZoneInfo("UTC"))
SOON, REAPED_AFTER, RESTARTS_AFTER = 300.0, 8.0, 2 * HOUR
MOST_DEATHS = 2  # of workers over one flow
WORKERS = 2
SLOWEST = 20.0  # seconds of a step
WEBHOOKS, WAIVED_FOR, PERSON_WAIVES = 20 * DAY, timedelta(days=10), 0.3

CATALOG: dict[str, dict[str, Any]] = {
    "base": {"base": {"bootstrap": {"family": "debian", "suite": "trixie"}}, "packages": ("libc", "zlib")},
    "web": {"base": {"golden": "base"}, "packages": ("nginx",)},
    "app": {"base": {"golden": "web"}},
    "lonely": {
        "base": {"bootstrap": {"family": "debian", "suite": "trixie"}},
        "packages": ("curl",),
        "lifecycle": {"soak": "2d"},
    },
    "vendor": {"base": {"image": UPSTREAM}, "packages": ("zlib",)},
}
LIMITS = {"min_healthy_time": "10s", "bake_time": "1m", "max_parallel": 2, "budgets": [{"nodes": "50%"}]}
FLEETS: dict[str, dict[str, Any]] = {
    "apps": {
        "replacement": {"definition": "app"},
        "limits": {**LIMITS, "max_surge": 2, "windows": [{"start": "01:00", "end": "06:00"}]},
    },
    "tools": {
        "replacement": {"definition": "lonely"},
        "policy": "slow",
        "limits": {**LIMITS, "method": "in_place", "max_unavailable": 1},
    },
}
MEMBERS = 4


class Trouble(StrEnum):
    """What can happen to the loop."""

    DOWN = "down"
    CORRUPT = "corrupt"
    LOST_ANSWER = "lost answer"
    DIES_PUBLISHING = "dies publishing"
    NIGHT_DIES = "night dies"
    WORKER_DIES = "worker dies"
    FLEET_DIES = "roller dies"
    SERVE_DIES = "serve dies"
    MACHINE_DIES = "machine dies"
    POISON = "poison build"
    BROKEN = "broken definition"
    FREEZE = "freeze"
    STOLEN = "stolen tag"
    ILL = "new instances are ill"


PLACES = ("mirror", "feeds", "registry", "upstream", "fleets")
PROCESS_OF = {Trouble.NIGHT_DIES: "night", Trouble.WORKER_DIES: "worker", Trouble.FLEET_DIES: "roller"}


@dataclass(frozen=True)
class LoopScenario:
    """A seed's history: `at` of a fault is in days, its amount in hours; `member` picks the place, image or step."""

    seed: int
    days: int
    faults: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.days} days: {'; '.join(map(str, self.faults)) or 'no fault'}"


def loop_scenario(seed: int, days: int) -> LoopScenario:
    """The history of a seed, always the same."""
    dice = Random(f"loop {seed}")
    faults = [_fault(dice, days) for _ in range(dice.choice((0, 1, 2, 2)) * days // 12)]
    return LoopScenario(seed, days, tuple(sorted(faults, key=lambda one: one.at)))


def _fault(dice: Random, days: int) -> Fault:
    hours = dice.choice((1.0, 6.0, 24.0, 36.0))
    trouble = dice.choice(tuple(Trouble))
    if trouble is Trouble.DOWN and dice.random() < 0.2:
        hours = 9 * 24.0
    return Fault(trouble, round(dice.uniform(0, days), 2), dice.randrange(40), hours)  # type: ignore[arg-type]


@dataclass
class LoopReport:
    """What came of histories: `done` counts what was built, moved and replaced; `broken` says what broke which seed."""

    days: int = 0
    events: int = 0
    done: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    broken: list[Broken] = field(default_factory=list)


def play_loop(played: LoopScenario, report: LoopReport) -> ViolationError | None:
    """Play one history, count it in, and give the promise that it broke."""
    loop = Loop(played)
    try:
        loop.run()
    except ViolationError as broken:
        return broken
    finally:
        report.days += round(loop.memory.time / DAY)
        report.events += loop.events
        report.troubles.update(fault.trouble for fault in played.faults)
        report.done += loop.promises.ends + Counter(built=len(loop.ledger.built), gone=loop.registry.removed)
        report.done.update({"replaced": sum(fleet.replaced for fleet in loop.fleets.values())})
    return None


def simulate_loop(seeds: int, days: int, start: int = 0) -> LoopReport:
    """The histories of the seeds from `start` on, of so many days each."""
    report = LoopReport()
    for seed in range(start, start + seeds):
        played = loop_scenario(seed, days)
        if broken := play_loop(played, report):
            report.broken.append(smallest(played, broken))
    return report


def smallest(played: LoopScenario, broken: ViolationError) -> Broken:
    """Take away the faults that are not needed to break the same promise."""
    found, how = played, broken
    for fault in played.faults:
        smaller = replace(found, faults=tuple(one for one in found.faults if one is not fault))
        seen = play_loop(smaller, LoopReport())
        if seen and seen.promise == broken.promise:
            found, how = smaller, seen
    return Broken(played.seed, broken.promise, str(how), str(found))


class KilledError(BaseException):
    """The process of serve was killed."""


class LoopRunner(Runner):
    """The real runner of serve, whose commands are processes of the simulation."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop.ledger, SCHEDULE, loop.memory.now, busy=lambda: bool(loop.night and loop.night.alive))
        self.loop = loop
        self.alive = True

    def look(self) -> None:
        """Look once, and again later."""
        if self.alive:
            try:
                self._serve()
            except KilledError:
                return
            waits = bool(self.loop.ledger.waiting_triggers())
            self.loop.memory.at(SOON if waits else HOUR - self.loop.memory.time % HOUR + 1, self.look)

    def _run(self, task: list[str]) -> int | None:
        code = self.loop.nightly(self, urgent="--only-urgent" in task)
        if not self.alive:
            raise KilledError
        return -9 if code is None else code


class NightProcess(Process):
    """A process that goes on with the nights that others left, and then begins one; its images are any worker's.

    `code`: its exit status, once it has ended by itself.
    """

    def __init__(self, loop: Loop, orders: list[NightOrder]) -> None:
        super().__init__(loop.memory, f"nightly {loop.memory.number()}", loop.flows)
        self.loop = loop
        self.code: int | None = None
        self._orders = orders
        self.next(0)

    def next(self, code: int) -> None:
        """Carry the next of its nights; without any it ends."""
        if not self._orders:
            self.alive, self.code = False, code
            return
        order = self._orders.pop(0)
        if order.id in self.loop.ledger.nights:
            for row in self.loop.rows_of(order):
                if row.flow in OF_THE_NIGHT:
                    row.waiting.clear()
                    self.adopt(row)
            return
        begun = replace(order, started_at=self.memory.now())
        self.loop.ledger.nights[order.id] = begun
        self.loop.promises.begins(begun)
        self.start(NIGHT, order.id, to_json(begun))

    def start(self, flow: str, flow_id: str, argument: Json) -> Row:
        """Begin a flow, or find it."""
        if flow != IMAGE:
            return super().start(flow, flow_id, argument)
        row = self.memory.rows.setdefault(flow_id, Row(flow_id, flow, json.loads(json.dumps(argument))))
        self.loop.offer(row)
        return row


class Loop:
    """Everything, from its scenario. `night` carries nights; `pinned` is what the upstream tag is pinned to."""

    def __init__(self, scenario: LoopScenario) -> None:
        self.scenario = scenario
        self.dice = Random(f"loop of {scenario.seed}")
        self.memory = Memory(self._fate, self._watched)
        self.outside = Outside(self.memory, Random(f"outside of {scenario.seed}"))
        self.registry = Registry(self.outside)
        self.ledger = LoopLedger()
        self.context = _context(self.ledger)
        self.pinned = ""
        self.messages: list[NightlyOutput] = []
        self.fleets = {name: LoopFleet(self, _file(name), MEMBERS) for name in FLEETS}
        self.promises = Promises(self)
        self.ledger.running = self._running
        self.registry.moved, self.registry.dies = self.promises.moves, self._dead
        self.flows = flows(LoopStages(self))
        self.workers = [self.memory.process(f"worker {number}", self.flows) for number in range(WORKERS)]
        self.night: NightProcess | None = None
        self.runner = LoopRunner(self)
        self.runner.alive = False
        self.down_until = 0.0
        self.broken: dict[str, float] = {}
        self.poison: dict[str, float] = {}
        self.doomed: dict[str, list[list[Any]]] = {"night": [], "worker": [], "roller": []}
        self.deaths: Counter[str] = Counter()
        self.step = ""
        self.steps = self.events = 0
        for fault in scenario.faults:
            self.memory.at(fault.at * DAY, partial(self._happens, fault))
        self.memory.at(1.0, self._serve)
        self.memory.at(DAY, self._noon)  # it begins at noon
        self.memory.at(WEBHOOKS, self._webhook)

    def run(self) -> None:
        """Let it all happen. Raises ViolationError."""
        try:
            self.memory.run(self.scenario.days * DAY)
        finally:
            self.memory.close()

    # -- serve and its nights -----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        if not self.runner.alive and self.memory.time >= self.down_until:
            self.runner = LoopRunner(self)
            self.runner.look()

    def nightly(self, runner: LoopRunner, *, urgent: bool) -> int | None:
        """What the command does: its exit status; None where it was killed."""
        left, now = list(self.ledger.nights.values()), self.memory.now()
        for order in (one for one in left if now - one.started_at > GIVEN_UP_AFTER):
            self._abandon(order)
        orders = [one for one in left if one.id in self.ledger.nights]
        night = self.night = NightProcess(
            self, [*orders, NightOrder(f"night-{self.memory.number()}", now, urgent=urgent)]
        )
        self.memory.run(math.inf, lambda: not night.alive or not runner.alive)
        return night.code

    def rows_of(self, order: NightOrder) -> list[Row]:
        """The flows of a night that are not over."""
        return [row for row in self.memory.rows.values() if row.id.split("/")[0] == order.id and not row.ended]

    def _abandon(self, order: NightOrder) -> None:
        for row in self.rows_of(order):
            if row.runner:
                row.runner.drop()
            row.waiting.clear()
            row.end(self.memory, None, OutsideError("abandoned"))
        del self.ledger.nights[order.id]

    def _watched(self) -> None:
        """After every event: a night that is over is judged, and its process goes on."""
        self.events += 1
        for order in [one for one in self.ledger.nights.values() if self.memory.rows[one.id].ended]:
            code = self.promises.ended(order, self.memory.rows[order.id])
            del self.ledger.nights[order.id]
            if not self.ledger.nights and not any(fleet.open for fleet in self.fleets.values()):
                self.memory.forget()
            if self.night and self.night.alive:
                self.night.next(code)

    # -- workers ------------------------------------------------------------------------------------------------------

    def offer(self, row: Row) -> None:
        """Let a living worker take an image's flow, unless one has it."""
        living = [worker for worker in self.workers if worker.alive]
        if living and not row.ended and not (row.runner and row.runner.process.alive):
            living[self.dice.randrange(len(living))].adopt(row)

    def _reap(self) -> None:
        """Move what dead workers had; what killed two of them is given up."""
        for row in [one for one in self.memory.rows.values() if one.flow == IMAGE and not one.ended]:
            if self.deaths[row.id] >= MOST_DEATHS:
                row.end(self.memory, None, OutsideError(f"{row.id} killed {MOST_DEATHS} workers and is given up"))
            else:
                self.offer(row)

    def _restart(self) -> None:
        if self.memory.time >= self.down_until:
            for number, worker in enumerate(self.workers):
                if not worker.alive:
                    self.workers[number] = self.memory.process(f"worker {self.memory.number()}", self.flows)
            self._reap()

    def _dead(self) -> None:
        """Some worker is, or will be right away."""
        self.memory.at(REAPED_AFTER, self._reap)
        self.memory.at(RESTARTS_AFTER, self._restart)

    # -- time and faults ----------------------------------------------------------------------------------------------

    def _fate(self, flow_id: str, name: str) -> Fate:
        row = self.memory.rows[flow_id]
        kind = "worker" if row.flow == IMAGE else "night" if row.flow in OF_THE_NIGHT else "roller"
        self.step, self.steps = name, self.steps + 1
        dies = self._doom(kind)
        if kind == "worker":
            verb, _, image = name.partition(" ")
            dies = "before" if verb == "build" and self.memory.time < self.poison.get(image, 0.0) else dies
            if dies:
                self.deaths[flow_id] += 1
                self._dead()
        if dies:
            self.promises.troubled(self.memory.time)
        return Fate(self.dice.uniform(0, SLOWEST) if kind != "roller" else self.dice.random(), dies)

    def _doom(self, kind: str) -> str:
        for doom in self.doomed[kind]:
            if self.memory.time >= doom[0]:
                doom[1] -= 1
                if doom[1] < 0:
                    self.doomed[kind].remove(doom)
                    return str(doom[2])
                break
        return ""

    def is_broken(self, image: str) -> bool:
        """Whether somebody wrote nonsense into its definition."""
        return self.memory.time < self.broken.get(image, 0.0)

    def _happens(self, fault: Fault) -> None:
        trouble, until = Trouble(fault.trouble), self.memory.time + fault.amount * HOUR
        if trouble in (Trouble.DOWN, Trouble.CORRUPT, Trouble.BROKEN, Trouble.ILL):
            self.promises.troubled(until)
        image, place = tuple(CATALOG)[fault.member % len(CATALOG)], PLACES[fault.member % len(PLACES)]
        match trouble:
            case Trouble.DOWN:
                self.outside.down[place] = until
            case Trouble.CORRUPT:
                self.outside.corrupt[place] = until
            case Trouble.LOST_ANSWER:
                self.registry.lost.add(self.registry.changes + 1 + fault.member)
            case Trouble.DIES_PUBLISHING:
                self.registry.deadly.add(self.registry.changes + 1 + fault.member)
            case Trouble.NIGHT_DIES | Trouble.WORKER_DIES | Trouble.FLEET_DIES:
                when = ("before", "after")[fault.member % 2]
                self.doomed[PROCESS_OF[trouble]].append([self.memory.time, fault.member, when])
            case Trouble.SERVE_DIES | Trouble.MACHINE_DIES:
                self._stops(fault, until, whole=trouble is Trouble.MACHINE_DIES)
            case Trouble.POISON:
                self.poison[image] = until
            case Trouble.BROKEN:
                self.broken[image] = until
            case Trouble.FREEZE:
                self._freezes(fault)
            case Trouble.STOLEN:
                self.outside.poison(min(fault.amount, 8.0))
            case Trouble.ILL:
                self.outside.down[f"health of {tuple(FLEETS)[fault.member % len(FLEETS)]}"] = until

    def _stops(self, fault: Fault, until: float, *, whole: bool) -> None:
        """Serve is killed; with the machine, everything is."""
        self.runner.alive = False
        self.promises.stops(until)
        self.down_until = max(self.down_until, until) if whole else self.down_until
        self.memory.at(fault.amount * HOUR, self._serve)
        if whole:
            for process in (*self.workers, *([self.night] if self.night else [])):
                self.memory.kill(process)
            self.memory.at(fault.amount * HOUR, self._restart)

    def _freezes(self, fault: Fault) -> None:
        fleet = self.fleets[tuple(FLEETS)[fault.member % len(FLEETS)]]
        first = (self.memory.now() + timedelta(days=1)).date()
        days = timedelta(days=12 if fault.member % 3 == 0 else 2)
        freeze = Freeze(first_day=first, last_day=first + days, reason="holidays")
        limits = fleet.fleet.limits.model_copy(update={"freezes": (freeze,)})
        fleet.fleet = fleet.fleet.model_copy(update={"limits": limits})

    # -- people -------------------------------------------------------------------------------------------------------

    def _noon(self) -> None:
        """Once a day: whether all is as it must be; new members; and people who accept what cannot be mended yet."""
        self.promises.noon()
        for fleet in self.fleets.values():
            fleet.populate()
        for name, reason in self.promises.refusals:
            if self.dice.random() < PERSON_WAIVES:
                self._waive(name, reason.rule, reason.comes_from)
        self.promises.refusals.clear()
        self.memory.at(DAY, self._noon)

    def _waive(self, name: str, vulnerability: str, comes_from: str) -> None:
        today = self.memory.now().date()
        if hole := self.outside.holes.get(vulnerability):
            self.ledger.waivers.append(
                Waiver(
                    id=f"waiver-{len(self.ledger.waivers)}", vulnerabilities=(vulnerability,),
                    packages=(hole.advisory.source,), subjects=(comes_from or name,), inherited=True,
                    reason="the fix is not out", owner="tests", approver="others", created=today,
                    expires=today + WAIVED_FOR,
                )
            )  # fmt: skip

    def _webhook(self) -> None:
        self.ledger.add_trigger(f"webhook {self.memory.number()}", TriggerKind.WEBHOOK, self.memory.now())
        self.memory.at(WEBHOOKS, self._webhook)

    def _running(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for fleet in self.fleets.values():
            for box in fleet.boxes.values():
                release = self.ledger.known[box.digest]
                for digest in (release.digest, release.content):
                    found.setdefault(digest, []).append(f"{fleet.fleet.name}/{box.name}")
        return found


def _context(ledger: LoopLedger) -> LoopContext:
    definitions = {
        name: SimpleNamespace(
            definition=Definition.model_validate(
                {"name": name, "title": "Of a test", "owner": "tests", "kind": "container", "profile": "p", **file}
            )
        )
        for name, file in CATALOG.items()
    }
    parents = {name: one.definition.base.golden for name, one in definitions.items()}
    settings = SimpleNamespace(roots=(), retention=SimpleNamespace(keep_last=2, keep_for=timedelta(days=3)))
    default = load_policy((ROOT,), "default")
    slow = default.running.model_copy(
        update={
            "superseded": Rule(enforcement=Enforcement.AUDIT),
            "max_age": AgeRule(limit=timedelta(days=20), grace=timedelta(days=7)),
        }
    )
    policies = {"default": default, "slow": default.model_copy(update={"name": "slow", "running": slow})}
    return LoopContext(EPOCH, ledger, definitions, parents, policies, settings)


def _file(name: str) -> dict[str, Any]:
    return {
        "name": name, "title": "Of a test", "owner": "tests", "kind": "docker", "selector": {"app": name},
        "approval": "none", **FLEETS[name],
    }  # fmt: skip
