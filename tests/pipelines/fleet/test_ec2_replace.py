"""A standalone EC2 member becomes a new instance that keeps all that made it that member, or the old one comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
from images.aws.client import Client
from pipelines.fleet.ec2.instance_spec import TAKES, traits
from pipelines.fleet.ec2.instances import Ec2Fleet
from pipelines.fleet.ec2.root_volume import RootVolumeFleet
from pipelines.fleet.members import Key, ReplacementImage
from pipelines.fleet.model import Method
from pipelines.fleet.port import GoneError, InProgressError
from tests.strict_aws import Fault, StrictAws
from tests.support.branch import branch
from tests.support.ec2 import Asked, Killed, Shop, fleet, key_of, killed_after, shop

DRAIN = timedelta(seconds=5)
EXPIRY = timedelta(days=1)


@pytest.fixture
def at(aws: StrictAws, tmp_path: Path) -> Iterator[Shop]:
    """A shop whose ledger is closed in the end."""
    made = shop(aws, tmp_path)
    yield made
    made.cloud.ledger.close()


SURGE, IN_PLACE, ROOT = "surge", "in_place", "root_volume"
WAYS = [SURGE, IN_PLACE, ROOT]
LEAST_WAYS_BACK = {SURGE: 14, IN_PLACE: 14, ROOT: 10}
LEAST_DEATHS = 6
Port = Any  # Ec2Fleet or RootVolumeFleet, asked as a flow asks them
Act = Callable[[Any, Key], Any]


def port_of(at: Shop, way: str) -> Port:
    """The fleet's port."""
    if way == ROOT:
        root = RootVolumeFleet(fleet(ec2={"way": "root_volume"}, limits={"method": "in_place"}), at.cloud)
        return Asked(root, at.aws)
    return Asked(Ec2Fleet(fleet(), at.cloud), at.aws)


def member_of(at: Shop, port: Port, way: str) -> Key:
    """A furnished member, and the key of its replacement."""
    old = at.furnished(unique=way != SURGE, root_gib=None if way == ROOT else 12)
    (member,) = port.describe()
    assert (member.handle, member.healthy, member.image) == (old, True, at.image(at.old))
    assert bool(member.forced_in_place) == (way != SURGE)
    assert not member.cannot_roll
    return key_of(member, Method.SURGE if way == SURGE else Method.IN_PLACE)


def replacing(at: Shop, method: Method) -> list[Act]:
    """The effects of a replacement, in the order of the engine."""
    acts: list[Act] = [
        lambda port, key: port.prepare(at.target),
        lambda port, key: port.create(key, at.target, at.cloud.now + EXPIRY),
    ]
    if method is Method.IN_PLACE:
        return [*acts, lambda port, key: port.retire(key, DRAIN), lambda port, key: port.start(key), taken_over]
    acts += [lambda port, key: port.start(key), lambda port, key: port.expose(key)]
    return [*acts, lambda port, key: port.retire(key, DRAIN), taken_over]


def replaced(at: Shop, port: Port, key: Key) -> None:
    """All effects, one after the other."""
    for act in replacing(at, key.method):
        act(port, key)


def taken_over(port: Port, key: Key) -> None:
    port.swap(key)


def found_image(port: Port, key: Key) -> str:
    """What the member runs."""
    found = port.find(key.member)
    return found.image if found else ""


def healthy(at: Shop, port: Port, key: Key) -> None:
    """The new instance is good after a while."""
    for _ in range(10):
        seen = port.read(key)
        if seen.good:
            return
        at.aws.advance(5)
    raise AssertionError(seen.text)


@pytest.mark.parametrize("way", WAYS)
def test_a_replacement_keeps_everything_but_the_image(at: Shop, way: str) -> None:
    """Settings, tags, data volume, interface, Elastic IP and registrations are the new one's; the diff is empty."""
    port = port_of(at, way)
    key = member_of(at, port, way)
    before = hanging(at, port, key, key.old)
    for act in replacing(at, key.method):
        act(port, key)
        assert port.differences(key) == ()
    healthy(at, port, key)
    (now,) = port.describe()
    assert (now.image, [now.handle]) == (at.image(at.new), at.running())
    assert (now.handle == key.old) == (way == ROOT)
    after = hanging(at, port, key, now.handle)
    assert {**after[0], "metadata options": before[0]["metadata options"]} == before[0]
    assert after[1] == before[1]
    for _ in range(2):
        port.remove_old(key)
    at.settle()
    assert at.running() == [now.handle]
    assert TAKES not in str(at.shown(now.handle)["Tags"])
    assert len(at.aws.calls("ec2", "RunInstances", effect=True)) == (1 if way == ROOT else 2)
    assert not at.leftovers()


def hanging(at: Shop, port: Port, key: Key, instance: str) -> tuple[Any, ...]:
    """All that an instance is and has, as the region shows it."""
    at.settle()
    place = port.place(key)
    shown = place.shown(place.need(instance))
    return traits(shown), shown.hung(), shown.tags, shown.state


def deaths(act: Callable[[], Any]) -> int:
    """Do something in one process after the other, each of which dies after one effect more, until one does not."""
    for effects in range(1, 30):
        try:
            with killed_after(effects):
                act()
        except Killed:
            continue
        return effects - 1
    raise AssertionError("it has no end")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_crash_at_any_point_goes_on_to_the_same_end(at: Shop, way: str) -> None:
    """Killed after every single effect, and each step begun anew: one new instance, everything kept, none more."""
    port = port_of(at, way)
    key = member_of(at, port, way)
    died = [deaths(partial(act, port, key)) for act in replacing(at, key.method)]
    assert sum(died) >= LEAST_DEATHS, died
    assert (found_image(port, key), port.differences(key)) == (at.image(at.new), ())
    died = [deaths(partial(port.remove_old, key))]
    assert sum(died) >= 1
    at.settle()
    assert len(at.running()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_from_any_point_the_old_one_comes_back_as_it_was(at: Shop, way: str) -> None:
    """After any effect, going back, itself killed after each of its effects, leaves the old one and nothing else."""
    port = port_of(at, way)
    key = member_of(at, port, way)
    before = hanging(at, port, key, key.old)

    def goes_back(act: Callable[[], Any], effects: int) -> bool:
        killed = True
        with suppress(Killed), killed_after(effects):
            act()
            killed = False
        deaths(partial(port.revive, key))
        deaths(partial(port.discard, key))
        assert hanging(at, port, key, key.old) == before
        assert at.running() == [key.old]
        assert [one.handle for one in port.describe()] == [key.old]
        return killed

    ways_back = 0
    for act in replacing(at, key.method):
        for effects in (1, 2, 3, 5, 8):
            ways_back += 1
            if not branch(partial(goes_back, partial(act, port, key), effects)):
                break
        act(port, key)
    assert ways_back >= LEAST_WAYS_BACK[way]


@pytest.mark.parametrize("way", [SURGE, IN_PLACE])
def test_a_new_one_has_all_of_an_old_one_that_somebody_ended_meanwhile(at: Shop, way: str) -> None:
    """From its launch on, wherever the process died then: registrations, address, data, interface and check; also where
    the rollout was stopped, and only hands over to what serves.
    """
    port = port_of(at, way)
    key = member_of(at, port, way)
    first = at.shown(key.old)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    at.ec2.modify_network_interface_attribute(NetworkInterfaceId=first, SourceDestCheck={"Value": False})
    hung = hanging(at, port, key, key.old)[1]
    acts = replacing(at, key.method)
    launch, launched = (1, 2) if way == SURGE else (3, 1)

    def goes_on(done: int, effects: int, then: list[Act]) -> None:
        for act in acts[:done]:
            act(port, key)
        with suppress(Killed), killed_after(effects):
            acts[done](port, key)
        at.ec2.terminate_instances(InstanceIds=[key.old])
        at.settle()
        for act in then:
            act(port, key)
        if way == SURGE:
            assert port.differences(key) == (f"{key.old} has gone, so that nothing could be compared",)
        healthy(at, port, key)
        with pytest.raises(GoneError):
            port.revive(key)
        (now,) = port.describe()
        _, has, tags, _ = hanging(at, port, key, now.handle)
        assert (now.id, now.image, has) == (key.member, at.image(at.new), hung)
        assert not [tag for tag in tags if tag.startswith(TAKES)]
        assert not at.leftovers()

    for done in range(launch, len(acts)):
        branch(partial(goes_on, done, launched if done == launch else 0, acts[done:]))
    branch(partial(goes_on, launch, launched, [taken_over]))


@pytest.mark.parametrize("way", [SURGE, IN_PLACE])
def test_a_new_one_that_is_not_shown_is_not_taken_for_the_old_one(at: Shop, way: str) -> None:
    """A region may not show at once what was just launched: both would run on, or what is written onto the old one,
    which stands stopped, would be forgotten. It is asked for again.
    """
    port = port_of(at, way)
    key = member_of(at, port, way)
    for act in replacing(at, key.method)[:-1]:
        act(port, key)
    new, _ = port.place(key).launched(key)
    real = Client.call_unless

    def unshown(name: str, looks: int) -> None:
        left = [looks]

        def call(self: Client, operation: str, codes: Any, **request: Any) -> Any:
            asked = operation == "DescribeInstances" and request.get("InstanceIds") == [new.id]
            left[0] -= asked
            return None if asked and left[0] < 0 else real(self, operation, codes, **request)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Client, "call_unless", call)
            with pytest.raises(OutsideError, match="the new instance of") as error:
                getattr(port, name)(key)
        assert not isinstance(error.value, GoneError), name

    for name, looks in {SURGE: [("start", 2), ("expose", 0), ("discard", 0)], IN_PLACE: [("start", 2), ("revive", 0)]}[
        way
    ]:
        unshown(name, looks)
    port.revive(key)
    port.discard(key)
    at.settle()
    assert (at.running(), [one.healthy for one in port.describe()]) == ([key.old], [True])


@pytest.mark.usefixtures("at_once")
def test_lost_answers_and_throttling_change_nothing(at: Shop) -> None:
    """One instance is launched, however often its answer is lost; a fifth of all calls is throttled."""
    port = port_of(at, IN_PLACE)
    key = member_of(at, port, IN_PLACE)
    names = ("RunInstances", "AttachVolume", "StopInstances", "AssociateAddress", "CreateTags")
    lost = [Fault("lost", operation=name, times=1) for name in names]
    with at.aws.faulty(*lost, Fault("throttle", probability=0.2), seed=5):
        for act in replacing(at, key.method):
            act(port, key)
    healthy(at, port, key)
    assert (found_image(port, key), port.differences(key)) == (at.image(at.new), ())
    assert len({one["digest"] for one in at.aws.calls("ec2", "RunInstances", effect=True)}) == 2
    assert len(at.running()) == 1


def test_a_new_instance_is_healthy_only_when_all_that_asks_for_it_says_so(at: Shop) -> None:
    """Status checks, then every target group that it is in; one that ends while pending never is."""
    port = port_of(at, SURGE)
    key = member_of(at, port, SURGE)
    at.aws.takes(check=1000)
    port.create(key, at.target, at.cloud.now + EXPIRY)
    port.start(key)
    assert "initializing" in port.read(key).text
    at.aws.takes(target=10_000)
    at.aws.advance(1001)
    assert port.read(key).good
    port.expose(key)
    assert "initial" in port.read(key).text
    at.aws.advance(10_001)
    assert port.read(key).good
    port.discard(key)
    assert not port.read(key).good


ENDS = {SURGE: "TerminateInstances", IN_PLACE: "StopInstances", ROOT: "CreateReplaceRootVolumeTask"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ill", [False, True])
def test_a_new_one_that_serves_drains_before_it_goes(
    at: Shop, way: str, ill: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as an old one may, however often that is asked for; one that serves nobody goes at once."""
    port = port_of(at, way)
    key = member_of(at, port, way)
    replaced(at, port, key)
    healthy(at, port, key)
    if ill:
        at.aws.ail(at.image(at.new), "status")
    real, first = Client.call, dict[str, datetime]()

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        answer = real(self, operation, **request)
        first.setdefault(operation, parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]))
        return answer

    monkeypatch.setattr(Client, "call", call)
    port.revive(key)
    port.discard(key)
    drained = first[ENDS[way]] - first["DeregisterTargets"]
    least = port.fleet.limits.drain
    assert (drained < least / 3) if ill else (least <= drained < 2 * least)
    at.settle()
    assert at.running() == [key.old]


@pytest.mark.parametrize("way", [IN_PLACE, ROOT])
def test_a_member_that_is_taken_out_of_its_target_group_does_not_count_as_serving(at: Shop, way: str) -> None:
    """From the first moment, while it still drains and its status checks pass, until it is back there."""
    port = port_of(at, way)
    key = member_of(at, port, way)
    port.create(key, at.target, at.cloud.now + EXPIRY)
    assert [one.healthy for one in port.describe()] == [True]
    with pytest.raises(InProgressError):
        port._port.retire(key, DRAIN)
    assert [one.healthy for one in port.describe()] == [False]
    port.revive(key)
    at.settle()
    assert [one.healthy for one in port.describe()] == [True]


def test_an_image_that_does_not_start_is_seen_and_the_old_one_stays(at: Shop) -> None:
    """The new instance ends while it is pending: starting it fails, and going back leaves everything."""
    port = port_of(at, SURGE)
    key = member_of(at, port, SURGE)
    before = hanging(at, port, key, key.old)
    at.aws.ail(at.image(at.new), "launch")
    with pytest.raises(OutsideError):
        replaced(at, port, key)
    port.revive(key)
    port.discard(key)
    assert hanging(at, port, key, key.old) == before


def test_the_way_back_of_a_member_takes_the_very_image_that_it_had(at: Shop) -> None:
    """A member keeps its id over its instances, and the rollback names the image itself."""
    port = port_of(at, SURGE)
    key = member_of(at, port, SURGE)
    pinned = port.describe()[0].exact
    for act in replacing(at, key.method):
        act(port, key)
    port.remove_old(key)
    at.settle()
    (now,) = port.describe()
    assert (now.id, now.handle != key.old, at.new.digest in now.digests) == (key.member, True, True)
    back = Key(f"{key.rollout}-back", now.id, now.name, now.handle, key.method)
    target = ReplacementImage(pinned, pinned, None)
    port.prepare(target)
    port.create(back, target, at.cloud.now + EXPIRY)
    for act in replacing(at, key.method)[2:]:
        act(port, back)
    (again,) = port.describe()
    assert (again.id, again.image) == (key.member, at.image(at.old))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"DisableApiTermination": True}, "terminated"),
        ({"DisableApiStop": True}, "stopped"),
    ],
)
def test_a_protected_instance_is_refused_before_anything_is_done(at: Shop, change: dict[str, Any], said: str) -> None:
    """A person has forbidden what a replacement must do in the end."""
    at.instance(**change)
    port = port_of(at, SURGE)
    (member,) = port.describe()
    with pytest.raises(RefusedError, match=said):
        port.create(key_of(member, Method.SURGE), at.target, at.cloud.now + EXPIRY)
    assert at.running() == [member.handle]


def test_an_address_that_a_person_chose_cannot_leave_its_instance(at: Shop) -> None:
    """An interface that outlives its instance was made for its address: only a new root volume keeps it."""
    card = at.ec2.create_network_interface(SubnetId=at.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    at.instance(SubnetId=None, NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": card}])
    assert "root_volume" in port_of(at, SURGE).describe()[0].cannot_roll
    assert not port_of(at, ROOT).describe()[0].cannot_roll


def test_what_fails_in_a_new_root_volume_leaves_the_old_one(at: Shop) -> None:
    """The task fails, the service keeps the old volume, and going back forgets that there was anything."""
    port = port_of(at, ROOT)
    key = member_of(at, port, ROOT)
    before = hanging(at, port, key, key.old)
    at.aws.ail(at.image(at.new), "root")
    with pytest.raises(OutsideError, match="failed"):
        replaced(at, port, key)
    port.revive(key)
    port.discard(key)
    assert hanging(at, port, key, key.old) == before
    assert not at.leftovers()
