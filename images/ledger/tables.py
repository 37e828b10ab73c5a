"""The ledger's tables, in plain SQLAlchemy Core: the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

VERSION = 3


class UtcTime(TypeDecorator[datetime]):
    """Aware UTC in and out; a time without a zone is refused. Stored without one, as SQLite knows no zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """To the database."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone; the ledger keeps moments, not wall clocks")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """From the database."""
        return value and value.replace(tzinfo=UTC)


class Now(FunctionElement[datetime]):
    """The moment by the database's clock, in SQL: no client's clock has a say in it."""

    type = UtcTime()
    inherit_cache = True


@compiles(Now)
def _server_now(_element: Now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "timezone('utc', clock_timestamp())"


@compiles(Now, "sqlite")
def _machine_now(_element: Now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


metadata = MetaData()


def _key() -> Column[int]:
    return Column("id", Integer, primary_key=True, autoincrement=True)


def _text(name: str, **options: Any) -> Column[str]:
    return Column(name, String, nullable=False, **options)


def _time(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, UtcTime, nullable=nullable)


def _json(name: str) -> Column[Any]:
    return Column(name, JSON, nullable=False)


versions = Table("versions", metadata, Column("version", Integer, primary_key=True))

artifacts = Table(
    "artifacts",
    metadata,
    _key(),
    _text("name"),
    _text("platform"),
    _text("input_digest"),
    _text("digest", index=True),
    _json("inputs"),
    _json("packages"),
    _time("created"),
    _time("built_at"),
    Column("size_bytes", BigInteger, nullable=False),
    _text("dockerfile"),
    UniqueConstraint("name", "platform", "input_digest"),
)

# One row for what was last said of a content: `kind` is checks, scan or verdict; `told-…` where a registry said it.
judgements = Table(
    "judgements",
    metadata,
    _text("digest", primary_key=True),
    _text("kind", primary_key=True),
    _time("at"),
    _json("value"),
)

releases = Table(
    "releases",
    metadata,
    _text("repository", primary_key=True),
    _text("digest", primary_key=True),
    _text("name", index=True),
    _text("content", index=True),
    _text("input_digest"),
    _text("profile"),
    _text("policy"),
    _time("published_at"),
    _time("warn_at"),
    _time("expires_at"),
    _text("base_name"),
    _text("base_digest"),
    Column("revoked_reason", Text, nullable=False),
    _time("revoked_at", nullable=True),
    _time("pruned_at", nullable=True),
)

# An open line is a publication that a killed run left: the next one completes it, or removes what it pushed.
publications = Table(
    "publications",
    metadata,
    _key(),
    _text("repository"),
    _text("digest"),
    _json("release"),
    _json("documents"),
    Column("done", Boolean, nullable=False),
)

channel_moves = Table(
    "channel_moves",
    metadata,
    _key(),
    _text("repository"),
    _text("channel"),
    _text("digest"),
    _time("at"),
    Column("reason", Text, nullable=False),
)

first_seen = Table(
    "first_seen",
    metadata,
    _text("vulnerability", primary_key=True),
    _text("package", primary_key=True),
    _time("at"),
)

running = Table(
    "running",
    metadata,
    _text("fleet", primary_key=True),
    _text("member", primary_key=True),
    _text("digest", index=True),
    _time("at"),
)

rollouts = Table(
    "rollouts",
    metadata,
    _text("id", primary_key=True),
    _text("fleet", index=True),
    _text("owner"),
    _json("order"),
    _json("state"),
    Column("open", Boolean, nullable=False),
    _time("begun_at"),
    _time("at"),
)

# How far each member of a rollout is.
rollout_members = Table(
    "rollout_members",
    metadata,
    _text("rollout", primary_key=True),
    _text("member", primary_key=True),
    _json("state"),
)

# Who may act on a fleet, and until when nobody else may: one row a fleet.
leases = Table(
    "leases",
    metadata,
    _text("fleet", primary_key=True),
    _text("owner"),
    _text("rollout"),
    _time("until"),
)

# What people told a rollout to do; the newest line stands.
commands = Table(
    "commands",
    metadata,
    _key(),
    _text("rollout", index=True),
    _text("command"),
    _text("actor"),
    _time("at"),
)

# Plans of rollouts: who made each, who approved it, and the one rollout that used it.
plans = Table(
    "plans",
    metadata,
    _text("digest", primary_key=True),
    _text("fleet"),
    _text("made_by"),
    _time("made_at"),
    _text("approved_by"),
    _time("approved_at", nullable=True),
    _text("rollout", index=True),
)

# What we made, or are about to make, at a cloud: the line stands before the thing does. `token` makes it only once.
cloud = Table(
    "cloud",
    metadata,
    _text("account", primary_key=True),
    _text("region", primary_key=True),
    _text("kind", primary_key=True),
    _text("token", primary_key=True),
    _text("resource", index=True),
    _text("name", index=True),
    _text("content", index=True),
    _text("release"),
    _text("state"),
    _json("details"),
    _time("at"),
)

audit = Table(
    "audit",
    metadata,
    _key(),
    _time("at"),
    _text("actor"),
    _text("action"),
    _text("subject"),
    Column("detail", Text, nullable=False),
)
