"""syft: the software bill of materials (CycloneDX) of the artifact, the same for the same image on any day."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hardening.foundation.errors import OutsideError
from hardening.model import Kind
from images.scan.base import ScanTarget

ENVIRONMENT = {
    "SYFT_CHECK_FOR_APP_UPDATE": "false",
    "SYFT_FILE_METADATA_SELECTION": "none",  # digests of single files: packages are what the bill is about
}


def command(target: ScanTarget, config: Path) -> list[str]:
    """The argv over the container's layout or the machine's tree; `config`, an empty file, keeps the host's own out."""
    source = f"dir:{target.tree}" if target.kind is Kind.MACHINE else f"oci-dir:{target.layout}"
    return ["syft", "scan", source, "--output=cyclonedx-json", f"--config={config}", "--quiet"]


def normalise(stdout: str, target: ScanTarget) -> bytes:
    """The SBOM without serial number, with the artifact's `created` as its time and its digest as its subject.

    Raises OutsideError where it names fewer packages than the image holds: half a bill is none.
    """
    document: dict[str, Any] = json.loads(stdout)
    document.pop("serialNumber", None)
    metadata = document.setdefault("metadata", {})
    created = datetime.fromisoformat(target.created or "1970-01-01T00:00:00Z")
    metadata["timestamp"] = created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kind = "operating-system" if target.kind is Kind.MACHINE else "container"
    metadata["component"] = {"type": kind, "name": target.name, "version": target.digest}
    components = document.get("components", [])
    for component in components:
        # syft lists them in the order it met them.
        component["properties"] = sorted(
            component.get("properties", []), key=lambda item: (item["name"], item["value"])
        )
    document["components"] = sorted(components, key=lambda item: (item.get("purl", ""), item.get("bom-ref", "")))
    _complete(document["components"], target)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _complete(components: list[dict[str, Any]], target: ScanTarget) -> None:
    named = {(item.get("name"), item.get("version")) for item in components}
    lost = [package.name for package in target.packages if (package.name, package.version) not in named]
    if lost:
        raise OutsideError(
            f"the SBOM of {target.name} lacks {len(lost)} of {len(target.packages)} packages",
            evidence=", ".join(lost[:10]),
            hint="syft reads /var/lib/dpkg/status and /etc/os-release in the image; are they there?",
        )
