"""A server with models that Triton's client calls, with the fast lane and without."""

import os

import pytest
import yaml
from oip import MEMORY_PREFIX, grpcclient
from servers import Gate, Servers


def declared(datatype, shape, inputs, outputs, **settings):
    """Return the text of a model-config.yaml whose tensors are all of one type and shape, and batchable."""
    spec = {"datatype": datatype, "shape": shape, "batchable": True}
    return yaml.safe_dump(
        {"inputs": [{"name": name, **spec} for name in inputs], "outputs": [{"name": name, **spec} for name in outputs], **settings}
    )


SUM = (["INPUT0", "INPUT1"], ["OUTPUT0", "OUTPUT1"])
MODELS = {
    "simple": ("add_sub", declared("INT32", [-1, 16], *SUM, batchSize=8)),
    "simple_fp32": ("add_sub", declared("FP32", [-1, 16], *SUM, batchSize=8)),
    "upper": ("upper", declared("BYTES", [-1], ["STRINGS"], ["UPPER"], batchSize=4)),
    "same": ("same", ""),
    "patient": ("same", declared("FP32", [-1], ["x"], ["x"], batchSize=8, maxBatchDelay=600_000)),
    "told": ("told", ""),
    "repeat": ("repeat", "batchSize: 4"),
    "later": ("later", ""),
    "steps": ("steps", ""),
    "accumulate": ("accumulate", "sequenceBatching: true\nsequenceMaxIdleMSec: 60000\nbatchSize: 4"),
    "hold": ("hold", ""),
    "mortal": ("mortal", ""),
    "enveloped": ("doubled", "serviceEnvelope: kservev2"),
}


@pytest.fixture(scope="session")
def load_gate(tmp_path_factory):
    """Where the model `waits` waits while it loads."""
    return Gate(tmp_path_factory.mktemp("gates"))


@pytest.fixture(scope="session")
def model_store(tmp_path_factory, archive, load_gate):
    """The archives of all models, and some that are not loaded."""
    store = tmp_path_factory.mktemp("store")
    others = {"spare": ("same", ""), "broken": ("fail_load", ""), "waits": ("waits", f"gate: {load_gate.path}")}
    for name, (handler, config) in {**MODELS, **others}.items():
        os.rename(archive(handler, name=name, config=config), store / f"{name}.mar")
    return store


@pytest.fixture(scope="session", params=["on", "off"], ids=lambda lane: f"lane_{lane}")
def triton_server(request, model_store):
    """A server that takes all of Triton's calls on its inference port; it runs all models."""
    servers = Servers()
    options = ("--model-store", model_store, "--allow-repository-api", "--allow-client-shm", MEMORY_PREFIX, "--fast-lane", request.param)
    yield servers(*options, *(f"{name}.mar" for name in MODELS))
    servers.stop()


@pytest.fixture(scope="session")
def triton(triton_server):
    """Triton's client of it."""
    with grpcclient.InferenceServerClient(triton_server.inference) as client:
        yield client
