"""The page as `serve` shows it: made again when the state changes, and pushed to its viewers. Edge."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

AGES_SECONDS = 600  # the page is made again after so long, whatever happened: what it says of ages and dates moves
LOOK_SECONDS = 2  # how often the ledger is asked at most, however many look


@dataclass(frozen=True)
class ShownPage:
    """The page as HTML, and the stamp of the state that it shows."""

    html: str
    stamp: str


class KeptAnswer:
    """What `ask` answers, worked out by one at a time and kept for some seconds: whoever can reach us may ask."""

    def __init__(self, ask: Callable[[], str], seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._seconds, self._clock = ask, seconds, clock
        self._alone, self._answer, self._until = threading.Lock(), "", float("-inf")

    def __call__(self) -> str:
        """The answer of now. Raises what `ask` raises; that is not kept."""
        with self._alone:
            if self._clock() >= self._until:
                self._answer = self._ask()
                self._until = self._clock() + self._seconds
            return self._answer


class LivePage:
    """The page of the state as it is. `ask` answers with the ledger's stamp, `make` with the page of a stamp.

    It is made by one at a time, and kept until `stamp` is another. `policy` is the Content-Security-Policy that goes
    with it.
    """

    def __init__(
        self, ask: Callable[[], str], make: Callable[[str], str], policy: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.policy = policy
        self.stamp = KeptAnswer(lambda: f"{ask()}@{clock() // AGES_SECONDS:.0f}", LOOK_SECONDS, clock)
        self._make, self._making = make, threading.Lock()
        self._shown: ShownPage | None = None

    def page(self) -> ShownPage:
        """The page of now. Raises what `make` raises; that is not kept."""
        with self._making:
            stamp = self.stamp()
            if self._shown is None or self._shown.stamp != stamp:
                self._shown = ShownPage(self._make(stamp), stamp)
            return self._shown
