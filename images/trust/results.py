"""Results of controls, scanners and the gate as test-result, vulns and svr predicates of in-toto, and back. Pure.

Their specifications: https://github.com/in-toto/attestation/tree/main/spec/predicates. An empty list of vulnerabilities
means that a scanner found none, so a scanner that evaluated nothing has no such list: that it ran, on which data, and
why it evaluated nothing, is told by the test result over all scanners.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Literal

from packageurl import PackageURL
from pydantic import AwareDatetime, Field

from hardening.findings import CheckResult, Finding, FindingKind, Outcome, Reason, ScanReport, Verdict, merge
from hardening.foundation.errors import MalformedError
from hardening.model import Enforcement, Severity
from images.trust.statement import (
    NAMESPACE,
    TEST_RESULT,
    VERDICT,
    VULNERABILITIES,
    Attestation,
    DigestSet,
    Predicate,
    digest_set,
    read_predicate,
    rfc3339,
)

CONTROL = f"{NAMESPACE}/content/hardening/controls/"
SCANNER = "pkg:generic/"
POLICY = f"{NAMESPACE}/content/hardening/policies/"
GATE = f"{NAMESPACE}/gate/v1"
ALLOWED = "GOLDSMITH_ALLOWED"
EVALUATED = (Outcome.PASS, Outcome.FAIL)
NO_SCANNERS = (FindingKind.EXPLOITATION, FindingKind.REPRODUCTION)  # what they are silent about is not absent


class TestResult(Predicate):
    """test-result/v0.1. `configuration` has a descriptor for each test, annotated with what it came to."""

    __test__ = False

    result: Literal["PASSED", "WARNED", "FAILED"]
    configuration: tuple[dict[str, Any], ...]
    passed_tests: tuple[str, ...] = ()
    warned_tests: tuple[str, ...] = ()
    failed_tests: tuple[str, ...] = ()


def _tested(named: Sequence[tuple[str, str]], descriptors: Sequence[dict[str, Any]]) -> Attestation:
    """The result of tests, each given as (name, list that it stands in)."""
    lists = {sort: [name for name, own in named if own == sort] for sort in ("passed", "warned", "failed")}
    result = "FAILED" if lists["failed"] else "WARNED" if lists["warned"] else "PASSED"
    told = {f"{sort}Tests": names for sort, names in lists.items()}
    return Attestation(TEST_RESULT, {"result": result, "configuration": list(descriptors), **told})


def _refuse_other(said: TestResult, named: Sequence[tuple[str, str]], what: str) -> None:
    """Raise MalformedError where the lists, which others read, say something else than the annotations."""
    expected = _tested(named, ()).predicate
    told = {"result": said.result, "passedTests": [*said.passed_tests], "warnedTests": [*said.warned_tests]}
    if {**told, "failedTests": [*said.failed_tests], "configuration": []} != expected:
        raise MalformedError(f"{what} lists other tests than it tells of")


# -- controls, the boot and the smoke test -----------------------------------------------------------------------------


class _TestedControl(Predicate):
    name: str
    annotations: CheckResult


def checks_attestation(checks: Sequence[CheckResult], scripts: Mapping[str, str]) -> Attestation:
    """The results of controls, the boot and the smoke test; `scripts` has the digests of checks, by control."""
    descriptors = [
        {
            "name": result.control,
            "uri": f"{CONTROL}{result.control}#check",
            **({"digest": digest_set(scripts[result.control])} if result.control in scripts else {}),
            "annotations": _TestedControl(name=result.control, annotations=result).model_dump(
                mode="json", by_alias=True
            )["annotations"],
        }
        for result in checks
    ]
    return _tested([_sort_of(result) for result in checks], descriptors)


def _sort_of(result: CheckResult) -> tuple[str, str]:
    """Where a result is listed. One that was not enforced warns; what does not apply was no test."""
    if result.outcome in (Outcome.PASS, Outcome.NOT_APPLICABLE):
        return result.control, "passed" if result.outcome is Outcome.PASS else ""
    return result.control, "failed" if result.enforcement is Enforcement.ENFORCE else "warned"


def checks_of(predicate: dict[str, Any]) -> tuple[CheckResult, ...]:
    """The results that `checks_attestation` wrote. Raises MalformedError."""
    what = "the attached result of the controls"
    said = read_predicate(TestResult, predicate, what)
    checks = tuple(
        one.annotations for one in read_predicate(tuple[_TestedControl, ...], list(said.configuration), what)
    )
    _refuse_other(said, [_sort_of(result) for result in checks], what)
    return checks


# -- scanners ----------------------------------------------------------------------------------------------------------


class _ScannerRun(Predicate):
    """What a scanner did, without its findings, of which there are `findings`."""

    kind: FindingKind
    outcome: Outcome
    evaluated: int
    data_date: AwareDatetime | None
    data_source: str
    reason: str
    version: str
    sample: bool
    profile: str
    findings: Annotated[int, Field(ge=0)]
    ignores: tuple[str, ...] = ()
    reproduced: int | None = None
    ecosystems: tuple[str, ...] = ()
    beyond: tuple[tuple[str, str], ...] = ()


class _TestedScanner(Predicate):
    name: str
    annotations: _ScannerRun


def scanners_attestation(reports: Sequence[ScanReport]) -> Attestation:
    """Which scanners and lists of data judged the image, and what each evaluated."""
    return _tested([*map(_sort_of_scanner, reports)], [*map(_scanner_descriptor, reports)])


def _scanner_descriptor(report: ScanReport) -> dict[str, Any]:
    fields = {name: getattr(report, name) for name in _ScannerRun.model_fields}
    run = _ScannerRun.model_construct(**{**fields, "findings": len(report.findings)})
    annotations = run.model_dump(mode="json", by_alias=True)
    return {"name": report.scanner, "uri": _scanner_uri(report), "annotations": annotations}


def _scanner_uri(report: ScanReport) -> str:
    return PackageURL("generic", None, report.scanner, report.version or None).to_string()


def _sort_of_scanner(report: ScanReport) -> tuple[str, str]:
    """Where a scanner is listed: one that found something warns, since the gate judges that; one that did not evaluate
    the image failed; one that is for other images was no test.
    """
    if report.outcome is Outcome.NOT_APPLICABLE:
        return report.scanner, ""
    if report.outcome not in EVALUATED:
        return report.scanner, "failed"
    return report.scanner, "warned" if report.findings or report.outcome is Outcome.FAIL else "passed"


class ScanSeverity(Predicate):
    """What one scanner calls the severity."""

    method: str
    score: str


class _Opinion(Predicate):
    method: str
    score: Severity


class _Facts(Predicate):
    """What we know of a finding beside its id; `severity` is the scanner's own, the last three are all scanners'."""

    kind: FindingKind
    package: str
    installed: str
    fixed: str
    severity: Severity
    title: str
    source: str = ""
    ecosystem: str = ""
    status: str = ""
    exploited: bool = False
    fix_known_since: AwareDatetime | None = None
    epss: float | None = None


class ScanFinding(Predicate):
    """One finding of vulns/v0.2."""

    id: str
    severity: tuple[ScanSeverity, ...]
    annotations: tuple[dict[str, Any], ...] = ()


class ScanDatabase(Predicate):
    """What a scanner judged by."""

    uri: str | None = None
    version: str | None = None
    last_update: AwareDatetime


class ScannerAnswer(Predicate):
    """A scanner with its findings. One with built-in rules has no database."""

    uri: str
    version: str | None = None
    db: ScanDatabase | None = None
    result: tuple[ScanFinding, ...]


class ScanTimes(Predicate):
    """When it scanned."""

    scan_started_on: AwareDatetime
    scan_finished_on: AwareDatetime


class Vulnerabilities(Predicate):
    """vulns/v0.2, anybody's."""

    scanner: ScannerAnswer
    metadata: ScanTimes


Key = tuple[FindingKind, str, str]
MERGED = ("exploited", "fix_known_since", "epss")  # of a finding, whichever scanner tells of it


def vulnerability_attestations(
    reports: Sequence[ScanReport], findings: Sequence[Finding], at: datetime
) -> Iterator[Attestation]:
    """What each scanner found that evaluated the image; `findings` are all of them, merged, as the gate saw them.

    `at` is when the scan was made, or found to stand still.
    """
    known = {_key(finding): finding for finding in findings}
    for report in reports:
        judged = report.outcome in EVALUATED and report.kind not in NO_SCANNERS
        if judged or report.findings:
            yield Attestation(VULNERABILITIES, _answer(report, known, rfc3339(at)))


def _answer(report: ScanReport, known: Mapping[Key, Finding], at: str) -> dict[str, Any]:
    source = {"uri": report.data_source} if ":" in report.data_source and " " not in report.data_source else {}
    scanner: dict[str, Any] = {
        "uri": _scanner_uri(report),
        **({"version": report.version} if report.version else {}),
        **({"db": {**source, "lastUpdate": rfc3339(report.data_date)}} if report.data_date else {}),
        "result": [_result(finding, known) for finding in report.findings],
    }
    return {"scanner": scanner, "metadata": {"scanStartedOn": at, "scanFinishedOn": at}}


def _result(finding: Finding, known: Mapping[Key, Finding]) -> dict[str, Any]:
    merged = known.get(_key(finding), finding)
    fields = {name: getattr(finding, name) for name in _Facts.model_fields}
    fields |= {name: getattr(merged, name) for name in MERGED}
    facts = _Facts.model_construct(**fields).model_dump(mode="json", by_alias=True, exclude_none=True)
    severity = [{"method": scanner, "score": word.value} for scanner, word in finding.scanners]
    return {"id": finding.id, "severity": severity, "annotations": [facts]}


@dataclass(frozen=True)
class AttestedScan:
    """The scanners' results: their reports, and their findings merged, as in `ScanRecord`."""

    reports: tuple[ScanReport, ...]
    findings: tuple[Finding, ...]


def scan_of(scanners: dict[str, Any], vulnerabilities: Iterable[dict[str, Any]]) -> AttestedScan:
    """The scan that `scanners_attestation` and `vulnerability_attestations` wrote.

    Raises MalformedError, also where a scanner's findings are not all there.
    """
    what = "the attached result of the scanners"
    said = read_predicate(TestResult, scanners, what)
    runs = read_predicate(tuple[_TestedScanner, ...], list(said.configuration), what)
    answers = _answers(vulnerabilities)
    told = [(run, *_findings(answers.pop(run.name, None), f"the attached findings of {run.name}")) for run in runs]
    reports = tuple(_report(run, findings) for run, findings, _ in told)
    _refuse_other(said, [*map(_sort_of_scanner, reports)], what)
    for run, findings, _ in told:
        if len(findings) != run.annotations.findings:
            raise MalformedError(f"{what} tells of {run.annotations.findings} of {run.name}, not of {len(findings)}")
    if answers:
        raise MalformedError(f"{what} does not tell of {', '.join(sorted(answers))}")
    facts = [pair for _, findings, all_facts in told for pair in zip(findings, all_facts, strict=True)]
    return AttestedScan(reports, _merged(facts))


def _answers(vulnerabilities: Iterable[dict[str, Any]]) -> dict[str, ScannerAnswer]:
    """Each scanner's answer, by its name. Raises MalformedError where one has two."""
    found: dict[str, ScannerAnswer] = {}
    for one in vulnerabilities:
        answer = read_predicate(Vulnerabilities, one, "an attached list of vulnerabilities").scanner
        name = _scanner_name(answer.uri)
        if name in found:
            raise MalformedError(f"{name} answered twice")
        found[name] = answer
    return found


def _scanner_name(uri: str) -> str:
    """The name of the scanner that such a package URL is of. Raises MalformedError."""
    try:
        return PackageURL.from_string(uri).name
    except ValueError:
        raise MalformedError(f"{uri[:100]!r} does not name a scanner by its package URL") from None


def _findings(answer: ScannerAnswer | None, what: str) -> tuple[tuple[Finding, ...], tuple[_Facts, ...]]:
    found, told = list[Finding](), list[_Facts]()
    for one in answer.result if answer else ():
        [facts] = read_predicate(tuple[_Facts], list(one.annotations), what)
        given = [severity.model_dump() for severity in one.severity]
        opinions = read_predicate(tuple[_Opinion, ...], given, what)
        scanners = tuple((opinion.method, opinion.score) for opinion in opinions)
        fields = {name: getattr(facts, name) for name in _Facts.model_fields if name not in MERGED}
        found.append(Finding(id=one.id, scanners=scanners, **fields))
        told.append(facts)
    return tuple(found), tuple(told)


def _report(run: _TestedScanner, findings: tuple[Finding, ...]) -> ScanReport:
    fields = {name: getattr(run.annotations, name) for name in _ScannerRun.model_fields}
    return ScanReport(**{**fields, "scanner": run.name, "findings": findings})


def _merged(facts: Sequence[tuple[Finding, _Facts]]) -> tuple[Finding, ...]:
    """The findings merged, each exploited, likely to be, and its fix known, as was told of it."""
    exploited = {_key(finding) for finding, told in facts if told.exploited}
    likely = {_key(finding): told.epss for finding, told in facts if told.epss is not None}
    since: dict[Key, datetime] = {}
    for finding, told in facts:
        if told.fix_known_since:
            since[_key(finding)] = min(told.fix_known_since, since.get(_key(finding), told.fix_known_since))
    return tuple(
        replace(
            finding,
            exploited=_key(finding) in exploited,
            fix_known_since=since.get(_key(finding)),
            epss=likely.get(_key(finding)),
        )
        for finding in merge(finding for finding, _ in facts)
    )


def _key(finding: Finding) -> Key:
    return finding.kind, finding.id, finding.package


# -- the gate ----------------------------------------------------------------------------------------------------------


class _Judged(Predicate):
    subject: str
    content: str
    allowed: bool
    reasons: tuple[Reason, ...]


class PolicyDescriptor(Predicate):
    """The policy that was judged by."""

    name: str = ""
    uri: str = ""
    digest: DigestSet | None = None
    annotations: dict[str, Any] = {}


class Verifier(Predicate):
    """Who judged. `policies` is required from svr/v0.2 on, and an extension before."""

    id: str
    policies: tuple[PolicyDescriptor, ...] = ()


class SimpleVerificationResult(Predicate):
    """svr/v0.1 and svr/v0.2, anybody's."""

    verifier: Verifier
    time_created: AwareDatetime
    properties: tuple[str, ...]


def verdict_attestation(verdict: Verdict, policy_digest: str, reports: Sequence[ScanReport]) -> Attestation:
    """The gate's verdict. `policy_digest` is that of the policy's file, `reports` what the verdict rests on.

    The properties say what holds, so a verdict that refuses has none.
    """
    fields = {name: getattr(verdict, name) for name in _Judged.model_fields}
    policy = {
        "name": verdict.policy,
        "uri": f"{POLICY}{verdict.policy}.toml",
        **({"digest": digest_set(policy_digest)} if policy_digest else {}),
        "annotations": _Judged(**fields).model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    told = {
        "verifier": {"id": GATE, "policies": [policy]},
        "timeCreated": rfc3339(verdict.judged_at),
        "properties": [*_properties(verdict, policy_digest, reports)],
    }
    return Attestation(VERDICT, told)


def _properties(verdict: Verdict, policy_digest: str, reports: Sequence[ScanReport]) -> Iterator[str]:
    if verdict.allowed:
        yield ALLOWED
        yield f"GOLDSMITH_POLICY={verdict.policy}{f'@{policy_digest}' if policy_digest else ''}"
        for report in reports:
            if report.outcome in EVALUATED and report.kind is FindingKind.VULNERABILITY:
                yield f"GOLDSMITH_SCANNED_BY={report.scanner}"


def verdict_of(predicate: dict[str, Any]) -> Verdict:
    """The verdict that `verdict_attestation` wrote. Raises MalformedError."""
    what = "the attached verdict"
    said = read_predicate(SimpleVerificationResult, predicate, what)
    if said.verifier.id != GATE or len(said.verifier.policies) != 1:
        raise MalformedError(f"{what} is not one of Goldsmith's gate by one policy: {said.verifier.id[:100]!r}")
    [policy] = said.verifier.policies
    judged = read_predicate(_Judged, policy.annotations, what)
    if any(at.tzinfo is None for reason in judged.reasons for at in (reason.since, reason.deadline) if at):
        raise MalformedError(f"{what} has a time without a time zone")
    if judged.allowed is not (ALLOWED in said.properties):
        raise MalformedError(f"{what} says two things: its properties and its reasons differ on what is allowed")
    return Verdict(
        judged.subject, policy.name, said.time_created, judged.allowed, judged.reasons, content=judged.content
    )


def counted(outcomes: Iterable[str]) -> str:
    """How often each word stands there, the most frequent first: `3 passed, 1 failed`."""
    return ", ".join(f"{number} {word}" for word, number in Counter(outcomes).most_common())
