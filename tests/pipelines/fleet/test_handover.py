"""New connections to a published port wait while its container is replaced in place, and never for longer than said."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import MalformedError, OutsideError
from images.ledger import Ledger
from pipelines.cli.reap import reap
from pipelines.fleet.docker import handover
from pipelines.fleet.docker.handover import LONGEST, PortHold, PublishedPort, published, removal, ruleset
from pipelines.fleet.docker.members import DockerFleet
from pipelines.fleet.docker.orphans import HoldOrphanSource
from pipelines.fleet.members import MEMBER, ROLLOUT, Key, Read
from pipelines.fleet.model import Fleet, Health, Method
from tests.support.fleets import fleet as fleet_with

NOW = datetime(2027, 1, 1, tzinfo=UTC)
PATIENCE = 120.0
needs_nft = pytest.mark.needs("nft", root=True)


def container(*bindings: tuple[str, str], port: str = "8080/tcp", address: str = "127.0.0.1") -> dict[str, Any]:
    """A running container that publishes a port at these addresses and ports of the host."""
    listed = [{"HostIp": host, "HostPort": number} for host, number in bindings]
    return {
        "HostConfig": {"PortBindings": {port: listed}},
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": address}}},
        "State": {"Status": "running"},
    }


@pytest.mark.parametrize(
    ("host", "rule", "shown"),
    [
        ("", "fib daddr type local tcp dport 80 drop", "80"),
        ("0.0.0.0", "meta nfproto ipv4 fib daddr type local tcp dport 80 drop", "80"),
        ("::", "meta nfproto ipv6 fib daddr type local tcp dport 80 drop", "80"),
        ("10.0.0.7", "ip daddr 10.0.0.7 tcp dport 80 drop", "10.0.0.7:80"),
        ("::1", "ip6 daddr ::1 tcp dport 80 drop", "[::1]:80"),
        ("fe80::1%x drop; flush ruleset", "ip6 daddr fe80::1 tcp dport 80 drop", "[fe80::1]:80"),
    ],
)
def test_only_the_published_address_is_held(host: str, rule: str, shown: str) -> None:
    """Where docker publishes at every address, connections that pass through this host to another are not concerned."""
    (port,) = published(container((host, "80")))
    assert (port.rule, str(port)) == (rule, shown)


def test_a_port_that_the_next_container_does_not_get_is_not_held() -> None:
    """The engine picks another free port for it; and UDP refuses nobody."""
    assert published(container(("", ""), ("", "0"), ("", "8000-8010"))) == ()
    assert published(container(("", "53"), port="53/udp")) == ()


def test_an_address_that_is_none_is_refused() -> None:
    """An engine's answer becomes no text of a firewall."""
    with pytest.raises(MalformedError, match="the Docker Engine"):
        published(container(("127.0.0.1 drop; flush ruleset", "80")))


def test_the_name_carries_the_rollout() -> None:
    """So that the reaper knows whose it was."""
    assert handover.rollout_of(f"{handover.PREFIX}shop-20270101000000-abc123-back.0123456789ab").endswith("123-back")


@contextmanager
def listening() -> Iterator[int]:
    """A port of this machine that accepts connections."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@pytest.fixture
def table() -> Iterator[str]:
    """The name of a table that is removed afterwards."""
    name = f"{handover.PREFIX}test.{id(object()):x}"
    yield name
    handover.apply(removal(name))


@needs_nft
def test_new_connections_wait_and_established_ones_go_on(table: str) -> None:
    """They are not refused, and other ports are not concerned; once it is removed, they get in."""
    with listening() as port, listening() as other:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as before:
            held = published(container(("127.0.0.1", str(port))))
            handover.apply(ruleset(table, held, LONGEST))
            handover.apply(ruleset(table, held, LONGEST))
            with pytest.raises(TimeoutError):
                socket.create_connection(("127.0.0.1", port), 0.3)
            before.sendall(b"goes on")
            socket.create_connection(("127.0.0.1", other), PATIENCE).close()
        assert table in handover.tables()
        handover.apply(removal(table))
        handover.apply(removal(table))
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    assert table not in handover.tables()


@needs_nft
def test_the_kernel_lets_connections_in_by_itself(table: str) -> None:
    """Nothing removes the table: whoever made it was killed."""
    with listening() as port:
        handover.apply(ruleset(table, [PublishedPort(None, port, port)], 1))
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    assert table in handover.tables()


@needs_nft
def test_a_swap_is_measured_from_the_hold_to_the_answer_of_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that did not answer before is not waited for; of a swap that another process began nothing is claimed."""
    monkeypatch.setattr(handover, "_unable", lambda _engine: "")
    key = Key("test-1", "host/local/docker/web", "web", "0123456789ab", Method.IN_PLACE)
    hold = PortHold(None, "unix:///engine", Health(kind="docker"))
    assert hold.away(key) is None
    with listening() as port, listening() as silent:
        pass
    with closing(socket.create_server(("127.0.0.1", port))):
        ports = {f"{one}/tcp": [{"HostIp": "", "HostPort": str(one)}] for one in (port, silent)}
        of = container() | {"HostConfig": {"PortBindings": ports}}
        hold.begin(key, of, 1)
        assert [handover.rollout_of(one) for one in handover.tables()].count("test-1") == 1
        hold.end(key, lambda: of)
    assert "test-1" not in map(handover.rollout_of, handover.tables())
    away = hold.away(key)
    assert away is not None
    assert away.total_seconds() >= handover.ACCEPTS


@needs_nft
def test_a_container_that_has_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The port is given free, and how long nothing answered is not known yet."""
    monkeypatch.setattr(handover, "_unable", lambda _engine: "")
    key = Key("test-2", "host/local/docker/web", "web", "0123456789ab", Method.IN_PLACE)
    hold = PortHold(None, "unix:///engine", Health(kind="docker"))
    with listening() as port:
        of = container(("", str(port)), port=f"{port}/tcp")
        hold.begin(key, of, 1)
    hold.end(key, lambda: of | {"State": {"Status": "exited", "ExitCode": 1}})
    assert "test-2" not in map(handover.rollout_of, handover.tables())
    assert hold.away(key) is None


class Pair:
    """An engine with a member's old container, and its new one, of which one has the port: a host's address leads to
    it, and its own address, which the hold does not concern.
    """

    def __init__(self, key: Key, runs: str) -> None:
        self.server: socket.socket | None = socket.create_server(("", 0))
        self.port = self.server.getsockname()[1]
        self.fails = ""
        self.clients = ThreadPoolExecutor()
        self.client: Future[None] | None = None
        labels = {"old": {}, "new": {ROLLOUT: key.rollout, MEMBER: key.member}}
        self.shown = {name: self._container(name, labels[name], name == runs) for name in ("old", "new")}

    def _container(self, name: str, labels: dict[str, str], runs: bool) -> dict[str, Any]:
        made = container(("127.0.0.1", str(self.port)), port=f"{self.port}/tcp", address="127.0.0.2")
        made["HostConfig"]["RestartPolicy"] = {"Name": "no"}
        state = {"Status": "running" if runs else "exited", "ExitCode": 0}
        return made | {"Id": name, "Name": f"/{name}", "Config": {"Labels": labels}, "State": state}

    def info(self) -> dict[str, str]:
        return {"Name": "host"}

    def containers(self, **_: Any) -> list[dict[str, Any]]:
        new = self.shown["new"]
        return [{"Id": "new", "State": new["State"]["Status"], "Labels": new["Config"]["Labels"]}]

    def inspect_container(self, name: str) -> dict[str, Any]:
        return self.shown[name]

    def rename(self, *_: str) -> None:
        self._fail("rename")

    def stop(self, name: str, timeout: int) -> None:
        self._fail("stop")
        if self.shown[name]["State"]["Status"] == "running" and self.server:
            self.server.close()
            self.client = self.clients.submit(self.connect)
            time.sleep(0.2)
        self.shown[name]["State"] = {"Status": "exited", "ExitCode": 0}

    def start(self, name: str) -> None:
        self._fail("start")
        self.server = socket.create_server(("", self.port))
        self.shown[name]["State"] = {"Status": "running", "ExitCode": 0}

    def _fail(self, call: str) -> None:
        if call == self.fails:
            raise OSError(f"{call} failed")

    def connect(self, seconds: float = PATIENCE) -> None:
        """Connect as a client of the member does."""
        socket.create_connection(("127.0.0.1", self.port), seconds).close()

    def close(self) -> None:
        self.clients.shutdown()
        if self.server:
            self.server.close()


def in_place(pair: Pair) -> DockerFleet:
    """The fleet of a pair, replaced in place."""
    given = fleet_with(method="in_place", max_unavailable=1, drain="1s").model_dump(exclude_unset=True)
    health = {"kind": "tcp", "port": pair.port}
    return DockerFleet(Fleet.model_validate(given | {"health": health}), "unix:///engine", connect=lambda _: pair)


IN_PLACE = Key("test-3", "host/local/docker/web", "web", "old", Method.IN_PLACE)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Holds work here; none is left afterwards."""
    monkeypatch.setattr(handover, "_unable", lambda _engine: "")
    yield
    for name in handover.tables():
        if handover.rollout_of(name) == IN_PLACE.rollout:
            handover.apply(removal(name))


@needs_nft
@pytest.mark.usefixtures("held")
def test_new_connections_wait_while_a_rollback_brings_the_old_container_back() -> None:
    """The new one is stopped first, for the port cannot exist twice: nobody is refused in between."""
    with closing(Pair(IN_PLACE, "new")) as pair:
        in_place(pair).revive(IN_PLACE)
        assert pair.client
        pair.client.result()
        assert pair.shown["old"]["State"]["Status"] == "running"
        pair.connect(0.5)


@needs_nft
@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("again", [True, False])
def test_a_hold_ends_where_the_old_container_could_not_be_stopped(again: bool) -> None:
    """It still runs and answers, and a rollback, also one of another process, lets connections in as well."""
    with closing(Pair(IN_PLACE, "old")) as pair:
        members = in_place(pair)
        pair.fails = "stop"
        with pytest.raises(OutsideError):
            members.retire(IN_PLACE, members.fleet.limits.drain)
        pair.connect(0.5)
        pair.fails = ""
        if not again:
            held = published(pair.shown["old"])
            handover.apply(ruleset(f"{handover.PREFIX}{IN_PLACE.rollout}.{IN_PLACE.old}", held, LONGEST))
            members = in_place(pair)
        members.revive(IN_PLACE)
        pair.connect(0.5)


@needs_nft
@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("call", ["stop", "start"])
def test_a_rollback_that_fails_leaves_no_hold(call: str) -> None:
    """What still runs is reached, and a port that nothing stands behind refuses at once."""
    with closing(Pair(IN_PLACE, "new")) as pair:
        pair.fails = call
        with pytest.raises(OutsideError):
            in_place(pair).revive(IN_PLACE)
        assert IN_PLACE.rollout not in map(handover.rollout_of, handover.tables())
        if pair.client:
            assert isinstance(pair.client.exception(), ConnectionRefusedError)


@pytest.mark.usefixtures("held")
def test_a_check_inside_the_container_is_asked_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a process there, while the container starts: 20 a second would slow it down."""
    asked, shut = list[float](), [True, True, False]

    def probe(*_: object) -> Read:
        asked.append(time.monotonic())
        return Read(len(asked) == 3, "")

    monkeypatch.setattr(handover, "probe", probe)
    monkeypatch.setattr(handover, "apply", lambda *_: None)
    monkeypatch.setattr(handover, "CHECK_PAUSE", 0.3)
    monkeypatch.setattr(handover, "_reached", lambda *_: Read(not (shut.pop(0) if shut else False), ""))
    hold = PortHold(None, "unix:///engine", Health(kind="exec", command=("true",)))
    of = container(("", "80"))
    shut.insert(0, False)  # it answers when the hold begins
    hold.begin(IN_PLACE, of, 1)
    hold.end(IN_PLACE, lambda: of)
    assert not shut
    assert len(asked) == 3, "not while the port is shut"
    assert all(later - earlier >= 0.3 for earlier, later in pairwise(asked))
    assert hold.away(IN_PLACE) is not None


def test_the_plan_of_a_surge_says_who_is_refused_by_name_and_for_how_long() -> None:
    """The engine's DNS names a container until it has exited, also while it drains and accepts nothing new."""
    named: dict[str, Any] = {"HostConfig": {}, "NetworkSettings": {"Networks": {"shop": {}, "bridge": {}}}}
    (line,) = handover.named_until_exit(named, 15)
    assert line == (
        "in network shop the engine's DNS names the old container until it has exited, so new connections by name can "
        "be refused while it stops (up to 15 s): use a proxy, or clients that retry"
    )
    assert handover.named_until_exit(container(), 15) == ()


@pytest.mark.parametrize("engine", ["tcp://10.0.0.5:2376", "ssh://ops@web-2"])
def test_the_plan_says_why_connections_to_another_machine_are_refused_and_for_how_long(engine: str) -> None:
    """Nothing is promised that this process cannot do there."""
    (line,) = PortHold(None, engine, Health()).told(container(("", "80")), 30)
    assert line == (
        "new connections to port 80 are refused while the old container stops (up to 30 s) and until the new one "
        "answers: their engine is not asked by a socket of this machine"
    )


def test_the_plan_says_that_connections_wait_and_who_can_still_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that gives up before its first packet is sent again sees a failure."""
    monkeypatch.setattr(handover, "_unable", lambda _engine: "")
    hold = PortHold(None, "unix:///engine", Health())
    assert hold.told(container(), 30) == ()
    assert hold.told(container(("", "80"), ("127.0.0.1", "81")), 30) == (
        "new connections to port 80, 127.0.0.1:81 wait until the new container answers, for at most 40 s; one that its "
        "client gives up within a second fails",
    )
    assert f"at most {LONGEST} s" in hold.told(container(("", "80")), 600)[0]


def test_only_root_can_hold_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """The firewall belongs to root."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert PortHold(None, "unix:///engine", Health()).unable == "Goldsmith does not run as root"


LISTENS = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
print(flush=True)
s.accept()[0]
"""


@needs_nft
@pytest.mark.parametrize(("apart", "why"), [((), ""), (("unshare", "--net"), "a network namespace of its own")])
def test_an_engine_in_another_network_namespace_is_recognised(tmp_path: Path, apart: tuple[str, ...], why: str) -> None:
    """Our firewall would hold nothing there."""
    path = tmp_path / "engine.sock"
    with subprocess.Popen([*apart, sys.executable, "-c", LISTENS, str(path)], stdout=subprocess.PIPE) as engine:
        assert engine.stdout
        engine.stdout.readline()
        assert PortHold(None, f"unix://{path}", Health()).unable.endswith(why)


@needs_nft
def test_roll_reap_removes_what_a_killed_rollout_left(tmp_path: Path) -> None:
    """Not of a rollout that goes on, nor of one that another installation made."""
    tables = {rollout: f"{handover.PREFIX}{rollout}.0123456789ab" for rollout in ("reap-over", "reap-open", "reap-x")}
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger")
    for rollout in ("reap-over", "reap-open"):
        ledger.begin_rollout(rollout, "shop", "ann", {}, NOW)
    ledger.save_rollout("reap-over", {}, NOW, is_open=False)
    try:
        for table in tables.values():
            handover.apply(ruleset(table, [PublishedPort(None, 1, 1)], 1))
        done = reap([HoldOrphanSource()], ledger, NOW, "ann", apply=True)
        found = {one.orphan.rollout: one.remove for one in done if one.orphan.rollout in tables}
        assert found == {"reap-over": True, "reap-x": False}
        assert set(tables.values()) - {*handover.tables()} == {tables["reap-over"]}
    finally:
        for table in tables.values():
            handover.apply(removal(table))
        ledger.close()
