"""Triton's client, from the folder that tools/triton_env.py makes: it is not installed beside what the package needs."""

import os
import sys
import urllib.request
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "build" / "tritonclient"
if not FOLDER.is_dir():
    raise RuntimeError("Triton's client is missing; make it by: python tools/triton_env.py")
sys.path.append(str(FOLDER))

import tritonclient.grpc as grpcclient  # noqa: E402
import tritonclient.grpc.aio as aioclient  # noqa: E402
from tritonclient.grpc import model_config_pb2, service_pb2  # noqa: E402
from tritonclient.utils import InferenceServerException, deserialize_bytes_tensor, serialize_byte_tensor, shared_memory  # noqa: E402

MEMORY_PREFIX = f"servegrpc-test-{os.getpid()}"  # of all shared memory that the tests make

__all__ = [
    "MEMORY_PREFIX",
    "InferenceServerException",
    "accepted",
    "aioclient",
    "count",
    "deserialize_bytes_tensor",
    "grpcclient",
    "model_config_pb2",
    "serialize_byte_tensor",
    "service_pb2",
    "shared_memory",
]


def tensor(name, array, datatype=None):
    """Return an input of a client, with its data."""
    datatypes = {"float32": "FP32", "int32": "INT32", "object": "BYTES"}
    value = grpcclient.InferInput(name, list(array.shape), datatype or datatypes[str(array.dtype)])
    value.set_data_from_numpy(array)
    return value


def outputs(*names, **kwargs):
    """Return requested outputs of a client."""
    return [grpcclient.InferRequestedOutput(name, **kwargs) for name in names]


def count(server, metric, model):
    """Return the sum of a model's numbers of a metric."""
    with urllib.request.urlopen(f"http://{server.metrics}/metrics") as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric) and f'model_name="{model}"' in line)


def accepted(server, model):
    """Return how many requests of a model have been queued, those that a worker has got among them."""
    return sum(count(server, metric, model) for metric in ("servegrpc_queue_seconds_count", "servegrpc_queued_requests"))
