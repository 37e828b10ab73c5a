"""Notifications: every target hears of an event; one that does not answer stops nothing and betrays no secret."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import REHEARSAL, Notify, Settings
from pipelines.rollout.notify import Message, notifier, post, tell
from pipelines.rollout.state import Event
from tests.support.hostile import Raw, Reply, hostile, redirect, slowly

MESSAGE = Message(
    Event.PAUSED, "web", "web-1", "web-1 was paused by ada: looking at latency", datetime(2026, 5, 1, 12, tzinfo=UTC)
)
SAID = {
    "event": "paused", "fleet": "web", "rollout": "web-1", "text": "web-1 was paused by ada: looking at latency",
    "at": "2026-05-01T12:00:00+00:00",
}  # fmt: skip


class Hook(HTTPServer):
    """A webhook that answers with `status` and keeps what it gets."""

    status = 204

    def __init__(self) -> None:
        self.got: list[tuple[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        """Where it listens, with a token as webhooks have one."""
        return f"http://127.0.0.1:{self.server_address[1]}/hooks/s3cr3t"


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.got.append((self.path, body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A webhook on loopback."""
    with Hook() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_program_and_a_webhook_both_hear_of_it(tmp_path: Path, hook: Hook) -> None:
    """The same message, as JSON."""
    (tmp_path / "address").write_text(f"{hook.address}\n")
    heard = tmp_path / "heard"
    command = ("sh", "-c", f"cat >{heard}")
    notifier(Settings(notify=Notify(command=command, webhook_file=tmp_path / "address")))(MESSAGE)
    assert json.loads(heard.read_text()) == SAID
    assert [(path, json.loads(body)) for path, body in hook.got] == [("/hooks/s3cr3t", SAID)]


def test_a_rehearsal_tells_nobody_and_says_so(tmp_path: Path, hook: Hook, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither program nor webhook: those behind them would take it for real."""
    settings = Settings(state=tmp_path, notify=Notify(command=("touch", str(tmp_path / "told"))))
    (tmp_path / REHEARSAL).touch()
    assert not notifier(settings)(MESSAGE)
    assert tell(settings, MESSAGE) == (False, []), "as a night does"
    assert not (tmp_path / "told").exists()
    assert "rehearsal" in capsys.readouterr().err
    (tmp_path / REHEARSAL).unlink()
    assert notifier(settings)(MESSAGE)
    assert (tmp_path / "told").exists()


def test_without_a_target_nothing_happens(capsys: pytest.CaptureFixture[str]) -> None:
    """Notifications are somebody's choice."""
    notifier(Settings())(MESSAGE)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("refusing", "answers 500"),
        ("absent", "ConnectionError"),
        ("no address", "MissingSchema"),
        ("no file", "webhook_file cannot be read"),
    ],
)
def test_a_webhook_that_fails_is_said_without_its_address_and_stops_nothing(
    tmp_path: Path, hook: Hook, capsys: pytest.CaptureFixture[str], broken: str, said: str
) -> None:
    """A rollout is not worse off because nobody heard of it; the address is a secret."""
    hook.status = 500
    addresses = {"refusing": hook.address, "absent": "http://127.0.0.1:1/hooks/s3cr3t", "no address": "s3cr3t"}
    if broken in addresses:
        (tmp_path / "address").write_text(addresses[broken])
    notifier(Settings(notify=Notify(webhook_file=tmp_path / "address")))(MESSAGE)
    told = " ".join(capsys.readouterr().err.split())
    assert "no notification that web-1 paused" in told
    assert said in told
    assert "s3cr3t" not in told


@pytest.mark.parametrize("kind", ["fifo", "folder", "long"])
def test_an_address_is_read_from_a_short_regular_file_alone(
    tmp_path: Path, hook: Hook, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """A pipe would wait for ever, a device never end."""
    file = tmp_path / "address"
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.write_text(f"{hook.address}{' ' * 5000}")
    assert not notifier(Settings(notify=Notify(webhook_file=file)))(MESSAGE)
    assert "notify.webhook_file" in capsys.readouterr().err
    assert not hook.got


def test_a_redirect_is_a_failure_and_is_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise the server at the address could send the message anywhere."""
    with hostile() as server:
        server["/hook"] = redirect(f"{server.elsewhere}/other", 307)
        (tmp_path / "address").write_text(f"{server.address}/hook")
        assert not notifier(Settings(notify=Notify(webhook_file=tmp_path / "address")))(MESSAGE)
        assert server.paths == ["/hook"] * len(server.paths)
    assert "answers 307" in capsys.readouterr().err


def test_a_webhook_that_answers_letter_by_letter_is_given_up(tmp_path: Path) -> None:
    """No single read of it is late."""
    with hostile() as server:
        server["/hook"] = Raw(slowly([b"HTTP/1.0 200 OK\r\nX: ", *[b"y"] * 2_000]))
        (tmp_path / "address").write_text(f"{server.address}/hook")
        with pytest.raises(OutsideError, match="no answer within"):
            post(tmp_path / "address", "notify.webhook_file", "{}", 1.0)


@pytest.mark.parametrize(("login", "sent"), [("", None), ("ann:s3cr3t@", "Basic YW5uOnMzY3IzdA==")])
def test_a_login_is_the_addresss_own_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str, sent: str | None
) -> None:
    """A netrc of this machine is not for Goldsmith."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with hostile() as server:
        server["/hook"] = Reply(b"ok")
        (tmp_path / "address").write_text(f"{server.address}/hook".replace("://", f"://{login}"))
        assert notifier(Settings(notify=Notify(webhook_file=tmp_path / "address")))(MESSAGE)
        assert [one.headers.get("Authorization") for one in server.asked] == [sent]


def test_whether_a_target_took_it_is_told_and_who_was_not_told_of_what(capsys: pytest.CaptureFixture[str]) -> None:
    """Also of what concerns a fleet and no rollout."""
    assert not notifier(Settings())(MESSAGE)
    assert notifier(Settings(notify=Notify(command=("true",))))(MESSAGE)
    about = replace(MESSAGE, event=Event.REBUILD, rollout="")
    assert not notifier(Settings(notify=Notify(command=("false",))))(about)
    assert "no notification of web: rebuild: false ended" in " ".join(capsys.readouterr().err.split())


def test_a_program_that_fails_does_not_keep_the_webhook_from_hearing(tmp_path: Path, hook: Hook) -> None:
    """One target is not the other's business."""
    (tmp_path / "address").write_text(hook.address)
    notifier(Settings(notify=Notify(command=("false",), webhook_file=tmp_path / "address")))(MESSAGE)
    assert len(hook.got) == 1
