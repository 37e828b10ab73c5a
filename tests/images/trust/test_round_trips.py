"""What becomes an attestation comes back exactly: the ledger is made again from what releases carry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardening.findings import CheckResult, Finding, FindingKind, Outcome, Reason, ScanReport, Verdict, merge
from hardening.foundation.errors import MalformedError
from hardening.model import Enforcement, Severity
from images.artifact import Artifact, Package
from images.documents import to_json
from images.trust import results
from images.trust.evidence import attestations, evidence_of, line
from images.trust.results import (
    AttestedScan,
    checks_attestation,
    checks_of,
    scan_of,
    scanners_attestation,
    verdict_attestation,
    verdict_of,
    vulnerability_attestations,
)
from images.trust.slsa import WRITTEN, artifact_of, provenance
from images.trust.statement import Attestation
from tests.support.evidence import ARTIFACT, RELEASE, TYPES, judgement

TEXT = st.text(max_size=20)
NAMES = st.sampled_from(["debsecan", "trivy", "trivy-disk", "a", "kev", "x-1"])
HEX = st.integers(0, (1 << 256) - 1).map("{:064x}".format)
DIGESTS = HEX.map("sha256:{}".format)
MOMENTS = st.integers(0, 1 << 52).map(lambda number: datetime.fromtimestamp(number / (1 << 20), UTC))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=4)
SCRIPTS = st.lists(st.tuples(NAMES, DIGESTS).map(list), max_size=3)
KNOWN = {"overlay", "parent", "packages", "builder", *WRITTEN}
INPUTS = st.fixed_dictionaries(
    {},
    optional={
        "definition": OBJECTS,
        "verify": OBJECTS,
        "platform": TEXT,
        "files": st.dictionaries(NAMES, DIGESTS.map("{} 644".format) | st.just("link to x") | TEXT, max_size=2),
        "overlay": st.fixed_dictionaries({"files": OBJECTS, "applies": SCRIPTS, "checks": SCRIPTS}),
        "parent": st.just("") | DIGESTS,
        "packages": st.lists(st.lists(TEXT, min_size=2, max_size=2), max_size=2),
        "builder": st.just("2, libzstd 1.5.7, mmdebstrap 1.5.6") | TEXT,
    },
)
OTHER_INPUTS = OBJECTS.map(lambda found: {key: value for key, value in found.items() if key not in KNOWN})
PACKAGES = st.builds(
    Package,
    name=st.sampled_from(["libstdc++6", "libc6", "a.b-c", "0ad"]),
    version=st.sampled_from(["1:1.3.dfsg+really1.3.1-1+deb13u1", "2.41-12~bpo13+1", "0", "2025b-4+deb13u1"]),
    architecture=st.sampled_from(["amd64", "all"]),
    sha256=st.just("") | HEX,
    source=TEXT,
    distribution=st.sampled_from(["debian", "ubuntu"]),
)
ARTIFACTS = st.builds(
    Artifact,
    name=NAMES,
    platform=TEXT,
    input_digest=TEXT,
    digest=DIGESTS,
    inputs=st.builds(lambda known, other: {**known, **other}, INPUTS, OTHER_INPUTS),
    packages=st.lists(PACKAGES, max_size=4).map(tuple),
    created=MOMENTS,
    built_at=MOMENTS,
    size_bytes=st.integers(0, 1 << 60),
    dockerfile=st.just("") | DIGESTS,
)
CHECKS = st.lists(
    st.builds(
        CheckResult, TEXT, TEXT, st.sampled_from(Severity), st.sampled_from(Enforcement), st.sampled_from(Outcome),
        TEXT, st.booleans(),
    ),
    min_size=1, max_size=5,
).map(tuple)  # fmt: skip
FINDINGS = st.builds(
    Finding,
    kind=st.sampled_from(FindingKind),
    id=st.sampled_from(["CVE-2026-1", "CVE-2026-2"]) | TEXT,
    package=st.sampled_from(["openssl", "/etc/key"]) | TEXT,
    installed=TEXT,
    fixed=TEXT,
    severity=st.sampled_from(Severity),
    scanners=st.lists(st.tuples(TEXT, st.sampled_from(Severity)), max_size=2).map(tuple),
    title=TEXT,
    source=TEXT,
    ecosystem=TEXT,
    status=TEXT,
)
REPORTS = st.lists(
    st.builds(
        ScanReport,
        scanner=NAMES,
        kind=st.sampled_from(FindingKind),
        outcome=st.sampled_from(Outcome),
        evaluated=st.integers(0, 10**6),
        data_date=st.none() | MOMENTS,
        data_source=TEXT,
        reason=TEXT,
        findings=st.lists(FINDINGS, max_size=3).map(tuple),
        version=TEXT,
        sample=st.booleans(),
        profile=TEXT,
        ignores=st.lists(TEXT, max_size=2).map(tuple),
        reproduced=st.none() | st.integers(0, 10**6),
    ),
    max_size=4,
    unique_by=lambda report: report.scanner,
).map(tuple)
REASONS = st.builds(
    Reason, TEXT, TEXT, st.sampled_from(Enforcement), TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, st.none() | MOMENTS,
    st.none() | MOMENTS,
)  # fmt: skip
VERDICTS = st.builds(
    Verdict, TEXT, NAMES, MOMENTS, st.booleans(), st.lists(REASONS, max_size=3).map(tuple), st.just("") | DIGESTS
)


@st.composite
def scans(draw: st.DrawFn) -> AttestedScan:
    """A scan as the flow makes it: the findings are the reports' own, merged, and then told exploited and dated."""
    reports = draw(REPORTS)
    merged = merge(finding for report in reports for finding in report.findings)
    likely = st.none() | st.floats(0, 1)
    told = [(draw(st.booleans()), draw(st.none() | MOMENTS), draw(likely)) for _ in merged]
    findings = [
        replace(one, exploited=exploited, fix_known_since=since, epss=epss)
        for one, (exploited, since, epss) in zip(merged, told, strict=True)
    ]
    return AttestedScan(reports, tuple(findings))


def sent(attestation: Attestation) -> dict[str, Any]:
    """Its predicate as it comes out of an envelope."""
    loaded: dict[str, Any] = json.loads(json.dumps(attestation.predicate))
    return loaded


@settings(max_examples=40)
@given(ARTIFACTS)
def test_an_artifact_comes_back_from_its_provenance(artifact: Artifact) -> None:
    assert artifact_of(sent(provenance(RELEASE, artifact))) == artifact


@settings(max_examples=40)
@given(CHECKS)
def test_results_of_controls_come_back(checks: tuple[CheckResult, ...]) -> None:
    assert checks_of(sent(checks_attestation(checks, {"no-setuid": f"sha256:{'0' * 64}"}))) == checks


@settings(max_examples=40)
@given(scans(), MOMENTS)
def test_a_scan_comes_back(scan: AttestedScan, at: datetime) -> None:
    """Compared as JSON too: titles and dates are no part of what makes two findings equal."""
    lists = [*vulnerability_attestations(scan.reports, scan.findings, at)]
    found = scan_of(sent(scanners_attestation(scan.reports)), map(sent, reversed(lists)))
    assert found == scan
    assert to_json(found) == to_json(scan)


@settings(max_examples=40)
@given(VERDICTS, REPORTS)
def test_a_verdict_comes_back(verdict: Verdict, reports: tuple[ScanReport, ...]) -> None:
    assert verdict_of(sent(verdict_attestation(verdict, f"sha256:{'1' * 64}", reports))) == verdict


@settings(max_examples=40)
@given(st.sampled_from(TYPES), OBJECTS)
def test_whatever_others_write_is_malformed_or_read(kind: str, predicate: dict[str, Any]) -> None:
    """And nothing else: no other error, and one line without control characters for people."""
    attestation = Attestation(kind, predicate)
    with suppress(MalformedError):
        evidence_of([attestation])
    assert "\n" not in line(attestation)


SHAPES = st.sampled_from(
    ["buildDefinition", "runDetails", "resolvedDependencies", "configuration", "scanner", "result", "verifier",
     "policies", "properties", "statements", "attributes", "target", "digest", "components", "annotations", "uri",
     "passedTests", "timeCreated", "builder", "version", "byproducts", "db"]
)  # fmt: skip
NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SHAPES, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.sampled_from(TYPES), st.dictionaries(SHAPES, NESTED, max_size=5))
def test_shapes_that_are_nearly_right_are_malformed_or_read(kind: str, predicate: dict[str, Any]) -> None:
    """The right keys over the wrong values."""
    attestation = Attestation(kind, predicate)
    with suppress(MalformedError):
        evidence_of([attestation])
    assert line(attestation)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all that lies in a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield (*path, key)
        yield from places(item, (*path, key))


WHOLE = attestations(RELEASE, ARTIFACT, judgement(), None)
PLACES = [(number, path) for number, one in enumerate(WHOLE) for path in places(one.predicate)]


@settings(max_examples=100)
@given(st.sampled_from(PLACES), st.none() | st.just("x") | st.just(-1) | st.just([]) | st.just({}) | JSON)
def test_of_what_was_changed_in_one_place_all_is_read_or_it_is_malformed(place: Any, value: Any) -> None:
    """Real evidence with anything else anywhere in it."""
    number, (*keys, last) = place
    changed = Attestation(WHOLE[number].predicate_type, sent(WHOLE[number]))
    part: Any = changed.predicate
    for key in keys:
        part = part[key]
    part[last] = value
    with suppress(MalformedError):
        evidence_of([*WHOLE[:number], changed, *WHOLE[number + 1 :]])
    assert line(changed)


def test_a_predicate_that_no_json_holds_is_malformed() -> None:
    """Half of a character, and objects in each other without end."""
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    for predicate in ({"buildDefinition": "\ud800"}, {"buildDefinition": deep}):
        with pytest.raises(MalformedError):
            artifact_of(predicate)


def test_no_field_of_a_scan_is_forgotten() -> None:
    """What is added to a report or a finding must be told as well."""
    assert {one.name for one in fields(ScanReport)} == {*results._ScannerRun.model_fields, "scanner"}
    assert {one.name for one in fields(Finding)} == {*results._Facts.model_fields, "id", "scanners"}


def test_a_list_of_what_is_exploited_or_reproduced_is_no_scanner_that_found_nothing() -> None:
    """An empty list of vulnerabilities would say so."""
    for kind in (FindingKind.EXPLOITATION, FindingKind.REPRODUCTION):
        report = ScanReport("list", kind, Outcome.PASS, 10, None, "", "")
        assert list(vulnerability_attestations([report], (), RELEASE.published_at)) == []
