"""The scanners. To add one: a file with its `SCANNER`, an entry below, a recorded sample, a contract test.

`SCANNERS` run by default: `setup` installs them. Those of `MORE` run where the setting `scanners` names them.
"""

from __future__ import annotations

from collections.abc import Iterable

from images.scan import (
    debsecan,
    detect_secrets,
    grype,
    hadolint,
    lynis,
    matcher,
    openscap,
    osv_scanner,
    systemd_analyze,
    trivy,
)
from images.scan.base import Scanner

SCANNERS: dict[str, Scanner] = {
    scanner.name: scanner
    for scanner in (
        debsecan.SCANNER,
        hadolint.SCANNER,
        matcher.SCANNER,
        openscap.SCANNER,
        systemd_analyze.SCANNER,
        *trivy.SCANNERS,
    )
}
MORE: dict[str, Scanner] = {
    scanner.name: scanner for scanner in (detect_secrets.SCANNER, grype.SCANNER, lynis.SCANNER, osv_scanner.SCANNER)
}


def chosen(names: Iterable[str]) -> dict[str, Scanner]:
    """The scanners that run by default, and those of `MORE` with these names."""
    return {**SCANNERS, **{name: MORE[name] for name in names}}
