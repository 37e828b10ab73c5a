"""Edge: reads the services of a fleet in one ECS cluster, their task definitions, and the tasks that run of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from hardening.foundation.asking import ask_within, portions
from hardening.foundation.errors import GoldsmithError, OutsideError
from images.aws.cloud import Cloud
from images.aws.permissions import LOOKING, ResourcePattern, permit
from pipelines.fleet.delegated import GroupReader
from pipelines.fleet.docker.images import Configuration
from pipelines.fleet.ecs.services import Json, Revision, Service, short, tags_of
from pipelines.fleet.ecs.task_facts import TaskContainer, facts_of
from pipelines.fleet.members import Member, Seen, Unread, protection
from pipelines.fleet.model import Fleet, claim
from pipelines.fleet.rollout_targets import SERVICES_OF_CLUSTER, ecs
from pipelines.fleet.unstepped import FOREVER, ContainerMembers

PERMISSIONS = (
    permit(
        "ecs:DescribeTaskDefinition ecs:ListServices ecs:ListTaskDefinitions", *LOOKING, on=ResourcePattern(each="ecs")
    ),
    permit("ecs:DescribeServices", *LOOKING, on=SERVICES_OF_CLUSTER),
    permit("ecs:DescribeTasks", *LOOKING, on=ecs("task/{cluster}/*")),
    permit("ecs:ListTasks", *LOOKING, on=ecs("container-instance/{cluster}/*")),
)

SERVICES, TASKS = 10, 100  # as many as one call describes
GONE = "MISSING"
ADDED = "AWS adds it to the task, and rolls it"
BESIDE = "the fleet rolls the container {0} of its task: the owner of this one rolls it"


@dataclass
class TaskInventory:
    """All that a cluster runs of a fleet: services by group id, each member with its container; and what is unread."""

    services: dict[str, Service] = field(default_factory=dict)
    containers: dict[str, TaskContainer] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)


class ClusterReader(GroupReader):
    """The cluster of a fleet. One that cannot be reached, or denies, raises OutsideError or RefusedError.

    `rivals`: the other fleets of the cluster.
    """

    def __init__(self, fleet: Fleet, cloud: Cloud, rivals: Sequence[Fleet] = ()) -> None:
        self.fleet = fleet
        self._rivals = rivals
        self.cloud = cloud
        self.account, self.region = fleet.ecs.account or cloud.aws.account, fleet.ecs.region or cloud.home
        self.cluster = str(fleet.ecs.cluster)
        self.where = f"{self.account}/{self.region}/ecs/{self.cluster}"
        self.api = f"ECS in {self.region}"
        self.ecs = cloud.client("ecs", self.region, self.account)
        self._revisions = dict[str, Revision]()

    def group_id(self, service: str) -> str:
        """The id of a service as rollouts know it."""
        return f"{self.where}/{service}"

    def service(self, name: str) -> Service:
        """One service as it is now. Raises OutsideError where it is gone."""
        found, missing = self._described([name])
        if missing:
            raise OutsideError(f"the ECS service {name} is gone from the cluster {self.cluster}")
        return self._service(found[0])

    def services(self, only: str = "") -> tuple[dict[str, Service], list[Unread]]:
        """The services of the fleet by group id, or that one alone; and those that it names and that are not there."""
        names = [only] if only else list(self.fleet.ecs.services) or [short(str(one)) for one in self.listed()]
        shown, missing = self._described(names)
        ours = [self._service(one) for one in shown if self.fleet.selects(tags_of(one.get("tags")))]
        found = {self.group_id(one.name): one for one in ours}
        unread = dict.fromkeys(missing, "no ECS service has this name")
        unread |= dict.fromkeys((str(one["serviceName"]) for one in shown), "it has not the tags of the selector")
        named = [name for name in names if name in self.fleet.ecs.services and self.group_id(name) not in found]
        return dict(sorted(found.items())), [Unread(self.group_id(one), unread[one]) for one in named]

    def listed(self) -> Iterator[str]:
        """The ARNs of all services of the cluster."""
        return self.ecs.pages("ListServices", "serviceArns", cluster=self.cluster)

    def _described(self, names: Sequence[str]) -> tuple[list[Json], list[str]]:
        """Services as they are shown, and the names of which there is none any more."""
        shown, missing = list[Json](), list[str]()
        for some in portions(names, SERVICES):
            answer = self.ecs.call("DescribeServices", cluster=self.cluster, services=some, include=["TAGS"])
            missing += _missing(answer, some, "serviceName", answer["services"])
            shown += answer["services"]
        gone = [str(one["serviceName"]) for one in shown if one.get("status") == "INACTIVE"]
        return [one for one in shown if one["serviceName"] not in gone], [*missing, *gone]

    def _service(self, shown: Json) -> Service:
        bare = Service(shown, Revision({}, {}), "")
        revision = self.revision(bare.runs) if bare.runs else bare.revision  # an external controller names none
        return replace(bare, revision=revision, container=self._container(revision))

    def _container(self, revision: Revision) -> str:
        """The container that is rolled: the named one, or the only one."""
        names = list(revision.containers)
        return self.fleet.ecs.container or (names[0] if len(names) == 1 else "")

    def revision(self, name: str, *, anew: bool = False) -> Revision:
        """A revision of a task definition, by its ARN or name; what it says never changes, but for its status."""
        if anew or name not in self._revisions:
            answer = self.ecs.call("DescribeTaskDefinition", taskDefinition=name, include=["TAGS"])
            self._revisions[name] = Revision(answer["taskDefinition"], tags_of(answer.get("tags")))
        return self._revisions[name]

    def later(self, revision: Revision) -> Iterator[Revision]:
        """The revisions that came after that one and may be used, the newest first."""
        asked = {"familyPrefix": revision.family, "status": "ACTIVE", "sort": "DESC"}
        for arn in self.ecs.pages("ListTaskDefinitions", "taskDefinitionArns", **asked):
            family, _, number = short(str(arn)).rpartition(":")
            if family == revision.family:
                if int(number) <= revision.number:
                    return
                yield self.revision(str(arn))

    def tasks(self, service: str, status: str = "RUNNING") -> list[Json]:
        """The tasks of a service that run, or are to run; or that have stopped within the last hour."""
        asked = {"cluster": self.cluster, "serviceName": service, "desiredStatus": status}
        found = list[Json]()
        for some in portions(self.ecs.pages("ListTasks", "taskArns", **asked), TASKS):
            answer = self.ecs.call("DescribeTasks", cluster=self.cluster, tasks=some, include=["TAGS"])
            _missing(answer, some, "taskArn", answer["tasks"])  # they have stopped in between
            found += answer["tasks"]
        return found

    def inventory(self, only: str = "") -> TaskInventory:
        """All of it, or what one service runs."""
        with self.understood():
            services, unread = self.services(only)
            found = TaskInventory(services, unread=unread)
            for group, service in services.items():
                for task in self.tasks(service.name):
                    for one in self.containers(task):
                        member = self._member(one, group, service)
                        found.containers[member.id] = one
                        found.members.append(member)
            return found

    def containers(self, task: Json) -> list[TaskContainer]:
        """The containers of a task."""
        revision = self.revision(str(task["taskDefinitionArn"]))
        return [TaskContainer(task, one, revision) for one in task.get("containers") or ()]

    def _member(self, one: TaskContainer, group: str, service: Service) -> Member:
        ours = service.container in ("", one.name)  # where none is named, the service says so itself
        name = f"{service.name}-{one.task_id}" + ("" if one.name == service.container else f":{one.name}")
        until, wrong = protection(self.fleet.limits.do_not_disrupt, tags_of(one.task.get("tags")))
        beside = ADDED if one.definition is None else BESIDE.format(service.container)
        return Member(
            id=f"{self.where}/{name}",
            name=name,
            handle=str(one.shown.get("containerArn") or one.task["taskArn"]),
            image=one.image,
            digests=one.digests or (one.image,),
            since=one.since,
            healthy=one.healthy,
            protected_until=FOREVER if wrong else until,  # until somebody mends it
            cannot_roll=wrong or (f"{service.called} rolls it" if ours else beside),
            zone=str(one.task.get("availabilityZone") or ""),
            exact=one.exact,
            group=group if ours else "",
            beside="" if ours or one.definition is None else group,
            claimed_by=claim(self._rivals, tags_of(service.shown.get("tags")), service.name),
        )


def _missing(answer: Json, asked: Sequence[str], key: str, shown: Sequence[Json]) -> list[str]:
    """The names of what is not there, of an answer that shows some of what was asked for, each with its name under
    `key`. Raises OutsideError where something else failed, or not all is told.
    """
    failures = answer.get("failures") or ()
    for one in failures:
        if one.get("reason") != GONE:
            said = " ".join(str(one.get(key)) for key in ("arn", "reason", "detail") if one.get(key))
            raise OutsideError(f"ECS omitted something: {said}")
    missing = [short(str(one.get("arn") or "")) for one in failures]
    told = {*missing, *(short(str(one[key])) for one in shown)}
    if untold := [name for name in asked if short(name) not in told]:
        raise OutsideError(f"ECS omitted something without a reason: {untold[0]}")
    return missing


class TaskFleet(ContainerMembers[TaskContainer]):
    """The tasks of a fleet's services. None of them is stepped: ECS replaces them."""

    def __init__(self, reader: ClusterReader, configuration: Configuration) -> None:
        super().__init__(configuration, facts_of, "the answer of ECS")
        self.reader = reader

    def seen(self, group: str = "") -> Seen:
        """All containers of the tasks, or those of one service. A cluster that cannot be read, or not within
        `aws.read_within`, is unread.
        """
        at = self.reader
        asked = partial(at.inventory, group.removeprefix(f"{at.where}/"))
        try:
            found = ask_within(asked, at.cloud.aws.read_within)
        except GoldsmithError as error:
            return Seen((), (Unread(at.where, error.message),))
        self._last.update(found.containers)
        return Seen(tuple(sorted(found.members, key=lambda one: one.id)), tuple(found.unread))
