"""Modes of files in images: a build makes them as packages would leave them, whoever runs it. Edge."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

IN_IMAGES, ON_THIS_HOST = 0o022, 0o077
_lock = Lock()
_building = 0
_before = 0


@contextmanager
def image_modes() -> Iterator[None]:
    """While any block of this process is in here, new files get the modes that files of images have.

    The mask is the whole process's: the first block sets it, and the last one gives back what was before. All that is
    made meanwhile lies in the state directory, which no other user can enter.
    """
    global _building, _before  # noqa: PLW0603 - the mask that this counts for is the process's
    with _lock:
        _before = _before if _building else os.umask(IN_IMAGES)
        _building += 1
    try:
        yield
    finally:
        with _lock:
            _building -= 1
            if not _building:
                os.umask(_before)


def keep_private_by_default() -> None:
    """From now on, what this process and its children make is its user's alone."""
    os.umask(ON_THIS_HOST)
