"""What goes wrong on purpose, and when: rules with a seed, so that a run can be repeated."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

KINDS = {
    "throttle": "refused with the service's own throttling code; no effect",
    "error": "refused with `code` and `status` (InternalError and 500 unless given); no effect",
    "denied": "refused with the service's own code for a missing permission; no effect",
    "delay": "answered after `seconds`",
    "reset": "the connection is cut before the effect",
    "lost": "carried out, then the connection is cut: the answer is lost",
    "hang": "not answered until other faults are in force",
    "unreachable": "every connection is cut before the effect; meant for a whole region",
}


@dataclass(frozen=True)
class Fault:
    """One rule. Names are patterns (`*`, `Describe*`); the first rule that matches and strikes wins."""

    kind: str
    service: str = "*"
    operation: str = "*"
    region: str = "*"
    account: str = "*"
    probability: float = 1.0
    skip: int = 0  # matching calls that are let through first
    times: int | None = None  # how often it strikes at most
    seconds: float = 0.0
    code: str = "InternalError"
    status: int = 500
    message: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind}: no such fault; one of {', '.join(KINDS)}")

    def matches(self, service: str, operation: str, region: str, account: str) -> bool:
        pairs = [(service, self.service), (operation, self.operation), (region, self.region), (account, self.account)]
        return all(fnmatchcase(value, pattern) for value, pattern in pairs)


@dataclass
class Faults:
    """The rules in force. Whether a call is struck depends on the seed, the rule, the call's parameters and how often
    they came, and so not on how threads take turns."""

    rules: list[Fault] = field(default_factory=list)
    seed: str = "0"
    _seen: Counter[tuple[int, str]] = field(default_factory=Counter)
    _matched: Counter[int] = field(default_factory=Counter)
    _struck: Counter[int] = field(default_factory=Counter)
    _lock: Any = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def replace(self, rules: list[dict[str, Any]], seed: str) -> None:
        """Put `rules` in the place of all that were there."""
        with self._lock:
            self.rules, self.seed = [Fault(**rule) for rule in rules], seed
            self._seen, self._matched, self._struck = Counter(), Counter(), Counter()
            self._over.set()
            self._over = threading.Event()

    def hang(self) -> None:
        """Return when the faults are others."""
        self._over.wait()

    def strike(self, service: str, operation: str, region: str, account: str, digest: str) -> Fault | None:
        """The fault that hits this call, if any."""
        with self._lock:
            for number, rule in enumerate(self.rules):
                if rule.matches(service, operation, region, account) and self._hits(
                    number, rule, f"{operation}{digest}"
                ):
                    self._struck[number] += 1
                    return rule
        return None

    def _hits(self, number: int, rule: Fault, call: str) -> bool:
        self._seen[number, call] += 1
        self._matched[number] += 1
        if self._matched[number] <= rule.skip or (rule.times is not None and self._struck[number] >= rule.times):
            return False
        drawn = hashlib.sha256(f"{self.seed}/{number}/{call}/{self._seen[number, call]}".encode()).digest()
        return int.from_bytes(drawn[:8], "big") / 2**64 < rule.probability
