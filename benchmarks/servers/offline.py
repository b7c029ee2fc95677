"""The handler without a server.

`offline.py loop HANDLER BATCH_SIZE SECONDS` times it, `offline.py replies HANDLER` gives the right replies.
Inputs come on standard input, each as its length (4 bytes, big-endian) and its bytes.
"""

from __future__ import annotations

import json
import sys
import time
import warnings

from handler import Batch, load


def loop(run: Batch, rows: list[bytearray], batch_size: int, seconds: float) -> dict[str, float]:
    """Call the handler for some seconds, with fresh copies of the inputs as a server would have them."""
    latencies: list[float] = []
    run([bytearray(rows[0])] * batch_size)
    started, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        run([bytearray(rows[number % len(rows)]) for number in range(batch_size)])
        latencies.append(time.perf_counter() - before)
    elapsed, requests = time.perf_counter() - started, len(latencies) * batch_size
    latencies.sort()
    return {
        "requests": requests,
        "rps": requests / elapsed,
        "p50_ms": latencies[len(latencies) // 2] * 1e3,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1e3,
        "cpu_us": (time.process_time() - cpu) / requests * 1e6,
    }


def read_rows() -> list[bytearray]:
    """Read all inputs."""
    rows = []
    while size := sys.stdin.buffer.read(4):
        rows.append(bytearray(sys.stdin.buffer.read(int.from_bytes(size, "big"))))
    return rows


def main() -> None:
    """Do what the arguments say."""
    warnings.simplefilter("ignore")
    mode, handler, *rest = sys.argv[1:]
    run, rows = load(handler), read_rows()
    if mode == "replies":
        for row in rows:
            print(run([row])[0].hex())
    else:
        print(json.dumps(loop(run, rows, int(rest[0]), float(rest[1]))))


if __name__ == "__main__":
    main()
