"""An image on another: BuildKit runs the steps of a Dockerfile, and what they changed becomes one layer of ours."""

from __future__ import annotations

import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.process import bound, run
from hardening.overlay import materialise
from images import layers
from images.builders import dockerfile, steps
from images.builders.job import BuildJob, Built
from images.disk import room_on
from images.merge import Merged
from images.packages import write_repository


def build(job: BuildJob) -> Built:
    """Build a child with BuildKit. Needs root and an engine with the containerd image store."""
    base_digest = str(job.base)
    epoch = steps.epoch_of(job)
    with room_on(job.work):
        written = _prepare(job, base_digest, epoch)
        # BuildKit works while the base is unpacked here, where what it changed is then added to it.
        with ThreadPoolExecutor(1) as beside:
            running = beside.submit(_run, job, base_digest, written)
            tree = job.store.unpack(base_digest, job.work / "tree")
            _require_shell(job, tree)
            changed = running.result()
        base = steps.installed_in(tree)
        with Merged(changed, lambda name: os.path.lexists(layers.inside(tree, name)), _ours) as merged:
            layer = job.store.write_layer(merged.entries(), epoch)
        layers.unpack(job.store.blob(layer[0].digest), layer[0].media_type, tree)
        step = f"goldsmith: {' '.join(job.definition.packages) or job.name}"
        return replace(steps.finish(job, tree, layer, base, epoch, step), dockerfile=written)


def _require_shell(job: BuildJob, tree: Path) -> None:
    if not layers.inside(tree, "bin/sh").exists():
        raise ContentError(
            "its base has no shell to run any step",
            file=job.definition_folder / "image.toml",
            key="base",
            hint="stand it on another base, or make it a bootstrap of variant static with packages of its own",
        )


def _prepare(job: BuildJob, base_digest: str, epoch: int) -> Path:
    """Lay out the build contexts in `work`: base, debs, overlay, files; returns the rendered Dockerfile."""
    job.store.layout_for(base_digest, job.work / "base")
    write_repository(job.work / "debs", "goldsmith", job.debs, job.stanzas)
    shutil.copy(steps.HERE / "install.sh", job.work / "debs")
    materialise(job.overlay, job.work / "overlay")
    shutil.copy(steps.HERE / "clean.sh", job.work / "overlay")
    files = job.work / "files"
    for copied in job.definition.files:
        target = files / copied.path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(steps.file_content(job, copied.source))
    files.mkdir(exist_ok=True)
    written = job.work / "Dockerfile"
    written.write_text(_dockerfile(job, base_digest, epoch))
    return written


def _dockerfile(job: BuildJob, base_digest: str, epoch: int) -> str:
    own = job.definition_folder / "Dockerfile.j2"
    template = own if own.exists() else steps.HERE / "Dockerfile.j2"
    values = dockerfile.values(job.definition, base_digest, tuple(p.name for p in job.packages), epoch)
    text = steps.render(template, values)
    if problem := dockerfile.problem(text, values):
        raise ContentError(problem, file=template, hint="the comment at the top of the shipped Dockerfile.j2 says how")
    return text


def command(job: BuildJob, base_digest: str, written: Path, output: Path) -> list[str]:
    """The buildx command line. Steps always run: what is unchanged our input digests know, not BuildKit's cache."""
    work = job.work
    contexts = {
        dockerfile.base_name(job.definition, base_digest): f"oci-layout://{work / 'base'}@{base_digest}",
        "debs": str(work / "debs"),
        "overlay": str(work / "overlay"),
        "files": str(work / "files"),
    }
    return [
        *("docker", "buildx", "build", "--progress", "plain", "--no-cache", "--provenance=false", "--sbom=false"),
        *("--platform", job.platform, "--file", str(written)),
        *(part for name, place in contexts.items() for part in ("--build-context", f"{name}={place}")),
        # Our own layer is written from the uncompressed one; rewrite-timestamp would rewrite the parent's layers too.
        *("--output", f"type=oci,tar=false,compression=uncompressed,dest={output}"),
        str(job.definition_folder),
    ]


def _run(job: BuildJob, base_digest: str, written: Path) -> list[Path]:
    """Run BuildKit; returns the tars of the layers beyond the parent's, lowest first."""
    output = job.work / "output"
    env = {"DOCKER_HOST": job.docker_host} if job.docker_host else {}
    run(bound(command(job, base_digest, written, output)), env=env, hint="./goldsmith doctor shows the build engine")
    blobs = output / "blobs" / "sha256"
    index = json.loads((output / "index.json").read_text())
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    found = [item["digest"] for item in manifest["layers"]]
    parent = [layer.digest for layer in job.store.layers_of(base_digest)]
    if found[: len(parent)] != parent:
        raise OutsideError("BuildKit did not build on the layers it was given", evidence="\n".join(found))
    return [blobs / digest[7:] for digest in found[len(parent) :]]


def _ours(name: str) -> bool:
    """Whether a changed path belongs to the image: not what the build itself mounted or the engine put there."""
    return not re.match(r"(run/goldsmith|proc|sys|dev|etc/(resolv\.conf|hosts|hostname|mtab))(/|$)", name)
