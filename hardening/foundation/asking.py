"""Queries many places in parallel, each with its own time limit: one that hangs stops none of the others."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextvars import ContextVar
from datetime import timedelta
from typing import Generic, TypeVar

from hardening.foundation.durations import shown
from hardening.foundation.errors import GoldsmithError, LateError, machine_error

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")
AT_ONCE = 16
_given_up: ContextVar[threading.Event | None] = ContextVar("given_up", default=None)


def ask_each(
    questions: Mapping[Key, Callable[[], Answer]], within: timedelta, at_once: int = AT_ONCE
) -> dict[Key, Answer | GoldsmithError]:
    """What each question answers, or the GoldsmithError that it raised: LateError where it takes longer than `within`.

    Each has a thread of its own, which is left alone once it is late, because a read that waits cannot be ended; the
    next `require_wanted` in it ends it. What else a question raises is raised here; OutsideError where no thread can be
    started.
    """
    waiting, found = deque(questions.items()), dict[Key, Answer | GoldsmithError]()
    running = dict[Future[Answer], tuple[Key, float, threading.Event]]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                key, ask = waiting.popleft()
                given_up = threading.Event()
                running[_begun(ask, given_up)] = key, time.monotonic() + within.total_seconds(), given_up
            first = min(until for _, until, _ in running.values())
            ended = wait(running, max(0.0, first - time.monotonic()), FIRST_COMPLETED).done
            now = time.monotonic()
            for future in [one for one in running if one in ended or running[one][1] <= now]:
                key, _, given_up = running.pop(future)
                given_up.set()
                try:
                    found[key] = future.result() if future in ended else _late(within)
                except GoldsmithError as error:
                    found[key] = error
    finally:
        for *_, given_up in running.values():
            given_up.set()
    return {key: found[key] for key in questions}


def ask_within(ask: Callable[[], Answer], within: timedelta) -> Answer:
    """What one question answers. Raises what it raised, and LateError where it takes longer than `within`."""
    answer = _begun(ask, given_up := threading.Event())
    try:
        if not wait((answer,), within.total_seconds(), FIRST_COMPLETED).done:
            raise _late(within)
        return answer.result()
    finally:
        given_up.set()


def portions(names: Iterable[str], at_once: int = 100) -> Iterator[list[str]]:
    """As many names as one question takes, in order."""
    found = sorted(names)
    for start in range(0, len(found), at_once):
        yield found[start : start + at_once]


class Once(Generic[Answer]):
    """A question that several threads have and one asks: threads that come meanwhile wait for its answer."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answers = list[Answer]()

    def __call__(self) -> Answer:
        """The answer; where asking failed, it is asked again."""
        with self._lock:
            if not self._answers:
                self._answers.append(self._ask())
            return self._answers[0]


def require_wanted() -> None:
    """Raise LateError in the thread of a question whose answer is no longer wanted."""
    if (given_up := _given_up.get()) and given_up.is_set():
        raise LateError("the answer is no longer wanted")


def _begun(ask: Callable[[], Answer], given_up: threading.Event) -> Future[Answer]:
    answer = Future[Answer]()

    def run() -> None:
        _given_up.set(given_up)  # a thread has a context of its own
        try:
            answer.set_result(ask())
        except BaseException as error:  # raised again by whoever waits
            answer.set_exception(error)

    try:
        threading.Thread(target=run, name="question", daemon=True).start()
    except RuntimeError as error:
        raise machine_error(error) or error from None
    return answer


def _late(within: timedelta) -> GoldsmithError:
    return LateError(f"no answer within {shown(within)}")
