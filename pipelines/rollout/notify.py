"""Edge: tells people what a rollout does, through a program or a webhook. A message that is lost stops nothing."""

from __future__ import annotations

import json
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


def notifier(settings: Settings) -> Callable[[Message], None]:
    """A function that tells every target of `[notify]`; what fails is said here, and nowhere else."""

    def notify(message: Message) -> None:
        for tell in (_tell_program, _tell_webhook):
            try:
                tell(settings.notify, message.json)
            except GoldsmithError as error:
                say(f"no notification that {message.rollout} {message.event}: {error.message}")

    return notify


def _tell_program(targets: Notify, text: str) -> None:
    if targets.command:
        run(targets.command, passes=NETWORK, stdin=text, timeout=SECONDS)


def _tell_webhook(targets: Notify, text: str) -> None:
    if targets.webhook_file:
        post(targets.webhook_file, "notify.webhook_file", text)


def post(file: Path, key: str, text: str, seconds: float = SECONDS) -> None:
    """POST JSON to the address in `file`, which the setting `key` names; a few times, if need be.

    Raises OutsideError that does not name the address, which is a secret.
    """
    try:
        address = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OutsideError(f"{key} cannot be read: {error}") from None
    retrying(lambda: _post(address, key, text, seconds), within=timedelta(seconds=seconds))


def _post(address: str, key: str, text: str, seconds: float) -> None:
    headers = {"Content-Type": "application/json"}
    try:
        with requests.post(address, data=text, headers=headers, timeout=seconds, stream=True) as answer:
            status, good = answer.status_code, answer.ok  # whatever it says at length is not read
    except (requests.RequestException, ValueError) as error:
        raise OutsideError(f"the webhook of {key}: {type(error).__name__}") from None
    if not good:
        raise OutsideError(f"the webhook of {key} answers {status}")
