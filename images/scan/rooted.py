"""A program of its own, `rooted.py ROOT COMMAND…`: runs COMMAND as it is, and is meanwhile itself shut into ROOT.

So /proc/PID/mounts of this process tells COMMAND what is mounted below ROOT, as a machine with that root would see it.
"""

from __future__ import annotations

import os
import sys


def main(root: str, *command: str) -> int:
    """The exit status of `command`, which begins once this process has no other root than `root`."""
    rooted, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        os.read(rooted, 1)  # returns when the other end is closed
        os.execvp(command[0], command)  # noqa: S606 - an argv, as it was given
    os.chroot(root)
    os.close(told)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
