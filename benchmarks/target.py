"""How to call one model on one running server, whatever it speaks."""

from __future__ import annotations

import http.client
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol

import grpc

from benchmarks import wire
from benchmarks.models import Model

CALL_SECONDS = 60
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 20),  # a server that starts is asked again at once
    ("grpc.max_reconnect_backoff_ms", 20),
]


class Target(Protocol):
    """A model on a running server."""

    framing_bytes: ClassVar[int]  # what the protocol adds to each reply, in the count of h2load

    def send(self, index: int) -> bytes:
        """Send the model's payload of that index and return the raw reply."""

    def result(self, reply: bytes) -> bytes:
        """Return the result in a raw reply."""

    def right(self, index: int) -> bytes:
        """Return what the result must be."""

    def body(self) -> bytes:
        """Return the HTTP body that h2load posts."""

    def h2load_arguments(self, concurrency: int) -> list[str]:
        """Return connections, headers and URL for h2load."""


@dataclass(frozen=True)
class Dialect:
    """A gRPC method, the request around a payload and the result inside a reply."""

    path: str
    encode: Callable[[Model, bytes], bytes]
    decode: Callable[[bytes], bytes]


@dataclass(frozen=True)
class GrpcTarget:
    """A model behind gRPC: one connection for all calls."""

    address: str
    dialect: Dialect
    model: Model
    framing_bytes: ClassVar[int] = len(wire.frame(b""))

    @cached_property
    def _method(self) -> grpc.UnaryUnaryMultiCallable:
        return grpc.insecure_channel(self.address, OPTIONS).unary_unary(self.dialect.path)

    def send(self, index: int) -> bytes:
        """See Target."""
        return self._method(self.dialect.encode(self.model, self.model.payloads[index]), timeout=CALL_SECONDS)

    def result(self, reply: bytes) -> bytes:
        """See Target."""
        return self.dialect.decode(reply)

    def right(self, index: int) -> bytes:
        """See Target."""
        return self.model.payloads[index][:100] if self.dialect is ECHO else self.model.replies[index]

    def body(self) -> bytes:
        """See Target."""
        return wire.frame(self.dialect.encode(self.model, self.model.payloads[0]))

    def h2load_arguments(self, concurrency: int) -> list[str]:
        """See Target."""
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        return ["-c1", f"-m{concurrency}", *headers, f"http://{self.address}{self.dialect.path}"]


@dataclass(frozen=True)
class HttpTarget:
    """A model behind HTTP/1.1 with raw bodies; h2load opens one connection for each concurrent request."""

    address: str
    path: str
    model: Model
    framing_bytes: ClassVar[int] = 0

    def send(self, index: int) -> bytes:
        """See Target; on a connection of its own, so that none is left open when the server is to end."""
        with closing(http.client.HTTPConnection(self.address, timeout=CALL_SECONDS)) as connection:
            connection.request("POST", self.path, self.model.payloads[index])
            response = connection.getresponse()
            body = response.read()
        return body if response.status == 200 else b"HTTP %d: %s" % (response.status, body)

    def result(self, reply: bytes) -> bytes:
        """See Target."""
        return reply

    def right(self, index: int) -> bytes:
        """See Target."""
        return self.model.replies[index]

    def body(self) -> bytes:
        """See Target."""
        return self.model.payloads[0]

    def h2load_arguments(self, concurrency: int) -> list[str]:
        """See Target."""
        return ["--h1", f"-c{concurrency}", "-m1", f"http://{self.address}{self.path}"]


def _servegrpc(model: Model, payload: bytes) -> bytes:
    value = wire.message((1, payload))
    if model.shape:
        value = wire.message((4, wire.message((1, 11), (2, model.shape), (3, payload))))  # 11: DATA_TYPE_FP32
    return wire.message((1, model.name), (3, wire.message((1, "data"), (2, value))))


def _torchserve(model: Model, payload: bytes) -> bytes:
    return wire.message((1, model.name), (3, wire.message((1, "data"), (2, payload))))


def _open_inference(model: Model, payload: bytes) -> bytes:
    if not model.shape:
        return _open_inference_bytes(model, payload)
    return wire.message((1, "model"), (5, wire.message((1, "data"), (2, "FP32"), (3, (1, *model.shape)))), (7, payload))


def _open_inference_bytes(_model: Model, payload: bytes) -> bytes:
    tensor = wire.message((1, "data"), (2, "BYTES"), (3, (1, 1)))
    return wire.message((1, "model"), (5, tensor), (7, struct.pack("<I", len(payload)) + payload))


def _open_inference_result(reply: bytes) -> bytes:
    raw = wire.field(reply, 6)
    return raw[4:] if raw else wire.field(reply, 5, 5, 8)


SERVEGRPC = Dialect("/servegrpc.v1.InferenceService/Predict", _servegrpc, lambda reply: wire.field(reply, 1, 1))
TORCHSERVE = Dialect("/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions", _torchserve, lambda reply: wire.field(reply, 1))
OPEN_INFERENCE = Dialect("/inference.GRPCInferenceService/ModelInfer", _open_inference, _open_inference_result)
OPEN_INFERENCE_BYTES = replace(OPEN_INFERENCE, encode=_open_inference_bytes)
ECHO = Dialect("/bench.Echo/Call", lambda _model, payload: payload, lambda reply: reply)
