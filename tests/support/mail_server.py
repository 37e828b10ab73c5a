"""A real SMTP server on loopback (aiosmtpd), with STARTTLS and a login where a test asks for them."""

from __future__ import annotations

import email.policy
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

OK = "250 OK"


@dataclass
class MailServer:
    """What arrived, in order, with whom it was for. `answers` are given to DATA one after the other, then OK."""

    answers: list[str] = field(default_factory=list)
    refuses: tuple[str, ...] = ()
    login: tuple[str, str] = ("", "")
    got: list[tuple[str, bytes]] = field(default_factory=list)
    asked: int = 0
    address: str = ""

    @property
    def messages(self) -> list[EmailMessage]:
        """What arrived, parsed."""
        parsed = (message_from_bytes(raw, policy=email.policy.default) for _, raw in self.got)
        return [one for one in parsed if isinstance(one, EmailMessage)]

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        """Take whom the test does not refuse."""
        if address in self.refuses:
            return "550 no such person; password s3cr3t"
        envelope.rcpt_tos.append(address)
        return OK

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        """Keep a message, unless the test has another answer."""
        self.asked += 1
        if self.answers:
            return self.answers.pop(0)
        self.got.append((",".join(envelope.rcpt_tos), envelope.content))
        return OK

    def authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        """Whether user and password are those of the test."""
        known = isinstance(data, LoginPassword) and (data.login.decode(), data.password.decode()) == self.login
        return AuthResult(success=known, handled=False)  # the server answers


class _AnyPort(Controller):
    """It looks after its start whether it answers, at the port that the system has given it."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def mail_server(tls: ssl.SSLContext | None = None, *, implicit: bool = False, **more: Any) -> Iterator[MailServer]:
    """A server; with `tls` it takes mail after STARTTLS alone, or speaks TLS from the first byte."""
    server = MailServer(**more)
    how: dict[str, Any] = {"authenticator": server.authenticate, "auth_required": bool(server.login[0])}
    if tls and implicit:
        how["ssl_context"] = tls
    elif tls:
        how |= {"tls_context": tls, "require_starttls": True}
    if implicit or not tls:
        how["auth_require_tls"] = False  # it knows of TLS by STARTTLS alone
    controller = _AnyPort(server, hostname="127.0.0.1", port=0, **how)
    controller.start()
    try:
        server.address = f"127.0.0.1:{controller.port}"
        yield server
    finally:
        controller.stop()
