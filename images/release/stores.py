"""Which store the releases of a definition stand in: machine images at AWS, all others in the registry."""

from __future__ import annotations

from collections.abc import Iterator

from images.context import Context
from images.release.store import ReleaseStore

AT_AWS = "aws/"  # so begins the repository of what stands there


def store_of(context: Context, name: str) -> ReleaseStore:
    """The store of a definition's releases."""
    loaded = context.definitions.get(name)
    return _at_aws(context) if loaded and loaded.definition.is_machine else _in_registry(context)


def store_meant(context: Context, ref: str) -> ReleaseStore:
    """The store of what a reference means: a digest, an image's id, a definition's name, `name:…` or `name@…`."""
    if ref.startswith("sha256:"):
        known = context.ledger.release(ref)
        return _at_aws(context) if known and known.repository.startswith(AT_AWS) else _in_registry(context)
    if ref.startswith("ami-"):
        return _at_aws(context)
    return store_of(context, ref.partition(":")[0].partition("@")[0])


def stores(context: Context) -> Iterator[ReleaseStore]:
    """Every store; AWS where it is set."""
    yield _in_registry(context)
    if context.settings.aws.region:
        yield _at_aws(context)


def _in_registry(context: Context) -> ReleaseStore:
    from images.registry.release_store import RegistryStore

    names = sorted(context.definitions)
    return RegistryStore(context.registry, context.ledger, context.store, context.now, context.actor, names)


def _at_aws(context: Context) -> ReleaseStore:
    from images.aws.release_store import AwsStore  # a command for containers does without boto3

    return AwsStore(context.cloud, sorted(context.definitions))
