"""What signing a release and attaching its evidence takes, beside cosign; and verifying it before a rollout."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from measure import ROOT, Reading, Report, alternate, end, require, rounds

if TYPE_CHECKING:
    from images.artifact import Artifact, Release
    from images.registry.release_store import RegistryStore

PACKAGES, MEMBERS = 400, 1000
PASSWORD = {"COSIGN_PASSWORD": ""}
assert ROOT  # importing `measure` put our packages on the path


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    from images.artifact import Package
    from images.release.publish import release
    from tests.support.publishing import built, definition, judged, publisher, running_registry

    times = rounds(5, __doc__ or "")
    require("docker-registry", "skopeo", "cosign")
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as name:
        folder = Path(name)
        with running_registry(folder / "registry") as address:
            to = publisher(address, folder / "state")
            packages = tuple(Package(f"p{n}", "1.0-1", "amd64", f"{n:064x}", f"s{n}") for n in range(PACKAGES))
            artifact = replace(built(to.store), packages=packages)
            subject = Signed(to, artifact, release(to, artifact, definition(), judged()).release, folder)
            report = Report(alternate({"Goldsmith": subject.by_us, "cosign": subject.by_cosign}, times))
            report.table()
            report.claim("seconds to sign and attach all evidence", report.seconds("Goldsmith"), 2.0)
            report.claim("times cosign attest", report.ratio("Goldsmith", "cosign"), 1.0)
            subject.by_us()
            first, again = subject.verified()
            print(f"verified before a rollout: {first:.2f} s, and before each member after that {1000 * again:.2f} ms")
            report.claim("seconds a member after the first", again, 0.05)
            to.ledger.close()
    return int(report.failed)


@dataclass(frozen=True)
class Signed:
    """A release in a registry, whose evidence is attached again and again."""

    to: RegistryStore
    artifact: Artifact
    made: Release
    folder: Path

    def by_us(self) -> Reading:
        """All evidence of the release, from our values to the registry."""
        from images.registry.attestations import signed_document
        from images.registry.referrers import attach
        from images.trust.keys import signer

        def act() -> None:
            key = signer(self.to.settings, self.made.published_at.date())
            attach(self.to.registry, self.made.repository, subject, [signed_document(one, key) for one in self._said()])

        subject = self._bare()
        return _timed(act)

    def by_cosign(self) -> Reading:
        """The same predicates, one after another: side by side it loses some."""
        from hardening.foundation.process import run

        self._bare()
        key = self.folder / "peer.key"
        if not key.exists():
            run(["cosign", "generate-key-pair", "--output-key-prefix", str(self.folder / "peer")], env=PASSWORD)
        options = ["--yes", "--tlog-upload=false", "--allow-insecure-registry", "--allow-http-registry"]

        def act() -> None:
            for number, payload in enumerate(self._said()):
                said, file = json.loads(payload), self.folder / f"{number}.json"
                file.write_text(json.dumps(said["predicate"]))
                what = ["--predicate", str(file), "--type", said["predicateType"]]
                image = f"{self.made.repository}@{self.made.digest}"
                run(["cosign", "attest", "--key", str(key), *what, *options, image], env=PASSWORD)

        return _timed(act)

    def verified(self) -> tuple[float, float]:
        """Seconds until the release is proved, and for each member that is replaced by it after that."""
        from images.context import Context
        from pipelines.fleet.docker.provenance import ProvenanceReader
        from pipelines.fleet.members import ReplacementImage
        from tests.support.fleets import fleet

        context = Context(self.to.settings, self.to.now, lambda: "", lambda: self.to.registry.address)
        reader = ProvenanceReader(fleet(), context, (), self.to.now, self.to.registry)
        target = ReplacementImage(f"{self.made.repository}@{self.made.digest}", self.made.digest, self.made)
        first = _timed(lambda: reader.again(target)).wall
        return first, _timed(lambda: [reader.again(target) for _ in range(MEMBERS)]).wall / MEMBERS

    def _said(self) -> list[bytes]:
        from images.release.publish import release_documents
        from tests.support.publishing import judged

        return [one.data for one in release_documents(self.made, self.artifact, judged(), None) if one.data]

    def _bare(self) -> object:
        """The release without anything attached; how to refer to it."""
        from images.registry.referrers import detach_all

        detach_all(self.to.registry, self.made.repository, self.made.digest)
        return self.to.registry.get(f"{self.made.repository}@{self.made.digest}").descriptor


def _timed(act: Callable[[], object]) -> Reading:
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return Reading(time.perf_counter() - wall, time.process_time() - cpu)


if __name__ == "__main__":
    end(main)
