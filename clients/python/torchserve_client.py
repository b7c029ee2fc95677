"""Reads handwritten digits as TorchServe's clients do: python torchserve_client.py ADDRESS MANAGEMENT [PICTURE].

A client that was made for TorchServe has stubs of its own and needs no change but the addresses. This one borrows the server's messages and
calls TorchServe's methods by name.
"""

import json
import sys
from pathlib import Path
from queue import SimpleQueue

import grpc
from google.protobuf.empty_pb2 import Empty

from servegrpc.compat.torchserve.inference_pb2 import PredictionResponse, PredictionsRequest, TorchServeHealthResponse
from servegrpc.compat.torchserve.management_pb2 import (
    DescribeModelRequest,
    ListModelsRequest,
    ManagementResponse,
    RegisterModelRequest,
    UnregisterModelRequest,
)

SAMPLE = Path(__file__).parents[2] / "examples" / "digits" / "samples" / "seven.png"
INFERENCE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
MANAGEMENT = "/org.pytorch.serve.grpc.management.ManagementAPIsService/"


def show(step: str, reply: PredictionResponse) -> None:
    result = json.loads(reply.prediction)
    print(f"{step}: digit {result['digit']}, {result['name']}")


def walk(channel: grpc.Channel, management: grpc.Channel, picture: bytes) -> None:
    encode, decode = PredictionsRequest.SerializeToString, PredictionResponse.FromString
    ping = channel.unary_unary(INFERENCE + "Ping", Empty.SerializeToString, TorchServeHealthResponse.FromString)
    predictions = channel.unary_unary(INFERENCE + "Predictions", encode, decode)
    stream_predictions = channel.unary_stream(INFERENCE + "StreamPredictions", encode, decode)
    stream_predictions_2 = channel.stream_stream(INFERENCE + "StreamPredictions2", encode, decode)

    def manage(method: str, request: object) -> str:
        call = management.unary_unary(MANAGEMENT + method, type(request).SerializeToString, ManagementResponse.FromString)
        return call(request, timeout=60).msg

    request = PredictionsRequest(model_name="digits", input={"data": picture})

    print("server:", json.loads(ping(Empty(), timeout=10).health)["status"])

    listed = json.loads(manage("ListModels", ListModelsRequest()))["models"]
    print("models:", ", ".join(model["modelName"] for model in listed))

    show("picture", predictions(request, timeout=10))

    for part in stream_predictions(request, timeout=10):
        show("stream", part)

    for reply in stream_predictions_2(iter([request, request]), timeout=10):
        show("session", reply)

    none_comes: SimpleQueue = SimpleQueue()
    try:
        list(stream_predictions_2(iter(none_comes.get, None), timeout=0.2))  # waits for requests until its deadline
    except grpc.RpcError as error:
        print("deadline:", error.code().name)
    else:
        sys.exit("the stream ended by itself")
    finally:
        none_comes.put(None)

    try:
        predictions(PredictionsRequest(model_name="no-such-model", input={"data": picture}), timeout=10)
    except grpc.RpcError as error:
        print("no-such-model:", error.code().name, error.details().splitlines()[0])
    else:
        sys.exit("no-such-model answered")

    (version,) = json.loads(manage("DescribeModel", DescribeModelRequest(model_name="digits")))
    archive = RegisterModelRequest(url=version["modelUrl"], model_name="digits-python-torchserve", initial_workers=1, synchronous=True)
    print("registered:", manage("RegisterModel", archive))
    print("unregistered:", manage("UnregisterModel", UnregisterModelRequest(model_name="digits-python-torchserve")))


def main(address: str, management: str, picture: str | Path = SAMPLE) -> None:
    with grpc.insecure_channel(address) as channel, grpc.insecure_channel(management) as management_channel:
        walk(channel, management_channel, Path(picture).read_bytes())
    print("python-torchserve OK")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python torchserve_client.py ADDRESS MANAGEMENT [PICTURE]")
    main(*sys.argv[1:])
