"""What Goldsmith does to the machine it runs on: packages, engines, the embedded registry, and the doctor's report."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from ipaddress import IPv4Network
from pathlib import Path
from socketserver import UnixStreamServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import docker
import pytest
import requests

from hardening.foundation.errors import LateError, OutsideError
from hardening.foundation.locks import is_held, only_one
from hardening.foundation.process import Completed, run
from hardening.foundation.settings import Docker, Registry, Settings
from images.registry.login import auth_config, login_file
from pipelines.contract import DoctorLine
from pipelines.host import doctor, embedded_registry, private_engine, provision
from pipelines.host.daemon import Daemon
from pipelines.host.private_engine import (
    POOLS,
    START_SECONDS,
    TAKING,
    PrivateEngine,
    daemon_config,
    free_pool,
    networks,
    rules,
)
from pipelines.host.provision import CONTAINERD_STORE, TOOLS, Engine, Tool
from tests.support.engines import busybox_image
from tests.support.loop import until
from tests.support.scanning import NO_FEEDS

ABSENT = Tool("no-such-program", "no-such-package", "nothing")


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings whose state lies in a folder of the test's own; what was started there is stopped."""
    made = Settings(state=tmp_path / "state", feeds=NO_FEEDS)
    yield made
    embedded_registry.stop(made)
    if os.geteuid() == 0:
        PrivateEngine(made).stop()


def test_a_program_that_is_there_is_not_missing() -> None:
    """A tool is found by its program or its file; what is absent is listed."""
    assert provision.missing([Tool("sh", "dash", ""), ABSENT]) == [ABSENT]


@pytest.mark.parametrize("found", [True, False])
def test_the_socket_of_an_engine_that_runs_is_closed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: bool
) -> None:
    """Whoever started it may have been killed before that, or be an earlier version."""
    settings = Settings(state=tmp_path / "state")
    private = PrivateEngine(settings)
    private.socket = tmp_path / "docker.sock"
    private.socket.touch(mode=0o660)
    private.data.mkdir(parents=True)
    running = Engine(private.host, "28", containerd_store=True) if found else None
    monkeypatch.setattr(provision, "PrivateEngine", lambda _: private)
    monkeypatch.setattr(provision, "existing_engine", lambda *_: running)
    monkeypatch.setattr(private, "answers", lambda: True)
    monkeypatch.setattr(Daemon, "pid", lambda _: 1)
    assert provision.docker_host(settings, for_builds=True) == private.host
    assert stat.filemode(private.socket.stat().st_mode) == "-rw-------"


def test_a_program_that_does_not_find_its_library_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there and does not start, since its library is another version's; both packages are installed anew."""
    program = tmp_path / "of-a-test"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    tool = Tool("of-a-test", "its-package", "", library="libof-a-test")
    for script, missing in (('exit "${LD_BIND_NOW:+127}"', [tool]), ("exit 0", [])):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        assert provision.missing([tool]) == missing
    assert tool.packages == ("its-package", "libof-a-test")


def test_apt_waits_and_recommends_nothing() -> None:
    """The install command waits for another apt, mends what is broken, and adds nothing that was not named."""
    argv = provision.apt_install(["runc"])
    assert argv[:2] == ["apt-get", "install"]
    assert argv[-1] == "runc"
    assert {"--no-install-recommends", "--reinstall", "DPkg::Lock::Timeout=300"} <= set(argv)


def test_where_it_may_not_install_it_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root and sudo, setup stops and names the programs and their packages."""
    monkeypatch.setattr(provision, "_as_root", lambda: None)
    with pytest.raises(OutsideError, match="lacks no-such-program") as caught:
        provision.install([ABSENT])
    assert "no-such-package" in caught.value.hint


def test_an_engine_is_told_by_its_image_store() -> None:
    """`docker info` says whether the engine has the containerd image store; an error answer describes no engine."""
    modern = {"ServerVersion": "28.0", "DriverStatus": [["driver-type", CONTAINERD_STORE]]}
    assert provision.parse_info("h", json.dumps(modern)) == Engine("h", "28.0", True)
    classic = {"ServerVersion": "26.1", "DriverStatus": [["Backing Filesystem", "extfs"]]}
    assert provision.parse_info("h", json.dumps(classic)) == Engine("h", "26.1", False)
    assert [Engine("h", "1", store).suits(for_builds=True) for store in (True, False)] == [True, False]
    assert Engine("h", "1", False).suits(for_builds=False)
    assert provision.parse_info("h", '{"ServerErrors": ["cannot connect"]}') is None
    assert provision.parse_info("h", "not json") is None


class Says(BaseHTTPRequestHandler):
    """An engine that says one thing of itself, with its status before it."""

    answer = b""

    def do_GET(self) -> None:
        self.wfile.write(b"HTTP/1.1 " + self.answer if self.path == "/info" else b"HTTP/1.1 404 -\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        (b'200 OK\r\n\r\n{"ServerVersion": "28.0", "DriverStatus": []}', 0),
        (b'500 -\r\n\r\n{"ServerVersion": "28.0"}', 1),
        (b"nonsense\r\n\r\n", 1),
        (b"200 OK\r\n\r\n\xff", 1),
        (b"200 OK\r\n\r\n", 1),
    ],
)
def test_an_engine_behind_a_socket_is_asked_without_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, asked: int
) -> None:
    """docker would start all its plugins first; it is asked where that says nothing, for it knows why."""
    started: list[Sequence[str]] = []
    monkeypatch.setattr(provision, "which", lambda _: tmp_path)
    monkeypatch.setattr(provision, "run", lambda argv, **_: started.append(argv) or Completed((), 1, "", "down"))
    monkeypatch.setattr(Says, "answer", answer)
    path = tmp_path / "a socket"
    with UnixStreamServer(str(path), Says) as server:
        server.timeout = 60
        thread = Thread(target=server.handle_request)
        thread.start()
        found = provision.probe(f"unix://{path}")
        thread.join()
    assert (found, len(started)) == (None if asked else Engine(f"unix://{path}", "28.0", False), asked)


@pytest.mark.needs("docker")
def test_an_engine_that_hangs_is_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a socket as at an address."""
    monkeypatch.setattr(provision, "ASK_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "socket"))
        silent.listen()
        with pytest.raises(LateError, match="did not answer within"):
            provision.probe(f"unix://{tmp_path}/socket")


@pytest.mark.needs("docker")
def test_a_configured_engine_that_is_down_is_an_error(tmp_path: Path) -> None:
    """Goldsmith never uses another engine than the one that was asked for."""
    down = f"unix://{tmp_path}/no.sock"
    for given in (Docker(host=down), Docker(build_host=down)):
        with pytest.raises(OutsideError, match="does not answer"):
            provision.docker_host(Settings(state=tmp_path, docker=given), for_builds=True)


@pytest.mark.needs("docker")
def test_a_private_engine_that_hangs_does_not_answer(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """docker's client waits for ever, and with it would every build and every night."""
    monkeypatch.setattr(private_engine, "ANSWER_SECONDS", 1)
    private = PrivateEngine(settings)
    private.socket.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(private.socket))
        silent.listen()
        assert not private.answers()


def test_a_private_engine_takes_addresses_that_nobody_has() -> None:
    """The first range without a neighbour is chosen; when all are taken, the error says what to set."""
    assert free_pool(POOLS, [IPv4Network("10.213.3.0/24")]) == POOLS[1]
    with pytest.raises(OutsideError, match="no free address range"):
        free_pool(POOLS, [IPv4Network("10.0.0.0/8")])


def test_addresses_that_another_engine_has_taken_since_are_left_to_it(tmp_path: Path) -> None:
    """Where an engine was stopped, and the next one chose its addresses: its start must not take that one's bridge."""
    engine = PrivateEngine(Settings(state=tmp_path))
    engine.pool_file.parent.mkdir(parents=True)
    engine.pool_file.write_text("10.213.16.0/20\n")

    def link(name: str, address: str) -> dict[str, Any]:
        return {"ifname": name, "addr_info": [{"local": address, "prefixlen": 24}]}

    of_its_network = link("br-1", "10.213.24.1")
    assert engine._pools([of_its_network]) == {IPv4Network("10.213.16.0/20")}
    assert engine._pools([link("gold00000000", "10.213.16.1"), of_its_network]) == set()
    moved = [link("gold00000000", "10.213.16.1"), link(engine.bridge, "10.213.32.1")]
    assert engine._pools(moved) == {IPv4Network("10.213.32.0/20")}


def test_addresses_are_taken_under_a_lock_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the look at what is free until the bridge has them: engines of other state directories choose as well."""
    lock, seen = tmp_path / "host.lock", list[tuple[str, bool]]()

    def taken() -> list[IPv4Network]:
        seen.append(("look", is_held(lock)))
        return []

    monkeypatch.setattr(private_engine, "TAKING", lock)
    monkeypatch.setattr(private_engine, "_taken_networks", taken)
    monkeypatch.setattr(private_engine, "which", str)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(Daemon, "start", lambda *_, **__: None)
    monkeypatch.setattr(PrivateEngine, "stop", lambda _: None)
    monkeypatch.setattr(PrivateEngine, "_connect", lambda *_: seen.append(("bridge", is_held(lock))))
    engine = PrivateEngine(Settings(state=tmp_path / "state"))
    engine.runtime = tmp_path / "run"
    engine.folder.mkdir(parents=True)
    engine._start()
    assert seen == [("look", True), ("bridge", True)]
    assert engine.pool_file.read_text() == f"{POOLS[0]}\n"


def test_who_may_start_no_engine_is_told_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only root may."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    engine = PrivateEngine(Settings(state=tmp_path / "state"))
    with pytest.raises(OutsideError, match="only root"):
        engine._start()
    assert not engine.folder.exists()


def test_an_engine_keeps_its_addresses_until_another_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that people made lie in them. What a route leads to is another's too, but for the default route."""
    host: dict[str, list[dict[str, Any]]] = {"route": [{"dst": "default"}, {"dst": "192.0.2.1"}], "address": []}
    monkeypatch.setattr(private_engine, "run", lambda argv: SimpleNamespace(stdout=json.dumps(host[argv[-1]])))
    engine = PrivateEngine(Settings(state=tmp_path))
    engine.folder.mkdir(parents=True)
    host["route"].append({"dst": str(POOLS[0])})
    assert engine._pool() == POOLS[1]
    host["route"].pop()
    assert engine._pool() == POOLS[1]
    host["address"] = [{"ifname": "br-1", "addr_info": [{"local": str(POOLS[1][5]), "prefixlen": 24}]}]
    assert engine._pool() == POOLS[0]


def test_a_private_engine_leaves_the_hosts_firewall_alone() -> None:
    """dockerd changes no rules; ours all name the engine's own addresses."""
    config = daemon_config(POOLS[0], "ext2/ext3")
    assert config["iptables"] is False
    assert "storage-driver" not in config
    assert config["group"] == "root", "the host's docker group may not use it"
    assert all(str(POOLS[0]) in rule for rule in rules(POOLS[0]))


def test_overlays_are_not_stacked_on_overlays() -> None:
    """In a container, whose root is an overlay, the native snapshotter serves."""
    assert daemon_config(POOLS[0], "overlayfs")["storage-driver"] == "native"


def test_networks_are_read_from_ip() -> None:
    """The addresses of `ip -j address` become networks."""
    link = {"ifname": "eth0", "addr_info": [{"local": "192.0.2.7", "prefixlen": 24}]}
    assert networks([link, {"ifname": "down"}]) == [IPv4Network("192.0.2.0/24")]


def test_a_socket_path_fits_however_deep_the_state_lies(tmp_path: Path) -> None:
    """A socket's path holds 107 bytes at most, so it does not lie in the state directory."""
    deep = PrivateEngine(Settings(state=tmp_path / ("deep/" * 40)))
    assert len(deep.host.removeprefix("unix://")) < 60
    assert len(deep.bridge) < 16  # IFNAMSIZ
    assert deep.host != PrivateEngine(Settings(state=tmp_path)).host


def test_a_daemon_is_not_mistaken_for_another_process(tmp_path: Path) -> None:
    """A process id that now belongs to another process is not the daemon's, and is not stopped."""
    daemon = Daemon("sleeper", tmp_path)
    (tmp_path / "sleeper.pid").write_text(f"{os.getpid()} 1\n")
    assert daemon.pid() is None
    daemon.stop()


def test_a_daemon_that_dies_at_once_shows_what_it_said(tmp_path: Path) -> None:
    """A start that fails carries the daemon's last words."""
    with pytest.raises(OutsideError, match="broken did not start") as caught:
        Daemon("broken", tmp_path).start(["sh", "-c", "echo no such config; exit 3"], ready=lambda: False)
    assert "no such config" in caught.value.evidence


def test_a_daemon_that_ignores_term_is_killed(tmp_path: Path) -> None:
    """Stopping always ends with the process gone."""
    daemon = Daemon("deaf", tmp_path)
    ready = tmp_path / "ready"
    daemon.start(["sh", "-c", f"trap '' TERM; touch {ready}; while :; do sleep 0.1; done"], ready=ready.exists)
    daemon.stop(within=0.3)
    assert daemon.pid() is None


@pytest.mark.needs("docker-registry")
def test_the_embedded_registry_is_started_once_and_keeps_its_port(settings: Settings) -> None:
    """However many ask at once, one registry runs; after a stop it comes back at the same address."""
    assert not embedded_registry.running(settings)
    with ThreadPoolExecutor(4) as pool:
        addresses = set(pool.map(embedded_registry.registry_address, [settings] * 4))
    (address,) = addresses
    assert _asked(address, auth_config(settings, address)) == 200
    embedded_registry.stop(settings)
    assert not embedded_registry.running(settings)
    assert embedded_registry.registry_address(settings) == address


@pytest.mark.needs("docker-registry")
def test_a_registry_that_was_killed_comes_back(settings: Settings) -> None:
    """A crash of the embedded registry costs nothing but the start."""
    address = embedded_registry.registry_address(settings)
    os.kill(Daemon("docker-registry", settings.state_dir / "registry").pid() or 0, signal.SIGKILL)
    time.sleep(0.2)
    assert embedded_registry.registry_address(settings) == address


@pytest.mark.needs("docker-registry", "setpriv")
def test_the_embedded_registry_ends_with_its_directory(settings: Settings) -> None:
    """Who deletes the state, and with it all that tells of the registry, leaves no process and no open port."""
    embedded_registry.registry_address(settings)
    folder = settings.state_dir / "registry"
    old = Daemon("docker-registry", folder).pid()
    shutil.rmtree(settings.state_dir)
    embedded_registry.registry_address(settings)
    assert Daemon("docker-registry", folder).pid() not in {None, old}, "a new one at the same path has its own"
    until(lambda: not Path(f"/proc/{old}/exe").exists(), "the end of the old one")
    assert embedded_registry.running(settings)


@pytest.mark.needs("docker-registry")
def test_the_embedded_registry_is_as_its_file_says(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry's program takes REGISTRY_* from the environment before its file; ours lets nothing through."""
    monkeypatch.setenv("REGISTRY_HTTP_ADDR", "127.0.0.1:1")
    monkeypatch.setenv("REGISTRY_AUTH", "none")
    address = embedded_registry.registry_address(settings)
    assert _asked(address, auth_config(settings, address)) == 200
    assert _asked(address, None) == 401


@pytest.mark.needs("docker-registry")
def test_the_embedded_registry_answers_its_owner_alone(settings: Settings) -> None:
    """Without the password that its owner's file holds it shows and takes nothing; the password outlives a restart."""
    address = embedded_registry.registry_address(settings)
    login = auth_config(settings, f"{address}/image:stable")
    assert login
    assert _asked(address, login) == 200
    assert _asked(address, login | {"password": "guessed"}) == 401
    assert _asked(address, None, "GET", "/v2/_catalog") == 401
    assert _asked(address, None, "POST", "/v2/golden/planted/blobs/uploads/") == 401
    assert stat.filemode(login_file(settings).stat().st_mode) == "-rw-------"
    assert auth_config(settings, "127.0.0.1:1/image:stable") is None, "another registry is not told"
    embedded_registry.stop(settings)
    assert _asked(embedded_registry.registry_address(settings), login) == 200


@pytest.mark.needs("docker-registry")
def test_an_open_registry_of_an_older_version_is_closed(settings: Settings) -> None:
    """One that still runs without a login is started again with one, at the same address."""
    address = embedded_registry.registry_address(settings)
    embedded_registry.stop(settings)
    folder = settings.state_dir / "registry"
    config = folder / "config.yml"
    config.write_text(config.read_text().partition("auth:")[0])
    argv = ["docker-registry", "serve", str(config)]
    Daemon("docker-registry", folder).start(argv, ready=lambda: _asked(address, None) == 200)
    assert embedded_registry.registry_address(settings) == address
    assert _asked(address, None) == 401


def _asked(address: str, login: dict[str, str] | None, method: str = "GET", path: str = "/v2/") -> int | None:
    """The status that the registry answers a request with; None where nothing listens."""
    auth = (login["username"], login["password"]) if login else None
    try:
        return requests.request(method, f"http://{address.partition('/')[0]}{path}", auth=auth, timeout=600).status_code
    except requests.ConnectionError:
        return None


def test_a_configured_registry_is_not_started(tmp_path: Path) -> None:
    """A registry of your own is taken as it is, without asking it anything."""
    own = Settings(state=tmp_path, registry=Registry(address="registry.example.com/golden"))
    assert embedded_registry.registry_address(own) == "registry.example.com/golden"
    assert not embedded_registry.running(own)


@pytest.mark.slow
@pytest.mark.needs("root", "docker", "dockerd", "ip", "iptables")
def test_a_private_engine_starts_beside_others_and_goes_without_a_trace(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the store that builds need, is started once, and leaves no bridge, rule, socket or mount when stopped."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(provision, "DEFAULT_HOST", f"unix://{settings.state_dir}/no.sock")
    engine = PrivateEngine(settings)
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(lambda _: provision.docker_host(settings, True), range(2))) == {engine.host}
    found = provision.probe(engine.host)
    assert found
    assert found.containerd_store
    assert provision.existing_engine(settings, for_builds=True) == found
    pool_of_addresses = engine.pool_file.read_text().strip()
    for rule in private_engine.rules(IPv4Network(pool_of_addresses)):  # as an engine leaves them that was killed
        run(["iptables", "-w", *rule])
    with only_one(TAKING, "keeping the addresses from other engines", wait_seconds=START_SECONDS):
        engine.stop()
        left = run(["iptables-save"]).stdout
    assert engine.daemon.pid() is None
    assert not engine.runtime.exists()
    assert engine.bridge not in run(["ip", "link"]).stdout
    assert pool_of_addresses not in left
    assert str(settings.state_dir) not in Path("/proc/mounts").read_text()


@contextmanager
def engine_with_web(settings: Settings) -> Iterator[tuple[PrivateEngine, Any, Callable[[], int]]]:
    """A private engine, its client, and the process of the container `web`, which answers at port 8080."""
    engine = PrivateEngine(settings)
    api: Any = docker.APIClient(base_url=engine.ensure(), version="auto")
    busybox_image(api, "crash-test:one", "one")
    published = api.create_host_config(port_bindings={8080: ("127.0.0.1", None)})
    api.create_container("crash-test:one", name="web", ports=[8080], host_config=published)
    api.start("web")
    yield engine, api, lambda: api.inspect_container("web")["State"]["Pid"]
    api.close()


def kill_engine(engine: PrivateEngine) -> None:
    """As the kernel does for lack of memory."""
    os.kill(engine.daemon.pid() or 0, signal.SIGKILL)
    until(lambda: engine.daemon.pid() is None, "the end of dockerd")


@pytest.mark.slow
@pytest.mark.needs("root", "docker", "dockerd", "ip", "iptables", "busybox")
def test_containers_outlive_a_killed_private_engine_and_the_next_one_takes_them_over(settings: Settings) -> None:
    """Their process, network, port and mounts stay; they are entered, stopped, started and removed as before."""
    with engine_with_web(settings) as (engine, api, process):
        before = process()
        answers = ["docker", "--host", engine.host, "exec", "web", "wget", "-qO-", "http://127.0.0.1:8080/"]
        for _ in range(2):
            kill_engine(engine)
            assert Path(f"/proc/{before}/exe").exists()
            assert engine.ensure() == engine.host
            assert process() == before
            assert run(answers).stdout.strip() == "one"
            (port,) = api.port("web", 8080)
            assert requests.get(f"http://127.0.0.1:{port['HostPort']}/", timeout=60).text.strip() == "one"
        api.stop("web")
        assert not Path(f"/proc/{before}/exe").exists()
        api.start("web")
        until(lambda: run(answers, ok=range(256)).stdout.strip() == "one", "the answer of the started container")
        api.stop("web")
        api.remove_container("web")
        assert api.containers(all=True) == []
        api.create_container("crash-test:one", name="web")
        api.start("web")
        assert process()


@pytest.mark.slow
@pytest.mark.needs("root", "docker", "dockerd", "ip", "iptables", "busybox")
def test_a_killed_dockerd_starts_again_without_anybody_asking(settings: Settings) -> None:
    """Ports that containers publish are closed until it has; a command that comes meanwhile waits for it."""
    with engine_with_web(settings) as (engine, api, process):
        before, (port,) = process(), api.port("web", 8080)
        dead = int(engine.pid_file.read_text())
        os.kill(dead, signal.SIGKILL)
        assert engine.ensure() == engine.host
        assert requests.get(f"http://127.0.0.1:{port['HostPort']}/", timeout=60).text.strip() == "one"
        assert (process(), int(engine.pid_file.read_text()) != dead) == (before, True)
        engine.stop()
        assert [*engine._shims()] == []


@pytest.mark.slow
@pytest.mark.needs("root", "docker", "dockerd", "ip", "iptables", "busybox")
@pytest.mark.parametrize("killed", [False, True])
def test_a_private_engine_that_is_stopped_leaves_no_container(settings: Settings, killed: bool) -> None:
    """Neither its process nor its shim or mount, also where dockerd died before and nobody is left to ask."""
    with engine_with_web(settings) as (engine, _, process):
        web = process()
        assert [*engine._shims()]
        if killed:
            kill_engine(engine)
        engine.stop()
        assert not Path(f"/proc/{web}/exe").exists()
        assert [*engine._shims()] == []
        of_ours = [path for path in Path("/proc").glob("[0-9]*/mounts") if names(path, str(engine.runtime))]
        assert of_ours == []
        assert engine.ensure() == engine.host, "its images stay"


@pytest.mark.slow
@pytest.mark.needs("root", "docker", "dockerd", "ip", "iptables")
def test_a_dead_private_engine_that_is_configured_by_its_own_address_is_started_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By DOCKER_HOST, as `engine.show` prints it, by docker.host and by docker.build_host; a look starts nothing."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    engine = PrivateEngine(settings)
    engine.ensure()
    for given in (Docker(build_host=engine.host), Docker(host=engine.host), Docker()):
        if given == Docker():
            monkeypatch.setenv("DOCKER_HOST", engine.host)
        named = settings.model_copy(update={"docker": given})
        kill_engine(engine)
        assert provision.existing_engine(named, for_builds=True) is None
        assert engine.daemon.pid() is None
        assert provision.docker_host(named, for_builds=True) == engine.host
        assert provision.existing_engine(named, for_builds=True)


def names(file: Path, text: str) -> bool:
    """Whether a process's file in /proc holds a text; that of one which has ended does not."""
    try:
        return text in file.read_text()
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.needs("root", "docker", "dockerd", "ip", "iptables")
def test_an_engine_whose_state_was_deleted_is_started_anew(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers all the same, but nobody takes it; a fresh clone at the same path ends it and starts its own."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(provision, "DEFAULT_HOST", f"unix://{settings.state_dir}/no.sock")
    engine = PrivateEngine(settings)
    engine.ensure()
    before = engine.daemon.pid()
    shutil.rmtree(settings.state_dir, ignore_errors=True)
    engine.folder.mkdir(parents=True, exist_ok=True)  # as whoever is about to start a new one makes it
    assert provision.probe(engine.host)
    assert provision.existing_engine(settings, for_builds=True) is None
    assert provision.docker_host(settings, for_builds=True) == engine.host
    assert engine.daemon.pid() not in {None, before}
    assert engine.data.exists()
    assert not Path(f"/proc/{before}/exe").exists()


def _doctor_line(present: bool, essential: bool) -> DoctorLine:
    return DoctorLine(what="thing", present=present, essential=essential, detail="d", costs="builds")


@pytest.mark.parametrize(("present", "essential", "code"), [(True, True, 0), (False, False, 0), (False, True, 4)])
def test_the_doctors_exit_code_is_about_what_is_essential(present: bool, essential: bool, code: int) -> None:
    """4 where something essential is missing, else 0."""
    assert doctor.show([_doctor_line(present, essential)], as_json=True) == code


def test_the_doctor_says_what_a_lack_costs(capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing names its cost, in 80 columns."""
    doctor.show([_doctor_line(False, True), _doctor_line(True, True)], as_json=False)
    printed = capsys.readouterr().out
    assert "MISSING" in printed
    assert "without it: no builds" in printed
    assert all(len(line) <= 80 for line in printed.splitlines())


def test_the_doctor_reports_without_starting_anything(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An examination covers packages, engines, registry, disk and advisories, and leaves everything as it was."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    lines = {line.what: line for line in doctor.examine(settings)}
    assert {"python", "docker", "engine for builds", "registry", "disk", "trivy"} <= set(lines)
    assert not embedded_registry.running(settings)
    assert not PrivateEngine(settings).runtime.exists()
    assert all(line.costs for line in lines.values())


def test_each_tool_is_needed_for_something_that_setup_knows() -> None:
    """A table of another name would be installed by nobody, and missed late."""
    assert {tool.need for tool in TOOLS} == {"always", "machines", "tests"}
