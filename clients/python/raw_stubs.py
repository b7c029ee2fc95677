"""Reads a handwritten digit with the generated stubs alone: python raw_stubs.py ADDRESS [PICTURE].

This is what a client in any language does; `sync_client.py` is the short way in Python.
"""

import sys
from pathlib import Path

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servegrpc.v1 import inference_pb2, inference_pb2_grpc, value_pb2

SAMPLE = Path(__file__).parents[2] / "examples" / "digits" / "samples" / "seven.png"
# gRPC takes replies of 4 MiB by default; tensors are soon larger.
OPTIONS = [("grpc.max_receive_message_length", 64 * 1024 * 1024)]


def reason_of(error: grpc.Call) -> str:
    """Return the reason in the error's details, a name of servegrpc.v1.ErrorReason."""
    trailers = dict(error.trailing_metadata())
    for detail in status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b"")).details:
        error_info = error_details_pb2.ErrorInfo()
        if detail.Unpack(error_info):
            return str(error_info.reason)
    return ""


def main(address: str, picture: str | Path = SAMPLE) -> None:
    with grpc.insecure_channel(address, OPTIONS) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        print("server:", health_pb2.HealthCheckResponse.ServingStatus.Name(health.status))

        inference = inference_pb2_grpc.InferenceServiceStub(channel)
        inputs = {"data": value_pb2.Value(binary=Path(picture).read_bytes())}
        reply = inference.Predict(inference_pb2.PredictRequest(model_name="digits", inputs=inputs), timeout=10)
        result = json_format.MessageToDict(reply.output.json)
        print(f"digit {result['digit']:g}, probability {result['probability']:g}, read by digits {reply.model_version}")

        try:
            inference.Predict(inference_pb2.PredictRequest(model_name="no-such-model", inputs=inputs), timeout=10)
        except grpc.RpcError as error:
            print("no-such-model:", error.code().name, reason_of(error))
        else:
            sys.exit("no-such-model answered")
    print("python-raw OK")


if __name__ == "__main__":
    main(*sys.argv[1:])
