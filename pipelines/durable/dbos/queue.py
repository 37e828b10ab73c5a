"""What a worker takes over: flows of dead processes, flows that it executes on purpose, and shared work.

Each worker has a queue of its own that nobody else listens to. DBOS's common one would give a flow to any process, so
also back to the one that it was taken from. Shared work lies in a queue that DBOS does not listen to anywhere: only a
worker that has what a flow needs moves it into its own.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from dbos import DBOS, WorkflowStatus

from hardening.foundation.console import say
from hardening.foundation.errors import RefusedError
from pipelines.durable.dbos.system_database import (
    ATTEMPTS,
    DEATHS,
    LACKING,
    QUARANTINED,
    STEP,
    holder_of,
    listed,
    within,
)
from pipelines.durable.roster import KEEP_SECONDS, SHARED, Roster, WorkRow

POLL_SECONDS = 0.5
POISON = 2  # how many workers a shared flow may kill in the same step
NEEDS = "needs"
COUNTED = "counted"  # attribute of a flow: the last worker whose death in a step of it counts

DEAD_SECONDS = 15  # after which a lost machine's lock is free
BATCH = 1000

OPEN = ["PENDING", "ENQUEUED"]
ENDED = ["SUCCESS", "ERROR", "CANCELLED"]


@dataclass(frozen=True)
class WorkQueue:
    """The queue of one worker, for flows of one version, as far as it knows them by name.

    `alone`: deaths may be the user's own doing, who has only this process; a shared flow is then given up as late as
    any other. `only_asked`: those of `known` that are left where they are, even by the dead, until they are asked for.
    """

    worker: str
    version: str
    known: Collection[str]
    roster: Roster
    alone: bool
    only_asked: Collection[str] = ()

    def __post_init__(self) -> None:
        """Before the launch."""
        DBOS.listen_queues([self.worker])

    def open(self) -> None:
        """Take flows from now on."""
        DBOS.register_queue(self.worker, polling_interval_sec=POLL_SECONDS)

    def restore(self) -> None:
        """Make the queue again where a worker that took us for dead has deleted it: DBOS then listens to it again."""
        if not self.alone and DBOS.retrieve_queue(self.worker) is None:
            say("other workers took this one for dead, and what it had; it goes on working")
            self.open()

    def close(self) -> None:
        """Take none any more; what lies here is for whoever finds us dead."""
        DBOS.delete_queue(self.worker)

    def holders(self) -> set[str]:
        """Who has flows of our version that are not over and that we could go on with, dead or alive."""
        return {holder_of(flow) for flow in self._under_way() if self._is_heir_to(flow)} - {SHARED}

    def _is_heir_to(self, flow: WorkflowStatus) -> bool:
        return bool(needs_of(flow)) or (flow.name in self.known and flow.name not in self.only_asked)

    def holds(self) -> bool:
        """Whether this worker has flows that are not over."""
        return any(self._is_ours(flow) and (flow.name in self.known or needs_of(flow)) for flow in self._under_way())

    def inherit(self, dead: str) -> None:
        """Take what a dead worker left, but for flows that too many workers have died of: those end.

        What is shared goes back to where any worker that has what it needs finds it. To be called under the dead one's
        lock, so that two living ones do not both take it.
        """
        for flow in self._under_way():
            if holder_of(flow) != dead:
                continue
            if needs_of(flow):
                self._put_back(flow)
            elif self._is_heir_to(flow):
                self._inherit(flow)
        DBOS.delete_queue(dead)

    def take(self, flow_id: str) -> None:
        """Take the flow and all that it started from whoever has them, but for what it shares with other workers.

        Raises RefusedError where that is one of `only_asked`, and who has it lives.
        """
        foreign = [flow for flow in self._under_way(flow_id) if not self._is_ours(flow) and not needs_of(flow)]
        asked = [flow for flow in foreign if flow.name in self.only_asked]
        for holder in {holder_of(flow) for flow in asked}:
            self._require_dead(holder, flow_id)
        for flow in asked:
            self._inherit(flow)
        others = [flow.workflow_id for flow in foreign if flow not in asked]
        if others:
            DBOS.resume_workflows(others, queue_name=self.worker)

    def _require_dead(self, holder: str, flow_id: str) -> None:
        until = time.monotonic() + DEAD_SECONDS
        while not self.alone and self.roster.lives(holder):
            if time.monotonic() >= until:
                raise RefusedError(f"{flow_id} is executed by {holder}, which is alive", hint="let it finish")
            time.sleep(POLL_SECONDS)

    def waiting(self) -> list[WorkflowStatus]:
        """The shared flows that no worker has taken, the oldest first."""
        found = listed(DBOS, status="ENQUEUED", queue_name=SHARED, app_version=self.version)
        return [flow for flow in found if needs_of(flow)]

    def still_open(self, flows: Collection[str]) -> list[WorkflowStatus]:
        """Those of these flows that are not over."""
        return listed(DBOS, workflow_ids=list(flows), status=OPEN, app_version=self.version)

    def has(self, flow_id: str) -> bool:
        """Whether the flow is not over, and this worker's."""
        return any(map(self._is_ours, self.still_open([flow_id])))

    def requeue(self, flows: Collection[str]) -> None:
        """Give shared flows of ours to whoever else has what they need."""
        ours = [flow.workflow_id for flow in self._under_way() if flow.workflow_id in flows and self._is_ours(flow)]
        if ours:
            DBOS.resume_workflows(ours, queue_name=SHARED)

    def give_up(self, flow_id: str, why: str) -> None:
        """End a shared flow that no worker can take."""
        DBOS.update_workflow_attributes(flow_id, {LACKING: why}, merge=True)
        DBOS.cancel_workflows([flow_id])

    def forget(self) -> None:
        """Remove flows such as ours that ended long ago, of whatever kind: one that is carried no more, such as that of
        a fleet that is gone, removes none. Those without a kind stay: their answers may be asked for.
        """
        old = datetime.fromtimestamp(time.time() - KEEP_SECONDS, UTC).isoformat()
        kept = 0
        while True:
            found = listed(DBOS, status=ENDED, name=list(self.known), completed_before=old, limit=BATCH, offset=kept)
            over = [flow.workflow_id for flow in found if " " in (flow.app_version or "")]
            if over:
                DBOS.delete_workflows(over)
            kept += len(found) - len(over)
            if len(found) < BATCH:
                return

    def is_of_another_version(self, flow_id: str) -> bool:
        """Whether the flow is under way, and another version of ours began it."""
        found = listed(DBOS, workflow_ids=[flow_id])
        return any(one.status in OPEN and one.app_version != self.version for one in found)

    def abandon(self, flow_id: str) -> None:
        """End the flow and all that it started, as far as they are not over."""
        DBOS.cancel_workflows([flow.workflow_id for flow in self._under_way(flow_id)])

    def _is_ours(self, flow: WorkflowStatus) -> bool:
        return holder_of(flow) == self.worker

    def _inherit(self, flow: WorkflowStatus) -> None:
        deaths = (flow.attributes or {}).get(DEATHS, 0) + 1
        DBOS.update_workflow_attributes(flow.workflow_id, {DEATHS: deaths}, merge=True)
        if deaths > ATTEMPTS:
            DBOS.cancel_workflows([flow.workflow_id])
        else:
            DBOS.resume_workflows([flow.workflow_id], queue_name=self.worker)

    def _put_back(self, flow: WorkflowStatus) -> None:
        """Let any worker have a shared flow, or end it where it has killed too many in one step."""
        work = self.roster.work([flow.workflow_id]).get(flow.workflow_id)
        if work and work.step and self._killed(flow, work) >= (ATTEMPTS if self.alone else POISON):
            log = f"{work.file} on {work.host}"
            DBOS.update_workflow_attributes(flow.workflow_id, {QUARANTINED: log}, merge=True)
            DBOS.cancel_workflows([flow.workflow_id])
        else:
            DBOS.resume_workflows([flow.workflow_id], queue_name=SHARED)

    def _killed(self, flow: WorkflowStatus, work: WorkRow) -> int:
        """How many workers have died in the step that the last one was in; a step that went well ends the count.

        A worker counts once: the one that counts may be stopped before it puts the flow back, and the next starts over.
        """
        before = flow.attributes or {}
        deaths = before.get(DEATHS, 0) if before.get(STEP) == work.step else 0
        if deaths == 0 or before.get(COUNTED) != work.worker:
            deaths += 1
            counted = {DEATHS: deaths, STEP: work.step, COUNTED: work.worker}
            DBOS.update_workflow_attributes(flow.workflow_id, counted, merge=True)
        return int(deaths)

    def _under_way(self, stem: str | None = None) -> list[WorkflowStatus]:
        """Every flow of our version that is not over; of `stem`, it and all that it started."""
        found = listed(DBOS, status=OPEN, app_version=self.version, workflow_id_prefix=stem)
        return [flow for flow in found if stem is None or within(flow.workflow_id, stem)]


def needs_of(flow: WorkflowStatus) -> tuple[str, ...]:
    """The capabilities that a shared flow needs; none for any other."""
    return tuple((flow.attributes or {}).get(NEEDS, ()))


def is_suspect(flow: WorkflowStatus) -> bool:
    """Whether a worker has died in a step of it."""
    return bool((flow.attributes or {}).get(DEATHS, 0))
