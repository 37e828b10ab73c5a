"""What a real Docker Engine forgets, what compose would undo, and who stands beside a member: nothing is taken over
wrongly, and nothing is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from hardening.foundation.errors import RefusedError
from images.registry.client import RegistryClient
from pipelines.fleet.docker.members import DockerFleet
from pipelines.fleet.members import Changes, Key, ReplacementImage
from pipelines.fleet.model import Method
from pipelines.rollout.state import Phase
from tests.support.engines import busybox_image
from tests.support.publishing import running_registry, settings_in
from tests.support.rolling import MUTATING
from tests.support.yards import NETWORK, NOW, Yard, fleet, planned, roll

pytestmark = [pytest.mark.needs("docker", "busybox"), pytest.mark.slow]
CHECK = 'HEALTHCHECK --interval={} CMD ["wget", "-qO-", "http://127.0.0.1:8080/"]'
SHOP = {
    "com.docker.compose.project": "shop",
    "com.docker.compose.service": "web",
    "com.docker.compose.oneoff": "False",
    "com.docker.compose.config-hash": "c0ffee",
    "com.docker.compose.project.config_files": "/srv/compose.yaml",
}
IN_PROJECT = [word for key, value in SHOP.items() for word in ("--label", f"{key}={value}")]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryClient]:
    with running_registry(tmp_path) as address:
        yield RegistryClient(address, settings_in(tmp_path))


def forgotten(yard: Yard, registry: RegistryClient) -> str:
    """A member whose tag was pulled again meanwhile; the repository."""
    where = registry.repository("shop")
    for name, interval in (("one", "1s"), ("two", "2s")):
        busybox_image(
            yard.api, f"fleet-test:{name}", name, CHECK.format(interval), "USER 0", f"LABEL made={name}", keep=False
        )
    for tag, image in (("stable", "one"), ("next", "two")):
        yard.api.tag(f"fleet-test:{image}", where, tag)
        assert "error" not in list(yard.api.push(where, tag, stream=True, decode=True))[-1]
        yard.docker("rmi", f"{where}:{tag}", f"fleet-test:{image}")
    yard.docker("pull", "--quiet", f"{where}:stable")
    yard.start("web-1", "--env", "COLOUR=blue", "--health-timeout", "7s", image=f"{where}:stable")
    registry.tag(where, registry.get(f"{where}:next").digest, "stable")
    yard.docker("pull", "--quiet", f"{where}:stable")
    return where


@pytest.mark.needs("docker-registry", "skopeo")
def test_a_tag_that_was_pulled_again_freezes_nothing_of_the_old_image(yard: Yard, registry: RegistryClient) -> None:
    """The engine forgets the old image's record: its defaults come from the registry, by digest, and a rollback goes to
    that digest.
    """
    where = forgotten(yard, registry)
    old = yard.inspect("web-1")
    with pytest.raises(docker.errors.ImageNotFound):
        yard.api.inspect_image(old["Image"])
    pinned = registry.get(f"{where}:stable").digest
    target = ReplacementImage(f"{where}@{pinned}", pinned, yard.target("two").golden)
    with DockerFleet(fleet(), yard.host, configuration=registry.configuration) as members:
        (one,) = members.describe()
        assert (one.cannot_roll, one.exact) == ("", f"{where}@{old['Image']}")
        assert one.layers
        key = Key("r1", one.id, one.name, one.handle, Method.SURGE)
        members.create(key, target, NOW)
        assert members.differences(key) == ()
        new = yard.inspect(key.new_name)["Config"]
        assert {"ANSWER=two", "COLOUR=blue"} < set(new["Env"])
        assert (new["Healthcheck"]["Interval"], new["Healthcheck"]["Timeout"]) == (2 * 10**9, 7 * 10**9)
        assert new["Labels"]["made"] == "two"
        members.start(key)
        members.retire(key, timedelta(seconds=1))
        members.swap(key)
        members.remove_old(key)
        (two,) = members.describe()
        back = Key("r1-back", two.id, two.name, two.handle, Method.SURGE)
        before = ReplacementImage(one.exact, old["Image"], None)
        members.prepare(before)
        members.create(back, before, NOW)
        assert yard.inspect(back.new_name)["Image"] == old["Image"]
        assert "ANSWER=one" in yard.inspect(back.new_name)["Config"]["Env"]


@pytest.mark.needs("docker-registry", "skopeo")
def test_an_old_image_that_no_registry_has_refuses_its_member(yard: Yard, registry: RegistryClient) -> None:
    """Rather than to keep all that it had; nothing is created."""
    where = forgotten(yard, registry)
    with DockerFleet(fleet(), yard.host) as members:
        (one,) = members.describe()
        assert f"no record of the image {where}@{one.digests[0]}" in one.cannot_roll
        assert members.changes(one, yard.target("two")) == Changes(), "the plan of the others goes on"
        with pytest.raises(RefusedError, match="cannot be distinguished"):
            members.create(Key("r1", one.id, one.name, one.handle, Method.SURGE), yard.target("two"), NOW)
    assert yard.names() == ["web-1"]


def project(yard: Yard) -> list[str]:
    """The containers that compose counts as instances of the service."""
    wanted = {"label": ["com.docker.compose.project=shop", "com.docker.compose.service=web"]}
    return sorted(one["Names"][0].lstrip("/") for one in yard.api.containers(all=True, filters=wanted))


def shop(yard: Yard, *options: str) -> dict[str, Any]:
    """A member that compose has made."""
    image = ["--label", f"com.docker.compose.image={yard.images['one']}"]
    words = ["--network-alias", "web", "--volume", "/data", "--env", "COLOUR=blue", "--restart", "always"]
    yard.start("web-1", *IN_PROJECT, *image, *words, *options)
    return yard.inspect("web-1")


def same(one: dict[str, Any]) -> dict[str, Any]:
    """What of a container has to be the same when it was put back."""
    networks = one["NetworkSettings"]["Networks"]
    labels = {key: value for key, value in one["Config"]["Labels"].items() if "goldsmith" not in key}
    return {
        "config": {key: one["Config"].get(key) for key in ("Image", "Env", "Cmd", "Healthcheck")},
        "labels": labels,
        "image": one["Image"],
        "volumes": [(mount["Name"], mount["Destination"]) for mount in one["Mounts"]],
        "restart": one["HostConfig"]["RestartPolicy"]["Name"],
        "aliases": {name: {"web"} & set(joined["Aliases"]) for name, joined in networks.items()},
        "addresses": {name: (joined["IPAMConfig"] or {}).get("IPv4Address") for name, joined in networks.items()},
    }


def test_compose_sees_one_instance_while_the_old_one_is_kept(yard: Yard) -> None:
    """Its labels say which image it is of; the old one leaves the project, for `up` would remove one of the two."""
    before = shop(yard)
    with DockerFleet(fleet(shared_mounts=["/data"]), yard.host) as members:
        (one,) = members.describe()
        assert one.defined_in == "the service web in /srv/compose.yaml"
        key = Key("r1", one.id, one.name, one.handle, Method.SURGE)
        members.create(key, yard.target("two"), NOW)
        members.start(key)
        members.expose(key)
        assert members.differences(key) == ()
        members.retire(key, timedelta())
        members.swap(key)
        assert (project(yard), yard.names()) == (["web-1"], ["web-1", "web-1.old.r1"])
        assert yard.inspect("web-1")["Config"]["Labels"]["com.docker.compose.image"] == yard.images["two"]
        assert [found.name for found in members.describe()] == ["web-1"]
        members.revive(key)
        members.discard(key)
        assert (project(yard), yard.names(), yard.answer("web-1")) == (["web-1"], ["web-1"], "one")
        assert same(yard.inspect("web-1")) == same(before)
        assert members.read_old(key).good
        members.create(key, yard.target("two"), NOW)
        for effect in (members.start, members.expose, lambda key: members.retire(key, timedelta()), members.swap):
            effect(key)
        members.remove_old(key)
    assert (project(yard), yard.names()) == (["web-1"], ["web-1"])


def test_a_rollout_of_a_compose_project_and_its_way_back(yard: Yard) -> None:
    """Nothing of the copy stays; a broken replacement in place gives the address back to the old one."""
    yard.api.create_network(
        "fleet-test-3", labels={"goldsmith-test": "1"}, ipam={"Config": [{"Subnet": f"{NETWORK}.0/24"}]}
    )
    before = shop(yard, "--network", "fleet-test-3", "--ip", f"{NETWORK}.9")
    in_place = {"method": "in_place", "max_unavailable": 1, "shared_mounts": ["/data"]}
    assert roll(yard, fleet(**in_place), "two").members[0].note.startswith("down for ")
    assert (yard.answer("web-1"), project(yard), yard.names()) == ("two", ["web-1"], ["web-1"])
    outcome = roll(yard, fleet(**in_place, healthy_deadline="2s", rehearsal=False), "broken", "r2")
    assert [member.phase for member in outcome.members] == [Phase.OLD]
    assert (yard.answer("web-1"), project(yard), yard.names()) == ("two", ["web-1"], ["web-1"])
    after, gone = same(yard.inspect("web-1")), same(before)
    assert {key for key in after if after[key] != gone[key]} == {"config", "labels", "image"}


class CutError(Exception):
    """The process dies after a call."""


@pytest.mark.parametrize("what", ["swap", "revive"])
def test_an_old_one_that_was_on_its_way_out_of_the_project_when_the_process_died(yard: Yard, what: str) -> None:
    """After each call that changes something the effect is begun anew, and comes to the same end."""
    before = shop(yard)
    with DockerFleet(fleet(shared_mounts=["/data"]), yard.host) as members:
        (one,) = members.describe()
        key = Key("r1", one.id, one.name, one.handle, Method.SURGE)
        members.create(key, yard.target("two"), NOW)
        members.start(key)
        members.expose(key)
        members.retire(key, timedelta())
        if what == "revive":
            members.swap(key)
        cuts = cut_after_each(members, lambda: getattr(members, what)(key))
        assert cuts >= (3 if what == "swap" else 2)
        if what == "swap":
            assert (project(yard), yard.names()) == (["web-1"], ["web-1", "web-1.old.r1"])
            assert yard.answer("web-1") == "two"
            members.revive(key)
        assert yard.names() == ["web-1", "web-1.r1"]
        members.discard(key)
    assert same(yard.inspect("web-1")) == same(before)
    assert yard.answer("web-1") == "one"


def cut_after_each(members: DockerFleet, effect: Any) -> int:
    """Do an effect that is cut after its first call that changes something, then after its second, until it ends."""
    real = {call: getattr(members.api, call) for call in MUTATING}
    for most in range(20):
        left = [most]

        def called(call: str, *words: Any, left: list[int] = left, **more: Any) -> Any:
            answer = real[call](*words, **more)
            left[0] -= 1
            if left[0] < 0:
                raise CutError(call)
            return answer

        for call in MUTATING:
            setattr(members.api, call, lambda *words, call=call, **more: called(call, *words, **more))
        try:
            effect()
        except CutError:
            continue
        finally:
            for call, was in real.items():
                setattr(members.api, call, was)
        return most
    raise AssertionError("it never ends")


def test_who_stands_beside_a_member_or_does_not_run_is_seen(yard: Yard) -> None:
    """Named, left alone, and counted."""
    for name in ("web-1", "web-2", "web-3"):
        yard.start(name, "--network", "bridge")
    yard.docker("run", "-d", "--name", "client", "--label", "goldsmith-test=1", "--link", "web-1:db", "fleet-test:one")
    yard.docker(
        "create", "--name", "sidecar", "--label", "goldsmith-test=1", "--network", "container:web-2", "fleet-test:one"
    )
    yard.docker("pause", "web-3")
    yard.start("web-4", "--restart", "always")
    yard.docker("stop", "--time", "0", "web-4")
    yard.start("web-5", "--network", "bridge", "--mac-address", "02:42:ac:11:00:77")
    with DockerFleet(fleet(), yard.host) as members:
        found = {one.name: one for one in members.describe()}
        assert "client links to it" in found["web-1"].cannot_roll
        assert "sidecar lives in its namespaces" in found["web-2"].cannot_roll
        assert "it is paused" in found["web-3"].cannot_roll
        assert "it does not run" in found["web-4"].cannot_roll
        assert found["web-5"].forced_in_place == ("it has the MAC address 02:42:ac:11:00:77",)
        assert [one.healthy for one in found.values()] == [True, True, False, False, True]
        assert members.find(found["web-4"].id) == found["web-4"]
    yard.docker("unpause", "web-3")


def test_a_mac_address_is_kept_in_place(yard: Yard) -> None:
    """On a network of one's own as on the default one."""
    yard.start("web-1", "--mac-address", "02:42:ac:11:00:77")
    yard.start("web-2", "--network", "bridge", "--mac-address", "02:42:ac:11:00:78")
    outcome = roll(yard, fleet(method="in_place", max_unavailable=1, canary=0), "two")
    assert all(member.note.startswith("down for ") for member in outcome.members), outcome.members
    found = [next(iter(yard.inspect(name)["NetworkSettings"]["Networks"].values())) for name in ("web-1", "web-2")]
    assert [one["MacAddress"] for one in found] == ["02:42:ac:11:00:77", "02:42:ac:11:00:78"]
    assert [yard.answer(name) for name in ("web-1", "web-2")] == ["two", "two"]


LONG = """#!/bin/sh
trap 'sleep 4; echo done > /log/end; exit 0' TERM
busybox httpd -p 8080 -h /tmp
while :; do sleep 1; done
"""


def test_a_stop_timeout_of_its_own_that_is_longer_than_drain_is_honoured(yard: Yard, tmp_path: Path) -> None:
    """It ends what it has begun, and says so."""
    busybox_image(yard.api, "fleet-test:long", "one", files={"web": LONG})
    old = yard.start("web-1", "--stop-timeout", "60", "--volume", f"{tmp_path}:/log", image="fleet-test:long")
    with DockerFleet(fleet(health={"kind": "tcp", "port": 8080}), yard.host) as members:
        (one,) = members.describe()
        members.retire(Key("r1", one.id, one.name, old, Method.SURGE), timedelta(seconds=1))
    assert (tmp_path / "end").read_text() == "done\n"


def test_what_is_easily_lost_is_asked_for_again(yard: Yard) -> None:
    """A network that begins as the host's is called, none at all, an entrypoint in the image's words, and what came
    from a container that is gone.
    """
    busybox_image(yard.api, "fleet-test:entry", "one", 'ENTRYPOINT ["/web"]', 'CMD ["more"]')
    yard.docker("network", "create", "--label", "goldsmith-test=1", "hosting")
    lender = yard.start("lender", "--volume", "/kept", "--volume", "/srv:/srv:ro")
    yard.start("web-1", "--network", "hosting", "--network-alias", "shop", "--hostname", "given")
    yard.docker("network", "connect", "fleet-test", "web-1")
    yard.start("web-2")
    yard.docker("network", "disconnect", "fleet-test", "web-2")
    yard.start("web-3", "--entrypoint", "/web", "--volumes-from", lender, image="fleet-test:entry")
    yard.docker("rm", "--force", "lender")
    with DockerFleet(fleet(method="in_place", max_unavailable=1), yard.host) as members:
        for one in members.describe():
            key = Key("r1", one.id, one.name, one.handle, Method.IN_PLACE)
            members.create(key, yard.target("two"), NOW)
            assert members.differences(key) == (), one.name
    first, second, third = (yard.inspect(f"web-{number}.r1") for number in (1, 2, 3))
    networks = first["NetworkSettings"]["Networks"]
    assert {name: set(one["Aliases"]) - {"web-1"} for name, one in networks.items()} == {
        "hosting": {"shop"}, "fleet-test": set(),
    }  # fmt: skip
    assert first["Config"]["Hostname"] == "given"
    assert second["NetworkSettings"]["Networks"] == {}
    assert (third["Config"]["Entrypoint"], third["Config"]["Cmd"]) == (["/web"], None)
    assert {one["Destination"]: one["RW"] for one in third["Mounts"]} == {"/kept": True, "/srv": False}


def test_a_member_that_ends_while_it_is_probed_is_a_bad_read_of_one_member(yard: Yard) -> None:
    """The engine refuses to run the command then; the others are still described."""
    yard.start("web-1")
    second = yard.start("web-2")
    with DockerFleet(fleet(health={"kind": "exec", "command": ["true"]}), yard.host) as members:
        create = members.api.exec_create

        def late(container: str, *words: Any) -> Any:
            if container == second:
                yard.docker("kill", second)
            return create(container, *words)

        members.api.exec_create = late
        assert [(one.name, one.healthy) for one in members.describe()] == [("web-1", True), ("web-2", False)]


def test_a_member_costs_the_engine_few_calls(yard: Yard) -> None:
    """With a network of its own and a restart policy: all but the reads of its health, which members share."""
    yard.start("web-1", "--network-alias", "web", "--restart", "always")
    with DockerFleet(fleet(), yard.host) as members:
        (one,) = members.describe()
        key = Key("r1", one.id, one.name, one.handle, Method.SURGE)
        target, calls = yard.target("two"), Counter[str]()
        members.prepare(target)
        sent = members.api.send

        def counted(request: Any, **more: Any) -> Any:
            calls[f"{request.method} {request.path_url.partition('?')[0].rpartition('/')[2]}"] += 1
            return sent(request, **more)

        members.api.send = counted
        members.find(one.id)
        members.create(key, target, NOW)
        members.start(key)
        members.expose(key)
        members.differences(key)
        members.retire(key, timedelta())
        members.swap(key)
        members.remove_old(key)
        assert sum(calls.values()) <= 21, calls
        calls.clear()
        for _ in range(3):
            members.read(key)
        assert sum(calls.values()) <= 1, calls
    assert planned(DockerFleet(fleet(), yard.host), target).steps
