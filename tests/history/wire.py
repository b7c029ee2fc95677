"""The three dialects, for a client that tries nothing twice: bytes as a request, a reply as bytes, an error as an outcome."""

import struct

import grpc

from servegrpc.client.errors import call_error
from servegrpc.compat.open_inference import infer_pb2 as oip
from servegrpc.compat.torchserve import inference_pb2 as ts
from servegrpc.v1 import inference_pb2 as v1

OPTIONS = (("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
PATHS = {
    "native": "/servegrpc.v1.InferenceService/Predict",
    "native stream": "/servegrpc.v1.InferenceService/PredictStream",
    "native session": "/servegrpc.v1.InferenceService/PredictSession",
    "torchserve": "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions",
    "torchserve stream": "/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions",
    "open inference": "/inference.GRPCInferenceService/ModelInfer",
    "open inference stream": "/inference.GRPCInferenceService/ModelStreamInfer",
}
TORCHSERVE_TEXTS = (  # TorchServe sends no reasons
    ("Worker died", "WORKER_LOST"),
    ("has no worker to serve", "NO_WORKER"),
    ("Model not found", "MODEL_NOT_FOUND"),
    ("Model version", "VERSION_NOT_FOUND"),
)
STREAM_TEXTS = (  # a stream of Open Inference has texts only
    ("was run twice", "POISON_REQUEST"),
    ("ended while it ran the request", "WORKER_LOST"),
    ("took longer than", "RESPONSE_TIMEOUT"),
    ("wait already", "QUEUE_FULL"),
)


def request(dialect, model, version, payload, request_id, sequence=None):
    """Return a serialized request; `sequence` is Open Inference's (id, whether it starts, whether it ends)."""
    if dialect == "torchserve":
        return ts.PredictionsRequest(model_name=model, model_version=version, input={"data": payload}).SerializeToString()
    if dialect == "open inference":
        message = oip.ModelInferRequest(model_name=model, model_version=version, id=request_id)
        message.inputs.add(name="data", datatype="BYTES", shape=[1])
        message.raw_input_contents.append(struct.pack("<I", len(payload)) + payload)
        if sequence:
            name, starts, ends = sequence
            message.parameters["sequence_id"].string_param = name
            message.parameters["sequence_start"].bool_param = starts
            message.parameters["sequence_end"].bool_param = ends
        return message.SerializeToString()
    inputs = {"data": {"binary": payload}}
    return v1.PredictRequest(model_name=model, model_version=version, inputs=inputs, request_id=request_id).SerializeToString()


def result(dialect, raw):
    """Return the handler's bytes in a reply, with the id and the version that the reply names, empty where its dialect has none."""
    if dialect == "torchserve":
        return ts.PredictionResponse.FromString(raw).prediction, "", ""
    if dialect == "open inference":
        reply = oip.ModelInferResponse.FromString(raw)
        (data,) = reply.raw_output_contents
        assert len(data) == 4 + struct.unpack_from("<I", data)[0], "a torn reply"
        return data[4:], reply.id, reply.model_version
    reply = v1.PredictResponse.FromString(raw)
    return reply.output.binary, reply.request_id, reply.model_version


def stream_result(raw):
    """Return the id that a message of Open Inference's stream is for, its reply as bytes, and how it failed, if so, with the text."""
    message = oip.ModelStreamInferResponse.FromString(raw)
    failed = next((reason for text, reason in STREAM_TEXTS if text in message.error_message), "UNKNOWN") if message.error_message else ""
    return message.infer_response.id, message.infer_response.SerializeToString(), failed, message.error_message


def outcome(error):
    """Return the name of how a call ended: the reason, or what TorchServe's text stands for, or else the code."""
    found = call_error(error)
    if found.reason == "QUEUE_FULL" and found.retry_after_seconds is None:
        return "QUEUE_FULL without a time", found.message
    if found.reason:
        return found.reason, found.message
    named = (reason for text, reason in TORCHSERVE_TEXTS if text in found.message)
    return next(named, found.code.name), found.message


def channel(address):
    """Connect, trying nothing twice."""
    return grpc.aio.insecure_channel(address, OPTIONS)
