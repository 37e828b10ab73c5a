"""Which store the releases of a definition stand in: machine images at AWS, all others in the registry."""

from __future__ import annotations

from collections.abc import Iterator

from images.aws.release_store import AwsStore
from images.context import Context
from images.release.store import ReleaseStore

AT_AWS = "aws/"  # so begins the repository of what stands there


def store_of(context: Context, name: str) -> ReleaseStore:
    """The store of a definition's releases. Opens nothing."""
    loaded = context.definitions.get(name)
    return AwsStore(context.cloud) if loaded and loaded.definition.is_machine else context.publisher


def store_meant(context: Context, ref: str) -> ReleaseStore:
    """The store of what a reference means: a digest, an image's id, a definition's name, `name:…` or `name@…`."""
    if ref.startswith("sha256:"):
        known = context.ledger.release(ref)
        return AwsStore(context.cloud) if known and known.repository.startswith(AT_AWS) else context.publisher
    if ref.startswith("ami-"):
        return AwsStore(context.cloud)
    return store_of(context, ref.partition(":")[0].partition("@")[0])


def stores(context: Context) -> Iterator[tuple[ReleaseStore, list[str]]]:
    """Every store, each with the names of its definitions; AWS where it is set."""
    machines = {name for name, loaded in context.definitions.items() if loaded.definition.is_machine}
    yield context.publisher, sorted(context.definitions.keys() - machines)
    if context.settings.aws.region:
        yield AwsStore(context.cloud), sorted(machines)
