"""TorchServe's stubs under their upstream names, made by protoc in a pool of their own."""

import functools
import json
import tempfile
from pathlib import Path

import google.rpc.status_pb2
import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

HERE = Path(__file__).parent
INFERENCE = "org.pytorch.serve.grpc.inference"
MANAGEMENT = "org.pytorch.serve.grpc.management"


@functools.cache
def pool():
    """Compile the definitions beside this file."""
    site_packages, own = Path(google.rpc.status_pb2.__file__).parents[2], Path(protoc.__file__).parent / "_proto"
    with tempfile.NamedTemporaryFile() as out:
        files = ("inference.proto", "management.proto")
        paths = [f"-I{path}" for path in (HERE, site_packages, own)]
        assert protoc.main(["protoc", *paths, "--include_imports", f"--descriptor_set_out={out.name}", *files]) == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(Path(out.name).read_bytes()).file
    made = descriptor_pool.DescriptorPool()
    for file in files:
        made.Add(file)
    return made


def message(name):
    """Return the class of a message, by its upstream name."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


class TorchServeClient:
    """Both services of a server, as a client of TorchServe sees them."""

    def __init__(self, server):
        self._channels = {INFERENCE: grpc.insecure_channel(server.inference), MANAGEMENT: grpc.insecure_channel(server.management)}
        self.request = message(f"{INFERENCE}.PredictionsRequest")
        self.ping = self._method(INFERENCE, "InferenceAPIsService", "Ping")
        self.predictions = self._method(INFERENCE, "InferenceAPIsService", "Predictions")
        self.stream_predictions = self._method(INFERENCE, "InferenceAPIsService", "StreamPredictions")
        self.stream_predictions2 = self._method(INFERENCE, "InferenceAPIsService", "StreamPredictions2")

    def _method(self, package, service, name):
        method = pool().FindServiceByName(f"{package}.{service}").methods_by_name[name]
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        reply = message_factory.GetMessageClass(method.output_type)
        return getattr(self._channels[package], kind)(
            f"/{package}.{service}/{name}", lambda request: request.SerializeToString(), reply.FromString
        )

    def predict(self, model, data=b"x", version="", **inputs):
        """Predictions with one input; returns the bytes of the answer."""
        return self.predictions(
            self.request(model_name=model, model_version=version, input={"data": data, **inputs}), timeout=60
        ).prediction

    def manage(self, method, **fields):
        """Make a management call; returns the text of the answer."""
        return self._method(MANAGEMENT, "ManagementAPIsService", method)(message(f"{MANAGEMENT}.{method}Request")(**fields), timeout=60).msg

    def describe(self, model, **fields):
        """DescribeModel as Python objects."""
        return json.loads(self.manage("DescribeModel", model_name=model, **fields))

    def close(self):
        for channel in self._channels.values():
            channel.close()
