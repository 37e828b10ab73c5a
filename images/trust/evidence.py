"""A release's evidence as attestations, back again, and each in a line for people. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hardening.findings import CheckResult, Verdict
from hardening.foundation.errors import MalformedError
from hardening.foundation.text import one_line
from images.artifact import Artifact, Release
from images.trust import changes
from images.trust.changes import changelog, lifecycle_attestation
from images.trust.results import (
    ALLOWED,
    POLICY,
    SCANNER,
    AttestedScan,
    checks_attestation,
    checks_of,
    counted,
    scan_of,
    scanners_attestation,
    verdict_attestation,
    verdict_of,
    vulnerability_attestations,
)
from images.trust.slsa import artifact_of, provenance
from images.trust.statement import (
    CHANGELOG,
    CYCLONEDX,
    LIFECYCLE,
    OPENVEX,
    PROVENANCE,
    SPDX,
    TEST_RESULT,
    VERDICT,
    VULNERABILITIES,
    Attestation,
)
from images.trust.vex import PreviousRelease, closed_since, vex

if TYPE_CHECKING:
    from images.scan.judge import Judgement


def attestations(
    release: Release, artifact: Artifact, judgement: Judgement, previous: PreviousRelease | None
) -> tuple[Attestation, ...]:
    """The evidence of a release over the content of `artifact`, by what was said of it on the release's day.

    `previous` is the release that it follows. Without bills of materials, results, or anything to say in OpenVEX, these
    are left out: an empty one would claim that there is nothing.
    """
    said = judgement.result
    verdict = replace(judgement.verdict, content=release.content)
    closed = closed_since(previous, said.findings, said.reports)
    about = vex(release, artifact, verdict, said.findings, closed)
    bills = ((CYCLONEDX, said.sbom), (SPDX, said.spdx))
    return (
        provenance(release, artifact),
        *(Attestation(kind, json.loads(bill)) for kind, bill in bills if bill),
        *([checks_attestation(judgement.checks, judgement.scripts)] if judgement.checks else []),
        *([scanners_attestation(said.reports)] if said.reports else []),
        *vulnerability_attestations(said.reports, said.findings, verdict.judged_at),
        *([about] if about else []),
        verdict_attestation(verdict, judgement.policy_digest, said.reports),
        lifecycle_attestation(release),
        *([changelog(previous, artifact, said.findings, closed)] if previous else []),
    )


@dataclass(frozen=True)
class Evidence:
    """What was read back of a release; None, or nothing, where no attestation has it."""

    artifact: Artifact | None = None
    checks: tuple[CheckResult, ...] = ()
    scan: AttestedScan | None = None
    verdict: Verdict | None = None
    sbom: dict[str, Any] | None = None


def evidence_of(found: Iterable[Attestation]) -> Evidence:
    """What the attestations of one release say, as far as Goldsmith keeps it. Raises MalformedError.

    Two that tell the same sort of thing are refused: which of them holds would be anybody's choice.
    """
    by_type: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        by_type.setdefault(_sort(one), []).append(one.predicate)
    scanners = _only(by_type, SCANNER, dict)
    lists = by_type.get(VULNERABILITIES, [])
    if lists and scanners is None:
        raise MalformedError("lists of vulnerabilities are attached, and no result of the scanners")
    return Evidence(
        artifact=_only(by_type, PROVENANCE, artifact_of),
        checks=_only(by_type, TEST_RESULT, checks_of) or (),
        scan=None if scanners is None else scan_of(scanners, lists),
        verdict=_only(by_type, VERDICT, verdict_of),
        sbom=_only(by_type, CYCLONEDX, dict),
    )


def _sort(one: Attestation) -> str:
    """Its type; results of scanners have the type of results of controls, and another name here."""
    tests = _at(one.predicate, "configuration")
    first = _at(tests[0], "uri") if isinstance(tests, list) and tests else ""
    of_scanners = one.predicate_type == TEST_RESULT and str(first).startswith(SCANNER)
    return SCANNER if of_scanners else one.predicate_type


def _only(found: Mapping[str, list[dict[str, Any]]], sort: str, read: Callable[[dict[str, Any]], Any]) -> Any:
    """The one predicate of that sort, read; None where there is none. Raises MalformedError where there are several."""
    match found.get(sort, []):
        case []:
            return None
        case [one]:
            return read(one)
        case several:
            raise MalformedError(f"{len(several)} attestations are of the type {sort}, where one is expected")


# -- for people --------------------------------------------------------------------------------------------------------


def line(attestation: Attestation) -> str:
    """An attestation on one line, anybody's: `SLSA provenance: 93 packages, parent sha256:…, builder goldsmith 0.1`."""
    kind = attestation.predicate_type
    title, tell = LINES.get(kind, (kind, lambda _predicate: iter(())))
    told = ", ".join(part for part in tell(attestation.predicate) if part)
    return one_line(f"{title}: {told}" if told else title)[:LONGEST]


LONGEST = 300


def _at(value: Any, *path: str) -> Any:
    """What lies there, of JSON that anybody wrote; None where it has another shape."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: Any, *path: str) -> str:
    found = _at(value, *path)
    return str(found) if isinstance(found, str | int | float) else ""


def _list(value: Any, *path: str) -> list[Any]:
    found = _at(value, *path)
    return found if isinstance(found, list) else []


def _number(of: str, many: list[Any]) -> str:
    return f"{len(many)} {of if len(many) == 1 else PLURALS.get(of, f'{of}s')}"


PLURALS = {"vulnerability": "vulnerabilities"}


def _day(value: Any, *path: str) -> str:
    return _text(value, *path)[:10]


def _provenance(predicate: Any) -> Iterator[str]:
    materials = _list(predicate, "buildDefinition", "resolvedDependencies")
    yield _number("package", [one for one in materials if _text(one, "uri").startswith("pkg:deb/")])
    parents = [one for one in materials if _text(one, "name") == "parent"]
    yield from (f"parent sha256:{_text(one, 'digest', 'sha256')[:12]}" for one in parents)
    builder = _text(predicate, "runDetails", "builder", "id")
    version = _text(predicate, "runDetails", "builder", "version", "goldsmith")
    yield f"builder goldsmith {version}" if version else f"builder {builder}"


def _cyclonedx(predicate: Any) -> Iterator[str]:
    yield f"CycloneDX {_text(predicate, 'specVersion')}".strip()
    yield _number("component", _list(predicate, "components"))


def _spdx(predicate: Any) -> Iterator[str]:
    yield _text(predicate, "spdxVersion").replace("-", " ")
    yield _number("package", _list(predicate, "packages"))


def _vulnerabilities(predicate: Any) -> Iterator[str]:
    name, _, version = _text(predicate, "scanner", "uri").removeprefix(SCANNER).partition("@")
    yield f"{name} {_text(predicate, 'scanner', 'version') or version}".strip()
    if dated := _day(predicate, "scanner", "db", "lastUpdate"):
        yield f"data of {dated}"
    yield _number("finding", _list(predicate, "scanner", "result"))


def _tests(predicate: Any) -> Iterator[str]:
    tests = _list(predicate, "configuration")
    of_scanners = _text(next(iter(tests), None), "uri").startswith(SCANNER)
    yield "scanners" if of_scanners else "controls"
    words = {"passed": "passed", "warned": "warned", "failed": "not evaluated" if of_scanners else "failed"}
    for sort, word in words.items():
        if told := _list(predicate, f"{sort}Tests"):
            yield f"{len(told)} {word}{_names(told) if sort != 'passed' else ''}"
    if by_sample := [_text(one, "name") for one in tests if _at(one, "annotations", "sample") is True]:
        yield f"by the sample of advisories that ships{_names(by_sample)}"


def _names(named: list[Any]) -> str:
    return f" ({', '.join(map(str, named[:3]))}{', …' if named[3:] else ''})"


def _openvex(predicate: Any) -> Iterator[str]:
    statements = _list(predicate, "statements")
    yield _number("statement", statements)
    yield counted(_text(one, "status") for one in statements)


def _verdict(predicate: Any) -> Iterator[str]:
    properties = list(map(str, _list(predicate, "properties")))
    yield "allowed" if ALLOWED in properties else " ".join(properties[:3]) or "nothing holds"
    for policy in _list(predicate, "verifier", "policies"):
        name = _text(policy, "name") or _text(policy, "uri").removeprefix(POLICY)
        digest = _text(policy, "digest", "sha256")[:12]
        yield f"policy {name}" + (f" sha256:{digest}" if digest else "")
    yield _day(predicate, "timeCreated")


def _lifecycle(predicate: Any) -> Iterator[str]:
    for word, key in (("published", "general_availability"), ("warns", "end_of_sales"), ("ends", "end_of_life")):
        yield f"{word} {_day(predicate, key)}"


def _changelog(predicate: Any) -> Iterator[str]:
    attributes = _list(predicate, "attributes")
    for one in attributes:
        if _text(one, "attribute") == changes.FOLLOWS:
            yield f"since sha256:{_text(one, 'target', 'digest', 'sha256')[:12]}"
    found = Counter(_text(one, "attribute") for one in attributes)
    for attribute in (changes.UPDATED, changes.ADDED, changes.REMOVED, changes.CLOSED, changes.OPENED):
        if found[attribute]:
            noun, _, verb = attribute.lower().partition("_")
            yield f"{_number(noun, [None] * found[attribute])} {verb}"


LINES: dict[str, tuple[str, Callable[[Any], Iterator[str]]]] = {
    PROVENANCE: ("SLSA provenance", _provenance),
    CYCLONEDX: ("SBOM", _cyclonedx),
    SPDX: ("SBOM", _spdx),
    TEST_RESULT: ("Test result", _tests),
    VULNERABILITIES: ("Scan", _vulnerabilities),
    OPENVEX: ("OpenVEX", _openvex),
    VERDICT: ("Verdict", _verdict),
    LIFECYCLE: ("Lifecycle", _lifecycle),
    CHANGELOG: ("Changelog", _changelog),
}
