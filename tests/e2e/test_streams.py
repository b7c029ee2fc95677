"""Streams through a real server: from handlers of every style, to callers who read, leave early or do not read."""

import asyncio
import os
from contextlib import aclosing, nullcontext
from threading import Thread

import grpc
import pytest
from servers import until

from servegrpc.client import AsyncClient, CallError

CALLABLE = """
import asyncio

class Waiter:
    live = 0

    async def __call__(self, data, context):
        if data is None:
            return None
        Waiter.live += 1
        while Waiter.live < 2:
            await asyncio.sleep(0)
        return [Waiter.live]

handle = Waiter()
"""

LIVE_IDS = """
def handle(data, context):
    if data is None:
        return None
    context.stopping_criteria = [lambda _, two=len(data) == 2: two] * len(data)
    return [list(context.request_ids.values())] * len(data)
"""

pytestmark = pytest.mark.both_lanes


@pytest.fixture(scope="module")
def counter(register):
    return register("count", batch_size=4)


@pytest.fixture(scope="module")
def steps(register):
    return register("steps", batch_size=3)


@pytest.fixture(scope="module")
def later(register):
    return register("later")


def outputs(client, model, ask, **kwargs):
    return [prediction.output for prediction in client.stream(model, ask, **kwargs)]


def until_error(client, model, ask):
    """Return the messages of a stream that fails, and its error."""
    received = []
    try:
        for prediction in client.stream(model, ask):
            received.append(prediction.output)
    except CallError as error:
        return received, error
    raise AssertionError("it did not fail")


def test_yielding_handler(client, counter):
    """A handler yields → its caller gets each value, then the end."""
    assert outputs(client, counter, {"count": 4}) == [1, 2, 3, 4]


def test_last(client, counter):
    """A handler says which value is the last → the stream ends with it."""
    assert outputs(client, counter, {"count": 3, "last": True}) == [1, 2, 3]


def test_nothing(client, counter):
    """A handler has nothing for a caller at one step → that caller gets the others."""
    assert outputs(client, counter, {"count": 3, "skip_at": 2}) == [1, 3]


def test_no_message(client, counter):
    """A handler ends a stream without a value → an empty stream that ends well."""
    assert outputs(client, counter, {"count": 0}) == []


def test_unary_call(client, counter):
    """A unary call to a handler that yields → the last value, and the next call is served."""
    assert client.predict(counter, {"count": 3}).output == 3
    assert client.predict(counter, {"count": 2, "last": True}).output == 2


def test_unary_call_without_value(client, counter):
    """A unary call to a handler that yields nothing → an error that says so."""
    with pytest.raises(CallError, match="without a value") as caught:
        client.predict(counter, {"count": 0})
    assert caught.value.reason == "INVALID_HANDLER_RESULT"


def test_error_midway(client, counter):
    """A handler fails one stream midway → the messages until then, and one error."""
    received, error = until_error(client, counter, {"count": 5, "fail_at": 3})
    assert (received, error.reason) == ([1, 2], "HANDLER_ERROR")


def test_stream_of_plain_handler(client, register):
    """A stream from a handler that returns → one message."""
    assert outputs(client, register("echo"), "x") == ["x"]


async def test_shared_batch(server, register):
    """Callers share a batch, and their streams end at different times, one with an error → each gets its own."""
    model = register("count", batch_size=4, max_batch_delay=5)
    asks = [{"count": 1}, {"count": 5}, {"count": 3, "fail_at": 2}, {"count": 3, "last": True}]

    async def read(client, ask):
        received = []
        try:
            async for prediction in client.stream(model, ask):
                received.append(prediction.output)
        except CallError as error:
            received.append(error.reason)
        return received

    async with AsyncClient(server.inference) as client:
        results = await asyncio.gather(*(read(client, ask) for ask in asks))
    assert results == [[1], [1, 2, 3, 4, 5], [1, "HANDLER_ERROR"], [1, 2, 3]]


def test_intermediate_responses(client, register):
    """A handler sends messages from within and returns the last one → the caller gets all; a unary caller the last."""
    code = """
def handle(data, context):
    if data is None:
        return None
    for step in range(3):
        context.send_intermediate([step] * len(data))
    return ["end"] * len(data)
"""
    model = register(code=code)
    assert outputs(client, model, 1) == [0, 1, 2, "end"]
    assert client.predict(model, 1).output == "end"


def test_last_from_within(client, register):
    """A handler sends the last message from within and returns one more → the stream has ended, and the worker serves on."""
    code = """
from servegrpc.handlers.streaming import Last


def handle(data, context):
    if data is None:
        return None
    context.send_intermediate([Last("last")] * len(data))
    return ["too late"] * len(data)
"""
    model = register(code=code)
    pid = client.model(model).versions[0].workers[0].pid
    assert outputs(client, model, 1) == ["last"]
    assert client.predict(model, 1).output == "too late"
    assert client.model(model).versions[0].workers[0].pid == pid


def test_large_messages(client, counter):
    """Messages are larger than the channel's inline limit → all come whole."""
    received = outputs(client, counter, {"count": 30, "size": 200_000})
    assert [len(text) for text in received] == [200_000] * 30


def test_early_break(client, counter):
    """A caller leaves a stream without end → the worker is free for the next one."""
    for prediction in client.stream(counter, {"count": 10**9}):
        if prediction.output == 3:
            break
    assert outputs(client, counter, {"count": 2}) == [1, 2]


@pytest.mark.parametrize("close", [aclosing, nullcontext])
async def test_early_break_async(server, counter, close):
    """The same with asyncio, whether the stream is closed or just left → the same."""
    async with AsyncClient(server.inference) as client:
        async with close(client.stream(counter, {"count": 10**9})) as stream:
            async for _ in stream:
                break
        del stream
        assert [prediction.output async for prediction in client.stream(counter, {"count": 2}, timeout=20)] == [1, 2]


def test_deadline(client, counter):
    """A stream without end has a deadline → it ends with DEADLINE_EXCEEDED, and the worker is free."""
    with pytest.raises(CallError) as caught:
        outputs(client, counter, {"count": 10**9}, timeout=0.3)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert outputs(client, counter, {"count": 1}) == [1]


# --- step by step


def test_steps(client, steps):
    """A step-wise handler → a message for each step."""
    assert outputs(client, steps, {"count": 3}) == [[1, 1], [2, 1], [3, 1]]


def test_steps_unary(client, steps):
    """A unary call to it → the last value."""
    assert client.predict(steps, {"count": 3}).output == [3, 1]


def test_join_between_steps(client, register, gate, numbers_of):
    """A request comes while a step of another runs → it joins the next step, and leaves before the other."""
    model = register("steps", batch_size=3)
    first = client.stream(model, {"count": 10**9, "gate": gate.path})
    gate.wait_entered()
    joined, live = [], []
    thread = Thread(target=lambda: joined.extend(outputs(client, model, {"count": 1})))
    thread.start()
    until(lambda: numbers_of(model)["queue_seconds_count"] == 2)  # the worker, which is inside of a step, has been sent it
    for _ in range(4):
        gate.open()
        live.append(next(first).output[1])
        gate.wait_entered()
    gate.remove()
    first.close()
    thread.join()
    assert joined == [[1, 2]]
    assert live == [1, 2, 1, 1]


def test_bad_start(client, steps):
    """A request is refused at its start → it alone gets INVALID_INPUT."""
    with pytest.raises(CallError) as caught:
        client.predict(steps, {"x": 1})
    assert caught.value.reason == "INVALID_INPUT"


def test_fails_at_a_step(client, steps):
    """A step fails one request → the messages before, and its error."""
    received, error = until_error(client, steps, {"count": 5, "fail_at": 3})
    assert (received, error.reason) == ([[1, 1], [2, 1]], "HANDLER_ERROR")


def test_finish_is_called_once(client, steps):
    """Requests end well, fail, or are left → the handler lets go of each once."""
    names = ["ends", "fails", "left"]
    outputs(client, steps, {"count": 1}, request_id="ends")
    with pytest.raises(CallError):
        outputs(client, steps, {"count": 2, "fail_at": 1}, request_id="fails")
    stream = client.stream(steps, {"count": 10**9}, request_id="left")
    next(stream)
    stream.close()

    def finished():
        seen = client.predict(steps, {"finished": True, "count": 1}).output
        return [name for name in seen if name in names]

    assert sorted(until(lambda: len(finished()) == 3 and finished())) == sorted(names)


def test_continuous_batching_in_torchserves_words(client, register):
    """A handler with stopping criteria and continuousBatching → it is called step by step, and says which streams end."""
    code = """
class Handler:
    def initialize(self, context):
        context.cache = {}

    def handle(self, data, context):
        results = []
        for position, row in enumerate(data):
            name = context.get_request_id(position)
            context.cache[name] = context.cache.get(name, 0) + 1
            results.append([context.cache[name], row["data"]])
        context.stopping_criteria = [lambda result: result[0] >= result[1]] * len(data)
        return results
"""
    model = register(code=code, config="continuousBatching: true\nbatchSize: 4\n")
    assert outputs(client, model, 3) == [[1, 3], [2, 3], [3, 3]]


# --- asynchronous handlers


async def test_async_handler(server, later):
    """An asynchronous handler gets several requests → they run at the same time, and each has its own context."""
    async with AsyncClient(server.inference) as client:
        replies = await asyncio.gather(*(client.predict(later, {"meet": 20}, request_id=f"r{number}") for number in range(20)))
    assert [reply.output for reply in replies] == [[1, f"r{number}"] for number in range(20)]


async def test_async_callable(server, register):
    """An object whose __call__ is asynchronous takes the place of handle → its requests run at the same time."""
    model = register("waiter", code=CALLABLE)
    async with AsyncClient(server.inference) as client:
        replies = await asyncio.gather(*(client.predict(model, "x") for _ in range(2)))
    assert [reply.output for reply in replies] == [2, 2]


async def test_one_id_twice_async(server, later):
    """Two callers of an asynchronous handler choose the same id → the handler can tell them apart; the callers see theirs."""
    async with AsyncClient(server.inference) as client:
        replies = await asyncio.gather(*(client.predict(later, {"meet": 2}, request_id="r") for _ in range(2)))
    assert sorted(reply.output for reply in replies) == [[1, "r"], [1, "r-2"]]
    assert [reply.request_id for reply in replies] == ["r", "r"]


async def test_one_id_twice_in_a_continuous_batch(server, register):
    """Two callers of a continuous batch choose the same id → the handler can tell them apart."""
    model = register("live_ids", code=LIVE_IDS, config="continuousBatching: true", batch_size=2)
    async with AsyncClient(server.inference) as client:
        replies = await asyncio.gather(*(client.predict(model, "x", request_id="r") for _ in range(2)))
    assert [reply.output for reply in replies] == [["r", "r-2"]] * 2


def test_async_stream(client, later):
    """An asynchronous handler yields → a stream."""
    assert outputs(client, later, {"count": 3}, request_id="a") == [[1, "a"], [2, "a"], [3, "a"]]


def test_async_error(client, later):
    """An asynchronous handler raises → HANDLER_ERROR, and it serves on."""
    with pytest.raises(CallError) as caught:
        client.predict(later, {"fail": True})
    assert caught.value.reason == "HANDLER_ERROR"
    assert client.predict(later, {"count": 1}, request_id="b").output == [1, "b"]


def test_async_cancelled(client, later):
    """The caller of an asynchronous handler leaves → its task is cancelled, and is not counted as running."""
    with pytest.raises(CallError):
        client.predict(later, {"forever": True}, timeout=0.3)
    assert client.predict(later, {"meet": 1}, request_id="c").output == [1, "c"]


def test_async_call_takes_too_long(client, register):
    """One call of an asynchronous handler takes longer than the response timeout → RESPONSE_TIMEOUT; its worker and silent streams stay."""
    model = register("later", response_timeout=0.2)
    pid = client.model(model).versions[0].workers[0].pid
    silent = client.stream(model, {"forever": True, "count": 2})
    next(silent)
    with pytest.raises(CallError) as caught:
        client.predict(model, {"forever": True})
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "RESPONSE_TIMEOUT")
    assert outputs(client, model, {"count": 1}, request_id="d") == [[1, "d"]]
    assert client.model(model).versions[0].workers[0].pid == pid
    silent.close()


def test_large_requests_to_live_workers(client, later):
    """Requests to a live worker are large → all arrive, through few slabs."""
    padding = os.urandom(100_000)
    streams = [client.stream(later, {"count": 2, "padding": padding}) for _ in range(8)]
    assert [[prediction.output[0] for prediction in stream] for stream in streams] == [[1, 2]] * 8
