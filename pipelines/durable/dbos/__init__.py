"""The adapter to DBOS: flows that survive their process, kept in SQLite or PostgreSQL. Nothing else imports dbos.

One process carries flows from a SQLite file at a time; several may share a PostgreSQL. A process that dies leaves its
flows to the others, or to the next (`pipelines.durable.workers`).
"""

from __future__ import annotations

from pipelines.durable.dbos.sharing import Capacity
from pipelines.durable.dbos.system_database import (
    Claim,
    abandon,
    claimed,
    engaged,
    engine_url,
    forget,
    is_carried,
    wake,
)
from pipelines.durable.dbos.worker import VERSION, Flows, Worker

__all__ = [
    "VERSION", "Capacity", "Claim", "Flows", "Worker", "abandon", "claimed", "engaged", "engine_url", "forget",
    "is_carried", "wake",
]  # fmt: skip
