"""Reads handwritten digits through the generated stubs alone: python raw_stubs.py ADDRESS MANAGEMENT [PICTURE].

This is what a client in any language does; `sync_client.py` is the short way in Python.
"""

import struct
import sys
from pathlib import Path

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servegrpc.v1.inference_pb2 import PredictRequest, PredictResponse, PredictSessionRequest, PredictStreamRequest
from servegrpc.v1.inference_pb2_grpc import InferenceServiceStub
from servegrpc.v1.management_pb2 import ListModelsRequest, RegisterModelRequest, UnregisterModelRequest, WatchModelsRequest
from servegrpc.v1.management_pb2_grpc import ManagementServiceStub
from servegrpc.v1.value_pb2 import DATA_TYPE_FP32, Tensor, Value

SAMPLE = Path(__file__).parents[2] / "examples" / "digits" / "samples" / "seven.png"
# gRPC takes replies of 4 MiB by default; tensors are soon larger.
OPTIONS = [("grpc.max_receive_message_length", 64 * 1024 * 1024)]
# A 1: an upright bar, as the typed array [1, 8, 8] that the model takes without a picture's detour. "<": little-endian.
BAR = Value(tensor=Tensor(data_type=DATA_TYPE_FP32, shape=[1, 8, 8], data=struct.pack("<64f", *[0, 0, 0, 1, 1, 0, 0, 0] * 8)))


def show(step: str, reply: PredictResponse) -> None:
    fields = reply.output.json.struct_value.fields
    digit, name = fields["digit"].number_value, fields["name"].string_value
    print(f"{step}: digit {digit:g}, {name}, by {reply.model_name} {reply.model_version}")


def reason_of(error: grpc.Call) -> str:
    """Return the reason in the error's details, a name of servegrpc.v1.ErrorReason."""
    trailers = dict(error.trailing_metadata())
    for detail in status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b"")).details:
        error_info = error_details_pb2.ErrorInfo()
        if detail.Unpack(error_info):
            return str(error_info.reason)
    return ""


def walk(channel: grpc.Channel, management: grpc.Channel, picture: Value) -> None:
    inference, models = InferenceServiceStub(channel), ManagementServiceStub(management)

    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    print("server:", health_pb2.HealthCheckResponse.ServingStatus.Name(health.status))

    listed = models.ListModels(ListModelsRequest(), timeout=10).models
    print("models:", ", ".join(model.name for model in listed))

    show("picture", inference.Predict(PredictRequest(model_name="digits", inputs={"data": picture}), timeout=10))

    show("tensor", inference.Predict(PredictRequest(model_name="digits", inputs={"data": BAR}), timeout=10))

    for part in inference.PredictStream(PredictStreamRequest(model_name="digits", inputs={"data": picture}), timeout=10):
        show("stream", part)

    requests = [PredictSessionRequest(model_name="digits", inputs={"data": picture}), PredictSessionRequest(inputs={"data": BAR})]
    for reply in inference.PredictSession(iter(requests), timeout=10):
        show("session", reply)

    try:
        list(models.WatchModels(WatchModelsRequest(), timeout=0.2))  # goes on until its deadline
    except grpc.RpcError as error:
        print("deadline:", error.code().name)
    else:
        sys.exit("watching ended by itself")

    try:
        inference.Predict(PredictRequest(model_name="no-such-model", inputs={"data": picture}), timeout=10)
    except grpc.RpcError as error:
        print("no-such-model:", error.code().name, reason_of(error))
    else:
        sys.exit("no-such-model answered")

    archive = next(model for model in listed if model.name == "digits").versions[0].archive
    registered = models.RegisterModel(RegisterModelRequest(archive=archive, model_name="digits-python-raw"), timeout=60)
    print("registered:", registered.model.name, registered.model_version)
    models.UnregisterModel(UnregisterModelRequest(model_name="digits-python-raw"), timeout=60)
    print("unregistered: digits-python-raw")


def main(address: str, management: str, picture: str | Path = SAMPLE) -> None:
    with grpc.insecure_channel(address, OPTIONS) as channel, grpc.insecure_channel(management) as management_channel:
        walk(channel, management_channel, Value(binary=Path(picture).read_bytes()))
    print("python-raw OK")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python raw_stubs.py ADDRESS MANAGEMENT [PICTURE]")
    main(*sys.argv[1:])
