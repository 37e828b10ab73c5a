"""The scanners. To add one: a file with its `SCANNER`, an entry in `SCANNERS`, a recorded sample, a contract test."""

from __future__ import annotations

from images.scan import debsecan, hadolint, matcher, openscap, systemd_analyze, trivy
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
