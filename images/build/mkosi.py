"""A machine from an mkosi configuration: `mkosi.conf` beside image.toml only makes the tree of packages.

Hardening, the definition's files, kernel parameters, disk, boot gate, scans and policy are those of every machine; the
distribution, its suite and its package sources are those of `base.bootstrap`. Weak points:

- What mkosi installs is recorded, not planned. So any change of the archive makes the tree again, needed or not.
- Each run fetches all packages: there is no cache of them, and proxy and extra sources of our settings are not passed.
  `mkosi.sandbox` in the definition's folder may hold what apt is to be told.
- The kernel lies in the tree twice: mkosi copies it from /boot into /usr/lib/modules.
"""

from __future__ import annotations

import re
import shutil
from functools import cache
from pathlib import Path

from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import digest_of
from hardening.foundation.process import NETWORK, run, which
from images.build import build_steps, machine
from images.build.build_steps import BuildJob, Built
from images.catalog import file_digests
from images.machine import trees
from images.machine.disk import SEED
from images.machine.kernel import SYSTEM_PATH
from images.store.files import room_on

VERSION = "1"  # changes whenever the same configuration would become another tree
ARCHITECTURES = {"linux/amd64": "x86-64", "linux/arm64": "arm64"}
SANDBOX = "mkosi.sandbox/etc"
NEVER = 1 << 32  # seconds: the times of packages stay, so that the newest of them can be the image's
HINT = "the lines above are what mkosi said; its configuration is the definition's"


def build(job: BuildJob) -> Built:
    """Build a machine's disk on what mkosi installs, and leave its tree mounted. Needs root and `private_mounts`."""
    with room_on(job.work):
        below = trees.made_once(job, _key(job), lambda layer: _make(job, layer))
    [tree] = trees.stack(job.store, below)
    return machine.finish(job, below, build_steps.installed_in(tree), _newest(tree))


def command(job: BuildJob, source: Path) -> list[str]:
    """The mkosi command line: a plain tree of the base's distribution, without boot loader and disk."""
    return [
        *("mkosi", "--directory", str(source), "--force", "--format=directory", "--output=tree"),
        *(f"--output-directory={job.work / 'mkosi/output'}", f"--workspace-directory={job.work / 'mkosi/work'}"),
        *(f"--package-cache-directory={job.work / 'mkosi/cache'}", "--incremental=no", f"--seed={SEED}"),
        *("--distribution=debian", f"--release={job.suite}"),
        *(f"--architecture={ARCHITECTURES[job.platform]}", "--bootable=no", "--clean-package-metadata=no"),
        # What packages' scripts make, an initrd above all, has this date.
        *(f"--source-date-epoch={NEVER}", "--environment=SOURCE_DATE_EPOCH=0"),
        "build",
    ]


@cache
def version() -> str:
    """The version of mkosi on this host, which has a say in the bytes of a tree."""
    if which("mkosi") is None:
        return "absent"
    found = re.search(r"\d[\w.~+-]*", run(["mkosi", "--version"], env={"PATH": SYSTEM_PATH}).stdout)
    return found[0] if found else "unknown"


def require_mkosi() -> None:
    """Raises OutsideError where this host has no mkosi."""
    if which("mkosi") is None:
        raise OutsideError("this machine lacks mkosi, which the definition requires", hint="apt-get install mkosi")


def _key(job: BuildJob) -> str:
    """What the tree is a function of, as far as anyone knows; the archive's state stands for what it holds."""
    base, files = job.definition.base.model_dump(mode="json"), file_digests(job.definition_folder)
    inputs = ["mkosi", VERSION, trees.VERSION, version(), base, files, job.sources, job.archive, job.platform]
    return digest_of([*inputs, trees.dpkg_options(job)]).removeprefix("sha256:")


def _make(job: BuildJob, layer: Path) -> None:
    """Run mkosi, and make its tree what a bootstrap is."""
    say(f"{job.name}: mkosi {version()} installs what its configuration says")
    for name in ("output", "work", "cache"):
        (job.work / "mkosi" / name).mkdir(parents=True)
    build_steps.run_bound(job, command(job, _source(job)), {"PATH": SYSTEM_PATH}, HINT, NETWORK)
    tree = (job.work / "mkosi/output/tree").rename(layer / "tree")
    (tree / f"etc/apt/sources.list.d/{job.suite}.sources").unlink(missing_ok=True)
    trees.clean(tree, _newest(tree))
    shutil.rmtree(job.work / "mkosi")


def _source(job: BuildJob) -> Path:
    """A copy of the definition's folder, with the sources of the base, unless it has its own, and our ways of dpkg."""
    source = build_steps.copy_folder(job.definition_folder, job.work / "mkosi/source")
    for place, text in (
        ("apt/sources.list.d/mkosi.sources", job.sources),
        ("dpkg/dpkg.cfg.d/goldsmith", trees.dpkg_options(job)),
    ):
        target = source / SANDBOX / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.write_text(text)
    run(["sh", str(trees.HERE / "initramfs.sh"), str(source / "mkosi.skeleton")])
    return source


def _newest(tree: Path) -> int:
    """The date of the newest package in `tree`, in seconds: dpkg keeps the times of what a package says of itself."""
    return max((int(file.stat().st_mtime) for file in (tree / "var/lib/dpkg/info").glob("*.md5sums")), default=0)
