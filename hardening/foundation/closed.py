"""A separate program, `closed.py ROOT COMMAND…`: becomes COMMAND, which can write only below ROOT and /tmp.

The rest of the host is read-only to it, and to all that it starts: a link in an image leads scripts to no file of ours.
It needs root and Linux 5.12. It starts again for each command: so it imports nothing of ours.
"""

from __future__ import annotations

import ctypes
import os
import sys

# linux/sched.h, linux/mount.h, linux/fcntl.h; the number of mount_setattr is the same on every architecture
CLONE_NEWNS, BIND, ALL, PRIVATE, MOUNT_SETATTR = 0x20000, 4096, 16384, 1 << 18, 442
HERE, RECURSIVE, RDONLY = -100, 0x8000, 1
TEMPORARY = "/tmp"  # noqa: S108 - where scripts keep what they need for a moment

_LIBC = ctypes.CDLL(None, use_errno=True)


class Attributes(ctypes.Structure):
    """struct mount_attr."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def main(root: str, *command: str) -> None:
    """Close the host and become `command`. Raises OSError where any of it fails."""
    _call("unshare", CLONE_NEWNS)
    _change("/", RECURSIVE, propagation=PRIVATE)
    for place in (TEMPORARY, root):  # a root below it comes second, and stands over it
        _call("mount", place.encode(), place.encode(), None, ctypes.c_ulong(BIND | ALL), None)
    _change("/", RECURSIVE, attr_set=RDONLY)
    for place in (TEMPORARY, root):
        _change(place, RECURSIVE, attr_clr=RDONLY)
    os.environ["TMPDIR"] = TEMPORARY
    os.execvp(command[0], command)  # noqa: S606 - an argv, as it was given


def _change(place: str, flags: int, **attributes: int) -> None:
    wanted = Attributes(**attributes)
    _call("syscall", MOUNT_SETATTR, HERE, place.encode(), flags, ctypes.byref(wanted), ctypes.sizeof(wanted))


def _call(name: str, *arguments: object) -> None:
    if getattr(_LIBC, name)(*arguments):
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as problem:
        sys.stderr.write(f"the host cannot be made read-only to it: {problem}\n")
        sys.exit(125)
