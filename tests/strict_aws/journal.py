"""The log of calls, for assertions such as "nothing doubled"."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Entry:
    """One request as it arrived. `effect`: whether it was carried out; `outcome`: ok, an error code, or the fault."""

    number: int
    service: str
    operation: str
    account: str
    region: str
    digest: str
    params: dict[str, Any]
    fault: str = ""
    effect: bool = False
    outcome: str = "running"


class Journal:
    """Entries in the order of arrival."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._lock = threading.Lock()

    def open(
        self, service: str, operation: str, account: str, region: str, digest: str, params: dict[str, Any]
    ) -> Entry:
        with self._lock:
            entry = Entry(len(self._entries) + 1, service, operation, account, region, digest, summary(params))
            self._entries.append(entry)
            return entry

    def since(self, number: int) -> list[dict[str, Any]]:
        """Entries after `number`, as JSON."""
        with self._lock:
            return [asdict(entry) for entry in self._entries[number:]]


def summary(value: Any) -> Any:
    """`value` as JSON can hold it: byte strings become their length and digest, times become text."""
    if isinstance(value, dict):
        return {name: summary(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [summary(entry) for entry in value]
    if isinstance(value, bytes):
        return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
