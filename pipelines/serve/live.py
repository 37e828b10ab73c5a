"""The page as `serve` shows it: made again when the state changes, and told to those who look at it. Edge."""

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


class LivePage:
    """The page of the state as it is. `ask` answers with the ledger's stamp, `make` with the page of a stamp.

    It is made by one at a time, and kept until the stamp is another. `policy` is the Content-Security-Policy that goes
    with it.
    """

    def __init__(
        self, ask: Callable[[], str], make: Callable[[str], str], policy: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.policy = policy
        self._ask, self._make, self._clock = ask, make, clock
        self._asking, self._making = threading.Lock(), threading.Lock()
        self._stamp, self._asked_at = "", float("-inf")
        self._shown: ShownPage | None = None

    def stamp(self) -> str:
        """What is another as soon as the page would be. Raises what `ask` raises."""
        with self._asking:
            now = self._clock()
            if now >= self._asked_at + LOOK_SECONDS:
                self._stamp, self._asked_at = f"{self._ask()}@{now // AGES_SECONDS:.0f}", now
            return self._stamp

    def page(self) -> ShownPage:
        """The page of now. Raises what `make` raises; that is not kept."""
        with self._making:
            stamp = self.stamp()
            if self._shown is None or self._shown.stamp != stamp:
                self._shown = ShownPage(self._make(stamp), stamp)
            return self._shown
