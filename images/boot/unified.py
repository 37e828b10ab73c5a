"""Where the parts of a unified kernel image lie, and the command line for it without firmware or initrd. Pure."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

from hardening.foundation.errors import OutsideError

EFI_PATH = "EFI/BOOT/BOOTX64.EFI"
HEADERS_BYTES = 4096  # a unified kernel has some ten sections of 40 bytes each
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"  # UEFI specification, 5.3.3
ROOT_TYPE = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"  # root for x86-64: Discoverable Partitions Specification
LINUX_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"


@dataclass(frozen=True)
class Partitions:
    """Where a disk's EFI partition begins, in bytes, and the id of its root partition."""

    esp_offset: int
    root_uuid: str


def partitions(table: str) -> Partitions:
    """The partitions in what `sfdisk --json` prints. Raises OutsideError where one is missing."""
    found = json.loads(table)["partitiontable"]
    by_type = {part["type"].upper(): part for part in reversed(found["partitions"])}
    root = by_type.get(ROOT_TYPE) or by_type.get(LINUX_TYPE)
    if ESP_TYPE not in by_type or root is None:
        raise OutsideError("the disk has no EFI partition, or no root partition", evidence=table)
    return Partitions(by_type[ESP_TYPE]["start"] * found.get("sectorsize", 512), root["uuid"])


def sections(headers: bytes) -> dict[str, tuple[int, int]]:
    """Offset and size of each section of a PE image, by its name; `headers` are its first bytes.

    Microsoft's PE format: the PE header's offset stands at 0x3c; behind its 24 bytes and an optional header of the
    size at +20 follow as many section headers as +6 says, 40 bytes each. Raises OutsideError where it is none.
    """
    try:
        (start,) = struct.unpack_from("<I", headers, 0x3C)
        (count,) = struct.unpack_from("<H", headers, start + 6)
        (optional,) = struct.unpack_from("<H", headers, start + 20)
        if headers[:2] != b"MZ" or headers[start : start + 4] != b"PE\0\0":
            raise OutsideError(f"{EFI_PATH} is no PE image")
        table = [struct.unpack_from("<8sIIII", headers, start + 24 + optional + 40 * n) for n in range(count)]
    except struct.error:
        raise OutsideError(f"{EFI_PATH} is no PE image, or its headers are too long") from None
    return {
        name.rstrip(b"\0").decode(errors="replace"): (offset, min(virtual, raw))
        for name, virtual, _, raw, offset in table
    }


def command_line(shipped: str, root_uuid: str, *, initrd: bool) -> str:
    """The shipped command line for a boot without firmware: a panic ends it and, without initrd, root is named by id.

    Names of file systems are an initrd's to resolve; the kernel itself knows ids of partitions.
    """
    words = [word for word in shipped.rstrip("\0").split() if not word.startswith("panic=")]
    if not initrd:
        words = [f"root=PARTUUID={root_uuid}" if word.startswith("root=") else word for word in words]
    return " ".join([*words, "panic=1"])
