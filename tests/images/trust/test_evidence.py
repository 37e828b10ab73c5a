"""Evidence as a whole: what comes back of a release, what is refused, and what people read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from hardening.foundation.errors import MalformedError
from images.trust import statement
from images.trust.evidence import Evidence, attestations, evidence_of, line
from images.trust.results import AttestedScan, checks_of, scan_of, verdict_of
from images.trust.slsa import artifact_of
from images.trust.statement import Attestation
from tests.support.evidence import (
    ARTIFACT,
    CHECKS,
    FINDINGS,
    PREVIOUS,
    RELEASE,
    REPORTS,
    VERDICT,
    judgement,
    sha,
)

SBOM = b'{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"purl": "pkg:deb/debian/curl@8"}]}'
SPDX = b'{"spdxVersion": "SPDX-2.3", "packages": [{}, {}]}'
FOUND = attestations(RELEASE, ARTIFACT, judgement(SBOM, SPDX), PREVIOUS)
BY_TYPE = {one.predicate_type: one.predicate for one in reversed(FOUND)}
SCANNERS = [one.predicate for one in FOUND if one.predicate_type == statement.TEST_RESULT][1]
LISTS = [one.predicate for one in FOUND if one.predicate_type == statement.VULNERABILITIES]


def copy(predicate: Any) -> Any:
    """One to change."""
    return json.loads(json.dumps(predicate))


def test_all_comes_back_in_whatever_order() -> None:
    """The verdict is about the release's content."""
    expected = Evidence(
        ARTIFACT, CHECKS, AttestedScan(REPORTS, FINDINGS), replace(VERDICT, content=RELEASE.content), json.loads(SBOM)
    )
    assert evidence_of(FOUND) == evidence_of(reversed(FOUND)) == expected
    assert evidence_of([]) == Evidence()


def test_evidence_is_made_of_json_alone() -> None:
    """So that what is signed, and what is read of it, is the same value."""
    for one in FOUND:
        assert copy(one.predicate) == one.predicate


def test_a_stranger_reads_one_line_of_each() -> None:
    """As image.show prints them."""
    assert [line(one) for one in FOUND] == [
        "SLSA provenance: 3 packages, parent sha256:dddddddddddd, builder goldsmith 0.1.0",
        "SBOM: CycloneDX 1.6, 1 component",
        "SBOM: SPDX 2.3, 2 packages",
        "Test result: controls, 2 passed, 1 warned (no-shell)",
        "Test result: scanners, 2 passed, 1 warned (debsecan), 1 not evaluated (trivy)",
        "Scan: debsecan, data of 2026-11-24, 3 findings",
        "Scan: trivy-secret 0.76.0, 0 findings",
        "OpenVEX: 4 statements, 2 affected, 1 fixed, 1 under_investigation",
        "Verdict: allowed, policy default sha256:555555555555, 2026-11-25",
        "Lifecycle: published 2026-11-25, warns 2026-12-18, ends 2026-12-25",
        "Changelog: since sha256:777777777777, 1 package updated, 1 package added, 1 package removed, "
        "1 vulnerability closed, 2 vulnerabilities opened",
    ]


@pytest.mark.parametrize(
    ("kind", "predicate", "expected"),
    [
        (
            statement.PROVENANCE, {"runDetails": {"builder": {"id": "https://github.com/actions/runner"}}},
            "SLSA provenance: 0 packages, builder https://github.com/actions/runner",
        ),
        (
            statement.VULNERABILITIES, {"scanner": {"uri": "pkg:github/aquasecurity/trivy@0.76", "result": [{}]}},
            "Scan: pkg:github/aquasecurity/trivy 0.76, 1 finding",
        ),
        (
            statement.VERDICT, {"verifier": {"id": "https://example.com"}, "properties": ["SLSA_BUILD_LEVEL_3"]},
            "Verdict: SLSA_BUILD_LEVEL_3",
        ),
        ("https://example.com/x\x1b[2J\nVerdict: allowed", {}, "https://example.com/x\\x1b[2J\\nVerdict: allowed"),
    ],
)  # fmt: skip
def test_a_line_of_what_others_wrote(kind: str, predicate: dict[str, Any], expected: str) -> None:
    """Nothing in it obeys a terminal, or forges another line."""
    assert line(Attestation(kind, predicate)).rstrip(", ") == expected


def test_two_of_a_sort_are_refused() -> None:
    """Which of them holds would be anybody's choice."""
    with pytest.raises(MalformedError, match="2 attestations are of the type"):
        evidence_of([*FOUND, next(one for one in FOUND if one.predicate_type == statement.VERDICT)])


def test_lists_of_vulnerabilities_alone_are_refused() -> None:
    """They do not say which scanners failed."""
    with pytest.raises(MalformedError, match="no result of the scanners"):
        evidence_of([Attestation(statement.VULNERABILITIES, LISTS[0])])


def test_a_scan_of_which_a_list_is_missing_is_refused() -> None:
    """Whoever takes it away does not make the image clean; nor does one who adds an answer, or gives two."""
    with pytest.raises(MalformedError, match="tells of 3 of debsecan, not of 0"):
        scan_of(SCANNERS, LISTS[1:])
    with pytest.raises(MalformedError, match="debsecan answered twice"):
        scan_of(SCANNERS, [*LISTS, LISTS[0]])
    other = copy(LISTS[1])
    other["scanner"]["uri"] = "pkg:generic/grype"
    with pytest.raises(MalformedError, match="does not tell of grype"):
        scan_of(SCANNERS, [*LISTS, other])


def test_a_test_result_whose_lists_say_otherwise_is_refused() -> None:
    """Others read the lists, and we the annotations: both say the same."""
    checks = copy(BY_TYPE[statement.TEST_RESULT])
    checks["passedTests"].append(checks["warnedTests"].pop())
    with pytest.raises(MalformedError, match="lists other tests than it tells of"):
        checks_of(checks)
    scanners = copy(SCANNERS)
    scanners["result"] = "PASSED"
    with pytest.raises(MalformedError, match="lists other tests than it tells of"):
        scan_of(scanners, LISTS)


def test_a_verdict_whose_properties_say_otherwise_is_refused() -> None:
    verdict = copy(BY_TYPE[statement.VERDICT])
    verdict["verifier"]["policies"][0]["annotations"]["allowed"] = False
    with pytest.raises(MalformedError, match="says two things"):
        verdict_of(verdict)


def test_a_provenance_that_names_a_package_twice_in_two_ways_is_refused() -> None:
    """Scanners read the package URL, and we what is told beside it."""
    provenance = copy(BY_TYPE[statement.PROVENANCE])
    provenance["buildDefinition"]["resolvedDependencies"][-1]["annotations"]["version"] = "2026a"
    with pytest.raises(MalformedError, match="and tells of 'pkg:deb/debian/tzdata@2026a"):
        artifact_of(provenance)


@pytest.mark.parametrize("name", ["/", "", "a b", "../x"])
def test_a_provenance_names_packages_as_debian_does(name: str) -> None:
    """Of some other names there is no package URL."""
    provenance = copy(BY_TYPE[statement.PROVENANCE])
    provenance["buildDefinition"]["resolvedDependencies"][-1]["name"] = name
    with pytest.raises(MalformedError, match=r"resolvedDependencies is malformed: .*name"):
        artifact_of(provenance)


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("buildDefinition.buildType", "https://example.com/other", "another kind of build"),
        ("buildDefinition.externalParameters.image", 1, "externalParameters is malformed: image"),
        ("buildDefinition.internalParameters.sizeBytes", "5000", "internalParameters is malformed: sizeBytes"),
        ("buildDefinition.internalParameters.created", "2026-11-01T00:00:00", "created"),
        ("buildDefinition.internalParameters.resolved", {"definition": {}}, "says twice what the input definition was"),
        ("runDetails.byproducts", [], "does not say which manifest was built"),
        ("runDetails.byproducts", [{"name": "manifest", "digest": {"sha256": "../../etc"}}], "byproducts"),
        ("runDetails.metadata", {}, "does not say which manifest was built, and when"),
        ("runDetails", None, "runDetails"),
    ],
)
def test_a_malformed_provenance_is_one_clear_error(path: str, value: Any, error: str) -> None:
    provenance = copy(BY_TYPE[statement.PROVENANCE])
    *keys, last = path.split(".")
    part = provenance
    for key in keys:
        part = part[key]
    part[last] = value
    with pytest.raises(MalformedError, match=error):
        artifact_of(provenance)


def test_a_verdict_by_another_gate_or_without_a_time_zone_is_refused() -> None:
    other = copy(BY_TYPE[statement.VERDICT])
    other["verifier"]["id"] = "https://example.com/gate"
    with pytest.raises(MalformedError, match="not one of Goldsmith's gate"):
        verdict_of(other)
    naive = copy(BY_TYPE[statement.VERDICT])
    naive["verifier"]["policies"][0]["annotations"]["reasons"][0]["since"] = "2026-11-01T00:00:00"
    with pytest.raises(MalformedError, match="without a time zone"):
        verdict_of(naive)


def test_a_document_of_a_million_values_is_refused_before_it_is_read() -> None:
    """By the limit that all documents of others have."""
    many = copy(BY_TYPE[statement.TEST_RESULT])
    many["passedTests"] = [""] * 1_000_001
    with pytest.raises(MalformedError, match=r"json\.values"):
        checks_of(many)


def test_a_machine_is_named_by_what_it_is() -> None:
    """Its image lies in no registry."""
    definition = {**ARTIFACT.inputs["definition"], "kind": "machine"}
    machine = replace(ARTIFACT, inputs={**ARTIFACT.inputs, "definition": definition})
    found = attestations(replace(RELEASE, repository="aws/web"), machine, judgement(), None)
    [document] = [one.predicate for one in found if one.predicate_type == statement.OPENVEX]
    assert document["statements"][0]["products"][0]["@id"] == f"pkg:generic/web@{sha('a')}"
