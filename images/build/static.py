"""A base without shell and package manager: exactly the named packages, unpacked and never configured."""

from __future__ import annotations

import os
from hashlib import md5
from pathlib import Path

from hardening.foundation.process import run
from images.build import build_steps
from images.build.build_steps import BuildJob, Built
from images.packages import debian
from images.packages.pool import require_whole
from images.store.files import room_on

# What base-passwd's configuration would have made, cut down to what a process needs.
ACCOUNTS = {
    "etc/passwd": (
        0o644,
        "root:x:0:0:root:/root:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    "etc/group": (0o644, "root:x:0:\nnogroup:x:65534:\n"),
    "etc/shadow": (0o640, "root:*:0:0:99999:7:::\nnobody:*:0:0:99999:7:::\n"),
    "etc/gshadow": (0o640, "root:*::\nnogroup:*::\n"),
}


def build(job: BuildJob) -> Built:
    """Build an image of the named packages alone; they count as installed for every scanner. Needs root."""
    epoch = build_steps.epoch_of(job)
    tree = build_steps.fresh(job.work / "tree")
    with room_on(job.work):
        unpack(job, tree)
        return build_steps.finish_tree(job, tree, epoch, "goldsmith: static")


def unpack(job: BuildJob, tree: Path) -> None:
    """Unpack the planned packages into a new `tree`, and make what a process needs beside them."""
    build_steps.weigh(job.debs.values())
    for package in sorted(job.packages, key=lambda p: (p.name != "base-files", p.name)):
        run(["dpkg-deb", "--extract", str(require_whole(package, job.debs[package])), str(tree)])
    tree.chmod(0o755)
    _record(tree)
    _links(tree)
    _status(job, tree)
    _accounts(tree)
    _certificates(tree)


def _record(tree: Path) -> None:
    """Record what packages brought in the form of dpkg's database, with checksums, which controls compare."""
    info, paths = tree / "var/lib/dpkg/info", sorted(tree.rglob("*"))
    files = [path for path in paths if path.is_file() and not path.is_symlink()]
    sums = {path.relative_to(tree): md5(path.read_bytes(), usedforsecurity=False).hexdigest() for path in files}
    info.mkdir(parents=True)
    (info / "static.list").write_bytes(os.fsencode("".join(f"/{path.relative_to(tree)}\n" for path in paths)))
    (info / "static.md5sums").write_bytes(os.fsencode("".join(f"{known}  {name}\n" for name, known in sums.items())))


def _links(tree: Path) -> None:
    """What base-files' configuration would have linked: places under /var that are really under /run."""
    for name, target in (("var/lock", "/run/lock"), ("var/run", "/run")):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        if not path.is_symlink():
            path.symlink_to(target)


def _status(job: BuildJob, tree: Path) -> None:
    """Tell scanners what is in here, in the form that dpkg itself keeps."""
    status = tree / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True, exist_ok=True)
    status.write_text("".join(debian.as_installed(stanza) + "\n\n" for stanza in debian.stanzas(job.stanzas)))


def _accounts(tree: Path) -> None:
    (tree / "etc").mkdir(exist_ok=True)
    for name, (mode, text) in ACCOUNTS.items():
        path = tree / name
        if not path.exists():
            path.write_text(text)
            path.chmod(mode)


def _certificates(tree: Path) -> None:
    """Join the certificate authorities into the one file that programs read, as update-ca-certificates would."""
    certificates = sorted((tree / "usr/share/ca-certificates").rglob("*.crt"))
    if certificates:
        bundle = tree / "etc/ssl/certs/ca-certificates.crt"
        bundle.parent.mkdir(parents=True, exist_ok=True)
        bundle.write_text("".join(path.read_text().rstrip("\n") + "\n" for path in certificates))
