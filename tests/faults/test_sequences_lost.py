"""Sessions on several workers, one of which is killed while requests of all of them run."""

import asyncio
import os
import signal

import pytest

from servegrpc.client import AsyncClient, CallError

pytestmark = pytest.mark.both_lanes

SESSIONS, BEFORE, AFTER = 40, 5, 20  # requests of each session before the kill at least, and after it


@pytest.mark.slow
async def test_worker_of_many_sessions_killed(server, register):
    """A worker of two is killed under sessions on both → those on it get SEQUENCE_LOST, the others go on, and all can be opened anew."""
    model = register("sums", workers=2, batch_size=4)
    begun, killed = asyncio.Semaphore(0), asyncio.Event()

    async def add(client):
        """Add ones up; return the worker, how many requests were answered, and the error."""
        answered, to_go = 0, AFTER
        async with client.session(model) as session:
            while to_go:
                try:
                    total, pid, _ = (await session.predict(1)).output
                except CallError as error:
                    return pid, answered, error.reason
                answered += 1
                assert total == answered
                if answered == BEFORE:
                    begun.release()
                to_go -= killed.is_set()
        return pid, answered, "OK"

    async with AsyncClient(server.inference, management_address=server.management, attempts=1) as client:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            tasks = [group.create_task(add(client)) for _ in range(SESSIONS)]
            for _ in range(SESSIONS):
                await begun.acquire()
            victim = (await client.model(model)).versions[0].workers[0].pid
            os.kill(victim, signal.SIGKILL)
            killed.set()
        ends = [task.result() for task in tasks]
        assert {end for pid, _, end in ends if pid != victim} == {"OK"}
        assert {end for pid, _, end in ends if pid == victim} == {"SEQUENCE_LOST"}
        assert all(answered >= BEFORE for _, answered, _ in ends)
        assert {end for _, _, end in await asyncio.gather(*(add(client) for _ in range(SESSIONS)))} == {"OK"}
