"""Ten thousand members that expire in one second, under budgets and nightly windows, beside the least possible time.

Planned at once by a person, and night by night by automated runs, which leave who has time to its turn. Every beginning
is counted against the limits by another way than the planner's.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from measure import Reading, Report, alternate, rounds
from plan import release, target

from hardening.findings import Reason
from hardening.model import Enforcement
from pipelines.fleet.members import Member, Provenance
from pipelines.fleet.model import Fleet
from pipelines.fleet.violations import Judged
from pipelines.rollout.cost import step_cost
from pipelines.rollout.plan import plan
from pipelines.rollout.plan_model import Plan
from pipelines.rollout.schedule import allowed, may_act
from pipelines.rollout.waves import Step

MEMBERS = 10_000
EXPIRED = datetime(2027, 1, 4, 12, tzinfo=UTC)
NIGHT = {"start": "22:00", "end": "05:00", "zone": "Europe/Berlin"}
MET, MISSED, AUTOMATED = "plan, all deadlines met", "plan, and why deadlines are missed", "plan of an automated run"
MINUTE = timedelta(minutes=1)


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    times = rounds(3, __doc__ or "")
    fleet, grace = fleet_of(), timedelta(days=3)
    members, late = due(grace), due(timedelta(days=1))
    report = Report(
        alternate(
            {
                MET: partial(measured, fleet, members),
                MISSED: partial(measured, fleet, late),
                AUTOMATED: partial(measured, fleet, members, automated=True),
            },
            times,
        )
    )
    report.table()
    made = plan(fleet, members, target(), EXPIRED)
    missed = plan(fleet, late, target(), EXPIRED)
    ideal, nights = ideal_end(fleet), night_by_night(fleet, members)
    ends = f"the plan {end(made.steps):%a %H:%M}, runs of each night {end(nights):%a %H:%M}"
    print(f"the last is replaced: ideally {ideal:%a %H:%M}, by {ends}; deadline {EXPIRED + grace:%a %H:%M} UTC")
    print(
        f"with a day of grace {len(missed.late):,} are late, because of {missed.late[0].cause if missed.late else '-'}"
    )
    took, least = (open_minutes(fleet, moment) for moment in (end(made.steps), ideal))
    report.claim("open time of the plan / ideal", took / least, 1.2)
    for name, steps in (("plan", made.steps), ("nights", nights)):
        report.claim(f"{name}: members after their deadline", sum(not step.in_time for step in steps), 0)
        report.claim(f"{name}: members that are missing", MEMBERS - len({step.member.id for step in steps}), 0)
        report.claim(f"{name}: busiest minute / budget", busiest(fleet, steps), 1)
    for name in (MET, MISSED, AUTOMATED):
        report.claim(f"seconds of CPU, {name}", report.cpu_seconds(name), 2.0)
    return int(report.failed)


def fleet_of() -> Fleet:
    """A fleet with nightly windows, and with a budget that is tighter from two o'clock on."""
    budgets = [{"nodes": "1%"}, {"nodes": 60, "schedule": "0 2 * * *", "duration": "2h", "zone": "Europe/Berlin"}]
    paced = {"max_parallel": 200, "max_surge": 200, "canary": 10, "budgets": budgets, "windows": [NIGHT]}
    about = {"name": "bench", "title": "Of a benchmark", "owner": "benchmarks", "kind": "docker"}
    return Fleet.model_validate(
        {**about, "selector": {"app": "bench"}, "replacement": {"definition": "bench"},
         "limits": {**paced, "min_healthy_time": "6m", "healthy_deadline": "15m"}}
    )  # fmt: skip


def due(grace: timedelta) -> list[Judged]:
    """All members, which have expired in the same second."""
    deadline, found = EXPIRED + grace, list[Judged]()
    for number in range(MEMBERS):
        name = f"web-{number:05}"
        why = Reason(
            "expired", f"bench/{name}", Enforcement.ENFORCE, "expired", "", "", since=EXPIRED, deadline=deadline
        )
        ours = Member(f"host/local/docker/{name}", name, f"id-{name}", "r.example/bench:1", (release(1).digest,))
        found.append(Judged(ours, Provenance(release=release(1)), (why,)))
    return found


def measured(fleet: Fleet, members: Sequence[Judged], *, automated: bool = False) -> Reading:
    """One plan, timed."""
    began, cpu = time.perf_counter(), time.process_time()
    plan(fleet, members, target(), EXPIRED, automated=automated)
    return Reading(time.perf_counter() - began, time.process_time() - cpu)


def ideal_end(fleet: Fleet) -> datetime:
    """When the last would be replaced if at each moment that the limits allow as many were replaced as they allow."""
    seconds, done, at = step_cost(fleet)[1].total_seconds(), 0.0, EXPIRED
    while done < MEMBERS:
        at += MINUTE
        if may_act(fleet.limits, at) is None:
            done += min(allowed(fleet.limits, MEMBERS, ["expired"], at), fleet.limits.max_parallel) * 60 / seconds
    return at


def open_minutes(fleet: Fleet, until: datetime) -> int:
    """How many minutes since all have expired the fleet's windows are open."""
    minutes = int((until - EXPIRED) / MINUTE)
    return sum(may_act(fleet.limits, EXPIRED + number * MINUTE) is None for number in range(minutes))


def night_by_night(fleet: Fleet, members: Sequence[Judged]) -> list[Step]:
    """What automated runs do that begin at three each night, or when the run before has ended."""
    left, now, done = list(members), EXPIRED.replace(hour=3) + timedelta(days=1), list[Step]()
    while left:
        made: Plan = plan(fleet, members if not done else _replaced(members, done), target(), now, automated=True)
        done += made.steps
        gone = {step.member.id for step in done}
        left = [one for one in left if one.member.id not in gone]
        now += timedelta(days=1)
        if made.ends_at and made.ends_at > now:
            now = made.ends_at
    return done


def _replaced(members: Sequence[Judged], done: Sequence[Step]) -> list[Judged]:
    """The members, of which those that are done violate nothing any more."""
    gone = {step.member.id for step in done}
    return [replace(one, reasons=()) if one.member.id in gone else one for one in members]


def end(steps: Sequence[Step]) -> datetime:
    """When the last is replaced."""
    return max(step.ends_at for step in steps if step.ends_at)


def busiest(fleet: Fleet, steps: Sequence[Step]) -> float:
    """The largest part of its budget that any moment uses at which somebody begins; above 1 where that is forbidden."""
    spans = [(step.ends_at - timedelta(seconds=step.seconds), step.ends_at) for step in steps if step.ends_at]
    begins, ends = sorted(span[0] for span in spans), sorted(span[1] for span in spans)
    worst = 0.0
    for moment in sorted(set(begins)):
        if may_act(fleet.limits, moment):
            return 2.0
        active = bisect_right(begins, moment) - bisect_right(ends, moment)
        worst = max(worst, active / allowed(fleet.limits, MEMBERS, ["expired"], moment))
    return worst


if __name__ == "__main__":
    sys.exit(main())
