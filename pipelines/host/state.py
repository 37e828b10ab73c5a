"""The state directory: it belongs to the user who runs Goldsmith, and no other user may look into it. Edge to files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hardening.foundation.errors import OutsideError

OTHERS = stat.S_IRWXG | stat.S_IRWXO
# What earlier versions, which left it open, made in it; by one of these it is known to be a state directory.
OURS = (
    "apt", "ca", "content", "demo", "disks", "docker", "feeds", "ledger.sqlite", "locks", "plans", "registry",
    "rehearsal", "reports", "store", "work",
)  # fmt: skip


def keep_private(state: Path) -> None:
    """Make `state` a directory of the present user with mode 0700.

    It holds setuid files of unpacked images, the registry's password and the ledger. Raises OutsideError where it
    belongs to another user, who could plant what we would then run or publish; or is one that others work in, such as
    /tmp or /srv, which it would be closed to.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = state.stat()
        if found.st_uid != os.geteuid():
            raise OutsideError(
                f"the state directory {state} belongs to user id {found.st_uid}, not to {os.geteuid()}, who runs this",
                hint="run this as that user, give it to this one with chown -R, or set `state` in goldsmith.toml",
            )
        if found.st_mode & OTHERS:
            _refuse_shared(state, found.st_mode)
            state.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)
    except OSError as error:
        raise OutsideError(
            f"the state directory {state} cannot be used: {error.strerror or error}",
            hint="set `state` in goldsmith.toml to a directory of your own",
        ) from None


def _refuse_shared(state: Path, mode: int) -> None:
    """Raise OutsideError where an open directory is not a state directory, and so not ours to close."""
    held = {path.name for path in state.iterdir()}
    if mode & stat.S_ISVTX or (held and held.isdisjoint(OURS)):
        raise OutsideError(
            f"the state directory {state} is open to other users and holds what is not ours: it will not be closed",
            hint=f"set `state` in goldsmith.toml to a directory of its own, such as {state / 'goldsmith'}",
        )
