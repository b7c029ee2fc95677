"""Measures streams: python -m benchmarks.streams, with the package's own environment; about a minute.

* first message of a stream against a unary call of the same handler, one caller, interleaved: the ratio of the medians;
* the server tree's CPU for each message, at 64 streams of 100-byte messages;
* 2,000 idle sessions: what they cost the server in memory, and what they do to the latency of a unary call;
* 1,000 streams whose worker is killed: how long until every one has ended, and with which status.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import cpu_seconds, memory
from benchmarks.process import ServerProcess
from servegrpc.client import AsyncClient, CallError, Client
from servegrpc.core.archiver import ArchiveSpec, write_archive

HERE = Path(__file__).parent
INFERENCE, MANAGEMENT = "127.0.0.1:7370", "127.0.0.1:7371"
STREAMS, MESSAGES = 64, 400
IDLE, KILLED = 2_000, 1_000


def main() -> None:
    """Run all four and print and write what they give."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "streams.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = start(Path(folder))
        try:
            results = asyncio.run(measure(server, arguments.repeats))
        finally:
            server.stop(5)
    arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    for name, value in results.items():
        sys.stdout.write(f"{name:48} {value}\n")


def start(folder: Path) -> ServerProcess:
    """Start a server with both handlers."""
    for name in ("words", "forever"):
        write_archive(ArchiveSpec(name, str(HERE / "handlers" / f"{name}.py"), "1.0", export_path=str(folder)))
    ports = ["--inference-address", INFERENCE, "--management-address", MANAGEMENT, "--metrics-address", ""]
    server = ServerProcess([sys.executable, "-m", "servegrpc", "serve", *ports], folder / "log.txt", {})
    with Client(INFERENCE, management_address=MANAGEMENT) as client:
        client.wait_ready(timeout=60)
        for name, size in (("words", STREAMS), ("forever", KILLED)):
            client.register(str(folder / f"{name}.mar"), batch_size=size)
    return server


async def measure(server: ServerProcess, repeats: int) -> dict[str, object]:
    """Run the four measurements."""
    async with AsyncClient(INFERENCE, management_address=MANAGEMENT, timeout=None) as client:
        first, unary = await first_message(client, repeats)
        cpu = [await cpu_of_messages(client, server.pid) for _ in range(repeats)]
        idle = await idle_sessions(client, server.pid)
        seconds, ends = await killed(client)
    return {
        "first message, ms (median)": round(first, 3),
        "unary call, ms (median)": round(unary, 3),
        "first message / unary call": round(first / unary, 2),
        "CPU of a streamed message, µs (median)": round(statistics.median(cpu) * 1e6, 1),
        **idle,
        "1,000 streams ended after the kill, s": round(seconds, 2),
        "their statuses": dict(ends),
    }


async def timed(action: Callable[[], object]) -> float:
    """Return how long an awaitable takes, in milliseconds."""
    started = time.perf_counter()
    await action()  # type: ignore[misc]  # it is awaitable
    return (time.perf_counter() - started) * 1000


async def first_message(client: AsyncClient, repeats: int) -> tuple[float, float]:
    """Return the medians of the first message and of a unary call, in milliseconds."""

    async def one() -> None:
        await client.predict("words", {"count": 1})

    async def first() -> None:
        await anext(client.stream("words", {"count": 2}))

    firsts, unaries = [], []
    for _ in range(200 * repeats):
        unaries.append(await timed(one))
        firsts.append(await timed(first))
    return statistics.median(firsts), statistics.median(unaries)


async def cpu_of_messages(client: AsyncClient, pid: int) -> float:
    """Return the CPU seconds of the server's tree for each message of 64 streams at once."""

    async def read() -> int:
        return len([None async for _ in client.stream("words", {"count": MESSAGES})])

    before = cpu_seconds(pid)
    counts = await asyncio.gather(*(read() for _ in range(STREAMS)))
    return (cpu_seconds(pid) - before) / sum(counts)


async def idle_sessions(client: AsyncClient, pid: int) -> dict[str, object]:
    """Open sessions that have had one answer, and say what they cost."""

    async def unary() -> float:
        return statistics.median([await timed(lambda: client.predict("words", {"count": 1})) for _ in range(300)])

    before, memory_before = await unary(), memory(pid).pss_mib
    sessions = [client.session("words") for _ in range(IDLE)]
    for start in range(0, IDLE, STREAMS):
        await asyncio.gather(*(session.predict({"count": 1}) for session in sessions[start : start + STREAMS]))
    memory_after, after = memory(pid).pss_mib, await unary()
    await asyncio.gather(*(session.close() for session in sessions))
    return {
        "2,000 idle sessions, MiB": round(memory_after - memory_before, 1),
        "unary call beside them / without": round(after / before, 2),
    }


async def killed(client: AsyncClient) -> tuple[float, Counter[str]]:
    """Open streams, kill their worker, and return when the last one ended, and how each did."""
    streams = [client.stream("forever", {"x": 1}) for _ in range(KILLED)]
    await asyncio.gather(*(anext(stream) for stream in streams))
    (worker,) = (await client.model("forever")).versions[0].workers

    async def end(stream: object) -> str:
        try:
            async for _ in stream:  # type: ignore[attr-defined]  # an asynchronous generator
                pass
        except CallError as error:
            return error.reason or error.code.name
        return "OK"

    tasks = [asyncio.create_task(end(stream)) for stream in streams]
    await asyncio.sleep(0)
    started = time.perf_counter()
    os.kill(worker.pid, signal.SIGKILL)
    ends = Counter(await asyncio.gather(*tasks))
    return time.perf_counter() - started, ends


if __name__ == "__main__":
    main()
