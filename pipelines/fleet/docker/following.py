"""Edge: the tag of an image of others that a fleet follows: what it names, and which of that is old enough to use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property

from hardening.foundation.errors import GoldsmithError, MalformedError, OutsideError
from hardening.foundation.settings import pretended
from images.context import Context
from images.plan.cooldown import TAG, TagChoice, TagLook, take, until
from images.plan.holes import KnownHoles
from images.plan.locking import closed_by
from images.plan.upstream import Upstream
from images.registry.channel_documents import ChannelDocuments
from images.registry.client import RegistryClient
from images.registry.heads import Heads
from images.registry.references import one_repository, qualified
from images.registry.release_trust import require_upstream_trusted
from pipelines.fleet.members import Followed, Member, ReplacementImage, repository
from pipelines.fleet.model import Fleet
from pipelines.fleet.violations import BARE_ID

RECENT = timedelta(minutes=1)
"""A rollout judges each member again right before its step: by a look of its own that is no older than this."""
LASTS = timedelta(hours=6)
"""Where the registry cannot be asked again, such as when pulls have used up its rate limit, the last look of this run
is good for so long: that does not end a rollout, and what it rolls is pinned.
"""


class FollowedTag:
    """What one fleet may use of the tag that it follows, at one moment. The ledger records when each digest was first
    seen, by the tag's whole name, separately from base images: the first pin of a base does not wait.

    Raises OutsideError where the registry does not answer, and UntrustedError where a rule says who signs the image
    and it is not signed so.
    """

    def __init__(self, fleet: Fleet, tag: str, context: Context, now: datetime, registry: RegistryClient) -> None:
        self.fleet, self.tag, self.context, self.now, self.registry = fleet, tag, context, now, registry
        own = fleet.replacement.cooldown
        self.cooldown = context.settings.cooldown if own is None else own

    def of(self, member: Member) -> Followed | None:
        """What the tag says of the image that a member runs; None where that is of another repository."""
        if not self._concerns(member):
            return None
        sights = self._look.sights
        seen = next((one for digest in member.known_by if (one := sights.of(digest))), None)
        began, digest = seen.since if seen else None, self._choice.digest
        before = (one for one in sights.seen if began and one.since and one.since <= began)
        older = frozenset(one.version for one in before if one.version not in member.known_by)
        found = Followed(self.tag, began, older=older, digest=seen.version if seen else member.known_by[-1])
        if not digest or digest in member.known_by or digest in older:
            return found
        return replace(found, newer=digest, newer_since=self._takeable_since(digest))

    def unasked(self, member: Member) -> Followed | None:
        """What earlier looks saw of the image that a member runs, so that its age is known; nothing that is newer."""
        if not self._concerns(member):
            return None
        sights = self.context.ledger.sights(TAG, self._subject)
        seen = next((one for digest in member.known_by if (one := sights.of(digest))), None)
        return Followed(self.tag, seen.since, digest=seen.version) if seen else None

    def _concerns(self, member: Member) -> bool:
        """Whether a member runs an image of the tag's repository, or one by its id alone, which names none."""
        return one_repository(member.image, self.tag) or bool(BARE_ID.fullmatch(member.image))

    def target(self) -> ReplacementImage:
        """What the tag may be taken at; what it names, with the reason, where nothing of it may be taken yet."""
        choice = self._choice
        digest = choice.digest or choice.newest
        self.require_trusted(digest)
        waits = (
            f"{choice.because} until {choice.until:%Y-%m-%d %H:%M} UTC" if choice.until and not choice.digest else ""
        )
        return ReplacementImage(f"{repository(self.tag)}@{digest}", digest, None, waits, followed=True)

    def require_trusted(self, digest: str) -> None:
        """Raise UntrustedError for an image that is not signed as a rule of the floor or of the fleet's policy says."""
        for policy in dict.fromkeys(("", self.fleet.policy)):
            require_upstream_trusted(self.registry, self.tag, digest, self.now, policy)

    def _takeable_since(self, digest: str) -> datetime:
        """When a digest became old enough; what did not have to wait is taken now."""
        one = self._look.sights.of(digest)
        return one.since + self.cooldown if one and one.since and one.since + self.cooldown <= self.now else self.now

    @cached_property
    def _look(self) -> TagLook:
        """The last look of this run, where it is recent. What is judged as of an earlier moment, as the plan is that
        somebody approved, goes by it too: a look that is dated back would make the ledger forget what was seen since.
        """
        subject, looks = self._subject, self.context.tag_looks
        known = looks.get(subject)
        if known and self.now - known.at < RECENT:
            return known
        try:
            newest = self._asked()
        except OutsideError:
            if known and self.now - known.at < LASTS:
                return known
            raise
        keep = not pretended(self.context.settings)
        sights = self.context.ledger.look_at_tag(subject, [newest], self.now, keep=keep)
        looks[subject] = TagLook(self.now, sights)
        return looks[subject]

    @property
    def _subject(self) -> str:
        return f"followed {qualified(self.tag)}"

    def _asked(self) -> str:
        """The digest that the tag names now: a channel of ours by its document, others by HEAD; where a registry does
        not tell it so, by the manifest.
        """
        documents = ChannelDocuments(self.registry, self.context.ledger, self.now, ("", self.fleet.policy))
        if found := documents.known(self.tag):
            return found.digest
        try:
            return Heads(self.context.settings, self.now).digest(self.tag)
        except MalformedError:
            return self.registry.get(self.tag).digest

    @cached_property
    def _choice(self) -> TagChoice:
        sights = self._look.sights
        young = until(sights.of(sights.newest), self.cooldown, self.now)
        return take(sights, sights.newest, self.cooldown, self.now, self._closes(sights.newest) if young else ())

    def _closes(self, newest: str) -> Sequence[str]:
        """The grave holes that do not wait; asked once in a look, for it may fetch images and an index."""
        known = self._look.closes
        if self.fleet.name not in known:
            known[self.fleet.name] = self._urgent(newest)
        return known[self.fleet.name]

    def _urgent(self, newest: str) -> tuple[str, ...]:
        """The exploited or critical holes of what the fleet was last seen running that the newest image closes."""
        running = self.context.ledger.running_digests()
        old = [
            digest for digest, who in running.items() if any(self.fleet.name == one.partition("/")[0] for one in who)
        ]
        upstream, holes = Upstream(self.context.settings, self.context.store, self.now), KnownHoles(self.context)
        found = set[str]()
        for digest in old:
            try:
                content = upstream.bring(f"{repository(self.tag)}@{digest}")
                found.update(closed_by(self.context, upstream, holes, self.tag, content, newest))
            except GoldsmithError:  # a fix that is not proved waits
                continue
        return tuple(sorted(found))
