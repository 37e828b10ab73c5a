"""A container with a published port, replaced in place under requests with new connections, beside stop, rm and run.

Then rollouts that are killed (kill -9) while they hold the port: for how long does it stay held? And one of a container
whose health check is asked rarely: how long does its plan say that it takes?
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import ROOT, Report, end, require

sys.path[:0] = [str(ROOT / "tests")]
LIMITS = {"method": "in_place", "max_unavailable": 1, "min_healthy_time": "1s", "bake_time": "1s", "drain": "3s"}
MOST_SECONDS = 900.0  # of all requests together
ANSWERS_WITHIN = 30.0
PAUSE = 0.02
RARELY = "20s"
WORKERS = 2  # for each address


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000, help="of each way (default: 5000)")
    parser.add_argument("--kills", type=int, default=20, help="rollouts that are killed (default: 20)")
    parser.add_argument("--carry", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.carry:
        return _carry(Path(given.carry))
    require("docker", "busybox", "nft", root=True)
    from hardening.foundation.settings import load_settings
    from pipelines.fleet.docker.members import DockerFleet
    from pipelines.host.provision import docker_host
    from tests.support.engines import engine
    from tests.support.yards import Yard, fleet, roll

    host, report = docker_host(load_settings(), for_builds=False), Report({})
    with engine(host) as api, tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder:
        yard, port, notes = Yard(api, host, Path(folder)), _free_port(), list[str]()
        gateway = api.inspect_network("fleet-test")["IPAM"]["Config"][0]["Gateway"]
        addresses = [("127.0.0.1", port), (gateway, port)]
        published = ("--publish", f"{port}:8080")

        def ours(number: int) -> None:
            outcome = roll(yard, fleet(**LIMITS), ("two", "one")[number % 2], f"bench-{number}")
            notes.extend(member.note or outcome.state.failure for member in outcome.members)

        def theirs(number: int) -> None:
            for words in (("stop", "--time", "3", "web-1"), ("rm", "web-1")):
                yard.docker(*words)
            yard.start("web-1", *published, image=("fleet-test:two", "fleet-test:one")[number % 2])

        yard.start("web-1", *published)
        _wait(addresses)
        held = _swapped(addresses, ours, given.requests)
        print(f"in place:          {held}; told: {', '.join(dict.fromkeys(notes))}")
        refused = _swapped(addresses, theirs, given.requests)
        print(f"stop, rm and run:  {refused}")
        shut, limit = _killed(yard, DockerFleet, given.kills) if given.kills else ([0.0], 1)
        print(f"{given.kills} killed while they held the port: it was held for at most {max(shut):.1f} s more")
        mended = roll(yard, fleet(**LIMITS), "two", "bench-last")
        predicted, took = _predicted(yard, DockerFleet)
        print(f"the next rollout: {', '.join(member.note for member in mended.members)}; {yard.names()}")
    per_swap = len(refused.failures) / max(1, refused.swaps)
    print(f"failed requests for each swap: {len(held.failures) / max(1, held.swaps):.2f} and {per_swap:.1f}")
    report.claim("failed requests, in place", len(held.failures), 0)
    report.claim("the slowest request, seconds", max(held.seconds), 4)
    print(f"health check every {RARELY}, min_healthy_time 10 s: planned {predicted} s, took {took:.1f} s")
    report.claim("seconds that a rollout took / planned", took / predicted, 1.3)
    report.claim("seconds held after kill -9 / the limit", max(shut) / limit, 1)
    return int(report.failed)


@dataclass
class Requests:
    """The outcome of all requests of one way, while it replaced the container `swaps` times."""

    swaps: int = 0
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{self.failures.count(one)} {one}" for one in sorted(set(self.failures)))
        count = len(self.seconds) + len(self.failures)
        slow = f"the slowest took {max(self.seconds):.2f} s" if self.seconds else "none was answered"
        return f"{len(self.failures)} of {count} requests failed in {self.swaps} swaps ({kinds or 'none'}), {slow}"


def _swapped(addresses: list[tuple[str, int]], swap: Callable[[int], None], least: int) -> Requests:
    """Swap under requests to all addresses until there were enough of them."""
    with _asking(addresses) as found:
        until = time.monotonic() + MOST_SECONDS
        while len(found.seconds) + len(found.failures) < least and time.monotonic() < until:
            time.sleep(1)
            swap(found.swaps)
            found.swaps += 1
        time.sleep(1)
    return found


@contextmanager
def _asking(addresses: list[tuple[str, int]]) -> Iterator[Requests]:
    found, over = Requests(), threading.Event()

    def ask(address: tuple[str, int]) -> None:
        while not over.wait(PAUSE):
            began = time.monotonic()
            try:
                _answer(address)
                found.seconds.append(time.monotonic() - began)
            except (OSError, http.client.HTTPException) as error:
                found.failures.append(type(error).__name__)

    workers = [threading.Thread(target=ask, args=[one], daemon=True) for one in addresses * WORKERS]
    for worker in workers:
        worker.start()
    try:
        yield found
    finally:
        over.set()
        for worker in workers:
            worker.join(ANSWERS_WITHIN + 1)


def _answer(address: tuple[str, int]) -> None:
    connection = http.client.HTTPConnection(*address, timeout=ANSWERS_WITHIN)
    try:
        connection.request("GET", "/")
        if connection.getresponse().status != http.client.OK:
            raise http.client.HTTPException
    finally:
        connection.close()


def _wait(addresses: list[tuple[str, int]]) -> None:
    for address in addresses:
        for _ in range(100):
            try:
                _answer(address)
                break
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)


def _killed(yard: Any, open_fleet: Any, kills: int) -> tuple[list[float], int]:
    """For how long the port stayed held after each kill -9, and the limit that the plan names. What a process leaves,
    the next one goes on with.
    """
    from images.documents import to_json
    from pipelines.fleet.docker.handover import STARTS
    from pipelines.rollout.state import Order
    from tests.support.yards import fleet, planned

    of, found = fleet(**LIMITS), list[float]()
    for number in range(kills):
        folder = yard.folder / f"kill-{number}"
        folder.mkdir()
        with open_fleet(of, yard.host) as members:
            order = Order(f"kill-{number}", planned(members, yard.target(("two", "one")[number % 2])), of.limits)
        given = {"fleet": of.model_dump(mode="json", exclude_unset=True), "host": yard.host, "order": to_json(order)}
        (folder / "run.json").write_text(json.dumps(given))
        argv = [sys.executable, str(Path(__file__)), "--carry", str(folder)]
        with subprocess.Popen(argv, cwd=ROOT) as child:
            while child.poll() is None and not _holds(order.rollout):
                time.sleep(0.01)
            time.sleep(random.random())
            began = time.monotonic()
            child.send_signal(signal.SIGKILL)
        while _holds(order.rollout):
            time.sleep(0.02)
        found.append(time.monotonic() - began)
        print(f"kill {number + 1}: held for {found[-1]:.1f} s more", file=sys.stderr)
        subprocess.run(argv, cwd=ROOT, check=True)
    return found, int(of.limits.drain.total_seconds()) + STARTS


def _predicted(yard: Any, open_fleet: Any) -> tuple[int, float]:
    """The seconds that a plan names, and those that its rollout takes."""
    from images.documents import from_json, to_json
    from pipelines.rollout.flow import ROLLOUT
    from pipelines.rollout.state import Order, Phase, RolloutOutcome
    from tests.support.rolling import carried
    from tests.support.yards import fleet, planned

    yard.docker("rm", "--force", "web-1")
    check = ("--health-cmd", "wget -qO- http://127.0.0.1:8080/", "--health-interval", RARELY)
    yard.start("web-1", "--publish", f"{_free_port()}:8080", *check)
    of = fleet(**{**LIMITS, "min_healthy_time": "10s"}, health={"kind": "docker"})
    while yard.inspect("web-1")["State"]["Health"]["Status"] != "healthy":
        time.sleep(1)
    with open_fleet(of, yard.host) as members, carried(members, yard.folder) as worker:
        plan = planned(members, yard.target("two"))
        print(plan.takes)
        began = time.monotonic()
        done = from_json(
            RolloutOutcome, worker.execute(ROLLOUT, "bench-plan", to_json(Order("bench-plan", plan, of.limits)))
        )
        took = time.monotonic() - began
    if [member.phase for member in done.members] != [Phase.NEW]:
        sys.exit(f"not replaced: {done.state.failure}")
    return plan.seconds, took


def _carry(folder: Path) -> int:
    from pipelines.fleet.docker.members import DockerFleet
    from pipelines.fleet.model import Fleet
    from tests.support.rolling import carried, carry

    given = json.loads((folder / "run.json").read_text())
    with (
        DockerFleet(Fleet.model_validate(given["fleet"]), given["host"]) as members,
        carried(members, folder) as worker,
    ):
        carry(worker, folder, given["order"])
    return 0


def _holds(rollout: str) -> bool:
    """Whether the kernel holds a port for a rollout now."""
    answer = subprocess.run(["nft", "-j", "list", "sets", "inet"], capture_output=True, text=True, check=True).stdout
    sets = [one["set"] for one in json.loads(answer)["nftables"] if "set" in one]
    return any(f".{rollout}." in one["table"] and one.get("elem") for one in sets)


def _free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


if __name__ == "__main__":
    end(main)
