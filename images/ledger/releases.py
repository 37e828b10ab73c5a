"""What was published, where the channels have pointed, and what was made at a cloud.

The last is written down before it is made: so nothing is made twice, and nothing left is a riddle.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from images.artifact import Release
from images.documents import Document, from_json, to_json
from images.ledger import tables as t
from images.ledger.database import Database
from images.ledger.tables import Made, Move, SeenChannels

_NEWEST = (t.releases.c.published_at.desc(), t.releases.c.digest)
_MEANT = or_(
    *(column.in_(bindparam("meant", expanding=True)) for column in (t.releases.c.digest, t.releases.c.content))
)
_REVOKED = select(t.releases.c.digest).where(_MEANT, t.releases.c.revoked_at.is_not(None)).order_by(*_NEWEST).limit(1)
_OPEN = (
    select(t.publications.c.release, t.publications.c.documents)
    .where(t.publications.c.repository == bindparam("repository"), t.publications.c.done.is_(False))
    .order_by(t.publications.c.id)
)  # made once: a night asks them of each image, and SQLAlchemy makes them longer than SQLite answers them


@dataclass(frozen=True)
class Begun:
    """A publication that has begun: the release, and its documents of that day."""

    release: Release
    documents: tuple[Document, ...] = ()


class Releases(Database):
    """The ledger's lines about releases, publications in progress, and channels."""

    def record_release(self, release: Release) -> None:
        """Keep a release; the same digest in the same repository replaces the older line."""
        self._put(t.releases, asdict(release))

    def releases(self, name: str = "") -> tuple[Release, ...]:
        """All releases (of one definition) that were ever recorded, the newest first."""
        return self._releases(**({"name": name} if name else {}))

    def released(self) -> frozenset[str]:
        """The definitions that have releases."""
        return frozenset(row.name for row in self._rows(select(t.releases.c.name).distinct()))

    def release(self, digest: str) -> Release | None:
        """The release with this index digest."""
        return next(iter(self._releases(digest=digest)), None)

    def releases_of_content(self, content: str) -> tuple[Release, ...]:
        """All releases over one content, the newest first."""
        return self._releases(content=content)

    def revoked_of(self, *digests: str) -> Release | None:
        """The newest revoked one of the releases that these digests mean: their own, or those over the content."""
        found = self._rows(_REVOKED, meant=digests)
        return self.release(found[0].digest) if found else None

    def revoke(self, digest: str, reason: str, at: datetime) -> None:
        """Mark a release as revoked."""
        self._mark(digest, revoked_reason=reason, revoked_at=at)

    def mark_pruned(self, digest: str, at: datetime) -> None:
        """Mark a release as removed from the registry."""
        self._mark(digest, pruned_at=at)

    def begin_publication(self, begun: Begun) -> None:
        """Write down, before anything is pushed, which release a publication is about to make."""
        where = {"repository": begun.release.repository, "digest": begun.release.digest}
        self._insert(t.publications, {**where, **to_json(begun), "done": False})

    def open_publications(self, repository: str) -> tuple[Begun, ...]:
        """The publications that were begun and never ended, the oldest first."""
        return tuple(from_json(Begun, dict(row._mapping)) for row in self._rows(_OPEN, repository=repository))

    def end_publication(self, release: Release) -> None:
        """Remove every open line of this release, with what was to be said of it: it hangs on the release now."""
        table = t.publications
        mine = (table.c.repository == release.repository, table.c.digest == release.digest)
        self._change(delete(table).where(*mine))

    def record_move(self, move: Move) -> None:
        """Keep that a channel's tag was moved."""
        self._insert(t.channel_moves, asdict(move))

    def moves(self, repository: str, channel: str) -> tuple[Move, ...]:
        """Where a channel has pointed, the oldest first."""
        return self._find(Move, t.channel_moves, t.channel_moves.c.id, repository=repository, channel=channel)

    def all_moves(self) -> dict[tuple[str, str], list[Move]]:
        """The same of every repository and channel that was ever moved here."""
        found = dict[tuple[str, str], list[Move]]()
        for one in self._find(Move, t.channel_moves, t.channel_moves.c.id):
            found.setdefault((one.repository, one.channel), []).append(one)
        return found

    def last_move(self, repository: str, channel: str) -> Move | None:
        """Where a channel points, as far as it was moved here."""
        newest = t.channel_moves.c.id.desc()
        found = self._find(Move, t.channel_moves, newest, limit=1, repository=repository, channel=channel)
        return next(iter(found), None)

    def last_moves(self) -> dict[tuple[str, str], Move]:
        """The same of every repository and channel."""
        moves = t.channel_moves
        newest = select(func.max(moves.c.id)).group_by(moves.c.repository, moves.c.channel)
        return {(one.repository, one.channel): one for one in self._find(Move, moves, where=[moves.c.id.in_(newest)])}

    def seen_channels(self, repository: str) -> SeenChannels | None:
        """The newest document about the channels of a repository that was seen."""
        return next(iter(self._find(SeenChannels, t.channel_documents, repository=repository)), None)

    def see_channels(self, seen: SeenChannels) -> None:
        """Keep a document, unless a newer one was seen meanwhile."""
        table = t.channel_documents
        older = (table.c.repository == seen.repository, table.c.version < seen.version)
        if not self._change(update(table).where(*older).values(**asdict(seen))):
            with suppress(IntegrityError):  # there is one, and it is not older
                self._insert(table, asdict(seen))

    def _releases(self, **same: Any) -> tuple[Release, ...]:
        return self._find(Release, t.releases, *_NEWEST, **same)

    def _mark(self, digest: str, **values: Any) -> None:
        self._change(update(t.releases).where(t.releases.c.digest == digest).values(**values))


class Clouds(Database):
    """The ledger's lines about what we made at a cloud."""

    def record_made(self, made: Made) -> None:
        """Keep a line; the same account, region, kind and token replace the older one."""
        self._put(t.cloud, asdict(made))

    def made(self, account: str, **wanted: str) -> tuple[Made, ...]:
        """The lines of an account whose columns are as `wanted`, the oldest first."""
        return self._find(Made, t.cloud, t.cloud.c.at, t.cloud.c.token, account=account, **dict[str, Any](wanted))
