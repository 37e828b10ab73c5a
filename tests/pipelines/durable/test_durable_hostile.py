"""What somebody who can write to the engine's database cannot have a worker do."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from hardening.foundation.errors import OutsideError
from pipelines.durable.dbos import Worker, engine_url
from pipelines.durable.dbos.system_database import SCHEMA, client_of
from pipelines.durable.port import Json, WorkflowEngine
from tests.conftest import POSTGRES
from tests.support.durable import State, look
from tests.support.loop import until
from tests.support.postgres import Server


class Payload:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.file), "w")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where the engine keeps its flows."""
    return engine_url(f"sqlite:///{tmp_path}/ledger.sqlite")


async def step_and_wait(engine: WorkflowEngine, argument: Json) -> Json:
    """A flow with an input, the record of a step, a message that it waits for, and an answer."""
    said = await engine.step("say", lambda: argument)
    await engine.wait(timedelta(hours=1) if argument == "waits" else timedelta())
    return said


KNOWN = {"flow": step_and_wait}


@contextmanager
def interrupted(url: str) -> Iterator[Worker]:
    """A worker that Ctrl-C ends at the end of the block: its flows stay for the next one."""
    with suppress(KeyboardInterrupt), Worker.launched(url, KNOWN) as worker:
        yield worker
        raise KeyboardInterrupt


def left_waiting(url: str) -> None:
    """Leave a flow that has done its step and waits for a message."""
    with interrupted(url) as worker:
        worker.begin("flow", "f1", "waits")
        with client_of(url) as client:
            until(lambda: len(client.list_workflow_steps("f1")) >= 1, "the step's record")


def ended(url: str) -> None:
    """Leave a flow that has ended."""
    with Worker.launched(url, KNOWN) as worker:
        worker.execute("flow", "f1", "ends")


def goes_on(url: str, evil: Path) -> None:
    """Go on with what another process left."""
    with interrupted(url):
        until(lambda: evil.exists() or getattr(look(url, "f1"), "state", None) is not State.OPEN, "the flow's end")


def answer_is_read(url: str, _evil: Path) -> None:
    """Read the answer of a flow, as whoever waits for it does."""
    with client_of(url) as client:
        look(url, "f1")
        client.retrieve_workflow("f1").get_result()


def event_is_read(url: str, _evil: Path) -> None:
    """Read an event of a flow."""
    with client_of(url) as client:
        client.get_event("f1", "key", timeout_seconds=0)


def forked_event_is_read(url: str, _evil: Path) -> None:
    """Read an event of a flow's copy, which has it from the history."""
    with client_of(url) as client:
        copy = client.fork_workflow("f1", 99)
        client.get_event(copy.workflow_id, "key", timeout_seconds=0)


def stream_is_read(url: str, _evil: Path) -> None:
    """Read a stream of a flow."""
    with client_of(url) as client:
        next(client.read_stream("f1", "key"))


IN_STATUS = "update {0}workflow_status set serialization = 'py_pickle' where workflow_uuid = 'f1'"
VALUE = "'f1', 'key', :payload, 'py_pickle'"
COLUMNS: dict[str, tuple[Callable[[str], None], list[str], Callable[[str, Path], None]]] = {
    "workflow_status.inputs": (
        left_waiting, [IN_STATUS, "update {0}workflow_input set inputs = :payload"], goes_on,
    ),
    "workflow_status.output": (
        ended, [IN_STATUS, "update {0}workflow_output set output = :payload"], answer_is_read,
    ),
    "workflow_status.error": (
        ended,
        [
            IN_STATUS, "update {0}workflow_output set output = null, error = :payload",
            "update {0}workflow_status set status = 'ERROR'",
        ],
        answer_is_read,
    ),
    "operation_outputs": (
        left_waiting, ["update {0}operation_outputs set output = :payload, serialization = 'py_pickle'"], goes_on,
    ),
    "notifications": (
        left_waiting,
        [
            "insert into {0}notifications (destination_uuid, topic, message, message_uuid, serialization) "
            "values ('f1', 'wake', :payload, 'm1', 'py_pickle')"
        ],
        goes_on,
    ),
    "workflow_events": (
        ended,
        [f"insert into {{0}}workflow_events (workflow_uuid, key, value, serialization) values ({VALUE})"],
        event_is_read,
    ),
    "workflow_events_history": (
        ended,
        [
            "insert into {0}workflow_events_history (workflow_uuid, key, value, serialization, function_id) "
            f"values ({VALUE}, 1)"
        ],
        forked_event_is_read,
    ),
    "streams": (
        ended,
        [
            'insert into {0}streams (workflow_uuid, key, value, serialization, "offset", function_id) '
            f"values ({VALUE}, 0, 1)"
        ],
        stream_is_read,
    ),
}  # fmt: skip


def poisoned(url: str, statements: list[str], payload: str = "") -> None:
    """Write into the engine's database."""
    engine = create_engine(url)
    with engine.begin() as connection:
        schema = "" if make_url(url).get_backend_name() == "sqlite" else f"{SCHEMA}."
        for statement in statements:
            values = {"payload": payload} if ":payload" in statement else {}
            assert connection.execute(text(statement.format(schema)), values).rowcount, statement
    engine.dispose()


def unpickles(url: str, column: str, evil: Path) -> bool:
    """Whether a pickle in this column is loaded."""
    prepared, statements, read = COLUMNS[column]
    prepared(url)
    poisoned(url, statements, base64.b64encode(pickle.dumps(Payload(evil))).decode())
    with suppress(OutsideError):
        read(url, evil)
    return evil.exists()


@pytest.mark.parametrize("column", COLUMNS)
def test_no_record_is_unpickled(url: str, tmp_path: Path, column: str) -> None:
    """DBOS reads a record as its row says, also as a pickle: a row must not choose what runs here."""
    assert not unpickles(url, column, tmp_path / "unpickled")


@pytest.mark.needs(POSTGRES)
def test_no_record_of_a_shared_database_is_unpickled(running_postgres: Server, tmp_path: Path) -> None:
    """One row in the database of all workers would run its code on each of them."""
    url = engine_url(running_postgres.new_database())
    assert not unpickles(url, "workflow_status.inputs", tmp_path / "unpickled")


def test_a_pickle_in_the_database_is_named(url: str) -> None:
    """Who reads the answer of such a flow gets an error that says what is wrong with the database."""
    ended(url)
    poisoned(url, [IN_STATUS])
    with pytest.raises(OutsideError, match="holds a pickle"):
        answer_is_read(url, Path())
