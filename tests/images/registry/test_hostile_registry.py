"""A registry that means harm: nothing is written outside the state directory, and each of its tricks is one error."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hardening.findings import CheckResult, Verdict
from hardening.foundation import limits
from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import ATTESTATIONS, DOCUMENT_BYTES, IMAGE_BYTES, IMAGE_LAYERS, Limit
from hardening.foundation.settings import ROOT, Settings
from hardening.trust import PREDICATES
from images.artifact import Artifact, Descriptor
from images.ledger import Ledger, ScanRecord
from images.plan.upstream import LOCK, Upstream
from images.registry import client, http
from images.registry.answers import loaded, read_as
from images.registry.attestations import _bundle, bundles
from images.registry.channel_documents import ChannelDocuments
from images.registry.client import RegistryClient
from images.registry.referrers import attached, detach_all
from images.registry.release_store import RegistryStore
from images.registry.releases import release_at
from images.store.oci import INDEX, MANIFEST, Store, as_json
from images.trust.channel_document import ChannelDocument, SignedChannel, UnreadChannelsError
from images.trust.envelope import BUNDLE, Signer, bundled
from images.trust.keys import signer
from tests.images.store.test_tars import END, EVIL
from tests.images.store.test_tars import member as tar_member
from tests.support.hostile import MIB, Drip, Hostile, Reply, costly_json, deep_json, endless, hostile, redirect
from tests.support.publishing import NOW
from tests.support.signing import signed

pytestmark = pytest.mark.needs("skopeo")
PREFIX = "dev.goldsmith."
ZERO = f"sha256:{0:064x}"
OCI_CONFIG, OCI_LAYER = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
DATES = {
    "org.opencontainers.image.title": "web",
    "org.opencontainers.image.created": "2026-11-25T12:00:00Z",
    f"{PREFIX}warn-at": "2026-12-20T12:00:00Z",
    f"{PREFIX}expires-at": "2026-12-25T12:00:00Z",
}
PATHS = ["sha256:../../../escaped", "../../escaped", "/escaped", "sha256:" + "0" * 63, "sha256:" + "A" * 64, "sha512:0"]


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Stage:
    """A hostile registry that holds what a test puts there, and who asks it."""

    def __init__(self, server: Hostile, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.sizes: dict[str, int] = {}
        self.settings = Settings(state=folder / "state", retry_for=timedelta(0))
        self.settings.state_dir.mkdir(parents=True)
        self.registry = RegistryClient(server.authority, self.settings, own=True)
        self.repository = self.registry.repository("web")
        server["/v2/"] = Reply(b"{}", headers={"Docker-Distribution-Api-Version": "registry/2.0"})
        server.fallback = Reply(b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}', status=404)

    def manifest(self, tag: str, value: Any, media_type: str = MANIFEST) -> str:
        """Serve a manifest, JSON or bytes, by its tag and its digest; its digest."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.sizes[digest(data)] = len(data)
        for name in (tag, digest(data)):
            self.server[f"/v2/web/manifests/{name}"] = lambda asked: Reply(
                b"" if asked.method == "DELETE" else data, 202 if asked.method == "DELETE" else 200,
                {"Content-Type": media_type},
            )  # fmt: skip
        return digest(data)

    def blob(self, data: bytes, reply: Reply | None = None, size: int = -1) -> dict[str, Any]:
        """Serve a blob, or something else in its place; its descriptor."""
        self.server[f"/v2/web/blobs/{digest(data)}"] = reply or Reply(data)
        return {"mediaType": OCI_LAYER, "digest": digest(data), "size": len(data) if size < 0 else size}

    def image(self, tag: str, *layers: dict[str, Any], **more: Any) -> str:
        """Serve an image."""
        config = {**self.blob(b'{"rootfs":{"type":"layers","diff_ids":[]}}'), "mediaType": OCI_CONFIG}
        return self.manifest(tag, {"schemaVersion": 2, "mediaType": MANIFEST, "config": config,
                                   "layers": list(layers), **more})  # fmt: skip

    def index(self, tag: str, *children: Any, **more: Any) -> str:
        """Serve an index."""
        return self.manifest(tag, {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(children), **more}, INDEX)

    def child(self, found: str, platform: str = "linux/amd64") -> dict[str, Any]:
        """A line of an index."""
        system, _, architecture = platform.partition("/")
        return {"mediaType": MANIFEST, "digest": found, "size": 10,
                "platform": {"os": system, "architecture": architecture}}  # fmt: skip

    def release(self, *children: dict[str, Any]) -> str:
        """Serve a release; its reference by digest."""
        return f"{self.repository}@{self.index('candidate', *children, annotations=DATES)}"

    def channels(
        self,
        revoked: Sequence[str] = (),
        *,
        issued: datetime = NOW,
        expires: datetime = NOW + timedelta(days=7),
        repository: str = "",
        key: Signer | None = None,
        left: str = "",
        **channels: str,
    ) -> None:
        """Serve a signed document that says where the channels point, and what is revoked for a hole."""
        points = {name: SignedChannel(digest=digest, left=left) for name, digest in channels.items()}
        where = repository or self.repository
        made = ChannelDocument(
            repository=where, version=int(issued.timestamp()), issued=issued, expires=expires, channels=points
        ).revoking(revoked, issued, "a hole")
        self.served_channels(bundled(made.payload, key or signer(self.settings, NOW.date())))

    def served_channels(self, bundle: bytes) -> None:
        """Serve something as the document of the channels."""
        self.image("channels", annotations={f"{PREFIX}channels": bundle.decode(errors="replace")})

    def outside(self) -> list[Path]:
        """What was written that is not in the state directory."""
        return [path for path in self.folder.rglob("*") if self.settings.state_dir not in (path, *path.parents)]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with hostile() as server:
        made = Stage(server, tmp_path)
        yield made
        assert made.outside() == []
        assert not list(made.settings.state_dir.rglob("escaped"))


def refused(act: Callable[[], Any], words: str = ".") -> str:
    """What the one error of an act says, which is the outside's."""
    with pytest.raises(OutsideError, match=words) as error:
        act()
    assert error.value.exit_code == 4
    return str(error.value)


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "a": 1}', '{"m": [{"digest": "x", "digest": "y"}]}'])
def test_a_key_that_stands_twice_is_malformed(text: str) -> None:
    """At the top and further in, also with the same value: another reader may go by the other one."""
    refused(lambda: loaded(text, "web:1"), r"^web:1 is malformed: duplicate key: '(a|digest)'")
    assert loaded('{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}', "web:1")["a"] == {"a": 1}


def test_a_layer_that_only_engines_would_read_is_no_image(stage: Stage, tmp_path: Path) -> None:
    """Programs in Go take `Layers` for `layers`, and of both the last: so does skopeo, which fetches what we would not
    scan.
    """
    good, evil = stage.blob(b"good"), stage.blob(b"evil")
    found = stage.image("one", good, Layers=[good, evil])
    argv = ["skopeo", "copy", "--src-tls-verify=false", f"docker://{stage.repository}@{found}"]
    subprocess.run([*argv, f"dir:{stage.settings.state_dir / 'copy'}"], check=True, capture_output=True)
    assert (stage.settings.state_dir / "copy" / evil["digest"][7:]).read_bytes() == b"evil"
    upstream = Upstream(stage.settings, Store(stage.settings.state_dir / "store"), NOW)
    refused(lambda: upstream.bring(f"{stage.repository}:one"), "malformed: it writes the field layers as 'Layers'")
    stage.index("all", stage.child(found), Manifests=[])
    refused(lambda: upstream.lock(f"{stage.repository}:all", stage.settings.state_dir), "the field manifests")
    config = {"rootfs": {"type": "layers", "diff_ids": []}, "config": {"User": "1000", "Labels": {"user": "a"}}}
    whole = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}

    def configured(**more: Any) -> None:
        data = json.dumps({**config, **more}).encode()
        stage.manifest("two", {**whole, "config": {**stage.blob(data), "mediaType": OCI_CONFIG}})
        stage.registry.configuration(f"{stage.repository}:two")

    configured()
    refused(lambda: configured(RootFS={"diff_ids": [ZERO]}), "the field rootfs as 'RootFS'")
    refused(lambda: configured(config={"onbuild": ["ADD http://x /x"]}), "the field OnBuild as 'onbuild'")
    refused(lambda: configured(config={"User": "1000", "u\u017fer": "0"}), "the field User as")


def test_of_two_for_one_platform_none_is_taken(stage: Stage) -> None:
    """skopeo copies the first, and an engine runs it: scanned or pinned would be the other. Engines know an
    architecture by other names, too, and count what names no system as their own.
    """
    good, evil = stage.image("good", stage.blob(b"good")), stage.image("evil", stage.blob(b"evil"))
    upstream = Upstream(stage.settings, Store(stage.settings.state_dir / "store"), NOW)
    copy = ["skopeo", "copy", "--src-tls-verify=false", "--override-os=linux", "--override-arch=amd64"]
    stage.index("two", stage.child(evil), stage.child(good))
    place = stage.settings.state_dir / "copy"
    subprocess.run([*copy, f"docker://{stage.repository}:two", f"dir:{place}"], check=True, capture_output=True)
    assert digest((place / "manifest.json").read_bytes()) == evil
    for other in ("linux/amd64", "linux/x86_64", "Linux/X86-64", "/amd64"):
        stage.index("two", stage.child(evil, other), stage.child(good))
        refused(lambda: upstream.bring(f"{stage.repository}:two"), "has 2 manifests for linux/amd64")
        refused(lambda: upstream.lock(f"{stage.repository}:two", stage.settings.state_dir), "has 2 manifests")
        refused(lambda: stage.registry.configuration(f"{stage.repository}:two"), "has 2 manifests")
    systems = (stage.child(evil, "windows/amd64"), stage.child(good, "windows/amd64"), stage.child(evil, "/unknown"))
    stage.index("two", stage.child(good, "linux/x86_64"), stage.child(evil, "linux/aarch64"), *systems)
    assert upstream.lock(f"{stage.repository}:two", stage.settings.state_dir).platforms == {
        "linux/amd64": good, "linux/arm64": evil
    }  # fmt: skip


def test_a_layer_that_engines_would_unpack_otherwise_is_no_image(stage: Stage) -> None:
    """They look at its first bytes: what is called a plain tar, and is one, may be gzip too, of another tar."""
    evil, upstream = EVIL + END, Upstream(stage.settings, Store(stage.settings.state_dir / "store"), NOW)
    both = tar_and_gzip(b"good", evil)
    assert gzip.decompress(both) == evil
    with tarfile.open(fileobj=io.BytesIO(both), mode="r:") as tar:
        assert [tar.extractfile(info).read() for info in tar] == [b"good"]  # type: ignore[union-attr]

    def bring(layer: bytes, *unpacked: bytes) -> None:
        config = {"rootfs": {"type": "layers", "diff_ids": list(map(digest, unpacked))}, "os": "linux"}
        found = {**stage.blob(json.dumps({**config, "architecture": "amd64"}).encode()), "mediaType": OCI_CONFIG}
        listed = {**stage.blob(layer), "mediaType": OCI_LAYER.removesuffix("+gzip")}
        stage.manifest("one", {"schemaVersion": 2, "mediaType": MANIFEST, "config": found, "layers": [listed]})
        upstream.bring(f"{stage.repository}:one")

    for unpacked in ([evil], [], [evil, both]):
        refused(lambda unpacked=unpacked: bring(both, *unpacked), "does not unpack to what its configuration names")
    assert not list(upstream.store.path.glob("blobs/sha256/*"))
    bring(evil, evil)


def tar_and_gzip(inside: bytes, unpacked: bytes) -> bytes:
    """A tar of a file whose content is `inside`, which as gzip unpacks to `unpacked`: gzip passes over the tar."""
    body = gzip.compress(unpacked)[10:]
    said = {slice(0, 12): b"\x1f\x8b\x08\x04" + bytes(5) + b"\x03" + struct.pack("<H", 1012 + len(END))}
    return tar_member("", inside, raw=said) + END + body


@pytest.mark.parametrize("path", PATHS)
def test_a_digest_that_is_a_path_names_no_file(stage: Stage, path: str) -> None:
    """In the store, in a reference, in an index, and in what refers to a digest."""
    store = Store(stage.settings.state_dir / "store")
    for act in (store.blob, store.has, store.read_json, store.disk):
        refused(lambda act=act: act(path), "is not a digest")
    refused(lambda: stage.registry.find(f"{stage.repository}@{path}"), "is not a digest")
    refused(lambda: release_at(stage.registry, stage.release(stage.child(path))), "malformed")
    stage.index(ZERO.replace(":", "-"), {"mediaType": MANIFEST, "digest": path, "size": 1})
    refused(lambda: attached(stage.registry, stage.repository, ZERO), r"(?s)web:sha256-0.* is malformed: manifests\.0")
    refused(lambda: detach_all(stage.registry, stage.repository, ZERO), "malformed")


NO_LISTS: dict[str, Any] = {
    "no list": {"schemaVersion": 2},
    "a number": {"manifests": 1},
    "words": {"manifests": ["sha256"]},
    "no digest": {"manifests": [{"mediaType": MANIFEST, "size": 1}]},
    "no size": {"manifests": [{"mediaType": MANIFEST, "digest": ZERO}]},
    "a size below nothing": {"manifests": [{"mediaType": MANIFEST, "digest": ZERO, "size": -1}]},
    "notes that are none": {"manifests": [{"mediaType": MANIFEST, "digest": ZERO, "size": 1, "annotations": [1]}]},
}


@pytest.mark.parametrize("value", NO_LISTS.values(), ids=NO_LISTS)
def test_a_list_of_referrers_that_is_none_is_one_error(stage: Stage, value: dict[str, Any]) -> None:
    """Not a KeyError: it names the tag and what is wrong in it."""
    stage.manifest(ZERO.replace(":", "-"), value, INDEX)
    told = refused(lambda: attached(stage.registry, stage.repository, ZERO), "malformed")
    assert f"{stage.repository}:sha256-000" in told


def test_an_image_that_says_it_would_fill_the_disk_is_not_fetched(stage: Stage) -> None:
    """By the sizes that its manifest announces, and by the number of its layers; nothing of it is asked for."""
    huge, many = [stage.blob(b"layer", size=IMAGE_BYTES.most)], [stage.blob(b"layer")] * (IMAGE_LAYERS.most + 1)
    for layers, limit in ((huge, "image.bytes"), (many, "image.layers")):
        stage.image("one", *layers)
        upstream = Upstream(stage.settings, Store(stage.settings.state_dir / "store"), NOW)
        refused(lambda upstream=upstream: upstream.bring(f"{stage.repository}:one"), f"exceeds the limit {limit}")


def test_a_lock_file_stays_readable_for_those_who_share_the_checkout(stage: Stage) -> None:
    """Commands write with a mask that is for state; the lock file is content, and git carries no such mode."""
    stage.index("one", stage.child(stage.image("it")))
    upstream = Upstream(stage.settings, Store(stage.settings.state_dir / "store"), NOW)
    before = os.umask(0o077)
    try:
        modes = []
        for _ in range(2):
            upstream.lock(f"{stage.repository}:one", stage.settings.state_dir)
            modes.append((stage.settings.state_dir / LOCK).stat().st_mode & 0o777)
    finally:
        os.umask(before)
    assert modes == [0o644, 0o644]


NO_PLATFORMS: dict[str, Any] = {
    "no platform": {"manifests": [{"mediaType": MANIFEST, "digest": ZERO, "size": 1, "platform": "linux/amd64"}]},
    "a path": {"manifests": [{"mediaType": MANIFEST, "digest": PATHS[0], "size": 1, "platform": {"os": "linux"}}]},
}


@pytest.mark.parametrize("value", [*list(NO_LISTS.values())[1:], *NO_PLATFORMS.values()])
def test_an_upstream_index_that_is_none_is_one_error(stage: Stage, value: dict[str, Any]) -> None:
    """Where it is fetched and where it is pinned; no lock file is written."""
    stage.manifest("one", value, INDEX)
    upstream = Upstream(stage.settings, Store(stage.settings.state_dir / "store"), NOW)
    refused(lambda: upstream.bring(f"{stage.repository}:one"), "malformed")
    refused(lambda: upstream.lock(f"{stage.repository}:one", stage.settings.state_dir), "malformed")


@pytest.mark.parametrize(
    "body", [b"[1]", b"no JSON", deep_json(100_000), b"\xff\xfe"], ids=["list", "words", "deep", "bytes"]
)
def test_a_manifest_that_is_none_is_one_error(stage: Stage, body: bytes) -> None:
    stage.manifest("one", body)
    refused(lambda: stage.registry.find(f"{stage.repository}:one"))


def test_other_bytes_than_were_asked_for_are_refused(stage: Stage) -> None:
    """A manifest, a configuration, a layer, and a document under another one's digest."""
    good = stage.image("one", layer := stage.blob(b"layer"))
    other = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": layer, "layers": []}).encode()
    stage.server[f"/v2/web/manifests/{good}"] = Reply(other, headers={"Docker-Content-Digest": good})
    refused(lambda: stage.registry.find(f"{stage.repository}@{good}"))
    stage.server[f"/v2/web/blobs/{layer['digest']}"] = Reply(b"liar!")
    stage.image("one", layer)
    upstream = Upstream(stage.settings, Store(stage.settings.state_dir / "store"), NOW)
    refused(lambda: upstream.bring(f"{stage.repository}:one"), "returned other bytes than requested")
    config = json.loads(json.dumps(stage.blob(b"{}")))["digest"]
    stage.server[f"/v2/web/blobs/{config}"] = Reply(b'{"rootfs":{"diff_ids":["a"]}}')
    stage.manifest("two", {"schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
                           "config": {"mediaType": OCI_CONFIG, "digest": config, "size": 2}})  # fmt: skip
    refused(lambda: stage.registry.diff_ids(f"{stage.repository}:two"))
    assert not list(stage.settings.state_dir.glob("store/blobs/sha256/*"))


def bundle(stage: Stage, subject: str, data: bytes, reply: Reply | None = None) -> None:
    """Attach something that is called a signed attestation to a digest."""
    about = {"mediaType": INDEX, "digest": subject, "size": 1}
    found = stage.image("doc", stage.blob(data, reply), artifactType=BUNDLE, subject=about)
    stage.index(subject.replace(":", "-"), listed(stage, found))


def sign(stage: Stage, reference: str) -> None:
    """Attach all that a release must carry, signed by the key of the stage's installation."""
    subject = reference.partition("@")[2]
    key, about = signer(stage.settings, NOW.date()), {"mediaType": INDEX, "digest": subject, "size": 1}
    said = (stage.blob(signed(key, address, subject)) for address in PREDICATES.values())
    found = [stage.image("doc", one, artifactType=BUNDLE, subject=about) for one in said]
    stage.index(subject.replace(":", "-"), *(listed(stage, one) for one in found))


def listed(stage: Stage, found: str) -> dict[str, Any]:
    """The line by which an index lists it."""
    return {"mediaType": MANIFEST, "digest": found, "size": stage.sizes[found], "artifactType": BUNDLE}


BAD_DOCUMENTS = {
    "nothing": b"",
    "no JSON": b"<html>",
    "bytes": b"\xff\xfe",
    "another value": b'{"subject": 1}',
    "deep": deep_json(100_000),
    "costly": costly_json(MIB),
}


@pytest.mark.parametrize("data", BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
@pytest.mark.parametrize("kind", [Verdict, ScanRecord, tuple[CheckResult, ...], Artifact], ids=str)
def test_bytes_that_are_no_document_are_one_error(kind: Any, data: bytes) -> None:
    """Whatever stands where one of our values should."""
    refused(lambda: read_as(kind, data, "an attached document"), "an attached document is malformed")


@pytest.mark.parametrize("data", BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
def test_a_malformed_attestation_proves_nothing_and_show_says_so(stage: Stage, data: bytes) -> None:
    """Whatever is attached as one."""
    reference = stage.release(stage.child(stage.image("content", stage.blob(b"layer"))))
    bundle(stage, reference.partition("@")[2], data)
    with closing(Ledger.open(stage.settings.database_url)) as ledger:
        store = Store(stage.settings.state_dir / "store")
        shown = RegistryStore(stage.registry, ledger, store, NOW, "ann").show(reference)
    assert "is not trusted (malformed)" in shown.untrusted
    assert (shown.verdict, shown.attestations) == ("unknown", ())


def test_attestations_in_other_bytes_of_many_parts_or_about_others_are_refused(stage: Stage) -> None:
    """What a registry gives for a digest is hashed, by skopeo and by us; and too many are not fetched at all.

    What a line leads to that is no document about the image gives nothing, and takes nothing from the others.
    """
    bundle(stage, ZERO, b"{}", Reply(b"[]"))
    refused(lambda: bundles(stage.registry, stage.repository, ZERO), "other bytes")
    two = [stage.blob(b"1"), stage.blob(b"2")]
    for layers, subject in ((two, ZERO), (two[:1], f"sha256:{1:064x}"), (two[:1], None)):
        about = {"subject": {"mediaType": INDEX, "digest": subject, "size": 1}} if subject else {}
        found = stage.image("doc", *layers, artifactType=BUNDLE, **about)
        stage.index(ZERO.replace(":", "-"), listed(stage, found))
        assert bundles(stage.registry, stage.repository, ZERO) == (b"",)
    about = {"mediaType": INDEX, "digest": ZERO, "size": 1}
    good = stage.image("good", stage.blob(b"good"), artifactType=BUNDLE, subject=about)
    stage.index(ZERO.replace(":", "-"), listed(stage, found), listed(stage, good))
    assert bundles(stage.registry, stage.repository, ZERO) == (b"", b"good")
    elsewhere = {**two[0], "digest": digest(b"elsewhere"), "urls": ["https://example.com/it"]}
    away = stage.image("away", {**elsewhere, "mediaType": FOREIGN}, artifactType=BUNDLE, subject=about)
    absent = {**listed(stage, good), "digest": f"sha256:{2:064x}"}
    for line in (listed(stage, away), absent):
        stage.index(ZERO.replace(":", "-"), line, listed(stage, good))
        assert bundles(stage.registry, stage.repository, ZERO) == (b"", b"good")
    large = {**listed(stage, good), "size": DOCUMENT_BYTES.most}
    stage.index(ZERO.replace(":", "-"), listed(stage, good), {**large, "artifactType": "a/x"})
    refused(lambda: bundles(stage.registry, stage.repository, ZERO), DOCUMENT_BYTES.name)
    stage.index(ZERO.replace(":", "-"), *[listed(stage, found)] * (ATTESTATIONS.most + 1))
    refused(lambda: bundles(stage.registry, stage.repository, ZERO), str(ATTESTATIONS.name))


def test_attestations_of_our_own_registry_need_no_process(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come by HTTP; what does not come so simply is pulled, with all its checks: one that is kept elsewhere, is
    larger than a document may be, or has other bytes than its digest says; and all of another registry.
    """
    about = {"mediaType": INDEX, "digest": ZERO, "size": 1}
    pulled = list[str]()
    pull = RegistryClient.pull
    monkeypatch.setattr(RegistryClient, "pull", lambda self, *args: (pulled.append(args[0]), pull(self, *args)))

    def served(blob: dict[str, Any]) -> tuple[bytes, ...]:
        pulled.clear()
        found = stage.image("doc", blob, artifactType=BUNDLE, subject=about)
        stage.index(ZERO.replace(":", "-"), listed(stage, found))
        return bundles(stage.registry, stage.repository, ZERO)

    assert served(stage.blob(b"good")) == (b"good",)
    assert pulled == []
    stage.server["/elsewhere"] = Reply(b"moved")
    away = Reply(b"", 307, {"Location": f"http://{stage.server.authority}/elsewhere"})
    assert served(stage.blob(b"moved", away)) == (b"moved",)
    assert pulled
    for wrong in (Reply(b"evil"), Reply(b"x" * (DOCUMENT_BYTES.most + 1))):
        with pytest.raises(OutsideError):
            served(stage.blob(b"other", wrong))
        assert pulled
    stage.registry = RegistryClient(stage.server.authority, stage.settings)
    assert served(stage.blob(b"foreign")) == (b"foreign",)
    assert pulled


def test_nothing_beside_the_attestations_is_pulled_with_them(stage: Stage) -> None:
    """A list may have thousands of lines, each with blobs of any size, and a document thousands of parts."""
    about = {"mediaType": INDEX, "digest": ZERO, "size": 1}
    stage.registry = RegistryClient(stage.server.authority, stage.settings)
    good = stage.image("good", stage.blob(b"good"), artifactType=BUNDLE, subject=about)
    parts = stage.image("parts", *map(stage.blob, (b"one", b"two")), artifactType=BUNDLE, subject=about)
    other = stage.image("other", stage.blob(b"other"), artifactType="a/x", subject=about)
    children = stage.index("children", listed(stage, other), artifactType=BUNDLE, subject=about)
    lines = [listed(stage, one) for one in (good, parts, children)]
    stage.index(ZERO.replace(":", "-"), *lines, {**listed(stage, other), "artifactType": "a/x"})
    assert bundles(stage.registry, stage.repository, ZERO) == (b"good", b"", b"")
    asked = {path.rpartition("/")[2] for path in stage.server.paths}
    assert digest(b"good") in asked
    assert not asked & {other, *map(digest, (b"one", b"two", b"other"))}


def test_no_more_is_pulled_once_it_is_too_much(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came is counted after each document."""
    monkeypatch.setattr(limits, "ATTESTATION_BYTES", Limit("registry.attestation-bytes", 4000, "bytes"))
    about = {"mediaType": INDEX, "digest": ZERO, "size": 1}
    stage.registry = RegistryClient(stage.server.authority, stage.settings)
    data = [one.encode() * 2500 for one in "abcd"]
    found = [stage.image("doc", stage.blob(one), artifactType=BUNDLE, subject=about) for one in data]
    stage.index(ZERO.replace(":", "-"), *(listed(stage, one) for one in found))
    refused(lambda: bundles(stage.registry, stage.repository, ZERO), "registry.attestation-bytes")
    asked = {path.rpartition("/")[2] for path in stage.server.paths}
    assert [digest(one) in asked for one in data] == [True, True, False, False]


@pytest.mark.parametrize("own", [True, False])
def test_attestations_are_read_up_to_a_size_of_all_together(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, *, own: bool
) -> None:
    """By HTTP and from what was pulled; each of them once."""
    monkeypatch.setattr(limits, "ATTESTATION_BYTES", Limit("registry.attestation-bytes", 4000, "bytes"))
    about = {"mediaType": INDEX, "digest": ZERO, "size": 1}
    two = [stage.image(one, stage.blob(one.encode() * 1500), artifactType=BUNDLE, subject=about) for one in "ab"]
    stage.registry = stage.registry if own else RegistryClient(stage.server.authority, stage.settings)
    stage.index(ZERO.replace(":", "-"), *[listed(stage, two[0])] * 2)
    assert len(bundles(stage.registry, stage.repository, ZERO)) == 2
    stage.index(ZERO.replace(":", "-"), *(listed(stage, one) for one in two), listed(stage, two[0]))
    refused(lambda: bundles(stage.registry, stage.repository, ZERO), "registry.attestation-bytes")


@pytest.mark.parametrize("changed", ["manifest", "blob"])
def test_an_attestation_whose_bytes_are_others_on_our_disk_gives_nothing(tmp_path: Path, changed: str) -> None:
    """Whoever brought them there: they are hashed before they are read."""
    store = Store(tmp_path)
    blob, other = (store.put_bytes(one, BUNDLE) for one in (b"said", b"evil"))

    def manifest(layer: Descriptor) -> Descriptor:
        empty, about = as_json(store.put_bytes(b"{}", "a/empty")), {"mediaType": INDEX, "digest": ZERO, "size": 1}
        parts = {"config": empty, "layers": [as_json(layer)], "subject": about}
        return store.put_json({"schemaVersion": 2, "mediaType": MANIFEST, **parts}, MANIFEST)

    good = manifest(blob)
    assert _bundle(lambda name: store.blob(name).read_bytes(), good.digest, ZERO) == b"said"
    instead = {"manifest": (good, manifest(other)), "blob": (blob, other)}[changed]
    path, evil = (store.blob(one.digest) for one in instead)
    data = evil.read_bytes()
    path.unlink()
    path.write_bytes(data)
    assert _bundle(lambda name: store.blob(name).read_bytes(), good.digest, ZERO) == b""


@pytest.mark.parametrize("data", BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
def test_channels_whose_document_cannot_be_read_are_unread(stage: Stage, data: bytes) -> None:
    """Nothing of them is known then, and nothing is unrevoked."""
    stage.served_channels(data)
    with closing(Ledger.open(stage.settings.database_url)) as ledger:
        documents = ChannelDocuments(stage.registry, ledger, NOW)
        for act in (lambda: documents.read(stage.repository), lambda: documents.revocation()(stage.repository, ZERO)):
            with pytest.raises(UnreadChannelsError, match="is malformed") as caught:
                act()
    assert "./goldsmith image.sign-channels web" in caught.value.hint


def test_an_index_with_a_choice_or_without_the_platform_is_no_release(stage: Stage) -> None:
    """The engine's choice is not ours to guess; a child for another platform changes nothing."""
    good, evil = stage.image("good", stage.blob(b"good")), stage.image("evil", stage.blob(b"evil"))
    fine = stage.release(stage.child(good, "linux/arm64"), stage.child(evil), stage.child(good, "unknown/unknown"))
    assert release_at(stage.registry, fine).content == evil
    for children in ((), (stage.child(good, "linux/arm64"),), (stage.child(good), stage.child(evil)),
                     (stage.child(good), {**stage.child(evil), "platform": None})):  # fmt: skip
        refused(lambda children=children: release_at(stage.registry, stage.release(*children)), "linux/amd64")


def test_what_stays_where_it_was_to_be_removed_is_one_error(stage: Stage) -> None:
    """That it is unknown is believed only where it is not there afterwards."""
    mine = stage.image("mine")
    path = f"/v2/web/manifests/{mine}"
    served, unknown = stage.server.routes[path], stage.server.fallback
    stage.server[path] = lambda asked: unknown if asked.method == "DELETE" else served(asked)
    refused(lambda: stage.registry.delete(stage.repository, mine), "and does not remove it")
    stage.registry.delete(stage.repository, ZERO)


def test_a_list_of_referrers_removes_nothing_that_does_not_refer(stage: Stage) -> None:
    """A list that names a good release as an attached document does not get it deleted."""
    mine = stage.image("mine", stage.blob(b"1"), subject={"mediaType": MANIFEST, "digest": ZERO, "size": 1})
    victim = stage.image("victim", stage.blob(b"2"))
    stage.index(ZERO.replace(":", "-"), *({"mediaType": MANIFEST, "digest": d, "size": 1} for d in (mine, victim)))
    detach_all(stage.registry, stage.repository, ZERO)
    deleted = [one.path.rpartition("/")[2] for one in stage.server.asked if one.method == "DELETE"]
    assert mine in deleted
    assert victim not in deleted


MEASURED = """
import json, resource, sys
from datetime import datetime, timedelta
from pathlib import Path
from hardening.findings import CheckResult, Verdict
from hardening.foundation.errors import GoldsmithError
from hardening.foundation.settings import ROOT, Settings
from images.artifact import Release
from images.registry.answers import read_as
from images.registry.attestations import bundles
from images.registry.referrers import attached
from images.registry.channel_documents import ChannelDocuments
from images.registry.client import RegistryClient
from images.store.oci import Store
from images.plan.upstream import Upstream
from tests.support.hostile import costly_json
from tests.support.publishing import NOW

address, state = sys.argv[1:]
settings = Settings(state=Path(state), retry_for=timedelta(0))
registry, web = RegistryClient(address, settings, own=True), f"{address}/web"
many = costly_json(2_900_000)
zero = f"sha256:{0:064x}"
acts = [
    lambda: registry.find(f"{web}:endless"),
    lambda: registry.tags(web),
    lambda: bundles(registry, web, zero),
    lambda: Upstream(settings, Store(settings.state_dir / "store"), NOW).bring(f"{web}:big"),
    lambda: registry.find(f"{web}:costly").annotations,
    lambda: attached(registry, web, f"sha256:{1:064x}"),
    lambda: read_as(tuple[CheckResult, ...], many, "it"),
    lambda: read_as(Verdict, b'{"reasons":' + many + b"}", "it"),
]
told = []
for act in acts:
    try:
        act()
        told.append("nothing")
    except GoldsmithError as error:
        told.append(f"{error.exit_code} {error.message}")
# Not RUSAGE_SELF: that remembers the size of whoever started this process.
own = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
print(json.dumps([told, [own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]]))
"""


def test_bombs_stay_small_on_disk_and_in_memory(stage: Stage) -> None:
    """Bodies without an end for a manifest, the tags, a document and a layer; and JSON that costs many times itself."""
    stage.server["/v2/web/manifests/endless"] = Reply(endless(b" " * MIB), headers={"Content-Type": MANIFEST})
    stage.server["/v2/web/tags/list"] = Reply(endless(b" " * MIB))
    bundle(stage, ZERO, b"sbom", Reply(endless(b"x" * MIB)))
    stage.image("big", stage.blob(b"layer", Reply(endless(b"x" * MIB))))
    costly = b'{"schemaVersion":2,"annotations":' + costly_json(2_900_000) + b"}"
    stage.manifest("costly", costly)
    stage.manifest(f"sha256-{1:064x}", costly.replace(b"annotations", b"manifests"), INDEX)
    argv = [sys.executable, "-c", MEASURED, stage.server.authority, str(stage.settings.state_dir)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT)
    told, peaks = json.loads(done.stdout)
    assert all(one.startswith("4 ") for one in told), told
    assert all("sends more than it announced" in told[index] for index in (2, 3)), told
    left = sum(path.stat().st_size for path in stage.settings.state_dir.rglob("*") if path.is_file())
    assert left < MIB
    assert max(peaks) < 300 * 1024, peaks


def test_pages_of_tags_without_an_end_are_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page leads on to another one: memory or time ends it."""
    monkeypatch.setattr(client, "ASK_SECONDS", 3)
    page = json.dumps({"name": "web", "tags": [f"{n:0100d}" for n in range(1000)]}).encode()
    stage.server["/v2/web/tags/list"] = Reply(page, headers={"Link": '</v2/web/tags/list?last=x>; rel="next"'})
    refused(lambda: stage.registry.tags(stage.repository))


def test_a_body_that_is_cut_short_or_never_comes_is_one_error(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncated by the registry; or a byte now and then, until our time is up."""
    monkeypatch.setattr(client, "ASK_SECONDS", 2)
    monkeypatch.setattr(client, "COPY_SECONDS", 2)
    monkeypatch.setattr(http, "HEAD_SECONDS", Limit("registry.head-seconds", 1))
    stage.server["/v2/web/manifests/one"] = Reply(
        b'{"schemaVersion": 2', claim=4000, headers={"Content-Type": MANIFEST}
    )
    refused(lambda: stage.registry.find(f"{stage.repository}:one"))
    stage.server["/v2/web/manifests/one"] = Drip([b"{"], claim=4000, headers={"Content-Type": MANIFEST})
    refused(lambda: stage.registry.find(f"{stage.repository}:one"), "did not finish within 2 s")
    for reply in (Reply(b"lay", claim=5), Drip([b"l"], claim=5)):
        stage.image("slow", stage.blob(b"layer", reply))
        upstream = Upstream(stage.settings, Store(stage.settings.state_dir / "store"), NOW)
        refused(lambda upstream=upstream: upstream.bring(f"{stage.repository}:slow"))
    assert not list(stage.settings.state_dir.glob("store/blobs/sha256/*"))


def test_a_loop_of_redirects_ends(stage: Stage) -> None:
    stage.server["/v2/web/manifests/one"] = redirect("/v2/web/manifests/one")
    refused(lambda: stage.registry.find(f"{stage.repository}:one"))


def trusted(server: Hostile, folder: Path, **more: Any) -> RegistryClient:
    """A registry that is asked by HTTPS and trusted, though it stands on loopback."""
    settings = Settings(state=folder / "state", retry_for=timedelta(0), registry={"ca_file": server.ca, **more})  # type: ignore[arg-type]
    registry = RegistryClient(server.authority, settings, own=True)
    registry._plain = lambda _reference: False  # type: ignore[method-assign]
    return registry


def test_https_does_not_lead_on_to_http(tmp_path: Path) -> None:
    """Neither what is asked for nor a login goes over the network in the clear."""
    with hostile(tmp_path) as server, hostile() as plain:
        there = f"http://0.0.0.0:{plain.authority.rpartition(':')[2]}"  # what Go does not take for this machine
        server["/v2/"] = Reply(b"{}")
        server["/v2/web/manifests/one"] = redirect(f"{there}/one")
        plain.fallback = Reply(b"{}")
        registry = trusted(server, tmp_path)
        refused(lambda: registry.find(f"{server.authority}/web:one"), "leads on to plain HTTP, which is not followed")
        assert plain.asked == []


def test_a_login_does_not_go_to_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The redirect may be followed, as registries lead to where they store; the password stays."""
    login = tmp_path / "auth.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(login))
    with hostile(tmp_path) as server:
        login.write_text(json.dumps({"auths": {server.authority: {"auth": base64.b64encode(b"ann:secret").decode()}}}))

        def ask(asked: Any) -> Reply:
            if "Authorization" not in asked.headers:
                return Reply(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            return Reply(b"{}") if asked.path == "/v2/" else redirect(f"{server.elsewhere}/stolen")

        server["/v2/"] = ask
        server["/v2/web/manifests/one"] = ask
        server["/stolen"] = Reply(b"{}", headers={"Content-Type": MANIFEST})
        trusted(server, tmp_path).find(f"{server.authority}/web:one")
        stolen = [one for one in server.asked if one.path == "/stolen"]
        assert stolen
        assert not any("Authorization" in one.headers for one in stolen)
        assert any("Authorization" in one.headers for one in server.asked)


def test_insecure_concerns_the_configured_registry_alone(tmp_path: Path) -> None:
    """An upstream image, or a fleet's tag, of another registry is still asked by HTTPS and must prove itself."""
    settings = Settings(state=tmp_path, registry={"address": "own.example:5000/golden", "insecure": True})  # type: ignore[arg-type]
    for registry in (RegistryClient("own.example:5000/golden", settings), RegistryClient("other.example", settings)):
        assert registry._access("own.example:5000/golden/web:one", "src-") == ["--src-tls-verify=false"]
        assert registry._access("other.example/web:one", "") == []
        assert registry._access("own.example/web:one", "") == []
        assert registry._access("127.0.0.1:5000/web:one", "") == ["--tls-verify=false"]
