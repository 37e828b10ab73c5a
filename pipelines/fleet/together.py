"""Edge: many short questions asked at the same time, so that those that hang cost the time of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
AT_ONCE = 16


def together(questions: Sequence[Callable[[], T]]) -> list[T]:
    """The answers in the questions' order. Raises what the first that failed raised."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda ask: ask(), questions))
