"""How a scenario's faults are brought about on stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

from pipelines.rollout.state import DesiredState
from tests.simulation.scenario import EVERYBODY, Fault, FaultKind
from tests.simulation.stage import FOREVER, TARGET, Simulation, name_of
from tests.simulation.world import ID, Box

FOR_EVER = 1e9


def arrange(stage: Simulation) -> None:
    """Let every fault of the scenario happen in its time."""
    for fault in stage.scenario.faults:
        if fault.trouble in COUNTED:
            COUNTED[fault.trouble](stage, fault)
        elif fault.trouble in BORN:
            stage.births.append(partial(_born, fault))
        else:
            stage.memory.at(fault.at, partial(HAPPENS[fault.trouble], stage, fault))


def _dies(when: str, stage: Simulation, fault: Fault) -> None:
    stage.deaths[int(fault.at)] = when


def _sleeps(when: str, stage: Simulation, fault: Fault) -> None:
    stage.sleeps[int(fault.at)] = (when, fault.amount)


def _throttled(stage: Simulation, fault: Fault) -> None:
    stage.estate.throttled.update(range(int(fault.at), int(fault.at + fault.amount)))


def _takes_time(stage: Simulation, fault: Fault) -> None:
    stage.estate.in_progress.update(range(int(fault.at), int(fault.at + fault.amount)))


def _lost(stage: Simulation, fault: Fault) -> None:
    stage.estate.lost.add(int(fault.at))


def _another_ill(stage: Simulation, fault: Fault) -> None:
    stage.estate.neighbours[int(fault.at)] = partial(_beside, stage, fault)


def _beside(stage: Simulation, fault: Fault, acted: str) -> None:
    """While one member is acted upon, another one falls ill."""
    other = fault.member if name_of(fault.member) != acted else (fault.member + 1) % stage.scenario.members
    _old_ill(stage, replace(fault, member=other))


def _bad_read(stage: Simulation, fault: Fault) -> None:
    stage.estate.bad_reads.add(int(fault.at))


COUNTED: dict[FaultKind, Callable[[Simulation, Fault], None]] = {
    FaultKind.DIES_BEFORE: partial(_dies, "before"),
    FaultKind.DIES_AFTER: partial(_dies, "after"),
    FaultKind.SLEEPS_BEFORE: partial(_sleeps, "before"),
    FaultKind.SLEEPS_AFTER: partial(_sleeps, "after"),
    FaultKind.THROTTLED: _throttled,
    FaultKind.LOST_ANSWER: _lost,
    FaultKind.TAKES_TIME: _takes_time,
    FaultKind.BAD_READ: _bad_read,
    FaultKind.ANOTHER_ILL: _another_ill,
}


def _born(fault: Fault, box: Box) -> None:
    """What is wrong with a new instance from its birth."""
    if fault.member in (EVERYBODY, int(box.member[2:])) and box.digest == TARGET.digest:
        BORN[fault.trouble](fault, box)


def _never_healthy(_fault: Fault, box: Box) -> None:
    box.ill.append((0, FOR_EVER))


def _falls_ill(fault: Fault, box: Box) -> None:
    box.ill.append((fault.at, fault.at + fault.amount))


def _flaps(fault: Fault, box: Box) -> None:
    box.flaps = 2 + int(fault.at) % 5


BORN: dict[FaultKind, Callable[[Fault, Box], None]] = {
    FaultKind.NEVER_HEALTHY: _never_healthy,
    FaultKind.FALLS_ILL: _falls_ill,
    FaultKind.FLAPS: _flaps,
}


def _no_launch(stage: Simulation, fault: Fault) -> None:
    whole = [name_of(number) for number in range(stage.scenario.members)]
    stage.estate.unlaunched.update(whole if fault.member == EVERYBODY else [name_of(fault.member)])


def _dark(stage: Simulation, fault: Fault) -> None:
    stage.estate.dark_until = stage.memory.time + fault.amount


def _stalled(stage: Simulation, fault: Fault) -> None:
    """The process sleeps, and wakes up, whoever has gone on meanwhile."""
    stage.falls_asleep(stage.process, fault.amount)


def _named(stage: Simulation, fault: Fault) -> Box | None:
    return stage.estate.members().get(name_of(fault.member))


def _old_ill(stage: Simulation, fault: Fault) -> None:
    box = _named(stage, fault)
    if box and not box.label:
        age = stage.memory.time - box.started
        box.ill.append((age, age + fault.amount))


def _vanishes(stage: Simulation, fault: Fault) -> None:
    if box := _named(stage, fault):
        del stage.estate.boxes[box.handle]
        stage.meddled.add(box.member)


def _protected(stage: Simulation, fault: Fault) -> None:
    if box := _named(stage, fault):
        box.protected_until, box.protected_at = FOREVER, stage.memory.time


def _fixed(stage: Simulation, fault: Fault) -> None:
    """Somebody else replaces a member that the rollout has not begun with."""
    box = _named(stage, fault)
    if box and not box.label and not stage.estate.launched(ID, box.member):
        del stage.estate.boxes[box.handle]
        handle = f"fixed-{fault.member}"
        stage.estate.boxes[handle] = replace(box, handle=handle, digest=TARGET.digest, exact=TARGET.reference, reads=[])
        stage.meddled.add(box.member)


def _jumps(stage: Simulation, fault: Fault) -> None:
    stage.memory.jumped += timedelta(seconds=fault.amount)


def _rival(stage: Simulation, _fault: Fault) -> None:
    stage.rival()


def _revoked(stage: Simulation, _fault: Fault) -> None:
    stage.judge.revoked = True


def _alarm(stage: Simulation, fault: Fault) -> None:
    stage.judge.firing = True
    stage.memory.at(fault.amount, lambda: setattr(stage.judge, "firing", False))


def _pause(stage: Simulation, fault: Fault) -> None:
    stage.command(DesiredState.PAUSE)
    stage.memory.at(fault.amount, lambda: stage.command(DesiredState.GO))


def _says(desired_state: DesiredState, stage: Simulation, _fault: Fault) -> None:
    stage.command(desired_state)


def _approve(stage: Simulation, _fault: Fault) -> None:
    stage.approve()


HAPPENS: dict[FaultKind, Callable[[Simulation, Fault], None]] = {
    FaultKind.NO_LAUNCH: _no_launch,
    FaultKind.DARK: _dark,
    FaultKind.STALLED: _stalled,
    FaultKind.OLD_ILL: _old_ill,
    FaultKind.VANISHES: _vanishes,
    FaultKind.PROTECTED: _protected,
    FaultKind.FIXED: _fixed,
    FaultKind.CLOCK_JUMPS: _jumps,
    FaultKind.RIVAL: _rival,
    FaultKind.REVOKED: _revoked,
    FaultKind.ALARM: _alarm,
    FaultKind.PAUSE: _pause,
    FaultKind.ABORT: partial(_says, DesiredState.ABORT),
    FaultKind.ROLLBACK: partial(_says, DesiredState.ROLLBACK),
    FaultKind.APPROVE: _approve,
}
