"""What a release in the registry proves of itself, by the keys that a policy trusts. Edge."""

from __future__ import annotations

from datetime import date, datetime

from hardening.catalog import load_policy
from hardening.foundation.settings import Settings
from hardening.trust import Trust
from images.artifact import Release
from images.registry.attestations import bundles
from images.registry.client import RegistryClient
from images.trust.keys import own_keys
from images.trust.verification import Attested, verify_release


def proved(registry: RegistryClient, release: Release, now: datetime, *policies: str) -> Attested:
    """What a release proves by the trust that each of `policies` asks for, as the last one sees it; "" is the floor.

    Whether it has ended is not asked. Raises UntrustedError, and OutsideError where the registry does not answer.
    """
    found = bundles(registry, release.repository, release.digest)
    asked = [trust_of(registry.settings, policy) for policy in policies or ("",)]
    own = () if all(trust.keys for trust in asked) else own_keys(registry.settings)
    return [verify_release(release, found, trust, own, now) for trust in asked][-1]


def counting_keys(settings: Settings, day: date) -> tuple[bytes, ...]:
    """The public keys (DER) whose signatures on a release of `day` count by the floor."""
    keys = trust_of(settings).keys or own_keys(settings)
    return tuple(key.der for key in keys if key.since <= day <= key.until and not key.revoked)


def trust_of(settings: Settings, policy: str = "") -> Trust:
    """The trust that a policy asks for, by default the floor's."""
    name = policy or settings.judging.floor
    return load_policy(settings.roots, name).trust if name else Trust()
