"""The fleets of the simulated loop: judged, planned and rolled by the real code, night after night."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from hardening.foundation.errors import OutsideError, RefusedError
from images.artifact import Release
from images.documents import from_json, to_json
from pipelines.durable.port import FencedError
from pipelines.fleet.golden_status import GoldenStatus
from pipelines.fleet.members import Member, ReplacementImage
from pipelines.fleet.model import Fleet
from pipelines.fleet.violations import Judged, in_words, verdict_of
from pipelines.rollout.admission import outlasts
from pipelines.rollout.flow import ROLLOUT, flows
from pipelines.rollout.plan import plan
from pipelines.rollout.plan_model import Plan
from pipelines.rollout.service import HeldBackError, _and_late, _and_left
from pipelines.rollout.state import GroupOrder, Judge, MemberOrder, Order, RolloutOutcome, World
from tests.simulation.fleet import SimulatedFleet
from tests.simulation.ledger import Ledger, SimulatedJournal
from tests.simulation.memory import Process
from tests.simulation.observer import Observer
from tests.simulation.stage import LEAVE
from tests.simulation.world import ID, Box, SimulatedWorld
from tests.support.fleets import judge

if TYPE_CHECKING:
    from tests.simulation.loop import Loop


OURS = "r.example"  # the registry


@dataclass
class Rollout:
    """One that is not over: its flow's id, what it acts on and through, and the process that runs it."""

    id: str
    estate: SimulatedWorld
    observer: Observer
    process: Process


class LoopFleet(Judge):
    """One fleet, by its file. Its members are there as soon as there is something to run."""

    def __init__(self, loop: Loop, file: dict[str, Any], members: int) -> None:
        self.loop = loop
        self.fleet = Fleet.model_validate(file)
        self.becomes = self.fleet.replacement.definition or ""
        self.members = members
        self.boxes: dict[str, Box] = {}
        self.open: Rollout | None = None
        self.until = loop.memory.now()
        self.rollouts = 0
        self.replaced = 0

    def populate(self) -> None:
        """Start the members, once there is a release."""
        stable = self._latest()
        if stable and not self.boxes:
            names = [f"{self.fleet.name}-{number}" for number in range(self.members)]
            reference = f"{stable.repository}@{stable.digest}"
            self.boxes = {name: Box(name, name, name, stable.digest, reference) for name in names}

    # -- what is out of policy, and the replacement -------------------------------------------------------------------

    def judged(self, now: datetime) -> list[Judged]:
        """Every member, by the fleet's policy."""
        status, ledger, latest = self._status(now), self.loop.ledger, self._latest()
        origins = {
            digest: status.provenance(status.dated(ledger.known[digest]), None, latest)
            for digest in {box.digest for box in self.boxes.values()}
        }
        policy = self.loop.context.policies[self.fleet.policy]
        return [
            judge(self.fleet.name, policy, self._member(box), origins[box.digest], ledger.waivers, now, OURS)
            for box in self.boxes.values()
        ]

    def _member(self, box: Box) -> Member:
        healthy = box.serves(self.loop.memory.time)
        return Member(box.member, box.name, box.handle, box.exact, (box.digest,), healthy=healthy, exact=box.exact)

    def _status(self, now: datetime) -> GoldenStatus:
        return GoldenStatus(self.fleet, self.loop.context, tuple(self.loop.ledger.waivers), now)  # type: ignore[arg-type]

    def _latest(self) -> Release | None:
        return self.loop.ledger.known.get(self.loop.registry.channels.get((self.becomes, "stable"), ""))

    def bring_into_policy(self, until: datetime) -> tuple[str, str]:
        """As an automated run does it that waits until then.

        Raises RefusedError where a limit forbids it or it failed, and OutsideError.
        """
        self.loop.outside.ask("fleets")
        self.until = until
        if self.open:
            with suppress(HeldBackError):
                self._go_on(self.open)
        if self.open:
            return "waits", f"{self.open.id} is left open"
        now = self.loop.memory.now()
        judged = self.judged(now)
        found = in_words([verdict_of(one) for one in judged])
        if not judged or all(verdict_of(one).good for one in judged):
            return "compliant" if judged else "empty", found
        status, latest = self._status(now), status_of(self._latest())
        golden = status.dated(latest)
        target = ReplacementImage(
            f"{latest.repository}@{latest.digest}", latest.digest, golden, self._forbidden_by_policy(golden or latest)
        )
        made = plan(self.fleet, judged, target, now, automated=True)
        if not made.parts:
            return "skipped", f"{found}{_and_left(made)}"
        if hold := outlasts(self.fleet.limits, now, until):
            return "waits", f"{found}; {hold.why}"
        try:
            outcome = self._roll(made)
        except HeldBackError as error:
            return "waits", f"{found}; {error.message}"
        if outcome.state.failure:
            raise RefusedError(f"{outcome.state.id}: {outcome.state.failure}")
        return "rolled", f"{found}; {outcome.state.note}{_and_left(made)}{_and_late(made)}"

    # -- what a rollout asks right before it acts ---------------------------------------------------------------------

    def left_alone(self, order: MemberOrder, member: Member) -> str:
        """Who runs the replacement by now."""
        return "it no longer violates" if order.target.digest in member.digests else ""

    def group_left_alone(self, order: GroupOrder) -> str:
        """There are none."""
        return ""

    def refuse(self, target: ReplacementImage) -> None:
        """By the present policy and data."""
        if target.golden and (why := self._forbidden_by_policy(target.golden)):
            raise RefusedError("the replacement is refused by the present policy", evidence=why)

    def _forbidden_by_policy(self, golden: Release) -> str:
        if why := self._status(self.loop.memory.now()).forbidden(golden):
            self.loop.promises.troubled(self.loop.memory.time)
        return why

    def alarms(self, names: Sequence[str]) -> tuple[str, ...]:
        """None fires."""
        return ()

    # -- rollouts -----------------------------------------------------------------------------------------------------

    def _roll(self, made: Plan) -> RolloutOutcome:
        memory, limits = self.loop.memory, self.fleet.limits
        ledger = Ledger(clock=lambda: memory.time)
        estate = SimulatedWorld(memory, ledger, made.floor, limits.min_healthy_time.total_seconds(), self.boxes)
        estate.newborn = self._newborn
        self.rollouts += 1
        name = f"roll-{self.fleet.name}-{self.rollouts}"
        observer = Observer(estate, limits, made)
        self.open = Rollout(name, estate, observer, self._process(name, estate, observer))
        self.open.process.start(ROLLOUT, name, to_json(Order(ID, made, limits)))
        return self._until_over(self.open)

    def _process(self, name: str, estate: SimulatedWorld, observer: Observer) -> Process:
        """A process that rolls, and has the lease."""
        estate.ledger.holder = process = f"{name} {self.loop.memory.number()}"
        seen = SimulatedFleet(estate, observer, process)
        journal = SimulatedJournal(estate.ledger, process)
        world = World(seen, journal, self, partial(self._now, observer), until=self.until)
        return self.loop.memory.process(process, flows(world))

    def _now(self, observer: Observer) -> datetime:
        now = self.loop.memory.now()
        if self.loop.step == LEAVE:
            observer.asks(forbidden=self._forbidden(observer, now))
        return now

    def _forbidden(self, observer: Observer, now: datetime) -> bool:
        """Whether a freeze or a closed window forbids to begin, read plainly: both are in UTC."""
        limits, today = observer.limits, now.date()
        shut = bool(limits.windows) and not any(one.start <= now.time() < one.end for one in limits.windows)
        return shut or any(one.first_day <= today <= one.last_day for one in limits.freezes)

    def _go_on(self, rollout: Rollout) -> RolloutOutcome:
        """Finish what a dead process left."""
        rollout.process = self._process(rollout.id, rollout.estate, rollout.observer)
        for row in list(self.loop.memory.rows.values()):
            if row.id.startswith(rollout.id) and not row.ended:
                row.waiting.clear()
                rollout.process.adopt(row)
        return self._until_over(rollout)

    def _until_over(self, rollout: Rollout) -> RolloutOutcome:
        memory, row, night = self.loop.memory, self.loop.memory.rows[rollout.id], self.loop.night
        memory.run(math.inf, lambda: row.ended or not rollout.process.alive or not night.alive)
        if not row.ended:
            memory.kill(rollout.process)
            rollout.estate.forget_looks(rollout.process.name, memory.time)
            if not night.alive:
                raise FencedError("the night died, and with it the process that rolls")
            if hold := outlasts(rollout.observer.limits, memory.now(), self.until):
                raise HeldBackError(f"{rollout.id} is left open: {hold.why}")
            raise OutsideError(f"the process that rolls {self.fleet.name} died")
        self.open = None
        self.boxes = dict(self._left(rollout))
        if row.error:
            raise row.error
        outcome = from_json(RolloutOutcome, row.result)
        self.replaced += sum(member.phase == "new" for member in outcome.members)
        return outcome

    def _left(self, rollout: Rollout) -> Any:
        """The members after a rollout; what it could not bring back, a person starts again."""
        boxes, serving = list(rollout.estate.boxes.values()), rollout.estate.members()
        for number, member in enumerate(dict.fromkeys(box.member for box in boxes)):
            box = serving.get(member) or next(box for box in boxes if box.member == member)
            handle = f"{member}.{self.rollouts}.{number}"
            yield handle, Box(handle, member, member, box.digest, box.exact, started=box.started, ill=box.ill)

    def _newborn(self, box: Box) -> None:
        box.warm_after = self.loop.dice.random() * 15
        if self.loop.memory.time < self.loop.outside.down.get(f"health of {self.fleet.name}", 0.0):
            box.ill.append((0.0, math.inf))


def status_of(release: Release | None) -> Release:
    """The release that the channel names. Raises RefusedError where there is none."""
    if release is None:
        raise RefusedError("the channel names nothing")
    return release
