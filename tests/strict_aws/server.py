"""Starts the emulator: in this process, or in one of its own that outlives whoever talks to it."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.strict_aws import direct
from tests.strict_aws.client import StrictAws
from tests.strict_aws.quick import make_once

CHECKOUT = Path(__file__).resolve().parents[2]


def make_server(port: int = 0) -> Any:
    """A server on loopback, not serving yet; port 0 finds a free one."""
    make_once()
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import make_server as make
    from werkzeug.test import run_wsgi_app

    from tests.strict_aws.front import Front

    class Quiet(MotoRequestHandler):
        """Writes no line for each request, which the journal has; the Date of an answer is the emulator's time."""

        protocol_version = "HTTP/1.1"  # a connection, and a thread, serves many requests
        wbufsize = -1  # an answer is one packet, for which no client waits
        disable_nagle_algorithm = True

        def run_wsgi(self) -> None:
            """Answer one request, read whole, and keep the connection, which werkzeug's own closes after each."""
            environ = self.make_environ()
            if self.headers.get("Expect", "").lower() == "100-continue":
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self.wfile.flush()
            length = -1 if environ.get("wsgi.input_terminated") else int(environ.get("CONTENT_LENGTH") or 0)
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
            body, status, headers = run_wsgi_app(self.server.app, environ, buffered=True)
            self.send_response(int(status[:3]), status[4:])
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"".join(body))
            self.wfile.flush()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return str(self.server.app.date())

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    return make("127.0.0.1", port, Front(), threaded=True, request_handler=Quiet)


@contextmanager
def in_process() -> Iterator[StrictAws]:
    """The emulator in this process: of its own clients without a socket, for all others in a thread."""
    server = make_server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    direct.serve(url, server.app)
    try:
        yield StrictAws(url)
    finally:
        direct.end(url)
        server.shutdown()
        thread.join()
        server.server_close()
        server.app.close()


@contextmanager
def subprocess(folder: Path) -> Iterator[StrictAws]:
    """The emulator in a process of its own, which a client's kill -9 does not touch; its log is in `folder`."""
    import os
    import signal
    import time

    from hardening.foundation.process import spawn

    ready, log = folder / "strict-aws.port", folder / "strict-aws.log"
    ready.unlink(missing_ok=True)
    code = "import sys; sys.path.append(sys.argv[1]); from tests.strict_aws.server import serve; serve(sys.argv[2])"
    child = spawn([sys.executable, "-c", code, str(CHECKOUT), str(ready)], log=log)
    try:
        for _ in range(12_000):
            if ready.exists():
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"the emulator did not start: {log.read_text()[-2000:]}")
        yield StrictAws(f"http://127.0.0.1:{ready.read_text()}", child)
    finally:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


def serve(ready: str) -> None:
    """Serve until ended; writes the port to the file `ready` once it answers."""
    server = make_server()
    draft = Path(f"{ready}.draft")
    draft.write_text(str(server.server_port))
    draft.rename(ready)
    server.serve_forever()
