"""What we made at a cloud, written down before it is made: so nothing is made twice, and nothing left is a riddle."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select

from images.ledger import tables as t
from images.ledger.database import Database

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


class Clouds(Database):
    """The ledger's lines about what we made at a cloud."""

    def record_made(self, made: Made) -> None:
        """Keep a line; the same account, region, kind and token replace the older one."""
        self._put(t.cloud, asdict(made), "account", "region", "kind", "token")

    def made(self, account: str, **wanted: str) -> tuple[Made, ...]:
        """The lines of an account whose columns are as `wanted`, the oldest first."""
        where = [t.cloud.c[column] == value for column, value in wanted.items()]
        query = select(t.cloud).where(t.cloud.c.account == account, *where)
        return tuple(Made(**row._mapping) for row in self._rows(query.order_by(t.cloud.c.at, t.cloud.c.token)))
