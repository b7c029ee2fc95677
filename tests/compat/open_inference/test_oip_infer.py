"""ModelInfer by Triton's client: sync, async and aio, numbers and texts."""

from queue import SimpleQueue

import numpy as np
import pytest
from oip import InferenceServerException, aioclient, grpcclient, outputs, service_pb2, tensor

SIXTEEN = np.arange(16, dtype=np.int32).reshape(1, 16)


def summands(dtype=np.int32, rows=1):
    return [tensor(name, np.tile(SIXTEEN.astype(dtype), (rows, 1))) for name in ("INPUT0", "INPUT1")]


def is_sum(result, dtype=np.int32, rows=1):
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), np.tile(2 * SIXTEEN.astype(dtype), (rows, 1)))
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), np.zeros((rows, 16), dtype))


@pytest.mark.parametrize(("model", "dtype"), [("simple", np.int32), ("simple_fp32", np.float32)])
def test_sync(triton, model, dtype):
    """Add and subtract, synchronously → sum and difference."""
    is_sum(triton.infer(model, summands(dtype)), dtype)


def test_async(triton):
    """Add and subtract, with a callback → sum and difference, and no error."""
    answers = SimpleQueue()
    triton.async_infer("simple", summands(), lambda result, error: answers.put((result, error)))
    result, error = answers.get(timeout=20)
    assert error is None
    is_sum(result)


async def test_aio(triton_server):
    """Add and subtract, with asyncio → sum and difference."""
    async with aioclient.InferenceServerClient(triton_server.inference) as client:
        is_sum(await client.infer("simple", summands()))


def test_batch_of_its_own(triton):
    """A request of several rows → as many rows back."""
    is_sum(triton.infer("simple", summands(rows=5)), rows=5)


def test_joined(triton):
    """Many requests of different numbers of rows at once → each gets its own rows."""
    answers = SimpleQueue()
    for rows in (1, 2, 3) * 10:
        triton.async_infer("simple", summands(rows=rows), lambda result, error, rows=rows: answers.put((result, error, rows)))
    for _ in range(30):
        result, error, rows = answers.get(timeout=20)
        assert error is None
        is_sum(result, rows=rows)


def test_too_many_rows(triton):
    """A request of more rows than the model takes → INVALID_ARGUMENT."""
    with pytest.raises(InferenceServerException, match="9 rows; the model takes at most 8") as raised:
        triton.infer("simple", summands(rows=9))
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_strings(triton):
    """Texts → texts."""
    result = triton.infer("upper", [tensor("STRINGS", np.array(["a", "é"], dtype=object))])
    assert [text.decode() for text in result.as_numpy("UPPER")] == ["A", "É"]


def test_bytes(triton):
    """Arbitrary bytes, in any shape → the same bytes."""
    array = np.array([[b"\0\xff", b""], [b"a" * 100_000, b"\n"]], dtype=object)
    np.testing.assert_array_equal(triton.infer("same", [tensor("x", array)]).as_numpy("x"), array)


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3), (1,), (1000, 1000)])
def test_shapes(triton, shape):
    """Empty, small and large tensors → the same."""
    array = np.random.default_rng(0).random(shape, dtype=np.float32)
    np.testing.assert_array_equal(triton.infer("same", [tensor("x", array)]).as_numpy("x"), array)


def test_bf16(triton):
    """BF16, which numpy lacks → what its client makes of it."""
    import ml_dtypes  # Triton's client brings it

    array = np.array([1.5, np.nan, -np.inf], ml_dtypes.bfloat16)
    returned = triton.infer("same", [tensor("x", array, "BF16")]).as_numpy("x")
    np.testing.assert_array_equal(returned.astype(np.float32), array.astype(np.float32))


def test_requested_outputs(triton):
    """One output asked for → that one only."""
    result = triton.infer("simple", summands(), outputs=outputs("OUTPUT1"))
    assert [output.name for output in result.get_response().outputs] == ["OUTPUT1"]


def test_classification(triton):
    """A classification → values and indexes as texts, largest first."""
    result = triton.infer("simple", summands(), outputs=outputs("OUTPUT0", class_count=2))
    assert result.as_numpy("OUTPUT0").tolist() == [[b"30.000000:15", b"28.000000:14"]]


def test_id(triton):
    """An id → comes back; without one, the server makes one."""
    assert triton.infer("simple", summands(), request_id="mine").get_response().id == "mine"
    assert triton.infer("simple", summands()).get_response().id


def test_about(triton):
    """A reply → names the model and the version that answered."""
    response = triton.infer("simple", summands(), model_version="1.0").get_response()
    assert (response.model_name, response.model_version) == ("simple", "1.0")


def test_compression(triton):
    """A compressed request → answered as any other."""
    is_sum(triton.infer("simple", summands(), compression_algorithm="gzip"))


def test_priority_and_timeout(triton):
    """A priority and a time-out that is not reached → answered."""
    is_sum(triton.infer("simple", summands(), priority=1, timeout=60_000_000))


def test_unknown_model(triton):
    """A model that is not there → NOT_FOUND, in the words Triton's clients look for."""
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'nope' is not found") as raised:
        triton.infer("nope", summands())
    assert raised.value.status() == "StatusCode.NOT_FOUND"


def test_unknown_version(triton):
    """A version that is not there → NOT_FOUND, in the words Triton's clients look for."""
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'simple' version 9 is not found") as raised:
        triton.infer("simple", summands(), model_version="9")
    assert raised.value.status() == "StatusCode.NOT_FOUND"


def test_no_model_name(triton):
    """No model → INVALID_ARGUMENT."""
    with pytest.raises(InferenceServerException, match="model_name is empty") as raised:
        triton.infer("", summands())
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_missing_input(triton):
    """An input left out → INVALID_ARGUMENT naming it."""
    with pytest.raises(InferenceServerException, match="expected input 'INPUT1'") as raised:
        triton.infer("simple", summands()[:1])
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_both_contents(triton_server):
    """Typed and raw contents at once → INVALID_ARGUMENT, in Triton's words."""
    request = service_pb2.ModelInferRequest(model_name="simple", raw_input_contents=[bytes(64)])
    request.inputs.add(name="INPUT0", datatype="INT32", shape=[1, 16]).contents.int_contents.extend(range(16))
    with (
        grpcclient.InferenceServerClient(triton_server.inference) as client,
        pytest.raises(Exception, match="contents field must") as raised,
    ):
        client._client_stub.ModelInfer(request)
    text = "contents field must not be specified when using raw_input_contents for 'INPUT0' for model 'simple'"
    assert text in str(raised.value)


def test_typed_contents(triton_server):
    """Typed contents → answered raw, which is all that clients read."""
    request = service_pb2.ModelInferRequest(model_name="simple")
    for name in ("INPUT0", "INPUT1"):
        request.inputs.add(name=name, datatype="INT32", shape=[1, 16]).contents.int_contents.extend(range(16))
    with grpcclient.InferenceServerClient(triton_server.inference) as client:
        is_sum(grpcclient.InferResult(client._client_stub.ModelInfer(request)))


def test_beside_our_client(triton_server):
    """Triton's client and ours, in one process → both work."""
    with triton_server.client() as ours:
        prediction = ours.predict("simple", dict.fromkeys(("INPUT0", "INPUT1"), SIXTEEN))
    np.testing.assert_array_equal(prediction.output["OUTPUT0"], 2 * SIXTEEN)


EIGHT = np.arange(8, dtype=np.float32)


def by_call(server, client):
    return client.infer("patient", [tensor("x", EIGHT)], client_timeout=20).as_numpy("x")


def by_stream(server, client):
    request = service_pb2.ModelInferRequest(model_name="patient", raw_input_contents=[EIGHT.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[8])
    (reply,) = client._client_stub.ModelStreamInfer(iter([request]), timeout=20)
    return grpcclient.InferResult(reply.infer_response).as_numpy("x")


def by_own_client(server, client):
    with server.client() as own:
        return own.predict("patient", {"x": EIGHT}, timeout=20).output["x"]


@pytest.mark.parametrize("call", [by_call, by_stream, by_own_client])
def test_full_by_itself(triton_server, triton, call):
    """A request that is a full batch, in any dialect → does not wait ten minutes for others, and counts with its rows."""
    (before,) = triton.get_inference_statistics("patient").model_stats
    np.testing.assert_array_equal(call(triton_server, triton), EIGHT)
    (after,) = triton.get_inference_statistics("patient").model_stats
    assert (after.inference_count, after.execution_count) == (before.inference_count + 8, before.execution_count + 1)
    assert [batch.batch_size for batch in after.batch_stats] == [8]
