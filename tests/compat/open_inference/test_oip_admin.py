"""Model control, settings of the server, and where they are served."""

import grpc
import pytest
from oip import InferenceServerException, grpcclient, service_pb2
from servers import until


def index(triton):
    return {entry.name: (entry.version, entry.state, entry.reason) for entry in triton.get_model_repository_index().models}


@pytest.fixture
def spare(triton):
    """A model of the model store that is not loaded, and not afterwards."""
    yield "spare"
    if triton.is_model_ready("spare"):
        triton.unload_model("spare")


def test_index(triton, spare):
    """The index → models that run, and archives of the model store that are not loaded."""
    models = index(triton)
    assert models["simple"] == ("1.0", "READY", "")
    assert models[spare] == ("", "UNAVAILABLE", "unloaded")


def test_load_and_unload(triton, spare):
    """Load, then unload → ready, then not, at the return of each call."""
    triton.load_model(spare)
    assert triton.is_model_ready(spare)
    assert index(triton)[spare] == ("1.0", "READY", "")
    triton.unload_model(spare, unload_dependents=True)
    assert not triton.is_model_ready(spare)


def test_load_again(triton, spare):
    """Load what is loaded → OK, and still ready."""
    triton.load_model(spare)
    triton.load_model(spare)
    assert triton.is_model_ready(spare)


def test_kserve_fields(triton, spare):
    """A load as KServe's clients send it, the name in the first field → loaded, and told so in their fields."""
    reply = triton._client_stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(repository_name=spare))
    assert reply.SerializeToString() == b"\x0a\x05spare\x10\x01"  # model_name = 1, isLoaded = 2


@pytest.fixture
def load(triton):
    """Load a model; returns the call, which may not be answered yet."""
    return lambda name: triton._client_stub.RepositoryModelLoad.future(service_pb2.RepositoryModelLoadRequest(model_name=name), timeout=60)


def test_load_while_it_loads(triton, load_gate, load):
    """Load what loads already → not answered before it is ready."""
    first = load("waits")
    load_gate.wait_entered()
    with pytest.raises(InferenceServerException) as raised:
        triton.load_model("waits", client_timeout=0.5)
    assert raised.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    second = load("waits")
    load_gate.open()
    for call in (second, first):
        call.result()
        assert triton.is_model_ready("waits")
    triton.unload_model("waits")


def test_unload_while_it_loads(triton, load_gate, load):
    """Unload what loads → the load fails and says so."""
    loading = load("waits")
    load_gate.wait_entered()
    unloading = triton._client_stub.RepositoryModelUnload.future(service_pb2.RepositoryModelUnloadRequest(model_name="waits"), timeout=60)
    until(lambda: index(triton)["waits"] == ("", "UNAVAILABLE", "unloaded"))
    load_gate.open()
    unloading.result()
    assert_load_failed(loading, "load failed for model 'waits': version 1.0 is at UNAVAILABLE state: it was unloaded while it loaded")


def test_load_broken(triton, load):
    """Load what cannot be loaded → the reason, in the call and in the index."""
    assert_load_failed(load("broken"), "load failed for model 'broken': version 1.0 is at UNAVAILABLE state: ")
    version, state, reason = index(triton)["broken"]
    assert (version, state) == ("1.0", "UNAVAILABLE")
    assert "fail_load.py, line" in reason
    triton.unload_model("broken")


def assert_load_failed(call, told):
    with pytest.raises(grpc.RpcError) as raised:
        call.result()
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert told in raised.value.details()


def test_load_unknown(triton):
    """Load what the model store has not → NOT_FOUND."""
    with pytest.raises(InferenceServerException, match="failed to load 'nope'") as raised:
        triton.load_model("nope")
    assert raised.value.status() == "StatusCode.NOT_FOUND"


def test_load_with_configuration(triton, spare):
    """Load with a configuration → UNIMPLEMENTED, which says where it belongs."""
    with pytest.raises(InferenceServerException, match=r"model-config\.yaml") as raised:
        triton.load_model(spare, config="{}")
    assert raised.value.status() == "StatusCode.UNIMPLEMENTED"


def test_unload_unknown(triton):
    """Unload what is not there → NOT_FOUND."""
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'nope' is not found"):
        triton.unload_model("nope")


def test_trace_settings(triton):
    """Trace settings → off; turned on → UNIMPLEMENTED."""
    assert list(triton.get_trace_settings().settings["trace_level"].value) == ["OFF"]
    with pytest.raises(InferenceServerException, match="trace_level"):
        triton.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})


def test_log_settings(triton):
    """Log settings → what is logged; the same again → OK; others → UNIMPLEMENTED."""
    settings = triton.get_log_settings().settings
    assert settings["log_info"].bool_param
    assert settings["log_verbose_level"].uint32_param == 0
    assert triton.update_log_settings({"log_info": True}).settings == settings
    with pytest.raises(InferenceServerException, match="log_verbose_level") as raised:
        triton.update_log_settings({"log_verbose_level": 1})
    assert raised.value.status() == "StatusCode.UNIMPLEMENTED"


CHANGES = ("get_model_repository_index", "get_trace_settings", "get_log_settings")


@pytest.mark.parametrize("method", CHANGES)
def test_not_on_the_inference_port(server, method):
    """A server that is not told to → these calls are refused on the inference port, naming the setting."""
    with grpcclient.InferenceServerClient(server.inference) as client, pytest.raises(InferenceServerException) as raised:
        getattr(client, method)()
    assert raised.value.status() == "StatusCode.UNIMPLEMENTED"
    assert "--allow-repository-api" in raised.value.message()


def test_shared_memory_on_the_management_port(server):
    """The management port, asked as clients ask first → nothing is registered, and unregistering all is OK."""
    with grpcclient.InferenceServerClient(server.management) as client:
        client.unregister_system_shared_memory()
        client.unregister_cuda_shared_memory()
        assert not client.get_system_shared_memory_status().regions
        assert not client.get_cuda_shared_memory_status().regions


@pytest.mark.parametrize("method", [*CHANGES, "get_server_metadata"])
def test_on_the_management_port(server, method):
    """The management port → always has them, and what clients ask first."""
    with grpcclient.InferenceServerClient(server.management) as client:
        assert getattr(client, method)()
