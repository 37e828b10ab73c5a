"""Edge: tells people what a rollout does, through a program or a webhook. A message that is lost stops nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

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
    if targets.webhook_file is None:
        return
    try:
        address = targets.webhook_file.read_text().strip()
    except OSError as error:
        raise OutsideError(f"notify.webhook_file cannot be read: {error}") from None
    retrying(lambda: _post(address, text), within=timedelta(seconds=SECONDS))


def _post(address: str, text: str) -> None:
    """Raises OutsideError that does not name the address, which is a secret."""
    try:
        answer = requests.post(address, data=text, headers={"Content-Type": "application/json"}, timeout=SECONDS)
    except (requests.RequestException, ValueError) as error:
        raise OutsideError(f"the webhook of notify.webhook_file: {type(error).__name__}") from None
    if not answer.ok:
        raise OutsideError(f"the webhook of notify.webhook_file answers {answer.status_code}")
