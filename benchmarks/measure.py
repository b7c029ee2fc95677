"""CPU time and memory of a server: its process, all descendants, and those that have ended."""

from __future__ import annotations

from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Memory:
    """Memory of a process tree, in MiB; the proportional size counts shared pages once."""

    pss_mib: float
    rss_mib: float


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """Return user and system time of the tree so far, with children that have ended and been waited for."""
    total = 0.0
    for process in tree(pid):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue  # its parent's times have it from the next reading on
    return total


def memory(pid: int) -> Memory:
    """Return the memory of the tree now."""
    sizes = [process.memory_full_info() for process in tree(pid)]
    return Memory(sum(size.pss for size in sizes) / 2**20, sum(size.rss for size in sizes) / 2**20)
