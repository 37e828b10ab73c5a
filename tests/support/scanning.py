"""Small images for tests of scanners: trees with a real dpkg status file, in an OCI layout or on a raw disk."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from hardening.foundation.settings import Settings
from hardening.model import Kind
from images.artifact import Package
from images.machine import disk, filesystem
from images.scan.base import Scanner, ScanTarget
from images.scan.flow import ScanResult, inputs_of, scan
from images.scan.syft import Bills

NO_FEEDS = dict.fromkeys(("debsecan", "tracker", "trivy", "kev", "epss"), "none")
"""What the feeds of a test's settings are unless it names others: the default ones are public addresses."""
SAMPLES = Path(__file__).parent / "samples"
LINUX = {"linux": {"0": ["CVE-2000-0001"]}}
"""What a directory's data for debsecan must name beside openssl, in the form of `debsecan_format`."""
OPENSSL = ("openssl", "libssl3t64", "openssl-provider-legacy")
OS_RELEASE = 'PRETTY_NAME="Debian"\nNAME="Debian GNU/Linux"\nVERSION_ID="13"\nVERSION_CODENAME=trixie\nID=debian\n'
CURRENT = (SAMPLES / "trixie-status").read_text()


def canary_status() -> str:
    """The recorded status of trixie with openssl and its libraries at 3.5.1-1, which the package pool still serves."""
    stanzas = [_aged(stanza) if _name(stanza) in OPENSSL else stanza for stanza in CURRENT.strip().split("\n\n")]
    openssl = "Package: openssl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3.5.1-1"
    return "\n\n".join([*stanzas, openssl]) + "\n"


def _name(stanza: str) -> str:
    return re.match(r"Package: (\S+)", stanza)[1]  # type: ignore[index]


def _aged(stanza: str) -> str:
    return re.sub(r"(?m)^Version: .*$", "Version: 3.5.1-1", stanza)


def packages(status: str) -> tuple[Package, ...]:
    """The packages that a status file lists, as a plan would name them."""
    found = [dict(re.findall(r"(?m)^(\S+): (\S+)", stanza)) for stanza in status.strip().split("\n\n") if stanza]
    return tuple(Package(one["Package"], one["Version"], one["Architecture"], "") for one in found)


def with_bill(target: ScanTarget, bill: Bills) -> ScanResult:
    """An earlier scan of `target`, of which nothing but the bill of materials stands."""
    return ScanResult((), (), bill.cyclonedx, inputs=inputs_of(target.subject, {}, {}, {}), spdx=bill.spdx)


def scan_without_bill(
    target: ScanTarget, settings: Settings, scanners: Mapping[str, Scanner] | None = None, *, now: datetime
) -> ScanResult:
    """What scanners say of an image whose bill of materials is known, since syft takes longer than any of them."""
    target = replace(target, subject="image")
    return scan(target, settings, scanners, now=now, known=with_bill(target, Bills(b"{}", b"{}")))


def make_target(
    folder: Path,
    status: str = CURRENT,
    *,
    config: Mapping[str, Any] | None = None,
    layers: tuple[Mapping[str, bytes], ...] = (),
    dockerfile: str = "",
) -> ScanTarget:
    """A target whose first layer and tree hold os-release and `status`; `layers` lie over it, in the image only."""
    base = {
        "usr/lib/os-release": OS_RELEASE.encode(),
        "etc/os-release": OS_RELEASE.encode(),
        "etc/debian_version": b"13.0\n",
        "var/lib/dpkg/status": status.encode(),
    }
    for name, content in base.items():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_bytes(content)
    write_layout(folder / "layout", (base, *layers), config or {})
    if dockerfile:
        (folder / "Dockerfile").write_text(dockerfile)
    path = folder / "Dockerfile" if dockerfile else None
    return ScanTarget("test", folder / "layout", folder / "tree", path, packages(status))


def write_layout(folder: Path, layers: tuple[Mapping[str, bytes], ...], config: Mapping[str, Any]) -> None:
    """A standalone OCI layout of one image with these layers."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes, media_type: str) -> dict[str, Any]:
        value = hashlib.sha256(content).hexdigest()
        (blobs / value).write_bytes(content)
        return {
            "mediaType": f"application/vnd.oci.image.{media_type}",
            "digest": f"sha256:{value}",
            "size": len(content),
        }

    tars = [put(_tar(layer), "layer.v1.tar") for layer in layers]
    image = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-11-01T00:00:00Z",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [tar["digest"] for tar in tars]},
    }
    described = put(json.dumps(image).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "config": described, "layers": tars}
    manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
    entry = put(json.dumps(manifest).encode(), "manifest.v1+json")
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _tar(files: Mapping[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return sink.getvalue()


UNIT = "[Service]\nType={kind}\nExecStart=/usr/bin/true\n"


def make_machine(folder: Path, status: str = CURRENT, *, benchmark: str = "cis_level1_server") -> ScanTarget:
    """A small machine: a tree that names its release and packages, with one service that stays, and no disk yet."""
    files = {
        "usr/lib/os-release": OS_RELEASE,
        "etc/os-release": OS_RELEASE,
        "etc/debian_version": "13.0\n",
        "var/lib/dpkg/status": status,
        "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
        "etc/group": "root:x:0:\n",
        "etc/ssh/sshd_config": "PermitRootLogin yes\n",
        "usr/lib/systemd/system/stays.service": UNIT.format(kind="exec"),
        "usr/lib/systemd/system/ends.service": UNIT.format(kind="oneshot"),
    }
    for name, content in files.items():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_text(content)
    (folder / "tree/proc").mkdir()
    wants = folder / "tree/etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    for unit in ("stays.service", "ends.service"):
        (wants / unit).symlink_to(f"/usr/lib/systemd/system/{unit}")
    return ScanTarget(
        "server", None, folder / "tree", packages=packages(status), kind=Kind.MACHINE, digest="sha256:1",
        created="2026-11-01T00:00:00Z", benchmark=benchmark,
    )  # fmt: skip


def with_disk(target: ScanTarget, folder: Path) -> ScanTarget:
    """`target` with its tree on a raw disk, as the product partitions it."""
    kernel, epoch = folder / "esp/EFI/BOOT/BOOTX64.EFI", 1764028800
    kernel.parent.mkdir(parents=True)
    kernel.write_bytes(b"none")
    place = disk._partition(folder / "disk.raw", folder / "esp", 64 << 20, folder / "repart.d", epoch)
    filesystem.write(filesystem.Contents(target.tree), place, epoch, folder)
    return replace(target, disk=folder / "disk.raw")
