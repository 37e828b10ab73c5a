"""A machine image: packages as a cached tree, the definition's changes as an overlay on it, and a disk of both.

A build runs within `private_mounts`: its tree stays mounted for those who verify and scan it, until that block ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run, which
from images.artifact import Package
from images.build import build_steps
from images.build.build_steps import BuildJob, Built
from images.build.config import stamp
from images.machine import trees
from images.machine.disk import assemble, digests_of
from images.machine.kernel import STUB, SYSTEM_PATH
from images.machine.trees import overlay, unmount
from images.model import Machine
from images.packages import debian
from images.store.files import file_digest, require_free, room_on
from images.store.oci import DISK_BLOCKS, MACHINE_CONFIG

VERSION = "2"  # changes whenever the same tree would become another disk
# What has a say in the bytes of a disk, and how it tells its version; without an option: by the program itself.
TOOLS = {"systemd-repart": "--version", "ukify": "--version", "mkfs.ext4": "-V", "mcopy": "--version", "mkfs.vfat": ""}


def build(job: BuildJob) -> Built:
    """Build a machine's disk, and leave its tree mounted. Needs root, and `private_mounts` around it."""
    epoch = build_steps.epoch_of(job)
    with room_on(job.work):
        require_free(job.work, room_needed(job), job.name)
        below = trees.packages_layer(job, epoch)
    return finish(job, below, _inherited(job), epoch)


def finish(job: BuildJob, below: str, packages_below: Iterable[Package], epoch: int) -> Built:
    """The disk of what the definition changes on the layer `below` of packages, however that came to be."""
    with room_on(job.work):
        layer = build_steps.fresh(job.work / "layer")
        trees.definition_layer(job, below, layer, epoch)
        tree = overlay((layer / "upper", *trees.stack(job.store, below)), job.work / "tree")
        packages = build_steps.verified(job, packages_below, tree)
        words = trees.command_line(tree)
        least = (job.definition.machine or Machine()).minimum_bytes
        disk = assemble(tree, words, build_steps.fresh(job.work / "disk"), epoch, least)
        size_bytes = disk.stat().st_size
        digest = keep_disk(job, disk, words, epoch)
        unmount(tree)
        trees.keep(job.store, trees.key_of(digest), layer, trees.keys(job.store, below))
        overlay(trees.stack(job.store, trees.key_of(digest)), tree)
    return Built(digest, packages, datetime.fromtimestamp(epoch, UTC), tree, size_bytes)


def room_needed(job: BuildJob) -> int:
    """About how many bytes a build takes: a tree, a file system and a disk of what it brings, and of its parent's."""
    entries = (debian.fields(stanza) for stanza in debian.stanzas(job.stanzas))
    brought = sum(1024 * int(entry.get("Installed-Size", 0)) for entry in entries)
    below = int(job.store.config(job.parent)["disk"]["size_bytes"]) if job.parent else 0
    return 3 * brought + 2 * below


def _inherited(job: BuildJob) -> tuple[Package, ...]:
    """The packages of the parent's tree: what is there beside those that this build brings."""
    stacked = trees.stack(job.store, trees.key_of(job.parent)) if job.parent else ()
    return next((found for layer in stacked if (found := build_steps.installed_in(layer))), ())


def require_tools() -> None:
    """Raises OutsideError naming what this host lacks to build a machine."""
    lacking = [name for name in TOOLS if which(name) is None] + ([] if STUB.exists() else [STUB.name])
    if lacking:
        hint = "./goldsmith setup --machines installs it"
        raise OutsideError(f"this machine lacks {', '.join(lacking)}, which machine images need", hint=hint)


@cache
def tools_version() -> str:
    """The versions of what makes disks here, for input digests."""
    told = (f"{name} {_version(name, flag)}" for name, flag in TOOLS.items())
    return ", ".join([VERSION, *told, f"stub {_of(STUB)}"])


def _version(name: str, flag: str) -> str:
    program = which(name)
    if program is None or not flag:
        return _of(program)
    done = run([str(program), flag], ok=range(256), env={"PATH": SYSTEM_PATH})
    found = re.search(r"\d+\.[\w.~+-]+|\d{3} \([^)]+\)", f"{done.stdout}{done.stderr}")
    return found[0] if found else "unknown"


def _of(file: Path | None) -> str:
    return file_digest(file)[:12] if file and file.exists() else "absent"


def keep_disk(job: BuildJob, disk: Path, command_line: str, epoch: int) -> str:
    """Move the raw `disk` into the job's store, with the digests of its blocks and, last, the manifest; its digest."""
    inherited = job.store.config(job.parent)["listens"] if job.parent else []
    machine = job.definition.machine or Machine()
    layer, size_bytes = job.store.put_bytes(digests_of(disk), DISK_BLOCKS), disk.stat().st_size
    place = job.store.own_disk(layer.digest)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    disk.replace(place)
    config = {
        "architecture": job.platform.removeprefix("linux/"),
        "os": "linux",
        "created": stamp(epoch),
        "command_line": command_line,
        "listens": sorted({*inherited, *machine.listens}),
        "disk": {"linear": layer.digest, "size_bytes": size_bytes},
    }
    return build_steps.write_image(job, config, [layer], MACHINE_CONFIG)
