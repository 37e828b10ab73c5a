"""A finished tree as a raw disk that boots by UEFI: GPT, an EFI system partition with one kernel image, ext4 root.

No loop device and no mount is needed, and the same tree gives the same bytes on any day.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from hardening.foundation.process import dies_with_us, run, threads
from images.machine import filesystem, kernel
from images.store.files import room_on

MIB = 1 << 20
SEED = "0d1b62a1-6f0e-4a55-9d3c-6a1f3f0a7f10"
ESP = """[Partition]
Type=esp
Format=vfat
CopyFiles={stage}:/
SizeMinBytes={size}
SizeMaxBytes={size}
"""
ROOT = """[Partition]
Type=root
Label={name}
SizeMinBytes={size}
SizeMaxBytes={size}
"""
ROOT_NAME = "Linux"  # the partition's, one of those that trivy reads; the file system in it has a label of its own
HINT = "Debian's packages systemd-repart, dosfstools and mtools make disks; ./goldsmith setup --machines installs them"


@dataclass(frozen=True)
class DiskSpec:
    """What a disk is to be, beside its tree: the kernel's command line, and the smallest root file system in bytes."""

    command_line: str
    minimum_bytes: int = 0


def assemble(tree: Path, spec: DiskSpec, work: Path, epoch: int) -> Path:
    """The raw disk `work/disk.raw` of a finished tree; times in it never pass `epoch` (seconds). `work` is ours.

    Raises OutsideError where a tool is absent, the tree has no kernel, or the disk that holds `work` is full.
    """
    disk = work / "disk.raw"
    with room_on(work), threads(1) as beside:
        program = beside.submit(kernel.unified_kernel, tree, spec.command_line, work)
        contents = filesystem.Contents(tree)
        size = root_bytes(contents.size_bytes, spec.minimum_bytes)
        stage = _system_partition(program.result(), work / "esp", epoch)
        root = _partition(disk, stage, size, work / "repart.d", epoch)
        filesystem.write(contents, root, epoch, work)
        run(["fallocate", "--dig-holes", str(disk)])
    return disk


def root_bytes(content_bytes: int, minimum_bytes: int) -> int:
    """The size of a root file system for files that take so many bytes: room for them twice, in steps of 256 MiB."""
    step = 256 * MIB
    return -(-max(2 * content_bytes, minimum_bytes) // step) * step


def _system_partition(program: Path, stage: Path, epoch: int) -> Path:
    """The folder that becomes the EFI system partition."""
    folder = stage / "EFI/BOOT"
    folder.mkdir(parents=True)
    program.rename(folder / "BOOTX64.EFI")
    for path in (folder / "BOOTX64.EFI", folder, folder.parent, stage):
        os.utime(path, (epoch, epoch))
    return stage


def _partition(disk: Path, stage: Path, size: int, definitions: Path, epoch: int) -> filesystem.FilePlacement:
    """Make the disk with its system partition and room for a root of `size` bytes; returns where that lies."""
    definitions.mkdir()
    program = (stage / "EFI/BOOT/BOOTX64.EFI").stat().st_size
    esp = -(-max(64 * MIB, program * 5 // 4) // (32 * MIB)) * 32 * MIB
    (definitions / "10-esp.conf").write_text(ESP.format(stage=stage, size=esp))
    (definitions / "20-root.conf").write_text(ROOT.format(name=ROOT_NAME, size=size))
    disk.unlink(missing_ok=True)
    argv = [
        *("systemd-repart", "--offline=yes", "--empty=create", "--size=auto", "--sector-size=512", f"--seed={SEED}"),
        *(f"--definitions={definitions}", "--dry-run=no", "--json=short", str(disk)),
    ]
    done = run(dies_with_us(argv), env={"SOURCE_DATE_EPOCH": str(epoch)}, hint=HINT)
    root = next(part for part in json.loads(done.stdout) if part["label"] == ROOT_NAME)
    return filesystem.FilePlacement(disk, root["offset"], root["raw_size"])
