"""The command line of QEMU for one boot: the disk as it ships, a network that leads nowhere, and our port. Pure.

Where it boots without firmware: the parts of the unified kernel image on the disk, and the kernel's own command line.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hardening.foundation.errors import OutsideError
from images.boot.guest import PORT

PROGRAM = "qemu-system-x86_64"
FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
FIRMWARE_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
# Without what is of no use here (disks and a bus that clouds do not give, a keyboard, VMware's port): each driver that
# looks for it, and what udev and logind make of it, takes an emulated machine a second or more.
BOARD = "q35,sata=off,smbus=off,i8042=off,vmport=off"
PROBE_PORT, PROBE_STATUS = 0xF4, 33
VIRTIO_DISK = "virtio-blk-pci,drive=disk,bootindex=0"


@dataclass(frozen=True)
class Direct:
    """A kernel that QEMU starts itself, with neither firmware nor boot loader; `spare`: what to try where it fails."""

    kernel: Path
    command_line: str
    initrd: Path | None = None
    spare: Direct | None = None


@dataclass(frozen=True)
class Disk:
    """A disk to boot, and as which machine: `uuid` is what a cloud would give it (SMBIOS), the same at each boot of it.

    What is written goes to `overlay`, a file that is made again where the boot is the machine's `first`; without an
    overlay it is forgotten. `direct`: the kernel to start without firmware. `seed`: an image with answers for
    cloud-init.
    """

    path: Path
    disk_format: str
    uuid: str
    overlay: Path | None = None
    first: bool = True
    direct: Direct | None = None
    seed: Path | None = None


@dataclass(frozen=True)
class VirtualMachine:
    """One machine for one boot. `smbios` are strings of type 11, `files` files by fw_cfg name."""

    disk: Disk
    accelerator: str
    console: Path
    report: Path
    smbios: Sequence[str] = ()
    files: Mapping[str, Path] = field(default_factory=dict)


def command(machine: VirtualMachine) -> list[str]:
    """The argv that boots `machine`: no default devices, no display, no way out, and a reset ends it."""
    return [
        *(PROGRAM, "-machine", BOARD, *_accelerator(machine.accelerator), "-m", "1024"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-uuid", machine.disk.uuid),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-chardev", f"file,id=console,path={_value(machine.console)}", "-serial", "chardev:console"),
        *("-device", "virtio-serial-pci", "-chardev", f"file,id=report,path={_value(machine.report)}"),
        *("-device", f"virtserialport,chardev=report,name={PORT}"),
        *("-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *_disk(machine.disk),
        *_start(machine.disk.direct),
        *(part for text in machine.smbios for part in ("-smbios", f"type=11,value={_value(text)}")),
        *(part for name, file in machine.files.items() for part in ("-fw_cfg", f"name={name},file={_value(file)}")),
        *_seed(machine.disk.seed),
    ]


def probe(accelerator: str, disk: Path) -> list[str]:
    """The argv that lets the firmware start the program of `disk`: it ends with PROBE_STATUS where that works."""
    return [
        *(PROGRAM, "-machine", "q35", *_accelerator(accelerator), "-m", "128", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-no-reboot", "-device", f"isa-debug-exit,iobase={PROBE_PORT},iosize=4"),
        *("-drive", f"if=none,id=disk,file={_value(disk)},format=raw,snapshot=on"),
        *("-device", VIRTIO_DISK),
        *_start(None),
    ]


def probe_program() -> bytes:
    """An EFI program that writes 0x10 to the debug port, which QEMU makes its exit status: 0x10 << 1 | 1, 33.

    The smallest PE32+ image: headers and one section, each of one file block (PE Format, Microsoft).
    """
    block, page, section_flags = 512, 0x1000, 0x60000020  # the section is code: readable and executable
    code = bytes([0xB0, PROBE_STATUS >> 1, 0xE6, PROBE_PORT, 0xF4, 0xEB, 0xFD])  # mov al; out; hlt; jmp to hlt
    stub = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x22)
    optional = struct.pack("<HBBIIIII", 0x20B, 0, 0, block, 0, 0, page, page)
    optional += struct.pack("<QIIHHHHHHIIIIHH", 0, page, block, 0, 0, 0, 0, 0, 0, 0, 2 * page, block, 0, 10, 0)
    optional += struct.pack("<QQQQII", 0, 0, 0, 0, 0, 16) + bytes(128)
    section = struct.pack("<8sIIIIIIHHI", b".text", block, page, block, block, 0, 0, 0, 0, section_flags)
    return (stub + coff + optional + section).ljust(block, b"\0") + code.ljust(block, b"\0")


def _accelerator(name: str) -> list[str]:
    """The accelerator, the kind of processor, and how many of them.

    Emulated there is one: of two, the second was seen to get no timer, so that a good machine hung in its kernel. And
    without svm: clouds give their machines none, and udev would load all of KVM for it.
    """
    if name == "tcg":
        return ["-accel", "tcg", "-cpu", "qemu64,-svm", "-smp", "1"]
    return ["-accel", name, "-cpu", "host", "-smp", "2"]


def _disk(disk: Disk) -> list[str]:
    """The disk; without firmware as NVMe, whose driver cloud kernels have built in, so that no initrd is needed."""
    file, kind, snapshot = (disk.overlay, "qcow2", "off") if disk.overlay else (disk.path, disk.disk_format, "on")
    drive = f"if=none,id=disk,file={_value(file)},format={kind},snapshot={snapshot},cache=unsafe"
    return ["-drive", drive, "-device", "nvme,drive=disk,serial=disk" if disk.direct else VIRTIO_DISK]


def _start(direct: Direct | None) -> list[str]:
    if direct is None:
        code, variables = (f"if=pflash,format=raw,file={path}" for path in (FIRMWARE, FIRMWARE_VARIABLES))
        return ["-drive", f"{code},unit=0,readonly=on", "-drive", f"{variables},unit=1,snapshot=on"]
    initrd = ["-initrd", str(direct.initrd)] if direct.initrd else []
    return ["-kernel", str(direct.kernel), *initrd, "-append", direct.command_line]


def _seed(seed: Path | None) -> list[str]:
    if seed is None:
        return []
    drive = f"if=none,id=seed,file={_value(seed)},format=raw,readonly=on"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=seed"]


def _value(text: object) -> str:
    """A value inside one of QEMU's option lists, where a comma is written twice."""
    return str(text).replace(",", ",,")


EFI_PATH = "EFI/BOOT/BOOTX64.EFI"
HEADERS_BYTES = 4096  # a unified kernel has some ten sections of 40 bytes each
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"  # UEFI specification, 5.3.3
ROOT_TYPE = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"  # root for x86-64: Discoverable Partitions Specification
LINUX_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"


def partitions(table: str) -> tuple[int, str]:
    """Where a disk's EFI partition begins, in bytes, and the id of its root partition.

    `table` is what `sfdisk --json` prints. Raises OutsideError where one is missing.
    """
    found = json.loads(table)["partitiontable"]
    by_type = {part["type"].upper(): part for part in reversed(found["partitions"])}
    root = by_type.get(ROOT_TYPE) or by_type.get(LINUX_TYPE)
    if ESP_TYPE not in by_type or root is None:
        raise OutsideError("the disk has no EFI partition, or no root partition", evidence=table)
    return by_type[ESP_TYPE]["start"] * found.get("sectorsize", 512), root["uuid"]


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
