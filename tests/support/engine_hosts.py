"""Hosts with a real dockerd for tests: each has accounts, settings, sockets and a network of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import docker

from hardening.foundation.process import NETWORK, Completed, run
from hardening.foundation.settings import ROOT
from pipelines.host import private_engine
from pipelines.host.daemon import Daemon

LISTS = ("passwd", "group", "subuid", "subgid")
# $1 is the host's folder: its lists of accounts, /etc/docker and /run stand in the place of ours, for it alone.
BEGINS = """
folder=$1; shift
ip link set lo up
for list in passwd group subuid subgid; do mount --bind "$folder/etc/$list" "/etc/$list"; done
mkdir -p /etc/docker
mount --bind "$folder/etc/docker" /etc/docker
mount --bind "$folder/run" /run
exec "$@"
"""


class EngineHost:
    """A host that runs dockerd with `settings` as its daemon.json; `accounts` are lines added to its lists, by name.

    Everything of it lies in `folder`, and its mounts and network end with it.
    """

    def __init__(self, settings: str, accounts: dict[str, str], more: Sequence[str] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gold-host-", dir="/run"))  # short: unix(7)
        for name in ("etc/docker", "run"):
            (self.folder / name).mkdir(parents=True)
        for name in LISTS:
            known = Path("/etc", name)
            lines = known.read_text().splitlines() if known.exists() else []
            kept = [line for line in lines if line.partition(":")[0] not in ("docker", "dockremap")]
            (self.folder / "etc" / name).write_text("\n".join([*kept, accounts.get(name, ""), ""]))
        (self.folder / "etc/docker/daemon.json").write_text(settings)
        self.socket = f"unix://{self.folder}/run/docker.sock"
        self.data = Path(tempfile.mkdtemp(prefix="gold-host-data-"))
        self._daemon = Daemon("dockerd", self.folder, passes=NETWORK)
        self._more = tuple(more)

    def __enter__(self) -> EngineHost:
        wrapper = Path(private_engine.__file__).with_name("private-engine.sh")
        argv = [
            *("unshare", "--mount", "--net", "--propagation", "slave", "sh", "-euc", BEGINS, "sh", str(self.folder)),
            *(str(wrapper), "--data-root", str(self.data), *self._more),
        ]
        self._daemon.start(argv, ready=self._answers, within=private_engine.START_SECONDS)
        self.api: Any = docker.APIClient(base_url=self.socket, version="auto")
        return self

    def _answers(self) -> bool:
        return self.inside("docker", "version", ok=range(256)).status == 0

    def __exit__(self, *_: object) -> None:
        for one in self.api.containers(all=True):  # with live-restore they would go on without it
            self.api.remove_container(one["Id"], force=True, v=True)
        self.api.close()
        self._daemon.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)

    def inside(self, *words: str, ok: Sequence[int] = (0,)) -> Completed:
        """Run a command on this host."""
        pid = self._daemon.pid()
        assert pid
        return run(["nsenter", f"--target={pid}", "--mount", "--net", "--", *words], cwd=ROOT, ok=ok)

    def docker(self, *words: str, ok: Sequence[int] = (0,)) -> str:
        """What docker says on this host."""
        return self.inside("docker", *words, ok=ok).stdout.strip()
