"""Each predicate as those who specified it want it: by validators, or by models of their text."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from dataclasses import replace
from typing import Annotated, Any, Literal

import pytest
from packageurl import PackageURL
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from hardening.foundation.errors import MalformedError
from images.scan import syft
from images.trust import changes, statement, vex
from images.trust.evidence import attestations
from images.trust.results import TestResult, Vulnerabilities
from tests.images.scan.test_scanners import STATUS, SUBJECT, sample
from tests.support.evidence import (
    ARTIFACT,
    DAY,
    NOW,
    OPENSSL,
    PREVIOUS,
    RELEASE,
    REPORTS,
    TYPES,
    VERDICT,
    VERIFIED_BY,
    judgement,
    sha,
)
from tests.support.scanning import packages

BILLS = syft.normalise(sample("syft"), sample("syft-spdx"), SUBJECT)
FOUND = attestations(RELEASE, ARTIFACT, judgement(BILLS.cyclonedx, BILLS.spdx), PREVIOUS)


def of(kind: str) -> list[dict[str, Any]]:
    """The predicates of that type."""
    return [one.predicate for one in FOUND if one.predicate_type == kind]


# -- models of the specifications' text --------------------------------------------------------------------------------


class Spec(BaseModel):
    """A field that the text does not name is refused: ours have no keys of their own."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


Uri = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*:[^\s]+$")]


class ResourceDescriptor(Spec):
    """in-toto's spec/v1/resource_descriptor.md."""

    name: str | None = None
    uri: Uri | None = None
    digest: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]+$")]] | None = None
    content: str | None = None
    download_location: str | None = None
    media_type: str | None = None
    annotations: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_of_three(self) -> ResourceDescriptor:
        assert self.uri or self.digest or self.content
        return self


class BuildDefinitionSpec(Spec):
    """https://slsa.dev/spec/v1.0/provenance, BuildDefinition."""

    build_type: Uri
    external_parameters: dict[str, Any]
    internal_parameters: dict[str, Any]
    resolved_dependencies: list[ResourceDescriptor]


class BuilderSpec(Spec):
    id: Uri
    builder_dependencies: list[ResourceDescriptor] = []
    version: dict[str, str]


class MetadataSpec(Spec):
    invocation_id: str
    started_on: AwareDatetime | None = None
    finished_on: AwareDatetime


class RunDetailsSpec(Spec):
    builder: BuilderSpec
    metadata: MetadataSpec
    byproducts: list[ResourceDescriptor]


class SlsaSpec(Spec):
    build_definition: BuildDefinitionSpec
    run_details: RunDetailsSpec


class SeveritySpec(Spec):
    method: str
    score: str


class ResultSpec(Spec):
    id: Annotated[str, Field(min_length=1)]
    severity: list[SeveritySpec]
    annotations: list[dict[str, Any]]


class DatabaseSpec(Spec):
    uri: Uri | None = None
    version: str | None = None
    last_update: AwareDatetime


class ScannerSpec(Spec):
    uri: Uri
    version: str | None = None
    db: DatabaseSpec | None = None
    result: list[ResultSpec]


class TimesSpec(Spec):
    scan_started_on: AwareDatetime
    scan_finished_on: AwareDatetime


class VulnsSpec(Spec):
    """vulns_02.md."""

    scanner: ScannerSpec
    metadata: TimesSpec


class TestResultSpec(Spec):
    """test-result.md."""

    __test__ = False
    result: Literal["PASSED", "WARNED", "FAILED"]
    configuration: list[ResourceDescriptor]
    url: Uri | None = None
    passed_tests: list[str]
    warned_tests: list[str]
    failed_tests: list[str]


class VerifierSpec(Spec):
    id: Uri
    policies: list[ResourceDescriptor]


class SvrSpec(Spec):
    """svr.md, by v0.2 too, which requires `policies`."""

    verifier: VerifierSpec
    time_created: AwareDatetime
    properties: list[str]


class AttributeSpec(Spec):
    attribute: str
    target: ResourceDescriptor | None = None
    conditions: dict[str, Any] | None = None
    evidence: ResourceDescriptor | None = None


class ScaiSpec(Spec):
    """scai.md."""

    attributes: Annotated[list[AttributeSpec], Field(min_length=1)]
    producer: ResourceDescriptor | None = None


Day = AwareDatetime | Literal["tba"]


class EoxSpec(BaseModel):
    """The core of OpenEoX 1.0, whose keys are written with underscores, and which knows no others."""

    model_config = ConfigDict(extra="forbid")

    schema_: Annotated[Literal["https://docs.oasis-open.org/openeox/v1.0/schema/core.json"], Field(alias="$schema")]
    end_of_life: Day
    end_of_security_support: Day
    last_updated: AwareDatetime
    end_of_sales: Day | None = None
    general_availability: Day | None = None


class VexPartSpec(BaseModel):
    """A product or a part of one, named by a package URL."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(alias="@id", pattern="^pkg:")]
    subcomponents: Annotated[list[VexPartSpec], Field(min_length=1)] | None = None


class VexVulnerabilitySpec(BaseModel):
    """What a statement is about."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1)]


class VexStatementSpec(BaseModel):
    """A statement: what is affected must be told what to do, and what is not, why."""

    model_config = ConfigDict(extra="forbid")

    vulnerability: VexVulnerabilitySpec
    products: Annotated[list[VexPartSpec], Field(min_length=1)]
    status: Literal["not_affected", "affected", "fixed", "under_investigation"]
    status_notes: str | None = None
    action_statement: str | None = None
    justification: str | None = None

    @model_validator(mode="after")
    def _explained(self) -> VexStatementSpec:
        assert self.status != "affected" or self.action_statement
        assert self.status != "not_affected" or self.justification
        return self


class VexSpec(BaseModel):
    """OpenVEX 0.2.0: OPENVEX-SPEC.md."""

    model_config = ConfigDict(extra="forbid")

    context: Annotated[Literal["https://openvex.dev/ns/v0.2.0"], Field(alias="@context")]
    id: Annotated[Uri, Field(alias="@id")]
    author: Annotated[str, Field(min_length=1)]
    timestamp: AwareDatetime
    version: Annotated[int, Field(ge=1)]
    tooling: str | None = None
    statements: Annotated[list[VexStatementSpec], Field(min_length=1)]


SPECS = {
    statement.PROVENANCE: SlsaSpec, statement.VULNERABILITIES: VulnsSpec, statement.TEST_RESULT: TestResultSpec,
    statement.VERDICT: SvrSpec, statement.CHANGELOG: ScaiSpec, statement.OPENVEX: VexSpec, statement.LIFECYCLE: EoxSpec,
}  # fmt: skip


def test_a_release_has_every_sort_of_evidence() -> None:
    """Nine types; of scanners only those that evaluated the image have a list of what they found."""
    assert Counter(one.predicate_type for one in FOUND) == Counter(
        [*TYPES, statement.TEST_RESULT, statement.VULNERABILITIES]
    )
    scanners = [predicate["scanner"]["uri"] for predicate in of(statement.VULNERABILITIES)]
    assert scanners == ["pkg:generic/debsecan", "pkg:generic/trivy-secret@0.76.0"]


@pytest.mark.parametrize("kind", SPECS)
def test_a_predicate_is_as_its_text_says(kind: str) -> None:
    for predicate in of(kind):
        SPECS[kind].model_validate_json(json.dumps(predicate))


# -- bills of materials ------------------------------------------------------------------------------------------------


def test_the_cyclonedx_bill_is_strictly_valid() -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(BILLS.cyclonedx.decode()) is None


def test_the_spdx_bill_is_valid(tmp_path: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its parser's own libraries
        from spdx_tools.spdx.parser.parse_anything import parse_file
        from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

        file = tmp_path / "bill.spdx.json"
        file.write_bytes(BILLS.spdx)
        assert validate_full_spdx_document(parse_file(str(file)), "SPDX-2.3") == []


def test_both_bills_are_complete_against_dpkg() -> None:
    """Each package of the status file is there, by its package URL."""
    wanted = {package.purl for package in packages(STATUS)}
    assert len(wanted) == len(re.findall("(?m)^Package:", STATUS))
    cyclonedx = [one.get("purl", "") for one in json.loads(BILLS.cyclonedx)["components"]]
    references = [ref for one in json.loads(BILLS.spdx)["packages"] for ref in one.get("externalRefs", [])]
    spdx = [one["referenceLocator"] for one in references if one["referenceType"] == "purl"]
    for purls in (cyclonedx, spdx):
        assert {_plain(purl) for purl in purls if purl} >= wanted


def _plain(purl: str) -> str:
    """Without what syft adds."""
    told = PackageURL.from_string(purl)
    return told._replace(qualifiers={"arch": dict(told.qualifiers)["arch"]}).to_string()


# -- what they say -----------------------------------------------------------------------------------------------------


def test_the_provenance_names_all_that_went_into_the_image() -> None:
    """Parent, definition, files, profile, controls, and each package with its digest."""
    [predicate] = of(statement.PROVENANCE)
    build, run = predicate["buildDefinition"], predicate["runDetails"]
    materials = {(one["name"], one.get("digest", {}).get("sha256", "")[:2]) for one in build["resolvedDependencies"]}
    assert materials >= {
        ("parent", "dd"), ("file app.conf", "99"), ("control no-setuid", "ee"), ("control no-setuid", "ff"),
        ("openssl", "11"), ("tzdata", "22"), ("curl", ""),
    }  # fmt: skip
    assert {name for name, _ in materials} >= {"definition", "profile container-base"}
    files = [one for one in build["resolvedDependencies"] if one["name"].startswith("file ")]
    assert [one["annotations"] for one in files] == [{"mode": "644"}, {"is": "link to app.conf"}]
    [parent] = [one for one in build["resolvedDependencies"] if one["name"] == "parent"]
    assert parent["uri"] == (
        f"pkg:oci/debian-base@sha256:{'d' * 64}?repository_url=registry.example.com:5000/golden/debian-base"
    )
    assert run["builder"] == {
        "id": "https://goldsmith.dev/builder/v1",
        "version": {"goldsmith": "0.1.0", "layers": "2", "libzstd": "1.5.7", "mmdebstrap": "1.5.6"},
    }


def test_two_builds_have_two_invocations_and_one_build_has_one() -> None:
    def invocation(artifact: Any) -> str:
        [first, *_] = attestations(RELEASE, artifact, judgement(), None)
        told: str = first.predicate["runDetails"]["metadata"]["invocationId"]
        return told

    assert invocation(ARTIFACT) == invocation(ARTIFACT)
    assert invocation(replace(ARTIFACT, built_at=NOW)) != invocation(ARTIFACT)


def test_the_version_is_that_of_the_project() -> None:
    import tomllib

    from hardening.foundation.settings import ROOT

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == statement.GOLDSMITH_VERSION


def test_a_scanner_that_evaluated_nothing_has_failed_and_has_no_list() -> None:
    """An empty list of vulnerabilities would say that there are none."""
    [controls, scanners] = of(statement.TEST_RESULT)
    told = TestResult.model_validate_json(json.dumps(scanners))
    assert (told.passed_tests, told.warned_tests) == (("trivy-secret", "kev"), ("debsecan",))
    assert (told.failed_tests, told.result) == (("trivy",), "FAILED")
    assert controls["result"] == "WARNED"
    assert controls["passedTests"] == ["no-setuid", "container-starts"]
    assert controls["warnedTests"] == ["no-shell"]


def test_a_result_names_the_check_that_made_it_and_not_the_one_of_the_build() -> None:
    """An image whose checks have changed since was verified again; a result of no known check names none."""
    [controls, _] = of(statement.TEST_RESULT)
    by = {one["name"]: one.get("digest") for one in controls["configuration"]}
    assert by["no-setuid"] == {"sha256": VERIFIED_BY.removeprefix("sha256:")}
    assert VERIFIED_BY not in json.dumps(ARTIFACT.inputs)
    assert by["no-shell"] is None


def test_a_scan_names_the_date_of_its_data_and_the_opinion_of_the_scanner() -> None:
    [debsecan, secrets] = map(json.dumps, of(statement.VULNERABILITIES))
    told = Vulnerabilities.model_validate_json(debsecan).scanner
    assert told.db
    assert told.db.last_update == NOW - DAY
    assert told.db.uri == "https://tracker.example.com/"
    assert [one.id for one in told.result] == ["CVE-2026-0001", "CVE-2026-0002", "CVE-2026-0003"]
    assert {(said.method, said.score) for one in told.result for said in one.severity} == {("debsecan", "high")}
    assert told.result[1].annotations[0]["exploited"] is True
    assert "null" not in debsecan + json.dumps(of(statement.VERDICT))  # what has no value is left out
    assert Vulnerabilities.model_validate_json(secrets).scanner.db is None  # its rules are built in


def test_openvex_says_what_is_known_and_never_that_an_image_is_not_affected() -> None:
    """A waiver, a fixed version, neither, and what the release before had; of the packages as the image has them."""
    [document] = of(statement.OPENVEX)
    told = {one["vulnerability"]["name"]: one for one in document["statements"]}
    assert {name: (one["status"], one.get("action_statement", "")) for name, one in told.items()} == {
        "CVE-2025-9999": ("fixed", ""),
        "CVE-2026-0001": (
            "affected", "accepted by the waiver curl-later until 2026-12-24: no untrusted server is asked",
        ),
        "CVE-2026-0002": ("affected", "update openssl to 3.5.5-1"),
        "CVE-2026-0003": ("under_investigation", ""),
    }  # fmt: skip
    products = told["CVE-2026-0002"]["products"]
    repository = "?repository_url=registry.example.com:5000/golden/web"
    assert [one["@id"] for one in products] == [f"pkg:oci/web@sha256:{digit * 64}{repository}" for digit in ("a", "b")]
    assert products[0]["subcomponents"] == [{"@id": OPENSSL.purl}]


def test_the_same_openvex_has_the_same_name_and_another_one_another() -> None:
    def name(**more: Any) -> str:
        made = vex.vex(RELEASE, ARTIFACT, replace(VERDICT, **more), judgement().result.findings, ())
        assert made
        told: str = made.predicate["@id"]
        return told

    assert name() == name()
    assert name(reasons=()) != name()


def test_what_nobody_looked_for_is_not_closed() -> None:
    """trivy had found it, and has no database today; a scanner that looked and found nothing closes it."""
    findings = judgement().result.findings
    closed = vex.closed_since(PREVIOUS, findings, REPORTS)
    assert [finding.id for finding in closed] == ["CVE-2025-9999"]
    assert vex.closed_since(PREVIOUS, findings, ()) == ()


def test_what_is_closed_but_by_no_other_version_is_not_said_to_be_fixed() -> None:
    """An advisory may have been withdrawn."""
    same = replace(PREVIOUS, artifact=ARTIFACT, findings=(replace(PREVIOUS.findings[0], installed=OPENSSL.version),))
    found = attestations(RELEASE, ARTIFACT, judgement(), same)
    [document] = [one.predicate for one in found if one.predicate_type == statement.OPENVEX]
    assert "fixed" not in {one["status"] for one in document["statements"]}
    [log] = [one.predicate for one in found if one.predicate_type == statement.CHANGELOG]
    assert changes.CLOSED in {one["attribute"] for one in log["attributes"]}


def test_a_release_without_findings_has_no_openvex_and_the_first_no_changelog() -> None:
    """OpenVEX knows no document without a statement."""
    clean = replace(judgement(), result=replace(judgement().result, findings=()))
    kinds = {one.predicate_type for one in attestations(RELEASE, ARTIFACT, clean, None)}
    assert not kinds & {statement.OPENVEX, statement.CHANGELOG, statement.CYCLONEDX, statement.SPDX}


def test_the_verdict_carries_the_policys_digest_and_a_refusal_no_property() -> None:
    [predicate] = of(statement.VERDICT)
    assert predicate["properties"] == [
        "GOLDSMITH_ALLOWED", f"GOLDSMITH_POLICY=default@{sha('5')}", "GOLDSMITH_SCANNED_BY=debsecan",
    ]  # fmt: skip
    assert predicate["verifier"]["policies"][0]["digest"] == {"sha256": "5" * 64}
    refused = replace(judgement(), verdict=replace(VERDICT, allowed=False))
    found = attestations(RELEASE, ARTIFACT, refused, None)
    [verdict] = [one.predicate for one in found if one.predicate_type == statement.VERDICT]
    assert verdict["properties"] == []


def test_the_changelog_names_each_package_that_changed() -> None:
    [predicate] = of(statement.CHANGELOG)
    told = [(one["attribute"], one["target"]["name"], one.get("conditions", {})) for one in predicate["attributes"]]
    high = {"severity": "high"}
    assert told == [
        (changes.FOLLOWS, "web", {}),
        (changes.ADDED, "curl", {}),
        (changes.UPDATED, "openssl", {"from": "3.5.1-1", "to": OPENSSL.version}),
        (changes.REMOVED, "wget", {}),
        (changes.CLOSED, "CVE-2025-9999", {"package": "openssl", "version": "3.5.1-1", **high}),
        (changes.OPENED, "CVE-2026-0001", {"package": "curl", "version": "8.14.1-2", **high}),
        (changes.OPENED, "CVE-2026-0002", {"package": "openssl", "version": OPENSSL.version, **high}),
    ]


def test_evidence_is_the_same_on_any_day() -> None:
    """Nothing of it comes from a clock or from chance."""
    assert attestations(RELEASE, ARTIFACT, judgement(BILLS.cyclonedx, BILLS.spdx), PREVIOUS) == FOUND


def test_half_of_a_character_is_told_by_what_it_stands_in() -> None:
    """JSON can name one, and no digest can be made of it."""
    with pytest.raises(MalformedError, match="the summary is malformed: a text holds half of a character"):
        statement.read_predicate(statement.Predicate, {"verifier": "\ud800"}, "the summary")
