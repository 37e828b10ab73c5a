"""`image.verify-trust` and `key.*`, as they are typed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from images.artifact import Release
from images.documents import Document
from images.registry.attestations import bundles
from images.registry.referrers import attach, detach_all
from images.registry.release_store import RegistryStore
from images.release.channels import revoke
from images.release.publish import release
from images.store.oci import Store
from images.trust.envelope import BUNDLE
from images.trust.statement import PROVENANCE
from tests.support.loop import Goldsmith
from tests.support.publishing import Begin, at, built, definition, judged
from tests.support.signing import KeyInMemory

pytestmark = pytest.mark.needs("docker-registry", "skopeo")
POLICY = """
[[trust.keys]]
name = "them"
public = '''
%s'''
"""


def published(to: RegistryStore, name: str) -> Release:
    """A release, by the clock of commands."""
    now = datetime.now(UTC).replace(microsecond=0)
    return release(at(to, now), built(to.store, name), definition(name), judged(now)).release


@pytest.fixture
def publication(begin: Begin) -> tuple[RegistryStore, Release]:
    """A publisher by the clock of commands, and its release of `web`."""
    to, (made,) = begin(published, ("web",))
    return at(to, datetime.now(UTC).replace(microsecond=0)), made


@pytest.fixture
def to(publication: tuple[RegistryStore, Release]) -> RegistryStore:
    """The publisher."""
    return publication[0]


@pytest.fixture
def made(publication: tuple[RegistryStore, Release]) -> Release:
    """A release of `web`."""
    return publication[1]


@pytest.fixture
def inv(to: RegistryStore) -> Goldsmith:
    """The command line, on the publisher's state."""
    return Goldsmith(to.settings.state_dir, "", settings={"GOLDSMITH_REGISTRY__ADDRESS": to.registry.address})


def test_what_an_image_proves_is_listed(inv: Goldsmith, made: Release) -> None:
    """A line for each attestation, by its key."""
    [key] = inv("key.show", "--json").json
    lines = inv("image.verify-trust", f"{made.repository}:candidate", "--json").json
    assert {line["key"] for line in lines} == {key["name"]}
    assert {line["digest"] for line in lines} == {made.digest}
    [provenance] = [line["says"] for line in lines if line["attestation"] == PROVENANCE]
    assert provenance.startswith("SLSA provenance: 2 packages")
    shown = inv("image.verify-trust", f"{made.repository}@{made.digest}")
    assert "SLSA provenance" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80


def test_the_first_thing_that_is_wrong_is_named(
    inv: Goldsmith, to: RegistryStore, made: Release, tmp_path: Path
) -> None:
    """By the word that docs/trust.md explains, with exit code 3: another key, a revocation, nothing at all."""
    ref = f"{made.repository}@{made.digest}"
    policy = tmp_path / "content/hardening/policies/theirs.toml"
    policy.parent.mkdir(parents=True)
    own = Path("hardening/policies/default.toml").read_text()
    policy.write_text(own + POLICY % KeyInMemory().trusted().public)
    other = inv.with_(tmp_path / "content")

    def refused(run: Goldsmith, *options: str) -> str:
        answer = run("image.verify-trust", ref, *options)
        assert answer.code == 3
        return answer.err

    assert "is not trusted (unknown-key)" in refused(other, "--policy", "theirs")
    detach_all(to.registry, made.repository, made.digest)
    assert "is not trusted (unsigned)" in refused(inv)
    revoke(to, ref, "a back door")
    assert "is not trusted (revoked): it was revoked: a back door" in refused(inv)


def test_a_policy_that_names_keys_does_not_ask_for_ours(inv: Goldsmith, made: Release, tmp_path: Path) -> None:
    """Which may be at a cloud that this machine cannot reach."""
    [key] = inv("key.show", "--json").json
    policy = tmp_path / "content/hardening/policies/theirs.toml"
    policy.parent.mkdir(parents=True)
    policy.write_text(Path("hardening/policies/default.toml").read_text() + POLICY % key["public"])
    away = {"GOLDSMITH_SIGNING__COMMAND": '["true"]', "GOLDSMITH_SIGNING__PUBLIC_KEY": str(tmp_path / "none.pub")}
    other = replace(inv.with_(tmp_path / "content"), settings={**inv.settings, **away})
    ref = f"{made.repository}@{made.digest}"
    assert other("image.verify-trust", ref, "--policy", "theirs").code == 0
    assert "signing.public_key" in other("image.verify-trust", ref).err


def test_an_index_that_somebody_else_made_over_signed_content_is_refused(
    inv: Goldsmith, to: RegistryStore, made: Release, tmp_path: Path
) -> None:
    """With all attestations of the content's release attached to it, and any dates; and with none."""
    index = to.registry.get(f"{made.repository}@{made.digest}")
    dates = {f"{to.settings.annotation_prefix}expires-at": "2099-01-01T00:00:00+00:00"}
    store = Store(tmp_path / "forged")
    forged = store.put_json({**index.data, "annotations": {**index.annotations, **dates}}, index.media_type)
    to.registry.push_root(store.path, forged, f"{made.repository}@{forged.digest}", index_only=True)
    ref = f"{made.repository}@{forged.digest}"
    copied = [Document(BUNDLE, bundle) for bundle in bundles(to.registry, made.repository, made.digest)]
    assert "is not trusted (unsigned)" in inv("image.verify-trust", ref).err
    attach(to.registry, made.repository, forged, copied)
    answer = inv("image.verify-trust", ref)
    assert (answer.code, "is not trusted (other-subject)" in answer.err) == (3, True)


def test_keys_are_shown_and_rotated(inv: Goldsmith, made: Release) -> None:
    """What was signed before stays trusted; the private half never shows."""
    [before] = inv("key.show", "--json").json
    old, new = inv("key.rotate", "--json").json
    assert Path(new["where"]).read_text().strip() == new["public"]
    assert old["public"] == before["public"] != new["public"]
    assert inv("image.verify-trust", f"{made.repository}@{made.digest}").code == 0
    for answer in (inv("key.show"), inv("key.rotate")):
        assert answer.code == 0
        assert new["name"] in answer.out
        assert "PRIVATE" not in answer.out + answer.err
