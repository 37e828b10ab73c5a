"""The way by ssh to an engine: what answers there may lead nowhere else."""

from __future__ import annotations

import socket
import sys

import pytest
import requests

from hardening.foundation.settings import Docker
from pipelines.fleet.docker import connecting
from pipelines.fleet.docker.connecting import open_host

ENGINE = """
import os, sys
asked = b""
while b"\\r\\n\\r\\n" not in asked:
    asked += os.read(0, 1000)
os.write(1, b"HTTP/1.1 302 Found\\r\\nLocation: %b\\r\\nContent-Length: 0\\r\\n\\r\\n" % sys.argv[1].encode())
"""


def test_by_ssh_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine could have this host ask whatever this host alone can reach."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        address = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/latest/meta-data/"
        command = (sys.executable, "-c", ENGINE, address)
        monkeypatch.setattr(connecting, "ssh_command", lambda *_: command)
        elsewhere.setblocking(False)
        with pytest.raises(requests.exceptions.TooManyRedirects):
            open_host("ssh://ops@web-2", Docker())
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
