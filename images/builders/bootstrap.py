"""A base from a distribution's packages: mmdebstrap on a repository that holds exactly the planned ones."""

from __future__ import annotations

from pathlib import Path

from hardening.overlay import apply_to
from images.builders import steps
from images.builders.job import BuildJob, Built
from images.disk import fits_in_memory, room_on
from images.packages import debian
from images.packages.index import write_repository
from images.store import layers


def build(job: BuildJob) -> Built:
    """Build a working system (variant minbase). Needs root."""
    epoch = steps.epoch_of(job)
    tree, repository = job.work / "tree", job.work / "debs"
    with room_on(job.work):
        write_repository(repository, _suite(job), job.debs, job.stanzas)
        room = job.work / "room"
        room.mkdir()
        env = {"SOURCE_DATE_EPOCH": str(epoch), "TMPDIR": str(room)}
        argv = command(job, tree, repository)
        if fits_in_memory(_room_needed(job)):
            argv = [
                "sh",
                str(steps.HERE / "in_memory.sh"),
                str(room),
                str(tree),
                *command(job, room / "tree", repository),
            ]
        steps.run_bound(job, argv, env, "the lines above are what apt and dpkg said")
        _own_sources(job, tree)
        steps.put_files(job, tree)
        apply_to(job.overlay, tree, job.work / "overlay")
        steps.clean(tree, epoch)
        layer = job.store.write_layer(layers.tree_entries(tree), epoch)
        return steps.finish(job, tree, layer, (), epoch, f"goldsmith: bootstrap {_suite(job)}")


def command(job: BuildJob, tree: Path, repository: Path) -> list[str]:
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
        f"--include={','.join(packages)}",
        _suite(job),
        str(tree),
        f"deb [trusted=yes] copy:{repository} ./",
    ]


def _room_needed(job: BuildJob) -> int:
    """Bytes that mmdebstrap holds at once: the .debs, and twice what is in them: dpkg replaces what was unpacked."""
    entries = (debian.fields(stanza) for stanza in debian.stanzas(job.stanzas))
    return sum(int(entry.get("Size", 0)) + 2048 * int(entry.get("Installed-Size", 0)) for entry in entries)


def _suite(job: BuildJob) -> str:
    assert job.definition.base.bootstrap is not None  # noqa: S101 - what made this the builder
    return job.definition.base.bootstrap.suite


def _own_sources(job: BuildJob, tree: Path) -> None:
    """Give the image the real, signed sources, and take out what came from this host and from the build."""
    leftovers = ("apt/sources.list", "apt/apt.conf.d/99mmdebstrap", "dpkg/dpkg.cfg.d/99mmdebstrap")
    for name in (*leftovers, "hostname", "resolv.conf"):
        (tree / "etc" / name).unlink(missing_ok=True)
    (tree / "etc/apt/sources.list.d/debian.sources").write_text(job.sources)
