"""Tools that never heard of Goldsmith accept what it signed, and refuse what it did not."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hardening.foundation.process import Completed, run
from hardening.trust import PREDICATES
from images.artifact import Release
from images.registry.attestations import bundles
from images.registry.release_store import RegistryStore
from images.release.publish import release
from images.trust.envelope import BUNDLE
from tests.support.publishing import built, definition, judged, publisher, running_registry
from tests.support.signing import KeyInMemory

pytestmark = [pytest.mark.slow, pytest.mark.needs("docker-registry", "skopeo", "cosign", "oras", "openssl")]


@dataclass(frozen=True)
class Strange:
    """A release of ours, and what a stranger has: its address and the public key."""

    to: RegistryStore
    made: Release
    folder: Path

    @property
    def reference(self) -> str:
        """The release by its digest."""
        return f"{self.made.repository}@{self.made.digest}"

    def cosign(self, key: Path, predicate_type: str) -> Completed:
        """Verify one attestation as somebody else would."""
        root = self.folder / "root.json"
        if not root.exists():
            run(["cosign", "trusted-root", "create", "--out", str(root)])
        return run(
            [
                "cosign", "verify-attestation", "--key", str(key), "--new-bundle-format", "--insecure-ignore-tlog=true",
                "--trusted-root", str(root), "--allow-insecure-registry", "--allow-http-registry",
                "--type", predicate_type, self.reference,
            ],
            ok=range(256), env={"COSIGN_EXPERIMENTAL": "1", "HOME": str(self.folder)},
        )  # fmt: skip


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strange]:
    folder = tmp_path_factory.mktemp("strange")
    with running_registry(folder / "registry") as address:
        to = publisher(address, folder / "state")
        made = release(to, built(to.store), definition(), judged()).release
        yield Strange(to, made, folder)
        to.ledger.close()


def own_key(strange: Strange) -> Path:
    """The public half of the key that signed."""
    [key] = (strange.to.settings.state_dir / "keys").glob("*.pub")
    return key


@pytest.mark.parametrize("predicate_type", PREDICATES.values(), ids=list(PREDICATES))
def test_cosign_accepts_each_attestation(strange: Strange, predicate_type: str) -> None:
    """By the public key and the type alone."""
    done = strange.cosign(own_key(strange), predicate_type)
    assert done.status == 0, done.stderr
    said = json.loads(b64decode(json.loads(done.stdout.splitlines()[0])["payload"]))
    assert said["predicateType"] == predicate_type
    assert strange.made.digest[7:] in [one["digest"]["sha256"] for one in said["subject"]]


def test_cosign_refuses_another_key(strange: Strange) -> None:
    """So its yes means something."""
    other = strange.folder / "other.pub"
    other.write_text(KeyInMemory().trusted().public)
    assert strange.cosign(other, PREDICATES["provenance"]).status != 0


def test_oras_lists_and_pulls_each_attestation(strange: Strange) -> None:
    """By the tag schema, with the types of their predicates."""
    plain = ["--plain-http", "--distribution-spec", "v1.1-referrers-tag"]
    found = json.loads(run(["oras", "discover", *plain, "--format", "json", strange.reference]).stdout)
    listed = [one for one in found["manifests"] if one["artifactType"] == BUNDLE]
    assert {one["annotations"]["in-toto.io/predicate-type"] for one in listed} >= set(PREDICATES.values())
    ours = bundles(strange.to.registry, strange.made.repository, strange.made.digest)
    assert len(listed) == len(ours)
    for number, one in enumerate(listed):
        manifest = json.loads(run(["oras", "manifest", "fetch", "--plain-http", one["reference"]]).stdout)
        assert manifest["subject"]["digest"] == strange.made.digest
        assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
        [layer] = manifest["layers"]
        file = strange.folder / f"{number}.json"
        blob = f"{strange.made.repository}@{layer['digest']}"
        run(["oras", "blob", "fetch", "--plain-http", "--output", str(file), blob])
        assert file.read_bytes() == ours[number]


def test_openssl_verifies_each_signature(strange: Strange) -> None:
    """From the formats' descriptions alone: what is signed is the type and the payload, each with its length."""
    for number, bundle in enumerate(bundles(strange.to.registry, strange.made.repository, strange.made.digest)):
        envelope = json.loads(bundle)["dsseEnvelope"]
        kind, payload = envelope["payloadType"].encode(), b64decode(envelope["payload"])
        message, signature = strange.folder / f"{number}.message", strange.folder / f"{number}.signature"
        message.write_bytes(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload))
        signature.write_bytes(b64decode(envelope["signatures"][0]["sig"]))
        asked = ["openssl", "dgst", "-sha256", "-verify", str(own_key(strange)), "-signature", str(signature)]
        assert "Verified OK" in run([*asked, str(message)]).stdout
