"""What the local store may forget."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hardening.foundation.hashing import digest
from hardening.foundation.settings import Settings
from images.artifact import Artifact, Package
from images.context import Context
from images.store.garbage import collect
from images.store.oci import LAYER

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
