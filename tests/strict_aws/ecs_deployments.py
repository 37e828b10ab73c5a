"""How a deployment of an ECS service goes on: each second while it is not steady, and when a task of it ends.

It starts tasks within the healthy percentages of the service, counts those that end, and the circuit breaker fails it,
and goes back to what was completed last where that is asked for.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from tests.strict_aws.wire import Call
from tests.strict_aws.world import World

LEAST_FAILURES, MOST_FAILURES = 3, 200  # of tasks, until the circuit breaker fails a deployment


@dataclass
class Task:
    """One task of a service; `ends` is the reason of one that has ended."""

    id: str
    revision: dict[str, Any]
    deployment: str
    created: datetime
    started: datetime | None = None
    unhealthy: bool = False
    stopped: bool = False
    code: str = "ServiceSchedulerInitiated"
    why: str = "Scaling activity initiated by deployment"
    tags: list[dict[str, str]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)


@dataclass
class Deployment:
    """One deployment of a service, from its beginning until nothing of it runs."""

    id: str
    revision: dict[str, Any]
    created: datetime
    status: str = "PRIMARY"
    state: str = "IN_PROGRESS"
    reason: str = ""
    failed: int = 0


@dataclass
class Service:
    """A service with its tasks and deployments, the primary one first; `done` is what was completed last."""

    shown: dict[str, Any]
    tags: list[dict[str, str]]
    deployments: list[Deployment]
    tasks: list[Task] = field(default_factory=list)
    done: dict[str, Any] | None = None
    beating: bool = False

    @property
    def desired(self) -> int:
        return int(self.shown["desiredCount"])

    @property
    def primary(self) -> Deployment:
        return self.deployments[0]

    def of(self, deployment: Deployment) -> list[Task]:
        return [one for one in self.tasks if one.deployment == deployment.id and not one.stopped]

    def alive(self) -> list[Task]:
        return [one for one in self.tasks if not one.stopped]

    def good(self) -> list[Task]:
        return [one for one in self.alive() if one.started and not one.unhealthy]


@dataclass
class Ecs:
    """ECS of an account in a region. `digests`: what a tag names in its registry, else something of its own."""

    clusters: dict[str, dict[str, Service]] = field(default_factory=dict)
    families: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tags: dict[str, list[dict[str, str]]] = field(default_factory=dict)  # of revisions, by their ARNs


def of(world: World, call: Call) -> Ecs:
    found: Ecs = world.ecs.setdefault((call.account, call.region), Ecs())
    return found


def fresh() -> str:
    return f"ecs-svc/{secrets.randbelow(10**19):019d}"


def deploy(world: World, call: Call, service: Service, wanted: dict[str, Any], why: str = "") -> None:
    for one in service.deployments:
        one.status = "ACTIVE"
    service.deployments.insert(0, Deployment(fresh(), wanted, world.now(), reason=why))
    service.shown["taskDefinition"] = wanted["taskDefinitionArn"]
    start(world, call, service)


def start(world: World, call: Call, service: Service) -> None:
    """Look at a service from now on, each second until it is steady."""
    if not service.beating:
        service.beating = True
        world.timeline.at(world.now() + timedelta(seconds=0.01), partial(beat, world, call, service))


def beat(world: World, call: Call, service: Service) -> None:
    service.beating = False
    if service.shown["status"] != "ACTIVE" or not service.deployments:
        return
    look(world, call, service)
    if not steady(service):
        service.beating = True
        world.timeline.at(world.now() + timedelta(seconds=1), partial(beat, world, call, service))


def steady(service: Service) -> bool:
    one = len(service.deployments) == 1
    return (
        one
        and len(service.good()) == len(service.alive()) == service.desired
        and service.primary.state != "IN_PROGRESS"
    )


def look(world: World, call: Call, service: Service) -> None:
    """End what is ill, start what is missing within the percentages, end what is old, and say how it stands."""
    for task in service.alive():
        if task.unhealthy:
            end(world, call, service, task)
    primary = service.primary
    if primary.state == "FAILED" and not breaks(service)["rollback"]:
        pass  # the circuit breaker starts nothing more
    else:
        replace(world, call, service)
    service.deployments = [one for one in service.deployments if one is service.primary or service.of(one)]
    whole = len(service.good()) == len(service.alive()) == service.desired == len(service.of(service.primary))
    if whole and len(service.deployments) == 1 and service.primary.state == "IN_PROGRESS":
        done = service.primary
        done.state, service.done = "COMPLETED", done.revision
        done.reason = done.reason or f"ECS deployment {done.id} completed."


def replace(world: World, call: Call, service: Service) -> None:
    configuration = service.shown["deploymentConfiguration"]
    most = service.desired * configuration["maximumPercent"] // 100
    least = -(-service.desired * configuration["minimumHealthyPercent"] // 100)
    new = service.of(service.primary)
    old = [one for one in service.alive() if one not in new]
    while old and len(service.good()) - (1 if old[0] in service.good() else 0) >= least and (
        len(service.alive()) > service.desired or len(service.alive()) >= most
    ):  # fmt: skip
        old.pop(0).stopped = True
    for one in new[service.desired :]:
        one.stopped = True
    while len(service.of(service.primary)) < service.desired and len(service.alive()) < max(most, 0):
        launch(world, call, service)


def launch(world: World, call: Call, service: Service) -> None:
    found = service.primary.revision
    tags = (
        of(world, call).tags[found["taskDefinitionArn"]] if service.shown["propagateTags"] == "TASK_DEFINITION" else []
    )
    digests = {one["name"]: digest_of(world, one["image"]) for one in found["containerDefinitions"]}
    task = Task(secrets.token_hex(16), found, service.primary.id, world.now(), tags=tags, digests=digests)
    service.tasks.append(task)
    world.after("task", partial(run, world, call, service, task))


def digest_of(world: World, image: str) -> str:
    said = image.partition("@")[2]
    return said or world.digests.get(image) or f"sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def run(world: World, call: Call, service: Service, task: Task) -> None:
    """From pending to running, unless an image of it ails."""
    if task.stopped:
        return
    images = [one["image"] for one in task.revision["containerDefinitions"]]
    now = world.now()
    if world.ailments.strike("task", images, now, now):
        end(world, call, service, task)
        return
    task.started = now
    task.unhealthy = world.ailments.strike("task-health", images, now, now)
    for kind in ("task", "task-health"):
        for when in world.ailments.later(kind, images, now):
            world.timeline.at(when, partial(sicken, world, call, service, task, kind))


def sicken(world: World, call: Call, service: Service, task: Task, kind: str) -> None:
    images = [one["image"] for one in task.revision["containerDefinitions"]]
    if not task.stopped and world.ailments.strike(kind, images, task.started or world.now(), world.now()):
        if kind == "task":
            end(world, call, service, task)
        else:
            task.unhealthy = True
            start(world, call, service)


def breaks(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.shown["deploymentConfiguration"]["deploymentCircuitBreaker"]
    return found


def end(world: World, call: Call, service: Service, task: Task) -> None:
    """A task has ended by itself: the circuit breaker counts those of a deployment that goes on."""
    task.stopped = True
    if task.unhealthy:
        task.why = "Task failed container health checks"
    else:
        task.code, task.why = "EssentialContainerExited", "Essential container in task exited"
    start(world, call, service)
    one = next((each for each in service.deployments if each.id == task.deployment), None)
    if one is None or one.state != "IN_PROGRESS" or one is not service.primary:
        return
    one.failed += 1
    limit = min(MOST_FAILURES, max(LEAST_FAILURES, -(-service.desired // 2)))
    if breaks(service)["enable"] and one.failed >= limit:
        one.state, one.reason = "FAILED", "ECS deployment circuit breaker: tasks failed to start."
        if breaks(service)["rollback"] and service.done and service.done is not one.revision:
            why = f"ECS deployment circuit breaker: rolling back to {service.done['taskDefinitionArn']}."
            deploy(world, call, service, service.done, why)
