"""What goes into a machine without changing its disk, and what it reports: systemd credentials, a stream. Pure."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

from hardening.findings import LIVE_LIMIT_SECONDS
from hardening.render import Check

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


PORT = "goldsmith"
SCRIPT = "goldsmith.boot"
# systemd drops longer ones without a word (tried with 257: about 30 KB); what is large goes over fw_cfg.
SMBIOS_LIMIT = 24_000
FW_CFG = "opt/io.systemd.credentials/"  # before a credential's name; QEMU allows 55 characters in all
PORT_DEVICE = rf"dev-virtio\x2dports-{PORT}.device"
# On a crowded host udev may need more than the 90 s after which systemd gives a device up, and nothing would report.
PATIENT = "[Unit]\nJobRunningTimeoutSec=infinity\n"
UNIT = rf"""[Unit]
Description=Boot gate
ConditionPathExists=!/etc/initrd-release
Wants={PORT_DEVICE}
After={PORT_DEVICE}

[Service]
Type=exec
LoadCredential={SCRIPT}
ExecStart=/bin/sh %d/{SCRIPT}
StandardOutput=journal+console
"""
LOOKS = ("completed", "failed-units", "listening", "identity")
AGAIN, BESIDE = ("completed", "failed-units", "identity"), ("completed", "identity")
"""What is judged of a second boot, and of another machine beside it."""


@dataclass(frozen=True)
class Errand:
    """What the script does in one boot: the checks, how long it waits for the boot's end, and how it turns off.

    `gently`: stops every service first, as a machine does whose disk is used again. `asked`: what it looks at before
    the checks, but for cloud-init.
    """

    checks: tuple[Check, ...] = ()
    patience_seconds: int = 150
    cloud_init: bool = False
    gently: bool = False
    asked: tuple[str, ...] = LOOKS

    @property
    def looks(self) -> tuple[str, ...]:
        """What the script looks at before it runs the checks; guest.sh has a function for each."""
        return (*self.asked, "cloud-init") if self.cloud_init else self.asked

    @property
    def expected(self) -> tuple[str, ...]:
        """The names of all records that must come back."""
        return (*(f"observed.{look}" for look in self.looks), *(check.control for check in self.checks))


def smbios_and_files(texts: Mapping[str, str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """How systemd credentials get into a machine: short ones as SMBIOS strings (systemd.system-credentials(7)).

    The text of each that is too long for that comes second, by name: fw_cfg takes them, where the name is short enough.
    """
    encoded = {name: b64encode(text.encode()).decode() for name, text in texts.items()}
    files = {name: text for name, text in texts.items() if len(encoded[name]) > SMBIOS_LIMIT}
    strings = (f"io.systemd.credential.binary:{name}={text}" for name, text in encoded.items() if name not in files)
    return tuple(strings), files


def live(checks: Iterable[Check]) -> tuple[Check, ...]:
    """The checks that ask the running machine: those whose text mentions LIVE."""
    return tuple(check for check in checks if re.search(r"\bLIVE\b", check.text))


def credentials(guest: str, errand: Errand) -> dict[str, str]:
    """The systemd credentials that one boot needs, by name; `guest` is the text of guest.sh."""
    return {
        "systemd.extra-unit.goldsmith-boot.service": UNIT,
        "systemd.unit-dropin.basic.target": "[Unit]\nWants=goldsmith-boot.service\n",
        f"systemd.unit-dropin.{PORT_DEVICE}": PATIENT,
        SCRIPT: script(guest, errand),
    }


def script(guest: str, errand: Errand) -> str:
    """The whole script: look first, then run the checks, two at a time, and report each."""
    # Only `completed` reads how long it may wait.
    looks = [f"observe observed.{look} {look.replace('-', '_')} {errand.patience_seconds}" for look in errand.looks]
    off = "systemctl poweroff" if errand.gently else "systemctl poweroff --force --force"
    return "\n".join([guest, *looks, *_side_by_side(errand.checks), f"finish {off}", ""])


def _side_by_side(checks: Sequence[Check]) -> list[str]:
    """The lines that run the checks in two lanes, one for each processor, and then report them in order."""
    lanes = [[_call(check) for check in checks[lane::2]] for lane in (0, 1)]
    running = [line for lane in lanes if lane for line in ("{", *lane, "} &")]
    return [*running, "wait", *(f"report {check.control}" for check in checks)]


def _call(check: Check) -> str:
    values = (quote(f"{name}={value}") for name, value in check.env.items())
    return " ".join(["check", check.control, str(LIVE_LIMIT_SECONDS), quote(check.text), *values])


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
class GuestRecords:
    """The records by name, and why they are not the whole report; empty when they are."""

    records: dict[str, Record]
    problem: str

    @property
    def whole(self) -> bool:
        """Whether everything that was expected came, and nothing else."""
        return not self.problem


def parse(data: bytes, expected: Sequence[str]) -> GuestRecords:
    """The report in `data`, which must hold each of the `expected` records once, and its end."""
    text = data.decode(errors="replace")
    lines = text.splitlines()
    if not lines:
        return GuestRecords({}, "the machine reported nothing")
    records = [record for line in lines if (record := _record(line))]
    found = {record.name: record for record in records}
    return GuestRecords(found, _problem(lines, records, expected, ended=text.endswith("\n")))


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
