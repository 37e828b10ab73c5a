"""When `serve` starts work, and which run covers all that waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar
from zoneinfo import ZoneInfo

from hardening.foundation.errors import ContentError
from hardening.foundation.settings import Serve
from images.ledger import Trigger
from pipelines.fleet.calendar import Cron, cron

T = TypeVar("T")
MISSED = timedelta(days=8)
"""How long ago a moment may be that is made up for; of several, only the last is."""


class TriggerKind(StrEnum):
    """What starts work."""

    NIGHT = "night"
    URGENT = "urgent"
    WEBHOOK = "webhook"


@dataclass(frozen=True)
class Schedule:
    """The moments of each kind, in a time zone."""

    moments: dict[TriggerKind, Cron]
    zone: ZoneInfo

    @classmethod
    def of(cls, serve: Serve) -> Schedule:
        """The schedule of the settings. Raises ContentError with the key for what is no schedule, or no zone."""
        zone = _read("zone", serve.zone, ZoneInfo)
        texts = {TriggerKind.NIGHT: ("nightly", serve.nightly), TriggerKind.URGENT: ("urgent", serve.urgent)}
        return cls({kind: _read(key, text, cron) for kind, (key, text) in texts.items() if text}, zone)

    def due(self, now: datetime) -> Iterator[Trigger]:
        """The last moment of each kind that has come; its id is always the same, so that it is served once."""
        for kind, moments in self.moments.items():
            if at := moments.last(self.zone, now, MISSED):
                yield Trigger(f"{kind} {at.isoformat()}", kind, at)


def _read(key: str, text: str, read: Callable[[str], T]) -> T:
    try:
        return read(text)
    except (ValueError, OSError, KeyError, RecursionError) as error:  # KeyError: no such zone
        raise ContentError(str(error.args[0]), file="the settings", key=f"serve.{key}") from None


def command(waiting: Iterable[Trigger], policy: str = "") -> list[str]:
    """The task that serves all that waits; empty where nothing does. A whole night does what is urgent too. `policy`
    judges in the place of the definitions' own.

    A webhook asks for one: what was pushed, such as a newer base, need not be urgent.
    """
    kinds = {trigger.kind for trigger in waiting}
    by = ["--policy", policy] if policy else []
    if kinds & {TriggerKind.NIGHT, TriggerKind.WEBHOOK}:
        return ["nightly", *by]
    return ["nightly", "--only-urgent", *by] if kinds else []
