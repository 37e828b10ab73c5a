"""How long the steps of a piece of work take: whoever does one names it, whoever wants to know collects them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Steps = dict[str, float]
SEEN = 0.05  # seconds: what takes less does not show
_collected: ContextVar[tuple[Steps, list[float]] | None] = ContextVar("_collected", default=None)


@contextmanager
def collected() -> Iterator[Steps]:
    """The seconds of each step that this thread does in the block, in the order of their ends."""
    steps = Steps()
    before = _collected.set((steps, []))
    try:
        yield steps
    finally:
        _collected.reset(before)


@contextmanager
def step(name: str) -> Iterator[None]:
    """What the block does is the step `name`; what it takes for steps within it counts there and not here."""
    at = _collected.get()
    if at is None:
        yield
        return
    steps, within = at
    start = time.monotonic()
    within.append(0.0)
    try:
        yield
    finally:
        whole, inner = time.monotonic() - start, within.pop()
        steps[name] = round(steps.get(name, 0.0) + whole - inner, 3)
        if within:
            within[-1] += whole


def told(steps: Steps) -> str:
    """The steps as people read them: those that took long enough to be seen, with their seconds."""
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in steps.items() if seconds >= SEEN)


def in_all(seconds: float, steps: Steps) -> str:
    """How long something took, and what of it each step."""
    return ": ".join(part for part in (f"{seconds:.1f} s", told(steps)) if part)
