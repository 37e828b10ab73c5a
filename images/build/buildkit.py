"""An image on top of another: BuildKit runs the steps of a Dockerfile, and their changes become one layer of ours."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.limits import STEP_MEMORY
from hardening.foundation.process import ENGINE
from hardening.foundation.timing import step
from hardening.overlay import materialise
from images.build import build_steps, dockerfile
from images.build.build_steps import BuildJob, Built
from images.machine import trees
from images.model import FILES, Definition
from images.packages.dpkg_tree import foreign_records, records
from images.packages.pool import write_repository
from images.store import layers
from images.store.files import room_on
from images.store.merge import Merged
from images.store.oci import Store
from images.store.tars import Allowance

BYTE_CODE = re.compile(r"usr/lib/python3[^/]*/(?:.*/)?__pycache__/[^/]*\.pyc")  # of packaged modules, and of no others
STEP_FAILED = "did not complete successfully"  # BuildKit's words for a step that ended with another status than 0


def build(job: BuildJob) -> Built:
    """Build a child with BuildKit. Needs root and an engine with the containerd image store."""
    base_digest = str(job.base)
    epoch = build_steps.epoch_of(job)
    with room_on(job.work):
        with step("prepare"):
            written = _prepare(job, base_digest, epoch)
        # BuildKit works while the base's tree is made ready and read here, where what it changed is then added to it.
        with ThreadPoolExecutor(1) as beside:
            running = beside.submit(_run, job, base_digest, written)
            with step("unpack"):
                tree = trees.of_base(job, base_digest)
            _require_shell(job, tree)
            base, kept = build_steps.installed_in(tree), records(tree)
            import_module("docker")  # which verifying needs next
            with step("BuildKit"):
                changed = running.result()
        with Merged(changed, lambda name: os.path.lexists(layers.inside(tree, name)), _ours) as merged:
            keep_byte_code(job.definition_folder, merged, tree, int(_installs_first(job, written.read_text(), epoch)))
            layer = job.store.write_layer(merged.entries(), epoch)
        layers.unpack(job.store.blob(layer[0].digest), layer[0].media_type, tree)
        require_records(job, kept, tree)
        history = f"goldsmith: {' '.join(job.definition.packages) or job.name}"
        return replace(build_steps.finish(job, tree, layer, base, epoch, history), dockerfile=written)


def _require_shell(job: BuildJob, tree: Path) -> None:
    if not layers.inside(tree, "bin/sh").exists():
        raise ContentError(
            "its base has no shell to run any step",
            file=job.definition_folder / "image.toml",
            key="base",
            hint="use another base, or make it a bootstrap of variant static with its own packages",
        )


def require_records(job: BuildJob, base: Mapping[str, str], tree: Path) -> None:
    """Raise OutsideError where the tree has records of packages that neither the base nor a planned package brought.

    Another package of a planned name and version, which a step installs, has other files, and checksums that fit them.
    """
    if wrong := foreign_records(tree, base, job.debs, job.work):
        why = "of neither the base nor a planned package"
        raise OutsideError(
            f"{job.name} holds other packages than planned",
            evidence="\n".join(f"{ascii(path)[1:-1]}: {why}" for path in wrong[:20]),
            hint="a step installed a package or changed the database of packages: name packages in image.toml",
        )


def _installs_first(job: BuildJob, text: str, epoch: int) -> bool:
    names = tuple(package.name for package in job.packages)
    return bool(names) and dockerfile.installs_first(text, dockerfile.install(job.definition, epoch))


def keep_byte_code(folder: Path, merged: Merged, tree: Path, first: int) -> None:
    """Drop the byte code of packaged modules that steps made, from layer `first` on: Python runs it whatever it was
    made of. `tree`: what the layers stand on. Raises ContentError where it would replace that of a package.
    """
    made = [name for name, (number, _) in merged.chosen.items() if number >= first and BYTE_CODE.fullmatch(name)]
    there = {info.name.removeprefix("./") for tar in merged.tars[:first] for info in tar.getmembers()}
    if wrong := [name for name in made if name in there or os.path.lexists(layers.inside(tree, name))]:
        raise ContentError(
            "a step changed byte code that packages brought, which Python runs without a look at its source",
            file=folder, evidence="\n".join(f"/{ascii(name)[1:-1]}" for name in sorted(wrong)[:20]),
            hint="let steps compile only modules of your own; {{ install }} comes before all steps",
        )  # fmt: skip
    for name in made:
        del merged.chosen[name]


def require_plain(store: Store, base_digest: str) -> None:
    """Raises OutsideError where the base's configuration has steps (ONBUILD) that BuildKit runs in every child."""
    if steps_of_base := (store.config(base_digest).get("config") or {}).get("OnBuild"):
        raise OutsideError(
            f"the base {base_digest} brings steps of its own (ONBUILD), which no plan knows",
            evidence="\n".join(map(repr, steps_of_base)),
            hint="build on another image, or on a copy of it without them",
        )


def _prepare(job: BuildJob, base_digest: str, epoch: int) -> Path:
    """Lay out the build contexts (base, debs, overlay, the definition's folder) in `work`; returns the Dockerfile."""
    require_plain(job.store, base_digest)
    job.store.layout_for(base_digest, job.work / "base")
    write_repository(job.work / "debs", "goldsmith", job.debs, job.stanzas)
    shutil.copy(build_steps.HERE / "install.sh", job.work / "debs")
    materialise(job.overlay, job.work / "overlay")
    shutil.copy(build_steps.HERE / "clean.sh", job.work / "overlay")
    context = build_steps.copy_folder(job.definition_folder, job.work / "context")
    _put_files(job.definition, job.definition_folder, context)
    written = job.work / "Dockerfile"
    packages = tuple(p.name for p in job.packages)
    written.write_text(dockerfile_of(job.definition, job.definition_folder, packages, base_digest, epoch))
    return written


def _put_files(definition: Definition, folder: Path, context: Path) -> None:
    """Write the definition's `files` into the context, wherever links in it lead."""
    for copied in definition.files:
        target = layers.inside(context, f"{FILES}{copied.path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        build_steps.put_file(definition, folder, copied.source, target)


def dockerfile_of(definition: Definition, folder: Path, packages: tuple[str, ...], base_digest: str, epoch: int) -> str:
    """The text of the Dockerfile: the definition's own, or the shipped one. Raises ContentError for what it may not."""
    own = folder / "Dockerfile.j2"
    template = own if own.exists() else build_steps.HERE / "Dockerfile.j2"
    values = dockerfile.values(definition, base_digest, packages, epoch)
    text = build_steps.render(template, values)
    if problem := dockerfile.problem(text, values):
        hint = "the comment at the top of images/build/Dockerfile.j2 says how"
        raise ContentError(problem, file=template, hint=hint)
    return dockerfile.HEADER + text


def command(job: BuildJob, base_digest: str, written: Path, output: Path) -> list[str]:
    """The buildx command line. Steps always run: what is unchanged our input digests know, not BuildKit's cache."""
    work = job.work
    contexts = {
        dockerfile.base_name(job.definition, base_digest): f"oci-layout://{work / 'base'}@{base_digest}",
        "debs": str(work / "debs"),
        "overlay": str(work / "overlay"),
    }
    return [
        *("docker", "buildx", "build", "--progress", "plain", "--no-cache", "--provenance=false", "--sbom=false"),
        *("--network", "none", "--platform", job.platform, "--file", str(written)),
        *("--ulimit", f"data={STEP_MEMORY.most}"),
        *(part for name, place in contexts.items() for part in ("--build-context", f"{name}={place}")),
        # Our own layer is written from the uncompressed one; rewrite-timestamp would rewrite the parent's layers too.
        *("--output", f"type=oci,tar=false,compression=uncompressed,dest={output}"),
        str(work / "context"),
    ]


def _run(job: BuildJob, base_digest: str, written: Path) -> list[Path]:
    """Run BuildKit; returns the tars of the layers beyond the parent's, lowest first."""
    output = job.work / "output"
    job.store.link(output, (layer.digest for layer in job.store.layers_of(base_digest)))  # so BuildKit sends none back
    env = {"BUILDX_GIT_INFO": "false"}  # else buildx runs git in the context, which may be a repository with programs
    env |= {"DOCKER_HOST": job.docker_host} if job.docker_host else {}
    hint = "a step of its Dockerfile failed, or the engine: ./goldsmith doctor shows which one builds"
    try:
        build_steps.run_bound(job, command(job, base_digest, written, output), env, hint, ENGINE)
    except OutsideError as error:
        if STEP_FAILED not in error.evidence:
            raise
        raise ContentError("a step failed", file=job.definition_folder, evidence=error.evidence) from None
    return _beyond(output, job.store.config(base_digest)["rootfs"]["diff_ids"])


def _beyond(output: Path, parent: list[str]) -> list[Path]:
    """The uncompressed layers of BuildKit's result beyond those of `parent` (diff ids: it may compress them again)."""
    blobs = output / "blobs" / "sha256"
    index = json.loads((output / "index.json").read_text())
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    found = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())["rootfs"]["diff_ids"]
    if found[: len(parent)] != parent:
        raise OutsideError("BuildKit did not build on the layers it was given", evidence="\n".join(found))
    paths, allowance = [], Allowance("what the build's steps changed")
    for item in manifest["layers"][len(parent) :]:
        path = output / f"{item['digest'][7:]}.tar"
        with layers.opened(blobs / item["digest"][7:], item["mediaType"], allowance) as plain, path.open("wb") as file:
            shutil.copyfileobj(plain, file, 1 << 20)
        paths.append(path)
    return paths


def _ours(name: str) -> bool:
    """Whether a changed path belongs to the image: not what the build itself mounted or the engine put there."""
    return not re.match(r"(run/goldsmith|proc|sys|dev|etc/(resolv\.conf|hosts|hostname|mtab))(/|$)", name)
