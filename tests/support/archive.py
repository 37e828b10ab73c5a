"""A small signed package archive of one's own, to be laid over the real one or used instead of it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory


class Archive:
    """A flat repository with its own key: `add` packages, then `publish`; `sources` and `keyring` are for apt."""

    def __init__(self, directory: Path, suite: str = "trixie") -> None:
        self.directory, self.suite = directory, suite
        self.home = directory.parent / f"{directory.name}.k"
        self.keyring = self.home / "archive.pgp"
        directory.mkdir(parents=True)
        self.home.mkdir(mode=0o700)
        self._gpg("--quick-generate-key", "Test archive", "ed25519", "sign", "never")
        self._gpg("--output", str(self.keyring), "--export", "Test archive")
        self.uri = directory.as_uri()

    def add(
        self, name: str, version: str = "1.0", files: dict[str, str] | None = None, control: str = "",
        built: int = 1_700_000_000,
    ) -> Path:  # fmt: skip
        """Build a package that holds `files` (path → text); `control` adds fields such as `Depends: libc6`.

        `built` is the date that it says of itself, in seconds since 1970.
        """
        tree = self.home / f"{name}-{version}"
        (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
        for path, text in {f"/usr/share/{name}/version": version, **(files or {})}.items():
            target = tree / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Tests <tests@example.com>\n"
            f"Source: {name}-source\nDescription: a package of a test\n{control and control + chr(10)}"
        )
        deb = self.directory / f"{name}_{version}_all.deb"
        build = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(deb)]
        subprocess.run(build, check=True, capture_output=True, env={"SOURCE_DATE_EPOCH": str(built), "PATH": PATH})
        return deb

    def publish(self, valid_until: str = "", date: str = "Thu, 01 Jan 2026 00:00:00 UTC") -> None:
        """Write and sign the index of what is there; `valid_until` and `date` as RFC 822 has dates."""
        text = "\n".join(self._stanza(deb) for deb in sorted(self.directory.glob("*.deb")))
        (self.directory / "Packages").write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        release = f"Suite: {self.suite}\nCodename: {self.suite}\nDate: {date}\n"
        release += f"Valid-Until: {valid_until}\nSHA256:\n" if valid_until else "SHA256:\n"
        (self.home / "Release").write_text(f"{release} {digest} {len(text.encode())} Packages\n")
        (self.directory / "InRelease").unlink(missing_ok=True)
        self._gpg("--output", str(self.directory / "InRelease"), "--clear-sign", str(self.home / "Release"))

    def sources(self) -> Path:
        """A deb822 file that names this archive, for `packages.extra_sources`."""
        file = self.home / "extra.sources"
        file.write_text(f"Types: deb\nURIs: {self.uri}\nSuites: ./\nSigned-By: {self.keyring}\n")
        return file

    def _stanza(self, deb: Path) -> str:
        control = subprocess.run(["dpkg-deb", "--field", str(deb)], check=True, capture_output=True, text=True).stdout
        data = deb.read_bytes()
        return f"{control}Filename: ./{deb.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"

    def _gpg(self, *arguments: str) -> None:
        with TemporaryDirectory(dir="/tmp") as short:  # the path of its agent's socket has at most 107 characters
            home = Path(short) / "home"
            home.symlink_to(self.home)
            command = ["gpg", "--batch", "--quiet", "--homedir", str(home), "--passphrase", "", *arguments]
            subprocess.run(command, check=True, capture_output=True)
            # The agent that gpg starts would outlive the test.
            subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True, capture_output=True)


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
