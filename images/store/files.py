"""Files on this machine's disk: hashing, linking, modes, and one clear error when the disk is full. Edge."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, local

from hardening.foundation.errors import FULL, ROOM_HINT, OutsideError

FULL_IN_WORDS = ("No space left on device", "You don't have enough free space")  # the kernel's words, and apt's

MEMORY = Path("/proc/meminfo")
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@contextmanager
def room_on(directory: Path) -> Iterator[None]:
    """Turn a full disk, whether we or a command met it, into one OutsideError that names the directory."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise _full(directory, str(error)) from None
    except OutsideError as error:
        if not any(words in error.evidence for words in FULL_IN_WORDS):
            raise
        raise _full(directory, error.evidence) from None


def _full(directory: Path, evidence: str) -> OutsideError:
    return OutsideError(f"the disk that holds {directory} is full", evidence=evidence, hint=ROOM_HINT)


def require_free(directory: Path, size_bytes: int, what: str) -> None:
    """Raises OutsideError where the disk that holds `directory` has less room than `what` will take."""
    free = shutil.disk_usage(directory).free
    if free < size_bytes:
        raise OutsideError(
            f"the disk that holds {directory} is too full for {what}",
            evidence=f"it takes about {size_bytes / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free", hint=ROOM_HINT,
        )  # fmt: skip


def fits_in_memory(size_bytes: int) -> bool:
    """Whether `size_bytes` are less than a quarter of the free memory, and of our container's limit."""
    free = [int(kilobytes) * 1024 for kilobytes in re.findall(r"MemAvailable: *(\d+)", MEMORY.read_text())]
    limits = [path.read_text().strip() for path in MEMORY_LIMITS if path.exists()]
    return 4 * size_bytes < min([*free, *(int(limit) for limit in limits if limit.isdigit())], default=0)


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


IN_IMAGES, ON_THIS_HOST = 0o022, 0o077
_lock = Lock()


@dataclass
class _Mask:
    """How many blocks want the modes of images under one mask, and what the mask was before the first."""

    building: int = 0
    before: int = 0


_of_process = _Mask()
_of_thread = local()


@contextmanager
def image_modes() -> Iterator[None]:
    """While any block of this process is in here, new files get the modes that files of images have.

    The mask is the whole process's, or that of a thread with its own (`unshared`): the first block sets it, and the
    last one gives back what was before. All that is made meanwhile lies in the state directory, which no other user
    can enter.
    """
    mask: _Mask = getattr(_of_thread, "mask", _of_process)
    with _lock:
        mask.before = mask.before if mask.building else os.umask(IN_IMAGES)
        mask.building += 1
    try:
        yield
    finally:
        with _lock:
            mask.building -= 1
            if not mask.building:
                os.umask(mask.before)


def unshared(unshare: Callable[[], None]) -> None:
    """Let `unshare` give this thread a root, folder and mask of its own, for good."""
    with _lock:
        unshare()
        if not hasattr(_of_thread, "mask"):
            _of_thread.mask = _Mask()
            if _of_process.building:  # the mask that it took over
                os.umask(_of_process.before)


_users: list[int] = []  # the masks that this process had; the first is its user's own


def keep_private_by_default() -> None:
    """From now on, what this process and its children make is its user's alone."""
    _users.append(os.umask(ON_THIS_HOST))
    del _users[1:]


@contextmanager
def content_modes() -> Iterator[None]:
    """New files get the modes of the user's own mask: content is no state, and others read it too."""
    before = os.umask(ON_THIS_HOST)
    os.umask(_users[0] if _users else before)
    try:
        yield
    finally:
        os.umask(before)
