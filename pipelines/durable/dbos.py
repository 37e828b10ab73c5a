"""The adapter to DBOS: flows that survive their process, kept in SQLite or PostgreSQL. The one module that knows DBOS.

One process carries flows from a SQLite file at a time; several may share a PostgreSQL. A process that dies leaves its
flows to the others, or to the next (`pipelines.durable.workers`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import dbos
from dbos import DBOS, DBOSClient, SendMessage, Serializer, SetWorkflowID, error
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError, UsageError
from hardening.foundation.locks import only_one
from pipelines.durable.port import Child, Engine, Flow, Json
from pipelines.durable.records import decode, encode, recorded
from pipelines.durable.workers import Locks, Reaper, alone, session

T = TypeVar("T")
Flows = Mapping[str, Flow]

SCHEMA = "goldsmith_engine"  # of PostgreSQL, beside the ledger's tables
VERSION = "1"  # a flow whose steps changed places needs another, and is carried to its end by the old one
ATTEMPTS = 20  # how many deaths of its process a flow survives; one that kills them must not kill all
WAKE, PROGRESS = "wake", "progress"
POLL_SECONDS = 0.2
OPEN_SECONDS = 60
OVER = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


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


class _Records(Serializer):
    """Our records in the place of DBOS's pickles."""

    def name(self) -> str:
        return "goldsmith_json"

    def serialize(self, data: Any) -> str:
        return encode(data)

    def deserialize(self, serialized_data: str) -> Any:
        return decode(serialized_data)


class _Said(logging.Handler):
    """Of what DBOS logs a person needs one thing: why nothing moves while the database is away. Said once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        if "Database connection failed" in record.getMessage() and not self._told:
            self._told = True
            say("the engine's database does not answer; going on as soon as it does")


def engine_url(database: str) -> str:
    """Where the engine keeps its flows, for a ledger at `database` (a SQLAlchemy URL): one setting for both.

    Beside a ledger of SQLite lies `engine.sqlite`; in a PostgreSQL the engine has a schema of its own.
    """
    url = make_url(database)
    if url.get_backend_name() == "sqlite":
        url = url.set(database=str(_file(url).with_name("engine.sqlite")))
    return url.render_as_string(hide_password=False)


class Worker:
    """A process that carries flows: `with Worker.launched(…) as worker`."""

    def __init__(self, flows: Flows) -> None:
        self._bodies = {name: self._registered(name, flow) for name, flow in flows.items()}
        self._carried = 0
        self._acting = 0
        self._leaving = False
        self._changed = threading.Condition()

    @classmethod
    @contextmanager
    def launched(cls, url: str, flows: Flows, *, version: str = VERSION) -> Iterator[Worker]:
        """Carry `flows` from the engine's database at `url` while the block runs, those of dead processes included.

        A block that ends well drains first: what this process carries runs to its end. One that an exception ends
        leaves as soon as no step acts; the flows stay for the next process. Flows of another `version` are left alone.

        Raises RefusedError while another process has the SQLite file, OutsideError where the database fails.
        """
        prepare(url)
        own = f"{platform.node()}-{os.getpid()}-{uuid4().hex[:8]}"
        with _locks(url, own) as locks, _dbos(url, own, version):
            worker = cls(flows)
            _outside(DBOS.launch, url)
            with Reaper(own, locks, _holders, _hand_on).at_work():
                try:
                    yield worker
                    worker.drain()
                finally:
                    worker._leave()

    def carry(self, flow: str, flow_id: str, argument: Json) -> Json:
        """Run `flow` to its end under `flow_id` and give its answer; one that exists there goes on, or has ended.

        Raises the GoldsmithError that ended it, OutsideError for one that was given up, UsageError where another flow
        has this id.
        """
        with SetWorkflowID(flow_id):
            try:
                handle = DBOS.start_workflow(self._bodies[flow], recorded(argument))
            except error.DBOSConflictingWorkflowError as conflict:
                raise UsageError(f"{flow_id} is the id of another flow", evidence=str(conflict)) from None
        with _endings(flow_id):
            return handle.get_result(polling_interval_sec=POLL_SECONDS)

    def drain(self) -> None:
        """Wait until this process carries no flow."""
        with self._changed:
            self._changed.wait_for(lambda: not self._carried)

    def _leave(self) -> None:
        """Let no step begin any more, and those that act end."""
        with self._changed:
            self._leaving = True
            self._changed.wait_for(lambda: not self._acting)

    def _registered(self, name: str, flow: Flow) -> Callable[[Json], Awaitable[Json]]:
        async def body(argument: Json) -> Json:
            with self._carrying():
                return recorded(await flow(_DbosEngine(self, DBOS.workflow_id or ""), argument))

        return DBOS.workflow(name=name, max_recovery_attempts=ATTEMPTS)(body)

    async def acting(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await `call`, which may act; parked for good where the process is leaving."""
        with self._changed:
            self._acting += not self._leaving
            leaving = self._leaving
        if leaving:
            await asyncio.Event().wait()
        try:
            return await call()
        finally:
            with self._changed:
                self._acting -= 1
                self._changed.notify_all()

    @contextmanager
    def _carrying(self) -> Iterator[None]:
        with self._changed:
            self._carried += 1
        try:
            yield
        finally:
            with self._changed:
                self._carried -= 1
                self._changed.notify_all()

    def body(self, flow: str) -> Callable[[Json], Awaitable[Json]]:
        """The registered form of a flow."""
        return self._bodies[flow]


class _DbosEngine(Engine):
    """The port, on DBOS."""

    def __init__(self, worker: Worker, flow_id: str) -> None:
        self._worker = worker
        self.id = flow_id

    async def now(self) -> datetime:
        return datetime.fromisoformat(await self.step("now", lambda: datetime.now(UTC).isoformat()))

    async def step(self, name: str, act: Callable[[], T]) -> T:
        def acted() -> T:
            try:
                return recorded(act())  # type: ignore[no-any-return]
            except GoldsmithError as failure:
                raise recorded(failure) from failure

        return await self._worker.acting(lambda: DBOS.run_step_async({"name": name}, acted))

    async def wait(self, span: timedelta) -> bool:
        return await DBOS.recv_async(WAKE, timeout_seconds=max(0.0, span.total_seconds())) is not None

    async def publish(self, value: Json) -> None:
        await DBOS.set_event_async(PROGRESS, value)

    async def child(self, key: str, flow: str, argument: Json) -> Child:
        child_id = f"{self.id}/{key}"
        with SetWorkflowID(child_id):
            return _DbosChild(child_id, await DBOS.start_workflow_async(self._worker.body(flow), recorded(argument)))


class _DbosChild(Child):
    def __init__(self, flow_id: str, handle: dbos.WorkflowHandleAsync[Json]) -> None:
        self._id = flow_id
        self._handle = handle

    async def result(self) -> Json:
        with _endings(self._id):
            return await self._handle.get_result(polling_interval_sec=POLL_SECONDS)


class Window:
    """Flows from outside, for a process that carries none: `with Window.on(url) as window`."""

    def __init__(self, client: DBOSClient) -> None:
        self._client = client

    @classmethod
    @contextmanager
    def on(cls, url: str) -> Iterator[Window]:
        """See and wake the flows in the engine's database at `url`. Raises OutsideError where it fails."""
        prepare(url)
        with _quiet(), _failing_as_outside(url):
            client = DBOSClient(
                system_database_url=url,
                dbos_system_schema=SCHEMA,
                serializer=_Records(),
                retry_connection_errors=False,
            )
            try:
                yield cls(client)
            finally:
                client.destroy()

    def wake(self, flow_id: str) -> int:
        """Wake the flow and all that it started, as far as they are not over; how many that were."""
        found = self._client.list_workflows(
            workflow_id_prefix=flow_id, status=["PENDING", "ENQUEUED"], load_input=False, load_output=False
        )
        names = [one.workflow_id for one in found if f"{one.workflow_id}/".startswith(f"{flow_id}/")]
        self._client.send_bulk([SendMessage(name, True, WAKE) for name in names])
        return len(names)

    def look(self, flow_id: str) -> Look | None:
        """How a flow stands and what it last published; None where there is none."""
        found = self._client.list_workflows(workflow_ids=[flow_id], load_input=False)
        if not found:
            return None
        progress = self._client.get_event(flow_id, PROGRESS, timeout_seconds=0)
        status = found[0].status
        if status not in OVER:
            return Look(State.OPEN, progress)
        if status == "SUCCESS":
            return Look(State.DONE, progress, found[0].output)
        return Look(State.FAILED, progress, found[0].error or _given_up(flow_id, status))


def prepare(url: str) -> None:
    """Make the engine's tables where they are missing, before anything asks for a flow. Raises OutsideError."""
    with _quiet(), _failing_as_outside(url):
        location = make_url(url)
        if location.get_backend_name() != "sqlite":
            DBOS.migrate(url, schema=SCHEMA)
            return
        file = _file(location)
        with only_one(file.with_name(f"{file.name}.open.lock"), "opening the engine", wait_seconds=OPEN_SECONDS):
            DBOS.migrate(url)


def _file(url: URL) -> Path:
    """The file of a SQLite URL. Raises UsageError for a database in memory, which no flow would survive."""
    if not url.database or url.database == ":memory:":
        raise UsageError("flows must outlive their process: a database in memory cannot keep them")
    return Path(url.database)


@contextmanager
def _locks(url: str, own: str) -> Iterator[Locks]:
    location = make_url(url)
    if location.get_backend_name() == "sqlite":
        with alone(_file(location)) as alone_locks:
            yield alone_locks
    else:
        with session(url, own) as session_locks:
            yield session_locks


@contextmanager
def _dbos(url: str, own: str, version: str) -> Iterator[None]:
    """DBOS with our settings: no telemetry, no control plane, records of our own."""
    with _quiet():
        DBOS(
            config={
                "name": "goldsmith",
                "system_database_url": url,
                "dbos_system_schema": SCHEMA,
                "application_version": version,
                "executor_id": own,
                "serializer": _Records(),
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
def _quiet() -> Iterator[None]:
    """DBOS writes to nobody's terminal."""
    log = logging.getLogger("dbos")
    before, log.handlers, log.propagate = log.handlers, [_Said()], False
    try:
        yield
    finally:
        log.handlers = before


def _holders() -> set[str]:
    """Who carries flows of our version, dead or alive."""
    version = DBOS.application_version
    found = DBOS.list_workflows(status="PENDING", app_version=version, load_input=False, load_output=False)
    return {one.executor_id for one in found if one.executor_id}


def _hand_on(worker: str) -> None:
    """Let the living have what a dead worker left. Unlike `resume_workflow` this takes nothing from who already has it,
    and keeps count of the attempts.
    """
    DBOS._recover_pending_workflows([worker])


@contextmanager
def _endings(flow_id: str) -> Iterator[None]:
    """How DBOS says that a flow will never end, in words of ours."""
    try:
        yield
    except (error.DBOSAwaitedWorkflowCancelledError, error.DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded) as ended:
        raise _given_up(flow_id, type(ended).__name__) from None


def _given_up(flow_id: str, how: str) -> GoldsmithError:
    if "Attempts" in how or "ATTEMPTS" in how:
        return OutsideError(
            f"{flow_id} was given up: its process died {ATTEMPTS} times", hint="what in it kills processes? memory?"
        )
    return RefusedError(f"{flow_id} was cancelled in the engine's database")


@contextmanager
def _failing_as_outside(url: str) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as failure:
        where = make_url(url).render_as_string(hide_password=True)
        raise OutsideError(
            f"the engine's database at {where} failed: {getattr(failure, 'orig', None) or failure}",
            hint="is its server up, its disk full, its folder writable?",
        ) from failure


def _outside(call: Callable[[], None], url: str) -> None:
    with _failing_as_outside(url):
        call()
