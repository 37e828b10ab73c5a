"""The format of `pipelines/fleets/<name>.toml`, strict and frozen. Only limits that are honoured exist."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, assert_never

from pydantic import AfterValidator, Field, model_validator

from hardening.foundation.content import Content
from hardening.foundation.durations import Duration
from hardening.foundation.engine_address import EngineAddress, engine_address
from hardening.foundation.wording import matching
from hardening.model import Name, NonEmpty
from images.model import TaggedReference
from pipelines.fleet.calendar import Amount, Budget, Freeze, Percent, Window, at_least, at_most

ADDRESSES = ("http://", "https://")  # how an alarm that is asked by HTTP begins
ORGANIZATION = "organization"
LABEL = re.compile(r"([a-z0-9.-]{1,253}/)?([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
Fraction = Annotated[float, Field(gt=0, le=1)]
Port = Annotated[int, Field(ge=1, le=65535)]
Account = Annotated[str, matching(r"^[0-9]{12}$", "an account's id: twelve digits")]
Region = Annotated[str, matching(r"^[a-z]{2}(-[a-z]+)+-[0-9]$", "a region such as eu-central-1")]


def _engine(text: str) -> str:
    return engine_address(text).text


EngineHost = Annotated[str, AfterValidator(_engine)]


def _duration(default: str, description: str) -> Any:
    """A field for a duration, whose default is written as people write it."""
    return Field(default, validate_default=True, description=description)


class FleetKind(StrEnum):
    """Where a fleet runs."""

    DOCKER = "docker"
    EC2 = "ec2"
    KUBERNETES = "kubernetes"
    ECS = "ecs"
    EKS = "eks"


class ReplacementStrategy(StrEnum):
    """How a standalone EC2 instance gets another image: a new instance, or a new root volume in the same instance."""

    INSTANCE = "instance"
    ROOT_VOLUME = "root_volume"


class Method(StrEnum):
    """How a member is replaced: the new one beside the old and then swapped, or the old one stopped first."""

    SURGE = "surge"
    IN_PLACE = "in_place"


class Zones(StrEnum):
    """How the members of one wave are spread over zones: all in one, a zone after the other; or over several."""

    ONE_BY_ONE = "one_by_one"
    SPREAD = "spread"


class Approval(StrEnum):
    """Who may begin a rollout. `required`: a second person approves its plan first; `none`: anybody, also nights."""

    REQUIRED = "required"
    NONE = "none"


HEALTH: dict[FleetKind, tuple[str, ...]] = {
    FleetKind.DOCKER: ("docker", "http", "tcp", "exec"),
    FleetKind.EC2: ("ec2", "http", "tcp"),
    FleetKind.KUBERNETES: ("kubernetes",),
    FleetKind.ECS: ("ecs",),
    FleetKind.EKS: ("eks",),
}
"""The kinds of health that fit a fleet, by where it runs."""


ELSEWHERE = (FleetKind.EC2, FleetKind.KUBERNETES, FleetKind.ECS, FleetKind.EKS)  # which say themselves how a member is
AT_AWS = (FleetKind.EC2, FleetKind.ECS, FleetKind.EKS)


class Replacement(Content):
    """What a member becomes: the release that a channel of a definition points to, or what a tag points to."""

    definition: Name | None = None
    channel: Literal["candidate", "stable"] = "stable"
    tag: NonEmpty | None = Field(
        None,
        description="registry/app:1, for application images built on a golden base: replaces what is out of policy, so "
        "a newer build on the same base is not rolled",
    )
    follow: TaggedReference | None = Field(
        None, description="docker.io/library/nginx:1.27; an image that others make, taken once its cooldown is over"
    )
    cooldown: Duration | None = Field(None, description="how long a new digest of `follow` waits; else the setting's")

    @model_validator(mode="after")
    def _one(self) -> Replacement:
        if sum(one is not None for one in (self.definition, self.tag, self.follow)) != 1:
            raise ValueError("give exactly one of definition (with channel), tag and follow")
        if self.image and "channel" in self.model_fields_set:
            raise ValueError("a channel belongs to a definition, not to a tag")
        if self.cooldown is not None and not self.follow:
            raise ValueError("a cooldown belongs to follow: our own releases soak instead (limits.min_soak)")
        return self

    @property
    def image(self) -> str | None:
        """The tag that members are made from; None where it is the release of a definition."""
        return self.tag or self.follow


class Rebuild(Content):
    """How the application images that members run are built again on a newer base: a program, or a webhook.

    It gets one JSON message: on its standard input, or by POST. It may get the same one again after a crash, which its
    `key` shows.
    """

    command: tuple[NonEmpty, ...] = Field(
        (), description="program that gets the message on its standard input; the setting rebuild_programs must name it"
    )
    webhook_file: NonEmpty | None = Field(
        None, description="file that holds an address to POST to, which is a secret and so stands in no fleet file"
    )
    timeout: Duration = _duration("30s", "for one try; whatever is asked only begins the build")

    @model_validator(mode="after")
    def _one(self) -> Rebuild:
        if bool(self.command) == bool(self.webhook_file):
            raise ValueError("give exactly one of command and webhook_file")
        if not timedelta() < self.timeout <= timedelta(minutes=10):
            raise ValueError("timeout must be longer than nothing and at most 10m")
        return self


class DockerHosts(Content):
    """Where a Docker fleet runs: without hosts, on the engine of the settings. Members are replaced where they run."""

    hosts: tuple[EngineHost, ...] = Field(
        (), max_length=100, description="engines: unix:///PATH, tcp://NAME:2376 (TLS only), or ssh://USER@NAME"
    )

    @model_validator(mode="after")
    def _apart(self) -> DockerHosts:
        labels = [one.label for one in self.addresses]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise ValueError(f"hosts names {twice[0]} twice: its members would have the same names")
        return self

    @property
    def addresses(self) -> tuple[EngineAddress, ...]:
        """The hosts, read."""
        return tuple(engine_address(host) for host in self.hosts)

    @property
    def labels(self) -> tuple[str, ...]:
        """What tells the hosts apart."""
        return tuple(one.label for one in self.addresses)


class Ec2(Content):
    """Where an EC2 fleet runs, and how its standalone instances are replaced; Auto Scaling groups roll themselves."""

    regions: tuple[Region, ...] = Field((), description="regions to look in; empty: all of the [aws] settings")
    accounts: tuple[Account, ...] | Literal["organization"] = Field(
        (),
        description="accounts to look in; empty: the one that owns the images; `organization`: all active ones of ours",
    )
    way: ReplacementStrategy = ReplacementStrategy.INSTANCE
    keep_address: bool = Field(
        False, description="the first private address is part of each member; only root_volume keeps it"
    )

    @property
    def named_accounts(self) -> tuple[str, ...]:
        """The accounts that stand in the file."""
        return () if isinstance(self.accounts, str) else self.accounts


NamespaceName = Annotated[str, matching(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", "a name such as shop: a-z, 0-9 and -")]


class Kubernetes(Content):
    """Where a Kubernetes fleet runs: one namespace of one cluster. Its controllers replace the pods themselves."""

    kubeconfig: NonEmpty | None = Field(
        None, description="file that leads to the cluster; `$NAME`: the one that this environment variable names"
    )
    context: NonEmpty | None = Field(None, description="which of its contexts; its current-context is never used")
    namespace: NamespaceName | None = Field(None, description="where the pods are")
    container: NamespaceName | None = Field(
        None, description="the container that is rolled, where pods have several; the others are only judged"
    )

    @property
    def place(self) -> tuple[str | None, ...]:
        """Where it is: two fleets there could have the same pods."""
        return self.kubeconfig, self.context, self.namespace


EcsName = Annotated[str, matching(r"^[A-Za-z0-9_-]{1,255}$", "a name such as shop: letters, digits, - and _")]


class Ecs(Content):
    """Where an ECS fleet runs: services of one cluster. ECS replaces their tasks itself."""

    cluster: EcsName | None = Field(None, description="the cluster that the services are in")
    services: tuple[EcsName, ...] = Field(
        (), description="which of its services; empty: those with the selector's tags"
    )
    container: EcsName | None = Field(
        None, description="the container that is rolled, where tasks have several; the others are only judged"
    )
    region: Region | None = Field(None, description="the region of the cluster; by default that of the [aws] settings")
    account: Account | None = Field(None, description="the account of the cluster; by default that of the settings")


EksName = Annotated[str, matching(r"^[0-9A-Za-z][A-Za-z0-9_-]{0,99}$", "a name such as shop: letters, digits, - and _")]


class Eks(Content):
    """Where an EKS fleet runs: managed node groups of one cluster. EKS replaces their nodes itself."""

    cluster: EksName | None = Field(None, description="the cluster that the node groups are in")
    node_groups: tuple[EksName, ...] = Field(
        (), description="which of its node groups; empty: all with the selector's tags"
    )
    region: Region | None = Field(None, description="the region of the cluster; by default that of the [aws] settings")
    account: Account | None = Field(None, description="the account of the cluster; by default that of the settings")


class Health(Content):
    """How a member shows that it serves; http and tcp are checked from this host.

    `docker`: the image's own health check. `ec2`: status checks and target groups, which http and tcp ask for as well.
    `kubernetes`: the probes of its pods. `ecs`: what ECS says of its tasks.
    `eks`: status checks, and what EKS says of its node groups.
    """

    kind: Literal["docker", "ec2", "kubernetes", "ecs", "eks", "http", "tcp", "exec"] = "docker"
    port: Port | None = None
    path: str = "/"
    command: tuple[NonEmpty, ...] = ()
    timeout: Duration = _duration("2s", "for one read")

    @model_validator(mode="after")
    def _complete(self) -> Health:
        if (self.kind in ("http", "tcp")) != (self.port is not None):
            raise ValueError("http and tcp need a port, and only they do")
        if (self.kind == "exec") != bool(self.command):
            raise ValueError("exec needs a command, and only it does")
        if self.kind != "http" and "path" in self.model_fields_set:
            raise ValueError("only http has a path")
        return self


class ViolatingFraction(Content):
    """The part of the fleet that may violate before the inventory looks implausible and nothing is rolled."""

    expired: Fraction = 1.0
    unknown: Fraction = 0.5


class Limits(Content):
    """What a rollout may never do, and how long it waits. Safe by default."""

    method: Method = Method.SURGE
    max_unavailable: Amount = Field(
        0, description="who may be missing, those already unhealthy included; percentages are rounded down"
    )
    max_surge: Amount = Field(1, description="new ones beside the old at once; percentages are rounded up")
    max_parallel: Annotated[int, Field(ge=1)] = Field(1, description="members that are replaced at once")
    zones: Zones = Zones.ONE_BY_ONE
    budgets: tuple[Budget, ...] = Field(
        (Budget(nodes="10%"),), description="the most restrictive of those that hold at the moment wins"
    )
    windows: tuple[Window, ...] = Field((), description="when a rollout may act; none: always")
    freezes: tuple[Freeze, ...] = Field((), description="days on which no rollout acts")
    jitter: Percent = Field(
        "50%",
        description="part of the time until its deadline, within windows, over which automated runs spread members "
        "that are merely too old; nobody waits so long that a deadline is in danger",
    )
    drain: Duration = _duration("30s", "for the old one, and on the way back the new one, to finish what it has begun")
    before_drain: tuple[NonEmpty, ...] = Field(
        (), description="command in the old container before it stops; must end with 0 within drain, each time"
    )
    after_drain: tuple[NonEmpty, ...] = Field(
        (), description="command in the container that then serves under the name, be it the new one or the old again"
    )
    settle: Duration = _duration("2s", "old and new both serve under the names: longer than clients cache them")
    canary: Annotated[int, Field(ge=0)] = Field(
        1, description="members of the first wave, after which bake_time passes"
    )
    min_healthy_time: Duration = _duration("30s", "healthy in each read over this time")
    healthy_deadline: Duration = _duration("5m", "a step that is not healthy by then fails")
    progress_deadline: Duration = _duration("30m", "a rollout in which no step ends for so long fails")
    bake_time: Duration = _duration("5m", "after the canary wave; old ones are kept")
    bake_between_waves: Duration = _duration("0s", "after each other wave")
    auto_promote: bool = Field(True, description="false: after the canary's bake it waits for roll.approve")
    auto_rollback: bool = Field(True, description="false: after a failure those that are well stay new")
    alarms: tuple[NonEmpty, ...] = Field(
        (),
        description="what pauses a rollout and rolls it back while it fires: CloudWatch alarms by name (at AWS), or "
        "addresses (http://...) that answer with anything but a success meanwhile",
    )
    min_soak: Duration = _duration("0s", "a younger replacement is not rolled out")
    min_remaining: Duration = _duration("7d", "a replacement that expires sooner is refused")
    max_violating_fraction: ViolatingFraction = ViolatingFraction()
    do_not_disrupt: NonEmpty = Field(
        "dev.goldsmith.do-not-disrupt-until",
        description="label by which a member opts out; its value is a date with time",
    )
    termination_grace: Duration = _duration(
        "1h", "so long after the policy's deadline do_not_disrupt no longer protects"
    )
    rehearsal: bool = Field(
        True,
        description="docker, in place: before the old one stops, the new one is tried beside it, without its ports and "
        "names; volumes are empty there, bind mounts read-only",
    )
    unwritten_mounts: tuple[str, ...] = Field(
        (),
        description="docker: writable mounts, by path in the container, that the new image's user need not write",
    )
    shared_mounts: tuple[str, ...] = Field(
        (), description="writable mounts, by path in the container, that old and new may both hold during a surge"
    )

    @model_validator(mode="after")
    def _reachable(self) -> Limits:
        if self.healthy_deadline <= self.min_healthy_time:
            raise ValueError("healthy_deadline must be longer than min_healthy_time, or no step can succeed")
        if self.progress_deadline <= self.healthy_deadline:
            raise ValueError("progress_deadline must be longer than healthy_deadline, which ends each step before")
        if self.method is Method.SURGE and self.max_surge in (0, "0%"):
            raise ValueError('max_surge 0 lets method "surge" replace no member: raise it, or set method = "in_place"')
        return self

    @property
    def named_alarms(self) -> tuple[str, ...]:
        """Those of CloudWatch, which are no addresses."""
        return tuple(one for one in self.alarms if not one.startswith(ADDRESSES))

    def unavailable(self, desired: int) -> int:
        """How many of `desired` members may be unavailable at once."""
        return at_most(self.max_unavailable, desired)

    def surge(self, desired: int) -> int:
        """How many new ones may stand beside `desired` members at once."""
        return at_least(self.max_surge, desired)


class Fleet(Content):
    """Members that are kept on one golden image, or on application images built on one."""

    name: Name
    title: NonEmpty
    owner: NonEmpty
    kind: FleetKind
    selector: dict[str, str] = Field(
        {}, description="labels (docker, kubernetes) or tags (ec2; of ecs services, eks node groups) that all carry"
    )
    policy: Name = "default"
    replacement: Replacement
    rebuild: Rebuild | None = Field(None, description="what builds the application images that members run again")
    approval: Approval = Approval.REQUIRED
    docker: DockerHosts = DockerHosts()
    ec2: Ec2 = Ec2()
    kubernetes: Kubernetes = Kubernetes()
    ecs: Ecs = Ecs()
    eks: Eks = Eks()
    health: Health = Health()
    limits: Limits = Limits()

    @model_validator(mode="before")
    @classmethod
    def _own_health(cls, data: Any) -> Any:
        """Where nothing else is asked for, the place itself says how a member is."""
        own = isinstance(data, dict) and data.get("kind") in ELSEWHERE
        if own and isinstance(data.get("health", {}), dict):
            return {**data, "health": {"kind": str(data["kind"]), **data.get("health", {})}}
        return data

    @model_validator(mode="after")
    def _of_one_kind(self) -> Fleet:
        if not (self.selector or self.ecs.services or self.eks.node_groups):
            raise ValueError("selector is missing: nothing else says which members are meant")
        for kind in FleetKind:
            if self.kind is not kind and kind in self.model_fields_set:
                raise ValueError(f'the table [{kind}] belongs to a fleet of kind "{kind}"')
        if self.kind not in AT_AWS and (names := self.limits.named_alarms):
            raise ValueError(f"limits.alarms: {names[0]} is not an address: only ec2, ecs and eks have alarms by name")
        if self.health.kind not in HEALTH[self.kind]:
            raise ValueError(f"health.kind {self.health.kind} does not fit a fleet of kind {self.kind}")
        if self.kind is not FleetKind.DOCKER and (self.limits.before_drain or self.limits.after_drain):
            raise ValueError("limits.before_drain and after_drain run in containers: a fleet of kind docker has them")
        return self

    @model_validator(mode="after")
    def _complete(self) -> Fleet:
        match self.kind:
            case FleetKind.EC2 | FleetKind.EKS:
                if self.rebuild:
                    raise ValueError("rebuild is for application images: a fleet of kind docker has them")
                if self.replacement.image:
                    raise ValueError("an EC2 fleet runs machine images: its replacement is a definition, not a tag")
                if self.kind is FleetKind.EKS:
                    self._require("eks", "cluster")
            case FleetKind.KUBERNETES:
                self._require("kubernetes", "kubeconfig", "context", "namespace")
                if wrong := [one for pair in self.selector.items() for one in pair if not LABEL.fullmatch(one)]:
                    raise ValueError(f"selector: {wrong[0]} cannot be a Kubernetes label")
            case FleetKind.ECS:
                self._require("ecs", "cluster")
            case FleetKind.DOCKER:
                self._refuse_asking_from_here()
            case _:
                assert_never(self.kind)
        return self

    def selects(self, labels: Mapping[str, str] | None) -> bool:
        """Whether something carries all of the selector's labels, or tags."""
        return self.selector.items() <= (labels or {}).items()

    @property
    def named_regions(self) -> tuple[str, ...]:
        """The regions of AWS that its file names; none: those of the settings."""
        return tuple(filter(None, (*self.ec2.regions, self.ecs.region, self.eks.region)))

    def _refuse_asking_from_here(self) -> None:
        """The address of a container leads nowhere from another machine, or to a container of that machine's own."""
        far = next((one.text for one in self.docker.addresses if one.is_remote), "")
        if far and self.health.kind in ("http", "tcp"):
            raise ValueError(
                f"health.kind {self.health.kind} asks a container's own address from here, which leads to no "
                f'container of {far}: use "docker" or "exec", which the engine asks'
            )

    def _require(self, table: str, *keys: str) -> None:
        """Raise ValueError where a key is missing of the table that says where the fleet runs."""
        for key in keys:
            if getattr(getattr(self, table), key) is None:
                raise ValueError(f"{table}.{key} is missing: nothing else says which members are meant")


def claim(rivals: Iterable[Fleet], labels: Mapping[str, str] | None, name: str = "") -> str:
    """The first of the other fleets of a place that selects something with these labels or tags; empty: none does.

    `name`: its service or node group, where a fleet may list those that it means.
    """
    among = ((one, (*one.ecs.services, *one.eks.node_groups) or (name,)) for one in rivals)
    return next((one.name for one, names in among if one.selects(labels) and name in names), "")
