"""What people write in `pipelines/fleets/<name>.toml`, strict and frozen. Only limits that are honoured exist."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hardening.foundation.content import Content
from hardening.foundation.durations import Duration
from hardening.model import Name, NonEmpty

Fraction = Annotated[float, Field(gt=0, le=1)]
Port = Annotated[int, Field(ge=1, le=65535)]


class FleetKind(StrEnum):
    """Where a fleet runs."""

    DOCKER = "docker"


class Method(StrEnum):
    """How a member is replaced: the new one beside the old and then swapped, or the old one stopped first."""

    SURGE = "surge"
    IN_PLACE = "in_place"


class Approval(StrEnum):
    """Whether an automated run may roll this fleet by itself."""

    REQUIRED = "required"
    NONE = "none"


class Replacement(Content):
    """What a member becomes: the release that a channel of a definition points to, or what a tag points to."""

    definition: Name | None = None
    channel: Literal["candidate", "stable"] = "stable"
    tag: NonEmpty | None = Field(None, description="registry/app:1; for application images built on a golden base")

    @model_validator(mode="after")
    def _one(self) -> Replacement:
        if (self.definition is None) == (self.tag is None):
            raise ValueError("give exactly one of definition (with channel) and tag")
        if self.tag and "channel" in self.model_fields_set:
            raise ValueError("a channel belongs to a definition, not to a tag")
        return self


class Health(Content):
    """How a member shows that it serves. `docker`: the image's own health check; http and tcp: asked from this host."""

    kind: Literal["docker", "http", "tcp", "exec"] = "docker"
    port: Port | None = None
    path: str = "/"
    command: tuple[NonEmpty, ...] = ()
    timeout: Duration = Field("2s", validate_default=True, description="for one read")

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
    """Which part of the fleet may violate before the inventory itself looks implausible and nothing is rolled."""

    expired: Fraction = 1.0
    unknown: Fraction = 0.5


class Limits(Content):
    """What a rollout may never do, and how long it waits. Safe by default."""

    method: Method = Method.SURGE
    max_unavailable: Annotated[int, Field(ge=0)] | str = Field(
        0, description="a number, or a percentage of the fleet such as 25%, rounded down"
    )
    drain: Duration = Field("30s", validate_default=True, description="for the old one to finish what it has begun")
    settle: Duration = Field(
        "2s",
        validate_default=True,
        description="old and new both serve under the names: longer than clients cache them",
    )
    canary: Annotated[int, Field(ge=0)] = Field(
        1, description="members of the first wave, after which bake_time passes"
    )
    min_healthy_time: Duration = Field("30s", validate_default=True, description="healthy in each read over this time")
    healthy_deadline: Duration = Field(
        "5m", validate_default=True, description="a step that is not healthy by then fails"
    )
    bake_time: Duration = Field("5m", validate_default=True, description="after the canary wave; old ones are kept")
    min_soak: Duration = Field("0s", validate_default=True, description="a younger replacement is not rolled out")
    min_remaining: Duration = Field(
        "7d", validate_default=True, description="a replacement that expires sooner is refused"
    )
    max_violating_fraction: ViolatingFraction = ViolatingFraction()
    do_not_disrupt: NonEmpty = Field(
        "dev.goldsmith.do-not-disrupt-until",
        description="label by which a member opts out; its value is a date with time",
    )
    termination_grace: Duration = Field(
        "1h", validate_default=True, description="so long after the policy's deadline do_not_disrupt no longer protects"
    )
    shared_mounts: tuple[str, ...] = Field(
        (), description="writable mounts, by path in the container, that old and new may both hold during a surge"
    )

    @model_validator(mode="after")
    def _reachable(self) -> Limits:
        if isinstance(self.max_unavailable, str) and not re.fullmatch(r"\d{1,2}%|100%", self.max_unavailable):
            raise ValueError(f"max_unavailable is a number or a percentage such as 25%, not {self.max_unavailable!r}")
        if self.healthy_deadline <= self.min_healthy_time:
            raise ValueError("healthy_deadline must be longer than min_healthy_time, or no step can succeed")
        return self

    def unavailable(self, desired: int) -> int:
        """How many of `desired` members may be unavailable at once."""
        if isinstance(self.max_unavailable, int):
            return self.max_unavailable
        return desired * int(self.max_unavailable.rstrip("%")) // 100


class Fleet(Content):
    """Members that are kept on one golden image, or on application images built on one."""

    name: Name
    title: NonEmpty
    owner: NonEmpty
    kind: FleetKind
    selector: Annotated[dict[str, str], Field(min_length=1, description="labels that all members carry")]
    policy: Name = "default"
    replacement: Replacement
    approval: Approval = Approval.REQUIRED
    health: Health = Health()
    limits: Limits = Limits()
