"""Build jobs for tests: a definition from its TOML, packages from an archive, nothing hardened unless asked for."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hardening.foundation.content import parse
from hardening.render import Overlay
from images.artifact import Package
from images.build import BuildJob, Built
from images.model import Bootstrap, Definition
from images.packages.index import PackageIndex
from images.store.oci import Store

NOTHING = Overlay((), (), ())


def definition(text: str, name: str = "example", **more: Any) -> Definition:
    """A definition from what stands in its file, with the fields every one needs."""
    common = {"title": "An example", "owner": "tests", "kind": "container", "profile": "none"}
    return parse({**common, **tomllib.loads(text), **more}, Definition, "image.toml", name=name)


def job(
    index: PackageIndex, store: Store, wanted: Definition, folder: Path, work: Path, *,
    base: Built | None = None, bootstrap: Bootstrap | None = None, overlay: Overlay = NOTHING, docker_host: str = "",
    inherited: tuple[Package, ...] = (), image: str = "",
) -> BuildJob:  # fmt: skip
    """The job that the flow would make of a definition."""
    distribution = wanted.base.bootstrap or bootstrap or Bootstrap(family="debian", suite="trixie")
    packages = index.resolve(distribution, wanted.packages, base.packages if base else inherited, image)
    work.mkdir(parents=True)
    return BuildJob(
        name=wanted.name,
        definition=wanted,
        definition_folder=folder,
        platform="linux/amd64",
        overlay=overlay,
        packages=packages,
        debs=index.download(distribution, packages),
        stanzas=index.stanzas(packages),
        sources=index.sources(distribution),
        parent=base.digest if base else None,
        upstream=None,
        work=work,
        store=store,
        docker_host=docker_host,
    )
