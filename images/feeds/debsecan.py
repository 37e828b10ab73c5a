"""A look into debsecan's data (its "VERSION 1", zlib-compressed): line by line, never as a whole."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import CHUNK, FEED_LINE, FEED_TEXT, Meter
from images.feeds.facts import Facts

WHAT = "the debsecan data"
VULNERABILITIES, PACKAGES = 1, 2  # sections, which empty lines end
CANARIES = frozenset({"curl", "glibc", "linux", "openssl", "systemd"})
"""Source packages that never are without a line: data that loses one was cut or tampered with."""


def facts(path: Path) -> Facts:
    """What is in the file `path`: a line for each pair of source package and vulnerability.

    Raises OutsideError where it is no debsecan data, was cut short, is over a limit, or names no vulnerability.
    """
    pieces = _unpacked(path)
    lines = _lines(pieces)
    if next(lines, "") != "VERSION 1":
        raise OutsideError(f"{WHAT} is cut short or of an unknown format")
    entries, canaries, section = 0, set[str](), VULNERABILITIES
    for line in lines:
        if not line:
            section += 1
        elif section == PACKAGES:
            entries += 1
            if (source := line.partition(",")[0]) in CANARIES:
                canaries.add(source)
        if section > PACKAGES:
            break
    for _ in pieces:  # to the end, which may be cut off or beyond the limit
        pass
    if not entries:
        raise OutsideError(f"{WHAT} names no vulnerability")
    return Facts(entries, frozenset(canaries))


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    """The lines of a text that comes in pieces, one at a time."""
    rest = b""
    for part in pieces:
        *whole, rest = (rest + part).split(b"\n")
        FEED_LINE.require(len(rest), WHAT)
        try:
            yield from (line.decode() for line in whole)
        except UnicodeDecodeError:
            raise OutsideError(f"{WHAT} is not zlib-compressed text") from None
    yield rest.decode(errors="replace")


def _unpacked(path: Path) -> Iterator[bytes]:
    """The decompressed text, in pieces of at most CHUNK bytes."""
    unpacker, meter = zlib.decompressobj(), Meter(FEED_TEXT, WHAT)
    with path.open("rb") as file:
        left = file.read(CHUNK)
        while left and not unpacker.eof:
            try:
                part = unpacker.decompress(left, CHUNK)
            except zlib.error:
                raise OutsideError(f"{WHAT} is not zlib-compressed text") from None
            meter.add(len(part))
            yield part
            left = unpacker.unconsumed_tail or file.read(CHUNK)
    if not unpacker.eof:
        raise OutsideError(f"{WHAT} is cut short or of an unknown format")
