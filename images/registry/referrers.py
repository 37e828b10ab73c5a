"""Documents attached to an image, by the tag schema: the index `sha256-<hex>` lists what refers to it.

The schema has one index a subject, and registries offer no compare-and-swap: of two writers at once, the later takes
the earlier one's lines away. What is guaranteed:

- Writers with one state directory wait for each other (a lock), so that they lose nothing.
- Writers elsewhere read the index last of all, right before they write it, and read it back when whoever had read it
  before them must have written too (`SETTLE_SECONDS`): what was taken away is merged in again, `WRITES` times at most.
- A writer that takes longer than that from its reading to its writing, such as through retries, can still take away the
  lines of another that has ended. No document is lost by that, only its line. A release that then lacks what it must
  carry proves nothing, and the next publication, which a night tries, dates and signs it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import sleep
from typing import Any, TypeVar

from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import hex_of
from hardening.foundation.locks import only_one
from images.artifact import Descriptor
from images.build.workspace import workspace
from images.documents import Document
from images.registry.answers import Index, Listed, Referring, parsed
from images.registry.client import RegistryClient
from images.store.oci import INDEX, MANIFEST, Store, as_json
from images.trust.envelope import BUNDLE

EMPTY = "application/vnd.oci.empty.v1+json"
WRITES = 5
LOCK_SECONDS = 300
SETTLE_SECONDS = 2.0


Said = TypeVar("Said", Document, Listed)


def tag_of(subject: str) -> str:
    """The tag of the index that lists what refers to the digest `subject`."""
    return f"sha256-{hex_of(subject)}"


def attached(registry: RegistryClient, repository: str, subject: str) -> tuple[Listed, ...]:
    """What refers to `subject`, the oldest first. Raises MalformedError where the list of it cannot be read."""
    reference = f"{repository}:{tag_of(subject)}"
    found = registry.find(reference)
    return parsed(Index, found.data, reference).manifests if found else ()


def latest(referrers: Sequence[Listed], artifact_type: str, **annotations: str) -> Listed | None:
    """The newest referrer of a type, of those with these annotations."""
    for referrer in reversed(referrers):
        if referrer.artifact_type == artifact_type and annotations.items() <= referrer.annotations.items():
            return referrer
    return None


def attach(
    registry: RegistryClient, repository: str, subject: Descriptor, documents: Sequence[Document]
) -> tuple[Listed, ...]:
    """Attach the documents that are not attached yet; returns all that now refers to `subject`.

    Raises OutsideError when another writer keeps overwriting ours.
    """
    lock = registry.settings.state_dir / "locks" / f"{tag_of(subject.digest)}.lock"
    with (
        only_one(lock, f"attaching to {subject.digest}", wait_seconds=LOCK_SECONDS),
        workspace(registry.settings) as room,
    ):
        store = Store(room)
        missing = _missing(documents, attached(registry, repository, subject.digest))
        made = [_manifest(store, subject, document) for document in missing]
        pushed = False
        for _ in range(WRITES):
            present = attached(registry, repository, subject.digest)
            if not (unlisted := _missing(made, present)):
                return present
            with_documents = not present  # then the index brings all that it lists
            if not (with_documents or pushed):
                for document in made:  # which no list names yet
                    registry.push_root(store.path, document, f"{repository}@{document.digest}", index_only=False)
                present = attached(registry, repository, subject.digest)  # read last of all before it is written
                unlisted = _missing(made, present)
            pushed = True
            listed = [*present, *unlisted]
            _write_index(registry, repository, subject.digest, store, listed, with_documents=with_documents)
            settle(registry)
    hint = "does another machine write to the same repository? run it again when that has ended"
    raise OutsideError(f"what refers to {subject.digest} in {repository} does not stay as it was written", hint=hint)


def detach_all(registry: RegistryClient, repository: str, subject: str) -> None:
    """Remove everything that refers to `subject`, and the index that lists it. What is gone already is skipped."""
    if listing := registry.find(f"{repository}:{tag_of(subject)}"):
        for line in attached(registry, repository, subject):
            if _refers(registry, repository, line.digest, subject):
                registry.delete(repository, line.digest)
        registry.delete(repository, listing.digest)


def _refers(registry: RegistryClient, repository: str, manifest_digest: str, subject: str) -> bool:
    """Whether a manifest says itself that it refers to `subject`: a list alone gives nothing away to be removed."""
    found = registry.find(f"{repository}@{manifest_digest}")
    referring = parsed(Referring, found.data, manifest_digest).subject if found else None
    return referring is not None and referring.digest == subject


def _missing(wanted: Sequence[Said], present: Sequence[Listed]) -> list[Said]:
    """What of `wanted` is not listed: type and annotations tell, so that one made again is not attached twice.

    Of bundles, which are signed, only the digest does: anybody can list something with the annotations of ours.
    """
    told = [(known.artifact_type, known.annotations) for known in present if known.artifact_type != BUNDLE]
    digests = {known.digest for known in present}
    return [
        item
        for item in wanted
        if (item.artifact_type, item.annotations) not in told and getattr(item, "digest", "") not in digests
    ]


def _write_index(
    registry: RegistryClient,
    repository: str,
    subject: str,
    store: Store,
    listed: Sequence[Listed],
    *,
    with_documents: bool,
) -> None:
    """Push the index that lists what refers to `subject`, where `with_documents` with all that it lists."""
    lines = [referrer.model_dump(by_alias=True, exclude_defaults=True) for referrer in listed]
    index = store.put_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": lines}, INDEX)
    registry.push_root(store.path, index, f"{repository}:{tag_of(subject)}", index_only=not with_documents)


def settle(registry: RegistryClient) -> bool:
    """Let whoever read something before our write come to theirs. False: the embedded registry has no other writers."""
    if registry.settings.registry.address:
        sleep(SETTLE_SECONDS)
    return bool(registry.settings.registry.address)


def _manifest(store: Store, subject: Descriptor, document: Document) -> Listed:
    """Write the artifact manifest of `document` into `store`."""
    empty = store.put_bytes(b"{}", EMPTY)
    blob = store.put_bytes(document.data, document.artifact_type) if document.data else empty
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": document.artifact_type,
        "config": as_json(empty),
        "layers": [as_json(blob)],
        "subject": as_json(subject),
    }
    if document.annotations:
        manifest["annotations"] = document.annotations
    said = {"artifact_type": document.artifact_type, "annotations": document.annotations}
    return Listed(**vars(store.put_json(manifest, MANIFEST)), **said)
