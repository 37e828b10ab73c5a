"""A program of its own, `confined.py SPEC COMMAND…`: becomes COMMAND in a root where it sees what it scans and no more.

SPEC is JSON: `reads`, the paths that are there, read-only; `work`, the one folder of the host that it may write to
(beside it, WORK.out and WORK.err take what COMMAND prints); `keeps`, the names of the capabilities that it keeps
(`KEPT`); `memory` and `file`, limits in bytes. All paths are where they are on the host. It starts in namespaces of its
own (`confinement.py`): nothing that it mounts is seen elsewhere, and it has no network, no other processes, nothing of
the host's /etc, /home, /run or /tmp, and no capability to get out. It imports nothing of ours: it knows no secret.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

# What programs need of a host to run at all: themselves, their libraries, names of users. No host's secrets lie there.
HOST = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SETTINGS = ("ld.so.cache", "passwd", "group", "localtime", "alternatives")  # of /etc
SCRATCH_BYTES = 256 << 20
DEVICES = ("null", "zero", "full", "random", "urandom")
# linux/capability.h
KEPT = {"dac_override": 1, "setpcap": 8, "sys_chroot": 18, "sys_admin": 21}
# linux/mount.h, linux/prctl.h
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, MOVE = 1, 2, 4, 8, 32, 4096, 8192
CAPBSET_READ, CAPBSET_DROP, SET_NO_NEW_PRIVS = 23, 24, 38

_LIBC = ctypes.CDLL(None, use_errno=True)


def main(spec: str, *command: str) -> None:
    """Shut this process in and become `command`. Ends with an error where any of it fails."""
    asked: dict[str, Any] = json.loads(spec)
    work = Path(asked["work"])
    root = work.with_name(f"{work.name}.root")
    root.mkdir()
    for number, ending in ((1, "out"), (2, "err")):  # opened here, where no program that it runs can put a link
        os.dup2(os.open(f"{work}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), number)
    # A root of memory, which goes with it: some scanners insist on /tmp or /run.
    _mount("tmpfs", root, "tmpfs", NOSUID | NODEV, f"mode=0755,size={SCRATCH_BYTES}")
    for name in ("tmp", "run"):
        (root / name).mkdir()
    for place in (*HOST, *(f"/etc/{name}" for name in SETTINGS), *asked["reads"]):
        _show(root, Path(place))
    _devices(root)
    _inside(root, work).mkdir(parents=True)
    _mount(str(work), _inside(root, work), "", BIND)
    _mount("", _inside(root, work), "", BIND | REMOUNT | NOSUID | NODEV | os.statvfs(work).f_flag & NOEXEC)
    (root / "proc").mkdir()
    # Read-only: root may write to some files below /proc/sys without any capability.
    _mount("proc", root / "proc", "proc", RDONLY | NOSUID | NODEV | NOEXEC)
    os.chdir(root)
    _mount(".", Path("/"), "", MOVE)
    os.chroot(".")
    os.chdir(work)
    _limit(asked)
    os.execvp(command[0], command)  # noqa: S606 - an argv, as it was given


def _show(root: Path, path: Path) -> None:
    """Let `path` of the host, if there, be seen below `root`, read-only; a link as the link, and where it leads."""
    inside = _inside(root, path)
    if os.path.lexists(inside) or not os.path.lexists(path):
        return
    inside.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        inside.symlink_to(path.readlink())
        _show(root, path.resolve())
        return
    inside.mkdir() if path.is_dir() else inside.touch()
    _mount(str(path), inside, "", BIND)
    _mount("", inside, "", BIND | REMOUNT | RDONLY | NOSUID | NODEV | os.statvfs(inside).f_flag & NOEXEC)


def _devices(root: Path) -> None:
    (root / "dev").mkdir()
    for name in DEVICES:
        (root / "dev" / name).touch()
        _mount(f"/dev/{name}", root / "dev" / name, "", BIND)
    (root / "dev/fd").symlink_to("/proc/self/fd")


def _limit(asked: dict[str, Any]) -> None:
    """Take away all capabilities but those that it keeps, for good, and limit memory, files and core dumps."""
    keeps = {KEPT[name] for name in asked["keeps"]}
    for limit, most in (
        # Not RLIMIT_AS: programs in Go and Haskell reserve far more addresses than they use.
        (resource.RLIMIT_DATA, asked["memory"]),
        (resource.RLIMIT_FSIZE, asked["file"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))
    capability = 0
    while _LIBC.prctl(CAPBSET_READ, capability, 0, 0, 0) >= 0:
        if capability not in keeps:
            _call("prctl", CAPBSET_DROP, capability, 0, 0, 0)
        capability += 1
    _call("prctl", SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _inside(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _mount(source: str, target: Path, kind: str, flags: int, options: str = "") -> None:
    text = [part.encode() or None for part in (source, str(target), kind)]
    _call("mount", *text, ctypes.c_ulong(flags), options.encode() or None)


def _call(name: str, *arguments: Any) -> None:
    if getattr(_LIBC, name)(*arguments):
        error = ctypes.get_errno()
        raise OSError(error, f"{name} {arguments}: {os.strerror(error)}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as problem:
        sys.stderr.write(f"it cannot be shut in: {problem}\n")
        sys.exit(125)  # a status that no scanner means anything by
