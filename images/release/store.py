"""The port to where releases stand. A store reads and moves; `images.release` decides what."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hardening.foundation.errors import GoldsmithError
from hardening.foundation.settings import Settings
from images.artifact import Release
from images.ledger import Ledger
from images.release.revocations import Told, revoked

CHANNELS = ("candidate", "stable")
PREVIOUS = "-previous"


@dataclass(frozen=True)
class Retirement:
    """What becomes of one thing as its release ends: the release, or an image of it in a region (`where`)."""

    name: str
    where: str
    action: str
    why: str


class ReleaseStore(ABC):
    """Where the releases of one kind of definition stand. `repository` is a definition's place in it.

    `now` is a flow's one reading of the clock, `actor` whom the audit names.
    """

    @property
    @abstractmethod
    def settings(self) -> Settings:
        """The settings of this machine."""

    ledger: Ledger
    now: datetime
    actor: str

    @abstractmethod
    def repository(self, name: str) -> str:
        """The place of a definition's releases; of no name, what all places begin with."""

    @abstractmethod
    def pointed(self, repository: str, channel: str) -> tuple[str, ...]:
        """The digests of the release that a channel points to, and of its content; empty where there is none."""

    @abstractmethod
    def channel(self, name: str, channel: str) -> Release:
        """The release that a channel points to. Raises ContentError where there is none of ours."""

    @abstractmethod
    def find(self, repository: str, digest: str) -> Release | None:
        """A release as the store shows it, what it knows of a revocation included; None where it is gone."""

    @abstractmethod
    def meant(self, ref: str, known: Collection[str] = ()) -> Release:
        """The release that a person means by `ref`, as `show` takes it or by its digest. Raises ContentError."""

    @abstractmethod
    def require_evidence(self, release: Release, policy: str) -> None:
        """Raise RefusedError unless what was attached to a release at its publication lets it be promoted."""

    @abstractmethod
    def move(self, release: Release, channel: str, back: str) -> None:
        """Let a channel point to a release. Done again, it changes nothing.

        `back` is the digest that a rollback goes to from there; empty for where the channel pointed until now.
        """

    @abstractmethod
    def mark_revoked(self, release: Release, reason: str) -> None:
        """Write onto a release, and into the ledger, that it is revoked."""

    @abstractmethod
    def retire(self, names: Collection[str], *, apply: bool) -> list[Retirement]:
        """Decide over the releases of `names`, and with `apply` carry out what is due."""

    @abstractmethod
    def read_in(self, names: Iterable[str]) -> tuple[tuple[Release, ...], tuple[GoldsmithError, ...]]:
        """Write the releases of `names` into a lost ledger; returns them, and what could not be read."""

    @abstractmethod
    def show(self, ref: str, known: Collection[str]) -> Any:
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

    def note(self, action: str, subject: str, detail: str = "") -> None:
        """Write an audit line."""
        self.ledger.audit(self.now, self.actor, action, subject, detail)
