"""What rollouts launched and nothing owns is found, shown, and removed after its lease; what serves never is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hardening.foundation.errors import OutsideError
from images.documents import to_json
from images.ledger import Ledger
from pipelines.cli.reap import reap
from pipelines.fleet.ec2.instances import Ec2Fleet
from pipelines.fleet.ec2.orphans import Ec2OrphanSource
from pipelines.fleet.ec2.root_volume import RootVolumeFleet
from pipelines.fleet.members import EXPIRY, MEMBER, ROLLOUT
from pipelines.fleet.model import Method
from pipelines.fleet.orphans import Orphan, OwnerStatus, Reaping, decide
from pipelines.rollout.state import MemberState, Phase
from tests.strict_aws import REGION, Fault, StrictAws
from tests.support.ec2 import Asked, Killed, Shop, fleet, key_of, killed_after, shop

NOW = datetime(2027, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def orphan(expiry: datetime | None, held: str = "") -> Orphan:
    return Orphan("111111111111/eu-central-1", "instance", "i-1", "a/b/ec2/i-0", "shop-1-back", expiry, held)


def none_failed(_rollout: str) -> tuple[str, ...]:
    """No member needs a person."""
    return ()


@pytest.mark.parametrize(
    ("one", "removed", "why"),
    [
        (orphan(NOW - HOUR), True, "is over"),
        (orphan(NOW + HOUR), False, "to be removed from 2027-01-01 01:00"),
        (orphan(NOW - HOUR, "it holds data"), False, "it holds data"),
        (orphan(None), False, "by hand"),
    ],
)
def test_only_what_nobody_owns_goes_and_only_after_its_lease(one: Orphan, removed: bool, why: str) -> None:
    """What holds a person's data is shown and kept."""
    found = decide(one, lambda name: OwnerStatus.OVER, none_failed, NOW)
    assert found is not None
    assert (found.remove, why in found.why) == (removed, True)


def test_the_tags_of_a_rollout_that_the_ledger_does_not_know_remove_nothing() -> None:
    """They may be anyone's; a rollout that went back is known under its first name too."""
    found = decide(orphan(NOW - HOUR), lambda name: OwnerStatus.UNKNOWN, none_failed, NOW)
    assert found is not None
    assert (found.remove, "knows no rollout shop-1-back" in found.why) == (False, True)
    by_first_name = decide(
        orphan(NOW - HOUR),
        lambda name: OwnerStatus.OVER if name == "shop-1" else OwnerStatus.UNKNOWN,
        none_failed,
        NOW,
    )
    assert by_first_name is not None
    assert by_first_name.remove


def test_the_kept_container_of_an_unknown_rollout_gets_no_command_that_removes_it() -> None:
    """Another ledger's rollout may still need it to go back."""
    kept = orphan(None, "it is the old one that shop-1-back kept: docker rm a removes it")
    answer = decide(kept, lambda name: OwnerStatus.UNKNOWN, none_failed, NOW)
    assert answer == Reaping(kept, False, "this ledger knows no rollout shop-1-back: its tags may be anyone's")


def test_a_rollout_that_is_not_over_owns_what_it_launched_on_its_way_there_and_back() -> None:
    """Whatever the expiry says."""
    found = decide(
        orphan(NOW - HOUR),
        lambda name: OwnerStatus.OPEN if name == "shop-1" else OwnerStatus.UNKNOWN,
        none_failed,
        NOW,
    )
    assert found is None


def test_what_a_rehearsal_left_belongs_to_its_rollout() -> None:
    """It is not removed while that is under way, and goes once that is over."""
    left = replace(orphan(NOW - HOUR), rollout="shop-1-rehearsal")

    def standing(of_shop: OwnerStatus) -> Callable[[str], OwnerStatus]:
        return lambda name: of_shop if name == "shop-1" else OwnerStatus.UNKNOWN

    assert decide(left, standing(OwnerStatus.OPEN), none_failed, NOW) is None
    over = decide(left, standing(OwnerStatus.OVER), none_failed, NOW)
    assert over
    assert over.remove


@dataclass
class Left:
    """A place where these things are left."""

    things: tuple[Orphan, ...]
    removed: list[str] = field(default_factory=list)

    def orphans(self) -> tuple[Orphan, ...]:
        return self.things

    def remove(self, orphan: Orphan) -> None:
        self.removed.append(orphan.id)


@pytest.mark.parametrize("rollout", ["shop-1", "shop-1-back", "shop-1-rehearsal", "shop-1-back-rehearsal"])
def test_nothing_goes_of_a_member_that_needs_a_person(tmp_path: Path, rollout: str) -> None:
    """It may be all of it that serves: an instance that its tag names, and a container by its name on its host."""
    things = {
        "i-1": "a/b/ec2/i-0", "c-1": f"web-1.{rollout}", "c-2": f"web-2.{rollout}",
        "i-2": "a/b/ec2/i-00", "c-3": f"web-11.{rollout}",
    }  # fmt: skip
    left = Left(tuple(replace(orphan(NOW - HOUR), id=one, name=name, rollout=rollout) for one, name in things.items()))
    states = [
        MemberState("a/b/ec2/i-0", "i-0", Phase.FAILED),
        MemberState("host/docker/web-1", "web-1", Phase.FAILED),
        MemberState("host/docker/web-2", "web-2@host", Phase.FAILED),
        MemberState("a/b/ec2/i-00", "i-00", Phase.NEW),
        MemberState("host/docker/web-11", "web-11", Phase.OLD),
    ]
    with closing(Ledger.open(f"sqlite:///{tmp_path}/ledger")) as ledger:
        ledger.begin_rollout("shop-1", "shop", "ann", {}, NOW)
        for one in states:
            ledger.save_member("shop-1", one.id, to_json(one))
        ledger.save_rollout("shop-1", {}, NOW, is_open=False)
        found = reap([left], ledger, NOW, "ann", apply=True)
    assert [(one.orphan.id, one.remove) for one in found if "needs a person since shop-1" in one.why] == [
        ("i-1", False), ("c-1", False), ("c-2", False),
    ]  # fmt: skip
    assert left.removed == ["i-2", "c-3"]


@pytest.fixture
def at(aws: StrictAws, tmp_path: Path) -> Iterator[Shop]:
    """A shop whose ledger is closed in the end."""
    made = shop(aws, tmp_path)
    yield made
    made.cloud.ledger.close()


def reaped(at: Shop, *, days: float, apply: bool = True) -> tuple[Reaping, ...]:
    source = Ec2OrphanSource(at.cloud.clients, [(at.cloud.aws.account, REGION)], at.cloud.ledger)
    return reap([source], at.cloud.ledger, at.cloud.now + timedelta(days=days), "ann", apply=apply)


def test_an_instance_that_a_killed_rollout_launched_goes_after_its_lease(at: Shop) -> None:
    """Shown before; the member is not touched; owned while the ledger says that the rollout is not over.

    Its root volume goes too, after it where the member's outlives that.
    """
    port = Ec2Fleet(fleet(), at.cloud)
    old = at.furnished(unique=False)
    outlives = [{"DeviceName": "/dev/xvda", "Ebs": {"DeleteOnTermination": False}}]
    at.ec2.modify_instance_attribute(InstanceId=old, BlockDeviceMappings=outlives)
    (member,) = port.describe()
    key = key_of(member, Method.SURGE)
    with suppress(Killed), killed_after(2):
        port.create(key, at.target, at.cloud.now + timedelta(days=1))
    (new,) = [name for name in at.running() if name != old]
    at.cloud.ledger.begin_rollout(key.rollout, "shop", "ann", {}, at.cloud.now)
    assert not reaped(at, days=2)
    at.cloud.ledger.save_rollout(key.rollout, {}, at.cloud.now, is_open=False)
    assert [(one.orphan.id, one.remove) for one in reaped(at, days=0.5)] == [(new, False)]
    assert [(one.orphan.id, one.remove) for one in reaped(at, days=2, apply=False)] == [(new, True)]
    assert new in at.running()
    assert [(one.orphan.id, one.remove) for one in reaped(at, days=2)] == [(new, True)]
    at.settle()
    assert at.running() == [old]
    assert at.cloud.ledger.audit_lines()[-1].action == "reap"
    assert [(one.orphan.kind, one.remove) for one in reaped(at, days=2)] == [("volume", True)]
    assert not at.leftovers()


def test_what_took_a_members_place_is_no_leaving_and_the_old_one_is_shown_and_kept(at: Shop) -> None:
    """However old; the old one holds what it held."""
    port = Ec2Fleet(fleet(), at.cloud)
    old = at.furnished(unique=False)
    (member,) = port.describe()
    key = key_of(member, Method.SURGE)
    port.create(key, at.target, at.cloud.now + timedelta(days=1))
    port.start(key)
    port.retire(key, timedelta())
    port.swap(key)
    at.settle()
    at.cloud.ledger.begin_rollout(key.rollout, "shop", "ann", {}, at.cloud.now)
    at.cloud.ledger.save_rollout(key.rollout, {}, at.cloud.now, is_open=False)
    (found,) = reaped(at, days=99)
    assert (found.orphan.id, found.remove, "the old one" in found.why) == (old, False, True)


def test_a_root_volume_that_nobody_needs_goes_and_one_to_go_back_to_stays(at: Shop) -> None:
    """The old one while it is written on the instance; the new one once it was put out."""
    port = Asked(RootVolumeFleet(fleet(ec2={"way": "root_volume"}), at.cloud), at.aws)
    at.furnished(unique=True, root_gib=None)
    (member,) = port.describe()
    key = key_of(member, Method.IN_PLACE)
    port.create(key, at.target, at.cloud.now + timedelta(days=1))
    port.start(key)
    at.settle()
    at.cloud.ledger.begin_rollout(key.rollout, "shop", "ann", {}, at.cloud.now)
    at.cloud.ledger.save_rollout(key.rollout, {}, at.cloud.now, is_open=False)
    (kept,) = reaped(at, days=9)
    assert (kept.orphan.kind, kept.remove, "go back" in kept.why) == ("volume", False, True)
    port.revive(key)
    (put_out,) = reaped(at, days=9)
    assert (put_out.orphan.kind, put_out.remove) == ("volume", True)
    port.discard(key)
    assert not at.leftovers()


def test_nothing_is_reaped_where_a_region_cannot_be_read(at: Shop) -> None:
    """What is there is unknown."""
    with at.aws.faulty(Fault("denied", operation="DescribeVolumes")), pytest.raises(OutsideError, match="nothing is"):
        reaped(at, days=9)


def test_tags_on_an_instance_and_a_volume_of_production_let_nothing_go(at: Shop) -> None:
    """Somebody who may tag writes all of a dead rollout's tags onto a member and a disk: both are shown, and stay."""
    old = at.furnished(unique=False)
    rollout = "shop-20270101000000-123456"
    at.cloud.ledger.begin_rollout(rollout, "shop", "ann", {}, at.cloud.now)
    at.cloud.ledger.save_rollout(rollout, {}, at.cloud.now, is_open=False)
    zone = at.ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    disk = at.ec2.create_volume(AvailabilityZone=zone, Size=1)["VolumeId"]
    due = f"{at.cloud.now:%Y-%m-%dT%H:%M:%SZ}"
    said = {ROLLOUT: rollout, MEMBER: "a/b/ec2/i-0", EXPIRY: due}
    at.ec2.create_tags(Resources=[old, disk], Tags=[{"Key": key, "Value": value} for key, value in said.items()])
    at.settle()
    found = {one.orphan.id: one for one in reaped(at, days=99)}
    assert (found[old].remove, "not launched by this rollout's token" in found[old].why) == (False, True)
    assert (found[disk].remove, "no line in this ledger" in found[disk].why) == (False, True)
    assert old in at.running()
    assert disk in {one["VolumeId"] for one in at.ec2.describe_volumes()["Volumes"]}


def test_a_stranger_with_a_rollouts_tags_is_not_taken_for_what_it_launched(at: Shop) -> None:
    """Neither started, registered nor ended: the rollout launches its own, and going back ends that one alone."""
    port = Ec2Fleet(fleet(), at.cloud)
    at.furnished(unique=False)
    (member,) = port.describe()
    key = key_of(member, Method.SURGE)
    image = at.image(at.old)
    stranger = at.ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, InstanceType="t3.micro", SubnetId=at.subnet)
    name = stranger["Instances"][0]["InstanceId"]
    said = {ROLLOUT: key.rollout, MEMBER: key.member}
    at.ec2.create_tags(Resources=[name], Tags=[{"Key": tag, "Value": value} for tag, value in said.items()])
    at.settle()
    port.create(key, at.target, at.cloud.now + timedelta(days=1))
    port.start(key)
    assert len(at.running()) == 3
    port.revive(key)
    port.discard(key)
    at.settle()
    assert name in at.running()
    assert len(at.running()) == 2
