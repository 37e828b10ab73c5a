"""A finished tree as a raw disk that boots by UEFI: GPT, an EFI system partition with one kernel image, ext4 root.

No loop device and no mount is needed, and the same tree gives the same bytes on any day.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hardening.foundation.process import run
from images.disk import room_on
from images.machines import filesystem, kernel

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
Label=root
CopyBlocks={file_system}
GrowFileSystem=yes
"""
HINT = "Debian's packages systemd-repart, dosfstools and mtools make disks; ./goldsmith setup installs them"


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
    with room_on(work):
        stage = _system_partition(kernel.unified_kernel(tree, spec.command_line, work), work / "esp", epoch)
        file_system = work / "root.ext4"
        filesystem.write(tree, file_system, root_bytes(_sizes(tree), spec.minimum_bytes), epoch, work)
        _partition(disk, stage, file_system, work / "repart.d", epoch)
        file_system.unlink()
    return disk


def root_bytes(sizes: Iterable[int], minimum_bytes: int) -> int:
    """The size of a root file system for files of these `sizes` in bytes: a third more, in steps of 256 MiB."""
    needed = sum(-(-size // 4096) * 4096 + 512 for size in sizes) * 4 // 3 + 128 * MIB
    step = 256 * MIB
    return -(-max(needed, minimum_bytes) // step) * step


def _sizes(tree: Path) -> Iterable[int]:
    for folder, _, names in os.walk(tree):
        yield 4096
        yield from (os.lstat(f"{folder}/{name}").st_size for name in names)


def _system_partition(program: Path, stage: Path, epoch: int) -> Path:
    folder = stage / "EFI/BOOT"
    folder.mkdir(parents=True)
    program.rename(folder / "BOOTX64.EFI")
    for path in (folder / "BOOTX64.EFI", folder, folder.parent, stage):
        os.utime(path, (epoch, epoch))
    return stage


def _partition(disk: Path, stage: Path, file_system: Path, definitions: Path, epoch: int) -> None:
    definitions.mkdir()
    program = (stage / "EFI/BOOT/BOOTX64.EFI").stat().st_size
    size = -(-max(64 * MIB, program * 5 // 4) // (32 * MIB)) * 32 * MIB
    (definitions / "10-esp.conf").write_text(ESP.format(stage=stage, size=size))
    (definitions / "20-root.conf").write_text(ROOT.format(file_system=file_system))
    disk.unlink(missing_ok=True)
    argv = [
        *("systemd-repart", "--offline=yes", "--empty=create", "--size=auto", "--sector-size=512", f"--seed={SEED}"),
        *(f"--definitions={definitions}", "--dry-run=no", str(disk)),
    ]
    run(argv, env={"SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC"}, hint=HINT)
