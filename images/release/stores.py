"""What a reference means, and which store has its release: AWS for machine images, the registry for all others."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from hardening.foundation.errors import ContentError
from images.context import Context
from images.ledger import Ledger
from images.release.store import ReleaseStore

if TYPE_CHECKING:
    from images.aws.release_store import AwsStore

AT_AWS = "aws/"  # so begins the repository of what stands there
WHOLE, LEAST = 64, 7  # hexadecimal digits; fleets print seven of them
PRINTED = re.compile(r".*\((sha256:[0-9a-f]+)\)")  # as fleets print a release: name, day, and the head of its digest


def full_reference(ledger: Ledger, ref: str, names: Collection[str]) -> str:
    """`ref` with the whole digest of a release, where it ends with the beginning of one, or of that of its content.

    So everything is accepted that tables print. A definition's name means that definition; what the ledger does not
    know stays as it is, if it may be whole. Raises ContentError where several contents fit, or none.
    """
    asked = printed[1] if (printed := PRINTED.fullmatch(ref.strip())) else ref.strip()
    head, at, last = asked.rpartition("@")
    digits = last.removeprefix("sha256:")
    if asked in names or not re.fullmatch(rf"[0-9a-f]{{{LEAST},{WHOLE}}}", digits):
        return asked
    where = re.sub(r":[^/:]*$", "", head)  # name:tag@digest, as engines print it
    fitting = [
        one
        for one in ledger.releases()
        if where in ("", one.name, one.repository)
        and any(digest.startswith(f"sha256:{digits}") for digest in (one.digest, one.content))
    ]
    if len({one.content for one in fitting}) > 1:
        told = [f"{one.name} of {one.published_at:%Y-%m-%d} ({one.digest}, content {one.content})" for one in fitting]
        raise ContentError(f"{ref} may be several releases", evidence="\n".join(told), hint="give more of its digest")
    if fitting:
        exact = next((one for one in fitting if one.digest == f"sha256:{digits}"), fitting[0])
        return exact.digest if exact.repository.startswith(AT_AWS) else f"{exact.repository}@{exact.digest}"
    if len(digits) == WHOLE:
        return f"{where}{at}sha256:{digits}"
    raise ContentError(
        f"no release in this ledger has a digest that begins with {digits}",
        hint="give the whole digest, or name:tag; ./goldsmith image.rebuild reads in what the registry holds",
    )


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


def evidence_reference(context: Context, ref: str) -> str:
    """Where the evidence of what `ref` means is: at the image, or, of a machine at AWS, where the registry holds it.

    Raises ContentError where nothing is published under a name, with the nearest one.
    """
    if store_meant(context, ref).place.startswith(AT_AWS):
        release = _at_aws(context).named(ref)
        return f"{context.registry.repository(release.name)}@{release.digest}"
    from images.registry.releases import reference_of

    return reference_of(context.registry, ref, sorted(context.definitions))


def stores(context: Context) -> Iterator[ReleaseStore]:
    """Every store; AWS where it is set."""
    yield _in_registry(context)
    if context.settings.aws.region:
        yield _at_aws(context)


def _in_registry(context: Context) -> ReleaseStore:
    from images.registry.release_store import RegistryStore

    names = sorted(context.definitions)
    return RegistryStore(
        context.registry, context.ledger, context.store, context.now, context.actor, names, context.kept
    )


def _at_aws(context: Context) -> AwsStore:
    from images.aws.release_store import AwsStore  # a command for containers does without boto3

    return AwsStore(context.cloud, sorted(context.definitions), context.kept)
