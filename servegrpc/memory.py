"""What this process's allocator does with memory that is freed; set by the server, and by each worker for itself."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST_THRESHOLD_BYTES = 32 * 1024 * 1024  # glibc takes no more


def keep_freed_blocks(kept_bytes: int) -> None:
    """Return what is free now; from now on let malloc reuse blocks of up to 32 MiB, and keep so many bytes that are free at its end.

    By default glibc maps and unmaps every block of 128 KiB or more anew, and touching fresh pages costs more than copying a message into
    them, or a tenth of what a convolutional network computes. Does nothing with another C library.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.malloc_trim(0)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD_BYTES)
        library.mallopt(M_TRIM_THRESHOLD, kept_bytes)
