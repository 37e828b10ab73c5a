"""A MemberFleet over the simulated estate, as one process sees it: strict, and troubled as the scenario says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from hardening.foundation.errors import OutsideError
from pipelines.fleet.members import Key, Member, Read, ReplacementImage
from pipelines.fleet.model import Method
from pipelines.fleet.port import GoneError, InProgressError, MemberFleet
from pipelines.rollout.state import DesiredState, Phase
from tests.simulation.ledger import ViolationError
from tests.simulation.observer import Observer
from tests.simulation.world import ID, KEPT_READS, Box, SimulatedWorld

REVIVED_AFTER = 3.0


class SimulatedFleet(MemberFleet):
    """What the process named `process` sees of the estate, and does to it."""

    def __init__(self, estate: SimulatedWorld, witness: Observer, process: str) -> None:
        self.estate = estate
        self.witness = witness
        self.process = process

    def describe(self) -> tuple[Member, ...]:
        self._answers()
        return tuple(self._member(box) for box in self.estate.members().values())

    def find(self, member: str) -> Member | None:
        self._answers()
        box = self.estate.members().get(member)
        return self._member(box) if box else None

    def _member(self, box: Box) -> Member:
        return Member(
            id=box.member,
            name=box.name,
            handle=box.handle,
            image=box.exact,
            digests=(box.digest,),
            healthy=box.serves(self.estate.memory.time),
            protected_until=box.protected_until,
            exact=box.exact,
        )

    def prepare(self, target: ReplacementImage, member: str = "") -> None:
        self._answers()

    def create(self, key: Key, target: ReplacementImage, expiry: datetime) -> None:
        self._effect("create", key, lambda: self._create(key, target))

    def _create(self, key: Key, target: ReplacementImage) -> None:
        """Launch once for a token: a call that comes again finds what the first one launched."""
        estate = self.estate
        old = self._old(key)
        if old is None:
            raise GoneError(f"{key.name} is gone")
        if key.member in estate.unlaunched:
            raise OutsideError("there is no capacity for another instance")
        if estate.launches.get(key.token) in estate.boxes:
            return
        state = estate.ledger.members.get(key.member)
        if state is None or state.phase is not Phase.REPLACING:
            raise ViolationError("nothing launched is unowned", f"no line says that {key.name} is replaced")
        if estate.launched(key.rollout, key.member):
            raise ViolationError("no effect twice", f"{key.name} was launched twice")
        self._once("create", key)
        if key.rollout == ID:
            self.witness.begins(key, old)
        exposed = key.method is Method.IN_PLACE
        handle = estate.launches[key.token] = f"new-{len(estate.launches) + 1}"
        box = Box(handle, key.new_name, key.member, target.digest, target.reference, False, exposed, key.rollout)
        estate.boxes[handle] = box
        estate.newborn(box)

    def start(self, key: Key) -> None:
        self._effect("start", key, lambda: self._start(key))

    def _start(self, key: Key) -> None:
        new, old = self._need_new(key), self._old(key)
        if key.method is Method.IN_PLACE and old and old.running:
            raise ViolationError("in place", f"the old {key.name} still holds what cannot exist twice")
        if not new.running:
            new.running, new.started = True, self.estate.memory.time

    def read(self, key: Key) -> Read:
        new = self._new(key)
        seen = self._read(new)
        if key.rollout == ID and key.method is Method.SURGE and new and new.name != key.name:
            self.witness.looks_at(key, self.process)
        return seen

    def read_old(self, key: Key) -> Read:
        return self._read(self._old(key))

    def _read(self, box: Box | None) -> Read:
        self._answers()
        estate, now = self.estate, self.estate.memory.time
        estate.looks += 1
        noise = estate.looks in estate.bad_reads or (box and box.flaps and estate.looks % box.flaps == 0)
        good = box is not None and box.well(now) and not noise
        if box and estate.ledger.holder == self.process:  # what one that lost its lease sees, nobody acts on
            box.reads.append((now, now + estate.memory.acting.seconds, self.process, good))
            del box.reads[:-KEPT_READS]
        return Read(good, "answers" if good else "does not answer")

    def expose(self, key: Key) -> None:
        self._effect("expose", key, lambda: self._expose(key))

    def _expose(self, key: Key) -> None:
        if self._old(key) is None:
            raise GoneError(f"{key.name} is gone")
        self._need_new(key).exposed = True

    def retire(self, key: Key, drain: timedelta) -> None:
        self._effect("retire", key, lambda: self._retire(key))

    def _retire(self, key: Key) -> None:
        old = self._old(key)
        if old and old.running:
            if key.method is Method.SURGE and old.well(self.estate.memory.time):
                self._proved(key)
            old.running = False

    def swap(self, key: Key) -> None:
        self._effect("swap", key, lambda: self._swap(key))

    def _swap(self, key: Key) -> None:
        new, old = self._need_new(key), self._old(key)
        if old:
            old.name = key.old_name
        self._free(key.name, new)
        if new.name != key.name:
            new.named_at = self.estate.memory.time, self.witness.unpaused()
            self.witness.names(new)
        new.name, new.exposed = key.name, True

    def remove_old(self, key: Key) -> None:
        self._effect("remove the old", key, lambda: self._remove_old(key))

    def _remove_old(self, key: Key) -> None:
        if self._old(key):
            self._proved(key)
            if key.rollout == ID:
                self.witness.promotes(key, self._need_new(key))
            self._once("remove the old", key)
            del self.estate.boxes[key.old]

    def revive(self, key: Key) -> None:
        self._effect("revive", key, lambda: self._revive(key))

    def _revive(self, key: Key) -> None:
        old, new = self._old(key), self._new(key)
        if old is None:
            raise GoneError(f"{key.name} is gone")
        if new:
            new.name = key.new_name
            new.running = new.running and key.method is Method.SURGE
        self._free(key.name, old)
        old.name = key.name
        if not old.running:
            old.running, old.started, old.warm_after = True, self.estate.memory.time, REVIVED_AFTER

    def discard(self, key: Key) -> None:
        self._effect("discard", key, lambda: self._discard(key))

    def _discard(self, key: Key) -> None:
        if new := self._new(key):
            self._once("discard", key)
            del self.estate.boxes[new.handle]

    def differences(self, key: Key) -> tuple[str, ...]:
        self._answers()
        return ()

    def log(self, key: Key) -> str:
        self._answers()
        return "last words"

    # -- strictness ---------------------------------------------------------------------------------------------------

    def _effect(self, action: str, key: Key, act: Callable[[], None]) -> None:
        """Do one thing to the estate, if the scenario lets it, and hold every promise against what it did."""
        estate = self.estate
        self._answers()
        estate.effects += 1
        number = estate.effects
        if number in estate.throttled:
            raise OutsideError("too many requests")
        if estate.ledger.holder != self.process:
            raise ViolationError("one rollout at a time", f"{self.process} did {action!r} without the lease")
        self._wanted(action, key)
        before = estate.capacity()
        act()
        after = estate.capacity()
        if after < before and after < estate.floor:
            raise ViolationError("capacity", f"{action} {key.name} left {after} serving; the floor is {estate.floor}")
        if number in estate.neighbours:
            estate.neighbours[number](key.member)
        if number in estate.in_progress:
            raise InProgressError(action)
        if number in estate.lost:
            raise OutsideError("no answer came")

    def _wanted(self, action: str, key: Key) -> None:
        """What people said holds at once: nothing begins in a pause, and nothing new after an abort or a rollback."""
        desired_state = self.estate.ledger.desired_state
        begins = {
            DesiredState.GO: (),
            DesiredState.PAUSE: ("create", "expose"),
            DesiredState.ABORT: ("create", "expose"),
            DesiredState.ROLLBACK: () if key.rollout != ID else ("create", "expose"),
        }
        if action in begins[desired_state]:
            raise ViolationError("people are obeyed", f"{action} {key.name} after {desired_state}")

    def _answers(self) -> None:
        if self.estate.memory.time < self.estate.dark_until:
            raise OutsideError("the fleet does not answer")

    def _once(self, action: str, key: Key) -> None:
        self.estate.done[action, key.rollout, key.member] += 1
        if self.estate.done[action, key.rollout, key.member] > 1:
            raise ViolationError("no effect twice", f"{action} {key.name}")

    def _proved(self, key: Key) -> None:
        new = self._new(key)
        good_for = new.good_for(self.estate.memory.time) if new else -1.0
        if good_for < self.estate.min_healthy:
            how = f"the old {key.name} was ended when its replacement had been good for {good_for:g}s"
            raise ViolationError("proved before terminated", how)

    def _free(self, name: str, whose: Box) -> None:
        taken = [box for box in self.estate.boxes.values() if box.name == name and box is not whose]
        if taken:
            raise ViolationError("no effect twice", f"the name {name} is taken by {taken[0].handle}")

    def _old(self, key: Key) -> Box | None:
        return self.estate.boxes.get(key.old)

    def _new(self, key: Key) -> Box | None:
        return self.estate.launched(key.rollout, key.member)

    def _need_new(self, key: Key) -> Box:
        new = self._new(key)
        if new is None:
            raise OutsideError(f"the new {key.name} is gone")
        return new
