"""Requests to a registry by HTTP, with its login: the head of a tag, manifests, and small blobs. Edge.

skopeo, which everything else goes through, knows no HEAD, and is a process for each question.
"""

from __future__ import annotations

import os
import re
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

from hardening.foundation.addresses import HUB_HOST, is_loopback, is_safe
from hardening.foundation.asking import ask_within
from hardening.foundation.errors import LateError, MalformedError, OutsideError
from hardening.foundation.limits import HEAD_SECONDS, MANIFEST_BYTES, TOKEN_BYTES, Limit, parse_json, read_all
from hardening.foundation.settings import Settings
from images.registry.answers import MISSING, NotFoundError
from images.registry.login import auth_config
from images.registry.references import place_of, speaks_plain_http

if TYPE_CHECKING:
    import requests
    from requests.adapters import HTTPAdapter

Answer = TypeVar("Answer")
KINDS = ", ".join((
    "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json",
))  # fmt: skip
OURS = {"Accept": KINDS, "Accept-Encoding": "identity", "User-Agent": "goldsmith"}
BUNDLES = "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"
CONNECT_SECONDS, READ_SECONDS, AGAIN_SECONDS = 5, 15, 60
OK, UNAUTHORIZED, NOT_FOUND = 200, 401, 404
_asked_now: ContextVar[list[str]] = ContextVar("asked_now")
"""The hosts that the question of this thread has asked, the last of which has not answered yet."""


class RegistryHttp:
    """Sends requests to registries. A host that failed is not queried for a minute. No redirect is followed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._failed: dict[str, tuple[float, str]] = {}
        self._logins: dict[str, str] = {}
        self._proxies: dict[str, dict[str, str]] = {}

    def head(self, reference: str) -> requests.Response:
        """The answer to HEAD of a reference, whatever its status. Raises OutsideError where there is none."""
        return self._within(lambda: self._asked("HEAD", reference), reference)

    def manifest(self, reference: str) -> str | None:
        """The text of a manifest, not hashed yet; None where one request is not enough: another way has to be tried.

        Raises NotFoundError where the registry itself says that it is not there.
        """
        with suppress(OutsideError, UnicodeDecodeError):
            status, said = self._within(lambda: self._got("manifests", reference, MANIFEST_BYTES), reference)
            if status == OK:
                return said.decode()
            if status == NOT_FOUND and MISSING.search(said.decode(errors="replace")):
                raise NotFoundError("not in the registry", evidence=said.decode(errors="replace")[:1000])
        return None

    def blob(self, reference: str, limit: Limit) -> bytes | None:
        """The blob `repository@digest`, not hashed yet; None where another way has to be tried, as where it is larger
        than that, or the registry keeps its blobs elsewhere.
        """
        with suppress(OutsideError):
            status, said = self._within(lambda: self._got("blobs", reference, limit), reference)
            return said if status == OK else None
        return None

    def _got(self, kind: str, reference: str, limit: Limit) -> tuple[int, bytes]:
        with self._asked("GET", reference, kind) as answer:
            return answer.status_code, _read(answer, limit, reference)

    def _asked(self, method: str, reference: str, kind: str = "manifests") -> requests.Response:
        """The answer, asked again with a token or login where the registry wants one."""
        host, repository, wanted = place_of(reference)
        scheme = "http" if speaks_plain_http(self.settings, reference) else "https"
        address = f"{scheme}://{host}/v2/{repository}/{kind}/{wanted}"
        known = self._logins.get(f"{host}/{repository}") or self._logins.get(host, "")
        answer = self._request(method, address, known)
        wants = answer.headers.get("WWW-Authenticate", "")
        if answer.status_code != UNAUTHORIZED or not wants:
            return answer
        auth = self._auth(wants, reference, address)
        if not auth:
            return answer
        token = wants.lower().startswith("bearer")
        self._logins[f"{host}/{repository}" if token else host] = auth
        answer.close()
        return self._request(method, address, auth)

    def _auth(self, challenge: str, reference: str, address: str) -> str:
        """The header that answers the challenge which came from an address of a registry; empty where none does."""
        kind, _, rest = challenge.partition(" ")
        login = _login(self.settings, reference)
        if kind.lower() == "bearer":
            return f"Bearer {self._token(rest, reference, address, login)}"
        return login if kind.lower() == "basic" else ""

    def _token(self, challenge: str, reference: str, address: str, login: str) -> str:
        """A token to pull with, and for nothing else, from where the registry says."""
        told = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = told.get("realm", "")
        if not is_safe(realm, address):
            raise OutsideError(
                f"{reference}: the registry wants a login at {realm[:200]!r}, which is not a safe address"
            )
        asked = {"service": told.get("service", ""), "scope": f"repository:{place_of(reference)[1]}:pull"}
        with self._request("GET", realm, login, asked) as answer:
            if answer.status_code != OK:
                raise OutsideError(f"{realm} gives no token for {reference}: it answers {answer.status_code}")
            text = _read(answer, TOKEN_BYTES, realm)
        found = parse_json(text, realm)
        token = (found.get("token") or found.get("access_token")) if isinstance(found, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise MalformedError(f"{realm} gives no token for {reference}")
        return token

    def _request(
        self, method: str, address: str, auth: str, params: Mapping[str, str] | None = None
    ) -> requests.Response:
        """By an adapter of requests: its sessions take half as long again, for cookies, hooks and ~/.netrc."""
        import requests

        host = address.partition("//")[2].partition("/")[0]
        self._require_well(host)
        _asked_now.get([]).append(host)
        try:
            asked = requests.PreparedRequest()
            asked.prepare_method(method)
            asked.url = address  # which we made, so that it need not be taken to pieces
            if params:
                asked.prepare_url(address, params)
            asked.prepare_headers({**OURS, "Authorization": auth} if auth else OURS)
            answer = self._adapter.send(
                asked, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS), verify=self._authorities(host),
                proxies=self._proxies_to(host, address),
            )  # fmt: skip
            if method == "HEAD":
                answer.raw.drain_conn()  # which keeps it
        except (requests.RequestException, OSError, ValueError) as error:
            raise self._failure(host, f"{address} does not answer: {type(error).__name__}") from None
        return answer

    @cached_property
    def _adapter(self) -> HTTPAdapter:
        """What keeps the connections."""
        from requests.adapters import HTTPAdapter

        return HTTPAdapter()

    def _authorities(self, host: str) -> str | bool:
        """The file of the authorities that count, or True for those that come with requests."""
        named = next(filter(None, map(os.environ.get, BUNDLES)), "") if not is_loopback(host) else ""
        return str(self.settings.registry.ca_file or named) or True

    def _proxies_to(self, host: str, address: str) -> dict[str, str]:
        """The proxies of the environment, which loopback has not."""
        from requests.utils import get_environ_proxies

        if host not in self._proxies:
            self._proxies[host] = {} if is_loopback(host) else get_environ_proxies(address)
        return self._proxies[host]

    def _require_well(self, host: str) -> None:
        """Raise OutsideError for a host that failed lately."""
        at, told = self._failed.get(host, (-AGAIN_SECONDS, ""))
        if time.monotonic() - at < AGAIN_SECONDS:
            raise OutsideError(told)

    def _failure(self, host: str, told: str, kind: type[OutsideError] = OutsideError) -> OutsideError:
        self._failed[host] = time.monotonic(), told
        return kind(told)

    def _within(self, ask: Callable[[], Answer], reference: str) -> Answer:
        """What `ask` answers. Raises LateError for a host that sends its answer byte by byte, beyond HEAD_SECONDS: the
        registry, or who gives tokens for it.
        """
        asked = [place_of(reference)[0]]
        self._require_well(asked[0])

        def telling() -> Answer:
            _asked_now.set(asked)
            return ask()

        try:
            return ask_within(telling, timedelta(seconds=HEAD_SECONDS.most))
        except LateError:
            raise self._failure(asked[-1], f"{asked[-1]} exceeds {HEAD_SECONDS}", LateError) from None


def _read(answer: requests.Response, limit: Limit, what: str) -> bytes:
    from urllib3.exceptions import HTTPError

    try:
        return read_all(cast("IO[bytes]", answer.raw), limit, what)
    except (HTTPError, OSError) as error:
        raise OutsideError(f"{what} did not come whole: {type(error).__name__}") from None


def _login(settings: Settings, reference: str) -> str:
    """The login of the registry of `reference`, as skopeo finds it: ours, podman's file, or docker's with helpers."""
    from docker import auth
    from docker.errors import DockerException

    found: Any = auth_config(settings, reference)
    host = place_of(reference)[0]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    places = [os.environ.get("REGISTRY_AUTH_FILE"), f"{runtime}/containers/auth.json" if runtime else None]
    for place in (*(one for one in places if one and Path(one).is_file()), None):
        with suppress(DockerException, ValueError):  # such as an entry without a login
            found = found or auth.load_config(place).resolve_authconfig(None if host == HUB_HOST else host)
    said = {str(key).lower(): value for key, value in (found or {}).items()}  # helpers spell them otherwise
    name, password = said.get("username"), said.get("password")
    return f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}" if name and password else ""
