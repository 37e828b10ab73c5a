"""A finished disk becomes a machine image: the disk, the digests of its blocks, configuration and manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from images.artifact import Descriptor
from images.build.config import stamp
from images.build.job import BuildJob
from images.machine import blocks
from images.machine.raw import digests_of
from images.model import Machine
from images.store.oci import DISK_BLOCKS, MACHINE_CONFIG


def keep_disk(job: BuildJob, disk: Path, command_line: str, epoch: int) -> dict[str, Any]:
    """Move the raw `disk` into the job's store, with the digests of its blocks; the image's configuration."""
    inherited = job.store.config(job.parent)["listens"] if job.parent else []
    machine = job.definition.machine or Machine()
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


def write_manifest(job: BuildJob, config: dict[str, Any]) -> str:
    """Write the content manifest over the block digests of the disk that `config` names; its digest."""
    linear = config["disk"]["linear"]
    layer = Descriptor(DISK_BLOCKS, linear, job.store.blob(linear).stat().st_size)
    annotations = {"org.opencontainers.image.base.digest": job.parent} if job.parent else None
    return job.store.write_image(config, [layer], annotations, MACHINE_CONFIG).digest
