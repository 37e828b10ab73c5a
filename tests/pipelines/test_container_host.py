"""Hosts with real engines: one set as `container-host` sets it, and one of the days when all was root."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.catalog import load_cases, load_control
from hardening.foundation.errors import RefusedError
from hardening.foundation.process import Completed
from hardening.foundation.settings import ROOT, Settings
from pipelines.cli.explain import story
from pipelines.fleet.catalog import load_fleet
from pipelines.fleet.docker.members import DockerFleet
from pipelines.fleet.docker.observing import observe
from pipelines.fleet.members import Member, Provenance, ReplacementImage
from pipelines.rollout.session import FleetSession
from pipelines.rollout.whole_plan import plan_all
from pipelines.wiring import image_context
from tests.support.engine_hosts import EngineHost
from tests.support.engines import busybox_image
from tests.support.fleets import release
from tests.support.hosts import free_port

pytestmark = [pytest.mark.needs("dockerd", "root", "busybox"), pytest.mark.slow]

DAY = timedelta(days=1)
FIRST = 231072  # of the numbers that container-daemon gives to root of containers
DOCKER = "docker:x:47998:"
HARDENED = {
    "passwd": "dockremap:x:997:997::/nonexistent:/usr/sbin/nologin",
    "group": f"dockremap:x:997:\n{DOCKER}",
    "subuid": f"dockremap:{FIRST}:65536",
    "subgid": f"dockremap:{FIRST}:65536",
}
# What no engine in a test has: systemd, which started it by its package's words, and a kernel with AppArmor.
NOT_HERE = re.compile(
    r"docker\.service is |System has not been booted|Failed to connect to|AppArmor confines|started with other options"
)


@pytest.fixture(scope="module")
def hardened() -> Iterator[EngineHost]:
    """An engine with the very settings that the control renders."""
    folder = ROOT / "hardening/controls/container-daemon"
    functions = {file.stem: file for file in (ROOT / "hardening/functions").glob("*.sh")}
    case = load_cases(load_control("container-daemon", folder, functions)).render[0]
    with EngineHost(case.expect["/etc/docker/daemon.json"], HARDENED) as host:
        busybox_image(host.api, "host-test:one", "one")
        yield host


@pytest.fixture
def clean(hardened: EngineHost) -> Iterator[EngineHost]:
    """The same, without containers and networks of another test."""
    yield hardened
    for one in hardened.api.containers(all=True):
        hardened.api.remove_container(one["Id"], force=True)
    hardened.docker("network", "prune", "--force")


def uid_of(host: EngineHost, container: str) -> str:
    """As whom the kernel runs a container's first process."""
    pid = host.docker("inspect", "--format", "{{.State.Pid}}", container)
    [line] = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("Uid:")]
    return line.split()[1]


def test_root_of_a_container_is_not_root_of_the_host(clean: EngineHost) -> None:
    """It is root for itself, and number 231072 for the kernel: a file of root's alone is closed to it."""
    secret = clean.folder / "etc/docker/secret"
    secret.write_text("of the host")
    secret.chmod(0o600)
    clean.docker(
        "run", "-d", "--name", "web", "--volume", "/etc/docker/secret:/secret", "host-test:one", "sleep", "600"
    )
    said = clean.inside("docker", "exec", "web", "cat", "/proc/self/uid_map", "/secret", ok=(1,))
    assert said.stdout.split() == ["0", str(FIRST), "65536"]
    assert "Permission denied" in said.stderr
    assert clean.docker("inspect", "--format", "{{.Config.User}}", "web") == ""
    assert uid_of(clean, "web") == str(FIRST)


def test_containers_of_two_networks_cannot_reach_each_other(clean: EngineHost) -> None:
    """Those of one can, by name; who is in both reaches both."""
    for name in ("shop", "bank"):
        clean.docker("network", "create", name)
        clean.docker("run", "-d", "--name", f"{name}-web", "--network", name, "host-test:one")
        clean.docker("run", "-d", "--name", f"{name}-client", "--network", name, "host-test:one", "sleep", "600")
    address = clean.docker("inspect", "--format", '{{(index .NetworkSettings.Networks "bank").IPAddress}}', "bank-web")

    def reached(client: str, to: str) -> bool:
        wget = ["wget", "-T", "5", "-qO-", f"http://{to}:8080/"]
        return clean.inside("docker", "exec", client, *wget, ok=(0, 1)).stdout.strip() == "one"

    assert reached("bank-client", "bank-web")
    assert reached("bank-client", address)
    assert not reached("shop-client", "bank-web")
    assert not reached("shop-client", address)
    clean.docker("network", "connect", "bank", "shop-client")
    assert reached("shop-client", address)


def checked(host: EngineHost, *words: str, ok: tuple[int, ...]) -> tuple[dict[str, Any], Completed]:
    """What `control.check --host` says on that host itself, by its four controls of containers."""
    command = [
        sys.executable,
        str(ROOT / "tasks.py"),
        "control.check",
        "--host",
        "--control",
        "contain*",
        "--json",
        *words,
    ]
    done = host.inside(*command, ok=ok)
    [line] = json.loads(done.stdout)
    return line, done


def complaints(line: dict[str, Any], control: str) -> list[str]:
    """The evidence against a control, but for what is not there in any test."""
    [check] = [one for one in line["checks"] if one["control"] == control]
    text = check["evidence"].splitlines() if check["outcome"] != "pass" else []
    return [one for one in text if not NOT_HERE.search(one)]


def test_the_hardened_engine_holds_what_its_profile_asks(clean: EngineHost) -> None:
    """Seccomp, no new privileges, live restore, user namespaces, no port, a bridge on which no two talk."""
    clean.docker("run", "-d", "--name", "web", "host-test:one", "sleep", "600")
    line, _ = checked(clean, ok=(3,))
    [daemon] = [one for one in line["checks"] if one["control"] == "container-daemon"]
    running = daemon["evidence"].partition("running: ")[2].partition("its files: ")[0]
    assert [one for one in running.splitlines() if not NOT_HERE.search(one)] in ([], ["fail:"], ["fail: "]), running
    assert complaints(line, "containers-confined") == []


def test_the_socket_in_a_container_is_reported(clean: EngineHost) -> None:
    """By the host's own check, with the steps that mend it; and the mapped root inside may not even ask."""
    clean.docker(
        "run", "-d", "--name", "agent", "--volume", "/run/docker.sock:/d.sock", "host-test:one", "sleep", "600"
    )
    line, done = checked(clean, ok=(3,))
    assert complaints(line, "containers-confined") == ["agent has the engine's socket: /run/docker.sock"]
    assert any("proxy" in step for step in line["todo"]["containers-confined"])
    assert done.status == 3


def test_a_host_of_root_only_days_is_found_and_the_way_out_is_told() -> None:
    """A port without TLS, no user namespaces, people in the group docker, containers as root with the socket."""
    port = free_port()
    accounts = {"group": f"{DOCKER}deploy,jenkins"}
    settings = json.dumps({"insecure-registries": ["example.test:5000", "10.0.0.0/8"]})
    options = ("--host", f"tcp://127.0.0.1:{port}", "--host", "unix:///run/docker.sock")
    with EngineHost(settings, accounts, options) as host:
        busybox_image(host.api, "host-test:one", "one")
        socket = "/run/docker.sock:/var/run/docker.sock"
        host.docker("run", "-d", "--name", "old", "--privileged", "--volume", socket, "host-test:one", "sleep", "600")
        line, _ = checked(host, ok=(3,))
        uid = uid_of(host, "old")
    daemon, confined = complaints(line, "container-daemon"), complaints(line, "containers-confined")
    assert uid == "0"
    assert {
        "containers end with the running daemon: live-restore is off",
        "the running daemon logs by json-file, not by local",
        "programs in containers may gain privileges: no-new-privileges is off",
        "root of a container is root of this host: no user namespace",
        "the registry example.test:5000 is believed without TLS",
        "registries in 10.0.0.0/8 are believed without TLS",
        "as good as root, by group docker: deploy,jenkins",
        "icc is not false in /etc/docker/daemon.json",
        'userns-remap is not "dockremap" in /etc/docker/daemon.json',
        "containers reach each other through the default bridge: true",
    } <= {one.partition("fail: ")[2] or one for one in daemon}
    [check] = [one for one in line["checks"] if one["control"] == "container-daemon"]
    [started] = [one for one in check["evidence"].splitlines() if "was started with other options" in one]
    assert f"--host tcp://127.0.0.1:{port} --host unix:///run/docker.sock" in started
    assert any(f"API is accessible on http://127.0.0.1:{port} without encryption" in one for one in daemon)
    assert {one.partition("fail: ")[2] or one for one in confined} == {
        "old is root on this host", "old is privileged", "old has the engine's socket: /run/docker.sock",
    }  # fmt: skip
    steps = line["todo"]["container-daemon"]
    assert len(steps) > 3
    assert "Close the TCP port first" in " ".join(steps)
    assert steps.index(next(one for one in steps if one.startswith("User namespaces last"))) == len(steps) - 2


# -- and fleets on such a host ----------------------------------------------------------------------------------------

STRICT = """
title = "What the shop demands of what runs"
owner = "security"
rationale = "Who can ask the engine is root on the host."
review_by = 2030-01-01
exception_contact = "security@example.com"

[running.docker_socket]
enforcement = "enforce"
"""
FLEET = """
title = "The agents"
owner = "ops"
kind = "docker"
policy = "strict"
selector = { app = "agents" }
health = { kind = "docker" }
limits = { shared_mounts = ["/d.sock"] }
replacement = { definition = "nginx" }
"""
EXCEPTION = """
rules = ["docker-socket"]
subjects = ["agents/agent"]
reason = "the proxy comes in March"
owner = "ops"
approver = "security"
created = %s
expires = %s
"""


class Expired:
    """Where images come from, as it is told here: what runs is long expired, what replaces it is not."""

    def __init__(self, image: str, now: datetime) -> None:
        self._image, self._now = image, now

    def of(self, _member: Member) -> Provenance:
        return Provenance(release=release(1, published_at=self._now - timedelta(90), expires_at=self._now - DAY))

    def target(self) -> ReplacementImage:
        golden = release(9, published_at=self._now - DAY, expires_at=self._now + timedelta(60))
        return ReplacementImage("host-test:two", self._image, golden)

    def again(self, target: ReplacementImage) -> ReplacementImage:
        return target


@pytest.fixture
def agents(clean: EngineHost, tmp_path: Path) -> Iterator[FleetSession]:
    """A fleet on the hardened engine whose policy enforces that no container has the socket."""
    now, content = datetime.now(UTC), tmp_path / "content"
    for name, text in (("hardening/policies/strict", STRICT), ("pipelines/fleets/agents", FLEET)):
        file = content / f"{name}.toml"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    settings = Settings(state=tmp_path / "state", content=(content,), judging={"roots": [content]})
    fleet = load_fleet(settings.roots, "agents")
    image = busybox_image(clean.api, "host-test:two", "two")
    with DockerFleet(fleet, clean.socket) as members:
        yield FleetSession(
            fleet, image_context(settings, looks=True), members, lambda: now, "r.example",
            lambda *_: Expired(image, now), members.seen, observe=partial(observe, members),
        )  # fmt: skip


def agent(host: EngineHost, name: str, *options: str) -> None:
    """A member of the fleet, on its first image."""
    host.docker("run", "-d", "--name", name, "--label", "app=agents", *options, "host-test:one", "sleep", "600")


def told_next(fleet: FleetSession, name: str) -> list[str]:
    """What `fleet.explain` says comes next for a member, that is not on a day."""
    [member] = [one for one in fleet.members.describe() if one.name == name]
    return [line.what for line in story(fleet, member).next if not line.at]


def test_the_socket_in_a_container_is_refused_at_the_plan(
    clean: EngineHost, agents: FleetSession, tmp_path: Path
) -> None:
    """By member, rule and the waiver to write; a waiver with an end lets it, and a neighbour is replaced anyway."""
    agent(clean, "agent", "--volume", "/run/docker.sock:/d.sock")
    with pytest.raises(RefusedError, match="may not be replaced as they are") as refused:
        plan_all(agents)
    [line] = refused.value.evidence.splitlines()
    assert line.startswith("agent: docker_socket is enforced: it has the engine's socket: /run/docker.sock at /d.sock")
    assert "./goldsmith waiver.new agents/agent docker-socket --reason WHY --approver WHO" in line
    assert told_next(agents, "agent")[0].startswith("no rollout replaces it: docker_socket is enforced: it has the eng")
    agent(clean, "good")
    assert told_next(agents, "good")[0].startswith("a rollout waits for a second person")
    made = plan_all(agents).plan
    assert [step.member.name for step in made.steps] == ["good"]
    assert [skip.why.partition(":")[0] for skip in made.skipped] == ["docker_socket is enforced"]
    [bad] = [one for one in agents.members.describe() if one.name == "agent"]
    order = SimpleNamespace(target=made.target, adopt=())
    assert "docker_socket is enforced" in agents.left_alone(order, bad)  # type: ignore[arg-type]
    today = agents.now().date()
    waiver = tmp_path / "content/hardening/waivers/proxy.toml"
    waiver.parent.mkdir()
    waiver.write_text(EXCEPTION % (today, today + DAY))
    assert [step.member.name for step in plan_all(agents).plan.steps] == ["agent", "good"]
    assert agents.left_alone(order, bad) == ""  # type: ignore[arg-type]
