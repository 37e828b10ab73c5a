"""What tests of publication share: a real registry on loopback, a store with a tiny image, and what was said of it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hardening.findings import CheckResult, Finding, FindingKind, Outcome, ScanReport, Verdict
from hardening.foundation.settings import Settings
from hardening.model import Enforcement, Kind, Severity
from images.artifact import Artifact, Descriptor, Package, Release
from images.ledger import Ledger
from images.model import Definition
from images.registry.client import RegistryClient
from images.registry.release_store import RegistryStore
from images.release.publish import release
from images.scan.flow import ScanResult
from images.scan.judge import Judgement
from images.store.oci import LAYER, Store
from images.trust.keys import make
from tests.support.loop import until

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)
Take = Callable[..., Release]
Begin = Callable[..., tuple[RegistryStore, tuple[Release, ...]]]
CONFIG = """version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}", secret: test{tls}}}{more}
"""
FINDING = Finding(
    FindingKind.VULNERABILITY, "CVE-1", "openssl", "3.5", "", Severity.LOW, (("trivy", Severity.LOW),)
)  # fmt: skip
REPORT = ScanReport("trivy", FindingKind.VULNERABILITY, Outcome.PASS, 90, NOW, "sample", "", (FINDING,))
CHECK = CheckResult("no-setuid", "No setuid", Severity.HIGH, Enforcement.ENFORCE, Outcome.PASS, "none")
SBOM = b'{"bomFormat":"CycloneDX","components":[{"purl":"pkg:deb/debian/openssl@3.5"}]}'
SPDX = b'{"spdxVersion":"SPDX-2.3","packages":[{"name":"openssl"}]}'
PACKAGES = (Package("openssl", "3.5", "amd64", "ab"), Package("tzdata", "1", "all", "cd"))


@contextmanager
def running_registry(folder: Path, *, tls: str = "", more: str = "", port: int = 0) -> Iterator[str]:
    """A registry that stores in `folder`, on a free port, or on that of an earlier one; its address."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        port = probe.getsockname()[1]
    config = folder / "config.yml"
    config.write_text(CONFIG.format(root=folder / "data", port=port, tls=tls, more=more))
    own = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}  # it reads them itself
    own["GOGC"] = "400"  # its collector of garbage took a third of its time
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log, env=own)
    try:
        until(lambda: _answers(server, port), "the registry")
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def settings_in(folder: Path, **more: Any) -> Settings:
    """Settings whose state lies in `folder`, and that give up soon where `more` does not say otherwise."""
    return Settings(state=folder, **{"retry_for": timedelta(seconds=1)} | more)


def publisher(address: str, folder: Path, now: datetime = NOW, keys_of: Path | None = None) -> RegistryStore:
    """The releases in a registry, with a ledger and a store in `folder`; signed by the keys of another one's folder."""
    settings = settings_in(folder)
    if keys_of and keys_of != folder:
        shutil.copytree(make(settings_in(keys_of), now.date()).parent, folder / "keys")
    return RegistryStore(
        registry=RegistryClient(address, settings, own=True),
        ledger=Ledger.open(settings.database_url),
        store=Store(folder / "store"),
        now=now,
        actor="ann",
        names=("web",),
    )


class SharedRegistry:
    """A registry at one address for many tests, each of which begins with it empty, or after steps that others took.

    What stands after a row of steps is made once, really, and then copied: registry, ledger, store and keys are files.
    """

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.address, self._data = folder, address, folder / "data/docker"
        self._kept: dict[tuple[Any, ...], tuple[Path, tuple[Release, ...]]] = {}

    def clear(self) -> None:
        """Empty the registry."""
        shutil.rmtree(self._data, ignore_errors=True)

    def after(self, state: Path, take: Take, *steps: tuple[Any, ...]) -> tuple[RegistryStore, tuple[Release, ...]]:
        """A publisher with this state directory that has taken these steps, and what each of them made."""
        if not steps:
            self.clear()
            return publisher(self.address, state), ()
        if (take, steps) not in self._kept:
            kept = Path(mkdtemp(dir=self.folder))
            to, made = self.after(kept / "state", take, *steps[:-1])
            made = (*made, take(to, *steps[-1]))
            to.ledger.close()
            shutil.copytree(self._data, kept / "data")
            self._kept[take, steps] = kept, made
        kept, made = self._kept[take, steps]
        shutil.copytree(kept / "state", state, dirs_exist_ok=True)
        self.clear()
        shutil.copytree(kept / "data", self._data)
        return publisher(self.address, state), made


def definition(name: str = "web", **more: Any) -> Definition:
    """A definition; 30 days of life."""
    given: dict[str, Any] = {"base": {"bootstrap": {"family": "debian", "suite": "trixie"}}} | more
    return Definition(name=name, title=name, owner="ann", kind=Kind.CONTAINER, profile="container-base", **given)


def built(store: Store, name: str = "web", text: str = "one", parent: str = "", tar: bytes = b"") -> Artifact:
    """A tiny image in the store; `text`, which no one can unpack, or `tar` is its only layer, which is not packed."""
    layer = store.put_bytes(tar or text.encode() * 50, LAYER.removesuffix("+zstd"))
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer.digest]}}
    annotations = {"org.opencontainers.image.base.digest": parent} if parent else None
    content: Descriptor = store.write_image(config, [layer], annotations)
    inputs = {"text": text}
    return Artifact(name, "linux/amd64", f"sha256:in-{text}", content.digest, inputs, PACKAGES, NOW, NOW, 50)


def judged(now: datetime = NOW, *, allowed: bool = True) -> Judgement:
    """What checks, scanners and the gate said."""
    verdict = Verdict("web", "default", now, allowed, ())
    return Judgement(verdict, (CHECK,), ScanResult((REPORT,), (FINDING,), SBOM, spdx=SPDX))


def published(to: RegistryStore, text: str = "one", day: int = 0, **more: Any) -> Release:
    """A release of `web` on a day; it lives for 30."""
    return release(at(to, NOW + day * DAY), built(to.store, text=text), definition(), judged(), **more).release


def gate(now: datetime = NOW, **more: Any) -> Callable[[Release], Verdict]:
    """What the gate says today of whatever is promoted: allowed, unless `more` says otherwise."""
    given: dict[str, Any] = {"policy": "default", "judged_at": now, "allowed": True, "reasons": ()} | more
    return lambda release: Verdict(release.name, **given)


def released_and_killed(address: str, folder: Path, call: int, before: bool) -> None:
    """Release what `built` builds and die by kill -9 at this write to the registry, before or after it; for a process
    of its own.
    """
    from hardening.foundation import process

    real, left = process.run, call

    def run(argv: Sequence[str], **more: Any) -> Any:
        nonlocal left
        left -= argv[1] in ("copy", "delete")
        dies = left == 0 and argv[1] in ("copy", "delete")
        if not (dies and before):
            done = real(argv, **more)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    process.run = run
    to = publisher(address, folder)
    release(to, built(to.store), definition(), judged())


def at(to: RegistryStore, now: datetime) -> RegistryStore:
    """The same publisher at another moment."""
    return replace(to, now=now)


def stored(folder: Path, name: str = "web") -> dict[str, int]:
    """What the registry in `folder` really holds of a repository: manifests by digest, and tags."""
    manifests = folder / "data/docker/registry/v2/repositories" / name / "_manifests"
    revisions = [path.parent.name for path in manifests.glob("revisions/sha256/*/link")]
    return {"manifests": len(revisions), "tags": len(list(manifests.glob("tags/*/current/link")))}


def dump(value: Any) -> str:
    """JSON, to search in."""
    return json.dumps(value, default=str)


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    assert server.poll() is None, "the registry has ended"
    with suppress(OSError), closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", "/")
        connection.getresponse().read()
        return True
    return False
