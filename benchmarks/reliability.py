"""Measures what happens when things go wrong: python -m benchmarks.reliability, with the package's own environment; about 15 minutes.

* kills: workers are killed three times a second under load, beside the same load without kills; with each server that is installed
* overload: three times what the server can do, with deadlines of 200 ms; with each server that is installed
* poison: one request in a hundred ends its worker
* cancelled: ten thousand calls are cancelled while they wait
* restart: one of two servers after the other is restarted under load, by a client with the documented service config

`--only kills overload …` runs some of them, `--peers servegrpc mosec …` with some servers, `--seconds 10` for shorter.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import psutil

from benchmarks.handlers.reliable import EXIT
from benchmarks.models import Model
from benchmarks.peers import Deployment, Mosec, Peer, ServeGrpc, TorchServe, Triton
from benchmarks.process import ServerProcess, free_port
from benchmarks.reliability_load import NO_STATUS, WRONG, Caller, Journal, Run, closed, opened
from benchmarks.target import SERVEGRPC, GrpcTarget, Target

HERE = Path(__file__).parent
MODEL = Model("reliable")
KILL_WORKERS, KILL_CALLERS, KILL_WORK_MS, KILLS_PER_SECOND = 4, 32, 10, 3
OVERLOAD_WORK_MS, OVERLOAD_BATCH, OVERLOAD_DEADLINE, OVERLOAD_FACTOR = 20, 4, 0.2, 3
LATE_SECONDS = 0.01  # a request's way to the server: its deadline there is that much later
CANCELLED = 10_000
CANCELLED_AT_ONCE = 500  # the queue holds 1000
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "servegrpc.v1.InferenceService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}

Row = dict[str, object]


class PlainMosec(Mosec):
    """With its default time-out: here it says what becomes of a request that was lost or is late."""

    timeout_ms = 3000


class PromptMosec(Mosec):
    """With a time-out as long as the callers' deadlines under overload: it knows no deadlines, and one time-out for all."""

    timeout_ms = 200


PEERS = {"servegrpc": ServeGrpc, "TorchServe": TorchServe, "mosec": PlainMosec, "mosec, 0.2 s": PromptMosec, "Triton": Triton}


def main() -> None:
    """Run what is asked for and print and write what it gives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(TESTS), default=list(TESTS))
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--seconds", type=float, default=60, help="of load with kills; a third of it for the others")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "reliability.json")
    arguments = parser.parse_args()
    written = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for name in arguments.only:
        for peer in arguments.peers if name in ("kills", "overload") else ["servegrpc"]:
            row = {"load average": round(os.getloadavg()[0], 1)} | attempt(name, peer, arguments.seconds)
            written.setdefault(name, {})[peer] = row
            print(name, peer, *(f"  {key}: {value}" for key, value in row.items()), sep="\n", flush=True)
            arguments.output.write_text(json.dumps(written, indent=1) + "\n")


def attempt(name: str, peer: str, seconds: float) -> Row:
    """Run one test with one server; a server that cannot run it, or does not survive it, has a row that says so."""
    with tempfile.TemporaryDirectory(prefix="reliable-") as folder:
        journal = Journal(Path(folder) / "journal")
        os.environ["RELIABLE_JOURNAL"] = str(journal.path)
        try:
            return TESTS[name](PEERS[peer], Path(folder), journal, seconds)
        except (RuntimeError, OSError, grpc.RpcError, psutil.Error) as error:
            return {"did not finish": f"{type(error).__name__}: {str(error)[-300:]}"}


@contextlib.contextmanager
def served(kind: type[Peer], folder: Path, deployment: Deployment) -> Iterator[tuple[Peer, Target]]:
    """Serve the model; everything is ended afterwards."""
    peer = kind(folder)
    if reason := peer.missing():
        raise RuntimeError(f"not installed: {reason}")
    try:
        peer.open()
        yield peer, peer.deploy(deployment)
    finally:
        peer.close()


def with_caller(target: Target, load: Callable[[Caller], Awaitable[Run]]) -> Run:
    """Run a load by a caller of its own."""

    async def run() -> Run:
        caller = Caller(target)
        try:
            return await load(caller)
        finally:
            await caller.close()

    return asyncio.run(run())


def kills(kind: type[Peer], folder: Path, journal: Journal, seconds: float) -> Row:
    """The same load without kills and with them."""
    with served(kind, folder, Deployment(MODEL, 4, workers=KILL_WORKERS)) as (peer, target):

        def load(length: float) -> Callable[[Caller], Awaitable[Run]]:
            return lambda caller: closed(caller, KILL_CALLERS, length, milliseconds=KILL_WORK_MS)

        with_caller(target, load(3))
        calm = with_caller(target, load(seconds / 3))

        async def stormy(caller: Caller) -> Run:
            killer = asyncio.create_task(_kill(peer, journal, seconds))
            run = await load(seconds)(caller)
            run.outcomes["kills"] = await killer
            return run

        run = with_caller(target, stormy)
        done = run.outcomes.pop("kills")
        begun = journal.begun()
        unstarted = sum(outcome not in ("OK", NO_STATUS) and number not in begun for number, outcome in run.numbers.items())
        return {
            "seconds": round(run.seconds),
            "workers killed": done,
            "calls": sum(run.outcomes.values()),
            "outcomes": dict(run.outcomes.most_common()),
            "calls without a status": run.outcomes[NO_STATUS],
            "wrong replies": run.outcomes[WRONG],
            "lost though not started": unstarted,
            "OK per second without kills": round(calm.ok_per_second),
            "OK per second": round(run.ok_per_second),
            "of the throughput without kills": round(run.ok_per_second / calm.ok_per_second, 2) if calm.ok_per_second else 0,
            "server survived": psutil.pid_exists(peer.pid) and psutil.Process(peer.pid).status() != psutil.STATUS_ZOMBIE,
        }


async def _kill(peer: Peer, journal: Journal, seconds: float) -> int:
    """Kill a worker three times a second, a random one of those there are; returns how many."""
    chance, done, ends = random.Random(1), 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        await asyncio.sleep(1 / KILLS_PER_SECOND)
        there = _workers(peer, journal)
        if there:
            with contextlib.suppress(psutil.NoSuchProcess):
                chance.choice(there).kill()
                done += 1
    return done


def _workers(peer: Peer, journal: Journal) -> list[psutil.Process]:
    """Return the processes that run the handler; of Triton its stubs, since pytriton runs the handler in its main process."""
    try:
        tree = [process for process in psutil.Process(peer.pid).children(recursive=True) if process.status() != psutil.STATUS_ZOMBIE]
        if isinstance(peer, Triton):
            return [process for process in tree if "backend_stub" in process.name()]
    except psutil.NoSuchProcess:
        return []
    noted = set(journal.workers())
    return [process for process in tree if process.pid in noted]


def overload(kind: type[Peer], folder: Path, journal: Journal, seconds: float) -> Row:
    """What it can do, and then three times that."""
    with served(kind, folder, Deployment(MODEL, OVERLOAD_BATCH)) as (_, target):

        def full(length: float) -> Callable[[Caller], Awaitable[Run]]:
            return lambda caller: closed(caller, 4 * OVERLOAD_BATCH, length, milliseconds=OVERLOAD_WORK_MS)

        with_caller(target, full(3))
        capacity = with_caller(target, full(seconds / 6)).ok_per_second
        asked = OVERLOAD_FACTOR * capacity
        load = with_caller(
            target, lambda caller: opened(caller, asked, seconds / 3, deadline=OVERLOAD_DEADLINE, milliseconds=OVERLOAD_WORK_MS)
        )
        begun = journal.begun()
        late = sum(any(at > deadline + LATE_SECONDS for at in begun.get(number, ())) for number, deadline in load.deadlines.items())
        after = with_caller(target, full(seconds / 12))
        return {
            "capacity, OK per second": round(capacity),
            "asked per second": round(sum(load.outcomes.values()) / load.seconds),
            "outcomes": dict(load.outcomes.most_common()),
            "goodput, OK per second": round(load.ok_per_second),
            "of its capacity": round(load.ok_per_second / capacity, 2),
            "expired requests seen by the handler": late,
            "OK per second at once afterwards": round(after.ok_per_second),
        }


def poison(kind: type[Peer], folder: Path, journal: Journal, seconds: float) -> Row:  # noqa: ARG001 - one signature for all
    """Every hundredth request ends its worker."""
    with served(kind, folder, Deployment(MODEL, 8, workers=2)) as (_, target):
        bad, good = Run(), Run()

        async def load(caller: Caller) -> Run:
            slots = asyncio.Semaphore(32)

            async def one(number: int) -> None:
                async with slots:
                    poisonous = number % 100 == 50
                    await caller.call(bad if poisonous else good, milliseconds=5, deed=EXIT if poisonous else 0)

            await asyncio.gather(*(one(number) for number in range(1000)))
            return good

        with_caller(target, load)
        return {"poisonous": dict(bad.outcomes), "others": dict(good.outcomes)}


def cancelled(kind: type[Peer], folder: Path, journal: Journal, seconds: float) -> Row:  # noqa: ARG001
    """Calls that are cancelled while the only worker is busy, twice: what the server keeps for as many calls at once is not what grows."""
    with served(kind, folder, Deployment(MODEL, 1)) as (peer, target):

        async def cancel(caller: Caller, calls: Run) -> int:
            """Cancel calls; return how many were queued then."""
            run, begun, queued = Run(), len(journal.begun()), 0
            busy = asyncio.create_task(caller.call(run, seconds=60, milliseconds=12_000))
            while len(journal.begun()) == begun:
                await asyncio.sleep(0.01)
            for _ in range(0, CANCELLED, CANCELLED_AT_ONCE):
                tasks = [asyncio.create_task(caller.call(calls, seconds=50)) for _ in range(CANCELLED_AT_ONCE)]
                await asyncio.sleep(0.3)
                queued += sum(not task.done() for task in tasks)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await busy
            await asyncio.sleep(1)
            return queued

        async def load(caller: Caller) -> Run:
            calls, after = Run(), Run()
            await asyncio.gather(*(caller.call(after) for _ in range(200)))  # to warm up
            row["200 calls"] = _counts(peer)
            for when in ("first", "second"):
                queued = await cancel(caller, calls)
                row[f"{when} {queued} cancelled while queued"] = _counts(peer)
            row["calls afterwards that were OK, of 100"] = sum([await caller.call(after) == "OK" for _ in range(100)])
            return calls

        row: Row = {}
        calls, begun = with_caller(target, load), journal.begun()
        return row | {"cancelled calls run by the handler": sum(number in begun for number in calls.deadlines)}


def _counts(peer: Peer) -> dict[str, float]:
    process = psutil.Process(peer.pid)
    mib = round(process.memory_info().rss / 2**20, 1)
    return {"descriptors": process.num_fds(), "threads": process.num_threads(), "memory, MiB": mib}


def restart(kind: type[Peer], folder: Path, journal: Journal, seconds: float) -> Row:  # noqa: ARG001
    """Two servers, restarted in turn by SIGTERM, and a client that knows both."""
    archive = MODEL.write_archive(folder)
    ports = [free_port(), free_port()]
    servers = [_start(folder, port, archive) for port in ports]
    target = GrpcTarget("ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports), SERVEGRPC, replace(MODEL))
    codes: list[int | None] = []

    async def load(caller: Caller) -> Run:
        options = [("grpc.service_config", json.dumps(SERVICE_CONFIG)), ("grpc.max_reconnect_backoff_ms", 500)]
        await caller.close()
        caller.connect(options)
        running = asyncio.create_task(closed(caller, 16, seconds / 3, milliseconds=10))
        while not running.done():
            for index in (0, 1):
                await asyncio.sleep(1)
                codes.append(await asyncio.to_thread(_stop, servers[index]))
                servers[index] = await asyncio.to_thread(_start, folder, ports[index], archive)
        return await running

    try:
        run = with_caller(target, load)
    finally:
        for server in servers:
            server.stop(5)
    return {"restarts": len(codes), "exit codes": sorted(set(codes), key=str), "outcomes": dict(run.outcomes.most_common())}


def _start(folder: Path, port: int, archive: Path) -> ServerProcess:
    addresses = ["--inference-address", f"127.0.0.1:{port}", "--management-address", "127.0.0.1:0", "--metrics-address", ""]
    command = [sys.executable, "-m", "servegrpc", "serve", *addresses, str(archive)]
    log = folder / f"log-{port}"
    server = ServerProcess(command, log, {})
    server.wait_until(lambda: "ready " in log.read_text(errors="replace"))
    return server


def _stop(server: ServerProcess) -> int:
    """Tell it to end, and wait until it has."""
    os.kill(server.pid, signal.SIGTERM)
    return psutil.Process(server.pid).wait(60)


TESTS: dict[str, Callable[[type[Peer], Path, Journal, float], Row]] = {
    "kills": kills,
    "overload": overload,
    "poison": poison,
    "cancelled": cancelled,
    "restart": restart,
}

if __name__ == "__main__":
    main()
