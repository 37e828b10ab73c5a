"""All default scanners over one image side by side, and each of them, and the SBOM, alone.

By the settings of GOLDSMITH_FEEDS, where it is set; without a database trivy judges no vulnerability, and says so.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measure import INV, Reading, Report, alternate, end, require, rounds, settings_for, timed

from hardening.findings import Outcome
from images import feeds
from images.scan import SCANNERS, flow
from images.scan.base import ScanTarget
from images.scan.flow import scan, suite_of
from images.scan.judge import latest, unpacked
from pipelines.wiring import image_context

IMAGE, TOGETHER, SBOM = "debian-base", "all side by side", "sbom"
MOST = 1.3


def main() -> int:
    """Measure, print, and say by the exit code whether the claim holds."""
    times = rounds(5, __doc__ or "")
    require("trivy", "syft", "debsecan", "hadolint", root=True)
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder:
        given = {"GOLDSMITH_FEEDS": os.environ["GOLDSMITH_FEEDS"]} if "GOLDSMITH_FEEDS" in os.environ else {}
        env = settings_for(Path(folder), **given)
        timed((*INV, "image.build", IMAGE), env)
        os.environ.update(env)
        context = image_context()
        artifact = latest(context, IMAGE)
        with unpacked(context, artifact.digest) as (work, tree):
            layout = context.store.layout_for(artifact.digest, work / "layout")
            target = ScanTarget(IMAGE, layout, tree, packages=artifact.packages)
            report = Report(alternate(_runs(target, partial(scan, target, context.settings, now=context.now)), times))
    report.table()
    slowest = max((name for name in report.readings if name != TOGETHER), key=report.seconds)
    claim = f"{TOGETHER} / {slowest}, the slowest alone ({os.cpu_count()} cores)"
    report.claim(claim, report.ratio(TOGETHER, slowest), MOST)
    return int(report.failed)


def _runs(target: ScanTarget, everything: Callable[[], flow.ScanResult]) -> dict[str, Callable[[], Reading]]:
    """What is measured: all of a scan, and each part of it that has something to do in this image."""
    first = everything()
    idle = (Outcome.NOT_APPLICABLE, Outcome.NOT_EVALUATED, Outcome.ERROR)
    for one in first.reports:
        if one.outcome in idle:
            print(f"left out: {one.scanner} ({one.reason or one.outcome})")
    busy = [one.scanner for one in first.reports if one.outcome not in idle and one.scanner in SCANNERS]
    context = image_context()
    suite = suite_of(target.tree)
    data, missing = feeds.current(context.settings, suite, context.now)
    whole, image = flow._whole(target)

    def alone(name: str) -> None:
        with tempfile.TemporaryDirectory() as work:
            if name == SBOM:
                flow._sbom(whole, Path(work))
                return
            inputs = flow._inputs(whole, Path(work), suite, data, missing)
            flow._one(SCANNERS[name], whole, flow.replace(inputs, image=image))

    return {
        TOGETHER: partial(_read, everything),
        **{name: partial(_read, partial(alone, name)) for name in [SBOM, *busy]},
    }


def _read(act: Callable[[], object]) -> Reading:
    """How long `act` takes, with the CPU time of this process and its children."""

    def used() -> float:
        both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(one.ru_utime + one.ru_stime for one in both)

    before, start = used(), time.monotonic()
    act()
    return Reading(time.monotonic() - start, used() - before)


if __name__ == "__main__":
    end(main)
