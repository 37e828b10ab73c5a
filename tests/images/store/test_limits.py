"""Limits on what strangers send: one clear error that names the limit, and memory that stays under 300 MB, measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from hardening.foundation import limits
from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import ROOT
from images.build import build_steps
from images.store import layers
from images.store.merge import Merged
from images.store.oci import LAYER, Store
from images.store.tars import Allowance, ReaderBudget, Tar
from tests.support import hostile as h

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
TAR = "application/vnd.oci.image.layer.v1.tar"
MOST_MEMORY = 300 * h.MIB

# Runs the code that follows and says what became of it, and what memory it took at its peak. The kernel's own mark of
# this process is read: that of getrusage is inherited from the process that started it.
MEASURED = """
import re, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from hardening.foundation.errors import OutsideError
path, into = Path(sys.argv[1]), Path(sys.argv[2])
try:
    {code}
    print("accepted")
except OutsideError as error:
    print(error.message)
except MemoryError:
    print("out of memory")
print(int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
"""


def measured(code: str, path: Path, into: Path) -> tuple[str, int]:
    """What became of `code`, run in a process of its own, and its peak memory in bytes."""
    argv = [sys.executable, "-c", MEASURED.format(code=code), str(path), str(into)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, peak = done.stdout.splitlines()
    return said, int(peak)


def packed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def wide_window(log: int) -> bytes:
    """A frame that asks its reader for a window of 2 to the `log` bytes."""
    wide = zstandard.ZstdCompressionParameters(window_log=log, enable_ldm=True)
    writer = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    return writer.compress(h.tar_of(h.member("a", b"a"))) + writer.flush()


def records_that_overlap() -> bytes:
    """A pax header of 64 KB whose records overlap, so that each takes all that follows for its keyword."""
    return raw_pax(b"2 " * 30_000 + b"=x\n")


def raw_pax(header: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, len(header)
    padding = bytes(-len(header) % 512)
    return info.tobuf(tarfile.USTAR_FORMAT) + header + padding + h.tar_of(h.member("after", b"x"))


def global_headers(count: int) -> bytes:
    """Global headers of 60 KB each, all with other keywords: tarfile keeps them all."""
    value = b"v" * 60_000
    records = [b" key%d=%s\n" % (n, value) for n in range(count)]
    return b"".join(raw_pax(b"%d%s" % (len(r) + 5, r), tarfile.XGLTYPE)[: 512 + 60_416] for r in records) + bytes(1024)


def nested_headers(count: int) -> bytes:
    """Headers before headers before a member: each is read within the one before it."""
    record = b"60009 a=%s\n" % (b"v" * 60_000)
    return raw_pax(record)[: 512 + 60_416] * count + h.tar_of(h.member("after", b"x"))


LAYERS: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "a file of zeros": ("layer.ratio", GZIP, lambda: h.tar_bomb("usr/lib/os-release", 2 * h.GIB)),
    "the same in zstd": ("layer.ratio", LAYER, lambda: h.tar_bomb("etc/x", 2 * h.GIB, packed)),
    "a large name": ("layer.header", GZIP, lambda: header_bomb(tarfile.GNUTYPE_LONGNAME)),
    "a large header": ("layer.header", GZIP, lambda: header_bomb(tarfile.XHDTYPE)),
    "global headers": ("it says something of all members", LAYER, lambda: packed(global_headers(100))),
    "nested headers": ("several extended headers", LAYER, lambda: packed(nested_headers(900))),
    "records that overlap": ("a damaged extended header", TAR, records_that_overlap),
    "a long number": ("more than 256 digits", TAR, lambda: raw_pax(b"60009 a=%s\n" % (b"7" * 60_000))),
    "a window of 2 GB": ("cannot be unpacked", LAYER, lambda: wide_window(31)),
    "a window of 128 MB": ("cannot be unpacked", LAYER, lambda: wide_window(27)),
    "a sparse file": ("the sparse file", TAR, lambda: h.sparse_tar("hole", 20 * h.GIB)),
    "a sparse file of old": ("the sparse file", TAR, lambda: h.old_sparse_tar("hole", 7 * h.GIB)),
    "a sparse file by a map": ("the sparse file", TAR, lambda: raw_pax(b"22 GNU.sparse.map=0,0\n")),
    "a sparse file by a size": ("the sparse file", TAR, lambda: raw_pax(b"21 GNU.sparse.size=9\n")),
    "a deep path": ("layer.depth", TAR, lambda: h.tar_of(h.member("d/" * 200 + "x"))),
    "a long path": ("layer.path", TAR, lambda: h.tar_of(h.member("x" * 5000))),
    "a long link": ("layer.path", TAR, lambda: h.tar_of(h.member("x", type=tarfile.SYMTYPE, linkname="y" * 5000))),
}


def header_bomb(kind: bytes) -> bytes:
    info = tarfile.TarInfo("bomb")
    info.type, info.size = kind, 2 * h.GIB
    return h.gzip.compress(info.tobuf(tarfile.USTAR_FORMAT)) + h.gzip_bomb(2 * h.GIB)


@pytest.mark.needs("root")
@pytest.mark.parametrize("way", LAYERS)
def test_a_hostile_layer_is_refused_and_takes_little(way: str, tmp_path: Path) -> None:
    """One error that names the limit or the form; memory, and what lies on the disk afterwards, stay small."""
    said_to_be, media_type, make = LAYERS[way]
    path, into = tmp_path / "layer", tmp_path / "tree"
    path.write_bytes(make())
    into.mkdir()
    code = f"from images.store import layers; layers.unpack(path, {media_type!r}, into)"
    said, peak = measured(code, path, into)
    assert said_to_be in said
    assert peak < MOST_MEMORY
    most = max(limits.LAYER_RATIO_FROM, limits.LAYER_RATIO.most * path.stat().st_size)
    assert sum(file.stat().st_size for file in into.rglob("*") if file.is_file()) <= most


@pytest.mark.parametrize("way", ["a file of zeros", "a large header", "a sparse file"])
def test_looking_into_a_hostile_layer_takes_little(way: str, tmp_path: Path) -> None:
    """The same, where one text of a layer is asked for."""
    path = tmp_path / "layer"
    path.write_bytes(LAYERS[way][2]())
    code = (
        f"from images.store import layers; layers.unpack(path, {LAYERS[way][1]!r}, into, only=['usr/lib/os-release'])"
    )
    said, peak = measured(code, path, tmp_path)
    assert {"a file of zeros": "image.small-file"}.get(way, LAYERS[way][0]) in said
    assert peak < MOST_MEMORY


def test_looking_into_a_layer_of_many_texts_takes_no_more_than_one_may_have(tmp_path: Path) -> None:
    """Each of them is small; together they would fill the disk."""
    path, text = tmp_path / "layer", bytes(limits.SMALL_FILE.most // 3)
    path.write_bytes(packed(h.tar_of(*(h.member(f"var/lib/dpkg/status.d/{number}", text) for number in range(9)))))
    with pytest.raises(OutsideError, match=r"image\.small-file"):
        layers.unpack(path, LAYER, tmp_path / "tree", only=["var/lib/dpkg/status.d"])
    assert sum(file.stat().st_size for file in (tmp_path / "tree").rglob("?")) <= limits.SMALL_FILE.most


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("etc/os-release", "from images.scan.flow import suite_of; suite_of(path)"),
        ("var/lib/dpkg/status", "from images.build.build_steps import installed_in; installed_in(path)"),
    ],
)
def test_a_text_of_an_unpacked_tree_is_read_up_to_its_limit(place: str, code: str, tmp_path: Path) -> None:
    """A stranger's image may hold a few blocks that read as gigabytes."""
    path = tmp_path / "tree" / place
    path.parent.mkdir(parents=True)
    path.touch()
    os.truncate(path, 8 * h.GIB)
    said, peak = measured(code, tmp_path / "tree", tmp_path)
    assert said.startswith(f"{place} of the image exceeds the limit image.small-file")
    assert peak < MOST_MEMORY


def test_a_text_of_an_unpacked_tree_is_none_of_this_host(tmp_path: Path) -> None:
    """Where a link leads out of the tree, nothing is read; where it stays inside, what it leads to is."""
    text = "Package: libx\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n"
    for place, found in ((tmp_path / "of-the-host", 0), (tmp_path / "tree/usr/status", 1)):
        status = tmp_path / "tree/var/lib/dpkg/status"
        for file in (status, place):
            file.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        status.unlink(missing_ok=True)
        status.symlink_to(os.path.relpath(place, status.parent))
        assert len(build_steps.installed_in(tmp_path / "tree")) == found


def test_the_later_of_two_files_of_a_name_counts(tmp_path: Path) -> None:
    """What is read of an image is what a container of it would see."""
    path = tmp_path / "layer"
    for later in ("./etc/os-release", "/etc/os-release", "etc//./os-release"):
        path.write_bytes(h.tar_of(h.member("etc/os-release", b"seen"), h.member(later, b"run")))
        layers.unpack(path, TAR, tmp_path / "tree", only=["etc/os-release"])
        assert (tmp_path / "tree/etc/os-release").read_bytes() == b"run", later


@pytest.mark.parametrize("kept", [False, True], ids=["unpacking", "merging"])
def test_members_take_so_little_that_the_most_of_them_fit(kept: bool, tmp_path: Path) -> None:
    """What a member takes in memory, times the members that are accepted, and the names: under 200 MB together."""
    count, name = 1000, "directory-{:07}/" + "x" * 80
    path = tmp_path / "layer"
    path.write_bytes(h.tar_of(*(h.member(name.format(n), type=tarfile.DIRTYPE) for n in range(count))))
    (tmp_path / "first").mkdir()
    layers.unpack(path, TAR, tmp_path / "first")  # what is imported on first use is not the members'
    tracemalloc.start()
    if kept:
        with Merged([path], lambda _: False, lambda _: True) as merged:
            taken, _ = tracemalloc.get_traced_memory()
            assert len(merged.chosen) == count
    else:
        (tmp_path / "tree").mkdir()
        layers.unpack(path, TAR, tmp_path / "tree")
        _, taken = tracemalloc.get_traced_memory()
        taken -= 3 * limits.CHUNK  # buffers, whatever the number of members
    tracemalloc.stop()
    besides_names = taken / count - len(name)
    assert besides_names * limits.LAYER_MEMBERS.most + limits.LAYER_NAMES.most < 200 * h.MIB


@pytest.mark.parametrize(("limit", "most"), [("LAYER_MEMBERS", 5), ("LAYER_NAMES", 100), ("IMAGE_MEMBERS", 5)])
def test_many_members_are_refused(limit: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one layer, of all layers together, and by the length of their names; at the limit all is well."""
    smaller = limits.Limit(getattr(limits, limit).name, most, "members")
    path = tmp_path / "layer"
    monkeypatch.setattr(limits, limit, smaller)
    path.write_bytes(h.tar_of(*(h.member(f"{n:020}") for n in range(5))))
    with layers.reading(path, TAR) as tar:
        assert len(list(tar)) == 5
    path.write_bytes(h.tar_of(*(h.member(f"{n:020}") for n in range(6))))
    with pytest.raises(OutsideError, match=smaller.name), layers.reading(path, TAR) as tar:
        list(tar)
    with pytest.raises(OutsideError, match=smaller.name):
        Merged([path], lambda _: False, lambda _: True)


@pytest.mark.needs("root")
def test_the_layers_of_an_image_share_what_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many layers that are small enough each are refused together, and so are too many of them."""
    from images.store import oci

    store = Store(tmp_path / "store")
    (tmp_path / "layer").write_bytes(h.tar_of(h.member("a", bytes(h.MIB))))
    layer = store.put_file(tmp_path / "layer", TAR)
    image = store.write_image({"rootfs": {"type": "layers", "diff_ids": []}}, [layer] * 4).digest
    store.unpack(image, tmp_path / "fits")
    monkeypatch.setattr(limits, "IMAGE_BYTES", limits.Limit("image.bytes", 3 * h.MIB))
    with pytest.raises(OutsideError, match=r"image\.bytes"):
        store.unpack(image, tmp_path / "tree")
    monkeypatch.setattr(oci, "IMAGE_LAYERS", limits.Limit("image.layers", 3, "layers"))
    with pytest.raises(OutsideError, match=r"image\.layers"):
        store.unpack(image, tmp_path / "more")


def test_hard_links_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    """A build's step may leave a tar that names a link as its own target: an error, not a loop."""
    path = tmp_path / "changed"
    path.write_bytes(h.tar_of(h.member("a", type=tarfile.LNKTYPE, linkname="a")))
    with (
        Merged([path], lambda _: False, lambda _: True) as merged,
        pytest.raises(OutsideError, match="leads to itself"),
    ):
        list(merged.entries())


@pytest.mark.needs("dpkg-deb")
def test_a_package_is_weighed_before_it_is_unpacked(tmp_path: Path) -> None:
    """One that unpacks to much more than it carries is refused by the limit's name; one of usual size is not."""
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
    )
    (tree / "small").write_text("text")
    for name, size in (("small", 1), ("bomb", limits.LAYER_RATIO_FROM)):
        with (tree / name).open("wb") as file:
            file.truncate(size)
        deb = tmp_path / f"{name}.deb"
        subprocess.run(["dpkg-deb", "-Zzstd", "--build", str(tree), str(deb)], check=True, capture_output=True)
    build_steps.weigh([tmp_path / "small.deb"])
    code = "from images.build import build_steps; build_steps.weigh([path])"
    said, peak = measured(code, tmp_path / "bomb.deb", tmp_path)
    assert "the package bomb.deb exceeds the limit layer.ratio" in said
    assert peak < MOST_MEMORY


JSON: dict[str, tuple[str, Callable[[], bytes]]] = {
    "huge": ("json.bytes", lambda: b"".join(h.huge_json(512 * h.MIB))),
    "deep": ("json.depth", lambda: h.deep_json(100_000)),
    "costly": ("accepted", lambda: h.costly_json(limits.JSON_BYTES.most - 10)),
}


@pytest.mark.parametrize("way", JSON)
def test_hostile_json_of_a_registry_takes_little(way: str, tmp_path: Path) -> None:
    """A manifest in the store, as large, as deep and as costly as it may be."""
    said_to_be, make = JSON[way]
    store = tmp_path / "blobs" / "sha256"
    store.mkdir(parents=True)
    (store / ("0" * 64)).write_bytes(make())
    code = f"from images.store.oci import Store; Store(path).read_json('sha256:{'0' * 64}')"
    said, peak = measured(code, tmp_path, tmp_path)
    assert said_to_be in said
    assert peak < MOST_MEMORY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 2}', "duplicate key: 'a'"),
        ('{"a": ', "is not JSON"),
        ("\xff", "is not JSON"),
        ("1" * 5000, "is not JSON"),
        ("[" * 65 + "]" * 65, "json.depth"),
        ('{"a":' * 65 + "1" + "}" * 65, "json.depth"),
    ],
)
def test_json_that_is_none_is_an_error_of_the_outside(text: str, said: str) -> None:
    """Each with what it is of, and at the limit all is well."""
    with pytest.raises(OutsideError, match="the manifest") as caught:
        limits.parse_json(text.encode("latin-1"), "the manifest")
    assert said in caught.value.message


@pytest.mark.parametrize("value", [1, "text", None, [], {"a": [{"b": {}}]}, json.loads("[" * 64 + "]" * 64)])
def test_json_within_the_limits_is_read(value: object) -> None:
    """Whatever JSON is, up to the deepest."""
    assert limits.parse_json(json.dumps(value), "it") == value


def test_a_stream_is_read_up_to_its_limit() -> None:
    """The very last byte that is accepted, and one more."""
    limit = limits.Limit("some.limit", 3)
    assert limits.read_all(h.io.BytesIO(b"123"), limit, "it") == b"123"
    with pytest.raises(OutsideError, match=r"it exceeds the limit some\.limit \(3 bytes\)") as caught:
        limits.read_all(h.io.BytesIO(b"1234"), limit, "it")
    assert "hardening/foundation/limits.py" in caught.value.hint


def test_a_tar_of_many_members_forgets_them(tmp_path: Path) -> None:
    """Unless its reader keeps them, as the merging of layers does."""
    path = tmp_path / "tar"
    path.write_bytes(h.tar_of(*(h.member(str(n)) for n in range(10))))
    for kept, left in ((None, 0), (ReaderBudget("it"), 10)):
        with Tar.open(path, "r:", what="it", allowance=Allowance("it"), kept=kept) as tar:
            assert [info.name for info in tar] == [str(n) for n in range(10)]
            assert len(tar.members) == left
