"""Mounts that belong to one thread and what it starts: nobody else sees them, and they die with it. Edge."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run

_LIBC = ctypes.CDLL(None, use_errno=True)
# sched.h; Python has unshare and setns only since 3.12
CLONE_NEWNS, CLONE_FS = 0x00020000, 0x00000200

# What a layer holds must mean the same on another day, under other layers: no feature that ties it to those below.
PLAIN = "index=off,xino=off,redirect_dir=off,metacopy=off"


@contextmanager
def private_mounts() -> Iterator[None]:
    """A mount namespace of this thread's own for the block: whatever is mounted in it is gone afterwards.

    Processes and threads that are started inside see it too. However this process ends, the kernel takes all away.
    Raises OutsideError where that is not allowed, such as without root.
    """
    before, folder = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY), os.open(".", os.O_RDONLY)
    try:
        _call("unshare", CLONE_NEWNS)
        try:
            run(["mount", "--make-rprivate", "/"])
            yield
        finally:
            # A thread that was started inside shares our root and folder until it is wholly gone, which is a moment
            # after its join; with those shared, setns is refused.
            _call("unshare", CLONE_FS)
            _call("setns", before, CLONE_NEWNS)
            os.fchdir(folder)
    finally:
        os.close(before)
        os.close(folder)


def overlay(lowers: Sequence[Path], at: Path, *, upper: Path | None = None, work: Path | None = None) -> Path:
    """Mount `lowers`, uppermost first, at `at`: to be read only, or with what changes in it kept in `upper`."""
    at.mkdir(parents=True, exist_ok=True)
    # The kernel wants two layers at least: beside a single one stands the empty place itself.
    layers = [*lowers, at] if len(lowers) == 1 and not upper else lowers
    options = [f"lowerdir={':'.join(map(_escaped, layers))}", PLAIN]
    if upper and work:
        for folder in (upper, work):
            folder.mkdir(parents=True, exist_ok=True)
        options += [f"upperdir={_escaped(upper)}", f"workdir={_escaped(work)}"]
    # The mount program hands over each option by itself, and then they may be no longer than 256 bytes.
    arguments = [part.encode() for part in ("goldsmith", str(at), "overlay")]
    if problem := _failed("mount", *arguments, 0, ",".join(options).encode()):
        raise OutsideError(
            f"no overlay can be mounted at {at}: {problem}",
            hint="`state` in goldsmith.toml must lie on a file system such as ext4 or xfs, and not on an overlay",
        )
    return at


def unmount(at: Path) -> None:
    """Take away what is mounted at `at`."""
    run(["umount", "--recursive", str(at)])


def _escaped(path: Path) -> str:
    """A path as mount options have it."""
    return "".join(f"\\{letter}" if letter in "\\:," else letter for letter in str(path))


def _failed(name: str, *arguments: int | bytes) -> str:
    """Call the C library's `name`; why it failed, or nothing."""
    return os.strerror(ctypes.get_errno()) if getattr(_LIBC, name)(*arguments) else ""


def _call(name: str, *arguments: int) -> None:
    if problem := _failed(name, *arguments):
        raise OutsideError(
            f"no mounts of our own: {name}: {problem}",
            hint="machine images are built as root, in a container only with the capability SYS_ADMIN",
        )
