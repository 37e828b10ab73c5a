"""Takes kernel, initrd and command line out of a disk's unified kernel image. Edge: reads the disk, mounts nothing."""

from __future__ import annotations

from pathlib import Path

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run
from images.boot import unified
from images.boot.qemu import Direct


def direct(disk: Path, work: Path) -> Direct:
    """What boots the raw `disk` without firmware: first without the initrd, with it where the kernel needs one.

    The files are written to `work`. Raises OutsideError where the disk holds no unified kernel image.
    """
    work.mkdir()
    found = unified.partitions(run(["sfdisk", "--json", str(disk)]).stdout)
    image = work / "unified.efi"
    where = f"{disk}@@{found.esp_offset}"
    run(["mcopy", "-n", "-i", where, f"::{unified.EFI_PATH}", str(image)], env={"MTOOLS_SKIP_CHECK": "1"})
    with image.open("rb") as file:
        sections = unified.sections(file.read(unified.HEADERS_BYTES))
    kernel, initrd, words = (_section(image, sections, name, work) for name in (".linux", ".initrd", ".cmdline"))
    image.unlink()
    bare, full = (unified.command_line(words.read_text(), found.root_uuid, initrd=with_it) for with_it in (False, True))
    return Direct(kernel, bare, spare=Direct(kernel, full, initrd))


def _section(image: Path, sections: dict[str, tuple[int, int]], name: str, work: Path) -> Path:
    """One section of the image, as a file."""
    if name not in sections:
        raise OutsideError(f"{unified.EFI_PATH} has no section {name}: it is no unified kernel image")
    offset, size = sections[name]
    part = work / name.removeprefix(".")
    with image.open("rb") as source, part.open("wb") as target:
        source.seek(offset)
        target.write(source.read(size))
    return part
