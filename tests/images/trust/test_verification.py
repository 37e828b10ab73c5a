"""Whether what is attached to a release proves it: each way in which it may fail has its own name."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from hardening.trust import PREDICATES, Trust, TrustedKey, UpstreamSigner
from images.artifact import Release
from images.trust import envelope
from images.trust.evidence import evidence_of
from images.trust.verification import Fault, UntrustedError, require_alive, verify_release
from tests.support.publishing import DAY, NOW
from tests.support.signing import KeyInMemory, signed

OURS, THEIRS = KeyInMemory(), KeyInMemory()
DIGEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
RELEASE = Release(
    "web", "registry/web", DIGEST, f"sha256:{'c' * 64}", f"sha256:{'d' * 64}", "p", "default", NOW, NOW, NOW + 30 * DAY
)
PROVENANCE = {"runDetails": {"builder": {"id": "https://goldsmith.example/1"}}}


def complete(signer: KeyInMemory = OURS, digest: str = DIGEST) -> list[bytes]:
    """A bundle of each kind that is required."""
    said = {"provenance": PROVENANCE}
    return [signed(signer, address, digest, said.get(name)) for name, address in PREDICATES.items()]


def fault(
    bundles: Sequence[bytes], trust: Trust | None = None, own: Sequence[TrustedKey] = (OURS.trusted(),), **more: Any
) -> Fault:
    """The way in which these bundles fail to prove the release."""
    with pytest.raises(UntrustedError) as caught:
        verify_release(RELEASE, bundles, trust or Trust(), own, **{"now": NOW + DAY, **more})
    assert f"({caught.value.fault})" in caught.value.message
    assert caught.value.hint
    return caught.value.fault


def changed(bundle: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A bundle with a change in its JSON."""
    data = json.loads(bundle)
    change(data)
    return json.dumps(data).encode()


def in_envelope(bundle: bytes, part: Callable[[dict[str, Any]], tuple[dict[str, Any], str]], at: int) -> bytes:
    """A bundle with one bit flipped in a part of its envelope."""

    def flip(data: dict[str, Any]) -> None:
        where, key = part(data["dsseEnvelope"])
        raw = bytearray(b64decode(where[key]))
        raw[at] ^= 1
        where[key] = b64encode(bytes(raw)).decode()

    return changed(bundle, flip)


def test_what_a_trusted_key_said_of_the_release_is_believed() -> None:
    """And nothing that a stranger attached beside it."""
    strangers = signed(THEIRS, "https://example.com/opinion", DIGEST)
    found = verify_release(RELEASE, [*complete(), strangers], Trust(), [OURS.trusted()], NOW + DAY)
    assert found.keys == ("release",)
    assert found.of("provenance") == (PROVENANCE,)
    assert found.of("https://example.com/opinion") == ()
    assert found.strangers == ("https://example.com/opinion",)


@pytest.mark.parametrize("number", range(len(PREDICATES)))
def test_one_flipped_bit_in_any_attestation_is_found(number: int) -> None:
    """In what is said, in its signature, and in the name of the key."""
    whole = complete()
    payload = in_envelope(whole[number], lambda envelope: (envelope, "payload"), -3)
    signature = in_envelope(whole[number], lambda envelope: (envelope["signatures"][0], "sig"), -1)
    for broken in (payload, signature):
        assert fault([*whole[:number], broken, *whole[number + 1 :]]) in (Fault.BAD_SIGNATURE, Fault.MALFORMED)

    def rename(data: dict[str, Any]) -> None:
        data["verificationMaterial"]["publicKey"]["hint"] = "AAAA"

    unnamed = changed(payload, rename)
    assert fault([*whole[:number], unnamed, *whole[number + 1 :]]) in (Fault.UNKNOWN_KEY, Fault.MALFORMED)


def test_the_bytes_that_are_signed_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many keys are tried: a bill of materials is large."""
    whole, made, pae = complete(), list[bytes](), envelope.pae
    monkeypatch.setattr(envelope, "pae", lambda payload: made.append(payload) or pae(payload))
    keys = [THEIRS.trusted("a"), KeyInMemory().trusted("b"), OURS.trusted()]
    verify_release(RELEASE, whole, Trust(), keys, NOW)
    assert len(made) == len(set(made)) == len(whole)


def test_a_swapped_signature_is_found() -> None:
    """That of another statement by the same key."""
    one, two, *rest = complete()
    other = json.loads(two)["dsseEnvelope"]["signatures"]
    swapped = changed(one, lambda data: data["dsseEnvelope"].update(signatures=other))
    assert fault([swapped, two, *rest]) is Fault.BAD_SIGNATURE


def test_nothing_attached_a_foreign_key_and_a_missing_kind_are_told_apart() -> None:
    """The last even where the rest is right; a stranger cannot stand in for it."""
    whole = complete()
    assert fault([]) is Fault.UNSIGNED
    assert fault(complete(THEIRS)) is Fault.UNKNOWN_KEY
    assert fault(whole[1:]) is Fault.MISSING_PREDICATE
    assert fault([signed(THEIRS, PREDICATES["provenance"], DIGEST, PROVENANCE), *whole[1:]]) is Fault.UNKNOWN_KEY
    assert fault(whole, own=()) is Fault.UNKNOWN_KEY
    assert fault(whole, Trust(predicates=("https://example.com/more",))) is Fault.MISSING_PREDICATE


def test_what_was_signed_twice_counts_once() -> None:
    """By two keys or by one, as said by the first; what differs in anything stays."""
    trust, whole = Trust(keys=(OURS.trusted("old"), THEIRS.trusted("new"))), complete()
    found = verify_release(RELEASE, [*whole, *complete(THEIRS), *whole], trust, (), NOW + DAY)
    assert [one.key for one in found.verified] == ["old"] * len(PREDICATES)
    assert evidence_of(one for one in found.said if one.predicate_type == PREDICATES["cyclonedx"]).sbom
    for one, other in (({"a": 1}, {"a": True}), ({"a": 1}, {"a": 2})):
        bills = [signed(OURS, PREDICATES["cyclonedx"], DIGEST, predicate) for predicate in (one, other)]
        assert len(verify_release(RELEASE, [*whole, *bills], trust, (), NOW).of("cyclonedx")) == 3


def test_what_was_said_of_another_image_is_refused() -> None:
    """Signed by the right key, attached to the wrong release: beside all that is right as well."""
    assert fault(complete(digest=OTHER)) is Fault.OTHER_SUBJECT
    assert fault([*complete(), signed(OURS, PREDICATES["verdict"], OTHER)]) is Fault.OTHER_SUBJECT


def test_a_key_counts_on_its_days_by_the_day_of_the_release() -> None:
    """After a rotation nothing must be signed again; a revoked key takes with it all that it signed."""
    day = NOW.date()
    for since, until in ((day, day), (date.min, day), (day, date.max)):
        verify_release(RELEASE, complete(), Trust(), [OURS.trusted(since=since, until=until)], NOW + 20 * DAY)
    for since, until in ((date.min, day - DAY), (day + DAY, date.max)):
        assert fault(complete(), own=[OURS.trusted(since=since, until=until)]) is Fault.ENDED_KEY
    assert fault(complete(), own=[OURS.trusted(revoked="it was in a backup")]) is Fault.REVOKED_KEY


def test_the_keys_of_a_policy_count_in_the_place_of_ours() -> None:
    """So a stranger names a publisher's key, and nothing of ours proves anything to that policy."""
    trust = Trust(keys=(THEIRS.trusted("publisher"),))
    assert verify_release(RELEASE, complete(THEIRS), trust, [OURS.trusted()], NOW).keys == ("publisher",)
    assert fault(complete(OURS), trust) is Fault.UNKNOWN_KEY


def test_an_age_and_a_builder_can_be_asked_for() -> None:
    """By the day in the release, and by the provenance."""
    old = Trust(max_age=timedelta(days=2))
    verify_release(RELEASE, complete(), old, [OURS.trusted()], NOW + 2 * DAY)
    assert fault(complete(), old, now=NOW + 3 * DAY) is Fault.TOO_OLD
    verify_release(RELEASE, complete(), Trust(builders=("https://goldsmith.example/*",)), [OURS.trusted()], NOW)
    assert fault(complete(), Trust(builders=("https://other/*",))) is Fault.OTHER_BUILDER
    unnamed = [signed(OURS, PREDICATES["provenance"], DIGEST), *complete()[1:]]
    with pytest.raises(UntrustedError, match=r"\(other-builder\): the provenance names no builder"):
        verify_release(RELEASE, unnamed, Trust(builders=("https://goldsmith.example/*",)), [OURS.trusted()], NOW)


def test_an_ended_and_a_revoked_release_are_refused_by_name() -> None:
    """To the second."""
    require_alive(RELEASE, RELEASE.expires_at - timedelta(seconds=1))
    for release, expected in (
        (RELEASE, Fault.EXPIRED),
        (replace(RELEASE, revoked_at=NOW, revoked_reason="leaked"), Fault.REVOKED),
    ):
        with pytest.raises(UntrustedError) as caught:
            require_alive(release, RELEASE.expires_at)
        assert caught.value.fault is expected


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"[]",
        b"{}",
        b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}',
        b"[" * 100_000,
        changed(complete()[0], lambda data: data["dsseEnvelope"].update(payload="!", signatures=[])),
        changed(complete()[0], lambda data: data["dsseEnvelope"].update(payloadType="text/plain")),
        changed(complete()[0], lambda data: data["dsseEnvelope"]["signatures"].append({"keyid": "x", "sig": "AAAA"})),
        changed(complete()[0], lambda data: data["dsseEnvelope"].update(payload=b64encode(b"[]").decode())),
        changed(complete()[0], lambda data: data["dsseEnvelope"].update(payload=b64encode(b'{"_type": 1}').decode())),
    ],
)  # fmt: skip
def test_what_is_no_bundle_is_malformed_and_spoils_nothing_else(junk: bytes) -> None:
    """Anybody who may push can attach it: with all that is required beside it the release is proved."""
    assert fault([junk]) is Fault.MALFORMED
    assert verify_release(RELEASE, [junk, *complete()], Trust(), [OURS.trusted()], NOW).keys == ("release",)


@pytest.mark.parametrize(
    "prefix", ["registry.example.com/golden/", "REGISTRY.example.com./golden/", "registry.example.com:443/golden/"]
)
@pytest.mark.parametrize(
    "host", ["registry.example.com", "Registry.Example.COM", "registry.example.com.", "registry.example.com.:0443"]
)
def test_a_rule_is_about_a_host_however_it_is_written(prefix: str, host: str) -> None:
    """With a dot at its end, the port that HTTPS has, or capital letters; another port is another registry."""
    trust = Trust(upstream=(UpstreamSigner(prefix=prefix, keys=(THEIRS.trusted(),)),))
    assert trust.of_upstream(f"{host}/golden/web:1")
    assert trust.of_upstream(f"{host}/other/web:1") is None
    assert trust.of_upstream("registry.example.com:5000/golden/web:1") is None


def test_what_upstream_images_must_prove_goes_by_their_names() -> None:
    """By whole parts of them, and the longest prefix that fits; without one nothing is asked."""
    trust = Trust(upstream=(UpstreamSigner(prefix="registry/golden/", keys=(THEIRS.trusted(),)),))
    assert trust.of_upstream("registry/other/web:1") is None
    wanted = trust.of_upstream("registry/golden/web:1")
    assert wanted is not None
    assert (wanted.keys, wanted.predicates) == ((THEIRS.trusted(),), ("provenance",))
    narrow = UpstreamSigner(prefix="registry/golden/web", keys=(OURS.trusted(),))
    both = Trust(upstream=(*trust.upstream, narrow))
    for reference, key in (
        ("web", OURS),
        ("web:1", OURS),
        ("web@sha256:1", OURS),
        ("web/a", OURS),
        ("website", THEIRS),
    ):
        found = both.of_upstream(f"registry/golden/{reference}")
        assert found
        assert found.keys == (key.trusted(),)
