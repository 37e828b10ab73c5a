"""The outside of the whole loop: a mirror and feeds that move on, an upstream tag, and a registry; each may be down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from random import Random

from hardening.foundation.errors import MalformedError, OutsideError, SilentError
from hardening.foundation.hashing import digest_of
from hardening.model import Severity
from images.advisories import Advisories, Advisory
from images.artifact import Package, Release
from pipelines.durable.port import FencedError
from tests.simulation.ledger import ViolationError
from tests.simulation.memory import EPOCH, Memory

HOUR, DAY = 3600.0, 86_400.0
PACKAGES = ("libc", "zlib", "nginx", "curl", "openssl")
UPSTREAM = "upstream.example/vendor:1"
BETWEEN_UPDATES, BETWEEN_HOLES, BETWEEN_PUSHES = 4 * DAY, 8 * DAY, 9 * DAY
SEVERITIES = (Severity.LOW, Severity.MEDIUM, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL)
EXPLOITED = 0.25
LATEST_FIX, LATEST_WORD = 6 * DAY, 2 * DAY
OFFERED_FIRST = 0.5


def package(name: str, number: int) -> Package:
    """The package of that name in its version of that number."""
    return Package(name, f"1.{number}-1", "amd64", f"{number:064x}", name)


@dataclass(frozen=True)
class Hole:
    """A vulnerability as feeds tell it."""

    advisory: Advisory
    severity: Severity
    exploited: bool


@dataclass(frozen=True)
class FeedData:
    """What feeds gave at a moment, in seconds."""

    at: float
    holes: dict[str, Hole] = field(default_factory=dict)

    @cached_property
    def advisories(self) -> Advisories:
        """All of it by source package."""
        return Advisories(hole.advisory for hole in self.holes.values())


class Outside:
    """What the machine asks. `down` and `corrupt`: until when a place is; `offered` and `holes` are the truth of now.

    `since`: when each package got its version; `holds`: what each upstream digest has; `withdrawn`: digests that a
    thief pushed, and that were gone within hours.
    """

    def __init__(self, memory: Memory, dice: Random) -> None:
        self.memory = memory
        self.dice = dice
        self.down: dict[str, float] = {}
        self.corrupt: dict[str, float] = {}
        self.offered = dict.fromkeys(PACKAGES, 1)
        self.since = dict.fromkeys(PACKAGES, 0.0)
        self.holes: dict[str, Hole] = {}
        self.answered = FeedData(float("-inf"))
        self.failures = 0
        self.tag = ""
        self.holds: dict[str, Package] = {}
        self.withdrawn: set[str] = set()
        self._push()
        for mean, happen in (
            (BETWEEN_UPDATES, self._update), (BETWEEN_HOLES, self._hole), (BETWEEN_PUSHES, self._push),
        ):  # fmt: skip
            self._now_and_then(mean, happen)

    def ask(self, place: str) -> None:
        """Reach a place. Raises OutsideError while it is down, or answers what is no answer."""
        down, corrupt = (self.memory.time < until.get(place, 0.0) for until in (self.down, self.corrupt))
        self.failures += down or corrupt
        if down:
            raise SilentError(f"{place}: there is no connection")
        if corrupt:
            raise MalformedError(f"{place}: the answer is not what its format says")

    def told(self) -> FeedData:
        """What the feeds give now."""
        self.ask("feeds")
        self.answered = FeedData(self.memory.time, dict(self.holes))
        return self.answered

    def before(self, moment: datetime) -> dict[str, set[str]]:
        """By package the versions that were offered before a moment."""
        at = (moment - EPOCH).total_seconds()
        return {
            name: {f"1.{one}-1" for one in range(number + (self.since[name] < at))}
            for name, number in self.offered.items()
        }

    def poison(self, hours: float) -> None:
        """A thief moves the tag, to an image that seems to fix everything, and is found out."""
        before, bad = self.tag, digest_of(["stolen", self.memory.time])
        self.tag, self.holds[bad] = bad, package("openssl", self.offered["openssl"])
        self.withdrawn.add(bad)

        def back() -> None:
            self.tag = before if self.tag == bad else self.tag

        self.memory.at(hours * HOUR, back)

    def _now_and_then(self, mean: float, happen: Callable[[], None]) -> None:
        def again() -> None:
            happen()
            self._now_and_then(mean, happen)

        self.memory.at(self.dice.expovariate(1 / mean), again)

    def _update(self) -> None:
        self._offer(name := self.dice.choice(PACKAGES), self.offered[name] + 1)

    def _offer(self, name: str, number: int) -> None:
        if number > self.offered[name]:
            self.offered[name], self.since[name] = number, self.memory.time

    def _hole(self) -> None:
        """A hole that has no fix at first; then the mirror has it before the feeds know, or the other way round."""
        name, dice = self.dice.choice(PACKAGES), self.dice
        hole = Hole(
            Advisory(f"CVE-2026-{10_000 + len(self.holes)}", name, "", "open"), dice.choice(SEVERITIES),
            dice.random() < EXPLOITED,
        )  # fmt: skip
        self.holes[hole.advisory.id] = hole
        early, late = sorted((dice.uniform(0, LATEST_FIX), dice.uniform(0, LATEST_WORD)))
        self.memory.at(early, lambda: self._fixed(hole, late, offered_first=dice.random() < OFFERED_FIRST))

    def _fixed(self, hole: Hole, later: float, *, offered_first: bool) -> None:
        name = hole.advisory.source
        number = self.offered[name] + 1
        fixed = Advisory(hole.advisory.id, name, f"1.{number}-1")

        def word() -> None:
            self.holes[fixed.id] = Hole(fixed, hole.severity, hole.exploited)

        first, then = word, lambda: self._offer(name, number)
        if offered_first:
            first, then = then, first
        first()
        self.memory.at(later, then)

    def _push(self) -> None:
        self.tag = digest_of(["upstream", self.memory.time])
        self.holds[self.tag] = package("openssl", self.offered["openssl"])


class Registry:
    """Releases in parts, and channels. `lost` and `deadly`: numbers of the changes that meet that.

    Nothing that a channel names lacks a part: `CONTENT` is pushed first, `PROOF` last.
    """

    PARTS = ("content", "index", "proof")

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self.parts: dict[str, set[str]] = {}
        self.releases: dict[str, Release] = {}
        self.channels: dict[tuple[str, str], str] = {}
        self.lost: set[int] = set()
        self.deadly: set[int] = set()
        self.changes = self.removed = 0
        self.failed_at = float("-inf")
        self.moved: Callable[[Release, str, str], None] = lambda _release, _channel, _left: None
        self.dies: Callable[[], None] = lambda: None

    def push(self, release: Release, part: str) -> None:
        """Push one part of a release; what is there stays."""
        self._change(lambda: self.parts.setdefault(release.digest, set()).add(part))
        self.releases[release.digest] = release

    def pointed(self, name: str, channel: str) -> str:
        """The digest that a channel names; empty where it names none."""
        self.outside.ask("registry")
        return self.channels.get((name, channel), "")

    def move(self, release: Release, channel: str, back: str = "") -> str:
        """Let a channel name a release; where it pointed before."""
        left = self.channels.get((release.name, channel), "")

        def act() -> None:
            if missing := set(self.PARTS) - self.parts.get(release.digest, set()):
                how = f"{channel} of {release.name} names a release without {', '.join(sorted(missing))}"
                raise ViolationError("nothing is published half", how)
            self.channels[release.name, channel] = release.digest
            if left != release.digest:
                self.moved(release, channel, left)

        self._change(act)
        return left

    def remove(self, release: Release) -> None:
        """Take a release away."""
        self._change(lambda: self.parts.pop(release.digest, None))
        self.removed += 1

    def _change(self, act: Callable[[], object]) -> None:
        self.outside.ask("registry")
        self.changes += 1
        act()
        if self.changes in self.deadly | self.lost:
            self.failed_at = self.outside.memory.time
        if self.changes in self.deadly:
            self.dies()
            raise FencedError("its process died in the middle")
        if self.changes in self.lost:
            raise OutsideError("registry: no answer came")
