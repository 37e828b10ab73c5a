"""A night in which nothing changed: 200 published definitions, with its peak of memory; and 1,000 planned. Then nights
in which one of the 200 has one package more: what they take beyond the build of that one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from measure import INV, ROOT, Report, end, rounds, settings_for, timed, write_definition

NIGHT, PLAN, KEPT = 200, 1000, 'golden = "debian-base"'
LIFE = '\n[lifecycle]\nsoak = "0s"\n'
NIGHTLY = (
    *(sys.executable, str(ROOT / "tasks.py"), "nightly"),  # as ./goldsmith starts it
    *("--policy", "demo", "--only", "bench-*", "--json"),
)


@dataclass(frozen=True)
class NightReading:
    """One night: seconds without those of the index and of what it worked on, which are told apart; and the most memory
    that the process had, in MB. `worked` names the images that it worked on.
    """

    seconds: float
    peak_mb: float
    index_seconds: float
    work_seconds: float
    worked: tuple[str, ...]


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    times, report = rounds(5, __doc__ or ""), Report()
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder:
        state, few, many = (Path(folder, name) for name in ("state", "few", "many"))
        for content, number in ((few, NIGHT), (many, PLAN)):
            _definitions(content, number)
        env = _trial(state, few)
        timed((*INV, "image.build", "debian-base"), env)
        timed((*INV, "image.scan", "debian-base", "--policy", "demo", "--json"), env)
        _copies(env)
        first = _night(env)
        nights = [_night(env) for _ in range(times)]
        changed = [_changed(env, few, number) for number in range(times)]
        planned = [timed((*NIGHTLY, "--dry-run"), _trial(state, many)).wall for _ in range(times)]
    for number, night in enumerate(nights, 1):
        print(
            f"night {number}: {night.seconds:.2f} s, {night.peak_mb:.0f} MB; the index {night.index_seconds:.1f} s more"
        )
    for night in changed:
        print(f"one changed: {night.work_seconds:.1f} s for it, {night.seconds:.2f} s beyond it")
    print(f"the night that published {NIGHT}: {first.seconds + first.work_seconds:.0f} s")
    report.claim(f"seconds, nightly of {NIGHT} unchanged definitions", median(one.seconds for one in nights), 5.0)
    report.claim(f"seconds beyond the build of one of {NIGHT}", median(one.seconds for one in changed), 5.0)
    report.claim("MB at most, the same", max(one.peak_mb for one in nights), 300)
    report.claim(f"seconds, nightly --dry-run that plans {PLAN:,}", median(planned), 3.0)
    return int(report.failed)


def _definitions(content: Path, number: int) -> None:
    """So many definitions on debian-base, which a night promotes at once."""
    for one in range(number):
        write_definition(content, f"bench-{one:04}", "tzdata", KEPT + LIFE)
        file = content / f"images/definitions/bench-{one:04}/image.toml"
        file.write_text(file.read_text().replace('packages = ["ca-certificates", "tzdata"]\n', ""))


def _trial(state: Path, content: Path) -> dict[str, str]:
    """Settings by which the sample that ships may judge."""
    judging = {"policies": ["default", "machine", "demo"], "floor": "", "roots": [str(content)]}
    return settings_for(state, content) | {"GOLDSMITH_JUDGING": json.dumps(judging), "GOLDSMITH_KINDS": '["container"]'}


def _night(env: dict[str, str]) -> NightReading:
    """A night in a process of its own. Ends the benchmark where it fails."""
    os.sync()
    with tempfile.TemporaryFile() as out:
        start = time.monotonic()
        child = subprocess.Popen(NIGHTLY, env={**os.environ, **env}, cwd=ROOT, stdout=out, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said = out.read()
    if child.returncode:
        sys.exit(f"nightly ended with status {child.returncode}: {said.decode(errors='replace')[-2000:]}")
    lines = json.loads(said)["lines"]
    index = sum(line["seconds"] for line in lines if line["kind"] == "index")
    worked = [line for line in lines if line["kind"] == "image" and line["status"] != "unchanged"]
    work = sum(line["seconds"] for line in worked)
    names = tuple(line["name"] for line in worked)
    return NightReading(wall - index - work, used.ru_maxrss / 1024, index, work, names)


def _changed(env: dict[str, str], content: Path, number: int) -> NightReading:
    """A night after one definition got a package more. Ends the benchmark where it worked on anything else."""
    name = f"bench-{number:04}"
    file = content / f"images/definitions/{name}/image.toml"
    file.write_text(f'packages = ["bzip2"]\n{file.read_text()}')
    night = _night(env)
    if night.worked != (name,):
        sys.exit(f"{name} was changed, and the night worked on {night.worked}")
    return night


def _copies(env: dict[str, str]) -> None:
    """Let the ledger know of an artifact for each definition, verified and scanned: the base's own content, under a
    manifest of its own. Two hundred builds would take an hour, and a night does not see the difference.
    """
    os.environ.update(env)
    from images.plan.planner import Planner
    from images.scan.judge import scan_subject
    from images.store.oci import MANIFEST
    from pipelines.wiring import image_context

    context = image_context(policy="demo")
    base = context.ledger.latest_artifact("debian-base", context.settings.platform)
    scan = context.ledger.scan(base.digest) if base else None
    if base is None or scan is None:
        sys.exit("debian-base was not built and scanned")
    manifest, checks = context.store.read_json(base.digest), context.ledger.checks(base.digest)
    policy = context.policy_named("demo")
    for plan in Planner(context).plan_all([name for name in context.definitions if name.startswith("bench-")]):
        if plan.name == base.name:
            continue
        own = {**manifest, "annotations": {**manifest.get("annotations", {}), "dev.goldsmith.bench": plan.name}}
        digest = context.store.put_json(own, MANIFEST).digest
        artifact = replace(
            base, name=plan.name, digest=digest, input_digest=plan.input_digest, inputs=plan.inputs, dockerfile=""
        )
        context.ledger.record_artifact(artifact)
        context.ledger.record_checks(digest, checks, context.now, name=plan.name)
        subject, _ = scan_subject(context, artifact, policy, disk=False)
        own_scan = replace(scan, inputs=_entered(context, scan.suite, subject))
        context.ledger.record_scan(digest, own_scan, context.now, plan.name)


def _entered(context: object, suite: str, subject: str) -> dict[str, str]:
    """What a scan of that subject would be made from now."""
    from images import feeds
    from images.scan import chosen
    from images.scan.flow import inputs_of

    settings, now = context.settings, context.now  # type: ignore[attr-defined]
    data, missing = feeds.current(settings, suite, now)
    return inputs_of(subject, chosen(settings.scanners), data, missing)


if __name__ == "__main__":
    end(main)
