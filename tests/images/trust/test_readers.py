"""What other programs make of our evidence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hardening.foundation.process import run, which
from images.registry.attestations import signed_document
from images.registry.client import RegistryClient
from images.registry.referrers import attach
from images.trust.envelope import statement
from images.trust.vex import vex
from tests.support.evidence import ARTIFACT, RELEASE, VERDICT, found
from tests.support.publishing import running_registry, settings_in
from tests.support.scanning import canary_status, make_target
from tests.support.signing import KeyInMemory

FLAGS = (
    "--image-src=remote", "--insecure", "--skip-db-update", "--skip-java-db-update", "--offline-scan", "--quiet",
    "--cache-backend=memory", "--scanners=vuln", "--format=json", "--skip-version-check", "--show-suppressed",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.needs("trivy", "skopeo", "docker-registry")
def test_trivy_goes_by_our_openvex_in_the_very_package_of_the_very_image(advisories: Path, tmp_path: Path) -> None:
    """What is fixed in one of three packages stays open in the two others."""
    target = make_target(tmp_path, canary_status())
    openssl = next(package for package in target.packages if package.name == "openssl")
    with running_registry(tmp_path / "registry") as address:
        repository = f"{address}/golden/web"
        push = ["skopeo", "copy", "--dest-tls-verify=false", f"oci:{target.layout}", f"docker://{repository}:1"]
        run([*push, f"--digestfile={tmp_path / 'digest'}"])
        digest = (tmp_path / "digest").read_text()
        artifact = replace(ARTIFACT, digest=digest, packages=target.packages)
        closed = found("CVE-2025-15467", replace(openssl, version="3.5.0-1"))
        about = vex(replace(RELEASE, repository=repository, digest=digest), artifact, VERDICT, (), (closed,))
        assert about
        registry = RegistryClient(f"{address}/golden", settings_in(tmp_path / "state"))
        payload = statement(about.predicate_type, about.predicate, {digest: repository})
        attach(registry, repository, registry.get(f"{repository}@{digest}").descriptor,
               [signed_document(payload, KeyInMemory())])  # fmt: skip
        data, said = f"--cache-dir={advisories / 'trivy'}", "--vex=oci"
        told = run([str(which("trivy")), "image", *FLAGS, data, said, f"{repository}@{digest}"]).stdout
    [result] = [one for one in json.loads(told)["Results"] if "Vulnerabilities" in one]
    suppressed = [(one["Finding"]["PkgName"], one["Status"]) for one in result["ExperimentalModifiedFindings"]]
    assert suppressed == [("openssl", "fixed")]
    still = {one["PkgName"] for one in result["Vulnerabilities"] if one["VulnerabilityID"] == "CVE-2025-15467"}
    assert still == {"libssl3t64", "openssl-provider-legacy"}
