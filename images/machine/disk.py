"""A finished tree as a raw disk that boots by UEFI: GPT, an EFI system partition with one kernel image, ext4 root.
Its blocks, read without reading holes, and the same disk as qcow2.

No loop device and no mount is needed, and the same tree gives the same bytes on any day.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hardening.foundation.process import dies_with_us, run, threads
from images.machine import blocks, filesystem, kernel
from images.store.files import room_on

MIB = 1 << 20
HASHERS = 2  # hashing releases the interpreter's lock
SEED = "0d1b62a1-6f0e-4a55-9d3c-6a1f3f0a7f10"
ROOT_NAME = "Linux"  # the partition's, one of those that trivy reads; the file system in it has a label of its own
HINT = "Debian's packages systemd-repart, dosfstools and mtools make disks; ./goldsmith setup --machines installs them"
CONVERT_HINT = "Debian's package qemu-utils has qemu-img; ./goldsmith setup --machines installs it"


def assemble(tree: Path, command_line: str, work: Path, epoch: int, minimum_bytes: int = 0) -> Path:
    """The raw disk `work/disk.raw` of a finished tree; times in it never pass `epoch` (seconds). `work` is ours.

    `command_line` is the kernel's; the root file system has at least `minimum_bytes`.

    Raises OutsideError where a tool is absent, the tree has no kernel, or the disk that holds `work` is full.
    """
    disk = work / "disk.raw"
    with room_on(work), threads(1) as beside:
        program = beside.submit(kernel.unified_kernel, tree, command_line, work)
        contents = filesystem.Contents(tree)
        size = root_bytes(contents.size_bytes, minimum_bytes)
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
    (definitions / "10-esp.conf").write_text(_definition("esp", esp, "Format=vfat", f"CopyFiles={stage}:/"))
    (definitions / "20-root.conf").write_text(_definition("root", size, f"Label={ROOT_NAME}"))
    disk.unlink(missing_ok=True)
    argv = [
        *("systemd-repart", "--offline=yes", "--empty=create", "--size=auto", "--sector-size=512", f"--seed={SEED}"),
        *(f"--definitions={definitions}", "--dry-run=no", "--json=short", str(disk)),
    ]
    done = run(dies_with_us(argv), env={"SOURCE_DATE_EPOCH": str(epoch)}, hint=HINT)
    root = next(part for part in json.loads(done.stdout) if part["label"] == ROOT_NAME)
    return filesystem.FilePlacement(disk, root["offset"], root["raw_size"])


def _definition(kind: str, size: int, *more: str) -> str:
    """A partition of just that size, as systemd-repart reads it (repart.d(5))."""
    return "\n".join(["[Partition]", f"Type={kind}", *more, f"SizeMinBytes={size}", f"SizeMaxBytes={size}", ""])


def digests_of(disk: Path) -> bytes:
    """The SHA-256 of every block of a raw disk, concatenated. Holes cost nothing: their digest is known."""
    with disk.open("rb") as file, ThreadPoolExecutor(HASHERS) as pool:
        descriptor, size = file.fileno(), blocks.BLOCK
        count = -(-os.fstat(descriptor).st_size // size)
        written = list(_written(descriptor, count))
        digests = pool.map(lambda index: blocks.digest_of(os.pread(descriptor, size, index * size)), written)
        found = dict(zip(written, digests, strict=True))
    return b"".join(found.get(index, blocks.ZERO) for index in range(count))


def convert_to_qcow2(disk: Path, target: Path) -> None:
    """Write the raw `disk` as a compressed qcow2 image; whole or not at all. Raises OutsideError."""
    part = target.with_name(f".{target.name}.part")
    options = ["-f", "raw", "-O", "qcow2", "-c", "-m", "1", "-o", "compat=1.1,compression_type=zlib"]
    try:
        with room_on(target.parent):
            run(["qemu-img", "convert", *options, str(disk), str(part)], hint=CONVERT_HINT)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _written(descriptor: int, count: int) -> Iterator[int]:
    """The blocks that are not wholly a hole."""
    position, size = 0, blocks.BLOCK
    while position < count * size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        first, last = max(start, position) // size, -(-end // size)
        yield from range(first, last)
        position = last * size
