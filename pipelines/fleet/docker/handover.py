"""Edge: how a container takes over from another: the commands of the limits, and new connections that wait meanwhile.

While a container is replaced in place, a table of nftables drops the first packet of each new connection to its
published ports, which the client sends again after 1 s, and after 2 s more. Established connections go on. The ports
are elements of a set with a timeout: if this process dies, the kernel lets connections in again by itself, and
`roll.reap` removes the empty table.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Literal

import docker.errors

from hardening.foundation.errors import OutsideError, understood
from hardening.foundation.limits import parse_json
from hardening.foundation.process import run, which
from pipelines.fleet.docker import container_spec
from pipelines.fleet.docker.container_spec import Json
from pipelines.fleet.docker.inventory import address_of, find, inside, probe
from pipelines.fleet.health import ask
from pipelines.fleet.members import Key, Read
from pipelines.fleet.model import Health, Limits

PREFIX = "goldsmith-hold."
LONGEST, STARTS = 60, 10  # seconds: the longest hold; what a container gets to start, beside its time to stop
ACCEPTS = 0.2  # seconds from the hold to the stop, in which the server accepts what is connected already
LOOKS = 0.05
CHECK_PAUSE = 1.0  # seconds between two runs of a check that is a command inside the container
NFT_SECONDS = 20


@dataclass(frozen=True)
class PublishedPort:
    """A TCP port of a container, and the host's port that leads there, at `host`; None: at every address."""

    host: IPv4Address | IPv6Address | None
    host_port: int
    port: int

    def __str__(self) -> str:
        if self.host is None or self.host.is_unspecified:
            return str(self.host_port)
        return f"[{self.host}]:{self.host_port}" if ":" in str(self.host) else f"{self.host}:{self.host_port}"

    @property
    def rule(self) -> str:
        """The nftables rule that drops what is sent there."""
        where = "fib daddr type local"
        if self.host is not None:
            family = f"ipv{self.host.version}"
            named = f"{'ip6' if ':' in str(self.host) else 'ip'} daddr {self.host}"
            where = f"meta nfproto {family} {where}" if self.host.is_unspecified else named
        return f"{where} tcp dport {self.host_port} drop"


def named_until_exit(container: Json, stops: int) -> tuple[str, ...]:
    """Say that a surge can refuse clients which use the name of a container that has `stops` seconds to stop."""
    networks = [
        network for network in container_spec.networks(container) if network not in container_spec.BUILT_IN_NETWORKS
    ]
    if not networks:
        return ()
    return (
        f"in network {', '.join(networks)} the engine's DNS names the old container until it has exited, so new "
        f"connections by name can be refused while it stops (up to {stops} s): use a proxy, or clients that retry",
    )


def published(container: Json) -> tuple[PublishedPort, ...]:
    """The TCP ports with a host port that the next container has as well. Raises OutsideError for other answers."""
    with understood("the Docker Engine"):
        ports = [
            PublishedPort(_host(binding.get("HostIp")), int(host_port), int(port.partition("/")[0]))
            for port, bindings in (container["HostConfig"].get("PortBindings") or {}).items()
            for binding in bindings or []
            if (host_port := str(binding.get("HostPort") or "")).isdecimal() and port.endswith("/tcp")
        ]
    return tuple(port for port in dict.fromkeys(ports) if 0 < port.host_port < 1 << 16)


def _host(text: str | None) -> IPv4Address | IPv6Address | None:
    address = ip_address(text) if text else None
    return IPv6Address(int(address)) if isinstance(address, IPv6Address) else address  # no scope, which is any text


def ruleset(table: str, ports: Iterable[PublishedPort], seconds: int) -> str:
    """The input of nft that holds `ports` for at most `seconds`, whatever stood in the table before."""
    held = ", ".join(f"{port} timeout {seconds}s" for port in sorted({item.host_port for item in ports}))
    rules = "\n    ".join(item.rule for item in ports)
    return f"""{removal(table)}table inet {table} {{
  set held {{ type inet_service; flags timeout; elements = {{ {held} }}; }}
  chain new {{
    tcp flags & (fin | syn | rst | ack) != syn accept
    tcp dport != @held accept
    {rules}
  }}
  chain arriving {{ type filter hook prerouting priority raw; jump new; }}
  chain sent {{ type filter hook output priority raw; jump new; }}
}}
"""


def removal(table: str) -> str:
    """The input of nft that removes a table, also one that is not there."""
    return f"add table inet {table}\ndelete table inet {table}\n"


def apply(rules: str, *options: str) -> None:
    """Give nft a set of rules, which it applies whole or not at all. Raises OutsideError."""
    run(["nft", *options, "-f", "-"], stdin=rules, timeout=NFT_SECONDS)


def tables() -> tuple[str, ...]:
    """The tables of holds on this machine, as the kernel names them. Raises OutsideError."""
    answer = parse_json(run(["nft", "-j", "list", "tables", "inet"], timeout=NFT_SECONDS).stdout, "what nft says")
    with understood("nft"):
        names = [str(entry["table"]["name"]) for entry in answer["nftables"] if "table" in entry]
    return tuple(name for name in names if name.startswith(PREFIX))


def rollout_of(table: str) -> str:
    """The rollout that a table's name carries."""
    return table.removeprefix(PREFIX).rpartition(".")[0]


def unable() -> str:
    """Why this process cannot hold ports of this machine at all; empty where it may."""
    if os.geteuid() != 0:
        return "Goldsmith does not run as root"
    return "" if which("nft") else "nft is not installed here"


def _unable(engine: str) -> str:
    """Why connections to an engine's containers cannot be held; empty where they can."""
    scheme, _, path = engine.partition("://")
    if scheme != "unix":
        return "their engine is not asked by a socket of this machine"
    if why := unable():
        return why
    if not _same_network(path):
        return "their engine runs in a network namespace of its own"
    every = [
        PublishedPort(host, 1, 1)
        for host in (None, *(kind(host) for kind in (IPv4Address, IPv6Address) for host in (0, 1)))
    ]
    try:
        apply(ruleset(f"{PREFIX}check", every, 1), "--check")
    except OutsideError as error:
        return f"nft cannot do it here: {error.message}"
    return ""


def _same_network(path: str) -> bool:
    """Whether what listens on a socket runs in our network namespace."""
    try:
        with socket.socket(socket.AF_UNIX) as tried:
            tried.settimeout(NFT_SECONDS)
            tried.connect(path)
            process, _, _ = struct.unpack("iII", tried.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return Path(f"/proc/{process}/ns/net").stat().st_ino == Path("/proc/self/ns/net").stat().st_ino
    except OSError:
        return False


class PortHold:
    """The holds of one engine's containers, and for how long each did not answer. What it measured ends with us."""

    def __init__(self, api: Any, engine: str, health: Health) -> None:
        self._api, self._engine, self._health = api, engine, health
        self._ports: dict[Key, tuple[PublishedPort, ...]] = {}
        self._since: dict[Key, float] = {}
        self._away: dict[Key, timedelta] = {}

    @cached_property
    def unable(self) -> str:
        """Why connections cannot be held; empty where they can."""
        return _unable(self._engine)

    def told(self, container: Json, stops: int) -> tuple[str, ...]:
        """Say what becomes of new connections to a container that has `stops` seconds to stop."""
        if not (ports := ", ".join(map(str, published(container)))):
            return ()
        if self.unable:
            until = f"are refused while the old container stops (up to {stops} s) and until the new one answers"
            return (f"new connections to port {ports} {until}: {self.unable}",)
        waits = f"wait until the new container answers, for at most {_limit(stops)} s"
        return (f"new connections to port {ports} {waits}; one that its client gives up within a second fails",)

    def begin(self, key: Key, container: Json, stops: int) -> None:
        """Hold the ports that answer, of a container that is about to stop. Raises OutsideError."""
        if key not in self._ports:
            ports = published(container)
            self._ports[key] = tuple(port for port in ports if not self.unable and _reached(container, port).good)
        self._since[key] = time.monotonic()
        if ports := self._ports[key]:
            apply(ruleset(_table(key), ports, _limit(stops)))
            time.sleep(ACCEPTS)

    def end(self, key: Key, started: Callable[[], Json | None]) -> None:
        """Let connections in as soon as the container that was started answers, or has ended."""
        ports = self._ports.get(key, ())
        waits = ports or (self._health.kind != "docker" and key in self._since)  # an image's own check answers later
        until, check_at = time.monotonic() + (LONGEST if ports else STARTS), 0.0
        try:
            while waits and (now := time.monotonic()) < until:
                container = started()
                seen = self._open(container, ports)
                if container and seen.good and self._health.kind != "docker":
                    if now < check_at:
                        seen = Read(False, "its check is not asked again yet")
                    else:
                        seen = probe(self._api, self._health, container)
                        check_at = time.monotonic() + (CHECK_PAUSE if self._health.kind == "exec" else 0)
                if seen.good:
                    self.answered(key)
                if seen.good or seen.ended:
                    break
                time.sleep(LOOKS)
        finally:
            if self._ports.get(key) != () and not self.unable:
                apply(removal(_table(key)))

    def give_up(self, key: Key) -> None:
        """Let connections in at once: what they were held for has failed."""
        self.end(key, lambda: None)

    def _open(self, container: Json | None, ports: Iterable[PublishedPort]) -> Read:
        """Whether a container runs and its ports are open."""
        if container is None:
            return Read(False, "the container is gone", ended=True)
        if container["State"]["Status"] != "running":
            return probe(self._api, self._health, container)
        reads = (_reached(container, port) for port in ports)
        shut = next((read for read in reads if not read.good), None)
        if shut is None:
            return Read(True, "it answers")
        return Read(False, shut.text, ended=(container.get("RestartCount") or 0) >= container_spec.MOST_EXITS)

    def answered(self, key: Key) -> None:
        """The new container was seen to answer."""
        if since := self._since.pop(key, None):
            self._away[key] = timedelta(seconds=time.monotonic() - since)

    def away(self, key: Key) -> timedelta | None:
        """For how long neither the old container answered nor the new one; None where this process did not see it."""
        return self._away.get(key)


def _limit(stops: int) -> int:
    return min(stops + STARTS, LONGEST)


def _reached(container: Json, port: PublishedPort) -> Read:
    return ask(Health(kind="tcp", port=port.port), address_of(container))


def _table(key: Key) -> str:
    return f"{PREFIX}{key.rollout}.{key.old[:12]}"


# -- the commands of the limits ----------------------------------------------------------------------------------------

RUNS_LOOKS = 5


def before_drain(api: Any, limits: Limits, old: Json) -> None:
    """Run `limits.before_drain` in `old`, unless nothing can be run in it: it is paused, or ends by itself meanwhile.

    Raises OutsideError where the command does not end with 0 in a container that goes on.
    """
    state = old["State"]
    if state["Status"] != "running":
        return
    try:
        run_hook(api, limits, "before_drain", old)
    except (OutsideError, docker.errors.APIError):
        if _runs_on(api, old["Id"], state["StartedAt"]):
            raise


def run_hook(api: Any, limits: Limits, which: Literal["before_drain", "after_drain"], container: Json) -> None:
    """Run this command of the limits in a container. Raises OutsideError where it does not end with 0."""
    command = limits.before_drain if which == "before_drain" else limits.after_drain
    if command and not (seen := inside(api, container, list(command), limits.drain.total_seconds())).good:
        raise OutsideError(f"limits.{which} in {container_spec.name(container)}: {seen.text}")


def _runs_on(api: Any, container: str, started: str) -> bool:
    """Whether it is the same process that runs still, and a second later too: the engine tells of an end a bit late."""
    for look in range(RUNS_LOOKS):
        time.sleep(min(look, 1) / RUNS_LOOKS)
        current = find(api, container)
        if current is None or (current["State"]["Status"], current["State"]["StartedAt"]) != ("running", started):
            return False
    return True
