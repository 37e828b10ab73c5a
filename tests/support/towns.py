"""A small town: static images of a signed archive of its own, built, scanned, judged and published for real.

They need no engine and cost seconds, so that whole nights over them can be had in the worlds that tests make.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from hardening.foundation.errors import GoldsmithError
from images import scan
from images.context import Context
from pipelines.contract import NightlyOutput
from pipelines.nightly.night_run import nightly
from tests.support.archive import Archive
from tests.support.catalogs import NOW, Catalog
from tests.support.publishing import running_registry

NEEDS = ("root", "apt-get", "gpg", "dpkg-deb", "docker-registry", "skopeo", "syft")
STATIC = 'bootstrap = { family = "debian", suite = "trixie", variant = "static" }'
RUNS_NOTHING = 'healthcheck = { none_because = "a test runs nothing" }\n'
OS_RELEASE = 'ID=debian\nVERSION_CODENAME=trixie\nVERSION_ID="13"\n'


MATCHER = {name: one for name, one in scan.SCANNERS.items() if name == "matcher"}
"""Whose data we serve. The others cost seconds each, and judge nothing without their own."""


@dataclass
class Town:
    """Two images that have nothing to do with each other, and the nights over them."""

    folder: Path
    catalog: Catalog
    address: str
    nights: int = 0

    @classmethod
    def founded(cls, folder: Path, address: str, *packages: str, tracker: str = "", big: int = 0, **more: Any) -> Town:
        """A town of which nothing is built: an image with each package, and a `big` one of so many megabytes."""
        archive = Archive(folder / "archive")
        archive.add("base-files", files={"/etc/os-release": OS_RELEASE})
        catalog = Catalog(folder / "catalog", archive, registry={"address": address}, **more)
        for name in packages:
            archive.add(name)
            catalog.define(f"with-{name}", STATIC, ["base-files", name], RUNS_NOTHING)
        if big:
            archive.add("whale", files={"/usr/share/whale/noise": "a" * (big << 20)})
            catalog.define("big", STATIC, ["base-files", "whale"], RUNS_NOTHING)
        archive.publish()
        if tracker:
            feeds = catalog.settings.feeds.model_copy(update={"tracker": tracker})
            catalog.settings = catalog.settings.model_copy(update={"feeds": feeds})
        made = cls(folder, catalog, address)
        made.says_of_holes()
        return made

    def says_of_holes(self) -> None:
        """The feeds say what they should, as of the first night."""
        self.catalog.tell({}, ())
        os.utime(self.catalog.data / "tracker.json", (NOW.timestamp(), NOW.timestamp()))

    @contextmanager
    def registry(self) -> Iterator[None]:
        """Let the registry run for the block."""
        with running_registry(self.folder / "registry", port=int(self.address.rpartition(":")[2])):
            yield

    def newer(self, package: str) -> Path:
        """The archive has a newer version of a package, in this file."""
        version = f"{1 + len(list(self.catalog.archive.directory.glob(f'{package}_*')))}.0"
        file = self.catalog.archive.add(package, version)
        self.catalog.archive.publish()
        return file

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
        """A night without faults builds and publishes these, and leaves nothing behind."""
        night, failures = self.night()
        assert night.exit_code == 0, told(failures)
        assert (night.built, night.published, night.resumed) == (built, published, ())
        assert self.left() == []

    def left(self) -> list[str]:
        """What no night may leave in its state."""
        state = self.catalog.settings.state_dir
        return [one.name for place in ("work", "store/partial") for one in (state / place).glob("*")]


def told(failures: list[GoldsmithError]) -> str:
    """What was said of failures."""
    return "\n".join(map(str, failures))


def status(night: NightlyOutput, kind: str = "image") -> dict[str, str]:
    """Name → status of one kind of line."""
    return {line.name: line.status for line in night.lines if line.kind == kind}
