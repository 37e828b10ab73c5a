"""What is to happen later, as the emulator's clock goes on: states that change of themselves, and what ails."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

# What takes a while, in seconds; tests set others with `takes`.
TAKES = {
    "launch": 0.05,  # pending → running
    "stop": 0.05,  # stopping → stopped
    "terminate": 0.05,  # shutting-down → terminated
    "vanish": 3600,  # terminated → not shown any more
    "check": 0.05,  # running → status checks know
    "attach": 0.05,  # attaching → attached
    "detach": 0.05,  # detaching → detached
    "root": 0.05,  # each step of replacing a root volume
    "target": 0.05,  # registered → first health check passed
    "refresh": 0.05,  # an instance refresh is Pending
    "task": 0.05,  # an ECS task is pending
    "deadline": 3600,  # an instance refresh waits for health, protection and standby no longer
}
AILMENTS = {
    "launch": "the instance ends while it is pending",
    "status": "the instance status check is impaired",
    "system": "the system status check is impaired",
    "target": "the target is unhealthy in its target groups",
    "root": "replacing the root volume with it fails",
    "task": "an ECS task with a container of that image ends",
    "task-health": "such a task is unhealthy",
    "root-detached": "replacing the root volume with it fails, and leaves the instance without one",
}


class Timeline:
    """Events in the order of their time; `moment` is the time of the one that happens now."""

    def __init__(self) -> None:
        self.moment: datetime | None = None
        self.watchers: list[Callable[[], None]] = []  # look at the world whenever somebody calls
        self._due: list[tuple[datetime, int, Callable[[], None]]] = []
        self._number = itertools.count()

    def at(self, when: datetime, act: Callable[[], None]) -> None:
        """Let `act` happen at `when`."""
        heapq.heappush(self._due, (when, next(self._number), act))

    def settle(self, now: datetime) -> None:
        """Let everything happen that is due until `now`."""
        while self._due and self._due[0][0] <= now:
            self.moment, _, act = heapq.heappop(self._due)
            try:
                act()
            finally:
                self.moment = None
        for watch in list(self.watchers):
            watch()


@dataclass
class Ailments:
    """What goes wrong with instances by their id or their image's, from so many seconds after they began on."""

    _after: dict[tuple[str, str], timedelta] = field(default_factory=dict)

    def add(self, name: str, kinds: list[str], after: float) -> None:
        """Raises KeyError for a kind that is not one of AILMENTS."""
        for kind in kinds:
            AILMENTS[kind]
            self._after[name, kind] = timedelta(seconds=after)

    def drop(self, name: str) -> None:
        """All is well with it again."""
        self._after = {key: after for key, after in self._after.items() if key[0] != name}

    def later(self, kind: str, names: list[str], since: datetime) -> list[datetime]:
        """When things of these names that began at `since` begin to ail so, of those that do not at once."""
        found = (self._after[name, kind] for name in names if (name, kind) in self._after)
        return [since + after for after in found if after]

    def strike(self, kind: str, names: list[str], since: datetime, now: datetime) -> bool:
        """Whether one of `names` ails so at `now`, having begun at `since`."""
        return any((name, kind) in self._after and now >= since + self._after[name, kind] for name in names)
