"""Requests of clients in this very process, answered without a socket; while some are to be late, over the wire."""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

BAD = 400
_here: dict[str, Any] = {}  # the emulators of this process by the beginning of their URL


def serve(url: str, front: Any) -> None:
    """From now on `front` answers what clients of this process ask at `url`."""
    _hook()
    _here[f"{url}/"] = front


def end(url: str) -> None:
    """Nobody answers there any more."""
    del _here[f"{url}/"]


@cache
def _hook() -> None:
    """Let every session that is made from now on ask here before it opens a connection, as those do that moto mocks."""
    from botocore.handlers import BUILTIN_HANDLERS

    BUILTIN_HANDLERS.append(("before-send", answer))


def answer(request: Any, **_: Any) -> Any:
    """The answer to a request of botocore's; None: over the wire, as only a real client knows when it gives up."""
    front = next((one for url, one in _here.items() if request.url.startswith(url)), None)
    if front is None or any(rule.kind == "delay" for rule in front.world.faults.rules):
        return None
    from botocore.awsrequest import AWSResponse
    from botocore.compat import HTTPHeaders
    from botocore.exceptions import ConnectionClosedError
    from moto.core.botocore_stubber import MockRawResponse

    try:
        status, headers, body = asked(front, request.method, request.url, request.headers, request.body)
    except ConnectionResetError as error:  # what botocore makes of a connection that is cut
        raise ConnectionClosedError(error=error, request=request, endpoint_url=request.url) from None
    shown = HTTPHeaders()
    for name, value in (*headers, ("Date", front.date())):
        shown[name] = value
    return AWSResponse(request.url, status, shown, MockRawResponse(body))


def front_at(url: str) -> Any:
    """The emulator of this process that answers at `url`; None: it is another process, or none."""
    return _here.get(f"{url}/")


def steered(url: str, body: bytes | None) -> bytes | None:
    """What the emulator says to whoever steers it; None where it is another process."""
    front = next((one for begin, one in _here.items() if url.startswith(begin)), None)
    if front is None:
        return None
    status, _, said = asked(front, "GET" if body is None else "POST", url, {}, body)
    if status >= BAD:
        raise OSError(f"{url}: {status} {said.decode()}")
    return said


def asked(front: Any, method: str, url: str, headers: Any, body: Any) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of an answer."""
    said: list[Any] = []

    def start(status: str, headers: Iterable[tuple[str, str]]) -> None:
        said[:] = [int(status[:3]), list(headers)]

    answered = b"".join(front(environ(method, url, headers, body), start))
    return said[0], said[1], answered


def environ(method: str, address: str, headers: Any, body: Any) -> dict[str, Any]:
    """What a WSGI server would make of a request."""
    body = body if body is not None else b""
    body = body.read() if hasattr(body, "read") else body
    body = body.encode() if isinstance(body, str) else bytes(body)
    url = urlsplit(address)
    made = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(url.path).encode().decode("latin-1"),
        "QUERY_STRING": url.query,
        "REQUEST_URI": address.removeprefix(f"{url.scheme}://{url.netloc}"),
        "SERVER_NAME": url.hostname,
        "SERVER_PORT": str(url.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": url.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "HTTP_HOST": url.netloc,
    }
    made["RAW_URI"] = made["REQUEST_URI"]
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        made[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value.decode() if isinstance(value, bytes) else value
    return {**made, "CONTENT_LENGTH": str(len(body))}
