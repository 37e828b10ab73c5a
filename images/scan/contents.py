"""Which ecosystems of a bill of materials a vulnerability scanner evaluated. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from packageurl import PackageURL

from hardening.findings import FindingKind, Outcome, ScanReport

OWN = "deb"  # the ecosystem of the distribution, which each scanner proves to have read by its packages
NAMED = 3
Contents = Mapping[str, Mapping[str, str]]
"""By ecosystem (npm, pypi, …), the packages that no package of the distribution owns: "name version" by their key."""


def key_of(purl: str) -> str:
    """A package URL as scanners agree on it: type, namespace and name; empty where it is none."""
    try:
        url = PackageURL.from_string(purl)
    except ValueError:
        return ""
    name = re.sub(r"[-_.]+", "-", url.name) if url.type == "pypi" else url.name  # as PEP 503 has it
    return "/".join(filter(None, (url.type, url.namespace, name))).lower()


def contents_of(spdx: bytes) -> Contents:
    """The packages of a bill (SPDX, as syft writes it) that no package of the distribution claims as its files."""
    bill: dict[str, Any] = json.loads(spdx or b"{}")
    packages = {entry["SPDXID"]: (entry, _purl(entry)) for entry in bill.get("packages", ())}
    owned = {
        entry["relatedSpdxElement"]
        for entry in bill.get("relationships", ())
        if entry.get("comment", "").startswith("ownership-by-file-overlap")
        and packages.get(entry["spdxElementId"], ({}, ""))[1].startswith(f"pkg:{OWN}/")
    }
    contents: dict[str, dict[str, str]] = {}
    for name, (package, purl) in packages.items():
        key = key_of(purl)
        ecosystem = key.partition("/")[0]
        if key and ecosystem != OWN and name not in owned:
            contents.setdefault(ecosystem, {})[key] = f"{package['name']} {package.get('versionInfo', '')}".strip()
    return contents


def _purl(package: Mapping[str, Any]) -> str:
    references = (entry for entry in package.get("externalRefs", ()) if entry.get("referenceType") == "purl")
    return str(next((entry["referenceLocator"] for entry in references), ""))


def with_ecosystems(report: ScanReport, listed: Collection[str], contents: Contents) -> ScanReport:
    """The report with the ecosystems that its scanner evaluated and did not; `listed` are the packages that it saw.

    An ecosystem of which it lists fewer packages than the bill is one that it did not evaluate. Of Go programs, whose
    main module scanners name differently or not at all, any module suffices.
    """
    if report.kind is not FindingKind.VULNERABILITY or report.outcome not in (Outcome.PASS, Outcome.FAIL):
        return report
    lost = {name: [text for key, text in own.items() if key not in listed] for name, own in contents.items()}
    lost |= {"golang": []} if "golang" in lost and any(key.startswith("golang/") for key in listed) else {}
    beyond = tuple((name, _named(packages)) for name, packages in sorted(lost.items()) if packages)
    return replace(
        report, ecosystems=(OWN, *sorted(name for name, packages in lost.items() if not packages)), beyond=beyond
    )


def _named(packages: Iterable[str]) -> str:
    """How many packages, and the names of the first."""
    names = sorted(packages)
    more = ", …" if names[NAMED:] else ""
    return f"{len(names)} package{'s' if len(names) > 1 else ''} ({', '.join(names[:NAMED])}{more})"


def listed_by(purls: Callable[[str], Iterable[str]], said: str) -> frozenset[str]:
    """The keys of the packages that a scanner's answer names."""
    return frozenset(filter(None, map(key_of, purls(said))))
