"""What becomes of an image as its end comes and goes: warned, deprecated, disabled, removed. Pure.

Each action waits for its grace. To be disabled or removed, nothing may name the image any more: whatever does holds it
back, and is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from images.aws.model import Ami

SHOWN = 3
ON_ITS_WAY = timedelta(minutes=5)  # deprecation is asked for a little ahead, since the past is refused


class RetirementAction(StrEnum):
    """What is done to an image."""

    KEEP = "keep"
    WARN = "warn"
    DEPRECATE = "deprecate"
    DISABLE = "disable"
    REMOVE = "remove"


KEEP, WARN, DEPRECATE, DISABLE, REMOVE = RetirementAction


@dataclass(frozen=True)
class Grace:
    """How long an image stays deprecated, and then disabled, before the next action."""

    disable_after: timedelta
    deregister_after: timedelta


@dataclass(frozen=True)
class RetirementDecision:
    """What becomes of one image, and why. `held` where an action would be due, and something holds it back."""

    ami: Ami
    action: RetirementAction
    why: str
    held: bool = False


def decide(
    ami: Ami, users: Sequence[str], grace: Grace, now: datetime, *, disabled_at: datetime | None, unseen: Sequence[str]
) -> RetirementDecision:
    """The action that is due for an image of ours.

    `users` is what names it; `disabled_at` when we disabled it; `unseen` whom it is shared with and where nobody could
    look: a launch there within the grace holds it back too.
    """
    release = ami.release
    if release is None:
        return RetirementDecision(ami, KEEP, "its tags do not tell when it ends")
    end, because = release.expires_at, f"expired on {release.expires_at:%Y-%m-%d}"
    if release.revoked_at:
        end, because = release.revoked_at, f"revoked on {release.revoked_at:%Y-%m-%d}: {release.revoked_reason}"
    if ami.state == "disabled" and disabled_at:
        return _when_due(ami, REMOVE, disabled_at + grace.deregister_after,
                         f"disabled on {disabled_at:%Y-%m-%d}", users, now, grace.deregister_after, unseen)  # fmt: skip
    if now >= end and ami.state != "disabled" and (ami.deprecated_at is None or ami.deprecated_at > now + ON_ITS_WAY):
        return RetirementDecision(ami, DEPRECATE, because + _used(users))
    if now >= end:
        return _when_due(ami, DISABLE, end + grace.disable_after, because, users, now, grace.disable_after, unseen)
    if now >= release.warn_at:
        return RetirementDecision(ami, WARN, f"expires on {end:%Y-%m-%d}{_used(users)}")
    return RetirementDecision(ami, KEEP, f"expires on {end:%Y-%m-%d}")


def unread(ami: Ami, why: str) -> RetirementDecision:
    """What becomes of an image where a region could not be read: nothing."""
    return RetirementDecision(ami, KEEP, f"held back: {ami.region} cannot be read: {why}", held=True)


def _when_due(
    ami: Ami, action: RetirementAction, due: datetime, because: str, users: Sequence[str], now: datetime,
    grace: timedelta, unseen: Sequence[str],
) -> RetirementDecision:  # fmt: skip
    """`action`, unless its day has not come, or something holds the image."""
    verb = {DISABLE: "disabled", REMOVE: "removed"}[action]
    if now < due:
        return RetirementDecision(ami, KEEP, f"{because}; to be {verb} from {due:%Y-%m-%d}{_used(users)}")
    if users:
        return RetirementDecision(ami, KEEP, f"{because}; not {verb}: {_named(users)}", held=True)
    if unseen and ami.launched_at and ami.launched_at + grace > now:
        where = f"launched on {ami.launched_at:%Y-%m-%d}, perhaps by {unseen[0]}, where nobody could look"
        return RetirementDecision(ami, KEEP, f"{because}; not {verb}: {where}", held=True)
    return RetirementDecision(ami, action, because)


def _used(users: Sequence[str]) -> str:
    return f"; {_named(users)}" if users else ""


def _named(users: Sequence[str]) -> str:
    more = f" and {len(users) - SHOWN} more" if len(users) > SHOWN else ""
    return f"{', '.join(users[:SHOWN])}{more} {'still name it' if len(users) > 1 else 'still names it'}"
