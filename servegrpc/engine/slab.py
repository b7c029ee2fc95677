"""A shared-memory area for the items of one batch, written by one process and read by another.

It lies in a memfd, so no `/dev/shm` limit applies; it is pre-faulted and reused, since fresh memory is several times slower to
fill than warm memory. Items lie one after the other, each aligned to 64 bytes: those of one size are evenly spaced, and so are the tensors
in requests that are alike, which a handler may have as one strided array without a copy.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterable, Sequence

ALIGNMENT = 64
SMALLEST_BYTES = 256 * 1024


class SlabError(Exception):
    """The other process says that more is in the slab than there is."""


def offsets(start: int, lengths: Iterable[int]) -> tuple[list[int], int]:
    """Return where items of these lengths lie when the first begins at `start`, and where the next would begin."""
    places = []
    for length in lengths:
        places.append(start)
        start += (length + ALIGNMENT - 1) & -ALIGNMENT
    return places, start


class Slab:
    """One end of the area. The writer grows it; the reader follows. It can never shrink, so a view on it is always safe to read."""

    def __init__(self, fd: int, smallest_bytes: int = SMALLEST_BYTES) -> None:
        self.fd = fd
        self._smallest = smallest_bytes
        self._view = memoryview(b"")

    @classmethod
    def create(cls, smallest_bytes: int = SMALLEST_BYTES) -> Slab:
        """Make a new, empty area; it takes no memory until it is written to, and then at least `smallest_bytes`."""
        fd = os.memfd_create("servegrpc-slab", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return cls(fd, smallest_bytes)

    def write(self, start: int, items: Sequence[bytes | memoryview]) -> int:
        """Copy items in, beginning at `start`; returns where the next would begin. Grows, at least twofold, when they do not fit."""
        places, end = offsets(start, map(len, items))
        if end > len(self._view):
            size = max(self._smallest, 2 * len(self._view), -(-end // mmap.PAGESIZE) * mmap.PAGESIZE)
            os.ftruncate(self.fd, size)
            self._map(size)
        view = self._view
        for place, item in zip(places, items, strict=True):
            view[place : place + len(item)] = item
        return end

    def read(self, end: int) -> memoryview:
        """Return the area up to at least `end`; the bytes stay as they are until the writer is told to reuse it.

        Raises SlabError when the area is smaller.
        """
        if end > len(self._view):
            size = os.fstat(self.fd).st_size
            if end > size:
                raise SlabError(f"an item ends at {end} in a slab of {size} bytes")
            self._map(size)
        return self._view

    def close(self) -> None:
        """Give up this end; views handed out stay valid."""
        self._view = memoryview(b"")
        os.close(self.fd)
        self.fd = -1  # the number may soon be another file's

    def _map(self, size: int) -> None:
        # The old mapping ends when the last view on it is gone.
        self._view = memoryview(mmap.mmap(self.fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE))
