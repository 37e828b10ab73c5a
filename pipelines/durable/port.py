"""The port to durable execution: what a flow may ask of the engine that carries it. Pure.

A flow is a coroutine that decides, and asks its `Engine` for everything else. After a crash the engine runs the flow
again from the start and answers each call that was recorded with what it answered then, so a flow must make the same
calls in the same order: no clock, no randomness, no I/O of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Json = Any  # what JSON can carry: None, bool, int, float, str, and lists and dicts of them


class FencedError(BaseException):
    """Raised by an act whose process may do nothing more, for another one owns the work by now.

    The engine records nothing of it and forgets the flow in this process, as if the process had died. It is no
    GoldsmithError, so that no flow mistakes it for an answer.
    """


class Child(Protocol):
    """A flow that another flow started."""

    async def result(self) -> Json:
        """Wait for its end: what it returned. Raises the GoldsmithError that ended it, BugError for any other."""


class Engine(Protocol):
    """What carries one flow. Every method is recorded under the flow's id, in order."""

    id: str

    async def now(self) -> datetime:
        """The moment at which the flow first asked, aware UTC."""

    async def step(self, name: str, act: Callable[[], T]) -> T:
        """Do `act` off the flow's thread and record its answer (JSON, or a GoldsmithError that it raised).

        Done at least once: a crash between the effect and its record repeats it, so it finds by a key of the domain
        what it has done. The engine itself never retries; `name` says step and member.
        """

    async def wait(self, span: timedelta) -> bool:
        """Let `span` pass; True as soon as somebody wakes the flow. A crash does not begin it anew."""

    async def child(self, key: str, flow: str, argument: Json) -> Child:
        """Start the flow registered as `flow` under the id `<own id>/<key>`, or find it there."""


Flow = Callable[[Engine, Json], Awaitable[Json]]
