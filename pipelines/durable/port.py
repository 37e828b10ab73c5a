"""The port to durable execution: what a flow may ask of the workflow engine that executes it. Pure.

A flow is a coroutine that decides, and asks its `Engine` for everything else. After a crash the engine runs the flow
again from the start and answers each call that was recorded with what it answered then, so a flow must make the same
calls in the same order: no clock, no randomness, no I/O of its own.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from hardening.foundation.errors import GoldsmithError

T = TypeVar("T")
Json = Any  # what JSON can hold: None, bool, int, float, str, and lists and dicts of them
CONTENT = "content:"  # of a capability: the content and code that a flow was begun with


class FencedError(BaseException):
    """Raised by an act whose process may do nothing more, because another one owns the work now.

    The engine records nothing of it and forgets the flow in this process, as if the process had died. It is no
    GoldsmithError, so that no flow mistakes it for an answer.
    """


class Child(Protocol):
    """A flow that another flow started."""

    async def result(self) -> Json:
        """Wait for its end: what it returned. Raises the GoldsmithError that ended it, BugError for any other."""


class WorkflowEngine(Protocol):
    """What executes one flow. Every method is recorded under the flow's id, in order."""

    id: str

    async def now(self) -> datetime:
        """The moment at which the flow first asked, aware UTC."""

    async def step(self, name: str, act: Callable[[], T]) -> T:
        """Do `act` off the flow's thread and record its answer (JSON, or a GoldsmithError that it raised).

        Done at least once: a crash between the effect and its record repeats it, so it finds by a key of the domain
        what it has done. The engine itself never retries; `name` says step and member.
        """

    async def wait(self, span: timedelta) -> bool:
        """Let `span` pass; True as soon as somebody wakes the flow. A crash does not restart it."""

    async def child(self, key: str, flow: str, argument: Json, *, of: str = "", needs: Sequence[str] = ()) -> Child:
        """Start the flow registered as `flow` under the id `<own id>/<key>`, or find it there.

        `of`: the id of a flow that this one was started by, which then stands in the place of its own.

        It runs in this process. With `needs`, names of capabilities such as `docker` or `arch:amd64`, it is any
        worker's that has them all, and takes one of that worker's places until it ends: so it must not itself wait for
        another that has needs. One that kills two workers in the same step ends with an OutsideError, and so does one
        that no living worker has the needs of for long.
        """


Flow = Callable[[WorkflowEngine, Json], Awaitable[Json]]


# -- what the engine writes down: JSON, and failures by their names ---------------------------------------------------


class BugError(Exception):
    """A flow or a step ended by an error that is not a GoldsmithError: its name and message, as far as recorded."""


def encode(value: Any) -> str:
    """The record of an answer (JSON) or of an exception. Raises TypeError or ValueError for what JSON cannot carry.

    No pickle: what a database holds is read as data, never run. Of a failure the message, the evidence and the hint
    are kept and nothing else, so what a traceback or a cause carries does not reach the database.
    """
    if isinstance(value, GoldsmithError):
        names = [kind.__name__ for kind in type(value).__mro__ if issubclass(kind, GoldsmithError)]
        said = {"message": value.message, "evidence": value.evidence, "hint": value.hint}
        return json.dumps({"failed": names, **said})
    if isinstance(value, BaseException):
        awaited = isinstance(value, BugError)  # another flow's, which is named already
        return json.dumps({"bug": str(value) if awaited else f"{type(value).__name__}: {value}"})
    return json.dumps({"value": value}, allow_nan=False)


def decode(text: str) -> Any:
    """What `encode` recorded. A failure comes back as its own class, or as the nearest family that is still known."""
    record = json.loads(text)
    if "failed" in record:
        known = {kind.__name__: kind for kind in _families(GoldsmithError)}
        kind = next(known[name] for name in record["failed"] if name in known)
        failure = kind.__new__(kind)  # narrower ones make their messages themselves, of what is not recorded
        GoldsmithError.__init__(failure, record["message"], evidence=record["evidence"], hint=record["hint"])
        return failure
    return BugError(record["bug"]) if "bug" in record else record["value"]


def recorded(value: Any) -> Any:
    """`value` as it comes back from its record: a first run sees what a later one will see."""
    return decode(encode(value))


def _families(kind: type[GoldsmithError]) -> Iterator[type[GoldsmithError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _families(narrower)
