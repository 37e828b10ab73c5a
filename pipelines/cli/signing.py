"""What `image.verify-trust` and `key.*` call and print: what an image's signatures prove, and our own keys."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import date

from hardening.foundation.console import say
from hardening.foundation.errors import ContentError
from hardening.foundation.settings import Settings, load_settings
from hardening.trust import TrustedKey
from images.artifact import Release
from images.context import Context
from images.registry.attestations import bundles
from images.registry.channel_documents import ChannelDocuments
from images.registry.references import split
from images.registry.release_trust import trust_of
from images.registry.releases import release_at
from images.release.store import CHANNELS
from images.release.stores import evidence_reference
from images.trust.evidence import line
from images.trust.keys import make, own_keys, rotate
from images.trust.verification import require_alive, verify
from pipelines.cli.image import one_reference
from pipelines.contract import Line
from pipelines.wiring import image_context

TRUST_COLUMNS = {"attested": "says", "by the key": "key"}
KEY_COLUMNS = {"key": "name", "counts": "days", "public key": "where"}


class TrustLine(Line):
    """`image.verify-trust`: something that a trusted key attested about the image."""

    ref: str
    digest: str
    attestation: str
    key: str
    says: str


class KeyLine(Line):
    """`key.show` and `key.rotate`: a key whose signatures count as this installation's, the newest last.

    `public` is the public key (PEM), `where` the file that holds it, or what a cloud calls the key.
    """

    name: str
    since: date
    until: date
    public: str
    where: str

    @property
    def days(self) -> tuple[str, ...]:
        """From when until when it counts, for people."""
        since = "" if self.since == date.min else f"from {self.since}"
        until = "still" if self.until == date.max else f"until {self.until}"
        return tuple(part for part in (since, until) if part)


def verify_trust(ref: str, policy: str) -> list[TrustLine]:
    """What `ref` proves by the keys of a policy. Raises UntrustedError: the first thing that is wrong, by its name.

    Only statements about the very digest at `ref` count: an index holds dates, and anybody can make one over content
    of ours.
    """
    context = image_context()
    reference = evidence_reference(context, one_reference(context, ref))
    digest, (repository, wanted) = context.registry.get(reference).digest, split(reference)
    release = _release(context, reference)
    if release:
        require_alive(release, context.now)
    trust = trust_of(context.settings, policy)
    own = () if trust.keys else own_keys(context.settings)
    attached = bundles(context.registry, repository, digest)
    signed_at = release.published_at if release else None
    proof = verify(ref, (digest,), attached, trust, own, signed_at=signed_at, now=context.now)
    if wanted in CHANNELS and repository.startswith(context.registry.repository("")):
        ChannelDocuments(context.registry, context.ledger, context.now, ("", policy)).manifest(repository, wanted)
    say(f"{ref} is trusted: {digest} is signed by {', '.join(proof.keys)}")
    return [
        TrustLine(ref=ref, digest=digest, attestation=one.said.predicate_type, key=one.key, says=line(one.said))
        for one in proof.verified
    ]


def ensure_key(settings: Settings) -> None:
    """Make the key pair that signs here, where it is a file of ours and is not there yet; says so."""
    if settings.signing.key or settings.signing.command or own_keys(settings):
        return
    file = make(settings, image_context(settings).now.date())
    say(f"made the key that signs releases: {file}; docs/trust.md says what to keep of it")


def show_keys() -> list[KeyLine]:
    """The keys that count as ours; the first is made by this."""
    settings = load_settings()
    ensure_key(settings)
    return _key_lines(settings, own_keys(settings))


def rotate_keys() -> list[KeyLine]:
    """Sign with a new key from now on; what was signed stays trusted."""
    context = image_context()
    return _key_lines(context.settings, rotate(context.settings, context.now.date()))


def _key_lines(settings: Settings, keys: Iterable[TrustedKey]) -> list[KeyLine]:
    asked = settings.signing
    return [
        KeyLine.of(key, where=str(asked.public_key or asked.key or settings.state_dir / "keys" / f"{key.name}.pub"))
        for key in keys
    ]


def _release(context: Context, reference: str) -> Release | None:
    """The release at a reference, with a revocation from wherever it is told; None for a stranger's image."""
    from images.release.revocations import revoked

    with suppress(ContentError):
        told = release_at(context.registry, reference)
        documents = ChannelDocuments(context.registry, context.ledger, context.now)
        return revoked(context.ledger, told, documents.revocation())
    return None
