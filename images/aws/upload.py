"""Blocks of a raw disk into a pending snapshot: several at a time, each held to its digest, never more than a few in
memory. Done again, it changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Lock

from hardening.foundation.errors import OutsideError
from images.aws.client import Client
from images.aws.deltas import digests_at
from images.aws.requests import put_block
from images.machine.blocks import BLOCK

TENTHS = 10


def upload(
    ebs: Client,
    snapshot: str,
    disk: Path,
    indexes: Sequence[int],
    digests: bytes,
    *,
    parallel: int,
    progress: Callable[[int, int], None],
) -> None:
    """Put the blocks `indexes` of `disk`, whose `digests` the service checks; `progress(done, of)` is told ten times.

    Raises OutsideError where the disk is not there, or no longer what its digests say.
    """
    require_disk(disk)
    told = _told(len(indexes), progress)
    file = os.open(disk, os.O_RDONLY)

    def put(index: int) -> None:
        data = os.pread(file, BLOCK, index * BLOCK).ljust(BLOCK, b"\0")
        ebs.call("PutSnapshotBlock", **put_block(snapshot, index, data, digests_at(digests, (index,))))
        told()

    try:
        with ThreadPoolExecutor(parallel, thread_name_prefix="upload") as pool:
            try:
                for _ in pool.map(put, indexes):
                    pass
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        os.close(file)


def require_disk(disk: Path) -> None:
    """Raises OutsideError where the disk is not there."""
    if not disk.exists():
        hint = "./goldsmith image.build NAME --no-cache makes it again"
        raise OutsideError(f"the disk {disk.name} is not on this machine any more", hint=hint)


def _told(total: int, progress: Callable[[int, int], None]) -> Callable[[], None]:
    """A function to call after each block: it counts, and tells `progress` after every tenth of them."""
    done, guard = count(1), Lock()
    marks = {max(1, total * part // TENTHS) for part in range(1, TENTHS + 1)}

    def one_more() -> None:
        with guard:
            if (number := next(done)) in marks:
                progress(number, total)

    return one_more
