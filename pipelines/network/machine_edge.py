"""Edge: reads the ruleset and the listening sockets of this machine, or another machine's output of the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import JSON_BYTES, Limit, parse_json, read_all
from hardening.foundation.process import run

SOCKETS = Limit("network.sockets", 4 << 20, "bytes of what ss says")
SECONDS = 60
NFT, SS = ["nft", "-j", "list", "ruleset"], ["ss", "-Hltnup"]


def read_ruleset(file: str) -> Any:
    """The answer of `nft -j list ruleset`: as `file` holds it, else of this machine. Raises OutsideError."""
    said = _file(file, JSON_BYTES) if file else run(NFT, timeout=SECONDS, hint=_hint("nft")).stdout
    return parse_json(said, file or "what nft says")


def read_sockets(file: str) -> str:
    """The lines of `ss -Hltnup`: as `file` holds them, else of this machine. Raises OutsideError."""
    if not file:
        said = run(SS, timeout=SECONDS, hint=_hint("ss")).stdout
        SOCKETS.require(len(said), "what ss says")
        return said
    try:
        return _file(file, SOCKETS).decode()
    except UnicodeDecodeError as error:
        raise OutsideError(f"{file} is not UTF-8 text: {error}") from None


def _hint(program: str) -> str:
    return f"run it as root where {program} is installed, or give its output there with --ruleset and --sockets"


def _file(name: str, limit: Limit) -> bytes:
    try:
        with Path(name).open("rb") as file:
            return read_all(file, limit, name)
    except OSError as error:
        raise OutsideError(f"{name} cannot be read: {error.strerror or error}") from None
