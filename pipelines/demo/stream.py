"""A steady stream of requests, so that "no request was lost" is counted and not claimed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import requests

PAUSE_SECONDS = 0.01
TIMEOUT_SECONDS = 5
CLIENTS = 2
STARTS_SECONDS = 30


@dataclass
class Stream:
    """What the requests got: answers by their text, and what went wrong."""

    url: str
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0

    @property
    def sent(self) -> int:
        """How many requests were made."""
        return self.answers.total() + len(self.failures)


@contextmanager
def steady(url: str) -> Iterator[Stream]:
    """Ask `url` again and again, from several clients, for as long as the block lasts."""
    stream, over = Stream(url), threading.Event()
    threads = [threading.Thread(target=_ask, args=(stream, over), daemon=True) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield stream
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _ask(stream: Stream, over: threading.Event) -> None:
    """One client: a new connection for each request, as a stranger would."""
    while not over.is_set():
        start = time.monotonic()
        try:
            answer = requests.get(stream.url, timeout=TIMEOUT_SECONDS)
            answer.raise_for_status()
            stream.answers[answer.text.strip()] += 1
        except requests.RequestException as error:
            stream.failures.append(f"{type(error).__name__}: {error}")
        stream.slowest_seconds = max(stream.slowest_seconds, time.monotonic() - start)
        time.sleep(PAUSE_SECONDS)


def wait_for(url: str) -> bool:
    """Whether `url` answers within half a minute."""
    until = time.monotonic() + STARTS_SECONDS
    while time.monotonic() < until:
        try:
            if requests.get(url, timeout=1).ok:
                return True
        except requests.RequestException:
            pass
        time.sleep(0.2)
    return False
