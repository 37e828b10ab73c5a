"""The values of fleets: members, and what is known of their images. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from hardening.foundation.errors import OutsideError
from images.artifact import Release
from pipelines.fleet.model import Method

OWN_LABELS = "dev.goldsmith."
ROLLOUT, MEMBER, EXPIRY = (OWN_LABELS + word for word in ("rollout", "member", "expiry"))
OWNED = f"{OWN_LABELS}owned"  # an EC2 instance that rollouts may terminate: a launch says so, or a person
KEPT = f"{OWN_LABELS}kept"  # the rollout that keeps a copy of a member's old container
KEPT_LABELS = f"{OWN_LABELS}kept-labels"  # the labels that the copy does without, as JSON
BACK = "-back"  # a rollback launches under the rollout's name with this suffix
REHEARSAL = "-rehearsal"  # and so does the trial of a new instance beside the old one
OLD = ".old."  # between a member's name and the rollout that keeps its old instance
AT = "@"  # between a container and its host in a member's name: no container's name has it
MANAGERS = {"com.docker.swarm.": "Docker Swarm", "io.kubernetes.": "Kubernetes", "com.hashicorp.nomad.": "Nomad"}


def managed_by(labels: Iterable[str]) -> str:
    """The orchestrator that made a container with these labels and would undo its replacement; empty: none did."""
    return next((name for prefix, name in MANAGERS.items() if any(key.startswith(prefix) for key in labels)), "")


def given_labels(labels: Mapping[str, str], of_image: Mapping[str, str] | None) -> dict[str, str]:
    """The labels of a container without its image's: the engine merges both, so that one that was given with the very
    value that it has in the image does not count either.
    """
    return {key: value for key, value in labels.items() if (of_image or {}).get(key) != value}


def of_the_image(name: str, selector: Mapping[str, str], given: Mapping[str, str]) -> str:
    """The warning about a container that has the labels of a selector, but some from its image."""
    doubtful = ", ".join(f"{key}={value}" for key, value in selector.items() if given.get(key) != value)
    return (
        f"{name} is left out: its image sets {doubtful} too, and only labels of the container itself count; "
        "build the image without that label, or start the container with another"
    )


def lender(mode: str | None) -> str:
    """The id or name of the container whose namespace a mode of Docker, as NetworkMode, shares; empty: no container's.

    No name of a network has a colon.
    """
    return (mode or "").partition("container:")[2]


def is_shared(mode: str | None) -> bool:
    """Whether a mode shares the host's namespace or another container's. A network may be called `hosting`."""
    return mode == "host" or bool(lender(mode))


@dataclass(frozen=True)
class Member:
    """One running instance. `id` is `account/region/kind/id`; `handle` is the engine's name for this exact instance.

    `image` is the reference it was started from, `digests` every digest by which its image may be known, `layers` the
    digests of its unpacked layers, base first. `since` is when it was made. `protected_until` is what its
    do-not-disrupt label says. `forced_in_place` names what cannot exist twice; `cannot_roll` why it cannot be replaced
    at all. `zone` is where it stands, empty where its kind knows no zones. `exact` is the reference, by digest or id,
    that a rollback goes to. `group` is the group whose service replaces it; empty: we step it. `beside` is the group
    that starts it again with another container, which it rolls. `defined_in` is what else defines it and would undo the
    replacement, unless it names the new image as well. `stopped`: it does not run. `claimed_by`: another fleet that
    selects it. `first_check`: after how many seconds its own health check is first asked in a new one. `starting`: the
    engine still gives it time to become healthy.
    """

    id: str
    name: str
    handle: str
    image: str
    digests: tuple[str, ...]
    layers: tuple[str, ...] = ()
    since: datetime | None = None
    healthy: bool = True
    protected_until: datetime | None = None
    forced_in_place: tuple[str, ...] = ()
    cannot_roll: str = ""
    zone: str = ""
    exact: str = ""
    group: str = ""
    defined_in: str = ""
    beside: str = ""
    stopped: bool = False
    claimed_by: str = ""
    first_check: int = 0
    starting: bool = False

    @property
    def known_by(self) -> tuple[str, ...]:
        """Every digest by which its image may be known, and the one that it was started by: a runtime may tell another,
        that of the part for its platform.
        """
        started_by = self.image.partition("@")[2]
        return (*self.digests, *([started_by] if started_by and started_by not in self.digests else []))


@dataclass(frozen=True)
class Unread:
    """A part of a fleet that could not be read, and why. `id` is as far as a member's would go: `account/region`."""

    id: str
    why: str


@dataclass(frozen=True)
class Seen:
    """All that a fleet's selector finds: members that we step, and what a service rolls; and what could not be read."""

    members: tuple[Member, ...]
    unread: tuple[Unread, ...] = ()


def require_read(unread: Sequence[Unread], what: str) -> None:
    """Raise OutsideError where something of a fleet could not be read: who was not seen might be needed."""
    if unread:
        shown = "\n".join(f"{one.id}: {one.why}" for one in unread)
        raise OutsideError(f"not every {what} of the fleet can be read", evidence=shown)


@dataclass(frozen=True)
class Followed:
    """An image that others made, from a followed tag: first seen here at `seen`; None: it never was.

    `newer` is another digest that the tag may be taken at, since `newer_since`; empty where there is none yet. `older`:
    the digests that the tag named before what runs. `digest`: by which a registry knows what runs, if any is known.
    """

    tag: str
    seen: datetime | None
    newer: str = ""
    newer_since: datetime | None = None
    older: frozenset[str] = frozenset()
    digest: str = ""


@dataclass(frozen=True)
class Provenance:
    """Where a member's image comes from, according to the ledger and the registry.

    `release` is the newest release over the member's own content, and its date is the member's date. `base` is the
    newest release over the golden content that an application image stands on. `latest` is what the channel of that
    golden image points to, since `latest_since`. `refused_because`: why the present policy would not let the golden
    image be published, since `refused_since`. `lacks`: fixes that the policy still gives time for, until `lacks_until`.
    `latest_too`: all of that holds for `latest` too. `followed`: what the tag that the fleet follows says of an image
    that others made. `unread`: why a registry did not answer; all else is then what is known without it.
    """

    release: Release | None = None
    base: Release | None = None
    latest: Release | None = None
    latest_since: datetime | None = None
    refused_because: str = ""
    refused_since: datetime | None = None
    lacks: str = ""
    lacks_since: datetime | None = None
    lacks_until: datetime | None = None
    followed: Followed | None = None
    unread: str = ""
    latest_too: bool = False

    @property
    def golden(self) -> Release | None:
        """The golden release that the member is judged by: its own, or its base's."""
        return self.release or self.base


def newest(releases: Sequence[Release]) -> Release | None:
    """What dates a content: the newest of the releases over it.

    It counts as revoked if any of them is, for a revocation is about what is inside.
    """
    if not releases:
        return None
    last = max(releases, key=lambda release: (release.published_at, release.digest))
    revoked = [release for release in releases if release.revoked_at]
    if not revoked or last.revoked_at:
        return last
    return replace(last, revoked_at=revoked[0].revoked_at, revoked_reason=revoked[0].revoked_reason)


@dataclass(frozen=True)
class ReplacementImage:
    """A replacement, pinned: `reference` is by digest. `golden` is the release itself, or that of its base.

    `refused_because`: why the present policy would not let the golden image be published, or, of an image that others
    made and whose tag is `followed`, why it is not taken yet.
    """

    reference: str
    digest: str
    golden: Release | None
    refused_because: str = ""
    followed: bool = False

    @property
    def waits(self) -> str:
        """Why nothing of a tag that is followed may be taken yet; empty where it may, and for all else."""
        return self.refused_because if self.followed and self.golden is None else ""


@dataclass(frozen=True)
class Changes:
    """What another image changes in a member besides its files, a line for each thing.

    `forbids`: why the member would not bear it; empty where nothing is known to be wrong. `user`: as whom the new
    container runs; None: as the old one. `unread`: why that is not known. `breaks`: the rules that are enforced, and
    that the new container would break by what it is started with, each with what to do.
    """

    told: tuple[str, ...] = ()
    forbids: str = ""
    user: str | None = None
    unread: str = ""
    breaks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Key:
    """The domain key of every effect of a step: a repeated effect finds the first one by it.

    `old` is the handle of the exact instance that is replaced, pinned before the first change.
    """

    rollout: str
    member: str
    name: str
    old: str
    method: Method

    @property
    def token(self) -> str:
        """What a service that launches recognises a repeated launch by."""
        return f"{self.rollout}/{self.member}/create"

    @property
    def rehearsal(self) -> Key:
        """The key of the same step's rehearsal."""
        return replace(self, rollout=self.rollout + REHEARSAL)

    @property
    def is_rehearsal(self) -> bool:
        """Whether this is a rehearsal's key."""
        return self.rollout.endswith(REHEARSAL)

    @property
    def new_name(self) -> str:
        """What the new instance is called until it takes the name over."""
        return f"{self.name}.{self.rollout}"

    @property
    def old_name(self) -> str:
        """What the old instance is called while it is kept."""
        return f"{self.name}{OLD}{self.rollout}"


@dataclass(frozen=True)
class Read:
    """One look at an instance's health, and its details. `ended`: it has stopped, so waiting is useless."""

    good: bool
    text: str
    ended: bool = False


def protection(label: str, labels: Mapping[str, str]) -> tuple[datetime | None, str]:
    """Until when its own label protects a member, and what is wrong with a label that is no date with time.

    A wrong label still asks for protection, so the member is left alone until the label is corrected.
    """
    if label not in labels:
        return None, ""
    try:
        until = datetime.fromisoformat(labels[label])
    except ValueError:
        return None, f"its label {label} is not a date with time, such as 2027-01-31T12:00Z: {labels[label]}"
    return (until if until.tzinfo else until.replace(tzinfo=UTC)), ""


def repository(reference: str) -> str:
    """An image reference without tag and digest."""
    path, _, last = reference.partition("@")[0].rpartition("/")
    return f"{path}/{last.partition(':')[0]}" if path else last.partition(":")[0]


def shown_value(value: Any) -> str:
    """A value as people write it on a command line."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return " ".join(map(shown_value, value)) or "-"
        case dict():
            return json.dumps(value, sort_keys=True)
        case _:
            return str(value)
