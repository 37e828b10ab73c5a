"""The attestations of a release: written to the registry, and verified by the keys that a policy trusts. Edge."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from hardening.catalog import load_policy
from hardening.foundation.addresses import HUB, canonical_registry
from hardening.foundation.errors import MalformedError, RefusedError, closest
from hardening.foundation.settings import Settings
from hardening.trust import Trust
from images.artifact import Descriptor, Release
from images.documents import Document
from images.registry.answers import NotFoundError
from images.registry.attestations import bundles, signed_document
from images.registry.client import RegistryClient
from images.registry.login import authfile
from images.registry.references import qualified, split
from images.registry.referrers import attach
from images.trust.envelope import BUNDLE, signed_by
from images.trust.keys import own_keys, signer
from images.trust.verification import Attested, UntrustedError, verify, verify_release


def proved(registry: RegistryClient, release: Release, now: datetime, *policies: str) -> Attested:
    """What a release proves by the trust that each of `policies` asks for, as the last one sees it; "" is the floor.

    Whether it has ended is not asked. Raises UntrustedError, and OutsideError where the registry does not answer.
    """
    found = bundles(registry, release.repository, release.digest)
    asked = [trust_of(registry.settings, policy) for policy in policies or ("",)]
    own = () if all(trust.keys for trust in asked) else own_keys(registry.settings)
    return [verify_release(release, found, trust, own, now) for trust in asked][-1]


def is_proved(registry: RegistryClient, release: Release, now: datetime) -> bool:
    """Whether all that a release must carry is attached to it, and by a key that counts."""
    try:
        proved(registry, release, now)
    except (UntrustedError, MalformedError, NotFoundError):
        return False
    return True


def attach_proof(
    registry: RegistryClient, release: Release, subject: Descriptor, documents: Sequence[Document]
) -> None:
    """Attach to `subject` what a release says of itself: statements signed, each once, and what is read unsigned.

    What a key that counts signed already, such as the one before a rotation, is not signed again. Raises
    UntrustedError before anything is attached that the floor would not believe, such as what a wrong key signed.
    """
    statements = [document for document in documents if document.artifact_type == BUNDLE]
    if not statements:
        return
    settings, day = registry.settings, release.published_at.date()
    key, found = signer(settings, day), bundles(registry, release.repository, release.digest)
    present = set[bytes]().union(*(signed_by(one, found) for one in {key.public, *counting_keys(settings, day)}))
    signed = [signed_document(one.data, key) for one in statements if one.data not in present]
    both = [*found, *(one.data for one in signed)]
    verify_release(release, both, trust_of(settings), own_keys(settings), release.published_at)
    plain = [document for document in documents if document.artifact_type != BUNDLE]
    attach(registry, release.repository, subject, (*signed, *plain))


def counting_keys(settings: Settings, day: date) -> tuple[bytes, ...]:
    """The public keys (DER) whose signatures on a release of `day` count by the floor."""
    keys = trust_of(settings).keys or own_keys(settings)
    return tuple(key.der for key in keys if key.since <= day <= key.until and not key.revoked)


def require_upstream_trusted(
    registry: RegistryClient, reference: str, digest: str, now: datetime, policy: str = ""
) -> bool:
    """Whether a rule of `policy`, by default the floor, says who signs `reference`, in whichever form it is written.

    Raises UntrustedError for a digest not signed so.
    """
    trust = upstream_rule(trust_of(registry.settings, policy), reference)
    if trust is None:
        return False
    verify(reference, (digest,), bundles(registry, split(reference)[0], digest), trust, (), signed_at=None, now=now)
    return True


def require_base_allowed(settings: Settings, reference: str) -> None:
    """Raise RefusedError for an upstream base that stands where our own releases do, and for one that no rule of the
    floor covers where `upstream_default` refuses these. No registry is asked.
    """
    repository, (host, slash, path) = split(qualified(reference))[0], settings.registry.address.partition("/")
    name = repository.removeprefix(f"{canonical_registry(host)}{slash}{path}/") if host else repository
    below = name != repository and (path or "/" not in name)  # without a path, others' images are below it too
    if below or authfile(settings, reference):
        hint = f'name the definition: base = {{ golden = "{repository.rpartition("/")[2]}" }}'
        raise RefusedError(f"the base {reference} is where this installation publishes its own images", hint=hint)
    floor = trust_of(settings)
    if floor.upstream_default == "refuse" and upstream_rule(floor, reference) is None:
        why = f"no rule in trust.upstream of the policy {settings.judging.floor} covers the base {reference}"
        close = closest(reference, (one.prefix for one in floor.upstream))
        near = f"did you mean {' or '.join(close)}? " if close else ""
        hint = f"{near}add [[trust.upstream]] there, with its prefix and the keys that sign it; docs/trust.md"
        raise RefusedError(f"{why}, and its trust.upstream_default is refuse", hint=hint)


def upstream_rule(asked: Trust, reference: str) -> Trust | None:
    """The rule for an upstream image, in whichever form it is written; None where there is none."""
    whole = qualified(reference)
    of_hub = whole.removeprefix(f"{HUB}/")
    forms = (reference, whole, of_hub, of_hub.removeprefix("library/")) if of_hub != whole else (reference, whole)
    return next(filter(None, map(asked.of_upstream, dict.fromkeys(forms))), None)


def trust_of(settings: Settings, policy: str = "") -> Trust:
    """The trust that a policy asks for, by default the floor's."""
    name = policy or settings.judging.floor
    return load_policy(settings.roots, name).trust if name else Trust()
