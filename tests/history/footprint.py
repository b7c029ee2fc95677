"""What a server holds of the machine: descriptors, threads, processes, memory, files."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Footprint:
    """Counts at one moment; `descriptors` by what they are."""

    descriptors: dict[str, int]
    threads: int
    processes: int
    unpacked: int
    memory_bytes: int

    def more_than(self, before, **room):
        """Return a sentence for each count that is larger than it was, by more than there is `room` for by its name."""
        pairs = {name: (before.descriptors.get(name, 0), count) for name, count in self.descriptors.items()}
        pairs |= {
            "processes": (before.processes, self.processes),
            "unpacked": (before.unpacked, self.unpacked),
            "threads": (before.threads, self.threads),
        }
        return [f"{name}: {now} instead of {was}" for name, (was, now) in pairs.items() if now > was + room.get(name, 0)]


def footprint(pid, folder):
    """Look at a server whose temporary files are in a folder."""
    process = psutil.Process(pid)
    return Footprint(
        dict(Counter(map(_kind, Path(f"/proc/{pid}/fd").iterdir()))),
        process.num_threads(),
        len(process.children(recursive=True)),
        sum(1 for path in Path(folder).glob("*/*/*") if path.is_dir()),
        process.memory_info().rss,
    )


def _kind(descriptor):
    try:
        target = os.readlink(descriptor)
    except FileNotFoundError:
        return "closed"
    return target.split(":[")[0] if ":[" in target else "memfd" if target.startswith("/memfd:") else target
