"""Edge: sends one mail to one person by the SMTP server of the settings, over TLS, with a few retries."""

from __future__ import annotations

import smtplib
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime

from hardening.foundation.asking import ask_within
from hardening.foundation.errors import OutsideError, RefusedError
from hardening.foundation.retrying import retrying
from hardening.foundation.telling import Smtp
from pipelines.rollout.notify import read_secret

SECONDS = 10.0  # for each part of an answer of the server
SESSION = timedelta(minutes=2)  # for all of one try
WITHIN = timedelta(seconds=60)
FINAL = 500  # a server's answer from here on stays the same, however often it is asked
KEY = "digest.smtp"


@dataclass(frozen=True)
class Mail:
    """One mail to one address, as text and as HTML. `key`: the same mail has the same one, also when it comes twice."""

    to: str
    subject: str
    text: str
    html: str
    key: str
    at: datetime

    def message(self, sender: str) -> EmailMessage:
        """The mail as it is sent. The library refuses a line break in a header, so no text can add another header."""
        made = EmailMessage()
        made["From"], made["To"], made["Subject"] = sender, self.to, self.subject
        made["Date"] = format_datetime(self.at)
        made["Message-ID"] = f"<{self.key}@{sender.rpartition('@')[2]}>"
        made["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday notice answers it
        made.set_content(self.text)
        made.add_alternative(self.html, subtype="html")
        return made


def send(smtp: Smtp, mail: Mail, within: timedelta = WITHIN) -> None:
    """Send it, again where the server cannot be reached or asks for that. Returns once the server has taken it.

    Raises OutsideError, and RefusedError for what the server refuses for good; neither names the login.
    """
    sender = smtp.sender
    if sender is None:
        raise RefusedError(f"{KEY}.server is not set", hint="docs/notifications.md shows it")
    message = mail.message(sender)
    retrying(lambda: ask_within(lambda: _send(smtp, message, sender, mail.to), SESSION), within=within)


def _send(smtp: Smtp, message: EmailMessage, sender: str, to: str) -> None:
    try:
        server = _connected(smtp)
        try:
            server.send_message(message, from_addr=sender, to_addrs=[to])
            with suppress(smtplib.SMTPException, OSError):  # it is taken: how the session ends says nothing of that
                server.quit()
        finally:
            server.close()
    except smtplib.SMTPNotSupportedError:
        raise RefusedError(
            f"{smtp.server} offers no STARTTLS, or no login", hint=f'is {KEY}.tls to be "implicit"?'
        ) from None
    except smtplib.SMTPRecipientsRefused as error:
        raise _refused(smtp, error.recipients[to][0]) from None
    except smtplib.SMTPResponseException as error:
        raise _refused(smtp, error.smtp_code) from None
    except (OSError, ValueError, OverflowError, smtplib.SMTPException) as error:  # as for a login beyond ASCII
        raise OutsideError(f"the mail server {smtp.server}: {_kind(error)}") from None


def _connected(smtp: Smtp) -> smtplib.SMTP:
    """A session, logged in where there is a login; over TLS it is before anything is said. To be closed."""
    host, _, port = smtp.server.rpartition(":")
    host, tls = host.strip("[]"), _tls(smtp)
    if smtp.tls == "implicit":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, int(port), timeout=SECONDS, context=tls)
    else:
        server = smtplib.SMTP(host, int(port), timeout=SECONDS)
    try:
        if smtp.tls == "starttls":
            server.starttls(context=tls)
        if smtp.login_file:
            user, _, password = read_secret(smtp.login_file, f"{KEY}.login_file").partition("\n")
            server.login(user.strip(), password.strip())
    except BaseException:
        server.close()
        raise
    return server


def _tls(smtp: Smtp) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=smtp.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise OutsideError(f"{KEY}.ca_file cannot be read: {_kind(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _refused(smtp: Smtp, code: int) -> OutsideError | RefusedError:
    """What the server says beside its code is not told: it may repeat the login."""
    family = RefusedError if code >= FINAL else OutsideError
    return family(f"the mail server {smtp.server} answers {code}", hint="its log says why")


def _kind(error: Exception) -> str:
    verify = getattr(error, "verify_message", "")
    return f"{type(error).__name__}{f' ({verify})' if verify else ''}"
