"""`python -m history.soak [--minutes 30]`: a long load with faults, watched.

Prints what the server holds every few seconds and, by a line through the second half, how fast each of it grows; exit code 1 when
anything grows faster than its limit, or when the history is wrong.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
from pathlib import Path
from time import monotonic

from history.footprint import footprint
from history.run import World

LIMITS = {"memory, MiB": 1.0, "descriptors": 1.0, "threads": 1.0, "processes": 0.2}  # more of it in a minute
SAMPLES = 60


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lane", choices=["on", "off"], default="on")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), random.Random(arguments.seed), arguments.lane)
        try:
            samples, history = asyncio.run(soak(world, arguments.minutes * 60))
        finally:
            world.server.stop()
    print("\n".join(f"  {line}" for line in [*history.summary, *history.wrong[:50]]))
    grows = False
    for name, limit in LIMITS.items():
        slope = slope_of([(at, counts[name]) for at, counts in samples])
        grows |= slope > limit
        print(f"{name:12} {samples[0][1][name]:8.1f} at first {samples[-1][1][name]:8.1f} at last {slope:+8.2f} a minute, limit {limit}")
    sys.exit(1 if grows or history.wrong else 0)


async def soak(world, seconds):
    """Run the load and look at the server meanwhile."""
    samples = []
    run = asyncio.create_task(world.run(seconds, faulty=True))
    began = monotonic()
    while not run.done():
        await asyncio.wait([run], timeout=seconds / SAMPLES)
        samples.append((monotonic() - began, held(world)))
        print(f"{samples[-1][0]:7.0f} s " + "  ".join(f"{name} {count:.1f}" for name, count in samples[-1][1].items()), flush=True)
    return samples, run.result()


def held(world):
    """Return what the server holds, by the names of LIMITS."""
    now = footprint(world.server.process.pid, world.folder)
    counts = (now.memory_bytes / 2**20, sum(now.descriptors.values()), now.threads, now.processes)
    return dict(zip(LIMITS, counts, strict=True))


def slope_of(samples):
    """Return by how much the second half grows in a minute; the median over neighbours, so that a moment of load does not count."""
    half = samples[len(samples) // 2 :]
    width = max(1, len(half) // 2)
    return statistics.median(
        (later - sooner) / (end - begin) * 60 for (begin, sooner), (end, later) in zip(half, half[width:], strict=False)
    )


if __name__ == "__main__":
    main()
