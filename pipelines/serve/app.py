"""Edge: what `serve` answers over HTTP. Read-only except for webhooks, which must be signed and are accepted once.

Who looks at the page is told by server-sent events when the state is another.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from datetime import datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from standardwebhooks.webhooks import Webhook
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hardening.foundation.errors import GoldsmithError
from hardening.foundation.limits import SERVE_STREAM_SECONDS, SERVE_STREAMS, WEBHOOK_BYTES, WEBHOOK_ID, WEBHOOK_SECONDS
from images.ledger import Ledger
from pipelines.serve.live import LOOK_SECONDS, LivePage
from pipelines.serve.moments import TriggerKind
from pipelines.serve.runner import Runner

HOOKS = "/hooks"
BEATS = 5  # looks at the state after which a stream says something, though nothing changed
HEADERS = {
    "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}  # fmt: skip


class Answers:
    """What each path answers. `webhook` is None where no secret is set: then none is accepted.

    `leaving` is set when the process is to end: streams would else hold it.
    """

    def __init__(
        self, ledger: Ledger, runner: Runner, webhook: Webhook | None, metrics: Callable[[], str],
        now: Callable[[], datetime], live: LivePage, leaving: threading.Event,
    ) -> None:  # fmt: skip
        self._ledger = ledger
        self._runner = runner
        self._webhook = webhook
        self._metrics = metrics
        self._now = now
        self._live = live
        self._leaving = leaving
        self._streams = 0

    async def page(self, request: Request) -> Response:  # noqa: ARG002
        """The report of the state as it is."""
        try:
            shown = await run_in_threadpool(self._live.page)
        except GoldsmithError as error:
            return PlainTextResponse(f"{error.message}\n", status_code=503, headers=HEADERS)
        policy = {"Content-Security-Policy": f"{self._live.policy}; frame-ancestors 'none'"}
        return HTMLResponse(shown.html, headers=HEADERS | policy)

    async def icon(self, request: Request) -> Response:  # noqa: ARG002
        """Nothing: browsers ask for it, and would log an error."""
        return Response(status_code=204)

    async def events(self, request: Request) -> Response:  # noqa: ARG002
        """Server-sent events: `state` with the stamp of the state, when it is another and now and then."""
        if self._streams >= SERVE_STREAMS.most:
            return _refused(503, f"more than {SERVE_STREAMS}")
        return StreamingResponse(self._told(), media_type="text/event-stream", headers=HEADERS)

    async def _told(self) -> AsyncIterator[str]:
        if self._streams >= SERVE_STREAMS.most:
            return
        self._streams += 1
        try:
            until, last, quiet = time.monotonic() + SERVE_STREAM_SECONDS.most, "", 0
            while not self._leaving.is_set() and time.monotonic() < until:
                stamp = await self._stamp()
                quiet = 0 if stamp != last else quiet + 1
                if stamp and quiet % BEATS == 0:
                    yield f"event: state\ndata: {stamp}\n\n"
                last = stamp
                for _ in range(LOOK_SECONDS * 4):  # who is asked to end does not wait for us
                    if not self._leaving.is_set():
                        await asyncio.sleep(0.25)
        finally:
            self._streams -= 1

    async def _stamp(self) -> str:
        """Empty where the ledger does not answer."""
        try:
            return await run_in_threadpool(self._live.stamp)
        except GoldsmithError:
            return ""

    async def healthz(self, request: Request) -> Response:  # noqa: ARG002
        """200 where work is looked for and the ledger answers, else 503; and what runs, waits and was done."""
        try:
            told = await run_in_threadpool(self._health)
        except GoldsmithError as error:
            return JSONResponse({"status": "failing", "reason": error.message}, status_code=503)
        return JSONResponse(told, status_code=200 if told["status"] == "ok" else 503)

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002
        """Prometheus' text format."""
        try:
            return PlainTextResponse(await run_in_threadpool(self._metrics))
        except GoldsmithError as error:
            return PlainTextResponse(f"# {error.message}\n", status_code=503)

    async def hooks(self, request: Request) -> Response:
        """202 where the call is signed and will be served, 200 where it was taken before."""
        if self._webhook is None:
            return _refused(404, "no serve.webhook_secret_file is set")
        try:
            async with asyncio.timeout(WEBHOOK_SECONDS.most):
                body = await _body(request)
        except (TimeoutError, ClientDisconnect):
            return _refused(408, f"the call took longer than {WEBHOOK_SECONDS.most} s")
        if body is None:
            return _refused(413, f"more than {WEBHOOK_BYTES.most:,} bytes")
        if not self._is_signed(body, request):
            return _refused(401, "not signed by our secret within the last five minutes, as Standard Webhooks say")
        name = f"{TriggerKind.WEBHOOK} {request.headers['webhook-id']}"
        try:
            new = await run_in_threadpool(self._ledger.add_trigger, name, TriggerKind.WEBHOOK, self._now())
        except GoldsmithError as error:
            return _refused(503, error.message)
        self._runner.wake()
        return JSONResponse({"status": "accepted" if new else "known"}, status_code=202 if new else 200)

    def _is_signed(self, body: bytes, request: Request) -> bool:
        if self._webhook is None or len(request.headers.get("webhook-id", "")) > WEBHOOK_ID.most:
            return False
        try:
            self._webhook.verify(body, dict(request.headers), json_parse=False)
        except Exception:  # what a stranger sends may break the library at any point: nothing is signed then
            return False
        return True

    def _health(self) -> dict[str, Any]:
        waiting, last, running = self._ledger.waiting_triggers(), self._runner.last_runs(), self._runner.running
        return {
            "status": "ok" if self._runner.lives and not self._runner.failure else "failing",
            "running": running and {"task": running.task, "since": running.since.isoformat()},
            "waiting": len(waiting),
            "last": {
                kind: {
                    "at": one.at.isoformat(),
                    "done_at": one.done_at and one.done_at.isoformat(),
                    "outcome": one.outcome,
                }
                for kind, one in sorted(last.items())
            },
        }


class OwnHosts:
    """Answers calls for this host alone: by an address, as localhost or by one of its `names`.

    Else a page of a stranger whose name leads here (DNS rebinding) could read, in the browser of somebody who reaches
    us, what we answer. Calls of /hooks are signed, and come by whatever name their sender knows.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or refuse it."""
        app = self._app
        if scope["type"] == "http" and scope["path"] != HOOKS and not self._is_ours(Headers(scope=scope)):
            app = _refused(421, "called by a name that is not ours; serve.hosts lists them")
        await app(scope, receive, send)

    def _is_ours(self, headers: Headers) -> bool:
        try:
            (host,) = headers.getlist("host")
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def application(answers: Answers, hosts: Collection[str] = ()) -> Starlette:
    """The paths, for calls by an address, as localhost or by the names of `hosts`."""
    return Starlette(
        middleware=[Middleware(OwnHosts, names=hosts)],
        routes=[
            Route("/", answers.page),
            Route("/events", answers.events),
            Route("/favicon.ico", answers.icon),
            Route("/healthz", answers.healthz),
            Route("/metrics", answers.metrics),
            Route(HOOKS, answers.hooks, methods=["POST"]),
        ],
    )


async def _body(request: Request) -> bytes | None:
    """All that was sent; None where it is too much."""
    parts, size = list[bytes](), 0
    async for part in request.stream():
        size += len(part)
        if size > WEBHOOK_BYTES.most:
            return None
        parts.append(part)
    return b"".join(parts)


def _refused(status: int, why: str) -> Response:
    return JSONResponse({"status": "refused", "reason": why}, status_code=status)
