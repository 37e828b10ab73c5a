"""What the address of a package archive or of a proxy may be: it becomes a line of apt's configuration. Pure."""

from __future__ import annotations

import re

from hardening.foundation.content import MisplacedError

LOGIN_HINT = "put the login into a file of /etc/apt/auth.conf.d (see apt_auth.conf(5)): apt reads it, no image holds it"
ONE_WORD = re.compile(r"[A-Za-z][^\s\"'<>\\;\x00-\x1f\x7f-\x9f]*")


def has_login(text: str) -> bool:
    """Whether an address, or a line that holds one, names a user or a password."""
    return "@" in text


def without_login(address: str) -> str:
    """The address as it may be shown."""
    scheme, colon, rest = address.partition(":")
    return f"{scheme}{colon}//…@{rest.rpartition('@')[2]}" if has_login(rest) else address


def plain(address: str) -> str:
    """`address`, which is empty or one word without a login. Raises MisplacedError, which shows no password."""
    if has_login(address):
        raise MisplacedError(f"an address with a login in it: {without_login(address)}", LOGIN_HINT)
    if address and not ONE_WORD.fullmatch(address):
        raise ValueError(f"must be an address such as https://mirror.example.com/debian, not {address!r}")
    return address
