"""How much of a machine's disk one newer library changes, beside a plain layout of the same trees and the floor.

Both trees are bootstrapped from nothing with the packages of debian-server; the older one has an openssl that is still
in the archive's pool. Needs root.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from measure import ROOT, Report, end, require

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run
from hardening.foundation.settings import load_settings
from images.machine import initrd, kernel, trees
from images.machine.blocks import BLOCK, ZERO, delta, split
from images.machine.disk import HINT, SEED, assemble, digests_of
from images.machine.filesystem import ABSENT, HASH_SEED
from images.model import Bootstrap
from images.packages.aptroot import sources_of

WORDS = "root=LABEL=root rw console=ttyS0"
PACKAGES = ("libssl3t64", "openssl", "openssl-provider-legacy")
OLDER, NEWER = 1_751_328_000, 1_753_920_000  # a month apart: whatever a build touches has another time
MOST = 0.15


@dataclass(frozen=True)
class Difference:
    """How much of a new disk differs from an old one: counts of blocks."""

    changed: int
    became_zero: int
    blocks: int
    with_data: int

    @property
    def of_all(self) -> float:
        """Changed blocks as a share of all blocks, 0 to 1."""
        return self.changed / self.blocks

    @property
    def of_data(self) -> float:
        """Changed blocks as a share of the blocks that hold anything but zeros; may exceed 1 where many became zero."""
        return self.changed / max(1, self.with_data)


def main() -> int:
    """Measure, print, and say by the exit code whether the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--older", default="3.5.1-1", help="the older openssl (default %(default)s)")
    parser.add_argument("--work", type=Path, help="keep the trees here, and use those that are there already")
    given = parser.parse_args()
    require("mmdebstrap", "ukify", "systemd-repart", "mkfs.ext4", "mkfs.vfat", "mcopy", root=True)
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder:
        work = given.work or Path(folder)
        old = tree_of(work / f"with-{given.older}", OLDER, given.older)
        new = tree_of(work / "current", NEWER)
        ours = compared("goldsmith", disks(Path(folder, "ours"), old, new, stable))
        plain = compared("plain", disks(Path(folder, "plain"), old, new, naive))
        floor, newer = floor_bytes(old, new), version_in(new)
    print(f"\nopenssl {given.older} → {newer}; blocks of {BLOCK:,} bytes")
    print(f"{'layout':12}{'changed':>9}{'to zero':>9}{'all':>7}{'with data':>11}{'of all':>9}{'of data':>9}")
    for name, found in (("goldsmith", ours), ("plain", plain)):
        print(f"{name:12}{found.changed:9}{found.became_zero:9}{found.blocks:7}{found.with_data:11}"
              f"{found.of_all:9.1%}{found.of_data:9.1%}")  # fmt: skip
    print(f"{'floor':12}{-(-floor // BLOCK):9}{'':27}{floor / BLOCK / ours.blocks:9.1%}"
          f"{floor / BLOCK / ours.with_data:9.1%}   {floor:,} bytes of files that are not the same")  # fmt: skip
    report = Report()
    report.claim("share of the blocks with data", ours.of_data, MOST)
    report.claim("share of the plain layout's changed blocks", ours.changed / plain.changed, 0.5)
    return int(report.failed)


def tree_of(tree: Path, epoch: int, openssl: str = "") -> Path:
    """A bootstrapped tree, with that openssl instead of the newest."""
    if tree.exists():
        return tree
    tree.parent.mkdir(parents=True, exist_ok=True)
    sources = tree.with_name("debian.sources")
    sources.write_text(sources_of(load_settings(), Bootstrap(family="debian", suite="trixie")))
    part = tree.with_name(f"{tree.name}.part")
    run(
        ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(server_packages())}",
         "--aptopt=APT::Get::allow-downgrades true", "--dpkgopt=force-unsafe-io",
         "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
         "--dpkgopt=path-exclude=/usr/share/locale/*",
         f"--setup-hook=sh {ROOT / 'images/machine/initramfs.sh'} \"$1\"",
         *(f"--customize-hook={hook}" for hook in downgrade(openssl, tree.parent)),
         "trixie", str(part), str(sources)],
        env={"SOURCE_DATE_EPOCH": str(epoch)},
    )  # fmt: skip
    trees.clean(part, epoch)
    part.rename(tree)
    return tree


def server_packages() -> list[str]:
    """What debian-server is made of."""
    with (ROOT / "images/definitions/debian-server/image.toml").open("rb") as file:
        return list(tomllib.load(file)["packages"])


def downgrade(openssl: str, folder: Path) -> Iterator[str]:
    """The hooks that put an older openssl into the tree, and into its initrd as a build from nothing would."""
    if not openssl:
        return
    mirror = re.findall(r"(?m)^URIs: (\S+)", (folder / "debian.sources").read_text())[0].rstrip("/")
    for package in PACKAGES:
        name = f"{package}_{openssl}_amd64.deb"
        try:
            with urllib.request.urlopen(f"{mirror}/pool/main/o/openssl/{name}") as answer:
                (folder / name).write_bytes(answer.read())
        except OSError as error:
            raise OutsideError(f"{mirror} has no {name}: {error}", hint="--older names another version") from None
        yield f'cp "{folder / name}" "$1/tmp/"'
    yield 'chroot "$1" sh -c "dpkg -i /tmp/*.deb && rm /tmp/*.deb && update-initramfs -u -k all"'


def version_in(tree: Path) -> str:
    """The version of openssl in a tree."""
    status = (tree / "var/lib/dpkg/status").read_text()
    return str(re.findall(r"(?ms)^Package: libssl3t64\n.*?^Version: (\S+)", status)[0])


def disks(work: Path, old: Path, new: Path, made: object) -> Iterator[bytes]:
    """The block digests of both trees' disks."""
    for tree, epoch in ((old, OLDER), (new, NEWER)):
        folder = work / tree.name
        folder.mkdir(parents=True)
        start = time.monotonic()
        disk = made(tree, folder, epoch)  # type: ignore[operator]
        print(f"{work.name}: {tree.name}: {time.monotonic() - start:.1f} s", file=sys.stderr)
        yield digests_of(disk)
        disk.unlink()


def compared(name: str, digests: Iterator[bytes]) -> Difference:
    """What differs between two disks. Ends the benchmark where nothing does: then it measured nothing."""
    old, new = digests
    changed, blocks = delta(old, new), split(new)
    zeros = sum(blocks[index] == ZERO for index in changed)
    found = Difference(len(changed), zeros, len(blocks), sum(digest != ZERO for digest in blocks))
    if not found.changed:
        sys.exit(f"{name}: the two disks are the same, so nothing was measured")
    return found


def stable(tree: Path, work: Path, epoch: int) -> Path:
    """The disk as Goldsmith makes it."""
    return assemble(tree, WORDS, work, epoch)


def naive(tree: Path, work: Path, epoch: int) -> Path:
    """The disk as ukify and systemd-repart make it of a directory, reproducible too."""
    release = kernel.kernel_release(tree)
    program, disk, definitions = work / "esp/EFI/BOOT/BOOTX64.EFI", work / "disk.raw", work / "repart.d"
    program.parent.mkdir(parents=True)
    definitions.mkdir()
    run(["ukify", "build", f"--linux={tree}/boot/vmlinuz-{release}", f"--initrd={tree}/boot/initrd.img-{release}",
         f"--cmdline={WORDS}", f"--output={program}"], env={"PATH": kernel.SYSTEM_PATH})  # fmt: skip
    for path in (program, *list(program.parents)[:3]):
        os.utime(path, (epoch, epoch))
    (definitions / "10.conf").write_text(
        f"[Partition]\nType=esp\nFormat=vfat\nCopyFiles={work}/esp:/\nSizeMinBytes=64M\nSizeMaxBytes=64M\n"
    )
    (definitions / "20.conf").write_text(
        f"[Partition]\nType=root\nFormat=ext4\nLabel=root\nCopyFiles={tree}:/\nSizeMinBytes=1G\nSizeMaxBytes=1G\n"
    )
    options = f"-E hash_seed={HASH_SEED},nodiscard,lazy_itable_init=1"
    run(["systemd-repart", "--offline=yes", "--empty=create", "--size=auto", "--sector-size=512", f"--seed={SEED}",
         f"--definitions={definitions}", "--dry-run=no", str(disk)],
        env={"SOURCE_DATE_EPOCH": str(epoch), "SYSTEMD_REPART_MKFS_OPTIONS_EXT4": options, "TZ": "UTC"},
        hint=HINT)  # fmt: skip
    return disk


def floor_bytes(old: Path, new: Path) -> int:
    """The bytes of the new tree's files that the old one has otherwise, and of the initrd's pieces that changed.

    No layout can do with less: whole files, since a library linked anew differs nearly everywhere.
    """
    changed = 0
    for path in new.rglob("*"):
        name = str(path.relative_to(new))
        if path.is_symlink() or not path.is_file() or name.startswith(ABSENT):
            continue
        content, before = path.read_bytes(), old / name
        if not before.is_file() or before.read_bytes() != content:
            changed += len(content)
    pieces = [initrd.repacked((tree / f"boot/initrd.img-{kernel.kernel_release(tree)}").read_bytes())
              for tree in (old, new)]  # fmt: skip
    slots = range(0, len(pieces[1]), 4096)
    return changed + sum(4096 for at in slots if pieces[0][at : at + 4096] != pieces[1][at : at + 4096])


if __name__ == "__main__":
    end(main)
