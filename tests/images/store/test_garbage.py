"""What the local store may forget."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import digest
from hardening.foundation.settings import Settings
from images.artifact import Artifact, Package
from images.context import Context
from images.machine import trees
from images.store.garbage import _over, collect
from images.store.oci import DISK_BLOCKS, DISKS, LAYER, MACHINE_CONFIG, TREES

NOW = datetime(2026, 11, 25, tzinfo=UTC)
DEB = Package("openssl", "3.5.9-1", "amd64", "ab" * 32)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A context of its own; nothing here asks for an engine or a registry."""
    return Context(Settings(state=tmp_path), NOW, lambda: "", lambda: "")


def built(context: Context, text: str, built_at: datetime) -> Artifact:
    """An artifact of the image `base` whose one layer is `text`, in store and ledger."""
    store = context.store
    layer = store.put_bytes(text.encode(), LAYER)
    manifest = store.write_image({"rootfs": {"type": "layers", "diff_ids": [digest(text)]}}, [layer], {})
    artifact = Artifact("base", "linux/amd64", digest(text), manifest.digest, {}, (DEB,), built_at, built_at)
    context.ledger.record_artifact(artifact)
    return artifact


def age(context: Context) -> None:
    """Let everything in store and pool be two days old."""
    then = (NOW - timedelta(days=2)).timestamp()
    for path in context.settings.state_dir.rglob("*"):
        os.utime(path, (then, then))


def test_a_superseded_artifact_goes_and_the_newest_stays_whole(context: Context) -> None:
    """Its manifest, configuration and layer go; shown first, removed on request."""
    old = built(context, "old", NOW - timedelta(days=9))
    new = built(context, "new", NOW - timedelta(days=2))
    age(context)
    shown = collect(context, apply=False)[0]
    assert len(shown.files) == 3
    assert context.store.has(old.digest)
    collect(context, apply=True)
    assert not context.store.has(old.digest)
    assert context.store.size_of(new.digest) > 0
    assert all(context.store.has(layer.digest) for layer in context.store.layers_of(new.digest))
    assert collect(context, apply=True)[0].files == ()


def test_what_a_fleet_runs_stays(context: Context) -> None:
    """A content that was seen running is kept however old it is."""
    old = built(context, "old", NOW - timedelta(days=9))
    built(context, "new", NOW - timedelta(days=2))
    context.ledger.seen_fleet("web", {"web-1": old.digest}, NOW)
    age(context)
    assert collect(context, apply=True)[0].files == ()
    assert context.store.has(old.digest)


def test_what_is_young_may_belong_to_a_build_under_way(context: Context) -> None:
    """A blob that nothing names yet is left alone for a day."""
    stray = context.store.put_bytes(b"under way", LAYER)
    moment = NOW.timestamp()
    os.utime(context.store.blob(stray.digest), (moment, moment))
    assert collect(context, apply=True)[0].files == ()
    age(context)
    assert collect(context, apply=True)[0].files == (context.store.blob(stray.digest),)


def test_packages_of_kept_artifacts_stay_in_the_pool(context: Context) -> None:
    """The others go."""
    built(context, "new", NOW)
    pool = context.index.home / "pool"
    for sha256 in (DEB.sha256, "cd" * 32):
        (pool / sha256).mkdir(parents=True)
        (pool / sha256 / "x.deb").write_bytes(b"deb")
    age(context)
    assert collect(context, apply=True)[1].files == (pool / ("cd" * 32) / "x.deb",)
    assert replace(DEB).sha256 in {path.parent.name for path in pool.glob("*/*")}


def built_machine(context: Context, text: str, built_at: datetime, below: str) -> Artifact:
    """An artifact of the machine `server`: a disk, and a tree on the layer `below`."""
    store = context.store
    layer = store.put_bytes(hashlib.sha256(text.encode()).digest(), DISK_BLOCKS)
    manifest = store.write_image({"disk": {"linear": layer.digest}}, [layer], {}, MACHINE_CONFIG)
    disk = store.own_disk(layer.digest)
    disk.parent.mkdir(exist_ok=True)
    disk.write_text(text)
    for key, under in ((below, ()), (trees.key_of(manifest.digest), (below,))):
        folder = context.settings.state_dir / f"new-{key[:8]}"
        (folder / "upper/etc").mkdir(parents=True)
        trees.keep(store, key, folder, under)
    artifact = Artifact("server", "linux/amd64", digest(text), manifest.digest, {}, (DEB,), built_at, built_at)
    context.ledger.record_artifact(artifact)
    return artifact


def test_disks_and_trees_of_superseded_machines_go_and_those_of_the_newest_stay(context: Context) -> None:
    """With the trees that its own stands on, which other machines share."""
    old = built_machine(context, "old", NOW - timedelta(days=9), "packages-of-old")
    new = built_machine(context, "new", NOW - timedelta(days=2), "packages-of-new")
    age(context)
    assert context.store.whole(old.digest)
    _, _, disks, folders, *_ = collect(context, apply=True)
    assert [path.read_text() for path in context.store.own_place(DISKS, "").iterdir()] == ["new"]
    assert len(disks.files) == 1
    assert {path.name for path in folders.files} == {"packages-of-old", trees.key_of(old.digest)}
    assert not context.store.whole(old.digest)
    assert context.store.whole(new.digest)
    assert trees.has(context.store, trees.key_of(new.digest))
    assert list(context.store.partial.iterdir()) == []


def test_the_tree_of_a_container_image_is_kept_while_builds_use_it(context: Context) -> None:
    """It can be unpacked again, unlike that of a machine."""
    new = built(context, "new", NOW)
    (folder := context.settings.state_dir / "new").mkdir()
    (folder / "tree").mkdir()
    trees.keep(context.store, key := trees.key_of(new.digest), folder)
    age(context)
    trees.used(context.store, key)
    collect(context, apply=True)
    assert trees.has(context.store, key)
    age(context)
    collect(context, apply=True)
    assert not trees.has(context.store, key)
    assert context.store.has(new.digest)


def test_a_machine_keeps_no_disk_of_what_it_stands_on(context: Context) -> None:
    """It was made from that one's tree, and each is as large as its own."""
    below = built_machine(context, "below", NOW - timedelta(days=9), "packages")
    built_machine(context, "newer", NOW - timedelta(days=3), "packages-of-newer")
    above = replace(built_machine(context, "above", NOW - timedelta(days=2), trees.key_of(below.digest)), name="above")
    context.ledger.record_artifact(replace(above, inputs={"parent": below.digest}))
    age(context)
    collect(context, apply=True)
    texts = {path.read_text() for path in context.store.own_place(DISKS, "").iterdir()}
    assert "below" not in texts
    assert context.store.whole(above.digest)


@pytest.mark.parametrize("parent", ["pending", "sha256:../x", None, 7, ["a"]])
def test_what_a_registry_says_that_an_artifact_stands_on_may_be_anything(context: Context, parent: object) -> None:
    """Nobody checks it where the ledger is filled from there."""
    new = built(context, "new", NOW)
    context.ledger.record_artifact(replace(new, inputs={"parent": parent}))
    age(context)
    assert collect(context, apply=True)[0].files == ()


def test_what_vanishes_while_it_is_looked_at_is_no_garbage(context: Context) -> None:
    """Runs that end remove their temporary folders at any moment."""
    stays, goes = (context.settings.state_dir / name for name in ("stays", "goes"))

    def files() -> Iterator[Path]:
        for path in (stays, goes):
            path.touch()
            os.utime(path, (0, 0))
            yield path
        goes.unlink()

    assert _over(context, "files", files(), set(), lambda path: path.name).files == (stays,)


def test_a_machine_is_whole_with_its_disk_and_its_tree_alone(context: Context) -> None:
    """Its manifest promises both."""
    machine = built_machine(context, "new", NOW, "packages")
    disk = context.store.disk_of(machine.digest)
    assert disk
    disk.rename(disk.with_suffix(".away"))
    assert not context.store.whole(machine.digest)
    disk.with_suffix(".away").rename(disk)
    assert context.store.whole(machine.digest)
    (context.store.own_place(TREES, trees.key_of(machine.digest))).rename(context.settings.state_dir / "away")
    assert not context.store.whole(machine.digest)


def test_a_tree_whose_layers_below_are_gone_is_none(context: Context) -> None:
    """It would be mounted on nothing."""
    machine = built_machine(context, "new", NOW, "packages")
    key = trees.key_of(machine.digest)
    assert len(trees.stack(context.store, key)) == 2
    context.store.own_place(TREES, "packages").rename(context.settings.state_dir / "away")
    assert not trees.has(context.store, key)
    with pytest.raises(OutsideError, match="no longer on this machine"):
        trees.stack(context.store, key)


def test_a_layer_that_two_builds_made_at_once_is_kept_once(context: Context) -> None:
    """The second finds it there, and leaves it as it is."""
    for text in ("first", "second"):
        folder = context.settings.state_dir / text
        (folder / "tree").mkdir(parents=True)
        (folder / "tree" / text).touch()
        trees.keep(context.store, "packages", folder)
        assert not folder.exists()
    [kept] = trees.stack(context.store, "packages")
    assert [path.name for path in kept.iterdir()] == ["first"]


def test_what_was_told_of_packages_and_images_that_are_gone_goes(context: Context) -> None:
    """Each night asks apt anew, and each image of others has hundreds of entries. What a kept artifact needs stays."""
    base = context.store.write_image({"os": "linux"}, [context.store.put_bytes(b"base", LAYER)], {})
    new = built(context, "new", NOW - timedelta(days=2))
    context.ledger.record_artifact(replace(new, inputs={"parent": base.digest}))
    apt, texts, other = context.index.home, context.store.path / "texts", "cd" * 32
    kept, gone = set[Path](), set[Path]()
    for name in (f"entries/{DEB.sha256}/x.deb", f"told/{base.digest[7:]}/x.deb"):
        kept.add(apt / name)
        gone.add(apt / Path(name).parent.with_name(other) / "x.deb")
    verified = context.store.path / "verified"
    kept |= {texts / f"{base.digest[7:]}.json", verified / base.digest[7:] / "ab"}
    gone |= {
        texts / f"{other}.json",
        verified / other / "ab",
        apt / "tmpabc/x.deb",
        apt / "trixie-amd64-1/tmpabc/x",
        context.store.path / "tmpa/x",
    }
    for path in (*kept, *gone, apt / "trixie-amd64-1/resolved/a"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    age(context)
    collect(context, apply=True)
    assert {path for path in (*kept, *gone) if path.exists()} == kept
    assert all(
        context.store.has(one)
        for one in (base.digest, *(layer.digest for layer in context.store.layers_of(base.digest)))
    )
    assert (apt / "trixie-amd64-1/resolved/a").exists(), "a mirror that stands still is asked the same again"
    collect(replace(context, now=NOW + timedelta(days=30)), apply=True)
    assert not (apt / "trixie-amd64-1/resolved/a").exists()
