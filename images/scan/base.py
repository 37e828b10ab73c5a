"""The seam of the scanners: what is scanned, with which data, and the two pure functions that each scanner is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import index
from pathlib import Path
from typing import Any

from hardening.findings import Finding, FindingKind, Outcome, ScanReport
from hardening.model import Kind, Severity
from images.advisories import Advisories
from images.artifact import Package

NO_DATA, NO_PACKAGE = "it has no data", "the image's dpkg status lists no package"
NOT_RECOGNISED = "it recognised no operating-system package in the image"


@dataclass(frozen=True)
class ScanTarget:
    """What is scanned: the artifact itself, never another tool's description of it.

    `tree` is its unpacked filesystem, `packages` what the plan says is installed: a scanner that saw fewer did not
    evaluate it. A container has `layout`, a standalone OCI layout, and `dockerfile`, the rendered one where there is
    one; `no_healthcheck_because` is the definition's reason for none. A machine has `disk`, its raw disk; `digest` and
    `created` (ISO 8601) of its content, which no layout tells; and `benchmark`, the profile that its policy measures it
    by, if any. `subject` is a digest over all of that; empty where nothing is kept for the next scan.
    """

    name: str
    layout: Path | None
    tree: Path
    dockerfile: Path | None = None
    packages: tuple[Package, ...] = ()
    subject: str = ""
    no_healthcheck_because: str = ""
    kind: Kind = Kind.CONTAINER
    disk: Path | None = None
    digest: str = ""
    created: str = ""
    benchmark: str = ""


@dataclass(frozen=True)
class Feed:
    """Vulnerability data on this machine: where it lies, of which date, where it came from, and its digest.

    `note` tells what went wrong when an older copy had to do; `sample`: it is the small sample that ships; `stamps`
    stand for the digest of data that is too big to read for one: its files, with size and time.
    """

    directory: Path
    date: datetime | None
    source: str
    sha256: str = ""
    note: str = ""
    sample: bool = False
    stamps: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScanInputs:
    """What scanners need besides the target: a private work directory, the suite, the data, and what the tree says.

    That is its dpkg `status`; `services`, the units that it starts at boot and keeps running; and `mounts`, the text of
    its proc/mounts, which must be empty: where the host's is mounted, the host would be judged. Of a container, `image`
    is its OCI configuration, and `dockerfile` the text of the Dockerfile that made it, if one did.
    `system` is the id and version of its os-release, such as `debian 13`, and empty where that names none.
    `feeds` holds the data by the scanner's name; without an entry there is none, and `missing` says why. `advisories`
    are of the image's suite, for a scanner that is a function of ours.
    """

    work: Path
    suite: str
    status: str
    feeds: dict[str, Feed]
    missing: dict[str, str]
    services: tuple[str, ...] = ()
    mounts: str = ""
    image: Mapping[str, Any] = field(default_factory=dict)
    dockerfile: str = ""
    system: str | None = None
    advisories: Advisories = field(default_factory=Advisories)


def lacks_suite(_target: ScanTarget, inputs: ScanInputs) -> str:
    """Why advisories over a suite's packages cannot be asked; empty where they can."""
    return "" if inputs.suite else "the image names no Debian suite in os-release"


@dataclass(frozen=True)
class Scanner:
    """One scanner. `command` and `parse` are pure; `lacks` says what else than its data is not there to evaluate.

    `kinds` are the images that it is for, and `spares` says why there is nothing of its kind in this one (no
    Dockerfile): not a gap, no finding. `ok` are the exit statuses that mean "it did its work". `answers` are the files
    of the work directory that it writes its answer to, where that is not its standard output; `files` are put there for
    it, by name, and the image as docker saves one under the name `archive`, if it has any. `environment` is all that it
    sees beside where it is (`confinement`); `within` is the command that runs it, if one does. `feed` names the data
    that it judges by, if it needs any; `ignores`: see ScanReport.

    `lists` gives the package URLs that its answer says it looked at, beside the distribution's own; by default none.

    Without a `program` it is a function of ours: `parse` gets an empty answer, and looks at what the inputs hold.
    """

    name: str
    kind: FindingKind
    program: str
    command: Callable[[ScanTarget, ScanInputs], list[str]]
    parse: Callable[[str, ScanTarget, ScanInputs], ScanReport]
    lacks: Callable[[ScanTarget, ScanInputs], str] = lambda _target, _inputs: ""
    kinds: tuple[Kind, ...] = (Kind.CONTAINER, Kind.MACHINE)
    spares: Callable[[ScanTarget], str] = lambda _target: ""
    ok: tuple[int, ...] = (0,)
    answers: tuple[str, ...] = ()
    files: Callable[[ScanTarget, ScanInputs], dict[str, str]] = lambda _target, _inputs: {}
    environment: Callable[[ScanTarget, ScanInputs], dict[str, str]] = lambda _target, _inputs: {}
    within: Callable[[ScanTarget, ScanInputs], list[str]] = lambda _target, _inputs: []
    feed: str = ""
    lists: Callable[[str], Iterable[str]] = lambda _said: ()
    archive: str = ""
    ignores: tuple[str, ...] = ()

    def cannot(self, target: ScanTarget, inputs: ScanInputs) -> str:
        """Why this scanner cannot evaluate `target`; empty where it can."""
        if lacks := self.lacks(target, inputs):
            return lacks
        return inputs.missing.get(self.feed, NO_DATA) if self.feed and self.feed not in inputs.feeds else ""

    def not_for(self, target: ScanTarget) -> str:
        """Why this scanner has nothing to look at in `target`; empty where it has."""
        if target.kind not in self.kinds:
            return f"it is for {' and '.join(f'{kind}s' for kind in self.kinds)}"
        return self.spares(target)


FAMILIES = {"amzn": "amazon", "ol": "oracle", "rhel": "redhat", "opensuse-leap": "opensuse.leap"}
"""Ids of os-release that scanners name otherwise."""


def other_system(inputs: ScanInputs, family: str, version: str) -> str:
    """Why a scanner that took the image for this system did not evaluate it; empty where os-release says the same.

    Scanners read other files for it, and by the advisories of another release, or of none, find nothing.
    """
    if inputs.system is None:
        return ""
    name, _, release = inputs.system.partition(" ")
    same = FAMILIES.get(name, name) == family and re.match(
        rf"{re.escape(release)}(?![0-9])" if release else "", version
    )
    taken = f"{family} {version}".strip() or "no known system"
    return "" if name and same else f"it took the image for {taken}; os-release says {inputs.system or 'nothing'}"


def unevaluated(scanner: Scanner, outcome: Outcome, reason: str, feed: Feed | None = None) -> ScanReport:
    """The report of a scanner that looked at nothing, which never counts as a pass."""
    feed = feed or Feed(Path(), None, "")
    return ScanReport(
        scanner.name, scanner.kind, outcome, 0, feed.date, data_source=feed.source, reason=reason, sample=feed.sample
    )


def report(
    name: str, kind: FindingKind, findings: list[Finding], evaluated: int, nothing: str, *, feed: Feed | None = None,
    expected: int = 0, version: str = "", profile: str = "", note: str = "", things: str = "packages",
) -> ScanReport:  # fmt: skip
    """A scanner's report; NOT_EVALUATED where it looked at nothing or at less than `expected`, whatever it found.

    `nothing` is the reason where it looked at nothing, `note` what else there is to know; `profile`: see ScanReport.
    Raises TypeError or ValueError, as `finding` does, where the scanner said something else than text.
    """
    _require_text(version, profile, note)
    evaluated = index(evaluated)  # a fraction of a package was never looked at
    if evaluated < 0:
        raise ValueError(f"it says that it looked at {evaluated}")
    short = expected and 0 < evaluated < expected
    reason = f"it saw {evaluated} of the image's {expected} {things}" if short else "" if evaluated else nothing
    outcome = Outcome.NOT_EVALUATED if reason else Outcome.FAIL if findings else Outcome.PASS
    feed = feed or Feed(Path(), None, "built into the scanner")
    return ScanReport(
        name, kind, outcome, evaluated, feed.date, data_source=feed.source, reason=reason or note or feed.note,
        findings=tuple(sorted(findings)), version=version, sample=feed.sample, profile=profile,
    )  # fmt: skip


def finding(
    scanner: str, kind: FindingKind, rule: str, package: str, word: str, *, installed: str = "", fixed: str = "",
    title: str = "", source: str = "", ecosystem: str = "", status: str = "",
) -> Finding:  # fmt: skip
    """What one scanner found; `word` is its own for the severity. Raises TypeError or ValueError for no text."""
    _require_text(rule, package, installed, fixed, title, source, ecosystem, status)
    how_bad = severity(word)
    return Finding(
        kind, rule, package, installed, fixed, how_bad, ((scanner, how_bad),), title, source=source,
        ecosystem=ecosystem, status=status,
    )  # fmt: skip


def _require_text(*said: object) -> None:
    """Raise TypeError for what is no text, and ValueError for text that no file can hold (half a character)."""
    for one in said:
        if not isinstance(one, str):
            raise TypeError(f"{one!r:.80} is not text")
        one.encode()


def purl_type(purl: str) -> str:
    """The type of a package URL: `deb` of `pkg:deb/debian/tar@1.35`; empty where it is none."""
    return purl.removeprefix("pkg:").partition("/")[0] if purl.startswith("pkg:") else ""


def severity(text: str) -> Severity:
    """A scanner's own word for severity as ours; UNKNOWN for words that we do not know."""
    word = text.strip().lower()
    aliases = {"error": Severity.HIGH, "warning": Severity.MEDIUM, "info": Severity.LOW, "style": Severity.LOW}
    return aliases.get(word) or (Severity(word) if word in set(Severity) else Severity.UNKNOWN)
