"""Time the matcher over many images at once, one vulnerability over all of them, and trivy over the same ones.

Usage: python benchmarks/match.py DATA [IMAGES] [SAMPLE]. DATA is a directory with `debian-tracker.json.gz` (the form of
the Debian security tracker's JSON) and `trivy/`, a cache of trivy's with the same advisories.

Each of IMAGES (1,000) images holds 100 to 400 packages: of the sources that DATA has advisories about, each at a
version that fixed one of them or at one before all of them, and of sources without any. What is timed is the answer
that the matcher gives for all of them, from the index on disk on; then the same out of a ledger with as many artifacts,
which is what `image.affected` reads. trivy looks at SAMPLE (20) of them as trees with a dpkg status, one after another,
and its time over all is extrapolated from that: the ratio says so. What only one of the two finds is printed.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hardening.foundation.process import which
from hardening.foundation.settings import Settings
from images.advisories import Advisories, match
from images.artifact import Artifact, Package
from images.feeds import indexed
from images.ledger import Ledger

Result = TypeVar("Result")
NOW, SUITE, RUNS = datetime(2026, 8, 22, tzinfo=UTC), "trixie", 3
ALL, ONE, FASTER = 2.0, 0.1, 100
WITHOUT = tuple(f"quiet-{number}" for number in range(400))
"""Sources that no advisory is about."""
BEFORE_ALL = "0.1-1"


def images_of(tracker: dict[str, Any], count: int) -> list[tuple[Package, ...]]:
    """The packages of `count` images, the same for each seed."""
    chance = random.Random(12)
    versions = {
        source: sorted({one["releases"][SUITE]["fixed_version"] for one in found.values() if SUITE in one["releases"]})
        for source, found in tracker.items()
    }
    known = [source for source, fixed in versions.items() if fixed]
    made = []
    for _ in range(count):
        wanted = chance.sample([*known, *WITHOUT], min(chance.randint(100, 400), len(known) + len(WITHOUT)))
        made.append(
            tuple(
                Package(name, chance.choice([BEFORE_ALL, *versions.get(name, ())]), "amd64", "", name)
                for name in wanted
            )
        )
    return made


def timed(what: str, act: Callable[[], Result]) -> tuple[float, Result]:
    """Print the median of some runs, by the clock and of the processor; that by the clock, and the last answer."""
    took, busy = [], []
    for _ in range(RUNS):
        began, cpu = time.perf_counter(), time.process_time()
        result = act()
        took.append(time.perf_counter() - began)
        busy.append(time.process_time() - cpu)
    print(f"{what}: {statistics.median(took):.3f} s ({statistics.median(busy):.3f} s of the processor)")
    return statistics.median(took), result


def by_trivy(
    images: list[tuple[Package, ...]], cache: Path, work: Path
) -> Iterator[tuple[float, set[tuple[str, str]]]]:
    """What trivy says of each image, one after another: the seconds, and the pairs of a package and a vulnerability."""
    for number, packages in enumerate(images):
        tree = work / f"tree-{number}"
        (tree / "etc").mkdir(parents=True)
        (tree / "var/lib/dpkg").mkdir(parents=True)
        (tree / "etc/os-release").write_text('ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n')
        (tree / "etc/debian_version").write_text("13.0\n")
        entries = (
            f"Package: {one.name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {one.version}\n"
            for one in packages
        )
        (tree / "var/lib/dpkg/status").write_text("\n".join(entries))
        argv = [
            str(which("trivy")), "rootfs", str(tree), "--scanners=vuln", f"--cache-dir={cache}", "--skip-db-update",
            "--skip-java-db-update", "--offline-scan", "--quiet", "--format=json", "--skip-version-check",
        ]  # fmt: skip
        began = time.perf_counter()
        said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        took = time.perf_counter() - began
        found = [item for result in json.loads(said).get("Results", ()) for item in result.get("Vulnerabilities", ())]
        yield took, {(item["PkgName"], item["VulnerabilityID"]) for item in found}


def main(data: Path, count: int = 1000, sample: int = 20) -> int:
    """Measure, print a line for each, and say by the exit code whether the claims hold; 4: something is missing."""
    if not (data / "debian-tracker.json.gz").is_file() or which("trivy") is None:
        print("needs trivy, and a directory with debian-tracker.json.gz and trivy/", file=sys.stderr)
        return 4
    tracker = json.loads(gzip.decompress((data / "debian-tracker.json.gz").read_bytes()))
    images = images_of(tracker, count)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        settings = Settings(state=work / "state", feeds={"tracker": str(data / "debian-tracker.json.gz")})  # type: ignore[arg-type]
        began = time.perf_counter()
        feed = indexed.tracker(settings, SUITE, NOW)
        print(f"load average {os.getloadavg()[0]:.1f}; {sum(map(len, images)):,} packages in {count:,} images")
        print(f"the index, once for each new data: {time.perf_counter() - began:.2f} s")

        def all_of_them() -> list[dict[Package, Any]]:
            advisories = indexed.advisories(feed, SUITE)
            return [match(packages, advisories) for packages in images]

        ours, found = timed("all advisories over all images", all_of_them)
        pairs = sum(len(said) for one in found for said in one.values())
        print(f"which are {pairs:,} pairs of a package and a vulnerability")
        single, _ = timed("one vulnerability over all images", lambda: one_of_them(feed, images))
        in_ledger(work, feed, images)
        cache = work / "trivy"
        shutil.copytree(data / "trivy", cache)
        took, same, differ = [], 0, set[str]()
        for number, (seconds, said) in enumerate(by_trivy(images[:sample], cache, work)):
            mine = {(package.name, one.id) for package, every in found[number].items() for one in every}
            took.append(seconds)
            same += len(said & mine)
            differ |= {
                f"{pair[1]} in {pair[0]} by {'trivy' if pair in said else 'the matcher'}" for pair in said ^ mine
            }
        mean = statistics.mean(took)
        print(f"trivy over {sample} of them, one after another: {mean:.2f} s each, {same:,} pairs that both find")
        print(f"what only one of them finds: {'; '.join(sorted(differ)) or 'nothing'}")
        ratio = mean * count / ours
        print(f"trivy over all, extrapolated: {mean * count:.0f} s; the matcher is {ratio:,.0f} times faster")
    claims = {"all under 2 s": ours < ALL, "one under 0.1 s": single < ONE, "100 times faster": ratio >= FASTER}
    print("; ".join(f"{claim}: {'holds' if held else 'does not hold'}" for claim, held in claims.items()))
    return int(not all(claims.values()))


def one_of_them(feed: Any, images: list[tuple[Package, ...]]) -> int:
    """How many images have one vulnerability, from the index on."""
    asked = Advisories(indexed.advisories_over(feed, "CVE-2025-15467", SUITE) or ())
    return sum(1 for packages in images if match(packages, asked))


def in_ledger(work: Path, feed: Any, images: list[tuple[Package, ...]]) -> None:
    """The same from a ledger: every image as an artifact of it."""
    ledger = Ledger.open(f"sqlite:///{work}/ledger.sqlite")
    inputs = {"definition": {"base": {"bootstrap": {"suite": SUITE}}}, "parent": ""}
    for number, packages in enumerate(images):
        digest = f"sha256:{number:064x}"
        ledger.record_artifact(Artifact(f"image-{number}", "linux/amd64", digest, digest, inputs, packages, NOW, NOW))

    def all_of_them() -> int:
        advisories = indexed.advisories(feed, SUITE)
        return sum(1 for one in ledger.package_lists().values() if match(one.packages, advisories))

    def one() -> int:
        found = indexed.advisories_over(feed, "CVE-2025-15467", SUITE) or ()
        lists = ledger.package_lists({said.source for said in found})
        return sum(1 for held in lists.values() if match(held.packages, Advisories(found)))

    timed(f"all advisories over the packages of {len(images):,} artifacts of a ledger", all_of_them)
    timed("one vulnerability over them", one)
    ledger.close()


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:2]), *map(int, sys.argv[2:])))
