"""Locks between processes: one file, one holder; the kernel frees it when its holder dies in any way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hardening.foundation.errors import OutsideError, RefusedError


@contextmanager
def only_one(path: Path, what: str, *, wait_seconds: float = 0) -> Iterator[None]:
    """Hold the lock at `path` for the block. Raises RefusedError naming `what` when another process holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # where it cannot be, FileLock would wait for it until the time is over
        held = lock.acquire(timeout=wait_seconds)
    except Timeout:
        hint = f"it holds {path}; wait for it to end"
        raise RefusedError(f"{what} is already running on this machine", hint=hint) from None
    except OSError as error:
        hint = "is it another user's? run as that user, or point `state` in goldsmith.toml elsewhere"
        raise OutsideError(f"{path} cannot be written: {error.strerror or error}", hint=hint) from None
    with held:
        yield


def is_held(path: Path) -> bool:
    """Whether some process holds the lock at `path`. Raises OutsideError where that cannot be asked."""
    try:
        with only_one(path, path.name):
            return False
    except RefusedError:
        return True


def one_of(folder: Path, most: int) -> Callable[[], None] | None:
    """One of the `most` places in `folder`, which all processes of this machine share: what gives it back.

    None while all are taken. Raises OutsideError where the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    for number in range(most):
        lock = FileLock(folder / f"{number}.lock", thread_local=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            continue
        except OSError as error:
            raise OutsideError(f"{folder} cannot be written: {error.strerror or error}") from None
        return lock.release
    return None
