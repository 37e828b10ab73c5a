"""A base from a distribution's packages: mmdebstrap on a repository with exactly the planned ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from images.build import build_steps
from images.build.build_steps import BuildJob, Built
from images.machine.kernel import SYSTEM_PATH
from images.packages import debian
from images.packages.pool import write_repository
from images.store.files import fits_in_memory, room_on


def build(job: BuildJob) -> Built:
    """Build a working system (variant minbase). Needs root."""
    epoch = build_steps.epoch_of(job)
    tree = job.work / "tree"
    with room_on(job.work):
        make_tree(job, tree, epoch)
        (tree / "etc/apt/sources.list.d/debian.sources").write_text(job.sources)
        return build_steps.finish_tree(job, tree, epoch, f"goldsmith: bootstrap {job.suite}")


def make_tree(job: BuildJob, tree: Path, epoch: int, options: Sequence[str] = ()) -> None:
    """Install the planned packages into a new `tree`, with more `options` of mmdebstrap; nothing of this host stays."""
    repository, room = job.work / "debs", job.work / "room"
    write_repository(repository, job.suite, job.debs, job.stanzas)
    room.mkdir()
    # mmtarfilter is a Python program, and started for each essential package: by the system's interpreter.
    path = f"{SYSTEM_PATH}:{os.environ.get('PATH', SYSTEM_PATH)}"  # an empty folder would be the present one
    env = {"SOURCE_DATE_EPOCH": str(epoch), "TMPDIR": str(room), "PATH": path}
    argv = command(job, tree, repository, options)
    if fits_in_memory(_room_needed(job)):
        inner = command(job, room / "tree", repository, options)
        argv = ["sh", str(build_steps.HERE / "in_memory.sh"), str(room), str(tree), *inner]
    build_steps.run_bound(job, argv, env, "the lines above are what apt and dpkg said")
    leftovers = ("apt/sources.list", "apt/apt.conf.d/99mmdebstrap", "dpkg/dpkg.cfg.d/99mmdebstrap")
    for name in (*leftovers, "hostname", "resolv.conf"):
        (tree / "etc" / name).unlink(missing_ok=True)


def command(job: BuildJob, tree: Path, repository: Path, options: Sequence[str] = ()) -> list[str]:
    """The mmdebstrap command line: everything comes from `repository`, everything in it is installed."""
    packages = sorted({package.name for package in job.packages})
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        f"--architectures={job.platform.removeprefix('linux/')}",
        # The new tree is ours alone until it is packed: syncing it to the disk file by file buys nothing.
        "--dpkgopt=force-unsafe-io",
        '--aptopt=APT::Sandbox::User "root"',
        '--aptopt=Acquire::Languages "none"',
        *options,
        f"--include={','.join(packages)}",
        job.suite,
        str(tree),
        f"deb [trusted=yes] copy:{quote(str(repository))} ./",
    ]


def _room_needed(job: BuildJob) -> int:
    """Bytes that mmdebstrap holds at once: the .debs, and twice what is in them: dpkg replaces what was unpacked."""
    entries = (debian.fields(stanza) for stanza in debian.stanzas(job.stanzas))
    return sum(int(entry.get("Size", 0)) + 2048 * int(entry.get("Installed-Size", 0)) for entry in entries)
