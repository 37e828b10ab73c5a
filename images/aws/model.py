"""What the flows at AWS pass to each other, as frozen values. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from images.artifact import Release

GIB = 1 << 30


@dataclass(frozen=True)
class MachineImage:
    """A built machine image: its raw disk, and the digest of each of the disk's blocks, one after the other.

    `linear` is the digest of those digests, `sha256:…`: the name of exactly this disk.
    """

    name: str
    content: str
    architecture: str
    linear: str
    digests: bytes = field(repr=False)
    size_bytes: int
    disk: Path

    @property
    def volume_gib(self) -> int:
        """The size of the volume that holds it, in GiB."""
        return -(-self.size_bytes // GIB)


@dataclass(frozen=True)
class Ami:
    """A registered image as a region shows it. `release` is what its tags say of it, None where they are not ours."""

    account: str
    region: str
    id: str
    name: str
    state: str
    snapshots: tuple[str, ...]
    tags: dict[str, str] = field(default_factory=dict)
    release: Release | None = None
    deprecated_at: datetime | None = None
    launched_at: datetime | None = None
    source: str = ""
    public: bool = False
    boot: tuple[str, str, str] = ("", "", "")

    @property
    def where(self) -> str:
        """How people tell it from others."""
        return f"{self.region}/{self.id}"


@dataclass(frozen=True)
class Parent:
    """A snapshot that a delta may stand on, with the digests of its disk's blocks."""

    snapshot: str
    linear: str
    digests: bytes = field(repr=False)
    volume_gib: int
