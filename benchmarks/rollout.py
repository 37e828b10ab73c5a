"""Sixty containers rolled ten at a time, beside the least that their waves can take: being healthy, and settling.

Counted are the calls of the engine's API for each member; and how long a look at sixty members takes that all hang.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from measure import ROOT, Report

sys.path[:0] = [str(ROOT / "tests")]
MEMBERS, AT_ONCE = 60, 10
HANGS = "#!/bin/sh\nmkdir -p /tmp/www\nbusybox httpd -f -p 8080 -h /tmp/www &\nsleep 1\nkill -STOP $!\nexec sleep 600\n"
PROBE_SECONDS = 2  # Health.timeout's default: one after the other, the members that hang take so long each
LABELS = {"goldsmith-test": "1", "app": "bench-rollout"}


def main() -> int:
    """Measure, print, and say by the exit code whether the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--healthy", type=int, default=30, help="min_healthy_time, in seconds (default: the default)")
    healthy = parser.parse_args().healthy
    from hardening.foundation.settings import load_settings
    from pipelines.host.provision import docker_host
    from tests.support.engines import busybox_image, engine

    host = docker_host(load_settings(), for_builds=False)
    with engine(host) as api:
        images = {name: busybox_image(api, f"bench-rollout:{name}", name) for name in ("one", "two")}
        busybox_image(api, "bench-rollout:hangs", "hangs", files={"web": HANGS})
        start_members(api, "one")
        took, ideal, calls = rolled(host, images["two"], healthy)
    with engine(host) as api:
        busybox_image(api, "bench-rollout:hangs", "hangs", files={"web": HANGS})
        start_members(api, "hangs")
        time.sleep(2)
        looked = seconds_of_a_look(host)
    report = Report({})
    print(f"{MEMBERS} containers, {AT_ONCE} at a time: {took:.1f} s; their waves alone: {ideal:.1f} s; {calls} calls")
    print(f"a look at {MEMBERS} that hang: {looked:.1f} s")
    print(f"load {os.getloadavg()[0]:.1f}, min_healthy_time {healthy} s")
    report.claim("rollout / ideal", took / ideal, 1.2)
    report.claim("calls a member", calls / MEMBERS, 25)
    report.claim("hung members: seconds / one after the other", looked / (MEMBERS * PROBE_SECONDS), 0.2)
    return int(report.failed)


def start_members(api: Any, image: str) -> None:
    """All members of the fleet."""
    for number in range(MEMBERS):
        made = api.create_container(f"bench-rollout:{image}", name=f"bench-{number:02}", labels=LABELS)
        api.start(made["Id"])


def seconds_of_a_look(host: str) -> float:
    """How long it takes to describe members of which none answers."""
    from pipelines.fleet.docker.members import DockerFleet

    with DockerFleet(fleet_of({}), host) as members:
        start = time.monotonic()
        if [one.name for one in members.describe() if one.healthy]:
            sys.exit("some of the members that hang answered")
        return time.monotonic() - start


def fleet_of(limits: dict[str, Any]) -> Any:
    """The fleet of these containers."""
    from pipelines.fleet.model import Fleet

    return Fleet.model_validate(
        {
            "name": "bench", "title": "b", "owner": "b", "kind": "docker", "selector": {"app": LABELS["app"]},
            "replacement": {"definition": "bench"}, "health": {"kind": "http", "port": 8080}, "limits": limits,
        }
    )  # fmt: skip


def counted(members: Any) -> list[int]:
    """The number of requests that the client sends from now on."""
    count, send = [0], members.api.send

    def sent(*words: Any, **more: Any) -> Any:
        count[0] += 1
        return send(*words, **more)

    members.api.send = sent
    return count


def rolled(host: str, image: str, healthy: int) -> tuple[float, float, int]:
    """The seconds that a rollout of all members takes, the least that its waves ask for, and the calls it makes."""
    from images.documents import from_json, to_json
    from pipelines.fleet.docker.members import DockerFleet
    from pipelines.fleet.members import ReplacementImage
    from pipelines.rollout.flow import ROLLOUT
    from pipelines.rollout.plan import plan
    from pipelines.rollout.state import Order, Phase, RolloutOutcome
    from tests.support.fleets import judged, release
    from tests.support.rolling import carried

    limits: dict[str, Any] = {
        "max_parallel": AT_ONCE, "max_surge": AT_ONCE, "canary": 0, "budgets": [{"nodes": "100%"}],
        "min_healthy_time": f"{healthy}s", "drain": "1s",
    }  # fmt: skip
    fleet = fleet_of(limits)
    now = datetime.now(UTC)
    golden = release(9, published_at=now, expires_at=now + timedelta(days=60))
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder, DockerFleet(fleet, host) as members:
        calls = counted(members)
        found = [replace(judged(one.name, "expired"), member=one) for one in members.describe()]
        made = plan(fleet, found, ReplacementImage("bench-rollout:two", image, golden), now)
        ideal = len(made.waves) * (fleet.limits.min_healthy_time + fleet.limits.settle).total_seconds()
        start = time.monotonic()
        with carried(members, Path(folder)) as worker:
            done = from_json(
                RolloutOutcome, worker.execute(ROLLOUT, "bench", to_json(Order("bench", made, fleet.limits)))
            )
        took = time.monotonic() - start
    if {member.phase for member in done.members} != {Phase.NEW}:
        sys.exit(f"not all were replaced: {done.state.note} {done.state.failure}")
    return took, ideal, calls[0]


if __name__ == "__main__":
    sys.exit(main())
