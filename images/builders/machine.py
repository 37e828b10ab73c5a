"""A machine image: packages as a cached tree, what the definition changes as an overlay on it, and a disk of both.

A build runs within `private_mounts`: its tree stays mounted for those who verify and scan it, until that block ends.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run, which
from images.artifact import Descriptor, Package
from images.builders import steps
from images.builders.config import stamp
from images.builders.job import BuildJob, Built
from images.disk import file_digest, room_on
from images.machines import blocks, layers, trees
from images.machines.disk import DiskSpec, assemble
from images.machines.mounts import overlay, unmount
from images.machines.raw import digests_of
from images.model import Machine
from images.store.oci import DISK_BLOCKS, MACHINE_CONFIG

VERSION = "1"  # changes whenever the same tree would become another disk
STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
# What has a say in the bytes of a disk, and how it tells its version; without an option: by the program itself.
TOOLS = {"systemd-repart": "--version", "ukify": "--version", "mkfs.ext4": "-V", "mcopy": "--version", "mkfs.vfat": ""}


def build(job: BuildJob) -> Built:
    """Build a machine's disk, and leave its tree mounted. Needs root, and `private_mounts` around it."""
    epoch = steps.epoch_of(job)
    with room_on(job.work):
        below = layers.packages_layer(job, epoch)
        layer = steps.fresh(job.work / "layer")
        layers.definition_layer(job, below, layer, epoch)
        tree = overlay((layer / "upper", *trees.stack(job.store, below)), job.work / "tree")
        packages = steps.verified(job, _inherited(job), tree)
        config = _assembled(job, tree, epoch)
        unmount(tree)
        digest = _written(job, config)
        trees.keep(job.store, trees.key_of(digest), layer, trees.keys(job.store, below))
        overlay(trees.stack(job.store, trees.key_of(digest)), tree)
    created = datetime.fromtimestamp(epoch, UTC)
    return Built(digest, packages, created, tree, config, config["disk"]["size_bytes"])


def _inherited(job: BuildJob) -> tuple[Package, ...]:
    """The packages of the parent's tree: what is there beside those that this build brings."""
    stacked = trees.stack(job.store, trees.key_of(job.parent)) if job.parent else ()
    return next((found for layer in stacked if (found := steps.installed_in(layer))), ())


def _assembled(job: BuildJob, tree: Path, epoch: int) -> dict[str, Any]:
    """Make the disk of `tree` and keep it and the digests of its blocks; the image's configuration."""
    inherited = job.store.config(job.parent)["listens"] if job.parent else []
    machine = job.definition.machine or Machine()
    command_line = layers.command_line(tree)
    spec = DiskSpec(command_line, machine.minimum_bytes)
    disk = assemble(tree, spec, steps.fresh(job.work / "disk"), epoch)
    digests = digests_of(disk)
    linear, size_bytes = blocks.linear(digests), disk.stat().st_size
    job.store.put_bytes(digests, DISK_BLOCKS)
    place = job.store.own_disk(linear)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    disk.replace(place)
    return {
        "architecture": job.platform.removeprefix("linux/"),
        "os": "linux",
        "created": stamp(epoch),
        "command_line": command_line,
        "listens": sorted({*inherited, *machine.listens}),
        "disk": {"linear": linear, "size_bytes": size_bytes},
    }


def _written(job: BuildJob, config: dict[str, Any]) -> str:
    """The content manifest over the disk's block digests; its digest."""
    linear = config["disk"]["linear"]
    layer = Descriptor(DISK_BLOCKS, linear, job.store.blob(linear).stat().st_size)
    annotations = {"org.opencontainers.image.base.digest": job.parent} if job.parent else None
    return job.store.write_image(config, [layer], annotations, MACHINE_CONFIG).digest


def require_tools() -> None:
    """Raises OutsideError naming what this host lacks to build a machine."""
    lacking = [name for name in TOOLS if which(name) is None] + ([] if STUB.exists() else [STUB.name])
    if lacking:
        raise OutsideError(
            f"this machine lacks {', '.join(lacking)}, which machine images need",
            hint="./goldsmith setup --machines installs it",
        )


@cache
def tools_version() -> str:
    """The versions of what makes disks here, for input digests."""
    told = (f"{name} {_version(name, flag)}" for name, flag in TOOLS.items())
    return ", ".join([VERSION, *told, f"stub {_of(STUB)}"])


def _version(name: str, flag: str) -> str:
    program = which(name)
    if program is None or not flag:
        return _of(program)
    done = run([str(program), flag], ok=range(256))
    found = re.search(r"\d+\.[\w.~+-]+|\d{3} \([^)]+\)", f"{done.stdout}{done.stderr}")
    return found[0] if found else "unknown"


def _of(file: Path | None) -> str:
    return file_digest(file)[:12] if file and file.exists() else "absent"
