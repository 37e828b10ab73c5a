"""What a build produces and a publication dates, as frozen values. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from packageurl import PackageURL

REBUILT = re.compile(r"\+b[0-9]+$")
KERNEL = re.compile(r"linux-(image|modules)-[0-9]")
SIGNED_LINUX, SIGNED_GRUB = re.compile(r"linux-signed-[a-z0-9]+"), re.compile(r"grub-efi-[a-z0-9]+-signed")


def unsigned(source: str, version: str = "") -> tuple[str, str]:
    """The name and version of the source that advisories are about, where `source` only signs what that has built.

    Debian signs kernels and GRUB for Secure Boot in sources of their own, such as linux-signed-amd64 6.12.86+1 of linux
    6.12.86-1, and no advisory names these: who does not know that finds nothing in any kernel.
    """
    if SIGNED_LINUX.fullmatch(source):
        return "linux", version.replace("+", "-", 1)
    if SIGNED_GRUB.fullmatch(source):
        return "grub2", re.sub(r"^[0-9]+\+", "", version).replace("+", "-", 1)
    return source, version


@dataclass(frozen=True, order=True)
class Package:
    """One resolved distribution package. `sha256` is the .deb's, in hex; `source` the source package's name.

    `source_version` is empty where it is the package's own, or where an earlier version of Goldsmith did not keep it.
    """

    name: str
    version: str
    architecture: str
    sha256: str
    source: str = ""
    distribution: str = "debian"
    source_version: str = ""

    @property
    def built_from(self) -> tuple[str, str]:
        """The name and version of the source package, which advisories are about.

        A package that was only rebuilt has a version of its own, such as 1.2-3+b1, of the source 1.2-3:
        https://wiki.debian.org/binNMU
        """
        source, version = self.source or self.name, self.source_version or REBUILT.sub("", self.version)
        if SIGNED_LINUX.fullmatch(source) and not KERNEL.match(self.name):
            return source, version  # a metapackage or headers, which hold nothing that runs
        return unsigned(source, version)

    @property
    def purl(self) -> str:
        """The package URL, as SBOMs and the ledger name it."""
        qualifiers = {"arch": self.architecture}
        return PackageURL("deb", self.distribution, self.name, self.version, qualifiers).to_string()


@dataclass(frozen=True)
class Descriptor:
    """An OCI content descriptor."""

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True)
class Artifact:
    """A built image of one platform: its content manifest's digest, and the inputs that it is a function of.

    `inputs` is the JSON value whose hash is `input_digest`, so that two artifacts can be compared input by input.
    `created` comes from the inputs (SOURCE_DATE_EPOCH), never from the clock; `built_at` from the clock, for people.
    `dockerfile` is the digest, in the store, of the Dockerfile that made it, where one did.
    """

    name: str
    platform: str
    input_digest: str
    digest: str
    inputs: dict[str, Any]
    packages: tuple[Package, ...]
    created: datetime
    built_at: datetime
    size_bytes: int = 0
    dockerfile: str = ""


@dataclass(frozen=True)
class Release:
    """A published, dated index over one content. `digest` is the index's; `content` the content manifest's."""

    name: str
    repository: str
    digest: str
    content: str
    input_digest: str
    profile: str
    policy: str
    published_at: datetime
    warn_at: datetime
    expires_at: datetime
    base_name: str = ""
    base_digest: str = ""
    revoked_reason: str = ""
    revoked_at: datetime | None = None
    pruned_at: datetime | None = None
