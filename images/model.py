"""The format of `images/definitions/<name>/image.toml`, as a strict frozen model."""

from __future__ import annotations

import posixpath
import re
from datetime import date, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from hardening.foundation.content import Content, MisplacedError
from hardening.foundation.durations import Duration
from hardening.foundation.wording import matching
from hardening.model import IN_LINE, ImagePath, Kind, Mode, Name, NonEmpty, Owner
from images.packages import debian

Platform = Annotated[str, matching(r"^linux/(amd64|arm64)$", "linux/amd64 or linux/arm64")]

# Values reach apt, Dockerfiles and paths of the host: nothing of them may be an option there, or a line of its own.
PackageName = Annotated[
    str, matching(f"^{debian.WANTED_NAME}$", "a package's name alone: small letters, digits and + - .")
]
Suite = Annotated[str, matching(f"^{debian.SUITE}$", "a suite's name such as trixie")]
Component = Annotated[str, matching(f"^{debian.COMPONENT}$", "a name of small letters, digits and dashes")]
Line = Annotated[str, matching(rf"^{IN_LINE}*$", "one line, without control characters")]
# What registries take: https://pkg.go.dev/github.com/distribution/reference
_PART = "[A-Za-z0-9][A-Za-z0-9._-]*"
_REPOSITORY, _TAG = rf"({_PART}|\[[0-9a-fA-F:]+\])(:[0-9]+)?(/{_PART})*", ":[A-Za-z0-9_][A-Za-z0-9._-]*"
Reference = Annotated[
    str,
    matching(
        rf"^{_REPOSITORY}({_TAG})?(@sha256:[0-9a-f]{{64}})?$",
        "the name of an image in a registry such as registry.example.com/debian:13",
    ),
]
TaggedReference = Annotated[
    str,
    matching(rf"^{_REPOSITORY}{_TAG}$", "an image by its tag alone, such as docker.io/library/nginx:1.27"),
]
Variable = Annotated[str, matching(r"^[A-Za-z_][A-Za-z0-9_]*$", "a variable's name: letters, digits and _")]
Port = Annotated[str, matching(r"^[0-9]{1,5}(/(tcp|udp|sctp))?$", 'a port such as "8080/tcp"')]
User = Annotated[str, matching(r"^([A-Za-z0-9_][A-Za-z0-9_.:-]*)?$", 'a user by number or name, such as "65532:65532"')]
Workdir = Annotated[
    str, matching(r"^(/[^\x00-\x1f\x7f-\x9f\u2028\u2029\\]*)?$", "an absolute path, without control characters")
]
Signal = Annotated[str, matching(r"^[A-Z0-9+]*$", "a signal such as SIGTERM")]
KernelWord = Annotated[str, matching(r"^[!#-~]+$", 'one kernel parameter such as "audit=1", without spaces and quotes')]
Listener = Annotated[str, matching(r"^[0-9]{1,5}/(tcp|udp)$", 'a port with its protocol, such as "22/tcp"')]
# What the control entrypoint-protected refuses of volumes, but for what programs write to below /run, /dev and a home.
_SYSTEM = re.compile(
    r"/|/(bin|boot|etc|lib[^/]*|proc|sbin|sys|usr)(/.*)?|/(dev|opt|root|var|var/lib)|/var/lib/(dpkg|apt)(/.*)?"
)


def _is_writable_place(path: str) -> str:
    if _SYSTEM.fullmatch(posixpath.normpath("/" + path.lstrip("/"))):
        raise MisplacedError(
            f"{path} is a folder of the system, and everybody may write to a tmpfs",
            "name what the program writes to, such as /tmp, /run or /var/cache/NAME",
        )
    return path


Size = Annotated[str, matching(r"^[1-9][0-9]{0,5}[MG]$", 'a size such as "512M" or "2G"')]


class Bootstrap(Content):
    """A base made from a distribution's packages. `variant`: `minbase` (a working system) or `static` (only the
    packages named, unpacked and never configured: no shell, no package manager).
    """

    family: Literal["debian"]
    suite: Suite
    variant: Literal["minbase", "static"] = "minbase"
    components: Annotated[tuple[Component, ...], Field(min_length=1)] = ("main",)


class Base(Content):
    """What the image is based on: exactly one of the three."""

    bootstrap: Bootstrap | None = None
    image: Reference | None = Field(None, description="upstream image by tag; its digest stands in images.lock.toml")
    golden: Name | None = Field(None, description="another definition")

    @model_validator(mode="after")
    def _one(self) -> Base:
        if sum(value is not None for value in (self.bootstrap, self.image, self.golden)) != 1:
            raise ValueError("give exactly one of bootstrap, image, golden")
        return self


class CopiedFile(Content):
    """A file of the definition's folder that goes into the image; `template` renders it with Jinja2 first."""

    source: NonEmpty
    path: ImagePath
    mode: Annotated[str, Mode] = "0644"
    owner: Annotated[str, Owner] = "0:0"


REASON_WORDS = 3  # as the control healthcheck counts them


class Healthcheck(Content):
    """The OCI/Docker health check, or the documented reason for having none. Empty: the base's applies."""

    command: tuple[str, ...] = ()
    interval: Duration = Field("10s", validate_default=True)
    timeout: Duration = Field("3s", validate_default=True)
    retries: int = 3
    none_because: str = ""

    @model_validator(mode="after")
    def _one(self) -> Healthcheck:
        if self.command and self.none_because:
            raise ValueError("give a command or none_because, not both")
        if self.none_because and len(self.none_because.split()) < REASON_WORDS:
            raise ValueError(f'none_because says why in {REASON_WORDS} words or more, not "{self.none_because}"')
        return self


class Machine(Content):
    """What only a machine image has; kernel parameters and listeners are added to those of its golden base.

    The disk is sized from what it holds; a machine grows it when it first boots.
    """

    command_line: tuple[KernelWord, ...] = Field((), description="kernel parameters beside those that controls bring")
    listens: tuple[Listener, ...] = Field(
        (), description="what may listen on other addresses than loopback once booted, such as 22/tcp"
    )
    minimum_size: Size | None = Field(None, description='smallest root file system, such as "2G"')
    builder: Literal["packages", "mkosi"] = Field(
        "packages", description="mkosi: the mkosi.conf beside image.toml says what is installed, not `packages`"
    )

    @property
    def minimum_bytes(self) -> int:
        """`minimum_size` in bytes; 0 without one."""
        return int(self.minimum_size[:-1]) << {"M": 20, "G": 30}[self.minimum_size[-1]] if self.minimum_size else 0


class Lifecycle(Content):
    """Dates of a release, counted from the day it is published; and the cooldown of what it is made from."""

    expires_after: Duration = Field("30d", validate_default=True, ge=timedelta(hours=1), le=timedelta(days=3660))
    warn_before: Duration = Field("7d", validate_default=True)
    support_until: date | None = None
    soak: Duration = Field(
        "24h", validate_default=True, description="how long it is `candidate` before a nightly run moves `stable` to it"
    )
    keep_last: int | None = Field(
        None, ge=0, le=1000, description="how many different images `image.prune` keeps; else as the settings say"
    )
    keep_for: Duration | None = Field(
        None, description="how long a release stays once it is expired or superseded; else as the settings say"
    )
    cooldown: Duration | None = Field(
        None, description="how long its upstream base, and packages from outside the distribution's archive, must have "
        "been seen before they are taken; else as the settings say",
    )  # fmt: skip


FILES = ".goldsmith-files"  # where a build context holds the definition's `files`, rendered, under their own paths

CONTAINER_ONLY = (
    "user", "workdir", "environment", "entrypoint", "command", "ports", "stop_signal", "healthcheck", "smoke", "tmpfs",
)  # fmt: skip


class Definition(Content):
    """One golden image."""

    name: Name
    title: NonEmpty
    owner: NonEmpty
    kind: Kind
    base: Base
    platforms: Annotated[tuple[Platform, ...], Field(min_length=1)] = ("linux/amd64",)
    packages: tuple[PackageName, ...] = ()
    profile: Name
    promote: Literal["auto", "manual"] = Field(
        "auto", description="whether a nightly run may move `stable` to what the gate let through, or a person does"
    )
    profile_params: dict[str, dict[str, object]] = Field({}, description="control → params, over the profile's own")
    policy: Name = "default"
    files: tuple[CopiedFile, ...] = ()
    user: User = Field("", description="default user, by number or name; empty: the base's")
    workdir: Workdir = ""
    environment: dict[Variable, Line] = {}
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    ports: tuple[Port, ...] = Field((), description="exposed, such as 8080/tcp")
    stop_signal: Signal = ""
    healthcheck: Healthcheck = Healthcheck()
    smoke: tuple[str, ...] = Field(
        (), description="command that must end with 0 with a read-only root and no capabilities"
    )
    tmpfs: tuple[Annotated[ImagePath, AfterValidator(_is_writable_place)], ...] = Field(
        (), description="directories the image needs writable when its root is read-only"
    )
    lifecycle: Lifecycle = Lifecycle()
    labels: dict[Line, Line] = {}
    machine: Machine | None = None

    @field_validator(*CONTAINER_ONLY)
    @classmethod
    def _only_containers(cls, value: object, info: ValidationInfo) -> object:
        if info.data.get("kind") is Kind.MACHINE:
            raise MisplacedError("only a container has it", "take it out: services and files say how a machine runs")
        return value

    @field_validator("machine")
    @classmethod
    def _only_machines(cls, value: Machine | None, info: ValidationInfo) -> Machine | None:
        if info.data.get("kind") is Kind.CONTAINER:
            raise MisplacedError("only a machine has it", 'take it out, or make this kind = "machine"')
        if value and value.builder == "mkosi":
            base = info.data.get("base")
            also = "packages" if info.data.get("packages") else "base.golden" if base and base.golden else ""
            if also:
                hint = f"take {also} out, or builder; a bootstrap names the suite that mkosi installs from"
                raise MisplacedError(
                    f'{also} does not go with builder = "mkosi": mkosi.conf says what is installed', hint
                )
        return value

    @field_validator("base")
    @classmethod
    def _base_of_its_kind(cls, base: Base, info: ValidationInfo) -> Base:
        static = base.bootstrap is not None and base.bootstrap.variant == "static"
        if info.data.get("kind") is Kind.MACHINE and (base.image or static):
            hint = 'such as bootstrap = { family = "debian", suite = "trixie" }, or golden with the name of a machine'
            raise MisplacedError(
                "a machine stands on a bootstrap of variant minbase, or on another golden machine", hint
            )
        return base

    @property
    def is_machine(self) -> bool:
        """Whether it becomes a bootable disk."""
        return self.kind is Kind.MACHINE

    @property
    def required_as(self) -> str:
        """The key under which a policy names the profile that it requires of this image."""
        bootstrap = self.base.bootstrap
        return "static" if bootstrap and bootstrap.variant == "static" else str(self.kind)

    @property
    def is_mkosi(self) -> bool:
        """Whether an mkosi configuration beside the definition says what is installed."""
        return self.machine is not None and self.machine.builder == "mkosi"

    @property
    def parent(self) -> str | None:
        """The definition this one is built on, if it is one of ours."""
        return self.base.golden
