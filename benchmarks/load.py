"""Load on one server: `h2load` for figures, and a checking client that compares every reply byte by byte.

h2load sees HTTP status only, and an error of gRPC is a reply of status 200 without data. So each server is checked before it is timed, and
a timed run counts only if as much data came as the checked replies had.
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
COUNTED_RUN_SECONDS = 120
SAME_SIZE = 0.9  # of the smallest reply checked: some servers put times into theirs, and those of nothing take no bytes


class WrongReplyError(Exception):
    """A server answered with other bytes than the handler gives, or with an error."""


@dataclass(frozen=True)
class Load:
    """What the callers saw in one run."""

    requests: int
    rps: float
    p50_ms: float
    p99_ms: float


def check(target: Target, calls: int = CHECKED_CALLS) -> int:
    """Make many different calls at once, compare each result, and return the size of the smallest reply to what h2load posts."""

    def call(number: int) -> int:
        reply = target.send(number % VARIANTS)
        result, right = target.result(reply), target.right(number % VARIANTS)
        if result != right:
            raise WrongReplyError(f"{result[:80]!r} instead of {right[:80]!r}.")
        return len(reply) + target.framing_bytes

    with ThreadPoolExecutor(CHECKED_CONCURRENCY) as threads:
        return min(list(threads.map(call, range(calls)))[::VARIANTS])


def run(target: Target, concurrency: int, seconds: float, reply_bytes: int, requests: int = 0) -> Load:
    """Post the model's first payload, that many at a time, for some seconds or so many requests; `reply_bytes` is what `check` returned."""
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(target.body())
        length = f"-n{requests}" if requests else f"-D{round(seconds * 1000)}ms"
        command = ["h2load", "-t1", length, f"-d{body}", f"--log-file={log}", *target.h2load_arguments(concurrency)]
        limit = COUNTED_RUN_SECONDS if requests else seconds + 15
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit).stdout
        return summarize(log.read_text(), output, reply_bytes)


def summarize(log: str, output: str, reply_bytes: int) -> Load:
    """Turn h2load's log (start µs, status, duration µs) into figures; raise WrongReplyError where requests failed."""
    rows = [tuple(map(int, line.split("\t"))) for line in log.splitlines()]
    found = re.search(r"\((\d+)\) data", output)
    failed = sum(status != 200 for _, status, _ in rows)
    if failed or not rows or not found or int(found[1]) < SAME_SIZE * reply_bytes * len(rows):
        raise WrongReplyError(f"{failed} of {len(rows)} requests failed, or their replies were too small to be results.")
    elapsed = max(start + took for start, _, took in rows) - min(start for start, _, _ in rows)
    took_ms = sorted(took / 1e3 for _, _, took in rows)
    return Load(len(rows), len(rows) / elapsed * 1e6, statistics.median(took_ms), took_ms[len(took_ms) * 99 // 100])
