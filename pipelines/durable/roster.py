"""Who shares work and what each does, in tables beside the engine's own; and the claim of one flow by one worker.

A row says what a worker told of itself. Whether it lives, only its lock says (`pipelines.durable.workers`).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Float, MetaData, String, Table, create_engine, delete, select, text
from sqlalchemy import update as changing
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from hardening.foundation.errors import OutsideError
from images.ledger.database import IDLE
from pipelines.durable.workers import SPACE

KEEP_SECONDS = 30 * 86400  # how long the rows and logs of what is over are kept
BUSY_SECONDS = 30
SHARED = "shared"  # the queue that no process of the engine listens to: workers claim flows from it one by one


@dataclass(frozen=True)
class WorkerRow:
    """A worker: where it runs, what it can, how many flows at a time. `since` is in seconds of Unix time."""

    name: str
    host: str
    pid: int
    version: str
    capabilities: tuple[str, ...]
    parallel: int
    since: float = field(default_factory=time.time)


@dataclass(frozen=True)
class WorkRow:
    """A flow that a worker took, the step it is in (empty: between steps) since when, and the end of its log.

    `file` is the whole log, on the worker's host.
    """

    flow: str
    worker: str
    host: str
    file: str
    step: str = ""
    since: float = field(default_factory=time.time)
    log: str = ""


LOCKED = (
    "select objid::bigint from pg_locks where locktype = 'advisory' and granted and objsubid = 2 and "
    "classid::bigint = :space and database = (select oid from pg_database where datname = current_database())"
)


def _hashed(name: str) -> str:
    """A worker's name in SQL, as `pg_locks` has it."""
    return f"(hashtext({name})::bigint & 4294967295)"


@contextmanager
def failing_as_outside(url: str) -> Iterator[None]:
    """What the engine's database raises, as an OutsideError without its password."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as failure:
        where = make_url(url).render_as_string(hide_password=True)
        what = f"the engine's database at {where} failed: {getattr(failure, 'orig', None) or failure}"
        raise OutsideError(what, hint="is its server up, its disk full, its folder writable?") from failure


class Roster:
    """The rows in the engine's database at `url`, in `schema` where that is a PostgreSQL."""

    def __init__(self, url: str, schema: str) -> None:
        location = make_url(url)
        self._postgres = location.get_backend_name() != "sqlite"
        if self._postgres:  # a few connections are kept: marks come often, and one that a restart broke is replaced
            asked = {"connect_timeout": 5, "options": IDLE}
            how: dict[str, Any] = {"pool_size": 2, "pool_pre_ping": True, "connect_args": asked}
        else:
            how = {"poolclass": NullPool, "connect_args": {"timeout": BUSY_SECONDS}}
        self._url = url
        self._engine = create_engine(location, **how)
        self._schema = schema if self._postgres else None
        tables = MetaData(schema=self._schema)
        self._workers = Table(
            "workers", tables, Column("name", String, primary_key=True), Column("host", String),
            Column("pid", BigInteger), Column("version", String), Column("capabilities", JSON),
            Column("parallel", BigInteger), Column("since", Float),
        )  # fmt: skip
        self._work = Table(
            "work", tables, Column("flow", String, primary_key=True), Column("worker", String), Column("host", String),
            Column("file", String), Column("step", String), Column("since", Float), Column("log", String),
        )  # fmt: skip
        with self._begin() as connection:
            if self._postgres:  # two that make them at once would disturb each other
                connection.execute(text("select pg_advisory_xact_lock(:space, 0)"), {"space": SPACE})
            tables.create_all(connection)

    def close(self) -> None:
        """Give the database's connections back."""
        self._engine.dispose()

    # -- workers ------------------------------------------------------------------------------------------------------

    def announce(self, row: WorkerRow) -> None:
        """Say that a worker is there, and what it can."""
        with self._begin() as connection:
            connection.execute(delete(self._workers).where(self._workers.c.name == row.name))
            connection.execute(self._workers.insert().values(**asdict(row)))

    def forget(self, own: str) -> None:
        """Remove the rows of what ended long ago, and of the long dead."""
        old = time.time() - KEEP_SECONDS
        with self._begin() as connection:
            alive = {own, *self._living(connection)}
            dead = self._workers.c.name.not_in(alive)
            connection.execute(delete(self._workers).where(self._workers.c.since < old, dead))
            connection.execute(delete(self._work).where(self._work.c.since < old))

    def leave(self, worker: str) -> None:
        """Say that it is there no more."""
        with self._begin() as connection:
            connection.execute(delete(self._workers).where(self._workers.c.name == worker))

    def living(self) -> tuple[WorkerRow, ...]:
        """The workers whose lock is held, the oldest first. In a SQLite file, which one process has: all."""
        with self._begin() as connection:
            alive = self._living(connection)
            found = connection.execute(select(self._workers).order_by(self._workers.c.since)).mappings()
            rows = [WorkerRow(**{**row, "capabilities": tuple(row["capabilities"])}) for row in found]
        return tuple(row for row in rows if not self._postgres or row.name in alive)

    def _living(self, connection: Any) -> set[str]:
        if not self._postgres:
            return set()
        asked = text(f"select name from {self._schema}.workers where {_hashed('name')} in ({LOCKED})")  # noqa: S608
        return {row.name for row in connection.execute(asked, {"space": SPACE})}

    def lives(self, worker: str) -> bool:
        """Whether its lock is held, whatever is told of it. For a PostgreSQL."""
        asked = text(f"select {_hashed(':name')} in ({LOCKED})")
        with self._begin() as connection:
            return bool(connection.execute(asked, {"space": SPACE, "name": worker}).scalar())

    # -- their work ---------------------------------------------------------------------------------------------------

    def claim(self, row: WorkRow) -> bool:
        """Move a flow that waits for any worker into the queue of one.

        False where another was quicker, and where this one is taken for dead: it has no lock, or its queue is deleted.
        """
        lives = f" and {_hashed(':to')} in ({LOCKED}) and :to in (select name from {self._schema}.queues)"  # noqa: S608
        with self._begin() as connection:
            if not self._moved(connection, row.flow, SHARED, row.worker, lives if self._postgres else ""):
                return False
            known = {"worker": row.worker, "host": row.host, "file": row.file, "step": "", "since": row.since}
            if not connection.execute(changing(self._work).where(self._work.c.flow == row.flow).values(known)).rowcount:
                connection.execute(self._work.insert().values(**asdict(row)))
        return True

    def unclaim(self, flow: str, worker: str) -> bool:
        """Let any worker have a claimed flow; False where it has begun, or is this worker's no longer."""
        with self._begin() as connection:
            return self._moved(connection, flow, worker, SHARED)

    def _moved(self, connection: Any, flow: str, queue: str, to: str, only: str = "") -> bool:
        moves = text(
            f"update {f'{self._schema}.' if self._schema else ''}workflow_status set queue_name = :to "  # noqa: S608
            f"where workflow_uuid = :flow and status = 'ENQUEUED' and queue_name = :queue{only}"
        )
        values = {"flow": flow, "queue": queue, "to": to} | ({"space": SPACE} if only else {})
        return bool(connection.execute(moves, values).rowcount)

    def mark(self, flow: str, step: str, worker: str) -> None:
        """Say which step of the flow begins (empty: it has ended), unless another worker has taken the flow."""
        with self._begin() as connection:
            change = changing(self._work).where(self._work.c.flow == flow, self._work.c.worker == worker)
            connection.execute(change.values(step=step, since=time.time()))

    def forgive(self, worker: str) -> None:
        """Let its end be no death of the steps that it is in: it was told to leave at once."""
        with self._begin() as connection:
            connection.execute(changing(self._work).where(self._work.c.worker == worker).values(step=""))

    def keep_log(self, flow: str, log: str) -> None:
        """Keep the end of the flow's log where other machines can read it."""
        with self._begin() as connection:
            connection.execute(changing(self._work).where(self._work.c.flow == flow).values(log=log))

    def work(self, flows: Sequence[str]) -> dict[str, WorkRow]:
        """What is known of these flows, by id."""
        with self._begin() as connection:
            found = connection.execute(select(self._work).where(self._work.c.flow.in_(flows))).mappings()
            return {row["flow"]: WorkRow(**row) for row in found}

    @contextmanager
    def _begin(self) -> Iterator[Any]:
        with failing_as_outside(self._url), self._engine.begin() as connection:
            yield connection
