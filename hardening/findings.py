"""The values of a verdict: results of checks, findings of scanners, and the verdict over them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hardening.foundation.bulk import frozen_by_types
from hardening.model import WORST_FIRST, Enforcement, Severity

if TYPE_CHECKING:
    from hardening.render import Check


class Outcome(StrEnum):
    """The result of a check or a scanner. ERROR and NOT_EVALUATED never count as a pass."""

    PASS = "pass"  # noqa: S105 - an outcome, not a password
    FAIL = "fail"
    NOT_APPLICABLE = "not-applicable"
    ERROR = "error"
    NOT_EVALUATED = "not-evaluated"


@dataclass(frozen=True)
class CheckResult:
    """The result of one control's check on one tree, with its evidence and the enforcement of the profile that day.

    `absent`: there is no filesystem, or machine, to check.
    """

    control: str
    title: str
    severity: Severity
    enforcement: Enforcement
    outcome: Outcome
    evidence: str
    absent: bool = False

    @property
    def broke(self) -> bool:
        """Whether the check itself failed over a filesystem that was there: no pass, and no verdict on the image."""
        return self.outcome is Outcome.ERROR and not self.absent


@dataclass(frozen=True)
class ImageFacts:
    """What a check may know of an image besides its filesystem. `config` is the OCI image configuration.

    `healthcheck` is its command, joined; `history` every history entry, variable and label; `run_status` the exit
    status of the image really run with a read-only root and no capabilities, None when it was not run. `declared` are
    the paths of the `files` in image.toml of the definition and of those it is built on.
    """

    user: str = ""
    healthcheck: str = ""
    healthcheck_reason: str = ""
    history: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    run_status: int | None = None
    run_log: str = ""
    declared: tuple[str, ...] = ()


@dataclass(frozen=True)
class BaseImage:
    """What an image inherits from its base: packages as (name, version), findings as (kind, id, package), and controls
    that fail there, as (control, evidence).
    """

    name: str
    packages: frozenset[tuple[str, str]] = frozenset()
    findings: frozenset[tuple[str, str, str]] = frozenset()
    broken: frozenset[tuple[str, str]] = frozenset()


class FindingKind(StrEnum):
    """What a scanner looks for."""

    VULNERABILITY = "vulnerability"
    MISCONFIGURATION = "misconfiguration"
    SECRET = "secret"  # noqa: S105 - a kind of finding
    EXPLOITATION = "exploitation"
    REPRODUCTION = "reproduction"


_BETWEEN = " | "  # versions of one package


@dataclass(frozen=True, order=True)
class Finding:
    """One finding of scanners about an image. `scanners` maps each scanner to the severity that it gives.

    `severity` is the worst that any of them gives; `fixed` is empty where no fixed version is known. `epss`: how likely
    it is exploited within 30 days, from 0 to 1; None: unknown.

    Of one scanner's own, not merged: `source` is whose word the severity is (debian, nvd, …), `ecosystem` the type of
    the package's purl (deb, pypi, …), and `status` what the data says of a vulnerability that is not simply fixed
    (no-dsa, undetermined, unimportant, …); each is empty where the scanner does not tell.
    """

    kind: FindingKind
    id: str
    package: str
    installed: str
    fixed: str
    severity: Severity
    scanners: tuple[tuple[str, Severity], ...]
    title: str = field(default="", compare=False)
    exploited: bool = field(default=False, compare=False)
    fix_known_since: datetime | None = field(default=None, compare=False)
    epss: float | None = field(default=None, compare=False)
    source: str = field(default="", compare=False)
    ecosystem: str = field(default="", compare=False)
    status: str = field(default="", compare=False)

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version of the package that is installed: one image may hold several."""
        return tuple(self.installed.split(_BETWEEN)) if self.installed else ()


@dataclass(frozen=True)
class ScanReport:
    """The result of one scanner: its findings, whether it evaluated anything at all, and the date of its data.

    `evaluated` counts what it looked at (packages, files, rules); 0 is NOT_EVALUATED, whatever its exit status.
    `sample`: judged by the small sample of advisories that ships, which only a policy that says so may count.
    `profile`: of a benchmark, which list of rules it measured by; every one that is broken is a finding.
    `ignores`: what it never reports: ecosystems other than the operating system's (`languages`), statuses (`no-dsa`).
    `ecosystems`: those of the bill of materials that it evaluated (deb, npm, pypi, …); `beyond`: the others, each with
    the packages in it that the distribution did not bring.
    `reproduced`: how many of the evaluated packages somebody else built again to the same bytes.
    """

    scanner: str
    kind: FindingKind
    outcome: Outcome
    evaluated: int
    data_date: datetime | None
    data_source: str
    reason: str
    findings: tuple[Finding, ...] = ()
    version: str = ""
    sample: bool = False
    profile: str = ""
    ignores: tuple[str, ...] = ()
    reproduced: int | None = None
    ecosystems: tuple[str, ...] = ()
    beyond: tuple[tuple[str, str], ...] = ()

    @property
    def score(self) -> float | None:
        """Of a benchmark: the percentage of the evaluated rules that hold; None where none was evaluated."""
        if not self.profile or not self.evaluated:
            return None
        return 100 * (self.evaluated - len(self.findings)) / self.evaluated


class Repair(StrEnum):
    """What ends a violation of something that runs."""

    ROLL = "roll"
    REBUILD = "rebuild"
    CONFIGURE = "configure"
    WAIVE = "waive"


class Side(StrEnum):
    """Which part of a running member is at fault: its golden image or base, or what was added on top."""

    BASE = "base"
    YOURS = "yours"


class Actor(StrEnum):
    """Who acts: the owner of the fleet, the owner of the golden image, or the operator of the host."""

    FLEET = "fleet"
    IMAGE = "image"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Remedy:
    """Facts about a violation of a running member, besides its text: `evidence`, a line for each thing.

    `repairs` says what ends it, the best first.
    """

    repairs: tuple[Repair, ...]
    side: Side
    actor: Actor
    evidence: tuple[str, ...] = ()


@frozen_by_types
class Reason:
    """One line of a verdict, for the person who must act: what, why it matters, what to do, how to get an exception.

    `since` is when it began, `deadline` when it must be gone; both None where it holds at once. `comes_from` is the
    image that brings it in, where that is one which the subject stands on. Only what runs has a `remedy`.
    """

    rule: str
    subject: str
    enforcement: Enforcement
    what: str
    why: str
    todo: str
    waiver: str = ""
    waived_by: str = ""
    comes_from: str = ""
    since: datetime | None = None
    deadline: datetime | None = None
    remedy: Remedy | None = None

    @property
    def stands(self) -> bool:
        """Whether it counts: it is not waived, and more than recorded."""
        return not self.waived_by and self.enforcement is not Enforcement.AUDIT

    @property
    def mended_by_replacing(self) -> bool:
        """Whether a new instance of what runs is without it; what is configured goes over to the new one."""
        return self.remedy is None or Repair.ROLL in self.remedy.repairs


@lru_cache(maxsize=4096)
def since_text(since: datetime | None) -> str:
    """How a reason's text ends that tells since when it holds; empty where it does not."""
    return f" (since {since.isoformat(' ', 'minutes')[:16]} UTC)" if since else ""


@dataclass(frozen=True)
class Verdict:
    """The gate's decision. Allowed means: at least one scanner evaluated the image, and every enforced reason is
    waived.

    `content` is the digest of what was judged, where the verdict is kept apart from it.
    """

    subject: str
    policy: str
    judged_at: datetime
    allowed: bool
    reasons: tuple[Reason, ...]
    content: str = ""

    @property
    def refusals(self) -> tuple[Reason, ...]:
        """The reasons that refuse: enforced and not waived."""
        return tuple(r for r in self.reasons if r.enforcement is Enforcement.ENFORCE and not r.waived_by)


def worst(severities: Iterable[Severity]) -> Severity:
    """The worst of `severities`; UNKNOWN, which is the lack of an opinion, only where nobody has one."""
    return min(severities, key=WORST_FIRST.index, default=Severity.UNKNOWN)


def merge(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings that are about the same (kind, id, package) as one, in a fixed order whatever order they came in.

    Nothing is averaged: every scanner's opinion is kept, the worst severity counts, and any scanner suffices for
    "exploited" and for "a fix is known".
    """
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.kind, finding.id, finding.package), []).append(finding)
    return tuple(_merged(groups[key]) for key in sorted(groups))


def _merged(group: list[Finding]) -> Finding:
    opinions = sorted({opinion for finding in group for opinion in finding.scanners})
    known = [finding.fix_known_since for finding in group if finding.fix_known_since]
    likely = [finding.epss for finding in group if finding.epss is not None]
    return replace(
        max(group, key=lambda finding: (finding.title, finding)),
        installed=_joined(finding.installed for finding in group),
        fixed=_joined(finding.fixed for finding in group),
        severity=worst([*(severity for _, severity in opinions), *(finding.severity for finding in group)]),
        scanners=tuple(opinions),
        exploited=any(finding.exploited for finding in group),
        fix_known_since=min(known, default=None),
        epss=max(likely, default=None),
    )


def _joined(values: Iterable[str]) -> str:
    """All the different answers, each once: `a | b`. Split first, so that merging merged values changes nothing."""
    return _BETWEEN.join(sorted({part for value in values for part in value.split(_BETWEEN) if part}))


TIME_LIMIT_SECONDS = 60
LIVE_LIMIT_SECONDS = 300  # in a machine that may be emulated, on a host that is busy
EVIDENCE_LINES = 40
_OUTCOMES = {0: Outcome.PASS, 1: Outcome.FAIL, 2: Outcome.NOT_APPLICABLE}


def outcome_of(status: int, stdout: str, stderr: str) -> tuple[Outcome, str]:
    """What a check that ended with `status` and printed this means, with its evidence.

    Fails closed: a check that passes without saying what it saw saw nothing, and one that complains (of missing
    rights, say) or ends with a status other than 0, 1 and 2 is an ERROR.
    """
    evidence = "\n".join(part.strip() for part in (stdout, stderr) if part.strip())
    outcome = _OUTCOMES.get(status, Outcome.ERROR)
    if outcome is Outcome.ERROR:
        return outcome, f"the check ended with status {status}\n{evidence}".strip()
    if stderr.strip() and outcome is not Outcome.FAIL:
        return Outcome.ERROR, f"the check complained, so it may not have seen all\n{evidence}"
    if not evidence:
        return Outcome.ERROR, f"the check ended with status {status} and said nothing"
    return outcome, evidence


def result_of(check: Check, outcome: Outcome, evidence: str) -> CheckResult:
    """The result of `check`, its evidence cut to what a person reads."""
    shown = "\n".join(_shortened(evidence.splitlines(), outcome))
    return CheckResult(check.control, check.title, check.severity, check.enforcement, outcome, shown)


def nothing_to_look_at(check: Check, why: str) -> CheckResult:
    """The result of `check` where there is nothing that it could look at."""
    return replace(result_of(check, Outcome.ERROR, f"nothing to look at: {why}"), absent=True)


def _shortened(lines: list[str], outcome: Outcome) -> list[str]:
    more = len(lines) - EVIDENCE_LINES
    if more <= 0:
        return lines
    if outcome is Outcome.ERROR:  # what broke it stands at the end
        return [lines[0], f"… {more} lines", *lines[1 - EVIDENCE_LINES :]]
    return [*lines[:EVIDENCE_LINES], f"… and {more} lines more"]
