"""More calls at once than anything holds."""

import asyncio

import pytest

from servegrpc.client import AsyncClient

pytestmark = pytest.mark.both_lanes


@pytest.fixture(scope="module")
def echo(register):
    return register("echo", batch_size=16)


@pytest.mark.slow
async def test_burst(server, echo):
    """900 calls at once from one event loop, three times → each its own result."""
    async with AsyncClient(server.inference) as client:
        for _ in range(3):
            replies = await asyncio.gather(*(client.predict(echo, {"data": number}) for number in range(900)))
            assert [reply.output for reply in replies] == list(range(900))
