"""What a tag names now, queried by HEAD: no manifest is fetched, and a registry's rate limits are kept. Edge.

skopeo, which everything else goes through, knows no HEAD, and a GET of a manifest counts as a pull at public ones:
https://docs.docker.com/docker-hub/usage/pulls/. A registry may answer 429, Retry-After and how much of a budget remains
(RateLimit-Remaining, or as https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ has it).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from hardening.foundation.addresses import is_loopback
from hardening.foundation.durations import header_date
from hardening.foundation.errors import GoldsmithError, MalformedError, OutsideError
from hardening.foundation.hashing import DIGEST
from hardening.foundation.settings import Settings
from images.model import Base
from images.packages.index import write_atomically
from images.registry.answers import NotFoundError
from images.registry.http import NOT_FOUND, OK, UNAUTHORIZED, RegistryHttp
from images.registry.references import place_of

if TYPE_CHECKING:
    import requests

LONGEST_QUIET = timedelta(days=1)
"""However long a registry asks to be left alone: by then it is asked again."""
FORBIDDEN, TOO_MANY, UNAVAILABLE = 403, 429, 503


class Heads:
    """What tags name now. Each is queried once; a host that failed, or asked for a pause, is not queried for a while.

    `now` is the flow's one clock reading. Until when a host wants to be left alone is kept for the next process;
    `at_once` asks it all the same, for a person.
    """

    def __init__(self, settings: Settings, now: datetime, *, at_once: bool = False) -> None:
        self.settings, self.now, self.at_once = settings, now, at_once
        self._known: dict[str, str | GoldsmithError] = {}
        self._http = RegistryHttp(settings)

    def digest(self, reference: str) -> str:
        """The digest that `reference`, a tag, names now. Raises NotFoundError where there is none, or OutsideError."""
        if reference not in self._known:
            try:
                self._known[reference] = self._asked(reference)
            except GoldsmithError as error:
                self._known[reference] = error
        found = self._known[reference]
        if isinstance(found, GoldsmithError):
            raise found
        return found

    def _asked(self, reference: str) -> str:
        host = place_of(reference)[0]
        if not self.at_once and (quiet := self._quiet().get(host)):
            raise OutsideError(f"{host} asks not to be queried until {quiet:%Y-%m-%d %H:%M} UTC", hint="ask again then")
        answer = self._http.head(reference)
        self._mind(host, answer.headers, answer.status_code)
        return _digest_in(answer, reference, host)

    def _mind(self, host: str, headers: Mapping[str, str], status: int) -> None:
        """Keep until when a host wants to be left alone, if its answer says so."""
        seconds = rest_wanted(headers, self.now) if status in (TOO_MANY, UNAVAILABLE) else spent(headers)
        if status == TOO_MANY and not seconds:
            seconds = timedelta(minutes=1)
        if seconds:
            quiet = {**self._quiet(), host: self.now + min(seconds, LONGEST_QUIET)}
            write_atomically(self._file, json.dumps({name: at.isoformat() for name, at in quiet.items()}))

    def _quiet(self) -> dict[str, datetime]:
        """Until when hosts want to be left alone; what lies further ahead than any may ask for was another clock's."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            said = {name: datetime.fromisoformat(at) for name, at in json.loads(self._file.read_text()).items()}
            return {name: at for name, at in said.items() if self.now < at <= self.now + LONGEST_QUIET}
        return {}

    @property
    def _file(self) -> Path:
        return self.settings.state_dir / "feeds" / "quiet-registries.json"


def require_askable(base: str, digest: str, of: str) -> None:
    """Raise OutsideError unless what an image, `of`, says of its base is a reference and a digest.

    Whoever made it does not choose what is asked on this machine, unless it is here itself.
    """
    try:
        Base(image=base)
    except ValueError:
        raise MalformedError(f"{base[:200]!r} is not a reference") from None
    if not re.fullmatch(DIGEST, digest):
        raise MalformedError(f"it is said to have been {digest[:200]!r}, which is not a digest")
    host = place_of(base)[0]
    if is_loopback(host) and host != place_of(of)[0]:
        raise OutsideError(f"{host} is this machine, from which {of} does not come")


def rest_wanted(headers: Mapping[str, str], now: datetime) -> timedelta:
    """How long an answer asks to be left alone: Retry-After in seconds or as a date; zero where it does not."""
    said = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", said):
        return timedelta(seconds=int(said))
    at = header_date(said)
    return max(at - now, timedelta(0)) if at else timedelta(0)


def spent(headers: Mapping[str, str]) -> timedelta:
    """How long to leave a registry alone whose answer says that nothing of the budget remains; else zero."""
    told = f"{headers.get('RateLimit', '')};{headers.get('RateLimit-Remaining', '')}"
    left = re.search(r"\br=([0-9]{1,9})", told) or re.match(r"[^;]*;\s*([0-9]{1,9})", told)
    if left is None or int(left[1]):
        return timedelta(0)
    reset = re.search(r"\bt=([0-9]{1,9})", told) or re.match(r"([0-9]{1,9})", headers.get("RateLimit-Reset", ""))
    window = re.search(r"\bw=([0-9]{1,9})", told)
    seconds = reset or window
    return timedelta(seconds=int(seconds[1])) if seconds else timedelta(minutes=1)


def _digest_in(answer: requests.Response, reference: str, host: str) -> str:
    status = answer.status_code
    if status == NOT_FOUND:
        raise NotFoundError(f"{reference} is not in the registry any more")
    if status in (UNAUTHORIZED, FORBIDDEN):
        raise OutsideError(f"{host} does not allow access to {reference}", hint=f"log in with `docker login {host}`")
    if status == TOO_MANY:
        raise OutsideError(
            f"{host} says that it was queried too often", hint="it is queried again later; log in for a higher limit"
        )
    if status != OK:
        raise OutsideError(f"{host} answers {status} for {reference}")
    digest = answer.headers.get("Docker-Content-Digest", "")
    if not re.fullmatch(DIGEST, digest):
        raise MalformedError(f"{host} tells no digest of {reference} by HEAD")
    return digest
