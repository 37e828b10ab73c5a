"""The trees of what images stand on: unpacked once, never changed, and never half there."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run
from images.build import BuildJob
from images.machine import kernel, trees
from images.packages import debian
from images.store import files as store_files
from images.store import layers
from images.store.files import file_digest
from images.store.oci import Store
from tests.support.building import NOTHING, definition
from tests.support.trees import Layers

pytestmark = pytest.mark.needs("root")

MakeJob = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def base(store: Store, tmp_path: Path) -> str:
    """The content digest of an image with two files in a folder."""
    (tmp_path / "base/etc").mkdir(parents=True)
    for name in ("kept", "gone"):
        (tmp_path / "base/etc" / name).write_text(name)
    layer, diff_id = store.write_layer(layers.tree_entries(tmp_path / "base"), 1_700_000_000)
    return store.write_image({"rootfs": {"type": "layers", "diff_ids": [diff_id]}}, [layer]).digest


@pytest.fixture
def make_job(store: Store, tmp_path: Path) -> Iterator[MakeJob]:
    """Makes a build's job, with its results in a store of its own; overlays can be mounted where it says so."""

    def make(name: str, *, mounts: bool) -> Any:
        work = tmp_path / "work" / name
        work.mkdir(parents=True)
        return SimpleNamespace(name=name, work=work, store=Store(work / "store", below=store), mounts=mounts)

    with trees.mounts_where_possible(tmp_path / "mounts") as possible:
        if not possible:
            pytest.skip("no overlay can be mounted here")
        yield make


def change(tree: Path, tmp_path: Path, name: str) -> None:
    """Lay a layer over a tree that changes a file, takes one away, and brings a folder."""
    above, store = tmp_path / f"above-{name}", Store(tmp_path / f"store-{name}")
    (above / "etc").mkdir(parents=True)
    (above / "srv/new").mkdir(parents=True)
    (above / "srv/new/page").write_text(name)
    (above / "etc/kept").write_text("changed")
    (above / "etc/.wh.gone").touch()
    layer, _ = store.write_layer(layers.tree_entries(above), 1_700_000_000)
    layers.unpack(store.blob(layer.digest), layer.media_type, tree)


def files(tree: Path) -> dict[str, str]:
    return {str(path.relative_to(tree)): path.read_text() for path in sorted(tree.rglob("*")) if path.is_file()}


def test_a_link_of_an_image_leads_to_no_file_of_this_host(tmp_path: Path) -> None:
    """A control's script can plant links where the kernel, its words and systemd's marks are read and written."""
    (secret := tmp_path / "secret").write_text("planted")
    tree = tmp_path / "tree"
    for folder in ("usr/lib", "etc/kernel/cmdline.d", "boot", "var"):
        (tree / folder).mkdir(parents=True)
    for name in ("etc/kernel/cmdline", "etc/kernel/cmdline.d/zz.conf", "boot/vmlinuz-6.12", "etc/.updated"):
        (tree / name).symlink_to(secret)
    (tree / "etc/kernel/cmdline.d/10.conf").write_text("quiet\n")
    assert trees.command_line(tree).split()[-1] == "quiet"
    trees._write(tree, "etc/kernel/cmdline", "ours")
    before = secret.stat().st_mtime_ns
    trees.mark_updated(tree)
    with pytest.raises(OutsideError, match=r"the tree has no /boot/vmlinuz-6\.12"):
        kernel._boot_file(tree, "vmlinuz", "6.12")
    assert (secret.read_text(), secret.stat().st_mtime_ns) == ("planted", before)
    assert (tree / "etc/kernel/cmdline").read_text() == "ours"
    (tmp_path / "host").mkdir()
    (tmp_path / "host/words.conf").write_text("of-the-host")
    shutil.rmtree(tree / "etc/kernel/cmdline.d")
    (tree / "etc/kernel/cmdline.d").symlink_to(tmp_path / "host")
    assert "of-the-host" not in trees.command_line(tree)


def test_dpkg_is_told_what_to_leave_out_and_nothing_else() -> None:
    """Its other options run programs, as root and on this host."""
    text = "# kept\npath-exclude=/usr/share/doc/*\npre-invoke=touch /a\n path-exclude=/b\npath-include /usr/share/c\n"
    file = SimpleNamespace(path="/etc/dpkg/dpkg.cfg.d/zz", content=text)
    job: Any = SimpleNamespace(parent=None, overlay=SimpleNamespace(files=[file]))
    assert trees.dpkg_options(job) == "path-exclude=/usr/share/doc/*\npath-include /usr/share/c\n"


CHANGED = {"etc/kept": "changed", "srv/new/page": "one"}


def test_what_images_stand_on_is_unpacked_once_and_no_build_changes_it(
    store: Store, base: str, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each build sees the base and its own changes; the kept tree lies below, under the digest of the content."""
    unpacked, real = list[str](), Store.unpack
    monkeypatch.setattr(Store, "unpack", lambda *given: (unpacked.append(given[1]), real(*given))[1])
    one = trees.of_base(make_job("one", mounts=True), base)
    change(one, tmp_path, "one")
    two = trees.of_base(make_job("two", mounts=True), base)
    assert (files(one), files(two)) == (CHANGED, {"etc/gone": "gone", "etc/kept": "kept"})
    assert unpacked == [base]
    [kept] = trees.stack(store, trees.key_of(base))
    assert files(kept) == files(two)
    for tree in (one, two):
        trees.unmount(tree)


def test_where_nothing_can_be_mounted_it_is_unpacked_for_each_build(
    store: Store, base: str, make_job: MakeJob, tmp_path: Path
) -> None:
    """With the same result; nothing is kept."""
    tree = trees.of_base(make_job("one", mounts=False), base)
    change(tree, tmp_path, "one")
    assert files(tree) == CHANGED
    assert not trees.has(store, trees.key_of(base))


def test_a_tree_that_was_not_unpacked_to_its_end_is_not_used(
    store: Store, base: str, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets its name last."""

    def half(_store: Store, _digest: str, directory: Path) -> Path:
        (directory / "etc").mkdir(parents=True)
        raise OutsideError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(Store, "unpack", half)
        with pytest.raises(OutsideError, match="full"):
            trees.of_base(make_job("one", mounts=True), base)
    assert not trees.has(store, trees.key_of(base))
    tree = trees.of_base(make_job("two", mounts=True), base)
    assert files(tree) == {"etc/gone": "gone", "etc/kept": "kept"}
    trees.unmount(tree)


def test_builds_beside_each_other_give_their_files_the_modes_of_images(tmp_path: Path) -> None:
    """A thread with mounts of its own has a mask of its own: what is not of an image stays its user's alone there."""

    def mode(name: str) -> int:
        (tmp_path / name).touch()
        return stat.S_IMODE((tmp_path / name).stat().st_mode)

    def build() -> list[int]:
        with trees.mounts_where_possible(tmp_path / "mounts"):
            with store_files.image_modes():
                inside = mode("of an image")
            return [inside, mode("of this host")]

    def two_builds() -> list[int]:
        with store_files.image_modes(), ThreadPoolExecutor(1) as beside:
            found = [*beside.submit(build).result(), mode("of another image")]
        return [*found, mode("afterwards")]

    before = os.umask(store_files.ON_THIS_HOST)
    try:
        with ThreadPoolExecutor(1) as process:  # this thread may have a mask of its own from an earlier test
            assert process.submit(two_builds).result() == [0o644, 0o600, 0o644, 0o600]
    finally:
        os.umask(before)


ESCAPES = 'mkdir "/e"; chroot "/e"; chdir "../" x 60; chroot "."; exec "sh", "-c", @ARGV'
POSTINST = """#!/bin/sh
set -eu
chown 5:5 /etc/of-a-test
chmod 4755 /etc/of-a-test
try() {
    if text=$("$@" 2>/dev/null) && [ -z "${text##*yes*}" ]; then echo "$*" >>/could; fi
}
try perl -e '{escapes}' 'cat {key}'
try perl -e '{escapes}' '[ -w /var/lib ] && echo yes'
try sh -c 'mount -t tmpfs none /mnt && echo yes'
try sh -c '[ -w /proc/sys/kernel/core_pattern ] && echo yes'
try sh -c 'chmod 666 /dev/null && echo yes'
try sh -c 'echo >/run/goldsmith/install.sh && echo yes'
perl -e '{escapes}' 'touch {beside}' || :
"""


def child_with(postinst: str, layers: Layers, tmp_path: Path) -> BuildJob:
    """The job of a child, on packages of debian-base, that adds a package with a file and this script."""
    source, deb = tmp_path / "source", tmp_path / "of-a-test_1_all.deb"
    for folder in ("DEBIAN", "etc"):
        (source / folder).mkdir(parents=True)
    (source / "etc/of-a-test").write_text("of the package")
    control = "Package: of-a-test\nVersion: 1\nArchitecture: all\nMaintainer: tests\nDescription: of a test\n"
    (source / "DEBIAN/control").write_text(control)
    (source / "DEBIAN/postinst").write_text(postinst)
    (source / "DEBIAN/postinst").chmod(0o755)
    run(["dpkg-deb", "--root-owner-group", "--build", str(source), str(deb)])
    stanza = f"{control}Filename: {deb.name}\nSize: {deb.stat().st_size}\nSHA256: {file_digest(deb)}\n"
    package = debian.package_of(stanza)
    layers.link_to(tmp_path / "state", layers.container)
    (work := tmp_path / "work").mkdir()
    return BuildJob(
        name="m-child", definition=definition('packages = ["of-a-test"]\nbase = { golden = "m-base" }', "m-child"),
        definition_folder=tmp_path, platform="linux/amd64", overlay=NOTHING, packages=(package,), debs={package: deb},
        stanzas=stanza, sources="", parent=f"sha256:{layers.container}", upstream=None, work=work,
        store=Store(tmp_path / "state/store"),
    )  # fmt: skip


@pytest.mark.needs("mirror", "mmdebstrap", "setpriv", "unshare", "dpkg-deb")
def test_scripts_of_a_childs_packages_see_and_change_its_tree_alone(layers: Layers, tmp_path: Path) -> None:
    """They ran as the host's root with all capabilities: one chroot more led to the signing key."""
    (key := tmp_path / "release.key").write_text("yes, planted")
    words = {"{escapes}": ESCAPES, "{key}": str(key), "{beside}": str(beside := tmp_path / "beside")}
    text = POSTINST
    for name, word in words.items():
        text = text.replace(name, word)
    layer = tmp_path / "layer"
    with trees.private_mounts():
        trees.install_layer(child_with(text, layers, tmp_path), layer, 1_700_000_000)
    file, could = layer / "upper/etc/of-a-test", layer / "upper/could"
    assert (could.read_text() if could.exists() else "") == ""
    assert not beside.exists()
    assert (file.read_text(), file.stat().st_uid, file.stat().st_mode & 0o7777) == ("of the package", 5, 0o4755)
    assert "Package: of-a-test\nStatus: install ok installed" in (layer / "upper/var/lib/dpkg/status").read_text()


@pytest.mark.needs("mirror", "mmdebstrap", "setpriv", "unshare", "dpkg-deb")
def test_a_package_whose_script_fails_is_shown_with_what_it_said(layers: Layers, tmp_path: Path) -> None:
    """On its output and its errors, which end in a file where it is shut in."""
    job = child_with("#!/bin/sh\necho told out\necho told err >&2\nexit 3\n", layers, tmp_path)
    with trees.private_mounts(), pytest.raises(OutsideError, match="apt could not build m-child") as error:
        trees.install_layer(job, tmp_path / "layer", 1_700_000_000)
    assert "told out\ntold err\n" in error.value.evidence
    assert "exit status 3" in error.value.evidence
