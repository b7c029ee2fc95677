"""What the server and its models say of themselves, by Triton's client."""

import time
from queue import SimpleQueue

import numpy as np
import pytest
from oip import InferenceServerException, model_config_pb2, service_pb2, tensor


def test_live_and_ready(triton):
    """A server that runs its models → live and ready."""
    assert triton.is_server_live()
    assert triton.is_server_ready()


@pytest.mark.parametrize(
    ("model", "version", "ready"), [("simple", "", True), ("simple", "1.0", True), ("simple", "9", False), ("nope", "", False)]
)
def test_model_ready(triton, model, version, ready):
    """A model that runs → ready; one that is not there → not ready, and no error."""
    assert triton.is_model_ready(model, version) is ready


def test_server_metadata(triton):
    """The server → name, version, extensions."""
    metadata = triton.get_server_metadata()
    assert metadata.name == "servegrpc"
    assert metadata.version
    assert {"statistics", "model_repository", "system_shared_memory"} <= set(metadata.extensions)


def test_model_metadata(triton):
    """A model that declares its tensors → them, with the dimension of the batch."""
    metadata = triton.get_model_metadata("simple")
    assert (metadata.name, list(metadata.versions)) == ("simple", ["1.0"])
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("INPUT0", "INT32", [-1, 16]), ("INPUT1", "INT32", [-1, 16])]
    assert [t.name for t in metadata.outputs] == ["OUTPUT0", "OUTPUT1"]


def test_metadata_of_undeclared(triton):
    """A model that declares nothing → no tensors."""
    metadata = triton.get_model_metadata("same")
    assert not metadata.inputs
    assert not metadata.outputs


def test_model_config(triton):
    """A batchable model → its tensors without the dimension of the batch, its batch size and workers."""
    config = triton.get_model_config("simple").config
    assert config.max_batch_size == 8
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [
        (n, model_config_pb2.TYPE_INT32, [16]) for n in ("INPUT0", "INPUT1")
    ]
    assert [t.name for t in config.output] == ["OUTPUT0", "OUTPUT1"]
    assert [(group.kind, group.count) for group in config.instance_group] == [(model_config_pb2.ModelInstanceGroup.KIND_CPU, 1)]
    assert config.HasField("dynamic_batching")


def test_config_of_texts(triton):
    """BYTES → what Triton's configuration calls TYPE_STRING."""
    assert triton.get_model_config("upper").config.input[0].data_type == model_config_pb2.TYPE_STRING


def test_config_of_undeclared(triton):
    """A model that declares nothing → no joining along the first dimension."""
    assert triton.get_model_config("same").config.max_batch_size == 0


@pytest.mark.parametrize(("model", "yields"), [("same", False), ("repeat", True), ("later", True), ("steps", True)])
def test_decoupled(triton, model, yields):
    """A handler that yields, by itself, asynchronously or step by step → said to be decoupled, and no other."""
    assert triton.get_model_config(model).config.model_transaction_policy.decoupled == yields


@pytest.mark.parametrize("method", ["get_model_metadata", "get_model_config", "get_inference_statistics"])
def test_unknown_model(triton, method):
    """A model that is not there → NOT_FOUND, in the words Triton's clients look for."""
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'nope' is not found; models: ") as raised:
        getattr(triton, method)("nope")
    assert raised.value.status() == "StatusCode.NOT_FOUND"


def test_statistics_of_one(triton):
    """A model that is named → exactly one entry, in which requests and calls are counted."""
    before = triton.get_inference_statistics("told").model_stats
    request = service_pb2.ModelInferRequest(model_name="told", raw_input_contents=[b"1"])
    request.inputs.add(name="x", datatype="UINT8", shape=[1])
    triton._client_stub.ModelInfer(request)
    after = triton.get_inference_statistics("told").model_stats
    assert len(before) == len(after) == 1
    assert after[0].inference_count == before[0].inference_count + 1
    assert after[0].execution_count == before[0].execution_count + 1
    stats = after[0].inference_stats
    assert stats.success.ns >= stats.queue.ns
    assert stats.success.count == stats.compute_infer.count == after[0].inference_count
    assert abs(after[0].last_inference - time.time() * 1000) < 60_000


def test_statistics_of_failures(triton):
    """A request that fails → its time is among those of failures, and not of successes."""
    before = triton.get_inference_statistics("upper").model_stats[0].inference_stats
    with pytest.raises(InferenceServerException):
        triton.infer("upper", [tensor("x", np.zeros(1, np.float32))])
    after = triton.get_inference_statistics("upper").model_stats[0].inference_stats
    assert after.fail.count == before.fail.count + 1
    assert after.fail.ns > before.fail.ns
    assert after.success == before.success


def test_statistics_of_batches(triton):
    """Requests run → counted by the size of their batches, with the time these took."""
    done = SimpleQueue()
    for _ in range(5):
        triton.async_infer("told", [tensor("x", np.zeros(1, np.float32))], lambda result, error: done.put(error or result))
    for _ in range(5):
        done.get(timeout=20)
    (entry,) = triton.get_inference_statistics("told").model_stats
    assert sum(batch.batch_size * batch.compute_infer.count for batch in entry.batch_stats) >= 5
    assert sum(batch.compute_infer.count for batch in entry.batch_stats) == entry.execution_count
    assert all(batch.compute_infer.ns for batch in entry.batch_stats)


def test_statistics_of_all(triton):
    """No model named → one entry for each."""
    names = [entry.name for entry in triton.get_inference_statistics().model_stats]
    assert len(names) == len(set(names)) >= 5


def test_as_json(triton):
    """Replies as JSON, as the client makes it → the names that its users know."""
    assert triton.get_model_config("simple", as_json=True)["config"]["max_batch_size"] == 8
