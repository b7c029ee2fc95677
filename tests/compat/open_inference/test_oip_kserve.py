"""The ClusterServingRuntime of docker/kserve: its command line, its probes, and what an InferenceService's clients see."""

import json
import re
import shutil
import socket
import struct
import urllib.request
from pathlib import Path

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from oip import grpcclient, service_pb2
from servers import Servers

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[3] / "docker" / "kserve"
RUNTIME = yaml.safe_load((FOLDER / "runtime.yaml").read_text())
CONTAINER = RUNTIME["spec"]["containers"][0]
CONFIG = """
inference_address=http://0.0.0.0:8085
management_address=http://0.0.0.0:8085
metrics_address=http://0.0.0.0:8082
grpc_inference_port=7070
grpc_management_port=7071
enable_envvars_config=true
install_py_dep_per_model=false
model_store=/mnt/models/model-store
model_snapshot={"name":"startup.cfg","modelCount":1,"models":{"doubled":{"1.0":{"defaultVersion":true,"marName":"doubled.mar",\
"minWorkers":1,"maxWorkers":1,"batchSize":1,"maxBatchDelay":10,"responseTimeout":120}}}}
"""


@pytest.fixture(scope="module")
def kserve(tmp_path_factory, archive):
    """The server as the runtime starts it, with the storage of an InferenceService; ports are free ones."""
    storage = tmp_path_factory.mktemp("models")
    (storage / "config").mkdir()
    (storage / "config" / "config.properties").write_text(CONFIG.replace("/mnt/models", str(storage)))
    (storage / "model-store").mkdir()
    shutil.copy(archive("doubled"), storage / "model-store")
    program, verb = CONTAINER["command"]
    arguments = [re.sub(r"=[\d.]+:\d+$", "=127.0.0.1:0", word.replace("/mnt/models", str(storage))) for word in CONTAINER["args"]]
    environment = {pair["name"]: pair["value"] for pair in CONTAINER["env"]}
    assert (program, verb) == ("servegrpc", "serve")
    servers = Servers()
    yield servers(*arguments, ports=(), environment=environment, cwd=storage)
    servers.stop()


def test_probes(kserve):
    """The runtime's probes → the server has started, is ready, and is alive."""
    for probe in ("startupProbe", "readinessProbe"):
        service = CONTAINER[probe]["grpc"].get("service", "")
        with grpc.insecure_channel(kserve.inference) as channel:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    assert "tcpSocket" in CONTAINER["livenessProbe"]
    host, port = kserve.inference.split(":")
    socket.create_connection((host, int(port)), timeout=20).close()


def test_ports():
    """Ports of probes, of the service and of the metrics → those that the command line names."""
    listens = dict(re.findall(r"--(\w+)-address=[\d.]+:(\d+)", " ".join(CONTAINER["args"])))
    ports = {CONTAINER[probe]["grpc"]["port"] for probe in ("startupProbe", "readinessProbe")}
    ports |= {CONTAINER["livenessProbe"]["tcpSocket"]["port"], CONTAINER["ports"][0]["containerPort"]}
    assert ports == {int(listens["inference"])}
    assert RUNTIME["spec"]["annotations"]["prometheus.kserve.io/port"] == listens["metrics"]
    assert "--management-address=127.0.0.1:7071" in CONTAINER["args"]


def test_metrics(kserve):
    """The path that Prometheus is told → metrics."""
    path = RUNTIME["spec"]["annotations"]["prometheus.kserve.io/path"]
    with urllib.request.urlopen(f"http://{kserve.metrics}{path}", timeout=20) as response:
        assert b"servegrpc_workers" in response.read()


def test_infer(kserve):
    """A request of the protocol to a handler behind the envelope → its answer as tensors."""
    request = service_pb2.ModelInferRequest(model_name="doubled", raw_input_contents=[struct.pack("<2f", 1, 2)])
    request.inputs.add(name="input-0", datatype="FP32", shape=[1, 2])
    with grpcclient.InferenceServerClient(kserve.inference) as client:
        assert client.is_model_ready("doubled")
        assert grpcclient.InferResult(client._client_stub.ModelInfer(request)).as_numpy("input-0").tolist() == [2, 4]


def test_runtime():
    """The runtime → what KServe asks of one that stands in for kserve-torchserve, and no privileges."""
    spec = RUNTIME["spec"]
    assert (RUNTIME["apiVersion"], RUNTIME["kind"]) == ("serving.kserve.io/v1alpha1", "ClusterServingRuntime")
    assert spec["protocolVersions"] == ["grpc-v2"]
    assert {"name": "pytorch", "version": "1", "autoSelect": True, "priority": 3} in spec["supportedModelFormats"]
    assert CONTAINER["name"] == "kserve-container"
    assert CONTAINER["securityContext"]["runAsNonRoot"]
    assert "{{" not in json.dumps(RUNTIME)  # KServe sets the label serviceEnvelope for a runtime named kserve-torchserve only
    assert f"runtime: {RUNTIME['metadata']['name']}" in (FOLDER / "README.md").read_text()
