"""The WSGI application: understands a request, lets faults strike, runs the strict rule or moto, keeps the log."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from email.utils import format_datetime
from functools import cache
from typing import Any

from tests.strict_aws import control, groups, guard, rules
from tests.strict_aws.contract import understand
from tests.strict_aws.errors import AwsError
from tests.strict_aws.faults import Fault
from tests.strict_aws.journal import Entry
from tests.strict_aws.wire import SERVICES, Answer, Call, identify, render, render_error
from tests.strict_aws.world import World, digest_of

THROTTLED = {"ec2": ("RequestLimitExceeded", 503), "ebs": ("RequestThrottledException", 400)}
DENIED = {"ec2": ("UnauthorizedOperation", 403), "ebs": ("AccessDeniedException", 403)}


class Front:
    """One emulator: moto behind, the strict rules before it."""

    def __init__(self) -> None:
        from moto.ec2.models.amis import AmiBackend
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        AmiBackend._load_amis = lambda _backend: None  # moto's preloaded images, of which AWS knows nothing
        groups.mend()
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.world = World()
        self.reset()  # moto's state is the process's: an emulator before us may have left some

    def reset(self) -> None:
        """Forget everything, moto's part too."""
        from moto.moto_api._internal.models import moto_api_backend

        moto_api_backend.reset()
        self.world.faults.replace([], "0")  # who hangs goes on
        self.world.blocks.close()
        self.world = World()

    def close(self) -> None:
        self.world.faults.replace([], "0")
        self.world.blocks.close()

    def date(self) -> str:
        """The emulator's time, as the header of an answer says it."""
        return format_datetime(self.world.clock.now(), usegmt=True)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        from werkzeug.wrappers import Request

        request = Request(environ)
        if request.path.startswith(control.PREFIX):
            answer = control.handle(self, request)
        elif not request.headers.get("Authorization"):
            return self.moto(environ, start)
        else:
            answer = self._serve(request, environ)
        status = f"{answer.status} {'OK' if answer.status < 400 else 'Refused'}"
        start(status, [*answer.headers, ("Content-Length", str(len(answer.body)))])
        return [answer.body]

    def _serve(self, request: Any, environ: dict[str, Any]) -> Answer:
        call = identify(request)
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = call.account
        call.forward = lambda body=None: self._moto(call, call.body if body is None else body, environ)
        refusal: AwsError | None = None
        try:
            if call.model is None and call.service in SERVICES.values():
                raise AwsError("InvalidAction", f"The action {call.operation} is not valid for this web service.", 400)
            call.params = understand(call) if call.model else {}
            guard.check(self.world, call)
        except AwsError as error:
            refusal = error
        digest = digest_of(call.params or {"body": call.body})
        entry = self.world.journal.open(call.service, call.operation, call.account, call.region, digest, call.params)
        fault = self.world.faults.strike(call.service, call.operation, call.region, call.account, digest)
        entry.fault = fault.kind if fault else ""
        return self._faulty(call, entry, fault, refusal, environ.get("werkzeug.socket"))

    def _faulty(self, call: Call, entry: Entry, fault: Fault | None, refusal: AwsError | None, wire: Any) -> Answer:
        """The answer, or what `fault` makes of it."""
        if fault and fault.kind == "delay":
            time.sleep(fault.seconds)
        if fault and fault.kind == "hang":
            self.world.faults.hang()
        if fault and fault.kind in {"reset", "unreachable"}:
            cut(wire, entry, fault)
        if error := self._struck(call, fault) or refusal:
            entry.outcome = error.code
            return render_error(call, error)
        answer = self._answer(call, entry)
        if fault and fault.kind == "lost":
            cut(wire, entry, fault)
        return answer

    def _struck(self, call: Call, fault: Fault | None) -> AwsError | None:
        """The error that `fault` puts in the place of the answer."""
        if fault and fault.kind == "throttle":
            code, status = THROTTLED.get(call.service, ("ThrottlingException", 400))
            code = "Throttling" if call.protocol == "query" else code
            more = {"Reason": "ACCOUNT_THROTTLED"} if call.service == "ebs" else {}
            return AwsError(code, fault.message or "Rate exceeded", status, **more)
        if fault and fault.kind == "denied":
            code, status = DENIED.get(call.service, ("AccessDeniedException", 400))
            code, status = ("AccessDenied", 403) if call.protocol == "query" else (code, status)
            more = {"Reason": "UNAUTHORIZED_ACCOUNT"} if call.service == "ebs" else {}
            said = f"User is not authorized to perform: {call.service}:{call.operation}"
            return AwsError(code, fault.message or said, status, **more)
        if fault and fault.kind == "hang":
            return AwsError("Hung", "nobody waits for this any more, and it is not to be tried again", 400)
        if fault and fault.kind == "error":
            return AwsError(fault.code, fault.message or "An internal error has occurred", fault.status)
        return None

    def _answer(self, call: Call, entry: Entry) -> Answer:
        """The strict rule's answer where there is a rule, moto's otherwise."""
        try:
            result = rules.apply(self.world, call)
            answer = (
                call.forward() if result is None else result if isinstance(result, Answer) else render(call, result)
            )
        except AwsError as error:
            entry.outcome = error.code
            return render_error(call, error)
        except Exception as error:  # moto's or our own: said in words that clients can read and do not try again
            entry.outcome = "NotImplemented"
            return render_error(
                call, AwsError("NotImplemented", f"the emulator fails at {call.operation}: {error!r}", 501)
            )
        entry.effect = answer.status < 400
        entry.outcome = "ok" if entry.effect else f"{answer.status}"
        return answer

    def _moto(self, call: Call, sent: bytes, environ: dict[str, Any]) -> Answer:
        """What moto says to the same request; of the services with one address for all, without asking which it is."""
        from werkzeug.test import run_wsgi_app

        again = {**environ, "wsgi.input": io.BytesIO(sent), "CONTENT_LENGTH": str(len(sent))}
        again.pop("HTTP_TRANSFER_ENCODING", None)
        if call.path == "/" and (ask := dispatcher(call.service)):
            return asked(ask, again)
        body, status, headers = run_wsgi_app(self.moto, again, buffered=True)
        kept = [(name, value) for name, value in headers.items() if name.lower() != "content-length"]
        return Answer(int(status.split()[0]), b"".join(body), kept)


@cache
def dispatcher(service: str) -> Any:
    """What answers all requests of a service in moto; None where that depends on the request's address."""
    from moto.backends import get_backend

    if service not in SERVICES.values():
        return None
    regions = get_backend(service)["123456789012"]
    return regions["us-east-1" if "us-east-1" in regions else "aws"].flask_paths.get("/")


def asked(dispatch: Any, environ: dict[str, Any]) -> Answer:
    """moto's answer, as its server gives it."""
    from botocore.exceptions import ClientError
    from moto.core.request import Request
    from werkzeug.exceptions import HTTPException

    request = Request(environ)
    request.from_wsgi_server = True
    try:
        status, headers, body = dispatch(request, request.raw_url, dict(request.headers))
    except ClientError as error:
        status, headers, body = 400, {}, error.response["Error"]["Message"]
    except HTTPException as error:
        status, headers, body = error.code or 500, dict(error.get_headers()), error.get_body()
    kept = [(name, str(value)) for name, value in headers.items() if name.lower() not in ("content-length", "status")]
    return Answer(int(status), body.encode() if isinstance(body, str) else bytes(body), kept)


def cut(wire: Any, entry: Entry, fault: Fault) -> None:
    """End the connection without a word. Always raises ConnectionResetError, which the server and `direct` expect."""
    if entry.outcome == "running":
        entry.outcome = fault.kind
    if wire is not None:
        with suppress(OSError):
            wire.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError(fault.kind)
