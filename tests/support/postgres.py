"""A real PostgreSQL for tests: a cluster in a folder of its own, on a free port of loopback, gone with the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

USER = "golden"
NUMBERS = count()


def program(name: str) -> str:
    """The newest version's program on this host."""
    return str(max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4])))


class Server:
    """One cluster, to be started and stopped as a test wants. It never runs as root: PostgreSQL refuses that."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._account = "nobody" if os.geteuid() == 0 else None
        self._data = folder / "data"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        if self._account:
            shutil.chown(folder, self._account)
        self._run("initdb", "-D", str(self._data), "-U", USER, "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = (f"-p {self._port}", "-c listen_addresses=127.0.0.1", f"-c unix_socket_directories={self._folder}")
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", log, "-o", " ".join((*options, *self._options)))

    def stop(self) -> None:
        """Stop it at once, as a machine that goes down does: whoever is connected is cut off."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self._data))

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test{next(NUMBERS)}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self._port), "-U", USER, name)
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self._port}/{name}"

    def _run(self, name: str, *args: str) -> None:
        done = subprocess.run(
            [program(name), *args], cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False, user=self._account,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


@contextmanager
def running(*options: str) -> Iterator[Server]:
    """A server that runs for the block, with options of `postgres`."""
    folder = Path(tempfile.mkdtemp(prefix="goldsmith-postgres-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    try:
        server = Server(folder, *options)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
