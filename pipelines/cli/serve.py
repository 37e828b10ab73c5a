"""`serve`: wires the long-running process."""

from __future__ import annotations

import socket
import threading
from base64 import b64decode
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from types import FrameType

import uvicorn
from standardwebhooks.webhooks import Webhook

from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.limits import SERVE_CALLS
from hardening.foundation.locks import is_held, only_one
from hardening.foundation.process import stop_signals
from hardening.foundation.settings import Serve
from images.context import Context
from pipelines.cli.latency import metrics_of, patch_latency
from pipelines.cli.page import content_policy, render_html
from pipelines.cli.report import gather_all
from pipelines.cli.report_exports import as_metrics
from pipelines.fleet.judged_state import judged_state
from pipelines.nightly.model import NIGHT_LOCK
from pipelines.nightly.preflight import require_workable
from pipelines.rollout.notify import unreachable, unreadable
from pipelines.serve.app import Answers, application
from pipelines.serve.deadlines import TimedProtocol
from pipelines.serve.leading import Leadership
from pipelines.serve.live import KeptAnswer, LivePage
from pipelines.serve.metrics import metrics
from pipelines.serve.moments import Schedule
from pipelines.serve.runner import STOP_SECONDS, Runner
from pipelines.wiring import clock, image_context

MEASURED = "90d"  # how long ago a fix came out at most that /metrics counts
MINUTE = 60.0
LEAST = 24  # bytes, as Standard Webhooks ask for


def serve(policy: str = "", context: Context | None = None) -> int:
    """Serve until SIGTERM or SIGINT; exit code 0. `policy` judges in the place of the definitions' own.

    Raises ContentError for settings that cannot be, RefusedError for a policy that may not publish and where another
    `serve` has this state, OutsideError where the address is taken.
    """
    context = context or image_context(policy=policy)
    wanted = context.settings.serve
    _require_settings(context)
    schedule, webhook = Schedule.of(wanted), _webhook(wanted)
    with (
        only_one(context.settings.state_dir / "locks" / "serve.lock", "serve"),
        closing(_bound(wanted.listen)) as bound,
    ):
        leadership = Leadership(context.ledger, context.actor)

        def busy() -> bool:
            return not leadership.leads or is_held(context.settings.state_dir / NIGHT_LOCK)

        runner = Runner(context.ledger, schedule, clock, busy=busy, policy=context.policy)
        judged = KeptAnswer(partial(_judged_metrics, context.policy), MINUTE)

        def told() -> str:
            return metrics(context.ledger, runner) + judged()

        leaving = threading.Event()
        live = LivePage(context.ledger.state_stamp, partial(_page, context.policy), content_policy(live=True))
        answers = Answers(context.ledger, runner, webhook, told, clock, live, leaving)
        server = uvicorn.Server(_config(answers, (*wanted.hosts, wanted.listen.rpartition(":")[0])))
        with _stopped_by_signals(server, leaving), leadership.held(), runner.at_work():
            host, port, *_ = bound.getsockname()
            say(f"serve: the page is http://{host}:{port}/; also /healthz, /metrics{', /hooks' if webhook else ''}")
            server.run([bound])
    return 0


def _require_settings(context: Context) -> None:
    """Raise what nights, or what they tell, would only find out hours later."""
    settings, today = context.settings, context.now.date()
    require_workable(settings, context.policy, today)
    if wrong := [*unreachable(settings.notify), *unreadable(settings)]:
        raise ContentError("; ".join(wrong), file="the settings")
    named = {one.definition.policy for one in replace(context, lenient=True).definitions.values()}
    if not (context.policy or settings.nightly.policy) and not named & set(settings.judging.policies):
        may = ", ".join(settings.judging.policies)
        say(f"note: no image can be published: none names a policy of judging.policies ({may}); a trial needs --policy")


@contextmanager
def _stopped_by_signals(server: uvicorn.Server, leaving: threading.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the server for the block, and nothing else.

    uvicorn, once it has ended, raises them again for the handlers that were there before: these would kill us before
    the night that runs is asked to end.
    """

    def stop(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True
        leaving.set()

    with stop_signals(stop):
        yield


@contextmanager
def _fresh(policy: str) -> Iterator[Context]:
    """A context with policies and fleets as they are now."""
    fresh = replace(image_context(looks=True, policy=policy), lenient=True)
    try:
        yield fresh
    finally:
        fresh.ledger.close()


def _judged_metrics(policy: str) -> str:
    with _fresh(policy) as context:
        return metrics_of(patch_latency(MEASURED, context)) + as_metrics(judged_state(context))


def _page(policy: str, stamp: str) -> str:
    with _fresh(policy) as context:
        return render_html(*gather_all(context), stamp=stamp)


def _config(answers: Answers, hosts: Collection[str] = ()) -> uvicorn.Config:
    return uvicorn.Config(
        application(answers, hosts), http=TimedProtocol, log_level="warning", access_log=False, server_header=False,
        limit_concurrency=SERVE_CALLS.most, timeout_keep_alive=5, timeout_graceful_shutdown=STOP_SECONDS,
        lifespan="off",
    )  # fmt: skip


def _bound(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    try:
        return socket.create_server(
            (host.strip("[]"), int(port)), family=socket.AF_INET6 if "[" in host else socket.AF_INET
        )
    except (OSError, OverflowError) as error:
        raise OutsideError(
            f"serve.listen: cannot listen on {listen}: {error}", hint="is another one running?"
        ) from None


def _webhook(wanted: Serve) -> Webhook | None:
    """What verifies calls. Raises ContentError for a secret that cannot be read, or is none."""
    if wanted.webhook_secret_file is None:
        return None
    file = wanted.webhook_secret_file
    try:
        secret = file.read_text().strip()
        key = b64decode(secret.removeprefix("whsec_"), validate=True)  # the library's own way skips what is no base64
        if len(key) < LEAST:
            raise ValueError(f"it has {len(key)} bytes, fewer than {LEAST}")
        return Webhook(key)
    except (OSError, ValueError) as error:
        hint = "make one: (printf whsec_; openssl rand -base64 32) > FILE"
        raise ContentError(f"no secret: {error}", file=file, key="serve.webhook_secret_file", hint=hint) from None
