"""Whether this machine's clock jumped since its last night: nights date, soak and expire by it. Edge."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import JSON_BYTES, parse_json, read_all
from hardening.foundation.timing import SINCE_BOOT
from images.packages.index import write_atomically
from images.plan.cooldown import SKEW

BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Reading:
    """The time on the clock, the boot of the machine, and how many seconds that had lasted, sleep included."""

    shown: str
    boot: str
    up: float

    @property
    def at(self) -> datetime:
        """The moment that the clock showed, aware UTC."""
        return datetime.fromisoformat(self.shown)


def jump_since_last(state: Path) -> str:
    """Compare the clock with the last call in this state directory, and keep it for the next one: as `jump`."""
    file = state / "clock.json"
    now = Reading(datetime.now(UTC).isoformat(), _boot(), time.clock_gettime(SINCE_BOOT))
    try:
        with file.open("rb") as stream:
            before = Reading(**parse_json(read_all(stream, JSON_BYTES, file.name), file.name))
        found = jump(before, now)
    except (OSError, OutsideError, ValueError, TypeError, OverflowError):  # none yet, or not ours
        found = ""
    write_atomically(file, json.dumps(asdict(now)))
    return found


def _boot() -> str:
    """The id of this boot; empty where the system tells none."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""


def jump(before: Reading, now: Reading) -> str:
    """Say that the clock jumped, with what it shows and what it should; empty where it did not.

    Over a reboot, or where boots have no id, nothing tells how much time passed: only a clock that went back is seen.
    """
    one_boot = now.boot and now.boot == before.boot
    passed = timedelta(seconds=now.up - before.up) if one_boot else max(now.at - before.at, timedelta())
    due = before.at + passed
    if abs(now.at - due) <= SKEW:
        return ""
    return (
        f"this machine's clock jumped: it shows {now.at:%Y-%m-%d %H:%M} UTC, and by the last night and the time since "
        f"it is {due:%Y-%m-%d %H:%M} UTC; what soaks, ends or is dated tonight goes by the clock"
    )
