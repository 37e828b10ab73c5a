"""What a worker takes from others: flows of the dead, and flows that it carries on purpose.

Each worker has a queue of its own that nobody else listens to. DBOS's common one would give a flow to any process, so
also back to the one that it was taken from.
"""

from __future__ import annotations

from dbos import DBOS, WorkflowStatus

from pipelines.durable.dbos.system_database import ATTEMPTS, within

POLL_SECONDS = 0.5
DEATHS = "deaths"

OPEN = ["PENDING", "ENQUEUED"]


class WorkQueue:
    """The queue of one worker, for flows of one version."""

    def __init__(self, worker: str, version: str) -> None:
        self._worker = worker
        self._version = version
        DBOS.listen_queues([worker])

    def open(self) -> None:
        """Take flows from now on."""
        DBOS.register_queue(self._worker, polling_interval_sec=POLL_SECONDS)

    def close(self) -> None:
        """Take none any more; what lies here is for whoever finds us dead."""
        DBOS.delete_queue(self._worker)

    def holders(self) -> set[str]:
        """Who has flows of our version that are not over, dead or alive."""
        return {_holder(flow) for flow in self._under_way()}

    def holds(self) -> bool:
        """Whether this worker has flows that are not over."""
        return self._worker in self.holders()

    def inherit(self, dead: str) -> None:
        """Take what a dead worker left, but for flows that too many workers have died of: those end.

        To be called under the dead one's lock, so that two living ones do not both take it.
        """
        for flow in self._under_way():
            if _holder(flow) == dead:
                deaths = (flow.attributes or {}).get(DEATHS, 0) + 1
                DBOS.update_workflow_attributes(flow.workflow_id, {DEATHS: deaths}, merge=True)
                if deaths > ATTEMPTS:
                    DBOS.cancel_workflows([flow.workflow_id])
                else:
                    DBOS.resume_workflows([flow.workflow_id], queue_name=self._worker)
        DBOS.delete_queue(dead)

    def take(self, flow_id: str) -> None:
        """Take the flow and all that it started from whoever has them."""
        foreign = [flow.workflow_id for flow in self._under_way(flow_id) if _holder(flow) != self._worker]
        if foreign:
            DBOS.resume_workflows(foreign, queue_name=self._worker)

    def is_of_another_version(self, flow_id: str) -> bool:
        """Whether the flow is under way, and another version of ours began it."""
        found = DBOS.list_workflows(workflow_ids=[flow_id], load_input=False, load_output=False)
        return any(one.status in OPEN and one.app_version != self._version for one in found)

    def abandon(self, flow_id: str) -> None:
        """End the flow and all that it started, as far as they are not over."""
        DBOS.cancel_workflows([flow.workflow_id for flow in self._under_way(flow_id)])

    def _under_way(self, stem: str | None = None) -> list[WorkflowStatus]:
        """Every flow of our version that is not over; of `stem`, it and all that it started."""
        found = DBOS.list_workflows(
            status=OPEN, app_version=self._version, workflow_id_prefix=stem, load_input=False, load_output=False
        )
        return [flow for flow in found if stem is None or within(flow.workflow_id, stem)]


def _holder(flow: WorkflowStatus) -> str:
    """The worker that runs it, or in whose queue it lies."""
    return (flow.queue_name if flow.status == "ENQUEUED" else flow.executor_id) or ""
