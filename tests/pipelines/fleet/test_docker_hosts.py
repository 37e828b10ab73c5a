"""A fleet over two real engines: one behind a socket, one behind TLS on loopback, and a real sshd before it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests

from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.process import run
from hardening.foundation.settings import Docker, Settings
from images.context import Context
from images.documents import from_json, to_json
from pipelines.cli.explain import explain_member
from pipelines.cli.image_output import show
from pipelines.cli.reap import orphan_sources, reap_rollouts
from pipelines.cli.rollout import SEEN_COLUMNS, check_fleets, plan_roll, scan_exit_code, scan_fleets, show_fleets
from pipelines.fleet.docker.connecting import open_host
from pipelines.fleet.docker.hosts import HostsFleet
from pipelines.fleet.docker.inventory import inside
from pipelines.fleet.members import Key
from pipelines.fleet.model import DockerHosts, Fleet, Method
from pipelines.fleet.port import GoneError
from pipelines.rollout.flow import ROLLOUT
from pipelines.rollout.session import check, fleet_session
from pipelines.rollout.state import MemberState, Order, Phase, RolloutOutcome
from pipelines.wiring import image_context
from tests.pipelines.fleet.test_ec2_places import late
from tests.support.engines import KEPT
from tests.support.fleets import NOW, keeps_its_word
from tests.support.hosts import KEYS, SshHost, TlsEngine, certificates, free_port, sshd
from tests.support.rolling import READ_WITHIN, carried, carry_and_die, docker_host, outcome_after_deaths
from tests.support.yards import Yard, fleet, planned, yards

pytestmark = [pytest.mark.needs("docker", "dockerd", "root", "busybox", "sshd"), pytest.mark.slow]

SERVES = {"kind": "exec", "command": ["wget", "-qO-", "http://127.0.0.1:8080/"]}
HASTY = {"min_healthy_time": "0s", "bake_time": "0s", "drain": "1s", "settle": "0s"}
IN_PLACE = {"method": "in_place", "max_unavailable": 1, "rehearsal": False}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where the engine's certificates are, and where its client's."""
    return certificates(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def far_engine(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, Path]) -> Iterator[TlsEngine]:
    """The second engine of this process."""
    engine = TlsEngine(Settings(state=tmp_path_factory.mktemp("far")), keys[0])
    engine.ensure()
    yield engine
    engine.stop()


@pytest.fixture
def far(yard: Yard, far_engine: TlsEngine, tmp_path: Path) -> Iterator[Yard]:
    """What tests start on it, by its socket, from the very images of the first engine, which are brought there once."""
    tags = [tag for image in yard.images.values() for tag in yard.api.inspect_image(image)["RepoTags"]]
    kept = [tag for tag in tags if tag.startswith(f"{KEPT}:")]
    theirs = ("docker", "-H", far_engine.host)
    if not run([*theirs, "images", "--quiet", kept[0]]).stdout:
        archive = str(tmp_path / "images.tar")
        yard.docker("save", "--output", archive, *kept)
        run([*theirs, "load", "--input", archive])
    for made in yards(far_engine.host, tmp_path):
        assert made.images == yard.images
        yield made


class Town:
    """Two hosts with their yards, and a fleet over them; `ways` leads to the second."""

    def __init__(self, near: Yard, far: Yard, hosts: tuple[str, ...], ways: Docker) -> None:
        self.near, self.far, self.hosts, self.ways = near, far, hosts, ways

    def fleet(self, *more: str, **limits: Any) -> Fleet:
        made = fleet(health=SERVES, **{**HASTY, **limits})
        told = made.model_dump(mode="json", exclude_unset=True)
        return Fleet.model_validate({**told, "docker": {"hosts": [*self.hosts, *more]}})

    def open(self, of: Fleet) -> HostsFleet:
        return HostsFleet(of, partial(docker_host, of, ways=self.ways), READ_WITHIN)

    def roll(self, of: Fleet, image: str, rollout: str = "r1", back: tuple[MemberState, ...] = ()) -> RolloutOutcome:
        with self.open(of) as members, carried(members, self.near.folder) as worker:
            order = Order(rollout, planned(members, self.near.target(image)), of.limits, back=back)
            return from_json(RolloutOutcome, worker.execute(ROLLOUT, rollout, to_json(order)))


@pytest.fixture
def town(yard: Yard, far: Yard, far_engine: TlsEngine, keys: tuple[Path, Path]) -> Town:
    """One host by its socket, the other by TLS."""
    return Town(yard, far, (yard.host, far_engine.address), Docker(certificates=keys[1]))


@pytest.fixture
def ssh_host(far: Yard, tmp_path: Path) -> Iterator[SshHost]:
    """The second engine's host by ssh."""
    folder = tmp_path / "ssh"
    folder.mkdir()
    with sshd(folder, far.host) as host:
        yield host


def labels(of: Fleet) -> tuple[str, str]:
    near, far, *_ = of.docker.labels
    return near, far


def written(of: Fleet, folder: Path, ways: Docker) -> Context:
    """A context in which the fleet stands as people write it."""
    file = folder / "content/pipelines/fleets/web.toml"
    file.parent.mkdir(parents=True)
    selector = ", ".join(f'{key} = "{value}"' for key, value in of.selector.items())
    file.write_text(
        f'title = "The web servers"\nowner = "web"\nkind = "docker"\nselector = {{ {selector} }}\n'
        f'replacement = {{ definition = "nginx-unprivileged" }}\ndocker = {{ hosts = {json.dumps(of.docker.hosts)} }}\n'
        f"health = {{ kind = {json.dumps(SERVES['kind'])}, command = {json.dumps(SERVES['command'])} }}\n"
    )
    content = folder / "content"
    settings = Settings(
        state=folder / "state", content=(content,), judging={"roots": [content]}, docker=ways.model_dump(),
        registry={"address": f"127.0.0.1:{free_port()}/none"},
    )  # fmt: skip
    return image_context(settings, looks=True)


def test_a_host_that_refuses_and_one_that_hangs_are_named_and_the_rest_is_judged(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 4; containers of two hosts with one name are two members; nothing is planned meanwhile."""
    town.near.start("web-1")
    town.far.start("web-1")
    shut = f"tcp://127.0.0.1:{free_port()}"
    with silent() as hanging:
        of = town.fleet(shut, hanging)
        context = written(of, tmp_path, town.ways)
        near, far, refuses, hangs = of.docker.labels
        with late(hangs):
            found, errors = check_fleets("web", context=context)
            seen, _ = scan_fleets("web", context=context)
            story = explain_member(f"web/web-1@{far}", context)
            with pytest.raises(OutsideError, match="not every host of the fleet can be read") as refused:
                plan_roll("web", context=context)
    states = {line.member: line.state for line in found["web"]}
    assert {name for name, state in states.items() if state == "unread"} == {f"{refuses}/*", f"{hangs}/*"}
    judged = {f"{host}/local/docker/web-1@{host}" for host in (near, far)}
    assert {name for name, state in states.items() if state != "unread"} == judged
    assert (show_fleets((found, errors), as_json=False), scan_exit_code(seen)) == (4, 4)
    table = " ".join(capsys.readouterr().out.split())
    assert all(host in table for host in (refuses, hangs))
    show(seen, columns=SEEN_COLUMNS, as_json=True)
    why = {line["member"]: line["why"] for line in json.loads(capsys.readouterr().out) if line["why"]}
    assert why[f"{hangs}/*"] == "no answer within 2m"
    assert "Connection refused" in why[f"{refuses}/*"]
    assert story.member.name == f"web-1@{far}"
    assert [line.partition(": ")[0] for line in refused.value.evidence.splitlines()] == [refuses, hangs]


def alone(town: Town, host: str) -> Fleet:
    """The fleet on one host that its file names."""
    told = town.fleet().model_dump(mode="json", exclude_unset=True)
    return Fleet.model_validate({**told, "docker": {"hosts": [host]}})


def test_one_host_that_is_named_alone_is_unread_too(town: Town, tmp_path: Path) -> None:
    """As each of several is; its members have the names that they have there, and are observed."""
    town.near.start("web-1")
    shut = f"tcp://127.0.0.1:{free_port()}"
    (tmp_path / "shut").mkdir()
    found, errors = check_fleets("web", context=written(alone(town, shut), tmp_path / "shut", town.ways))
    label = shut.removeprefix("tcp://")
    assert ([(line.member, line.state) for line in found["web"]], errors) == ([(f"{label}/*", "unread")], [])
    (tmp_path / "open").mkdir()
    with fleet_session("web", written(alone(town, town.near.host), tmp_path / "open", town.ways)) as at:
        (one,) = check(at)
        assert (one.member.name, one.facts is not None) == ("web-1", True)
        assert at.members.find(one.member.id) == one.member


def test_one_engine_by_two_addresses_is_not_two_hosts(town: Town, tmp_path: Path) -> None:
    """Each of its members would be replaced twice at the same time."""
    link = tmp_path / "docker.sock"
    link.symlink_to(town.near.host.removeprefix("unix://"))
    town.near.start("web-1")
    of = town.fleet(f"unix://{link}")
    near, _, again = of.docker.labels
    with town.open(of) as members:
        seen = members.seen()
        assert [one.name for one in seen.members] == [f"web-1@{near}"]
        assert [(one.id, one.why) for one in seen.unread] == [
            (again, f"it has the very containers of {near}: docker.hosts names a host twice")
        ]


class silent:  # noqa: N801 - a context
    """A port on which somebody takes connections and never says a word."""

    def __enter__(self) -> str:
        import socket

        self._listener = socket.create_server(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listener.close()


def test_members_are_replaced_where_they_run_and_go_back(town: Town) -> None:
    """Names stay; budgets count over the whole fleet; a host after the other."""
    for number in range(2):
        town.near.start(f"web-{number}")
        town.far.start(f"web-{number}")
    of = town.fleet(max_parallel=4, max_surge=4, canary=0, budgets=[{"nodes": "50%"}])
    with town.open(of) as members:
        plan = planned(members, town.near.target("two"))
        assert [{step.member.zone for step in wave.steps} for wave in plan.waves] == [
            {one} for one in sorted(labels(of))
        ]
        assert (plan.desired, [len(wave.steps) for wave in plan.waves]) == (4, [2, 2])
    outcome = town.roll(of, "two")
    assert {one.phase for one in outcome.members} == {Phase.NEW}
    for at in (town.near, town.far):
        assert at.names() == ["web-0", "web-1"]
        assert {at.answer(name) for name in at.names()} == {"two"}
    again = town.roll(of, "two", "r2", back=outcome.members)
    assert {one.phase for one in again.members} == {Phase.OLD}, again
    assert {at.answer("web-0") for at in (town.near, town.far)} == {"one"}


def test_a_broken_replacement_goes_back_on_its_host_and_the_other_is_not_touched(town: Town) -> None:
    """The canary is one member of the whole fleet."""
    old = town.near.start("web-1"), town.far.start("web-1")
    outcome = town.roll(town.fleet(healthy_deadline="2s", **IN_PLACE), "broken")
    assert Phase.NEW not in {one.phase for one in outcome.members}
    assert (town.near.inspect("web-1")["Id"], town.far.inspect("web-1")["Id"]) == old
    assert {at.answer("web-1") for at in (town.near, town.far)} == {"one"}


def test_killed_at_every_point_it_comes_to_the_same_end(town: Town) -> None:
    """kill -9 before each step, and after each call that changes something, on either host. In place is as on one."""
    town.near.start("web-1")
    town.far.start("web-1")
    of = town.fleet()
    with town.open(of) as members:
        order = Order("r1", planned(members, town.near.target("two")), of.limits)
    folder, ways = town.near.folder, town.ways.model_dump(mode="json")
    outcome = outcome_after_deaths(carry_and_die, folder, of, order, ways=ways)
    points = (folder / "died").read_text().splitlines()
    assert all(any(host in point for point in points) for host in labels(of))
    assert {one.phase for one in outcome.members} == {Phase.NEW}, outcome
    for at in (town.near, town.far):
        assert (at.names(), at.answer("web-1")) == (["web-1"], "two")


def test_the_port_keeps_its_word(town: Town) -> None:
    """The contract of all fleets, over TLS."""
    town.far.start("web-1", "--network-alias", "web")
    with town.open(town.fleet()) as members:
        keeps_its_word(members, town.far.target("two"))
    assert town.far.names() == ["web-1"]


def test_the_way_back_of_a_member_needs_its_own_host_alone(town: Town) -> None:
    """A rollout prepares all hosts; what goes back is fetched where it runs, whatever became of the others."""
    of = town.fleet(f"tcp://127.0.0.1:{free_port()}")
    near, *_ = of.docker.labels
    with town.open(of) as members:
        members.prepare(town.near.target("one"), f"{near}/local/docker/web-1@{near}")
        with pytest.raises(OutsideError, match="Connection refused"):
            members.prepare(town.near.target("one"))
        with pytest.raises(OutsideError, match="names no host gone: "):
            members.find("gone/local/docker/web-1@gone")


def test_whether_a_member_of_a_host_that_was_taken_out_still_runs_is_unknown(town: Town, tmp_path: Path) -> None:
    """A rollout that goes on after docker.hosts was changed; its container runs there as before."""
    of = town.fleet()
    far = labels(of)[1]
    old = town.far.start("web-1")
    with town.open(of) as members:
        (there,) = members.describe()
    unknown = f"still runs is unknown: it ran on {far}, and the fleet .* alone"
    with fleet_session("web", written(alone(town, town.near.host), tmp_path, town.ways)) as at:
        with pytest.raises(OutsideError, match=unknown):
            at.members.find(there.id)
        key = Key("r1", there.id, there.name, old, Method.SURGE)
        with pytest.raises(OutsideError, match=unknown) as raised:
            at.members.create(key, town.near.target("two"), NOW)
        assert not isinstance(raised.value, GoneError)
        own = town.near.api.info()["Name"]
        assert at.members.find(f"{own}/local/docker/web-1") is None, "a member of this host that is not here is gone"


def test_what_a_killed_rollout_left_is_found_on_each_host(town: Town, tmp_path: Path) -> None:
    """One source for each host that fleets name, however many name it."""
    name = "web-1.r9"
    for at in (town.near, town.far):
        at.start(name, "--label", "dev.goldsmith.rollout=r9")
    context = written(town.fleet(), tmp_path, town.ways)
    sources = orphan_sources(context)
    assert [one.name for _, source in sources for one in source().orphans() if one.rollout == "r9"] == [name, name]
    lines, errors = reap_rollouts(apply=False, context=context)
    assert (sum(one.name == name for one in lines), errors) == (2, [])


def test_a_host_that_is_down_is_named_and_what_is_left_on_the_others_is_reaped(town: Town, tmp_path: Path) -> None:
    """With exit code 4: what is there is not known."""
    town.near.start("web-1.r9", "--label", "dev.goldsmith.rollout=r9")
    hosts = [town.near.host, f"unix://{tmp_path}/down.sock"]
    for order in (hosts, hosts[::-1]):
        of = town.fleet().model_copy(update={"docker": DockerHosts.model_validate({"hosts": order})})
        context = written(of, tmp_path / str(hosts.index(order[0])), town.ways)
        lines, (error,) = reap_rollouts(apply=False, context=context)
        assert "web-1.r9" in [one.name for one in lines]
        assert ("down.sock" in error.message, error.exit_code) == (True, 4)


# -- the ways ----------------------------------------------------------------------------------------------------------


def test_by_ssh_a_host_is_read_and_rolled(town: Town, ssh_host: SshHost) -> None:
    """Its commands run where sshd is, and health is asked by the engine."""
    by_ssh = Town(town.near, town.far, (town.near.host, ssh_host.address), Docker(ssh_config=ssh_host.config))
    town.far.start("web-1")
    outcome = by_ssh.roll(by_ssh.fleet(), "two")
    assert [(one.phase, one.name) for one in outcome.members] == [(Phase.NEW, f"web-1@127.0.0.1:{ssh_host.port}")]
    assert town.far.answer("web-1") == "two"


@pytest.mark.parametrize("known", ["", "another"])
def test_a_host_key_that_is_not_known_is_refused(town: Town, ssh_host: SshHost, known: str) -> None:
    """Whatever ssh's configuration says; what ssh says is told, and no line is added to the known ones."""
    other = ssh_host.key.replace(
        (ssh_host.known.parent / "host.pub").read_text(), (ssh_host.known.parent / "user.pub").read_text()
    )
    ssh_host.known.write_text(other if known else "")
    before = ssh_host.known.read_text()
    of = Town(town.near, town.far, (town.near.host, ssh_host.address), Docker(ssh_config=ssh_host.config))
    with of.open(of.fleet()) as members:
        (unread,) = members.seen().unread
    assert unread.id == f"127.0.0.1:{ssh_host.port}"
    assert "Host key verification failed" in unread.why
    assert ssh_host.known.read_text() == before


@pytest.mark.parametrize("way", ["socket", "tls", "ssh"])
def test_a_command_that_does_not_end_is_a_bad_read(town: Town, ssh_host: SshHost, way: str) -> None:
    """Also where what it has printed lies in TLS's buffer, or it prints without end; what ends is read whole."""
    host = {"socket": town.far.host, "tls": town.hosts[1], "ssh": ssh_host.address}[way]
    town.far.start("web-1")
    api = open_host(host, replaced(town.ways, ssh_host.config))
    container = {"Id": town.far.inspect("web-1")["Id"]}
    hung = inside(api, container, ["sh", "-c", "echo one; echo two; exec sleep 600"], 2)
    ended = inside(api, container, ["sh", "-c", "echo one; echo two; exit 3"], 60)
    prints = inside(api, container, ["sh", "-c", "while :; do echo x; done"], 2)
    api.close()
    assert (hung.good, "did not end within 2 s" in hung.text) == (False, True)
    assert (ended.good, ended.text) == (False, "sh ended with 3: two (1 line before it)")
    assert (prints.good, "sh did not end within 2 s" in prints.text) == (False, True)


def replaced(ways: Docker, config: Path) -> Docker:
    return ways.model_copy(update={"ssh_config": config})


def test_another_authority_vouches_for_no_host(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: tuple[Path, Path]
) -> None:
    """Not even one that the environment names for all programs."""
    (tmp_path / "mixed").mkdir()
    _, other = certificates(tmp_path / "other")
    for file, of in zip(KEYS, (other, keys[1], keys[1]), strict=True):
        (tmp_path / "mixed" / file).write_bytes((of / file).read_bytes())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(keys[1] / "ca.pem"))
    with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        open_host(town.hosts[1], Docker(certificates=tmp_path / "mixed"))
    own = tmp_path / "mixed" / "127.0.0.1"
    own.mkdir()
    for file in KEYS:
        (own / file).write_bytes((keys[1] / file).read_bytes())
    open_host(town.hosts[1], Docker(certificates=tmp_path / "mixed")).close()


def test_a_host_sends_nobody_elsewhere_and_is_no_other(tmp_path: Path) -> None:
    """A redirect is not followed; a certificate for another name, and an answer that no engine gives, are refused."""
    engine, client = certificates(tmp_path / "here")
    named, stranger = certificates(tmp_path / "named", address="127.0.0.9")
    asked = list[str]()
    with answering(engine, asked, "/elsewhere") as port:
        ways = Docker(certificates=client)
        with pytest.raises(requests.exceptions.TooManyRedirects):
            open_host(f"tcp://127.0.0.1:{port}", ways)
        assert asked == ["/version"]
    with answering(engine, asked, "") as port, pytest.raises(OutsideError, match="is not a Docker Engine"):
        open_host(f"tcp://127.0.0.1:{port}", ways)
    with answering(named, asked, "") as port, pytest.raises(requests.exceptions.SSLError, match=r"127\.0\.0\.1"):
        open_host(f"tcp://127.0.0.1:{port}", Docker(certificates=stranger))


class answering:  # noqa: N801 - a context
    """A server with TLS that redirects to `to`, or answers as no engine does."""

    def __init__(self, keys: Path, asked: list[str], to: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(307 if to else 200)
                self.send_header(*(("Location", to) if to else ("Content-Type", "application/json")))
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"[]")

            def log_message(self, *_: object) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(keys / "cert.pem", keys / "key.pem")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> int:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return int(self._server.server_address[1])

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_plain_tcp_is_refused_with_the_reason(town: Town, tmp_path: Path) -> None:
    """Before any host is asked."""
    context = written(town.fleet(), tmp_path, Docker())
    with pytest.raises(ContentError, match="without TLS, anyone who reaches an engine's port is root on its host"):
        check_one(context)
    (tmp_path / "cert").mkdir()
    for file in KEYS[:2]:
        (tmp_path / "cert" / file).write_text("")
    with pytest.raises(ContentError, match=r"key\.pem is missing"):
        open_host(town.hosts[1], Docker(certificates=tmp_path / "cert"))


def check_one(context: Context) -> None:
    with fleet_session("web", context) as opened:
        check(opened)


def test_one_host_alone_keeps_the_names_of_its_members(town: Town, tmp_path: Path) -> None:
    """As they are where no host is named."""
    town.far.start("web-1")
    of = town.fleet()
    alone = Fleet.model_validate(
        {**of.model_dump(mode="json", exclude_unset=True), "docker": {"hosts": [town.hosts[1]]}}
    )
    with fleet_session("web", written(alone, tmp_path, town.ways)) as opened:
        (one,) = opened.seen().members
    assert (one.name, one.zone) == ("web-1", "")
    assert one.id == f"{town.far.api.info()['Name']}/local/docker/web-1"
