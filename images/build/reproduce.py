"""Rebuilds a published image from its signed provenance, and says where the two first differ. Edge.

Of this machine's ledger, store and definitions nothing decides: what the provenance holds only by digest (files of the
definition, rendered controls) is taken from the content roots where its digest is right there. The parent comes from
the registry by its digest.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from hardening.foundation.console import say
from hardening.foundation.content import find_content, parse
from hardening.foundation.errors import ContentError, MalformedError, OutsideError
from hardening.foundation.hashing import digest_of
from hardening.foundation.settings import Settings
from hardening.model import Kind
from hardening.render import Overlay
from images.artifact import Artifact, Package, Release
from images.build import build, build_steps, builder_of, builder_version, require_platform, require_tools
from images.build.build_steps import BuildJob
from images.build.workspace import sweep, workspace
from images.catalog import LoadedDefinition, file_digests
from images.context import Context
from images.machine.trees import private_mounts
from images.model import CONTAINER_ONLY, Bootstrap, Definition
from images.packages import debian
from images.packages.index import PackageIndex
from images.plan.upstream import Upstream
from images.plan.validate import DefinitionValidator
from images.registry.release_trust import proved
from images.registry.releases import release_at
from images.release.stores import evidence_reference
from images.store.differences import Difference, first_difference
from images.store.files import room_on
from images.store.oci import Store
from images.trust.evidence import evidence_of
from images.trust.statement import Predicate, read_predicate

PROVENANCE = "the attached provenance"
MACHINES = "a machine is rebuilt where packages alone make it: not on a parent, whose disk is at AWS, and not by mkosi"
SNAPSHOT_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Reproduction:
    """The result of a rebuild: `content` was published, `rebuilt` was made here. For a machine there is no
    `difference`.

    `published_with` and `rebuilt_with` are the builders with the versions of their tools, which may explain one.
    """

    name: str
    release: str
    content: str
    rebuilt: str
    published_with: str
    rebuilt_with: str
    difference: Difference | None

    @property
    def same(self) -> bool:
        """Whether it has the published digest."""
        return self.content == self.rebuilt


class _OverlayParts(Predicate):
    files: dict[str, str]
    applies: tuple[tuple[str, str], ...]


class _Inputs(Predicate):
    """The inputs of a container (`images.plan.build_plan.inputs_of`), as a provenance tells them."""

    definition: dict[str, Any]
    verify: dict[str, Any] = {}
    overlay: _OverlayParts
    parent: str
    packages: tuple[tuple[str, str], ...]
    files: dict[str, str]
    sources: str
    builder: str


def reproduce(context: Context, ref: str, policy: str = "") -> Reproduction:
    """Rebuild the release at `ref`, which the keys of a policy must have signed. Publishes nothing, keeps nothing.

    Raises UntrustedError where it is not proved, ContentError where files that it was built from are not here, and
    OutsideError where packages or the parent cannot be had, or a build fails.
    """
    reference = evidence_reference(context, ref)
    release = release_at(context.registry, reference)
    artifact = _proved(context, release, policy)
    inputs = read_predicate(_Inputs, artifact.inputs, f"{PROVENANCE}, its inputs")
    definition = _definition(artifact, inputs)
    require_platform(artifact.platform)
    sweep(context.settings, context.build_host)
    with workspace(context.settings) as work, room_on(work):
        job = _job(context, release, artifact, inputs, definition, work)
        say(f"{artifact.name}: building from {len(job.packages)} packages of its provenance")
        with private_mounts() if definition.is_machine else nullcontext():
            rebuilt = build(job).digest
        difference = None if rebuilt == release.content else _difference(context, release, job, rebuilt)
    told = "same" if rebuilt == release.content else f"another: {rebuilt}"
    context.ledger.audit(context.now, context.actor, "reproduce", artifact.name, f"{release.content}: {told}")
    versions = inputs.builder, builder_version(definition)
    return Reproduction(artifact.name, release.digest, release.content, rebuilt, *versions, difference)


def _proved(context: Context, release: Release, policy: str) -> Artifact:
    """What the release's provenance says that it was built from. Raises UntrustedError, MalformedError."""
    said = proved(context.registry, release, context.now, policy).said
    artifact = evidence_of(said).artifact
    if artifact is None:
        raise MalformedError(f"{release.name} {release.digest[:19]} has no provenance", hint="publish it again")
    if artifact.digest != release.content or digest_of(artifact.inputs) != artifact.input_digest:
        raise MalformedError(f"{PROVENANCE} is of other content or other inputs than it says")
    if artifact.platform != context.settings.platform:
        raise MalformedError(f"{PROVENANCE} is of a build for {artifact.platform[:40]!r}")
    return artifact


def _definition(artifact: Artifact, inputs: _Inputs) -> Definition:
    """The definition as it was when it was built; what is no input of a build is made up."""
    said = {"title": artifact.name, "owner": "unknown", **inputs.definition, **inputs.verify}
    if said.get("kind") == Kind.MACHINE:  # of what only containers have, the inputs hold the defaults
        said = {key: value for key, value in said.items() if key not in CONTAINER_ONLY}
    found = parse(said, Definition, f"{PROVENANCE}, definition")
    if found.is_machine and (found.is_mkosi or not found.base.bootstrap):
        raise ContentError(MACHINES, file=artifact.name, hint="docs/trust.md says what can be rebuilt")
    require_tools(found)
    return found


def _job(
    context: Context, release: Release, artifact: Artifact, inputs: _Inputs, definition: Definition, work: Path
) -> BuildJob:
    """The job that the flow made of these inputs then. What is missing is named before anything is fetched."""
    folder = _folder(context.settings.roots, artifact, inputs, work / "definition")
    overlay = _overlay(context, artifact, inputs, LoadedDefinition(definition, folder))
    packages = _packages(artifact, inputs)
    upstream = Upstream(context.settings, Store(work / "store"), context.now)
    reference = _parent(release, definition)
    if reference:
        say(f"{artifact.name}: fetching its parent {reference} {inputs.parent[:19]}")
        upstream.bring_exactly(reference, inputs.parent)
    found = dict[Package, tuple[Path, str]]()
    if packages:
        distribution = _distribution(definition, inputs, upstream, reference)
        found = _collected(context, distribution, packages, artifact.built_at, work)
    (work / "build").mkdir()
    return BuildJob(
        name=artifact.name,
        definition=definition,
        definition_folder=folder,
        platform=artifact.platform,
        overlay=overlay,
        packages=tuple(found),
        debs={package: path for package, (path, _) in found.items()},
        stanzas="\n\n".join(entry for _, entry in found.values()) + "\n",
        sources=inputs.sources,
        parent=inputs.parent if definition.base.golden else None,
        upstream=inputs.parent if definition.base.image else None,
        work=work / "build",
        store=upstream.store,
        docker_host=context.build_host() if builder_of(definition) == "buildkit" else "",
    )


def _folder(roots: tuple[Path, ...], artifact: Artifact, inputs: _Inputs, target: Path) -> Path:
    """A copy of exactly those files of the definition's folder that it was built from."""
    here = find_content(roots, "images/definitions", "*/").get(artifact.name)
    known = file_digests(here) if here else {}
    wrong = [
        f"images/definitions/{artifact.name}/{name}" for name in inputs.files if known.get(name) != inputs.files[name]
    ]
    _require_content(artifact, wrong)
    if here:
        return build_steps.copy_folder(here, target, inputs.files)
    target.mkdir()
    return target


def _overlay(context: Context, artifact: Artifact, inputs: _Inputs, loaded: LoadedDefinition) -> Overlay:
    """What hardened it: of today's profile those parts, in its order, that have the digests of then.

    Checks change no byte, so that those of today do not matter.
    """
    today: date = context.now.date()
    here = DefinitionValidator(context.settings.roots, today, {}).overlay(loaded)
    wanted, parts = inputs.overlay, here.parts
    files = [file for file in here.files if parts["files"][file.path] == wanted.files.get(file.path)]
    known = {tuple(part): script for part, script in zip(parts["applies"], here.applies, strict=True)}
    missing = [f"{path}, which a control installs" for path in wanted.files.keys() - {file.path for file in files}]
    missing += [f"hardening/controls/{part[0]}, what it applies" for part in wanted.applies if part not in known]
    _require_content(artifact, sorted(missing), f" (profile {loaded.definition.profile})")
    return Overlay(tuple(files), tuple(known[part] for part in wanted.applies), ())


def _require_content(artifact: Artifact, wrong: Iterable[str], where: str = "") -> None:
    """Raises ContentError that names all files which are not as they were."""
    if evidence := "\n".join(wrong):
        raise ContentError(
            f"{artifact.name} was built from files that differ from the content roots{where}", evidence=evidence,
            hint=f"check out the content as it was when it was built, on {artifact.built_at:%Y-%m-%d}",
        )  # fmt: skip


def _packages(artifact: Artifact, inputs: _Inputs) -> tuple[Package, ...]:
    """The packages that the build added. Raises MalformedError where the provenance does not describe one of them."""
    known = {(package.purl, package.sha256): package for package in artifact.packages}
    if unknown := [purl for purl, sha256 in inputs.packages if (purl, sha256) not in known]:
        raise MalformedError(f"{PROVENANCE} was built with {unknown[0][:200]}, which it does not list")
    return tuple(known[purl, sha256] for purl, sha256 in inputs.packages)


def _parent(release: Release, definition: Definition) -> str:
    """Where the parent is: a golden one in the repository beside the release's; empty for a bootstrap."""
    golden = definition.base.golden
    return f"{release.repository.rpartition('/')[0]}/{golden}" if golden else definition.base.image or ""


def _distribution(definition: Definition, inputs: _Inputs, upstream: Upstream, reference: str) -> Bootstrap:
    """Where packages come from: as a bootstrap says; for a child the suite of its parent and its own components."""
    if definition.base.bootstrap:
        return definition.base.bootstrap
    suite = upstream.bootstrap_of(inputs.parent, reference).suite
    said = [source.components for source in debian.sources_of(inputs.sources) if source.components]
    return Bootstrap(family="debian", suite=suite, **({"components": said[0]} if said else {}))


def _collected(
    context: Context, distribution: Bootstrap, packages: tuple[Package, ...], at: datetime, work: Path
) -> dict[Package, tuple[Path, str]]:
    """Exactly these packages, each with its index entry: from the mirror, and what left it from the snapshot archive.

    What describes them is the entry, as in a build: a provenance of another version of ours may tell less.
    Raises OutsideError that names all that neither has.
    """
    found = context.index.collect(distribution, packages)
    missing = [package for package in packages if package not in found]
    past = snapshot_settings(context.settings, at)
    if missing and past:
        say(f"asking {past.packages.mirror} for {len(missing)} packages that left the mirror")
        found |= PackageIndex(past, work / "snapshot", past=True).collect(distribution, missing)
    if lost := [f"{one.name} {one.version} {one.architecture}" for one in packages if one not in found]:
        hint = "packages.snapshot in goldsmith.toml names an archive that keeps old versions"
        raise OutsideError(
            f"{len(lost)} packages are no longer available in the version of the provenance", evidence="\n".join(lost),
            hint="the archive of packages.snapshot does not have them either" if past else hint,
        )  # fmt: skip
    return {debian.package_of(found[package][1]): found[package] for package in packages}


def snapshot_settings(settings: Settings, at: datetime) -> Settings | None:
    """Settings under which packages come from the snapshot archive as it was `at` that time; None without one."""
    address = settings.packages.snapshot
    if not address:
        return None

    def of(archive: str) -> str:
        return address.replace("{archive}", archive).replace("{time}", f"{at:{SNAPSHOT_TIME}}")

    security = of("debian-security") if "{archive}" in address else ""
    changed = {"mirror": of("debian"), "security_mirror": security, "extra_sources": ()}
    return settings.model_copy(update={"packages": settings.packages.model_copy(update=changed)})


def _difference(context: Context, release: Release, job: BuildJob, rebuilt: str) -> Difference | None:
    """Where what was rebuilt begins to differ from what was published, which is fetched to be compared.

    None of a machine: its disk is at AWS.
    """
    if job.definition.is_machine:
        return None
    say(f"{job.name}: another digest; fetching what was published to compare")
    published = Store(job.work.parent / "published")
    Upstream(context.settings, published, context.now).bring_exactly(release.repository, release.content)
    return first_difference(published, release.content, job.store, rebuilt)
