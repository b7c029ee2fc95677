"""Many streams whose worker is killed."""

import asyncio
import os
import signal
from collections import Counter
from time import monotonic

import pytest

from servegrpc.client import AsyncClient, CallError

END_SECONDS = 2.0  # from the kill until the last stream has ended

STEPS = """
from servegrpc.handlers.stepping import StepHandler
from servegrpc.handlers.streaming import NOTHING


class Silent(StepHandler):
    def start(self, request):
        request.state = 0

    def step(self, active):
        for request in active:
            request.state += 1
        return [1 if request.state == 1 else NOTHING for request in active]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lane", "handler", "streams"),
    [("on", "later", 1000), ("off", "later", 200), ("on", "steps", 1000)],
)
async def test_worker_of_many_streams_killed(start_server, archive, lane, handler, streams):
    """A worker is killed that many streams are read from → each ends once, in time, with WORKER_LOST."""
    server = start_server("--fast-lane", lane, archive(handler, code=None if handler == "later" else STEPS, config=f"batchSize: {streams}"))
    begun, ended = asyncio.Semaphore(0), Counter()

    async def read(client):
        try:
            async for _ in client.stream(handler, {"forever": True, "count": 2}):
                begun.release()
            ended["OK"] += 1
        except CallError as error:
            ended[error.reason] += 1

    async with AsyncClient(server.inference, management_address=server.management) as client, asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(read(client))
        for _ in range(streams):
            await begun.acquire()
        (worker,) = (await client.model(handler)).versions[0].workers
        killed = monotonic()
        os.kill(worker.pid, signal.SIGKILL)
    took = monotonic() - killed
    assert ended == {"WORKER_LOST": streams}
    assert took < END_SECONDS
