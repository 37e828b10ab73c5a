"""A base image from nothing, beside bare mmdebstrap and debootstrap of the same packages."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

from measure import INV, Reading, Report, alternate, end, require, rounds, settings_for, timed

COLD, CACHED = "goldsmith, empty caches", "goldsmith, packages cached"
MMDEBSTRAP, DEBOOTSTRAP = "mmdebstrap, to a directory", "debootstrap, to a directory"
BUILD = (*INV, "image.build", "debian-base", "--no-cache")


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    times = rounds(3, __doc__ or "")
    require("mmdebstrap", "debootstrap", root=True)
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder:
        bench = Bench(Path(folder))
        found = alternate(
            {COLD: bench.cold, MMDEBSTRAP: bench.mmdebstrap, CACHED: bench.cached, DEBOOTSTRAP: bench.debootstrap},
            times,
        )
        print(f"\nthe same {len(bench.packages())} packages in all of them")
    report = Report(found)
    report.table()
    print(f"CPU time: {report.cpu_ratio(COLD, MMDEBSTRAP):.2f} of mmdebstrap's, cached "
          f"{report.cpu_ratio(CACHED, MMDEBSTRAP):.2f}")  # fmt: skip
    report.claim("empty caches / mmdebstrap", report.ratio(COLD, MMDEBSTRAP), 1.3)
    report.claim("empty caches / debootstrap", report.ratio(COLD, DEBOOTSTRAP), 1 / 1.5)
    report.claim("packages cached / mmdebstrap", report.ratio(CACHED, MMDEBSTRAP), 1.0)
    return int(report.failed)


class Bench:
    """The four commands, each on fresh directories whose removal is not measured."""

    def __init__(self, folder: Path) -> None:
        from hardening.foundation.settings import load_settings
        from images.model import Bootstrap
        from images.packages.aptroot import sources_of

        self.state, self.tree = folder / "state", folder / "tree"
        self.env = settings_for(self.state)
        sources = sources_of(load_settings(), Bootstrap(family="debian", suite="trixie"))
        self.mirror = re.findall(r"(?m)^URIs: (\S+)", sources)[0]

    def cold(self) -> Reading:
        """Goldsmith with nothing but the checkout: index, downloads, build, verify, image."""
        shutil.rmtree(self.state, ignore_errors=True)
        return timed(BUILD, self.env)

    def cached(self) -> Reading:
        """Goldsmith again on the same state, building all the same."""
        return timed(BUILD, self.env)

    def mmdebstrap(self) -> Reading:
        """The peer, from the network, to a directory: the least it can be asked for."""
        command = ("mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", "trixie", str(self.tree))
        return self._peer(command)

    def debootstrap(self) -> Reading:
        """The other peer, from the same mirror."""
        command = ("debootstrap", "--variant=minbase", "--include=ca-certificates", "trixie", str(self.tree))
        return self._peer((*command, self.mirror))

    def packages(self) -> set[str]:
        """The names of what Goldsmith's image holds."""
        from images.ledger import Ledger

        artifact = Ledger.open(f"sqlite:///{self.state / 'ledger.sqlite'}").latest_artifact(
            "debian-base", "linux/amd64"
        )
        return {package.name for package in artifact.packages} if artifact else set()

    def _peer(self, command: tuple[str, ...]) -> Reading:
        from images.build.build_steps import installed_in

        reading = timed(command)
        names = {package.name for package in installed_in(self.tree)}
        shutil.rmtree(self.tree)
        if names != self.packages():
            sys.exit(f"{command[0]} installed other packages: {sorted(names ^ self.packages())}")
        return reading


if __name__ == "__main__":
    end(main)
