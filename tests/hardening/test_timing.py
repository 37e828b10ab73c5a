"""The steps of a piece of work: their seconds add up to what it takes, and nobody counts for another."""

from __future__ import annotations

import threading

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
