"""The ports to the stores of releases. A store reads and moves, a publication writes; `images.release` decides what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict

from hardening.findings import Verdict
from hardening.foundation.errors import GoldsmithError
from hardening.foundation.settings import Settings
from images.artifact import Artifact, Release
from images.ledger import Begun, Ledger
from images.release.lifecycle import Status, status
from images.release.retention import DONE, RetirementDecision
from images.release.revocations import Ask, revoked

if TYPE_CHECKING:  # only what publishes needs the scanners
    from images.scan.judge import Judgement

CHANNELS = ("candidate", "stable")
PREVIOUS = "-previous"


@dataclass(frozen=True)
class Retirement:
    """What happens to a `release` when it ends, or to one image of it, which `release` then names by region and id."""

    name: str
    release: str
    action: str
    why: str

    @classmethod
    def of(cls, name: str, release: str, decision: RetirementDecision[Any], *, apply: bool) -> Retirement:
        """The line of a decision, once it is carried out or before."""
        action = DONE.get(decision.action, decision.action) if apply else decision.action
        return cls(name, release, str(action), decision.why)


class ShownRelease(BaseModel):
    """What every store shows of a release, container or machine."""

    model_config = ConfigDict(frozen=True)

    ref: str
    name: str
    repository: str
    digest: str
    content: str
    status: Status
    published_at: datetime
    warn_at: datetime
    expires_at: datetime
    days_left: int
    revoked_at: datetime | None
    revoked_reason: str
    base_name: str
    base_digest: str
    profile: str
    policy: str
    input_digest: str


def as_shown(release: Release, ref: str, now: datetime) -> dict[str, Any]:
    """The values of a `ShownRelease`."""
    said = {field: getattr(release, field) for field in ShownRelease.model_fields if hasattr(release, field)}
    return {**said, "ref": ref, "status": status(release, now), "days_left": (release.expires_at - now).days}


class Publication(Protocol):
    """Writes a new release. Each step finds out whether it is already done, so the next run continues a killed one."""

    def with_digests(self, draft: Release, artifact: Artifact) -> Release:
        """The draft with its base's digest, and with the one that it will have itself."""

    def over(self, draft: Release) -> Iterable[Release]:
        """The releases over a draft's content that stand already."""

    def proves(self, known: Release, now: datetime) -> bool:
        """Whether a release that stands carries all that proves it."""

    def whole(self, known: Release) -> bool:
        """Whether all is there that making a release that stands would leave, but for what proves it."""

    def due(self) -> str:
        """What making a release that stands would mend of others, in words, by the ledger alone; empty: nothing."""
        return ""

    def refuse_taken(self, chosen: Release) -> None:
        """Raise an error where something else has the name that a release would get."""

    def make(self, begun: Begun, artifact: Artifact, judgement: Judgement) -> None:
        """Make what a release lacks, with the documents of its day; no channel points to it yet."""

    def settle(self, chosen: Release) -> None:
        """Finish a release that the ledger knows by now: it is there for good."""

    def put_away(self, begun: Release, draft: Release) -> None:
        """Remove what was made of a release that the ledger does not know: `draft` takes its place."""


class ReleaseStore(Protocol):
    """The store of the releases of one kind of definition.

    `now` is a flow's one reading of the clock, `actor` whom the audit names.
    """

    ledger: Ledger
    now: datetime
    actor: str

    @property
    def settings(self) -> Settings:
        """The settings of this machine."""

    @property
    def place(self) -> str:
        """What the repositories of all definitions begin with."""

    @property
    def revocation(self) -> Ask | None:
        """What tells of revocations besides the ledger, where a store can be asked by a digest."""

    def pointed(self, repository: str, channel: str) -> tuple[str, ...]:
        """The digests of the release that a channel points to, and of its content; empty where there is none.

        Raises UnreadChannelsError where no signed document of today says so.
        """

    def pointing(self, repository: str, channels: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """`pointed` of several channels."""
        return {channel: self.pointed(repository, channel) for channel in channels}

    def tagged(self, repository: str, channel: str) -> str:
        """The digest of the release that a channel's tag or parameter names, whoever wrote that; empty for none."""

    def sign(self, repository: str, *, recover: bool = False) -> tuple[str, ...]:
        """Sign the channels of a repository again, and put their tags right; what they point to, in words.

        To `recover` from a ledger and a document that tell nothing, an expired document counts, or the tags.
        """

    def find(self, repository: str, digest: str) -> Release | None:
        """A release as the store shows it, what it knows of a revocation included; None where it is gone."""

    def meant(self, ref: str) -> Release:
        """The release that `ref` means: `name:channel`, a digest, or as `show` takes it. Raises ContentError."""

    def evidence(self, release: Release, policy: str = "") -> Verdict:
        """The verdict that a release carries since its publication, by the trust of the floor and of `policy`.

        Raises RefusedError where it carries none.
        """

    def moving(self, repository: str) -> AbstractContextManager[None]:
        """Let no other process of this installation move the channels of a repository meanwhile."""

    def move(self, release: Release, channel: str, back: str) -> str:
        """Let a channel point to a release; the digest that it pointed to. Done again, it changes nothing.

        Must be called within `moving`.

        `back` is the digest that a rollback goes to from there; empty for where the channel pointed until now.
        """

    def unmoved(self, release: Release) -> str:  # noqa: ARG002 - for a store of several places
        """Where a release is not, so that no channel can point to it there, in words; empty where it is everywhere."""
        return ""

    def mark_revoked(self, release: Release, reason: str) -> None:
        """Write onto a release, and into the ledger, that it is revoked."""

    def publication(self) -> Publication:
        """What writes a new release. All that can be known to fail is asked for first."""

    def retire(self, *, apply: bool) -> list[Retirement]:
        """Decide over the releases that stand here, and with `apply` carry out what is due."""

    def read_in(self) -> tuple[tuple[Release, ...], tuple[GoldsmithError, ...]]:
        """Write the releases that stand here into a lost ledger; returns them, and what could not be read."""

    def show(self, ref: str) -> ShownRelease:
        """All that the store says of `ref`. Raises ContentError with the nearest name."""

    def repository(self, name: str) -> str:
        """The place of a definition's releases."""
        return f"{self.place}{name}"

    @property
    def prefix(self) -> str:
        """Our own annotations' and tags' prefix."""
        return self.settings.annotation_prefix

    def revoked(self, release: Release) -> Release:
        """The release, revoked where ledger or store say so of it or of what it stands on. Raises OutsideError, and
        UnreadChannelsError.
        """
        return revoked(self.ledger, release, self.revocation)

    def note(self, action: str, subject: str, detail: str = "") -> None:
        """Write an audit line."""
        self.ledger.audit(self.now, self.actor, action, subject, detail)
