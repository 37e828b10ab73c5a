"""What a tag names now, asked by HEAD: no manifest is fetched, and a registry is left alone as it asks for. Edge.

skopeo, which everything else goes through, knows no HEAD, and a GET of a manifest counts as a pull at public ones:
https://docs.docker.com/docker-hub/usage/pulls/. A registry may answer 429, Retry-After and how much of a budget remains
(RateLimit-Remaining, or as https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ has it).
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from hardening.foundation.addresses import is_loopback, is_safe
from hardening.foundation.errors import GoldsmithError, LateError, MalformedError, OutsideError
from hardening.foundation.hashing import DIGEST
from hardening.foundation.limits import HEAD_SECONDS, TOKEN_BYTES, parse_json, read_all
from hardening.foundation.settings import Settings
from images.model import Base
from images.packages.index import write_atomically
from images.registry.answers import NotFoundError
from images.registry.client import speaks_plain_http, split
from images.registry.login import auth_config

if TYPE_CHECKING:
    import requests
    from requests.auth import AuthBase

KINDS = ", ".join((
    "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json",
))  # fmt: skip
OURS = {"Accept": KINDS, "Accept-Encoding": "identity", "User-Agent": "goldsmith"}
CONNECT_SECONDS, READ_SECONDS = 5, 15
HUB, HUB_HOST = "docker.io", "registry-1.docker.io"
LONGEST_QUIET = timedelta(days=1)
"""However long a registry asks to be left alone: by then it is asked again."""
OK, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_MANY, UNAVAILABLE = 200, 401, 403, 404, 429, 503


class Heads:
    """What tags name now. Each is asked once, and a host that failed or wants to be left alone is not asked again.

    `now` is the flow's one clock reading. Until when a host wants to be left alone is kept for the next process;
    `at_once` asks it all the same, for a person.
    """

    def __init__(self, settings: Settings, now: datetime, *, at_once: bool = False) -> None:
        self.settings, self.now, self.at_once = settings, now, at_once
        self._known: dict[str, str | GoldsmithError] = {}
        self._failed: dict[str, GoldsmithError] = {}

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
        host, repository, tag = place_of(reference)
        if known := self._failed.get(host):
            raise known
        if not self.at_once and (quiet := self._quiet().get(host)):
            raise OutsideError(f"{host} asks to be left alone until {quiet:%Y-%m-%d %H:%M} UTC", hint="ask again then")
        scheme = "http" if speaks_plain_http(self.settings, reference) else "https"
        try:
            answer = _within(partial(self._head, f"{scheme}://{host}/v2/{repository}/manifests/{tag}", reference), host)
        except LateError as error:
            self._failed[host] = error
            raise
        self._mind(host, answer.headers, answer.status_code)
        return _digest_in(answer, reference, host)

    def _head(self, address: str, reference: str) -> requests.Response:
        """The answer, asked again with a token or login where the registry wants one."""
        answer = self._request("HEAD", address, None)
        wants = answer.headers.get("WWW-Authenticate", "")
        if answer.status_code != UNAUTHORIZED or not wants:
            return answer
        kind, _, rest = wants.partition(" ")
        login = _login(self.settings, reference)
        if kind.lower() == "bearer":
            return self._request("HEAD", address, _sending(f"Bearer {self._token(rest, reference, login)}"))
        return self._request("HEAD", address, login) if kind.lower() == "basic" and login else answer

    def _token(self, challenge: str, reference: str, login: AuthBase | None) -> str:
        """A token to pull with, and for nothing else, from where the registry says."""
        told = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = told.get("realm", "")
        if not is_safe(realm):
            raise OutsideError(
                f"{reference}: the registry wants a login at {realm[:200]!r}, which is not a safe address"
            )
        asked = {"service": told.get("service", ""), "scope": f"repository:{place_of(reference)[1]}:pull"}
        with self._request("GET", realm, login, params=asked) as answer:
            if answer.status_code != OK:
                raise OutsideError(f"{realm} gives no token for {reference}: it answers {answer.status_code}")
            text = _read(answer, realm)
        found = parse_json(text, realm)
        token = (found.get("token") or found.get("access_token")) if isinstance(found, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise MalformedError(f"{realm} gives no token for {reference}")
        return token

    def _request(self, method: str, address: str, auth: AuthBase | None, **more: Any) -> requests.Response:
        import requests

        host, authority = address.partition("//")[2].partition("/")[0], self.settings.registry.ca_file
        if known := self._failed.get(host):
            raise known
        try:
            return requests.request(
                method, address, headers=OURS, auth=auth or _sending(""),
                timeout=(CONNECT_SECONDS, READ_SECONDS), allow_redirects=False, stream=method == "GET",
                verify=str(authority) if authority else True, **more,
            )  # fmt: skip
        except (requests.RequestException, OSError, ValueError) as error:
            self._failed[host] = OutsideError(f"{address} does not answer: {type(error).__name__}")
            raise self._failed[host] from None

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


def place_of(reference: str) -> tuple[str, str, str]:
    """Host, repository and tag (or digest) of a reference, as Docker reads it: without a host it is Docker Hub's."""
    repository, wanted = split(reference)
    first, slash, rest = repository.partition("/")
    host, name = (
        (first, rest) if slash and ("." in first or ":" in first or first == "localhost") else (HUB, repository)
    )
    if host == HUB:
        return HUB_HOST, name if "/" in name else f"library/{name}", wanted or "latest"
    return host, name, wanted or "latest"


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
    try:
        at = parsedate_to_datetime(said)
    except (ValueError, TypeError, OverflowError):
        return timedelta(0)
    return max((at if at.tzinfo else at.replace(tzinfo=UTC)) - now, timedelta(0))


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
        raise OutsideError(f"{host} does not allow to ask for {reference}", hint=f"log in with `docker login {host}`")
    if status == TOO_MANY:
        raise OutsideError(
            f"{host} answers that it was asked too often", hint="it is asked again later; log in for more"
        )
    if status != OK:
        raise OutsideError(f"{host} answers {status} for {reference}")
    digest = answer.headers.get("Docker-Content-Digest", "")
    if not re.fullmatch(DIGEST, digest):
        raise MalformedError(f"{host} tells no digest of {reference} by HEAD")
    return digest


def _within(ask: partial[requests.Response], host: str) -> requests.Response:
    """What `ask` answers. Raises LateError for a host that sends its answer byte by byte, beyond HEAD_SECONDS."""
    answer = Future["requests.Response"]()

    def run() -> None:
        try:
            found = ask()
            found.close()
            answer.set_result(found)
        except BaseException as error:  # raised again by whoever waits
            answer.set_exception(error)

    threading.Thread(target=run, name="registry head", daemon=True).start()
    if not wait([answer], HEAD_SECONDS.most).done:
        raise LateError(f"{host} exceeds {HEAD_SECONDS}")
    return answer.result()


def _read(answer: requests.Response, what: str) -> bytes:
    return read_all(cast("IO[bytes]", answer.raw), TOKEN_BYTES, what)


def _sending(header: str) -> AuthBase:
    """What sends exactly this Authorization: without any, requests would look for a login in ~/.netrc by itself."""
    from requests.auth import AuthBase

    class Sending(AuthBase):
        def __call__(self, asked: Any) -> Any:
            if header:
                asked.headers["Authorization"] = header
            return asked

    return Sending()


def _login(settings: Settings, reference: str) -> AuthBase | None:
    """The login of the registry of `reference`, as skopeo finds it: ours, podman's file, or docker's with helpers."""
    from docker import auth
    from docker.errors import DockerException
    from requests.auth import HTTPBasicAuth

    found: Any = auth_config(settings, reference)
    host = place_of(reference)[0]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    places = [os.environ.get("REGISTRY_AUTH_FILE"), f"{runtime}/containers/auth.json" if runtime else None]
    for place in (*(one for one in places if one and Path(one).is_file()), None):
        with suppress(DockerException):
            found = found or auth.load_config(place).resolve_authconfig(None if host == HUB_HOST else host)
    name, password = (found or {}).get("username"), (found or {}).get("password")
    return HTTPBasicAuth(name, password) if name and password else None
