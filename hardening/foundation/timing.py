"""How long the steps of a piece of work take: the code that does one names it, a caller collects them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field

from hardening.foundation.console import err, last_said, say

Steps = dict[str, float]
SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # elsewhere than on Linux the latter does
SEEN = 0.05  # seconds: what takes less does not show
SILENCE = 9.0  # seconds after which people at a terminal read what goes on; others after twice as many


@dataclass
class _Collected:
    """The finished steps; the names of the running ones, outermost first; and the time of their inner ones."""

    steps: Steps = field(default_factory=Steps)
    open: list[str] = field(default_factory=list)
    within: list[float] = field(default_factory=list)


_collected: ContextVar[_Collected | None] = ContextVar("_collected", default=None)


@contextmanager
def collected(what: str = "") -> Iterator[Steps]:
    """The seconds of each step that this thread does in the block, in the order of their ends.

    `what` the work is about is said with its seconds and the running step, whenever nothing was said for `SILENCE`.
    """
    at, over = _Collected(), threading.Event()
    before = _collected.set(at)
    watching = None
    if what:
        arguments = (_watch, what, at, over)
        watching = threading.Thread(target=copy_context().run, args=arguments, name="steps", daemon=True)
        watching.start()
    try:
        yield at.steps
    finally:
        _collected.reset(before)
        over.set()
        if watching:
            watching.join()


def _watch(what: str, at: _Collected, over: threading.Event) -> None:
    """Say, until it is `over`, what goes on, whenever nothing was said for long."""
    began = said = time.monotonic()
    patience = SILENCE if err().is_terminal else 2 * SILENCE
    while not over.wait(min(patience, 1.0)):
        now = time.monotonic()
        if now - max(said, last_said()) >= patience:
            inner = at.open[-1:]  # which may have begun at this moment: the seconds are of the whole
            state, doing = ("running", f", now: {inner[0]}") if inner else ("waiting", "")
            say(f"{what}: {state} for {now - began:.0f} s{doing}")
            said = now


@contextmanager
def step(name: str) -> Iterator[None]:
    """What the block does is the step `name`; what it takes for steps within it counts there and not here."""
    at = _collected.get()
    if at is None:
        yield
        return
    start = time.monotonic()
    at.open.append(name)
    at.within.append(0.0)
    try:
        yield
    finally:
        whole, inner = time.monotonic() - start, at.within.pop()
        at.open.pop()
        at.steps[name] = round(at.steps.get(name, 0.0) + whole - inner, 3)
        if at.within:
            at.within[-1] += whole


def told(steps: Steps) -> str:
    """The steps as people read them: those that took long enough to be seen, with their seconds."""
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in steps.items() if seconds >= SEEN)


def in_all(seconds: float, steps: Steps) -> str:
    """How long something took, and what of it each step."""
    return ": ".join(part for part in (f"{seconds:.1f} s", told(steps)) if part)
