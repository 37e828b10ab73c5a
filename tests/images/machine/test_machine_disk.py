"""A tree as a bootable disk: sound for the tools that know such disks, the same each time, and still where it was."""

from __future__ import annotations

import json
import os
import re
import stat
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run
from images.build import machine
from images.machine import blocks, disk, filesystem, kernel, layout
from images.machine.disk import assemble
from images.machine.layout import Item, Padding

EPOCH = 1_700_000_000
MIB = 1 << 20
METADATA = 8  # blocks: superblock and group descriptors with their copies, bitmaps, inodes, directories
WORDS = "root=LABEL=root rw console=ttyS0"
RELEASE = "6.12.9-cloud-amd64"
TOOLS = ("root", "systemd-repart", "ukify", "mke2fs", "mcopy", "mkfs.vfat", "busybox")
pytestmark = pytest.mark.needs(*TOOLS)


def plant(tree: Path, library: bytes = b"l" * 3_000_000) -> Path:
    """A small tree with a kernel, an initrd, three packages, and one of everything that a file system carries."""
    write(tree / "usr/lib/os-release", b'ID=debian\nPRETTY_NAME="Debian"\n')
    write(tree / f"boot/vmlinuz-{RELEASE}", kernel.STUB.read_bytes())
    initrd(tree / f"boot/initrd.img-{RELEASE}")
    for name, content in (("libssl", library), ("perl", b"p" * 2_000_000), ("zlib", b"z" * 500_000)):
        write(tree / f"usr/lib/{name}/{name}.so", content)
        write(tree / f"var/lib/dpkg/info/{name}.list", f"/usr/lib/{name}\n/usr/lib/{name}/{name}.so\n".encode())
    status = b"".join(b"Package: %s\nStatus: install ok installed\n\n" % name for name in (b"libssl", b"perl", b"zlib"))
    write(tree / "var/lib/dpkg/status", status)
    for number in range(300):  # a directory of several blocks
        write(tree / f"etc/many/a-file-with-a-longish-name-{number:04d}", b"%d" % number)
    write(tree / "etc/ünïcode", b"u")
    write(tree / "etc/holey", b"a" * 4096 + bytes(40_960) + b"b")
    write(tree / "etc/manyholes", (b"x" * 4096 + bytes(4096)) * 9)
    write(tree / "etc/zeros", bytes(50_000))
    write(tree / "etc/secret", b"s")
    (tree / "etc/secret").chmod(0o4640)
    os.chown(tree / "etc/secret", 12, 34)
    os.link(tree / "etc/secret", tree / "etc/secret-twin")
    (tree / "etc/long").symlink_to("x" * 80)
    (tree / "etc/short").symlink_to("ünïcode")
    write(tree / "usr/bin/ping", b"ping")
    os.setxattr(tree / "usr/bin/ping", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    write(tree / "tmp/left", b"behind")
    write(tree / "run/left", b"behind")
    os.utime(tree / "etc/holey", (EPOCH - 99, EPOCH - 99))
    return tree


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def initrd(target: Path) -> None:
    folder = target.parent.parent.parent / f"{target.parent.parent.name}-initrd"
    write(folder / "init", b"#!/bin/sh\n")
    run(["sh", "-c", f"busybox cpio -o -H newc >{target}"], cwd=folder, stdin="init\n")


def made(tree: Path, work: Path, words: str = WORDS, least: int = 0) -> Path:
    work.mkdir()
    return assemble(tree, words, work, EPOCH, least)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machine")


@pytest.fixture(scope="module")
def built(folder: Path) -> Path:
    """The disk of the small tree. Not to be changed."""
    return made(plant(folder / "tree"), folder / "work")


@pytest.fixture(scope="module")
def root(built: Path, folder: Path) -> Path:
    """Its second partition, cut out of it. Not to be changed."""
    target, part = folder / "root.ext4", partitions(built)[1]
    argv = [f"if={built}", f"of={target}", "bs=1M", f"skip={part['start'] // 2048}", f"count={part['size'] // 2048}"]
    run(["dd", *argv, "conv=sparse"])
    return target


def partitions(path: Path) -> list[dict[str, Any]]:
    """What sfdisk reads, in sectors of 512 bytes."""
    table = json.loads(run(["sfdisk", "--json", str(path)]).stdout)["partitiontable"]
    assert (table["label"], table["sectorsize"]) == ("gpt", 512)
    parts: list[dict[str, Any]] = table["partitions"]
    return parts


def debugfs(file_system: Path, request: str) -> str:
    return run(["debugfs", "-R", request, str(file_system)]).stdout


def places(file_system: Path, path: str) -> tuple[int, ...]:
    """The inode and the blocks of a file."""
    (inode,) = re.findall(r"^Inode: (\d+)", debugfs(file_system, f"stat {path}"), re.MULTILINE)
    return int(inode), *map(int, debugfs(file_system, f"blocks {path}").split())


@pytest.mark.needs("sgdisk", "sfdisk")
def test_the_partition_table_is_sound_and_names_what_firmware_looks_for(built: Path) -> None:
    """sgdisk finds no problem, and sfdisk an EFI system partition and an x86-64 root, both at whole megabytes."""
    assert "No problems found" in run(["sgdisk", "--verify", str(built)]).stdout
    esp, root = partitions(built)
    assert esp["type"] == "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
    assert root["type"] == "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
    assert [part["start"] % 2048 for part in (esp, root)] == [0, 0]


@pytest.mark.needs("mdir")
def test_the_system_partition_holds_the_kernel_where_firmware_looks(built: Path, folder: Path) -> None:
    """mtools reads the FAT and ukify the program: kernel, initrd, command line and release are those of the tree."""
    copy = folder / "BOOTX64.EFI"
    run(["mcopy", "-n", "-i", f"{built}@@{MIB}", "::/EFI/BOOT/BOOTX64.EFI", str(copy)])
    assert "2023-11-14" in run(["mdir", "-i", f"{built}@@{MIB}", "::/EFI/BOOT"], env={"TZ": "UTC"}).stdout
    shown = run(["ukify", "--json=short", "inspect", str(copy)], env={"PATH": kernel.SYSTEM_PATH}).stdout
    found = json.loads(shown)
    assert found[".cmdline"]["text"].strip("\0\n") == WORDS
    assert found[".uname"]["text"].strip("\0\n") == RELEASE
    assert found[".linux"]["size"] == kernel.STUB.stat().st_size
    assert found[".initrd"]["size"] % 4096 == 0


@pytest.mark.needs("e2fsck")
def test_the_root_is_a_clean_file_system_with_nothing_left_over(root: Path) -> None:
    """e2fsck has nothing to correct; the padding is gone, as files and as blocks."""
    run(["e2fsck", "-fn", str(root)])
    listed = [line.split("/") for line in debugfs(root, "ls -p /lost+found").splitlines() if line]
    assert [entry[5] for entry in listed if entry[1] != "0"] == [".", ".."]
    data = root.read_bytes()
    free = re.findall(r"Free blocks: (.+)", run(["dumpe2fs", str(root)]).stdout)
    ranges = [one.split("-") for line in free for one in line.split(", ")]
    assert ranges
    assert not any(data[int(one[0]) * 4096 : (int(one[-1]) + 1) * 4096].strip(b"\0") for one in ranges)


def test_every_file_is_there_as_it_was(root: Path, folder: Path) -> None:
    """Contents, links, owners, modes, capabilities and times, for debugfs; later times are the epoch."""
    out = folder / "out"
    out.mkdir()
    debugfs(root, f"rdump / {out}")
    left_out = {"tmp/left", "run/left", f"boot/initrd.img-{RELEASE}"}
    tree = folder / "tree"
    wanted = {str(path.relative_to(tree)) for path in tree.rglob("*")} - left_out
    assert {str(path.relative_to(out)) for path in out.rglob("*")} - {"lost+found"} == wanted
    for name in sorted(wanted):
        here, there = (tree / name).lstat(), (out / name).lstat()
        assert (here.st_mode, here.st_uid, here.st_gid) == (there.st_mode, there.st_uid, there.st_gid), name
        if stat.S_ISREG(here.st_mode):
            assert (tree / name).read_bytes() == (out / name).read_bytes(), name
        if stat.S_ISLNK(here.st_mode):
            assert (tree / name).readlink() == (out / name).readlink()
    assert places(root, "/etc/secret") == places(root, "/etc/secret-twin")
    assert "security.capability (20)" in debugfs(root, "ea_list /usr/bin/ping")
    assert f"mtime: 0x{EPOCH - 99:08x}" in debugfs(root, "stat /etc/holey")
    assert f"mtime: 0x{EPOCH:08x}" in debugfs(root, "stat /etc/zeros")


def test_the_same_tree_gives_the_same_disk(built: Path, folder: Path, tmp_path: Path) -> None:
    """Later, elsewhere, in another time zone, from a tree whose directories are read in another order."""
    run(["cp", "-a", str(folder / "tree"), str(tmp_path / "tree")])
    for name in ("etc/many", "etc"):
        (tmp_path / "tree" / name).rename(tmp_path / "aside")
        (tmp_path / "tree" / name).mkdir()
        for path in sorted((tmp_path / "aside").iterdir(), reverse=True):
            path.rename(tmp_path / "tree" / name / path.name)
        (tmp_path / "aside").rmdir()
    time.sleep(2.1)  # FAT counts in steps of two seconds
    os.environ["TZ"] = "Asia/Tokyo"
    try:
        again = made(tmp_path / "tree", tmp_path / "work")
    finally:
        del os.environ["TZ"]
    assert disk.digests_of(again) == disk.digests_of(built)


def test_another_command_line_is_another_disk(built: Path, folder: Path, tmp_path: Path) -> None:
    """And differs in the system partition alone."""
    other = made(folder / "tree", tmp_path / "work", f"{WORDS} quiet")
    changed = blocks.delta(disk.digests_of(built), disk.digests_of(other))
    first = partitions(built)[1]["start"] * 512 // blocks.BLOCK
    assert changed
    assert max(changed) < first


def test_a_larger_library_moves_nothing_of_other_packages(root: Path, folder: Path, tmp_path: Path) -> None:
    """The files of other packages, and of none, keep inode and blocks, so that few blocks of the disk change."""
    grown = made(plant(tmp_path / "tree", library=b"L" * 3_050_000), tmp_path / "work")
    before = disk.digests_of(folder / "work/disk.raw")
    changed = blocks.delta(before, disk.digests_of(grown))
    part = partitions(grown)[1]
    run(["dd", f"if={grown}", f"of={tmp_path / 'root'}", "bs=1M", f"skip={part['start'] // 2048}", "conv=sparse"])
    names = ("/usr/lib/perl/perl.so", "/usr/lib/zlib/zlib.so", "/etc/many/a-file-with-a-longish-name-0299")
    assert [places(root, name) for name in names] == [places(tmp_path / "root", name) for name in names]
    assert places(root, "/usr/lib/libssl/libssl.so") != places(tmp_path / "root", "/usr/lib/libssl/libssl.so")
    assert len(changed) <= 3_050_000 // blocks.BLOCK + 2 + METADATA


def test_sections_lie_where_the_layout_says(root: Path, folder: Path) -> None:
    """The plan's count of blocks is what mke2fs takes: holes, long links and directories that grow are counted."""
    order = filesystem.Contents(folder / "tree").order
    first = [b for a, b in pairwise(order) if isinstance(a, Padding) and isinstance(b, Item)]
    found = [places(root, f"/{item.path}")[:2] for item in first if item.blocks]
    assert len(found) >= 5
    assert len({block % layout.SECTION_BLOCKS for _, block in found}) == 1
    assert {(inode - 1) % layout.SECTION_INODES for inode, _ in found} == {0}


def test_padding_that_cannot_be_removed_is_an_error(root: Path, tmp_path: Path) -> None:
    """debugfs says by its exit status that all went well, whatever went wrong."""
    run(["cp", "--sparse=always", str(root), str(tmp_path / "copy")])
    place = filesystem.FilePlacement(tmp_path / "copy", 0, root.stat().st_size)
    with pytest.raises(OutsideError, match="debugfs could not finish") as error:
        filesystem.remove_padding([Padding("lost+found/absent", 0)], place, tmp_path)
    assert "absent" in error.value.evidence or "not found" in error.value.evidence


def test_zeros_take_no_room(built: Path) -> None:
    """The file is sparse: what it takes is what it holds."""
    assert built.stat().st_blocks * 512 < 24 * MIB
    assert built.stat().st_size > 256 * MIB


def test_the_root_has_the_size_asked_for(folder: Path, tmp_path: Path) -> None:
    """`minimum_bytes` is a lower bound, rounded up."""
    larger = made(folder / "tree", tmp_path / "work", least=700 * MIB)
    assert partitions(larger)[1]["size"] * 512 == 768 * MIB


def test_a_tree_without_kernel_is_refused(tmp_path: Path) -> None:
    """With the package that it lacks."""
    (tmp_path / "tree/boot").mkdir(parents=True)
    with pytest.raises(OutsideError, match="no kernel") as error:
        made(tmp_path / "tree", tmp_path / "work")
    assert "linux-image-cloud-amd64" in error.value.hint


def test_a_tree_without_initrd_is_refused(folder: Path, tmp_path: Path) -> None:
    """A disk that could not find its root is not made."""
    run(["cp", "-a", str(folder / "tree"), str(tmp_path / "tree")])
    (tmp_path / f"tree/boot/initrd.img-{RELEASE}").unlink()
    with pytest.raises(OutsideError, match=f"no /boot/initrd.img-{RELEASE}"):
        made(tmp_path / "tree", tmp_path / "work")


def test_an_initrd_of_another_compression_is_refused(folder: Path, tmp_path: Path) -> None:
    """It says which setting would help."""
    run(["cp", "-a", str(folder / "tree"), str(tmp_path / "tree")])
    (tmp_path / f"tree/boot/initrd.img-{RELEASE}").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(OutsideError, match="neither a cpio archive") as error:
        made(tmp_path / "tree", tmp_path / "work")
    assert "COMPRESS=zstd" in error.value.hint


def test_the_newest_kernel_is_taken(tmp_path: Path) -> None:
    """By number: 6.12.100 is newer than 6.12.9."""
    for release in ("6.12.9-cloud-amd64", "6.12.100-cloud-amd64", "6.2.200-cloud-amd64"):
        write(tmp_path / f"boot/vmlinuz-{release}", b"")
    assert kernel.kernel_release(tmp_path) == "6.12.100-cloud-amd64"


@pytest.mark.parametrize("tool", ["systemd-repart", "ukify", "mke2fs", "debugfs"])
def test_a_missing_tool_is_named_with_its_package(
    folder: Path, tmp_path: Path, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing that looks like a disk is returned."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for place in ("/usr/sbin", "/usr/bin"):
        for program in Path(place).iterdir():
            if program.name != tool and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(kernel, "SYSTEM_PATH", str(programs))
    with pytest.raises(OutsideError, match=f"{tool} is not installed") as error:
        made(folder / "tree", tmp_path / "work")
    assert "package" in error.value.hint


def test_the_version_of_ukify_is_known_whichever_python_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a Python program, and one that cannot run would be "unknown" in the inputs of every machine."""
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert re.match(r"\d{3} \(", machine._version("ukify", machine.TOOLS["ukify"]))


@pytest.mark.slow
def test_a_full_disk_is_named(folder: Path, tmp_path: Path) -> None:
    """Wherever the room ends, it says which disk is full, and returns none that lacks something."""
    small = tmp_path / "small"
    small.mkdir()
    for size in ("1m", "3m", "5m", "7m"):
        run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(small)])
        try:
            with pytest.raises(OutsideError, match="is full") as error:
                assemble(folder / "tree", WORDS, small, EPOCH)
            assert str(small) in error.value.message
        finally:
            run(["umount", str(small)])


def test_sizes_leave_room_in_steps() -> None:
    """The root is at least as large as asked, and twice what is in it."""
    assert disk.root_bytes(10, 0) == disk.root_bytes(100 * MIB, 0) == 256 * MIB
    assert disk.root_bytes(300 * MIB, 0) == 768 * MIB
    assert disk.root_bytes(300 * MIB, 2048 * MIB) == 2048 * MIB
