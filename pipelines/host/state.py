"""The state directory: it belongs to the user who runs Goldsmith, and no other user may look into it. Edge to files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hardening.foundation.errors import OutsideError

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def keep_private(state: Path) -> None:
    """Make `state` a directory of the present user with mode 0700.

    It holds setuid files of unpacked images, the registry's password and the ledger. Raises OutsideError where it
    belongs to another user, who could plant what we would then run or publish.
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
            state.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)
    except OSError as error:
        raise OutsideError(
            f"the state directory {state} cannot be used: {error.strerror or error}",
            hint="set `state` in goldsmith.toml to a directory of your own",
        ) from None
