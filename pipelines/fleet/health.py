"""Edge: one look from this host, by tcp or http, at a member's health or at an alarm."""

from __future__ import annotations

import socket
from datetime import timedelta
from http import HTTPStatus

from hardening.foundation.asking import ask_within
from hardening.foundation.errors import LateError
from pipelines.fleet.members import Read
from pipelines.fleet.model import Health

BAD_STATUS = 400
ALARM_SECONDS = 5.0


def ask(health: Health, address: str) -> Read:
    """Ask an address from this host, by tcp or http."""
    if not address:
        return Read(False, "it has no address that this host could ask")
    seconds = health.timeout.total_seconds()
    if health.kind == "tcp":
        return _tcp(address, health.port or 0, seconds)
    return _http(f"http://{address}:{health.port}{health.path}", seconds)


def fires(address: str) -> bool:
    """Whether an alarm that is asked by HTTP fires: it is quiet by an answer of 2xx alone, so not by one that leads
    elsewhere, such as to a login, and not by one that does not come within 10 s.
    """
    import requests

    def answered() -> bool:
        with requests.get(address, timeout=ALARM_SECONDS, allow_redirects=False, stream=True) as answer:
            return answer.status_code // 100 == HTTPStatus.OK // 100

    try:
        return not ask_within(answered, timedelta(seconds=2 * ALARM_SECONDS))
    except (LateError, requests.exceptions.RequestException):
        return True


def _tcp(address: str, port: int, seconds: float) -> Read:
    try:
        with socket.create_connection((address, port), timeout=seconds):
            return Read(True, f"{address}:{port} accepts connections")
    except OSError as error:
        return Read(False, f"{address}:{port}: {error}")


def _http(url: str, seconds: float) -> Read:
    whole = 2 * seconds  # for one whose headers come letter by letter
    try:
        return ask_within(lambda: _answered(url, seconds), timedelta(seconds=whole))
    except LateError:
        return Read(False, f"{url}: no whole answer within {whole:g} s")


def _answered(url: str, seconds: float) -> Read:
    import requests

    session = requests.Session()
    session.trust_env = False  # a proxy for the outside must not stand between us and a container
    try:
        with session, session.get(url, timeout=seconds, allow_redirects=False, stream=True) as answer:
            return Read(answer.status_code < BAD_STATUS, f"{url} answered {answer.status_code}")
    except requests.exceptions.RequestException as error:
        return Read(False, f"{url}: {error}")
