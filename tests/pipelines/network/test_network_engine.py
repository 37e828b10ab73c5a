"""Networks of a real Docker Engine follow the network: who may talk talks at every moment, and nobody else does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import RefusedError
from hardening.foundation.settings import Docker, Settings
from images.context import Context
from images.engine import engine as client_of
from pipelines.cli.network import apply_network, check_network, render_network
from pipelines.network.catalog import require_network
from pipelines.network.comparing import Openness, compare_engine
from pipelines.network.docker_networks import LABEL, networks_of
from pipelines.network.engine_edge import read_engine
from tests.pipelines.network.sample import HEAD
from tests.support.engines import LABEL as OF_TESTS
from tests.support.engines import busybox_image, engine
from tests.support.walled import walled_engine

pytestmark = [pytest.mark.needs("root", "dockerd", "busybox", "iptables"), pytest.mark.slow]
ROLES = ("web", "db", "mail", "edge")


def rules(*pairs: str) -> str:
    """Rules such as `web>db`, on the port on which the containers answer."""
    ends = [pair.split(">") for pair in pairs]
    return "".join(
        f'[[rules]]\nfrom = "{source}"\nto = "{target}"\nports = ["8080/tcp"]\nreason = "r"\n'
        for source, target in ends
    )


class Yard:
    """Containers of four roles on the default bridge, where each reaches each, and a network that says otherwise."""

    def __init__(self, host: str, api: Any, folder: Path) -> None:
        self.host, self.api, self.root, self.state = host, api, folder / "content", folder / "state"
        (self.root / "network").mkdir(parents=True)
        for name in ROLES:
            image = f"goldsmith-test-net-{name}:1"
            busybox_image(api, image, f"I-am-{name}")
            self.start(name, image, ports=name == "edge")

    def start(self, name: str, image: str, *, ports: bool = False, **more: Any) -> str:
        host = self.api.create_host_config(port_bindings={8080: ("127.0.0.1", None)} if ports else None, **more)
        labels = {OF_TESTS: "1", "role": name.partition(".")[0]}
        made = self.api.create_container(image, name=f"net-{name}", labels=labels, host_config=host, ports=[8080])["Id"]
        self.api.start(made)
        return str(made)

    def write(self, *pairs: str) -> None:
        roles = "".join(f'[roles.{name}]\nwhat = "w"\ncontainers = {{ role = "{name}" }}\n' for name in ROLES)
        (self.root / "network/n.toml").write_text(HEAD + roles + rules(*pairs))

    @contextmanager
    def open(self) -> Iterator[Context]:
        settings = Settings(state=self.state, content=(self.root,), docker=Docker(host=self.host))
        context = Context(settings, datetime.now(UTC), lambda: self.host, lambda: "", actor="ann@host")
        with closing(context.ledger):
            yield context

    def apply(self, *, apply: bool = True) -> list[str]:
        with self.open() as context:
            lines, errors = apply_network("docker", apply=apply, context=context)
        if errors:
            raise errors[0]
        return [f"{line.action} {line.where} {line.what}" for line in lines]

    def check(self) -> set[tuple[Openness, str, str]]:
        with self.open() as context:
            return {(line.verdict, line.where, line.what) for line in check_network("docker", context=context)}

    def asks(self, source: str, target: str) -> str:
        """What a container of one role hears from another by its name."""
        return self.run(f"net-{source}", ["wget", "-q", "-T", "60", "-O", "-", f"http://net-{target}:8080/"])

    def reaches(self, source: str, target: str) -> bool:
        """Whether a container reaches another by any of its addresses, or by its name."""
        shown = self.api.inspect_container(f"net-{target}")["NetworkSettings"]["Networks"]
        places = [f"net-{target}", *(one["IPAddress"] for one in shown.values() if one["IPAddress"])]
        asked = (["wget", "-q", "-T", "3", "-O", "-", f"http://{place}:8080/"] for place in places)
        return any(self.run(f"net-{source}", command).startswith("I-am") for command in asked)

    def run(self, container: str, command: list[str]) -> str:
        started = self.api.exec_create(container, command)["Id"]
        return str(self.api.exec_start(started).decode().strip())

    def networks(self) -> set[str]:
        return {one["Name"] for one in self.api.networks(filters={"label": LABEL})}


@pytest.fixture(scope="module")
def walled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An engine that keeps its own firewall, as all do but Goldsmith's private one."""
    with walled_engine(tmp_path_factory.mktemp("walled")) as host:
        yield host


@pytest.fixture
def yard(walled: str, tmp_path: Path) -> Iterator[Yard]:
    with engine(walled) as api:
        yield Yard(walled, api, tmp_path)
        for one in api.containers(all=True, filters={"label": OF_TESTS}):
            api.remove_container(one["Id"], force=True)
        for name in {one["Name"] for one in api.networks(filters={"label": LABEL})}:
            api.remove_network(name)
        client_of.cache_clear()


@contextmanager
def asking(yard: Yard, source: str, target: str) -> Iterator[list[str]]:
    """Requests from one container to another by its name, one after the other: what failed of them."""
    done, failed, many = threading.Event(), list[str](), list[str]()
    command = ["wget", "-q", "-T", "60", "-O", "-", f"http://net-{target}:8080/"]

    def ask() -> None:
        import docker

        with closing(docker.APIClient(base_url=yard.host, version="auto")) as api:
            while not done.is_set():
                started = api.exec_create(f"net-{source}", command)["Id"]
                said = api.exec_start(started).decode().strip()
                (many if said == f"I-am-{target}" else failed).append(said)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield failed
        while not (many or failed):
            done.wait(0.01)
    finally:
        done.set()
        asker.join()
    assert many, "nothing was asked meanwhile"


def test_who_may_talk_talks_at_every_moment_and_nobody_else(yard: Yard) -> None:
    """From the default bridge, on which all are, to networks of their own; then the rules change under requests."""
    yard.write("web>db", "world>edge", "edge>web")
    planned = yard.apply(apply=False)
    assert yard.networks() == set()
    assert (
        Openness.TOO_OPEN,
        "engine net-web",
        "it is on the network bridge with net-db, net-edge, net-mail",
    ) in yard.check()
    assert yard.reaches("mail", "db"), "on the default bridge each reaches each"
    assert yard.apply() == planned
    assert yard.networks() == {"goldsmith-db.web", "goldsmith-edge.web", "goldsmith-edge.outside"}
    assert yard.check() == set()
    assert yard.apply() == []
    assert yard.asks("web", "db") == "I-am-db"
    assert yard.asks("edge", "web") == "I-am-web"
    for source, target in (("mail", "db"), ("edge", "db"), ("db", "edge"), ("mail", "web")):
        assert not yard.reaches(source, target)
    yard.write("web>db", "world>edge", "mail>db")
    with asking(yard, "web", "db") as failed:
        done = yard.apply()
    assert failed == []
    assert done == [
        "create goldsmith-db.mail internal", "connect goldsmith-db.mail net-db", "connect goldsmith-db.mail net-mail",
        "disconnect goldsmith-edge.web net-edge", "disconnect goldsmith-edge.web net-web",
        "remove goldsmith-edge.web internal",
    ]  # fmt: skip
    assert yard.asks("mail", "db") == "I-am-db"
    assert not yard.reaches("edge", "web")
    assert yard.check() == set()
    with yard.open() as context:
        told = [line.detail for line in context.ledger.audit_lines() if line.action == "network"]
    assert {"begins: connect: net-mail", "done: connect: net-mail"} <= {*told}


def test_containers_of_one_role_that_are_reached_from_outside_do_not_reach_each_other(yard: Yard) -> None:
    """The network that leads outside has icc off; what is internal leads nowhere."""
    yard.write("world>edge", "web>db")
    yard.start("edge.2", "goldsmith-test-net-edge:1")
    yard.apply()
    shown = {one["Name"]: one for one in yard.api.networks(filters={"label": LABEL})}
    assert [shown[f"goldsmith-{name}"]["Internal"] for name in ("db.web", "edge.outside")] == [True, False]
    assert not yard.reaches("edge", "edge.2")
    assert yard.check() == set()


def test_the_labels_of_an_image_give_no_role(yard: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    """Anyone who builds an image could let its containers talk to the database."""
    yard.write("web>db")
    busybox_image(yard.api, "goldsmith-test-net-stranger:1", "stranger", "LABEL role=web")
    made = yard.api.create_container("goldsmith-test-net-stranger:1", name="net-stranger", labels={OF_TESTS: "1"})["Id"]
    yard.api.start(made)
    yard.apply()
    assert set(yard.api.inspect_container(made)["NetworkSettings"]["Networks"]) == {"bridge"}
    assert "net-stranger is left out: its image sets role=web too" in " ".join(capsys.readouterr().err.split())
    yard.api.connect_container_to_network(made, "goldsmith-db.web")
    assert any("net-stranger" in f"{where} {what}" for _, where, what in yard.check())


def test_what_somebody_connects_or_publishes_is_found(yard: Yard) -> None:
    """And what has no role, or runs in the network of the host or of a container of a role."""
    yard.write("web>db", "world>edge")
    yard.apply()
    yard.api.connect_container_to_network("net-mail", "goldsmith-db.web")
    yard.api.disconnect_container_from_network("net-web", "goldsmith-db.web")
    image = "goldsmith-test-net-web:1"
    host = yard.api.create_host_config(network_mode="host")
    labels = {OF_TESTS: "1", "role": "web"}
    yard.api.create_container(image, name="net-host", labels=labels, host_config=host)
    published = yard.api.create_host_config(port_bindings={8080: None})
    made = yard.api.create_container(image, name="net-open", labels=labels, host_config=published, ports=[8080])
    yard.api.start(made)
    stranger = yard.api.create_container(image, name="net-stranger", labels={OF_TESTS: "1"})
    yard.api.connect_container_to_network(stranger, "goldsmith-edge.outside")
    beside = yard.api.create_host_config(network_mode="container:net-edge")
    yard.api.create_container(image, name="net-sidecar", labels={OF_TESTS: "1"}, host_config=beside)
    found, lone = yard.check(), "net-stranger, which has no role, is on its network goldsmith-edge.outside"
    sidecar = "net-sidecar, which has no role, shares its network"
    for expected in (
        (Openness.TOO_OPEN, "engine net-mail", "it is on the network goldsmith-db.web with net-db"),
        (Openness.TOO_CLOSED, "engine net-web", "it is not on the network goldsmith-db.web"),
        (Openness.TOO_OPEN, "engine net-host", "it runs in another's network (--network host), whose rules it has"),
        (Openness.TOO_OPEN, "engine net-edge", sidecar),
        (Openness.TOO_OPEN, "engine net-open", "8080/tcp is published, and no rule lets anybody outside in to web"),
        (
            Openness.TOO_OPEN,
            "engine net-edge",
            "net-stranger, which has no role, is on its network goldsmith-edge.outside",
        ),
    ):
        assert expected in found
    yard.apply()
    assert {(where, what) for _, where, what in yard.check()} == {
        ("engine net-host", "it runs in another's network (--network host), whose rules it has"),
        ("engine net-edge", lone),
        ("engine net-edge", sidecar),
    }


def test_a_network_of_the_same_name_that_is_not_ours_stops_the_change(yard: Yard) -> None:
    """Whose it is, and who is on it, is not known."""
    yard.write("web>db")
    yard.api.create_network("goldsmith-db.web", "bridge", labels={OF_TESTS: "1"})
    with pytest.raises(RefusedError) as caught:
        yard.apply()
    assert "goldsmith-db.web is there, and not ours" in caught.value.evidence
    assert yard.networks() == set()


def test_no_container_is_connected_to_a_network_with_a_stranger_on_it(
    yard: Yard, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is changed then; where all of ours are on it already, it is said."""
    yard.write("web>db")
    yard.apply()
    image = "goldsmith-test-net-web:1"
    stranger = yard.api.create_container(image, name="net-stranger", labels={OF_TESTS: "1"})["Id"]
    yard.api.connect_container_to_network(stranger, "goldsmith-db.web")
    yard.write("web>db", "world>edge")
    assert "connect goldsmith-edge.outside net-edge" in yard.apply()
    assert "net-stranger, which no role owns, is on goldsmith-db.web" in capsys.readouterr().err
    yard.api.disconnect_container_from_network("net-web", "goldsmith-db.web")
    yard.write("web>db")
    with pytest.raises(RefusedError) as caught:
        yard.apply()
    assert caught.value.evidence == "net-stranger, which no role owns, is on goldsmith-db.web, which net-web would join"
    assert "goldsmith-edge.outside" in yard.networks(), "nothing was changed"


def test_an_engine_that_does_not_answer_is_unknown(yard: Yard) -> None:
    """Unread is never compliant."""
    yard.write("web>db")
    yard.host = "unix:///nowhere/docker.sock"
    ((verdict, _, what),) = yard.check()
    assert verdict is Openness.UNKNOWN
    assert "nowhere" in what


def test_rendering_tells_networks_and_roles(yard: Yard) -> None:
    """As JSON, for whoever makes the networks by other means."""
    yard.write("web>db")
    with yard.open() as context:
        (line,) = render_network("docker", output="", force=False, context=context)
    assert '"roles": [\n      "db",\n      "web"\n    ]' in line.text


def test_an_engine_without_a_firewall_cannot_part_containers_of_one_network(yard: Yard) -> None:
    """Goldsmith's private one leaves the host's alone: what it does not hold is told as open."""
    yard.write("world>edge")
    yard.start("edge.2", "goldsmith-test-net-edge:1")
    yard.apply()
    with yard.open() as context:
        network = require_network(context.settings.roots)
        wanted, seen = networks_of(network), read_engine(yard.host, network)
        (found,) = compare_engine(network, wanted, seen, "engine", walled=False)
    assert (
        found.what == "net-edge, net-edge.2 reach each other on goldsmith-edge.outside: this engine keeps no firewall"
    )
