"""The ledger's connection to the database: one transaction per call, every failure an OutsideError."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import datetime
from functools import cache, lru_cache
from itertools import starmap
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Index,
    Row,
    Select,
    Table,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool
from sqlalchemy.schema import CreateIndex
from sqlalchemy.sql.expression import UpdateBase

from hardening.foundation.errors import ContentError, OutsideError, UsageError
from hardening.foundation.locks import only_one
from images.ledger import tables as t

Value = TypeVar("Value")
BUSY_SECONDS = 60
RESTORE = "restore its backup (docs/operations.md), or move it away and type ./goldsmith image.rebuild"
BROKEN = "malformed", "file is not a database"  # in what SQLite says of a file
BATCH = 500  # values that one statement names: SQLite takes 999 at the least
# A process that is suspended between two statements must not lock others out of a row for as long as it sleeps.
IDLE = "-c idle_in_transaction_session_timeout=30s"


class Database:
    """A database with the ledger's tables in it. A transaction writes before it reads, and none waits forever.

    `clock` dates the lines of the audit, which a flow that began long ago writes too.
    """

    clock: Callable[[], datetime] | None = None

    def __init__(self, engine: Engine) -> None:
        self._engine = self._own = engine
        self._keepers, self._lock = 0, threading.Lock()

    @classmethod
    def open(cls, url: str) -> Self:
        """The ledger at a SQLAlchemy URL; makes missing tables. Raises OutsideError where the ledger was lost."""
        location, engine = _engine_of(url)
        if engine is not None:
            return cls(engine)._prepared()
        file = Path(str(location.database))
        # Opening a file costs nothing, and a connection that is not kept needs nobody to close it.
        ledger = cls(create_engine(location, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS}))
        with only_one(file.with_name(f"{file.name}.lock"), "opening the ledger", wait_seconds=BUSY_SECONDS):
            if file.is_file() and not file.stat().st_size and any(file.parent.glob("store/*")):
                raise OutsideError(f"the ledger {file} is empty, although images were built here", hint=RESTORE)
            return ledger._prepared()

    def close(self) -> None:
        """Give the database's connections back."""
        self._own.dispose()

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Within it a file's connections are kept, for those who ask thousands of times: to open one and to read the
        schema takes three times as long as what is asked.
        """
        with self._lock:
            self._keepers += 1
            if self._keepers == 1 and isinstance(self._own.pool, NullPool):
                self._engine = create_engine(self._own.url, max_overflow=-1, connect_args={"timeout": BUSY_SECONDS})
        try:
            yield
        finally:
            with self._lock:
                self._keepers -= 1
                if not self._keepers and self._engine is not self._own:
                    kept, self._engine = self._engine, self._own
                    event.listen(kept.pool, "checkin", _close)  # what a thread that was given up still holds
                    kept.dispose()

    def _prepared(self) -> Self:
        try:
            self._prepare()
        except BaseException:  # nobody gets the ledger, so nobody else gives its connections back
            self.close()
            raise
        return self

    def _prepare(self) -> None:
        with self._begin() as connection:
            if t.metadata.tables.keys() - inspect(connection).get_table_names():  # one question, not one for each table
                if connection.dialect.name == "sqlite":  # which would else write each table to the disk by itself
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                t.metadata.create_all(connection)
            missing = _missing_indexes(connection)
        if missing:
            with suppress(OutsideError), self._begin() as connection:  # who may not make them does without
                _add_indexes(connection, missing)
        if not (found := self._versions()):
            self._insert(t.versions, {"version": t.VERSION})
            found = self._versions()
        if found != [t.VERSION]:
            raise UsageError(
                f"the ledger was written by another version of Goldsmith ({found}, this one writes {t.VERSION})",
                hint="point `database` at a new one and fill it from the registry with ./goldsmith image.rebuild",
            )

    def _versions(self) -> list[int]:
        return [row.version for row in self._rows(select(t.versions))]

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        """A transaction. A broken uniqueness is the caller's to handle; all else is the outside world's failure."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            where = self._engine.url.set(query={}).render_as_string(hide_password=True)
            cause = str(getattr(error, "orig", None) or error)
            lost = any(word in cause for word in BROKEN)
            hint = RESTORE if lost else "is its disk full, its folder writable, its server up?"
            raise OutsideError(f"the ledger at {where} failed: {cause}", hint=hint) from error

    def _rows(self, query: Select[Any], /, **values: Any) -> list[Row[Any]]:
        with self._begin() as connection:
            return list(connection.execute(query, values))

    def _find(
        self, kind: type[Value], table: Table, /, *order: ColumnElement[Any], limit: int | None = None,
        where: Iterable[ColumnElement[bool]] = (), **same: Any,
    ) -> tuple[Value, ...]:  # fmt: skip
        """The rows with the `same` columns, and of which all of `where` holds, in that order, as values of the table's
        dataclass.
        """
        known = {column: value for column, value in same.items() if value is not None}
        query, lacking = _with_same(kind, table, order, limit, (*known,)), same.keys() - known.keys()  # type: ignore[arg-type]
        if where or lacking:
            query = query.where(*where, *(table.c[column].is_(None) for column in lacking))
        return tuple(starmap(kind, self._rows(query, **known)))

    def _change(self, change: UpdateBase) -> int:
        """Make a change; how many rows it concerned."""
        with self._begin() as connection:
            return connection.execute(change).rowcount

    def _insert(self, table: Table, *rows: dict[str, Any]) -> None:
        if rows:
            with self._begin() as connection:
                connection.execute(insert(table), list(rows))

    def _put(self, table: Table, *rows: dict[str, Any], keys: Sequence[str] = ()) -> None:
        """Insert rows, each in the place of the one with the same keys: by default those of the table."""
        with self._begin() as connection:
            for row in rows:
                same = (table.c[key] == row[key] for key in keys or table.primary_key.columns.keys())
                connection.execute(delete(table).where(*same))
            if rows:
                connection.execute(insert(table), list(rows))


INDEXES = {
    "sqlite": "select name from sqlite_master where type = 'index'",
    "postgresql": "select indexname from pg_indexes where schemaname = current_schema()",
}


def _missing_indexes(connection: Connection) -> list[Index]:
    """The indexes that an older ledger lacks."""
    known = set(connection.exec_driver_sql(INDEXES[connection.dialect.name]).scalars())
    return [one for table in t.metadata.tables.values() for one in table.indexes if one.name not in known]


def _add_indexes(connection: Connection, missing: Iterable[Index]) -> None:
    """Make them, one process at a time."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("lock table versions in exclusive mode")
    for index in missing:
        connection.execute(CreateIndex(index, if_not_exists=True))


def _close(_connection: Any, record: ConnectionPoolEntry) -> None:
    """Close a connection that is returned to a pool which is no longer in use."""
    record.close()


def _engine_of(url: str) -> tuple[URL, Engine | None]:
    """The address, and its engine unless it is a file of SQLite's. Raises ContentError for one that cannot be used."""
    try:
        location = make_url(url)
        if location.get_backend_name() == "sqlite" and location.database:
            return location, None
        options = {"options": IDLE} if location.get_driver_name().startswith("psycopg") else {}
        # With a ping, a server that was restarted costs no call.
        return location, create_engine(location, pool_pre_ping=True, connect_args=options)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        hint = "sqlite:////path/ledger.sqlite, or postgresql+psycopg://host/name with psycopg installed"
        raise ContentError(f"no database can be reached this way: {error}", key="database", hint=hint) from None


@cache
def _all_of(kind: type[Any], table: Table) -> Select[Any]:
    """Every row of a table, as far as a dataclass holds it; made once, as that takes longer than to ask it."""
    return select(*(table.c[field.name] for field in fields(kind)))


@lru_cache(maxsize=64)
def _with_same(
    kind: type[Any], table: Table, order: tuple[ColumnElement[Any], ...], limit: int | None, columns: tuple[str, ...]
) -> Select[Any]:
    """The rows of a table with given values in these columns; made once, as SQLAlchemy then compiles it once."""
    equal = (table.c[column] == bindparam(column) for column in columns)
    return _all_of(kind, table).where(*equal).order_by(*order).limit(limit)  # type: ignore[arg-type]
