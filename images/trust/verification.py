"""Whether the attestations of a release prove it: signed by a valid key, about this release, and complete. Pure.

Anybody who may push can attach anything. So a bundle that no trusted key is claimed for is a stranger's and is passed
over; one that claims a trusted key must hold, or nothing is believed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from hardening.foundation.durations import shown as duration_shown
from hardening.foundation.errors import MalformedError, RefusedError
from hardening.trust import PREDICATES, Trust, TrustedKey
from images.artifact import Release
from images.release.lifecycle import shown
from images.trust.envelope import SignedStatement, hint_of, read_bundle, verifier
from images.trust.statement import Attestation


class Fault(StrEnum):
    """The ways in which trust fails, by the names that people and programs see."""

    UNSIGNED = "unsigned"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown-key"
    BAD_SIGNATURE = "bad-signature"
    ENDED_KEY = "ended-key"
    REVOKED_KEY = "revoked-key"
    OTHER_SUBJECT = "other-subject"
    MISSING_PREDICATE = "missing-predicate"
    TOO_OLD = "too-old"
    OTHER_BUILDER = "other-builder"
    EXPIRED = "expired"
    REVOKED = "revoked"


HINTS = {
    Fault.UNSIGNED: "who made it? ./goldsmith image.publish signs what it publishes",
    Fault.MALFORMED: "who can write to that repository? publish again",
    Fault.UNKNOWN_KEY: "if the key is right, name it in [[trust.keys]] of the policy; ./goldsmith key.show prints ours",
    Fault.BAD_SIGNATURE: "it was changed after it was signed: who can write to that repository? publish again",
    Fault.ENDED_KEY: "publish again with a key of today",
    Fault.REVOKED_KEY: "publish again with a key that counts",
    Fault.OTHER_SUBJECT: "somebody attached what was said of another image: who can write to that repository?",
    Fault.MISSING_PREDICATE: "publish again; a registry that was cleared or an interrupted publication leaves this",
    Fault.TOO_OLD: "publish again: a release of today is judged by what is known today",
    Fault.OTHER_BUILDER: "trust.builders of the policy names who may build",
    Fault.EXPIRED: "publish again",
    Fault.REVOKED: "take another release",
}


class UntrustedError(RefusedError):
    """The attestations of a release fail verification; `fault` says in which way."""

    def __init__(self, fault: Fault, what: str, why: str, evidence: str = "") -> None:
        super().__init__(f"{what} is not trusted ({fault}): {why}", hint=HINTS[fault], evidence=evidence)
        self.fault = fault


@dataclass(frozen=True)
class Verified:
    """What a trusted key attested about an image."""

    key: str
    said: Attestation


@dataclass(frozen=True)
class Attested:
    """Everything that was verified for one image; all of it comes from holders of trusted keys.

    `strangers` are the types of what others signed.
    """

    verified: tuple[Verified, ...] = ()
    strangers: tuple[str, ...] = ()

    @property
    def said(self) -> tuple[Attestation, ...]:
        """All that was said."""
        return tuple(one.said for one in self.verified)

    def of(self, predicate_type: str) -> tuple[Mapping[str, Any], ...]:
        """The predicates of one type, by its address or its short name."""
        wanted = PREDICATES.get(predicate_type, predicate_type)
        return tuple(one.predicate for one in self.said if one.predicate_type == wanted)

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the keys that signed it."""
        return tuple(dict.fromkeys(one.key for one in self.verified))


def verify_release(
    release: Release, bundles: Iterable[bytes], trust: Trust, own: Sequence[TrustedKey], now: datetime
) -> Attested:
    """What is proved of a release of ours. Raises UntrustedError, for each way in which it fails by its own name.

    `bundles` is what is attached to its index, `own` the keys of this installation, which count where `trust` names
    none. That the index has the digest of the release, whoever read it has seen. `require_alive` asks for its dates.
    """
    dates = {"signed_at": release.published_at, "now": now}
    return verify(shown(release), (release.digest,), bundles, trust, own, **dates)


def require_alive(release: Release, now: datetime) -> None:
    """Raise UntrustedError for a release that was revoked or has ended."""
    if release.revoked_at:
        raise UntrustedError(Fault.REVOKED, shown(release), f"it was revoked: {release.revoked_reason}")
    if now >= release.expires_at:
        raise UntrustedError(Fault.EXPIRED, shown(release), f"it ended on {release.expires_at:%Y-%m-%d}")


def verify(
    what: str,
    digests: Sequence[str],
    bundles: Iterable[bytes],
    trust: Trust,
    own: Sequence[TrustedKey],
    *,
    signed_at: datetime | None,
    now: datetime,
) -> Attested:
    """What is proved of an image that has one of the `digests`. Raises UntrustedError.

    What was said twice, such as by two keys, counts once, as said by the first one.

    `signed_at`: the day by which keys count, which a signature protects; where it is unknown, they count as of `now`.
    """
    ring = _Ring(trust.keys or own)
    said, strangers, faults = dict[str, Verified](), list[str](), list[UntrustedError]()
    day = (signed_at or now).date()
    for number, bundle in enumerate(bundles, 1):
        try:
            opened = read_bundle(bundle, f"attestation {number}")
        except MalformedError as error:
            faults.append(UntrustedError(Fault.MALFORMED, what, error.message))
            continue
        key = ring.signer_of(opened, what)
        if key is None:
            strangers.append(opened.predicate_type)
            continue
        _require_days(key, day, what)
        if not set(opened.digests) & set(digests):
            why = f"{_short(opened.predicate_type)} speaks of {', '.join(opened.digests)[:200] or 'nothing'}"
            raise UntrustedError(Fault.OTHER_SUBJECT, what, why)
        kind, predicate = opened.predicate_type, opened.said["predicate"]
        said.setdefault(json.dumps([kind, predicate], sort_keys=True), Verified(key.name, Attestation(kind, predicate)))
    found = Attested(tuple(said.values()), tuple(strangers))
    _require_complete(found, trust, faults, what)
    _require_fresh(trust, signed_at, now, what)
    _require_builder(found, trust, what)
    return found


class _Ring:
    """The keys that count, by the hint by which a bundle names its own."""

    def __init__(self, keys: Sequence[TrustedKey]) -> None:
        self._keys = {hint_of(key.der): (key, verifier(key.der)) for key in keys}

    def signer_of(self, opened: SignedStatement, what: str) -> TrustedKey | None:
        """The key that signed; None where none of ours did. Raises UntrustedError where one of ours is only claimed."""
        for key, by in self._keys.values():
            if opened.is_signed_by(by):
                return key
        if claimed := self._keys.get(opened.hint):
            why = f"the signature of {_short(opened.predicate_type)} is not by {claimed[0].name}, whose it says it is"
            raise UntrustedError(Fault.BAD_SIGNATURE, what, why)
        return None


def _require_days(key: TrustedKey, day: Any, what: str) -> None:
    if key.revoked:
        raise UntrustedError(Fault.REVOKED_KEY, what, f"it is signed by {key.name}, which was revoked: {key.revoked}")
    if not key.since <= day <= key.until:
        span = f"{key.since} to {key.until}"
        raise UntrustedError(Fault.ENDED_KEY, what, f"it is signed by {key.name}, which counts from {span}, on {day}")


def _require_complete(found: Attested, trust: Trust, faults: Sequence[UntrustedError], what: str) -> None:
    missing = [name for name in trust.predicates if not found.of(name)]
    if not missing:
        return
    foreign = [name for name in missing if PREDICATES.get(name, name) in found.strangers]
    if not found.said and not found.strangers and not faults:
        raise UntrustedError(Fault.UNSIGNED, what, "nothing that is signed is attached to it")
    if foreign:
        why = f"{', '.join(foreign)} is signed by a key that the policy does not name"
        raise UntrustedError(Fault.UNKNOWN_KEY, what, why)
    if faults:
        raise faults[0]
    raise UntrustedError(Fault.MISSING_PREDICATE, what, f"it lacks {', '.join(missing)}")


def _require_fresh(trust: Trust, signed_at: datetime | None, now: datetime, what: str) -> None:
    if trust.max_age and (signed_at is None or now - signed_at > trust.max_age):
        since = f"it is of {signed_at:%Y-%m-%d}" if signed_at else "nothing tells how old it is"
        raise UntrustedError(Fault.TOO_OLD, what, f"{since}, and {duration_shown(trust.max_age)} are accepted")


def _require_builder(found: Attested, trust: Trust, what: str) -> None:
    if not trust.builders:
        return
    built = [_builder(predicate) for predicate in found.of("provenance")]
    for name in built or [""]:
        if not any(fnmatchcase(name, glob) for glob in trust.builders):
            raise UntrustedError(
                Fault.OTHER_BUILDER, what, f"it was built by {name}" if name else "the provenance names no builder"
            )


def _builder(provenance: Mapping[str, Any]) -> str:
    try:
        return str(provenance["runDetails"]["builder"]["id"])
    except (KeyError, TypeError):
        return ""


def _short(predicate_type: str) -> str:
    """A predicate's type as people know it."""
    return next((name for name, address in PREDICATES.items() if address == predicate_type), predicate_type[:200])
