"""Reads what a machine reported. Whatever is not whole is no report: a missing end is a failure, never a pass. Pure."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error
from collections.abc import Sequence
from dataclasses import dataclass

_RECORD = re.compile(r"record (\S+) (\d+) out=([A-Za-z0-9+/=]*) err=([A-Za-z0-9+/=]*)")
_END = re.compile(r"end (\d+)")


@dataclass(frozen=True)
class Record:
    """How one command in the machine ended, and what it printed."""

    name: str
    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Stream:
    """The records by name, and why they are not the whole report; empty when they are."""

    records: dict[str, Record]
    problem: str

    @property
    def whole(self) -> bool:
        """Whether everything that was expected came, and nothing else."""
        return not self.problem


def parse(data: bytes, expected: Sequence[str]) -> Stream:
    """The report in `data`, which must hold each of the `expected` records once, and its end."""
    text = data.decode(errors="replace")
    lines = text.splitlines()
    if not lines:
        return Stream({}, "the machine reported nothing")
    records = [record for line in lines if (record := _record(line))]
    found = {record.name: record for record in records}
    return Stream(found, _problem(lines, records, expected, ended=text.endswith("\n")))


def _record(line: str) -> Record | None:
    if not (match := _RECORD.fullmatch(line)):
        return None
    name, status, stdout, stderr = match.groups()
    try:
        return Record(name, int(status), _text(stdout), _text(stderr))
    except Error:
        return None


def _text(encoded: str) -> str:
    return b64decode(encoded, validate=True).decode(errors="replace")


def _problem(lines: list[str], records: list[Record], expected: Sequence[str], *, ended: bool) -> str:
    end = _END.fullmatch(lines[-1])
    if not end or not ended:
        return f"the machine's report breaks off after {len(records)} of {len(expected)} records"
    if len(records) != len(lines) - 1 or int(end[1]) != len(records):
        return f"the machine's report is damaged: {len(lines) - 1} lines, {len(records)} records, {end[0]!r}"
    names = [record.name for record in records]
    if sorted(names) != sorted(expected):
        odd = sorted(set(names) ^ set(expected)) or sorted({name for name in names if names.count(name) > 1})
        return f"the machine's report has missing, unexpected or doubled records: {', '.join(odd)}"
    return ""
