"""What the engine writes down: JSON, and failures by their names. Pure.

No pickle: what a database holds is read as data, never run. Of a failure the message, the evidence and the hint are
kept and nothing else, so what a traceback or a cause carries does not reach the database.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hardening.foundation.errors import GoldsmithError


class BugError(Exception):
    """A flow or a step ended by what is no GoldsmithError: its name and message, as far as they were recorded."""


def encode(value: Any) -> str:
    """The record of an answer (JSON) or of an exception. Raises TypeError or ValueError for what JSON cannot carry."""
    if isinstance(value, GoldsmithError):
        names = [kind.__name__ for kind in type(value).__mro__ if issubclass(kind, GoldsmithError)]
        said = {"message": value.message, "evidence": value.evidence, "hint": value.hint}
        return json.dumps({"failed": names, **said})
    if isinstance(value, BaseException):
        return json.dumps({"bug": f"{type(value).__name__}: {value}"})
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
