"""Reaps what a handler's programs have left running in the background, once it has ended: a worker is the parent of such orphans.

It must never take the status of a process that the handler waits for, and nothing says which those are. So it looks seldom, and takes only
what was dead at the last look already, and what no object of `subprocess` or `multiprocessing` stands for.
"""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from multiprocessing import popen_fork
from pathlib import Path
from subprocess import Popen

LOOK_NANOSECONDS = 30_000_000_000  # from one look to the next: what a handler forks by itself, it must wait for within that time


class Orphans:
    """The dead children of this process that may be orphans."""

    def __init__(self) -> None:
        self._next = 0
        self._dead: set[int] = set()  # at the last look
        self._waited_for: set[int] = set()  # those of them that an object stands for: to find that out takes long

    def reap(self, now: int) -> None:
        """Look, unless there was a look lately; `now` is in monotonic nanoseconds."""
        if now < self._next:
            return
        self._next = now + LOOK_NANOSECONDS
        dead = _dead_children()
        still_dead = dead & self._dead - self._waited_for
        if still_dead:
            self._waited_for |= still_dead & _waited_for()
            for pid in still_dead - self._waited_for:
                with suppress(ChildProcessError):  # the handler was quicker
                    os.waitpid(pid, os.WNOHANG)
        self._dead = dead
        self._waited_for &= dead


def _dead_children() -> set[int]:
    """Return those of the main thread, where orphans come."""
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except OSError:  # a kernel without that file: they stay
        return set()
    return {int(child) for child in children if _is_dead(child)}


def _is_dead(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].startswith(b"Z")
    except OSError:  # it has been reaped
        return False


def _waited_for() -> set[int]:
    """Return the children that an object stands for."""
    return {process.pid for process in gc.get_objects() if issubclass(type(process), Popen | popen_fork.Popen) and hasattr(process, "pid")}
