"""What of an earlier scan still stands: a report is good for as long as nothing that entered it has changed.

Only reports are kept, with the date of their data; what they mean (merging, known exploitation, the policy) is worked
out anew each time, so that data grown old counts as old.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from hardening import findings
from hardening.findings import Outcome, ScanReport
from hardening.foundation.hashing import digest, digest_of
from hardening.foundation.process import which
from images import scan as own
from images.scan.base import Feed, Scanner

SBOM = "sbom"


def inputs_of(
    subject: str, scanners: Mapping[str, Scanner], data: Mapping[str, Feed], missing: Mapping[str, str]
) -> dict[str, str]:
    """By scanner, and under `sbom`: the digest of all that enters its report.

    That is the image (`subject` names everything in it), the program, the data or why there is none, and our own code
    around it. Of the environment a scanner sees nothing.
    """
    common = [subject, _own_code()]
    found = {
        name: digest_of(
            [*common, name, _program(scanner.program), _data(data.get(scanner.data)), missing.get(scanner.data, "")]
        )
        for name, scanner in scanners.items()
    }
    return {**found, SBOM: digest_of([*common, SBOM, _program("syft")])}


def still_valid(
    reports: Iterable[ScanReport], before: Mapping[str, str], inputs: Mapping[str, str]
) -> dict[str, ScanReport]:
    """By scanner, the reports that the same inputs led to. An error never stands: it may not happen again. Pure."""
    same = {name for name, entered in inputs.items() if before.get(name) == entered}
    return {r.scanner: r for r in reports if r.scanner in same and r.outcome is not Outcome.ERROR}


def _program(name: str) -> list[object]:
    """What tells that a program was replaced by another version, without asking it."""
    path = which(name)
    return [str(path), *_stamp(path)] if path else []


def _data(feed: Feed | None) -> list[str]:
    return [str(feed.date), feed.source, feed.note, feed.sha256, *feed.stamps] if feed else []


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@cache
def _own_code() -> str:
    modules = [
        *Path(str(own.__file__)).parent.glob("*.py"),
        *Path(str(own.__file__)).parent.glob("*.sh"),
        Path(findings.__file__),
    ]
    return digest(b"".join(path.read_bytes() for path in sorted(modules)))
