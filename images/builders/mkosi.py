"""A machine image from an mkosi configuration: `mkosi.conf` in the definition's folder says what is in it.

The hardening, the definition's files and its kernel parameters come on top of that, and disk, boot gate, scans and
policy are those of every machine. What mkosi installs is taken from the archive at that moment: it is recorded, but not
planned, and a newer package rebuilds nothing by itself.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

from hardening.foundation.errors import ContentError
from hardening.foundation.process import run
from hardening.overlay import materialise
from images.builders import steps
from images.builders.job import BuildJob, Built
from images.disk import room_on
from images.machines import layers, record, trees
from images.machines.disk import SEED
from images.machines.mounts import overlay

CONFIGURATION = "mkosi.conf"
SOURCES = "mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources"
HARDEN = '#!/bin/sh\nset -eu\nROOT="$BUILDROOT" sh "$SRCDIR/goldsmith/apply.sh"\n'
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # another Python first in it would be taken for the system's
MKFS = f"-E hash_seed={SEED},nodiscard,lazy_itable_init=1"
HINT = "mkosi builds it: the lines above are its own; apt-get install mkosi brings it"


def build(job: BuildJob) -> Built:
    """Run mkosi on the definition's folder, and leave the tree of its disk mounted. Needs root and `private_mounts`.

    Raises ContentError where its root partition is none that can be read.
    """
    epoch = steps.epoch_of(job)
    words = " ".join([layers.ROOT_WORDS, *(job.definition.machine.command_line if job.definition.machine else ())])
    with room_on(job.work):
        source = _source(job)
        environment = {
            "PATH": PATH,
            "SOURCE_DATE_EPOCH": str(epoch),
            "SYSTEMD_REPART_MKFS_OPTIONS_EXT4": MKFS,
        }
        steps.run_bound(job, command(job.work, source, words, epoch), environment, HINT)
        layer = steps.fresh(job.work / "layer")
        _read_root(job, layer / "tree")
        config = record.keep_disk(job, job.work / "output/disk.raw", words, epoch)
        digest = record.write_manifest(job, config)
        packages = steps.installed_in(layer / "tree")
        trees.keep(job.store, trees.key_of(digest), layer)
        tree = overlay(trees.stack(job.store, trees.key_of(digest)), job.work / "tree")
    created = datetime.fromtimestamp(epoch, UTC)
    return Built(digest, packages, created, tree, config, config["disk"]["size_bytes"])


def require_configuration(folder: Path) -> None:
    """Raises ContentError where a definition's `folder` holds no mkosi.conf."""
    if not (folder / CONFIGURATION).is_file():
        hint = 'write one, or take builder = "mkosi" out of image.toml'
        raise ContentError("no such file", file=folder / CONFIGURATION, hint=hint)


def command(work: Path, source: Path, words: str, epoch: int) -> list[str]:
    """The mkosi command line: what the configuration says, and on top of that what makes it ours and reproducible."""
    return [
        *("mkosi", "--directory", str(source), "--force", "--format=disk", "--output=disk"),
        *(f"--output-directory={work / 'output'}", f"--workspace-directory={work / 'mkosi'}"),
        # By file, so that the tree that is checked and scanned is read from the very disk.
        "--split-artifacts=partitions",
        # Firmware does not find a FAT of larger sectors.
        *("--sector-size=512", f"--seed={SEED}", f"--source-date-epoch={epoch}"),
        *(f"--build-sources={work / 'overlay'}:goldsmith", f"--finalize-script={work / 'harden.sh'}"),
        *(f"--extra-tree={work / 'files'}:/", f"--kernel-command-line={words}"),
        "build",
    ]


def _source(job: BuildJob) -> Path:
    """A copy of the definition's folder, with our package sources unless it has its own; what runs beside it."""
    source = job.work / "source"
    shutil.copytree(job.definition_folder, source, symlinks=True)
    sources = source / SOURCES
    if not sources.exists():
        sources.parent.mkdir(parents=True, exist_ok=True)
        sources.write_text(job.sources)
    for name in ("files", "mkosi", "output"):
        (job.work / name).mkdir()
    steps.put_files(job, job.work / "files")
    materialise(job.overlay, job.work / "overlay")
    script = job.work / "harden.sh"
    script.write_text(HARDEN)
    script.chmod(0o755)
    return source


def _read_root(job: BuildJob, tree: Path) -> None:
    """Unpack the root partition, which must be ext4, into `tree`, and forget it."""
    found = sorted((job.work / "output").glob("disk.root*.raw"))
    if len(found) != 1:
        raise ContentError(
            f"it makes {len(found)} root partitions, where one is needed", file=job.definition_folder / CONFIGURATION
        )
    tree.mkdir()
    run(["debugfs", "-R", f'rdump / "{tree}"', str(found[0])])
    if not (tree / "etc").is_dir():
        raise ContentError(
            "its root partition is not ext4", file=job.definition_folder / CONFIGURATION,
            hint="leave Format= of the root partition out, or set it to ext4",
        )  # fmt: skip
    found[0].unlink()
