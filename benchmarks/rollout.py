"""Fifty containers rolled ten at a time, beside the least that their waves can take: being healthy, and settling."""

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
MEMBERS, AT_ONCE = 50, 10
LABELS = {"goldsmith-test": "1", "app": "bench-rollout"}


def main() -> int:
    """Measure, print, and say by the exit code whether the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--healthy", type=int, default=30, help="min_healthy_time, in seconds (default: the default)")
    healthy = parser.parse_args().healthy
    from hardening.foundation.settings import load_settings
    from pipelines.host.provision import docker_host
    from tests.engines import busybox_image, engine

    host = docker_host(load_settings(), for_builds=False)
    with engine(host) as api:
        images = {name: busybox_image(api, f"bench-rollout:{name}", name) for name in ("one", "two")}
        for number in range(MEMBERS):
            made = api.create_container("bench-rollout:one", name=f"bench-{number:02}", labels=LABELS)
            api.start(made["Id"])
        took, ideal = rolled(host, images["two"], healthy)
    report = Report({})
    print(f"{MEMBERS} containers, {AT_ONCE} at a time: {took:.1f} s; their waves alone: {ideal:.1f} s")
    print(f"load {os.getloadavg()[0]:.1f}, min_healthy_time {healthy} s")
    report.claim("rollout / ideal", took / ideal, 1.2)
    return int(report.failed)


def rolled(host: str, image: str, healthy: int) -> tuple[float, float]:
    """The seconds that a rollout of all members takes, and the least that its waves ask for."""
    from images.documents import from_json, to_json
    from pipelines.fleet.docker.containers import DockerFleet
    from pipelines.fleet.members import Target
    from pipelines.fleet.model import Fleet
    from pipelines.rollouts.orders import Order
    from pipelines.rollouts.plan import plan
    from pipelines.rollouts.run import ROLLOUT
    from pipelines.rollouts.state import Outcome, Phase
    from tests.fleets import judged, release
    from tests.rolling import carried

    limits: dict[str, Any] = {
        "max_parallel": AT_ONCE, "max_surge": AT_ONCE, "canary": 0, "budgets": [{"nodes": "100%"}],
        "min_healthy_time": f"{healthy}s", "drain": "1s",
    }  # fmt: skip
    fleet = Fleet.model_validate(
        {
            "name": "bench", "title": "b", "owner": "b", "kind": "docker", "selector": {"app": LABELS["app"]},
            "replacement": {"definition": "bench"}, "health": {"kind": "http", "port": 8080}, "limits": limits,
        }
    )  # fmt: skip
    now = datetime.now(UTC)
    golden = release(9, published_at=now, expires_at=now + timedelta(days=60))
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder, DockerFleet(fleet, host) as members:
        found = [replace(judged(one.name, "expired"), member=one) for one in members.describe()]
        made = plan(fleet, found, Target("bench-rollout:two", image, golden), now)
        ideal = len(made.waves) * (fleet.limits.min_healthy_time + fleet.limits.settle).total_seconds()
        start = time.monotonic()
        with carried(members, Path(folder)) as worker:
            done = from_json(Outcome, worker.carry(ROLLOUT, "bench", to_json(Order("bench", made, fleet.limits))))
        took = time.monotonic() - start
    if {member.phase for member in done.members} != {Phase.NEW}:
        sys.exit(f"not all were replaced: {done.state.note} {done.state.failure}")
    return took, ideal


if __name__ == "__main__":
    sys.exit(main())
