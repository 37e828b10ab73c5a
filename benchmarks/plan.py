"""Planning a rollout of 10,000 members, against the least that any planner does: sort the members and cut the list."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from measure import Reading, Report, alternate, rounds

from hardening.catalog import load_policy
from hardening.findings import Reason
from hardening.foundation.settings import load_settings
from hardening.model import Enforcement
from images.artifact import Release
from pipelines.cli.rollout_output import roll_output
from pipelines.fleet.members import Member, Provenance, ReplacementImage
from pipelines.fleet.model import Fleet
from pipelines.fleet.violations import FleetJudge, Judged
from pipelines.rollout.approved_plan import Present, opened, seal, written
from pipelines.rollout.plan import plan
from pipelines.rollout.plan_model import Plan

MEMBERS = 10_000
WIDE = 10
NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
DOCKER, SPREAD, JUDGED = "plan, containers", "plan, machines, zones spread", "judge and plan, containers"
FILE, BARE = "seal and open the file", "sort and cut"


def main() -> int:
    """Measure, print, and say by the exit code whether the claim holds."""
    times = rounds(5, __doc__ or "")
    docker, spread = fleet("docker"), fleet("ec2", zones="spread", method="in_place", max_unavailable="1%")
    known = [judged(number) for number in range(MEMBERS)]
    acts: dict[str, Callable[[], object]] = {
        DOCKER: lambda: plan(docker, known, target(), NOW),
        SPREAD: lambda: plan(spread, known, target(), NOW),
        JUDGED: lambda: plan(docker, judged_anew(known), target(), NOW),
        FILE: partial(through_file, docker, known, plan(docker, known, target(), NOW)),
        BARE: lambda: cut(known),
    }
    report = Report(alternate({name: partial(measured, act) for name, act in acts.items()}, times))
    report.table()
    for name in (DOCKER, SPREAD, JUDGED):
        took = report.seconds(name)
        print(f"{name}: {took / MEMBERS * 1e6:.0f} µs a member, {report.cpu_ratio(name, BARE):.0f} times {BARE} (CPU)")
        report.claim(f"seconds, {name}, {MEMBERS:,} members", took, 1.0)
    return int(report.failed)


def measured(act: Callable[[], object]) -> Reading:
    """One call, timed."""
    began, cpu = time.perf_counter(), time.process_time()
    act()
    return Reading(time.perf_counter() - began, time.process_time() - cpu)


def judged_anew(known: list[Judged]) -> tuple[Judged, ...]:
    """All members by the default policy, as `roll.plan` judges them before it plans."""
    policy = load_policy(load_settings().roots, "default")
    judge = FleetJudge("bench", policy, (), NOW)
    return tuple(judge.judge(one.member, one.origin) for one in known)


def through_file(of: Fleet, known: list[Judged], made: Plan) -> None:
    """What `roll.plan --output --json` and `roll.start --plan` add."""
    roll_output(made)
    present = Present(of, [one.member for one in known], target(), NOW)
    opened(written(seal(made, present, "benchmark")), "plan.json")


def cut(known: list[Judged]) -> list[list[Judged]]:
    """Batches in the order of the ids: no limit is looked at."""
    ordered = sorted(known, key=lambda one: one.member.id)
    return [ordered[at : at + WIDE] for at in range(0, len(ordered), WIDE)]


def fleet(kind: str, **limits: object) -> Fleet:
    """A fleet whose limits all have something to decide."""
    budgets = [
        {"nodes": "10%"},
        {"nodes": 5, "reasons": ["superseded"]},
        {"nodes": 0, "schedule": "0 9 * * mon-fri", "duration": "1h", "zone": "Europe/Berlin"},
    ]
    paced = {"max_parallel": WIDE, "max_surge": WIDE, "canary": 3, "budgets": budgets, **limits}
    about = {"name": "bench", "title": "Of a benchmark", "owner": "benchmarks", "kind": kind}
    content = {"selector": {"app": "bench"}, "replacement": {"definition": "bench"}, "limits": paced}
    return Fleet.model_validate(about | content)


def release(number: int) -> Release:
    """Release `number` of the image that all members run."""
    at = NOW - timedelta(days=40 - number)
    digest = f"sha256:{number:064x}"
    return Release(
        "bench",
        "r.example/bench",
        digest,
        digest,
        "",
        "p",
        "default",
        at,
        at + timedelta(days=50),
        at + timedelta(days=60),
    )


def target() -> ReplacementImage:
    """What all become."""
    golden = release(30)
    return ReplacementImage(f"{golden.repository}@{golden.digest}", golden.digest, golden)


def judged(number: int) -> Judged:
    """A member with one reason or two, in one of three zones; one of fifty is ill."""
    name = f"web-{number * 7919 % MEMBERS:05}"
    ours = Member(
        f"111122223333/eu-central-1/any/{name}", name, f"id-{name}", "r.example/bench:stable", (release(1).digest,),
        since=NOW, healthy=bool(number % 50), zone="abc"[number % 3],
    )  # fmt: skip
    rules = ("superseded",) if number % 4 else ("expired", "superseded")
    return Judged(ours, Provenance(release=release(1), latest=release(30)), tuple(reason(rule, name) for rule in rules))


def reason(rule: str, name: str) -> Reason:
    """Why a member is replaced."""
    began = NOW - timedelta(days=1)
    return Reason(rule, f"bench/{name}", Enforcement.ENFORCE, f"it is {rule}", "why", "todo", since=began, deadline=NOW)


if __name__ == "__main__":
    sys.exit(main())
