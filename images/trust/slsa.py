"""How an image was built, as SLSA provenance v1 (https://slsa.dev/spec/v1.0/provenance), and back. Pure.

What people wrote stands in `externalParameters`, what Goldsmith made of it in `internalParameters`; together they hold
all inputs of the artifact, whose hash is the input digest. Everything that has a digest of its own is a dependency.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import AwareDatetime, Field

from hardening.foundation.errors import MalformedError
from hardening.foundation.hashing import DIGEST, digest_of
from images.artifact import Artifact, Package, Release
from images.packages.debian import NAME
from images.registry.references import split
from images.trust.statement import (
    GOLDSMITH_VERSION,
    NAMESPACE,
    PROVENANCE,
    Attestation,
    DigestSet,
    Predicate,
    digest_set,
    oci_purl,
    read_predicate,
    rfc3339,
)

BUILD_TYPE = f"{NAMESPACE}/build/v1"
BUILDER = f"{NAMESPACE}/builder/v1"
WRITTEN = ("definition", "verify", "files", "platform")
"""The inputs that people write, or choose; the others follow from them and from the package index."""
MANIFEST, DOCKERFILE = "manifest", "Dockerfile"
DEB = "pkg:deb/"


def provenance(release: Release, artifact: Artifact) -> Attestation:
    """The provenance of the content of `release`, which names the repository of its parent."""
    inputs = artifact.inputs
    return Attestation(
        PROVENANCE,
        {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "image": artifact.name,
                    "platform": artifact.platform,
                    "written": {key: value for key, value in inputs.items() if key in WRITTEN},
                },
                "internalParameters": {
                    "inputDigest": artifact.input_digest,
                    "created": rfc3339(artifact.created),
                    "sizeBytes": artifact.size_bytes,
                    "resolved": {key: value for key, value in inputs.items() if key not in WRITTEN},
                },
                "resolvedDependencies": [*_materials(release, artifact), *map(_package, artifact.packages)],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"goldsmith": GOLDSMITH_VERSION, **_tools(inputs)}},
                "metadata": {"invocationId": _invocation(artifact), "finishedOn": rfc3339(artifact.built_at)},
                "byproducts": [
                    {"name": MANIFEST, "digest": digest_set(artifact.digest)},
                    *([{"name": DOCKERFILE, "digest": digest_set(artifact.dockerfile)}] if artifact.dockerfile else []),
                ],
            },
        },
    )


def _invocation(artifact: Artifact) -> str:
    """The same for the same build, and another one for a build of the same inputs at another time."""
    run = [artifact.name, artifact.platform, artifact.input_digest, artifact.digest, rfc3339(artifact.built_at)]
    return f"{NAMESPACE}/builds/{digest_of(run).removeprefix('sha256:')}"


def _tools(inputs: dict[str, Any]) -> dict[str, str]:
    """The tools of the builder, which the inputs name in one text such as `2, libzstd 1.5.7, mmdebstrap 1.5.6`."""
    told = str(inputs.get("builder", ""))
    named = (f"layers {part}" if part.isdigit() else part for part in told.split(", ") if part)
    return {name: version for name, _, version in (part.partition(" ") for part in named)}


def _materials(release: Release, artifact: Artifact) -> Iterator[dict[str, Any]]:
    """What an image is made of beside packages: its parent, the definition with its files, profile and controls.

    Where a name ends with `#…`, the digest is that of a part as it enters the build, in canonical JSON, and of no file.
    """
    inputs, own = artifact.inputs, f"{NAMESPACE}/content"
    if parent := str(inputs.get("parent", "")):
        base = split(release.base_name.partition("@")[0])[0] or "parent"
        yield {"name": "parent", "uri": oci_purl(base, parent), "digest": digest_set(parent)}
    if definition := inputs.get("definition"):
        told = {"name": "definition", "digest": digest_set(digest_of(definition))}
        yield {**told, "uri": f"{own}/images/definitions/{artifact.name}#definition"}
    for path, told_of in sorted(dict(inputs.get("files", {})).items()):
        uri = f"{own}/images/definitions/{artifact.name}/{path}"
        yield {"name": f"file {path}", "uri": uri, **_file(str(told_of))}
    if overlay := inputs.get("overlay"):
        uri = f"{own}/hardening/profiles/{release.profile}#overlay"
        yield {"name": f"profile {release.profile}", "uri": uri, "digest": digest_set(digest_of(overlay))}
        for sort, part in (("applies", "apply"), ("checks", "check")):
            for control, digest in overlay.get(sort, []):
                uri = f"{own}/hardening/controls/{control}#{part}"
                yield {"name": f"control {control}", "uri": uri, "digest": digest_set(str(digest))}


def _file(told: str) -> dict[str, Any]:
    """What is told of a file of a definition: its digest and its mode; or where a link leads (`images.catalog`)."""
    digest, _, mode = told.partition(" ")
    if re.fullmatch(DIGEST, digest):
        return {"digest": digest_set(digest), **({"annotations": {"mode": mode}} if mode else {})}
    return {"annotations": {"is": told}}


def _package(package: Package) -> dict[str, Any]:
    """One package of the image, its own or one that it has from its parent."""
    told = {
        "version": package.version,
        "architecture": package.architecture,
        "distribution": package.distribution,
        "source": package.source,
    }
    digest = {"digest": {"sha256": package.sha256}} if package.sha256 else {}
    return {"name": package.name, "uri": package.purl, **digest, "annotations": told}


class _PackageFacts(Predicate):
    version: str
    architecture: str
    distribution: str
    source: str


class _PackageDigest(Predicate):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]


class _BuiltPackage(Predicate):
    name: Annotated[str, Field(pattern=rf"^{NAME}$")]
    uri: str
    digest: _PackageDigest | None = None
    annotations: _PackageFacts

    @property
    def package(self) -> Package:
        facts, sha256 = self.annotations, self.digest.sha256 if self.digest else ""
        return Package(self.name, facts.version, facts.architecture, sha256, facts.source, facts.distribution)


class _External(Predicate):
    image: str
    platform: str
    written: dict[str, Any]


class _Internal(Predicate):
    input_digest: str
    created: AwareDatetime
    size_bytes: Annotated[int, Field(ge=0)]
    resolved: dict[str, Any]


class _BuildDefinition(Predicate):
    build_type: str
    external_parameters: dict[str, Any]
    internal_parameters: dict[str, Any] = {}
    resolved_dependencies: tuple[dict[str, Any], ...] = ()


class _BuilderId(Predicate):
    id: str
    version: dict[str, str] = {}


class _Metadata(Predicate):
    finished_on: AwareDatetime | None = None


class _Byproduct(Predicate):
    name: str = ""
    digest: DigestSet


class _RunDetails(Predicate):
    builder: _BuilderId
    metadata: _Metadata = _Metadata()
    byproducts: tuple[_Byproduct, ...] = ()


class SlsaProvenance(Predicate):
    """SLSA provenance v1, anybody's: what its specification requires, and what we read."""

    build_definition: _BuildDefinition
    run_details: _RunDetails


def artifact_of(predicate: dict[str, Any]) -> Artifact:
    """The artifact that `provenance` described. Raises MalformedError for what was not built by Goldsmith."""
    what = "the attached provenance"
    read = read_predicate(SlsaProvenance, predicate, what)
    build, run = read.build_definition, read.run_details
    if build.build_type != BUILD_TYPE:
        raise MalformedError(f"{what} is of another kind of build: {build.build_type[:100]!r}")
    external = read_predicate(_External, build.external_parameters, f"{what}, externalParameters")
    internal = read_predicate(_Internal, build.internal_parameters, f"{what}, internalParameters")
    products = {product.name: product.digest.digest for product in run.byproducts}
    if MANIFEST not in products or run.metadata.finished_on is None:
        raise MalformedError(f"{what} does not say which manifest was built, and when")
    if twice := external.written.keys() & internal.resolved.keys():
        raise MalformedError(f"{what} says twice what the input {min(twice)} was")
    return Artifact(
        name=external.image,
        platform=external.platform,
        input_digest=internal.input_digest,
        digest=products[MANIFEST],
        inputs={**external.written, **internal.resolved},
        packages=tuple(_packages(build.resolved_dependencies, what)),
        created=internal.created,
        built_at=run.metadata.finished_on,
        size_bytes=internal.size_bytes,
        dockerfile=products.get(DOCKERFILE, ""),
    )


def _packages(dependencies: Iterable[dict[str, Any]], what: str) -> Iterator[Package]:
    """The packages among the dependencies. Raises MalformedError where a package URL names another one than is told."""
    named = [one for one in dependencies if str(one.get("uri", "")).startswith(DEB)]
    for one in read_predicate(tuple[_BuiltPackage, ...], named, f"{what}, resolvedDependencies"):
        if one.package.purl != one.uri:
            raise MalformedError(f"{what} names {one.uri[:100]!r}, and tells of {one.package.purl[:100]!r}")
        yield one.package
