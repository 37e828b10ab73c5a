"""Edge: what rollouts left in the regions of EC2 fleets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hardening.foundation.errors import GoldsmithError, OutsideError
from images.aws.client import Clients
from images.aws.tags import as_dict, moment_in
from images.ledger import Ledger
from pipelines.fleet.ec2.instance_spec import ENDED, KEPT, STOPPED, InstanceDescription, Json, kept_in
from pipelines.fleet.ec2.launch_requests import is_launched
from pipelines.fleet.ec2.region_client import RegionClient
from pipelines.fleet.members import EXPIRY, MEMBER, ROLLOUT
from pipelines.fleet.orphans import Orphan

TRIES = 20
NOT_LAUNCHED = "it was not launched by this rollout's token: its tags are somebody else's"
NOT_OURS = "no line in this ledger: its tags may be anyone's"


class Ec2OrphanSource:
    """The regions, each with its account, in which fleets are. The ledger knows the volumes that rollouts took off."""

    def __init__(self, clients: Clients, places: Iterable[tuple[str, str]], ledger: Ledger) -> None:
        self.places = {f"{account}/{region}": RegionClient(clients, account, region) for account, region in places}
        self.ledger = ledger

    def orphans(self) -> tuple[Orphan, ...]:
        """Instances that never became a member or were kept, then volumes that hang nowhere."""
        return tuple(
            one
            for where, place in sorted(self.places.items())
            for one in _read(where, place, volumes_of(self.ledger, place))
        )

    def remove(self, orphan: Orphan) -> None:
        """Remove one thing."""
        place = self.places[orphan.where]
        if orphan.kind == "instance":
            place.terminate(orphan.id)
        else:
            place.delete_volume(orphan.id)


def volumes_of(ledger: Ledger, place: RegionClient) -> frozenset[str]:
    """The volumes of a region that a rollout of this ledger made or took off."""
    return frozenset(line.resource for line in ledger.made(place.account, region=place.region, kind="volume"))


def _held(instance: Json) -> str:
    """Why an instance with the tags of a rollout stays; empty where it may go."""
    shown = InstanceDescription(instance)
    if not is_launched(instance, shown.tags.get(ROLLOUT, ""), shown.tags.get(MEMBER, ""), TRIES):
        return NOT_LAUNCHED
    volumes = ", ".join(shown.hung().volumes)
    return f"it holds the data volumes {volumes}: a person decides" if volumes else ""


def _read(where: str, place: RegionClient, ours: frozenset[str]) -> list[Orphan]:
    try:
        return list(_Region(where, place, ours).everything())
    except GoldsmithError as error:
        hint = "what cannot be read is not taken for left over; try again"
        raise OutsideError(f"{where} cannot be read, so nothing is reaped", evidence=str(error), hint=hint) from error


class _Region:
    """One look at a region."""

    def __init__(self, where: str, place: RegionClient, ours: frozenset[str]) -> None:
        self.where = where
        self.place = place
        self.ours = ours
        self.kept: dict[str, str] = {}

    def everything(self) -> Iterator[Orphan]:
        """What is left there, what stands on others first."""
        yield from self._kept_ones()
        keyed = [{"Name": "tag-key", "Values": [EXPIRY]}]
        for one in self._instances(keyed):
            yield self._leaving("instance", one["InstanceId"], as_dict(one.get("Tags")), _held(one))
        free = [*keyed, {"Name": "status", "Values": ["available"]}]
        for one in self.place.ec2.pages("DescribeVolumes", "Volumes", Filters=free):
            by, known = self.kept.get(one["VolumeId"], ""), one["VolumeId"] in self.ours
            held = f"{by} needs it to go back" if by else "" if known else NOT_OURS
            yield self._leaving("volume", one["VolumeId"], as_dict(one.get("Tags")), held)

    def _kept_ones(self) -> Iterator[Orphan]:
        """Old ones that stand stopped: they hold what they held."""
        for one in self._instances([{"Name": "tag-key", "Values": [f"{KEPT}rollout"]}]):
            shown = InstanceDescription(one)
            kept = kept_in(shown.tags)
            if kept is None:
                continue
            self.kept |= dict.fromkeys(kept.hung.volumes, shown.id)
            if shown.state in STOPPED:
                held = f"it is the old one that {kept.rollout} kept: terminate it when nobody needs it"
                yield Orphan(self.where, "instance", shown.id, shown.id, kept.rollout, None, held)

    def _instances(self, filters: list[Json]) -> Iterator[Json]:
        for each in self.place.ec2.pages("DescribeInstances", "Reservations", Filters=filters):
            yield from (one for one in each["Instances"] if one["State"]["Name"] not in ENDED)

    def _leaving(self, kind: str, name: str, tags: dict[str, str], held: str = "") -> Orphan:
        return Orphan(
            self.where, kind, name, tags.get(MEMBER, ""), tags.get(ROLLOUT, ""), moment_in(tags, EXPIRY), held
        )
