"""Measures streams against their goals: python -m benchmarks.streams, with the package's own environment; about two minutes.

* first message of a stream against a unary call of the same handler, one caller on a bare channel, interleaved: the ratio of the medians;
* the server tree's CPU for each message, at 64 streams of 100-byte messages;
* 2,000 idle sessions, and 2,000 silent streams: what they cost the server in memory, and what they do to the latency of a unary call;
* 1,000 streams whose worker is killed: how long until every one has ended, and with which status.

Prints each figure beside its goal and writes `benchmarks/results/streams.json`; exit code 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import grpc

from benchmarks.machine import describe
from benchmarks.measure import cpu_seconds, memory
from benchmarks.process import ServerProcess, free_port
from servegrpc.client import AsyncClient, CallError, Client
from servegrpc.client.calls import predict, predict_stream
from servegrpc.core.archiver import ArchiveSpec, write_archive

HERE = Path(__file__).parent
METHODS = "/servegrpc.v1.InferenceService/"
STREAMS, MESSAGES = 64, 400
IDLE, KILLED = 2_000, 1_000
CALLS = 200  # unary calls, or first messages, of each repeat


@dataclass(frozen=True)
class Figure:
    """What was measured, and what it may be at most; None where it is only told."""

    name: str
    value: float
    at_most: float | None = None

    @property
    def missed(self) -> bool:
        """Whether it is more than it may be."""
        return self.at_most is not None and self.value > self.at_most


def main() -> int:
    """Measure, print, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "streams.json")
    arguments = parser.parse_args()
    machine = describe()
    with tempfile.TemporaryDirectory() as folder:
        inference, management, server = start(Path(folder))
        try:
            figures = asyncio.run(measure(inference, management, server.pid, arguments.repeats))
        finally:
            server.stop(5)
    for figure in figures:
        goal = "" if figure.at_most is None else f"at most {figure.at_most:g}: {'MISSED' if figure.missed else 'held'}"
        sys.stdout.write(f"{figure.name:<64} {figure.value:10.3f}  {goal}\n")
    arguments.output.write_text(json.dumps({"machine": machine, "results": [asdict(figure) for figure in figures]}, indent=2) + "\n")
    return int(any(figure.missed for figure in figures))


def start(folder: Path) -> tuple[str, str, ServerProcess]:
    """Start a server with both handlers; returns its addresses."""
    for name in ("words", "forever"):
        write_archive(ArchiveSpec(name, str(HERE / "handlers" / f"{name}.py"), "1.0", export_path=str(folder)))
    inference, management = (f"127.0.0.1:{free_port()}" for _ in range(2))
    ports = ["--inference-address", inference, "--management-address", management, "--metrics-address", "", "--gpus", "0"]
    server = ServerProcess([sys.executable, "-m", "servegrpc", "serve", *ports], folder / "log.txt", {})
    with Client(inference, management_address=management) as client:
        client.wait_ready(timeout=60)
        for name, size in (("words", STREAMS), ("forever", IDLE)):
            client.register(str(folder / f"{name}.mar"), batch_size=size)
    return inference, management, server


async def measure(inference: str, management: str, pid: int, repeats: int) -> list[Figure]:
    """Return the figures."""
    with grpc.insecure_channel(inference) as channel:
        unary, first = first_message(channel, repeats)
    async with AsyncClient(inference, management_address=management, timeout=None) as client:
        cpu = [await cpu_of_messages(client, pid) for _ in range(repeats)]
        sessions = await idle(inference, pid, repeats, lambda: open_sessions(client))
        streams = await idle(inference, pid, repeats, lambda: open_streams(client))
        seconds, ends = await killed(client)
    return [
        Figure("unary call: ms (median)", unary * 1e3),
        Figure("first message: ms (median)", first * 1e3),
        Figure("first message / unary call", first / unary, 1.5),
        Figure(f"CPU of a message of 100 bytes, {STREAMS} streams: µs (median)", median(cpu) * 1e6, 80),
        Figure(f"{IDLE:,} idle sessions: MiB", sessions[0], 100),
        Figure("unary call beside them / without (medians)", sessions[1], 1.1),
        Figure(f"{IDLE:,} silent streams: MiB", streams[0], 100),
        Figure("unary call beside them / without (medians)", streams[1], 1.1),
        Figure(f"{KILLED:,} streams ended after the kill of their worker: s", seconds, 2),
        Figure("of those, ended otherwise than with WORKER_LOST", KILLED - ends["WORKER_LOST"], 0),
    ]


def timed(action: Callable[[], object]) -> float:
    """Return the seconds of an action."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def first_message(channel: grpc.Channel, repeats: int) -> tuple[float, float]:
    """Return the median seconds of a unary call, and of the first message of a stream of two."""
    asked = predict_stream("words", {"count": 2}, "", "", "numpy").request.SerializeToString()
    opening = channel.unary_stream(METHODS + "PredictStream")
    unaries, firsts = [], []
    for _ in range(CALLS * repeats):
        unaries.append(unary_call(channel))
        began = time.perf_counter()
        stream = opening(asked, timeout=30)
        next(stream)
        firsts.append(time.perf_counter() - began)
        list(stream)
    return median(unaries), median(firsts)


def unary_call(channel: grpc.Channel) -> float:
    """Return the seconds of one unary call."""
    asked = predict("words", {"count": 1}, "", "", "numpy").request.SerializeToString()
    call = channel.unary_unary(METHODS + "Predict")
    return timed(lambda: call(asked, timeout=30))


async def cpu_of_messages(client: AsyncClient, pid: int) -> float:
    """Return the CPU seconds of the server's tree for each message of 64 streams at once."""

    async def read() -> int:
        return len([None async for _ in client.stream("words", {"count": MESSAGES})])

    before = cpu_seconds(pid)
    counts = await asyncio.gather(*(read() for _ in range(STREAMS)))
    return (cpu_seconds(pid) - before) / sum(counts)


Close = Callable[[], Coroutine[object, object, object]]


async def open_sessions(client: AsyncClient) -> Close:
    """Open sessions that have had one answer; returns what closes them."""
    sessions = [client.session("words") for _ in range(IDLE)]
    for start in range(0, IDLE, STREAMS):
        await asyncio.gather(*(session.predict({"count": 1}) for session in sessions[start : start + STREAMS]))

    async def close() -> None:
        await asyncio.gather(*(session.close() for session in sessions))

    return close


async def open_streams(client: AsyncClient) -> Close:
    """Open streams that have had one message; returns what closes them."""
    streams = [client.stream("forever", {"x": 1}) for _ in range(IDLE)]
    await asyncio.gather(*(anext(stream) for stream in streams))

    async def close() -> None:
        await asyncio.gather(*(stream.aclose() for stream in streams))

    return close


async def idle(address: str, pid: int, repeats: int, opening: Callable[[], Coroutine[object, object, Close]]) -> tuple[float, float]:
    """Return what open streams cost in MiB, and by how much they lengthen a unary call on a connection of its own."""

    def unary() -> float:
        with grpc.insecure_channel(address) as channel:
            return median(unary_call(channel) for _ in range(CALLS * repeats))

    without, mib = await asyncio.to_thread(unary), memory(pid).pss_mib
    close = await opening()
    grown = memory(pid).pss_mib - mib
    beside = await asyncio.to_thread(unary)
    await close()
    return grown, beside / without


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
    sys.exit(main())
