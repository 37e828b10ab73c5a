"""Edge: tells people what a rollout does, through a program or a webhook. A lost message stops nothing."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

from hardening.foundation.addresses import is_safe
from hardening.foundation.asking import ask_within
from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, OutsideError
from hardening.foundation.process import NETWORK, run, which
from hardening.foundation.retrying import retrying
from hardening.foundation.settings import Notify, Settings, rehearsing
from pipelines.rollout.state import Event

SECONDS = 10
GOOD = range(200, 300)
LONGEST_SECRET = 4096


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
    """A function that does as `tell`, and whether a target took it; what fails is said here."""

    def notify(message: Message) -> bool:
        took, failed = tell(settings, message)
        for error in failed:
            what = f"that {message.rollout} {message.event}"
            what = what if message.rollout else f"of {message.fleet}: {message.event}"
            say(f"no notification {what}: {error.message}")
        return took

    return notify


def tell(settings: Settings, message: Message) -> tuple[bool, list[GoldsmithError]]:
    """Tell every target of `[notify]`: whether one took it, and why others did not. A rehearsal tells none, and says
    so.
    """
    took, failed = False, list[GoldsmithError]()
    if rehearsing(settings):
        if settings.notify.command or settings.notify.webhook_file:
            say(f"rehearsal, so no message is sent about {message.rollout or message.fleet}: {message.event}")
        return took, failed
    for target in (_tell_program, _tell_webhook):
        try:
            took = target(settings.notify, message.json) or took
        except GoldsmithError as error:
            failed.append(error)
    return took, failed


def unreachable(targets: Notify) -> Iterator[str]:
    """The targets that can be told nothing, as far as that is known before: each as a sentence."""
    if targets.command and not which(targets.command[0]):
        yield f"notify.command: no program is called {targets.command[0]}"
    if targets.webhook_file:
        try:
            if "://" not in read_secret(targets.webhook_file, "notify.webhook_file"):
                yield "notify.webhook_file: the file does not hold an address"
        except OutsideError as error:
            yield error.message


def unreadable(settings: Settings) -> Iterator[str]:
    """The files of `[digest]` and `[github]` whose secret cannot be read, each as a sentence."""
    digest = settings.digest
    files = {f"digest.channels.{name}.webhook_file": one.webhook_file for name, one in digest.channels.items()}
    files |= {"digest.smtp.login_file": digest.smtp.login_file, "github.token_file": settings.github.token_file}
    for key, file in files.items():
        try:
            if file:
                read_secret(file, key)
        except OutsideError as error:
            yield error.message


def _tell_program(targets: Notify, text: str) -> bool:
    if targets.command:
        run(targets.command, passes=NETWORK, stdin=text, timeout=SECONDS)
    return bool(targets.command)


def _tell_webhook(targets: Notify, text: str) -> bool:
    if targets.webhook_file:
        post(targets.webhook_file, "notify.webhook_file", text)
    return bool(targets.webhook_file)


def post(file: Path, key: str, text: str, seconds: float = SECONDS, *, safe: bool = False) -> None:
    """POST JSON to the address in `file`, which the setting `key` names; a few times, if need be.

    `safe`: only over https, or to this machine itself. A redirect is a failure: the message and the address must not
    go elsewhere. Raises OutsideError that does not name the address, which is a secret.
    """
    address = read_secret(file, key)
    if safe and not is_safe(address):
        raise OutsideError(f"{key} does not hold an https address", hint="write https://… on its one line")
    whole = timedelta(seconds=2 * seconds)  # for one that answers letter by letter
    retrying(lambda: ask_within(lambda: _post(address, key, text, seconds), whole), within=timedelta(seconds=seconds))


def read_secret(file: Path, key: str) -> str:
    """What stands in the file that the setting `key` names, without the white space around it.

    A fleet's author may name any file, so only a short regular file is read. Raises OutsideError.
    """
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise OutsideError(f"{key} names no regular file")
            found = opened.read(LONGEST_SECRET + 1)
        if len(found) > LONGEST_SECRET:
            raise OutsideError(f"{key} names a file that is too long for an address or a token")
        return found.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = f"{error.strerror}: {file}" if isinstance(error, OSError) else "it is not UTF-8 text"
        raise OutsideError(f"{key} cannot be read: {why}") from None


def _post(address: str, key: str, text: str, seconds: float) -> None:
    headers = {"Content-Type": "application/json"}
    try:
        with requests.post(
            address, data=text.encode(), headers=headers, timeout=seconds, stream=True, allow_redirects=False,
            auth=_login_of(address),
        ) as answer:  # fmt: skip
            status = answer.status_code  # whatever it says at length is not read
    except (requests.RequestException, ValueError) as error:
        raise OutsideError(f"the webhook of {key}: {type(error).__name__}") from None
    if status not in GOOD:
        raise OutsideError(f"the webhook of {key} answers {status}")


def _login_of(address: str) -> Any:
    """The login in the address itself; none is read from a netrc of this machine."""
    login = requests.utils.get_auth_from_url(address)
    return login if any(login) else lambda request: request
