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


@contextmanager
def worded_once() -> Iterator[None]:
    """Within it the tables of a new file are made by the statements that made those of the first one: to word them
    takes SQLAlchemy fourteen times as long as SQLite takes to execute them.
    """
    make, words = tables.metadata.create_all, list[str]()

    def create_all(connection: Connection, **more: Any) -> None:
        new = connection.dialect.name == "sqlite" and not connection.exec_driver_sql(NAMES).first()
        if not (new and words):
            make(connection, **more)
        if new and not words:
            words.extend(connection.exec_driver_sql(WORDED).scalars())
        elif new:
            for statement in words:
                connection.exec_driver_sql(statement)

    with patch.object(tables.metadata, "create_all", create_all):
        yield
