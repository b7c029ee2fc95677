"""Sessions through a real server: one worker, in order, and an end that is told."""

import asyncio
import os
import signal

import grpc
import pytest
from servers import until

from servegrpc.client import AsyncClient, CallError

pytestmark = pytest.mark.both_lanes


@pytest.fixture(scope="module")
def sums(register):
    return register("sums", workers=2, batch_size=4)


def test_state(client, sums):
    """A session sends numbers → one worker adds them up."""
    with client.session(sums) as session:
        replies = [session.predict(number).output for number in (1, 2, 3)]
    assert [reply[0] for reply in replies] == [1, 3, 6]
    assert len({reply[1] for reply in replies}) == 1


async def test_many_sessions(server, sums):
    """Many sessions at once → each has its own sum, on its own worker throughout."""

    async def run(client, first):
        async with client.session(sums) as session:
            return [(await session.predict(number)).output for number in (first, 1, 1)]

    async with AsyncClient(server.inference) as client:
        results = await asyncio.gather(*(run(client, number) for number in range(40)))
    assert [[reply[0] for reply in replies] for replies in results] == [[n, n + 1, n + 2] for n in range(40)]
    assert all(len({reply[1] for reply in replies}) == 1 for replies in results)
    assert len({replies[0][1] for replies in results}) == 2


def test_sessions_are_spread(client, register):
    """Sessions are opened one after the other on two workers → each worker has as many."""
    model = register("sums", workers=2)
    sessions = [client.session(model) for _ in range(4)]
    pids = [session.predict(1).output[1] for session in sessions]
    assert sorted(map(pids.count, pids)) == [2, 2, 2, 2]
    for session in sessions:
        session.close()


def test_end_is_told(client, register):
    """A session ends → the handler is told, and forgets its state."""
    model = register("sums")
    with client.session(model) as session:
        assert len(session.predict(1).output[2]) == 1
    with client.session(model) as session:
        assert len(session.predict(1).output[2]) == 1


def test_failure_ends_the_session(client, sums):
    """A request of a session fails → its error, and the session is over."""
    with client.session(sums) as session:
        session.predict(1)
        with pytest.raises(CallError) as caught:
            session.predict("fail")
        assert caught.value.reason == "HANDLER_ERROR"
        with pytest.raises(ValueError, match="closed"):
            session.predict(1)


async def test_used_by_tasks_at_once(server, sums):
    """Tasks use one session at the same time → their requests run one after the other."""
    async with AsyncClient(server.inference) as client, client.session(sums) as session:
        replies = await asyncio.wait_for(asyncio.gather(*(session.predict(1) for _ in range(5))), 20)
    assert [reply.output[0] for reply in replies] == [1, 2, 3, 4, 5]


async def test_cancelled_request(server, sums):
    """A request of a session is cancelled → the session is over, and the next request says so."""
    async with AsyncClient(server.inference) as client, client.session(sums) as session:
        await session.predict(1)
        task = asyncio.create_task(session.predict(1))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(CallError) as caught:
            await session.predict(1)
        assert caught.value.code is grpc.StatusCode.CANCELLED
        with pytest.raises(ValueError, match="closed"):
            await session.predict(1)


async def test_deadline_between_requests(server, sums):
    """The deadline of a session passes between two requests → the next one says so."""
    async with AsyncClient(server.inference) as client, client.session(sums, timeout=0.3) as session:
        await session.predict(1)
        async with asyncio.timeout(20), client.session(sums) as other:
            while not session._call.done():
                await other.predict(1)
        with pytest.raises(CallError) as caught:
            await session.predict(1)
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_worker_dies_in_a_request(client, register):
    """The worker of a session dies while it runs a request of it → SEQUENCE_LOST, and a new session works."""
    model = register("sums")
    with client.session(model) as session:
        session.predict(1)
        with pytest.raises(CallError) as caught:
            session.predict("die")
        assert caught.value.reason == "SEQUENCE_LOST"
    with client.session(model) as session:
        assert session.predict(5).output[0] == 5


def test_worker_dies_between_requests(client, register):
    """The worker of a session dies between two requests → the next one gets SEQUENCE_LOST with the cause."""
    model = register("sums")
    with client.session(model) as session:
        pid = session.predict(1).output[1]
        os.kill(pid, signal.SIGKILL)
        until(lambda: {worker.pid for worker in client.model(model).versions[0].workers}.isdisjoint({0, pid}))
        with pytest.raises(CallError, match="SIGKILL") as caught:
            session.predict(1)
        assert caught.value.reason == "SEQUENCE_LOST"


def test_idle_for_too_long(client, register):
    """A session is idle for longer than the model allows → its state is let go, and the next request is told so."""
    model = register("sums", config="sequenceMaxIdleMSec: 100\nsequenceBatching: true\n")
    with client.session(model) as session, client.session(model) as other:
        session.predict(1)
        seen = other.predict(1).output[2]
        while len(seen) > 1:  # the other one stays in use
            seen = other.predict(1).output[2]
        with pytest.raises(CallError, match="idle") as caught:
            session.predict(1)
        assert caught.value.reason == "SEQUENCE_UNKNOWN"


def test_limit(client, register):
    """More sessions than the model allows → the one too many is refused, until another ends."""
    model = register("sums", config="sequenceMaxIdleMSec: 60000\nsequenceBatching: true\nmaxNumSequence: 1\n")
    with client.session(model) as session:
        session.predict(1)
        with client.session(model) as other, pytest.raises(CallError) as caught:
            other.predict(1)
        assert caught.value.reason == "SEQUENCE_LIMIT"


def test_scaled_down(client, register):
    """The worker of a session is scaled away → SEQUENCE_LOST, or the session goes on where it was; never another sum."""
    model = register("sums", workers=2)
    with client.session(model) as first, client.session(model) as second:
        pids = [session.predict(1).output[1] for session in (first, second)]
        client.scale(model, 1)
        results = []
        for session, pid in zip((first, second), pids, strict=True):
            try:
                reply = session.predict(1).output
                assert (reply[0], reply[1]) == (2, pid)
                results.append("went on")
            except CallError as error:
                results.append(error.reason)
    assert "SEQUENCE_LOST" in results or pids[0] == pids[1]
