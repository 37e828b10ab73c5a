"""Edge: tells people what a rollout does, through a program or a webhook. A message that is lost stops nothing."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, OutsideError
from hardening.foundation.process import NETWORK, run
from hardening.foundation.retrying import retrying
from hardening.foundation.settings import Notify, Settings
from pipelines.rollout.state import Event

SECONDS = 10
LONGEST_ADDRESS = 4096


@dataclass(frozen=True)
class Message:
    """One thing to tell: `text` says it in a sentence; `at` is aware."""

    event: Event
    fleet: str
    rollout: str
    text: str
    at: datetime

    @property
    def json(self) -> str:
        """What programs and webhooks get. `text` alone is what chat systems show."""
        return json.dumps({**asdict(self), "at": self.at.astimezone(UTC).isoformat()})


def notifier(settings: Settings) -> Callable[[Message], bool]:
    """A function that tells every target of `[notify]`, and whether one took it; what fails is said here."""

    def notify(message: Message) -> bool:
        took = False
        for tell in (_tell_program, _tell_webhook):
            try:
                took = tell(settings.notify, message.json) or took
            except GoldsmithError as error:
                what = f"that {message.rollout} {message.event}"
                what = what if message.rollout else f"of {message.fleet}: {message.event}"
                say(f"no notification {what}: {error.message}")
        return took

    return notify


def _tell_program(targets: Notify, text: str) -> bool:
    if targets.command:
        run(targets.command, passes=NETWORK, stdin=text, timeout=SECONDS)
    return bool(targets.command)


def _tell_webhook(targets: Notify, text: str) -> bool:
    if targets.webhook_file:
        post(targets.webhook_file, "notify.webhook_file", text)
    return bool(targets.webhook_file)


def post(file: Path, key: str, text: str, seconds: float = SECONDS) -> None:
    """POST JSON to the address in `file`, which the setting `key` names; a few times, if need be.

    Raises OutsideError that does not name the address, which is a secret.
    """
    address = _address(file, key)
    retrying(lambda: _post(address, key, text, seconds), within=timedelta(seconds=seconds))


def _address(file: Path, key: str) -> str:
    """What stands in the file: a fleet's author may name any, so nothing that blocks or has no end is read."""
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise OutsideError(f"{key} names no regular file")
            found = opened.read(LONGEST_ADDRESS + 1)
        if len(found) > LONGEST_ADDRESS:
            raise OutsideError(f"{key} names a file that is too long for an address")
        return found.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OutsideError(f"{key} cannot be read: {error}") from None


def _post(address: str, key: str, text: str, seconds: float) -> None:
    headers = {"Content-Type": "application/json"}
    try:
        with requests.post(address, data=text, headers=headers, timeout=seconds, stream=True) as answer:
            status, good = answer.status_code, answer.ok  # whatever it says at length is not read
    except (requests.RequestException, ValueError) as error:
        raise OutsideError(f"the webhook of {key}: {type(error).__name__}") from None
    if not good:
        raise OutsideError(f"the webhook of {key} answers {status}")
