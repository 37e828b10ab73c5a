"""A tree as an ext4 file system, bit for bit the same wherever and whenever it is made. No mount, no loop device."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from hardening.foundation.process import run
from images.store import layers
from images.store.layers import Entry

FOUR_K = 4096
LABEL = "root"
# One file system, one identity: were they different, every checksum in its metadata would be.
UUID, HASH_SEED = "6d2f1c1e-8a52-4c0c-9a1b-0f3c7a9a51d1", "4f1a4d5e-6e0c-4a3b-9a0e-2f8f6f5c1d11"
# What the system fills when it runs: nothing of it belongs into an image.
VOLATILE = ("dev/", "proc/", "run/", "sys/", "tmp/", "var/tmp/")
MADE = "2025-01-01"
HINT = "Debian's packages e2fsprogs and libarchive13t64 have what makes file systems; ./goldsmith setup installs them"


def write(tree: Path, target: Path, size_bytes: int, epoch: int, work: Path) -> None:
    """Write `tree` as an ext4 file system of `size_bytes` to the file `target`. Times after `epoch` become it."""
    archive = work / "root.tar"
    write_archive(entries(tree), archive, epoch)
    target.unlink(missing_ok=True)
    with target.open("wb") as file:
        file.truncate(size_bytes)
    options = f"hash_seed={HASH_SEED},nodiscard,lazy_itable_init=1,root_owner=0:0"
    argv = ["mke2fs", "-q", "-t", "ext4", "-L", LABEL, "-U", UUID, "-E", options, "-d", str(archive), str(target)]
    run(argv, env={"SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8"}, hint=HINT)
    archive.unlink()


def entries(tree: Path) -> Iterator[Entry]:
    """What of `tree` goes into the image."""
    for info, opened in layers.tree_entries(tree):
        if not info.name.startswith(VOLATILE) and not info.name.startswith("boot/initrd.img-"):
            yield info, opened


def write_archive(found: Iterator[Entry], target: Path, epoch: int) -> None:
    """A tar of `found`. Names go as the bytes they are: mke2fs would refuse what its locale cannot spell."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT, copybufsize=1 << 20) as tar:
        for info, opened in found:
            info.mtime = min(int(info.mtime), epoch)
            info.uname = info.gname = ""
            info.pax_headers = {"hdrcharset": "BINARY", **info.pax_headers}
            if opened is None:
                tar.addfile(info)
            else:
                with opened() as content:
                    tar.addfile(info, content)
