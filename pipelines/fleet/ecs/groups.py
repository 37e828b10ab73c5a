"""Edge: ECS services as groups that ECS rolls to a new revision of their task definition, with its circuit breaker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from hardening.foundation.errors import RefusedError
from images.aws.client import Clients
from images.aws.cloud import Cloud
from images.aws.permissions import ROLLER, permit
from pipelines.fleet.delegated import Bakes, RollingState, StrategyWords, pace_of, understood
from pipelines.fleet.ecs.members import ClusterReader
from pipelines.fleet.ecs.services import (
    Revision,
    Service,
    deploying,
    earlier_name,
    forbids,
    guarded,
    ill,
    obstacle,
    reach_of,
    registration,
    started_anew,
)
from pipelines.fleet.ecs.task_facts import RUNNING
from pipelines.fleet.members import MEMBER, ROLLOUT, ReplacementImage, require_read
from pipelines.fleet.model import Fleet
from pipelines.fleet.port import Group, GroupPin, InProgressError, Pacing, Progress, Watched
from pipelines.fleet.rollout_targets import REGISTERED, SERVICES_OF_CLUSTER, ecs, passed

PERMISSIONS = (
    permit("ecs:RegisterTaskDefinition", ROLLER, on=ecs("task-definition/*:*")),
    permit("ecs:TagResource", ROLLER, on=ecs("task-definition/*:*").where(REGISTERED), by="RegisterTaskDefinition"),
    permit("iam:PassRole", ROLLER, on=passed("ecs-tasks.amazonaws.com"), by="RegisterTaskDefinition"),
    permit("ecs:UpdateService", ROLLER, on=SERVICES_OF_CLUSTER),
)

PLAN_AGAIN = "somebody else has deployed it: plan again"


class ServiceFleet:
    """The ECS services of `fleet`. ECS cannot pause: a service that is to stop returns to the revision that it ran.

    Where that one names a tag, it goes back to one like it that names the digest that ran, which is registered then.
    """

    def __init__(self, fleet: Fleet, reader: ClusterReader, cloud: Cloud, now: Callable[[], datetime]) -> None:
        self.fleet = fleet
        self.reader = reader
        once = Clients(cloud.aws.model_copy(update={"attempts": 1}), pause=cloud.clients.pause)
        self._once = once.client("ecs", reader.region, reader.account)  # which repeats no failed call
        self._bakes = Bakes(now)

    @understood
    def groups(self) -> tuple[Group, ...]:
        """Every service of the fleet. Raises OutsideError where one that it names is not there."""
        services, unread = self.reader.services()
        require_read(unread, "service")
        return tuple(
            Group(
                name,
                one.name,
                one.desired,
                min(one.running, one.desired),
                obstacle(one),
                one.runs,
                told=started_anew(one),
            )
            for name, one in services.items()
        )

    @understood
    def pace(self, group: Group, allowed: int) -> Pacing:
        """The pace of the service's own configuration. Raises RefusedError where that breaks one of the limits."""
        service = self._service(group)
        most = "lower its maximumPercent"
        words = StrategyWords(
            f"{service.called} ({service.desired} tasks)", "raise its minimumHealthyPercent", most,
            f"{most}, or raise its minimumHealthyPercent",
        )  # fmt: skip
        return pace_of(group, reach_of(service), words, self.fleet.limits, allowed)

    @understood
    def pin(self, group: Group) -> GroupPin:
        """The revision that it runs, by number; where that names a tag, also the digest that its tasks run.

        Raises RefusedError where it is not known which digest to go back to.
        """
        service = self._service(group)
        revision, image = service.revision, service.revision.image(service.container)
        run = set[str]() if "@" in image else self._run(service)
        if len(run) > 1 or "" in run:
            why = f"its tasks run several digests of {image}" if len(run) > 1 else f"ECS tells no digest of {image}"
            hint = "name the image by its digest in the task definition, and deploy that; then plan again"
            raise RefusedError(f"{service.called}: {why}, so it could not be rolled back to what it runs", hint=hint)
        return GroupPin(revision.name, run.pop()) if run else GroupPin(revision.family, revision.number)

    def _run(self, service: Service) -> set[str]:
        """What its tasks run of the revision that it names, by digest; empty where ECS does not tell that."""
        found = (one for task in self.reader.tasks(service.name) for one in self.reader.containers(task))
        return {
            one.exact for one in found
            if (one.name, one.revision.name, one.task.get("lastStatus")) == (service.container, service.runs, RUNNING)
        }  # fmt: skip

    @understood
    def begin(self, rollout: str, group: Group, target: ReplacementImage, pinned: GroupPin, _pacing: Pacing) -> None:
        """Register the revision with the target's image, once, and let the service go to it.

        One that ECS has taken back already is not begun again under the same name. Raises RefusedError where the
        service no longer runs what was planned, or is somebody else's to deploy by now.
        """
        service = self._service(group)
        if self._ours(service, rollout, group):
            return
        if _name(pinned) != group.runs or not self._is_back(service, rollout, group, pinned):
            why = f"{service.called} now goes to {service.runs}, but {group.runs} was planned from"
            raise RefusedError(why, hint=PLAN_AGAIN)
        revision = self._made(rollout, group, service, pinned, target.reference)
        if revision and service.since and service.since >= revision.shown["registeredAt"]:
            return  # ECS has gone to the earlier one since: the circuit breaker's work
        if why := obstacle(service):
            raise RefusedError(f"{service.called}: {why}", hint="nothing was changed: plan again")
        revision = revision or self._register(rollout, group, service, pinned, target.reference)
        by_itself = self.fleet.limits.auto_rollback and not _digest(pinned)  # ECS would start what the tag names now
        self._deploy(service, revision.name, rollback=by_itself)
        if self._service(group).runs == service.runs:
            raise InProgressError(f"ECS to show the deployment of {revision.name}")

    def hold(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """Do nothing: ECS rolls the whole service, and cannot leave a part for later."""

    @understood
    def watch(self, rollout: str, group: Group) -> Watched:
        """One look at how far ECS is, and how long all of it has been well."""
        service = self._service(group)
        seen = deploying(service)
        if service.runs == group.runs or service.revision.is_earlier(rollout, group.id):
            said = service.primary.get("rolloutStateReason") or seen.text
            return Watched(seen.back, seen.percent, seen.failed or str(said), service.since)
        if not self._ours(service, rollout, group):
            return Watched(Progress.FAILED, 0, f"somebody else has deployed {service.runs}")
        return self._baked(group, service, seen)

    def _baked(self, group: Group, service: Service, seen: RollingState) -> Watched:
        """How far the bake is. It starts over when a task does not run, and in a process that goes on with it."""
        if seen.failed:
            return Watched(Progress.FAILED, seen.percent, seen.failed, service.since)
        if not seen.done:
            self._bakes.forget(group.id, service.runs)
            complete = service.primary.get("rolloutState") == "COMPLETED"  # the circuit breaker minds it no more
            if why := ill(service.runs, self.reader.tasks(service.name, "STOPPED")) if complete else "":
                return Watched(Progress.FAILED, seen.percent, why, service.since)
            return Watched(Progress.RUNNING, seen.percent, seen.text, service.since)
        limits = self.fleet.limits
        bake = max(limits.bake_time, limits.min_healthy_time).total_seconds()
        return self._bakes.look(group.id, service.runs, bake, seen.text)

    @understood
    def cancel(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """Let the service go back: ECS leaves none where it is."""
        service = self._service(group)
        if self._ours(service, rollout, group):
            self._deploy(service, self._earlier(rollout, group, service, pinned), rollback=False)

    @understood
    def way_back(self, rollout: str, group: Group, pinned: GroupPin) -> str:
        """Why the service cannot go back to what was pinned; empty where it can."""
        return self._way_back(self._service(group), rollout, group, pinned)

    def _way_back(self, service: Service, rollout: str, group: Group, pinned: GroupPin) -> str:
        if not (self._is_back(service, rollout, group, pinned) or self._ours(service, rollout, group)):
            return f"{service.called} now goes to {service.runs}, set by somebody else"
        if why := forbids(service):
            return f"{service.called}: {why}"
        if not _digest(pinned) and not self.reader.revision(_name(pinned), anew=True).active:
            return f"{_name(pinned)}, which {service.called} ran before, is deregistered"
        return ""

    @understood
    def roll_back(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """Let the service go to the pinned revision, which ECS then keeps.

        Raises RefusedError where it cannot go back.
        """
        service = self._service(group)
        if self._is_back(service, rollout, group, pinned):
            return
        if why := self._way_back(service, rollout, group, pinned):
            raise RefusedError(why, hint="nothing was done; build and roll what shall run instead")
        self._deploy(service, self._earlier(rollout, group, service, pinned), rollback=False)

    def _service(self, group: Group) -> Service:
        return self.reader.service(group.name)

    def _ours(self, service: Service, rollout: str, group: Group) -> bool:
        """Whether the service goes to what this rollout has registered for it."""
        return service.runs != group.runs and self.reader.revision(service.runs).made_by(rollout, group.id)

    def _is_back(self, service: Service, rollout: str, group: Group, pinned: GroupPin) -> bool:
        """Whether the service goes to what was pinned."""
        if service.runs == _name(pinned):
            return True
        if not _digest(pinned) or not service.revision.is_earlier(rollout, group.id):
            return False
        made = self._made(earlier_name(rollout), group, service, pinned, _digest(pinned))
        return made is not None and made.name == service.runs

    def _earlier(self, rollout: str, group: Group, service: Service, pinned: GroupPin) -> str:
        """The revision to go back to: the pinned one, or one that names its digest, registered once."""
        if not (image := _digest(pinned)):
            return _name(pinned)
        asked = earlier_name(rollout), group, service, pinned, image
        return (self._made(*asked) or self._register(*asked)).name

    def _made(self, rollout: str, group: Group, service: Service, pinned: GroupPin, image: str) -> Revision | None:
        """What was registered under this very name before, from the pinned one with that image; None where none was.

        Raises RefusedError for one that differs from what would be registered: anyone who may tag can claim to be us.
        """
        before = self.reader.revision(_name(pinned))
        for one in self.reader.later(before):
            if (one.tags.get(ROLLOUT), one.tags.get(MEMBER)) == (rollout, group.id):
                wanted = before.with_image(service.container, image)
                if one.with_image(service.container, one.image(service.container)) == wanted:
                    return one
                why = f"{one.name} has the tags of {rollout}, and is not what it would register from {group.runs}"
                raise RefusedError(why, hint="its tags were not set by a rollout: look at it, and deregister it")
        return None

    def _register(self, rollout: str, group: Group, service: Service, pinned: GroupPin, image: str) -> Revision:
        """Register it by one request: ECS accepts no token here, and what a lost answer made is found by its tags."""
        before = self.reader.revision(_name(pinned))
        asked = registration(rollout, group.id, before, service.container, image)
        answer = self._once.call("RegisterTaskDefinition", **asked)
        return Revision(answer["taskDefinition"], {})

    def _deploy(self, service: Service, revision: str, *, rollback: bool) -> None:
        """Let the service go to a revision. To repeat it changes nothing.

        ECS has no conditional update. So the service is read again right before: RefusedError where another deployment
        has begun since `service` was read. One that begins between this look and the update is overwritten.
        """
        now = self.reader.service(service.name)
        if (now.primary.get("id"), now.runs) != (service.primary.get("id"), service.runs):
            why = f"{service.called} now goes to {now.runs}, by a deployment that began meanwhile"
            raise RefusedError(f"{why}: it was left as it is", hint=PLAN_AGAIN)
        self.reader.ecs.call(
            "UpdateService", cluster=self.reader.cluster, service=service.name, taskDefinition=revision,
            deploymentConfiguration=guarded(service, rollback=rollback),
        )  # fmt: skip
        for one in (service.runs, revision):
            self._bakes.forget(self.reader.group_id(service.name), one)


def _name(pinned: GroupPin) -> str:
    """The revision that a pin is, as ECS is told it."""
    return pinned.template if _digest(pinned) else f"{pinned.template}:{pinned.version}"


def _digest(pinned: GroupPin) -> str:
    """The image by digest that a pin names because its revision names a tag; else empty."""
    return pinned.version if isinstance(pinned.version, str) else ""
