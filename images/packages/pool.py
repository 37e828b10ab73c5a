"""Package files on this machine: each is hashed before use, whatever its source. Edge: reads and links."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from hardening.foundation.errors import OutsideError
from images.artifact import Package
from images.packages import debian
from images.store.files import file_digest, link_or_copy

MAGIC, HEADER, DATE = b"!<arch>\n", 68, slice(24, 36)  # ar(5): the magic, then the first member's header


def is_whole(package: Package, path: Path) -> bool:
    """Whether `path` is the very .deb of `package`."""
    return path.is_file() and file_digest(path) == package.sha256


def require_whole(package: Package, path: Path) -> Path:
    """`path`, which is the very .deb of `package`. Raises OutsideError where it is another file, or absent."""
    if not is_whole(package, path):
        hint = "build again: a changed file is fetched again"
        raise OutsideError(f"{path.name} is not the file that was planned (sha256 {package.sha256[:12]}…)", hint=hint)
    return path


def dated(path: Path) -> datetime | None:
    """The date that a .deb says of itself: of its source's last change, where it was built as Debian builds.

    It stands in the header of the archive's first member (deb(5)). None where there is no such file, or no date.
    """
    try:
        with path.open("rb") as file:
            header = file.read(HEADER)
        seconds = int(header[DATE]) if header.startswith(MAGIC) and len(header) == HEADER else 0
        return datetime.fromtimestamp(seconds, UTC) if seconds > 0 else None
    except (OSError, ValueError, OverflowError):
        return None


def write_repository(directory: Path, suite: str, packages: Mapping[Package, Path], stanzas: str) -> None:
    """A package repository of exactly these .debs, hard-linked, for tools that must see nothing else and no network.

    Raises OutsideError where a file is not its package's, or `stanzas` describe others than `packages`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    entries = []
    for stanza in debian.stanzas(stanzas):
        package = debian.package_of(stanza)
        if package not in packages:
            raise OutsideError(f"an entry for {package.name} {package.version}, which was not planned")
        entries.append(debian.repository_stanza(stanza, f"./{_file_name(package)}"))
    for package, path in packages.items():
        link_or_copy(require_whole(package, path), directory / _file_name(package))
    (directory / "Packages").write_text("\n\n".join(entries) + "\n")
    digest, size = file_digest(directory / "Packages"), (directory / "Packages").stat().st_size
    (directory / "Release").write_text(
        f"Origin: goldsmith\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64 arm64 all\n"
        f"Date: Thu, 01 Jan 1970 00:00:00 UTC\nSHA256:\n {digest} {size} Packages\n"
    )


def _file_name(package: Package) -> str:
    """The name of a .deb in a repository, where apt would take `%3a` for an escape."""
    return debian.pool_name(package).replace("%3a", "_")
