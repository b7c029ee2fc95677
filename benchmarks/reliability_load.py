"""The callers of the reliability runs: calls over gRPC or HTTP whose replies are compared with their requests, and what became of each."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic

import grpc

from benchmarks.handlers.reliable import ANSWER, HEAD, LINE, WORKER
from benchmarks.models import Model
from benchmarks.target import GrpcTarget, HttpTarget
from servegrpc.client.errors import call_error

NO_STATUS = "no status"
WRONG = "wrong reply"
BYTES = 100  # of a request
GIVE_UP_SECONDS = 15.0
numbers = count(1)


@dataclass
class Run:
    """What became of the calls: how many by outcome, and for each number its outcome and its deadline."""

    outcomes: Counter[str] = field(default_factory=Counter)
    numbers: dict[int, str] = field(default_factory=dict)
    deadlines: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ok_per_second(self) -> float:
        """How many calls a second ended well."""
        return self.outcomes["OK"] / self.seconds if self.seconds else 0.0


class Caller:
    """Calls one server: `target` says how."""

    def __init__(self, target: GrpcTarget | HttpTarget) -> None:
        self._target = target
        self._model: Model = target.model
        if isinstance(target, GrpcTarget):
            self.connect([("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", 500)])

    def connect(self, options: list[tuple[str, int | str]]) -> None:
        """Use a connection with these options, for gRPC."""
        self._channel = grpc.aio.insecure_channel(self._target.address, options)

    async def call(self, run: Run, *, seconds: float = GIVE_UP_SECONDS, milliseconds: int = 0, deed: int = ANSWER) -> str:
        """Make one call with a deadline, and note and return how it ended."""
        number = next(numbers)
        run.deadlines[number] = deadline = monotonic() + seconds
        payload = HEAD.pack(number, deadline, milliseconds, deed).ljust(BYTES, struct.pack("<B", number % 256))
        began = monotonic()
        try:
            reply = await (self._http(payload, seconds) if isinstance(self._target, HttpTarget) else self._grpc(payload, seconds))
            outcome = "OK" if reply == payload else WRONG
        except grpc.RpcError as error:
            found = call_error(error)
            outcome = found.reason or found.code.name
        except (OSError, asyncio.IncompleteReadError) as error:
            outcome = type(error).__name__
        except HttpError as error:
            outcome = str(error)
        if seconds == GIVE_UP_SECONDS and monotonic() - began >= seconds:
            outcome = NO_STATUS
        run.outcomes[outcome] += 1
        run.numbers[number] = outcome
        return outcome

    async def close(self) -> None:
        """Give up the connection."""
        if isinstance(self._target, GrpcTarget):
            await self._channel.close()

    async def _grpc(self, payload: bytes, seconds: float) -> bytes:
        dialect = self._target.dialect
        request = dialect.encode(self._model, payload)
        return dialect.decode(await self._channel.unary_unary(dialect.path)(request, timeout=seconds))

    async def _http(self, payload: bytes, seconds: float) -> bytes:
        return await asyncio.wait_for(self._post(payload), seconds)

    async def _post(self, payload: bytes) -> bytes:
        host, port = self._target.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            head = f"POST {self._target.path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + payload)
            status = int((await reader.readline()).split()[1])
            while await reader.readline() not in (b"\r\n", b""):
                pass
            body = await reader.read()
        finally:
            writer.close()
        if status != 200:
            raise HttpError(f"HTTP {status}")
        return body


class HttpError(Exception):
    """A reply whose status is not 200."""


async def closed(caller: Caller, callers: int, seconds: float, *, milliseconds: int) -> Run:
    """Let so many callers make one call after the other."""
    run, began = Run(seconds=seconds), monotonic()

    async def one() -> None:
        while monotonic() < began + seconds:
            outcome = await caller.call(run, milliseconds=milliseconds)
            if outcome not in ("OK", NO_STATUS):
                await asyncio.sleep(0.02)  # a server that refuses is not asked without a pause

    await asyncio.gather(*(one() for _ in range(callers)))
    return run


async def opened(caller: Caller, per_second: float, seconds: float, *, deadline: float, milliseconds: int) -> Run:
    """Make so many calls a second, whatever becomes of those before."""
    run, calls = Run(seconds=seconds), set()
    async for _ in _ticks(per_second, seconds):
        call = asyncio.ensure_future(caller.call(run, seconds=deadline, milliseconds=milliseconds))
        calls.add(call)
        call.add_done_callback(calls.discard)
    await asyncio.gather(*calls)
    return run


async def _ticks(per_second: float, seconds: float) -> AsyncIterator[None]:
    began, made = monotonic(), 0
    while (now := monotonic() - began) < seconds:
        while made < now * per_second:
            made += 1
            yield
        await asyncio.sleep(0.004)


class Journal:
    """What the handlers of a run have noted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def begun(self) -> dict[int, list[float]]:
        """Return the times at which each request reached a handler, by its number."""
        found: dict[int, list[float]] = {}
        for number, at in self._lines():
            if number < WORKER:
                found.setdefault(number, []).append(at)
        return found

    def workers(self) -> list[int]:
        """Return the process ids of the workers, oldest first."""
        return [number - WORKER for number, _ in self._lines() if number >= WORKER]

    def _lines(self) -> list[tuple[int, float]]:
        raw = self.path.read_bytes()
        return list(LINE.iter_unpack(raw[: len(raw) // LINE.size * LINE.size]))
