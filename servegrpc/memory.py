"""How this process's allocator treats large blocks; called by the server and by each worker for itself."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST_THRESHOLD_BYTES = 32 * 1024 * 1024  # glibc takes no more
KEPT_BYTES = 64 * 1024 * 1024


def keep_freed_blocks() -> None:
    """Let malloc reuse large blocks instead of returning each to the system.

    By default glibc maps and unmaps every block of 128 KiB or more anew, and touching fresh pages costs more than copying a
    message into them. Does nothing with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
