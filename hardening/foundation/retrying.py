"""The one retry policy for what tenacity retries: registry, mirror and Docker. AWS clients retry by themselves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_random_exponential

from hardening.foundation.errors import OutsideError

Result = TypeVar("Result")
ATTEMPTS = 5


def retrying(action: Callable[[], Result], *, within: timedelta) -> Result:
    """`action()`, again on OutsideError: at most 5 attempts, within the given time, with growing random waits."""
    policy = Retrying(
        retry=retry_if_exception_type(OutsideError),
        stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(within.total_seconds()),
        wait=wait_random_exponential(multiplier=0.5, max=15),
        reraise=True,
    )
    return policy(action)
