"""A machine's disk from nothing and after a change, beside mkosi with the same packages; then that change booted."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import INV, ROOT, Reading, Report, alternate, end, require, rounds, timed

COLD, MKOSI = "goldsmith, packages to disk", "mkosi, packages to disk"
CHANGED, INCREMENTAL = "goldsmith, a changed control", "mkosi --incremental, a changed file"
QUICK, RELEASE = "image.boot --quick, changed", "image.boot, changed"
# The build alone: what `image.build` does after it (boot, checks, scans, gate) mkosi does not.
BUILD = """
import os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
from tests.support.loop import Goldsmith
from tests.support.servers import NO_ENGINE, Workshop
content = tuple(Path(root) for root in sys.argv[3:])
print(Workshop(Goldsmith(Path(sys.argv[1]), NO_ENGINE), content).build(sys.argv[2]).digest)
"""
CHANGED_TOML = """
title = "Of a benchmark"
owner = "benchmarks"
kind = "machine"
profile = "cis-level1"
policy = "machine"
files = [{ source = "motd", path = "/etc/motd.d/50-benchmark" }]

[base]
golden = "debian-server"

[profile_params.sshd-access]
groups = ["operators"]
"""
CONF = """
[Distribution]
Distribution=debian
Release=trixie

[Content]
Bootable=yes
Bootloader=uki
Packages=
{packages}
"""


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    times = rounds(5, __doc__ or "")
    require("mkosi", "mmdebstrap", "ukify", "systemd-repart", "qemu-system-x86_64", root=True)
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder:
        bench = Bench(Path(folder))
        bench.warm()
        runs = {COLD: bench.cold, MKOSI: bench.mkosi, CHANGED: bench.changed, INCREMENTAL: bench.incremental}
        runs |= {QUICK: bench.tried("--quick"), RELEASE: bench.tried()}
        found = alternate(runs, times)
    report = Report(found)
    report.table()
    print("packages are downloaded in all of them; both sides stop at the bootable disk, but for image.boot")
    report.claim("packages to disk / mkosi", report.ratio(COLD, MKOSI), 1 / 1.2)
    report.claim("a change to disk / mkosi incremental", report.ratio(CHANGED, INCREMENTAL), 1 / 3)
    report.claim("a change to disk, seconds", report.seconds(CHANGED), 8)
    report.claim("a changed control to its checked result, quick, seconds", report.seconds(QUICK), 20)
    report.claim("a changed control to its checked result, as shipped, seconds", report.seconds(RELEASE), 30)
    return int(report.failed)


class Bench:
    """The four builds. Caches of packages are warm on both sides; of trees, in the incremental ones alone."""

    def __init__(self, folder: Path) -> None:
        self.state, self.content, self.source = folder / "state", folder / "content", folder / "mkosi"
        self.empty = folder / "empty"
        self.number = 0
        self.env = {"PYTHONPATH": str(ROOT)}

    def warm(self) -> None:
        """Fetch packages and, for what is built on it, make debian-server and mkosi's own cache, unmeasured."""
        timed((*INV, "image.build", "debian-server", "--policy", "demo"), self._settings())
        self.empty.mkdir()
        (self.empty / "apt").symlink_to(self.state / "apt")
        self._write_mkosi()
        self.mkosi()
        timed(self._mkosi_command("yes"), self._path(), self.source)

    def cold(self) -> Reading:
        """debian-server without any tree that is there, to its disk."""
        for sort in ("trees", "disks", "store"):
            shutil.rmtree(self.empty / sort, ignore_errors=True)
        return self._build(self.empty, "debian-server")

    def changed(self) -> Reading:
        """A child whose files and control parameters are others than before, to its disk."""
        self._write_child()
        return self._build(self.state, "b-child", str(self.content))

    def tried(self, *how: str) -> Callable[[], Reading]:
        """The command of whoever edits a control: another parameter than before, built, booted and asked."""

        def tried() -> Reading:
            self._write_child()
            argv = (*INV, "image.boot", "b-child", "--control", "sshd-access", *how)
            return timed(argv, self._settings())

        return tried

    def mkosi(self) -> Reading:
        """The peer: the same packages, from its package cache, to a disk with a unified kernel."""
        return timed(self._mkosi_command("no"), self._path(), self.source)

    def incremental(self) -> Reading:
        """The peer from its cached tree, with one file changed."""
        self._write_extra()
        return timed(self._mkosi_command("yes"), self._path(), self.source)

    def _build(self, state: Path, name: str, *content: str) -> Reading:
        return timed((sys.executable, "-c", BUILD, str(state), name, *content), self.env)

    def _settings(self) -> dict[str, str]:
        self.content.mkdir(exist_ok=True)
        return {
            "GOLDSMITH_STATE": str(self.state), "GOLDSMITH_CONTENT": json.dumps([str(self.content)]),
            "GOLDSMITH_FEEDS": json.dumps(dict.fromkeys(("debsecan", "tracker", "trivy", "kev", "epss"), "none")),
        }  # fmt: skip

    def _write_child(self) -> None:
        self.number += 1
        folder = self.content / "images/definitions/b-child"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "image.toml").write_text(CHANGED_TOML.replace("operators", f"operators{self.number}"))
        (folder / "motd").write_text(f"round {self.number}\n")

    def _write_mkosi(self) -> None:
        """Mkosi's configuration, with the sources that Goldsmith takes its packages from."""
        from hardening.foundation.settings import Settings
        from images.catalog import load_definitions
        from images.model import Bootstrap
        from images.packages.index import PackageIndex

        # mkosi wants the stub of the unified kernel inside of the image; ours is the host's.
        packages = (*load_definitions((ROOT,))["debian-server"].definition.packages, "systemd-boot-efi")
        self.source.mkdir()
        (self.source / "mkosi.conf").write_text(CONF.format(packages="\n".join(f"    {name}" for name in packages)))
        sources = self.source / "mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources"
        sources.parent.mkdir(parents=True)
        index = PackageIndex(Settings(state=self.state))
        sources.write_text(index.sources(Bootstrap(family="debian", suite="trixie")))
        self._write_extra()

    def _write_extra(self) -> None:
        self.number += 1
        extra = self.source / "mkosi.extra/etc/motd.d/50-benchmark"
        extra.parent.mkdir(parents=True, exist_ok=True)
        extra.write_text(f"round {self.number}\n")

    def _mkosi_command(self, incremental: str) -> tuple[str, ...]:
        cache = self.source.parent / "cache"
        cache.mkdir(exist_ok=True)
        # Trees of their own for both: --force without --incremental removes those that --incremental has cached.
        return (
            "mkosi", "--force", "--format=disk", "--output=disk", f"--incremental={incremental}",
            f"--package-cache-directory={cache}",
            f"--output-directory={self._made('output')}", f"--workspace-directory={self._made('room')}",
            f"--cache-directory={self._made(f'trees-{incremental}')}", "--sector-size=512", "build",
        )  # fmt: skip

    def _made(self, name: str) -> Path:
        folder = self.source.parent / f"mkosi-{name}"
        folder.mkdir(exist_ok=True)
        return folder

    def _path(self) -> dict[str, str]:
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


if __name__ == "__main__":
    end(main)
