"""Scan one image: every scanner side by side over the artifact itself, their findings merged, and its SBOM.

A report is good for as long as nothing that entered it has changed. Only reports are kept, with the date of their data;
what they mean (merging, known exploitation, the policy) is worked out again each time, so that data grown old counts as
old.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from hardening import findings
from hardening.findings import Finding, FindingKind, Outcome, ScanReport, merge
from hardening.foundation import confinement, process
from hardening.foundation.confinement import read_answer, run_confined
from hardening.foundation.errors import NOT_UNDERSTOOD, GoldsmithError, OutsideError, traced, understood
from hardening.foundation.hashing import digest, digest_of
from hardening.foundation.process import threads, which
from hardening.foundation.settings import Settings
from hardening.model import Kind
from images import advisories, artifact, feeds
from images.feeds import indexed
from images.feeds.indexed import EPSS
from images.packages import debian
from images.packages.dpkg_tree import dpkg_status
from images.scan import boot_state, chosen, contents, openscap, reproduced, syft
from images.scan.base import NO_DATA, Feed, ScanInputs, Scanner, ScanTarget, report, unevaluated
from images.scan.boot_state import services_of
from images.scan.sandbox import refuse_denied
from images.scan.syft import Bills
from images.store import layers
from images.store.oci import Store

HERE = Path(__file__).parent
SBOM = "sbom"


@dataclass(frozen=True)
class ScanResult:
    """What the scanners said of one image: their reports, the findings merged, and the SBOM (CycloneDX, canonical).

    `inputs`: by scanner, what its report was made from (`inputs_of`); `suite`: of the image; `spdx`: the SBOM as SPDX.
    """

    reports: tuple[ScanReport, ...]
    findings: tuple[Finding, ...]
    sbom: bytes
    suite: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    spdx: bytes = b""


def scan(
    target: ScanTarget, settings: Settings, scanners: Mapping[str, Scanner] | None = None, *,
    now: datetime | None = None, known: ScanResult | None = None,
) -> ScanResult:  # fmt: skip
    """Run `scanners` over `target` side by side. A scanner that fails is a report with outcome ERROR, never silence.

    Without `scanners`, those that the settings choose. Of `known`, an earlier scan, what still stands is not made
    again. `now` decides whether feeds are asked again.
    Raises OutsideError where no SBOM can be made or the layout is broken.
    """
    now, scanners = now or datetime.now(UTC), chosen(settings.scanners) if scanners is None else scanners
    target, image = _whole(target)
    suite = suite_of(target.tree)
    data, missing = feeds.current(settings, suite, now, benchmark=bool(target.benchmark))
    exploited = feeds.exploitation(settings, now)
    entered = inputs_of(target.subject, scanners, data, missing) if target.subject else {}
    still, bill_stands = _still(known, entered)
    with tempfile.TemporaryDirectory(prefix="goldsmith-scan-") as work, threads() as pool:
        inputs = replace(_inputs(target, Path(work), suite, data, missing), image=image)
        bill = None if bill_stands else pool.submit(_sbom, target, inputs.work)
        runs = [pool.submit(_one, scanner, target, inputs) for name, scanner in scanners.items() if name not in still]
        made = [run.result() for run in runs]
        bills = bill.result() if bill else _bills(known) if known else Bills(b"", b"")
    with understood("syft"):
        held = contents.contents_of(bills.spdx)
    reports = [*still.values(), *(contents.with_ecosystems(report, listed, held) for report, listed in made)]
    return _result([*reports, *reproduced.reports(settings, bills.cyclonedx, now)], exploited, bills, suite, entered)


@dataclass
class FeedsOnce:
    """The feeds and the programs of scanners, each asked once: for many images of one moment."""

    _data: dict[tuple[str, bool], tuple[dict[str, Feed], dict[str, str]]] = field(default_factory=dict)
    _exploited: feeds.Exploited | None = None
    program: Callable[[str], list[object]] = field(default_factory=lambda: cache(_program))

    def current(
        self, settings: Settings, suite: str, now: datetime, *, benchmark: bool = False
    ) -> tuple[dict[str, Feed], dict[str, str]]:
        """`feeds.current` of a suite."""
        if (suite, benchmark) not in self._data:
            self._data[suite, benchmark] = feeds.current(settings, suite, now, benchmark=benchmark)
        return self._data[suite, benchmark]

    def exploitation(self, settings: Settings, now: datetime) -> feeds.Exploited:
        """`feeds.exploitation`, which is of all suites."""
        self._exploited = self._exploited or feeds.exploitation(settings, now)
        return self._exploited


def unchanged(
    known: ScanResult, subject: str, settings: Settings, scanners: Mapping[str, Scanner] | None = None, *,
    now: datetime, benchmark: bool = False, source: FeedsOnce | None = None,
) -> ScanResult | None:  # fmt: skip
    """The scan of `subject` without a look at the image, where all of an earlier one still stands; else None.

    `benchmark`: its policy measures it by one; `source` has the data of feeds for several such questions.
    Raises OutsideError where the list of exploited vulnerabilities is set and cannot be had.
    """
    scanners, source = chosen(settings.scanners) if scanners is None else scanners, source or FeedsOnce()
    data, missing = source.current(settings, known.suite, now, benchmark=benchmark)
    entered = inputs_of(subject, scanners, data, missing, source.program)
    still, bill_stands = _still(known, entered)
    if still.keys() != scanners.keys() or not bill_stands:
        return None
    reports = [*still.values(), *reproduced.reports(settings, known.sbom, now)]
    return _result(reports, source.exploitation(settings, now), _bills(known), known.suite, entered)


def _bills(known: ScanResult) -> Bills:
    return Bills(known.sbom, known.spdx)


def at_best(settings: Settings, suite: str, now: datetime) -> tuple[ScanReport, ...]:
    """What the judges of vulnerabilities could say at best of an image of `suite`: as if each had seen a package.

    A judge without a program, or without data, evaluates nothing, and that is known before an image is there.
    """
    data, missing = feeds.current(settings, suite, now)
    judges = [scanner for scanner in chosen(settings.scanners).values() if scanner.kind is FindingKind.VULNERABILITY]
    return tuple(_at_best(scanner, data.get(scanner.feed), missing) for scanner in judges)


def _at_best(scanner: Scanner, feed: Feed | None, missing: Mapping[str, str]) -> ScanReport:
    if scanner.program and process.which(scanner.program) is None:
        return unevaluated(scanner, Outcome.NOT_EVALUATED, f"{scanner.program} is not installed", feed)
    if feed is None:
        return unevaluated(scanner, Outcome.NOT_EVALUATED, missing.get(scanner.feed, NO_DATA))
    return report(scanner.name, scanner.kind, [], 1, "", feed=feed)


def _still(known: ScanResult | None, entered: Mapping[str, str]) -> tuple[dict[str, ScanReport], bool]:
    """What of an earlier scan stands: reports by scanner, and whether its SBOM does."""
    if known is None or not entered:
        return {}, False
    return still_valid(known.reports, known.inputs, entered), known.inputs.get(SBOM) == entered[SBOM]


def _result(
    reports: Iterable[ScanReport], exploited: feeds.Exploited, bills: Bills, suite: str, entered: dict[str, str]
) -> ScanResult:
    """The scan that these reports amount to, by today's list of what is exploited."""
    made = sorted(reports, key=lambda report: report.scanner)
    found = merge(finding for report in made for finding in report.findings)
    scores = exploited.likely.scores
    findings = tuple(
        replace(finding, exploited=finding.id in exploited.ids, epss=scores.get(finding.id)) for finding in found
    )
    reports = (*made, *known_exploited(exploited))
    return ScanResult(reports, findings, bills.cyclonedx, suite, entered, bills.spdx)


def known_exploited(known: feeds.Exploited) -> tuple[ScanReport, ...]:
    """Reports of what is exploited, and of how likely the rest is, so that their age shows; of what nobody asked for,
    none.
    """
    kev = _exploitation("kev", feeds.KEV, known.feed, known.missing, len(known.ids))
    epss = _exploitation("epss", EPSS, known.likely.feed, known.likely.missing, len(known.likely.scores))
    return (*kev, *epss)


def _exploitation(name: str, address: str, feed: Feed | None, missing: str, count: int) -> tuple[ScanReport, ...]:
    kind = FindingKind.EXPLOITATION
    if feed is None:
        silent = ScanReport(name, kind, Outcome.NOT_EVALUATED, 0, None, address, missing)
        return (silent,) if missing else ()
    return (ScanReport(name, kind, Outcome.PASS, count, feed.date, feed.source, feed.note),)


def _whole(target: ScanTarget) -> tuple[ScanTarget, dict[str, Any]]:
    """`target` with absolute paths, digest and date, and its OCI configuration, which only a container has."""
    disk = target.disk and target.disk.absolute()
    target = replace(target, tree=target.tree.absolute(), disk=disk)
    if target.layout is None:
        return target, {}
    image, digest = image_config(target.layout)
    created = image.get("created") or ""
    return replace(target, layout=target.layout.absolute(), digest=digest, created=created), image


def _inputs(target: ScanTarget, work: Path, suite: str, data: dict[str, Feed], missing: dict[str, str]) -> ScanInputs:
    machine = target.kind is Kind.MACHINE
    return ScanInputs(
        work, suite, dpkg_status(target.tree), data, missing,
        services=services_of(target.tree) if machine else (), mounts=_text(target.tree, "proc/mounts"),
        dockerfile=target.dockerfile.read_text(errors="replace") if target.dockerfile else "",
        system=system_of(target.tree),
    )  # fmt: skip


def _one(scanner: Scanner, target: ScanTarget, inputs: ScanInputs) -> tuple[ScanReport, frozenset[str]]:
    """The report of a scanner, and the packages beside the distribution's that its answer lists."""
    feed = inputs.feeds.get(scanner.feed)
    if reason := scanner.not_for(target):
        return unevaluated(scanner, Outcome.NOT_APPLICABLE, reason), frozenset()
    program = process.which(scanner.program) if scanner.program else None
    absent = f"{scanner.program} is not installed" if scanner.program and not program else ""
    if why := scanner.cannot(target, inputs) or absent:
        return unevaluated(scanner, Outcome.NOT_EVALUATED, why, feed), frozenset()
    inputs = replace(inputs, work=inputs.work / scanner.name)
    try:
        if program is None:
            return reported(scanner, "", target, _with_advisories(inputs, feed)), frozenset()
        refuse_denied(Path(str(program)))
        inputs.work.mkdir()
        for name, text in scanner.files(target, inputs).items():
            (inputs.work / name).write_text(text)
        if scanner.archive and target.layout:
            Store(target.layout).save_as_docker(target.digest, inputs.work / scanner.archive)
        if scanner.name == openscap.NAME:
            boot_state.write(target.tree, inputs.work / openscap.PROC)
        said = run_confined(
            [str(program), *scanner.command(target, inputs)[1:]], reads=[*_reads(target, feed), HERE], work=inputs.work,
            env=scanner.environment(target, inputs), within=scanner.within(target, inputs), ok=scanner.ok,
        ).stdout  # fmt: skip
        answers = [read_answer(inputs.work / name) for name in scanner.answers]
        said = "\n".join(answers or [said])
        found = reported(scanner, said, target, inputs)
        with understood(scanner.name):
            return found, contents.listed_by(scanner.lists, said) if found.evaluated else frozenset()
    except GoldsmithError as error:
        return unevaluated(scanner, Outcome.ERROR, f"{error.message}: {error.evidence[-300:]}", feed), frozenset()
    except OSError as error:
        return unevaluated(scanner, Outcome.ERROR, f"{type(error).__name__}: {error}", feed), frozenset()


def reported(scanner: Scanner, said: str, target: ScanTarget, inputs: ScanInputs) -> ScanReport:
    """What a scanner `said`. In a form that we do not know it is no evaluation, whatever its exit status."""
    try:
        return replace(scanner.parse(said, target, inputs), ignores=scanner.ignores)
    except (*NOT_UNDERSTOOD, SyntaxError) as error:
        feed = inputs.feeds.get(scanner.feed)
        return unevaluated(scanner, Outcome.ERROR, f"unknown output: {traced(error)}", feed)


def _with_advisories(inputs: ScanInputs, feed: Feed | None) -> ScanInputs:
    """The inputs with what the data says of the image's packages."""
    if feed is None:
        return inputs
    return replace(inputs, advisories=indexed.advisories(feed, inputs.suite, debian.installed(inputs.status)))


def _sbom(target: ScanTarget, work: Path) -> Bills:
    program = process.which("syft")
    if not program:
        raise OutsideError("syft is not installed", hint="./goldsmith doctor shows what is missing")
    refuse_denied(program)
    own = work / SBOM
    own.mkdir()
    config = own / "syft.yaml"
    config.touch()
    argv = [str(program), *syft.command(target, config)[1:]]
    run_confined(argv, reads=_reads(target), work=own, env=syft.ENVIRONMENT)
    try:
        said = read_answer(own / syft.CYCLONEDX), read_answer(own / syft.SPDX)
    except OSError as error:
        raise OutsideError(f"syft wrote no bill of materials: {error}") from None
    return bills_of(*said, target)


def bills_of(cyclonedx: str, spdx: str, target: ScanTarget) -> Bills:
    """Both bills that syft wrote. Raises OutsideError for what is none, or lacks packages of the target."""
    try:
        return syft.normalise(cyclonedx, spdx, target)
    except NOT_UNDERSTOOD as error:
        raise OutsideError(f"syft wrote no bill of materials that is known: {traced(error)}") from error


def _reads(target: ScanTarget, feed: Feed | None = None) -> list[Path | None]:
    """What a scanner of `target` that judges by `feed` gets to see."""
    return [target.tree, target.layout, target.disk, feed.directory if feed else None]


def image_config(layout: Path) -> tuple[dict[str, Any], str]:
    """The image configuration in a standalone OCI layout of one image, and the manifest's digest."""
    try:
        [entry] = json.loads((layout / "index.json").read_text())["manifests"]
        return Store(layout).config(entry["digest"]), entry["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutsideError(f"{layout} is not an OCI layout of one image: {error}") from None


def suite_of(tree: Path) -> str:
    """The Debian suite (codename) that the filesystem's os-release names; empty where it names none.

    It becomes part of addresses and file names: raises OutsideError where it is no name of a suite, and where both
    places of that file name one, and not the same: programs differ in which they read.
    """
    places = ("etc/os-release", "usr/lib/os-release")
    named = {place: debian.os_release(_text(tree, place)).get("VERSION_CODENAME", "") for place in places}
    found = {debian.suite(name, place) for place, name in named.items() if name}
    if len(found) > 1:
        raise OutsideError(f"{' and '.join(places)} of the image name two releases: {', '.join(sorted(found))}")
    return "".join(found)


def system_of(tree: Path) -> str:
    """The id and version that the filesystem's os-release names, such as `debian 13`; empty where it names none."""
    texts = (_text(tree, place) for place in ("etc/os-release", "usr/lib/os-release"))
    named = debian.os_release(next(filter(None, texts), ""))
    return f"{named.get('ID', '')} {named.get('VERSION_ID', '')}".strip()


def _text(tree: Path, place: str) -> str:
    return layers.small_text(tree, tree / place)


def inputs_of(
    subject: str, scanners: Mapping[str, Scanner], data: Mapping[str, Feed], missing: Mapping[str, str],
    program: Callable[[str], list[object]] | None = None,
) -> dict[str, str]:  # fmt: skip
    """By scanner, and under `sbom`: the digest of all that enters its report.

    That is the image (`subject` names everything in it), the program, the data or why there is none, syft, whose bill
    says what there is to evaluate, and our own code around it. Of the environment a scanner sees nothing.
    """
    program = program or _program
    common = [subject, _own_code(), program("syft")]
    found = {
        name: digest_of(
            [*common, name, program(scanner.program), _data(data.get(scanner.feed)), missing.get(scanner.feed, "")]
        )
        for name, scanner in scanners.items()
    }
    return {**found, SBOM: digest_of([*common, SBOM])}


def still_valid(
    reports: Iterable[ScanReport], before: Mapping[str, str], inputs: Mapping[str, str]
) -> dict[str, ScanReport]:
    """By scanner, the reports that the same inputs led to. An error never stands: it may not happen again. Pure."""
    same = {name for name, entered in inputs.items() if before.get(name) == entered}
    return {r.scanner: r for r in reports if r.scanner in same and r.outcome is not Outcome.ERROR}


def _program(name: str) -> list[object]:
    """What tells that a program was replaced by another version, without asking it."""
    path = which(name) if name else None
    return [str(path), path.stat().st_size, path.stat().st_mtime_ns] if path else []


def _data(feed: Feed | None) -> list[str]:
    return [str(feed.date), feed.source, feed.note, feed.sha256, *feed.stamps] if feed else []


@cache
def _own_code() -> str:
    others = [Path(str(module.__file__)) for module in (findings, advisories, artifact, debian, confinement)]
    modules = [*HERE.glob("*.py"), *HERE.glob("*.sh"), *others, Path(confinement.__file__).with_name("confined.py")]
    return digest(b"".join(path.read_bytes() for path in sorted(modules)))
