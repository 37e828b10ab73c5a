"""The ports to fleets: members that we step one by one, groups that a service rolls, and where images come from. Pure.

Each kind of fleet implements MemberFleet (`docker/members.py`, `ec2/instances.py`) and ProvenancePort
(`*/provenance.py`), and the port of `orphans.py`; DelegatedFleet only where a service rolls groups.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from hardening.foundation.errors import OutsideError
from pipelines.fleet.members import Changes, Key, Member, Provenance, Read, ReplacementImage


class GoneError(OutsideError):
    """The old instance is no longer there: retrying is useless."""


class InProgressError(OutsideError):
    """The operation has begun and takes time: repeat it to continue. A new `waits_for` is progress."""

    def __init__(self, waits_for: str) -> None:
        super().__init__(f"waiting for {waits_for}")
        self.waits_for = waits_for


class UnseenError(OutsideError):
    """A service shows nothing of the request: it was never begun, or is not shown yet."""


class MemberFleet(Protocol):
    """What the engine needs of a fleet. An engine that cannot be reached raises OutsideError, never answers "none".

    An effect that has to wait for longer than a moment raises InProgressError, so that a person can stop the rollout
    meanwhile. `rehearses`: a rehearsal's key is understood, and makes an instance without what cannot exist twice.
    """

    rehearses: bool = False

    def describe(self) -> tuple[Member, ...]:
        """Every member that runs now; instances that a rollout has not yet given a member's name are none."""

    def find(self, member: str) -> Member | None:
        """The member with this id, if it runs now."""

    def changes(self, member: Member, target: ReplacementImage) -> Changes:  # noqa: ARG002 - for whoever knows
        """What the replacement changes in a member beside its files; changes nothing."""
        return Changes()

    def prepare(self, target: ReplacementImage, member: str = "") -> None:
        """Fetch the replacement's image: wherever the fleet is, or where the member with this id is."""

    def create(self, key: Key, target: ReplacementImage, expiry: datetime) -> None:
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

    def downtime(self, key: Key) -> timedelta | None:  # noqa: ARG002 - for whoever knows
        """How long neither instance ran, once the new one has started; None where that is not known."""
        return None

    def log(self, key: Key) -> str:
        """The last lines that the new instance printed; empty when it is gone."""


class Progress(StrEnum):
    """The progress of a service's own rolling."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True)
class Group:
    """One group that a service rolls. `id` is `account/region/kind/name`; `desired` its members.

    `cannot_roll` says why the service could not bring it back or may not touch it; empty when it can be rolled. `runs`
    is the exact version that it starts members from. `instead`: what to merge where it is kept, if it cannot roll so.
    `told`: what rolling it changes beside the image, a line for each thing.
    """

    id: str
    name: str
    desired: int
    healthy: int
    cannot_roll: str = ""
    runs: str = ""
    instead: str = ""
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupPin:
    """What a group runs, exactly: a version of the template that it starts members from. A rollback returns to that.

    `version` may be an image by digest, where the template names it by a tag.
    """

    template: str
    version: int | str


@dataclass(frozen=True)
class Pacing:
    """The pace given to a service: percentages of `desired` that stay healthy, and where and how long it pauses."""

    min_healthy_percent: int
    max_healthy_percent: int
    checkpoint_percents: tuple[int, ...]
    checkpoint_delay: timedelta
    warmup: timedelta
    bake: timedelta
    alarms: tuple[str, ...]
    auto_rollback: bool

    @property
    def canary(self) -> Pacing:
        """The canary alone: the service's rolling ends at the first checkpoint, and the bake is ours to watch.

        Without a checkpoint the canary is all of the group, and the service bakes it as it would without approval.
        """
        if not self.checkpoint_percents:
            return self
        return replace(
            self, checkpoint_percents=self.checkpoint_percents[:1], checkpoint_delay=timedelta(), bake=timedelta()
        )

    @property
    def rest(self) -> Pacing:
        """All that the canary has left."""
        return replace(self, checkpoint_percents=(), checkpoint_delay=timedelta())


@dataclass(frozen=True)
class Watched:
    """One look at a service's own rolling: `percent` done, and the service's own message.

    `stuck`: something is in the way of its going back, which `roll_back` takes away when it is asked for again.
    """

    progress: Progress
    percent: int = 0
    text: str = ""
    since: datetime | None = None
    stuck: bool = False


class DelegatedFleet(Protocol):
    """What a rollout needs of a fleet that a service rolls. A service that cannot be reached raises OutsideError."""

    def groups(self) -> tuple[Group, ...]:
        """Every group of the fleet."""

    def pace(self, group: Group, allowed: int) -> Pacing:
        """The pace at which the fleet's limits let the service roll the group, `allowed` members at once. Raises
        RefusedError where the service has no words for the limits.
        """

    def pin(self, group: Group) -> GroupPin:
        """What the group runs now. Changes nothing."""

    def begin(self, rollout: str, group: Group, target: ReplacementImage, pinned: GroupPin, pacing: Pacing) -> None:
        """Ask the service to roll the group to `target`; a repeated call finds the first. Raises RefusedError where the
        group has left what was pinned.
        """

    def hold(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """Let whatever the group starts from now on run what was pinned: its canary is done, its rest is not begun."""

    def watch(self, rollout: str, group: Group) -> Watched:
        """One look. Raises UnseenError where nothing of it is shown, and the group starts members from what it ran."""

    def cancel(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """Ask the service to stop where it is, or to go back to what was pinned where it cannot stop; returns when that
        is accepted.
        """

    def way_back(self, rollout: str, group: Group, pinned: GroupPin) -> str:
        """Why the group cannot go back to what was pinned: that is gone, or it runs somebody else's. Empty: it can."""

    def roll_back(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """Ask the service to bring the group back to what was pinned; returns when the request is accepted. Raises
        RefusedError where there is no way back.
        """


class ProvenancePort(Protocol):
    """Answers for one judging of one fleet. No answer is an error, never "unknown"."""

    def of(self, member: Member) -> Provenance:
        """What is known of the image that `member` runs."""

    def unasked(self, member: Member) -> Provenance:  # noqa: ARG002 - for whoever knows
        """What is known of it without asking anybody, where `of` got no answer."""
        return Provenance()

    def target(self) -> ReplacementImage:
        """What the fleet's members become, pinned. Raises ContentError where there is no such thing."""

    def again(self, target: ReplacementImage) -> ReplacementImage:
        """The same pinned replacement, as it is judged now."""
