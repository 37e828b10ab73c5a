"""Where blocks live: one file that only grows, each content once, so that copies over regions cost nothing."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading

BLOCK = 524_288
PER_GIB = 2**30 // BLOCK
ZERO = hashlib.sha256(bytes(BLOCK)).digest()


class BlockStore:
    """Blocks by their SHA-256. Thread-safe; memory holds only digests and offsets."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="strict-aws-")  # noqa: SIM115 (lives as long as the store)
        self._offsets: dict[bytes, int] = {}
        self._end = 0
        self._lock = threading.Lock()

    def put(self, data: bytes, digest: bytes) -> None:
        """Keep one block; zero blocks take no room."""
        with self._lock:
            if digest == ZERO or digest in self._offsets:
                return
            offset, self._end = self._end, self._end + BLOCK
            os.pwrite(self._file.fileno(), data, offset)
            self._offsets[digest] = offset

    def get(self, digest: bytes) -> bytes:
        """The block with this digest. Raises KeyError where it was never put."""
        return bytes(BLOCK) if digest == ZERO else os.pread(self._file.fileno(), BLOCK, self._offsets[digest])

    def copied(self) -> BlockStore:
        """A store of its own with the same blocks."""
        copy = BlockStore()
        for digest in self._offsets:
            copy.put(self.get(digest), digest)
        return copy

    def close(self) -> None:
        self._file.close()
