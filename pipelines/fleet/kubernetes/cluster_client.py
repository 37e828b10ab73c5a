"""Edge: asks the API server of a cluster: one object, a list page by page, a patch. Redirects are never followed.

Of a client library this needs three requests; each of those that exist reads the environment, runs what a kubeconfig
names and reads answers of any size (docs/decisions/0017).
"""

from __future__ import annotations

import json
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import urllib3

from hardening.foundation.errors import ContentError, MalformedError, OutsideError
from hardening.foundation.limits import (
    CHUNK,
    JSON_BYTES,
    KUBERNETES_LIST,
    KUBERNETES_PAGES,
    KUBERNETES_SECONDS,
    Meter,
    parse_json,
)
from hardening.foundation.retrying import retrying
from pipelines.fleet.kubernetes.kubeconfig import ClusterAccess

Json = dict[str, Any]
CONNECT_SECONDS, READ_SECONDS = 5, 30
PAGE = 50  # objects: each may have a megabyte, and an answer at most json.bytes
TRIES = 3
BUSY = (429, 500, 502, 503, 504)
UNKNOWN, GONE, CONFLICT, EXPIRED = 401, 404, 409, 410
OK = range(200, 300)
MANAGER = "goldsmith"
STRATEGIC = "application/strategic-merge-patch+json"
DELETE = {"apiVersion": "v1", "kind": "DeleteOptions"}
WHY = {
    UNKNOWN: "the cluster does not know these credentials: give the kubeconfig a token that has not ended",
    403: "the cluster denies it: ./goldsmith fleet.render FLEET prints the role that it needs",
    404: "it is not there",
}


class ClusterError(OutsideError):
    """The API server answered with an error; `status` is its HTTP status."""

    def __init__(self, status: int, message: str, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class ClusterClient:
    """One cluster. Reads are retried for `retry_for`; a patch is not: the caller must read again first.

    `way_in` reads how it is reached: again where the cluster no longer knows the token, which lasts for an hour or so.
    """

    def __init__(self, way_in: Callable[[], ClusterAccess], retry_for: timedelta = timedelta(minutes=2)) -> None:
        self._way_in, self._retry_for = way_in, retry_for
        self._enter(way_in())

    def _enter(self, access: ClusterAccess) -> None:
        self.access = access
        self._headers = {"Accept": "application/json", "User-Agent": MANAGER}
        if access.token:
            self._headers["Authorization"] = f"Bearer {access.token}"
        tls: dict[str, Any] = {}
        if access.server.startswith("https://"):
            tls["ssl_context"] = _context(access)
        if access.server_name:
            tls |= {"server_hostname": access.server_name, "assert_hostname": access.server_name}
        times = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        self._pool = urllib3.PoolManager(timeout=times, retries=False, **tls)

    def get(self, path: str, meter: Meter | None = None, **asked: str) -> Json:
        """One object, or one page, whose bytes the meter counts. Raises ClusterError."""

        def ask() -> tuple[int, Json]:
            status, answer = self._ask("GET", path, asked, None, meter)
            if status in BUSY:
                raise _error(status, answer, f"GET {path}")
            return status, answer

        return _good(*retrying(ask, within=self._retry_for, attempts=TRIES), f"GET {path}")

    def pages(self, path: str, **asked: str) -> Iterator[Json]:
        """All objects of a list. One that changed so much while it was read that the rest is lost is read again."""
        try:
            yield from self._listed(path, asked)
        except ClusterError as error:
            if error.status != EXPIRED:
                raise
            yield from self._listed(path, asked)

    def _listed(self, path: str, asked: Mapping[str, str]) -> list[Json]:
        found, going_on, what = list[Json](), "", f"the list {path}"
        size, pages = Meter(KUBERNETES_LIST, what), Meter(KUBERNETES_PAGES, what)
        while True:
            more = {"continue": going_on} if going_on else {}
            page = self.get(path, size, limit=str(PAGE), **asked, **more)
            pages.add(1)
            items = page.get("items") or []
            if not isinstance(items, list) or not all(isinstance(one, dict) for one in items):
                raise OutsideError(f"{self.access.server}{path}: the answer is not a list of objects")
            for at, one in enumerate(items):
                if not isinstance(meta := one.get("metadata"), dict) or not isinstance(meta.get("name"), str):
                    raise MalformedError(f"{self.access.server}{path}: items[{at}] has no metadata.name")
            found += map(_slim, items)
            before, going_on = going_on, str((page.get("metadata") or {}).get("continue") or "")
            if not going_on:
                return found
            if going_on == before:
                raise OutsideError(f"{self.access.server}{path}: its pages have no end")

    def patch(self, path: str, changes: Json) -> Json:
        """Change an object as `changes` (a strategic merge patch) says, unless it has another resourceVersion by now.

        Raises ClusterError, with the status CONFLICT for one that has.
        """
        asked = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        return _good(*self._ask("PATCH", path, asked, changes), f"PATCH {path}")

    def delete(self, path: str, uid: str) -> None:
        """Remove this very object; one that is gone, or that another has taken the place of, is no error."""
        status, answer = self._ask("DELETE", path, {}, {**DELETE, "preconditions": {"uid": uid}})
        if status not in (GONE, CONFLICT):
            _good(status, answer, f"DELETE {path}")

    def _ask(
        self, verb: str, path: str, asked: Mapping[str, str], body: Json | None = None, meter: Meter | None = None
    ) -> tuple[int, Json]:
        """The status and the JSON of an answer, by a newer token where there is one. Raises OutsideError."""
        status, answer = self._answer(verb, path, asked, body, meter)
        if status == UNKNOWN and (now := self._way_in()) != self.access:
            self._enter(now)
            return self._answer(verb, path, asked, body, meter)
        return status, answer

    def _answer(
        self, verb: str, path: str, asked: Mapping[str, str], body: Json | None, meter: Meter | None
    ) -> tuple[int, Json]:
        url = f"{self.access.server}{path}?{urlencode(sorted(asked.items()))}"
        kind = STRATEGIC if verb == "PATCH" else "application/json"
        headers = self._headers | ({"Content-Type": kind} if body is not None else {})
        data = None if body is None else json.dumps(body).encode()
        try:
            answer = self._pool.request(
                verb, url, body=data, headers=headers, preload_content=False, redirect=False, retries=False
            )
            try:
                text = _bounded(answer, f"{self.access.server}{path}")
            except BaseException:
                answer.close()  # the rest of it would be taken for the next answer
                raise
            answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise OutsideError(f"{self.access.server} does not answer: {_said(error)}") from None
        if meter:
            meter.add(len(text))
        return int(answer.status), _object(text, answer.status)


def _slim(one: Json) -> Json:
    """An object without what is never read here and makes most of its bytes: who last set which of its fields."""
    metadata = one.get("metadata")
    if isinstance(metadata, dict) and isinstance(fields := metadata.get("managedFields"), list):
        metadata["managedFields"] = [{"manager": each.get("manager")} for each in fields if isinstance(each, dict)]
    return one


def _context(access: ClusterAccess) -> ssl.SSLContext:
    """TLS that trusts the cluster's own authority alone, where the kubeconfig has one. Raises ContentError."""
    try:
        context = ssl.create_default_context(cadata=access.authority or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Many clusters' certificates lack extensions that RFC 5280 asks for; chain, dates and name are verified.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if access.certificate:
            with tempfile.NamedTemporaryFile("w", prefix="goldsmith-") as file:  # 0600; ssl reads files alone
                file.write(f"{access.certificate}\n{access.key}\n")
                file.flush()
                context.load_cert_chain(file.name, password=lambda: "")  # an encrypted key asks nobody
    except (ssl.SSLError, ValueError, OSError) as error:
        raise ContentError(f"the certificates of the context {access.name} cannot be used: {error}") from None
    return context


def _bounded(answer: urllib3.BaseHTTPResponse, what: str) -> bytes:
    """All of an answer; what is too long or comes too slowly is refused."""
    began, data = time.monotonic(), bytearray()
    while chunk := answer.read1(CHUNK):  # what is there: a slow server is noticed between two of them
        data += chunk
        JSON_BYTES.require(len(data), f"the answer of {what}")
        KUBERNETES_SECONDS.require(int(time.monotonic() - began), f"the answer of {what}")
    return bytes(data)


def _object(text: bytes, status: int) -> Json:
    """The JSON object of an answer; of an error that is none, its first characters as its message."""
    try:
        found = parse_json(text or b"{}", "an API server's answer")
    except OutsideError:
        if status in OK:
            raise
        return {"message": text[:200].decode(errors="replace")}
    if not isinstance(found, dict):
        raise OutsideError("an API server's answer is not a JSON object")
    return found


def _good(status: int, answer: Json, what: str) -> Json:
    if status not in OK:
        raise _error(status, answer, what)
    return answer


def _error(status: int, answer: Json, what: str) -> ClusterError:
    said = str(answer.get("message") or answer.get("reason") or f"status {status}")[:500]
    return ClusterError(status, f"{what}: {said}", hint=WHY.get(status, ""))


def _said(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split())[:300]
