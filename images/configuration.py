"""What a foreign image configuration may hold before its values reach files, Dockerfiles and labels of ours. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hardening.foundation.errors import OutsideError

# Cmd, Entrypoint and the health check are not among them: scripts of several lines stand there by right.
LINES = ("User", "WorkingDir", "StopSignal")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def require_lines(image: Mapping[str, Any], whose: str) -> None:
    """Raises OutsideError where a value that is one line by its nature is not, or a variable has no name."""
    for key, text in _lines(image.get("config") or {}):
        wrong = _wrong(key, text)
        if wrong:
            raise OutsideError(
                f"{whose}: {key} in its configuration {wrong}: {text!r}"[:400],
                hint="the image was made to confuse what reads it, or by mistake: take another one",
            )


def _wrong(key: str, text: Any) -> str:
    if not isinstance(text, str):
        return "is not text"
    if CONTROL.search(text):
        return "holds a control character"
    return "is no NAME=value" if key == "Env" and not re.match(r"[^=\s]+=", text) else ""


def _lines(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Key and text of everything in a configuration that is one line."""
    for key in LINES:
        yield key, config.get(key) or ""
    yield from (("Env", entry) for entry in config.get("Env") or [])
    yield from (("ExposedPorts", port) for port in config.get("ExposedPorts") or {})
    yield from (("Volumes", place) for place in config.get("Volumes") or {})
    for name, value in (config.get("Labels") or {}).items():
        yield "Labels", name
        yield "Labels", value
