"""Files on this machine's disk: hashing, linking, and one clear error when the disk is full."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hardening.foundation.errors import OutsideError

FULL = ("No space left on device", "You don't have enough free space")  # the kernel's words, and apt's


@contextmanager
def room_on(directory: Path) -> Iterator[None]:
    """Turn a full disk, whether we or a command met it, into one OutsideError that names the directory."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise _full(directory, str(error)) from None
    except OutsideError as error:
        if not any(words in error.evidence for words in FULL):
            raise
        raise _full(directory, error.evidence) from None


def _full(directory: Path, evidence: str) -> OutsideError:
    return OutsideError(
        f"the disk that holds {directory} is full",
        evidence=evidence,
        hint="free some space (./goldsmith image.prune helps), or move `state` in goldsmith.toml to a larger disk",
    )


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """`target` as a hard link to `source`, or as a copy where the file system forbids the link."""
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError:
        shutil.copyfile(source, target)
