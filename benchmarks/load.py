"""Load on one server: `h2load` for figures, and a checking client that compares every reply byte by byte.

h2load sees HTTP status only, so each server is checked before it is timed, and a timed run counts only if the replies had the right size.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.models import VARIANTS
from benchmarks.target import Target

CHECKED_CALLS = 256
CHECKED_CONCURRENCY = 32


class WrongReplyError(Exception):
    """A server answered with other bytes than the handler gives, or with an error."""


@dataclass(frozen=True)
class Load:
    """What the callers saw in one run."""

    requests: int
    rps: float
    p50_ms: float
    p99_ms: float


def check(target: Target, calls: int = CHECKED_CALLS) -> None:
    """Make many different calls at once and compare each reply."""

    def call(number: int) -> None:
        reply, right = target.call(number % VARIANTS), target.right(number % VARIANTS)
        if reply != right:
            raise WrongReplyError(f"{reply[:80]!r} instead of {right[:80]!r}.")

    with ThreadPoolExecutor(CHECKED_CONCURRENCY) as threads:
        list(threads.map(call, range(calls)))


def run(target: Target, concurrency: int, seconds: float) -> Load:
    """Post the model's first payload for some seconds, with that many requests at a time."""
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(target.body())
        command = ["h2load", "-t1", f"-D{round(seconds * 1000)}ms", f"-d{body}", f"--log-file={log}"]
        command += target.h2load_arguments(concurrency)
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 15).stdout
        rows = [tuple(map(int, line.split("\t"))) for line in log.read_text().splitlines()]
    found = re.search(r"\((\d+)\) data", output)
    failed = sum(status != 200 for _, status, _ in rows)
    if failed or not rows or not found or int(found[1]) < 0.98 * len(target.right(0)) * len(rows):
        raise WrongReplyError(f"{failed} of {len(rows)} requests failed, or their replies were too small to be results.")
    return summarize(rows)


def summarize(rows: list[tuple[int, ...]]) -> Load:
    """Turn h2load's log (start µs, status, duration µs) into figures."""
    elapsed = max(start + took for start, _, took in rows) - min(start for start, _, _ in rows)
    took_ms = sorted(took / 1e3 for _, _, took in rows)
    return Load(len(rows), len(rows) / elapsed * 1e6, statistics.median(took_ms), took_ms[len(took_ms) * 99 // 100])
