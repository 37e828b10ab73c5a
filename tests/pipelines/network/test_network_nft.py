"""Rulesets as real nft takes and shows them, and traffic through real network namespaces while they are replaced."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hardening.catalog import load_controls
from hardening.foundation.limits import parse_json
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT
from hardening.model import Profile, ProfileEntry
from hardening.render import Overlay, render
from pipelines.network.comparing import Openness, compare_ruleset, compare_sockets
from pipelines.network.model import Network
from pipelines.network.nftables import CONTROL, firewall_params, read_ruleset
from tests.pipelines.network.sample import HEAD, SHOP, network

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("nft"), pytest.mark.needs("ip")]
Found = TypeVar("Found")
CLONE_NEWNET = 0x40000000
PATIENCE = 60
CLIENT, SERVER = "10.77.0.1", "10.77.0.2"


def overlay(wanted: Network, role: str) -> Overlay:
    """What the control `firewall` makes of a role's params."""
    profile = Profile(name="n", title="t", owner="o", controls=(ProfileEntry(control=CONTROL),))
    params = {CONTROL: firewall_params(wanted, role)}
    return render(profile, load_controls((ROOT,)), params, {"kind": "machine"}, datetime.now(UTC).date())


def conf(wanted: Network, role: str, folder: Path) -> Path:
    file = folder / f"{role}.nft"
    file.write_text(overlay(wanted, role).files[0].content)
    return file


@contextmanager
def spaces() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a wire between them: a client's and a server's."""
    client, server = (f"gs{os.getpid()}{part}" for part in "cs")
    try:
        for name in (client, server):
            run(["ip", "netns", "add", name])
        run(["ip", "link", "add", "gsc", "netns", client, "type", "veth", "peer", "name", "gss", "netns", server])
        for name, device, address in ((client, "gsc", CLIENT), (server, "gss", SERVER)):
            run(["ip", "-n", name, "address", "add", f"{address}/24", "dev", device])
            for each in (device, "lo"):
                run(["ip", "-n", name, "link", "set", each, "up"])
        yield client, server
    finally:
        for name in (client, server):
            run(["ip", "netns", "delete", name], ok=range(256))


def nft(space: str, *words: str) -> str:
    return run(["ip", "netns", "exec", space, "nft", *words]).stdout


def within(space: str, act: Callable[[], Found]) -> Found:
    """What `act` returns in a namespace: only its own thread goes there, and the sockets it makes stay there."""
    found: list[Found] = []

    def go() -> None:
        with Path(f"/run/netns/{space}").open() as place:
            assert ctypes.CDLL(None, use_errno=True).setns(place.fileno(), CLONE_NEWNET) == 0
        found.append(act())

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    return found[0]


def one_address(address: str, port: str) -> str:
    """A network whose server lets the client in on one port, and somebody else on another."""
    return HEAD + (
        '[roles.server]\nwhat = "s"\naddresses = ["10.77.0.2/32"]\noutgoing = "any"\n'
        f'[[rules]]\nfrom = "{address}"\nto = "server"\nports = ["7000/udp", "7000/tcp", "{port}"]\nreason = "r"\n'
        '[[rules]]\nfrom = "192.0.2.0/24"\nto = "server"\nports = ["7009/udp", "7009/tcp"]\nreason = "r"\n'
    )


@dataclass
class Echo:
    """A server of a namespace: what it hears by port; it answers each datagram and each connection."""

    sockets: dict[int, Any] = field(default_factory=dict)

    def heard(self, port: int) -> list[bytes]:
        """All that has come to a port, without waiting."""
        found = []
        while True:
            try:
                found.append(self.sockets[port].recvfrom(64)[0])
            except BlockingIOError:
                return found


def udp(*ports: int) -> dict[int, Any]:
    made = {}
    for port in ports:
        made[port] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made[port].bind(("", port))
    return made


def listening(port: int) -> Any:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.bind(("", port))
    made.listen(64)
    return made


def answered(server: Any) -> None:
    """Answer every connection with a byte until the socket is shut."""
    while True:
        try:
            found, _ = server.accept()
        except OSError:
            return
        with closing(found):
            found.sendall(b"y")


def test_what_must_flow_flows_at_every_moment_while_rules_are_replaced_and_what_must_not_does_not(
    tmp_path: Path,
) -> None:
    """Two networks that both let the client in on 7000, and nobody on 7009, are loaded in turns under its traffic.

    New connections and one that stays are probed in between and meanwhile; a datagram that is dropped is known to be
    when one behind it is answered.
    """
    one, other = network(one_address("10.77.0.0/24", "7001/tcp")), network(one_address("10.77.0.1/32", "7002/tcp"))
    files = []
    for number, wanted in enumerate((one, other)):
        (tmp_path / str(number)).mkdir()
        files.append(conf(wanted, "server", tmp_path / str(number)))
    with spaces() as (client, server):
        nft(server, "-f", str(files[0]))
        echo, tcp = Echo(within(server, lambda: udp(7000, 7009))), within(server, lambda: listening(7000))
        echo.sockets[7009].setblocking(False)
        threading.Thread(target=answered, args=(tcp,), daemon=True).start()
        asking = within(client, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        asking.settimeout(PATIENCE)
        done, failed = threading.Event(), list[str]()
        probes = threading.Thread(target=connections, args=(client, done, failed))
        probes.start()
        for turn in range(40):
            nft(server, "-f", str(files[turn % 2]))
            asking.sendto(b"no", (SERVER, 7009))
            asking.sendto(b"yes", (SERVER, 7000))
            assert echo.sockets[7000].recvfrom(64)[0] == b"yes"
            echo.sockets[7000].sendto(b"answer", asking.getsockname()[:1] and (CLIENT, asking.getsockname()[1]))
            assert asking.recv(64) == b"answer"
        done.set()
        probes.join()
        assert failed[1:] == []
        assert int(failed[0]) > 0, "no connection was opened meanwhile"
        assert echo.heard(7009) == [], "a datagram came through that no rule allows"
        tcp.shutdown(socket.SHUT_RDWR)
        opened(server, echo, asking)
        for each in (tcp, asking, *echo.sockets.values()):
            each.close()


def opened(server: str, echo: Echo, asking: Any) -> None:
    """The probe above sees what it must: with the port open, the datagram is heard."""
    nft(server, "insert", "rule", "inet", "filter", "input", "udp", "dport", "7009", "accept")
    asking.sendto(b"no", (SERVER, 7009))
    asking.sendto(b"yes", (SERVER, 7000))
    assert echo.sockets[7000].recvfrom(64)[0] == b"yes"
    assert echo.heard(7009) == [b"no"]


def connections(client: str, done: threading.Event, failed: list[str]) -> None:
    """Open connections one after the other until `done`: first how many were answered, then what failed."""
    many, wrong = 0, list[str]()
    while not done.is_set():
        made = within(client, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        with closing(made):
            made.settimeout(PATIENCE)
            try:
                made.connect((SERVER, 7000))
                many += made.recv(1) == b"y"
            except OSError as error:
                wrong.append(repr(error))
    failed += [str(many), *wrong]


def ruleset(space: str) -> Any:
    return parse_json(nft(space, "-j", "list", "ruleset"), "nft")


@pytest.mark.parametrize("role", ["web", "db"])
def test_what_nft_shows_of_a_rendered_ruleset_is_what_the_network_says(role: str, tmp_path: Path) -> None:
    """Input and output, both families, ranges of ports; `nft -c` takes it before it is loaded."""
    shop = network(SHOP)
    with spaces() as (_, server):
        file = conf(shop, role, tmp_path)
        nft(server, "-c", "-f", str(file))
        assert nft(server, "list", "ruleset") == ""
        nft(server, "-f", str(file))
        assert [*compare_ruleset(shop, role, ruleset(server), "here")] == []


PLANTED = [
    ("insert rule inet filter input tcp dport 22 accept", Openness.TOO_OPEN, "world → db 22/tcp"),
    ("insert rule inet filter input ip saddr 10.0.0.0/8 tcp dport 5432 accept", Openness.TOO_OPEN,
     "10.0.0.0/16 → db 5432/tcp"),
    ("insert rule inet filter input ip saddr 10.2.3.4-10.2.3.5 accept", Openness.TOO_OPEN, "10.2.3.4/31 → db "),
    ("insert rule inet filter input tcp dport { 22, 80-82 } accept", Openness.TOO_OPEN, "world → db 80-82/tcp"),
    ("insert rule inet filter output tcp dport 25 accept", Openness.TOO_OPEN, "db → world 25/tcp"),
    ("add chain inet filter input { policy accept; }", Openness.TOO_OPEN, "world → db everything"),
    ("insert rule inet filter input ip saddr 10.1.0.0/24 drop", Openness.UNKNOWN, "rule 1 is not understood"),
    ("insert rule inet filter input meta mark 7 accept", Openness.UNKNOWN, "rule 1 is not understood"),
    ("insert rule inet filter input tcp dport 22 limit rate 1/second accept", Openness.UNKNOWN, "not understood"),
    ("insert rule inet filter input tcp dport != 22 accept", Openness.UNKNOWN, "rule 1 is not understood"),
    ("insert rule inet filter input tcp sport 7 accept", Openness.UNKNOWN, "rule 1 is not understood"),
    ("insert rule inet filter input ct state new accept", Openness.UNKNOWN, "rule 1 is not understood"),
    ("add table ip other; add chain ip other x { type filter hook input priority 5; policy drop; }", Openness.UNKNOWN,
     "ip other x: another chain at the hook input decides too"),
    ("delete table inet filter", Openness.TOO_OPEN, "world → db everything"),
    ("add table inet filter { flags dormant; }", Openness.UNKNOWN, "one that is dormant filters nothing"),
    ('insert rule inet filter input iif != "lo" tcp dport 5432 drop', Openness.UNKNOWN, "rule 1 is not understood"),
    ("insert rule inet filter input udp sport 67 udp dport != 68 accept", Openness.UNKNOWN, "rule 1 is not understood"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "verdict", "what"), PLANTED)
def test_what_was_changed_in_a_machine_is_found(command: str, verdict: Openness, what: str, tmp_path: Path) -> None:
    """Too open by a rule, a policy or a missing table; and whatever is not understood is unknown, never compliant."""
    shop = network(SHOP)
    with spaces() as (_, server):
        nft(server, "-f", str(conf(shop, "db", tmp_path)))
        for each in command.split("; add"):
            nft(server, each if each.startswith(("add", "insert", "delete")) else f"add{each}")
        found = [*compare_ruleset(shop, "db", ruleset(server), "here")]
        assert any(one.verdict is verdict and what in one.what for one in found), found


def test_a_rule_that_is_missing_is_found(tmp_path: Path) -> None:
    """The machine runs by yesterday's network."""
    shop = network(SHOP)
    with spaces() as (_, server):
        nft(server, "-f", str(conf(network(SHOP.replace('"5432/tcp", "9100-9104/tcp"', '"5432/tcp"')), "db", tmp_path)))
        (found,) = compare_ruleset(shop, "db", ruleset(server), "here")
    assert (found.verdict, found.what) == (Openness.TOO_CLOSED, "10.9.0.0/24 → db 9100-9104/tcp")


@pytest.mark.parametrize("said", [{}, [], {"nftables": [{"chain": 7}]}, {"nftables": [{"chain": {"hook": "input"}}]}])
def test_a_ruleset_of_another_form_is_unknown(said: Any) -> None:
    """nft of tomorrow, or something else."""
    (told,) = read_ruleset(said, "db", "input").unknown
    assert ("it is not what `nft -j list ruleset` prints" in told) == (not said), "in plain words"
    assert any(one.verdict is Openness.UNKNOWN for one in compare_ruleset(network(SHOP), "db", said, "here"))


def test_the_controls_own_check_knows_the_rules_as_nft_lists_them(tmp_path: Path) -> None:
    """The check that a booted machine runs, on the live ruleset; without the opening among its params it refuses."""
    shop = network(SHOP)
    with spaces() as (_, server):
        nft(server, "-f", str(conf(shop, "db", tmp_path)))
        (check,) = overlay(shop, "db").checks
        root = tmp_path / "root"
        (root / "usr/sbin").mkdir(parents=True)
        (root / "usr/sbin/nft").symlink_to("/usr/sbin/nft")
        text = check.text.replace("# Every rule that lets", "active() { :; }\n# Every rule that lets")
        assert text != check.text
        asked = ["ip", "netns", "exec", server, "sh", "-c", text]
        around = {**check.env, "ROOT": str(root), "LIVE": "1"}
        assert "5432/tcp from 10.1.0.0/24" in run(asked, env=around).stdout
        refused = run(asked, env={**around, "PARAM_OPENINGS": "5432/tcp from 10.1.0.0/24"}, ok=(1,)).stdout
    assert "not a reviewed rule of input: ip saddr 10.9.0.0/24 tcp dport 5432 accept" in refused


def test_what_listens_is_held_against_the_rules() -> None:
    """As ss shows it: loopback is nobody's business."""
    said = (
        'tcp LISTEN 0 128 0.0.0.0:5432 0.0.0.0:* users:(("postgres",pid=7,fd=5))\n'
        'tcp LISTEN 0 128 [::]:22 [::]:* users:(("sshd",pid=8,fd=3))\n'
        'tcp LISTEN 0 128 127.0.0.1:6010 0.0.0.0:* users:(("sshd",pid=9,fd=3))\n'
    )
    found = {(one.verdict, one.what) for one in compare_sockets(network(SHOP), "db", said, "db-1")}
    assert found == {
        (Openness.TOO_CLOSED, "22/tcp is listened on, and no rule lets anybody in to db"),
        (Openness.TOO_OPEN, "9100-9104/tcp is let in to db, and nothing listens there"),
    }
    (unknown,) = compare_sockets(network(SHOP), "db", "netid state\n", "db-1")
    assert unknown.verdict is Openness.UNKNOWN
