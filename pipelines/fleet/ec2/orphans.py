"""Edge: what rollouts left in the regions of EC2 fleets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from images.aws.client import Clients
from images.aws.permissions import REAPER, permit
from images.aws.reaping import all_is_read
from images.aws.tags import as_dict, moment_in
from images.ledger import Ledger, Made
from pipelines.fleet.ec2.instance_spec import ENDED, KEPT_FOR, STOPPED, InstanceDescription, Json
from pipelines.fleet.ec2.region_client import RegionClient
from pipelines.fleet.members import EXPIRY, MEMBER, ROLLOUT
from pipelines.fleet.orphans import Orphan
from pipelines.fleet.rollout_targets import MACHINES

PERMISSIONS = (permit("ec2:DescribeInstances ec2:DescribeVolumes", REAPER, on=MACHINES),)

TRIES = 20
NOT_LAUNCHED = "it was not launched by this rollout's token: its tags are somebody else's"
NOT_OURS = "no line in this ledger: its tags may be anyone's"


class Ec2OrphanSource:
    """The regions, each with its account, in which fleets are. The ledger knows the volumes that rollouts took off."""

    def __init__(self, clients: Clients, places: Iterable[tuple[str, str]], ledger: Ledger) -> None:
        found = [RegionClient(clients, account, region) for account, region in places]
        self.places = {place.where: place for place in found}
        self.ledger = ledger

    def orphans(self) -> tuple[Orphan, ...]:
        """Instances that never became a member or were kept, then volumes that hang nowhere."""
        found: list[Orphan] = []
        for where, place in sorted(self.places.items()):
            with all_is_read(where):
                found += _everything(place, volumes_of(self.ledger, place))
        return tuple(found)

    def remove(self, orphan: Orphan) -> None:
        """Remove one thing. A root volume that outlives its instance is the next one to go."""
        place = self.places[orphan.where]
        if orphan.kind == "instance":
            shown = place.find(orphan.id)
            if shown and not shown.root_ends and orphan.expiry:
                note_volume(self.ledger, place, shown.root, orphan.name, orphan.expiry)
            place.terminate(orphan.id)
        else:
            place.delete_volume(orphan.id)


def volumes_of(ledger: Ledger, place: RegionClient) -> frozenset[str]:
    """The volumes of a region that a rollout of this ledger made or took off."""
    return frozenset(line.resource for line in ledger.made(place.account, region=place.region, kind="volume"))


def note_volume(ledger: Ledger, place: RegionClient, volume: str, member: str, at: datetime) -> None:
    """Write down that a rollout made or took off a volume: only what is known so is removed by its tags."""
    ledger.record_made(Made(place.account, place.region, "volume", volume, member, "", "", at, volume))


def _held(shown: InstanceDescription) -> str:
    """Why an instance with the tags of a rollout stays; empty where it may go."""
    if not shown.launched_by(shown.tags.get(ROLLOUT, ""), shown.tags.get(MEMBER, ""), TRIES):
        return NOT_LAUNCHED
    volumes = ", ".join(shown.hung().volumes)
    return f"it holds the data volumes {volumes}: a person decides" if volumes else ""


def _everything(place: RegionClient, ours: frozenset[str]) -> Iterator[Orphan]:
    """What is left in a region, what stands on others first: old ones that stand stopped hold what they held."""
    needed: dict[str, str] = {}
    for shown in _instances(place, KEPT_FOR):
        if (kept := shown.kept) is None:
            continue
        needed |= dict.fromkeys(kept.hung.volumes, shown.id)
        if shown.state in STOPPED:
            held = f"it is the old one that {kept.rollout} kept: terminate it when nobody needs it"
            yield Orphan(place.where, "instance", shown.id, shown.id, kept.rollout, None, held)
    for shown in _instances(place, EXPIRY):
        yield _orphan(place, "instance", shown.id, shown.tags, _held(shown))
    free = [_tagged(EXPIRY), {"Name": "status", "Values": ["available"]}]
    for one in place.ec2.pages("DescribeVolumes", "Volumes", Filters=free):
        tags = as_dict(one.get("Tags"))
        held = _held_volume(tags, needed.get(one["VolumeId"], ""), known=one["VolumeId"] in ours)
        yield _orphan(place, "volume", one["VolumeId"], tags, held)


def _held_volume(tags: dict[str, str], by: str, *, known: bool) -> str:
    """Why a volume with the tags of a rollout stays; empty where it may go. `by`: the instance that needs it."""
    if by:
        return f"{by} needs it to go back"
    if kept := tags.get(KEPT_FOR):
        return f"it is the old root volume that {kept} kept, and its instance is gone: delete it by hand"
    return "" if known else NOT_OURS


def _tagged(key: str) -> Json:
    return {"Name": "tag-key", "Values": [key]}


def _instances(place: RegionClient, key: str) -> Iterator[InstanceDescription]:
    found = map(InstanceDescription, place.ec2.instances(Filters=[_tagged(key)]))
    return (shown for shown in found if shown.state not in ENDED)


def _orphan(place: RegionClient, kind: str, name: str, tags: dict[str, str], held: str) -> Orphan:
    due = moment_in(tags, EXPIRY)
    return Orphan(place.where, kind, name, tags.get(MEMBER, ""), tags.get(ROLLOUT, ""), due, held)
