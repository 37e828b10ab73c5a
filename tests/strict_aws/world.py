"""What the emulator knows beside moto: snapshots, images, tokens, account settings, a clock, waiting times."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tests.strict_aws.blocks import BlockStore
from tests.strict_aws.errors import AwsError
from tests.strict_aws.faults import Faults
from tests.strict_aws.journal import Journal, summary
from tests.strict_aws.timeline import TAKES, Ailments, Timeline

NEVER = datetime.max.replace(tzinfo=UTC)


class Clock:
    """Real time plus what tests moved it on, so that hours pass at once; frozen, it is moved on only."""

    def __init__(self) -> None:
        self._ahead = timedelta()
        self._frozen: datetime | None = None

    def now(self) -> datetime:
        return (self._frozen or datetime.fromtimestamp(time.time(), UTC)) + self._ahead

    def freeze(self) -> None:
        self._frozen = self._frozen or datetime.fromtimestamp(time.time(), UTC)

    def advance(self, seconds: float) -> None:
        self._ahead += timedelta(seconds=seconds)


@dataclass
class Waits:
    """How long snapshots and copies stay pending, in seconds; held, they stay so until released."""

    seconds: float = 0.05
    held: bool = False


@dataclass
class Snapshot:
    """A snapshot: what was written to it, and what it inherited when it was started."""

    id: str
    owner: str
    region: str
    size_gib: int
    start: datetime
    description: str = ""
    volume: str = "vol-ffffffff"
    key: str | None = None  # ARN of the KMS key; None: not encrypted
    parent: str | None = None
    lineage: str = ""
    inherited: dict[int, bytes] = field(default_factory=dict)
    written: dict[int, bytes] = field(default_factory=dict)
    document: bool = False  # CompleteSnapshot came: no more blocks
    ready: datetime | None = None  # from when it is completed
    touched: datetime | None = None  # the last block
    timeout: timedelta | None = None  # EBS direct only
    failed: str = ""
    users: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)

    def block(self, index: int) -> bytes | None:
        """The digest of what lies there; None where nothing was ever written."""
        return self.written.get(index, self.inherited.get(index))

    def blocks(self) -> dict[int, bytes]:
        return dict(sorted({**self.inherited, **self.written}.items()))


@dataclass
class Image:
    """An AMI; `shown` holds what RegisterImage was given, in the shapes of DescribeImages."""

    id: str
    owner: str
    region: str
    name: str
    created: datetime
    shown: dict[str, Any]
    ready: datetime | None = None  # a copy is pending until then
    copied_from: str = ""
    disabled: bool = False
    deprecate_at: datetime | None = None
    protected: bool = False
    protection_ends: datetime | None = None
    cooldown: bool = False
    launched: datetime | None = None
    failed: bool = False
    permissions: list[dict[str, str]] = field(default_factory=list)

    def snapshots(self) -> list[str]:
        ebs = [mapping.get("Ebs", {}) for mapping in self.shown.get("BlockDeviceMappings", [])]
        return [entry["SnapshotId"] for entry in ebs if "SnapshotId" in entry]


@dataclass
class Account:
    """What an account has switched on in a region."""

    encrypt: bool = False
    default_key: str = ""
    block_images: bool = False
    block_snapshots: str = "unblocked"


class Place(NamedTuple):
    """An account in a region."""

    account: str
    region: str


@dataclass
class World:
    """Everything; `lock` guards it, handlers run under it unless they say otherwise."""

    clock: Clock = field(default_factory=Clock)
    waits: Waits = field(default_factory=Waits)
    blocks: BlockStore = field(default_factory=BlockStore)
    faults: Faults = field(default_factory=Faults)
    journal: Journal = field(default_factory=Journal)
    lock: Any = field(default_factory=threading.RLock)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    accounts: dict[tuple[str, str], Account] = field(default_factory=lambda: defaultdict(Account))
    reports: dict[str, Any] = field(default_factory=dict)  # of who uses an image, by id
    organizations: dict[str, str] = field(default_factory=dict)  # account → ARN of its organisation
    members: dict[str, str] = field(default_factory=dict)  # account of the organisation → its state
    managing: set[str] = field(default_factory=set)  # accounts that may list them
    external_ids: dict[str, str] = field(default_factory=dict)  # ARN of a role → what whoever assumes it must say
    tokens: dict[tuple[str, ...], tuple[str, Any]] = field(default_factory=dict)
    copies_at_once: int = 20
    page_at_most: int = 1000  # AWS may give fewer than were asked for
    roots: dict[str, Any] = field(default_factory=dict)  # tasks that replace root volumes, by id
    targets: dict[str, Any] = field(default_factory=dict)  # registered targets by ARN of their group
    refreshes: list[Any] = field(default_factory=list)  # instance refreshes, the oldest first
    ecs: dict[tuple[str, str], Any] = field(default_factory=dict)  # ECS by account and region
    eks: dict[tuple[str, str], Any] = field(default_factory=dict)  # clusters of EKS by account and region
    digests: dict[str, str] = field(default_factory=dict)  # what tags of registries name, by reference
    timeline: Timeline = field(default_factory=Timeline)
    takes: dict[str, float] = field(default_factory=lambda: dict(TAKES))
    ailments: Ailments = field(default_factory=Ailments)
    policies: dict[str, list[dict[str, Any]]] | None = None  # of the role that we are, by account; None: all is allowed
    asked: list[dict[str, Any]] = field(default_factory=list)  # every right that was asked for under them

    def ready_at(self) -> datetime:
        """When something that starts now is done; never, while held."""
        return NEVER if self.waits.held else self.now() + timedelta(seconds=self.waits.seconds)

    def release(self) -> None:
        """Let go of what is held: it is done from now on."""
        self.waits.held = False
        for pending in [*self.snapshots.values(), *self.images.values()]:
            if pending.ready == NEVER:
                pending.ready = self.now()

    def now(self) -> datetime:
        """The emulator's time; while something happens that was due before, the time that it was due at."""
        return self.timeline.moment or self.clock.now()

    def settle(self) -> None:
        """Let happen what is due."""
        self.timeline.settle(self.clock.now())

    def after(self, what: str, act: Callable[[], None]) -> None:
        """Let `act` happen when `what`, one of `takes`, has taken its time."""
        self.timeline.at(self.now() + timedelta(seconds=self.takes[what]), act)

    def state_of(self, snapshot: Snapshot) -> str:
        """pending, completed or error; a snapshot that nobody completed in time is cancelled."""
        waited = self.now() - (snapshot.touched or snapshot.start)
        if snapshot.timeout and not snapshot.document and waited > snapshot.timeout:
            snapshot.failed = "The snapshot was not completed in time"
        if snapshot.failed:
            return "error"
        return "completed" if snapshot.ready and snapshot.ready <= self.now() else "pending"

    def state_of_image(self, image: Image) -> str:
        if image.failed:
            return "failed"
        if image.ready and image.ready > self.now():
            return "pending"
        return "disabled" if image.disabled else "available"

    def once(self, scope: tuple[str, ...], token: str | None, params: dict[str, Any], act: Callable[[], Any],
             differs: AwsError) -> Any:  # fmt: skip
        """The answer of the first call with this token; the same token with other parameters is `differs`."""
        if not token:
            return act()
        digest = digest_of({name: value for name, value in params.items() if name != "ClientToken"})
        known = self.tokens.get((*scope, token))
        if known and known[0] != digest:
            raise differs
        if known:
            return known[1]
        answer = act()
        if getattr(answer, "status", 200) < 400:  # a refusal uses no token up
            self.tokens[*scope, token] = (digest, answer)
        return answer


def digest_of(params: dict[str, Any]) -> str:
    """A digest of parameters; byte strings count by their own digest."""
    return hashlib.sha256(json.dumps(summary(params), sort_keys=True, default=str).encode()).hexdigest()


def new_id(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(9)[:17]}"
