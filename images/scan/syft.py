"""syft: the software bill of materials of the artifact, as CycloneDX and SPDX, the same for the same image any day."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from packageurl import PackageURL

from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import canonical
from hardening.model import Kind
from images.scan.base import ScanTarget

ENVIRONMENT = {
    "SYFT_CHECK_FOR_APP_UPDATE": "false",
    "SYFT_FILE_METADATA_SELECTION": "none",  # digests of single files: packages are what the bill is about
}
CYCLONEDX, SPDX = "sbom.cdx.json", "sbom.spdx.json"
NAMESPACE = "https://goldsmith.dev/spdx/"
ROOT = "SPDXRef-DocumentRoot"
ENDS = ("spdxElementId", "relatedSpdxElement")
MEMBERS = ("packages", "relationships", "hasExtractedLicensingInfos", "annotations")


@dataclass(frozen=True)
class Bills:
    """The bill of materials of an image in both formats, each in canonical form."""

    cyclonedx: bytes
    spdx: bytes


def command(target: ScanTarget, config: Path) -> list[str]:
    """The argv over the container's layout or the machine's tree, which writes both formats beside `config`.

    That is an empty file, which keeps the host's own configuration out.
    """
    source = f"dir:{target.tree}" if target.kind is Kind.MACHINE else f"oci-dir:{target.layout}"
    formats = {"cyclonedx-json@1.6": CYCLONEDX, "spdx-json@2.3": SPDX}
    outputs = [f"--output={name}={config.with_name(file)}" for name, file in formats.items()]
    return ["syft", "scan", source, *outputs, f"--config={config}", "--quiet"]


def normalise(cyclonedx: str, spdx: str, target: ScanTarget) -> Bills:
    """Both bills with the artifact's digest as their subject, and with its `created` as their time.

    Raises OutsideError where one of them names fewer packages than the image holds: half a bill is none.
    """
    return Bills(canonical(_cyclonedx(json.loads(cyclonedx), target)), canonical(_spdx(json.loads(spdx), target)))


def _cyclonedx(document: dict[str, Any], target: ScanTarget) -> dict[str, Any]:
    document["serialNumber"] = f"urn:uuid:{uuid5(NAMESPACE_URL, target.digest)}"
    metadata = document.setdefault("metadata", {})
    metadata["timestamp"] = _created(target)
    kind = "operating-system" if target.kind is Kind.MACHINE else "container"
    metadata["component"] = {"type": kind, "name": target.name, "version": target.digest}
    components = document.get("components", [])
    for component in components:
        # syft lists them in the order it met them.
        component["properties"] = sorted(
            component.get("properties", []), key=lambda item: (item["name"], item["value"])
        )
    document["components"] = sorted(components, key=lambda item: (item.get("purl", ""), item.get("bom-ref", "")))
    _complete((item.get("purl", "") for item in components), target)
    return document


def _spdx(document: dict[str, Any], target: ScanTarget) -> dict[str, Any]:
    """The document about the image, whose root syft names by the path that it read.

    Of files it would tell invented digests, and an SPDX file has to have one: so it tells of packages alone.
    """
    document["name"] = target.name
    document["documentNamespace"] = f"{NAMESPACE}{target.name}/{target.digest.removeprefix('sha256:')}"
    document["creationInfo"]["created"] = _created(target)
    relationships, packages = document.get("relationships", []), document.get("packages", [])
    files = {file["SPDXID"] for file in document.pop("files", [])}
    roots = {one["relatedSpdxElement"] for one in relationships if one["relationshipType"] == "DESCRIBES"}
    document["relationships"] = [
        {**one, **{end: ROOT for end in ENDS if one[end] in roots}}
        for one in relationships
        if not any(one[end] in files for end in ENDS)
    ]
    document["packages"] = [_root(target) if one["SPDXID"] in roots else one for one in packages]
    for member in MEMBERS:
        if member in document:
            document[member] = sorted(document[member], key=canonical)
    references = (one for package in packages for one in package.get("externalRefs", []))
    _complete((one["referenceLocator"] for one in references if one["referenceType"] == "purl"), target)
    return document


def _root(target: ScanTarget) -> dict[str, Any]:
    purpose = "OPERATING-SYSTEM" if target.kind is Kind.MACHINE else "CONTAINER"
    more = {"downloadLocation": "NOASSERTION", "filesAnalyzed": False, "primaryPackagePurpose": purpose}
    return {"SPDXID": ROOT, "name": target.name, "versionInfo": target.digest, **more}


def _created(target: ScanTarget) -> str:
    """The date of the artifact, in UTC."""
    created = datetime.fromisoformat(target.created or "1970-01-01T00:00:00Z")
    return created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _complete(purls: Iterable[str], target: ScanTarget) -> None:
    named = {_identity(purl) for purl in purls if purl.startswith("pkg:deb/")}
    lost = [package.name for package in target.packages if _identity(package.purl) not in named]
    if lost:
        raise OutsideError(
            f"the SBOM of {target.name} lacks {len(lost)} of {len(target.packages)} packages",
            evidence=", ".join(lost[:10]),
            hint="syft reads /var/lib/dpkg/status and /etc/os-release in the image; are they there?",
        )


def _identity(purl: str) -> tuple[str | None, str, str | None, str | None]:
    """What a Debian package's URL says of it, but for what syft adds."""
    told = PackageURL.from_string(purl)
    return told.namespace, told.name, told.version, dict(told.qualifiers).get("arch")
