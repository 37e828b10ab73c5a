"""What is shared by workers, seen from a process that executes nothing."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from dbos import WorkflowStatus

from pipelines.durable.dbos.queue import OPEN, needs_of
from pipelines.durable.dbos.system_database import DEATHS, QUARANTINED, SCHEMA, STEP, client_of, listed
from pipelines.durable.roster import KEEP_SECONDS, SHARED, Roster, WorkerRow, WorkRow


@dataclass(frozen=True)
class Quarantined:
    """A flow that killed its workers in one step; `at` is when it was ended, in seconds of Unix time."""

    flow: str
    step: str
    deaths: int
    at: float
    work: WorkRow


@dataclass(frozen=True)
class SharedStatus:
    """The living workers, the flows that each has by its name, those that wait by what they need, and the quarantined.

    `waiting`: by what they need and the version that began them, since when each waits, in seconds of Unix time, the
    oldest first.
    """

    workers: tuple[WorkerRow, ...]
    taken: dict[str, tuple[WorkRow, ...]]
    waiting: dict[tuple[tuple[str, ...], str], tuple[float, ...]]
    quarantined: tuple[Quarantined, ...]


def shared_status(url: str) -> SharedStatus:
    """How the work stands in the engine's database at `url`. Raises OutsideError where that fails."""
    with client_of(url) as client, closing(Roster(url, SCHEMA)) as roster:
        open_flows = [flow for flow in listed(client, status=OPEN) if needs_of(flow)]
        kept = datetime.fromtimestamp(time.time() - KEEP_SECONDS, UTC).isoformat()
        ended = [
            flow for flow in listed(client, status=["CANCELLED"], completed_after=kept)
            if QUARANTINED in (flow.attributes or {})
        ]  # fmt: skip
        rows = roster.work([flow.workflow_id for flow in (*open_flows, *ended)])
        workers = roster.living()
    waiting: dict[tuple[tuple[str, ...], str], tuple[float, ...]] = {}
    taken: dict[str, tuple[WorkRow, ...]] = {row.name: () for row in workers}
    for flow in open_flows:
        row = rows.get(flow.workflow_id)
        if flow.status == "ENQUEUED" and flow.queue_name == SHARED:
            key = needs_of(flow), flow.app_version or ""
            waiting[key] = (*waiting.get(key, ()), (flow.updated_at or 0) / 1000)
        elif row and row.worker in taken:
            taken[row.worker] = (*taken[row.worker], row)
    return SharedStatus(workers, taken, waiting, tuple(_quarantined(flow, rows) for flow in ended))


def _quarantined(flow: WorkflowStatus, rows: dict[str, WorkRow]) -> Quarantined:
    attributes = flow.attributes or {}
    lost = WorkRow(flow.workflow_id, "", "", attributes[QUARANTINED])
    work = rows.get(flow.workflow_id, lost)
    return Quarantined(flow.workflow_id, attributes[STEP], attributes[DEATHS], (flow.updated_at or 0) / 1000, work)
