"""The port to fleets whose members we step one by one. Every effect is idempotent: its Key finds what it has done."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from hardening.foundation.errors import OutsideError
from pipelines.fleet.members import Key, Member, Read, Target


class GoneError(OutsideError):
    """The old instance is no longer there: trying again helps nobody."""


class UnderwayError(OutsideError):
    """What was asked for has begun and takes its time: asked again, it goes on where it is."""


class MemberFleet(Protocol):
    """What the engine needs of a fleet. An engine that cannot be reached raises OutsideError, never answers "none".

    An effect that has to wait for longer than a moment raises UnderwayError, so that a person can stop the rollout
    meanwhile.
    """

    def describe(self) -> tuple[Member, ...]:
        """Every member that runs now; instances that a rollout has not yet given a member's name are none."""

    def find(self, member: str) -> Member | None:
        """The member with this id, if it runs now."""

    def prepare(self, target: Target) -> None:
        """Fetch the replacement's image."""

    def create(self, key: Key, target: Target, expiry: datetime) -> None:
        """Make the new instance, not started, with all that makes the member that member. Raises GoneError."""

    def start(self, key: Key) -> None:
        """Start the new instance."""

    def read(self, key: Key) -> Read:
        """One look at the new instance's health."""

    def read_old(self, key: Key) -> Read:
        """One look at the old instance's health."""

    def expose(self, key: Key) -> None:
        """Let the new instance be found under the member's names, beside the old one. Raises GoneError."""

    def retire(self, key: Key, drain: timedelta) -> None:
        """Stop the old instance, which has `drain` to finish what it has begun, and keep it; gone is stopped, too.

        Asked again, it is given what is left of `drain`.
        """

    def swap(self, key: Key) -> None:
        """The old instance's name goes to the new one."""

    def remove_old(self, key: Key) -> None:
        """Remove the old instance for good."""

    def revive(self, key: Key) -> None:
        """The old instance runs under its name again. Raises GoneError, and then has done nothing."""

    def discard(self, key: Key) -> None:
        """Remove the new instance and all that was made for it."""

    def differences(self, key: Key) -> tuple[str, ...]:
        """What differs between old and new beyond the image; asked while both exist."""

    def log(self, key: Key) -> str:
        """The last lines that the new instance printed; empty when it is gone."""
