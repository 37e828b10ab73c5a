"""Reaping: what killed runs left at AWS.

Everything that a publication makes is tagged with the day from which it may be removed; the tag goes when all is done.
Anyone who may tag can write such a tag onto anything. So a tag shows a thing, and only a line of the ledger lets it go.
All of a region is read before anything is decided in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from hardening.foundation.errors import GoldsmithError, OutsideError
from images.aws import amis, tags
from images.aws.cloud import Cloud
from images.aws.launch_permissions import GRANTED
from images.aws.permissions import ANY, REAPER, permit
from images.aws.retire import unseen, uses_in
from images.aws.usage import used_unseen
from images.ledger import BEGUN, STANDING, Made

PERMISSIONS = (permit("ec2:DescribeInstances ec2:DescribeVolumes ec2:DescribeSnapshots", REAPER, on=ANY),)


@dataclass(frozen=True)
class TaggedResource:
    """One thing with our tags: a snapshot, a volume, an instance or an image. `reap_after` as its tag says.

    `token` is what it was made by and keeps for good: an image's name, the last word of a snapshot's description.
    """

    region: str
    kind: str
    id: str
    name: str
    reap_after: datetime | None
    token: str = ""

    @property
    def where(self) -> str:
        """How people tell it from others."""
        return f"{self.region}/{self.id}"


@dataclass(frozen=True)
class AwsReaping:
    """What happens to one thing, and why."""

    found: TaggedResource
    remove: bool
    why: str


def decide_leftover(found: TaggedResource, state: str, users: Sequence[str], now: datetime) -> AwsReaping | None:
    """Whether a thing may go; None where it is no riddle, since the ledger owns it.

    `state` is that of its line in the ledger: standing, begun, or empty where there is none.
    """
    if state == STANDING:
        return None
    if found.reap_after is None:
        return AwsReaping(found, False, "published, and not in this ledger: ./goldsmith image.rebuild reads it in")
    if not state:
        return AwsReaping(found, False, "it has our tags and no line in this ledger: remove it by hand if it is yours")
    if now < found.reap_after:
        until = f"{found.reap_after:%Y-%m-%d %H:%M} UTC"
        return AwsReaping(found, False, f"a run began it: the next one may continue it; to be removed from {until}")
    if users:
        return AwsReaping(found, False, f"{users[0]} still names it")
    return AwsReaping(found, True, "a killed run left it")


MADE = ("image", "snapshot")
"""What a publication makes, and so what is removed. Instances and volumes with our tags are shown only."""
ORDER = ("instance", "volume", "image", "snapshot")  # what stands on others goes first
ENDED = {"terminated", "shutting-down"}


def reap(cloud: Cloud, *, apply: bool) -> tuple[AwsReaping, ...]:
    """Every thing with our tags that is no release of this ledger, and what becomes of it.

    Raises OutsideError where a region cannot be read: what stands there is unknown.
    """
    found = [reaping for region in cloud.regions() for reaping in _reaped_in(cloud, region, ask=apply)]
    return tuple(_done(cloud, reaping) for reaping in found) if apply else tuple(found)


@contextmanager
def all_is_read(place: str) -> Iterator[None]:
    """Raise OutsideError where the block cannot read all of a place: nothing there is reaped then."""
    try:
        yield
    except GoldsmithError as error:
        hint = "what cannot be read is not taken for left over; try again"
        raise OutsideError(f"{place} cannot be read, so nothing is reaped", evidence=str(error), hint=hint) from error


def _reaped_in(cloud: Cloud, region: str, *, ask: bool) -> list[AwsReaping]:
    with all_is_read(region):
        found = list(_found(cloud, region))
        users = uses_in(cloud, region) if found else {}
    lines = [line for line in cloud.made(region=region) if line.kind in MADE]
    # A run that was killed before it knew the id has written down by which token it would make the thing.
    known = {(line.kind, line.resource or line.token): _state(cloud, line) for line in lines}
    states = {one: known.get((one.kind, one.id)) or known.get((one.kind, one.token), "") for one in found}
    ordered = sorted(states, key=lambda one: (ORDER.index(one.kind), one.id))
    decided = (decide_leftover(one, states[one], users.get(one.id, ()), cloud.now) for one in ordered)
    opened = {line.resource for line in lines if line.kind == "image" and line.details.get(GRANTED)}
    return [_unless_used(cloud, one, ask=ask) if one.found.id in opened else one for one in decided if one]


def _unless_used(cloud: Cloud, reaping: AwsReaping, *, ask: bool) -> AwsReaping:
    """What we opened to accounts where no role leads stays until EC2 reports that none of them uses it."""
    where = unseen(cloud)
    if not reaping.remove or not where:
        return reaping
    used = used_unseen(cloud, reaping.found.region, reaping.found.id, where, ask=ask)
    return replace(reaping, remove=False, why=used) if used else reaping


def _state(cloud: Cloud, line: Made) -> str:
    """Whose a line's thing is: `standing` where a release stands on it, else still what a run began."""
    over = cloud.ledger.releases_of_content(line.content)
    stands = [one for one in over if not one.pruned_at and (line.kind == "snapshot" or one.digest == line.release)]
    return STANDING if stands else BEGUN


def _found(cloud: Cloud, region: str) -> Iterator[TaggedResource]:
    """Everything in a region with a tag of ours."""
    ec2 = cloud.client("ec2", region)
    name_key, due_key = f"{cloud.prefix}{tags.NAME}", f"{cloud.prefix}{tags.REAP_AFTER}"
    keyed = [{"Name": "tag-key", "Values": [name_key, due_key]}]
    instances = (one for one in ec2.instances(Filters=keyed) if one["State"]["Name"] not in ENDED)
    volumes = ec2.pages("DescribeVolumes", "Volumes", Filters=keyed)
    snapshots = ec2.pages("DescribeSnapshots", "Snapshots", Filters=keyed, OwnerIds=["self"])
    for kind, listed in (("instance", instances), ("volume", volumes), ("snapshot", snapshots)):
        for one in listed:
            said, token = tags.as_dict(one.get("Tags")), one.get("Description", "").rpartition(" ")[2]
            due = tags.moment_in(said, due_key)
            yield TaggedResource(region, kind, one[f"{kind.title()}Id"], said.get(name_key, ""), due, token)
    for ami in amis.ours_in(cloud, region):
        yield TaggedResource(region, "image", ami.id, ami.name, tags.moment_in(ami.tags, due_key), ami.name)


def _done(cloud: Cloud, reaping: AwsReaping) -> AwsReaping:
    """Remove a thing that may go; a failure is told and stops no other."""
    found = reaping.found
    if not reaping.remove:
        return reaping
    try:
        if found.kind == "snapshot":
            if not amis.remove_snapshot(cloud, found.region, found.id):
                return replace(reaping, remove=False, why=f"{reaping.why}; not removed: an image lies on it")
        elif ami := amis.image(cloud, found.region, found.id):
            amis.remove_image(cloud, ami)
    except GoldsmithError as error:
        return replace(reaping, remove=False, why=f"{reaping.why}; not removed: {error.message}")
    cloud.forget(region=found.region, resource=found.id)
    cloud.note("reap", found.where, f"{found.kind}: {reaping.why}")
    return reaping
