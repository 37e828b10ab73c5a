"""Waivers in the forms of other tools, read by the real trivy over an image in a real registry."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hardening.foundation.process import run, which
from hardening.model import Waiver
from hardening.waivers import openvex, trivyignore
from tests.support.publishing import running_registry
from tests.support.scanning import canary_status, make_target

pytestmark = [pytest.mark.slow, pytest.mark.needs("trivy", "docker-registry", "skopeo")]
FOUND = ("libssl3t64", "CVE-2025-15467")


def test_trivy_reads_what_waivers_are_exported_as(advisories: Path, tmp_path: Path) -> None:
    """OpenVEX is accepted, and leaves out just the package whose waiver says why it is not affected; the ignore file
    leaves out what any waiver covers, through its last day.
    """
    shutil.copytree(advisories / "trivy", tmp_path / "cache")  # it writes there
    make_target(tmp_path, canary_status())
    vex, ignore, today = tmp_path / "vex.json", tmp_path / ".trivyignore.yaml", datetime.now(UTC).date()
    data = {
        "id": "w", "vulnerabilities": (FOUND[1],), "packages": (FOUND[0],), "subjects": ("canary",), "reason": "r",
        "owner": "a", "approver": "b", "created": today - timedelta(days=9), "expires": today,
    }  # fmt: skip
    accepted = Waiver.model_validate(data)
    justified = Waiver.model_validate({**data, "justification": "vulnerable_code_not_present"})
    with running_registry(tmp_path / "registry") as address:
        image = f"{address}/golden/canary:1"
        run(["skopeo", "copy", "--dest-tls-verify=false", f"oci:{tmp_path}/layout", f"docker://{image}"])

        def scanned(*more: str) -> set[tuple[str, str]]:
            argv = [
                str(which("trivy")),
                "image",
                f"--cache-dir={tmp_path}/cache",
                "--skip-db-update",
                "--offline-scan",
                "--quiet",
            ]
            argv += ["--scanners=vuln", "--format=json", "--image-src=remote", "--insecure", *more, image]
            results = json.loads(run(argv).stdout)["Results"]
            return {(one["PkgName"], one["VulnerabilityID"]) for of in results for one in of.get("Vulnerabilities", ())}

        every = scanned()
        for waiver, left_out in ((justified, {FOUND}), (accepted, set())):
            vex.write_text(openvex([waiver], ["pkg:oci/canary"], "Goldsmith", today))
            assert every - scanned(f"--vex={vex}") == left_out
        ignore.write_text(trivyignore([accepted], "canary", today))
        assert every - scanned(f"--ignorefile={ignore}") == {FOUND}
    assert FOUND in every
