"""A client without proto files, `buf curl`, on a real server: what it sees and does through reflection alone."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from servers import numbers

BUF = Path(sys.executable).parent / "buf"
INFERENCE, MANAGEMENT = "servegrpc.v1.InferenceService", "servegrpc.v1.ManagementService"
TORCHSERVE = "org.pytorch.serve.grpc"
OF_INFERENCE = {INFERENCE, "inference.GRPCInferenceService", f"{TORCHSERVE}.inference.InferenceAPIsService"}
OF_INFERENCE |= {f"{TORCHSERVE}.openinference.GRPCInferenceService"}
OF_MANAGEMENT = {MANAGEMENT, "inference.GRPCInferenceService", f"{TORCHSERVE}.management.ManagementAPIsService"}
COMMON = {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}


@pytest.fixture(params=["grpc-v1", "grpc-v1alpha"])
def reflection(request):
    return request.param


def buf_curl(*arguments):
    command = [BUF, "curl", "--http2-prior-knowledge", "--protocol", "grpc", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def call(address, method, body, *flags):
    """Call a method with a JSON body; returns the reply as JSON."""
    result = buf_curl(*flags, "-d", json.dumps(body), f"http://{address}/{method}")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def list_services(address, reflection):
    result = buf_curl("--list-services", "--reflect-protocol", reflection, f"http://{address}")
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.fixture(scope="module")
def echo(register):
    return register("echo")


def test_services(server, reflection):
    """Both ports, both versions of reflection → health, reflection and the port's own services, under the names they bear upstream."""
    assert list_services(server.inference, reflection) == OF_INFERENCE | COMMON
    assert list_services(server.management, reflection) == OF_MANAGEMENT | COMMON


@pytest.mark.parametrize("value", [{"text": "grüße"}, {"json": {"a": [1, "two", None]}}, {"json": 7}, {"json": None}], ids=str)
def test_predict(value, server, echo, reflection):
    """Text and JSON in → the same, readable, out."""
    body = {"modelName": echo, "inputs": {"data": value}, "requestId": "curl-1"}
    reply = call(server.inference, f"{INFERENCE}/Predict", body, "--reflect-protocol", reflection)
    assert reply["output"] == value
    assert (reply["modelName"], reply["modelVersion"], reply["requestId"]) == (echo, "1.0", "curl-1")
    assert reply["timing"]["batchSize"] == 1
    assert reply["timing"]["handler"].endswith("s")


def test_predict_stream_and_session(server, echo):
    """The streaming methods → a message for each request."""
    body = {"modelName": echo, "inputs": {"data": {"text": "x"}}}
    assert call(server.inference, f"{INFERENCE}/PredictStream", body)["output"] == {"text": "x"}
    assert call(server.inference, f"{INFERENCE}/PredictSession", body)["output"] == {"text": "x"}


def test_torchserve(server, echo, reflection):
    """TorchServe's services, by reflection alone → a prediction, and a description of the model."""
    body = {"modelName": echo, "input": {"data": base64.b64encode(b"x").decode()}}
    flags = ("--reflect-protocol", reflection)
    reply = call(server.inference, f"{TORCHSERVE}.inference.InferenceAPIsService/Predictions", body, *flags)
    assert base64.b64decode(reply["prediction"]) == b"x"
    reply = call(server.management, f"{TORCHSERVE}.management.ManagementAPIsService/DescribeModel", {"modelName": echo}, *flags)
    assert json.loads(reply["msg"])[0]["modelName"] == echo


def test_open_inference(server, echo):
    """The Open Inference service under both of its names → the model is ready."""
    for service in ("inference.GRPCInferenceService", f"{TORCHSERVE}.openinference.GRPCInferenceService"):
        assert call(server.inference, f"{service}/ModelReady", {"name": echo}) == {"ready": True}


def test_picture(server, client, digits_archive):
    """A picture as base64 → the digit as JSON."""
    client.register(str(digits_archive), name="digits-curl")
    picture = (Path(__file__).parents[2] / "examples" / "digits" / "samples" / "seven.png").read_bytes()
    body = {"modelName": "digits-curl", "inputs": {"data": {"binary": base64.b64encode(picture).decode()}}}
    output = call(server.inference, f"{INFERENCE}/Predict", body)["output"]["json"]
    client.unregister("digits-curl")
    assert (output["digit"], output["name"]) == (7, "seven")


def test_a_models_life(server, archive):
    """Register, look, scale to 4, to 0 and back, unregister → each reply shows the model as it is then."""
    name = f"curl-{next(numbers)}"

    def manage(method, **body):
        return call(server.management, f"{MANAGEMENT}/{method}", body).get("model")

    def ready(model):
        (version,) = model["versions"]
        return [worker["state"] for worker in version.get("workers", [])]

    registered = manage("RegisterModel", archive=str(archive("echo", name=name)), settings={"batchSize": 4})
    assert (registered["name"], registered["defaultVersion"], ready(registered)) == (name, "1.0", ["WORKER_STATE_READY"])
    assert registered["versions"][0]["state"] == "MODEL_STATE_ACTIVE"
    settings = {"batchSize": 4, "maxBatchDelay": "0s", "responseTimeout": "120s", "startupTimeout": "120s", "maxQueueSize": 1000}
    assert registered["versions"][0]["settings"] == settings
    assert ready(manage("GetModel", modelName=name)) == ["WORKER_STATE_READY"]
    assert ready(manage("ScaleModel", modelName=name, workers=4)) == ["WORKER_STATE_READY"] * 4
    assert ready(manage("ScaleModel", modelName=name, workers=0)) == []
    assert ready(manage("ScaleModel", modelName=name, workers=1)) == ["WORKER_STATE_READY"]
    assert manage("UnregisterModel", modelName=name) is None
    names = {model["name"] for model in call(server.management, f"{MANAGEMENT}/ListModels", {}).get("models", [])}
    assert name not in names


@pytest.mark.parametrize("port", ["inference", "management"])
def test_health(port, server):
    """The health check, on both ports → SERVING."""
    assert call(getattr(server, port), "grpc.health.v1.Health/Check", {}) == {"status": "SERVING"}


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"modelName": "nobody", "inputs": {"data": {"text": "x"}}}, grpc.StatusCode.NOT_FOUND, 'no model \\"nobody\\"'),
        ({"modelName": "{echo}", "modelVersion": "9", "inputs": {"data": {"text": "x"}}}, grpc.StatusCode.NOT_FOUND, "versions: 1.0"),
        ({"modelName": "{echo}"}, grpc.StatusCode.INVALID_ARGUMENT, "inputs is empty"),
        ({"modelName": "{echo}", "inputs": {"body": {"text": "x"}}}, grpc.StatusCode.INTERNAL, "the handler failed"),
    ],
    ids=["model", "version", "inputs", "handler"],
)
def test_error(body, code, words, server, echo):
    """A call that fails → exit with the status code times 8, and the message and ErrorInfo on stderr."""
    body = {**body, "modelName": body["modelName"].format(echo=echo)}
    result = buf_curl("-d", json.dumps(body), f"http://{server.inference}/{INFERENCE}/Predict")
    assert result.returncode == 8 * code.value[0]
    assert words in result.stderr
    assert "google.rpc.ErrorInfo" in result.stderr


def test_unknown_field(server, echo):
    """A field that is not in the proto → refused by the client, which knows the proto by reflection."""
    result = buf_curl("-d", json.dumps({"modelName": echo, "input": {}}), f"http://{server.inference}/{INFERENCE}/Predict")
    assert result.returncode != 0
    assert 'unknown field "input"' in result.stderr


@pytest.mark.parametrize("port", ["inference", "management"])
def test_methods(port, server):
    """All methods of all services listed → described, reflection's own too."""
    result = buf_curl("--list-methods", f"http://{getattr(server, port)}")
    assert result.returncode == 0, result.stderr
    assert "grpc.reflection.v1.ServerReflection/ServerReflectionInfo" in result.stdout.split()


@pytest.mark.parametrize("detail", ["ErrorInfo", "RetryInfo", "BadRequest"])
def test_error_details(server, reflection, detail):
    """The type of an error's detail → described on both ports, for clients that show details they can look up, as grpcurl does."""
    method = f"grpc.reflection.{reflection.removeprefix('grpc-')}.ServerReflection/ServerReflectionInfo"
    for address in (server.inference, server.management):
        reply = call(address, method, {"fileContainingSymbol": f"google.rpc.{detail}"})
        assert reply["fileDescriptorResponse"]["fileDescriptorProto"]
