"""Upstream bases: signed by whom the policy says, or trusted on first use and said to be that."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.errors import ContentError, RefusedError
from hardening.foundation.settings import ROOT, Settings
from images.artifact import Release
from images.plan.upstream import LOCK, Pin, Upstream, render_lock
from images.registry.login import write_login
from images.registry.referrers import detach_all
from images.registry.release_store import RegistryStore
from images.store.oci import Store
from images.trust.keys import own_keys
from images.trust.verification import Fault, UntrustedError
from tests.support.publishing import NOW, Begin, built, published
from tests.support.signing import UPSTREAM_RULE, KeyInMemory

pytestmark = pytest.mark.needs("docker-registry", "skopeo")


@dataclass(frozen=True)
class Golden:
    """A release of another team, and what somebody who builds on it has."""

    to: RegistryStore
    made: Release
    folder: Path

    def upstream(self, rule: str = "", **more: Any) -> Upstream:
        """Bases, by a floor with `rule`; with a lock file and a store of their own."""
        root = self.folder / "root"
        (root / "images/definitions").mkdir(parents=True, exist_ok=True)
        policy = root / "hardening/policies/strict.toml"
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text((ROOT / "hardening/policies/default.toml").read_text() + rule)
        settings = Settings(
            state=self.folder / "other",
            content=(root,),
            judging={"floor": "strict", "policies": ["strict"], "roots": [root]},
            retry_for=timedelta(seconds=1),
            **more,
        )
        return Upstream(settings, Store(settings.state_dir / "store"), NOW)

    @property
    def reference(self) -> str:
        """What a definition names as its base."""
        return f"{self.made.repository}:candidate"

    def lock(self, upstream: Upstream) -> str:
        """Pin it in the own content root; the digest."""
        return upstream.lock(self.reference, self.folder / "root").digest

    def swapped(self, reference: str) -> tuple[Upstream, str]:
        """Bases with this one pinned by its key; and other content, pushed (`…@`: by its digest) and pinned instead."""
        [key] = own_keys(self.to.settings)
        upstream = self.upstream(UPSTREAM_RULE % key.public)
        self.lock(upstream)
        evil = built(self.to.store, text="evil").digest
        layout = self.to.store.layout_for(evil, self.folder / "evil", {"org.opencontainers.image.ref.name": "evil"})
        self.to.registry.push(layout, "evil", reference.replace("@", f"@{evil}"))
        lock = self.folder / "root" / LOCK
        lock.write_text(lock.read_text().replace(self.made.content, evil))
        return upstream, evil


@pytest.fixture
def golden(begin: Begin, tmp_path: Path) -> Golden:
    to, (made,) = begin(published, ("one", 0))
    return Golden(to, made, tmp_path)


def test_a_base_is_pinned_and_fetched_where_the_named_key_signed_it(golden: Golden) -> None:
    """The index that is pinned; what is in the store was checked as it came."""
    [key] = own_keys(golden.to.settings)
    upstream = golden.upstream(UPSTREAM_RULE % key.public)
    assert golden.lock(upstream) == golden.made.digest
    assert upstream.fetch(golden.reference) == golden.made.content
    detach_all(golden.to.registry, golden.made.repository, golden.made.digest)
    assert upstream.fetch(golden.reference) == golden.made.content
    golden.to.registry.delete(golden.made.repository, golden.made.digest)
    assert upstream.fetch(golden.reference) == golden.made.content, "no registry is asked again"


def test_a_base_in_the_store_is_checked_for_each_reference_and_rule(golden: Golden) -> None:
    """What was verified for a reference by the key of one rule is not verified for another reference or key."""
    [key] = own_keys(golden.to.settings)
    upstream = golden.upstream(UPSTREAM_RULE % key.public)
    golden.lock(upstream)
    upstream.fetch(golden.reference)
    strict = golden.upstream(UPSTREAM_RULE % KeyInMemory().trusted().public)
    with pytest.raises(UntrustedError) as caught:
        strict.fetch(golden.reference)
    assert caught.value.fault is Fault.UNKNOWN_KEY
    ruled = golden.upstream(UPSTREAM_RULE % key.public)
    other = golden.reference.replace(":candidate", ":other")
    lock = golden.folder / "root" / LOCK
    lock.write_text(lock.read_text().replace(golden.reference, other))
    detach_all(golden.to.registry, golden.made.repository, golden.made.digest)
    with pytest.raises(UntrustedError):
        ruled.fetch(other)


def test_a_base_of_another_key_is_neither_pinned_nor_fetched(golden: Golden) -> None:
    """The pin of a time when nobody asked does not let it in."""
    assert golden.lock(golden.upstream()) == golden.made.digest
    strict = golden.upstream(UPSTREAM_RULE % KeyInMemory().trusted().public)
    for act in (lambda: golden.lock(strict), lambda: strict.fetch(golden.reference)):
        with pytest.raises(UntrustedError) as caught:
            act()
        assert caught.value.fault is Fault.UNKNOWN_KEY
    assert not strict.store.has(golden.made.content)


def test_a_pin_that_was_changed_to_another_content_is_not_fetched(golden: Golden) -> None:
    """The index that it names is signed, and does not list what would be built on."""
    upstream, evil = golden.swapped(f"{golden.made.repository}@")
    with pytest.raises(UntrustedError) as caught:
        upstream.fetch(golden.reference)
    assert caught.value.fault is Fault.OTHER_SUBJECT
    assert not upstream.store.has(evil)


def test_a_stranger_in_the_store_is_no_base(golden: Golden) -> None:
    """A scan brings any image into the store; a changed pin makes no base of it, and the file and the key are named."""
    stranger = f"{golden.to.registry.address}/evil/base:1"
    upstream, evil = golden.swapped(stranger)
    assert upstream.bring(stranger) == evil
    for act in (upstream.fetch, upstream.bootstrap, upstream.packages):
        with pytest.raises(UntrustedError) as caught:
            act(golden.reference)
        assert caught.value.fault is Fault.OTHER_SUBJECT
        assert f'{golden.folder / "root" / LOCK}: images."{golden.reference}".platforms' in caught.value.message


def test_the_image_of_another_platform_is_no_base(golden: Golden) -> None:
    """Being listed in the signed index for one platform makes nothing the base of another."""
    [key] = own_keys(golden.to.settings)
    upstream = golden.upstream(UPSTREAM_RULE % key.public)
    golden.lock(upstream)
    lock = golden.folder / "root" / LOCK
    lock.write_text(lock.read_text().replace(upstream.settings.platform, "linux/riscv64"))
    other = golden.upstream(UPSTREAM_RULE % key.public, platform="linux/riscv64")
    with pytest.raises(UntrustedError) as caught:
        other.fetch(golden.reference)
    assert caught.value.fault is Fault.OTHER_SUBJECT


def test_the_pin_of_a_root_that_may_judge_counts(golden: Golden) -> None:
    """However the others pin the same reference, wherever `content` names them, and if their file is broken."""
    upstream, stranger = golden.upstream(), golden.folder / "stranger"
    golden.lock(upstream)
    own = golden.folder / "root" / LOCK
    other = stranger / LOCK
    other.parent.mkdir(parents=True)
    other.write_text(own.read_text().replace(golden.made.content, "sha256:" + "e" * 64))
    both = Upstream(
        upstream.settings.model_copy(update={"content": (stranger, golden.folder / "root")}), upstream.store, NOW
    )
    assert both.locked(golden.reference) == golden.made.content
    other.write_text("images =")
    assert both.locked(golden.reference) == golden.made.content
    assert both.lock(golden.reference).digest == golden.made.digest
    assert other.read_text() == "images ="
    golden.lock(both)
    own.unlink()
    other.write_text(render_lock({golden.reference: Pin(digest=golden.made.digest, platforms={})}))
    assert both.pinned(golden.reference) == golden.made.digest
    user: Any = SimpleNamespace(
        folder=own.parent / "plat", definition=SimpleNamespace(base=SimpleNamespace(image=golden.reference))
    )
    judged = Upstream(both.settings, upstream.store, NOW, [user])
    with pytest.raises(ContentError, match="is not pinned"):
        judged.locked(golden.reference)


def test_without_a_rule_it_is_said_to_be_trusted_on_first_use(
    golden: Golden, capsys: pytest.CaptureFixture[str]
) -> None:
    """And with one it is not."""
    golden.lock(golden.upstream())
    assert "trusted on first use" in capsys.readouterr().err
    [key] = own_keys(golden.to.settings)
    golden.lock(golden.upstream(UPSTREAM_RULE % key.public))
    assert "first use" not in capsys.readouterr().err


def test_bases_without_a_rule_are_refused_where_the_floor_says_so(golden: Golden) -> None:
    """Whether they are pinned already, as a plan asks, or not; one with a rule is taken."""
    refuse = '[trust]\nupstream_default = "refuse"\n'
    golden.lock(golden.upstream())
    strict = golden.upstream(refuse)
    for act in (lambda: golden.lock(strict), lambda: strict.locked(golden.reference)):
        with pytest.raises(RefusedError, match=r"no rule in trust\.upstream of the policy strict covers") as no:
            act()
    assert "add [[trust.upstream]]" in no.value.hint
    [key] = own_keys(golden.to.settings)
    ruled = golden.upstream(refuse + UPSTREAM_RULE % key.public)
    assert golden.lock(ruled) == golden.made.digest
    assert ruled.locked(golden.reference) == golden.made.content


OWN = {
    "registry.example.com/golden": ("registry.example.com/golden/web:1", "Registry.Example.com.:443/golden/a/web"),
    "registry.example.com": ("registry.example.com/web", "registry.example.com:0443/web@sha256:1"),
}
OTHERS = {
    "registry.example.com/golden": ("registry.example.com/mirror/web:1", "registry.example.com/golden-2/web", "web"),
    "registry.example.com": ("registry.example.com/mirror/debian:12", "docker.io/library/debian"),
}


@pytest.mark.parametrize("address", OWN)
def test_a_base_is_no_image_below_the_own_prefix(golden: Golden, address: str) -> None:
    """Whoever may push puts one there; below an address without a path also others' images stand."""
    upstream = golden.upstream(registry={"address": address})
    for reference in OWN[address]:
        for act in (upstream.lock, upstream.locked):
            with pytest.raises(RefusedError, match="is where this installation publishes its own images") as no:
                act(reference)
    assert 'base = { golden = "web" }' in no.value.hint
    for reference in OTHERS[address]:
        with pytest.raises(ContentError, match="is not pinned"):
            upstream.locked(reference)


def test_a_base_is_no_image_of_the_embedded_registry(golden: Golden) -> None:
    """It is known by its login."""
    upstream = golden.upstream()
    write_login(upstream.settings, golden.to.registry.address, "secret")
    with pytest.raises(RefusedError, match="is where this installation publishes its own images"):
        golden.lock(upstream)
