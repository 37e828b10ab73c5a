"""What `image.verify-trust`, `image.reproduce` and `key.*` call and print: what an image proves, and our keys."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import date

from hardening.foundation.console import out, print_json, say
from hardening.foundation.errors import ContentError
from hardening.foundation.settings import Settings, load_settings
from images.artifact import Release
from images.build.reproduce import MACHINES, reproduce
from images.context import Context
from images.documents import to_json
from images.registry.attestations import bundles
from images.registry.client import split
from images.registry.release_trust import trust_of
from images.registry.releases import reference_of, release_at
from images.store.differences import Difference
from images.trust.evidence import line
from images.trust.keys import make, own_keys, rotate, signer
from images.trust.verification import Attested, require_alive, verify
from pipelines.contract import Line
from pipelines.wiring import clock, image_context

TRUST_COLUMNS = {"attestation": "attestation", "key": "key", "says": "says"}
KEY_COLUMNS = {"name": "key", "days": "signs", "public": "public key"}


class TrustLine(Line):
    """`image.verify-trust`: something that a trusted key said of the image."""

    ref: str
    digest: str
    attestation: str
    key: str
    says: str


class KeyLine(Line):
    """`key.show` and `key.rotate`: a key whose signatures count as this installation's, the newest last."""

    name: str
    since: date
    until: date
    public: str

    @property
    def days(self) -> tuple[str, ...]:
        """From when until when it counts, for people."""
        since = "" if self.since == date.min else f"from {self.since}"
        until = "still" if self.until == date.max else f"until {self.until}"
        return tuple(part for part in (since, until) if part)


class ReproduceOutput(Line):
    """`image.reproduce`: whether a rebuild has the published content; else the first thing that it has otherwise.

    `release` is the index, `content` what was published in it; `published_with` and `rebuilt_with` are the builders.
    """

    ref: str
    name: str
    release: str
    content: str
    rebuilt: str
    same: bool
    published_with: str
    rebuilt_with: str
    difference: Difference | None


def reproduce_image(ref: str, policy: str) -> ReproduceOutput:
    """Rebuild what `ref` is a release of, from its provenance alone."""
    context = replace(image_context(policy=policy), lenient=True)
    known = context.definitions.get(ref)
    if known and known.definition.is_machine:
        raise ContentError(MACHINES, file=ref, hint="docs/trust.md says what can be rebuilt")
    return ReproduceOutput.of(reproduce(context, ref, policy), ref=ref)


def show_reproduced(found: ReproduceOutput, *, as_json: bool) -> int:
    """Print what became of a rebuild; exit code 1 where it is not what was published."""
    if as_json:
        print_json(to_json(found))
        return 0 if found.same else 1
    if found.same:
        out().print(f"{found.name}: the same, rebuilt from its provenance: {found.content}")
        return 0
    out().print(f"{found.name}: not the same\n  published {found.content}\n  rebuilt   {found.rebuilt}")
    if one := found.difference:
        where = f"layer {one.layer}" if one.layer else "configuration"
        out().print(f"first difference: {where}, {one.path or 'all of it'}: {one.what}")
        out().print(f"  published {one.published}\n  rebuilt   {one.rebuilt}")
    if found.published_with != found.rebuilt_with:
        out().print(f"built with {found.published_with}\nhere with  {found.rebuilt_with}")
    return 1


def verify_trust(ref: str, policy: str) -> list[TrustLine]:
    """What `ref` proves by the keys of a policy. Raises UntrustedError: the first thing that is wrong, by its name."""
    context = image_context()
    reference = reference_of(context.registry, ref, sorted(context.definitions))
    found, repository = context.registry.get(reference), split(reference)[0]
    content = found.content(context.settings.platform)
    release = _release(context, reference)
    if release:
        require_alive(release, context.now)
    trust, own = trust_of(context.settings, policy), own_keys(context.settings)
    subjects = dict.fromkeys((found.digest, content))
    attached = [bundle for subject in subjects for bundle in bundles(context.registry, repository, subject)]
    signed_at = release.published_at if release else None
    proof = verify(ref, tuple(subjects), attached, trust, own, signed_at=signed_at, now=context.now)
    return _lines(ref, found.digest, proof)


def ensure_key(settings: Settings) -> None:
    """Make the key pair that signs here, where it is a file of ours and is not there yet; says so."""
    if settings.signing.key or settings.signing.command or own_keys(settings):
        return
    file = make(settings, clock().date())
    say(f"made the key that signs releases: {file}; docs/trust.md says what to keep of it")


def show_keys() -> list[KeyLine]:
    """The keys that count as ours; the first is made by this."""
    settings, today = load_settings(), clock().date()
    signer(settings, today)
    return [KeyLine.of(key) for key in own_keys(settings)]


def rotate_keys() -> list[KeyLine]:
    """Sign with a new key from now on; what was signed stays trusted."""
    return [KeyLine.of(key) for key in rotate(load_settings(), clock().date())]


def _release(context: Context, reference: str) -> Release | None:
    """The release at a reference, with a revocation from wherever it is told; None for a stranger's image."""
    from images.registry.releases import revocations_in
    from images.release.revocations import revoked

    with suppress(ContentError):
        told = release_at(context.registry, reference, context.settings.annotation_prefix)
        return revoked(context.ledger, told, revocations_in(context.registry))
    return None


def _lines(ref: str, digest: str, proof: Attested) -> list[TrustLine]:
    return [
        TrustLine(
            ref=ref,
            digest=digest,
            attestation=one.said.predicate_type,
            key=one.key,
            says=line(one.said),
        )
        for one in proof.verified
    ]
