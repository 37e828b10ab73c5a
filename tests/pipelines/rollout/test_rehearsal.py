"""In place, the new container is tried beside the old one first: an image that does not run costs nothing."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from pipelines.fleet.docker.container_spec import MOST_EXITS, rehearsal
from pipelines.fleet.docker.handover import named_until_exit
from pipelines.fleet.docker.inventory import probe
from pipelines.fleet.docker.members import DockerFleet
from pipelines.fleet.members import MEMBER, REHEARSAL, ROLLOUT, Key, Member, Read
from pipelines.fleet.model import Health, Method
from pipelines.rollout.member import replace_member
from pipelines.rollout.state import MemberOrder, MemberState, Phase, World
from tests.pipelines.rollout.test_finish import Book
from tests.pipelines.rollout.test_roll_docker import free_port
from tests.pipelines.rollout.test_steps import Clock
from tests.support.engines import WEB, busybox_image
from tests.support.fleets import NOW, member, target
from tests.support.fleets import fleet as fleet_with
from tests.support.loop import until
from tests.support.yards import Yard, fleet, roll

IN_PLACE = {"method": "in_place", "max_unavailable": 1, "healthy_deadline": "10m", "progress_deadline": "20m"}
CRASHES = "#!/bin/sh\necho 'cannot read the key'; exit 3\n"


@pytest.fixture
def crashing(yard: Yard) -> Yard:
    """A yard with an image that ends as soon as it is started."""
    yard.images["crashes"] = busybox_image(yard.api, "fleet-test:crashes", "crashes", files={"web": CRASHES})
    return yard


@pytest.mark.parametrize("policy", ["no", "always"])
@pytest.mark.needs("docker", "busybox")
@pytest.mark.slow
def test_a_replacement_that_ends_costs_nothing(crashing: Yard, policy: str) -> None:
    """The old one was never stopped, and nobody waited the ten minutes in which the new one might have got healthy;
    nothing is left of it.
    """
    yard = crashing
    yard.start("web-1", "--publish", f"127.0.0.1:{free_port()}:8080", "--restart", policy)
    before = yard.inspect("web-1")
    outcome = roll(yard, fleet(**IN_PLACE), "crashes")
    after = yard.inspect("web-1")
    assert [member.phase for member in outcome.members] == [Phase.OLD]
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
    failure = outcome.members[0].failure
    assert "web-1: the new one, tried beside the old one, was not healthy" in failure
    assert "exit status 3" in failure
    assert "log: cannot read the key" in failure
    assert made_by_rollouts(yard) == []


@pytest.mark.needs("docker", "busybox")
@pytest.mark.slow
def test_one_that_is_met_while_it_runs_again_tells_how_it_ended(yard: Yard) -> None:
    """The engine shows no exit status of what runs; its events do, and waiting is of no use all the same."""
    dies = "#!/bin/sh\nsleep 1; exit 3\n"
    image = busybox_image(yard.api, "fleet-test:dies", "dies", files={"web": dies})
    made = yard.api.create_container(
        image, labels={"goldsmith-test": "1"}, host_config={"RestartPolicy": {"Name": "always"}}
    )
    yard.api.start(made["Id"])

    def again() -> bool:
        nonlocal shown
        shown = yard.api.inspect_container(made["Id"])
        return shown["RestartCount"] >= MOST_EXITS and shown["State"]["Status"] == "running"

    shown = yard.api.inspect_container(made["Id"])
    until(again, "it runs again")
    found = probe(yard.api, Health(kind="exec", command=("false",)), shown)
    yard.api.remove_container(made["Id"], force=True)
    assert (found.good, found.ended) == (False, True)
    assert f"it ended {shown['RestartCount']} times before, exit status 3" in found.text


@pytest.mark.parametrize("policy", ["no", "always"])
@pytest.mark.needs("docker", "busybox")
@pytest.mark.slow
def test_without_a_rehearsal_one_that_ends_is_not_waited_for(crashing: Yard, policy: str) -> None:
    """The old one serves again as soon as the new one has ended for good, or three times."""
    yard = crashing
    old = yard.start("web-1", "--publish", f"127.0.0.1:{free_port()}:8080", "--restart", policy)
    outcome = roll(yard, fleet(**IN_PLACE, rehearsal=False), "crashes")
    assert [member.phase for member in outcome.members] == [Phase.OLD]
    assert "web-1: the new one was not healthy" in outcome.members[0].failure
    found = yard.inspect("web-1")
    assert (found["Id"], found["State"]["Status"]) == (old, "running")


@pytest.mark.needs("docker", "busybox")
@pytest.mark.slow
def test_what_is_written_in_a_rehearsal_is_gone(yard: Yard, tmp_path: Path) -> None:
    """Volumes are empty there, and what is bound from the host can be read; the member itself keeps both."""
    (tmp_path / "conf").write_text("ours\n")
    web = '#!/bin/sh\nread word </conf/conf; test "$word" = ours || exit 4\necho /data/* >>/data/seen\n. /web.real\n'
    files = {"web": web, "web.real": WEB}
    yard.images["writes"] = busybox_image(yard.api, "fleet-test:writes", "writes", files=files)
    options = ("--volume", "/data", "--volume", f"{tmp_path}:/conf", "--publish", f"127.0.0.1:{free_port()}:8080")
    yard.start("web-1", *options)
    yard.docker("exec", "web-1", "sh", "-c", "echo >/data/kept")
    outcome = roll(yard, fleet(**IN_PLACE), "writes")
    assert [member.phase for member in outcome.members] == [Phase.NEW], outcome.members
    assert yard.answer("web-1") == "writes"
    assert yard.docker("exec", "web-1", "sh", "-c", "read seen </data/seen; echo $seen") == "/data/kept"


@pytest.mark.needs("docker", "busybox")
@pytest.mark.slow
def test_a_member_whose_volume_the_new_user_cannot_write_is_told_before_it_is_touched(yard: Yard) -> None:
    """Seen in the volume, as the container has it; after the command that is told, nothing forbids it any more."""
    image = busybox_image(yard.api, "fleet-test:nobody", "nobody", "USER 65532:65532", "ENV MODE=new")
    yard.images["nobody"] = image
    yard.start("web-1", "--volume", "/data")
    target = yard.target("nobody")
    with DockerFleet(fleet(), yard.host) as members:
        (one,) = members.describe()
        before = members.changes(one, target)
        assert before.told == (
            "user: root → 65532:65532", "health check: CMD wget -qO- http://127.0.0.1:8080/ → -",
            "variable ANSWER: another value", "variable MODE: new",
            *named_until_exit(yard.inspect("web-1"), 3),
        )  # fmt: skip
        said = "the new image runs as 65532:65532, which cannot write to /data (owner 0:0, mode 755): "
        assert before.forbids.startswith(f"{said}docker exec --user 0 web-1 chown -R 65532:65532 /data fixes that")
        yard.docker("exec", "--user", "0", "web-1", "/bin/busybox", "chown", "-R", "65532:65532", "/data")
        assert members.changes(one, target) == replace(before, forbids="")
    with DockerFleet(fleet(unwritten_mounts=["/data"]), yard.host) as members:
        yard.docker("exec", "--user", "0", "web-1", "/bin/busybox", "chown", "-R", "0:0", "/data")
        assert members.changes(one, target).forbids == ""


@pytest.mark.needs("docker", "busybox")
@pytest.mark.slow
def test_a_socket_has_no_owner_to_ask_for(yard: Yard, tmp_path: Path) -> None:
    """The engine copies none: it is not known who may write there, and nothing is refused."""
    image = busybox_image(yard.api, "fleet-test:nobody", "nobody", "USER 65532:65532")
    yard.images["nobody"] = image
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.sock"))
        yard.start("web-1", "--volume", f"{tmp_path}/s.sock:/run/s.sock")
        with DockerFleet(fleet(), yard.host) as members:
            (one,) = members.describe()
            assert members.changes(one, yard.target("nobody")).forbids == ""


def made_by_rollouts(yard: Yard) -> list[str]:
    """The containers that rollouts have made here and not removed."""
    found = yard.api.containers(all=True, filters={"label": [ROLLOUT, MEMBER]})
    return [str(one["Names"][0]) for one in found if one["Labels"][MEMBER].endswith("/web-1")]


BODY: dict[str, Any] = {
    "Image": "r/web@sha256:2", "Hostname": "db", "MacAddress": "02:42:ac:11:00:77",
    "Labels": {"traefik.enable": "true"},
    "HostConfig": {"NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "80"}]}, "Memory": 7},
}  # fmt: skip


def rehearsed(**host: Any) -> dict[str, Any]:
    """The host's side of the rehearsal of BODY with more on the host's side."""
    found: dict[str, Any] = rehearsal({**BODY, "HostConfig": {**BODY["HostConfig"], **host}}, {})["HostConfig"]
    return found


def test_nobody_finds_a_rehearsal() -> None:
    """No port, no address of its own, no label by which a proxy or compose would take it for the member."""
    made = rehearsal(BODY, {ROLLOUT: f"r1{REHEARSAL}"})
    assert made["Labels"] == {ROLLOUT: f"r1{REHEARSAL}"}
    assert "MacAddress" not in made
    assert made["HostConfig"]["PortBindings"] == {}
    assert made["HostConfig"]["NetworkMode"] == "bridge", "on the host's network its check would ask the old one"
    assert made["HostConfig"]["Memory"] == 7
    assert made["Healthcheck"] == {"Interval": 1_000_000_000}
    assert rehearsed(NetworkMode="shop")["NetworkMode"] == "shop"
    assert rehearsed(NetworkMode="container:proxy")["NetworkMode"] == "bridge"
    assert "Hostname" not in made, "the engine lets a host name be found on a network"


@pytest.mark.parametrize(
    ("policy", "tried"),
    [
        ({}, {"Name": "no"}), ({"Name": "no"}, {"Name": "no"}),
        ({"Name": "always"}, {"Name": "on-failure", "MaximumRetryCount": 3}),
    ],
)  # fmt: skip
def test_a_rehearsal_does_not_outlive_its_rollout(policy: dict[str, Any], tried: dict[str, Any]) -> None:
    """Where nobody removes it, the engine does not start it for ever."""
    assert rehearsed(RestartPolicy=policy)["RestartPolicy"] == tried
    assert rehearsed(VolumesFrom=["other"])["VolumesFrom"] == []


@pytest.mark.parametrize(
    ("host", "binds", "mounts", "memory"),
    [
        ({"Binds": ["/srv:/srv"]}, ["/srv:/srv:ro"], [], []),
        ({"Binds": ["/srv:/srv:rw,Z"]}, ["/srv:/srv:Z,ro"], [], []),
        ({"Binds": ["/srv:/srv:ro"]}, ["/srv:/srv:ro"], [], []),
        ({"Binds": ["data:/data"]}, [], [], ["/data"]),
        ({"Binds": ["data:/data:rw"]}, [], [], ["/data"]),
        ({"Binds": ["data:/data:ro"]}, ["data:/data:ro"], [], []),
        ({"Mounts": [{"Type": "volume", "Source": "d", "Target": "/d"}]}, [], [], ["/d"]),
        (
            {"Mounts": [{"Type": "volume", "Source": "d", "Target": "/d", "ReadOnly": True}]},
            [], [{"Type": "volume", "Source": "d", "Target": "/d", "ReadOnly": True}], [],
        ),
        (
            {"Mounts": [{"Type": "bind", "Source": "/s", "Target": "/s"}]},
            [], [{"Type": "bind", "Source": "/s", "Target": "/s", "ReadOnly": True}], [],
        ),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/t"}]}, [], [{"Type": "tmpfs", "Target": "/t"}], []),
    ],
)  # fmt: skip
def test_a_rehearsal_writes_to_nothing_that_lasts(
    host: dict[str, Any], binds: list[str], mounts: list[Any], memory: list[str]
) -> None:
    """Each way in which docker writes a mount down."""
    made = rehearsed(**host)
    assert (made["Binds"], made["Mounts"]) == (binds, mounts)
    assert made["Tmpfs"] == dict.fromkeys(memory, "mode=1777")


@dataclass
class Swap:
    """An old and a new instance of one member in a fleet that rehearses; what `fails` is asked of raises."""

    fails: tuple[str, ...] = ()
    good: bool = True
    rehearses: bool = True
    done: list[str] = field(default_factory=list)

    def find(self, _member: str) -> Member:
        return member("web-1")

    def describe(self) -> list[Member]:
        return [member("web-1"), member("web-2")]

    def read(self, _key: Key) -> Read:
        return Read(self.good, "well" if self.good else "exit status 3", ended=not self.good)

    def read_old(self, _key: Key) -> Read:
        return Read(True, "well")

    def log(self, _key: Key) -> str:
        return "cannot read the key"

    def differences(self, _key: Key) -> tuple[str, ...]:
        return ()

    def downtime(self, _key: Key) -> timedelta:
        self._do("downtime", _key)
        return timedelta(seconds=1)

    def create(self, key: Key, *_: object) -> None:
        self._do("create", key)

    def start(self, key: Key) -> None:
        self._do("start", key)

    def retire(self, key: Key, _drain: timedelta) -> None:
        self._do("retire", key)

    def swap(self, key: Key) -> None:
        self._do("swap", key)

    def revive(self, key: Key) -> None:
        self._do("revive", key)

    def discard(self, key: Key) -> None:
        self._do("discard", key)

    def _do(self, what: str, key: Key) -> None:
        told = f"{what}{' of the rehearsal' if key.is_rehearsal else ''}"
        if told in self.fails:
            raise OutsideError(f"the engine does not answer: {told}")
        self.done.append(told)


def swapped(pair: Swap, **limits: Any) -> MemberState:
    """The member after its replacement in place."""
    engine: Any = Clock()
    judge: Any = SimpleNamespace(left_alone=lambda *_: "", refuse=lambda _: None)
    of = fleet_with(method="in_place", max_unavailable=1, **limits)
    order = MemberOrder("r1", "r1", "host/local/docker/web-1", "web-1", target(), Method.IN_PLACE, 1, of.limits)
    world: Any = World(pair, Book(), judge, lambda: NOW)  # type: ignore[arg-type]
    return asyncio.run(replace_member(world, engine, order))


def test_a_note_that_cannot_be_made_takes_nothing_back() -> None:
    """How long nobody served is worth a note, and no way back."""
    well = swapped(pair := Swap())
    assert (well.phase, well.note) == (Phase.SERVING, "down for 1.0 s")
    assert pair.done[:4] == ["create of the rehearsal", "start of the rehearsal", "discard of the rehearsal", "create"]
    assert (silent := swapped(Swap(fails=("downtime",)))).phase is Phase.SERVING
    assert silent.note == ""


def test_what_a_rehearsal_showed_is_told_though_it_could_not_be_removed() -> None:
    """The old one was never touched; what is left of the trial is for the reaper."""
    found = swapped(pair := Swap(good=False, fails=("discard of the rehearsal",)))
    assert "exit status 3" in found.failure
    assert "log: cannot read the key" in found.failure
    assert "retire" not in pair.done
