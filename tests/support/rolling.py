"""Rollouts of fleets on the durable engine, for tests; and what a process does that carries one and dies."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from hardening.foundation.settings import Aws, Docker, Settings
from images.aws.client import Client
from images.documents import from_json, to_json
from pipelines.durable.dbos import Worker
from pipelines.fleet.docker.connecting import open_host
from pipelines.fleet.docker.hosts import HostsFleet
from pipelines.fleet.docker.inventory import together
from pipelines.fleet.docker.members import DockerFleet
from pipelines.fleet.ecs.groups import ServiceFleet
from pipelines.fleet.ecs.members import ClusterReader, TaskFleet
from pipelines.fleet.kubernetes.cluster_client import ClusterClient
from pipelines.fleet.kubernetes.groups import WorkloadFleet
from pipelines.fleet.kubernetes.kubeconfig import access_of
from pipelines.fleet.kubernetes.members import NamespaceReader, PodFleet
from pipelines.fleet.members import Member, ReplacementImage
from pipelines.fleet.model import Fleet
from pipelines.fleet.port import DelegatedFleet, MemberFleet
from pipelines.rollout import group
from pipelines.rollout.flow import ROLLOUT, flows
from pipelines.rollout.state import GroupOrder, MemberOrder, Order, RolloutOutcome, World
from tests.simulation.ledger import Ledger, SimulatedJournal
from tests.support.cloud import cloud_for
from tests.support.forked import one_after_the_other

READ_WITHIN = timedelta(hours=1)  # no test waits for it
MUTATING = (
    "create_container_from_config", "start", "stop", "rename", "remove_container", "update_container",
    "connect_container_to_network", "disconnect_container_from_network",
)  # fmt: skip


class Unchanged:
    """Nothing has changed since the plan was made."""

    def left_alone(self, order: MemberOrder, member: Member) -> str:
        return ""

    def group_left_alone(self, order: GroupOrder) -> str:
        return ""

    def refuse(self, target: ReplacementImage) -> None:
        return None

    def alarms(self, names: Sequence[str]) -> tuple[str, ...]:
        return ()


@contextmanager
def carried(members: MemberFleet, folder: Path, groups: DelegatedFleet | None = None) -> Iterator[Worker]:
    """A process that carries rollouts of these members and groups, kept in a folder."""
    journal = SimulatedJournal(Ledger(holder="tests"), "tests")
    world = World(members, journal, Unchanged(), lambda: datetime.now(UTC), together, groups)
    with Worker.launched(f"sqlite:///{folder}/engine.sqlite", flows(world)) as worker:
        yield worker


class Deaths:
    """The points at which a process dies once: those that the file names are behind us."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.behind = set(file.read_text().splitlines()) if file.exists() else set()
        self.step = ""

    def reach(self, point: str) -> None:
        """Die here, unless one before us already has."""
        if point not in self.behind:
            with self.file.open("a") as file:
                file.write(f"{point}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def after(self, call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The call, and death between it and its record."""

        def called(*words: Any, **more: Any) -> Any:
            answer = real(*words, **more)
            self.reach(f"in {self.step}: after {call}")
            return answer

        return called

    def before(self, step: str, attempt: Callable[[], Any]) -> Callable[[], Any]:
        """The step, and death between the record of the last one and this one's effect."""

        def act() -> Any:
            self.step = step
            self.reach(f"before {step}")
            return attempt()

        return act


def outcome_after_deaths(
    carry: Callable[[Path], None], folder: Path, fleet: Fleet, order: Order, *, after: int = 0, before: int = 0,
    **given: Any,
) -> RolloutOutcome:  # fmt: skip
    """What an order comes to that one process after the other executes, each of which dies at the next point, until one
    has none left: at least at so many points right `after` a call that changes something, and `before` a step.
    """
    given |= {"fleet": fleet.model_dump(mode="json", exclude_unset=True), "order": to_json(order)}
    (folder / "run.json").write_text(json.dumps(given))
    assert one_after_the_other(carry, folder)[-1] == 0
    points = (folder / "died").read_text().splitlines()
    assert len(points) == len(set(points))
    assert sum(": after " in point for point in points) >= after, points
    assert sum(point.startswith("before ") for point in points) >= before, points
    return from_json(RolloutOutcome, json.loads((folder / "outcome.json").read_text()))


def carry_and_die(folder: Path) -> None:
    """Execute what `run.json` in the folder says, in a process of its own, which kills itself at the first point that
    `died` does not name yet: before a step, or after a call that changes something.
    """
    given, deaths = mortal(folder)
    fleet, ways = Fleet.model_validate(given["fleet"]), Docker.model_validate(given.get("ways", {}))

    def opened(engine: str, label: str = "") -> DockerFleet:
        members = docker_host(fleet, engine, label, ways) if label else DockerFleet(fleet, engine)
        for call in MUTATING:
            setattr(members.api, call, deaths.after(call, getattr(members.api, call)))
        return members

    several = fleet.docker.hosts
    with (
        HostsFleet(fleet, opened, READ_WITHIN) if several else opened(given["host"]) as members,
        carried(members, folder) as worker,
    ):
        carry(worker, folder, given["order"])


def docker_host(fleet: Fleet, engine: str, label: str, ways: Docker) -> DockerFleet:
    """One host of a fleet of several."""
    return DockerFleet(fleet, engine, host=label, connect=partial(open_host, ways=ways))


def carry_groups_and_die(folder: Path) -> None:
    """The same, of the groups of a Kubernetes fleet."""
    given, deaths = mortal(folder)
    group.BETWEEN_LOOKS = timedelta(seconds=0.3)
    fleet = Fleet.model_validate(given["fleet"])
    client = ClusterClient(partial(access_of, fleet.kubernetes))
    for call in ("patch", "delete"):
        setattr(client, call, deaths.after(call, getattr(client, call)))
    reader = NamespaceReader(fleet, client)
    groups = WorkloadFleet(fleet, reader, lambda: datetime.now(UTC))
    with carried(PodFleet(reader, lambda _reference: None), folder, groups) as worker:
        carry(worker, folder, given["order"])


def carry_services_and_die(folder: Path) -> None:
    """The same, of the services of an ECS fleet, at an emulator that is a process of its own."""
    given, deaths = mortal(folder)
    os.environ.update(given["environment"])
    group.BETWEEN_LOOKS = timedelta(seconds=0.3)
    fleet, real = Fleet.model_validate(given["fleet"]), Client.call

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        answer = real(self, operation, **request)
        if not operation.startswith(("Describe", "List")):
            deaths.reach(f"in {deaths.step}: after {operation}")
        return answer

    Client.call = call  # type: ignore[method-assign]
    cloud = cloud_for(Settings(state=folder / "state", aws=Aws.model_validate(given["aws"])))
    reader = ClusterReader(fleet, cloud)
    groups = ServiceFleet(fleet, reader, cloud, lambda: datetime.now(UTC))
    with carried(TaskFleet(reader, lambda _reference: None), folder, groups) as worker:
        carry(worker, folder, given["order"])


def carry(worker: Worker, folder: Path, order: Any) -> None:
    """Execute an order to its end, and leave its outcome in the folder."""
    outcome = from_json(RolloutOutcome, worker.execute(ROLLOUT, "r1", order))
    (folder / "outcome.json").write_text(json.dumps(to_json(outcome)))


def mortal(folder: Path) -> tuple[dict[str, Any], Deaths]:
    """What `run.json` in the folder says, in a process that dies before its steps, each time before the next one."""
    from pipelines.durable.dbos import queue
    from pipelines.rollout import steps

    given = json.loads((folder / "run.json").read_text())
    deaths = Deaths(folder / "died")
    queue.ATTEMPTS = 1_000_000  # who dies so often is given up, and should be; not here
    tried = steps.StepRunner._tried

    async def dying(runner: steps.StepRunner, name: str, attempt: Callable[[], Any], tries: int) -> Any:
        return await tried(runner, name, deaths.before(name, attempt), tries)

    steps.StepRunner._tried = dying  # type: ignore[method-assign]
    return given, deaths
