"""Whether the kernel has killed processes for want of memory, by its own counters: of our cgroup, else of the machine."""

from __future__ import annotations

import re
import threading
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OOM_KILL = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def counters(membership: str, root: Path = CGROUPS, machine: Path = Path("/proc/vmstat")) -> Path:
    """Return the file that counts the kills that could be ours; `membership` is the text of /proc/self/cgroup."""
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            files = (root / path[1:] / "memory.events", root / "memory.events")
        elif "memory" in controllers.split(","):
            files = (root / "memory" / path[1:] / "memory.oom_control", root / "memory" / "memory.oom_control")
        else:
            continue
        for file in files:
            if file.is_file() and OOM_KILL.search(file.read_text()):
                return file
    return machine


class OomKills:
    """The kills since this was made that no worker's end has been explained by yet."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file or counters(Path("/proc/self/cgroup").read_text())
        self._lock = threading.Lock()
        self._explained = self._count()

    def take(self, killed: bool) -> bool:
        """Return whether there is such a kill, for a worker that was `killed`; it then explains one end, and no other.

        At the end of one that was not, what was counted is another process's: a child of the handler's, say.
        """
        with self._lock:
            count = self._count()
            if not killed:
                self._explained = count
            elif count > self._explained:
                self._explained += 1
                return True
            return False

    def _count(self) -> int:
        try:
            found = OOM_KILL.search(self._file.read_text())
        except OSError:
            return 0
        return int(found[1]) if found else 0
