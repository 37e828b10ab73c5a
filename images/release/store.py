"""The port to where releases stand. A store reads and moves; `images.release` decides what."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict

from hardening.foundation.errors import GoldsmithError
from hardening.foundation.settings import Settings
from images.artifact import Artifact, Release
from images.documents import Document
from images.ledger import Ledger
from images.release.lifecycle import Status, status
from images.release.revocations import Told, revoked

if TYPE_CHECKING:
    from images.scan.judge import Judgement

CHANNELS = ("candidate", "stable")
PREVIOUS = "-previous"


@dataclass(frozen=True)
class Retirement:
    """What becomes of a `release` as it ends, or of one image of it, which `release` then names by region and id."""

    name: str
    release: str
    action: str
    why: str


class ShownRelease(BaseModel):
    """What every store shows of a release, whatever it is of."""

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


class ReleaseStore(Protocol):
    """Where the releases of one kind of definition stand. `repository` is a definition's place in it.

    `now` is a flow's one reading of the clock, `actor` whom the audit names.
    """

    @property
    def settings(self) -> Settings:
        """The settings of this machine."""

    ledger: Ledger
    now: datetime
    actor: str

    def repository(self, name: str) -> str:
        """The place of a definition's releases; of no name, what all places begin with."""

    def pointed(self, repository: str, channel: str) -> tuple[str, ...]:
        """The digests of the release that a channel points to, and of its content; empty where there is none."""

    def channel(self, name: str, channel: str) -> Release:
        """The release that a channel points to. Raises ContentError where there is none of ours."""

    def find(self, repository: str, digest: str) -> Release | None:
        """A release as the store shows it, what it knows of a revocation included; None where it is gone."""

    def meant(self, ref: str, known: Collection[str] = ()) -> Release:
        """The release that a person means by `ref`, as `show` takes it or by its digest. Raises ContentError."""

    def publishing(self, name: str) -> AbstractContextManager[object]:
        """Hold what a publication needs. All that can be known to fail is asked for first."""
        return nullcontext(name)

    def annotations(self, repository: str, artifact: Artifact) -> Mapping[str, str]:
        """The annotations of an artifact's content."""

    def digest(self, draft: Release, artifact: Artifact) -> str:
        """The digest that a release will have."""

    def over(self, draft: Release) -> Iterable[Release]:
        """The releases over a draft's content that stand already."""
        return self.ledger.releases_of_content(draft.content)

    def complete(self, chosen: Release, artifact: Artifact, judgement: Judgement, said: tuple[Document, ...]) -> None:
        """Make what a release lacks, and point `candidate` to it last; `said` is what was said on its day."""

    def put_away(self, begun: Release, draft: Release) -> None:
        """Remove what a publication made that is not worth going on with: `draft` takes its place."""

    def require_evidence(self, release: Release, policy: str) -> None:
        """Raise RefusedError unless what was attached to a release at its publication lets it be promoted."""

    def move(self, release: Release, channel: str, back: str) -> None:
        """Let a channel point to a release. Done again, it changes nothing.

        `back` is the digest that a rollback goes to from there; empty for where the channel pointed until now.
        """

    def mark_revoked(self, release: Release, reason: str) -> None:
        """Write onto a release, and into the ledger, that it is revoked."""

    def retire(self, names: Collection[str], *, apply: bool) -> list[Retirement]:
        """Decide over the releases of `names`, and with `apply` carry out what is due."""

    def read_in(self, names: Iterable[str]) -> tuple[tuple[Release, ...], tuple[GoldsmithError, ...]]:
        """Write the releases of `names` into a lost ledger; returns them, and what could not be read."""

    def show(self, ref: str, known: Collection[str]) -> ShownRelease:
        """All that the store says of `ref`. Raises ContentError with the nearest of the `known` names."""

    @property
    def prefix(self) -> str:
        """Our own annotations' and tags' prefix."""
        return self.settings.annotation_prefix

    def revocation(self, repository: str, digest: str) -> Told | None:  # noqa: ARG002 - the port's names
        """When and why something here was revoked, where the store can be asked by its digest."""
        return None

    def revoked(self, release: Release) -> Release:
        """The release, revoked where ledger or store say so of it or of what it stands on. Raises OutsideError."""
        return revoked(self.ledger, release, self.revocation)

    def refuse_taken(self, chosen: Release) -> None:  # noqa: ARG002 - by default none can
        """Raise RefusedError where a stranger has the place of a release; nobody can where a digest is the name."""
        return

    def record(self, release: Release) -> None:
        """Write the ledger's line of a release; what it already knows stands."""
        if self.ledger.release(release.digest) is None:
            self.ledger.record_release(release)
            self.note("publish", f"{release.repository}@{release.digest}", f"expires {release.expires_at:%Y-%m-%d}")

    def note(self, action: str, subject: str, detail: str = "") -> None:
        """Write an audit line."""
        self.ledger.audit(self.now, self.actor, action, subject, detail)
