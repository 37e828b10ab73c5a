"""Signed attestations in the registry: attached to a release's index, and read back to be verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from hardening.foundation import limits
from hardening.foundation.errors import MalformedError, OutsideError
from hardening.foundation.hashing import digest, hex_of
from images.build.workspace import workspace
from images.documents import Document
from images.registry.answers import Attached, Listed, NotFoundError, loaded, parsed
from images.registry.client import RegistryClient
from images.registry.referrers import attached, tag_of
from images.store.oci import Store
from images.trust.envelope import BUNDLE, Signer, bundled

CONTENT, PREDICATE = "dev.sigstore.bundle.content", "dev.sigstore.bundle.predicateType"
IN_TOTO_PREDICATE = "in-toto.io/predicate-type"


def signed_document(payload: bytes, signer: Signer) -> Document:
    """A statement, signed, as it is attached. Some readers find it by one of the annotations alone."""
    predicate_type = str(loaded(payload, "a statement of ours")["predicateType"])
    found_by = {CONTENT: "dsse-envelope", PREDICATE: predicate_type, IN_TOTO_PREDICATE: predicate_type}
    return Document(BUNDLE, bundled(payload, signer), found_by)


def bundles(registry: RegistryClient, repository: str, subject: str) -> tuple[bytes, ...]:
    """All bundles that are attached to `subject`, the oldest first, hashed and not verified.

    A line that leads to no document about `subject` gives no bytes, which cannot be read: whoever may push can list
    anything, and that takes nothing away from the others. Raises MalformedError where there are too many, OutsideError
    where they are too large.
    """
    every = attached(registry, repository, subject)
    listed = [one for one in every if one.artifact_type == BUNDLE]
    if not listed:
        return ()
    where = f"{repository}:{tag_of(subject)}"
    _require(limits.ATTESTATIONS, len(listed), where)
    _require(limits.DOCUMENT_BYTES, sum(one.size for one in every), where)
    if (known := _by_http(registry, repository, listed)) is not None:
        return _bundles(known.__getitem__, repository, subject, listed)
    with workspace(registry.settings) as directory:
        _pull(registry, repository, directory, listed)
        store = Store(directory)
        return _bundles(lambda name: store.blob(name).read_bytes(), repository, subject, listed)


def _by_http(registry: RegistryClient, repository: str, listed: Sequence[Listed]) -> dict[str, bytes] | None:
    """All that is listed, by digest, without starting a process; None where one of them cannot be read so."""
    found = dict[str, bytes]()
    for name in dict.fromkeys(one.digest for one in listed):
        try:
            parts = registry.document(repository, name)
        except (NotFoundError, MalformedError):
            return None
        if parts is None:
            return None
        found |= parts
        _require(limits.ATTESTATION_BYTES, sum(map(len, found.values())), repository)
    return found


def _pull(registry: RegistryClient, repository: str, directory: Path, listed: Sequence[Listed]) -> None:
    """Pull each document that is listed, and nothing else that the tag holds, which may be anything of any size.

    What is not there is left out, and so is what has more parts than a document.
    """
    for name in dict.fromkeys(one.digest for one in listed):
        reference = f"{repository}@{name}"
        with suppress(NotFoundError):
            if _has_one_part(registry, reference):
                registry.pull(reference, directory, hex_of(name))
        pulled = sum(file.stat().st_size for file in (directory / "blobs").rglob("*") if file.is_file())
        _require(limits.ATTESTATION_BYTES, pulled, repository)


def _has_one_part(registry: RegistryClient, reference: str) -> bool:
    with suppress(MalformedError):
        found = registry.find(reference)
        return found is not None and len(found.image.layers) == 1
    return False


def _require(limit: limits.Limit, amount: int, where: str) -> None:
    """Raise MalformedError, which concerns one image and no other, where something is over a limit."""
    try:
        limit.require(amount, where)
    except OutsideError as error:
        raise MalformedError(error.message, hint=error.hint) from None


def _bundles(
    read: Callable[[str], bytes], repository: str, subject: str, listed: Sequence[Listed]
) -> tuple[bytes, ...]:
    found = list[bytes]()
    for one in listed:
        found.append(_bundle(read, one.digest, subject))
        _require(limits.ATTESTATION_BYTES, sum(map(len, found)), f"{repository}:{tag_of(subject)}")
    return tuple(found)


def _bundle(read: Callable[[str], bytes], manifest_digest: str, subject: str) -> bytes:
    """The one blob of an attached manifest that is about `subject`; nothing where there is none, or other bytes than it
    says. `read` gives what a digest names.
    """
    with suppress(MalformedError, FileNotFoundError, KeyError):
        raw = read(manifest_digest)
        manifest = parsed(Attached, loaded(raw, manifest_digest), manifest_digest)
        if manifest.subject and manifest.subject.digest == subject and len(manifest.layers) == 1:
            data = read(manifest.layers[0].digest)
            if digest(raw) == manifest_digest and digest(data) == manifest.layers[0].digest:
                return data
    return b""
