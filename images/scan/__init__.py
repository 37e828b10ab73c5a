"""The scanners. To add one: a file with its `SCANNER`, a line in `SCANNERS`, a recorded sample, a contract test."""

from __future__ import annotations

from images.scan import debsecan, hadolint, openscap, systemd_analyze, trivy, trivy_config, trivy_disk, trivy_secret
from images.scan.base import Scanner

SCANNERS: dict[str, Scanner] = {
    "debsecan": debsecan.SCANNER,
    "hadolint": hadolint.SCANNER,
    "openscap": openscap.SCANNER,
    "systemd-analyze": systemd_analyze.SCANNER,
    "trivy": trivy.SCANNER,
    "trivy-config": trivy_config.SCANNER,
    "trivy-disk": trivy_disk.SCANNER,
    "trivy-secret": trivy_secret.SCANNER,
}
