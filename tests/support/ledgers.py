"""What SQLite files of tests do without, as it costs processor time and nothing of what is tested depends on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

from sqlalchemy import Connection, Engine, event

from images.ledger import tables

NAMES = "SELECT name FROM sqlite_master"
WORDED = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"


def unsynced() -> None:
    """From now on no commit to a file waits for the disk, which only a machine that loses its power needs: what a
    process has committed stays whenever it is killed.
    """
    event.listen(Engine, "connect", _unsynced)


def _unsynced(connection: Any, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        with suppress(sqlite3.Error):  # whoever uses it next is told
            connection.execute("PRAGMA synchronous = OFF")


class _Statements(dict[Any, Any]):
    """Compiled statements, found by the name of a dialect in the place of an engine's own object of it."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get((key[0].name, *key[1:]), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        super().__setitem__((key[0].name, *key[1:]), compiled)


@contextmanager
def compiled_once() -> Iterator[None]:
    """Within it an engine finds what others have compiled, as in a process that lives with one: each test has engines
    of its own, and to compile a statement takes SQLAlchemy longer than to execute it.
    """
    begin, statements = Engine.__init__, _Statements()

    def begin_with_all(engine: Engine, *args: Any, **named: Any) -> None:
        begin(engine, *args, **named)
        engine._compiled_cache = statements

    with patch.object(Engine, "__init__", begin_with_all):
        yield


@contextmanager
def worded_once() -> Iterator[None]:
    """Within it the tables of a new file are made by the statements that made those of the first one: to word them
    takes SQLAlchemy fourteen times as long as SQLite takes to execute them.
    """
    make, words = tables.metadata.create_all, list[str]()

    def create_all(connection: Connection, **more: Any) -> None:
        new = connection.dialect.name == "sqlite" and not connection.exec_driver_sql(NAMES).first()
        worded = list(words) if new else []  # other threads make files of their own meanwhile
        for statement in worded:
            connection.exec_driver_sql(statement)
        if not worded:
            make(connection, **more)
        if new and not worded:
            words[:] = connection.exec_driver_sql(WORDED).scalars()

    with patch.object(tables.metadata, "create_all", create_all):
        yield
