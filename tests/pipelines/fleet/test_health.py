"""One look at a member's health from this host: whatever answers there, it ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest

from pipelines.fleet import health as looks
from pipelines.fleet.health import ask, fires
from pipelines.fleet.model import Health
from tests.support.hostile import Reply, endless, hostile

QUICK = 0.2  # seconds
PATIENT = 60.0  # for what answers at once, however busy this host is


def health(kind: str, port: int, seconds: float = PATIENT) -> Health:
    return Health.model_validate({"kind": kind, "port": port, "timeout": timedelta(seconds=seconds)})


@contextmanager
def dripping() -> Iterator[int]:
    """A server whose one header comes letter by letter while the block runs, and then its end; its port."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                until = time.monotonic() + PATIENT  # for a look that would wait for ever
                while time.monotonic() < until and not over.wait(QUICK / 4):
                    connection.sendall(b"x")
                connection.sendall(b"\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            thread.join()


def test_an_answer_that_comes_letter_by_letter_is_no_good_health() -> None:
    """In place, nobody serves while a new instance is looked at: a look that lasts for ever keeps the old one away."""
    with dripping() as port:
        seen = ask(health("http", port, QUICK), "127.0.0.1")
    assert not seen.good
    assert seen.text.startswith(f"http://127.0.0.1:{port}/: ")  # on a busy host one letter may be late by itself


def test_an_answer_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the address, and how long it was waited for."""
    over = threading.Event()
    monkeypatch.setattr(looks, "_answered", lambda *_: over.wait(PATIENT))
    seen = ask(health("http", 80, QUICK), "127.0.0.1")
    over.set()
    assert (seen.good, seen.text) == (False, "http://127.0.0.1:80/: no whole answer within 0.4 s")


def test_the_status_is_the_answer_and_what_follows_is_not_read() -> None:
    """Below 400 is good; a redirect is not followed."""
    with hostile() as server:
        port = int(server.address.rpartition(":")[2])
        for reply, good in ((Reply(endless(b"x")), True), (Reply(status=302), True), (Reply(status=503), False)):
            server.fallback = reply
            assert ask(health("http", port), "127.0.0.1").good is good
        assert ask(health("tcp", port), "127.0.0.1").good
    for kind in ("http", "tcp"):
        assert not ask(health(kind, port), "127.0.0.1").good
    assert ask(health("tcp", 80), "").text == "it has no address that this host could ask"


def test_an_alarm_is_quiet_by_a_success_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that leads to a login, that does not end its answer, or that is not there has said nothing."""
    monkeypatch.setattr(looks, "ALARM_SECONDS", PATIENT)
    with hostile() as server:
        address, server["/login"] = f"{server.address}/alarm", Reply()
        for reply, quiet in (
            (Reply(), True), (Reply(endless(b"x")), True), (Reply(status=204), True), (Reply(status=503), False),
            (Reply(status=302, headers={"Location": f"{server.address}/login"}), False), (Reply(status=304), False),
        ):  # fmt: skip
            server["/alarm"] = reply
            assert fires(address) is not quiet, reply.status
    assert fires(address)
    monkeypatch.setattr(looks, "ALARM_SECONDS", QUICK)
    with dripping() as port:
        assert fires(f"http://127.0.0.1:{port}/")
