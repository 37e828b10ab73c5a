"""Where files lie on a machine's disk, decided before anything is written; and an initrd in pieces."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import groupby, pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.process import run
from images.machine import initrd, layout
from images.machine.layout import Item, Padding, arranged

SOURCES = tuple("abcdefgh")
# Sources' files: (source or none, blocks).
FILES = st.lists(st.tuples(st.sampled_from(["", *SOURCES]), st.integers(0, 900)), max_size=60)


def items_of(files: list[tuple[str, int]]) -> tuple[list[Item], dict[str, str]]:
    """Files in directories of their own sources, and who owns them."""
    items, owners = {"usr": Item("usr", 1, is_folder=True)}, {}
    for number, (source, blocks) in enumerate(files):
        folder = f"usr/{source or 'none'}"
        items[folder] = Item(folder, 1, is_folder=True)
        path = f"{folder}/{number:03d}"
        items[path] = Item(path, blocks)
        if source:
            owners[path] = source
    return list(items.values()), owners


def places(order: Iterable[Item | Padding]) -> dict[str, tuple[int, int]]:
    """The inode and the first block that each file gets, counted from the first, by taking the next free one."""
    found, block = {}, 0
    for inode, one in enumerate(order):
        found[one.path] = (inode, block)
        block += one.blocks
    return found


@given(FILES, st.randoms())
def test_each_file_is_created_once_and_after_its_directory(files: list[tuple[str, int]], random: object) -> None:
    """Nothing is lost or doubled, whatever the order of reading, and no directory is missing when it is needed."""
    items, owners = items_of(files)
    order = list(arranged(items, owners))
    random.shuffle(items)  # type: ignore[attr-defined]
    assert list(arranged(items, owners)) == order
    names = [one.path for one in order]
    assert sorted(one.path for one in order if isinstance(one, Item)) == sorted(item.path for item in items)
    assert len(set(names)) == len(names)
    made = {"", layout.PADDING}
    for one in order:
        assert one.path.rpartition("/")[0] in made
        made |= {one.path} if isinstance(one, Item) and one.is_folder else set()


@given(FILES.filter(bool), st.data())
def test_a_file_that_grows_into_the_padding_moves_only_its_own_section(
    files: list[tuple[str, int]], data: st.DataObject
) -> None:
    """While there is padding left behind a section, no file of another one moves, be it before or after."""
    number = data.draw(st.integers(0, len(files) - 1))
    grown = [(source, blocks + (index == number)) for index, (source, blocks) in enumerate(files)]
    before, after = (list(arranged(*items_of(one))) for one in (files, grown))
    own, room = next(
        (section, room) for section, room in sections_of(before) if any(p.endswith(f"/{number:03d}") for p in section)
    )
    if room:
        assert others(before, own) == others(after, own)


def others(order: list[Item | Padding], section: list[str]) -> dict[str, tuple[int, int]]:
    """Where everything lies that is neither padding nor in `section`."""
    return {p: at for p, at in places(order).items() if p not in section and not p.startswith(layout.PADDING)}


def sections_of(order: list[Item | Padding]) -> list[tuple[list[str], int]]:
    """The paths between runs of padding, each with the blocks of padding that follow."""
    sections: list[tuple[list[str], int]] = []
    for is_padding, run_of in groupby(order, key=lambda one: isinstance(one, Padding)):
        if is_padding:
            sections[-1] = (sections[-1][0], sum(one.blocks for one in run_of))
        else:
            sections.append(([one.path for one in run_of], 0))
    return sections


def test_every_section_starts_at_a_multiple_of_inodes_and_blocks() -> None:
    """The first file behind padding is where a section may start, wherever the one before ended."""
    items, owners = items_of([(source, 700) for source in SOURCES] + [("", 3)])
    order = list(arranged(items, owners))
    found = places(order)
    starts = [found[b.path] for a, b in pairwise(order) if isinstance(a, Padding) and isinstance(b, Item)]
    assert len(starts) > len(SOURCES) / 2
    assert {(inode + layout.FIRST_INODE - 1) % layout.SECTION_INODES for inode, _ in starts} == {0}
    assert {block % layout.SECTION_BLOCKS for _, block in starts} == {0}


def test_what_no_package_owns_comes_last() -> None:
    """The files that change with every package, such as dpkg's status, push nothing behind them."""
    items, owners = items_of([("", 5), ("a", 3), ("b", 2)])
    files = [one.path for one in arranged(items, owners) if isinstance(one, Item) and not one.is_folder]
    assert files[-1] == "usr/none/000"


def test_a_source_package_lies_together_wherever_its_files_are() -> None:
    """Files of one source change together, so that they share blocks, also where it shares its section."""
    one, other = sharing_a_section()
    owners = {f"{folder}/{name}": name for folder in ("bin", "lib", "share") for name in (one, other)}
    folders = [Item(name, 1, is_folder=True) for name in ("bin", "lib", "share")]
    order = [item.path for item in arranged([*folders, *(Item(path, 1) for path in owners)], owners)]
    for source in (one, other):
        where = sorted(order.index(path) for path, owner in owners.items() if owner == source)
        assert where == list(range(where[0], where[0] + 3))


def test_the_larger_source_of_a_section_comes_first() -> None:
    """A small package that grows must not push a large one."""
    one, other = sharing_a_section()
    for small, large in ((one, other), (other, one)):
        order = [item.path for item in arranged([Item(small, 3), Item(large, 800)], {small: small, large: large})]
        assert order.index(large) < order.index(small)


def sharing_a_section() -> tuple[str, str]:
    """Two sources that the layout puts into one section: without padding between them."""
    first, *others = (f"source{number}" for number in range(200))
    for other in others:
        order = list(arranged([Item(first, 1), Item(other, 1)], {first: first, other: other}))
        if any(isinstance(a, Item) and isinstance(b, Item) for a, b in pairwise(order)):
            return first, other
    raise AssertionError("no two of 200 sources share a section")


def test_owners_are_sources_and_shared_directories_have_one() -> None:
    """Binary packages count as their source; paths are those after the merge of /lib and /bin into /usr."""
    lists = {"libssl3t64:amd64": ["/.", "/lib/x", "/usr/share"], "openssl": ["/usr/bin/openssl", "/usr/share"]}
    found = layout.owners(lists, {"libssl3t64:amd64": "openssl", "openssl": "openssl"})
    assert {path: found[path] for path in ("usr/lib/x", "usr/bin/openssl")} == dict.fromkeys(
        ("usr/lib/x", "usr/bin/openssl"), "openssl"
    )
    assert layout.owners({"z": ["/a"], "b": ["/a"]}, {}) == {"a": "b"}


def packed(folder: Path, compress: bool = True) -> bytes:
    """A cpio archive of what is in `folder`, made by busybox."""
    names = "\n".join(sorted(str(path.relative_to(folder)) for path in folder.rglob("*")))
    target = folder.parent / f"{folder.name}.cpio"
    run(["sh", "-c", f"busybox cpio -o -H newc >{target}"], cwd=folder, stdin=f"{names}\n")
    data = target.read_bytes()
    return zstandard.ZstdCompressor().compress(data) if compress else data


def pieces(data: bytes) -> list[bytes]:
    """The archives of an initrd, unpacked, by their magic at the start of slots."""
    found = []
    for start in range(0, len(data), initrd.SLOT):
        if data[start : start + 4] == initrd.ZSTD:
            found.append(zstandard.ZstdDecompressor().decompressobj().decompress(data[start:]))
        elif data[start : start + 6] == b"070701":
            found.append(data[start:])
    return found


def listed(folder: Path, archive: bytes) -> dict[str, bytes]:
    """What busybox unpacks from one archive: names and contents."""
    folder.mkdir()
    (folder.parent / "one.cpio").write_bytes(archive)
    run(["busybox", "cpio", "-i", "-d", "-F", str(folder.parent / "one.cpio")], cwd=folder)
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    """An initrd as initramfs-tools makes it: modules in plain, zeros, and the rest compressed."""
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "modules").mkdir(parents=True)
    (first / "modules/a.ko").write_bytes(b"module")
    (second / "usr/lib/udev").mkdir(parents=True)
    (second / "usr/lib/libbig.so").write_bytes(os.urandom(initrd.LARGE + 3))
    (second / "usr/lib/libother.so").write_bytes(os.urandom(2 * initrd.LARGE))
    (second / "usr/lib/twin").write_bytes(b"t" * initrd.LARGE)
    os.link(second / "usr/lib/twin", second / "usr/lib/twin2")
    (second / "usr/lib/udev/hwdb.bin").write_bytes(b"h" * 9999)
    (second / "init").write_bytes(b"#!/bin/sh\n")
    (second / "odd").write_bytes(b"")
    return packed(first, compress=False).ljust(8192, b"\0") + packed(second)


@pytest.mark.needs("busybox")
def test_an_initrd_in_pieces_holds_the_same_files(image: bytes, tmp_path: Path) -> None:
    """What busybox unpacks from all pieces is what went in, without the hardware database; hard links stay together."""
    found: dict[str, bytes] = {}
    for number, piece in enumerate(pieces(initrd.repacked(image))):
        found |= listed(tmp_path / f"out{number}", piece)
    wanted = {
        str(path.relative_to(tmp_path / top)): path.read_bytes()
        for top in ("first", "second")
        for path in (tmp_path / top).rglob("*")
        if path.is_file() and path.name != "hwdb.bin"
    }
    assert found == wanted


@pytest.mark.needs("busybox")
def test_a_newer_library_changes_one_piece_of_an_initrd(image: bytes, tmp_path: Path) -> None:
    """All slots but those of the library that changed keep their bytes."""
    before = initrd.repacked(image)
    (tmp_path / "second/usr/lib/libbig.so").write_bytes(os.urandom(initrd.LARGE + 9))
    after = initrd.repacked(packed(tmp_path / "first", compress=False) + packed(tmp_path / "second"))
    slots = [range(start, start + initrd.SLOT) for start in range(0, len(before), initrd.SLOT)]
    changed = [slot for slot in slots if before[slot.start : slot.stop] != after[slot.start : slot.stop]]
    assert len(before) == len(after)
    assert 0 < len(changed) <= initrd.LARGE // initrd.SLOT + 1
    assert len(changed) < len(slots)


@pytest.mark.needs("busybox")
def test_repacking_twice_changes_nothing(image: bytes) -> None:
    """The same initrd always becomes the same bytes, and pieces are read as well as what made them."""
    once = initrd.repacked(image)
    assert initrd.repacked(image) == once
    assert sorted(m.name for part in initrd.read(once) for m in part) == sorted(
        m.name for part in initrd.read(image) for m in part
    )


@pytest.mark.parametrize("wrong", [b"\x1f\x8b gzip", b"070701 cut off", b"x"])
def test_what_is_no_initrd_is_refused(wrong: bytes) -> None:
    """Another compression is named as such, never passed on half read."""
    with pytest.raises(ValueError, match="neither a cpio archive nor compressed with zstd"):
        initrd.repacked(wrong)
