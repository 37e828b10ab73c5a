"""Which sockets of a booted machine are open to others, and which of those nobody asked for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from hardening.findings import Outcome

# A DHCP client waits on these for its server's answer (RFC 2131, RFC 8415); programs as ss cuts their names.
DHCP_PORTS = {68, 546}
DHCP_CLIENTS = {"systemd-network", "dhclient", "dhcpcd"}
STATED = "not counted: loopback, and DHCP clients on 68/udp and 546/udp"


@dataclass(frozen=True)
class Listener:
    """A socket that takes what comes: protocol, address without brackets, interface if bound to one, port, program."""

    protocol: str
    address: str
    interface: str
    port: int
    program: str

    @property
    def name(self) -> str:
        """As a definition names it: `22/tcp`."""
        return f"{self.port}/{self.protocol}"

    @property
    def harmless(self) -> bool:
        """Whether no other machine reaches it, or it is a DHCP client's."""
        if self.protocol == "udp" and self.port in DHCP_PORTS and self.program in DHCP_CLIENTS:
            return True
        return self.interface == "lo" or _is_loopback(self.address)


def judge_sockets(said: str, listens: Sequence[str]) -> tuple[Outcome, str]:
    """The outcome over what the machine said: the kernel's count of TCP listeners, then the lines of `ss -Hltnup`."""
    first, *lines = said.splitlines() or [""]
    count = first.removeprefix("kernel ").strip()
    try:
        sockets = [listener(line) for line in lines if line.strip()]
        expected = int(count)
    except ValueError:
        return Outcome.ERROR, f"not understood:\n{said}"
    if sum(socket.protocol == "tcp" for socket in sockets) < expected:
        return Outcome.ERROR, f"the kernel knows {expected} TCP listeners, ss does not show all of them:\n{said}"
    outside = [socket for socket in sockets if not socket.harmless]
    unasked = [socket for socket in outside if socket.name not in listens]
    if unasked:
        shown = sorted({f"{one.name} on {one.address} ({one.program or 'the kernel'})" for one in unasked})
        asked = ", ".join(listens) or "nothing"
        return Outcome.FAIL, "\n".join([*shown, f"[machine] listens allows {asked}; {STATED}"])
    named = ", ".join(sorted({socket.name for socket in outside})) or "nothing"
    return Outcome.PASS, f"{len(sockets)} sockets; open to others: {named}; {STATED}"


def listener(line: str) -> Listener:
    """The socket of one line of `ss -Hltnup`. Raises ValueError for any other line."""
    protocol, _, _, _, local, _, *users = line.split(None, 6)
    host, _, port = local.rpartition(":")
    address, _, interface = host.replace("[", "").replace("]", "").partition("%")
    program = users[0].split('"')[1] if users and '"' in users[0] else ""
    return Listener(protocol, address, interface, int(port), program)


def _is_loopback(address: str) -> bool:
    if address == "*":
        return False
    found = ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
