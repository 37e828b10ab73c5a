"""The scanners. To add one: a file with its `SCANNER`, a line in `SCANNERS`, a recorded sample, a contract test."""

from __future__ import annotations

from images.scan import debsecan, hadolint, openscap, systemd_analyze, trivy
from images.scan.base import Scanner

SCANNERS: dict[str, Scanner] = {
    "debsecan": debsecan.SCANNER,
    "hadolint": hadolint.SCANNER,
    "openscap": openscap.SCANNER,
    "systemd-analyze": systemd_analyze.SCANNER,
    "trivy": trivy.SCANNER,
    "trivy-config": trivy.CONFIG_SCANNER,
    "trivy-disk": trivy.DISK_SCANNER,
    "trivy-secret": trivy.SECRET_SCANNER,
}
