"""A disk's blocks: digests that independent code agrees with, and deltas that turn one disk into the other."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import digest
from hardening.foundation.process import run
from images.machine import blocks
from images.machine.blocks import BLOCK, SIZE, ZERO
from images.machine.disk import convert_to_qcow2, digests_of

# A disk of few distinct blocks, each named by a number; 0 is a block of zeros.
DISKS = st.lists(st.integers(0, 3), min_size=1, max_size=12)


def block(number: int) -> bytes:
    return number.to_bytes(4, "little") * (BLOCK // 4)


DIGESTS = [blocks.digest_of(block(number)) for number in range(4)]


def digests(disk: list[int]) -> bytes:
    return b"".join(DIGESTS[number] for number in disk)


def write(path: Path, disk: list[int]) -> Path:
    """A raw disk whose blocks of zeros are holes."""
    with path.open("wb") as file:
        for index, number in enumerate(disk):
            if number:
                file.seek(index * BLOCK)
                file.write(block(number))
        file.truncate(len(disk) * BLOCK)
    return path


@given(DISKS, DISKS)
def test_a_delta_written_on_its_parent_makes_the_child(parent: list[int], child: list[int]) -> None:
    """Whatever two disks are, the delta's blocks on a copy of the parent are the child, as far as the child goes."""
    disk = dict(enumerate(parent)) | {index: child[index] for index in blocks.delta(digests(parent), digests(child))}
    assert [disk[index] for index in range(len(child))] == child


@given(DISKS, DISKS)
def test_a_delta_leaves_out_every_block_that_is_the_same(parent: list[int], child: list[int]) -> None:
    """No index is named whose block the parent holds already, and each once, in order."""
    found = blocks.delta(digests(parent), digests(child))
    assert list(found) == sorted(set(found))
    assert not [index for index in found if index < len(parent) and parent[index] == child[index]]


@given(DISKS, st.integers(0, 11))
def test_a_block_that_became_zero_is_in_the_delta(parent: list[int], where: int) -> None:
    """EBS would go on showing the parent's data where nothing is written."""
    index = where % len(parent)
    parent[index], child = 1, [*parent[:index], 0, *parent[index + 1 :]]
    assert blocks.delta(digests(parent), digests(child)) == (index,)


@given(DISKS, st.lists(st.just(0), min_size=1, max_size=3))
def test_zeros_beyond_the_parents_end_are_written(parent: list[int], added: list[int]) -> None:
    """What an encrypted snapshot was never given reads as random data."""
    grown = range(len(parent), len(parent) + len(added))
    assert blocks.delta(digests(parent), digests([*parent, *added])) == tuple(grown)


@given(DISKS, DISKS)
def test_the_linear_digest_tells_disks_apart(one: list[int], other: list[int]) -> None:
    """Two disks have one linear digest only where they have the same blocks in the same order."""
    assert (digest(digests(one)) == digest(digests(other))) == (one == other)


def with_data(disk: Path) -> tuple[int, ...]:
    """The indexes of the blocks that hold anything but zeros."""
    return tuple(index for index, digest in enumerate(blocks.split(digests_of(disk))) if digest != ZERO)


def test_digests_are_those_of_sha256sum(tmp_path: Path) -> None:
    """The digests and the linear digest agree with coreutils, on a disk with holes and a short last block."""
    disk = write(tmp_path / "disk", [0, 7, 0, 0, 9])
    with disk.open("ab") as file:
        file.write(b"short")
    run(["split", "-b", str(BLOCK), str(disk), str(tmp_path / "part-")])
    parts = sorted(tmp_path.glob("part-*"))
    os.truncate(parts[-1], BLOCK)
    printed = run(["sha256sum", *map(str, parts)]).stdout.splitlines()
    found = digests_of(disk)
    assert [digest.hex() for digest in blocks.split(found)] == [line.split()[0] for line in printed]
    assert len(found) == 6 * SIZE
    (tmp_path / "all").write_bytes(bytes.fromhex("".join(line.split()[0] for line in printed)))
    assert digest(found) == "sha256:" + run(["sha256sum", str(tmp_path / "all")]).stdout.split()[0]


def test_the_digest_of_zeros_is_what_it_says() -> None:
    """Holes are known by a digest that nobody computes anew; what is short counts as filled up with zeros."""
    assert hashlib.sha256(b"\0" * 524_288).digest() == ZERO == blocks.digest_of(b"")
    assert blocks.digest_of(b"short") == blocks.digest_of(b"short".ljust(BLOCK, b"\0"))


def test_holes_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a disk of 2 GiB of holes with one block of data, that block is read, and nothing else."""
    disk, pread = tmp_path / "disk", os.pread
    asked: list[int] = []
    with disk.open("wb") as file:
        file.truncate(4096 * BLOCK)
        file.seek(1000 * BLOCK)
        file.write(b"x")

    def noting(descriptor: int, count: int, offset: int) -> bytes:
        asked.append(offset)
        return pread(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", noting)
    assert with_data(disk) == (1000,)
    assert asked == [1000 * BLOCK]


def test_data_that_begins_inside_a_block_is_found(tmp_path: Path) -> None:
    """A hole that ends within a block does not hide the rest of it, at the start, the middle and the end."""
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(6 * BLOCK)
        for place in (BLOCK + 100_000, 3 * BLOCK - 1, 6 * BLOCK - 1):
            file.seek(place)
            file.write(b"x")
    assert with_data(disk) == (1, 2, 5)


@pytest.mark.parametrize("wrong", [b"", b"x", bytes(SIZE + 1)])
def test_what_is_no_list_of_digests_is_refused(wrong: bytes) -> None:
    """A damaged list of digests is never taken for a disk without changes."""
    with pytest.raises(ValueError, match="not a list of block digests"):
        blocks.delta(wrong, digests([1]))
    with pytest.raises(ValueError, match="not a list of block digests"):
        blocks.delta(digests([1]), wrong)


def test_a_block_that_is_too_long_is_refused() -> None:
    """A wrong block size is an error, not a wrong digest."""
    with pytest.raises(ValueError, match="524288"):
        blocks.digest_of(bytes(BLOCK + 1))


@pytest.mark.needs("qemu-img")
def test_qcow2_holds_the_same_disk_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    """qemu-img itself compares the qcow2 with the raw disk and finds it sound; converting again gives the same file."""
    disk = write(tmp_path / "disk", [0, 7, 0, 9, 0, 0, 5, 0])
    target, again = tmp_path / "a.qcow2", tmp_path / "b.qcow2"
    convert_to_qcow2(disk, target)
    convert_to_qcow2(disk, again)
    run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(disk), str(target)])
    run(["qemu-img", "check", "-f", "qcow2", str(target)])
    assert target.read_bytes() == again.read_bytes()
    assert target.stat().st_size < 3 * BLOCK


@pytest.mark.needs("qemu-img")
def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    """No half image is left, and one that was there before stays."""
    target, folder = tmp_path / "a.qcow2", tmp_path / "folder"
    folder.mkdir()
    target.write_text("before")
    with pytest.raises(OutsideError, match="qemu-img"):
        convert_to_qcow2(tmp_path / "absent", target)
    with pytest.raises(IsADirectoryError):
        convert_to_qcow2(write(tmp_path / "disk", [1]), folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.qcow2", "disk", "folder"]
    assert target.read_text() == "before"
