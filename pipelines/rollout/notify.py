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
from hardening.foundation.settings import Settings
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
    tells = [tell for tell in (_program(settings), _webhook(settings)) if tell]

    def notify(message: Message) -> None:
        for tell in tells:
            try:
                tell(message.json)
            except GoldsmithError as error:
                say(f"no notification that {message.rollout} {message.event}: {error.message}")

    return notify


def _program(settings: Settings) -> Callable[[str], None] | None:
    argv = settings.notify.command

    def tell(text: str) -> None:
        run(argv, passes=NETWORK, stdin=text, timeout=SECONDS)

    return tell if argv else None


def _webhook(settings: Settings) -> Callable[[str], None] | None:
    file = settings.notify.webhook_file

    def tell(text: str) -> None:
        try:
            address = file.read_text().strip() if file else ""
        except OSError as error:
            raise OutsideError(f"notify.webhook_file cannot be read: {error}") from None
        retrying(lambda: _post(address, text), within=timedelta(seconds=SECONDS))

    return tell if file else None


def _post(address: str, text: str) -> None:
    """Raises OutsideError that does not name the address, which is a secret."""
    try:
        answer = requests.post(address, data=text, headers={"Content-Type": "application/json"}, timeout=SECONDS)
    except (requests.RequestException, ValueError) as error:
        raise OutsideError(f"the webhook of notify.webhook_file: {type(error).__name__}") from None
    if not answer.ok:
        raise OutsideError(f"the webhook of notify.webhook_file answers {answer.status_code}")
