"""Many streams whose worker is killed."""

import asyncio
import os
import signal
from collections import Counter
from time import monotonic

import pytest

from servegrpc.client import AsyncClient, CallError

STREAMS = 200
GENEROUS_SECONDS = 10  # `python -m benchmarks.streams` says what it takes


@pytest.mark.slow
@pytest.mark.parametrize("lane", ["on", "off"])
async def test_worker_of_many_streams_killed(start_server, archive, lane):
    """A worker is killed that 200 streams are read from → each ends once, with WORKER_LOST, and the next request is served."""
    server = start_server("--fast-lane", lane, archive("later"))
    begun, ended = asyncio.Semaphore(0), Counter()

    async def read(client):
        try:
            async for _ in client.stream("later", {"forever": True, "count": 2}):
                begun.release()
            ended["OK"] += 1
        except CallError as error:
            ended[error.reason] += 1

    async with AsyncClient(server.inference, management_address=server.management) as client, asyncio.TaskGroup() as group:
        for _ in range(STREAMS):
            group.create_task(read(client))
        for _ in range(STREAMS):
            await begun.acquire()
        (worker,) = (await client.model("later")).versions[0].workers
        killed = monotonic()
        os.kill(worker.pid, signal.SIGKILL)
    assert ended == {"WORKER_LOST": STREAMS}
    assert monotonic() < killed + GENEROUS_SECONDS
