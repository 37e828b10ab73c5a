"""A serial console as evidence: without what moves a cursor, and its last lines. Pure."""

from __future__ import annotations

import re

LAST_LINES = 20
# Escape sequences (ECMA-48: CSI, OSC and short ones) and other control characters but tab and line feed.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]|[\x00-\x08\x0b-\x1f\x7f]"
)


def plain(console: str) -> str:
    """The console's text alone."""
    return _CONTROL.sub("", console)


def tail(console: str) -> str:
    """The last lines that say something."""
    lines = [line.rstrip() for line in plain(console).splitlines() if line.strip()]
    return "\n".join(lines[-LAST_LINES:])
