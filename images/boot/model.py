"""The values of the boot gate: how thoroughly a disk is booted, what one boot gave, and the report over all. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from hardening.findings import CheckResult, Outcome
from images.boot.guest import GuestRecords, plain


class Level(StrEnum):
    """How a disk is booted.

    QUICK: its kernel, without firmware and, where it can, without initrd: for those who edit controls. RELEASE: as
    shipped, from UEFI firmware through the unified kernel: the gate. FULL: that, with a cloud's answer for cloud-init.
    """

    QUICK = "quick"
    RELEASE = "release"
    FULL = "full"


@dataclass(frozen=True)
class BootLimits:
    """Seconds: how long the machine waits for the end of its own boot, and how long we wait for the machine."""

    patience: int
    machine: int


def limits(level: Level, accelerator: str) -> BootLimits:
    """The limits of one boot. An idle host of two processors needs 11, 18 and 33 s without KVM, a crowded one ten times
    that, as was seen with a load of 13; only a machine that hangs waits for the end of them.
    """
    patience = {Level.QUICK: 300, Level.RELEASE: 420, Level.FULL: 600}[level]
    if accelerator == "kvm":
        patience //= 3
    return BootLimits(patience, patience + 120)


@dataclass(frozen=True)
class Boot:
    """What one boot of one machine gave. `late`: it did not turn itself off in time, and was ended."""

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

    level: Level
    results: tuple[CheckResult, ...]
    console: str
    accelerator: str
    seconds: float


# An answer is better than "not applicable", which is the lack of one; a real failure says most.
WORST_FIRST = (Outcome.FAIL, Outcome.ERROR, Outcome.NOT_EVALUATED, Outcome.PASS, Outcome.NOT_APPLICABLE)


def merge_live(static: Sequence[CheckResult], live: Sequence[CheckResult]) -> tuple[CheckResult, ...]:
    """The results of the tree (`static`) with those of the booted machine (`live`): the worse wins, both are evidence.

    In the order of `static`; what only the machine could show follows.
    """
    seen = {result.control: result for result in live}
    known = {result.control for result in static}
    merged = [_worse(result, seen[result.control]) if result.control in seen else result for result in static]
    return (*merged, *(result for result in live if result.control not in known))


def _worse(static: CheckResult, live: CheckResult) -> CheckResult:
    """The worse of both; what decided stands first."""
    said = [("in the booted machine", live), ("on the tree", static)]
    said.sort(key=lambda one: WORST_FIRST.index(one[1].outcome))
    (_, worse), _ = said
    lines = (f"{where}: {result.outcome}: {result.evidence}" for where, result in said)
    return replace(worse, enforcement=static.enforcement, evidence="\n".join(lines))
