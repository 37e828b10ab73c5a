"""A process that rolls a fleet of files through the real lease, lock and engine; to be suspended by tests.

It executes the one rollout of the fleet in a folder to its end. Its clock may be some hours ahead. What it does waits
until `well` exists in the folder: until then no new instance is healthy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hardening.foundation.errors import GoldsmithError
from hardening.foundation.settings import Settings
from images.context import Context
from pipelines.fleet.members import Key, Member, Read, ReplacementImage, Seen
from pipelines.fleet.port import MemberFleet
from pipelines.rollout import lease, service
from pipelines.rollout.plan import plan
from pipelines.rollout.session import FleetSession
from pipelines.rollout.state import Order
from tests.support.fleets import NOW, fleet, judged, target
from tests.support.rolling import Unchanged

FLEET = fleet(bake_time="0s", min_healthy_time="1s", settle="0s", drain="0s")
NAMES = ("web-1", "web-2")
ROLLOUT = "r1"
CLOCKED = (
    "images.ledger.fleets",
    *(f"pipelines.rollout.{name}" for name in ("service", "lease", "rollout_store")),
)


class FileFleet(MemberFleet):
    """Members in a file that several processes share; each effect is a line of another one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "members.json"

    def lay_out(self) -> None:
        """The members before the rollout."""
        ours = (judged(name).member for name in NAMES)
        self._file.write_text(json.dumps({one.id: {one.handle: one.name} for one in ours}))

    @property
    def images(self) -> dict[str, str]:
        """Which instance has each name."""
        boxes = [box for boxes in json.loads(self._file.read_text()).values() for box in boxes.items()]
        return {name: handle for handle, name in boxes}

    @property
    def effects(self) -> list[str]:
        """What was done, in order."""
        file = self.folder / "effects"
        return file.read_text().splitlines() if file.exists() else []

    def is_unlocked(self) -> bool:
        """Whether no process is in the middle of an effect, such as one that is suspended."""
        try:
            with FileLock(self.folder / "lock", timeout=0):
                return True
        except Timeout:
            return False

    @contextmanager
    def _changed(self, effect: str, key: Key) -> Iterator[dict[str, str]]:
        with FileLock(self.folder / "lock"):
            members = json.loads(self._file.read_text())
            before = json.dumps(members)
            yield members[key.member]
            if json.dumps(members) != before:
                self._file.write_text(json.dumps(members))
                with (self.folder / "effects").open("a") as sink:
                    sink.write(f"{effect} {key.name}\n")

    def describe(self) -> tuple[Member, ...]:
        return tuple(judged(name).member for name in NAMES)

    def find(self, member: str) -> Member | None:
        return next((one for one in self.describe() if one.id == member), None)

    def prepare(self, target: ReplacementImage, member: str = "") -> None:
        return None

    def create(self, key: Key, target: ReplacementImage, expiry: datetime) -> None:
        with self._changed("create", key) as boxes:
            boxes.setdefault(f"new-{key.name}", key.new_name)

    def start(self, key: Key) -> None:
        return None

    def read(self, key: Key) -> Read:
        well = (self.folder / "well").exists()
        return Read(well, "answers" if well else "is not up yet")

    def read_old(self, key: Key) -> Read:
        return Read(True, "answers")

    def expose(self, key: Key) -> None:
        return None

    def retire(self, key: Key, drain: timedelta) -> None:
        return None

    def swap(self, key: Key) -> None:
        with self._changed("swap", key) as boxes:
            boxes.update({key.old: key.old_name} if key.old in boxes else {})
            boxes[f"new-{key.name}"] = key.name

    def remove_old(self, key: Key) -> None:
        with self._changed("remove", key) as boxes:
            boxes.pop(key.old, None)

    def revive(self, key: Key) -> None:
        raise AssertionError("nothing goes back here")

    def discard(self, key: Key) -> None:
        raise AssertionError("nothing goes back here")

    def differences(self, key: Key) -> tuple[str, ...]:
        return ()

    def log(self, key: Key) -> str:
        return ""


class UnchangedSession(Unchanged, FleetSession):
    """A fleet of which nothing has changed since it was planned."""


def desk_on(context: Context, folder: Path) -> FleetSession:
    """The fleet of files, to be rolled."""
    members = FileFleet(folder)
    return UnchangedSession(FLEET, context, members, lambda: NOW, "", no_look, lambda: Seen(members.describe()))


def no_look(*_: Any) -> Any:
    raise AssertionError("nothing is judged here")


def order() -> Order:
    """The rollout of both members, one after the other."""
    made = plan(FLEET, [judged(name, "expired") for name in NAMES], target(29), NOW)
    return Order(ROLLOUT, made, FLEET.limits)


class Ahead(datetime):
    """A clock that is wrong."""

    hours = 0

    @classmethod
    def now(cls, tz: Any = None) -> Ahead:
        return super().now(tz) + timedelta(hours=cls.hours)


def set_clock_ahead(hours: int) -> None:
    """Everything of ours that has to do with leases reads a wrong clock."""
    Ahead.hours = hours
    for name in CLOCKED:
        if hasattr(module := import_module(name), "datetime"):
            module.datetime = Ahead  # type: ignore[attr-defined]


def carry(database: str, folder: Path, hours: int = 0) -> None:
    """Carry the rollout and leave with Goldsmith's exit code; for a process of its own."""
    if hours:
        set_clock_ahead(hours)
    lease.RENEW_SECONDS = 2.0
    context = Context(Settings(state=folder, database=database), datetime.now(UTC), str, str)
    try:
        outcome = service.execute(desk_on(context, folder), order())
    except GoldsmithError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    sys.exit(3 if outcome.state.failure else 0)
