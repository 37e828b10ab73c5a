"""Questions side by side: each has its own time, and one that hangs stops none of the others."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sized
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation import asking
from hardening.foundation.asking import Once, ask_each, require_wanted
from hardening.foundation.errors import LateError, OutsideError
from hardening.foundation.settings import ROOT

LONG = timedelta(minutes=5)


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What does not happen before the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_each_answers_for_itself_in_the_order_of_the_questions() -> None:
    """Whichever is first to answer; one that fails is an error of its own."""
    last = threading.Event()

    def fails() -> int:
        raise OutsideError("denied")

    found = ask_each({"a": lambda: int(last.wait()), "b": fails, "c": lambda: last.set() or 3}, LONG)  # type: ignore[func-returns-value]
    assert [*found] == ["a", "b", "c"]
    assert (found["a"], str(found["b"]), found["c"]) == (1, "denied", 3)


def test_one_that_hangs_is_late_and_ends_at_its_next_question(never: threading.Event) -> None:
    """It is left alone; nobody waits for what it would ask next."""
    hangs, said = asks_again_after(never)
    found = ask_each({"hangs": hangs}, timedelta(milliseconds=1))["hangs"]
    assert isinstance(found, LateError)
    assert found.message == "no answer within 0s"
    never.set()
    assert said() == "the answer is no longer wanted"


def test_a_slip_in_one_ends_the_others_at_their_next_question(never: threading.Event) -> None:
    """Their answers are no longer wanted."""
    waits, said = asks_again_after(never)
    with pytest.raises(ZeroDivisionError):
        ask_each({"waits": waits, "slips": lambda: 1 // 0}, LONG)
    never.set()
    assert said() == "the answer is no longer wanted"


def asks_again_after(event: threading.Event) -> tuple[Callable[[], None], Callable[[], str]]:
    """A question that asks for more after an event; and what it is told then, empty where it may."""
    told, over = list[str](), threading.Event()

    def ask() -> None:
        event.wait(LONG.total_seconds())
        try:
            require_wanted()
        except LateError as error:
            told.append(error.message)
        finally:
            over.set()

    def said() -> str:
        assert over.wait(LONG.total_seconds())
        return "".join(told)

    return ask, said


def test_one_that_hangs_leaves_its_place_and_its_time_to_the_next(
    never: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it and after it all are answered; only when it hangs does this clock move."""
    clock, begun, looked, wait = [0.0], threading.Event(), threading.Event(), asking.wait

    def waited(*how: Any) -> Any:
        before, found = begun.is_set(), wait(*how)
        if before:
            looked.set()
        return found

    def hangs() -> int:
        clock[0] += 1
        return int(never.wait(LONG.total_seconds()))

    def after() -> int:
        begun.set()
        return 3 * looked.wait(LONG.total_seconds())

    monkeypatch.setattr(asking, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(asking, "wait", waited)
    found = ask_each({"first": lambda: 1, "hangs": hangs, "after": after}, timedelta(milliseconds=1), at_once=1)
    assert (found["first"], type(found["hangs"]), found["after"]) == (1, LateError, 3)


def test_one_that_hangs_holds_no_process() -> None:
    """Who was told that it is late can end."""
    text = (
        "import threading; from datetime import timedelta; from hardening.foundation.asking import ask_each\n"
        "ask_each({1: threading.Event().wait}, timedelta(0))"
    )
    subprocess.run([sys.executable, "-c", text], check=True, cwd=ROOT, timeout=LONG.total_seconds())


def test_no_more_are_asked_at_once_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever answers are waited for; and all of them are."""
    running, wait = list[int](), asking.wait

    def waited(asked: Sized, *how: Any) -> Any:
        running.append(len(asked))
        return wait(asked, *how)

    monkeypatch.setattr(asking, "wait", waited)
    assert ask_each({number: partial(abs, -number) for number in range(8)}, LONG, at_once=2) == {n: n for n in range(8)}
    assert max(running) == 2


def test_what_is_no_error_of_ours_is_raised() -> None:
    """A bug is not an answer."""
    with pytest.raises(ZeroDivisionError):
        ask_each({"a": lambda: 1 // 0}, LONG)


def test_a_machine_that_starts_no_more_threads_is_an_error_of_the_outside() -> None:
    """A process that really may have no more memory for their stacks."""
    script = (
        "import resource; from datetime import timedelta; from functools import partial; import threading\n"
        "from hardening.foundation.asking import ask_each; from hardening.foundation.errors import OutsideError\n"
        "threading.stack_size(1 << 30); resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "try: ask_each(dict.fromkeys(range(9), partial(threading.Event().wait, 60)), timedelta(minutes=5))\n"
        "except OutsideError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "can't start new thread: this machine, or our container, allows no more" in done.stdout, done.stderr
    assert "ulimit -u" in done.stdout


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


def test_what_several_threads_want_is_asked_by_one() -> None:
    """The other one waits for its answer, also where it comes in the middle."""
    asked = list[int]()

    def ask() -> int:
        asked.append(len(asked))
        if len(asked) == 1:
            other.start()
            other.join(0.1)  # which it ends only where it asks by itself
        return len(asked)

    once = Once(ask)
    other = threading.Thread(target=once)
    assert once() == 1
    other.join()
    assert asked == [0]
