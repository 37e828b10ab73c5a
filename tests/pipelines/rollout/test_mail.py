"""Mail goes to one person by a real SMTP server: over TLS, once, again where that helps; no secret is said."""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_server, socket
from threading import Event, Thread
from typing import Any

import pytest

from hardening.foundation.errors import GoldsmithError, LateError, OutsideError, RefusedError
from hardening.foundation.telling import Smtp
from pipelines.rollout import mail
from pipelines.rollout.mail import Mail, send
from tests.support.hostile import server_tls
from tests.support.mail_server import mail_server

MAIL = Mail(
    "ann@example.com",
    "Goldsmith, web: 1 new",
    "- web-1: é\n",
    "<p>web-1: é</p>",
    "abc123",
    datetime(2026, 11, 25, 12, tzinfo=UTC),
)
# This server takes TLS from the first byte for none, which it warns of, and leaves its sockets to be collected.
LIBRARY = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning"),
]
WAYS = ["starttls", pytest.param("implicit", marks=LIBRARY)]


def smtp(address: str, **more: Any) -> Smtp:
    return Smtp.model_validate({"server": address, "sender": "goldsmith@example.com", "tls": "none", **more})


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """The certificate of an authority of its own, and what a server needs."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    return file, server_tls(file)


def test_a_mail_arrives_as_text_and_html_and_no_machine_answers_it() -> None:
    """With the key of the digest, by which one that comes twice is known."""
    with mail_server() as server:
        send(smtp(server.address), MAIL)
    (message,) = server.messages
    headers = ("From", "To", "Subject", "Message-ID", "Auto-Submitted", "Date")
    assert [message[name] for name in headers] == [
        "goldsmith@example.com", "ann@example.com", "Goldsmith, web: 1 new", "<abc123@example.com>", "auto-generated",
        "Wed, 25 Nov 2026 12:00:00 +0000",
    ]  # fmt: skip
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text
    assert html
    assert (text.get_content().splitlines(), html.get_content().splitlines()) == ([MAIL.text.strip()], [MAIL.html])
    assert server.got[0][0] == "ann@example.com"


def test_a_server_that_has_no_time_is_asked_again() -> None:
    """4xx means later."""
    with mail_server(answers=["451 later"]) as server:
        send(smtp(server.address), MAIL)
    assert (server.asked, len(server.got)) == (2, 1)


@pytest.mark.parametrize("how", [{"refuses": ("ann@example.com",)}, {"answers": ["554 spam s3cr3t"]}])
def test_what_is_refused_for_good_is_not_repeated_and_says_no_more_than_the_code(how: dict[str, Any]) -> None:
    """What a server answers may hold what was given to it."""
    with mail_server(**how) as server, pytest.raises(RefusedError, match=r"answers 55[04]") as caught:
        send(smtp(server.address), MAIL)
    assert "s3cr3t" not in str(caught.value)
    assert server.asked <= 1
    assert not server.got


def test_a_server_that_is_not_there_is_an_error_of_the_outside() -> None:
    """With its name."""
    with pytest.raises(OutsideError, match=r"127\.0\.0\.1:1: ConnectionRefusedError"):
        send(smtp("127.0.0.1:1"), MAIL, timedelta())


@pytest.mark.parametrize("way", WAYS)
def test_tls_and_a_login(tmp_path: Path, tls: tuple[Path, ssl.SSLContext], way: str) -> None:
    """The login stands in a file, and is given over TLS."""
    (tmp_path / "login").write_text("gold\ns3cr3t\n")
    with mail_server(tls[1], implicit=way == "implicit", login=("gold", "s3cr3t")) as server:
        send(smtp(server.address, tls=way, ca_file=tls[0], login_file=tmp_path / "login"), MAIL)
    assert len(server.got) == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_certificate_that_nobody_trusts_gets_neither_mail_nor_login(
    tmp_path: Path, tls: tuple[Path, ssl.SSLContext], way: str
) -> None:
    """Before anything is said."""
    (tmp_path / "login").write_text("gold\ns3cr3t\n")
    settings = {"tls": way, "login_file": tmp_path / "login"}
    with (
        mail_server(tls[1], implicit=way == "implicit", login=("gold", "s3cr3t")) as server,
        pytest.raises(OutsideError, match="SSLCertVerificationError") as caught,
    ):
        send(smtp(server.address, **settings), MAIL, timedelta())
    assert "s3cr3t" not in str(caught.value)
    assert server.asked == 0


def test_a_server_without_starttls_gets_nothing() -> None:
    """One who strips the offer on the way gets no mail in the clear."""
    with mail_server() as server, pytest.raises(RefusedError, match="offers no STARTTLS"):
        send(smtp(server.address, tls="starttls"), MAIL)
    assert server.asked == 0


def test_a_wrong_login_is_refused_and_not_shown(tmp_path: Path, tls: tuple[Path, ssl.SSLContext]) -> None:
    """Its code alone."""
    (tmp_path / "login").write_text("gold\nwr0ng\n")
    settings = {"tls": "starttls", "ca_file": tls[0], "login_file": tmp_path / "login"}
    with (
        mail_server(tls[1], login=("gold", "s3cr3t")) as server,
        pytest.raises(RefusedError, match="answers 535") as caught,
    ):
        send(smtp(server.address, **settings), MAIL)
    assert "wr0ng" not in str(caught.value)


def test_a_server_that_never_ends_an_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line of it comes in time, so that no single read is late."""
    monkeypatch.setattr(mail, "SESSION", timedelta(seconds=0.2))
    over = Event()

    def greet(server: socket) -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            while not over.wait(0.02):
                connection.sendall(b"220-welcome\r\n")

    with create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=greet, args=(server,))
        thread.start()
        try:
            with pytest.raises(LateError, match="no answer within"):
                send(smtp(f"127.0.0.1:{server.getsockname()[1]}"), MAIL, timedelta(0))
        finally:
            over.set()
            thread.join()


def test_a_login_that_cannot_be_said_is_an_error_of_this_target_alone(
    tmp_path: Path, tls: tuple[Path, ssl.SSLContext]
) -> None:
    """The library takes ASCII: what it raises must not end the digest for all others, nor show the password."""
    (tmp_path / "login").write_text("gold\nschl\u00fcssel\n")
    settings = {"tls": "starttls", "ca_file": tls[0], "login_file": tmp_path / "login"}
    with mail_server(tls[1], login=("gold", "s3cr3t")) as server, pytest.raises(OutsideError) as caught:
        send(smtp(server.address, **settings), MAIL, timedelta(0))
    assert "UnicodeEncodeError" in str(caught.value)
    assert "ssel" not in str(caught.value)
    with pytest.raises(OutsideError):
        send(smtp("127.0.0.1:99999"), MAIL, timedelta(0))


@pytest.mark.parametrize("field", ["to", "subject"])
def test_nobody_writes_another_header(field: str) -> None:
    """A line break in one is refused, wherever it comes from."""
    with mail_server() as server, pytest.raises((ValueError, GoldsmithError)):
        send(smtp(server.address), replace(MAIL, **{field: "ann@example.com\r\nBcc: eve@example.com"}))
    assert not server.got
