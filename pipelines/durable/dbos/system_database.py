"""Where the engine keeps its flows and how it records them, and how DBOS is configured for that."""

from __future__ import annotations

import logging
import math
import os
import platform
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from dbos import DBOS, DBOSClient, SendMessage, Serializer, WorkflowStatus
from dbos._serialization import DefaultSerializer
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from hardening.foundation.console import say
from hardening.foundation.errors import ROOM_HINT, OutsideError, RefusedError, UsageError
from hardening.foundation.locks import only_one
from pipelines.durable.port import decode, encode
from pipelines.durable.roster import failing_as_outside
from pipelines.durable.workers import LOOK_SECONDS, Locks, alone, session

SCHEMA = "goldsmith_engine"  # of PostgreSQL, beside the ledger's tables
ATTEMPTS = 20  # how many deaths of its process a flow survives; one that kills them must not kill all
DEATHS, STEP, QUARANTINED = "deaths", "step", "quarantined"  # attributes of a flow: how often, in what, its log
LACKING = "lacking"  # another one: what was said of the worker that it waited for in vain
WAKE = "wake"
UNDER_WAY = ["PENDING", "ENQUEUED", "DELAYED"]
POLL_SECONDS = 0.2
OPEN_SECONDS = 60


class Records(Serializer):
    """Our records instead of DBOS's pickles."""

    def name(self) -> str:
        """What the database calls them."""
        return "goldsmith_json"

    def serialize(self, data: Any) -> str:
        """To the database."""
        return encode(data)

    def deserialize(self, serialized_data: str) -> Any:
        """From the database."""
        return decode(serialized_data)


def _refuse_pickle(_serializer: Serializer, _record: str) -> Any:
    what = "the workflow engine's database holds a pickle, which could run any code here and is never loaded"
    raise OutsideError(what, hint="Goldsmith writes none: find out who else writes to this database")


# Each row names its own decoder, and DBOS has no option that forbids the one that unpickles (its issue 485).
DefaultSerializer.deserialize = _refuse_pickle  # type: ignore[method-assign,assignment]


class _Said(logging.Handler):
    """Of what DBOS logs a person needs one thing: why nothing moves while the database is away. Said once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, where this is it."""
        if "Database connection failed" in record.getMessage() and not self._told:
            self._told = True
            say("the engine's database does not answer; going on as soon as it does")


def engine_url(database: str, name: str = "all") -> str:
    """Where the engine keeps its flows, for a ledger at `database` (a SQLAlchemy URL): one setting for both.

    Beside a ledger of SQLite lies `engine-NAME.sqlite`, since each is one process's; in a PostgreSQL the engine has a
    schema of its own. Raises UsageError for a database in memory, which no flow would survive.
    """
    url = make_url(database)
    if file := _file(database):
        url = url.set(database=str(file.with_name(f"engine-{name}.sqlite")))
    return url.render_as_string(hide_password=False)


def engaged(url: str) -> bool | None:
    """Whether a living process carries flows of this database, also one that sleeps; None where only a lease tells.

    That is so of a PostgreSQL, which several share. Raises OutsideError where the lock is another user's.
    """
    if (file := _file(url)) is None:
        return None
    try:
        with alone(file):
            return False
    except RefusedError:
        return True


def prepare(url: str) -> None:
    """Make the engine's tables where they are missing, before anything asks for a flow. Raises OutsideError."""
    with quiet(), failing_as_outside(url):
        if (file := _file(url)) is None:
            DBOS.migrate(url, schema=SCHEMA)
            return
        with only_one(file.with_name(f"{file.name}.open.lock"), "opening the engine", wait_seconds=OPEN_SECONDS):
            _write_ahead(file)
            DBOS.migrate(url)


def locks(url: str, own: str) -> AbstractContextManager[Locks]:
    """Hold the lock of the worker `own`. Raises RefusedError while another process has the SQLite file."""
    file = _file(url)
    return alone(file, wait_seconds=LOOK_SECONDS) if file else session(url, own)  # `engaged` holds it for a moment


@dataclass(frozen=True)
class Claim:
    """A worker's name, and its lock in the engine's database at `url`."""

    url: str
    name: str
    locks: Locks


@contextmanager
def claimed(url: str) -> Iterator[Claim]:
    """Hold a new worker's lock, before anything is carried. Raises RefusedError while another process has the SQLite
    file, OutsideError where the database fails.
    """
    name = f"{platform.node()}-{os.getpid()}-{uuid4().hex[:8]}"
    with locks(url, name) as held:
        yield Claim(url, name, held)


@contextmanager
def configured(url: str, own: str, version: str) -> Iterator[None]:
    """DBOS with our settings: no telemetry, no control plane, records of our own."""
    prepare(url)  # under the worker's lock, which is taken first: until then whoever looks takes it for dead
    with quiet():
        DBOS(
            config={
                "name": "goldsmith",
                "system_database_url": url,
                "dbos_system_schema": SCHEMA,
                "application_version": version,
                "executor_id": own,
                "serializer": Records(),
                "enable_otlp": False,
                "log_level": "WARNING",
                "notification_listener_polling_interval_sec": POLL_SECONDS,
            }
        )
        try:
            yield
        finally:
            DBOS.destroy(destroy_registry=True)


@contextmanager
def quiet() -> Iterator[None]:
    """DBOS writes to nobody's terminal."""
    log = logging.getLogger("dbos")
    before, log.handlers, log.propagate = log.handlers, [_Said()], False
    try:
        yield
    finally:
        log.handlers = before


FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)  # what SQLite says on a full disk
LOCKED = "database is locked"  # the one failure of SQLite that DBOS waits for
PATIENCE = timedelta(minutes=10)
CALM = timedelta(minutes=3)  # after which a failure is a new one; DBOS waits no longer than a minute and a half


class RoomOnDisk:
    """A disk that is full under the engine's SQLite file, such as while a build fills it, fails no flow: what is to be
    recorded waits for room, as DBOS has it wait for a PostgreSQL. `give_up` is told once that has lasted too long.
    """

    def __init__(self, url: str, give_up: Callable[[OutsideError], None]) -> None:
        self._file = _file(url)
        self._give_up = give_up
        self._since = self._last = -math.inf

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Have it wait while the block runs."""
        if self._file is None:
            yield
            return
        event.listen(Engine, "handle_error", self._heard)
        try:
            yield
        finally:
            event.remove(Engine, "handle_error", self._heard)

    def _heard(self, context: ExceptionContext) -> SQLAlchemyError | None:
        error, engine = context.original_exception, context.engine
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code not in FULL or engine is None or engine.url.database != str(self._file):
            return None
        now = time.monotonic()
        self._since = now if now - self._last > CALM.total_seconds() else self._since
        self._last = now
        if now - self._since >= PATIENCE.total_seconds():
            self._give_up(
                OutsideError(f"the disk that holds {self._file} is full", evidence=str(error), hint=ROOM_HINT)
            )
            return None
        locked = sqlite3.OperationalError(f"{error}: until there is room, the {LOCKED}")
        return OperationalError(context.statement, None, locked)


def wake(url: str, flow_id: str) -> int:
    """Wake the flow and all that it started, as far as they are not over; how many that were.

    For a process that carries none. Raises OutsideError where the engine's database at `url` fails.
    """
    with client_of(url) as client:
        names = _under_way(client, flow_id)
        client.send_bulk([SendMessage(name, True, WAKE) for name in names])
        return len(names)


def abandon(url: str, flow_id: str) -> None:
    """End the flow and all that it started, as far as they are not over, before anything carries them on.

    For a process that carries none. Raises OutsideError where the engine's database at `url` fails.
    """
    with client_of(url) as client:
        client.cancel_workflows(_under_way(client, flow_id))


def _under_way(client: DBOSClient, flow_id: str) -> list[str]:
    found = listed(client, workflow_id_prefix=flow_id, status=UNDER_WAY)
    return [one.workflow_id for one in found if within(one.workflow_id, flow_id)]


def is_carried(claim: Claim, flow_id: str) -> bool:
    """Whether a living worker has the flow. Raises OutsideError where the engine's database fails."""
    with client_of(claim.url) as client:
        found = listed(client, workflow_ids=[flow_id], status=UNDER_WAY)
    for worker in set(map(holder_of, found)):
        with claim.locks.dead(worker) as dead:
            if not dead:
                return True
    return False


def forget(url: str, flow_ids: Collection[str]) -> None:
    """Remove the flows, which are over, all that they started, and all that was recorded of them.

    For a process that carries none. Raises OutsideError where the engine's database at `url` fails.
    """
    with client_of(url) as client:
        stems = list(flow_ids)
        found = listed(client, workflow_id_prefix=stems)
        names = [one.workflow_id for one in found if any(within(one.workflow_id, stem) for stem in stems)]
        client.delete_workflows(names)


@contextmanager
def client_of(url: str) -> Iterator[DBOSClient]:
    """The flows in the engine's database at `url`, for a process that carries none. Raises OutsideError."""
    prepare(url)
    with quiet(), failing_as_outside(url):
        client = DBOSClient(
            system_database_url=url, dbos_system_schema=SCHEMA, serializer=Records(), retry_connection_errors=False
        )
        try:
            yield client
        finally:
            client.destroy()


def listed(where: type[DBOS] | DBOSClient, **which: Any) -> list[WorkflowStatus]:
    """The flows that are so, without what they were given and answered."""
    return where.list_workflows(**which, load_input=False, load_output=False)


def holder_of(flow: WorkflowStatus) -> str:
    """The worker that runs a flow, or in whose queue it lies."""
    return (flow.queue_name if flow.status == "ENQUEUED" else flow.executor_id) or ""


def within(flow_id: str, stem: str) -> bool:
    """Whether it is the flow `stem`, or one that this started."""
    return f"{flow_id}/".startswith(f"{stem}/")


def given_up(flow_id: str, attributes: Mapping[str, Any] | None = None) -> OutsideError:
    """What there is to say of a flow that was cancelled: only we do that, to what kills processes or nobody takes.

    `attributes`: its own, which say where the log of one lies that was quarantined, and which worker another lacked.
    """
    if attributes and (lacked := attributes.get(LACKING)):
        return OutsideError(lacked, hint="it was given up; ./goldsmith worker.status shows who can do what")
    hint = "what in it kills processes? memory?"
    if attributes and (log := attributes.get(QUARANTINED)):
        what = f"{flow_id} is quarantined: {attributes[DEATHS]} workers died in its step {attributes[STEP]}"
        return OutsideError(f"{what}; its log is {log}", hint=f"./goldsmith worker.status shows its end; {hint}")
    return OutsideError(f"{flow_id} was given up: {ATTEMPTS} processes died while executing it", hint=hint)


def _write_ahead(file: Path) -> None:
    """Have SQLite write each record to its disk once, not twice; the file remembers it for all who open it."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("pragma journal_mode=wal")


def _file(database: str) -> Path | None:
    """The file of a SQLite database; None for a PostgreSQL. Raises UsageError for one in memory."""
    url = make_url(database)
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise UsageError("flows must outlive their process: a database in memory cannot keep them")
    return Path(url.database)
