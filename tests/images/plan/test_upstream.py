"""Upstream bases: pinned by digest, moved only on purpose, and built upon like our own."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.content import load_toml, read_toml
from hardening.foundation.errors import ContentError
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT, Registry, Settings
from images.build.flow import brought
from images.model import Definition
from images.plan.upstream import LOCK, Pin, Upstream, render_lock
from images.store.oci import Store
from tests.support.publishing import NOW

STATUS = """\
Package: libc6
Status: install ok installed
Source: glibc
Version: 2.41-12
Architecture: amd64

Package: old
Status: deinstall ok config-files
Version: 1
Architecture: amd64
"""
DOCKER = "application/vnd.docker"


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    """A content root of its own holds the pins."""
    (tmp_path / "root/images/definitions").mkdir(parents=True)
    settings = Settings(state=tmp_path / "state", content=(tmp_path / "root",), retry_for="0s")
    return Upstream(settings, Store(tmp_path / "state/store"), NOW)


def publish(
    directory: Path, reference: str, files: dict[str, str], annotations: dict[str, str] | None = None, **claims: str
) -> str:
    """Push an image in Docker's own media types, as many upstreams still are; its digest."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    directory.mkdir()
    diff_id = hashlib.sha256(plain.getvalue()).hexdigest()
    config: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
    }
    config |= claims
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": f"{DOCKER}.distribution.manifest.v2+json",
        "config": _blob(directory, json.dumps(config).encode(), f"{DOCKER}.container.image.v1+json"),
        "layers": [_blob(directory, gzip.compress(plain.getvalue()), f"{DOCKER}.image.rootfs.diff.tar.gzip")],
    }
    manifest |= {"annotations": annotations} if annotations else {}
    text = json.dumps(manifest)
    (directory / "manifest.json").write_text(text)
    (directory / "version").write_text("Directory Transport Version: 1.1\n")
    run(["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"dir:{directory}", f"docker://{reference}"])
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _blob(directory: Path, data: bytes, media_type: str) -> dict[str, Any]:
    name = hashlib.sha256(data).hexdigest()
    (directory / name).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}


def debian(**more: str) -> dict[str, str]:
    release = 'ID=debian\nVERSION_CODENAME="trixie"\n'
    return {"usr/lib/os-release": release, "var/lib/dpkg/status": STATUS, **more}


def test_the_lock_file_reads_back(tmp_path: Path) -> None:
    """What is written is TOML with the very pins."""
    pin = Pin(digest="sha256:" + "1" * 64, platforms={"linux/amd64": "sha256:" + "2" * 64})
    (tmp_path / "lock.toml").write_text(render_lock({"r.example.com/a:1": pin, "b:2": pin}))
    assert read_toml(tmp_path / "lock.toml")["images"]["r.example.com/a:1"] == pin.model_dump()


def test_the_documentations_example_is_a_definition() -> None:
    """What people copy loads as it stands, and stands on an upstream tag."""
    wanted = load_toml(ROOT / "docs/examples/upstream-example/image.toml", Definition, name="upstream-example")
    assert wanted.base.image == "registry.example.com/upstream/debian:13"


def test_what_is_not_pinned_is_not_built_on(upstream: Upstream) -> None:
    """And the way to pin it is named."""
    with pytest.raises(ContentError, match="is not pinned") as error:
        upstream.locked("registry.example.com/debian:13")
    assert "image.lock" in error.value.hint


@pytest.mark.needs("docker-registry", "skopeo")
def test_a_tag_is_pinned_and_stays_where_it_was(upstream: Upstream, registry: str, tmp_path: Path) -> None:
    """The tag moves upstream; the pin does not, until it is locked again."""
    reference, root = f"{registry}/moving:13", tmp_path / "root"
    first = publish(tmp_path / "one", reference, debian())
    assert upstream.lock(reference, root) == Pin(digest=first, platforms={"linux/amd64": first})
    second = publish(tmp_path / "two", reference, debian(extra="newer"))
    assert upstream.locked(reference) == first
    assert upstream.lock(reference).digest == second
    assert upstream.locked(reference) == second
    assert "moving:13" in (root / LOCK).read_text()


@pytest.mark.needs("docker-registry", "skopeo")
def test_an_upstream_image_tells_what_it_is(upstream: Upstream, registry: str, tmp_path: Path) -> None:
    """Its distribution and its installed packages, by its own files, once fetched without any registry."""
    reference = f"{registry}/debian:13"
    digest = publish(tmp_path / "one", reference, debian())
    upstream.lock(reference, tmp_path / "root")
    assert upstream.fetch(reference) == digest
    assert upstream.bootstrap(reference).suite == "trixie"
    (libc,) = upstream.packages(reference)
    assert (libc.name, libc.version, libc.source) == ("libc6", "2.41-12", "glibc")
    assert libc.sha256 == ""
    tree = upstream.store.unpack(digest, tmp_path / "tree")
    assert (tree / "var/lib/dpkg/status").read_text() == STATUS


@pytest.mark.needs("docker-registry", "skopeo")
def test_another_distribution_is_refused(upstream: Upstream, registry: str, tmp_path: Path) -> None:
    """Its packages are none that our index knows."""
    reference = f"{registry}/alien:1"
    publish(tmp_path / "one", reference, {"usr/lib/os-release": "ID=alien\n"})
    upstream.lock(reference, tmp_path / "root")
    with pytest.raises(ContentError, match="is not Debian"):
        upstream.bootstrap(reference)


@pytest.mark.needs("docker-registry", "skopeo")
def test_a_platform_that_upstream_lacks_is_named(upstream: Upstream, registry: str, tmp_path: Path) -> None:
    """Before anything is built on another."""
    reference = f"{registry}/amd:1"
    publish(tmp_path / "one", reference, debian())
    upstream.lock(reference, tmp_path / "root")
    arm = Upstream(upstream.settings.model_copy(update={"platform": "linux/arm64"}), upstream.store, NOW)
    with pytest.raises(ContentError, match="has no linux/arm64"):
        arm.locked(reference)


@pytest.mark.needs("docker-registry", "skopeo")
def test_a_tag_that_is_not_there_is_content_gone_wrong(upstream: Upstream, registry: str, tmp_path: Path) -> None:
    """Whoever wrote the definition can mend it, so that it is no failure of the outside."""
    with pytest.raises(ContentError):
        upstream.lock(f"{registry}/nowhere:1", tmp_path / "root")


def test_content_that_another_machine_published_is_brought_and_not_built(
    registry: str, upstream: Upstream, tmp_path: Path
) -> None:
    """By the inputs that the shared ledger knows; where the registry lacks it, it is built here as ever."""
    digest = publish(tmp_path / "image", f"{registry}/golden/web:2026", debian())
    settings = upstream.settings.model_copy(update={"registry": Registry(address=f"{registry}/golden")})
    known: dict[str, Any] = {"a": SimpleNamespace(digest=digest, dockerfile="")}
    known["b"] = SimpleNamespace(digest="sha256:" + "b" * 64, dockerfile="")
    known["c"] = SimpleNamespace(digest=digest, dockerfile="sha256:" + "c" * 64)
    ledger = SimpleNamespace(artifact_by_input=lambda _name, _platform, inputs: known.get(inputs))
    web = SimpleNamespace(definition=SimpleNamespace(is_machine=False))
    context: Any = SimpleNamespace(settings=settings, ledger=ledger, store=upstream.store, definitions={"web": web})

    def plan(inputs: str) -> Any:
        return SimpleNamespace(name="web", platform="linux/amd64", input_digest=inputs, artifact=None)

    assert not any(brought(context, upstream, plan(inputs)) for inputs in ("unknown", "b", "c", ""))
    assert not upstream.store.has(digest)
    assert brought(context, upstream, plan("a"))
    assert upstream.store.whole(digest)
    assert not brought(context, upstream, plan("a")), "it is here"
