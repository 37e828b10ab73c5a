"""Rollouts on a real Docker Engine: nothing lost, everything kept, put back when broken, mended when killed."""

from __future__ import annotations

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
from images.documents import from_json, to_json
from pipelines.demo.web_service import nginx_config
from pipelines.fleet.docker.handover import rollout_of, tables
from pipelines.fleet.docker.members import DockerFleet
from pipelines.fleet.members import MEMBER, Key
from pipelines.fleet.model import Method
from pipelines.rollout.flow import ROLLOUT
from pipelines.rollout.state import Order, Phase, RolloutOutcome
from tests.support.engines import WEB, busybox_image, nginx_image, requests_to
from tests.support.fleets import keeps_its_word
from tests.support.loop import until
from tests.support.rolling import carried, carry_and_die, outcome_after_deaths
from tests.support.yards import LABELS, NETWORK, NOW, Yard, fleet, planned, roll

pytestmark = [pytest.mark.needs("docker", "busybox"), pytest.mark.slow]

IN_PLACE = {"method": "in_place", "max_unavailable": 1}
LEAVES = {"before_drain": ["sleep", "10"], "drain": "20s"}


def test_everything_that_makes_a_container_that_container_is_kept(yard: Yard, tmp_path: Path) -> None:
    """A diff of `inspect` before and after shows the image and nothing else."""
    (tmp_path / "conf").write_text("kept")
    yard.docker("volume", "create", "--label", "goldsmith-test=1", "fleet-test-data")
    yard.api.create_network("fleet-test-2", labels={"goldsmith-test": "1"})
    yard.start(
        "web-1", "--network-alias", "web", "--env", "COLOUR=blue", "--volume", f"{tmp_path}/conf:/conf:ro",
        "--volume", "fleet-test-data:/data", "--volume", "/scratch", "--restart", "unless-stopped", "--memory", "64m",
        "--cpus", "0.5", "--pids-limit", "50", "--ulimit", "nofile=512:1024", "--cap-drop", "ALL", "--cap-add", "CHOWN",
        "--security-opt", "no-new-privileges", "--read-only", "--tmpfs", "/tmp", "--user", "1000:1000",
        "--hostname", "shop", "--add-host", "db:10.0.0.9", "--dns", "9.9.9.9", "--log-opt", "max-size=1m",
        "--stop-timeout", "4", "--stop-signal", "INT", "--shm-size", "32m",
        "--sysctl", "net.ipv4.ip_unprivileged_port_start=80",
        "--health-cmd", "wget -qO- http://127.0.0.1:8080/", "--health-interval", "500ms", "--label", "tier=front",
        "--device", "/dev/null:/dev/nothing", "--publish", "8080", "--ipc", "private", "--workdir", "/tmp",
        words=("sh", "/web"),
    )  # fmt: skip
    yard.docker("network", "connect", "--alias", "shop-front", "fleet-test-2", "web-1")
    yard.docker("exec", "--user", "0", "web-1", "sh", "-c", "true")
    before = yard.inspect("web-1")
    of = fleet(shared_mounts=["/data", "/scratch"], health={"kind": "docker"})
    outcome = roll(yard, of, "two")
    after = yard.inspect("web-1")
    assert [(member.phase, member.note) for member in outcome.members] == [(Phase.NEW, "")]
    assert yard.names() == ["web-1"]
    assert yard.answer("web-1") == "two"
    assert before["Id"] != after["Id"]
    for key in before["HostConfig"].keys() - {"Binds", "Mounts"}:
        assert after["HostConfig"][key] == before["HostConfig"][key], key
    for key in before["Config"].keys() - {"Image", "Env", "Labels", "ExposedPorts", "Volumes"}:
        assert after["Config"][key] == before["Config"][key], key
    assert "COLOUR=blue" in after["Config"]["Env"]
    assert "ANSWER=two" in after["Config"]["Env"], "what the old image set by default is the new image's to set"
    mounts = [
        {(m["Destination"], m.get("Name") or m["Source"], m["RW"]) for m in one["Mounts"]} for one in (before, after)
    ]
    assert mounts[0] == mounts[1]
    assert len(mounts[1]) == 3
    networks = after["NetworkSettings"]["Networks"]
    assert {"web", "shop-front"} <= set(networks["fleet-test"]["Aliases"]) | set(networks["fleet-test-2"]["Aliases"])
    assert after["Config"]["Labels"]["tier"] == "front"
    assert after["Config"]["Labels"]["dev.goldsmith.rollout"] == "r1"


def test_a_second_rollout_keeps_what_the_first_kept(yard: Yard) -> None:
    """Labels and aliases of earlier rollouts do not pile up."""
    yard.start("web-1", "--network-alias", "web")
    roll(yard, fleet(), "two")
    first = yard.inspect("web-1")
    outcome = roll(yard, fleet(), "one", "r2")
    second = yard.inspect("web-1")
    assert outcome.members[0].note == ""
    assert second["Config"]["Labels"] == {**first["Config"]["Labels"], **{
        key: second["Config"]["Labels"][key] for key in ("dev.goldsmith.rollout", "dev.goldsmith.expiry")
    }}  # fmt: skip
    aliases = [one["NetworkSettings"]["Networks"]["fleet-test"]["Aliases"] for one in (first, second)]
    assert sorted(aliases[0]) == sorted(aliases[1]) == ["web", "web-1"]


@pytest.mark.needs("nginx")
def test_behind_a_proxy_no_request_is_lost_while_the_only_member_is_replaced(yard: Yard) -> None:
    """A steady stream before, during and after; the answers change from one to two."""
    yard.start("web-1", "--network-alias", "web")
    with requests_to(proxy(yard)) as stream:
        until(lambda: len(stream.answers) > 50, "answers before it")
        roll(yard, fleet(settle="2s"), "two")
        until(lambda: "".join(stream.answers[-50:]) == 50 * "two", "answers after it")
    assert stream.failures == []
    assert (stream.answers[0], stream.answers[-1]) == ("one", "two")
    assert yard.names() == ["web-1"]


@pytest.mark.needs("nginx")
def test_behind_a_proxy_a_broken_replacement_loses_nothing_and_the_old_one_stays(yard: Yard) -> None:
    """The failure shows what the new one said; the old container is the very same one."""
    old = yard.start("web-1", "--network-alias", "web")
    with requests_to(proxy(yard)) as stream:
        outcome = roll(yard, fleet(healthy_deadline="3s"), "broken")
        time.sleep(1)
    assert "cannot read the key" in outcome.state.failure
    assert [member.phase for member in outcome.members] == [Phase.OLD]
    assert stream.failures == []
    assert set(stream.answers) == {"one"}
    assert yard.inspect("web-1")["Id"] == old
    assert yard.names() == ["web-1"]


@pytest.mark.needs("nginx")
def test_a_replacement_that_faints_after_it_was_healthy_is_caught_by_the_bake(yard: Yard) -> None:
    """The canary serves for a while and then answers nobody: it goes back, and no request is lost by that, for the
    proxy asks another one.
    """
    for number in range(3):
        yard.start(f"web-{number}", "--network-alias", "web")
    renamed = yard.api.events(since=datetime.now(UTC), filters={"event": "rename"}, decode=True)

    def faint_as_a_member() -> None:
        """The canary faints when it has taken the name over and somebody was served by it."""
        canary = next(one for one in renamed if one["Actor"]["Attributes"]["name"] == "web-0")["id"]
        while "faint" not in stream.answers:
            time.sleep(0.1)
        yard.docker("exec", canary, "sh", "-c", "> /tmp/faint")

    with requests_to(proxy(yard)) as stream, ThreadPoolExecutor(1) as hands:
        fainted = hands.submit(faint_as_a_member)
        outcome = roll(yard, fleet(bake_time="3m", min_healthy_time="1s", settle="2s"), "faint")
        renamed.close()
        fainted.result()
        time.sleep(1)
    assert "became unhealthy during the bake" in outcome.state.failure
    assert [member.phase for member in outcome.members] == [Phase.OLD, Phase.PLANNED, Phase.PLANNED]
    assert stream.failures == []
    assert [yard.answer(f"web-{number}") for number in range(3)] == ["one"] * 3
    assert yard.names() == ["web-0", "web-1", "web-2"]


def proxy(yard: Yard) -> str:
    """An nginx in front of the alias web; its address, when it answers."""
    nginx_image(yard.api, "fleet-test:proxy", nginx_config("web", 8080))
    words = ["run", "-d", "--name", "fleet-test-proxy", "--label", "goldsmith-test=1", "--network", "fleet-test"]
    yard.docker(*words, "--stop-timeout", "1", "fleet-test:proxy")
    address = yard.inspect("fleet-test-proxy")["NetworkSettings"]["Networks"]["fleet-test"]["IPAddress"]
    with requests_to(f"http://{address}:8080/") as stream:
        until(lambda: stream.answers, "an answer through the proxy")
    return stream.url


DEAF = "#!/bin/sh\ntrap '' TERM\nbusybox httpd -p 8080 -h /tmp\nwhile :; do sleep 1; done\n"


def test_a_new_one_that_is_removed_by_hand_while_the_old_one_drains_costs_nobody_the_member(yard: Yard) -> None:
    """The old one is stopped by then: it has to run again, under its name and whenever it ends, and the rollout has
    failed.
    """
    busybox_image(yard.api, "fleet-test:deaf", "one", files={"web": DEAF})
    old = yard.start("web-1", image="fleet-test:deaf")

    def policy() -> str:
        return str(yard.inspect("web-1")["HostConfig"]["RestartPolicy"]["Name"])

    def remove_the_new() -> None:
        next(yard.api.events(filters={"container": old, "event": "kill"}))
        yard.docker("rm", "--force", "web-1.r1")

    yard.docker("update", "--restart", "always", old)
    with ThreadPoolExecutor(1) as hands:
        removed = hands.submit(remove_the_new)
        outcome = roll(yard, fleet(health={"kind": "tcp", "port": 8080}, drain="5s"), "two")
        removed.result()
    assert [member.phase for member in outcome.members] == [Phase.OLD]
    assert "the new container of web-1 is gone" in outcome.state.failure
    assert yard.names() == ["web-1"]
    assert (yard.inspect("web-1")["Id"], yard.inspect("web-1")["State"]["Status"]) == (old, "running")
    assert policy() == "unless-stopped"


@pytest.mark.needs("nft", root=True)
def test_in_place_keeps_the_published_port_and_the_static_address(yard: Yard) -> None:
    """Stopped first, for the port cannot exist twice; new connections wait, and then the new image answers them."""
    yard.api.create_network(
        "fleet-test-3", labels={"goldsmith-test": "1"}, ipam={"Config": [{"Subnet": f"{NETWORK}.0/24"}]}
    )
    port = free_port()
    yard.start("web-1", "--publish", f"127.0.0.1:{port}:8080", "--network", "fleet-test-3", "--ip", f"{NETWORK}.9")
    with DockerFleet(fleet(), yard.host) as members, pytest.raises(RefusedError, match="cannot exist twice") as error:
        planned(members, yard.target("two"))
    assert f"host port {port}" in error.value.evidence
    assert f"static address {NETWORK}.9" in error.value.evidence
    with requests_to(f"http://127.0.0.1:{port}/") as stream:
        until(lambda: len(stream.answers) > 20, "answers before it")
        outcome = roll(yard, fleet(method="in_place", max_unavailable=1), "two")
        until(lambda: "".join(stream.answers[-20:]) == 20 * "two", "answers after it")
    assert (stream.failures, set(stream.answers)) == ([], {"one", "two"})
    assert re.fullmatch(r"down for \d+\.\d s", outcome.members[0].note)
    assert "r1" not in map(rollout_of, tables())
    assert yard.inspect("web-1")["NetworkSettings"]["Networks"]["fleet-test-3"]["IPAddress"] == f"{NETWORK}.9"
    assert yard.names() == ["web-1"]


def test_in_place_a_broken_replacement_gives_the_port_back(yard: Yard) -> None:
    """The very same container serves on it again, with its restart policy."""
    port = free_port()
    old = yard.start("web-1", "--publish", f"127.0.0.1:{port}:8080", "--restart", "always")
    outcome = roll(yard, fleet(method="in_place", max_unavailable=1, healthy_deadline="2s", rehearsal=False), "broken")
    assert [member.phase for member in outcome.members] == [Phase.OLD]
    assert yard.names() == ["web-1"]
    found = yard.inspect("web-1")
    assert (found["Id"], found["HostConfig"]["RestartPolicy"]["Name"]) == (old, "always")
    with requests_to(f"http://127.0.0.1:{port}/") as stream:
        until(lambda: len(stream.answers) > 20, "answers")
    assert set(stream.answers) == {"one"}


def says(what: str) -> list[str]:
    """A command that writes down who says it; /log outlives the containers."""
    return ["sh", "-c", f'echo "$ANSWER {what}" >> /log/story']


@pytest.mark.parametrize(
    ("image", "limits", "story"),
    [
        ("two", {}, ["one leaves", "two serves"]),
        (
            "broken",
            {"method": "in_place", "max_unavailable": 1, "healthy_deadline": "2s", "rehearsal": False},
            ["one leaves", "one serves"],
        ),
    ],
    ids=["replaced", "put back"],
)
def test_commands_run_before_a_container_drains_and_in_the_one_that_serves_then(
    yard: Yard, tmp_path: Path, image: str, limits: dict[str, Any], story: list[str]
) -> None:
    """Such as to leave a load balancer that nobody else tells, and to come back to it."""
    yard.start("web-1", "--volume", f"{tmp_path}:/log")
    commands = {"before_drain": says("leaves"), "after_drain": says("serves"), "shared_mounts": ["/log"]}
    roll(yard, fleet(**commands, **limits), image)
    assert (tmp_path / "story").read_text().splitlines() == story


@pytest.mark.parametrize("method", [Method.SURGE, Method.IN_PLACE])
@pytest.mark.parametrize("fails", [False, True])
def test_a_new_one_that_serves_drains_as_well_when_it_has_to_go(
    yard: Yard, tmp_path: Path, method: Method, fails: bool
) -> None:
    """It runs the command, ends by itself, and is not killed; a command that fails there does not hold up the old one.

    One that serves nobody goes at once.
    """
    tells = {"web": WEB.replace("exit 0", 'echo "$ANSWER has ended" >> /log/story; exit 0')}
    yard.images["polite"] = busybox_image(yard.api, "fleet-test:polite", "polite", files=tells)
    old = yard.start("web-1", "--volume", f"{tmp_path}:/log")
    command = [*says("leaves")[:2], says("leaves")[2] + ('; test "$ANSWER" = one' if fails else "")]
    with DockerFleet(fleet(before_drain=command, method=method, max_unavailable=1), yard.host) as members:
        (one,) = members.describe()
        key = Key("r1", one.id, one.name, old, method)
        members.create(key, yard.target("polite"), NOW)
        members.retire(key, timedelta(seconds=1))
        members.start(key)
        while not members.read(key).good:
            time.sleep(0.1)
        members.swap(key)
        members.revive(key)
        members.discard(key)
        assert (tmp_path / "story").read_text().splitlines() == ["one leaves", "polite leaves", "polite has ended"]
        assert (yard.names(), yard.answer("web-1")) == (["web-1"], "one")
        key = replace(key, rollout="r2")
        members.create(key, yard.target("broken"), NOW)
        members.start(key)
        members.discard(key)
        assert len((tmp_path / "story").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("command", "said"),
    [(["sh", "-c", "echo no way; exit 3"], "ended with 3: no way"), (["sleep", "60"], "did not end within 1 s")],
)
def test_a_command_before_draining_that_fails_leaves_the_old_one_serving(
    yard: Yard, command: list[str], said: str
) -> None:
    """Nothing was stopped; the failure names the setting and what the command said."""
    old = yard.start("web-1")
    with DockerFleet(fleet(before_drain=command, drain="1s"), yard.host) as members:
        (one,) = members.describe()
        with pytest.raises(OutsideError, match=f"before_drain in web-1: .*{said}"):
            members.retire(Key("r1", one.id, one.name, old, Method.SURGE), timedelta(seconds=1))
    assert yard.answer("web-1") == "one"


@pytest.mark.parametrize(
    ("life", "after", "limits"),
    [("0", 0.18, {}), ("0", 0.2, {}), ("0", 0.22, {}), ("0", 0.2, LEAVES), ("3", 0.2, LEAVES)],
)
def test_one_that_restarts_for_ever_is_replaced(yard: Yard, life: str, after: float, limits: dict[str, Any]) -> None:
    """It serves nobody: neither its end in the middle of a command keeps it, nor that the engine updates no container
    which is about to end, as this one nearly always is a fifth of a second after its start.
    """
    old = yard.start("web-1", "--restart", "always", words=("sh", "-c", f"sleep {life}; false"))
    with DockerFleet(fleet(**limits), yard.host) as members:
        key = Key("r1", f"{members.account}/local/docker/web-1", "web-1", old, Method.SURGE)
        time.sleep(after)
        members.retire(key, timedelta(seconds=1))
    left = yard.inspect("web-1")
    assert (left["State"]["Status"], left["HostConfig"]["RestartPolicy"]["Name"]) == ("exited", "unless-stopped")


def test_a_health_command_that_does_not_end_is_a_bad_read(yard: Yard) -> None:
    """It cannot hold a rollout up beyond its deadline."""
    yard.start("web-1")
    of = fleet(health={"kind": "exec", "command": ["sleep", "60"], "timeout": "1s"})
    with DockerFleet(of, yard.host) as members:
        assert [one.healthy for one in members.describe()] == [False]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


HASTY = {"min_healthy_time": "0s", "bake_time": "0s", "drain": "1s", "settle": "0s"}


@pytest.mark.parametrize(
    ("image", "limits", "serves", "phase"),
    [
        ("two", {}, "two", Phase.NEW),
        ("two", IN_PLACE, "two", Phase.NEW),
        ("broken", {**IN_PLACE, "healthy_deadline": "2s", "rehearsal": False}, "one", Phase.OLD),
    ],
    ids=["surge", "in place, tried before", "in place, and put back"],
)
def test_killed_at_every_point_it_comes_to_the_same_end(
    yard: Yard, image: str, limits: dict[str, Any], serves: str, phase: Phase
) -> None:
    """kill -9 at the boundary of each step, and between each call that changes something and its record: one process
    after the other dies at the next point, until one has none left. Nothing is lost, doubled or orphaned.
    """
    yard.start("web-1", "--network-alias", "web")
    of = fleet(**{**HASTY, **limits})
    with DockerFleet(of, yard.host) as members:
        order = Order("r1", planned(members, yard.target(image)), of.limits)
    outcome = outcome_after_deaths(carry_and_die, yard.folder, of, order, after=7, before=12, host=yard.host)
    assert [member.phase for member in outcome.members] == [phase], outcome
    assert yard.names() == ["web-1"]
    assert len(yard.api.containers(all=True, filters={"label": MEMBER})) == (phase is Phase.NEW)
    assert yard.answer("web-1") == serves
    assert "web" in yard.inspect("web-1")["NetworkSettings"]["Networks"]["fleet-test"]["Aliases"]


def test_members_side_by_side_are_replaced_and_taken_back_to_the_exact_image_that_they_ran(yard: Yard) -> None:
    """By digest: that the tag points elsewhere by then changes nothing."""
    for number in range(4):
        yard.start(f"web-{number}", "--network-alias", "web")
    wide = {"max_parallel": 4, "max_surge": 4, "canary": 0, "budgets": [{"nodes": "100%"}]}
    outcome = roll(yard, fleet(**wide), "two")
    assert {yard.answer(f"web-{number}") for number in range(4)} == {"two"}
    yard.docker("tag", "fleet-test:broken", "fleet-test:one")
    again = roll(yard, fleet(**wide), "two", "r2", back=outcome.members)
    assert {member.phase for member in again.members} == {Phase.OLD}
    assert {yard.answer(f"web-{number}") for number in range(4)} == {"one"}
    assert yard.names() == [f"web-{number}" for number in range(4)]


def test_a_member_that_drifted_is_replaced_by_the_very_image_that_it_runs(yard: Yard) -> None:
    """What was changed in it is gone with the old one, also when it is taken back."""
    old = yard.start("web-1", "--network-alias", "web")
    yard.docker("exec", "web-1", "sh", "-c", "echo evil >/etc/planted")
    outcome = roll(yard, fleet(), "one")
    new = yard.inspect("web-1")
    assert ([one.phase for one in outcome.members], yard.answer("web-1")) == ([Phase.NEW], "one")
    assert (new["Id"] != old, new["Image"]) == (True, yard.images["one"])
    assert "/etc/planted" not in {one["Path"] for one in yard.api.diff("web-1") or ()}
    again = roll(yard, fleet(), "one", "r2", back=outcome.members)
    assert ([one.phase for one in again.members], again.state.failure, yard.names()) == ([Phase.OLD], "", ["web-1"])
    assert (yard.answer("web-1"), yard.inspect("web-1")["Image"]) == ("one", yard.images["one"])


def test_each_member_becomes_what_its_own_step_says(yard: Yard, tmp_path: Path) -> None:
    """One is rolled onto the image that it runs, the other to the plan's; taken back, both run what they ran."""
    before = {name: yard.start(name, "--network-alias", "web") for name in ("web-1", "web-2")}
    with DockerFleet(fleet(), yard.host) as members, carried(members, tmp_path / "flows") as worker:
        made = planned(members, yard.target("two"))
        waves = tuple(
            replace(
                wave,
                steps=tuple(
                    replace(step, target=yard.target("one") if step.member.name == "web-1" else None)
                    for step in wave.steps
                ),
            )
            for wave in made.waves
        )
        order = Order("r1", replace(made, waves=waves), members.fleet.limits)
        assert {one.reference for one in order.plan.targets} == {"fleet-test:one", "fleet-test:two"}
        outcome = from_json(RolloutOutcome, worker.execute(ROLLOUT, "r1", to_json(order)))
        assert [one.phase for one in outcome.members] == [Phase.NEW] * 2
        assert [yard.answer(name) for name in before] == ["one", "two"]
        assert all(yard.inspect(name)["Id"] != old for name, old in before.items())
        again = replace(order, rollout="r2", back=outcome.members)
        went = from_json(RolloutOutcome, worker.execute(ROLLOUT, "r2", to_json(again)))
    assert ({one.phase for one in went.members}, went.state.failure) == ({Phase.OLD}, "")
    assert [yard.answer(name) for name in before] == ["one", "one"]


def test_an_engine_that_cannot_be_reached_is_an_error_and_no_empty_fleet() -> None:
    """Unread is not compliant."""
    with pytest.raises(OutsideError, match="Docker Engine"):
        DockerFleet(fleet(), "tcp://127.0.0.1:9")


def test_members_are_what_runs_with_the_labels(yard: Yard) -> None:
    """With every digest of their image, what forbids two of them, and until when they are not to be disrupted."""
    yard.start("web-1", "--volume", "/data", "--label", "dev.goldsmith.do-not-disrupt-until=2100-01-01T00:00:00Z")
    yard.docker("run", "-d", "--name", "web-2", *LABELS, "--rm", "fleet-test:one")
    yard.start("web-4", "--label", "dev.goldsmith.do-not-disrupt-until=xmas")
    yard.docker("run", "-d", "--name", "other", "--label", "goldsmith-test=1", "fleet-test:one")
    yard.docker("create", "--name", "web-3", *LABELS, "fleet-test:one")
    with DockerFleet(fleet(), yard.host) as members:
        first, second, third = members.describe()
    assert (first.name, second.name, third.name) == ("web-1", "web-2", "web-4")
    assert first.id.endswith("/local/docker/web-1")
    assert yard.images["one"] in first.digests
    assert first.layers
    assert first.protected_until == datetime(2100, 1, 1, tzinfo=UTC)
    assert "it writes to" in first.forced_in_place[0]
    assert "--rm" in second.cannot_roll
    assert "not a date with time, such as 2027-01-31T12:00Z: xmas" in third.cannot_roll


def test_a_member_that_another_rollout_has_in_hand_is_left_to_that(yard: Yard) -> None:
    """Two fleets may select one container, and each has a lease of its own."""
    yard.start("web-1")
    with DockerFleet(fleet(), yard.host) as members:
        (one,) = members.describe()
        key = Key("ra", one.id, one.name, one.handle, Method.SURGE)
        members.create(key, yard.target("two"), NOW)
        with pytest.raises(RefusedError, match="web-1 is being replaced by ra already"):
            members.create(replace(key, rollout="rb"), yard.target("two"), NOW)
    assert yard.names() == ["web-1", "web-1.ra"]


def test_the_port_keeps_its_word(yard: Yard) -> None:
    """The same contract as the fleet in memory, on which the engine's own tests stand."""
    yard.start("web-1", "--network-alias", "web")
    with DockerFleet(fleet(), yard.host) as members:
        keeps_its_word(members, yard.target("two"))
    assert yard.names() == ["web-1"]
