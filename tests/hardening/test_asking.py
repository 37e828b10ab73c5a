"""Questions side by side: each has its own time, and one that hangs stops none of the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from hardening.foundation.asking import Once, ask_each, require_wanted
from hardening.foundation.errors import LateError, OutsideError

LONG = timedelta(minutes=5)


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What does not happen before the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_each_answers_for_itself_in_the_order_of_the_questions() -> None:
    """One that fails is an error of its own."""

    def fails() -> int:
        raise OutsideError("denied")

    found = ask_each({"a": lambda: 1, "b": fails, "c": lambda: 3}, LONG)
    assert [*found] == ["a", "b", "c"]
    assert (found["a"], str(found["b"]), found["c"]) == (1, "denied", 3)


def test_one_that_hangs_is_late_and_ends_at_its_next_question(never: threading.Event) -> None:
    """It is left alone; nobody waits for what it would ask next."""
    ended = list[str]()
    over = threading.Event()

    def hangs() -> None:
        never.wait()
        try:
            require_wanted()
        except LateError as error:
            ended.append(error.message)
            over.set()

    found = ask_each({"hangs": hangs}, timedelta(milliseconds=1))["hangs"]
    assert isinstance(found, LateError)
    assert found.message == "no answer within 0s"
    never.set()
    assert over.wait(LONG.total_seconds())
    assert ended == ["the answer is no longer wanted"]


def test_no_more_are_asked_at_once_than_may_be() -> None:
    """However many there are; and all of them are."""
    lock, now, most = threading.Lock(), [0], [0]
    both = threading.Barrier(2)

    def ask() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        both.wait(LONG.total_seconds())
        with lock:
            now[0] -= 1

    assert len(ask_each(dict.fromkeys(range(8), ask), LONG, at_once=2)) == 8
    assert most == [2]


def test_what_is_no_error_of_ours_is_raised() -> None:
    """A bug is not an answer."""
    with pytest.raises(ZeroDivisionError):
        ask_each({"a": lambda: 1 // 0}, LONG)


def test_outside_of_a_question_all_is_wanted() -> None:
    """And what several want is asked once; again where it failed."""
    require_wanted()
    tries = iter([OutsideError("no"), 7])

    def ask() -> int:
        answer = next(tries)
        if isinstance(answer, OutsideError):
            raise answer
        return answer

    once = Once(ask)
    with pytest.raises(OutsideError):
        once()
    assert (once(), once()) == (7, 7)
