"""A private engine in a network namespace of its own, where it keeps a firewall: the host's stays alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

from hardening.foundation.process import run
from hardening.foundation.settings import Settings
from pipelines.host.private_engine import PrivateEngine


class WalledEngine(PrivateEngine):
    """A private engine that isolates its networks from each other by its own rules."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.space = self.runtime.name

    def _connect(self, pool: IPv4Network) -> None:
        network = next(pool.subnets(new_prefix=24))
        run(["ip", "netns", "add", self.space])
        inside = ["ip", "-n", self.space]
        run([*inside, "link", "set", "lo", "up"])
        run([*inside, "link", "add", "name", self.bridge, "type", "bridge"])
        run([*inside, "address", "add", f"{network[1]}/{network.prefixlen}", "dev", self.bridge])
        run([*inside, "link", "set", self.bridge, "up"])

    def _argv(self, config: Path) -> list[str]:
        said = {**json.loads(config.read_text()), "iptables": True, "ip-forward": True}
        config.write_text(json.dumps(said))
        return ["nsenter", f"--net=/run/netns/{self.space}", *super()._argv(config)]


@contextmanager
def walled_engine(folder: Path) -> Iterator[str]:
    """The address of such an engine, for the block."""
    own = WalledEngine(Settings(state=folder))
    try:
        yield own.ensure()
    finally:
        own.stop()
        run(["ip", "netns", "delete", own.space], ok=range(256))
