"""Tars that programs read in more than one way: what an engine would run is never other than what is scanned here."""

from __future__ import annotations

import json
import stat
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import digest
from hardening.foundation.process import run
from images.store import layers
from tests.images.build.test_dockerfile_guard import engine
from tests.support import hostile

__all__ = ["engine"]

TAR = "application/vnd.oci.image.layer.v1.tar"
MODE, SIZE, MAGIC, PREFIX, TRAILER = slice(100, 108), slice(124, 136), slice(257, 265), slice(345, 500), slice(508, 512)
END = bytes(1024)
OF_THE_ENGINE = {".dockerenv", "dev", "etc", "proc", "sys"}


def member(
    name: str, data: bytes = b"", kind: bytes = b"0", raw: dict[slice, bytes] | None = None, checksum: str = "%06o\0 "
) -> bytes:
    """A member with a ustar header, in which `raw` is written over; padded with zero bytes."""
    head = bytearray(512)
    fields = {slice(0, 100): name.encode(), MODE: b"0000644", SIZE: b"%011o" % len(data), MAGIC: b"ustar\x0000"}
    fields |= {slice(156, 157): kind, slice(148, 156): b" " * 8, **(raw or {})}
    for at, text in fields.items():
        head[at] = text.ljust(at.stop - at.start, b"\0")
    head[148:156] = (checksum % sum(head)).encode()
    return bytes(head) + data + bytes(-len(data) % 512)


def pax(*records: tuple[str, str], kind: bytes = b"x", after: bytes = b"") -> bytes:
    """An extended header; `after` lies in its padding."""
    said = b"".join(_record(f" {key}={value}\n".encode()) for key, value in records)
    return member("x", said, kind)[: 512 + len(said)] + after + bytes(-len(said + after) % 512)


def _record(rest: bytes) -> bytes:
    size = next(n for n in range(len(rest), 2000) if n == len(str(n)) + len(rest))
    return str(size).encode() + rest


def longer(name: str) -> bytes:
    """A GNU header with a long name."""
    return member("././@LongLink", name.encode() + b"\0", b"L")


GOOD, EVIL = member("good", b"good"), member("evil", b"evil")
NUMBER, ALL = "a number begins with a zero byte", "it says something of all members"
SEVERAL, NOTHING, ON = "several extended headers", "says nothing where it must", "longer than it says"
AMBIGUOUS = {
    "a checksum after a zero byte": (GOOD + member("evil", b"evil", checksum="\0%06o "), NUMBER),
    "a size after a zero byte": (member("evil", GOOD, raw={SIZE: b"\x000000002000"}), NUMBER),
    "a mode after a zero byte": (member("evil", b"evil", raw={MODE: b"\x00004755"}), NUMBER),
    "a path for all": (pax(("path", "good"), kind=b"g") + EVIL, ALL),
    "two paths": (pax(("path", "good")) + pax(("path", "evil")) + member("x", b"evil"), SEVERAL),
    "two long names": (longer("good") + longer("evil") + member("x", b"evil"), SEVERAL),
    "a path and a long name": (pax(("path", "good")) + longer("evil") + member("x", b"evil"), SEVERAL),
    "a path before a comment for all": (pax(("path", "good")) + pax(("comment", "a"), kind=b"g") + EVIL, SEVERAL),
    "an empty path": (pax(("path", "")) + EVIL, NOTHING),
    "an empty size": (pax(("size", "")) + member("evil", GOOD), NOTHING),
    "a path behind the end": (pax(("comment", "a"), after=_record(b" path=good\n")) + EVIL, ON),
    "a long name that goes on": (
        member("././@LongLink", b"ev", b"L")[:514] + b"il" + bytes(508) + member("x", b"evil"),
        ON,
    ),
    "an old form with a prefix": (member("evil", b"evil", raw={MAGIC: b"", PREFIX: b"good"}), "a path of two parts"),
    "dots behind a link": (
        member("x/y/", kind=b"5") + member("d", kind=b"2", raw={slice(157, 257): b"/x/y"}) + member("d/../evil"),
        "climbs out",
    ),
}
UNSOUND = {
    "no header": (GOOD + EVIL.replace(b"evil", b"gone", 1) + EVIL, "bad checksum"),
    "half a header": (GOOD + EVIL[:100], "truncated"),
    "an empty long name": (member("././@LongLink", b"\0", b"L") + EVIL, NOTHING),
    "an old directory with a long name": (longer("evil/x") + member("evil/", b"x", b"\0"), "of the oldest form"),
    "the form of star": (member("evil", raw={PREFIX: b"a", TRAILER: b"tar\0"}), "form of star"),
}


@pytest.mark.parametrize("way", [*AMBIGUOUS, *UNSOUND])
def test_what_programs_read_otherwise_is_refused(tmp_path: Path, way: str) -> None:
    """Not one of them may hide a file, or another mode of one, from those who scan and verify the image."""
    data, told = (AMBIGUOUS | UNSOUND)[way]
    (tmp_path / "layer").write_bytes(data if way == "half a header" else data + END)
    with pytest.raises(OutsideError, match=told):
        layers.unpack(tmp_path / "layer", TAR, tmp_path / "tree")


@pytest.mark.needs("docker")
def test_an_engine_does_read_them_otherwise(engine: str, tmp_path: Path) -> None:
    """Each brings `evil` into a container, or its mode, where Python's tarfile finds another thing."""
    env, alike = {"DOCKER_HOST": engine}, []
    for way, (data, _) in AMBIGUOUS.items():
        file = tmp_path / "layer.tar"
        file.write_bytes(data + END)
        with tarfile.open(file, "r|") as tar:
            ours = {(info.name.strip("/"), stat.filemode(info.mode | KINDS[info.type])) for info in tar}
        image = run(["docker", "import", str(file)], env=env).stdout.strip()
        theirs = set(exported(env, image, file).items())
        alike += [way] if ours == theirs else []
    assert alike == []


FOLDER, LINK, FIFO, CHARACTER, BLOCK = b"5", b"2", b"6", b"3", b"4"


def entry(name: str, kind: bytes = b"0", to: str = "", mode: bytes = b"0000755") -> bytes:
    """A member with nothing in it."""
    return member(name, kind=kind, raw={MODE: mode, slice(157, 257): to.encode()})


BELOW = [
    *(entry("gone"), entry("device"), entry("disk/a"), entry("file/a"), entry("link", LINK, "file"), entry("flat")),
    *(entry("opaque/a/b"), entry("opaque/c"), entry("mode/a"), entry("kept", FOLDER, mode=b"0000700"), entry("kept/a")),
    *(entry("again"), entry("fifo/a"), entry("to/a"), entry("once/a"), entry("deep/a/b/c")),
]
ABOVE = [
    *(
        entry(".wh.gone"),
        entry("device", CHARACTER),
        entry("disk", BLOCK),
        entry("file"),
        entry("link/b"),
        entry("flat/a"),
    ),
    *(entry("opaque/a/d"), entry("opaque/.wh..wh..opq"), entry("mode", FOLDER, mode=b"0000711"), entry("kept/b")),
    *(entry(".wh.again"), entry("again"), entry("fifo", FIFO), entry("to", LINK, "/other"), entry("to/b")),
    *(entry("once"), entry("once", FOLDER), entry("deep/a/.wh.b"), entry("new/a/.wh.b"), entry(".wh..wh..opq")),
]


@pytest.mark.needs("docker", "root")
def test_layers_lie_over_each_other_as_in_an_engine(engine: str, tmp_path: Path) -> None:
    """What is gone, hidden, replaced, or shows through from below."""
    paths = []
    for name, entries in (("below", BELOW), ("above", ABOVE)):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(b"".join(entries) + END)
        layers.unpack(paths[-1], TAR, tmp_path / "tree")
    ours = {
        str(path.relative_to(tmp_path / "tree")): stat.filemode(path.lstat().st_mode)
        for path in (tmp_path / "tree").rglob("*")
    }
    theirs = run_by(engine, paths, tmp_path)
    assert {name: mode for name, mode in theirs.items() if mode[0] not in "bc"} == ours
    assert {"device", "disk", "gone"}.isdisjoint(ours)
    assert ours.keys() >= {"link/b", "once/a", "opaque/a/d", "new/a"}
    assert [path.name for path in tmp_path.iterdir() if "layer" in path.name] == []


def run_by(engine: str, paths: list[Path], folder: Path) -> dict[str, str]:
    """Name and mode of what an engine shows in a container of an image that is made of these layers."""
    env, saved = {"DOCKER_HOST": engine}, folder / "saved.tar"
    diff_ids = [digest(path.read_bytes()) for path in paths]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    (folder / "config.json").write_text(json.dumps(config))
    listed = [{"Config": "config.json", "RepoTags": ["of-a-test:1"], "Layers": [path.name for path in paths]}]
    (folder / "manifest.json").write_text(json.dumps(listed))
    with tarfile.open(saved, "w") as tar:
        for name in ("config.json", "manifest.json", *(path.name for path in paths)):
            tar.add(folder / name, name)
    run(["docker", "load", "--input", str(saved)], env=env)
    return exported(env, "of-a-test:1", saved)


def exported(env: dict[str, str], image: str, file: Path) -> dict[str, str]:
    """Name and mode of what a container of `image` shows; it and the image are removed."""
    container = run(["docker", "create", image, "x"], env=env).stdout.strip()
    run(["docker", "export", "--output", str(file), container], env=env)
    run(["docker", "rm", container], env=env)
    run(["docker", "rmi", image], env=env)
    with tarfile.open(file) as tar:
        return {
            info.name: stat.filemode(info.mode | KINDS[info.type])
            for info in tar
            if info.name.split("/")[0] not in OF_THE_ENGINE
        }


KINDS = {b"0": stat.S_IFREG, b"1": stat.S_IFREG, b"2": stat.S_IFLNK, b"3": stat.S_IFCHR, b"4": stat.S_IFBLK}
KINDS |= {b"5": stat.S_IFDIR, b"6": stat.S_IFIFO}


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([entry(".wh.d"), entry("d", FOLDER)], "takes d away, and holds it as a directory"),
        ([entry("d", CHARACTER), entry("d", FOLDER)], "takes d away, and holds it as a directory"),
        ([entry("d/n"), entry(".wh.d")], "holds d and takes it away again"),
    ],
)
def test_what_engines_differ_in_is_refused(tmp_path: Path, entries: list[bytes], told: str) -> None:
    """In a directory that was taken away and stands there again some show what was in it before."""
    for number, content in enumerate((entry("d/a"), b"".join(entries))):
        (tmp_path / str(number)).write_bytes(content + END)
    layers.unpack(tmp_path / "0", TAR, tmp_path / "tree")
    with pytest.raises(OutsideError, match=told):
        layers.unpack(tmp_path / "1", TAR, tmp_path / "tree")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "tree"]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_what_is_sound_is_unpacked(tmp_path: Path, form: int) -> None:
    """Long names and long links, one after the other as GNU tar writes them, and a comment for all (git archive)."""
    long = "n" * (90 if form == tarfile.USTAR_FORMAT else 200)
    with tarfile.open(tmp_path / "layer", "w", format=form, pax_headers={"comment": "a commit"}) as tar:
        for name, kind in ((long, tarfile.REGTYPE), (f"{long[:-1]}l", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, long if kind == tarfile.SYMTYPE else ""
            tar.addfile(info)
    layers.unpack(tmp_path / "layer", TAR, tmp_path / "tree")
    assert (tmp_path / "tree" / f"{long[:-1]}l").readlink() == Path(long)


PLACES = ("d/s", "d/s/x", "d/a")
FILES = (*PLACES, "d", "e/a")
MARKS = (".wh.d", "d/.wh.a", "d/.wh.s", "d/s/.wh.x", "d/.wh..wh..opq", "d/s/.wh..wh..opq", ".wh..wh..opq")
ENTRIES = st.one_of(
    st.tuples(st.sampled_from(FILES), st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])),
    st.tuples(st.sampled_from(MARKS), st.just(tarfile.REGTYPE)),
)


@pytest.mark.needs("root")
@given(st.lists(st.lists(ENTRIES, min_size=1, max_size=4), min_size=1, max_size=3))
@example([[("d", tarfile.SYMTYPE), ("e/a", tarfile.REGTYPE)]])
@example([[("e/a", tarfile.SYMTYPE), ("e/e", tarfile.REGTYPE)], [("d", tarfile.SYMTYPE)]])
def test_files_are_those_that_the_unpacked_image_holds(plan: list[list[tuple[str, bytes]]]) -> None:
    """Whatever later layers take away or replace, and wherever links lead: what an engine shows in the end."""
    with TemporaryDirectory() as folder:
        paths = []
        for number, entries in enumerate(plan):
            members = [
                hostile.member(
                    name, str((number, place)).encode() if kind == tarfile.REGTYPE else b"", type=kind, linkname="e"
                )
                for place, (name, kind) in enumerate(entries)
            ]
            paths.append(Path(folder, str(number)))
            paths[-1].write_bytes(hostile.tar_of(*members))
        trees = Path(folder, "whole"), Path(folder, "part")
        try:
            for path in paths:
                layers.unpack(path, TAR, trees[0])
        except OutsideError:
            return
        layers.unpack_places([(path, TAR) for path in paths], "it", trees[1], PLACES)
        whole, part = ([layers.small_text(tree, tree / place) for place in PLACES] for tree in trees)
        assert whole == part


def test_links_that_lead_on_and_on_are_not_followed(tmp_path: Path) -> None:
    """Each of them takes one more look at all layers."""
    links = [hostile.member(f"d{n}", type=tarfile.SYMTYPE, linkname=f"d{n + 1}") for n in range(layers.LOOKS)]
    (tmp_path / "layer").write_bytes(hostile.tar_of(*links))
    with pytest.raises(OutsideError, match="holds links that lead on more than 5 times"):
        layers.unpack_places([(tmp_path / "layer", TAR)], "it", tmp_path / "tree", ["d0/a"])
