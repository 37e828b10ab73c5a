"""What an ECS service and a revision of its task definition are to a rollout: what may be done to it, how far it is.

What a rollout has registered is known by the tags of the revision. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.fleet.delegated import ALL, Reach, RollingState, owner_of, rolled_percent, stem
from pipelines.fleet.members import BACK, MEMBER, ROLLOUT

Json = dict[str, Any]
TOLD = frozenset((
    "taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities", "registeredAt", "registeredBy",
    "deregisteredAt", "deleteRequestedAt",
))  # fmt: skip
"""What DescribeTaskDefinition says of a revision and RegisterTaskDefinition does not take; all else stays as it is."""
OURS = (ROLLOUT, MEMBER)
TAGS_AT_MOST = 50
ENDED = ("EssentialContainerExited", "TaskFailedToStart")  # by itself, says a task's stopCode
UNHEALTHY = "health checks"  # so says the reason of a task that ECS has ended for them
MOST_ENDED = 3


@dataclass(frozen=True)
class Revision:
    """A revision of a task definition, as DescribeTaskDefinition shows it, with its tags."""

    shown: Json
    tags: Mapping[str, str]

    @property
    def family(self) -> str:
        """What all revisions of it are called."""
        return str(self.shown["family"])

    @property
    def number(self) -> int:
        """Its own number."""
        return int(self.shown["revision"])

    @property
    def name(self) -> str:
        """The revision as ECS is told it, such as web:12."""
        return f"{self.family}:{self.number}"

    @property
    def active(self) -> bool:
        """Whether a service may be given it."""
        return self.shown.get("status") == "ACTIVE"

    @property
    def containers(self) -> dict[str, Json]:
        """The definitions of its containers, by name."""
        return {str(one["name"]): one for one in self.shown.get("containerDefinitions") or ()}

    def image(self, container: str) -> str:
        """What a container of it is started from."""
        return str(self.containers.get(container, {}).get("image") or "")

    def with_image(self, container: str, image: str) -> Json:
        """What registers the same with another image in one container, but for tags."""
        kept = {key: value for key, value in self.shown.items() if key not in TOLD}
        changed = [{**one, "image": image} if one["name"] == container else one for one in kept["containerDefinitions"]]
        return {**kept, "containerDefinitions": changed}

    def made_by(self, rollout: str, group: str) -> bool:
        """Whether this rollout registered it for this group to go to, whichever attempt of it."""
        said = self.tags.get(ROLLOUT, "")
        ours = stem(said) == stem(rollout) and self.tags.get(MEMBER) == group
        return ours and said != earlier_name(rollout)

    def is_earlier(self, rollout: str, group: str) -> bool:
        """Whether this rollout registered it for this group to go back to."""
        return self.tags.get(ROLLOUT) == earlier_name(rollout) and self.tags.get(MEMBER) == group


def earlier_name(rollout: str) -> str:
    """Under which name a rollout registers what a service ran before it, by digest."""
    return f"{stem(rollout)}{BACK}"


@dataclass(frozen=True)
class Service:
    """One service as DescribeServices shows it, the revision that it names, and the container of it that is rolled;
    empty where that is not clear.
    """

    shown: Json
    revision: Revision
    container: str

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.shown["serviceName"])

    @property
    def called(self) -> str:
        """What people call it."""
        return f"the ECS service {self.name}"

    @property
    def tags(self) -> dict[str, str]:
        """Its tags."""
        return tags_of(self.shown.get("tags"))

    @property
    def desired(self) -> int:
        """How many tasks it is to have."""
        return int(self.shown.get("desiredCount") or 0)

    @property
    def running(self) -> int:
        """How many tasks of it run, whichever revision they are of."""
        return int(self.shown.get("runningCount") or 0)

    @property
    def deployments(self) -> list[Json]:
        """Its deployments: the primary one, and those that it replaces as long as tasks of them run."""
        return list(self.shown.get("deployments") or ())

    @property
    def primary(self) -> Json:
        """The deployment that it goes to; empty where its controller is not ECS."""
        return next((one for one in self.deployments if one.get("status") == "PRIMARY"), {})

    @property
    def runs(self) -> str:
        """The revision that it goes to, such as web:12."""
        return short(self.primary.get("taskDefinition") or self.shown.get("taskDefinition") or "")

    @property
    def since(self) -> datetime | None:
        """Since when it goes to that."""
        return self.primary.get("createdAt")

    @property
    def configuration(self) -> Json:
        """How it deploys."""
        return dict(self.shown.get("deploymentConfiguration") or {})


def tags_of(found: Iterable[Mapping[str, Any]] | None) -> dict[str, str]:
    """Tags as ECS gives them."""
    return {str(one["key"]): str(one.get("value") or "") for one in found or ()}


def short(arn: str) -> str:
    """The name of a thing at the end of its ARN."""
    return arn.rpartition("/")[2]


# -- what it may do, and what forbids to roll it -----------------------------------------------------------------------


def reach_of(service: Service) -> Reach:
    """What its own deployment configuration lets ECS do.

    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html: the minimum is rounded
    up and the maximum down; without a word 100 and 200 percent, and 0 and 100 of a daemon.
    """
    daemon = service.shown.get("schedulingStrategy") == "DAEMON"
    least = int(service.configuration.get("minimumHealthyPercent", 0 if daemon else ALL))
    most = int(service.configuration.get("maximumPercent", ALL if daemon else 2 * ALL))
    healthy = -(-service.desired * least // ALL)
    return Reach(max(0, service.desired - healthy), max(0, service.desired * most // ALL - service.desired))


def obstacle(service: Service) -> str:
    """Why a rollout may not begin with it; empty where it may."""
    why = f"a deployment to {service.runs} is running: wait until it has ended" if deploys(service) else ""
    return forbids(service) or why


def forbids(service: Service) -> str:
    """Why no rollout may touch it, whatever goes on; empty where one may."""
    return next(_obstacles(service), "")


def _obstacles(service: Service) -> Iterator[str]:
    controller = (service.shown.get("deploymentController") or {}).get("type", "ECS")
    if controller != "ECS":
        yield f"its deployment controller is {controller}, which deploys it: give the new image to that"
        return
    if (strategy := service.configuration.get("strategy", "ROLLING")) != "ROLLING":
        yield f"its deployment strategy is {strategy}, which shifts its traffic by itself: set ROLLING, or deploy it so"
    if service.shown.get("status") != "ACTIVE":
        yield f"it is {service.shown.get('status')}"
    if owner := owner_of(service.tags, "the service", "its task definition"):
        yield owner
    if not service.container:
        yield f"its tasks have several containers ({', '.join(service.revision.containers)}): name one in ecs.container"
    elif service.container not in service.revision.containers:
        yield f"its task definition has no container {service.container}"
    if service.desired and not reach_of(service).at_once:
        yield "its minimumHealthyPercent and maximumPercent let ECS replace nothing: raise the maximum"
    if len({*service.revision.tags, *OURS}) > TAGS_AT_MOST:
        yield f"{service.revision.name} has too many tags to add those of a rollout: {TAGS_AT_MOST} at most"


def deploys(service: Service) -> bool:
    """Whether a deployment of it goes on, or what an earlier one has started still runs."""
    return len(service.deployments) > 1 or service.primary.get("rolloutState") == "IN_PROGRESS"


# -- what is asked of it -----------------------------------------------------------------------------------------------


def registration(rollout: str, group: str, pinned: Revision, container: str, image: str) -> Json:
    """What registers the revision of a rollout: the pinned one with that image, its tags, and those by which ours is
    found again. Tags of AWS's own cannot be given.
    """
    own = {ROLLOUT: rollout, MEMBER: group}
    tags = {key: value for key, value in pinned.tags.items() if not key.startswith("aws:")} | own
    named = [{"key": key, "value": value} for key, value in tags.items()]
    return {**pinned.with_image(container, image), "tags": named}


def started_anew(service: Service) -> tuple[str, ...]:
    """What a rollout moves beside its own container: those of the same task whose images are named by tag, which ECS
    asks the registry for with each deployment.
    """
    others = [one for one in service.revision.containers if one != service.container]
    images = {name: service.revision.image(name) for name in others}
    return tuple(
        f"its container {name} starts from what {image} names then: name it by digest to keep it as it is"
        for name, image in images.items()
        if service.container and "@" not in image
    )


def guarded(service: Service, *, rollback: bool) -> Json:
    """Its deployment configuration with the circuit breaker on, and whether that goes back by itself."""
    breaker = service.configuration.get("deploymentCircuitBreaker") or {}
    return {
        **service.configuration,
        "deploymentCircuitBreaker": {**breaker, "enable": True, "rollback": rollback},
    }


# -- how far it is -----------------------------------------------------------------------------------------------------


def deploying(service: Service) -> RollingState:
    """How far it is: done when the deployment is completed, nothing of an earlier one runs, and all tasks do."""
    primary, desired = service.primary, service.desired
    running = int(primary.get("runningCount") or 0)
    percent = rolled_percent(running, desired)
    text = f"{running} of {desired} tasks run {service.runs}"
    said = str(primary.get("rolloutStateReason") or "")
    if primary.get("rolloutState") == "FAILED":
        return RollingState(done=False, percent=percent, text=text, failed=f"{text}: {said or 'the deployment failed'}")
    complete = primary.get("rolloutState") == "COMPLETED" and len(service.deployments) == 1
    done = complete and running >= desired and service.running == desired
    failed = int(primary.get("failedTasks") or 0)
    return RollingState(done, percent, f"{text}, {failed} failed" if failed else text)


def ill(revision: str, stopped: Sequence[Json]) -> str:
    """Why a service with a completed deployment will not recover: tasks of its revision end by themselves, as those
    that stopped within the last hour show. Empty where it may recover.
    """
    ours = [one for one in stopped if short(str(one.get("taskDefinitionArn") or "")) == revision]
    said = [str(one.get("stoppedReason") or one.get("stopCode")) for one in ours
            if one.get("stopCode") in ENDED or UNHEALTHY in str(one.get("stoppedReason"))]  # fmt: skip
    return f"{len(said)} tasks of {revision} ended by themselves: {said[0]}" if len(said) >= MOST_ENDED else ""
