"""The steps of a piece of work: their seconds add up to what it takes, and nobody counts for another."""

from __future__ import annotations

import re
import threading
from types import SimpleNamespace

import pytest

from hardening.foundation import timing
from hardening.foundation.timing import collected, in_all, step, told


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that a clock shows, one after the other."""
    shown: list[float] = []
    monkeypatch.setattr(timing.time, "monotonic", lambda: shown.pop(0))
    return shown


def test_a_step_within_a_step_counts_once(clock: list[float]) -> None:
    """So that all of them together are the whole; one that is done again counts on."""
    clock[:] = [0.0, 1.0, 3.0, 3.0, 4.0, 10.0]
    with collected() as steps, step("build"):
        for _ in range(2):
            with step("unpack"):
                pass
    assert steps == {"unpack": 3.0, "build": 7.0}
    assert told({**steps, "plan": 0.01}) == "unpack 3.0 s, build 7.0 s"
    assert (in_all(10.0, steps), in_all(0.0, {})) == ("10.0 s: unpack 3.0 s, build 7.0 s", "0.0 s")


def test_a_step_that_failed_took_its_time_too(clock: list[float]) -> None:
    clock[:] = [0.0, 2.0]
    with collected() as steps, pytest.raises(ValueError, match="broken"), step("build"):
        raise ValueError("broken")
    assert steps == {"build": 2.0}


def test_images_that_are_built_side_by_side_have_their_own_steps() -> None:
    """Each thread collects its own; a step that nobody collects is only done."""

    def other() -> None:
        with step("of nobody"):
            pass

    with collected() as steps:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert steps == {}


def test_whoever_waits_long_is_told_which_step_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Again and again, with the seconds; a step that is over is not told, and no thread is left."""
    monkeypatch.setattr(timing, "SILENCE", 0.01)
    told, seen = threading.Event(), list[str]()

    def said(text: str) -> None:
        seen.append(text)
        if len(seen) == 2:
            told.set()

    monkeypatch.setattr(timing, "say", said)
    with collected("web"), step("build"), step("unpack"):
        assert told.wait(60)
    assert re.fullmatch(r"web: running for \d+ s, now: unpack", seen[0])
    assert "steps" not in {thread.name for thread in threading.enumerate()}
    count = len(seen)
    with collected(), step("build"):
        assert not threading.Event().wait(0.05)
    assert len(seen) == count


def test_somebody_at_a_terminal_reads_twice_as_often_what_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was said counts, also of another image; what has no step yet waits."""
    clock, said = iter(range(1000)), list[str]()
    monkeypatch.setattr(timing, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    monkeypatch.setattr(timing, "say", said.append)
    for terminal, last, expected in ((True, -99, [9, 18, 27]), (False, -99, [18]), (True, 5, [14, 23])):
        monkeypatch.setattr(timing, "err", lambda terminal=terminal: SimpleNamespace(is_terminal=terminal))
        monkeypatch.setattr(timing, "last_said", lambda last=last: last)
        clock, over = iter(range(1000)), SimpleNamespace(left=30)

        def wait(seconds: float, over: SimpleNamespace = over) -> bool:
            over.left -= 1
            return over.left < 0

        timing._watch("web", timing._Collected(), SimpleNamespace(wait=wait))  # type: ignore[arg-type]
        assert said == [f"web: waiting for {seconds} s" for seconds in expected]
        said.clear()


def test_the_seconds_are_those_of_the_whole_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that begins at that moment does not show as "0 s"."""
    clock, said = iter(range(1000)), list[str]()
    monkeypatch.setattr(timing, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    monkeypatch.setattr(timing, "err", lambda: SimpleNamespace(is_terminal=True))
    monkeypatch.setattr(timing, "last_said", lambda: -99)
    monkeypatch.setattr(timing, "say", said.append)
    at = timing._Collected(open=["build"])

    def wait(_: float) -> bool:
        at.open[1:] = ["clean up"]
        return bool(said)

    timing._watch("web", at, SimpleNamespace(wait=wait))  # type: ignore[arg-type]
    assert said == ["web: running for 9 s, now: clean up"]
