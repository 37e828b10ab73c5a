"""The one retry policy for what tenacity retries: registry, mirror, Docker, a rollout's ledger. AWS has its own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_random_exponential

from hardening.foundation.errors import OutsideError

Result = TypeVar("Result")
ATTEMPTS = 5


def retrying(action: Callable[[], Result], *, within: timedelta, attempts: int | None = ATTEMPTS) -> Result:
    """`action()`, again on OutsideError, within the given time, with growing waits; `attempts` None: no limit."""
    late = stop_after_delay(within.total_seconds())
    policy = Retrying(
        retry=retry_if_exception_type(OutsideError),
        stop=late if attempts is None else stop_after_attempt(attempts) | late,
        wait=wait_random_exponential(multiplier=0.5, max=15),
        reraise=True,
    )
    return policy(action)
