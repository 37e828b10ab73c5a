"""The signed document that says where the channels of one repository point and what is revoked there. Pure.

It has the part of TUF's timestamp role: a version that only grows and an expiry, so that neither an older document nor
one that is withheld passes for the present one. https://theupdateframework.github.io/specification/latest/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from hardening.evaluation import CLOCK_SKEW
from hardening.foundation.errors import MalformedError, RefusedError
from hardening.foundation.hashing import digest_of
from hardening.trust import Trust, TrustedKey
from images.registry.answers import Digest
from images.trust.envelope import read_bundle, statement
from images.trust.statement import NAMESPACE, Predicate, read_predicate
from images.trust.verification import UntrustedError, verify

CHANNELS_PREDICATE = f"{NAMESPACE}/channels/v1"
MOVES_WITHIN = timedelta(minutes=15)
"""A tag follows its document within seconds; a night dates what it signs by its own beginning, and reads it so."""
REASON_CHARACTERS, LARGEST_VERSION = 500, 1 << 62
LASTS_AT_MOST = timedelta(days=90)  # as much as `signing.channels_expire_after` may be
VERSION_AHEAD = timedelta(days=7)
"""Versions count seconds since 1970, and one more where the clock went back: higher ones would hide all later ones."""


class UnreadChannelsError(RefusedError):
    """The channels of a repository are unknown: their document is missing, expired, older, or not signed by a key that
    counts; or a channel names something else than the document.
    """


class Revocation(Predicate):
    """When and why a release was revoked."""

    at: datetime
    reason: str


class SignedChannel(Predicate):
    """Where a channel points, where a rollback goes from there, and until its tag has moved, what that still names."""

    digest: Digest
    previous: Digest | Literal[""] = ""
    left: Digest | Literal[""] = ""


class ChannelDocument(Predicate):
    """The channels of a repository by name, and by digest what is revoked there, releases as well as contents."""

    repository: str
    version: Annotated[int, Field(ge=0, le=LARGEST_VERSION)] = 0
    issued: datetime
    expires: datetime
    channels: Mapping[str, SignedChannel] = {}
    revoked: Mapping[Digest, Revocation] = {}

    def moved(self, channel: str, digest: str, back: str = "") -> ChannelDocument:
        """The document after a move. `back`: where a rollback goes from there; by default what the channel leaves."""
        left = present.digest if (present := self.channels.get(channel)) else ""
        if left == digest:
            return self
        moved = SignedChannel(digest=digest, previous=back or left, left=left)
        return self.model_copy(update={"channels": {**self.channels, channel: moved}})

    def without_left(self) -> ChannelDocument:
        """The document once every tag names what it should."""
        channels = {name: state.model_copy(update={"left": ""}) for name, state in self.channels.items()}
        return self.model_copy(update={"channels": channels})

    def revoking(self, digests: Sequence[str], at: datetime, reason: str) -> ChannelDocument:
        """The document after a revocation; what was revoked before keeps its reason."""
        added = dict.fromkeys(digests, Revocation(at=at, reason=reason[:REASON_CHARACTERS]))
        return self.model_copy(update={"revoked": {**added, **self.revoked}})

    def signed(self, now: datetime, lasts: timedelta, above: int) -> ChannelDocument:
        """The document as it is signed now, with a version `above` those that are known.

        Versions follow the clock, so that a ledger that was lost with the document still signs a higher one.
        """
        version = max(above + 1, int(now.timestamp()))
        return self.model_copy(update={"version": version, "issued": now, "expires": now + lasts})

    @property
    def lines(self) -> tuple[str, ...]:
        """The document in words, for people."""
        points = [f"{name} → {state.digest[:19]}" for name, state in sorted(self.channels.items())]
        return (*points, f"{len(self.revoked)} revoked", f"until {self.expires:%Y-%m-%d %H:%M} UTC")

    @property
    def payload(self) -> bytes:
        """The statement that is signed. Without any release it is about the repository's name."""
        subjects = {state.digest: f"{self.repository}:{name}" for name, state in self.channels.items()}
        subjects |= {digest: self.repository for digest in self.revoked if digest not in subjects}
        subjects = subjects or {digest_of(self.repository): self.repository}
        return statement(CHANNELS_PREDICATE, self.predicate, subjects)

    @property
    def predicate(self) -> dict[str, Any]:
        """The document as JSON types."""
        return self.model_dump(mode="json", by_alias=True)


def verified(
    bundle: bytes,
    repository: str,
    trusted: Sequence[Trust],
    own: Sequence[TrustedKey],
    now: datetime,
    *,
    seen_version: int = 0,
) -> ChannelDocument:
    """The document in a bundle. Raises UnreadChannelsError where it is not signed, or about another repository, or
    claims more time or a higher version than any that this program signs.

    `trusted` are the rules of each policy that has to accept the key; `own` counts where a rule names none. The expiry
    is not checked. A key counts on the day that the document states, as with releases; a key that a rule names also
    today, because a retired one can state any day. The private half of a retired key of our own is gone.
    """
    what = f"the channel document of {repository}"
    if not trusted:
        raise unread(repository, "no policy says whose key counts")
    try:
        opened = read_bundle(bundle, what)
        document = read_predicate(ChannelDocument, opened.said["predicate"], what)
        for trust in trusted:
            wanted = Trust(keys=trust.keys, predicates=(CHANNELS_PREDICATE,))
            for day in (document.issued, now) if trust.keys else (document.issued,):
                verify(what, opened.digests, [bundle], wanted, own, signed_at=day, now=now)
    except (UntrustedError, MalformedError) as error:
        raise unread(repository, error.message) from None
    if document.repository != repository:
        raise unread(repository, f"{what} is that of {document.repository[:200]}; who can write there?")
    if document.expires - document.issued > LASTS_AT_MOST:
        raise unread(repository, f"{what} claims to count for more than {LASTS_AT_MOST.days} days")
    ahead = document.version - max(document.issued.timestamp(), seen_version)
    if ahead > VERSION_AHEAD.total_seconds():
        raise unread(repository, f"{what} has the version {document.version}, which is far above its day's")
    return document


def require_current(document: ChannelDocument, seen: ChannelDocument | None, now: datetime, *, lasts: bool) -> None:
    """Raise UnreadChannelsError where `document` is older than the newest document that was `seen`, or not of today.

    `lasts`: a document that was seen does not expire, where nobody else could have signed a newer one.
    """
    where, version = document.repository, seen.version if seen else 0
    if document.version < version:
        raise unread(
            where, f"its document is older than one that was seen: version {document.version}, after {version}"
        )
    if seen and document.version == version and document != seen:
        raise unread(where, f"two documents have the version {version}; do two ledgers sign for it?")
    if lasts and document == seen:
        return
    if document.issued > now + CLOCK_SKEW:
        raise unread(where, f"its document is dated {document.issued:%Y-%m-%d %H:%M} UTC, which is in the future")
    if now >= document.expires:
        raise unread(where, f"its document expired on {document.expires:%Y-%m-%d %H:%M} UTC")


def require_tag(document: ChannelDocument, name: str, tagged: str, now: datetime) -> None:
    """Raise UnreadChannelsError where the tag (or parameter) of a channel names neither what the document says nor,
    while it moves, what the channel left. One that is missing leads nobody astray.
    """
    channel = document.channels.get(name)
    right = {"", channel.digest if channel else ""}
    if channel and now - document.issued < MOVES_WITHIN:
        right.add(channel.left)
    if tagged not in right:
        says = (
            f"its signed document names {channel.digest[:19]}" if channel else "its signed document has no such channel"
        )
        raise unread(document.repository, f"{name} points to {tagged[:19]}, and {says}; who can write there?")


def unread(repository: str, why: str) -> UnreadChannelsError:
    """The error for channels that are unknown."""
    name = repository.rpartition("/")[2]
    hint = f"./goldsmith image.sign-channels {name} shows what this installation knows of them, and signs that again"
    return UnreadChannelsError(f"the channels of {repository} are unread: {why}", hint=hint)
