"""Whole nights in a world that fails: registry, mirror, feed, disk. The rest goes on; the next night does what is left.

Nothing is faked: packages of a signed archive become static images, which need no engine; they are scanned, judged and
published to a real registry, on the real workflow engine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import GoldsmithError
from images.context import Context
from pipelines.contract import NightlyOutput
from pipelines.nightly.night_run import nightly
from tests.support.archive import Archive
from tests.support.catalogs import NOW, Catalog
from tests.support.publishing import running_registry, stored

NEEDS = ("root", "apt-get", "gpg", "dpkg-deb", "docker-registry", "skopeo", "syft")
pytestmark = [pytest.mark.slow, pytest.mark.needs(*NEEDS)]

STATIC = 'bootstrap = { family = "debian", suite = "trixie", variant = "static" }'
RUNS_NOTHING = 'healthcheck = { none_because = "a test runs nothing" }\n'
OS_RELEASE = 'ID=debian\nVERSION_CODENAME=trixie\nVERSION_ID="13"\n'


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which a folder is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@dataclass
class Town:
    """Two images that have nothing to do with each other, and the nights over them."""

    folder: Path
    catalog: Catalog
    address: str
    nights: int = 0

    @classmethod
    def founded(cls, folder: Path, address: str, **settings: Any) -> Town:
        """A town, of which nothing is built yet."""
        archive = Archive(folder / "archive")
        archive.add("base-files", files={"/etc/os-release": OS_RELEASE})
        for name in ("ham", "egg"):
            archive.add(name)
        archive.publish()
        catalog = Catalog(folder / "catalog", archive, registry={"address": address}, **settings)
        for name in ("ham", "egg"):
            catalog.define(f"with-{name}", STATIC, ["base-files", name], RUNS_NOTHING)
        return cls(folder, catalog, address)

    def newer(self, package: str, **more: Any) -> None:
        """The archive has a newer version of a package."""
        version = f"{1 + len(list(self.catalog.archive.directory.glob(f'{package}_*')))}.0"
        self.catalog.archive.add(package, version, **more)
        self.catalog.archive.publish()

    @property
    def context(self) -> Context:
        """Of the next night, an hour after the last one."""
        now = NOW + timedelta(hours=self.nights)
        return Context(self.catalog.settings, now, str, lambda: self.address, actor="ann")

    def night(self) -> tuple[NightlyOutput, list[GoldsmithError]]:
        """A night."""
        self.nights += 1
        with closing(self.context.ledger):
            return nightly(self.context)

    def ends_well(self, *, built: tuple[str, ...] = (), published: tuple[str, ...] = ()) -> None:
        """A night without faults, which builds and publishes these; and another one, to which nothing is left."""
        for wanted in ((built, published), ((), ())):
            night, failures = self.night()
            assert (failures, night.exit_code) == ([], 0)
            assert (night.built, night.published) == wanted
        assert not list((self.catalog.settings.state_dir / "work").iterdir())


def status(night: NightlyOutput, kind: str = "image") -> dict[str, str]:
    """Name → status of one kind of line."""
    return {line.name: line.status for line in night.lines if line.kind == kind}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A town whose images are built, and whose registry did not answer in its first night."""
    folder = tmp_path_factory.mktemp("town")
    with running_registry(folder / "registry") as address:
        pass
    with served(folder / "catalog/data") as feeds:
        made = Town.founded(folder, address)
        tracker = made.catalog.settings.feeds.model_copy(update={"tracker": f"{feeds}/tracker.json"})
        made.catalog.settings = made.catalog.settings.model_copy(update={"feeds": tracker})
        yield made


@contextmanager
def registry_of(town: Town) -> Iterator[None]:
    """The registry runs."""
    with running_registry(town.folder / "registry", port=int(town.address.rpartition(":")[2])):
        yield


def test_without_a_registry_all_is_built_and_the_next_night_publishes_it(town: Town) -> None:
    """Exit code 4; what was built and judged is not built again."""
    night, failures = town.night()
    assert night.exit_code == 4, failures
    assert (night.built, night.published) == ((), ())
    assert status(night) == {"with-egg": "failed", "with-ham": "failed"}
    assert any(town.address in str(error) for error in failures)
    with registry_of(town):
        town.ends_well(published=("with-egg", "with-ham"))
        assert stored(town.folder / "registry", "with-ham")["tags"] > 0
