"""What a rollout promises at every moment, and what it has kept when it is over."""

from __future__ import annotations

from datetime import timedelta

from images.documents import from_json
from pipelines.rollout.flow import UNFINISHED
from pipelines.rollout.state import Cause, DesiredState, MemberState, Phase, RolloutOutcome
from tests.simulation.execution import Row
from tests.simulation.ledger import ViolationError
from tests.simulation.memory import EPOCH
from tests.simulation.stage import RENEW, TARGET, Simulation
from tests.simulation.world import Box

OWNED = (Phase.REPLACING, Phase.SERVING, Phase.NEW, Phase.OLD, Phase.FAILED)
ENDS_WITHIN = 3 * RENEW
SPARE = timedelta(hours=1)  # people approve late, and steps take longer than at least


def watch(stage: Simulation) -> None:
    """After every event: whatever was launched is owned by a line of the ledger; who lost its lease ends soon."""
    members = stage.ledger.members
    for box in stage.estate.boxes.values():
        if box.label and members[box.member].phase not in OWNED:
            raise ViolationError("nothing launched is unowned", f"{box.name}: {members[box.member].phase}")
    for process in stage.processes:
        if process.alive and process.name in stage.lost:
            awake = stage.memory.time - max(stage.lost[process.name], process.stalled_until)
            if awake > ENDS_WITHIN:
                raise ViolationError("who lost its lease ends", f"{process.name} is awake for {awake:g}s, and lives")


def kept(stage: Simulation, row: Row) -> RolloutOutcome:
    """What the rollout came to. Raises ViolationError."""
    if not row.ended:
        raise ViolationError("the rollout ends", f"it is still {stage.ledger.state and stage.ledger.state.stage}")
    if row.error:
        raise ViolationError("the rollout ends", f"its flow was ended by {row.error!r}")
    outcome = from_json(RolloutOutcome, row.result)
    for member in outcome.members:
        if member.id in stage.service.states:
            _group(stage, member)
        else:
            _member(stage, member)
    _went_back(stage, outcome)
    _told(outcome)
    _explained(stage, outcome)
    return outcome


def _group(stage: Simulation, group: MemberState) -> None:
    """A group runs what is said of it, as a whole, and the service is through with it."""
    state = stage.service.states[group.id]
    old = f"old-{group.name}"
    runs, wanted = {*state.members, state.starts_from}, TARGET.digest if group.phase is Phase.NEW else old
    if group.phase in (Phase.REPLACING, Phase.SERVING) or any(one.active for one in state.refreshes):
        raise ViolationError("each member ends", f"{group.name} is left {group.phase}")
    if group.phase is Phase.FAILED:
        if not (group.failure and group.note):
            raise ViolationError("each member ends", f"{group.name} failed, and nobody is told why")
    elif runs != {wanted}:
        raise ViolationError("each member ends", f"{group.name} is called {group.phase} and runs {runs}")


def _member(stage: Simulation, member: MemberState) -> None:
    boxes = [box for box in stage.estate.boxes.values() if box.member == member.id]
    named = [box for box in boxes if box.name == member.name and box.running]
    if member.phase in (Phase.REPLACING, Phase.SERVING):
        raise ViolationError("each member ends", f"{member.name} is left {member.phase}")
    if member.phase is Phase.FAILED:
        if not (member.failure and member.note):
            raise ViolationError("each member ends", f"{member.name} failed, and nobody is told why")
        return
    if len(boxes) > 1 and "still there" not in member.note:
        raise ViolationError("nothing is left over", f"{member.name}: {[box.name for box in boxes]}")
    if member.id not in stage.meddled:
        _runs(stage, member, named)


def _runs(stage: Simulation, member: MemberState, named: list[Box]) -> None:
    """The member runs what is said of it, and went back to nothing but what was pinned."""
    wanted = TARGET.reference if member.phase is Phase.NEW else stage.pinned[member.id]
    found = [box.exact for box in named]
    if found != [wanted]:
        promise = "rollback reaches the pinned version" if member.phase is Phase.OLD else "each member ends"
        raise ViolationError(promise, f"{member.name} is called {member.phase} and runs {found}")


def _told(outcome: RolloutOutcome) -> None:
    """A way back that did not come about for somebody is a failure that says so."""
    left = [one.name for one in outcome.members if one.cause in (Cause.NOT_TAKEN, Cause.COULD_NOT)]
    if left and not outcome.state.failure.startswith(UNFINISHED):
        raise ViolationError("rollback reaches the pinned version", f"{left[0]} was not taken back, and nobody is told")


def _explained(stage: Simulation, outcome: RolloutOutcome) -> None:
    """Every violation ends replaced by its deadline, where nothing went wrong and time was left, or explained."""
    promise, calm = "every violation ends replaced or explained", not stage.scenario.faults
    told = bool(outcome.state.failure) or stage.ledger.desired_state is not DesiredState.GO
    late, steps = {one.member for one in stage.plan.late}, {step.member.id: step for step in stage.plan.steps}
    new = {box.member: box.named_at[0] for box in stage.estate.boxes.values() if box.label}
    for member in outcome.members:
        if member.phase is not Phase.NEW and not (told or member.said):
            raise ViolationError(promise, f"{member.name} is {member.phase}, and nobody is told why")
        step = steps.get(member.id)
        if not (calm and step and step.deadline and step.ends_at and member.id in new):
            continue
        replaced = EPOCH + timedelta(seconds=new[member.id])
        if replaced > step.deadline and member.id not in late and step.deadline - step.ends_at > SPARE:
            raise ViolationError(promise, f"{member.name} is replaced at {replaced}, due at {step.deadline}")


def _went_back(stage: Simulation, outcome: RolloutOutcome) -> None:
    """Once a person has asked for a rollback, however late, nobody is left on the new version without a word."""
    if stage.ledger.desired_state is not DesiredState.ROLLBACK or outcome.state.failure.startswith(UNFINISHED):
        return
    silent = [one.name for one in outcome.members if one.phase is Phase.NEW and not one.note]
    if silent:
        raise ViolationError("rollback reaches the pinned version", f"{silent[0]} was left on the new one")
