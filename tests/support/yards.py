"""A real Docker Engine with images and containers for tests of rollouts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hardening.foundation.process import run as command
from images.documents import from_json, to_json
from pipelines.fleet.docker.hosts import HostsFleet
from pipelines.fleet.docker.members import DockerFleet
from pipelines.fleet.members import ReplacementImage
from pipelines.fleet.model import Fleet
from pipelines.rollout.flow import ROLLOUT
from pipelines.rollout.plan import plan
from pipelines.rollout.plan_model import Plan
from pipelines.rollout.state import MemberState, Order, RolloutOutcome
from tests.support.engines import WEB, busybox_image, engine
from tests.support.fleets import fleet as fleet_with
from tests.support.fleets import judged, release
from tests.support.rolling import carried

QUICK = {"min_healthy_time": "1s", "healthy_deadline": "5m", "bake_time": "1s", "drain": "3s", "settle": "1s"}
# It serves until it is told to faint; an answer that it has begun comes to its end.
FAINT = WEB.replace("\nwait\n", "\nuntil test -e /tmp/faint; do sleep 1; done\nkill $!; exec sleep 600\n")
LABELS = ["--label", "goldsmith-test=1", "--label", "app=fleet-test"]
NOW = datetime.now(UTC)
NETWORK = f"10.214.{os.getpid() % 256}"  # of this process: the bridges of two engines on one host must not share one


def fleet(**limits: Any) -> Fleet:
    """The fleet of the containers that these tests start, with short times."""
    health = limits.pop("health", {"kind": "http", "port": 8080})
    made = fleet_with(**{**QUICK, **limits})
    return Fleet.model_validate(
        {**made.model_dump(exclude_unset=True), "selector": {"app": "fleet-test"}, "health": health}
    )


class Yard:
    """An engine with a network, the images one, two and broken, and containers started for one test.

    `folder` is where flows are kept.
    """

    def __init__(self, api: Any, host: str, folder: Path) -> None:
        self.api, self.host, self.folder = api, host, folder
        self.images = {
            "one": busybox_image(
                api, "fleet-test:one", "one", 'HEALTHCHECK CMD ["wget", "-qO-", "http://127.0.0.1:8080/"]'
            ),
            "two": busybox_image(api, "fleet-test:two", "two"),
            "broken": busybox_image(
                api,
                "fleet-test:broken",
                "broken",
                files={"web": "#!/bin/sh\necho 'cannot read the key'; exec sleep 600\n"},
            ),
            "faint": busybox_image(api, "fleet-test:faint", "faint", files={"web": FAINT}),
        }
        api.create_network("fleet-test", labels={"goldsmith-test": "1"})

    def docker(self, *words: str) -> str:
        return command(["docker", "-H", self.host, *words]).stdout.strip()

    def start(self, name: str, *options: str, image: str = "fleet-test:one", words: tuple[str, ...] = ()) -> str:
        joined = () if "--network" in options else ("--network", "fleet-test")
        return self.docker("run", "-d", "--init", "--name", name, *LABELS, *joined, *options, image, *words)

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.inspect_container(name)
        return found

    def target(self, image: str) -> ReplacementImage:
        return ReplacementImage(
            f"fleet-test:{image}", self.images[image], release(9, published_at=NOW, expires_at=NOW + timedelta(60))
        )

    def names(self) -> list[str]:
        found = self.api.containers(all=True, filters={"label": "app=fleet-test"})
        return sorted(one["Names"][0].lstrip("/") for one in found)

    def answer(self, name: str) -> str:
        return self.docker("exec", name, "wget", "-qO-", "http://127.0.0.1:8080/")


def yards(host: str, folder: Path) -> Iterator[Yard]:
    """A yard for one test."""
    with engine(host) as api:
        yield Yard(api, host, folder)


def planned(members: DockerFleet | HostsFleet, target: ReplacementImage) -> Plan:
    """All members violate: those that run the target's image have drifted from it, others are expired."""
    rules = {one: "drifted" if target.digest in one.known_by else "expired" for one in members.describe()}
    ours = [replace(judged(one.name, rule), member=one) for one, rule in rules.items()]
    return plan(members.fleet, ours, target, NOW)


def roll(yard: Yard, of: Fleet, image: str, rollout: str = "r1", back: tuple[MemberState, ...] = ()) -> RolloutOutcome:
    """Roll all members to an image, for real; or back from it."""
    with DockerFleet(of, yard.host) as members, carried(members, yard.folder) as worker:
        order = Order(rollout, planned(members, yard.target(image)), of.limits, back=back)
        return from_json(RolloutOutcome, worker.execute(ROLLOUT, rollout, to_json(order)))
