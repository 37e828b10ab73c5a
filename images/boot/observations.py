"""How thoroughly a disk is booted, and what that showed, including open sockets: one result each. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import ip_address
from typing import Any

from hardening.findings import LIVE_LIMIT_SECONDS, CheckResult, Outcome, nothing_to_look_at, outcome_of, result_of
from hardening.foundation.errors import NOT_UNDERSTOOD
from hardening.model import Enforcement, Severity
from hardening.render import Check
from hardening.waivers import TITLES
from images.boot.guest import GuestRecords, Record, plain, tail


class Level(StrEnum):
    """How a disk is booted.

    QUICK: its kernel, without firmware and, where it can, without initrd: for those who edit controls. RELEASE: as
    shipped, from UEFI firmware through the unified kernel: the gate. FULL: that, with a cloud's answer for cloud-init.
    """

    QUICK = "quick"
    RELEASE = "release"
    FULL = "full"


def limits(level: Level, accelerator: str) -> tuple[int, int]:
    """Seconds: how long a machine waits for the end of its own boot, and how long we wait for the machine.

    An idle host of two processors needs 11, 18 and 33 s without KVM. A crowded one needed ten times that, and thirty
    times for one that starts Docker, as was seen with a load of 13. Only a machine that hangs waits for their end.
    """
    patience = {Level.QUICK: 600, Level.RELEASE: 840, Level.FULL: 1200}[level]
    if accelerator == "kvm":
        patience //= 6
    return patience, patience + 120


@dataclass(frozen=True)
class Boot:
    """The result of one boot of one machine. `late`: it did not turn itself off in time, and was killed."""

    title: str
    stream: GuestRecords
    console: str
    accelerator: str
    seconds: float
    late: bool

    @property
    def log(self) -> str:
        """The whole console, under a line that says of which boot."""
        how = f"{self.seconds:.1f} s, {self.accelerator}{', ended by us' if self.late else ''}"
        return f"===== {self.title} ({how})\n{plain(self.console)}\n"


@dataclass(frozen=True)
class BootReport:
    """What booting a disk showed: a result for each live check and each observation, and the consoles as evidence."""

    results: tuple[CheckResult, ...]
    console: str
    accelerator: str


# An answer is better than "not applicable", which is the lack of one; a real failure says most.
WORST_FIRST = (Outcome.FAIL, Outcome.ERROR, Outcome.NOT_EVALUATED, Outcome.PASS, Outcome.NOT_APPLICABLE)


IN_A_BOOT = "in the booted machine", "on the tree"


def merge_live(
    static: Sequence[CheckResult], live: Sequence[CheckResult], where: tuple[str, str] = IN_A_BOOT
) -> tuple[CheckResult, ...]:
    """The results of the tree (`static`) with those of what runs (`live`): the worse wins, both are evidence.

    In the order of `static`; what only the machine could show follows. `where`: what evidence calls live and static.
    """
    seen = {result.control: result for result in live}
    known = {result.control for result in static}
    merged = [_worse(result, seen[result.control], where) if result.control in seen else result for result in static]
    return (*merged, *(result for result in live if result.control not in known))


def _worse(static: CheckResult, live: CheckResult, where: tuple[str, str]) -> CheckResult:
    """The worse of both; what decided stands first, and what both say once."""
    if (static.outcome, static.evidence) == (live.outcome, live.evidence):
        return replace(static, evidence=f"{' and '.join(where)}: {static.outcome}: {static.evidence}")
    said = [(where[0], live), (where[1], static)]
    said.sort(key=lambda one: WORST_FIRST.index(one[1].outcome))
    (_, worse), _ = said
    lines = (f"{where}: {result.outcome}: {result.evidence}" for where, result in said)
    return replace(worse, enforcement=static.enforcement, evidence="\n".join(lines))


# A DHCP client waits on these for its server's answer (RFC 2131, RFC 8415); programs as ss cuts their names.
DHCP_PORTS = {68, 546}
DHCP_CLIENTS = {"systemd-network", "dhclient", "dhcpcd"}
STATED = "not counted: loopback, and DHCP clients on 68/udp and 546/udp"


@dataclass(frozen=True)
class Listener:
    """A socket that takes what comes: protocol, address without brackets, interface if bound to one, port, program."""

    protocol: str
    address: str
    interface: str
    port: int
    program: str

    @property
    def name(self) -> str:
        """As a definition names it: `22/tcp`."""
        return f"{self.port}/{self.protocol}"

    @property
    def harmless(self) -> bool:
        """Whether no other machine reaches it, or it is a DHCP client's."""
        if self.protocol == "udp" and self.port in DHCP_PORTS and self.program in DHCP_CLIENTS:
            return True
        return self.interface == "lo" or (self.address != "*" and _is_loopback(self.address))


def judge_sockets(said: str, listens: Sequence[str]) -> tuple[Outcome, str]:
    """The outcome over what the machine said: the kernel's count of TCP listeners, then the lines of `ss -Hltnup`."""
    first, *lines = said.splitlines() or [""]
    count = first.removeprefix("kernel ").strip()
    try:
        sockets = [listener(line) for line in lines if line.strip()]
        outside, expected = [socket for socket in sockets if not socket.harmless], int(count)
    except ValueError:
        return Outcome.ERROR, f"not understood:\n{said}"
    if sum(socket.protocol == "tcp" for socket in sockets) < expected:
        return Outcome.ERROR, f"the kernel knows {expected} TCP listeners, ss does not show all of them:\n{said}"
    unasked = [socket for socket in outside if socket.name not in listens]
    if unasked:
        shown = sorted({f"{one.name} on {one.address} ({one.program or 'the kernel'})" for one in unasked})
        asked = ", ".join(listens) or "nothing"
        return Outcome.FAIL, "\n".join([*shown, f"[machine] listens allows {asked}; {STATED}"])
    named = ", ".join(sorted({socket.name for socket in outside})) or "nothing"
    return Outcome.PASS, f"{len(sockets)} sockets; open to others: {named}; {STATED}"


def listener(line: str) -> Listener:
    """The socket of one line of `ss -Hltnup`. Raises ValueError for any other line."""
    protocol, _, _, _, local, _, *users = line.split(None, 6)
    host, _, port = local.rpartition(":")
    address, _, interface = host.replace("[", "").replace("]", "").partition("%")
    program = users[0].split('"')[1] if users and '"' in users[0] else ""
    return Listener(protocol, address, interface, int(port), program)


def _is_loopback(address: str) -> bool:
    found = ip_address(address)
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


INSTANCE = "goldsmith-boot-gate"
_TIMED_OUT = (124, 137)  # timeout(1): it ended the command, or had to kill it
Judged = tuple[Outcome, str]
Judge = Callable[[str], Judged]


def live_results(checks: Sequence[Check], boot: Boot) -> tuple[CheckResult, ...]:
    """What each of `checks` said in the machine. Without the whole report there was nothing to look at."""
    if not boot.stream.whole:
        return tuple(nothing_to_look_at(check, boot.stream.problem) for check in checks)
    return tuple(live_result(check, boot.stream.records[check.control]) for check in checks)


def live_result(check: Check, record: Record) -> CheckResult:
    """What a check said where it ran, which is an error where it was ended."""
    if record.status in _TIMED_OUT:
        return result_of(check, Outcome.ERROR, f"the check did not finish within {LIVE_LIMIT_SECONDS} s")
    return result_of(check, *outcome_of(record.status, record.stdout, record.stderr))


def observed(boot: Boot, listens: Sequence[str], *, cloud_init: bool) -> tuple[CheckResult, ...]:
    """The results of one first boot; `listens` are sockets that may be open, such as `22/tcp`."""
    return _judged(boot, {
        **_came_up(boot),
        "listening": lambda said: judge_sockets(said, listens),
        **({"cloud-init": _cloud_init} if cloud_init else {}),
    })  # fmt: skip


def _came_up(boot: Boot) -> dict[str, Judge]:
    return {"completed": lambda said: _completed(said, boot), "failed-units": _failed_units}


def _judged(boot: Boot, judges: Mapping[str, Judge]) -> tuple[CheckResult, ...]:
    if not boot.stream.whole:
        return tuple(_without_report(name, boot) for name in judges)
    return tuple(_observation(name, boot.stream.records[f"observed.{name}"], judge) for name, judge in judges.items())


def no_second() -> CheckResult:
    """The result where there was no first boot to come after."""
    return nothing_to_look_at(_check("boot-second"), "the first boot gave no whole report")


def second(first: Boot, again: Boot, other: Boot) -> CheckResult:
    """Whether the machine came up `again` on the disk that `first` wrote, still itself, and unlike any `other`."""
    late = [f"the first boot did not turn itself off\n{tail(first.console)}"] if first.late else []
    dark = [f"{one.title}: {one.stream.problem}\n{tail(one.console)}" for one in (again, other) if not one.stream.whole]
    wrong = [*late, *dark] or [*_not_good(again), *_not_itself(first, again), *_not_unlike(first, other)]
    if wrong:
        return own_result("boot-second", Outcome.FAIL, "\n".join(wrong))
    kept = ", ".join(sorted(_identity(first)))
    return own_result("boot-second", Outcome.PASS, f"came up again without a failed unit; kept, and its own: {kept}")


def _completed(said: str, boot: Boot) -> Judged:
    facts = _facts(said)
    state, (target, *active) = facts.get("state", "unknown"), facts.get("target", "unknown").split()
    if state in {"running", "degraded"} and active == ["active"]:
        return Outcome.PASS, f"{target} reached after {facts.get('uptime', '?')} s ({boot.accelerator}); state {state}"
    waiting = [line for line in said.splitlines() if line.startswith("waiting ")]
    return Outcome.FAIL, "\n".join([f"state {state}, {target} is not reached", *waiting, tail(boot.console)])


def _failed_units(said: str) -> Judged:
    lines = said.splitlines()
    count = next((line.removeprefix("units ") for line in lines if line.startswith("units ")), "")
    if not count.isdecimal() or not count.strip("0"):
        return Outcome.ERROR, "systemctl showed no units at all"
    failed = [line for line in lines if line.startswith(("failed ", "log "))]
    return (Outcome.FAIL, "\n".join(failed)) if failed else (Outcome.PASS, f"{count} units, none of them failed")


def _cloud_init(said: str) -> Judged:
    if said.strip() == "absent":
        return Outcome.NOT_APPLICABLE, "the image has no cloud-init"
    facts = _facts(said)
    try:
        result, status = (json.loads(facts[name])["v1"] for name in ("result", "status"))
        wrong = [str(one) for one in (*result.get("errors", ()), *_complaints(status))]
    except NOT_UNDERSTOOD:
        return Outcome.FAIL, f"cloud-init did not end\n{said}"
    if facts.get("instance") != INSTANCE:
        wrong.append(f"it found another instance than its seed names: {facts.get('instance')}")
    shown = f"datasource {result.get('datasource')}"
    return (Outcome.FAIL, "\n".join([shown, *wrong])) if wrong else (Outcome.PASS, f"{shown}, no error")


def _complaints(status: dict[str, Any]) -> Iterator[str]:
    """The errors of every stage, those from which it recovered among them; what is only deprecated is none."""
    for stage in (value for value in status.values() if isinstance(value, dict)):
        yield from stage.get("errors") or ()
        for level, words in (stage.get("recoverable_errors") or {}).items():
            yield from (f"{level}: {text}" for text in words if level != "DEPRECATED")


def _not_good(again: Boot) -> list[str]:
    results = _judged(again, _came_up(again))
    return [f"{again.title}: {result.evidence}" for result in results if result.outcome is not Outcome.PASS]


def _not_itself(first: Boot, again: Boot) -> list[str]:
    before, after = _identity(first), _identity(again)
    wrong = [f"not kept over a boot: {name}" for name in sorted(before) if after.get(name) != before[name]]
    if not before.get("machine-id", "").strip("0"):
        wrong.append("the machine has no machine-id")
    if first.stream.records["observed.identity"].stdout == again.stream.records["observed.identity"].stdout:
        wrong.append("what should be a second boot has the first one's boot id")
    return wrong


def _not_unlike(first: Boot, other: Boot) -> list[str]:
    one, two = _identity(first), _identity(other)
    same = [f"the same in two machines: {name}" for name in sorted(one) if two.get(name) == one[name]]
    return [*same, *(f"not known of the other machine: {name}" for name in sorted(one.keys() - two.keys()))]


def _identity(boot: Boot) -> dict[str, str]:
    facts = _facts(boot.stream.records["observed.identity"].stdout)
    return {name: value for name, value in facts.items() if name != "boot"}


def _facts(said: str) -> dict[str, str]:
    """What the machine said, a name and its value in each line."""
    return dict(line.split(" ", 1) for line in said.splitlines() if " " in line)


def _observation(name: str, record: Record, judge: Judge) -> CheckResult:
    if record.status or record.stderr.strip():
        said = f"the machine could not be asked (status {record.status})\n{record.stdout}{record.stderr}"
        return own_result(f"boot-{name}", Outcome.ERROR, said)
    return own_result(f"boot-{name}", *judge(record.stdout))


def _without_report(name: str, boot: Boot) -> CheckResult:
    """A machine that does not report has not come up; of the rest there was nothing to look at."""
    if name != "completed":
        return nothing_to_look_at(_check(f"boot-{name}"), boot.stream.problem)
    ended = f", and did not end within {boot.seconds:.0f} s" if boot.late else f", and ended after {boot.seconds:.0f} s"
    said = f"{boot.stream.problem}{ended} ({boot.accelerator}); the console's last lines:\n{tail(boot.console)}"
    return own_result("boot-completed", Outcome.FAIL, said)


def own_result(control: str, outcome: Outcome, evidence: str) -> CheckResult:
    """The result of what a boot or a start itself showed, which `TITLES` names."""
    return result_of(_check(control), outcome, evidence.strip())


def _check(control: str) -> Check:
    return Check(control, TITLES[control], Severity.HIGH, Enforcement.ENFORCE, "", {})
