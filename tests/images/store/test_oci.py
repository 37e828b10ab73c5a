"""The store and its layers: the same bytes whenever and wherever they are written, and nothing half there."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT
from images.artifact import Descriptor
from images.store import layers
from images.store.files import room_on
from images.store.merge import Merged
from images.store.oci import LAYER, Store

EPOCH = 1_700_000_000
TAR = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def plant(tree: Path) -> Path:
    """A small tree with one of everything that layers carry."""
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/b").write_text("b")
    (tree / "etc/a").write_text("a")
    (tree / "etc/ümlaut").write_text("ü")
    (tree / "etc-default").write_text("sorts between etc and its content, if you sort badly")
    os.link(tree / "etc/a", tree / "etc/z-hard")
    (tree / "etc/link").symlink_to("/etc/a")
    (tree / "etc/a").chmod(0o4755)
    os.utime(tree / "etc/b", (EPOCH - 5, EPOCH - 5))
    return tree


def tar_of(path: Path, entries: list[tuple[str, str | None]], **fields: object) -> Path:
    """A layer's tar: (name, text), no text for a directory; a text that starts with `->` is a link."""
    with tarfile.open(path, "w") as tar:
        for name, text in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            for field, value in fields.items():
                setattr(info, field, value)
            data = (text or "").encode()
            if text is None:
                info.type = tarfile.DIRTYPE
            elif text.startswith("->"):
                info.type, info.linkname, data = tarfile.SYMTYPE, text[2:], b""
            elif text.startswith("=>"):
                info.type, info.linkname, data = tarfile.LNKTYPE, text[2:], b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def listing(store: Store, layer: Descriptor) -> dict[str, tarfile.TarInfo]:
    with layers.opened(store.blob(layer.digest), LAYER) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        return {info.name: info for info in tar}


def image(store: Store, *layer: Descriptor) -> str:
    return store.write_image({"rootfs": {"type": "layers", "diff_ids": []}}, list(layer)).digest


def test_the_same_tree_gives_the_same_layer_at_any_time(store: Store, tmp_path: Path) -> None:
    """Neither the clock nor the order in which files were made shows."""
    first = store.write_layer(layers.tree_entries(plant(tmp_path / "one")), EPOCH)
    time.sleep(1.1)
    assert store.write_layer(layers.tree_entries(plant(tmp_path / "two")), EPOCH) == first


def test_a_layer_carries_what_files_are(store: Store, tmp_path: Path) -> None:
    """Modes, hard links, links; times clamped to the epoch and never raised; names of no account."""
    layer, _ = store.write_layer(layers.tree_entries(plant(tmp_path / "tree")), EPOCH)
    found = listing(store, layer)
    assert list(found) == ["etc", "etc/a", "etc/b", "etc/link", "etc/z-hard", "etc/ümlaut", "etc-default"]
    assert found["etc/a"].mode == 0o4755
    assert (found["etc/z-hard"].type, found["etc/z-hard"].linkname) == (tarfile.LNKTYPE, "etc/a")
    assert found["etc/link"].linkname == "/etc/a"
    assert (found["etc/a"].mtime, found["etc/b"].mtime) == (EPOCH, EPOCH - 5)
    assert {info.uname for info in found.values()} == {""}


@pytest.mark.needs("root")
def test_device_nodes_and_sockets_stay_behind(store: Store, tmp_path: Path) -> None:
    """A container gets its devices from the runtime."""
    import socket

    tree = plant(tmp_path / "tree")
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "socket"))
    layer, _ = store.write_layer(layers.tree_entries(tree), EPOCH)
    assert not {"null", "socket"} & listing(store, layer).keys()


@pytest.mark.needs("root", "setcap")
def test_unpacking_gives_back_what_was_written(store: Store, tmp_path: Path) -> None:
    """Round trip: the unpacked tree makes the same layer again, capabilities and owners included."""
    tree = plant(tmp_path / "tree")
    os.chown(tree / "etc/b", 65532, 42)
    run(["setcap", "cap_net_bind_service=ep", str(tree / "etc/b")])
    os.mkfifo(tree / "pipe")
    layer, diff_id = store.write_layer(layers.tree_entries(tree), EPOCH)
    back = store.unpack(image(store, layer), tmp_path / "back")
    assert os.getxattr(back / "etc/b", "security.capability") == os.getxattr(tree / "etc/b", "security.capability")
    assert (back / "etc/b").stat().st_uid == 65532
    assert store.write_layer(layers.tree_entries(back), EPOCH) == (layer, diff_id)


@pytest.mark.needs("root")
def test_removals_of_upper_layers_are_applied(store: Store, tmp_path: Path) -> None:
    """Whiteouts remove, opaque marks empty a directory but keep what the same layer puts there."""
    low = tar_of(tmp_path / "low", [("d", None), ("d/old", "1"), ("gone", "1"), ("e", None), ("e/x", "1")])
    high = tar_of(tmp_path / "high", [(".wh.gone", ""), ("d/new", "2"), ("d/.wh..wh..opq", ""), ("e", "a file now")])
    digest = image(store, store.put_file(low, TAR), store.put_file(high, TAR))
    tree = store.unpack(digest, tmp_path / "tree")
    assert sorted(str(p.relative_to(tree)) for p in tree.rglob("*")) == ["d", "d/new", "e"]
    assert (tree / "e").read_text() == "a file now"


@pytest.mark.needs("root")
@pytest.mark.parametrize("way", ["../escaped", "link/escaped", "a/../../escaped", "up/escaped", "hard"])
def test_a_hostile_layer_never_writes_outside(store: Store, tmp_path: Path, way: str) -> None:
    """Links lead to places inside, as they would for a process in the image; names that climb are refused."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    low = tar_of(tmp_path / "low", [("link", f"->{outside}"), ("up", "->../../.."), ("a", None)])
    last = "=>link/secret" if way == "hard" else "x"
    high = tar_of(tmp_path / "high", [(way, last)])
    digest = image(store, store.put_file(low, TAR), store.put_file(high, TAR))
    if ".." in way:
        with pytest.raises(OutsideError, match="climbs out"):
            store.unpack(digest, tmp_path / "deep/er/tree")
    try:
        store.unpack(digest, tmp_path / "deep/er/tree")
    except (OutsideError, OSError):
        assert way == "hard" or ".." in way
    assert [path.name for path in outside.iterdir()] == ["secret"]
    tree = tmp_path / "deep/er/tree"
    assert all(path.is_relative_to(tree) for path in tmp_path.rglob("escaped"))


@pytest.mark.needs("root")
@pytest.mark.parametrize("name", ["trusted.overlay.whiteout", "trusted.overlay.opaque", "trusted.overlay.redirect"])
def test_a_layer_that_speaks_to_the_file_system_of_engines_is_refused(store: Store, tmp_path: Path, name: str) -> None:
    """Where its tree lies below another layer, that would hide files from our checks which an engine shows."""
    tar = tar_of(tmp_path / "layer", [("etc", None)], pax_headers={f"SCHILY.xattr.{name}": "y"})
    with pytest.raises(OutsideError, match=f"{name}, which only overlayfs may set"):
        store.unpack(image(store, store.put_file(tar, TAR)), tmp_path / "tree")


@pytest.mark.needs("root")
@pytest.mark.parametrize("mark", [".wh...", ".wh..", ".wh.", "d/.wh...", "d/.wh..", "d/.wh."])
def test_a_removal_mark_names_something_beside_it(store: Store, tmp_path: Path, mark: str) -> None:
    """What it says is gone is never the directory above, nor the one it stands in."""
    (tmp_path / "deep/kept").mkdir(parents=True)
    tar = tar_of(tmp_path / "mark", [("d", None), ("d/x", "1"), (mark, "")])
    with pytest.raises(OutsideError, match="removes"):
        store.unpack(image(store, store.put_file(tar, TAR)), tmp_path / "deep/tree")
    assert (tmp_path / "deep/kept").is_dir()
    assert (tmp_path / "deep/tree/d/x").exists()


@pytest.mark.needs("root")
@pytest.mark.parametrize("name", ["x", "x/y"])
def test_a_folder_that_became_a_link_gives_its_time_to_nothing(store: Store, tmp_path: Path, name: str) -> None:
    """Times of folders are set last: whatever stands there by then is no way out of the tree."""
    outside = tmp_path / "outside"
    (outside / "y").mkdir(parents=True)
    for folder in (outside / "y", outside):
        os.utime(folder, (EPOCH, EPOCH))
    entries = [("x", None), ("x/y", None), ("x", f"->{outside}")]
    tar = tar_of(tmp_path / "tar", entries if name == "x/y" else [entries[0], entries[2]], mtime=5)
    store.unpack(image(store, store.put_file(tar, TAR)), tmp_path / "tree")
    assert [int(folder.stat().st_mtime) for folder in (outside, outside / "y")] == [EPOCH, EPOCH]


@pytest.mark.needs("root")
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("before", [[("d/.wh.x", "")], [("d/x", "1")], [("d/x", "1"), (".wh.d", "")]])
def test_a_folder_that_was_met_before_it_became_a_link_leads_nowhere_else(
    store: Store, tmp_path: Path, before: list[tuple[str, str | None]], hard: bool
) -> None:
    """Where its files belong is remembered; a link of that name, of its own or another one's, is followed inside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    made = [("s", f"->{outside}"), ("d", "=>s")] if hard else [("d", f"->{outside}")]
    tar = tar_of(tmp_path / "tar", [*before, *made, ("d/f", "of the layer")])
    digest = image(store, store.put_file(tar, TAR))
    if (".wh.d", "") in before:  # engines refuse it
        with pytest.raises(OutsideError, match="holds d and takes it away again"):
            store.unpack(digest, tmp_path / "tree")
        assert list(outside.iterdir()) == []
        return
    store.unpack(digest, tmp_path / "tree")
    assert list(outside.iterdir()) == []
    assert (tmp_path / "tree" / outside.relative_to("/") / "f").read_text() == "of the layer"


@pytest.mark.needs("root")
def test_attributes_of_a_link_are_not_those_of_what_it_names(store: Store, tmp_path: Path) -> None:
    """A layer gives no capability to a program of the host."""
    program = tmp_path / "program"
    program.write_text("of the host")
    rights = {"SCHILY.xattr.security.capability": "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"}
    tar = tar_of(tmp_path / "tar", [("link", f"->{program}")], pax_headers=rights)
    with contextlib.suppress(OutsideError):
        store.unpack(image(store, store.put_file(tar, TAR)), tmp_path / "tree")
    assert os.listxattr(program) == []


@pytest.mark.parametrize("media_type", [TAR, TAR + "+gzip", TAR + "+zstd"])
@pytest.mark.parametrize("data", [b"junk" * 300, b"\x1f\x8b" + b"junk" * 300, b"\x28\xb5\x2f\xfd" + b"junk" * 300])
def test_damage_of_any_sort_is_an_error_of_the_outside(
    store: Store, tmp_path: Path, data: bytes, media_type: str
) -> None:
    """However the layer is compressed, or says it is."""
    (tmp_path / "bad").write_bytes(data)
    digest = image(store, store.put_file(tmp_path / "bad", media_type))
    with pytest.raises(OutsideError, match="cannot be unpacked"):
        store.unpack(digest, tmp_path / "tree")


@pytest.mark.needs("root")
@pytest.mark.parametrize("entry", ["n" * 300, "a\0b", "hard"])
def test_what_no_file_system_takes_is_named(store: Store, tmp_path: Path, entry: str) -> None:
    """Names that are too long or hold a zero byte, and links to what is not there."""
    tar = tar_of(tmp_path / "tar", [(entry, "=>nowhere" if entry == "hard" else "1")], pax_headers={"path": entry})
    with pytest.raises(OutsideError, match="cannot be unpacked"):
        store.unpack(image(store, store.put_file(tar, TAR)), tmp_path / "tree")


def test_a_damaged_layer_is_an_error_of_the_outside(store: Store, tmp_path: Path) -> None:
    """Named, not a traceback."""
    (tmp_path / "bad").write_bytes(b"\0" * 100 + b"junk" * 200)
    digest = image(store, store.put_file(tmp_path / "bad", TAR))
    with pytest.raises(OutsideError, match="cannot be unpacked"):
        store.unpack(digest, tmp_path / "tree")


def merge(tmp_path: Path, *tars: list[tuple[str, str | None]], parent: tuple[str, ...] = ()) -> dict[str, str]:
    """Merge layers; name → content, link target in brackets."""
    paths = [tar_of(tmp_path / f"{number}.tar", entries) for number, entries in enumerate(tars)]
    result = {}
    with Merged(paths, parent.__contains__, lambda name: not name.startswith("run/build")) as merged:
        for info, opened in merged.entries():
            result[info.name] = f"[{info.linkname}]" if info.linkname else ""
            if opened:
                with opened() as content:
                    result[info.name] = content.read().decode()
    return result


def test_merged_layers_hold_what_is_left_in_the_end(tmp_path: Path) -> None:
    """The last writer wins, and what was made and removed in between takes no space."""
    found = merge(
        tmp_path,
        [("d", None), ("d/a", "1"), ("d/b", "1"), ("run/build/x", "mounted")],
        [("d/a", "2"), ("d/.wh.b", "")],
    )
    assert found == {"d": "", "d/a": "2"}


def test_removal_marks_remain_for_what_the_parent_has(tmp_path: Path) -> None:
    """And come before what replaces them; a directory that was removed and made again hides the parent's."""
    found = merge(tmp_path, [(".wh.old", ""), (".wh.dir", "")], [("dir", None), ("dir/x", "1")], parent=("old", "dir"))
    assert list(found) == [".wh.old", "dir", "dir/.wh..wh..opq", "dir/x"]


def test_a_link_keeps_its_content_when_its_target_is_removed(tmp_path: Path) -> None:
    """Of files that are one, the first by name carries the content, whichever it was before."""
    found = merge(tmp_path, [("m", "text"), ("n", "=>m"), ("a", "=>m")], [(".wh.m", "")])
    assert found == {"a": "text", "n": "[a]"}


def test_a_file_over_a_directory_forgets_what_was_below(tmp_path: Path) -> None:
    """Nothing is left under something that is no directory."""
    assert merge(tmp_path, [("d", None), ("d/x", "1")], [("d", "file")]) == {"d": "file"}


def test_a_layout_is_what_other_tools_read(store: Store, tmp_path: Path) -> None:
    """skopeo finds the very digest, and the blobs are hard links."""
    layer, diff_id = store.write_layer(layers.tree_entries(plant(tmp_path / "tree")), EPOCH)
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    digest = store.write_image(config, [layer], {"k": "v"}).digest
    layout = store.layout_for(digest, tmp_path / "layout")
    assert (layout / "blobs/sha256" / digest[7:]).stat().st_nlink == 2
    assert store.config(digest) == config
    assert store.size_of(digest) == sum(path.stat().st_size for path in store.blobs.iterdir())


@pytest.mark.needs("skopeo")
def test_skopeo_reads_the_layout(store: Store, tmp_path: Path) -> None:
    """With the digest unchanged."""
    layer, diff_id = store.write_layer(layers.tree_entries(plant(tmp_path / "tree")), EPOCH)
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    layout = store.layout_for(store.write_image(config, [layer]).digest, tmp_path / "layout")
    shown = run(["skopeo", "inspect", "--format", "{{.Digest}}", f"oci:{layout}"]).stdout.strip()
    assert shown == store.write_image(config, [layer]).digest


def test_a_blob_is_there_whole_or_not_at_all(store: Store) -> None:
    """A writer that fails leaves nothing; one that was killed is swept by the next."""
    with contextlib.suppress(RuntimeError), store.incoming() as file:
        file.write(b"half")
        raise RuntimeError
    assert list(store.path.rglob("*-*")) == []
    dead = store.path / "partial" / "999999999-x"
    dead.write_bytes(b"half")
    kept = store.put_bytes(b"whole", "text/plain")
    assert not dead.exists()
    assert [path.name for path in store.blobs.iterdir()] == [kept.digest[7:]]


def test_a_missing_blob_says_what_to_do(store: Store) -> None:
    """Not a traceback."""
    with pytest.raises(OutsideError, match="is not in the store"):
        store.read_json(f"sha256:{0:064x}")


@pytest.mark.parametrize(
    "fail", [lambda: OSError(errno.ENOSPC, "x"), lambda: OutsideError("dpkg", evidence="a: No space left on device")]
)
def test_a_full_disk_is_one_clear_error(tmp_path: Path, fail: Callable[[], Exception]) -> None:
    """Whether we met it or a command did."""
    with pytest.raises(OutsideError, match=r"the disk that holds .* is full"), room_on(tmp_path):
        raise fail()


@pytest.mark.needs("root", "unshare")
def test_a_full_disk_leaves_no_half_blob(tmp_path: Path) -> None:
    """On a real file system that fills up, in a mount namespace of its own."""
    script = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from images.store.oci import Store
from hardening.foundation.errors import OutsideError
store = Store(Path({str(tmp_path)!r}))
try:
    store.put_bytes(os.urandom(2_000_000), "x")
except OutsideError as error:
    print(error.exit_code, "is full" in str(error), [p for p in store.path.rglob("*") if p.is_file()])
"""
    mount = f'mount -t tmpfs -o size=1m tmpfs "{tmp_path}" && exec "$0" -c "$1"'
    import sys

    done = run(["unshare", "--mount", "sh", "-c", mount, sys.executable, script])
    assert done.stdout == "4 True []\n"
