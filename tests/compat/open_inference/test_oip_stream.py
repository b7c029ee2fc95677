"""ModelStreamInfer by Triton's client: any number of replies, errors that end no stream, sequences."""

from contextlib import contextmanager
from queue import SimpleQueue

import grpc
import numpy as np
import pytest
from oip import InferenceServerException, accepted, aioclient, count, grpcclient, service_pb2, tensor
from servers import until

SECONDS = 20
NUMBERS = np.array([4, 2, 0, 1], np.int32)


@pytest.fixture
def stream(triton_server):
    """Open a stream; what comes is put into the queue that it gives, results and errors as they are."""

    @contextmanager
    def opened(**kwargs):
        answers = SimpleQueue()
        with grpcclient.InferenceServerClient(triton_server.inference) as client:
            client.start_stream(lambda result, error: answers.put(error or result), **kwargs)
            yield client, answers
            client.stop_stream()

    return opened


def out(result, name="OUT"):
    if isinstance(result, Exception):
        raise result
    return result.as_numpy(name).tolist()


def is_final(result):
    return result.get_response().parameters["triton_final_response"].bool_param


def test_many_replies(stream):
    """A handler that yields → a reply for each, none of them known as the last, and no empty one unless it is asked for."""
    with stream() as (client, answers):
        client.async_stream_infer("repeat", [tensor("IN", NUMBERS)])
        client.async_stream_infer("repeat", [tensor("IN", np.array([9], np.int32))], request_id="next")
        replies = [answers.get(timeout=SECONDS) for _ in range(5)]
    assert sorted(out(reply)[0] for reply in replies) == [0, 1, 2, 4, 9]
    assert not any(map(is_final, replies))
    assert all(reply.get_response().model_name == "repeat" for reply in replies)


def test_empty_final_reply(stream):
    """An empty final reply that is asked for → comes last, with the request's id; without any other for a handler that yields nothing."""
    with stream() as (client, answers):
        for numbers in (NUMBERS, NUMBERS[:0]):
            client.async_stream_infer("repeat", [tensor("IN", numbers)], request_id="7", enable_empty_final_response=True)
            replies = [answers.get(timeout=SECONDS) for _ in range(len(numbers) + 1)]
            assert [is_final(reply) for reply in replies] == [False] * len(numbers) + [True]
            assert [out(reply)[0] for reply in replies[:-1]] == numbers.tolist()
            assert replies[-1].get_response().id == "7"
            assert not replies[-1].get_response().outputs


def test_one_reply(stream):
    """A handler that returns → one reply, which is the last."""
    with stream() as (client, answers):
        client.async_stream_infer("same", [tensor("x", NUMBERS)], request_id="1")
        reply = answers.get(timeout=SECONDS)
    assert out(reply, "x") == NUMBERS.tolist()
    assert is_final(reply)
    assert reply.get_response().id == "1"


def test_yielding_without_a_stream(triton):
    """A handler that yields, called by ModelInfer → its last reply."""
    assert out(triton.infer("repeat", [tensor("IN", NUMBERS)])) == [1]


def test_many_requests(stream):
    """More requests at once than one stream works on → all answered, each once."""
    with stream() as (client, answers):
        for number in range(200):
            client.async_stream_infer("same", [tensor("x", np.array([number], np.int32))], request_id=str(number))
        replies = [answers.get(timeout=SECONDS) for _ in range(200)]
    assert {reply.get_response().id: out(reply, "x") for reply in replies} == {str(number): [number] for number in range(200)}


@pytest.mark.parametrize(
    ("model", "name", "told"),
    [("nope", "x", "Request for unknown model: 'nope'"), ("simple", "x", "input 'x' is none of"), ("", "x", "model_name")],
)
def test_error_of_one(stream, model, name, told):
    """A request that fails, before its model or in it → an error message, and the stream goes on."""
    with stream() as (client, answers):
        client.async_stream_infer(model, [tensor(name, NUMBERS)], request_id="bad")
        error = answers.get(timeout=SECONDS)
        client.async_stream_infer("same", [tensor("x", NUMBERS)])
        assert out(answers.get(timeout=SECONDS), "x") == NUMBERS.tolist()
    assert isinstance(error, InferenceServerException)
    assert told in error.message()


def test_worker_ends(stream):
    """A request that ends its worker, and the next one too → an error message that says so; the next request is run."""
    with stream() as (client, answers):
        client.async_stream_infer("mortal", [tensor("x", np.ones(1, np.int32))], request_id="last")
        error = answers.get(timeout=SECONDS)
        client.async_stream_infer("mortal", [tensor("x", np.zeros(1, np.int32))])
        assert out(answers.get(timeout=SECONDS), "x") == [0]
    assert "was run twice" in error.message()


def test_errors_as_status(stream):
    """A caller that asks for it → the first error ends the stream, with its status."""
    with stream(headers={"triton_grpc_error": "true"}) as (client, answers):
        client.async_stream_infer("same", [tensor("x", NUMBERS)])
        assert out(answers.get(timeout=SECONDS), "x") == NUMBERS.tolist()
        for _ in range(3):
            client.async_stream_infer("nope", [tensor("x", NUMBERS)])
        error = answers.get(timeout=SECONDS)
    assert error.status() == "StatusCode.NOT_FOUND"
    assert "Request for unknown model: 'nope'" in error.message()


def test_half_close(triton_server):
    """A caller that sends no more → all that it sent is answered, then the stream ends well."""
    request = service_pb2.ModelInferRequest(model_name="repeat", raw_input_contents=[NUMBERS.tobytes()])
    request.inputs.add(name="IN", datatype="INT32", shape=NUMBERS.shape)
    with grpcclient.InferenceServerClient(triton_server.inference) as client:
        replies = list(client._client_stub.ModelStreamInfer(iter([request] * 3), timeout=SECONDS))
    assert len(replies) == 12
    with grpcclient.InferenceServerClient(triton_server.inference) as client:
        assert list(client._client_stub.ModelStreamInfer(iter([]), timeout=SECONDS)) == []


def take_gate(triton, path):
    """Have the handler `hold` open a path; returns how many requests it has taken before."""
    return out(triton.infer("hold", [tensor("PATH", np.array([path], dtype=object))]), "NUMBER")[0]


def test_caller_leaves(triton_server, triton, gate):
    """A caller that leaves while one of its requests runs and others wait → those are not run, and the model serves on."""
    before, arrived = take_gate(triton, "/dev/null"), accepted(triton_server, "hold")
    requests = [service_pb2.ModelInferRequest(model_name="hold") for _ in range(5)]
    for request, path in zip(requests, [gate.path, *["/dev/null"] * 4], strict=True):
        request.inputs.add(name="PATH", datatype="BYTES", shape=[1]).contents.bytes_contents.append(path.encode())
    with grpcclient.InferenceServerClient(triton_server.inference) as client:
        call = client._client_stub.ModelStreamInfer(iter(requests))
        gate.wait_entered()
        until(lambda: accepted(triton_server, "hold") == arrived + 5)
        call.cancel()
        until(lambda: count(triton_server, "servegrpc_queued_requests", "hold") == 0)  # the last that the server lets go
    gate.open()
    assert take_gate(triton, "/dev/null") == before + 2


async def test_aio(triton_server):
    """A stream with asyncio → all replies, in order."""

    async def requests():
        yield {"model_name": "repeat", "inputs": [tensor("IN", NUMBERS)]}

    async with aioclient.InferenceServerClient(triton_server.inference) as client:
        replies = []
        async for result, error in client.stream_infer(requests()):
            assert error is None
            replies.append(out(result)[0])
    assert replies == NUMBERS.tolist()


# --- sequences


def steps(send, sequence, values):
    last = len(values) - 1
    for index, value in enumerate(values):
        send(
            "accumulate",
            [tensor("INPUT", np.array([value], np.int32))],
            sequence_id=sequence,
            sequence_start=index == 0,
            sequence_end=index == last,
            request_id=f"{sequence}",
        )


def test_sequences_on_a_stream(stream):
    """Two sequences, one named by a number and one by a text, side by side → each adds up for itself, in order."""
    with stream() as (client, answers):
        steps(client.async_stream_infer, 11, [1, 2, 3])
        steps(client.async_stream_infer, "other", [10, 20, 30])
        replies = [answers.get(timeout=SECONDS) for _ in range(6)]
    sums = {name: [out(reply, "OUTPUT")[0] for reply in replies if reply.get_response().id == name] for name in ("11", "other")}
    assert sums == {"11": [1, 3, 6], "other": [10, 30, 60]}


def test_sequence_without_a_stream(triton):
    """A sequence of ModelInfer calls → adds up; begun again, it begins at nothing."""
    sums = []
    for _ in range(2):
        steps(lambda *args, **kwargs: sums.append(out(triton.infer(*args, **kwargs), "OUTPUT")[0]), 12, [5, 6])
    assert sums == [5, 11] * 2


def test_sequence_that_was_not_begun(triton):
    """A request of a sequence without a start → an error, not a sum that begins anew."""
    with pytest.raises(InferenceServerException) as raised:
        triton.infer("accumulate", [tensor("INPUT", np.array([1], np.int32))], sequence_id=13)
    assert raised.value.status() == "StatusCode.FAILED_PRECONDITION"


def by_call(client, request):
    client._client_stub.ModelInfer(request, timeout=SECONDS)


def by_stream(client, request):
    next(client._client_stub.ModelStreamInfer(iter([request]), metadata=[("triton_grpc_error", "true")], timeout=SECONDS))


@pytest.mark.parametrize("call", [by_call, by_stream])
@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({}, "inference request to model 'accumulate' must specify a non-zero or non-empty correlation ID: parameter 'sequence_id'"),
        ({"sequence_start": {"bool_param": True}}, "parameter 'sequence_id' is missing beside 'sequence_start'"),
    ],
    ids=["no sequence", "only a start"],
)
def test_without_sequence(triton, call, parameters, told):
    """A request without a sequence's id to a model that takes sequences → INVALID_ARGUMENT, naming the parameter."""
    request = service_pb2.ModelInferRequest(model_name="accumulate", raw_input_contents=[bytes(4)], parameters=parameters)
    request.inputs.add(name="INPUT", datatype="INT32", shape=[1])
    with pytest.raises(grpc.RpcError) as raised:
        call(triton, request)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert told in raised.value.details()


def test_number_or_text(triton):
    """A sequence begun with a number, continued with the same number as a text → one sequence."""
    for sequence, start, total in ((77, True, 1), ("77", False, 2)):
        result = triton.infer("accumulate", [tensor("INPUT", np.ones(1, np.int32))], sequence_id=sequence, sequence_start=start)
        assert out(result, "OUTPUT") == [total]


def test_sequence_that_has_ended(triton):
    """A request of a sequence after its last one, without a start → an error."""
    steps(triton.infer, 14, [1, 2])
    with pytest.raises(InferenceServerException) as raised:
        triton.infer("accumulate", [tensor("INPUT", np.array([1], np.int32))], sequence_id=14)
    assert raised.value.status() == "StatusCode.FAILED_PRECONDITION"


def test_config_of_sequences(triton):
    """A model whose requests come in sequences → says so in its configuration."""
    assert triton.get_model_config("accumulate").config.sequence_batching.max_sequence_idle_microseconds == 60_000_000
