"""The unified kernel image: one EFI program of stub, kernel, initrd and command line."""

from __future__ import annotations

import re
from pathlib import Path

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import dies_with_us, run
from images.machine.initrd import repacked
from images.store import layers

STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
# ukify is a Python program: it must meet the system's interpreter, not the one of our virtual environment.
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def unified_kernel(tree: Path, command_line: str, work: Path) -> Path:
    """The unified kernel image of the newest kernel in `tree`, as a file in `work`.

    Raises OutsideError where the tree has no kernel or no initrd, or ukify is absent.
    """
    release = kernel_release(tree)
    initrd = _boot_file(tree, "initrd.img", release)
    try:
        (work / "initrd").write_bytes(repacked(initrd.read_bytes()))
    except ValueError as error:
        raise OutsideError(f"cannot read {initrd}: {error}", hint="set COMPRESS=zstd for initramfs-tools") from None
    (work / "cmdline").write_text(f"{command_line.strip()}\n")
    (work / "os-release").write_text(layers.small_text(tree, tree / "usr/lib/os-release"))
    target = work / "linux.efi"
    argv = [
        *("ukify", "build", f"--stub={STUB}", f"--linux={_boot_file(tree, 'vmlinuz', release)}"),
        *(f"--initrd={work / 'initrd'}", f"--cmdline=@{work / 'cmdline'}", f"--uname={release}"),
        *(f"--os-release=@{work / 'os-release'}", f"--output={target}"),
    ]
    hint = "Debian's packages systemd-ukify and systemd-boot-efi have it"
    run(dies_with_us(argv), env={"PATH": SYSTEM_PATH}, hint=hint)
    return target


def kernel_release(tree: Path) -> str:
    """The release of the newest kernel in /boot of `tree`. Raises OutsideError where there is none."""
    found = [path.name.removeprefix("vmlinuz-") for path in _boot(tree).glob("vmlinuz-*")]
    if not found:
        hint = "add linux-image-cloud-amd64 to the packages of the machine's base"
        raise OutsideError("the tree has no kernel: no /boot/vmlinuz-*", hint=hint)
    return max(found, key=_version)


def _boot(tree: Path) -> Path:
    return layers.inside(tree, "boot/file").parent


def _boot_file(tree: Path, name: str, release: str) -> Path:
    path = _boot(tree) / f"{name}-{release}"
    if path.is_symlink() or not path.is_file():  # a link of the image would lead to a file of this host
        hint = "initramfs-tools makes initrds: is it among the packages?"
        raise OutsideError(f"the tree has no /boot/{path.name}", hint=hint)
    return path


def _version(release: str) -> list[tuple[int, str]]:
    """A key that orders 6.9 before 6.12."""
    return [(int(number), text) for number, text in re.findall(r"(\d+)(\D*)", release)]
