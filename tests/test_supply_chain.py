"""The packages that Goldsmith itself runs on: exact, by hash, and asked daily whether one is known to be vulnerable."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml

from hardening.foundation.settings import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
ENTRY = re.compile(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==[^\s;]+( ; [^\\\n]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+")


@contextmanager
def osv(vulnerable: str = "") -> Iterator[tuple[str, set[str]]]:
    """The address of a service that answers as OSV does, and the packages that it was asked of."""
    asked = set[str]()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
            asked.add(name)
            data = json.dumps(_known(name) if name == vulnerable else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _known(name: str) -> dict[str, Any]:
    events = [{"introduced": "0"}, {"fixed": "99"}]
    affected = {"package": {"name": name, "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    told = {"id": "PYSEC-2026-1", "summary": "x", "published": "2026-01-01T00:00:00Z", "affected": [affected]}
    return {"vulns": [told]}


def audit(address: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / ".ci/audit", "--osv-url", address], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_audit_asks_of_every_locked_package_and_passes_only_where_none_is_known() -> None:
    """Those that another system alone needs are asked where it is built."""
    here = set(re.findall(r"^([a-z0-9-]+)(?:\[[^\]]*\])?==[^;\n]+\\$", LOCK, re.MULTILINE))
    with osv() as (address, asked):
        assert audit(address).returncode == 0
    assert here <= asked
    assert len(here) > 100
    with osv("jinja2") as (address, _):
        found = audit(address)
    assert found.returncode == 1
    assert "PYSEC-2026-1" in found.stdout


def test_an_audit_that_cannot_ask_fails() -> None:
    """Nothing known is not the same as nothing asked."""
    silent = audit("http://127.0.0.1:1/v1/query")
    assert silent.returncode != 0
    assert "No known vulnerabilities" not in silent.stdout + silent.stderr


def test_every_package_is_locked_to_a_version_and_hashes() -> None:
    """All of the file is such entries, so that pip takes nothing else."""
    rest = ENTRY.sub("", re.sub(r"^ *#.*\n", "", LOCK, flags=re.MULTILINE))
    assert not rest.strip(), rest[:500]


def test_ci_audits_daily_and_whenever_the_lock_changes() -> None:
    """As a workflow of its own: what is known changes without a commit, and a commit is not to blame for it."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/audit.yml").read_text())
    begins = workflow[True]  # YAML's `on`
    assert begins["schedule"]
    assert begins["push"]["paths"] == begins["pull_request"]["paths"] == ["requirements.lock"]
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/audit"}
    assert "continue-on-error" not in str(workflow)
