"""Flows from outside: how they stand, and waking them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from dbos import DBOSClient, SendMessage

from pipelines.durable.dbos.database import (
    PROGRESS,
    SCHEMA,
    WAKE,
    Records,
    failing_as_outside,
    given_up,
    prepare,
    quiet,
    within,
)
from pipelines.durable.port import Json

UNDER_WAY = ["PENDING", "ENQUEUED", "DELAYED"]


class State(StrEnum):
    """How a flow stands."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Look:
    """A flow, seen from outside. `answer` is what it returned, or the error that ended it."""

    state: State
    progress: Json = None
    answer: Json | Exception = None


class WorkflowClient:
    """Flows from outside, for a process that carries none: `with WorkflowClient.on(url) as window`."""

    def __init__(self, client: DBOSClient) -> None:
        self._client = client

    @classmethod
    @contextmanager
    def on(cls, url: str) -> Iterator[WorkflowClient]:
        """See and wake the flows in the engine's database at `url`. Raises OutsideError where it fails."""
        prepare(url)
        with quiet(), failing_as_outside(url):
            client = DBOSClient(
                system_database_url=url,
                dbos_system_schema=SCHEMA,
                serializer=Records(),
                retry_connection_errors=False,
            )
            try:
                yield cls(client)
            finally:
                client.destroy()

    def wake(self, flow_id: str) -> int:
        """Wake the flow and all that it started, as far as they are not over; how many that were."""
        found = self._client.list_workflows(
            workflow_id_prefix=flow_id, status=UNDER_WAY, load_input=False, load_output=False
        )
        names = [one.workflow_id for one in found if within(one.workflow_id, flow_id)]
        self._client.send_bulk([SendMessage(name, True, WAKE) for name in names])
        return len(names)

    def look(self, flow_id: str) -> Look | None:
        """How a flow stands and what it last published; None where there is none."""
        found = self._client.list_workflows(workflow_ids=[flow_id], load_input=False)
        if not found:
            return None
        progress = self._client.get_event(flow_id, PROGRESS, timeout_seconds=0)
        status = found[0].status
        if status in UNDER_WAY:
            return Look(State.OPEN, progress)
        if status == "SUCCESS":
            return Look(State.DONE, progress, found[0].output)
        return Look(State.FAILED, progress, found[0].error or given_up(flow_id))
