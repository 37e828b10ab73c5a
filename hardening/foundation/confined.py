"""A program of its own, `confined.py WORK KEEPS MEMORY FILE READS TREE COMMAND…`: becomes COMMAND, shut in.

It sees READS (paths, one a line), read-only, and may write to one folder of the host, WORK (beside it, WORK.out and
WORK.err take what it prints), and to TREE unless that is empty. KEEPS are the numbers of the capabilities that it
keeps, with commas between; MEMORY and FILE are limits in bytes. All paths are where they are on the host. It starts in
namespaces of its own (`confinement.py`): nothing that it mounts is seen elsewhere, and it has no network, no other
processes, nothing of the host's /etc, /home, /run or /tmp, and no capability to get out. It needs Linux 5.12.
It starts again for each scan: so it imports nothing of ours, and of Python no more than it needs (no pathlib).
"""

# ruff: noqa: PTH102, PTH103, PTH112, PTH114, PTH115, PTH120, PTH211
from __future__ import annotations

import ctypes
import os
import resource
import sys

# What programs need of a host to run at all: themselves, their libraries, names of users. No host's secrets lie there.
HOST = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SETTINGS = ("ld.so.cache", "passwd", "group", "localtime", "alternatives")  # of /etc
DEVICES = ("null", "zero", "full", "random", "urandom")
SCRATCH_BYTES = 256 << 20
# linux/mount.h (an attribute of a mount has the number of its flag), linux/fcntl.h, linux/prctl.h; the number of
# mount_setattr is the same on every architecture
RDONLY, NOSUID, NODEV, NOEXEC, BIND, MOVE, ALL = 1, 2, 4, 8, 4096, 8192, 16384
MOUNT_SETATTR, HERE, RECURSIVE = 442, -100, 0x8000
CAPBSET_READ, CAPBSET_DROP, SET_NO_NEW_PRIVS = 23, 24, 38
PIPE, DEFAULT = 13, 0  # signal(7)

_LIBC = ctypes.CDLL(None, use_errno=True)


class Attributes(ctypes.Structure):
    """struct mount_attr."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def main(work: str, keeps: str, memory: str, file: str, reads: str, tree: str, *command: str) -> None:
    """Shut this process in and become `command`. Raises OSError where any of it fails."""
    root = f"{work}.root"
    os.mkdir(root)
    for number, ending in ((1, "out"), (2, "err")):  # opened here, where no program that it runs can put a link
        os.dup2(os.open(f"{work}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), number)
    # A root of memory, which goes with it: some scanners insist on /tmp or /run.
    _mount("tmpfs", root, "tmpfs", NOSUID | NODEV, f"mode=0755,size={SCRATCH_BYTES}")
    for name in ("tmp", "run", "dev", "proc"):
        os.mkdir(f"{root}/{name}")
    for path in (*HOST, *(f"/etc/{name}" for name in SETTINGS), *reads.split("\n")):
        _show(root, path)
    for name in DEVICES:
        _bind(f"/dev/{name}", root)
        _narrowed(f"{root}/dev/{name}", RDONLY)  # its owner and mode are the host's
    for path in (tree, work) if tree else (work,):
        os.makedirs(root + path, exist_ok=True)
        _mount(path, root + path, "", BIND | ALL)
        _narrowed(root + path, NOSUID if path == tree else NOSUID | NODEV)  # a tree's programs need its /dev/null
    # Read-only: root may write to some files below /proc/sys without any capability.
    _mount("proc", f"{root}/proc", "proc", RDONLY | NOSUID | NODEV | NOEXEC)
    os.chdir(root)
    _mount(".", "/", "", MOVE)
    os.chroot(".")
    os.chdir(work)
    _limit({int(number) for number in keeps.split(",")}, int(memory), int(file))
    _LIBC.signal(PIPE, DEFAULT)  # Python ignores it, and what it starts would, too: grep before a closed pipe complains
    try:
        os.execvp(command[0], command)  # noqa: S606 - an argv, as it was given
    except OSError as problem:  # of a script, its interpreter may be what is missing
        raise OSError(problem.errno, f"{command[0]}, or what runs it: {problem.strerror}") from None


def _show(root: str, path: str) -> None:
    """Let `path` of the host, if there, be seen below `root`, read-only; a link as the link, and where it leads."""
    if os.path.lexists(root + path) or not os.path.lexists(path):
        return
    if os.path.islink(path):
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(os.readlink(path), root + path)
        _show(root, os.path.realpath(path))
        return
    _bind(path, root)
    _narrowed(root + path, RDONLY | NOSUID | NODEV)


def _bind(path: str, root: str) -> None:
    """Mount `path` of the host where it is seen below `root`."""
    if os.path.isdir(path):
        os.makedirs(root + path)
    else:
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.close(os.open(root + path, os.O_WRONLY | os.O_CREAT))
    _mount(path, root + path, "", BIND | ALL)


def _narrowed(mounted: str, attributes: int) -> None:
    """Set these attributes there and below; what its file system forbids stays forbidden."""
    wanted = Attributes(attr_set=attributes)
    _call("syscall", MOUNT_SETATTR, HERE, mounted.encode(), RECURSIVE, ctypes.byref(wanted), ctypes.sizeof(wanted))


def _limit(keeps: set[int], memory: int, file: int) -> None:
    """Take away all capabilities but those that it keeps, for good, and limit memory, files and core dumps."""
    # Not RLIMIT_AS: programs in Go and Haskell reserve far more addresses than they use.
    for limit, most in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, file), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    capability = 0
    while _LIBC.prctl(CAPBSET_READ, capability, 0, 0, 0) >= 0:
        if capability not in keeps:
            _call("prctl", CAPBSET_DROP, capability, 0, 0, 0)
        capability += 1
    _call("prctl", SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    text = [part.encode() or None for part in (source, target, kind)]
    _call("mount", *text, ctypes.c_ulong(flags), options.encode() or None)


def _call(name: str, *arguments: object) -> None:
    if getattr(_LIBC, name)(*arguments):
        error = ctypes.get_errno()
        raise OSError(error, f"{name} {arguments}: {os.strerror(error)}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as problem:
        sys.stderr.write(f"it cannot be shut in: {problem}\n")
        sys.exit(125)  # a status that no scanner means anything by
