"""Judging 100,000 members by all rules for what runs, with 500 waivers; and a million, to show that it is linear.

One process with one thread and one judge for each number: the time is that of judging alone, the memory that of the
whole process with the members of a portion. Judging makes no garbage, so Python looks for none in it (`judge_all`). The
policy is the default one, with `privileged` enforced. One half of the members is as most containers are, root and
without limits, which breaks five rules that only record, now and in two earlier looks; the other half is hardened, and
a fifth of it privileged. Some of these are waived, of every part. Each member was started in a second of its own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from statistics import median

from measure import rounds

MEMBERS, MORE, WAIVERS, CURRENT = 100_000, 1_000_000, 500, 50
NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
MOST_SECONDS, MOST_MB, MOST_GROWTH = 1.0, 500.0, 1.2
ONE = "--judge"


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    times = rounds(3, __doc__ or "")
    found = {number: [apart(number) for _ in range(times)] for number in (MEMBERS, MORE)}
    print(f"\n{'members':>10}{'seconds':>10}{'CPU':>8}{'µs each':>9}{'MB':>7}{'violate':>9}{'waived':>8}   load "
          f"{os.getloadavg()[0]:.1f}")  # fmt: skip
    for number, lines in found.items():
        wall, cpu = (median(one[key] for one in lines) for key in ("wall", "cpu"))
        said = f"{cpu / number * 1e6:9.1f}{lines[0]['mb']:7.0f}{lines[0]['violate']:9,}{lines[0]['waived']:8,}"
        print(f"{number:10,}{wall:10.2f}{cpu:8.2f}{said}")
    few, many = (median(one["cpu"] / number for one in found[number]) for number in found)
    rules = found[MEMBERS][0]["rules"]
    claims = (
        (f"seconds of processor time, {MEMBERS:,} members by {rules:.0f} rules, {WAIVERS} waivers",
         median(one["cpu"] for one in found[MEMBERS]), MOST_SECONDS),
        ("MB of the process", median(one["mb"] for one in found[MEMBERS]), MOST_MB),
        (f"a member of {MORE:,} costs, as a multiple of one of {MEMBERS:,}", many / few, MOST_GROWTH),
    )  # fmt: skip
    for text, value, most in claims:
        print(f"{'holds' if value <= most else 'FAILS':6} {text}: {value:.2f}, at most {most:.2f}")
    return int(any(value > most for _, value, most in claims))


def apart(members: int) -> dict[str, float]:
    """One measurement in a process of its own."""
    done = subprocess.run([sys.executable, __file__, ONE, str(members)], check=True, capture_output=True, text=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def measured(members: int) -> dict[str, float]:
    """The members judged by one judge: they are made, and counted, in portions, which are held until they are done."""
    from hardening.runtime import CONTAINER_RULES, NAMES
    from pipelines.fleet.violations import FleetJudge

    policy, waivers = asked(), tuple(waiver(number, members // WAIVERS) for number in range(WAIVERS))
    of_images = [name for name in type(policy.running).model_fields if name not in NAMES]
    rules = len(CONTAINER_RULES) + sum(bool(getattr(policy.running, name)) for name in of_images)
    judge = FleetJudge("bench", policy, waivers, NOW, "r.example")
    images, wall, cpu = origins(), 0.0, 0.0
    violate = waived = 0
    for start in range(0, members, MEMBERS):
        fleet = list(fleet_of(start, images))
        began, spent = time.perf_counter(), time.process_time()
        judged = judge.judge_all(fleet)
        wall, cpu = wall + time.perf_counter() - began, cpu + time.process_time() - spent
        violate += sum(bool(one.standing) for one in judged)
        waived += sum(bool(reason.waived_by) for one in judged for reason in one.reasons)
    assert waived, "the waivers are about nobody"
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": wall, "cpu": cpu, "mb": megabytes, "violate": violate, "waived": waived, "rules": rules}


def asked() -> object:
    """The default policy with one of the rules that only record enforced."""
    from hardening.catalog import load_policy
    from hardening.foundation.settings import load_settings
    from hardening.policy import Policy, RunningRules

    default: Policy = load_policy(load_settings().roots, "default")
    given = default.running.model_dump(mode="json", by_alias=True, exclude_none=True)
    given["privileged"] = {"enforcement": "enforce"}
    return default.model_copy(update={"running": RunningRules.model_validate(given)})


def waiver(number: int, apart: int) -> object:
    """One of five is about a hundred members by a glob, the others about one; they are so many members apart."""
    from hardening.model import Waiver

    first = number * apart
    whom = f"bench/web-{first // 100:05}*" if number % 5 == 0 else f"bench/web-{first:07}"
    return Waiver.model_validate(
        {"id": f"w-{number}", "rules": ["privileged", "root-user", "superseded"], "subjects": [whom],
         "reason": "it ends", "owner": "a", "approver": "b", "created": date(2026, 12, 1), "expires": date(2027, 2, 1)}
    )  # fmt: skip


def origins() -> list[object]:
    """Fifty images that are current, and one that is superseded."""
    from images.artifact import Release
    from pipelines.fleet.members import Provenance

    def release(number: int, age: int) -> Release:
        at, digest = NOW - timedelta(days=age), f"sha256:{number:064x}"
        ends = at + timedelta(days=60)
        return Release("bench", "r.example/bench", digest, digest, "", "p", "default", at, ends, ends)

    newest = release(99, 1)
    return [
        Provenance(release=release(number, 2 + number % 20), latest=None if number < CURRENT else newest)
        for number in range(CURRENT + 1)
    ]


def fleet_of(start: int, images: list[object]) -> Iterator[tuple[object, object, object]]:
    """MEMBERS members from `start` on, each with settings of its own."""
    from hardening.runtime import ContainerFacts, Mount, Observed
    from pipelines.fleet.members import Member

    good = ContainerFacts(
        image="sha256:1", user="65532", image_user="65532", memory_bytes=1 << 26, cpus=0.5, pids=64,
        mounts=(Mount("volume", "data", "/data", writable=True),), networks=("web",), launched=NOW,
    )  # fmt: skip
    plain = replace(
        good, user="", image_user="", memory_bytes=0, pids=0, writable_root=True, no_new_privileges=False,
        daemon=("its log grows without limit (log-driver json-file without max-size)",),
    )  # fmt: skip
    for number in range(start, start + MEMBERS):
        name, own = f"web-{number:07}", NOW - timedelta(days=30) + timedelta(seconds=number)
        like = plain if number % 2 else good
        member = Member(
            f"host/local/docker/{name}", name, f"id-{name}", "r.example/bench:stable", ("sha256:1",), since=own
        )
        facts = replace(like, launched=own, privileged=number % 10 == 0)
        earlier = replace(facts, networks=("web", "old"))
        history = ((NOW - timedelta(days=9), facts), (NOW - timedelta(days=2), earlier)) if number % 2 else ()
        yield member, images[number % CURRENT if number % 100 else CURRENT], Observed("container", facts, history)


if __name__ == "__main__":
    if sys.argv[1:2] == [ONE]:
        print(json.dumps(measured(int(sys.argv[2]))))
        sys.exit(0)
    sys.exit(main())
