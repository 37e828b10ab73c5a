"""What tests of ECS and EKS fleets share: a cluster whose clock follows the engine's, and one group that is rolled."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from pipelines.fleet.members import ReplacementImage
from pipelines.fleet.port import DelegatedFleet, Group, GroupPin, Progress, Watched
from tests.strict_aws import StrictAws
from tests.support.fleets import target


class Following:
    """A port before each call of which the emulator's clock catches up with the engine's."""

    def __init__(self, port: DelegatedFleet, catch_up: Callable[[], None]) -> None:
        self._port, self._catch_up = port, catch_up

    def __getattr__(self, name: str) -> Any:
        self._catch_up()
        return getattr(self._port, name)


class FollowedCluster:
    """A cluster with a group of `size` members under the port. `looks`: how many its end may take."""

    aws: StrictAws
    port: Any
    rollout: str
    size: int
    looks: int
    seconds: Callable[[], float] = staticmethod(lambda: 0.0)
    passed = 0.0

    def answer(self) -> dict[str, Any]:
        """Any answer of the emulator."""
        raise NotImplementedError

    def now(self) -> datetime:
        """The emulator's time."""
        return parsedate_to_datetime(self.answer()["ResponseMetadata"]["HTTPHeaders"]["date"])

    def follow(self, seconds: Callable[[], float]) -> None:
        """Let the emulator's clock go by the engine's."""
        self.seconds, self.passed = seconds, seconds()

    def catch_up(self) -> None:
        """Move the emulator's clock to where the engine's is."""
        if (now := self.seconds()) > self.passed:
            self.aws.advance(now - self.passed)
            self.passed = now

    @property
    def target(self) -> ReplacementImage:
        return target()

    @cached_property
    def group(self) -> Group:
        """The group as it was first read: a rollout holds the one of its plan too."""
        (found,) = self.port.groups()
        return found

    def begin(self, pinned: GroupPin | None = None, rollout: str = "") -> GroupPin:
        pinned = pinned or self.port.pin(self.group)
        self.port.begin(rollout or self.rollout, self.group, self.target, pinned, self.port.pace(self.group, self.size))
        return pinned

    def watch(self, rollout: str = "") -> Watched:
        return self.port.watch(rollout or self.rollout, self.group)

    def until(self, *wanted: Progress, rollout: str = "") -> Watched:
        """What AWS comes to."""
        for _ in range(self.looks):
            seen = self.watch(rollout)
            if seen.progress in wanted:
                return seen
            self.aws.advance(5)
        raise AssertionError(seen)
