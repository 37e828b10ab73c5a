"""The private Docker Engine: used if the host has none, or one without the containerd image store that builds need.

It shares nothing with the host's own engine: own data, socket, bridge and address pool, and it leaves the host's
firewall alone but for rules about its own addresses. It runs in a mount namespace of its own, under a shell that starts
a dockerd again that was killed. Containers outlive both, and the next dockerd takes them over in the namespace that
holds their mounts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from hardening.foundation.console import say
from hardening.foundation.errors import LateError, OutsideError
from hardening.foundation.locks import only_one
from hardening.foundation.process import ENGINE, NETWORK, run, which
from hardening.foundation.settings import Settings
from pipelines.host.daemon import POLL_SECONDS, Daemon

START_SECONDS = 90
ANSWER_SECONDS = 30
STOP_SECONDS = 10  # for a container's own end, before it is killed
POOL_PREFIX = 20
BRIDGE = "gold"
TAKING = Path("/run/goldsmith-addresses.lock")  # of this host: engines of other state directories choose as well
POOLS = list(IPv4Network("10.213.0.0/16").subnets(new_prefix=POOL_PREFIX))


class PrivateEngine:
    """The engine that belongs to one state directory."""

    def __init__(self, settings: Settings) -> None:
        name = hashlib.sha256(str(settings.state_dir).encode()).hexdigest()[:8]
        self.folder = settings.state_dir / "docker"
        self.runtime = Path(f"/run/goldsmith-{name}")  # short: a socket's path holds 107 bytes at most (unix(7))
        self.bridge = f"{BRIDGE}{name}"
        self.socket = self.runtime / "docker.sock"
        self.host = f"unix://{self.socket}"
        # In /run it is found again even if the state was deleted.
        self.daemon = Daemon("dockerd", self.runtime, self.folder, NETWORK)
        self.data = self.folder / "data"
        self.pool_file = self.folder / "addresses"
        self.pid_file = self.runtime / "docker.pid"

    def ensure(self) -> str:
        """Start the engine unless it runs; its DOCKER_HOST. Raises OutsideError where it may not or cannot."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with only_one(self.folder / "lock", "starting the private Docker Engine", wait_seconds=START_SECONDS):
            if self.daemon.pid() is None or not self.data.exists():
                self._start()
            elif not self._answers_within(START_SECONDS):  # restarting it would close the ports of its containers
                silent = f"the private Docker Engine does not answer at {self.host}"
                raise OutsideError(silent, hint=f"see {self.daemon.log}")
            self.close_socket()
        return self.host

    def close_socket(self) -> None:
        """Keep other users out: dockerd makes its socket 0660, and whoever started it may have been killed then."""
        self.socket.chmod(0o600)

    def answers(self) -> bool:
        """Whether the engine takes requests; one that hangs does not."""
        asked = ["docker", "--host", self.host, "version"]
        try:
            return run(asked, passes=ENGINE, ok=range(256), timeout=ANSWER_SECONDS).status == 0
        except LateError:
            return False

    def _answers_within(self, seconds: float) -> bool:
        """The same, within this time: a dockerd that was killed is starting again."""
        deadline = time.monotonic() + seconds
        while not self.answers():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def stop(self) -> None:
        """End the containers, stop the engine, and take away its bridge, rules and socket. Its images stay."""
        if self.daemon.pid() and self.answers():
            asked = ["docker", "--host", self.host]
            if running := run([*asked, "ps", "--quiet"], ok=range(256)).stdout.split():
                run([*asked, "stop", "--time", str(STOP_SECONDS), *running], ok=range(256))
        self.daemon.stop()
        self._kill_containers()
        shutil.rmtree(self.runtime, ignore_errors=True)
        links = _links()
        for pool in self._pools(links):
            self._disconnect(pool, links)

    def bridges(self) -> list[str]:
        """The host's links that are the engine's: its own bridge, and those of networks that people made on it."""
        links = _links()
        return [link["ifname"] for pool in self._pools(links) for link in links if _within(link, pool)]

    def _pools(self, links: list[dict[str, Any]]) -> set[IPv4Network]:
        """The pools that are the engine's. Of a stopped one, another engine may have taken its pool since."""
        others = networks([link for link in links if link["ifname"] != self.bridge and _of_engine(link)])
        kept = [pool for pool in self._kept_pool() if not any(pool.overlaps(network) for network in others)]
        return {*kept, *(pool_of(net) for net in networks(links, self.bridge))}

    def _start(self) -> None:
        if os.geteuid() != 0:
            lack = "no Docker Engine with the containerd image store, and only root can start a private one"
            raise OutsideError(lack, hint="run this as root, or set docker.build_host in goldsmith.toml")
        if which("dockerd") is None:
            raise OutsideError("dockerd is not installed", hint="./goldsmith setup installs it")
        say(f"starting a private Docker Engine: data in {self.folder}, socket in {self.runtime}")
        if self._crashed():  # its shims still hold containers: what they need stays, and dockerd takes them over
            (pool,) = self._kept_pool()
            self.pid_file.unlink(missing_ok=True)
        else:
            self.stop()
            with only_one(TAKING, "taking addresses for a private Docker Engine", wait_seconds=START_SECONDS):
                pool = self._pool()
                self._connect(pool)
            self.runtime.mkdir(mode=0o700, parents=True)
        config = self.folder / "daemon.json"
        filesystem = run(["stat", "--file-system", "--format", "%T", str(self.folder)]).stdout.strip()
        config.write_text(json.dumps(daemon_config(pool, filesystem), indent=2) + "\n")
        self.daemon.start(self._argv(config), ready=self.answers, within=START_SECONDS)

    def _crashed(self) -> bool:
        """Whether dockerd died without stopping: its data, run directory and bridge are all still there."""
        here = self.data.exists() and (self.runtime / "exec").exists() and self.pool_file.exists()
        return here and self.daemon.pid() is None and any(link["ifname"] == self.bridge for link in _links())

    def _argv(self, config: Path) -> list[str]:
        """The command of dockerd, in the mount namespace of containers that a dead one left, else in a new one."""
        shim = next(self._shims(), None)
        new = ["unshare", "--mount", "--propagation", "slave"]
        begins = ["nsenter", f"--mount=/proc/{shim}/ns/mnt"] if shim else new
        return [
            *(*begins, str(Path(__file__).with_name("private-engine.sh"))),
            *("--config-file", str(config), "--host", self.host, "--pidfile", str(self.pid_file)),
            *("--data-root", str(self.data), "--exec-root", str(self.runtime / "exec")),
            *("--bridge", self.bridge),
        ]

    def _shims(self) -> Iterator[int]:
        """The processes that hold the engine's containers, and outlive dockerd and containerd."""
        address = f"\0{self.runtime}/exec/"
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (folder / "cmdline").read_text(errors="replace")
                if Path(command.partition("\0")[0]).name.startswith("containerd-shim") and address in command:
                    yield int(folder.name)

    def _kill_containers(self) -> None:
        """Kill what dockerd left, each container before its shim: nobody else would end it."""
        for shim in self._shims():
            for pid in reversed(_descendants(shim)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + STOP_SECONDS
        while any(self._shims()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def _connect(self, pool: IPv4Network) -> None:
        """Give the engine its bridge, with the pool's first network, and let the pool's addresses be forwarded."""
        network = next(pool.subnets(new_prefix=24))
        run(["ip", "link", "add", "name", self.bridge, "type", "bridge"])
        run(["ip", "address", "add", f"{network[1]}/{network.prefixlen}", "dev", self.bridge])
        run(["ip", "link", "set", self.bridge, "up"])
        for rule in rules(pool):
            run(["iptables", "-w", *rule], hint="the kernel or this container lacks iptables (nat, filter)")

    def _pool(self) -> IPv4Network:
        """The engine's addresses: free when first chosen, then kept, because networks that people made lie in it."""
        pool = free_pool([*self._kept_pool(), *POOLS], _taken_networks())
        self.pool_file.write_text(f"{pool}\n")
        return pool

    def _kept_pool(self) -> list[IPv4Network]:
        return [IPv4Network(self.pool_file.read_text().strip())] if self.pool_file.exists() else []

    def _disconnect(self, pool: IPv4Network, links: list[dict[str, Any]]) -> None:
        """Take away the rules of the pool and every bridge with an address of it: ours and those of user networks.

        A rule may stand there more than once: an engine of this pool that was killed took none away.
        """
        for rule in rules(pool):
            without = ["iptables", "-w", *("-D" if part == "-I" else part for part in rule)]
            while run(without, ok=range(256)).status == 0:
                pass
        for link in links:
            if _within(link, pool):
                run(["ip", "link", "delete", link["ifname"]], ok=range(256))


def rules(pool: IPv4Network) -> list[list[str]]:
    """The iptables rules for an engine that manages none: its addresses may talk among themselves and go out."""
    source, target = ["-s", str(pool)], ["-d", str(pool)]
    answers = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
    return [
        ["-I", "FORWARD", *source, "-j", "ACCEPT"],
        ["-I", "FORWARD", *target, *answers, "-j", "ACCEPT"],
        ["-t", "nat", "-I", "POSTROUTING", *source, "!", "-d", str(pool), "-j", "MASQUERADE"],
    ]


def daemon_config(pool: IPv4Network, filesystem: str) -> dict[str, object]:
    """Dockerd's configuration. Overlay mounts cannot stand on an overlay: there the slow, plain snapshotter serves."""
    second_half = list(pool.subnets(prefixlen_diff=1))[1]
    config: dict[str, object] = {
        "features": {"containerd-snapshotter": True},
        "live-restore": True,
        "iptables": False,
        "ip6tables": False,
        "group": "root",  # a host's docker group may use the host's engine, not this one
        "default-address-pools": [{"base": str(second_half), "size": 24}],
    }
    return config | ({"storage-driver": "native"} if filesystem.startswith(("overlay", "fuse")) else {})


def free_pool(pools: Iterable[IPv4Network], taken: Sequence[IPv4Network]) -> IPv4Network:
    """The first of `pools` that overlaps with no network of this host. Raises OutsideError when all do."""
    for pool in pools:
        if not any(pool.overlaps(network) for network in taken):
            return pool
    hint = "set docker.build_host and docker.host in goldsmith.toml to an engine of your own"
    tried = ", ".join(map(str, POOLS))
    raise OutsideError("no free address range for a private Docker Engine", evidence=tried, hint=hint)


def pool_of(network: IPv4Network) -> IPv4Network:
    """The pool that a bridge's network is the beginning of."""
    return network.supernet(new_prefix=POOL_PREFIX)


def networks(links: list[dict[str, Any]], name: str = "") -> list[IPv4Network]:
    """The networks in the output of `ip -j address`: of all links, or of one."""
    infos = [info for link in links if link["ifname"] == (name or link["ifname"]) for info in link.get("addr_info", [])]
    return [IPv4Network(f"{info['local']}/{info['prefixlen']}", strict=False) for info in infos]


def _descendants(pid: int) -> list[int]:
    """The process, then all that it started."""
    children = list[str]()
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):
            children += (task / "children").read_text().split()
    return [pid, *(started for child in children for started in _descendants(int(child)))]


def _of_engine(link: dict[str, Any]) -> bool:
    """Whether a link is the bridge of a private engine."""
    return str(link["ifname"]).startswith(BRIDGE)


def _within(link: dict[str, Any], pool: IPv4Network) -> bool:
    return any(network.subnet_of(pool) for network in networks([link]))


def _taken_networks() -> list[IPv4Network]:
    """What addresses and routes of this host use. The default route, which covers everything, does not count."""
    routes = json.loads(run(["ip", "-j", "-4", "route"]).stdout or "[]")
    return networks(_links()) + [IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]


def _links() -> list[dict[str, Any]]:
    links: list[dict[str, Any]] = json.loads(run(["ip", "-j", "-4", "address"]).stdout or "[]")
    return links
