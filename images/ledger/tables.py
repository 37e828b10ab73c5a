"""The ledger's rows, and its tables in plain SQLAlchemy Core: the same on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, get_origin, get_type_hints

from sqlalchemy import Column, Dialect, Index, MetaData, Table, UniqueConstraint
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import JSON, BigInteger, Boolean, DateTime, Float, Integer, String, TypeDecorator

from images.artifact import Artifact, Release

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
    """The present time by the database's clock, in SQL: no client's clock matters."""

    type = UtcTime()
    inherit_cache = True


@compiles(Now)
def _server_now(_element: Now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "timezone('utc', clock_timestamp())"


@compiles(Now, "sqlite")
def _machine_now(_element: Now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


metadata = MetaData()
TYPES = {
    str: String, datetime: UtcTime, datetime | None: UtcTime, int: BigInteger, bool: Boolean, float | None: Float
}  # fmt: skip
"""What a column of each kind of value is; of any other kind it is JSON."""


def _table(
    name: str, of: type | Mapping[str, Any], *more: UniqueConstraint | Index, keys: Collection[str] = (),
    index: Collection[str] = (),
) -> Table:  # fmt: skip
    """The table of a dataclass's values, or of columns by name and kind; without `keys`, its rows are numbered."""
    number = [] if keys else [Column("id", Integer, primary_key=True, autoincrement=True)]
    columns: list[Column[Any]] = [
        Column(
            column, _type_of(kind), primary_key=column in keys, index=column in index,
            nullable=kind in (datetime | None, float | None),
        )
        for column, kind in (get_type_hints(of) if isinstance(of, type) else of).items()
    ]  # fmt: skip
    return Table(name, metadata, *number, *columns, *more)


def _type_of(kind: Any) -> Any:
    """The type of a column; a kind that is not known would be kept as JSON by chance."""
    if kind in TYPES or kind is Any or get_origin(kind) in (tuple, dict):
        return TYPES.get(kind, JSON)
    raise TypeError(f"no column is made of {kind}")


versions = Table("versions", metadata, Column("version", Integer, primary_key=True))

artifacts = _table(
    "artifacts", Artifact, UniqueConstraint("name", "platform", "input_digest"),
    Index("ix_artifacts_newest", "name", "platform", "built_at"), index=["digest"],
)  # fmt: skip

# One row for what was last said of a content: `kind` is checks, scan or verdict; `told-…` where a registry said it.
# After a space it names the definition: equal ones share a content, and each has results of its own.
judgements = _table(
    "judgements", {"digest": str, "kind": str, "at": datetime, "value": Any}, keys=["digest", "kind"], index=["at"]
)

releases = _table("releases", Release, keys=["repository", "digest"], index=["name", "content", "digest"])

# An open line is a publication that a killed run left: the next one completes it, or removes what it pushed.
publications = _table(
    "publications", {"repository": str, "digest": str, "release": Any, "documents": Any, "done": bool}
)


@dataclass(frozen=True)
class Move:
    """A move of a channel's tag."""

    repository: str
    channel: str
    digest: str
    at: datetime
    reason: str


channel_moves = _table("channel_moves", Move, Index("ix_channel_moves_of", "repository", "channel"))


@dataclass(frozen=True)
class SeenChannels:
    """The newest signed document about the channels of a repository that this ledger has seen."""

    repository: str
    version: int
    document: Any


channel_documents = _table("channel_documents", SeenChannels, keys=["repository"])

first_seen = _table(
    "first_seen", {"vulnerability": str, "package": str, "at": datetime}, keys=["vulnerability", "package"]
)


@dataclass(frozen=True)
class ClosedFix:
    """A vulnerability of a package that a release closed: `content` of `image` is the first one without it.

    `fixed` is the version that closes it, `severity` and what follows are of the day it was published, by `policy`.
    `upstream_at` is the fixed package's own date, which the archive's signature covers; None: not known. `seen_at` is
    when the fix was first known here.
    """

    vulnerability: str
    package: str
    image: str
    content: str
    fixed: str
    severity: str
    exploited: bool
    epss: float | None
    policy: str
    upstream_at: datetime | None
    seen_at: datetime
    built_at: datetime
    published_at: datetime


closed_fixes = _table("closed_fixes", ClosedFix, keys=["vulnerability", "package", "image", "content"])


@dataclass(frozen=True)
class MemberRun:
    """From `at` on, a member runs `content`: empty where that is not known, or where the member is `gone`.

    `told_by`: the rollout that replaced it, or `check`, which found it so.
    """

    fleet: str
    member: str
    content: str
    gone: bool
    told_by: str
    at: datetime


member_runs = _table("member_runs", MemberRun, Index("ix_member_runs_of", "fleet", "member"))
# When others' images and packages were first seen here, and last; a version that is empty: when somebody last looked.
sights = _table(
    "sights", {"kind": str, "subject": str, "version": str, "since": datetime | None, "last": datetime},
    keys=["kind", "subject", "version"],
)  # fmt: skip

running = _table(
    "running", {"fleet": str, "member": str, "digest": str, "at": datetime}, keys=["fleet", "member"], index=["digest"]
)


@dataclass(frozen=True)
class FleetCheck:
    """The result of the last check of a fleet's members (JSON), and when."""

    fleet: str
    at: datetime
    members: Any


fleet_checks = _table("fleet_checks", FleetCheck, keys=["fleet"])


@dataclass(frozen=True)
class FleetDay:
    """Counts of a fleet's last check on one day (such as `2026-03-01`): its members, and those within policy."""

    fleet: str
    day: str
    at: datetime
    members: int
    within: int


fleet_days = _table("fleet_days", FleetDay, keys=["fleet", "day"])


@dataclass(frozen=True)
class MemberSnapshot:
    """How a member ran from `at` on (JSON), until the next line. `handle`: the engine's name of this instance."""

    fleet: str
    member: str
    handle: str
    at: datetime
    facts: dict[str, Any]


# How members run, a line for each change: the first one of an instance is what it drifts from.
member_snapshots = _table("member_snapshots", MemberSnapshot, Index("ix_member_snapshots_of", "fleet", "handle"))


@dataclass(frozen=True)
class Rollout:
    """A rollout: its order, and its state when it was last saved (JSON). `owner` began it."""

    id: str
    fleet: str
    owner: str
    order: Any
    state: Any
    open: bool
    begun_at: datetime
    at: datetime


rollouts = _table(
    "rollouts", Rollout, Index("ix_rollouts_of", "fleet", "begun_at"), Index("ix_rollouts_open", "open", "fleet"),
    keys=["id"], index=["at"],
)  # fmt: skip

# How far each member of a rollout is.
rollout_members = _table("rollout_members", {"rollout": str, "member": str, "state": Any}, keys=["rollout", "member"])


@dataclass(frozen=True)
class Holder:
    """Who wants a fleet, or has it, for which rollout."""

    fleet: str
    owner: str
    rollout: str


@dataclass(frozen=True)
class Lease(Holder):
    """The owner's hold of a fleet, for one rollout; after `until`, by the database's clock, anyone may take it."""

    until: datetime


leases = _table("leases", Lease, keys=["fleet"])


@dataclass(frozen=True)
class CommandRow:
    """A person's command to a rollout."""

    rollout: str
    command: str
    actor: str
    at: datetime


commands = _table("commands", CommandRow, index=["rollout"])


@dataclass(frozen=True)
class ApprovedPlanRow:
    """A plan by its digest. Empty: not approved yet, not used yet. `made_by` and `approved_by` are actors."""

    digest: str
    fleet: str
    made_by: str
    made_at: datetime
    approved_by: str = ""
    approved_at: datetime | None = None
    rollout: str = ""


plans = _table("plans", ApprovedPlanRow, keys=["digest"], index=["rollout"])


@dataclass(frozen=True)
class BaseUptake:
    """What was done so that `subject` moves to the content `base` of a golden image: `kind` is told or rebuild.

    The subject is a fleet and an application image that runs there. `tries` counts those begun.
    """

    kind: str
    subject: str
    base: str
    fleet: str
    at: datetime
    tries: int = 0
    done: bool = False
    detail: str = ""


base_uptakes = _table("base_uptakes", BaseUptake, keys=["kind", "subject", "base"])


@dataclass(frozen=True)
class ToldPoint:
    """What was sent to the `target` of a digest about one open point: first at `marked_at`, last at `told_at`.

    `place` is the fleet or image, `one` the member or vulnerability of it, `what` the words; `due` as it was told.
    `acts`: what was told that Goldsmith does about it, each once.
    """

    target: str
    subject: str
    place: str
    rule: str
    one: str
    what: str
    due: datetime | None
    marked_at: datetime
    told_at: datetime
    acts: tuple[str, ...] = ()


told_points = _table("told_points", ToldPoint, keys=["target", "subject"])


@dataclass(frozen=True)
class Deployment:
    """The record of a rollout at a forge: its `id` there, and the last `state` that it was given."""

    rollout: str
    fleet: str
    repository: str
    id: int
    state: str
    at: datetime


deployments = _table("deployments", Deployment, keys=["rollout", "repository"], index=["fleet"])


BEGUN, STANDING, GONE = "begun", "standing", "gone"


@dataclass(frozen=True)
class Made:
    """One thing at a cloud; `kind` is snapshot or image. `resource` is its id there, empty until it is known.

    `token` names it before it has one. `state`: begun, standing, or gone. `content` is the content manifest's digest,
    `release` the release's that it was made for.
    """

    account: str
    region: str
    kind: str
    token: str
    name: str
    content: str
    release: str
    at: datetime
    resource: str = ""
    state: str = BEGUN
    details: dict[str, Any] = field(default_factory=dict)


# What we made, or are about to make, at a cloud: the line stands before the thing does. `token` makes it only once.
cloud = _table("cloud", Made, keys=["account", "region", "kind", "token"], index=["resource", "name", "content"])


@dataclass(frozen=True)
class Night:
    """A night: its order (JSON), on which machine and state (`host`), by which version; whether it is over."""

    id: str
    host: str
    version: str
    order: Any
    open: bool
    begun_at: datetime


nights = _table("nights", Night, keys=["id"])


@dataclass(frozen=True)
class Trigger:
    """What starts work without a person: `kind` is night, urgent or webhook. `outcome` is empty until it is done."""

    id: str
    kind: str
    at: datetime
    done_at: datetime | None = None
    outcome: str = ""


triggers = _table("triggers", Trigger, keys=["id"])


@dataclass(frozen=True)
class AuditLine:
    """One thing that was done, by whom, to what."""

    at: datetime
    actor: str
    action: str
    subject: str
    detail: str


audit = _table("audit", AuditLine, index=["subject"])
